//! One process of the fleet: it runs commands and reports events.
//!
//! [`join`] shows how a service joins a fleet.

use std::error::Error;
use std::future::ready;
use std::io::{Write, stdin, stdout};
use std::process::exit;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bulkman::circuit_breaker::{CircuitEvent, CircuitEvents, CircuitState};
use bulkman::fleet::Fleet;
use bulkman::fleet::{FleetEvent, FleetEvents};
use bulkman::{
    Bulkhead, BulkheadConfig, BulkheadError, BulkheadManager, CircuitBreaker, Permit, TokioRuntime,
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::messages::{Carried, Circuit, Command, Report, View};
use super::server;
use super::{FAILURES, ISOLATION, OTHERS, PAYMENTS, PROBES};

pub(crate) async fn run() -> Result<(), Box<dyn Error>> {
    let mut commands = commands();
    let Some(Command::Join { url, schema }) = commands.recv().await else {
        return Err("not joined".into());
    };
    let manager = join(&url, &schema).await?;
    let worker = Worker::new(&manager)?;
    send(&Report::Ready);
    worker.run_commands(commands).await
}

async fn join(url: &str, schema: &str) -> Result<BulkheadManager, Box<dyn Error>> {
    let store = server::store(url, schema).build()?;
    let manager = BulkheadManager::new(TokioRuntime::new());
    manager.share_through(store)?;
    manager.create_bulkhead(
        BulkheadConfig::new(PAYMENTS)
            .failure_threshold(FAILURES)
            .success_threshold(PROBES)
            .isolation_duration(ISOLATION),
    )?;
    for name in OTHERS {
        manager.create_bulkhead(BulkheadConfig::new(name).failure_threshold(FAILURES))?;
    }
    let fleet = manager.fleet().expect("it has a store");
    if fleet.wait_ready(Duration::from_secs(30)).await {
        Ok(manager)
    } else {
        Err(format!("the database does not answer: {:?}", fleet.snapshot().error).into())
    }
}

struct Worker {
    fleet: Fleet,
    bulkheads: Vec<Bulkhead>,
    outcomes: Outcomes,
}

type Outcomes = Arc<Mutex<Vec<String>>>;

impl Worker {
    fn new(manager: &BulkheadManager) -> Result<Self, Box<dyn Error>> {
        let fleet = manager.fleet().expect("it has a store").clone();
        let outcomes = Outcomes::default();
        tokio::spawn(report_connection(fleet.events(), Arc::clone(&outcomes)));
        let bulkheads = manager.bulkheads();
        for bulkhead in &bulkheads {
            tokio::spawn(report_transitions(circuit(bulkhead).events()));
        }
        Ok(Self {
            fleet,
            bulkheads,
            outcomes,
        })
    }

    async fn run_commands(
        &self,
        mut commands: UnboundedReceiver<Command>,
    ) -> Result<(), Box<dyn Error>> {
        let payments = self.bulkhead(PAYMENTS);
        let mut probe = None;
        let mut traffic = None;
        while let Some(order) = commands.recv().await {
            match order {
                Command::Join { .. } => return Err("joined already".into()),
                Command::Fail { circuit } => {
                    for _ in 0..FAILURES {
                        // The fleet decides whether it still counts.
                        let _ = self
                            .bulkhead(&circuit)
                            .execute(ready(Err::<(), _>("no answer")))
                            .await;
                    }
                }
                Command::Call { circuit, times } => {
                    send(&call(self.bulkhead(&circuit), times).await)
                }
                Command::Ask { times } => send(&ask(payments, times, &mut probe).await),
                Command::Succeed => probe.take().into_iter().for_each(Permit::succeed),
                Command::Open => circuit(payments).open(),
                Command::Close => circuit(payments).close(),
                Command::Traffic => traffic = Some(Traffic::start(payments.clone())),
                Command::Rest => {
                    let traffic = traffic.take().ok_or("there is no traffic")?;
                    send(&Report::Carried(traffic.end().await?));
                }
                Command::View => send(&Report::Seen(self.view())),
            }
        }
        Ok(())
    }

    fn view(&self) -> View {
        let snapshot = self.fleet.snapshot();
        let circuits = snapshot.circuits.iter().map(|known| Circuit {
            name: known.name.to_string(),
            here: circuit(self.bulkhead(known.name.as_str()))
                .state()
                .to_string(),
            fleet: known
                .state
                .map_or_else(|| "unknown".to_owned(), |state| state.to_string()),
            epoch: known.epoch.0,
        });
        View {
            connected: snapshot.connected,
            pending: snapshot.pending,
            outcomes: self
                .outcomes
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            circuits: circuits.collect(),
        }
    }

    fn bulkhead(&self, name: &str) -> &Bulkhead {
        self.bulkheads
            .iter()
            .find(|bulkhead| bulkhead.name().as_str() == name)
            .expect("it was created")
    }
}

async fn call(bulkhead: &Bulkhead, times: u32) -> Report {
    let (mut passed, mut rejected) = (0, 0);
    for _ in 0..times {
        match bulkhead.execute(ready(Ok::<(), &str>(()))).await {
            Ok(()) => passed += 1,
            Err(_) => rejected += 1,
        }
    }
    Report::Called { passed, rejected }
}

/// Asks for a permit, which is a probe while the circuit is half-open.
async fn ask(bulkhead: &Bulkhead, times: u32, probe: &mut Option<Permit>) -> Report {
    let (mut granted, mut rejected) = (false, 0);
    for _ in 0..times {
        match bulkhead.try_acquire() {
            Ok(permit) => {
                assert!(probe.is_none(), "two probes at once");
                assert_eq!(circuit(bulkhead).state(), CircuitState::HalfOpen);
                (granted, *probe) = (true, Some(permit));
            }
            Err(BulkheadError::CircuitOpen { .. }) => rejected += 1,
            Err(error) => panic!("rejected for another reason: {error}"),
        }
        sleep(Duration::from_millis(10)).await;
    }
    Report::Asked { granted, rejected }
}

/// Runs calls continually.
struct Traffic {
    stop: oneshot::Sender<()>,
    calls: JoinHandle<Carried>,
}

impl Traffic {
    fn start(bulkhead: Bulkhead) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let calls = tokio::spawn(async move {
            let none = Duration::ZERO;
            let mut carried = Carried {
                calls: 0,
                rejected: 0,
                total: none,
                slowest: none,
            };
            while stopped.try_recv().is_err() {
                let started = Instant::now();
                let rejected = bulkhead.execute(ready(Ok::<(), &str>(()))).await.is_err();
                let took = started.elapsed();
                carried.calls += 1;
                carried.rejected += u32::from(rejected);
                carried.total += took;
                carried.slowest = carried.slowest.max(took);
                sleep(Duration::from_millis(5)).await;
            }
            carried
        });
        Self { stop, calls }
    }

    async fn end(self) -> Result<Carried, tokio::task::JoinError> {
        let _ = self.stop.send(());
        self.calls.await
    }
}

