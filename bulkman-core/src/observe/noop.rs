//! The observer without the features `tracing` and `metrics`: every method does nothing.

use super::{CallEnd, CallSpan, NoSpan};
use crate::bulkhead::Inner;

#[derive(Debug)]
pub(crate) struct Observer;

impl Observer {
    pub(crate) const fn new(_id: u64) -> Self {
        Self
    }

    #[inline]
    pub(crate) const fn begin(&mut self, _inner: &Inner) {}

    #[inline]
    pub(crate) const fn is_enabled(&self) -> bool {
        false
    }

    #[inline]
    pub(crate) const fn run(&mut self, _inner: &Inner) {}

    #[inline]
    pub(crate) const fn enter(&self) -> NoSpan {
        NoSpan
    }

    pub(crate) const fn span(&self) -> CallSpan {
        CallSpan {}
    }

    #[inline]
    pub(crate) const fn end(&mut self, _inner: &Inner, _end: CallEnd) {}
}
