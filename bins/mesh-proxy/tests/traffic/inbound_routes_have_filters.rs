//! The routes of a port change, redirect and fail the requests that they let in, and only those.

use linkerd2_proxy_api::grpc_route::GrpcFailureInjector;
use linkerd2_proxy_api::http_route::{
    HttpFailureInjector, HttpRouteMatch, PathMatch, PathModifier, Ratio, RequestHeaderModifier,
    RequestRedirect, path_match, path_modifier,
};
use linkerd2_proxy_api::http_types::{Headers, headers::Header};
use linkerd2_proxy_api::inbound::http_route::filter::Kind as Filter;
use linkerd2_proxy_api::inbound::proxy_protocol::{Grpc, Http1, Kind};
use linkerd2_proxy_api::inbound::{self, GrpcRoute, HttpRoute, Server};
use tonic::Code;

use crate::controller::{messages, soon};
use crate::http2_and_grpc_are_streamed::{client, grpc_app, unary};
use crate::mesh::{CLIENT, Mesh};
use crate::policy;
use crate::wire::{Message, Wire, app, ask, mirror};

fn rule(prefix: &str, filters: Vec<Option<Filter>>) -> inbound::http_route::Rule {
    let path = PathMatch {
        kind: Some(path_match::Kind::Prefix(prefix.to_owned())),
    };
    inbound::http_route::Rule {
        matches: vec![HttpRouteMatch {
            path: Some(path),
            ..HttpRouteMatch::default()
        }],
        filters: filters
            .into_iter()
            .map(|kind| inbound::http_route::Filter { kind })
            .collect(),
    }
}

/// A server that lets in `server`'s clients by one route of these rules.
fn routed(server: Server, rules: Vec<inbound::http_route::Rule>) -> Server {
    let route = HttpRoute {
        metadata: messages::named("route"),
        rules,
        ..HttpRoute::default()
    };
    let http1 = Http1 {
        routes: vec![route],
        ..Http1::default()
    };
    policy::with_protocol(server, Kind::Http1(http1))
}

fn headers(headers: &[(&str, &str)]) -> Option<Headers> {
    let header = |(name, value): &(&str, &str)| Header {
        name: (*name).to_owned(),
        value: value.as_bytes().to_vec(),
    };
    Some(Headers {
        headers: headers.iter().map(header).collect(),
    })
}

fn modifier() -> Option<Filter> {
    Some(Filter::RequestHeaderModifier(RequestHeaderModifier {
        add: headers(&[("x-list", "two")]),
        set: headers(&[("x-one", "set"), ("l5d-client-id", "admin.test")]),
        remove: vec!["x-gone".to_owned()],
    }))
}

fn redirect() -> Option<Filter> {
    let replace = path_modifier::Replace::Prefix("/new".to_owned());
    Some(Filter::Redirect(RequestRedirect {
        host: "elsewhere.test".to_owned(),
        path: Some(PathModifier {
            replace: Some(replace),
        }),
        status: 308,
        ..RequestRedirect::default()
    }))
}

fn failure(ratio: Option<Ratio>) -> Option<Filter> {
    Some(Filter::FailureInjector(HttpFailureInjector {
        status: 409,
        message: "a conflict".to_owned(),
        ratio,
    }))
}

fn get(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: web.test\r\nx-list: one\r\nx-one: own\r\nx-gone: x\r\n\r\n"
    )
}

