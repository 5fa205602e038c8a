//! Which route a request takes.
//!
//! [`find`] picks the best rule among [`Route`]s: the most specific host first, then the most specific match, then the
//! order of the list (Gateway API, `HTTPRouteRule.matches`). Matching borrows the request and allocates nothing, save
//! where a regular expression is tried on a query parameter that has escapes in it.

mod condition;
mod grpc;
mod host;
mod http;
mod path;
mod pattern;
mod query;
mod request;

pub use self::condition::RequestCondition;
pub use self::grpc::{GrpcMatch, GrpcRank};
pub use self::host::{HostMatch, HostRank};
pub use self::http::{HeaderMatch, HttpMatch, HttpRank, QueryMatch};
pub use self::path::{PathMatch, PathRank};
pub use self::pattern::{Pattern, ValueMatch};
pub use self::request::RequestView;

use std::sync::Arc;

use crate::Meta;

/// Rules that share a set of hosts. `M` is how they match, `P` what a matching request gets.
#[derive(Clone, Debug)]
pub struct Route<M, P> {
    /// Where the route comes from.
    pub meta: Arc<Meta>,
    /// The hosts it is for; any host when empty.
    pub hosts: Vec<HostMatch>,
    /// Its rules, in order.
    pub rules: Vec<Rule<M, P>>,
}

/// Requests that match any of `matches` get `policy`.
#[derive(Clone, Debug)]
pub struct Rule<M, P> {
    /// Alternatives; every request matches when empty.
    pub matches: Vec<M>,
    /// What a matching request gets.
    pub policy: P,
}

/// A test of a request that says how specific it was.
pub trait Match {
    /// How specific a match was; a greater rank wins. The default is that of a rule without matches.
    type Rank: Copy + Default + Ord;

    /// The rank of the match, or `None` when `request` does not match.
    fn rank(&self, request: &RequestView<'_>) -> Option<Self::Rank>;

    /// The path prefix that is matched; `/` when every path is, `None` when it is not matched by prefix.
    fn prefix(&self) -> Option<&str> {
        None
    }
}

/// The rule that [`find`] chose.
#[derive(Debug)]
pub struct Found<'r, M, P> {
    /// The route the rule belongs to.
    pub route: &'r Route<M, P>,
    /// The index of the rule in the route.
    pub rule: usize,
    /// The best of the rule's matches; `None` when it has none, and so matches every request.
    pub matched: Option<&'r M>,
    /// What the request gets.
    pub policy: &'r P,
}

impl<'r, M: Match, P> Found<'r, M, P> {
    /// The path prefix that was matched, for filters that replace it.
    pub fn matched_prefix(&self) -> Option<&'r str> {
        match self.matched {
            Some(matched) => matched.prefix(),
            None => Some("/"),
        }
    }
}

// Not derived: neither needs `M` or `P` to be `Copy`.
impl<M, P> Clone for Found<'_, M, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M, P> Copy for Found<'_, M, P> {}

/// The best rule for `request`, or `None` when no rule of no route matches.
pub fn find<'r, M: Match, P>(
    routes: &'r [Route<M, P>],
    request: &RequestView<'_>,
) -> Option<Found<'r, M, P>> {
    // Read where a route asks for it: most policies name no host, being those of one service.
    let asked = routes.iter().any(|route| !route.hosts.is_empty());
    let host = asked.then(|| request.host()).flatten();
    let mut held = None;
    let mut best = None;
    for route in routes {
        let host_rank = if route.hosts.is_empty() {
            None
        } else {
            let Some(rank) = host.and_then(|host| best_host(&route.hosts, host)) else {
                continue;
            };
            Some(rank)
        };
        for (index, rule) in route.rules.iter().enumerate() {
            let Some((rank, matched)) = rule.rank(request) else {
                continue;
            };
            let rank = Rank {
                host: host_rank,
                rule: rank,
            };
            // Only a strictly better rule replaces an earlier one.
            if held.as_ref().is_none_or(|held| rank > *held) {
                held = Some(rank);
                best = Some(Found {
                    route,
                    rule: index,
                    matched,
                    policy: &rule.policy,
                });
            }
        }
    }
    best
}

/// How specific a rule was for a request; the host counts first.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
struct Rank<R> {
    host: Option<HostRank>,
    rule: R,
}

/// The rank of the most specific of `hosts` that matches `host`.
pub(crate) fn best_host(hosts: &[HostMatch], host: &str) -> Option<HostRank> {
    hosts.iter().filter_map(|tested| tested.rank(host)).max()
}

impl<M: Match, P> Rule<M, P> {
    /// The best match and its rank; the first of those that are equal.
    fn rank(&self, request: &RequestView<'_>) -> Option<(M::Rank, Option<&M>)> {
        if self.matches.is_empty() {
            return Some((M::Rank::default(), None));
        }
        let mut best: Option<(M::Rank, &M)> = None;
        for tested in &self.matches {
            if let Some(rank) = tested.rank(request)
                && best.is_none_or(|(held, _)| rank > held)
            {
                best = Some((rank, tested));
            }
        }
        best.map(|(rank, matched)| (rank, Some(matched)))
    }
}

impl<M: Clone, P> Route<M, P> {
    /// The same route with each rule's policy passed through `map`.
    pub fn map_policies<Q>(&self, mut map: impl FnMut(&P) -> Q) -> Route<M, Q> {
        Route {
            meta: Arc::clone(&self.meta),
            hosts: self.hosts.clone(),
            rules: self
                .rules
                .iter()
                .map(|rule| Rule {
                    matches: rule.matches.clone(),
                    policy: map(&rule.policy),
                })
                .collect(),
        }
    }
}
