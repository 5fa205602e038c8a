//! What a route or its backend does to requests and responses on their way out.

use http_body_util::BodyExt;
use linkerd2_proxy_api::grpc_route::GrpcFailureInjector;
use linkerd2_proxy_api::http_route::{
    HttpFailureInjector, HttpRouteMatch, PathMatch, PathModifier, Ratio, RequestHeaderModifier,
    RequestRedirect, ResponseHeaderModifier, path_match, path_modifier,
};
use linkerd2_proxy_api::http_types::{Headers, headers::Header};
use linkerd2_proxy_api::outbound::http_route::{Filter, filter::Kind};
use linkerd2_proxy_api::outbound::{OutboundPolicy, grpc_route, http_route};
use tonic::Code;

use crate::h2;
use crate::http2_and_grpc_are_streamed::{client, grpc_app, unary};
use crate::mesh::{Mesh, Proxy};
use crate::policy;
use crate::wire::{App, Message, Wire, ask, mirror};

fn headers(pairs: &[(&str, &str)]) -> Option<Headers> {
    let header = |(name, value): &(&str, &str)| Header {
        name: (*name).to_owned(),
        value: value.as_bytes().to_vec(),
    };
    Some(Headers {
        headers: pairs.iter().map(header).collect(),
    })
}

fn of(kind: Kind) -> Filter {
    Filter { kind: Some(kind) }
}

fn request_headers(mark: &str) -> Filter {
    of(Kind::RequestHeaderModifier(RequestHeaderModifier {
        add: headers(&[("x-added", mark)]),
        set: headers(&[("x-set", mark)]),
        remove: vec!["x-removed".to_owned()],
    }))
}

fn response_headers(mark: &str) -> Filter {
    of(Kind::ResponseHeaderModifier(ResponseHeaderModifier {
        add: headers(&[("x-added", mark)]),
        set: headers(&[("x-set", mark)]),
        remove: vec!["content-type".to_owned()],
    }))
}

/// A mirror behind a service with this policy.
async fn mirrored(policy: OutboundPolicy) -> (Mesh, Proxy, App) {
    let mesh = Mesh::start();
    mesh.says.policy("web.test:80", policy);
    mesh.says
        .endpoints("web.test:80", vec![policy::plain(mesh.net.plain(0))]);
    let app = mirror(mesh.net.plain(0)).await;
    let client = mesh.client("").await;
    (mesh, client, app)
}

async fn get(mesh: &Mesh, path: &str) -> Message {
    let head = "host: web.test\r\nx-added: 0\r\nx-set: 0\r\nx-removed: 0\r\n";
    ask(
        mesh.net.web(),
        &format!("GET {path} HTTP/1.1\r\n{head}\r\n"),
    )
    .await
}

