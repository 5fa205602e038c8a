use std::sync::Arc;

use ::http::{HeaderMap, HeaderName, Method};

use super::query::has_parameter;
use super::{Match, PathMatch, PathRank, RequestCondition, RequestView, ValueMatch};

/// A test of an HTTP request; all that is set must hold. The default matches every request.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HttpMatch {
    /// The path; any when absent.
    pub path: Option<PathMatch>,
    /// Headers that must be there.
    pub headers: Vec<HeaderMatch>,
    /// Query parameters that must be there.
    pub query: Vec<QueryMatch>,
    /// The method; any when absent.
    pub method: Option<Method>,
    /// A test of another shape, which says nothing about how specific the match is.
    pub condition: Option<Arc<RequestCondition>>,
}

/// A header that some value of must pass.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HeaderMatch {
    /// The header's name.
    pub name: HeaderName,
    /// The test of its value.
    pub value: ValueMatch,
}

/// A query parameter that some value of must pass.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct QueryMatch {
    /// The parameter's name, decoded.
    pub name: Box<str>,
    /// The test of its value, decoded.
    pub value: ValueMatch,
}

/// How specific an HTTP match was: by path, then method, then the number of headers, then of query parameters
/// (Gateway API, `HTTPRouteRule.matches`).
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct HttpRank {
    path: PathRank,
    method: bool,
    headers: usize,
    query: usize,
}

impl Match for HttpMatch {
    type Rank = HttpRank;

    fn rank(&self, request: &RequestView<'_>) -> Option<HttpRank> {
        let method = match &self.method {
            Some(method) if method != request.method => return None,
            method => method.is_some(),
        };
        let path = match &self.path {
            Some(path) => path.rank(request.uri.path())?,
            None => PathRank::default(),
        };
        if !all_headers(&self.headers, request.headers) {
            return None;
        }
        let path_alone = request.uri.path();
        let held = |condition: &Arc<RequestCondition>| condition.holds(request.method, path_alone);
        if !self.condition.as_ref().is_none_or(held) {
            return None;
        }
        let query = request.uri.query().unwrap_or_default();
        let has = |tested: &QueryMatch| has_parameter(query, &tested.name, &tested.value);
        self.query.iter().all(has).then_some(HttpRank {
            path,
            method,
            headers: self.headers.len(),
            query: self.query.len(),
        })
    }

    fn prefix(&self) -> Option<&str> {
        match &self.path {
            None => Some("/"),
            Some(PathMatch::Prefix(prefix)) => Some(prefix),
            Some(_) => None,
        }
    }
}

pub(super) fn all_headers(tests: &[HeaderMatch], headers: &HeaderMap) -> bool {
    tests.iter().all(|tested| {
        let mut values = headers.get_all(&tested.name).iter();
        values.any(|value| tested.value.is_match(value.as_bytes()))
    })
}
