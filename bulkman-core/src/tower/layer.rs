//! The layer that adds a bulkhead to services.

use std::hash::Hash;
use std::marker::PhantomData;

use tower_layer::Layer;

use super::service::BulkheadService;
use super::settings::{NoSettings, WithKey, WithKeyShare, WithWeight};
use super::status::StatusClassifier;
use crate::bulkhead::Bulkhead;
use crate::call::classifier::DefaultClassifier;
use crate::call::outcome::Outcome;

/// A layer that adds one bulkhead to services.
///
/// All services that it creates share the permits, the queue and the circuit. It is cheap to clone.
/// See the [module](super) for what counts as a call.
///
/// ```
/// use bulkman::runtime::ClockOnly;
/// use bulkman::tower::BulkheadLayer;
/// use bulkman::{Bulkhead, BulkheadConfig};
/// use tower_layer::Layer;
///
/// let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
/// let layer = BulkheadLayer::new(bulkhead.clone());
/// let (search, suggest) = (layer.layer("search"), layer.layer("suggest"));
/// bulkhead.shutdown();
/// assert!(!search.bulkhead().is_healthy() && !suggest.bulkhead().is_healthy());
/// # Ok::<(), bulkman::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct BulkheadLayer<C = DefaultClassifier, P = NoSettings> {
    bulkhead: Bulkhead,
    classifier: C,
    settings: P,
}

impl BulkheadLayer {
    /// Creates a layer that counts errors as failures and responses as successes.
    ///
    /// ```
    /// # use bulkman::tower::BulkheadLayer;
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// let layer =
    ///     BulkheadLayer::new(Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?);
    /// # let _ = layer;
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub const fn new(bulkhead: Bulkhead) -> Self {
        Self {
            bulkhead,
            classifier: DefaultClassifier,
            settings: NoSettings,
        }
    }
}

impl<C, P> BulkheadLayer<C, P> {
    /// Sets the [weight](crate::call::Call::weight) of each call by its request.
    ///
    /// The closure runs in `call`, before anything is held.
    ///
    /// ```
    /// # use bulkman::tower::BulkheadLayer;
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// struct Query {
    ///     rows: u32,
    /// }
    ///
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// let layer = BulkheadLayer::new(bulkhead).weight(|query: &Query| query.rows.div_ceil(1_000));
    /// # let _ = layer;
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn weight<R, F>(self, weight: F) -> BulkheadLayer<C, WithWeight<P, F>>
    where
        F: Fn(&R) -> u32,
    {
        self.map_settings(|others| WithWeight { others, weight })
    }

    /// Sets the [key](crate::call::Call::key) of each call, usually its tenant, by its request.
    ///
    /// The closure runs in `call`, before anything is held. Return what identifies the tenant, for
    /// example a header: `request.headers().get("x-tenant").cloned()`.
    ///
    /// ```
    /// # use bulkman::bulkhead::Fairness;
    /// # use bulkman::tower::BulkheadLayer;
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// struct Query {
    ///     tenant: u64,
    /// }
    ///
    /// let config = BulkheadConfig::new("search").fairness(Fairness::new());
    /// let bulkhead = Bulkhead::new(config, ClockOnly)?;
    /// let layer = BulkheadLayer::new(bulkhead).key(|query: &Query| query.tenant);
    /// # let _ = layer;
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn key<R, K, F>(self, key: F) -> BulkheadLayer<C, WithKey<P, F, K>>
    where
        F: Fn(&R) -> K,
        K: Hash,
    {
        self.map_settings(|others| WithKey {
            others,
            key,
            output: PhantomData,
        })
    }

    /// Sets the [share of the key](crate::call::Call::key_share) of each call by its request.
    ///
    /// ```
    /// # use bulkman::bulkhead::Fairness;
    /// # use bulkman::tower::BulkheadLayer;
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// struct Query {
    ///     tenant: u64,
    ///     paid: bool,
    /// }
    ///
    /// let config = BulkheadConfig::new("search").fairness(Fairness::new());
    /// let layer = BulkheadLayer::new(Bulkhead::new(config, ClockOnly)?)
    ///     .key(|query: &Query| query.tenant)
    ///     .key_share(|query: &Query| if query.paid { 4 } else { 1 });
    /// # let _ = layer;
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn key_share<R, F>(self, share: F) -> BulkheadLayer<C, WithKeyShare<P, F>>
    where
        F: Fn(&R) -> u32,
    {
        self.map_settings(|others| WithKeyShare { others, share })
    }

    fn map_settings<Q>(self, add: impl FnOnce(P) -> Q) -> BulkheadLayer<C, Q> {
        BulkheadLayer {
            bulkhead: self.bulkhead,
            classifier: self.classifier,
            settings: add(self.settings),
        }
    }

    /// Sets how the response or the error of the service counts toward the circuit breaker.
    ///
    /// ```
    /// use bulkman::runtime::ClockOnly;
    /// use bulkman::tower::BulkheadLayer;
    /// use bulkman::{Bulkhead, BulkheadConfig, Outcome};
    ///
    /// struct Response {
    ///     stale: bool,
    /// }
    ///
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// let classify = |result: &Result<Response, std::io::Error>| match result {
    ///     Ok(response) if response.stale => Outcome::Ignored,
    ///     Ok(_) => Outcome::Success,
    ///     Err(_) => Outcome::Failure,
    /// };
    /// let layer = BulkheadLayer::new(bulkhead).classify(classify);
    /// # let _ = layer;
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn classify<T, E, F>(self, classifier: F) -> BulkheadLayer<F, P>
    where
        F: Fn(&Result<T, E>) -> Outcome,
    {
        BulkheadLayer {
            bulkhead: self.bulkhead,
            classifier,
            settings: self.settings,
        }
    }

