//! What the call of a request takes from the request.

use std::hash::Hash;
use std::marker::PhantomData;

use crate::call::Call;

/// Sets the weight, the key or the share of the key of a call by its request.
///
/// Implemented by what [`BulkheadLayer::weight`](super::BulkheadLayer::weight) and its siblings
/// add to a layer.
pub trait CallSettings<R>: sealed::Sealed {
    /// Applies the settings. Runs before anything is held.
    #[doc(hidden)]
    fn apply<'a, C>(&self, call: Call<'a, C>, request: &R) -> Call<'a, C>;
}

mod sealed {
    pub trait Sealed {}

    impl Sealed for super::NoSettings {}
    impl<P, F> Sealed for super::WithWeight<P, F> {}
    impl<P, F, K> Sealed for super::WithKey<P, F, K> {}
    impl<P, F> Sealed for super::WithKeyShare<P, F> {}
}

/// Requests set nothing: the default.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSettings;

impl<R> CallSettings<R> for NoSettings {
    fn apply<'a, C>(&self, call: Call<'a, C>, _: &R) -> Call<'a, C> {
        call
    }
}

/// Requests set the weight of their calls.
#[derive(Clone, Copy, Debug)]
pub struct WithWeight<P, F> {
    pub(super) others: P,
    pub(super) weight: F,
}

impl<R, P, F> CallSettings<R> for WithWeight<P, F>
where
    P: CallSettings<R>,
    F: Fn(&R) -> u32,
{
    fn apply<'a, C>(&self, call: Call<'a, C>, request: &R) -> Call<'a, C> {
        let call = self.others.apply(call, request);
        call.weight((self.weight)(request))
    }
}

/// Requests set the key of their calls.
#[derive(Debug)]
pub struct WithKey<P, F, K> {
    pub(super) others: P,
    pub(super) key: F,
    pub(super) output: PhantomData<fn() -> K>,
}

impl<P: Clone, F: Clone, K> Clone for WithKey<P, F, K> {
    fn clone(&self) -> Self {
        Self {
            others: self.others.clone(),
            key: self.key.clone(),
            output: PhantomData,
        }
    }
}

impl<R, P, F, K> CallSettings<R> for WithKey<P, F, K>
where
    P: CallSettings<R>,
    F: Fn(&R) -> K,
    K: Hash,
{
    fn apply<'a, C>(&self, call: Call<'a, C>, request: &R) -> Call<'a, C> {
        let call = self.others.apply(call, request);
        call.key(&(self.key)(request))
    }
}

/// Requests set the share of their key.
#[derive(Clone, Copy, Debug)]
pub struct WithKeyShare<P, F> {
    pub(super) others: P,
    pub(super) share: F,
}

impl<R, P, F> CallSettings<R> for WithKeyShare<P, F>
where
    P: CallSettings<R>,
    F: Fn(&R) -> u32,
{
    fn apply<'a, C>(&self, call: Call<'a, C>, request: &R) -> Call<'a, C> {
        let call = self.others.apply(call, request);
        call.key_share((self.share)(request))
    }
}
