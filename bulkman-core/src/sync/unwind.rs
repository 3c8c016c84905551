//! The user's code where a panic must not pass: with something half done, or in a `Drop`, where a
//! second panic would end the process.

use std::mem::forget;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `code`; `None` if it panicked.
///
/// The panic has been reported by the panic hook by then. What `code` borrows of ours must be
/// consistent wherever it may panic.
pub(crate) fn contain<R>(code: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(code)) {
        Ok(result) => Some(result),
        Err(payload) => {
            discard(payload);
            None
        }
    }
}

/// Drops something of the user's, whose `Drop` may panic, too.
pub(crate) fn discard<T>(unwanted: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(unwanted))) {
        // Somebody whose payloads panic as well gets no third chance.
        forget(payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            std::panic::panic_any(Nested);
        }
    }

    struct Nested;

    impl Drop for Nested {
        fn drop(&mut self) {
            panic!("the payload's drop");
        }
    }

    #[test]
    fn a_payload_that_panics_when_it_is_dropped_goes_no_further() {
        assert_eq!(contain(|| 7), Some(7));
        assert_eq!(contain(|| -> u8 { std::panic::panic_any(Nested) }), None);
        discard(Bomb);
    }
}
