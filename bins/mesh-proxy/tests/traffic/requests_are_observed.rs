//! Who is permitted sees requests pass, from head to end and as many as asked for; nobody else does, and nobody waits for it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use linkerd2_proxy_api::http_types::{self, Headers, http_method};
use linkerd2_proxy_api::tap::observe_request::r#match::http::{StringMatch, string_match};
use linkerd2_proxy_api::tap::observe_request::r#match::{self as matching, Label, Seq};
use linkerd2_proxy_api::tap::observe_request::{Extract, Match, extract};
use linkerd2_proxy_api::tap::tap_client::TapClient;
use linkerd2_proxy_api::tap::tap_event::http::{Event, RequestInit, ResponseEnd, ResponseInit};
use linkerd2_proxy_api::tap::tap_event::{self, ProxyDirection};
use linkerd2_proxy_api::tap::{ObserveRequest, TapEvent, eos};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::controller::soon;
use crate::http2_and_grpc_are_streamed::{client, grpc_app, unary};
use crate::mesh::{CLIENT, Mesh, SERVER};
use crate::policy;
use crate::wire::{Wire, app, ask, canned};

/// Who may observe.
const OBSERVER: &str = "tap.test";
/// RFC 9113, section 7.
const CANCEL: u32 = 8;
const GET: &str = "GET / HTTP/1.1\r\nhost: web.test\r\n\r\n";

/// The settings that let `OBSERVER` observe at `address`.
fn tapped(address: SocketAddr) -> String {
    format!("tap.listen = \"{address}\"\ntap.identities = [\"other.test\", \"{OBSERVER}\"]\n")
}

fn part(kind: matching::Match) -> Match {
    Match {
        r#match: Some(kind),
    }
}

/// Every request.
fn all() -> Match {
    part(matching::Match::All(Seq::default()))
}

fn path(prefix: &str) -> Match {
    let prefix = string_match::Match::Prefix(prefix.to_owned());
    let kind = matching::http::Match::Path(StringMatch {
        r#match: Some(prefix),
    });
    part(matching::Match::Http(matching::Http {
        r#match: Some(kind),
    }))
}

fn with_headers() -> Option<Extract> {
    let headers = extract::http::Extract::Headers(extract::http::Headers {});
    let http = extract::Http {
        extract: Some(headers),
    };
    Some(Extract {
        extract: Some(extract::Extract::Http(http)),
    })
}

fn request(limit: u32, r#match: Match) -> ObserveRequest {
    ObserveRequest {
        limit,
        r#match: Some(r#match),
        extract: None,
    }
}

struct Tap(TapClient<Channel>);

impl Tap {
    /// Of the proxy `server` at `address`, for the client `name`.
    async fn open(mesh: &Mesh, address: SocketAddr, server: &str, name: &str) -> Self {
        let channel = mesh.channel(address, server, Some(name)).await.unwrap();
        Self(TapClient::new(channel))
    }

    async fn observe(&mut self, request: ObserveRequest) -> Result<Events, Status> {
        let stream = soon("a stream", self.0.observe(request)).await?;
        Ok(Events(stream.into_inner()))
    }
}

struct Events(Streaming<TapEvent>);

impl Events {
    /// The next event, and what it has in common with others.
    async fn next(&mut self) -> Option<(TapEvent, Event)> {
        let event = soon("an event", self.0.message()).await.unwrap()?;
        let Some(tap_event::Event::Http(http)) = event.event.clone() else {
            panic!("no HTTP: {event:?}");
        };
        Some((event, http.event.unwrap()))
    }

    /// All events of one request.
    async fn request(&mut self) -> (TapEvent, RequestInit, ResponseInit, ResponseEnd) {
        let (base, init) = self.next().await.unwrap();
        let (_, response) = self.next().await.unwrap();
        let (_, end) = self.next().await.unwrap();
        let (Event::RequestInit(init), Event::ResponseInit(response), Event::ResponseEnd(end)) =
            (init, response, end)
        else {
            panic!("out of order");
        };
        assert_eq!((init.id, init.id), (response.id, end.id));
        assert!(init.id.is_some());
        (base, init, response, end)
    }
}

fn found(headers: Option<&Headers>, name: &str) -> Option<String> {
    let header = headers?.headers.iter().find(|header| header.name == name)?;
    Some(String::from_utf8(header.value.clone()).unwrap())
}

fn label(labels: &HashMap<String, String>, key: &str) -> Option<String> {
    labels.get(key).cloned()
}

