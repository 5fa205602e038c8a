use http::{HeaderMap, Method, Uri, header};

/// What routing looks at in a request, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// The method.
    pub method: &'a Method,
    /// The target: origin form, absolute form or, for HTTP/2, with the `:authority`.
    pub uri: &'a Uri,
    /// The headers.
    pub headers: &'a HeaderMap,
}

impl<'a> RequestView<'a> {
    /// The host asked for, without its port: that of the target if it has one (RFC 9112 section 3.2.2), else of `Host`.
    pub fn host(&self) -> Option<&'a str> {
        if let Some(host) = self.uri.host() {
            return Some(host);
        }
        let value = self.headers.get(header::HOST)?.to_str().ok()?;
        Some(strip_port(value))
    }
}

impl<'a> From<&'a http::request::Parts> for RequestView<'a> {
    fn from(parts: &'a http::request::Parts) -> Self {
        Self {
            method: &parts.method,
            uri: &parts.uri,
            headers: &parts.headers,
        }
    }
}

impl<'a, B> From<&'a http::Request<B>> for RequestView<'a> {
    fn from(request: &'a http::Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
        }
    }
}

/// `host` of `host:port`, with the brackets of an IPv6 literal kept, as `http::Uri::host` does.
fn strip_port(authority: &str) -> &str {
    if authority.starts_with('[') {
        return match authority.find(']') {
            Some(end) => &authority[..=end],
            None => authority,
        };
    }
    match authority.split_once(':') {
        Some((host, _)) => host,
        None => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(uri: &str, header: Option<&str>) -> Option<String> {
        let mut request = http::Request::builder().uri(uri);
        if let Some(value) = header {
            request = request.header("host", value);
        }
        let request = request.body(()).unwrap();
        RequestView::from(&request).host().map(str::to_owned)
    }

    #[test]
    fn the_target_wins_over_the_host_header() {
        assert_eq!(host("/", Some("a:80")).as_deref(), Some("a"));
        assert_eq!(host("http://b:80/", Some("a")).as_deref(), Some("b"));
        assert_eq!(host("/", Some("[::1]:80")).as_deref(), Some("[::1]"));
        assert_eq!(host("/", Some("[::1")).as_deref(), Some("[::1"));
        assert_eq!(host("/", None), None);
    }
}
