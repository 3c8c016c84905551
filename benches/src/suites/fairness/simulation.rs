//! A simulation of calls with keys and weights, in virtual time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use asyncband_0_6::admission::{FairShare, OwnedFairSharePermit};
use bulkman_core::bulkhead::Fairness;
use bulkman_core::runtime::ClockOnly;
use bulkman_core::{Bulkhead, BulkheadConfig, Permit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::harness::measure::Distribution;

/// Microseconds of virtual time.
type Time = u64;
pub(super) type Acquire<P> = Pin<Box<dyn Future<Output = P>>>;

const MS: Time = 1_000;
const SECOND: Time = 1_000 * MS;
/// The key of the busy tenant.
const HOG: u64 = 0;

/// What grants permits.
pub(super) trait Permits {
    const NAME: &'static str;
    type Permit;

    fn new(permits: u32) -> Self;
    fn acquire(&self, key: u64, weight: u32) -> Acquire<Self::Permit>;
}

pub(super) struct FairShares(Bulkhead);
/// Has no weights: each call takes one permit.
pub(super) struct AsyncbandFairShare(Arc<FairShare<u64>>);
pub(super) struct ByArrival(Bulkhead);
pub(super) struct TokioSemaphore(Arc<Semaphore>);
/// A semaphore, and another one for each key with half of the permits.
pub(super) struct CappedKeys {
    all: Arc<Semaphore>,
    keys: Mutex<BTreeMap<u64, Arc<Semaphore>>>,
    cap: usize,
}

fn bulkhead(permits: u32, fairness: Option<Fairness>) -> Bulkhead {
    let config = BulkheadConfig::new("simulated")
        .max_concurrent_calls(permits as usize)
        .max_queue_size(1_000_000)
        .circuit_breaker_enabled(false)
        .fairness(fairness);
    Bulkhead::new(config, ClockOnly).expect("the configuration is valid")
}

fn acquire(bulkhead: &Bulkhead, key: u64, weight: u32) -> Acquire<Permit> {
    let acquire = bulkhead.call().key(&key).weight(weight).acquire();
    Box::pin(async { acquire.await.expect("the queue has room") })
}

impl Permits for FairShares {
    const NAME: &'static str = "bulkman, fair shares";
    type Permit = Permit;

    fn new(permits: u32) -> Self {
        Self(bulkhead(permits, Some(Fairness::new())))
    }

    fn acquire(&self, key: u64, weight: u32) -> Acquire<Permit> {
        acquire(&self.0, key, weight)
    }
}

impl Permits for AsyncbandFairShare {
    const NAME: &'static str = "asyncband, FairShare";
    type Permit = OwnedFairSharePermit<u64>;

    fn new(permits: u32) -> Self {
        Self(Arc::new(FairShare::new(permits as usize)))
    }

    fn acquire(&self, key: u64, _: u32) -> Acquire<Self::Permit> {
        Box::pin(Arc::clone(&self.0).acquire_owned(key))
    }
}

impl Permits for ByArrival {
    const NAME: &'static str = "bulkman, by arrival";
    type Permit = Permit;

    fn new(permits: u32) -> Self {
        Self(bulkhead(permits, None))
    }

    fn acquire(&self, key: u64, weight: u32) -> Acquire<Permit> {
        acquire(&self.0, key, weight)
    }
}

impl Permits for TokioSemaphore {
    const NAME: &'static str = "tokio, acquire_many";
    type Permit = OwnedSemaphorePermit;

    fn new(permits: u32) -> Self {
        Self(Arc::new(Semaphore::new(permits as usize)))
    }

    fn acquire(&self, _: u64, weight: u32) -> Acquire<OwnedSemaphorePermit> {
        let semaphore = Arc::clone(&self.0);
        Box::pin(async move {
            let acquired = semaphore.acquire_many_owned(weight).await;
            acquired.expect("it is not closed")
        })
    }
}

impl Permits for CappedKeys {
    const NAME: &'static str = "map of semaphores, half of the permits each";
    type Permit = (OwnedSemaphorePermit, OwnedSemaphorePermit);

    fn new(permits: u32) -> Self {
        Self {
            all: Arc::new(Semaphore::new(permits as usize)),
            keys: Mutex::default(),
            cap: permits as usize / 2,
        }
    }

    fn acquire(&self, key: u64, weight: u32) -> Acquire<Self::Permit> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let own = keys
            .entry(key)
            .or_insert_with(|| Arc::new(Semaphore::new(self.cap)));
        let (own, all) = (Arc::clone(own), Arc::clone(&self.all));
        Box::pin(async move {
            let own = own.acquire_many_owned(weight).await;
            let all = all.acquire_many_owned(weight).await;
            (own.expect("open"), all.expect("open"))
        })
    }
}

