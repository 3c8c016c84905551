//! A process of the fleet: it runs commands and reports events.
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

use super::messages::{CallStats, Circuit, Command, Report, View};
use super::server;
use super::{FAILURES, ISOLATION, OTHERS, PAYMENTS, PROBES};

pub(crate) async fn run() -> Result<(), Box<dyn Error>> {
    let mut commands = commands();
    let Some(Command::Join { url, schema }) = commands.recv().await else {
        return Err("the first command is not Join".into());
    };
    let manager = join(&url, &schema).await?;
    let worker = Worker::new(&manager)?;
    send(&Report::Ready);
    worker.run_commands(commands).await
}

/// Joins a fleet: creates a manager with a store, its bulkheads, and waits for the fleet's state.
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
        while let Some(command) = commands.recv().await {
            match command {
                Command::Join { .. } => return Err("the process has joined already".into()),
                Command::Fail { circuit } => {
                    for _ in 0..FAILURES {
                        // Rejections are ignored: another process may have opened the circuit.
                        let _ = self
                            .bulkhead(&circuit)
                            .execute(ready(Err::<(), _>("no answer")))
                            .await;
                    }
                }
                Command::Call { circuit, times } => {
                    send(&call(self.bulkhead(&circuit), times).await)
                }
                Command::RequestProbe { times } => {
                    send(&request_probe(payments, times, &mut probe).await)
                }
                Command::Succeed => probe.take().into_iter().for_each(Permit::succeed),
                Command::Open => circuit(payments).open(),
                Command::Close => circuit(payments).close(),
                Command::StartTraffic => traffic = Some(Traffic::start(payments.clone())),
                Command::StopTraffic => {
                    let traffic = traffic.take().ok_or("no calls are running")?;
                    send(&Report::TrafficStopped(traffic.stop().await?));
                }
                Command::View => send(&Report::View(self.view())),
            }
        }
        Ok(())
    }

    fn view(&self) -> View {
        let snapshot = self.fleet.snapshot();
        let circuits = snapshot.circuits.iter().map(|known| Circuit {
            name: known.name.to_string(),
            local: circuit(self.bulkhead(known.name.as_str()))
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

/// Runs `times` successful calls.
async fn call(bulkhead: &Bulkhead, times: u32) -> Report {
    let (mut admitted, mut rejected) = (0, 0);
    for _ in 0..times {
        match bulkhead.execute(ready(Ok::<(), &str>(()))).await {
            Ok(()) => admitted += 1,
            Err(_) => rejected += 1,
        }
    }
    Report::Called { admitted, rejected }
}

/// Requests permits. While the circuit is half-open, a permit is that of a probe.
async fn request_probe(bulkhead: &Bulkhead, times: u32, probe: &mut Option<Permit>) -> Report {
    let (mut admitted, mut rejected) = (false, 0);
    for _ in 0..times {
        match bulkhead.try_acquire() {
            Ok(permit) => {
                assert!(probe.is_none(), "two probes at once");
                assert_eq!(circuit(bulkhead).state(), CircuitState::HalfOpen);
                (admitted, *probe) = (true, Some(permit));
            }
            Err(BulkheadError::CircuitOpen { .. }) => rejected += 1,
            Err(error) => panic!("rejected for another reason: {error}"),
        }
        sleep(Duration::from_millis(10)).await;
    }
    Report::ProbeRequested { admitted, rejected }
}

/// A task that runs calls until it is stopped.
struct Traffic {
    stop_sender: oneshot::Sender<()>,
    calls: JoinHandle<CallStats>,
}

impl Traffic {
    fn start(bulkhead: Bulkhead) -> Self {
        let (stop_sender, mut stopped) = oneshot::channel();
        let calls = tokio::spawn(async move {
            let mut stats = CallStats {
                calls: 0,
                rejected: 0,
                total: Duration::ZERO,
                slowest: Duration::ZERO,
            };
            while stopped.try_recv().is_err() {
                let started = Instant::now();
                let rejected = bulkhead.execute(ready(Ok::<(), &str>(()))).await.is_err();
                let took = started.elapsed();
                stats.calls += 1;
                stats.rejected += u32::from(rejected);
                stats.total += took;
                stats.slowest = stats.slowest.max(took);
                sleep(Duration::from_millis(5)).await;
            }
            stats
        });
        Self { stop_sender, calls }
    }

    async fn stop(self) -> Result<CallStats, tokio::task::JoinError> {
        let _ = self.stop_sender.send(());
        self.calls.await
    }
}

async fn report_transitions(mut events: CircuitEvents) {
    while let Some(event) = events.next().await {
        match event {
            CircuitEvent::Transition(transition) => {
                send(&Report::Transition {
                    circuit: transition.circuit.to_string(),
                    state: transition.to.to_string(),
                });
            }
            other => panic!("unexpected event: {other:?}"),
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
            other => panic!("unexpected event: {other:?}"),
        }
    }
}

fn circuit(bulkhead: &Bulkhead) -> &CircuitBreaker {
    bulkhead.circuit_breaker().expect("it is on by default")
}

/// Receives commands on a thread that ends the process when the pipe closes, so that no process
/// outlives its supervisor.
fn commands() -> UnboundedReceiver<Command> {
    let (sender, commands) = unbounded_channel();
    thread::spawn(move || {
        for line in stdin().lines().map_while(Result::ok) {
            let Ok(command) = serde_json::from_str(&line) else {
                break;
            };
            let _ = sender.send(command);
        }
        exit(1);
    });
    commands
}

/// Sends a report, or ends the process if the supervisor has ended.
fn send(report: &Report) {
    let line = serde_json::to_string(report).expect("a report is valid JSON");
    writeln!(stdout(), "{line}").unwrap_or_else(|_| exit(1));
}
