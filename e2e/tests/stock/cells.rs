//! What is asserted of each pair. Whatever arrives must also have been let in: by default, only who has proven an identity is.

use e2e::{Answer, Carriage, Load, Program, PythonPeer, Workload};

use crate::PAUSE;
use crate::pair::{ECHO, GREET, GRPC, HTTP, MARKER, Pair, SERVER, WEBSOCKET};

/// One thing that must hold of a pair. It panics if it does not.
type Cell = fn(&Pair);

/// Every cell, in the order in which they are tried.
pub(crate) const ALL: [(&str, Cell); 14] = [
    ("HTTP/1.1", http1),
    ("HTTP/1.1, bodies and streams", http1_bodies),
    ("HTTP/1.1, absolute form", absolute_form),
    ("HTTP/1.1, 300 requests on 4 connections", http1_load),
    ("WebSocket", websocket),
    ("other upgrades, and refused ones", upgrades),
    ("HTTP/2", http2),
    ("HTTP/2, bodies, streams and trailers", http2_bodies),
    ("HTTP/2, 300 requests on 1 connection", http2_load),
    ("gRPC: four kinds of calls, trailers", grpc),
    ("opaque TCP, half-closed, new connections", opaque),
    ("opaque TCP, server speaks first", server_first),
    ("a workload by its own address", own_address),
    ("an address outside the mesh", outside),
];

/// Tried last, as it speaks in the clear.
pub(crate) const LAST: [(&str, Cell); 3] = [
    ("a client without identity is refused", stranger),
    ("both proxies count mutual TLS", metrics),
    ("neither finds fault with the controller", no_complaint),
];

/// Rows that need the redirect of what arrives.
pub(crate) const BY_ADDRESS: [&str; 2] = [
    "a workload by its own address",
    "a client without identity is refused",
];

fn http1(pair: &Pair) {
    arrives(pair, "--http1.1", "HTTP/1.1");
}

fn http2(pair: &Pair) {
    arrives(pair, "--http2-prior-knowledge", "HTTP/2.0");
}

/// The application sees the request as it was sent, and who sent it.
fn arrives(pair: &Pair, option: &str, version: &str) {
    let marker = format!("x-marker: {MARKER}");
    // A client cannot vouch for itself.
    let forged = "l5d-client-id: admin.default.serviceaccount.identity.linkerd.cluster.local";
    let path = "/seen?a=%20b&c";
    let options = [option, "-H", &marker, "-H", forged];
    let answer = pair.client.host.curl(&pair.url(path), &options);
    let seen = seen(&answer);
    assert_eq!(seen["version"], version, "{seen}");
    assert_eq!(
        seen["headers"]["x-marker"],
        serde_json::json!([MARKER]),
        "{seen}"
    );
    assert_eq!(
        seen["headers"]["l5d-client-id"],
        serde_json::json!([pair.client.identity()]),
        "{seen}"
    );
    assert!(
        seen["headers"]["l5d-orig-proto"].is_null(),
        "only between proxies: {seen}"
    );
    let uri = seen["uri"].as_str().unwrap_or_default();
    assert!(uri.ends_with(path), "{seen}");
    let authority = format!("{}:{HTTP}", pair.service);
    if version == "HTTP/1.1" {
        assert_eq!(uri, path, "in origin form, as it was sent: {seen}");
        assert_eq!(
            seen["headers"]["host"],
            serde_json::json!([authority]),
            "{seen}"
        );
    } else {
        assert!(uri.contains(&authority), "{seen}");
    }
    for code in ["204", "304", "418", "503"] {
        let url = pair.url(&format!("/status?code={code}"));
        let answer = pair.client.host.curl(&url, &[option]);
        assert_eq!(answer.status.to_string(), code, "{answer:?}");
        assert_eq!(
            answer.header("x-served-by"),
            Some(SERVER),
            "its own answer: {answer:?}"
        );
    }
    let head = pair
        .client
        .host
        .curl(&pair.url("/seen"), &[option, "--head"]);
    assert_eq!((head.status, head.body.as_str()), (200, ""), "{head:?}");
}

fn http1_bodies(pair: &Pair) {
    bodies(pair, "--http1.1");
}

fn http2_bodies(pair: &Pair) {
    let echoed = bodies(pair, "--http2-prior-knowledge");
    assert!(
        echoed.body.contains("x-echoed: whole"),
        "its trailer: {:?}",
        &echoed.body[echoed.body.len().saturating_sub(200)..]
    );
}