/// By arrival, where up to `N` calls may overtake one that is too heavy for what is available.
pub(super) struct Overtaking<const N: u32>(Bulkhead);

impl<const N: u32> Permits for Overtaking<N> {
    const NAME: &'static str = match N {
        8 => "bulkman, 8 may overtake",
        64 => "bulkman, 64 may overtake",
        _ => "bulkman, some may overtake",
    };
    type Permit = Permit;

    fn new(permits: u32) -> Self {
        let queue = bulkhead(permits, None);
        let config = queue.config().overtaking(N);
        let reconfigured = queue.reconfigure(config);
        reconfigured.expect("the configuration is valid");
        Self(queue)
    }

    fn acquire(&self, key: u64, weight: u32) -> Acquire<Permit> {
        acquire(&self.0, key, weight)
    }
}

#[derive(Clone, Copy)]
struct Call {
    key: u64,
    weight: u32,
    arrived: Time,
    started: Time,
}

enum State<P> {
    Waiting(Acquire<P>),
    Running(#[allow(dead_code, reason = "its drop releases the permits")] P),
}

/// The result of a simulation.
pub(super) struct Outcome {
    pub(super) name: &'static str,
    permits: u32,
    until: Time,
    waits: Vec<(Call, Time)>,
    ends: Vec<Time>,
    permit_time: BTreeMap<u64, u64>,
    pub(super) calls: usize,
}

impl Outcome {
    /// Returns the waits of all keys but that of the busy tenant, in milliseconds.
    pub(super) fn waits(&self) -> Distribution {
        let waits = self.waits.iter().filter(|(call, _)| call.key != HOG);
        Distribution::of(waits.map(|(_, wait)| *wait as f64 / MS as f64).collect())
    }

    /// Returns the waits of calls with this weight, in milliseconds.
    pub(super) fn waits_of(&self, weight: u32) -> Distribution {
        let waits = self.waits.iter().filter(|(call, _)| call.weight == weight);
        Distribution::of(waits.map(|(_, wait)| *wait as f64 / MS as f64).collect())
    }

    /// Returns the times between two releases, in milliseconds.
    pub(super) fn gaps(&self) -> Distribution {
        let gaps = self.ends.windows(2).map(|ends| ends[1] - ends[0]);
        Distribution::of(gaps.map(|gap| gap as f64 / MS as f64).collect())
    }

    /// Returns the share of the permits that was in use.
    pub(super) fn utilization(&self) -> f64 {
        let used: u64 = self.permit_time.values().sum();
        used as f64 / (u64::from(self.permits) * self.until) as f64
    }

    /// Returns Jain's index of the permit time of the keys: 1 if all are equal.
    pub(super) fn jain(&self) -> f64 {
        let times: Vec<_> = self.permit_time.values().map(|it| *it as f64).collect();
        let (sum, squares) = times.iter().fold((0.0, 0.0), |(sum, squares), time| {
            (sum + time, squares + time * time)
        });
        sum * sum / (times.len() as f64 * squares)
    }
}

struct Woken {
    call: usize,
    all: Arc<Mutex<Vec<usize>>>,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(self.call);
    }
}

struct Simulation<P: Permits> {
    permits: P,
    now: Time,
    calls: Vec<(Call, Option<State<P::Permit>>)>,
    /// The instants at which calls arrive, with key and weight, or end.
    events: BinaryHeap<Reverse<(Time, usize, Event)>>,
    woken: Arc<Mutex<Vec<usize>>>,
    duration: fn(&Call, &mut fastrand::Rng) -> Time,
    rng: fastrand::Rng,
    outcome: Outcome,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive { key: u64, weight: u32 },
    End(usize),
}

impl<P: Permits> Simulation<P> {
    fn new(permits: u32, until: Time, duration: fn(&Call, &mut fastrand::Rng) -> Time) -> Self {
        Self {
            permits: P::new(permits),
            now: 0,
            calls: Vec::new(),
            events: BinaryHeap::new(),
            woken: Arc::default(),
            duration,
            rng: fastrand::Rng::with_seed(7),
            outcome: Outcome {
                name: P::NAME,
                permits,
                until,
                waits: Vec::new(),
                ends: Vec::new(),
                permit_time: BTreeMap::new(),
                calls: 0,
            },
        }
    }

