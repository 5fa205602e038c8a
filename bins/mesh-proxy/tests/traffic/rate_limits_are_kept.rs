//! A port takes as many requests as its policy says, over all connections and workers, and says when to come again.

use std::time::Duration;

use linkerd2_proxy_api::inbound::http_local_rate_limit::r#override::ClientIdentities;
use linkerd2_proxy_api::inbound::http_local_rate_limit::{Limit, Override};
use linkerd2_proxy_api::inbound::proxy_protocol::{Detect, Http1, Http2, Kind};
use linkerd2_proxy_api::inbound::{HttpLocalRateLimit, Identity, Server};
use tonic::Code;

use crate::controller::soon;
use crate::http2_and_grpc_are_streamed::{client, grpc_app, unary};
use crate::mesh::{CLIENT, Mesh};
use crate::policy;
use crate::wire::{Message, ask, mirror};

const GET: &str = "GET / HTTP/1.1\r\nhost: web.test\r\nconnection: close\r\n\r\n";

fn limit(requests_per_second: u32) -> Option<Limit> {
    Some(Limit {
        requests_per_second,
    })
}

/// A limit of all clients together.
fn total(requests_per_second: u32) -> HttpLocalRateLimit {
    HttpLocalRateLimit {
        total: limit(requests_per_second),
        ..HttpLocalRateLimit::default()
    }
}

fn detected(limit: HttpLocalRateLimit) -> Kind {
    Kind::Detect(Detect {
        timeout: policy::duration(Duration::from_secs(10)),
        http_local_rate_limit: Some(limit),
        ..Detect::default()
    })
}

fn limited(limit: HttpLocalRateLimit) -> Server {
    policy::with_protocol(policy::open(), detected(limit))
}

