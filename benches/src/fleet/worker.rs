//! A process of the fleet: this program, started again.
//!
//! It reads commands, one per line, and ends at the end of its input:
//!
//! * `open <circuit>`: opens a circuit for an hour.
//! * `fail-all <time>`: at that time, runs failing calls through each circuit until it is open.
//! * `steady <milliseconds>`: runs a successful call through each circuit at this interval, until
//!   the end.
//! * `view`: reports the view of all circuits.
//! * `call <milliseconds>`: runs calls through all circuits at a steady rate, and reports the
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
use super::report::{Calls, CircuitView, Report};
use super::role::{Executor, Reporting, Role, Updates};
use super::server::ONE_HOUR;
use crate::contenders::{Failed, ready};
use crate::harness::measure::Distribution;
use crate::workers::Workers;

/// The command-line argument with which this program is a process of a fleet.
pub(crate) const ARGUMENT: &str = "fleet-worker";

/// Environment variables, since the URL contains a password and command lines are public.
pub(crate) const SERVER: &str = "BULKMAN_BENCH_SERVER";
pub(crate) const NAMESPACE: &str = "BULKMAN_BENCH_NAMESPACE";

/// Runs a process in the role that `arguments` describe.
///
/// # Errors
///
/// Returns an error if the role or a command is invalid, or the store is unavailable.
pub(crate) fn run(arguments: &[&str]) -> Result<ExitCode, Box<dyn Error>> {
    let role = Role::parse(arguments)?;
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
    let fleet = join(role.updates, &runtime)?;
    for (index, bulkhead) in circuits.iter().enumerate() {
        if let Some(fleet) = &fleet {
            fleet.attach(bulkhead)?;
        }
        if role.reporting == Reporting::Transitions {
            workers.spawn(report_transitions(index, breaker(bulkhead).clone()));
        }
    }
    if let Some(fleet) = &fleet {
        workers.spawn(report_events(fleet, role.reporting == Reporting::Decisions));
        if !smol::block_on(fleet.wait_ready(Duration::from_secs(20))) {
            return Err("the store did not become ready".into());
        }
    }
    send(&Report::Ready);
    for line in io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["open", circuit] => {
                let circuit = circuit.parse()?;
                send(&Report::Opening {
                    at: clock::now(),
                    circuit,
                });
                breaker(&circuits[circuit]).open_for(ONE_HOUR);
            }
            ["fail-all", time] => {
                thread::sleep(Duration::from_nanos(time.parse()?).saturating_sub(clock::now()));
                circuits.iter().for_each(fail_until_open);
            }
            ["steady", milliseconds] => {
                let circuits = circuits.clone();
                let interval = Duration::from_millis(milliseconds.parse()?);
                thread::spawn(move || run_steadily(&circuits, interval));
            }
            ["view"] => send(&Report::View(view(fleet.as_ref(), &circuits))),
            ["call", milliseconds] => {
                let without_store = (0..role.circuits).map(|index| circuit(index, role, &runtime));
                let without_store = without_store.collect::<Result<Vec<_>, _>>()?;
                let duration = Duration::from_millis(milliseconds.parse()?);
                send(&Report::Calls(call(&circuits, &without_store, duration)));
            }
            _ => return Err(format!("unknown command: {line:?}").into()),
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
        .success_threshold(role.successes)
        .isolation_duration(role.isolation);
    let config = BulkheadConfig::new(format!("c{index}").as_str()).circuit_breaker(rules);
    Ok(Bulkhead::new(config, Arc::clone(runtime))?)
}

fn join(updates: Updates, runtime: &Arc<dyn Runtime>) -> Result<Option<Fleet>, Box<dyn Error>> {
    let settings = match updates {
        Updates::Listening => StoreSettings::new(),
        Updates::Polling => StoreSettings::new().push(Push::Off),
        Updates::None => return Ok(None),
    };
    let store = PostgresStore::builder(env::var(SERVER)?)
        .namespace(env::var(NAMESPACE)?)
        .settings(settings);
    Ok(Some(Fleet::new(store.build()?, Arc::clone(runtime))?))
}

/// Runs failing calls until the circuit rejects one. Another process may have opened it.
fn fail_until_open(bulkhead: &Bulkhead) {
    while !ready(bulkhead.execute(async { Err::<(), _>(Failed) }))
        .is_err_and(|error| error.is_rejection())
    {}
}

