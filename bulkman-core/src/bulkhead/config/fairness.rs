//! How the permits of a bulkhead are shared between keys.

use std::ops::RangeInclusive;

use crate::config_error::ConfigError;
use crate::queue::KeyRules;

/// How a bulkhead shares its permits between the keys of its calls, usually tenants.
///
/// A call has the key that [`Call::key`](crate::call::Call::key) sets. Calls without one share a
/// key. While no call waits, keys do not matter: one key may use all permits. When calls wait, the
/// key that holds the fewest permits is next. See the page `guide::fair_shares`.
///
/// Setters take and return the value. Nothing is validated before the bulkhead is created.
///
/// | setting | default | range |
/// | --- | --- | --- |
/// | [`min_per_key`](Self::min_per_key) | 0 | 0 to `max_concurrent_calls - 1` |
/// | [`max_per_key`](Self::max_per_key) | none | `min_per_key`, at least 1, to `max_concurrent_calls` |
/// | [`max_queue_per_key`](Self::max_queue_per_key) | none | 0 to `max_queue_size` |
/// | [`evict_longest`](Self::evict_longest) | true | |
///
/// ```
/// use bulkman::bulkhead::Fairness;
/// use bulkman::runtime::ClockOnly;
/// use bulkman::{Bulkhead, BulkheadConfig};
///
/// let fairness = Fairness::new().min_per_key(2).max_per_key(40);
/// let config = BulkheadConfig::new("db").max_concurrent_calls(100).fairness(fairness);
/// let db = Bulkhead::new(config, ClockOnly)?;
/// let rows = db.call().key("tenant 17").execute_sync(|| Ok::<_, ()>(3));
/// assert_eq!(rows, Ok(3));
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Fairness {
    pub(super) min_per_key: u32,
    pub(super) max_per_key: Option<u32>,
    pub(super) max_queue_per_key: Option<u32>,
    pub(super) evict_longest: bool,
}

impl Default for Fairness {
    fn default() -> Self {
        Self::new()
    }
}

impl Fairness {
    /// Creates a configuration with the default values.
    ///
    /// ```
    /// # use bulkman::bulkhead::Fairness;
    /// assert_eq!(Fairness::new(), Fairness::new().evict_longest(true));
    /// ```
    pub const fn new() -> Self {
        Self {
            min_per_key: 0,
            max_per_key: None,
            max_queue_per_key: None,
            evict_longest: true,
        }
    }

    /// Reserves this number of permits for keys that hold fewer: default 0.
    ///
    /// A key below it is served first. One key alone uses all permits but these. With more keys
    /// than the limit divided by this number, not every key has it at the same moment.
    ///
    /// ```
    /// # use bulkman::bulkhead::Fairness;
    /// # use bulkman::runtime::ClockOnly;
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// let config = BulkheadConfig::new("db")
    ///     .max_concurrent_calls(3)
    ///     .fairness(Fairness::new().min_per_key(1));
    /// let db = Bulkhead::new(config, ClockOnly)?;
    /// let busy = || db.call().key("busy").try_acquire();
    /// let _running = (busy().unwrap(), busy().unwrap());
    /// assert!(busy().is_err()); // the last permit is reserved
    /// assert!(db.call().key("quiet").try_acquire().is_ok());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub const fn min_per_key(mut self, permits: u32) -> Self {
        self.min_per_key = permits;
        self
    }

    /// Limits the permits that a key holds: default `None`.
    ///
    /// Its other calls wait, even while permits are available, and block no other key. A weight
    /// above it is rejected with
    /// [`BulkheadError::WeightTooLarge`](crate::BulkheadError::WeightTooLarge).
    ///
    /// ```
    /// # use bulkman::bulkhead::Fairness;
    /// # use bulkman::runtime::ClockOnly;
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// let config = BulkheadConfig::new("db").fairness(Fairness::new().max_per_key(1));
    /// let db = Bulkhead::new(config, ClockOnly)?;
    /// let _running = db.call().key("a").try_acquire().unwrap();
    /// assert!(db.call().key("a").try_acquire().is_err());
    /// assert!(db.call().key("b").try_acquire().is_ok());
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    pub fn max_per_key(mut self, permits: impl Into<Option<u32>>) -> Self {
        self.max_per_key = permits.into();
        self
    }

    /// Limits the waiting calls of a key: default `None`.
    ///
    /// Further calls are rejected with [`BulkheadError::Full`](crate::BulkheadError::Full), and
    /// counted as [`key_queue_full`](crate::bulkhead::Rejections::key_queue_full).
    ///
    /// ```
    /// # use bulkman::bulkhead::Fairness;
    /// # use bulkman::BulkheadConfig;
    /// let fairness = Fairness::new().max_queue_per_key(20);
    /// assert!(BulkheadConfig::new("db").fairness(fairness).validate().is_ok());
    /// ```
    pub fn max_queue_per_key(mut self, calls: impl Into<Option<u32>>) -> Self {
        self.max_queue_per_key = calls.into();
        self
    }

    /// Sets whether a call may take the place of another in a full queue: default `true`.
    ///
    /// The newest call of the key with the most waiters leaves, if that key has at least two more
    /// than the key of the new call, at its priority. It is rejected with
    /// [`BulkheadError::Full`](crate::BulkheadError::Full), and counted as
    /// [`evicted`](crate::bulkhead::Rejections::evicted). So one key cannot occupy the queue, and
    /// equal keys do not evict each other.
    ///
    /// ```
    /// # use bulkman::bulkhead::Fairness;
    /// let fairness = Fairness::new().evict_longest(false);
    /// assert_ne!(fairness, Fairness::new());
    /// ```
    pub const fn evict_longest(mut self, evict: bool) -> Self {
        self.evict_longest = evict;
        self
    }

    pub(super) fn validate(&self, permits: usize, capacity: usize) -> Result<(), ConfigError> {
        let check = |field, value: u32, accepted: RangeInclusive<usize>, range| {
            if accepted.contains(&(value as usize)) {
                Ok(())
            } else {
                Err(ConfigError::out_of_range(field, value, range))
            }
        };
        check(
            "fairness.min_per_key",
            self.min_per_key,
            0..=permits - 1,
            "0 to less than `max_concurrent_calls`",
        )?;
        if let Some(max) = self.max_per_key {
            check(
                "fairness.max_per_key",
                max,
                self.min_per_key.max(1) as usize..=permits,
                "`min_per_key`, at least 1, to `max_concurrent_calls`",
            )?;
        }
        if let Some(max) = self.max_queue_per_key {
            check(
                "fairness.max_queue_per_key",
                max,
                0..=capacity,
                "0 to `max_queue_size`",
            )?;
        }
        Ok(())
    }

    /// Returns the largest weight of a call.
    pub(super) fn max_weight(&self, permits: u32) -> u32 {
        self.max_per_key.map_or(permits, |max| max.min(permits))
    }

    pub(super) fn rules(&self) -> KeyRules {
        KeyRules {
            min: self.min_per_key,
            max: self.max_per_key.unwrap_or(KeyRules::NO_MAX),
            max_queue: self.max_queue_per_key.unwrap_or(KeyRules::NO_MAX),
            evicts: self.evict_longest,
        }
    }
}
