//! A classifier that recognizes rejections by inner bulkheads.

use std::any::Any;
use std::error::Error;

use crate::call::classifier::Classifier;
use crate::call::outcome::Outcome;
use crate::error::{BoxError, BoxedError, NotStarted};

/// Ignores rejections by an inner bulkhead, and leaves all other results to another classifier.
///
/// A rejection shows nothing about the dependency, so it must not open the circuit of an outer
/// bulkhead. [`BulkheadService`](super::BulkheadService) applies it to its classifier.
#[derive(Clone, Copy, Debug)]
pub struct RejectionAware<C>(pub(super) C);

impl<C, T, E> Classifier<T, E> for RejectionAware<C>
where
    C: Classifier<T, E>,
    E: 'static,
{
    fn classify(&self, result: &Result<T, E>) -> Outcome {
        match result {
            Err(error) if is_rejection(error) => Outcome::Ignored,
            _ => self.0.classify(result),
        }
    }
}

fn is_rejection(error: &dyn Any) -> bool {
    let error: &(dyn Error + 'static) = if let Some(error) = error.downcast_ref::<BoxedError>() {
        error
    } else if let Some(error) = error.downcast_ref::<std::io::Error>() {
        error
    } else if let Some(error) = error.downcast_ref::<BoxError>() {
        &**error
    } else {
        return false;
    };
    NotStarted::is_source_of(error)
}
