//! Runs user code where its panic must not propagate.
//!
//! That is in the middle of an update, and in a `Drop`, where a second panic aborts the process.

use std::mem::forget;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `code`. Returns `None` if it panics.
///
/// The panic hook has reported the panic by then. What `code` borrows from this crate must be
/// consistent wherever `code` may panic.
pub(crate) fn catch<R>(code: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(code)) {
        Ok(result) => Some(result),
        Err(payload) => {
            drop_catching(payload);
            None
        }
    }
}

/// Drops a value of the user, and catches a panic of its `Drop`.
pub(crate) fn drop_catching<T>(unwanted: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(unwanted))) {
        // Leaked, since the drop of the payload may panic as well.
        forget(payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct PanicsOnDrop;

    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            std::panic::panic_any(PanickingPayload);
        }
    }

    struct PanickingPayload;

    impl Drop for PanickingPayload {
        fn drop(&mut self) {
            panic!("the payload panics on drop");
        }
    }

    #[test]
    fn panics_of_values_and_payloads_in_drop_are_caught() {
        assert_eq!(catch(|| 7), Some(7));
        assert_eq!(
            catch(|| -> u8 { std::panic::panic_any(PanickingPayload) }),
            None
        );
        drop_catching(PanicsOnDrop);
    }
}