fn lines_of<'a>(body: &'a str, name: &str) -> Vec<&'a str> {
    let named = |line: &&str| line.starts_with(name);
    body.lines().filter(named).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_changed_by_the_route_and_then_by_the_backend() {
    let (mesh, _client, _app) = mirrored(policy::changed(|rule| {
        rule.filters = vec![request_headers("route"), response_headers("route")];
        policy::backend(rule).filters =
            vec![request_headers("backend"), response_headers("backend")];
    }))
    .await;
    let seen = get(&mesh, "/").await;
    let body = seen.body_text();
    assert_eq!(
        lines_of(&body, "x-"),
        [
            "x-added: 0",
            "x-added: backend",
            "x-added: route",
            "x-set: backend"
        ]
    );
    // The way back is the other way round.
    assert_eq!(seen.header("x-added").as_deref(), Some("backend, route"));
    assert_eq!(seen.header("x-set").as_deref(), Some("route"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_set_is_the_one_that_arrives() {
    let (mesh, _client, _app) = mirrored(policy::changed(|rule| {
        rule.filters = vec![of(Kind::RequestHeaderModifier(RequestHeaderModifier {
            set: headers(&[("host", "elsewhere.test")]),
            ..Default::default()
        }))];
    }))
    .await;
    let body = get(&mesh, "/").await.body_text();
    assert_eq!(lines_of(&body, "host"), ["host: elsewhere.test"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_set_is_the_authority_of_http2() {
    let mesh = Mesh::start();
    let policy = policy::changed(|rule| {
        rule.filters = vec![of(Kind::RequestHeaderModifier(RequestHeaderModifier {
            set: headers(&[("host", "elsewhere.test")]),
            ..Default::default()
        }))];
    });
    mesh.says.policy("web.test:80", policy);
    mesh.says
        .endpoints("web.test:80", vec![policy::plain(mesh.net.plain(0))]);
    let _client = mesh.client("").await;
    let _app = h2::app(mesh.net.plain(0), |request| async move {
        let named = |headers: &http::HeaderMap| headers.get("host").cloned();
        let host = named(request.headers()).map(|host| host.to_str().unwrap().to_owned());
        let host = host.or_else(|| request.uri().authority().map(ToString::to_string));
        http::Response::new(h2::full(host.unwrap_or_default()))
    })
    .await;
    let (mut sender, _connection) = h2::connect(mesh.net.web()).await;
    let request = http::Request::get("http://web.test/")
        .header("host", "by.the.client.test")
        .body(h2::full(""))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "elsewhere.test");
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_send_the_client_elsewhere() {
    let (mesh, client, _app) = mirrored(policy::changed(|rule| {
        rule.matches = vec![HttpRouteMatch {
            path: Some(PathMatch {
                kind: Some(path_match::Kind::Prefix("/old".to_owned())),
            }),
            ..Default::default()
        }];
        rule.filters = vec![of(Kind::Redirect(RequestRedirect {
            host: "new.test".to_owned(),
            path: Some(PathModifier {
                replace: Some(path_modifier::Replace::Prefix("/new".to_owned())),
            }),
            status: 308,
            ..Default::default()
        }))];
        // There is nobody to go to, nor need there be.
        let nobody = http_route::distribution::Empty {};
        rule.backends = Some(http_route::Distribution {
            kind: Some(http_route::distribution::Kind::Empty(nobody)),
        });
    }))
    .await;
    let seen = get(&mesh, "/old/x?y=1").await;
    assert_eq!(seen.status(), 308);
    assert_eq!(
        seen.header("location").as_deref(),
        Some("http://new.test/new/x?y=1")
    );
    client
        .metric_becomes("outbound_http_route_statuses_total", &["\"308\""], 1.0)
        .await;
}

fn failing(numerator: u32) -> Filter {
    failing_with(418, numerator)
}

fn failing_with(status: u32, numerator: u32) -> Filter {
    of(Kind::FailureInjector(HttpFailureInjector {
        status,
        message: "as ordered".to_owned(),
        ratio: Some(Ratio {
            numerator,
            denominator: 2,
        }),
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_of_the_requests_fails_as_ordered() {
    for on_backend in [false, true] {
        let with = |numerator| {
            policy::changed(move |rule| {
                let filters = vec![failing(numerator)];
                if on_backend {
                    policy::backend(rule).filters = filters;
                } else {
                    rule.filters = filters;
                }
            })
        };
        let (mesh, client, app) = mirrored(with(2)).await;
        let seen = get(&mesh, "/").await;
        assert_eq!(
            (seen.status(), seen.header("l5d-proxy-error").as_deref()),
            (418, Some("as ordered"))
        );
        assert_eq!(seen.body_text(), "as ordered");
        client
            .metric_becomes("outbound_http_route_statuses_total", &["other"], 1.0)
            .await;
        drop((client, app));

        let (mesh, client, app) = mirrored(with(0)).await;
        for _ in 0..20 {
            assert_eq!(get(&mesh, "/").await.status(), 200);
        }
        drop((client, app));

        let (mesh, _client, _app) = mirrored(with(1)).await;
        let mut failed = 0;
        for _ in 0..60 {
            failed += u32::from(get(&mesh, "/").await.status() == 418);
        }
        // Odds of less than one in a million.
        assert!((10..=50).contains(&failed), "{failed} of 60");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_has_no_body_is_given_none() {
    for status in [204, 304] {
        let said = policy::changed(move |rule| rule.filters = vec![failing_with(status, 2)]);
        let (mesh, _client, _app) = mirrored(said).await;
        let mut wire = Wire::connect(mesh.net.web()).await;
        // What is too much of the first answer would be taken for the second.
        for _ in 0..2 {
            let seen = wire.ask("GET / HTTP/1.1\r\nhost: web.test\r\n\r\n").await;
            assert_eq!(u32::from(seen.status()), status);
            assert_eq!(seen.header("content-type"), None);
            assert_eq!(
                seen.header("l5d-proxy-error").as_deref(),
                Some("as ordered")
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_grpc_fail_in_their_own_way() {
    let mesh = Mesh::start();
    mesh.says
        .endpoints("web.test:80", vec![policy::plain(mesh.net.plain(0))]);
    let _app = grpc_app(mesh.net.plain(0)).await;
    let injector = grpc_route::filter::Kind::FailureInjector(GrpcFailureInjector {
        code: 8,
        message: "not n\u{f6}w, 100%".to_owned(),
        ratio: None,
    });
    mesh.says.policy(
        "web.test:80",
        policy::grpc(|rule| {
            rule.filters = vec![grpc_route::Filter {
                kind: Some(injector.clone()),
            }];
        }),
    );
    let _client = mesh.client("").await;
    let mut grpc = client(mesh.net.web()).await;
    let refused = unary(&mut grpc, "Unary").await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::ResourceExhausted, "not n\u{f6}w, 100%")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_nobody_knows_fails_every_request() {
    let (mesh, client, _app) = mirrored(policy::changed(|rule| {
        rule.filters = vec![Filter { kind: None }];
    }))
    .await;
    let seen = get(&mesh, "/").await;
    assert_eq!(
        (seen.status(), seen.header("l5d-proxy-error").as_deref()),
        (500, Some("a filter of the route cannot be applied"))
    );
    client
        .until("/config", |text| text.contains("outbound.HttpRoute.Filter"))
        .await;
}
