//! Headers that belong to one hop, and the ones by which proxies speak to each other.

use http::header::{
    CONNECTION, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::Authority;
use http::{Uri, Version};

/// The identity of a verified client, set by the inbound proxy only.
pub const CLIENT_ID: HeaderName = HeaderName::from_static("l5d-client-id");
/// The version of an HTTP/1 message that is carried over HTTP/2 between proxies.
pub const ORIG_PROTO: HeaderName = HeaderName::from_static("l5d-orig-proto");
/// Why a proxy, and not the service, answered.
pub const PROXY_ERROR: HeaderName = HeaderName::from_static("l5d-proxy-error");

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Removes what concerns only the connection that a message came over (RFC 9110, section 7.6.1).
///
/// `TE: trailers` stays, as gRPC asks for it end to end. Call it where a message changes connections; an upgrade
/// request or answer keeps its headers and must not pass through here.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // One look at each name costs less than a look-up by hash for each that may be there: most messages have at most one.
    let (mut connection, mut te, mut others) = (false, false, false);
    for name in headers.keys() {
        match name.as_str() {
            "connection" => connection = true,
            "te" => te = true,
            "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" => others = true,
            _ => {}
        }
    }
    if connection {
        remove_named_by_connection(headers);
    }
    if others {
        for name in [KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE] {
            headers.remove(name);
        }
    }
    if te
        && headers
            .get_all(TE)
            .iter()
            .any(|value| !value.as_bytes().eq_ignore_ascii_case(b"trailers"))
    {
        keep_only_trailers(headers);
    }
}

/// `Connection` names further headers of this hop; those that say how a message is framed or where it goes are not its to remove.
fn remove_named_by_connection(headers: &mut HeaderMap) {
    let names_none = |value: &HeaderValue| {
        let value = value.as_bytes();
        value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close")
    };
    let mut values = headers.get_all(CONNECTION).iter();
    if !values.all(names_none) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
            .filter(|name| !is_end_to_end(name))
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    headers.remove(CONNECTION);
}

/// Removes the header `name` from a message that hardly ever has it: one look at each name costs less than one look-up by hash.
pub fn remove_rare(headers: &mut HeaderMap, name: &HeaderName) {
    if headers.keys().any(|present| present == name) {
        headers.remove(name);
    }
}

/// Headers that a client's `Connection` cannot take away: they frame the message, say where it goes, or are the proxies' own.
fn is_end_to_end(name: &HeaderName) -> bool {
    [TE, HOST, http::header::CONTENT_LENGTH].contains(name) || name.as_str().starts_with("l5d-")
}

/// As [`remove_hop_by_hop`], for a request that asks to switch protocols: `Upgrade` stays, and `Connection` names nothing else.
pub fn keep_only_upgrade(headers: &mut HeaderMap) {
    let asked: Vec<HeaderValue> = headers.get_all(UPGRADE).iter().cloned().collect();
    remove_hop_by_hop(headers);
    for protocol in asked {
        headers.append(UPGRADE, protocol);
    }
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
}

fn keep_only_trailers(headers: &mut HeaderMap) {
    let trailers = headers.get_all(TE).iter().any(|value| {
        value.as_bytes().split(|byte| *byte == b',').any(|coding| {
            let name = coding
                .split(|byte| *byte == b';')
                .next()
                .unwrap_or_default();
            name.trim_ascii().eq_ignore_ascii_case(b"trailers")
        })
    });
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    } else {
        headers.remove(TE);
    }
}

/// Whether an HTTP/1.1 request asks to switch protocols. (Upgrades do not exist in HTTP/1.0 and HTTP/2.)
///
/// Asking for HTTP/2 (`h2c`, which RFC 9113 has retired) is no such request: what followed would be requests that nobody
/// authorizes one by one. As servers may ignore an upgrade, so may a proxy.
#[must_use]
pub fn is_upgrade(version: Version, headers: &HeaderMap) -> bool {
    version == Version::HTTP_11
        && headers.contains_key(UPGRADE)
        && !headers.get_all(UPGRADE).iter().any(|value| {
            let mut protocols = value.as_bytes().split(|byte| *byte == b',');
            protocols.any(|protocol| {
                let protocol = protocol.trim_ascii();
                protocol.eq_ignore_ascii_case(b"h2c") || protocol.eq_ignore_ascii_case(b"h2")
            })
        })
        && headers.get_all(CONNECTION).iter().any(|value| {
            value
                .as_bytes()
                .split(|byte| *byte == b',')
                .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
        })
}

