#[cfg(feature = "http")]
use super::UntilBodyEnd;
use super::{Balance, Driver, UntilResponse, now};
use crate::BoxError;
use crate::core::{
    self, Aperture, Choice, EjectionLimits, Event, Load, Policy, PoolBuilder, RateLimits, Zones,
};
use futures_core::Stream;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tower::discover::Change;

/// Settings of a [`Balance`].
pub struct Builder<D, K, S, A = UntilResponse> {
    discovery: D,
    pool: PoolBuilder,
    own_load: Option<Arc<dyn Load<S>>>,
    traits: Traits<K, S>,
    empty_timeout: Duration,
    account: A,
}

impl<D, K, S, E> Builder<D, K, S>
where
    D: Stream<Item = Result<Change<K, S>, E>>,
{
    pub(super) fn new(discovery: D) -> Self {
        Self {
            discovery,
            pool: PoolBuilder::default()
                .drop_clock(now)
                .rate_limits(RateLimits::default()),
            own_load: None,
            traits: Traits::default(),
            empty_timeout: Duration::from_secs(3),
            account: UntilResponse,
        }
    }
}

impl<D, K, S, A> Builder<D, K, S, A> {
    /// How an endpoint is chosen. Default: by [`PeakEwma::default`](crate::core::PeakEwma).
    #[must_use]
    pub fn load(mut self, choice: impl Into<Choice>) -> Self {
        self.pool = self.pool.load(choice);
        self
    }

    /// The caller's own measure of an endpoint's load, in place of the one that is set by [`load`](Self::load).
    #[must_use]
    pub fn own_load(mut self, load: impl Load<S> + 'static) -> Self {
        self.own_load = Some(Arc::new(load));
        self
    }

    /// What a refusal for its rate means for an endpoint. Default: [`RateLimits::default`].
    #[must_use]
    pub fn rate_limits(mut self, settings: RateLimits) -> Self {
        self.pool = self.pool.rate_limits(settings);
        self
    }

    /// Keeps requests in the caller's zone while it can take them; `zone` says where each endpoint is, if it is known.
    #[must_use]
    pub fn zones(
        mut self,
        zones: Zones,
        zone: impl Fn(&K, &S) -> Option<Arc<str>> + Send + 'static,
    ) -> Self {
        self.pool = self.pool.zones(zones);
        self.traits.zone = Some(Box::new(zone));
        self
    }

    /// Keeps requests to a part of a large set while it can take them. Default: all are used.
    #[must_use]
    pub fn aperture(mut self, aperture: Aperture) -> Self {
        self.pool = self.pool.aperture(aperture);
        self
    }

    /// How long a new endpoint takes until it has its whole share. Default: zero.
    #[must_use]
    pub fn slow_start(mut self, time: Duration) -> Self {
        self.pool = self.pool.slow_start(time);
        self
    }

    /// Gives every endpoint a breaker. Default: none.
    #[must_use]
    pub fn breaker(mut self, policy: impl Into<Policy>) -> Self {
        self.pool = self.pool.breaker(policy);
        self
    }

    /// How many endpoints may be out of use at once. Default: [`EjectionLimits::default`].
    #[must_use]
    pub fn ejection(mut self, limits: EjectionLimits) -> Self {
        self.pool = self.pool.ejection(limits);
        self
    }

    /// Is called with every change of a breaker's state; it must not block. Default: nobody.
    #[must_use]
    pub fn on_event(mut self, observer: impl Fn(Event) + Send + Sync + 'static) -> Self {
        self.pool = self.pool.on_event(observer);
        self
    }

    /// Each endpoint's share of the traffic relative to the others'; with 0 it gets none. Default: equal shares.
    #[must_use]
    pub fn weight(mut self, weight: impl Fn(&K, &S) -> u32 + Send + 'static) -> Self {
        self.traits.weight = Some(Box::new(weight));
        self
    }

    /// How long a call waits while no endpoint is known at all; with zero it fails at once. Default: 3 s.
    #[must_use]
    pub fn empty_timeout(mut self, timeout: Duration) -> Self {
        self.empty_timeout = timeout;
        self
    }

