//! What a process of the fleet does: this program, started again.
//!
//! It reads orders, one a line, and ends when there are no more:
//!
//! * `open <circuit>`: opens one, for long.
//! * `fail-all <time>`: at that time, fails through each circuit until it is open.
//! * `view`: reports its view of the fleet.
//! * `call <milliseconds>`: calls through all its circuits, at a steady pace, and reports the
//!   results.

use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bulkman_core::fleet::Fleet;
use bulkman_core::fleet::FleetEvent;
use bulkman_core::store::{Push, StoreSettings};
use bulkman_core::{Bulkhead, BulkheadConfig, CircuitBreaker, CircuitBreakerConfig, Runtime};
use bulkman_postgres::PostgresStore;
use bulkman_smol::SmolRuntime;
use bulkman_tokio::TokioRuntime;

use super::clock;
use super::report::{Calls, Report, Seen};
use super::role::{Executor, Link, Role, Tells};
use super::server::FOR_LONG;
use crate::contenders::{Failed, ready};
use crate::harness::measure::Distribution;
use crate::workers::Workers;

/// The command-line word under which this program is a process of a fleet.
pub(crate) const WORD: &str = "fleet-worker";

/// Variables of the environment: the server's URL has a password, which a command line would show.
pub(crate) const SERVER: &str = "BULKMAN_BENCH_SERVER";
pub(crate) const NAMESPACE: &str = "BULKMAN_BENCH_NAMESPACE";

