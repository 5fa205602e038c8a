//! How many requests a port takes: in all, from each client identity, and from some clients by name.

mod gcra;
mod identities;

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_tls::Identity;

use self::gcra::{Gcra, Refused};
use self::identities::Identities;
use crate::{Error, Meta};

/// Limits with the state of their use, shared by all connections of a port. Cheap to clone.
///
/// A limit is a number of requests per second, and so many may come at once (generic cell rate algorithm). A client's own
/// limit is asked first, so that one who is over it uses up nothing of what all have together.
///
/// ```
/// use mesh_policy::inbound::rate_limit::{RateLimit, RateLimits, Scope};
/// use std::num::NonZeroU32;
/// use std::time::{Duration, Instant};
///
/// let now = Instant::now();
/// let limits = RateLimits { total: NonZeroU32::new(100), identity: NonZeroU32::new(2), ..RateLimits::default() };
/// let client = RateLimit::new(limits)?.client(None, now);
/// assert!(client.check(now).is_ok() && client.check(now).is_ok());
/// let limited = client.check(now).unwrap_err();
/// assert_eq!(limited.scope, Scope::Identity);
/// assert_eq!(limited.retry_after, Duration::from_millis(500));
/// assert!(client.check(now + limited.retry_after).is_ok());
/// # Ok::<(), mesh_policy::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct RateLimit(Arc<State>);

/// The limits of a port; no limit where absent.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RateLimits {
    /// Where the limits come from.
    pub meta: Option<Arc<Meta>>,
    /// Requests per second of all clients together.
    pub total: Option<NonZeroU32>,
    /// Requests per second of each identity, and of all clients without one together.
    pub identity: Option<NonZeroU32>,
    /// Limits of some identities, in place of [`identity`](Self::identity).
    pub overrides: Vec<Override>,
}

/// A limit that some identities have together.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Override {
    /// Requests per second.
    pub limit: NonZeroU32,
    /// Who has it. Of several overrides for one identity, the last counts.
    pub identities: Vec<Identity>,
}

/// The limits that one client is under. Made once for a connection; remade when [`is_of`](Self::is_of) says so.
#[derive(Clone, Debug)]
pub struct ClientLimit {
    state: Arc<State>,
    own: Option<(Scope, Arc<Gcra>)>,
}

/// A request is one too many.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("over the {scope} rate limit for {retry_after:?}")]
pub struct Limited {
    /// Of which limit.
    pub scope: Scope,
    /// When one more would be let through, if no other comes first; above zero.
    pub retry_after: Duration,
}

/// What a limit is on.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Scope {
    /// All clients.
    Total,
    /// Each identity.
    Identity,
    /// Identities by name.
    Override,
}

#[derive(Debug)]
struct State {
    limits: RateLimits,
    total: Option<Arc<Gcra>>,
    identities: Option<Arc<Identities>>,
    /// One for each override of the limits, in order.
    shared: Vec<Arc<Gcra>>,
    overrides: HashMap<Identity, Arc<Gcra>>,
}

impl RateLimit {
    /// The most identities that overrides may name.
    pub const MAX_OVERRIDES: usize = 4096;

    /// The most identities whose use is kept apart.
    pub const MAX_IDENTITIES: usize = Identities::MAX;

    /// Limits that nothing has been used of.
    ///
    /// # Errors
    ///
    /// [`Error::TooMany`] when overrides name more than [`MAX_OVERRIDES`](Self::MAX_OVERRIDES) identities.
    pub fn new(limits: RateLimits) -> Result<Self, Error> {
        Self::with(limits, None)
    }

    /// These limits again, where what has been used stays used of each limit that `previous` has as well.
    #[must_use]
    pub fn continuing(&self, previous: &Self) -> Self {
        if self.0.limits == previous.0.limits {
            return previous.clone();
        }
        // They were accepted before.
        Self::with(self.0.limits.clone(), Some(&previous.0)).unwrap_or_else(|_| self.clone())
    }

    /// The limits.
    pub fn limits(&self) -> &RateLimits {
        &self.0.limits
    }

    /// How many identities' use is known.
    pub fn identities(&self) -> usize {
        self.0.identities.as_ref().map_or(0, |each| each.len())
    }

