//! One process of the fleet. It does what it is ordered to, and tells what happens to it.
//!
//! How a service joins a fleet is all in [`join`].

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

use super::server;
use super::wire::{Carried, Circuit, Line, Order, View};
use super::{FAILURES, ISOLATION, OTHERS, PAYMENTS, PROBES};

pub(crate) async fn run() -> Result<(), Box<dyn Error>> {
    let mut orders = orders();
    let Some(Order::Join { url, schema }) = orders.recv().await else {
        return Err("not joined".into());
    };
    let manager = join(&url, &schema).await?;
    let worker = Worker::new(&manager)?;
    tell(&Line::Ready);
    worker.obey(orders).await
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
    endings: Endings,
}

type Endings = Arc<Mutex<Vec<String>>>;

impl Worker {
    fn new(manager: &BulkheadManager) -> Result<Self, Box<dyn Error>> {
        let fleet = manager.fleet().expect("it has a store").clone();
        let endings = Endings::default();
        tokio::spawn(tell_of_link(fleet.events(), Arc::clone(&endings)));
        let bulkheads = manager.bulkheads();
        for bulkhead in &bulkheads {
            tokio::spawn(tell_of_turns(circuit(bulkhead).events()));
        }
        Ok(Self {
            fleet,
            bulkheads,
            endings,
        })
    }

    async fn obey(&self, mut orders: UnboundedReceiver<Order>) -> Result<(), Box<dyn Error>> {
        let payments = self.bulkhead(PAYMENTS);
        let mut probe = None;
        let mut traffic = None;
        while let Some(order) = orders.recv().await {
            match order {
                Order::Join { .. } => return Err("joined already".into()),
                Order::Fail { circuit } => {
                    for _ in 0..FAILURES {
                        // Whether it is still admitted is the fleet's affair.
                        let _ = self
                            .bulkhead(&circuit)
                            .execute(ready(Err::<(), _>("no answer")))
                            .await;
                    }
                }
                Order::Call { circuit, times } => tell(&call(self.bulkhead(&circuit), times).await),
                Order::Ask { times } => tell(&ask(payments, times, &mut probe).await),
                Order::Succeed => probe.take().into_iter().for_each(Permit::succeed),
                Order::Open => circuit(payments).open(),
                Order::Close => circuit(payments).close(),
                Order::Traffic => traffic = Some(Traffic::start(payments.clone())),
                Order::Rest => {
                    let traffic = traffic.take().ok_or("there is no traffic")?;
                    tell(&Line::Carried(traffic.end().await?));
                }
                Order::Look => tell(&Line::Seen(self.view())),
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
            endings: self
                .endings
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

async fn call(bulkhead: &Bulkhead, times: u32) -> Line {
    let (mut passed, mut refused) = (0, 0);
    for _ in 0..times {
        match bulkhead.execute(ready(Ok::<(), &str>(()))).await {
            Ok(()) => passed += 1,
            Err(_) => refused += 1,
        }
    }
    Line::Called { passed, refused }
}

/// A permit of a half-open circuit is a probe's.
async fn ask(bulkhead: &Bulkhead, times: u32, probe: &mut Option<Permit>) -> Line {
    let (mut granted, mut refused) = (false, 0);
    for _ in 0..times {
        match bulkhead.try_acquire() {
            Ok(permit) => {
                assert!(probe.is_none(), "two probes at once");
                assert_eq!(circuit(bulkhead).state(), CircuitState::HalfOpen);
                (granted, *probe) = (true, Some(permit));
            }
            Err(BulkheadError::CircuitOpen { .. }) => refused += 1,
            Err(error) => panic!("refused for another reason: {error}"),
        }
        sleep(Duration::from_millis(10)).await;
    }
    Line::Asked { granted, refused }
}

/// Calls all the time.
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
                refused: 0,
                total: none,
                slowest: none,
            };
            while stopped.try_recv().is_err() {
                let begun = Instant::now();
                let refused = bulkhead.execute(ready(Ok::<(), &str>(()))).await.is_err();
                let took = begun.elapsed();
                carried.calls += 1;
                carried.refused += u32::from(refused);
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

async fn tell_of_turns(mut events: CircuitEvents) {
    while let Some(event) = events.next().await {
        match event {
            CircuitEvent::Transition(turn) => {
                tell(&Line::Turned {
                    circuit: turn.circuit.to_string(),
                    state: turn.to.to_string(),
                });
            }
            missed => panic!("{missed:?}"),
        }
    }
}

async fn tell_of_link(mut events: FleetEvents, endings: Endings) {
    while let Some(event) = events.next().await {
        let mut endings = endings.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            FleetEvent::Degraded { .. } => {
                endings.clear();
                tell(&Line::Cut);
            }
            FleetEvent::DecisionResolved { outcome, .. } => endings.push(format!("{outcome:?}")),
            FleetEvent::Synchronized { .. } | FleetEvent::Pending { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

fn circuit(bulkhead: &Bulkhead) -> &CircuitBreaker {
    bulkhead.circuit_breaker().expect("it is on by default")
}

/// Read by a thread, which ends the process when the pipe ends, whatever else it is doing: a process
/// of the fleet does not outlive its story, however that ends.
fn orders() -> UnboundedReceiver<Order> {
    let (pass_on, orders) = unbounded_channel();
    thread::spawn(move || {
        for line in stdin().lines().map_while(Result::ok) {
            let Ok(order) = serde_json::from_str(&line) else {
                break;
            };
            let _ = pass_on.send(order);
        }
        exit(1);
    });
    orders
}

fn tell(line: &Line) {
    let line = serde_json::to_string(line).expect("it has a form");
    // With nobody to tell, it is over.
    writeln!(stdout(), "{line}").unwrap_or_else(|_| exit(1));
}
