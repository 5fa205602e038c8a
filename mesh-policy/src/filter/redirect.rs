use std::num::NonZeroU16;

use http::uri::{Authority, Scheme};
use http::{HeaderValue, StatusCode, Uri};

use super::{FilterHead, Intercept};
use crate::Error;

/// Sends the client elsewhere (Gateway API, `HTTPRequestRedirectFilter`).
///
/// What is not given stays as it was in the request, except the port: where a scheme is given and no port, it becomes that
/// of the scheme. A port that is its scheme's is left out. A request that is where it would be sent already is passed on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Redirect {
    scheme: Option<Scheme>,
    host: Option<Box<str>>,
    port: Option<NonZeroU16>,
    path: Option<PathModifier>,
    status: StatusCode,
}

/// How a redirect changes the path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PathModifier(Replace);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Replace {
    /// All of path and query; starts with a slash.
    Full(Box<str>),
    /// The prefix that the route matched; starts with a slash and has none at the end, or is empty.
    Prefix(Box<str>),
}

impl Redirect {
    /// A redirect with status 301 (moved permanently) that changes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The scheme to use.
    pub fn scheme(mut self, scheme: Scheme) -> Self {
        self.scheme = Some(scheme);
        self
    }

    /// The host to use.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when it is none, or has a port or user information.
    pub fn host(mut self, host: &str) -> Result<Self, Error> {
        let valid = Authority::try_from(host).is_ok_and(|authority| authority.host() == host);
        if !valid {
            let expected = "a host without a port";
            return Err(Error::invalid(
                "http_route.RequestRedirect.host",
                host,
                expected,
            ));
        }
        self.host = Some(host.into());
        Ok(self)
    }

    /// The port to use.
    pub fn port(mut self, port: NonZeroU16) -> Self {
        self.port = Some(port);
        self
    }

    /// How to change the path.
    pub fn path(mut self, path: PathModifier) -> Self {
        self.path = Some(path);
        self
    }

    /// The status to answer with.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when it is none that redirects by `Location`: 301, 302, 303, 307 or 308 (RFC 9110, section 15.4).
    pub fn status(mut self, status: u32) -> Result<Self, Error> {
        self.status = match status {
            301 => StatusCode::MOVED_PERMANENTLY,
            302 => StatusCode::FOUND,
            303 => StatusCode::SEE_OTHER,
            307 => StatusCode::TEMPORARY_REDIRECT,
            308 => StatusCode::PERMANENT_REDIRECT,
            _ => {
                return Err(Error::invalid(
                    "http_route.RequestRedirect.status",
                    &status.to_string(),
                    "301, 302, 303, 307 or 308",
                ));
            }
        };
        Ok(self)
    }

    /// What to answer `head` with; nothing when it is where it would be sent already.
    pub(super) fn of(&self, head: &FilterHead<'_>, prefix: Option<&str>) -> Option<Intercept> {
        let Some(from) = Place::of(head) else {
            return Some(Intercept::Invalid);
        };
        let scheme = self.scheme.as_ref().unwrap_or(from.scheme);
        let port = match (self.port, &self.scheme) {
            (Some(port), _) => Some(port.get()),
            (None, Some(_)) => None,
            (None, None) => from.port,
        };
        let Some(path) = self.path_of(head.uri, prefix) else {
            return Some(Intercept::Invalid);
        };
        let to = Place {
            scheme,
            host: self.host.as_deref().unwrap_or(from.host),
            port: port.filter(|port| Some(*port) != default_port(scheme)),
            path,
        };
        if to.is(&from) {
            return None;
        }
        Some(match HeaderValue::try_from(to.to_string()) {
            Ok(location) => Intercept::Redirect {
                status: self.status,
                location,
            },
            Err(_) => Intercept::Invalid,
        })
    }

