//! A breaker around any tower service, without a balancer.
//!
//! For a client of one server, or of a service whose own balancer cannot eject. All clones of a [`Breaking`] share one breaker.
//! While it is open, a call fails at once with [`Rejected`] and without reaching the service; or, if told to
//! [`wait`](BreakerLayer::wait), the service is not ready until a probe is due.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use mesh_breaker::layer::{BreakerLayer, Error};
//! use mesh_breaker::{ConsecutiveFailures, FailureKind, Outcome};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//!
//! let outcome = |result: &Result<u32, &'static str>| match result {
//!     Ok(_) => Outcome::Success,
//!     Err(_) => Outcome::Failure(FailureKind::Broken),
//! };
//! let mut service = ServiceBuilder::new()
//!     .layer(BreakerLayer::new(ConsecutiveFailures::default(), outcome))
//!     .service(service_fn(|_: ()| async { Err::<u32, _>("down") }));
//! for _ in 0..7 {
//!     assert!(matches!(service.ready().await.unwrap().call(()).await, Err(Error::Inner("down"))));
//! }
//! assert!(matches!(service.ready().await.unwrap().call(()).await, Err(Error::Rejected(_))));
//! # }
//! ```

#[cfg(feature = "http")]
mod body;
mod future;
mod service;

#[cfg(feature = "http")]
pub use body::UntilBodyEnd;
pub use future::ResponseFuture;
pub use service::Breaking;

#[cfg(feature = "http")]
use crate::FailureKind;
use crate::{Outcome, Permit, Policy, SharedBreaker, Transition};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tower_layer::Layer;

/// Puts a breaker around a service.
#[derive(Clone)]
pub struct BreakerLayer<J> {
    policy: Policy,
    judge: J,
    wait: bool,
    observer: Option<Observer>,
}

impl<J> BreakerLayer<J> {
    /// Opens and closes as `policy` says; `judge` says what each request came to. For one thing it can be a function of
    /// the result: `Fn(&Result<Response, Error>) -> Outcome`.
    pub fn new(policy: impl Into<Policy>, judge: J) -> Self {
        Self {
            policy: policy.into(),
            judge,
            wait: false,
            observer: None,
        }
    }

    /// Whether the service is not ready while the breaker is open, instead of ready to reject. Default: no.
    ///
    /// Being ready keeps no place. A call is rejected all the same if the breaker has opened since, or if another clone, which
    /// became ready at the same time, is the probe.
    #[must_use]
    pub fn wait(self, wait: bool) -> Self {
        Self { wait, ..self }
    }

    /// Is called with every change of state; it must not block. Default: nobody.
    #[must_use]
    pub fn on_transition(self, observer: impl Fn(Transition) + Send + Sync + 'static) -> Self {
        Self {
            observer: Some(Arc::new(observer)),
            ..self
        }
    }
}

#[cfg(feature = "http")]
impl<C: crate::Classify> BreakerLayer<UntilBodyEnd<C>> {
    /// For HTTP and gRPC: a request ends with the body or trailers of its response, and `classify` says what it came to.
    pub fn http(policy: impl Into<Policy>, classify: C) -> Self {
        Self::new(policy, UntilBodyEnd::new(classify))
    }
}

impl<S, J: Clone> Layer<S> for BreakerLayer<J> {
    type Service = Breaking<S, J>;

    fn layer(&self, inner: S) -> Self::Service {
        let shared = Shared {
            breaker: Arc::new(SharedBreaker::new(self.policy.clone(), now())),
            observer: self.observer.clone(),
        };
        Breaking::new(inner, Arc::new(shared), self.judge.clone(), self.wait)
    }
}

impl<J> fmt::Debug for BreakerLayer<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerLayer")
            .field("policy", &self.policy)
            .field("wait", &self.wait)
            .finish_non_exhaustive()
    }
}

/// Says when a request has ended and what it came to.
pub trait Judge<Response, E> {
    /// What the caller gets for a response.
    type Response;

    /// Takes the result and the request's guard, which has to be finished; dropped, the request was cancelled.
    ///
    /// # Errors
    /// That of the service.
    fn judge(&self, result: Result<Response, E>, guard: Guard) -> Result<Self::Response, E>;
}

impl<Response, E, F: Fn(&Result<Response, E>) -> Outcome> Judge<Response, E> for F {
    type Response = Response;

    fn judge(&self, result: Result<Response, E>, guard: Guard) -> Result<Response, E> {
        guard.finish(self(&result));
        result
    }
}

/// One request that the breaker has admitted. Dropped without an outcome, it counts as cancelled.
#[derive(Debug)]
pub struct Guard {
    shared: Arc<Shared>,
    permit: Option<Permit<Arc<SharedBreaker>>>,
}

impl Guard {
    /// The request has come to this.
    pub fn finish(mut self, outcome: Outcome) {
        self.end(outcome);
    }

    /// Its answer has begun, and nothing in it says that the request fails; see [`SharedBreaker::answering`].
    pub fn answering(&self) {
        if let Some(permit) = &self.permit {
            permit.answering(now());
        }
    }

    fn end(&mut self, outcome: Outcome) {
        if let Some(permit) = self.permit.take()
            && let Some(transition) = permit.finish(outcome, now(), fastrand::u64(..))
        {
            self.shared.tell(transition);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.end(Outcome::Cancelled);
    }
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error<E> {
    /// The breaker is open.
    #[error(transparent)]
    Rejected(Rejected),
    /// The service's own error.
    #[error("{0}")]
    Inner(E),
}

/// The breaker let nothing through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the breaker is open")]
#[non_exhaustive]
pub struct Rejected {
    /// After what time a probe is due; `None` while one is under way.
    pub retry_after: Option<Duration>,
}

/// What the clones of a service share.
struct Shared {
    breaker: Arc<SharedBreaker>,
    observer: Option<Observer>,
}

impl Shared {
    fn admit(self: &Arc<Self>) -> Result<Guard, crate::Refused> {
        let (permit, transition) = Permit::acquire(self.breaker.clone(), now())?;
        if let Some(transition) = transition {
            self.tell(transition);
        }
        Ok(Guard {
            shared: self.clone(),
            permit: Some(permit),
        })
    }

    fn tell(&self, transition: Transition) {
        if let Some(observer) = &self.observer {
            observer(transition);
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("breaker", &self.breaker)
            .finish_non_exhaustive()
    }
}

type Observer = Arc<dyn Fn(Transition) + Send + Sync>;

/// Tokio's clock, which tests can pause.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// What an error of the service itself counts for, where nothing else is said.
#[cfg(feature = "http")]
const BROKEN: Outcome = Outcome::Failure(FailureKind::Broken);
