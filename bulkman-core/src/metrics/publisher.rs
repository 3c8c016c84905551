//! Who hands the metrics over, and when.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::Once;
use std::time::Duration;

use super::{fleet, meter, names};
use crate::bulkhead::{Bulkhead, WeakBulkhead};
use crate::config_error::ConfigError;
use crate::fleet::{Fleet, WeakFleet};
use crate::manager::{BulkheadManager, WeakManager};
use crate::name::BulkheadName;
use crate::runtime::Runtime;
use crate::sync::{Mutex, lock};

/// Hands the metrics of a manager's bulkheads and of its fleet, of a single bulkhead, or of a single
/// fleet to the installed recorder.
///
/// Install the recorder first. Then either [`publish`](Self::publish) right before each scrape, or
/// leave it to a task with [`publish_every`](Self::publish_every). Neither keeps the manager or
/// its bulkheads alive.
///
/// ```
/// use bulkman::metrics::MetricsPublisher;
/// use bulkman::{BulkheadConfig, BulkheadManager};
/// use bulkman::runtime::ClockOnly;
///
/// let manager = BulkheadManager::new(ClockOnly);
/// manager.create_bulkhead(BulkheadConfig::new("search"))?;
///
/// let metrics = MetricsPublisher::new(&manager).record_durations(true);
/// metrics.publish();       // in the handler of `/metrics`, before it renders
/// # Ok::<(), bulkman::manager::ManagerError>(())
/// ```
pub struct MetricsPublisher {
    source: Source,
    runtime: Arc<dyn Runtime>,
    timings: bool,
    described: Once,
    /// Whom the last publication found.
    known: Mutex<BTreeMap<BulkheadName, WeakBulkhead>>,
}

enum Source {
    Manager(WeakManager),
    Bulkhead(WeakBulkhead),
    Fleet(WeakFleet),
}

impl MetricsPublisher {
    /// Publishes all bulkheads that are in the manager at the time.
    ///
    /// ```
    /// # use bulkman::metrics::MetricsPublisher;
    /// # use bulkman::{BulkheadConfig, BulkheadManager};
    /// # use bulkman::runtime::ClockOnly;
    /// let manager = BulkheadManager::new(ClockOnly);
    /// let metrics = MetricsPublisher::new(&manager);
    /// manager.create_bulkhead(BulkheadConfig::new("search"))?;
    /// metrics.publish();             // finds it, too
    /// # Ok::<(), bulkman::manager::ManagerError>(())
    /// ```
    #[must_use]
    pub fn new(manager: &BulkheadManager) -> Self {
        Self::of(Source::Manager(manager.downgrade()), manager.runtime())
    }

    /// Publishes one bulkhead.
    ///
    /// ```
    /// # use bulkman::metrics::MetricsPublisher;
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// MetricsPublisher::for_bulkhead(&bulkhead).publish();
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn for_bulkhead(bulkhead: &Bulkhead) -> Self {
        Self::of(
            Source::Bulkhead(bulkhead.downgrade()),
            &bulkhead.inner().runtime,
        )
    }

    /// Publishes a fleet that belongs to no manager and no bulkhead, without the bulkheads that
    /// are attached to it. The fleet of a manager, or of a bulkhead, is published with that.
    ///
    /// ```
    /// # use bulkman::metrics::MetricsPublisher;
    /// # use bulkman::fleet::Fleet;
    /// # use bulkman::store::MemoryStore;
    /// # use bulkman::testing::ManualRuntime;
    /// # let runtime = ManualRuntime::new();
    /// let fleet = Fleet::new(MemoryStore::new(runtime.clone()), runtime)?;
    /// MetricsPublisher::for_fleet(&fleet).publish();
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn for_fleet(fleet: &Fleet) -> Self {
        Self::of(Source::Fleet(fleet.downgrade()), fleet.runtime())
    }

    /// Whether calls are timed for the two histograms: default false.
    ///
    /// Turned on for a bulkhead when it is first published, and on from then on: each of its calls
    /// reads the clock three times. The histograms belong to the recorder that was installed then.
    ///
    /// ```
    /// # use bulkman::metrics::MetricsPublisher;
    /// # use bulkman::BulkheadManager;
    /// # use bulkman::runtime::ClockOnly;
    /// # let manager = BulkheadManager::new(ClockOnly);
    /// let metrics = MetricsPublisher::new(&manager).record_durations(true);
    /// metrics.publish();
    /// ```
    #[must_use]
    pub const fn record_durations(mut self, timings: bool) -> Self {
        self.timings = timings;
        self
    }