    /// Path and query to send to; nothing when a prefix is to be replaced that the route did not match.
    fn path_of(&self, uri: &Uri, prefix: Option<&str>) -> Option<String> {
        let Some(PathModifier(replace)) = &self.path else {
            return Some(path_and_query(uri));
        };
        let with = match replace {
            Replace::Full(path) => return Some(path.to_string()),
            Replace::Prefix(with) => with,
        };
        let prefix = prefix?.trim_end_matches('/');
        let rest = uri.path().strip_prefix(prefix)?;
        if !(rest.is_empty() || rest.starts_with('/')) {
            return None;
        }
        let mut path = format!("{with}{rest}");
        if path.is_empty() {
            path.push('/');
        }
        if let Some(query) = uri.query() {
            path.push('?');
            path.push_str(query);
        }
        Some(path)
    }
}

impl Default for Redirect {
    fn default() -> Self {
        Self {
            scheme: None,
            host: None,
            port: None,
            path: None,
            status: StatusCode::MOVED_PERMANENTLY,
        }
    }
}

impl PathModifier {
    /// Replaces the path by `path`, which may have a query; the request's is dropped, as Linkerd's proxy does.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when it does not start with a slash or has characters that a path may not have.
    pub fn full(path: &str) -> Result<Self, Error> {
        checked("http_route.PathModifier.full", path)?;
        Ok(Self(Replace::Full(path.into())))
    }

    /// Replaces the path prefix that the route's match has by `prefix`, which may be empty; a slash at its end does not
    /// count. What followed the prefix stays, and so does the query.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when it does not start with a slash, or has a query or characters that a path may not have.
    pub fn prefix(prefix: &str) -> Result<Self, Error> {
        let field = "http_route.PathModifier.prefix";
        if prefix.contains('?') {
            return Err(Error::invalid(field, prefix, "a path without a query"));
        }
        if !prefix.is_empty() {
            checked(field, prefix)?;
        }
        Ok(Self(Replace::Prefix(prefix.trim_end_matches('/').into())))
    }
}

/// Where a request goes, or is sent.
struct Place<'a> {
    scheme: &'a Scheme,
    host: &'a str,
    /// Nothing where it is the scheme's.
    port: Option<u16>,
    /// With the query.
    path: String,
}

impl<'a> Place<'a> {
    fn of(head: &'a FilterHead<'_>) -> Option<Self> {
        let authority = head.authority?;
        if authority.host().is_empty() {
            return None;
        }
        let scheme = head.uri.scheme().unwrap_or(&Scheme::HTTP);
        let port = authority.port_u16();
        Some(Self {
            scheme,
            host: authority.host(),
            port: port.filter(|port| Some(*port) != default_port(scheme)),
            path: path_and_query(head.uri),
        })
    }

    fn is(&self, other: &Self) -> bool {
        self.scheme == other.scheme
            && self.host.eq_ignore_ascii_case(other.host)
            && self.port == other.port
            && self.path == other.path
    }
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        f.write_str(&self.path)
    }
}

/// A target without a path (`*`, or an authority alone) stands for the root.
fn path_and_query(uri: &Uri) -> String {
    match uri.path_and_query() {
        Some(path) if path.as_str().starts_with('/') => path.as_str().to_owned(),
        Some(path) if path.as_str().starts_with('?') => format!("/{}", path.as_str()),
        _ => "/".to_owned(),
    }
}

fn default_port(scheme: &Scheme) -> Option<u16> {
    match scheme.as_str() {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

fn checked(field: &'static str, path: &str) -> Result<(), Error> {
    // No `#`: what follows it never reaches a server, and `http` would cut it off.
    let valid = path.starts_with('/')
        && !path.contains('#')
        && path.bytes().all(|byte| byte.is_ascii_graphic())
        && path.parse::<http::uri::PathAndQuery>().is_ok();
    if valid {
        return Ok(());
    }
    Err(Error::invalid(
        field,
        path,
        "a path that starts with a slash",
    ))
}
