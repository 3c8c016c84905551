//! The publisher of metrics.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::labels::ExtraLabels;
use super::{fleet, meter, names};
use crate::bulkhead::{Bulkhead, WeakBulkhead};
use crate::config_error::ConfigError;
use crate::fleet::{Fleet, WeakFleet};
use crate::manager::{BulkheadManager, WeakManager};
use crate::name::BulkheadName;
use crate::runtime::Runtime;
use crate::sync::{Mutex, lock};

/// Publishes the metrics of a manager, a bulkhead or a fleet to the installed recorder.
///
/// Install the recorder first. Then call [`publish`](Self::publish) before each scrape, or start a
/// background task with [`publish_every`](Self::publish_every). Neither keeps the manager or its
/// bulkheads alive.
///
/// ```
/// use bulkman::metrics::MetricsPublisher;
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{BulkheadConfig, BulkheadManager};
///
/// let manager = BulkheadManager::new(ClockOnly);
/// manager.create_bulkhead(BulkheadConfig::new("search"))?;
///
/// let metrics = MetricsPublisher::new(&manager).record_durations(true);
/// metrics.publish(); // in the handler of `/metrics`, before it renders
///     
/// # Ok::<(), bulkman::manager::ManagerError>(())
/// ```
pub struct MetricsPublisher {
    source: Source,
    runtime: Arc<dyn Runtime>,
    record_durations: bool,
    labels: ExtraLabels,
    /// The bulkheads of the last publication.
    published: Mutex<BTreeMap<BulkheadName, WeakBulkhead>>,
}

enum Source {
    Manager(WeakManager),
    Bulkhead(WeakBulkhead),
    Fleet(WeakFleet),
}

impl MetricsPublisher {
    /// Creates a publisher for a manager's bulkheads and its fleet.
    ///
    /// Each publication includes the bulkheads that are in the manager at that time.
    ///
    /// ```
    /// # use bulkman::metrics::MetricsPublisher;
    /// # use bulkman::{BulkheadConfig, BulkheadManager};
    /// # use bulkman::runtime::ClockOnly;
    /// let manager = BulkheadManager::new(ClockOnly);
    /// let metrics = MetricsPublisher::new(&manager);
    /// manager.create_bulkhead(BulkheadConfig::new("search"))?;
    /// metrics.publish(); // includes the new bulkhead
    ///     
    /// # Ok::<(), bulkman::manager::ManagerError>(())
    /// ```
    #[must_use]
    pub fn new(manager: &BulkheadManager) -> Self {
        Self::with_source(Source::Manager(manager.downgrade()), manager.runtime())
    }

