//! Making, and changing, all bulkheads at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::config::ManagerConfig;
use super::{BulkheadManager, ManagerError};
use crate::bulkhead::Bulkhead;
use crate::bulkhead::config::BulkheadConfig;
use crate::config_error::ConfigError;
use crate::name::BulkheadName;
use crate::runtime::Runtime;

/// What [`BulkheadManager::apply_config`] has done, by the bulkheads' names.
///
/// ```
/// use bulkman::{BulkheadConfig, BulkheadManager};
/// use bulkman::manager::ManagerConfig;
/// use bulkman::runtime::ClockOnly;
///
/// let manager = BulkheadManager::new(ClockOnly);
/// manager.create_bulkhead(BulkheadConfig::new("mail"))?;
/// let applied = manager.apply_config(&ManagerConfig::new().bulkhead(BulkheadConfig::new("search")))?;
/// assert_eq!((applied.created[0].as_str(), applied.not_in_config[0].as_str()), ("search", "mail"));
/// # Ok::<(), bulkman::manager::ManagerError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AppliedConfig {
    /// Made, since there was none of this name.
    pub created: Vec<BulkheadName>,
    /// Changed in place.
    pub changed: Vec<BulkheadName>,
    /// As they were.
    pub unchanged: Vec<BulkheadName>,
    /// In the manager, but not in the configuration: left alone.
    pub not_in_config: Vec<BulkheadName>,
}

impl BulkheadManager {
    /// A manager with these bulkheads.
    ///
    /// # Errors
    ///
    /// As [`apply_config`](Self::apply_config).
    ///
    /// ```
    /// use bulkman::{BulkheadConfig, BulkheadManager};
    /// use bulkman::manager::ManagerConfig;
    /// use bulkman::runtime::ClockOnly;
    ///
    /// let config = ManagerConfig::new().bulkhead(BulkheadConfig::new("payments"));
    /// let manager = BulkheadManager::from_config(&config, ClockOnly)?;
    /// assert!(manager.get_bulkhead("payments").is_some());
    /// # Ok::<(), bulkman::manager::ManagerError>(())
    /// ```
    pub fn from_config(
        config: &ManagerConfig,
        runtime: impl Runtime,
    ) -> Result<Self, ManagerError> {
        let manager = Self::new(runtime);
        manager.apply_config(config)?;
        Ok(manager)
    }

    /// Makes the bulkheads of `config` that are missing, and reconfigures the others in place.
    ///
    /// Those keep their circuits' states and windows, their holders and their waiters: see
    /// [`Bulkhead::reconfigure`]. A bulkhead that is not in `config` is left alone, since somebody
    /// may have made it in code, and named in [`AppliedConfig::not_in_config`]: remove it if that is what its
    /// absence means.
    ///
    /// # Errors
    ///
    /// [`ManagerError::Invalid`] for a configuration that can't be used, or that would change what
    /// can't change in place, and [`ManagerError::AlreadyExists`] for a name that is there twice. Nothing
    /// has changed then.
    ///
    /// ```
    /// use bulkman::{BulkheadConfig, BulkheadManager};
    /// use bulkman::manager::ManagerConfig;
    /// use bulkman::runtime::ClockOnly;
    ///
    /// let manager = BulkheadManager::new(ClockOnly);
    /// let payments = manager.create_bulkhead(BulkheadConfig::new("payments"))?;
    ///
    /// let bad = ManagerConfig::new()
    ///     .bulkhead(BulkheadConfig::new("payments").max_concurrent_calls(5))
    ///     .bulkhead(BulkheadConfig::new("reports").max_concurrent_calls(0));
    /// let error = manager.apply_config(&bad).unwrap_err();
    /// assert_eq!(error.to_string(), r#"bulkhead "reports": `max_concurrent_calls` is 0, must be 1 to 1,000,000"#);
    /// assert_eq!(payments.stats().max_concurrent_calls, 10);
    /// # Ok::<(), bulkman::manager::ManagerError>(())
    /// ```
    pub fn apply_config(&self, config: &ManagerConfig) -> Result<AppliedConfig, ManagerError> {
        let listed = distinct_names(config)?;
        loop {
            let plan = Plan::new(self, config)?;
            // If somebody made one of the missing ones meanwhile, it has to be looked at again.
            if let Some(applied) = plan.carry_out(self, &listed) {
                return Ok(applied);
            }
        }
    }
}