fn bodies(pair: &Pair, option: &str) -> Answer {
    let big = MARKER.repeat(20_000);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &big).expect("written");
    let folder_data = format!("@{}", file.path().display());
    // Curl runs as the application's user.
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(file.path(), readable).expect("opened");
    let options = [option, "--data-binary", &folder_data, "-H", "te: trailers"];
    let echoed = pair.client.host.curl(&pair.url("/echo"), &options);
    assert_eq!(echoed.status, 200, "{}", echoed.error);
    assert!(
        echoed.body.starts_with(&big),
        "{} bytes of {}",
        echoed.body.len(),
        big.len()
    );
    let chunked = [
        option,
        "--data-binary",
        MARKER,
        "-H",
        "transfer-encoding: chunked",
    ];
    let options = if option == "--http1.1" {
        &chunked[..]
    } else {
        &chunked[..3]
    };
    let small = pair.client.host.curl(&pair.url("/echo"), options);
    assert!(small.body.starts_with(MARKER), "{small:?}");
    let stream = pair
        .client
        .host
        .curl(&pair.url("/stream?chunks=20&ms=10"), &[option]);
    assert_eq!(stream.body.lines().count(), 20, "{stream:?}");
    echoed
}

/// A request for another authority than the connection's, as to an HTTP proxy: it must arrive as it is.
fn absolute_form(pair: &Pair) {
    let proxy = format!("http://{}:{HTTP}", pair.service);
    let target = "http://somewhere.example:1234/seen?x=1";
    let options = ["--http1.1", "--proxy", &proxy, "--noproxy", ""];
    let answer = pair.client.host.curl(target, &options);
    let seen = seen(&answer);
    assert_eq!(seen["uri"], target, "{seen}");
    assert_eq!(
        seen["headers"]["host"],
        serde_json::json!(["somewhere.example:1234"]),
        "{seen}"
    );
    assert_eq!(
        seen["headers"]["l5d-client-id"],
        serde_json::json!([pair.client.identity()]),
        "{seen}"
    );
}

fn http1_load(pair: &Pair) {
    load(pair, Carriage::Http1, &pair.url("/echo"));
}

fn http2_load(pair: &Pair) {
    load(pair, Carriage::Http2, &pair.url("/echo"));
}

fn load(pair: &Pair, carriage: Carriage, target: &str) {
    let mut load = Load::start(&pair.client.host, carriage, target, 4, PAUSE);
    load.wait_ok(300);
    let report = load.stop();
    report.assert_no_failure(300);
    if matches!(carriage, Carriage::Http1 | Carriage::Http2) {
        assert_eq!(report.served(SERVER), report.ok, "{report:?}");
    }
}

fn websocket(pair: &Pair) {
    let url = format!("ws://{}:{WEBSOCKET}/chat", pair.service);
    let arguments = [url.as_str(), MARKER];
    let mut talk = PythonPeer::start(&pair.client.host, "websocket_client.py", &arguments, None);
    assert_eq!(talk.process.success(), "passed\n");
}

fn upgrades(pair: &Pair) {
    let upgrade = |protocol: &str| {
        let protocol = format!("Upgrade: {protocol}");
        let options = ["-H", "Connection: upgrade", "-H", &protocol, "-m", "2"];
        pair.client.host.curl(&pair.url("/"), &options)
    };
    let switched = upgrade("echo");
    assert_eq!(
        (switched.status, switched.header("upgrade")),
        (101, Some("echo")),
        "{switched:?}"
    );
    // A server that does not know a protocol answers as if it had not been asked.
    let refused = upgrade("unheard-of");
    assert_eq!(
        (refused.status, refused.header("x-served-by")),
        (200, Some(SERVER)),
        "{refused:?}"
    );
}

fn grpc(pair: &Pair) {
    let target = format!("{}:{GRPC}", pair.service);
    let caller = pair.client.identity();
    let mut arguments = vec![target.as_str(), MARKER, &caller];
    if pair.inbound == Program::Stock {
        arguments.push("lossy");
    }
    let mut calls = PythonPeer::start(&pair.client.host, "grpc_client.py", &arguments, None);
    assert_eq!(calls.process.success(), "passed 7\n");
}

fn opaque(pair: &Pair) {
    load(pair, Carriage::TcpOnce, &format!("{}:{ECHO}", pair.service));
}

fn server_first(pair: &Pair) {
    load(
        pair,
        Carriage::ServerFirst,
        &format!("{}:{GREET}", pair.service),
    );
}