    fn push(&mut self, at: Time, event: Event) {
        let order = self.events.len() + self.calls.len();
        self.events.push(Reverse((at, order, event)));
    }

    /// Runs until the end. `ended` returns the weight of the call that follows one that has ended.
    fn run(mut self, ended: impl Fn(&Call, &mut fastrand::Rng) -> Option<u32>) -> Outcome {
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            if at >= self.outcome.until {
                break;
            }
            self.now = at;
            match event {
                Event::Arrive { key, weight } => self.arrive(key, weight),
                Event::End(index) => {
                    let call = self.end(index);
                    if let Some(weight) = ended(&call, &mut self.rng) {
                        self.arrive(call.key, weight);
                    }
                }
            }
            self.start_woken();
        }
        self.outcome
    }

    fn arrive(&mut self, key: u64, weight: u32) {
        let call = Call {
            key,
            weight,
            arrived: self.now,
            started: 0,
        };
        let waiting = State::Waiting(self.permits.acquire(key, weight));
        self.calls.push((call, Some(waiting)));
        self.poll(self.calls.len() - 1);
    }

    fn poll(&mut self, index: usize) {
        let (call, state) = &mut self.calls[index];
        let Some(State::Waiting(acquire)) = state else {
            return;
        };
        let waker = Waker::from(Arc::new(Woken {
            call: index,
            all: Arc::clone(&self.woken),
        }));
        if let Poll::Ready(permit) = acquire.as_mut().poll(&mut Context::from_waker(&waker)) {
            call.started = self.now;
            *state = Some(State::Running(permit));
            self.outcome.waits.push((*call, self.now - call.arrived));
            let duration = (self.duration)(call, &mut self.rng);
            self.push(self.now + duration, Event::End(index));
        }
    }

    fn end(&mut self, index: usize) -> Call {
        let (call, state) = &mut self.calls[index];
        *state = None;
        let ran = (self.now - call.started) * u64::from(call.weight);
        *self.outcome.permit_time.entry(call.key).or_insert(0) += ran;
        self.outcome.ends.push(self.now);
        self.outcome.calls += 1;
        *call
    }

    fn start_woken(&mut self) {
        loop {
            let woken = {
                let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::take(&mut *woken)
            };
            if woken.is_empty() {
                return;
            }
            woken.into_iter().for_each(|index| self.poll(index));
        }
    }
}

pub(super) fn run_hog<P: Permits>() -> Outcome {
    let duration = |_: &Call, rng: &mut fastrand::Rng| rng.u64(5 * MS..15 * MS);
    let mut simulation = Simulation::<P>::new(10, 30 * SECOND, duration);
    let hog = Event::Arrive {
        key: HOG,
        weight: 1,
    };
    (0..10_000).for_each(|_| simulation.push(0, hog));
    for second in 0..30 {
        for key in 1..100 {
            let at = second * SECOND + simulation.rng.u64(1..SECOND);
            simulation.push(at, Event::Arrive { key, weight: 1 });
        }
    }
    simulation.run(|call, _| (call.key == HOG).then_some(1))
}

pub(super) fn run_shares<P: Permits>() -> Outcome {
    let duration = |call: &Call, _: &mut fastrand::Rng| {
        const MILLIS: [Time; 10] = [1, 2, 3, 5, 8, 12, 20, 30, 40, 50];
        MILLIS[call.key as usize] * MS
    };
    let mut simulation = Simulation::<P>::new(10, 60 * SECOND, duration);
    for _ in 0..20 {
        (0..10).for_each(|key| simulation.push(0, Event::Arrive { key, weight: 1 }));
    }
    simulation.run(|_, _| Some(1))
}

pub(super) fn run_weights<P: Permits>() -> Outcome {
    let duration = |_: &Call, rng: &mut fastrand::Rng| rng.u64(MS..20 * MS);
    let weight = |rng: &mut fastrand::Rng| if rng.u32(0..10) == 0 { 50 } else { 1 };
    let mut simulation = Simulation::<P>::new(100, 60 * SECOND, duration);
    for _ in 0..400 {
        let weight = weight(&mut simulation.rng);
        simulation.push(0, Event::Arrive { key: 1, weight });
    }
    simulation.run(move |_, rng| Some(weight(rng)))
}
