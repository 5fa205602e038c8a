//! Bytes that are no HTTP are carried as they are, each direction to its own end.

use std::time::{Duration, Instant};

use crate::mesh::Mesh;
use crate::policy;
use crate::wire::{Wire, app};

#[tokio::test(flavor = "multi_thread")]
async fn each_direction_ends_on_its_own() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = app(mesh.net.app(), |mut wire| async move {
        if wire.exactly(1).await == b"\x01" {
            // The client ends first and still gets the answer.
            let asked = wire.rest().await;
            wire.send([b"<", &asked[..], b">"].concat()).await;
        } else {
            // The server ends first and still gets the rest.
            wire.send("done").await;
            wire.finish().await;
            assert_eq!(wire.rest().await, b"more");
        }
    })
    .await;
    for transport_header in [false, true] {
        if transport_header {
            let port = mesh.net.app().port();
            mesh.says.endpoints(
                "web.test:80",
                vec![policy::meshed_opaque(mesh.net.mesh_port(), port)],
            );
        }
        let mut wire = Wire::connect(mesh.net.web()).await;
        wire.send(b"\x01abc").await;
        wire.finish().await;
        assert_eq!(wire.rest().await, b"<abc>");

        let mut wire = Wire::connect(mesh.net.web()).await;
        wire.send(b"\x02").await;
        assert_eq!(wire.rest().await, b"done");
        wire.send("more").await;
        wire.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_speaks_first_is_heard_at_once_where_the_policy_is_opaque() {
    let mesh = Mesh::start();
    let port = mesh.net.app().port();
    mesh.says.policy("web.test:80", policy::opaque("web"));
    mesh.says.endpoints(
        "web.test:80",
        vec![policy::meshed_opaque(mesh.net.mesh_port(), port)],
    );
    mesh.says.server(port, policy::as_opaque(policy::open()));
    let _proxies = mesh.both().await;
    let _app = app(mesh.net.app(), |mut wire| async move {
        wire.send("220 ready\r\n").await;
        wire.rest().await;
    })
    .await;
    let started = Instant::now();
    let mut wire = Wire::connect(mesh.net.web()).await;
    assert_eq!(wire.exactly(11).await, b"220 ready\r\n");
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "no detection was waited for"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_speaks_first_is_heard_after_the_policys_detection_timeout() {
    let mesh = Mesh::start();
    let mut outbound = crate::controller::messages::balanced("web", "web.test:80");
    policy::detect(&mut outbound).timeout = policy::duration(Duration::from_millis(200));
    mesh.says.policy("web.test:80", outbound);
    mesh.says.server(
        mesh.net.app().port(),
        policy::detected_within(policy::open(), Duration::from_millis(200)),
    );
    let _proxies = mesh.both().await;
    let _app = app(mesh.net.app(), |mut wire| async move {
        wire.send("220 ready\r\n").await;
        wire.rest().await;
    })
    .await;
    // Through both proxies, and from a client that is not in the mesh.
    for address in [mesh.net.web(), mesh.net.mesh_port()] {
        let started = Instant::now();
        let mut wire = Wire::connect(address).await;
        assert_eq!(wire.exactly(11).await, b"220 ready\r\n");
        let after = started.elapsed();
        assert!(
            (Duration::from_millis(200)..Duration::from_secs(5)).contains(&after),
            "{after:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_endpoint_is_passed_over_and_none_at_all_closes_the_connection() {
    let mesh = Mesh::start();
    let _client = mesh.client("").await;
    let _app = app(mesh.net.plain(0), |mut wire| async move {
        let asked = wire.rest().await;
        wire.send(asked).await;
    })
    .await;
    mesh.says.endpoints(
        "web.test:80",
        (0..3).map(|n| policy::plain(mesh.net.plain(n))).collect(),
    );
    for _ in 0..10 {
        let mut wire = Wire::connect(mesh.net.web()).await;
        wire.send(b"\0abc").await;
        wire.finish().await;
        assert_eq!(wire.rest().await, b"\0abc");
    }
    mesh.says.policy(
        "other.test:80",
        crate::controller::messages::balanced("other", "other.test:80"),
    );
    let mut wire = Wire::connect(mesh.net.other()).await;
    wire.send(b"\0abc").await;
    assert!(wire.ends_within(Duration::from_secs(5)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_of_one_side_ends_the_other() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let _app = app(mesh.net.app(), move |mut wire| {
        let tell = tell.clone();
        async move {
            wire.exactly(2).await;
            wire.send("got").await;
            tell.send(wire.ends_within(Duration::from_secs(10)).await)
                .unwrap();
        }
    })
    .await;
    let mut wire = Wire::connect(mesh.net.web()).await;
    wire.send(b"\0a").await;
    wire.exactly(3).await;
    wire.reset();
    assert_eq!(
        crate::controller::soon("the end", told.recv()).await,
        Some(true)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_counted_both_ways() {
    let mesh = Mesh::start();
    let (client, server) = mesh.both().await;
    let _app = app(mesh.net.app(), |mut wire| async move {
        wire.exactly(5).await;
        wire.send("answer").await;
        wire.rest().await;
    })
    .await;
    let mut wire = Wire::connect(mesh.net.web()).await;
    wire.send(b"\0four").await;
    wire.exactly(6).await;
    for (proxy, direction) in [(&client, "outbound"), (&server, "inbound")] {
        proxy
            .metric_becomes(
                &format!("{direction}_tcp_open_connections"),
                &["peer=\"src\""],
                1.0,
            )
            .await;
    }
    wire.finish().await;
    wire.rest().await;
    for (proxy, direction) in [(&client, "outbound"), (&server, "inbound")] {
        proxy
            .metric_becomes(
                &format!("{direction}_tcp_open_connections"),
                &["peer=\"src\""],
                0.0,
            )
            .await;
        proxy
            .metric_becomes(
                &format!("{direction}_tcp_open_total"),
                &["peer=\"src\""],
                1.0,
            )
            .await;
    }
}
