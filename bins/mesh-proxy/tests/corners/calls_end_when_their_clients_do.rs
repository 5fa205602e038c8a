//! A gRPC call's deadline and its cancellation reach the server at once: shown with grpcio at both ends.

use std::time::{Duration, Instant};

use crate::controller::soon;
use crate::mesh::Mesh;
use crate::programs::{Program, found, python_file};

/// A server, once it listens.
async fn server(mesh: &Mesh) -> Program {
    let mut server = python_file("grpc_peer.py", &["serve", &mesh.net.app().to_string()]);
    assert_eq!(server.line().await, "listening");
    server
}

fn client(mesh: &Mesh, what: &str) -> Program {
    python_file("grpc_peer.py", &[what, &mesh.net.web().to_string()])
}

#[tokio::test(flavor = "multi_thread")]
async fn by_a_deadline() {
    if !found(&["python:grpc"]) {
        return;
    }
    let mesh = Mesh::start();
    let (client_proxy, server_proxy) = mesh.both().await;
    let mut server = server(&mesh).await;
    let mut client = client(&mesh, "deadline");
    let begun = server.line().await;
    let left: f64 = begun.strip_prefix("begun ").unwrap().parse().unwrap();
    assert!(
        left > 0.0 && left <= 0.7,
        "the server knows the deadline: {left}"
    );
    let said = client.line().await;
    assert!(said.starts_with("DEADLINE_EXCEEDED 0.7"), "{said}");
    assert_eq!(server.line().await, "ended");
    for (proxy, direction) in [
        (&client_proxy, "outbound_http_route"),
        (&server_proxy, "inbound_http"),
    ] {
        proxy
            .metric_becomes(&format!("{direction}_requests_active"), &[], 0.0)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn by_a_cancellation_or_the_end_of_the_client() {
    if !found(&["python:grpc"]) {
        return;
    }
    let mesh = Mesh::start();
    let (client_proxy, server_proxy) = mesh.both().await;
    let mut server = server(&mesh).await;
    for (what, code) in [("cancel", Some("CANCELLED")), ("vanish", None)] {
        let mut client = client(&mesh, what);
        assert_eq!(server.line().await, "begun forever");
        assert_eq!(client.line().await, "first");
        let cancelled = Instant::now();
        if let Some(code) = code {
            assert_eq!(client.line().await, code);
        }
        assert_eq!(soon("the cancellation", server.line()).await, "ended");
        // The server waits for 15 seconds by itself.
        assert!(cancelled.elapsed() < Duration::from_secs(5), "{what}");
    }
    for (proxy, direction) in [
        (&client_proxy, "outbound_http_route"),
        (&server_proxy, "inbound_http"),
    ] {
        proxy
            .metric_becomes(&format!("{direction}_requests_active"), &[], 0.0)
            .await;
    }
}
