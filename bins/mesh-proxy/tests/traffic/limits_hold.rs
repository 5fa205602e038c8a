//! What is bounded stays bounded, and costs nobody else anything.

use std::time::{Duration, Instant};

use http::Request;

use crate::h2;
use crate::mesh::Mesh;
use crate::wire::{Wire, ask, canned};

const GET: &str = "GET / HTTP/1.1\r\nhost: web.test\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_too_large_are_refused() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = canned(mesh.net.app(), OK).await;
    let long = "x".repeat(100_000);
    let many: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
    for head in [
        format!("GET / HTTP/1.1\r\nhost: web.test\r\nx: {long}\r\n\r\n"),
        format!("GET /{long} HTTP/1.1\r\nhost: web.test\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nhost: web.test\r\n{many}\r\n"),
    ] {
        let mut wire = Wire::connect(mesh.net.web()).await;
        let _ = wire.offer(&head).await;
        if let Some(seen) = wire.head().await {
            assert!(matches!(seen.status(), 414 | 431), "{}", seen.first);
        }
        assert!(wire.ends_within(Duration::from_secs(5)).await);
    }
    let (mut sender, _connection) = h2::connect(mesh.net.web()).await;
    let request = Request::get("http://web.test/")
        .header("x", &long)
        .body(h2::full(""))
        .unwrap();
    let answer = sender.send_request(request).await;
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status() == 431));
    assert_eq!(ask(mesh.net.web(), GET).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_never_ends_is_cut_off_and_an_idle_connection_is_not() {
    let mesh = Mesh::start();
    let _proxies = tokio::join!(
        mesh.client("limits.header_read_timeout = \"1s\""),
        mesh.server("limits.header_read_timeout = \"1s\"")
    );
    let _app = canned(mesh.net.app(), OK).await;
    for address in [mesh.net.web(), mesh.net.mesh_port()] {
        let mut idle = Wire::connect(address).await;
        assert_eq!(idle.ask(GET).await.status(), 200);
        let mut slow = Wire::connect(address).await;
        slow.send("GET / HTTP/1.1\r\nhost").await;
        let mut second = Wire::connect(address).await;
        assert_eq!(second.ask(GET).await.status(), 200);
        second.send("GET / HTTP/1.1\r\nhost").await;
        assert!(slow.ends_within(Duration::from_secs(6)).await);
        assert!(second.ends_within(Duration::from_secs(6)).await);
        assert_eq!(idle.ask(GET).await.status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ends_after_its_response_is_no_slow_head() {
    let mesh = Mesh::start();
    let _proxies = tokio::join!(
        mesh.client("limits.header_read_timeout = \"1s\""),
        mesh.server("")
    );
    // It answers before it has read the body.
    let _app = crate::wire::app(mesh.net.app(), |mut wire| async move {
        while let Some(head) = wire.head().await {
            wire.send(OK).await;
            if head.first.starts_with("POST") {
                wire.exactly(4).await;
            }
        }
    })
    .await;
    let mut wire = Wire::connect(mesh.net.web()).await;
    wire.send("POST / HTTP/1.1\r\nhost: web.test\r\ncontent-length: 4\r\n\r\nab")
        .await;
    assert_eq!(wire.response("POST").await.status(), 200);
    if wire.offer("cd").await && !wire.ends_within(Duration::from_millis(300)).await {
        // The connection was kept: then it must stay while it is idle.
        assert!(!wire.ends_within(Duration::from_secs(3)).await);
        assert_eq!(wire.ask(GET).await.status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_reset_as_fast_as_they_open_end_their_connection_only() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = canned(mesh.net.app(), OK).await;
    let mut wire = Wire::connect(mesh.net.web()).await;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for n in 0u32..2_000 {
        let stream = (2 * n + 1).to_be_bytes();
        // GET http / with an empty authority, all from the static table; then RST_STREAM(CANCEL).
        bytes.extend(b"\0\0\x03\x01\x05");
        bytes.extend(stream);
        bytes.extend(b"\x82\x86\x84");
        bytes.extend(b"\0\0\x04\x03\0");
        bytes.extend(stream);
        bytes.extend(8u32.to_be_bytes());
    }
    let _ = wire.offer(&bytes).await;
    let mut seen = Vec::new();
    loop {
        let Some(frame) = wire.frame().await else {
            break;
        };
        if frame.0 == 7 {
            seen = frame.1;
            break;
        }
    }
    // GOAWAY with ENHANCE_YOUR_CALM (RFC 9113, section 7).
    assert_eq!(seen.get(4..8), Some(&11u32.to_be_bytes()[..]));
    assert_eq!(ask(mesh.net.web(), GET).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_connections_are_served_than_allowed() {
    let mesh = Mesh::start();
    let _proxies = tokio::join!(
        mesh.client("limits.workers = 1\nlimits.max_connections = 2"),
        mesh.server("")
    );
    let _app = canned(mesh.net.app(), OK).await;
    let mut first = Wire::connect(mesh.net.web()).await;
    let mut second = Wire::connect(mesh.net.web()).await;
    assert_eq!(
        (
            first.ask(GET).await.status(),
            second.ask(GET).await.status()
        ),
        (200, 200)
    );
    let mut third = Wire::connect(mesh.net.web()).await;
    third.send(GET).await;
    assert!(third.is_silent(Duration::from_millis(300)).await);
    assert_eq!(
        (
            first.ask(GET).await.status(),
            second.ask(GET).await.status()
        ),
        (200, 200)
    );
    drop(first);
    assert_eq!(third.response("GET").await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_without_connections_takes_no_place() {
    let mesh = Mesh::start();
    // Three listeners, one place.
    let _proxies = tokio::join!(
        mesh.client("limits.workers = 1\nlimits.max_connections = 1"),
        mesh.server("")
    );
    let _app = canned(mesh.net.app(), OK).await;
    mesh.says.policy(
        "other.test:80",
        crate::controller::messages::balanced("other", "web.test:80"),
    );
    for _ in 0..3 {
        for address in [mesh.net.web(), mesh.net.other()] {
            assert_eq!(ask(address, GET).await.status(), 200);
        }
        let seen = ask(
            mesh.net.http_proxy(),
            "GET http://web.test/ HTTP/1.1\r\nhost: web.test\r\n\r\n",
        )
        .await;
        assert_eq!(seen.status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_read_delay_nobody_else() {
    let mesh = Mesh::start();
    let _proxies = tokio::join!(
        mesh.client("limits.workers = 1"),
        mesh.server("limits.workers = 1")
    );
    let _app = crate::wire::app(mesh.net.app(), |mut wire| async move {
        while let Some(request) = wire.request().await {
            if request.first.contains("/large") {
                let head = "HTTP/1.1 200 OK\r\ncontent-length: 67108864\r\n\r\n";
                // It is not read to its end, and blocks here.
                let body = async {
                    wire.send(head).await;
                    while wire.offer(vec![0; 1 << 16]).await {}
                };
                let _ = tokio::time::timeout(Duration::from_secs(10), body).await;
                return;
            }
            wire.send(OK).await;
        }
    })
    .await;
    let mut stalled = Vec::new();
    for _ in 0..30 {
        let mut wire = Wire::connect(mesh.net.web()).await;
        wire.send("GET /large HTTP/1.1\r\nhost: web.test\r\n\r\n")
            .await;
        assert_eq!(wire.head().await.unwrap().status(), 200);
        stalled.push(wire);
    }
    // Until the windows are full.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut wire = Wire::connect(mesh.net.web()).await;
    for _ in 0..10 {
        assert_eq!(wire.ask(GET).await.status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_without_a_request_is_ended_and_with_one_is_not() {
    let mesh = Mesh::start();
    let _proxies = tokio::join!(
        mesh.client("limits.header_read_timeout = \"1s\""),
        mesh.server("limits.header_read_timeout = \"1s\"")
    );
    let _app = canned(mesh.net.app(), OK).await;
    let _plain = h2::app(mesh.net.plain(0), |_| async {
        http::Response::new(h2::full("ok"))
    })
    .await;
    mesh.says
        .endpoints("web.test:80", vec![crate::policy::plain(mesh.net.plain(0))]);
    let started = Instant::now();
    let (mut used, connection) = h2::connect(mesh.net.web()).await;
    let request = || Request::get("http://web.test/").body(h2::full("")).unwrap();
    assert_eq!(used.send_request(request()).await.unwrap().status(), 200);
    let mut unused = Vec::new();
    for address in [mesh.net.web(), mesh.net.mesh_port()] {
        // The preface alone, with settings, and with settings and answers to all that comes.
        for rest in ["", "\0\0\0\x04\0\0\0\0\0"] {
            let mut wire = Wire::connect(address).await;
            wire.send(["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", rest].concat())
                .await;
            unused.push(wire);
        }
    }
    let (_idle, polite) = h2::connect(mesh.net.web()).await;
    // Looked over once a second, asked to end after one and a bit, made to after as much again.
    for mut wire in unused {
        assert!(wire.ends_within(Duration::from_secs(6)).await);
    }
    assert!(started.elapsed() > Duration::from_secs(1));
    assert!(started.elapsed() < Duration::from_secs(6));
    assert!(polite.is_finished(), "who answers is not waited for longer");
    assert!(!connection.is_finished());
    assert_eq!(used.send_request(request()).await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_side_may_have_http2_limits_of_its_own() {
    let mesh = Mesh::start();
    let limits = |side: &str, streams: u32| {
        format!(
            "{side}.http2_max_concurrent_streams = {streams}\n{side}.http2_keepalive_interval = \"100ms\""
        )
    };
    let (of_applications, of_peers) = (limits("outbound", 7), limits("inbound", 5));
    let _proxies = tokio::join!(mesh.client(&of_applications), mesh.server(&of_peers));
    for (address, streams) in [(mesh.net.web(), 7), (mesh.net.mesh_port(), 5)] {
        let mut wire = Wire::connect(address).await;
        wire.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            .await;
        let (mut allowed, mut pinged) = (None, false);
        while allowed.is_none() || !pinged {
            match wire.frame().await.unwrap() {
                // SETTINGS_MAX_CONCURRENT_STREAMS is 3 (RFC 9113, section 6.5.2).
                (4, settings) => {
                    let mut each = settings.chunks(6);
                    let found = each.find(|setting| setting[..2] == [0, 3]);
                    allowed = allowed.or(found.map(|setting| setting[2..].to_vec()));
                }
                (6, _) => pinged = true,
                _ => {}
            }
        }
        assert_eq!(allowed.unwrap(), u32::to_be_bytes(streams), "{address}");
    }
}
