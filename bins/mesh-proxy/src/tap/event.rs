//! What is told of a request.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use http::header::{AUTHORIZATION, COOKIE, HeaderName, PROXY_AUTHORIZATION, SET_COOKIE};
use http::{HeaderMap, Request, Response, Version};
use linkerd2_proxy_api::http_types::{self, headers::Header};
use linkerd2_proxy_api::tap::tap_event::http::{
    Event, RequestInit, ResponseEnd, ResponseInit, StreamId,
};
use linkerd2_proxy_api::tap::tap_event::{self, EndpointMeta, ProxyDirection, RouteMeta};
use linkerd2_proxy_api::tap::{Eos, TapEvent, eos};
use mesh_http::headers;
use mesh_policy::Meta;
use mesh_tls::Identity;

use super::matching::{Labels, Seen};
use crate::inbound::{Client, Peer};
use crate::model::Endpoint;

/// Headers that let whoever reads them act as someone else.
const SECRET: [HeaderName; 4] = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, SET_COOKIE];
/// What stands for the value of such a header.
const REDACTED: &[u8] = b"[redacted]";

/// Between whom a request goes.
#[derive(Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) direction: ProxyDirection,
    pub(crate) source: SocketAddr,
    pub(crate) source_labels: Labels<'a>,
    pub(crate) destination: SocketAddr,
    pub(crate) destination_labels: Labels<'a>,
    pub(crate) route_labels: Labels<'a>,
}

impl<'a> Subject<'a> {
    /// A request of the application at `client`, sent to `endpoint` by `route`.
    pub(crate) fn outbound(client: SocketAddr, endpoint: &'a Endpoint, route: &'a Meta) -> Self {
        let labels = endpoint.labels.iter();
        let mut destination_labels: Labels<'a> = labels
            .map(|(key, value)| (Cow::from(&**key), Cow::from(&**value)))
            .collect();
        match &endpoint.identity {
            Some(expected) => destination_labels.extend([
                ("tls".into(), "true".into()),
                ("server_id".into(), expected.0.as_str().into()),
            ]),
            None => {
                destination_labels.push(("tls".into(), "not_provided_by_service_discovery".into()));
            }
        }
        Self {
            direction: ProxyDirection::Outbound,
            source: client,
            source_labels: vec![("tls".into(), "loopback".into())],
            destination: endpoint.addr,
            destination_labels,
            route_labels: route_labels(route),
        }
    }
}

impl Subject<'static> {
    /// A request of `client` for the application at `destination`, whose server has these labels, by `route` if the
    /// server has any.
    pub(crate) fn inbound(
        client: &Client,
        destination: SocketAddr,
        server: &BTreeMap<String, String>,
        route: Option<&Meta>,
    ) -> Self {
        let source_labels: Labels<'_> = match &client.peer {
            Peer::Plaintext => vec![("tls".into(), "no_tls_from_remote".into())],
            Peer::Tls(identity) => {
                let identity = identity.as_ref().map_or("", Identity::as_str).to_owned();
                vec![
                    ("tls".into(), "true".into()),
                    ("client_id".into(), identity.into()),
                ]
            }
        };
        let labels = server.iter();
        let mut destination_labels: Labels<'_> = labels
            .map(|(key, value)| (format!("srv_{key}").into(), value.clone().into()))
            .collect();
        destination_labels.push(("tls".into(), "loopback".into()));
        let route_labels = route.map(route_labels).unwrap_or_default().into_iter();
        Self {
            direction: ProxyDirection::Inbound,
            source: client.address,
            source_labels,
            destination,
            destination_labels,
            route_labels: route_labels
                .map(|(key, value)| (key, Cow::Owned(value.into_owned())))
                .collect(),
        }
    }
}

/// The labels of the route that `meta` describes.
fn route_labels(meta: &Meta) -> Vec<(Cow<'static, str>, Cow<'_, str>)> {
    [
        ("route_group", meta.group()),
        ("route_kind", meta.kind()),
        ("route_namespace", meta.namespace()),
        ("route_name", meta.name()),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(key, value)| (key.into(), value.into()))
    .collect()
}

/// The parts of a request that is observed, read once.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    subject: Subject<'a>,
    authority: String,
}

impl<'a> Parts<'a> {
    pub(super) fn new<B>(request: &Request<B>, subject: Subject<'a>) -> Self {
        let authority = headers::authority(request.uri(), request.headers());
        Self {
            subject,
            authority: authority.map_or_else(String::new, |authority| authority.to_string()),
        }
    }

    /// As a match sees it.
    pub(super) fn seen<'b, B>(&'b self, request: &'b Request<B>) -> Seen<'b> {
        let Subject {
            source,
            destination,
            destination_labels,
            route_labels,
            ..
        } = &self.subject;
        Seen {
            source: *source,
            destination: *destination,
            method: request.method(),
            scheme: request.uri().scheme_str().unwrap_or("http"),
            authority: &self.authority,
            path: request.uri().path(),
            destination_labels,
            route_labels,
        }
    }