    /// The limits of a client; `identity` is its verified identity, if it has one.
    ///
    /// The state of an identity is kept while a connection has it or it has not been idle for as long as it takes to forget
    /// it. Of more than [`MAX_IDENTITIES`](Self::MAX_IDENTITIES) at once, the rest share one.
    pub fn client(&self, identity: Option<&Identity>, now: Instant) -> ClientLimit {
        let over = identity.and_then(|identity| self.0.overrides.get(identity));
        let own = match (over, &self.0.identities) {
            (Some(over), _) => Some((Scope::Override, Arc::clone(over))),
            (None, Some(each)) => Some((Scope::Identity, each.of(identity, now))),
            (None, None) => None,
        };
        ClientLimit {
            state: Arc::clone(&self.0),
            own,
        }
    }

    fn with(limits: RateLimits, previous: Option<&State>) -> Result<Self, Error> {
        let named = limits.overrides.iter().map(|over| over.identities.len());
        let given = named.sum::<usize>().max(limits.overrides.len());
        if given > Self::MAX_OVERRIDES {
            return Err(Error::TooMany {
                what: "identities in overrides of a rate limit",
                given,
                max: Self::MAX_OVERRIDES,
            });
        }
        let total = limits.total.map(|limit| {
            let kept = previous.filter(|previous| previous.limits.total == Some(limit));
            let kept = kept.and_then(|previous| previous.total.clone());
            kept.unwrap_or_else(|| Arc::new(Gcra::new(limit)))
        });
        let identities = limits.identity.map(|limit| {
            let kept = previous.filter(|previous| previous.limits.identity == Some(limit));
            let kept = kept.and_then(|previous| previous.identities.clone());
            kept.unwrap_or_else(|| Arc::new(Identities::new(limit)))
        });
        let mut shared = Vec::with_capacity(limits.overrides.len());
        let mut overrides = HashMap::new();
        for over in &limits.overrides {
            let kept = previous.and_then(|previous| previous.of_override(over));
            let gcra = kept.unwrap_or_else(|| Arc::new(Gcra::new(over.limit)));
            for identity in &over.identities {
                overrides.insert(identity.clone(), Arc::clone(&gcra));
            }
            shared.push(gcra);
        }
        Ok(Self(Arc::new(State {
            limits,
            total,
            identities,
            shared,
            overrides,
        })))
    }
}

impl ClientLimit {
    /// Whether a request of the client is let through now; counted if it is.
    ///
    /// # Errors
    ///
    /// [`Limited`] when it is one too many. It has used up nothing of any limit then.
    pub fn check(&self, now: Instant) -> Result<(), Limited> {
        if let Some((scope, own)) = &self.own {
            own.take(now).map_err(|refused| limited(*scope, refused))?;
        }
        let Some(total) = &self.state.total else {
            return Ok(());
        };
        total.take(now).map_err(|refused| {
            if let Some((_, own)) = &self.own {
                own.put_back();
            }
            limited(Scope::Total, refused)
        })
    }

    /// True when it is of these limits, not of those of an older or another policy.
    pub fn is_of(&self, limit: &RateLimit) -> bool {
        Arc::ptr_eq(&self.state, &limit.0)
    }
}

impl Limited {
    /// The value of `Retry-After` (RFC 9110, section 10.2.3): whole seconds, at least one, so that a client that waits for
    /// them does not come too early.
    pub fn retry_after_seconds(&self) -> u64 {
        let whole = self.retry_after.as_secs();
        let rest = u64::from(self.retry_after.subsec_nanos() > 0);
        (whole + rest).max(1)
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Total => "total",
            Self::Identity => "identity",
            Self::Override => "override",
        })
    }
}

impl State {
    /// The state of the override that is the same as `over`.
    fn of_override(&self, over: &Override) -> Option<Arc<Gcra>> {
        let mut overrides = self.limits.overrides.iter().zip(&self.shared);
        let (_, held) = overrides.find(|(known, _)| *known == over)?;
        Some(Arc::clone(held))
    }
}

fn limited(scope: Scope, refused: Refused) -> Limited {
    Limited {
        scope,
        retry_after: refused.wait,
    }
}