    /// Creates a publisher for one bulkhead and its fleet.
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
        Self::with_source(
            Source::Bulkhead(bulkhead.downgrade()),
            &bulkhead.inner().runtime,
        )
    }

    /// Creates a publisher for a fleet that belongs to no manager and no bulkhead.
    ///
    /// The bulkheads that are attached to the fleet are not included. The fleet of a manager or a
    /// bulkhead is published with that one.
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
        Self::with_source(Source::Fleet(fleet.downgrade()), fleet.runtime())
    }

    /// Sets whether calls record their durations in the two histograms: default `false`.
    ///
    /// Takes effect for a bulkhead with its first publication, and can't be turned off again. Each
    /// of its calls then reads the clock three times. The histograms belong to the recorder of the
    /// latest publication.
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
    pub const fn record_durations(mut self, record_durations: bool) -> Self {
        self.record_durations = record_durations;
        self
    }

    /// Adds a label to all series of this publisher.
    ///
    /// A series is identified by the name of its bulkhead and these labels. If two managers of one
    /// process have bulkheads of the same name, give each publisher another value. Without it their
    /// counters add up, and each publication overwrites the gauges of the other one.
    ///
    /// Publish a bulkhead with one set of labels only: each increment is recorded once.
    ///
    /// # Errors
    ///
    /// * [`ConfigError::OutOfRange`] if `name` has characters other than ASCII letters, digits and
    ///   underscores, is empty, or starts with a digit.
    /// * [`ConfigError::Conflict`] if the series have this label already.
    ///
    /// ```
    /// # use bulkman::metrics::MetricsPublisher;
    /// # use bulkman::BulkheadManager;
    /// # use bulkman::runtime::ClockOnly;
    /// # let [ours, theirs] = [(); 2].map(|()| BulkheadManager::new(ClockOnly));
    /// let application = MetricsPublisher::new(&ours).label("component", "application")?;
    /// let library = MetricsPublisher::new(&theirs).label("component", "library")?;
    /// for publisher in [&application, &library] {
    ///     publisher.publish();
    /// }
    /// assert!(application.label("bulkhead", "another").is_err());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn label(
        mut self,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<Self, ConfigError> {
        self.labels.add(name.into(), value.into())?;
        Ok(self)
    }

    /// Publishes the current values.
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
    ///     render() // by the exporter
    /// };
    /// # scrape();
    /// ```
    pub fn publish(&self) {
        // Each time, since the recorder may be another one. Recorders keep the first description.
        names::describe();
        let now = self.source.bulkheads();
        for bulkhead in &now {
            meter::publish(bulkhead, self.record_durations, &self.labels);
        }
        if let Some(fleet) = self.source.fleet() {
            fleet::publish(&fleet, &self.labels);
        }
        let now = now
            .iter()
            .map(|bulkhead| (bulkhead.name().clone(), bulkhead.downgrade()))
            .collect();
        for (name, bulkhead) in self.diff_published(now) {
            if let Some(bulkhead) = bulkhead {
                meter::publish_removed(&bulkhead, &self.labels);
            }
            if let Some(name) = name {
                meter::zero_gauges(&name, &self.labels);
            }
        }
    }

    /// Publishes every `interval` in a background task.
    ///
    /// The task runs on the runtime of the manager, the bulkhead or the fleet. The first
    /// publication is immediate. The task ends when that source is dropped.
    ///
    /// # Errors
    ///
    /// * [`ConfigError::OutOfRange`] if `interval` is zero.
    /// * [`ConfigError::Unsupported`] if the runtime has no timers or no tasks, or does not run
    ///   one.
    ///
    /// ```
    /// # use bulkman::metrics::MetricsPublisher;
    /// # use bulkman::BulkheadManager;
    /// # use bulkman::testing::ManualRuntime;
    /// # use std::time::Duration;
    /// let manager = BulkheadManager::new(ManualRuntime::new());
    /// MetricsPublisher::new(&manager).publish_every(Duration::from_secs(5))?;
    /// assert!(
    ///     MetricsPublisher::new(&manager)
    ///         .publish_every(Duration::ZERO)
    ///         .is_err()
    /// );
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
        let capabilities = self.runtime.capabilities();
        if !(capabilities.timers && capabilities.tasks) {
            return Err(ConfigError::Unsupported {
                setting: "publish_every",
                needs: "timers and tasks",
            });
        }
        let runtime = Arc::clone(&self.runtime);
        let spawned = runtime.spawn(Box::pin(async move {
            loop {
                self.publish();
                let next = self.runtime.now().checked_add(interval);
                let (Some(next), false) = (next, self.source.is_dropped()) else {
                    return;
                };
                self.runtime.sleep_until(next).await;
            }
        }));
        spawned.map_err(|_dropped| ConfigError::not_spawned("publish_every"))
    }

    /// Returns the bulkheads of the last publication that are not part of this one: the name,
    /// unless another bulkhead has it now, and the bulkhead, if it still exists.
    fn diff_published(
        &self,
        now: BTreeMap<BulkheadName, WeakBulkhead>,
    ) -> Vec<(Option<BulkheadName>, Option<Bulkhead>)> {
        let mut published = lock(&self.published);
        let removed = published
            .iter()
            .filter_map(|(name, before)| match now.get(name) {
                Some(successor) if successor.is_same(before) => None,
                Some(_) => Some((None, before.upgrade())),
                None => Some((Some(name.clone()), before.upgrade())),
            })
            .collect();
        *published = now;
        removed
    }

    fn with_source(source: Source, runtime: &Arc<dyn Runtime>) -> Self {
        Self {
            source,
            runtime: Arc::clone(runtime),
            record_durations: false,
            labels: ExtraLabels::default(),
            published: Mutex::default(),
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

    fn is_dropped(&self) -> bool {
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
            .field("record_durations", &self.record_durations)
            .field("labels", &self.labels)
            .finish_non_exhaustive()
    }
}