/// Runs the commands.
///
/// # Errors
///
/// When the role, or an order, can't be understood.
pub(crate) fn run(words: &[&str]) -> Result<ExitCode, Box<dyn Error>> {
    let role = Role::parse(words)?;
    let workers = match role.executor {
        Executor::Tokio => Workers::tokio(1),
        Executor::Smol => Workers::smol(1),
    };
    let runtime: Arc<dyn Runtime> = match &workers {
        Workers::Tokio(runtime) => Arc::new(TokioRuntime::from_handle(runtime.handle().clone())),
        Workers::Smol { executor, .. } => {
            Arc::new(SmolRuntime::with_executor(Arc::clone(executor)))
        }
    };
    let circuits = (0..role.circuits)
        .map(|index| circuit(index, role, &runtime))
        .collect::<Result<Vec<_>, _>>()?;
    let fleet = join(role.link, &runtime)?;
    for (index, bulkhead) in circuits.iter().enumerate() {
        if let Some(fleet) = &fleet {
            fleet.attach(bulkhead)?;
        }
        if role.tells == Tells::Moves {
            workers.spawn(tell_moves(index, breaker(bulkhead).clone()));
        }
    }
    if let Some(fleet) = &fleet {
        workers.spawn(tell_events(fleet, role.tells == Tells::Endings));
        if !smol::block_on(fleet.wait_ready(Duration::from_secs(20))) {
            return Err("the store was not heard of".into());
        }
    }
    say(&Report::Ready);
    for line in io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["open", circuit] => {
                let circuit = circuit.parse()?;
                say(&Report::Decides {
                    at: clock::now(),
                    circuit,
                });
                breaker(&circuits[circuit]).open_for(FOR_LONG);
            }
            ["fail-all", moment] => {
                thread::sleep(Duration::from_nanos(moment.parse()?).saturating_sub(clock::now()));
                circuits.iter().for_each(fail);
            }
            ["view"] => say(&Report::View(view(fleet.as_ref(), &circuits))),
            ["call", milliseconds] => {
                let beside = (0..role.circuits).map(|index| circuit(index, role, &runtime));
                let beside = beside.collect::<Result<Vec<_>, _>>()?;
                let how_long = Duration::from_millis(milliseconds.parse()?);
                say(&Report::Calls(call(&circuits, &beside, how_long)));
            }
            _ => return Err(format!("what does {line:?} mean?").into()),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn circuit(
    index: usize,
    role: Role,
    runtime: &Arc<dyn Runtime>,
) -> Result<Bulkhead, Box<dyn Error>> {
    let rules = CircuitBreakerConfig::new()
        .failure_threshold(3)
        .success_threshold(2)
        .isolation_duration(role.isolation);
    let config = BulkheadConfig::new(format!("c{index}").as_str()).circuit_breaker(rules);
    Ok(Bulkhead::new(config, Arc::clone(runtime))?)
}

fn join(link: Link, runtime: &Arc<dyn Runtime>) -> Result<Option<Fleet>, Box<dyn Error>> {
    let settings = match link {
        Link::Listening => StoreSettings::new(),
        Link::Polling => StoreSettings::new().push(Push::Off),
        Link::Alone => return Ok(None),
    };
    let store = PostgresStore::builder(env::var(SERVER)?)
        .namespace(env::var(NAMESPACE)?)
        .settings(settings);
    Ok(Some(Fleet::new(store.build()?, Arc::clone(runtime))?))
}

/// As often as it takes: whatever is open already, by whomever, refuses.
fn fail(bulkhead: &Bulkhead) {
    while !ready(bulkhead.execute(async { Err::<(), _>(Failed) }))
        .is_err_and(|error| error.is_rejection())
    {}
}

fn view(fleet: Option<&Fleet>, circuits: &[Bulkhead]) -> super::report::View {
    let known = fleet
        .map(Fleet::snapshot)
        .map(|snapshot| snapshot.circuits)
        .unwrap_or_default();
    let states = known.iter().map(|circuit| (circuit.name.as_str(), circuit));
    let by_name: std::collections::BTreeMap<_, _> = states.collect();
    let seen = circuits.iter().map(|bulkhead| {
        let known = by_name.get(bulkhead.name().as_str());
        let state = known
            .and_then(|known| known.state)
            .map_or("unknown", |state| state.as_str());
        let epoch = known.map_or(0, |known| known.epoch.0);
        let local = breaker(bulkhead).state().as_str();
        (
            bulkhead.name().to_string(),
            Seen {
                state: state.to_owned(),
                epoch,
                local: local.to_owned(),
            },
        )
    });
    seen.collect()
}

/// Calls in bursts, as requests come; what is called fails for a third of each [`PERIOD`], for all
/// processes at the same time. Circuits of which no store knows take turns with the others.
fn call(circuits: &[Bulkhead], beside: &[Bulkhead], how_long: Duration) -> Calls {
    let until = Instant::now() + how_long;
    let (mut took, mut took_beside) = (Vec::new(), Vec::new());
    let mut rejected = 0;
    let mut next = fastrand::usize(..circuits.len());
    let mut burst_at = Instant::now() + BURSTS.mul_f64(fastrand::f64());
    while burst_at < until {
        for (circuits, took) in [(circuits, &mut took), (beside, &mut took_beside)] {
            thread::sleep(burst_at.saturating_duration_since(Instant::now()));
            burst_at += BURSTS / 2;
            let now = clock::now();
            for offset in 1..=BURST {
                let index = (next + offset) % circuits.len();
                let fails = fails(index, now);
                let before = Instant::now();
                let operation = async { if fails { Err(Failed) } else { Ok(()) } };
                let outcome = ready(circuits[index].execute(operation));
                took.push(before.elapsed().as_nanos() as f64);
                rejected += u64::from(outcome.is_err() && !fails);
            }
        }
        next += BURST;
    }
    let made = took.len() as u64;
    let [took, beside] = [took, took_beside].map(Distribution::of);
    Calls {
        made,
        rejected,
        p50: took.median,
        p99: took.p99,
        p999: took.p999,
        beside: beside.p99,
    }
}

fn fails(circuit: usize, now: Duration) -> bool {
    let shifted = now + PERIOD.mul_f64(circuit as f64 * 0.618_034);
    shifted.as_nanos() % PERIOD.as_nanos() < PERIOD.as_nanos() / 3
}

async fn tell_moves(circuit: usize, breaker: CircuitBreaker) {
    let mut events = breaker.events();
    // It ends with its circuit.
    drop(breaker);
    while let Some(event) = events.next().await {
        let at = clock::now();
        if let bulkman_core::circuit_breaker::CircuitEvent::Transition(transition) = event {
            say(&Report::Moved {
                at,
                circuit,
                state: transition.to.as_str().to_owned(),
            });
        }
    }
}

fn tell_events(fleet: &Fleet, endings: bool) -> impl Future<Output = ()> + Send + 'static {
    let mut events = fleet.events();
    async move {
        while let Some(event) = events.next().await {
            let at = clock::now();
            match event {
                FleetEvent::Degraded { .. } => say(&Report::Degraded { at }),
                FleetEvent::Synchronized { .. } => say(&Report::Synchronized { at }),
                FleetEvent::DecisionResolved { circuit, outcome } if endings => {
                    let circuit = circuit.as_str()[1..].parse().expect("a circuit's number");
                    say(&Report::Settled {
                        at,
                        circuit,
                        ending: format!("{outcome:?}").to_lowercase(),
                    });
                }
                _ => {}
            }
        }
    }
}

fn breaker(bulkhead: &Bulkhead) -> &CircuitBreaker {
    bulkhead.circuit_breaker().expect("it is configured")
}

/// Ends this process when the process that started it has ended.
fn say(report: &Report) {
    let _ = writeln!(io::stdout().lock(), "{report}");
}

/// What is called goes down and comes up in this time.
const PERIOD: Duration = Duration::from_secs(9);
/// A thousand calls a second.
const BURST: usize = 5;
const BURSTS: Duration = Duration::from_millis(5);
