use ::http::Method;

use super::Pattern;

/// A test of a request's method and path, of any shape, as service profiles have them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RequestCondition {
    /// All of these hold; every request when empty.
    All(Vec<Self>),
    /// One of these holds; no request when empty.
    Any(Vec<Self>),
    /// This does not hold.
    Not(Box<Self>),
    /// The whole path, without the query, matches.
    Path(Pattern),
    /// The method is this.
    Method(Method),
}

impl RequestCondition {
    /// True when it holds for a request. `path` is without the query.
    pub fn holds(&self, method: &Method, path: &str) -> bool {
        match self {
            Self::All(all) => all.iter().all(|one| one.holds(method, path)),
            Self::Any(any) => any.iter().any(|one| one.holds(method, path)),
            Self::Not(other) => !other.holds(method, path),
            Self::Path(pattern) => pattern.is_match(path.as_bytes()),
            Self::Method(expected) => expected == method,
        }
    }
}