    /// Sets the classifier, which can be a type of yours. See [`classify`](Self::classify).
    ///
    /// ```
    /// # use bulkman::tower::BulkheadLayer;
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// use bulkman::call::DefaultClassifier;
    ///
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// let layer = BulkheadLayer::new(bulkhead).classify_by(DefaultClassifier);
    /// # let _ = layer;
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn classify_by<D>(self, classifier: D) -> BulkheadLayer<D, P> {
        BulkheadLayer {
            bulkhead: self.bulkhead,
            classifier,
            settings: self.settings,
        }
    }

    /// Counts errors and responses with an HTTP status of 500 and above as failures.
    ///
    /// ```
    /// # struct Response(u16);
    /// # impl Response { fn status(&self) -> u16 { self.0 } }
    /// use bulkman::runtime::ClockOnly;
    /// use bulkman::tower::BulkheadLayer;
    /// use bulkman::{Bulkhead, BulkheadConfig};
    ///
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("search"), ClockOnly)?;
    /// // With the crate `http`: `response.status().as_u16()`.
    /// let status = |response: &Response| response.status();
    /// let layer = BulkheadLayer::new(bulkhead).classify_status(status);
    /// # let _ = layer;
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[must_use]
    pub fn classify_status<T, F>(self, status: F) -> BulkheadLayer<StatusClassifier<F>, P>
    where
        F: Fn(&T) -> u16,
    {
        BulkheadLayer {
            bulkhead: self.bulkhead,
            classifier: StatusClassifier(status),
            settings: self.settings,
        }
    }

    /// Counts gRPC calls by their `grpc-status`. See [`GrpcClassifier`](super::GrpcClassifier).
    ///
    /// ```
    /// # use bulkman::tower::BulkheadLayer;
    /// # use bulkman::{Bulkhead, BulkheadConfig};
    /// # use bulkman::runtime::ClockOnly;
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("greeter"), ClockOnly)?;
    /// // Also reads the status of streams, which is in their trailers.
    /// let layer = BulkheadLayer::new(bulkhead).classify_grpc().hold_until_body_end();
    /// # let _ = layer;
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[cfg(feature = "http")]
    #[cfg_attr(docsrs, doc(cfg(feature = "http")))]
    #[must_use]
    pub fn classify_grpc(self) -> BulkheadLayer<super::GrpcClassifier, P> {
        self.classify_by(super::GrpcClassifier)
    }

    /// Makes a call last until the body of its response has ended or is dropped.
    ///
    /// Set the classifier before. The response is a `http::Response` whose body becomes a
    /// [`GuardedBody`](super::GuardedBody), which holds the permit:
    ///
    /// * A body that ends counts as the classifier decided for the head of the response, or for the
    ///   trailers.
    /// * A body that breaks off with an error, or panics, is a failure.
    /// * A body that is dropped before its end counts as canceled, because the reader has ended the
    ///   call. If the head is not a success, its outcome is recorded.
    ///
    /// The limits of the bulkhead apply until the head is available; a stream may last longer. The
    /// duration of a call, for the rules of slow calls and of calls that hang, is the time until
    /// the head, since the reader determines how long a body takes. A body that hangs keeps its
    /// permit, so limit the time of bodies in the server or client. The list of running calls
    /// shows it.
    ///
    /// ```
    /// use bulkman::testing::ManualRuntime;
    /// use bulkman::tower::BulkheadLayer;
    /// use bulkman::{Bulkhead, BulkheadConfig};
    /// use http::{Request, Response};
    /// use http_body_util::{BodyExt, Full};
    /// use tower::{Layer, Service, service_fn};
    ///
    /// let runtime = ManualRuntime::new();
    /// let bulkhead = Bulkhead::new(BulkheadConfig::new("files"), runtime.clone())?;
    /// let files = service_fn(async |_: Request<()>| {
    ///     Ok::<_, std::io::Error>(Response::new(Full::new(&b"content"[..])))
    /// });
    /// let mut files = BulkheadLayer::new(bulkhead.clone()).hold_until_body_end().layer(files);
    /// runtime.block_on(async {
    ///     let response = files.call(Request::new(())).await.unwrap();
    ///     assert_eq!(bulkhead.stats().active, 1);
    ///     response.into_body().collect().await.unwrap();
    ///     assert_eq!((bulkhead.stats().active, bulkhead.stats().successful), (0, 1));
    /// });
    /// # Ok::<(), bulkman::ConfigError>(())
    /// ```
    #[cfg(feature = "http")]
    #[cfg_attr(docsrs, doc(cfg(feature = "http")))]
    #[must_use]
    pub fn hold_until_body_end(self) -> super::BodyLayer<C, P> {
        super::BodyLayer::new(self.bulkhead, self.classifier, self.settings)
    }
}

impl<S, C: Clone, P: Clone> Layer<S> for BulkheadLayer<C, P> {
    type Service = BulkheadService<S, C, P>;

    fn layer(&self, inner: S) -> Self::Service {
        BulkheadService::new(
            inner,
            self.bulkhead.clone(),
            self.classifier.clone(),
            self.settings.clone(),
        )
    }
}