    /// Hands over everything as it stands now.
    ///
    /// ```
    /// # use bulkman::metrics::MetricsPublisher;
    /// # use bulkman::BulkheadManager;
    /// # use bulkman::runtime::ClockOnly;
    /// # let manager = BulkheadManager::new(ClockOnly);
    /// # let metrics = MetricsPublisher::new(&manager);
    /// # fn render() -> String { String::new() }
    /// let scrape = || {
    ///     metrics.publish();
    ///     render()                   // the exporter's
    /// };
    /// # scrape();
    /// ```
    pub fn publish(&self) {
        self.described.call_once(names::describe);
        let now = self.source.bulkheads();
        for bulkhead in &now {
            meter::publish(bulkhead, self.timings);
        }
        if let Some(fleet) = self.source.fleet() {
            fleet::publish(&fleet);
        }
        let now = now
            .iter()
            .map(|bulkhead| (bulkhead.name().clone(), bulkhead.downgrade()))
            .collect();
        for (name, bulkhead) in self.remember(now) {
            if let Some(bulkhead) = bulkhead {
                meter::publish_counts(&bulkhead);
            }
            if let Some(name) = name {
                meter::retire(&name);
            }
        }
    }

    /// Publishes every `interval`, by a task on the manager's runtime, until the manager (or the
    /// bulkhead, or the fleet) is gone.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for an interval of zero, and for a runtime without timers or tasks.
    ///
    /// ```
    /// # use bulkman::metrics::MetricsPublisher;
    /// # use bulkman::BulkheadManager;
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// let manager = BulkheadManager::new(ManualRuntime::new());
    /// MetricsPublisher::new(&manager).publish_every(Duration::from_secs(5))?;
    /// assert!(MetricsPublisher::new(&manager).publish_every(Duration::ZERO).is_err());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn publish_every(self, interval: Duration) -> Result<(), ConfigError> {
        if interval.is_zero() {
            return Err(ConfigError::out_of_range(
                "publish_every",
                "0ns",
                "more than zero",
            ));
        }
        let able = self.runtime.capabilities();
        if !(able.timers && able.tasks) {
            return Err(ConfigError::Unsupported {
                setting: "publish_every",
                needs: "timers and tasks",
            });
        }
        let runtime = Arc::clone(&self.runtime);
        runtime.spawn(Box::pin(async move {
            loop {
                self.publish();
                let next = self.runtime.now().checked_add(interval);
                let (Some(next), false) = (next, self.source.is_gone()) else {
                    return;
                };
                self.runtime.sleep_until(next).await;
            }
        }));
        Ok(())
    }

    /// Whom the last publication found and this one did not: their names, unless others bear them
    /// now, and themselves, if they still live.
    fn remember(
        &self,
        now: BTreeMap<BulkheadName, WeakBulkhead>,
    ) -> Vec<(Option<BulkheadName>, Option<Bulkhead>)> {
        let mut known = lock(&self.known);
        let gone = known
            .iter()
            .filter_map(|(name, before)| match now.get(name) {
                Some(successor) if successor.is_same(before) => None,
                Some(_) => Some((None, before.upgrade())),
                None => Some((Some(name.clone()), before.upgrade())),
            })
            .collect();
        *known = now;
        gone
    }

    fn of(source: Source, runtime: &Arc<dyn Runtime>) -> Self {
        Self {
            source,
            runtime: Arc::clone(runtime),
            timings: false,
            described: Once::new(),
            known: Mutex::default(),
        }
    }
}

impl Source {
    fn bulkheads(&self) -> Vec<Bulkhead> {
        match self {
            Self::Manager(manager) => manager.upgrade().map(|m| m.bulkheads()).unwrap_or_default(),
            Self::Bulkhead(bulkhead) => bulkhead.upgrade().into_iter().collect(),
            Self::Fleet(_) => Vec::new(),
        }
    }

    fn fleet(&self) -> Option<Fleet> {
        match self {
            Self::Manager(manager) => manager.upgrade()?.fleet().cloned(),
            Self::Bulkhead(bulkhead) => bulkhead.upgrade()?.fleet().cloned(),
            Self::Fleet(fleet) => fleet.upgrade(),
        }
    }

    fn is_gone(&self) -> bool {
        match self {
            Self::Manager(manager) => manager.upgrade().is_none(),
            Self::Bulkhead(bulkhead) => bulkhead.upgrade().is_none(),
            Self::Fleet(fleet) => fleet.upgrade().is_none(),
        }
    }
}

impl fmt::Debug for MetricsPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsPublisher")
            .field("timings", &self.timings)
            .finish_non_exhaustive()
    }
}
