//! Recognizes a rejection by an inner bulkhead or circuit in the error of an operation.
//!
//! An operation's error may be of any type, without a bound that would let it be inspected. Yet its
//! type has a name, and its value a discriminant: for the error types of this crate, they identify
//! a rejection. Where the discriminant is not enough (a timeout has a phase, an error of an
//! operation may itself be a rejection), the thread has a note: it is taken when such an error is
//! created, and read when the enclosing call classifies it, usually in the same poll.
//!
//! If the compiler named types or hashed discriminants otherwise, inner rejections would count as
//! failures, as other errors do. The tests of this module would fail.

use std::any::type_name;
use std::cell::Cell;
use std::convert::Infallible;
use std::hash::{Hash, Hasher};
use std::mem::discriminant;

use super::{BoxedError, BulkheadError, CircuitOpen};
use crate::circuit_breaker::CircuitError;

thread_local! {
    /// Whether the last error whose discriminant does not decide was a rejection.
    static LAST_WAS_REJECTION: Cell<bool> = const { Cell::new(false) };
}

/// Takes a note of whether the error that is returned now is a rejection.
pub(crate) fn note_rejection(is_rejection: bool) {
    LAST_WAS_REJECTION.set(is_rejection);
}

/// Returns `true` if the error of an operation is a rejection by an inner bulkhead or circuit.
#[inline]
pub(crate) fn is_nested_rejection<E>(error: &E) -> bool {
    // Decided at compile time for the errors of users.
    NestedError::named(type_name::<E>()).is_some_and(|nested| is_rejection(nested, error))
}

#[cold]
fn is_rejection<E>(nested: NestedError, error: &E) -> bool {
    let noted = LAST_WAS_REJECTION.get();
    let is_rejection = match nested {
        NestedError::Circuit => true,
        NestedError::Any => noted,
        NestedError::OfBulkhead { of_nested } => match variant(error) {
            Some(CIRCUIT_OPEN | FULL | SHUTDOWN | WEIGHT_TOO_LARGE | UNSUPPORTED | NOT_FOUND) => {
                true
            }
            Some(TIMEOUT) => noted,
            Some(OPERATION) => of_nested && noted,
            _ => false,
        },
        NestedError::OfCircuit { of_nested } => match variant(error) {
            Some(0) => true,
            _ => of_nested && noted,
        },
    };
    note_rejection(is_rejection);
    is_rejection
}

/// An error type of this crate.
#[derive(Clone, Copy)]
enum NestedError {
    /// [`BulkheadError`]. `of_nested`: its operation's error is a type of this crate as well.
    OfBulkhead { of_nested: bool },
    /// [`CircuitError`].
    OfCircuit { of_nested: bool },
    /// [`CircuitOpen`].
    Circuit,
    /// [`BoxedError`].
    Any,
}

impl NestedError {
    #[inline]
    fn named(name: &'static str) -> Option<Self> {
        // All types of this crate begin with its name.
        if !name.starts_with(CRATE) {
            return None;
        }
        Self::of_this_crate(name)
    }

    fn of_this_crate(name: &'static str) -> Option<Self> {
        // `Type<Infallible>` and `Type<argument>` differ in the argument only.
        let argument = |of_infallible: &'static str| {
            let (generic, _) = of_infallible.split_once('<')?;
            let argument = name.strip_prefix(generic)?.strip_prefix('<')?;
            argument.strip_suffix('>')
        };
        let is_nested = |name| Self::named(name).is_some();
        if let Some(error) = argument(type_name::<BulkheadError<Infallible>>()) {
            let of_nested = is_nested(error);
            Some(Self::OfBulkhead { of_nested })
        } else if let Some(error) = argument(type_name::<CircuitError<Infallible>>()) {
            let of_nested = is_nested(error);
            Some(Self::OfCircuit { of_nested })
        } else if name == type_name::<CircuitOpen>() {
            Some(Self::Circuit)
        } else {
            (name == type_name::<BoxedError>()).then_some(Self::Any)
        }
    }
}

/// The name of this crate, as in the names of its types.
const CRATE: &str = "bulkman_core::";

// The discriminants of `BulkheadError`: its variants are numbered in the order of their
// declaration.
const CIRCUIT_OPEN: i128 = 0;
const FULL: i128 = 1;
const TIMEOUT: i128 = 2;
const SHUTDOWN: i128 = 3;
const WEIGHT_TOO_LARGE: i128 = 4;
const UNSUPPORTED: i128 = 6;
const NOT_FOUND: i128 = 7;
const OPERATION: i128 = 8;

/// Returns the discriminant of a value of an enum.
fn variant<E>(value: &E) -> Option<i128> {
    /// Keeps the number that is hashed.
    struct Read(Option<i128>);

    impl Hasher for Read {
        fn finish(&self) -> u64 {
            0
        }

        fn write(&mut self, _: &[u8]) {}

        fn write_isize(&mut self, number: isize) {
            self.0 = Some(number as i128);
        }
    }

    let mut read = Read(None);
    discriminant(value).hash(&mut read);
    read.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::{RejectionReason, TimeoutPhase};
    use crate::name::BulkheadName;

    fn name() -> BulkheadName {
        BulkheadName::new("host").unwrap()
    }

    fn timeout<E>(phase: TimeoutPhase) -> BulkheadError<E> {
        BulkheadError::Timeout {
            bulkhead: name(),
            phase,
            queued: Duration::ZERO,
            ran: Duration::ZERO,
        }
    }

    fn every_error() -> [BulkheadError<std::io::Error>; 10] {
        [
            BulkheadError::CircuitOpen {
                bulkhead: name(),
                reason: RejectionReason::Open,
                retry_after: None,
            },
            BulkheadError::Full {
                bulkhead: name(),
                max_concurrent_calls: 1,
                max_queue_size: 1,
            },
            timeout(TimeoutPhase::Queued),
            timeout(TimeoutPhase::Running),
            BulkheadError::Shutdown { bulkhead: name() },
            BulkheadError::WeightTooLarge {
                bulkhead: name(),
                weight: 11,
                max: 10,
            },
            BulkheadError::Panicked {
                bulkhead: name(),
                message: "oops".into(),
            },
            BulkheadError::Unsupported {
                bulkhead: name(),
                setting: "timeout",
                needs: "timers",
            },
            BulkheadError::NotFound {
                name: "host".into(),
            },
            BulkheadError::Operation(std::io::Error::other("down")),
        ]
    }

    /// Fault F03.
    #[test]
    fn every_kind_of_inner_rejection_is_recognized() {
        for error in every_error() {
            note_rejection(error.is_rejection());
            assert_eq!(
                is_nested_rejection(&error),
                error.is_rejection(),
                "{error:?}"
            );
            let expected = error.is_rejection();
            let outer = BulkheadError::Operation(error);
            assert_eq!(is_nested_rejection(&outer), expected, "{outer:?}");
        }
        let open = CircuitOpen::new(RejectionReason::Open, None);
        assert!(is_nested_rejection(&open));
        assert!(is_nested_rejection(&CircuitError::<()>::Open(open)));
        assert!(!is_nested_rejection(&CircuitError::Operation("down")));
    }

    /// Fault F03.
    #[test]
    fn errors_of_other_types_are_no_rejections() {
        note_rejection(true);
        assert!(!is_nested_rejection(&()));
        assert!(!is_nested_rejection(&"down"));
        assert!(!is_nested_rejection(&Some(0)));
        assert!(!is_nested_rejection(&RejectionReason::Open));
        assert!(!is_nested_rejection(&BulkheadError::Operation("down")));
    }
}
