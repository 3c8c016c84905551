//! Creating and changing all bulkheads of a manager at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::config::ManagerConfig;
use super::{BulkheadManager, ManagerError};
use crate::bulkhead::Bulkhead;
use crate::bulkhead::config::BulkheadConfig;
use crate::config_error::ConfigError;
use crate::name::BulkheadName;
use crate::runtime::Runtime;

/// The result of [`BulkheadManager::apply_config`].
///
/// ```
/// use bulkman::manager::ManagerConfig;
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{BulkheadConfig, BulkheadManager};
///
/// let manager = BulkheadManager::new(ClockOnly);
/// manager.create_bulkhead(BulkheadConfig::new("mail"))?;
/// let config = ManagerConfig::new().bulkhead(BulkheadConfig::new("search"));
/// let applied = manager.apply_config(&config)?;
/// assert_eq!(applied.created[0], "search");
/// assert_eq!(applied.not_in_config[0], "mail");
/// # Ok::<(), bulkman::manager::ManagerError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AppliedConfig {
    /// Bulkheads that were created.
    pub created: Vec<BulkheadName>,
    /// Bulkheads that were reconfigured in place.
    pub changed: Vec<BulkheadName>,
    /// Changes that need a new bulkhead, with the reason: [`ConfigError::Immutable`].
    ///
    /// All other changes of these bulkheads were applied. To apply these too, remove the bulkhead
    /// and apply the configuration again.
    pub not_applied: Vec<(BulkheadName, ConfigError)>,
    /// Bulkheads that have this configuration already, except for what is in `not_applied`.
    pub unchanged: Vec<BulkheadName>,
    /// Bulkheads of the manager that are not in the configuration. They are not changed.
    pub not_in_config: Vec<BulkheadName>,
}

impl BulkheadManager {
    /// Creates a manager from a configuration.
    ///
    /// # Errors
    ///
    /// As [`apply_config`](Self::apply_config).
    ///
    /// ```
    /// use bulkman::manager::ManagerConfig;
    /// use bulkman::runtime::ClockOnly;
    /// use bulkman::{BulkheadConfig, BulkheadManager};
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

    /// Creates the missing bulkheads of `config`, and reconfigures the others in place.
    ///
    /// Existing bulkheads keep the states and windows of their circuits, and their running and
    /// queued calls: see [`Bulkhead::reconfigure`]. A bulkhead that is not in `config` is not
    /// changed, since it may have been created in code. It is listed in
    /// [`AppliedConfig::not_in_config`], and can be removed with
    /// [`remove_bulkhead`](Self::remove_bulkhead).
    ///
    /// Two settings can't be changed in place: `circuit_breaker_enabled` and `initial_state`. Such
    /// a change is listed in [`AppliedConfig::not_applied`], and all other changes are applied. If
    /// `circuit_breaker_enabled` differs, the circuit keeps its rules.
    ///
    /// Some changes take effect later: timeouts with the next call, an isolation with the next
    /// opening.
    ///
    /// # Errors
    ///
    /// * [`ManagerError::Invalid`] if one of the configurations is invalid, needs something that
    ///   the runtime does not have, or has the name of another one in `config`.
    ///
    /// After an error, nothing has changed.
    ///
    /// ```
    /// use bulkman::manager::ManagerConfig;
    /// use bulkman::runtime::ClockOnly;
    /// use bulkman::{BulkheadConfig, BulkheadManager};
    ///
    /// let manager = BulkheadManager::new(ClockOnly);
    /// let payments = manager.create_bulkhead(BulkheadConfig::new("payments"))?;
    ///
    /// let bad = ManagerConfig::new()
    ///     .bulkhead(BulkheadConfig::new("payments").max_concurrent_calls(5))
    ///     .bulkhead(BulkheadConfig::new("reports").max_concurrent_calls(0));
    /// let error = manager.apply_config(&bad).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     r#"bulkhead "reports": `max_concurrent_calls` is 0, must be 1 to 1,000,000"#
    /// );
    /// assert_eq!(payments.stats().max_concurrent_calls, 10);
    /// # Ok::<(), bulkman::manager::ManagerError>(())
    /// ```
    pub fn apply_config(&self, config: &ManagerConfig) -> Result<AppliedConfig, ManagerError> {
        let listed = distinct_names(config)?;
        loop {
            let plan = Plan::new(self, config)?;
            // Another thread may have created one of the missing bulkheads: plan again.
            if let Some(applied) = plan.execute(self, &listed) {
                return Ok(applied);
            }
        }
    }
}

/// The validated changes to make.
#[derive(Default)]
struct Plan {
    create: Vec<Bulkhead>,
    change: Vec<(Bulkhead, BulkheadConfig)>,
    keep: Vec<BulkheadName>,
    not_applied: Vec<(BulkheadName, ConfigError)>,
}

impl Plan {
    fn new(manager: &BulkheadManager, config: &ManagerConfig) -> Result<Self, ManagerError> {
        let mut plan = Self::default();
        for config in config.bulkheads() {
            plan.add(manager, config)
                .map_err(|error| invalid(config, error))?;
        }
        Ok(plan)
    }

    fn add(
        &mut self,
        manager: &BulkheadManager,
        config: &BulkheadConfig,
    ) -> Result<(), ConfigError> {
        let Some(bulkhead) = manager.get_bulkhead(config.name()) else {
            let runtime = Arc::clone(&manager.shared.runtime);
            self.create
                .push(Bulkhead::with_shared_runtime(config.clone(), runtime)?);
            return Ok(());
        };
        // Also what can't be applied must be valid.
        config.validate()?;
        let current = bulkhead.config();
        let (config, not_applied) = current.changed_in_place(config);
        let name = bulkhead.name();
        self.not_applied
            .extend(not_applied.into_iter().map(|error| (name.clone(), error)));
        if config == current {
            self.keep.push(name.clone());
        } else {
            bulkhead.check_reconfigure(&config)?;
            self.change.push((bulkhead, config));
        }
        Ok(())
    }

    /// Executes the changes. Returns `None`, without a change, if a missing bulkhead exists by now.
    fn execute(
        self,
        manager: &BulkheadManager,
        listed: &BTreeSet<BulkheadName>,
    ) -> Option<AppliedConfig> {
        let mut applied = AppliedConfig {
            unchanged: self.keep,
            not_applied: self.not_applied,
            ..AppliedConfig::default()
        };
        let created = self.create.clone();
        let fleet = {
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
            manager.fleet().cloned()
        };
        applied.not_in_config.sort_unstable();
        if let Some(fleet) = fleet {
            for bulkhead in created {
                // A new circuit belongs to no other fleet.
                let attached = fleet.attach(&bulkhead);
                debug_assert_eq!(attached, Ok(()));
            }
        }
        for (bulkhead, config) in self.change {
            // The plan has checked every reason to reject it, and none of them can change.
            let changed = bulkhead.reconfigure(config);
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
            let duplicate = ConfigError::conflict("name", "another bulkhead of the configuration");
            return Err(invalid(config, duplicate));
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