    /// Decides when a request has ended and what it came to. Default: [`UntilResponse`].
    #[must_use]
    pub fn account<B>(self, account: B) -> Builder<D, K, S, B> {
        let Self {
            discovery,
            pool,
            own_load,
            traits,
            empty_timeout,
            ..
        } = self;
        Builder {
            discovery,
            pool,
            own_load,
            traits,
            empty_timeout,
            account,
        }
    }

    /// For HTTP and gRPC services: a request is in flight until its response's body or trailers end, and `classify` says
    /// what it came to, as for example [`AutoClassifier`](mesh_breaker::AutoClassifier).
    ///
    /// ```no_run
    /// # use {bytes::Bytes, futures_util::stream, http::Request, http_body_util::Empty, std::convert::Infallible};
    /// # use {hyper_util::{client::legacy::Client, rt::TokioExecutor}, tower::{ServiceExt, discover::Change}};
    /// # fn towards<B>(address: std::net::SocketAddr, request: Request<B>) -> Request<B> { request }
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    /// # let addresses: [std::net::SocketAddr; 2] = ["10.0.0.1:80".parse()?, "10.0.0.2:80".parse()?];
    /// use mesh_balance::Balance;
    /// use mesh_balance::mesh_breaker::{AutoClassifier, ConsecutiveFailures};
    ///
    /// let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    /// let endpoints = addresses.map(|address| {
    ///     let endpoint = client.clone().map_request(move |request| towards(address, request)); // sets the authority
    ///     Ok::<_, Infallible>(Change::Insert(address, endpoint))
    /// });
    /// let (balance, driver) = Balance::builder(stream::iter(endpoints))
    ///     .http(AutoClassifier::default())
    ///     .breaker(ConsecutiveFailures::default())
    ///     .build();
    /// tokio::spawn(driver);
    /// let response = balance.clone().oneshot(Request::get("/").body(Empty::new())?).await?;
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "http")]
    #[must_use]
    pub fn http<C: mesh_breaker::Classify>(self, classify: C) -> Builder<D, K, S, UntilBodyEnd<C>> {
        self.account(UntilBodyEnd(classify))
    }

    /// The service and the future that keeps its endpoints up to date, which must be spawned.
    pub fn build<E>(self) -> (Balance<S, A>, Driver)
    where
        D: Stream<Item = Result<Change<K, S>, E>> + Send + 'static,
        K: Eq + Hash + Send + 'static,
        S: Send + Sync + 'static,
        E: Into<BoxError>,
    {
        let pool = self.pool.pool(now(), self.own_load);
        let (found, any_endpoint) = watch::channel(false);
        let balance = Balance::new(
            pool.picker(),
            any_endpoint,
            self.empty_timeout,
            self.account,
        );
        (
            balance,
            Driver::new(self.discovery, pool, self.traits, found),
        )
    }
}

impl<D, K, S, A> fmt::Debug for Builder<D, K, S, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("pool", &self.pool)
            .field("empty_timeout", &self.empty_timeout)
            .finish_non_exhaustive()
    }
}

/// What an endpoint is like, as functions of it.
pub(super) struct Traits<K, S> {
    pub(super) weight: Option<Asked<K, S, u32>>,
    pub(super) zone: Option<Asked<K, S, Option<Arc<str>>>>,
}

impl<K, S> Traits<K, S> {
    /// The insertion of an endpoint into a pool.
    pub(super) fn insertion(&self, key: K, service: S) -> core::Change<K, S> {
        let weight = self
            .weight
            .as_ref()
            .map_or(1, |weight| weight(&key, &service));
        let zone = self.zone.as_ref().and_then(|zone| zone(&key, &service));
        core::Change::Insert {
            key,
            value: service,
            weight,
            zone,
        }
    }
}

impl<K, S> Default for Traits<K, S> {
    fn default() -> Self {
        Self {
            weight: None,
            zone: None,
        }
    }
}

type Asked<K, S, V> = Box<dyn Fn(&K, &S) -> V + Send>;