/// The answer to a request of `name`, or of nobody in particular, on a connection of its own.
async fn as_client(mesh: &Mesh, name: Option<&str>) -> Message {
    let mut wire = mesh.tls(mesh.net.mesh_port(), name, &[]).await;
    wire.ask(GET).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_too_many_is_refused_and_told_when_to_come_again() {
    let kinds: [fn(HttpLocalRateLimit) -> Kind; 3] = [
        detected,
        |limit| {
            Kind::Http1(Http1 {
                local_rate_limit: Some(limit),
                ..Http1::default()
            })
        },
        |limit| {
            Kind::Http2(Http2 {
                local_rate_limit: Some(limit),
                ..Http2::default()
            })
        },
    ];
    for kind in kinds {
        let mesh = Mesh::start();
        let server = policy::with_protocol(policy::open(), kind(total(1)));
        mesh.says.server(mesh.net.app().port(), server);
        let server = mesh.server("").await;
        let _app = mirror(mesh.net.app()).await;
        assert_eq!(ask(mesh.net.mesh_port(), GET).await.status(), 200);
        // Whichever worker it comes to, and however long a machine takes, one of the next is within the second.
        let refused = soon("a refusal", async {
            loop {
                let seen = ask(mesh.net.mesh_port(), GET).await;
                if seen.status() != 200 {
                    break seen;
                }
            }
        })
        .await;
        assert_eq!(refused.status(), 429);
        assert_eq!(refused.header("retry-after").as_deref(), Some("1"));
        assert_eq!(
            refused.header("l5d-proxy-error").as_deref(),
            Some("the rate limit is reached")
        );
        server
            .metric_becomes(
                "inbound_http_failures_total",
                &["error=\"rate_limited\""],
                1.0,
            )
            .await;
        // One that waits as long as it is told is let in.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(ask(mesh.net.mesh_port(), GET).await.status(), 200);
        let config = server.until("/config", |_| true).await;
        assert!(config.contains("\"unsupported\": []"), "{config}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_too_many_is_refused_as_grpc_has_it() {
    let mesh = Mesh::start();
    mesh.says.server(mesh.net.app().port(), limited(total(1)));
    let _proxies = mesh.both().await;
    let _app = grpc_app(mesh.net.app()).await;
    let mut grpc = client(mesh.net.web()).await;
    unary(&mut grpc, "Unary").await.unwrap();
    let refused = soon("a refusal", async {
        loop {
            if let Err(refused) = unary(&mut grpc, "Unary").await {
                break refused;
            }
        }
    })
    .await;
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(refused.message(), "the rate limit is reached");
    let pushback = refused.metadata().get("grpc-retry-pushback-ms").unwrap();
    let pushback: u64 = pushback.to_str().unwrap().parse().unwrap();
    assert!((1..=1000).contains(&pushback), "{pushback}");
    assert!(refused.metadata().get("retry-after").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_identity_has_its_own_limit_and_some_have_another() {
    let mesh = Mesh::start();
    let clients = ClientIdentities {
        identities: vec![Identity {
            name: "favoured.test".to_owned(),
        }],
    };
    let server = limited(HttpLocalRateLimit {
        identity: limit(1),
        overrides: vec![Override {
            limit: limit(1000),
            clients: Some(clients),
        }],
        // Were they counted, the refused would use this up.
        total: limit(60),
        ..HttpLocalRateLimit::default()
    });
    mesh.says.server(mesh.net.app().port(), server);
    let _server = mesh.server("").await;
    let _app = mirror(mesh.net.app()).await;
    let mut refused = 0;
    for _ in 0..100 {
        let seen = as_client(&mesh, Some("greedy.test")).await;
        refused += usize::from(seen.status() == 429);
    }
    assert!(refused > 50, "{refused}");
    // Another is not held to what the first one did, nor are those without a name, who share a limit.
    assert_eq!(as_client(&mesh, Some(CLIENT)).await.status(), 200);
    assert_eq!(as_client(&mesh, None).await.status(), 200);
    for _ in 0..20 {
        let seen = as_client(&mesh, Some("favoured.test")).await;
        assert_eq!(seen.status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_authorized_uses_up_no_limit() {
    let mesh = Mesh::start();
    let server = Server {
        authorizations: policy::only(CLIENT).authorizations,
        ..limited(total(1))
    };
    mesh.says.server(mesh.net.app().port(), server);
    let server = mesh.server("").await;
    let _app = mirror(mesh.net.app()).await;
    for _ in 0..10 {
        let seen = as_client(&mesh, Some("somebody.else")).await;
        assert_eq!(seen.status(), 403);
    }
    assert_eq!(as_client(&mesh, Some(CLIENT)).await.status(), 200);
    server
        .metric_becomes("inbound_http_failures_total", &["unauthorized"], 10.0)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_policy_with_the_same_limit_does_not_begin_anew_and_another_limit_holds_at_once() {
    let mesh = Mesh::start();
    let port = mesh.net.app().port();
    // One in a while: by the end of the test, a second one has not become due.
    let slow = || HttpLocalRateLimit {
        total: limit(1),
        ..HttpLocalRateLimit::default()
    };
    mesh.says.server(port, limited(slow()));
    let _server = mesh.server("").await;
    let _app = mirror(mesh.net.app()).await;
    let mut wire = mesh.tls(mesh.net.mesh_port(), Some(CLIENT), &[]).await;
    let get = GET.replace("connection: close\r\n", "");
    assert_eq!(wire.ask(&get).await.status(), 200);
    let changes = async {
        let mut limited_since = 0;
        for n in 0..20 {
            let mut server = limited(slow());
            server.labels.insert("change".to_owned(), n.to_string());
            mesh.says.server(port, server);
            limited_since += usize::from(wire.ask(&get).await.status() == 429);
        }
        limited_since
    };
    // Had each change begun anew, nearly all would have been let in.
    let began = std::time::Instant::now();
    let limited_since = changes.await;
    let due = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
    assert!(
        limited_since + due >= 20,
        "{limited_since} of 20, {due} due"
    );

    // On the connection that lives, without end.
    mesh.says.server(port, limited(total(0)));
    soon("no limit", async {
        let mut let_in = 0;
        while let_in < 10 {
            let_in = match wire.ask(&get).await.status() {
                200 => let_in + 1,
                _ => 0,
            };
        }
    })
    .await;
}
