//! Who was granted a permit lately, readable without the lock.

use std::sync::OnceLock;

use super::waiters::Key;
use crate::sync::atomic::{AtomicU64, Ordering};

/// A ring: each waiter has a place by its number, which may be another's by now, and then the lock
/// has to be taken to see. So it may be small, however long the queue is.
#[derive(Debug)]
pub(super) struct Grants(OnceLock<Box<[AtomicU64]>>);

impl Grants {
    /// Those who come one after the other have their places on different cache lines: they are granted
    /// at once, and look at once, on different cores.
    const LINES: u64 = 32;
    const PER_LINE: u64 = 8;
    /// More than are granted and have not looked yet, as a rule.
    const PLACES: u64 = Self::LINES * Self::PER_LINE;

    pub(super) const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Whether this waiter is known to have a permit; then what was done before that happens before
    /// what is done after this.
    #[inline]
    pub(super) fn include(&self, key: Key) -> bool {
        self.place(key)
            .is_some_and(|place| place.load(Ordering::Acquire) == key.word())
    }

    #[inline]
    pub(super) fn add(&self, key: Key) {
        if let Some(place) = self.place(key) {
            place.store(key.word(), Ordering::Release);
        }
    }

    /// Made when somebody waits, since most bulkheads never see that.
    #[inline]
    pub(super) fn prepare(&self) {
        self.0.get_or_init(|| {
            (0..Self::PLACES)
                .map(|_| AtomicU64::new(Key::NOBODY))
                .collect()
        });
    }

    #[inline]
    fn place(&self, key: Key) -> Option<&AtomicU64> {
        let number = key.number();
        let place = number % Self::LINES * Self::PER_LINE + number / Self::LINES % Self::PER_LINE;
        self.0.get()?.get(place as usize)
    }
}