async fn report_transitions(mut events: CircuitEvents) {
    while let Some(event) = events.next().await {
        match event {
            CircuitEvent::Transition(turn) => {
                send(&Report::Transition {
                    circuit: turn.circuit.to_string(),
                    state: turn.to.to_string(),
                });
            }
            missed => panic!("{missed:?}"),
        }
    }
}

async fn report_connection(mut events: FleetEvents, outcomes: Outcomes) {
    while let Some(event) = events.next().await {
        let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            FleetEvent::Degraded { .. } => {
                outcomes.clear();
                send(&Report::Disconnected);
            }
            FleetEvent::DecisionResolved { outcome, .. } => outcomes.push(format!("{outcome:?}")),
            FleetEvent::Synchronized { .. } | FleetEvent::Pending { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

fn circuit(bulkhead: &Bulkhead) -> &CircuitBreaker {
    bulkhead.circuit_breaker().expect("it is on by default")
}

/// Receives commands on a thread that ends the process when the pipe closes, so that no process
/// outlives its supervisor.
fn commands() -> UnboundedReceiver<Command> {
    let (pass_on, commands) = unbounded_channel();
    thread::spawn(move || {
        for line in stdin().lines().map_while(Result::ok) {
            let Ok(order) = serde_json::from_str(&line) else {
                break;
            };
            let _ = pass_on.send(order);
        }
        exit(1);
    });
    commands
}

fn send(line: &Report) {
    let line = serde_json::to_string(line).expect("it has a form");
    // Without a receiver, the process ends.
    writeln!(stdout(), "{line}").unwrap_or_else(|_| exit(1));
}
