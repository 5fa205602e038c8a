use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use e2e::{App, Carriage, Load, MESH, Mesh, Network, Nginx, Requirement, require};

use crate::PAUSE;

#[test]
fn of_a_stock_nginx_over_http1() {
    if !require(&[&MESH[..], &[Requirement::Program("nginx")]].concat()) {
        return;
    }
    let network = Network::new();
    let mesh = Mesh::start(&network, "");
    let client = mesh.workload("client", "client", &[]);
    let web = mesh.workload("web-1", "web", &[(8080, "http")]);
    let _nginx = Nginx::start(&web.host, 8080, "a page");
    let service = mesh.service("web", &[(8080, "http")]);
    web.publish();

    let url = format!("http://{service}:8080/");
    let answer = client.host.curl(&url, &[]);
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (200, "a page"),
        "{answer:?}"
    );
    assert_eq!(
        answer.header("server").map(|name| &name[..5]),
        Some("nginx"),
        "{answer:?}"
    );
    let missing = client.host.curl(&format!("{url}missing"), &[]);
    assert_eq!(
        (missing.status, missing.header("l5d-proxy-error")),
        (404, None),
        "the application's own answer"
    );
    let head = client.host.curl(&url, &["--head"]);
    assert_eq!(
        (
            head.status,
            head.header("content-length"),
            head.body.as_str()
        ),
        (200, Some("6"), ""),
        "{head:?}"
    );
    let old = client.host.curl(&url, &["--http1.0"]);
    assert_eq!((old.status, old.body.as_str()), (200, "a page"), "{old:?}");

    let mut load = Load::start(&client.host, Carriage::Http1, &url, 8, PAUSE);
    load.wait_ok(1_000);
    load.stop().assert_no_failure(1_000);
}

#[test]
fn in_both_versions_with_bodies_trailers_and_streams() {
    if !require(&MESH) {
        return;
    }
    let network = Network::new();
    let mesh = Mesh::start(&network, "");
    let client = mesh.workload("client", "client", &[]);
    let web = mesh.workload("web-1", "web", &[(8080, "http")]);
    let _app = App::start(&web.host, "one", 8080);
    let service = mesh.service("web", &[(8080, "http")]);
    web.publish();

    let url = format!("http://{service}:8080");
    let big = "x".repeat(300_000);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("body");
    std::fs::write(&file, &big).expect("written");
    let data = format!("@{}", file.display());
    // Curl runs as the application's user.
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("opened");
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let curl = |path: &str, options: &[&str]| {
            client
                .host
                .curl(&format!("{url}{path}"), &[&[version], options].concat())
        };
        let echoed = curl(
            "/echo",
            &[
                "--data-binary",
                &data,
                "-H",
                "expect:",
                "-H",
                "te: trailers",
            ],
        );
        assert_eq!(echoed.status, 200, "{version}: {}", echoed.error);
        assert!(
            echoed.body.starts_with(&big),
            "{version}: {} bytes of {}",
            echoed.body.len(),
            big.len()
        );
        let stream = curl("/stream?chunks=20&ms=10", &[]);
        assert_eq!(stream.body.lines().count(), 20, "{version}: {stream:?}");
        assert_eq!(curl("/status?code=418", &[]).status, 418);
        let head = curl("/", &["--head"]);
        assert_eq!(
            (head.status, head.body.as_str()),
            (200, ""),
            "{version}: {head:?}"
        );
    }
    for carriage in [Carriage::Http1, Carriage::Http2] {
        let mut load = Load::start(&client.host, carriage, &format!("{url}/echo"), 8, PAUSE);
        load.wait_ok(1_000);
        let report = load.stop();
        report.assert_no_failure(1_000);
        assert_eq!(report.served("one"), report.ok);
    }
}

#[test]
fn and_vouches_for_the_client_to_the_application() {
    if !require(&MESH) {
        return;
    }
    let network = Network::new();
    let mesh = Mesh::start(&network, "");
    let client = mesh.workload("client", "client", &[]);
    let web = mesh.workload("web-1", "web", &[(8080, "http")]);
    let _app = App::start(&web.host, "one", 8080);
    let service = mesh.service("web", &[(8080, "http")]);
    web.publish();

    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let forged = [
            "-H",
            "l5d-client-id: admin.default.serviceaccount.identity.linkerd.cluster.local",
        ];
        let hop = [
            "-H",
            "connection: x-hop",
            "-H",
            "x-hop: 1",
            "-H",
            "x-end: 2",
        ];
        let options = if version == "--http1.1" {
            [&[version][..], &forged, &hop].concat()
        } else {
            [&[version][..], &forged].concat()
        };
        let answer = client
            .host
            .curl(&format!("http://{service}:8080/seen"), &options);
        let seen: serde_json::Value =
            serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{answer:?}"));
        assert_eq!(
            seen["headers"]["l5d-client-id"],
            serde_json::json!([client.identity()]),
            "{version}: {seen}"
        );
        assert_eq!(
            seen["uri"].as_str().map(|uri| uri.ends_with("/seen")),
            Some(true),
            "{version}: {seen}"
        );
        assert!(
            seen["headers"]["l5d-orig-proto"].is_null(),
            "{version}: {seen}"
        );
        if version == "--http1.1" {
            assert_eq!(
                seen["headers"]["host"],
                serde_json::json!([format!("{service}:8080")]),
                "{seen}"
            );
            assert!(seen["headers"]["x-hop"].is_null(), "{seen}");
            assert_eq!(seen["headers"]["x-end"], serde_json::json!(["2"]), "{seen}");
            assert_eq!(seen["version"], "HTTP/1.1", "{seen}");
        } else {
            assert_eq!(seen["version"], "HTTP/2.0", "{seen}");
        }
    }
}

#[test]
fn and_says_so_when_there_is_no_endpoint() {
    if !require(&MESH) {
        return;
    }
    let network = Network::new();
    let mesh = Mesh::start(&network, "");
    let client = mesh.workload("client", "client", &[]);
    let service = mesh.service("web", &[(8080, "http")]);
    let answer = client.host.curl(&format!("http://{service}:8080/"), &[]);
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.header("l5d-proxy-error").is_some(), "{answer:?}");
}