    /// What all events of the request have in common.
    pub(super) fn base(&self) -> TapEvent {
        let labels = |labels: &Labels<'_>| {
            labels
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect()
        };
        TapEvent {
            source: Some(self.subject.source.into()),
            source_meta: Some(EndpointMeta {
                labels: labels(&self.subject.source_labels),
            }),
            route_meta: Some(RouteMeta {
                labels: labels(&self.subject.route_labels),
            }),
            destination: Some(self.subject.destination.into()),
            destination_meta: Some(EndpointMeta {
                labels: labels(&self.subject.destination_labels),
            }),
            proxy_direction: self.subject.direction.into(),
            event: None,
        }
    }

    /// The head of the request; its headers too, if they are asked for.
    pub(super) fn request_init<B>(
        &self,
        request: &Request<B>,
        id: StreamId,
        with_headers: bool,
    ) -> Event {
        let uri = request.uri();
        let pseudo = || {
            [
                (":method", request.method().as_str()),
                (":scheme", uri.scheme_str().unwrap_or_default()),
                (":authority", self.authority.as_str()),
                (
                    ":path",
                    uri.path_and_query().map_or("", |path| path.as_str()),
                ),
            ]
        };
        let headers = with_headers.then(|| match request.version() {
            Version::HTTP_2 => extract(&pseudo(), request.headers()),
            _ => extract(&[], request.headers()),
        });
        Event::RequestInit(RequestInit {
            id: Some(id),
            method: Some(request.method().clone().into()),
            scheme: request.uri().scheme().map(http_types::Scheme::from),
            authority: self.authority.clone(),
            path: request.uri().path().to_owned(),
            headers,
        })
    }
}

/// The head of the response.
pub(super) fn response_init<B>(
    response: &Response<B>,
    id: StreamId,
    since: Duration,
    with_headers: bool,
) -> Event {
    let headers = with_headers.then(|| match response.version() {
        Version::HTTP_2 => extract(
            &[(":status", response.status().as_str())],
            response.headers(),
        ),
        _ => extract(&[], response.headers()),
    });
    Event::ResponseInit(ResponseInit {
        id: Some(id),
        since_request_init: duration(since),
        http_status: response.status().as_u16().into(),
        headers,
    })
}

/// How long a request took, and how it ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended<'a> {
    pub(super) since_request: Duration,
    /// `None` when there was no response.
    pub(super) since_response: Option<Duration>,
    pub(super) bytes: u64,
    pub(super) end: Option<eos::End>,
    pub(super) trailers: Option<&'a HeaderMap>,
}

/// The end of the response.
pub(super) fn response_end(ended: Ended<'_>, id: StreamId, with_headers: bool) -> Event {
    let trailers = ended.trailers.filter(|_| with_headers);
    Event::ResponseEnd(ResponseEnd {
        id: Some(id),
        since_request_init: duration(ended.since_request),
        since_response_init: ended.since_response.and_then(duration),
        response_bytes: ended.bytes,
        eos: Some(Eos { end: ended.end }),
        trailers: trailers.map(|trailers| extract(&[], trailers)),
    })
}

/// `event` of the request that `base` is of.
pub(super) fn of(base: &TapEvent, event: Event) -> TapEvent {
    TapEvent {
        event: Some(tap_event::Event::Http(tap_event::Http {
            event: Some(event),
        })),
        ..base.clone()
    }
}

fn extract(pseudo: &[(&str, &str)], headers: &HeaderMap) -> http_types::Headers {
    let pseudo = pseudo.iter().map(|(name, value)| Header {
        name: (*name).to_owned(),
        value: value.as_bytes().to_vec(),
    });
    let headers = headers.iter().map(|(name, value)| Header {
        name: name.as_str().to_owned(),
        value: if value.is_sensitive() || SECRET.contains(name) {
            REDACTED.to_vec()
        } else {
            value.as_bytes().to_vec()
        },
    });
    http_types::Headers {
        headers: pseudo.chain(headers).collect(),
    }
}

/// `None` for what a protobuf duration cannot hold, which is longer than any proxy runs.
fn duration(duration: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(duration).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn secrets_are_named_and_not_told() {
        let mut headers = HeaderMap::new();
        for name in SECRET {
            headers.append(name, HeaderValue::from_static("secret"));
        }
        let mut hidden = HeaderValue::from_static("secret");
        hidden.set_sensitive(true);
        headers.append("x-never-indexed", hidden);
        headers.append("accept", HeaderValue::from_static("text/html"));
        let extracted = extract(&[(":path", "/?q")], &headers).headers;
        let told: Vec<_> = extracted
            .iter()
            .filter(|header| header.value != REDACTED)
            .map(|header| (header.name.as_str(), &*header.value))
            .collect();
        assert_eq!(
            told,
            [(":path", &b"/?q"[..]), ("accept", &b"text/html"[..])]
        );
        assert_eq!(extracted.len(), headers.len() + 1);
    }
}