/// Whether the client of an HTTP/1.1 request waits for 100 before it sends the body (RFC 9110, section 10.1.1).
#[must_use]
pub fn expects_continue(version: Version, headers: &HeaderMap) -> bool {
    version == Version::HTTP_11
        && headers
            .get(EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Removes what says who the client is, in any spelling that a server may take for [`CLIENT_ID`]: gateways of the CGI kind
/// do not tell `_` and `-` apart.
pub fn remove_client_id(headers: &mut HeaderMap) {
    let own = CLIENT_ID;
    let known = own.as_str().as_bytes();
    let like = |name: &&HeaderName| {
        let name = name.as_str().as_bytes();
        let same = |(a, b): (&u8, &u8)| a == b || (*b == b'-' && !a.is_ascii_alphanumeric());
        name.len() == known.len() && name.iter().zip(known).all(same)
    };
    while let Some(name) = headers.keys().find(like).cloned() {
        headers.remove(name);
    }
}

/// The authority a request names: of its target, else of its `Host`. `None` when both are missing or `Host` is not valid.
#[must_use]
pub fn authority(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    match uri.authority() {
        Some(authority) => Some(authority.clone()),
        None => Authority::try_from(headers.get(HOST)?.as_bytes()).ok(),
    }
}

/// Whether a request names its host as it must: once, as who routes and who answers may each take another `Host` for it;
/// in HTTP/1.1 at all (RFC 9112, section 3.2); without a user's name, which looks like a host to whoever reads carelessly
/// (RFC 9110, section 4.2.4).
#[must_use]
pub fn names_its_host(version: Version, uri: &Uri, headers: &HeaderMap) -> bool {
    let has_user = |bytes: &[u8]| bytes.contains(&b'@');
    let named = uri.authority();
    if named.is_some_and(|authority| has_user(authority.as_str().as_bytes())) {
        return false;
    }
    let mut hosts = headers.get_all(HOST).iter();
    match hosts.next() {
        Some(host) => !has_user(host.as_bytes()) && hosts.next().is_none(),
        None => named.is_some() || version != Version::HTTP_11,
    }
}

/// What [`ORIG_PROTO`] says: the version, and whether the target was in absolute form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrigProto {
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// Whether the request's target held scheme and authority.
    pub absolute_form: bool,
}

impl OrigProto {
    /// Reads and removes the header; `None` when it is missing or says nothing known.
    pub fn take(headers: &mut HeaderMap) -> Option<Self> {
        let value = headers.remove(ORIG_PROTO)?;
        let value = value.as_bytes();
        let (version, rest) = value.split_at_checked(8)?;
        let version = match version {
            b"HTTP/1.1" => Version::HTTP_11,
            b"HTTP/1.0" => Version::HTTP_10,
            _ => return None,
        };
        Some(Self {
            version,
            absolute_form: rest.trim_ascii().strip_prefix(b";").map(<[u8]>::trim_ascii)
                == Some(b"absolute-form"),
        })
    }

    /// The header's value.
    #[must_use]
    pub fn value(self) -> HeaderValue {
        HeaderValue::from_static(match (self.version, self.absolute_form) {
            (Version::HTTP_10, false) => "HTTP/1.0",
            (Version::HTTP_10, true) => "HTTP/1.0; absolute-form",
            (_, false) => "HTTP/1.1",
            (_, true) => "HTTP/1.1; absolute-form",
        })
    }
}

/// Gives `uri` the scheme `http` and `authority`, as an HTTP/2 client needs it.
pub fn to_absolute(uri: &mut Uri, authority: Authority) {
    let mut parts = std::mem::take(uri).into_parts();
    parts.scheme.get_or_insert(http::uri::Scheme::HTTP);
    parts.authority = Some(authority);
    parts
        .path_and_query
        .get_or_insert_with(|| http::uri::PathAndQuery::from_static("/"));
    // All three parts are present, which is the one thing that is checked.
    *uri = Uri::from_parts(parts).unwrap_or_default();
}

/// Leaves only path and query of `uri`, the form in which an HTTP/1 server expects its target.
pub fn to_origin(uri: &mut Uri) {
    if uri.scheme().is_some() || uri.authority().is_some() {
        let path = uri.path_and_query().cloned();
        *uri = path.map(Uri::from).unwrap_or_default();
    }
}

/// `message` as the value of `grpc-message`: what is not printable ASCII, and `%`, is percent-encoded (gRPC over HTTP/2,
/// "Status-Message").
#[must_use]
pub fn grpc_message(message: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => {
                encoded.push('%');
                encoded
                    .extend([byte >> 4, byte & 15].map(|half| char::from(HEX[usize::from(half)])));
            }
        }
    }
    // Printable ASCII is a valid value.
    HeaderValue::from_str(&encoded).unwrap_or_else(|_| HeaderValue::from_static(""))
}