/// What is to be done; all of it has been found possible.
struct Plan<'a> {
    create: Vec<Bulkhead>,
    change: Vec<(Bulkhead, &'a BulkheadConfig)>,
    keep: Vec<BulkheadName>,
}

impl<'a> Plan<'a> {
    fn new(manager: &BulkheadManager, config: &'a ManagerConfig) -> Result<Self, ManagerError> {
        let mut plan = Self {
            create: Vec::new(),
            change: Vec::new(),
            keep: Vec::new(),
        };
        for config in config.bulkheads() {
            plan.add(manager, config)
                .map_err(|error| invalid(config, error))?;
        }
        Ok(plan)
    }

    fn add(
        &mut self,
        manager: &BulkheadManager,
        config: &'a BulkheadConfig,
    ) -> Result<(), ConfigError> {
        match manager.get_bulkhead(config.name()) {
            None => {
                let runtime = Arc::clone(&manager.shared.runtime);
                self.create
                    .push(Bulkhead::with_runtime(config.clone(), runtime)?);
            }
            Some(bulkhead) if bulkhead.config() == *config => {
                self.keep.push(bulkhead.name().clone())
            }
            Some(bulkhead) => {
                bulkhead.check_reconfigure(config)?;
                self.change.push((bulkhead, config));
            }
        }
        Ok(())
    }

    /// `None`: a name that was free is taken now, and nothing was done.
    fn carry_out(
        self,
        manager: &BulkheadManager,
        listed: &BTreeSet<BulkheadName>,
    ) -> Option<AppliedConfig> {
        let mut applied = AppliedConfig {
            unchanged: self.keep,
            ..AppliedConfig::default()
        };
        let created = self.create.clone();
        {
            let mut bulkheads = manager.write();
            if self
                .create
                .iter()
                .any(|bulkhead| bulkheads.contains_key(bulkhead.name()))
            {
                return None;
            }
            for bulkhead in self.create {
                applied.created.push(bulkhead.name().clone());
                bulkheads.insert(bulkhead.name().clone(), bulkhead);
            }
            applied.not_in_config = bulkheads
                .keys()
                .filter(|name| !listed.contains(*name))
                .cloned()
                .collect();
        }
        applied.not_in_config.sort_unstable();
        for bulkhead in created {
            // A circuit that is as new as this one is nobody's yet.
            let shared = manager.share(&bulkhead);
            debug_assert_eq!(shared, Ok(()));
        }
        for (bulkhead, config) in self.change {
            // What could be refused was checked above, and can't change while a bulkhead lives.
            let changed = bulkhead.reconfigure(config.clone());
            debug_assert_eq!(changed, Ok(()));
            applied.changed.push(bulkhead.name().clone());
        }
        Some(applied)
    }
}

fn distinct_names(config: &ManagerConfig) -> Result<BTreeSet<BulkheadName>, ManagerError> {
    let mut names = BTreeSet::new();
    for config in config.bulkheads() {
        let name = config
            .checked_name()
            .map_err(|error| invalid(config, error))?;
        if names.contains(&name) {
            return Err(ManagerError::AlreadyExists { name });
        }
        names.insert(name);
    }
    Ok(names)
}

fn invalid(config: &BulkheadConfig, source: ConfigError) -> ManagerError {
    ManagerError::Invalid {
        bulkhead: config.name().into(),
        source,
    }
}
