#[cfg(feature = "http")]
use super::UntilBodyEnd;
use super::{Balance, Driver, UntilResponse, now};
use crate::BoxError;
use crate::core::{EjectionLimits, Event, PeakEwma, Policy, PoolBuilder};
use futures_core::Stream;
use std::fmt;
use std::hash::Hash;
use std::time::Duration;
use tokio::sync::watch;
use tower::discover::Change;

/// Settings of a [`Balance`].
pub struct Builder<D, K, S, A = UntilResponse> {
    discovery: D,
    pool: PoolBuilder,
    weight: Option<Weight<K, S>>,
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
            pool: PoolBuilder::default().drop_clock(now),
            weight: None,
            empty_timeout: Duration::from_secs(3),
            account: UntilResponse,
        }
    }
}

impl<D, K, S, A> Builder<D, K, S, A> {
    /// How latency becomes load. Default: [`PeakEwma::default`].
    #[must_use]
    pub fn load(mut self, load: PeakEwma) -> Self {
        self.pool = self.pool.load(load);
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
        self.weight = Some(Box::new(weight));
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
            weight,
            empty_timeout,
            ..
        } = self;
        Builder {
            discovery,
            pool,
            weight,
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
        let pool = self.pool.build(now());
        let (found, any_endpoint) = watch::channel(false);
        let balance = Balance::new(
            pool.picker(),
            any_endpoint,
            self.empty_timeout,
            self.account,
        );
        (
            balance,
            Driver::new(self.discovery, pool, self.weight, found),
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

pub(super) type Weight<K, S> = Box<dyn Fn(&K, &S) -> u32 + Send>;