const HEX: [u8; 16] = *b"0123456789ABCDEF";

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn messages_of_grpc_are_ascii() {
        assert_eq!(grpc_message("busy: 100%\n\u{e4}"), "busy: 100%25%0A%C3%A4");
    }

    #[test]
    fn only_what_belongs_to_the_hop_goes() {
        let mut map = headers(&[
            ("connection", "close, X-Mine, te, content-length"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "gzip;q=0.5, trailers"),
            ("content-length", "3"),
            ("x-theirs", "2"),
        ]);
        remove_hop_by_hop(&mut map);
        assert_eq!(
            map,
            headers(&[
                ("te", "trailers"),
                ("content-length", "3"),
                ("x-theirs", "2")
            ])
        );
        let mut map = headers(&[("te", "gzip")]);
        remove_hop_by_hop(&mut map);
        assert!(map.is_empty());
    }

    #[test]
    fn an_upgrade_needs_both_headers_and_http_1_1() {
        let both = headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
        ]);
        assert!(is_upgrade(Version::HTTP_11, &both));
        assert!(!is_upgrade(Version::HTTP_10, &both));
        assert!(!is_upgrade(Version::HTTP_2, &both));
        assert!(!is_upgrade(
            Version::HTTP_11,
            &headers(&[("upgrade", "websocket")])
        ));
    }

    #[test]
    fn what_orig_proto_says_is_read_again() {
        for version in [Version::HTTP_10, Version::HTTP_11] {
            for absolute_form in [false, true] {
                let orig = OrigProto {
                    version,
                    absolute_form,
                };
                let mut map = HeaderMap::new();
                map.insert(ORIG_PROTO, orig.value());
                assert_eq!(OrigProto::take(&mut map), Some(orig));
                assert!(map.is_empty());
            }
        }
    }

    #[test]
    fn a_request_names_one_host_and_no_user() {
        let none = headers(&[]);
        let one = headers(&[("host", "a.test:80")]);
        let user = headers(&[("host", "b.test@a.test")]);
        let mut two = one.clone();
        two.append(HOST, HeaderValue::from_static("b.test"));
        let origin = Uri::from_static("/");
        let absolute = Uri::from_static("http://a.test/");
        let with_user = Uri::from_static("http://me:secret@a.test/");
        for (version, uri, headers, names) in [
            (Version::HTTP_11, &origin, &one, true),
            (Version::HTTP_11, &origin, &none, false),
            (Version::HTTP_10, &origin, &none, true),
            (Version::HTTP_11, &absolute, &none, true),
            (Version::HTTP_11, &origin, &two, false),
            (Version::HTTP_11, &absolute, &two, false),
            (Version::HTTP_11, &origin, &user, false),
            (Version::HTTP_2, &with_user, &none, false),
            (Version::HTTP_11, &with_user, &one, false),
        ] {
            let seen = names_its_host(version, uri, headers);
            assert_eq!(seen, names, "{version:?} {uri} {headers:?}");
        }
    }

    #[test]
    fn targets_change_their_form_and_nothing_else() {
        for (origin, absolute) in [
            ("/a?b", "http://h:80/a?b"),
            ("/", "http://h:80/"),
            ("*", "http://h:80*"),
        ] {
            let mut uri: Uri = origin.parse().unwrap();
            to_absolute(&mut uri, Authority::from_static("h:80"));
            assert_eq!(uri.to_string(), absolute);
            to_origin(&mut uri);
            assert_eq!(uri.to_string(), origin);
        }
    }

    #[test]
    fn an_upgrade_to_http2_is_none() {
        for protocol in ["h2c", "websocket, H2C"] {
            let map = headers(&[
                ("connection", "upgrade, http2-settings"),
                ("upgrade", protocol),
            ]);
            assert!(!is_upgrade(Version::HTTP_11, &map), "{protocol}");
        }
    }

    #[test]
    fn a_client_id_has_no_other_spelling() {
        for name in [
            "l5d-client-id",
            "l5d_client_id",
            "l5d-client_id",
            "l5d.client.id",
        ] {
            let mut map = headers(&[(name, "admin"), (name, "root"), ("l5d-client-ids", "1")]);
            remove_client_id(&mut map);
            assert_eq!(map, headers(&[("l5d-client-ids", "1")]), "{name}");
        }
    }

    #[test]
    fn connection_takes_nothing_from_the_proxies() {
        let mut map = headers(&[
            ("connection", "l5d-client-id, x-mine"),
            ("l5d-client-id", "web"),
            ("x-mine", "1"),
        ]);
        remove_hop_by_hop(&mut map);
        assert_eq!(map, headers(&[("l5d-client-id", "web")]));
        let mut map = headers(&[
            ("connection", "keep-alive, Upgrade, x-mine"),
            ("upgrade", "websocket"),
            ("keep-alive", "5"),
            ("x-mine", "1"),
            ("sec-websocket-version", "13"),
        ]);
        keep_only_upgrade(&mut map);
        let kept = [
            ("upgrade", "websocket"),
            ("connection", "upgrade"),
            ("sec-websocket-version", "13"),
        ];
        assert_eq!(map, headers(&kept));
    }

    #[test]
    fn what_orig_proto_does_not_know_is_nothing() {
        for value in ["", "HTTP/2.0", "HTTP/1", "h"] {
            let mut map = HeaderMap::new();
            map.insert(ORIG_PROTO, HeaderValue::from_str(value).unwrap());
            assert_eq!(OrigProto::take(&mut map), None, "{value}");
            assert!(map.is_empty());
        }
    }
}