/// Runs a call through each circuit once in `interval`, at its own time.
fn run_steadily(circuits: &[Bulkhead], interval: Duration) {
    let phase = Duration::from_nanos(u64::from(std::process::id()) * 104_729_000);
    let mut order: Vec<_> = (0..circuits.len() as u32)
        .map(|index| {
            // Different in each process.
            let offset = phase + Duration::from_nanos(u64::from(index) * 618_033_989);
            (offset.as_nanos() % interval.as_nanos(), index as usize)
        })
        .collect();
    order.sort_unstable();
    let began = Instant::now();
    for round in 0.. {
        for (offset, index) in &order {
            let offset = Duration::from_nanos(u64::try_from(*offset).unwrap_or_default());
            let at = began + interval * round + offset;
            let wait = at.saturating_duration_since(Instant::now());
            if wait > TICK {
                thread::sleep(wait);
            }
            let _rejected = ready(circuits[*index].execute(async { Ok::<_, Failed>(()) }));
        }
    }
}

fn view(fleet: Option<&Fleet>, circuits: &[Bulkhead]) -> super::report::View {
    let shared = fleet
        .map(Fleet::snapshot)
        .map(|snapshot| snapshot.circuits)
        .unwrap_or_default();
    let states = shared
        .iter()
        .map(|circuit| (circuit.name.as_str(), circuit));
    let by_name: std::collections::BTreeMap<_, _> = states.collect();
    let views = circuits.iter().map(|bulkhead| {
        let shared = by_name.get(bulkhead.name().as_str());
        let state = shared
            .and_then(|shared| shared.state)
            .map_or("unknown", |state| state.as_str());
        let epoch = shared.map_or(0, |shared| shared.epoch.0);
        let local = breaker(bulkhead).state().as_str();
        (
            bulkhead.name().to_string(),
            CircuitView {
                state: state.to_owned(),
                epoch,
                local: local.to_owned(),
            },
        )
    });
    views.collect()
}

/// Runs calls in bursts, in turns through circuits with and without a store.
///
/// The dependencies fail for a third of each [`PERIOD`], at the same time for all processes.
fn call(circuits: &[Bulkhead], without_store: &[Bulkhead], duration: Duration) -> Calls {
    let until = Instant::now() + duration;
    let (mut took, mut took_without_store) = (Vec::new(), Vec::new());
    let mut rejected = 0;
    let mut next = fastrand::usize(..circuits.len());
    let mut burst_at = Instant::now() + BURST_INTERVAL.mul_f64(fastrand::f64());
    while burst_at < until {
        for (circuits, took) in [
            (circuits, &mut took),
            (without_store, &mut took_without_store),
        ] {
            thread::sleep(burst_at.saturating_duration_since(Instant::now()));
            burst_at += BURST_INTERVAL / 2;
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
    let count = took.len() as u64;
    let [took, without_store] = [took, took_without_store].map(Distribution::of);
    Calls {
        count,
        rejected,
        p50: took.median,
        p99: took.p99,
        p999: took.p999,
        p99_without_store: without_store.p99,
    }
}

fn fails(circuit: usize, now: Duration) -> bool {
    let shifted = now + PERIOD.mul_f64(circuit as f64 * 0.618_034);
    shifted.as_nanos() % PERIOD.as_nanos() < PERIOD.as_nanos() / 3
}

async fn report_transitions(circuit: usize, breaker: CircuitBreaker) {
    let mut events = breaker.events();
    // The events end with the last handle of the circuit.
    drop(breaker);
    while let Some(event) = events.next().await {
        let at = clock::now();
        if let bulkman_core::circuit_breaker::CircuitEvent::Transition(transition) = event {
            send(&Report::Transition {
                at,
                circuit,
                state: transition.to.as_str().to_owned(),
            });
        }
    }
}

fn report_events(fleet: &Fleet, decisions: bool) -> impl Future<Output = ()> + Send + 'static {
    let mut events = fleet.events();
    async move {
        while let Some(event) = events.next().await {
            let at = clock::now();
            match event {
                FleetEvent::Degraded { .. } => send(&Report::Degraded { at }),
                FleetEvent::Synchronized { .. } => send(&Report::Synchronized { at }),
                FleetEvent::DecisionResolved { circuit, outcome } if decisions => {
                    let circuit = circuit.as_str()[1..].parse().expect("a circuit's number");
                    send(&Report::DecisionResolved {
                        at,
                        circuit,
                        outcome: format!("{outcome:?}").to_lowercase(),
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

/// Sends a report.
///
/// Errors are ignored: the supervisor has ended, so the input ends and with it this process.
fn send(report: &Report) {
    let _ = writeln!(io::stdout().lock(), "{report}");
}

/// The precision of steady calls.
const TICK: Duration = Duration::from_millis(5);
/// The time in which a dependency fails and recovers once.
const PERIOD: Duration = Duration::from_secs(9);
/// The calls of a burst: a thousand calls per second in total.
const BURST: usize = 5;
const BURST_INTERVAL: Duration = Duration::from_millis(5);
