//! What an operation's result says about the dependency.

use crate::call::outcome::Outcome;

/// Decides what a finished operation says about the dependency.
///
/// Implemented by closures `Fn(&Result<T, E>) -> Outcome`, and by [`DefaultClassifier`], the default.
/// It runs where the operation ran, outside of every lock; a panic in it is treated as one of the
/// operation. Implemented for a type of one's own, it can be named and shared:
///
/// ```
/// use bulkman::Outcome;
/// use bulkman::call::Classifier;
///
/// /// For HTTP statuses: a client's mistake is no failure of the server.
/// #[derive(Clone, Copy)]
/// struct StatusClassifier;
///
/// impl<E> Classifier<u16, E> for StatusClassifier {
///     fn classify(&self, result: &Result<u16, E>) -> Outcome {
///         match result {
///             Ok(400..=499) => Outcome::Ignored,
///             Ok(500..) | Err(_) => Outcome::Failure,
///             Ok(_) => Outcome::Success,
///         }
///     }
/// }
/// # let _ = |result: Result<u16, ()>| StatusClassifier.classify(&result);
/// ```
pub trait Classifier<T, E> {
    /// The outcome of this result.
    fn classify(&self, result: &Result<T, E>) -> Outcome;
}

/// `Ok` is a success and `Err` a failure: the default.
///
/// ```
/// use bulkman::Outcome;
/// use bulkman::call::{Classifier, DefaultClassifier};
///
/// assert_eq!(DefaultClassifier.classify(&Ok::<_, ()>(503)), Outcome::Success);
/// assert_eq!(DefaultClassifier.classify(&Err::<(), _>("no route")), Outcome::Failure);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultClassifier;

impl<T, E> Classifier<T, E> for DefaultClassifier {
    #[inline]
    fn classify(&self, result: &Result<T, E>) -> Outcome {
        match result {
            Ok(_) => Outcome::Success,
            Err(_) => Outcome::Failure,
        }
    }
}

impl<T, E, F: Fn(&Result<T, E>) -> Outcome> Classifier<T, E> for F {
    #[inline]
    fn classify(&self, result: &Result<T, E>) -> Outcome {
        self(result)
    }
}