fn own_address(pair: &Pair) {
    let host = pair.server.host.address();
    for option in ["--http1.1", "--http2-prior-knowledge"] {
        let url = format!("http://{host}:{HTTP}/seen");
        let answer = pair.client.host.curl(&url, &[option]);
        let seen = seen(&answer);
        assert_eq!(
            seen["headers"]["l5d-client-id"],
            serde_json::json!([pair.client.identity()]),
            "{option}: {seen}"
        );
    }
    load(pair, Carriage::ServerFirst, &format!("{host}:{GREET}"));
}

fn outside(pair: &Pair) {
    let host = pair.outside.address();
    for option in ["--http1.1", "--http2-prior-knowledge"] {
        let url = format!("http://{host}:{HTTP}/seen");
        let answer = pair.client.host.curl(&url, &[option]);
        let seen = seen(&answer);
        assert!(
            seen["headers"]["l5d-client-id"].is_null(),
            "nobody vouches outside the mesh: {option}: {seen}"
        );
    }
    load(pair, Carriage::TcpOnce, &format!("{host}:{ECHO}"));
}

fn stranger(pair: &Pair) {
    let host = pair.server.host.address();
    for option in ["--http1.1", "--http2-prior-knowledge"] {
        let forged = format!("l5d-client-id: {}", pair.client.identity());
        let url = format!("http://{host}:{HTTP}/seen");
        let answer = pair.outside.curl(&url, &[option, "-H", &forged]);
        assert!(matches!(answer.status, 0 | 403), "{option}: {answer:?}");
        assert_eq!(answer.header("x-served-by"), None, "{option}: {answer:?}");
    }
    let url = format!("http://{host}:{GREET}/");
    let answer = pair.outside.curl(&url, &["--http0.9"]);
    assert_eq!(answer.body, "", "not a byte of the server's: {answer:?}");
}

fn metrics(pair: &Pair) {
    let counted = |workload: &Workload, parts: &[&str]| {
        let metrics = workload.admin("/metrics");
        let line = metrics
            .lines()
            .find(|line| parts.iter().all(|part| line.contains(part)));
        assert!(
            line.is_some_and(|line| !line.ends_with(" 0")),
            "no line with {parts:?} in the metrics of {}",
            workload.identity()
        );
    };
    let server_id = format!("server_id=\"{}\"", pair.server.identity());
    let client_id = format!("client_id=\"{}\"", pair.client.identity());
    if pair.outbound == Program::Stock {
        for family in ["request_total{", "tcp_open_total{"] {
            counted(
                &pair.client,
                &[family, "direction=\"outbound\"", "tls=\"true\"", &server_id],
            );
        }
    }
    if pair.inbound == Program::Stock {
        for family in ["request_total{", "tcp_open_total{"] {
            counted(
                &pair.server,
                &[family, "direction=\"inbound\"", "tls=\"true\"", &client_id],
            );
        }
    }
    // Ours names who is called; the peer's identity is the application's to see, and is verified in the handshake.
    if pair.outbound != Program::Stock {
        let parts = ["outbound_tcp_open_total{", "peer=\"dst\"", "tls=\"true\""];
        counted(&pair.client, &parts);
    }
    if pair.inbound != Program::Stock {
        let parts = ["inbound_tcp_open_total{", "peer=\"src\"", "tls=\"true\""];
        counted(&pair.server, &parts);
    }
}

/// A stock proxy that is told what it does not understand refuses everything, and says so. Ours says that something is wrong or
/// left out, and names in its configuration what it does not honour.
fn no_complaint(pair: &Pair) {
    let complaints = [
        "misconfigured",
        "Invalid",
        "invalid",
        "panicked",
        "a wrong ",
        "left out",
    ];
    for (workload, program) in [(&pair.client, pair.outbound), (&pair.server, pair.inbound)] {
        for complaint in complaints {
            let lines = workload.proxy.lines_with(complaint);
            assert!(lines.is_empty(), "{}: {lines:#?}", workload.identity());
        }
        if program != Program::Stock {
            let config: serde_json::Value = serde_json::from_str(&workload.admin("/config"))
                .unwrap_or_else(|error| panic!("/config is no JSON: {error}"));
            assert_eq!(
                config["unsupported"],
                serde_json::json!([]),
                "{}",
                workload.identity()
            );
        }
    }
}

/// What the application says it has seen, as JSON.
fn seen(answer: &Answer) -> serde_json::Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{answer:?}"))
}