fn address(of: Option<linkerd2_proxy_api::net::TcpAddress>) -> SocketAddr {
    of.unwrap().try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_told_from_head_to_end_by_both_proxies() {
    let mesh = Mesh::start();
    let mut endpoint = policy::meshed(mesh.net.mesh_port());
    endpoint
        .metric_labels
        .insert("workload".to_owned(), "web-1".to_owned());
    mesh.says.endpoints("web.test:80", vec![endpoint]);
    let (near, far) = (mesh.net.tap(1), mesh.net.tap(2));
    let (near_settings, far_settings) = (tapped(near), tapped(far));
    let _proxies = tokio::join!(mesh.client(&near_settings), mesh.server(&far_settings));
    let _app = canned(
        mesh.net.app(),
        "HTTP/1.1 201 Created\r\nset-cookie: secret\r\nx-answer: yes\r\ncontent-length: 5\r\n\r\nhello",
    )
    .await;
    let asked = || ObserveRequest {
        extract: with_headers(),
        ..request(1, all())
    };
    let mut near = Tap::open(&mesh, near, CLIENT, OBSERVER).await;
    let mut near = near.observe(asked()).await.unwrap();
    let mut far = Tap::open(&mesh, far, SERVER, OBSERVER).await;
    let mut far = far.observe(asked()).await.unwrap();
    let seen = ask(
        mesh.net.web(),
        "PUT /things?id=1 HTTP/1.1\r\nhost: web.test\r\nauthorization: Basic secret\r\nx-question: why\r\ncontent-length: 2\r\n\r\nhi",
    )
    .await;
    assert_eq!((seen.status(), seen.body_text().as_str()), (201, "hello"));

    let outbound = near.request().await;
    let inbound = far.request().await;
    for (base, init, response, end) in [&outbound, &inbound] {
        let put = http_method::Type::Registered(http_method::Registered::Put.into());
        assert_eq!(init.method.as_ref().unwrap().r#type, Some(put));
        // It goes over HTTP/2 between the proxies.
        assert_eq!(init.scheme, Some(http_types::Scheme::from("http")));
        assert_eq!(
            (init.authority.as_str(), init.path.as_str()),
            ("web.test", "/things")
        );
        let sent = |name| found(init.headers.as_ref(), name);
        assert_eq!(sent(":path").as_deref(), Some("/things?id=1"));
        assert_eq!(sent(":method").as_deref(), Some("PUT"));
        assert_eq!(sent(":authority").as_deref(), Some("web.test"));
        assert_eq!(sent("x-question").as_deref(), Some("why"));
        assert_eq!(sent("authorization").as_deref(), Some("[redacted]"));
        assert_eq!(response.http_status, 201);
        let answered = |name| found(response.headers.as_ref(), name);
        assert_eq!(answered("x-answer").as_deref(), Some("yes"));
        assert_eq!(answered("set-cookie").as_deref(), Some("[redacted]"));
        assert_eq!(end.response_bytes, 5);
        assert_eq!(end.eos.as_ref().unwrap().end, None);
        let nanos = |duration: &Option<prost_types::Duration>| {
            let duration = duration.unwrap();
            duration.seconds * 1_000_000_000 + i64::from(duration.nanos)
        };
        let (to_head, to_end) = (
            nanos(&response.since_request_init),
            nanos(&end.since_request_init),
        );
        assert!(0 < to_head && to_head <= to_end);
        assert_eq!(nanos(&end.since_response_init), to_end - to_head);
        assert!(address(base.source).ip().is_loopback());
    }
    let labels = |base: &TapEvent| {
        let meta = |meta: &Option<tap_event::EndpointMeta>| meta.clone().unwrap().labels;
        (meta(&base.source_meta), meta(&base.destination_meta))
    };
    let base = &outbound.0;
    let (source, destination) = labels(base);
    assert_eq!(base.proxy_direction(), ProxyDirection::Outbound);
    assert_eq!(address(base.destination), mesh.net.mesh_port());
    assert_eq!(label(&source, "tls").as_deref(), Some("loopback"));
    assert_eq!(label(&destination, "tls").as_deref(), Some("true"));
    assert_eq!(label(&destination, "server_id").as_deref(), Some(SERVER));
    assert_eq!(label(&destination, "workload").as_deref(), Some("web-1"));
    let route = base.route_meta.clone().unwrap().labels;
    assert_eq!(label(&route, "route_name").as_deref(), Some("web"));
    let base = &inbound.0;
    let (source, destination) = labels(base);
    assert_eq!(base.proxy_direction(), ProxyDirection::Inbound);
    assert_eq!(address(base.destination), mesh.net.app());
    assert_eq!(label(&source, "tls").as_deref(), Some("true"));
    assert_eq!(label(&source, "client_id").as_deref(), Some(CLIENT));
    assert_eq!(label(&destination, "tls").as_deref(), Some("loopback"));
    // One was all that was asked for.
    assert!(near.next().await.is_none());
    assert!(far.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_and_the_trailers_of_a_call_are_told() {
    let mesh = Mesh::start();
    let far = mesh.net.tap(2);
    let settings = tapped(far);
    let _proxies = tokio::join!(mesh.client(""), mesh.server(&settings));
    let _app = grpc_app(mesh.net.app()).await;
    let mut tap = Tap::open(&mesh, far, SERVER, OBSERVER).await;
    let mut events = tap
        .observe(ObserveRequest {
            extract: with_headers(),
            ..request(2, path("/test.Echo/"))
        })
        .await
        .unwrap();
    let mut grpc = client(mesh.net.web()).await;
    unary(&mut grpc, "Unary").await.unwrap();
    let (_, init, _, end) = events.request().await;
    assert_eq!(init.path, "/test.Echo/Unary");
    assert_eq!(end.eos.unwrap().end, Some(eos::End::GrpcStatusCode(0)));
    assert_eq!(
        found(end.trailers.as_ref(), "grpc-status").as_deref(),
        Some("0")
    );
    assert!(end.response_bytes > 5, "{}", end.response_bytes);
    // This answer is a head alone.
    unary(&mut grpc, "Missing").await.unwrap_err();
    let (.., end) = events.request().await;
    assert_eq!(end.eos.unwrap().end, Some(eos::End::GrpcStatusCode(5)));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_observes_who_may_not() {
    let mesh = Mesh::start();
    let far = mesh.net.tap(2);
    let settings = tapped(far);
    let (_client, server) = tokio::join!(mesh.client(""), mesh.server(&settings));
    for name in [CLIENT, "tap.test.example"] {
        let mut tap = Tap::open(&mesh, far, SERVER, name).await;
        let refused = tap.observe(request(1, all())).await.err().unwrap();
        assert_eq!(refused.code(), Code::PermissionDenied, "{name}");
    }
    // Without a certificate the handshake fails; in the clear nothing is said at all.
    let anonymous = async {
        let channel = mesh.channel(far, SERVER, None).await?;
        let observed = TapClient::new(channel).observe(request(1, all())).await;
        Ok::<_, tonic::transport::Error>(observed.is_ok())
    };
    assert!(!matches!(soon("an answer", anonymous).await, Ok(true)));
    let mut plain = Wire::connect(far).await;
    plain.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    let said = plain.rest_if_any().await;
    assert!(!said.windows(4).any(|bytes| bytes == b"grpc"), "{said:?}");
    server.metric_becomes("tap_observers", &[], 0.0).await;
    // Where it is not asked for, nobody listens.
    assert!(Wire::try_connect(mesh.net.tap(1)).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_means_nothing_is_refused_by_its_field() {
    let mesh = Mesh::start();
    let far = mesh.net.tap(2);
    let _server = mesh.server(&tapped(far)).await;
    let mut tap = Tap::open(&mesh, far, SERVER, OBSERVER).await;
    let unnamed = Label::default();
    for (wrong, field) in [
        (request(0, all()), "limit: 0"),
        (
            ObserveRequest {
                r#match: None,
                ..request(1, all())
            },
            "match: not set",
        ),
        (
            request(1, part(matching::Match::RouteLabel(unnamed))),
            "match.route_label.key: not set",
        ),
    ] {
        let refused = tap.observe(wrong).await.err().unwrap();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().starts_with(field), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_meant_is_told_and_no_more_than_was_asked_for() {
    let mesh = Mesh::start();
    let near = mesh.net.tap(1);
    let settings = tapped(near);
    let (proxy, _server) = tokio::join!(mesh.client(&settings), mesh.server(""));
    let _app = canned(
        mesh.net.app(),
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    let mut tap = Tap::open(&mesh, near, CLIENT, OBSERVER).await;
    let server_id = part(matching::Match::DestinationLabel(Label {
        key: "server_id".to_owned(),
        value: SERVER.to_owned(),
    }));
    let meant = vec![path("/shown"), server_id.clone()];
    let mut some = tap
        .observe(request(
            2,
            part(matching::Match::All(Seq { matches: meant })),
        ))
        .await
        .unwrap();
    let mut none = tap
        .observe(request(9, part(matching::Match::Not(Box::new(server_id)))))
        .await
        .unwrap();
    proxy.metric_becomes("tap_observers", &[], 2.0).await;
    let mut wire = Wire::connect(mesh.net.web()).await;
    for at in ["/hidden", "/shown/1", "/", "/shown/2", "/shown/3"] {
        let seen = wire.ask(&GET.replace("GET /", &format!("GET {at}"))).await;
        assert_eq!(seen.status(), 200);
    }
    let (_, first, ..) = some.request().await;
    let (_, second, ..) = some.request().await;
    assert_eq!(
        (first.path.as_str(), second.path.as_str()),
        ("/shown/1", "/shown/2")
    );
    assert!(first.headers.is_none());
    let (first, second) = (first.id.unwrap(), second.id.unwrap());
    assert_eq!(first.base, second.base);
    assert_ne!(first.stream, second.stream);
    assert!(some.next().await.is_none());
    proxy.metric_becomes("tap_observers", &[], 1.0).await;
    // Six events were all there was to tell.
    assert!((proxy.metric("tap_events_total", &[]).await - 6.0).abs() < 0.5);
    let nothing = tokio::time::timeout(Duration::from_millis(50), none.0.message());
    assert!(nothing.await.is_err());
    drop(none);
    proxy.metric_becomes("tap_observers", &[], 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_and_one_that_is_given_up_are_told() {
    let mesh = Mesh::start();
    mesh.says
        .server(mesh.net.app().port(), policy::only("somebody.else"));
    let (near, far) = (mesh.net.tap(1), mesh.net.tap(2));
    let (near_settings, far_settings) = (tapped(near), tapped(far));
    let _proxies = tokio::join!(mesh.client(&near_settings), mesh.server(&far_settings));
    let mut near = Tap::open(&mesh, near, CLIENT, OBSERVER).await;
    let mut near = near.observe(request(u32::MAX, all())).await.unwrap();
    let mut far = Tap::open(&mesh, far, SERVER, OBSERVER).await;
    let mut far = far.observe(request(u32::MAX, all())).await.unwrap();
    assert_eq!(ask(mesh.net.web(), GET).await.status(), 403);
    for events in [&mut near, &mut far] {
        assert_eq!(events.request().await.2.http_status, 403);
    }

    mesh.says.server(mesh.net.app().port(), policy::open());
    let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
    let _app = app(mesh.net.app(), move |mut wire| {
        let begun = begun.clone();
        async move {
            wire.request().await.unwrap();
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc")
                .await;
            begun.send(()).unwrap();
            wire.rest_if_any().await;
        }
    })
    .await;
    let wire = soon("the new policy", async {
        loop {
            let mut wire = Wire::connect(mesh.net.web()).await;
            wire.send(GET).await;
            let head = wire.head().await.unwrap();
            if head.status() == 200 {
                assert_eq!(wire.exactly(3).await, b"abc");
                break wire;
            }
            assert_eq!(head.status(), 403);
            near.request().await;
            far.request().await;
        }
    })
    .await;
    soon("a beginning", begins.recv()).await.unwrap();
    drop(wire);
    for events in [&mut near, &mut far] {
        let (.., end) = events.request().await;
        assert_eq!(end.eos.unwrap().end, Some(eos::End::ResetErrorCode(CANCEL)));
        assert_eq!(end.response_bytes, 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_an_observer_that_does_not_read() {
    let mesh = Mesh::start();
    let near = mesh.net.tap(1);
    let settings = tapped(near);
    let (proxy, _server) = tokio::join!(mesh.client(&settings), mesh.server(""));
    let _app = canned(
        mesh.net.app(),
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    let mut tap = Tap::open(&mesh, near, CLIENT, OBSERVER).await;
    let events = tap
        .observe(ObserveRequest {
            extract: with_headers(),
            ..request(u32::MAX, all())
        })
        .await
        .unwrap();
    let mut wire = Wire::connect(mesh.net.web()).await;
    let long = format!("x-long: {}\r\n\r\n", "x".repeat(32_000));
    let request = GET.replace("\r\n\r\n", &format!("\r\n{long}"));
    for _ in 0..200 {
        assert_eq!(wire.ask(&request).await.status(), 200);
    }
    assert!(proxy.metric("tap_events_dropped_total", &[]).await > 0.0);
    assert!(proxy.metric("tap_events_total", &[]).await > 0.0);
    drop(events);
    proxy.metric_becomes("tap_observers", &[], 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_no_more_observers_than_there_is_room_for() {
    let mesh = Mesh::start();
    let far = mesh.net.tap(2);
    let proxy = mesh.server(&tapped(far)).await;
    let mut tap = Tap::open(&mesh, far, SERVER, OBSERVER).await;
    let mut events = Vec::new();
    for _ in 0..16 {
        events.push(tap.observe(request(1, all())).await.unwrap());
    }
    let refused = tap.observe(request(1, all())).await.err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    events.pop();
    proxy.metric_becomes("tap_observers", &[], 15.0).await;
    tap.observe(request(1, all())).await.unwrap();
}