async fn of(mesh: &Mesh, path: &str) -> Message {
    ask(mesh.net.web(), &get(path)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_changed_redirected_or_failed_as_its_rule_says() {
    let mesh = Mesh::start();
    let never = Ratio {
        numerator: 0,
        denominator: 1,
    };
    let rules = vec![
        rule("/changed", vec![modifier(), failure(Some(never))]),
        rule("/moved", vec![redirect(), failure(None)]),
        rule("/failed", vec![failure(None), redirect()]),
        rule("/unknown", vec![None]),
        rule("/", Vec::new()),
    ];
    mesh.says
        .server(mesh.net.app().port(), routed(policy::open(), rules));
    let (_client, server) = mesh.both().await;
    let _app = mirror(mesh.net.app()).await;

    let plain = of(&mesh, "/").await.body_text();
    assert!(
        plain.contains("\nx-gone: x\n") && plain.contains("\nx-one: own\n"),
        "{plain}"
    );
    let changed = of(&mesh, "/changed").await.body_text();
    // Who the client is, no filter says.
    let id = format!("\nl5d-client-id: {CLIENT}\n");
    for expected in ["\nx-list: one\n", "\nx-list: two\n", "\nx-one: set\n", &id] {
        assert!(changed.contains(expected), "{expected:?} in {changed}");
    }
    for unexpected in ["x-gone", "own", "admin.test"] {
        assert!(!changed.contains(unexpected), "{unexpected:?} in {changed}");
    }
    let moved = of(&mesh, "/moved/on?q=1").await;
    assert_eq!(
        (moved.status(), moved.header("location").as_deref()),
        (308, Some("http://elsewhere.test/new/on?q=1"))
    );
    let failed = of(&mesh, "/failed").await;
    assert_eq!(
        (failed.status(), failed.header("l5d-proxy-error").as_deref()),
        (409, Some("a conflict"))
    );
    // What is not known might be what keeps the application safe.
    assert_eq!(of(&mesh, "/unknown").await.status(), 500);
    for (status, count) in [("308", 1.0), ("409", 1.0), ("200", 2.0)] {
        let status = format!("http_status=\"{status}\"");
        server
            .metric_becomes("inbound_http_statuses_total", &[&status], count)
            .await;
    }
    let config = server.until("/config", |_| true).await;
    assert!(
        config.contains("inbound.HttpRoute.Filter.kind") && !config.contains("Rule.filters"),
        "{config}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_let_in_is_not_told_what_filters_do() {
    let mesh = Mesh::start();
    let rules = vec![rule("/", vec![redirect()])];
    let nobody = policy::only("somebody.else");
    mesh.says
        .server(mesh.net.app().port(), routed(nobody, rules));
    let _proxies = mesh.both().await;
    let seen = of(&mesh, "/").await;
    assert_eq!((seen.status(), seen.header("location")), (403, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_failed_with_its_status() {
    let mesh = Mesh::start();
    let injector = GrpcFailureInjector {
        code: 10,
        message: "try 100% later".to_owned(),
        ratio: None,
    };
    let kind = inbound::grpc_route::filter::Kind::FailureInjector(injector);
    let rule = inbound::grpc_route::Rule {
        filters: vec![inbound::grpc_route::Filter { kind: Some(kind) }],
        ..Default::default()
    };
    let route = GrpcRoute {
        metadata: messages::named("route"),
        rules: vec![rule],
        ..GrpcRoute::default()
    };
    let grpc = Grpc {
        routes: vec![route],
    };
    mesh.says.server(
        mesh.net.app().port(),
        policy::with_protocol(policy::open(), Kind::Grpc(grpc)),
    );
    let _proxies = mesh.both().await;
    let _app = grpc_app(mesh.net.app()).await;
    let mut grpc = client(mesh.net.web()).await;
    let failed = unary(&mut grpc, "Unary").await.unwrap_err();
    assert_eq!(
        (failed.code(), failed.message()),
        (Code::Aborted, "try 100% later")
    );
}

/// A connection that was switched stays, as long as the policy lets in the request as it came, not as it was changed.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_request_that_switched_protocols_is_judged_as_it_came() {
    let mesh = Mesh::start();
    let port = mesh.net.app().port();
    let by_header = |label: &str| {
        let mut rule = rule("/", vec![modifier()]);
        let value = linkerd2_proxy_api::http_route::header_match::Value::Exact(b"own".to_vec());
        rule.matches[0].headers = vec![linkerd2_proxy_api::http_route::HeaderMatch {
            name: "x-one".to_owned(),
            value: Some(value),
        }];
        let mut server = routed(policy::open(), vec![rule]);
        server.labels.insert("name".to_owned(), label.to_owned());
        server
    };
    mesh.says.server(port, by_header("0"));
    let server = mesh.server("").await;
    let _app = app(mesh.net.app(), |mut wire| async move {
        let asked = wire.request().await.unwrap();
        assert_eq!(asked.header("x-one").as_deref(), Some("set"));
        wire.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n")
            .await;
        loop {
            let said = wire.up_to(1).await;
            if said.is_empty() || !wire.offer(said).await {
                return;
            }
        }
    })
    .await;
    let mut wire = Wire::connect(mesh.net.mesh_port()).await;
    let upgrade = get("/").replace("\r\n\r\n", "\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n");
    wire.send(upgrade).await;
    assert_eq!(wire.head().await.unwrap().status(), 101);
    for label in ["1", "2", "3"] {
        mesh.says.server(port, by_header(label));
        soon("the new policy", async {
            let named = format!("parent_name=\"{label}\"");
            let refused = "GET / HTTP/1.1\r\nhost: web.test\r\n\r\n";
            while server
                .metric("inbound_http_requests_total", &[&named])
                .await
                < 1.0
            {
                assert_eq!(ask(mesh.net.mesh_port(), refused).await.status(), 403);
            }
        })
        .await;
        wire.send("x").await;
        assert_eq!(wire.exactly(1).await, b"x");
    }
}
