//! The program itself: its admin server, its readiness, its end.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(unix)]

mod controller;
mod process;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use controller::{Controller, DEADLINE};
use process::{NAME, Proxy, authority, exchange, issue};

#[tokio::test(flavor = "multi_thread")]
async fn it_is_live_then_ready_and_ends_with_a_drain() {
    let authority = authority();
    let mut controller = Controller::start();
    let mut proxy = Proxy::start(controller.address, &authority.anchor_pem(), &[]);

    let call = controller.certify.next().await;
    assert_eq!(call.request.identity, NAME);
    assert_eq!(call.request.token, b"the-secret-token");
    proxy.until("/live", |status, _| status == 200).await;
    proxy
        .until("/ready", |status, body| {
            status == 503 && body.contains("not certified")
        })
        .await;

    let certificate = issue(&authority, &call.request);
    call.reply(certificate);
    proxy
        .until("/ready", |status, body| status == 200 && body == "ready\n")
        .await;

    let (status, metrics) = proxy.get("/metrics").unwrap();
    let metrics = metrics.replace("{}", "");
    assert_eq!(status, 200);
    assert!(
        metrics.contains("control_identity_cert_refreshes_total 1"),
        "{metrics}"
    );
    let (_, config) = proxy.get("/config").unwrap();
    let json: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(json["identity"]["name"], NAME);
    assert_eq!(json["limits"]["workers"], 2);
    assert_eq!(json["unsupported"], serde_json::json!([]));
    assert!(!config.contains("the-secret-token"));

    proxy.signal("-TERM");
    assert_eq!(proxy.wait().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_certificate_shows_in_readiness() {
    let mut controller = Controller::start();
    let proxy = Proxy::start(controller.address, &authority().anchor_pem(), &[]);
    controller
        .certify
        .next()
        .await
        .refuse(tonic::Code::PermissionDenied);
    proxy
        .until("/ready", |status, body| {
            status == 503 && body.contains("as the test wants it")
        })
        .await;
    assert_eq!(proxy.get("/live").unwrap().0, 200);
    let failures = "control_identity_cert_refresh_failures_total 1";
    assert!(
        proxy
            .get("/metrics")
            .unwrap()
            .1
            .replace("{}", "")
            .contains(failures)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_server_is_bounded_and_strict() {
    let controller = Controller::start();
    let proxy = Proxy::start(
        controller.address,
        &authority().anchor_pem(),
        &["--admin-max-connections", "1"],
    );
    proxy.until("/live", |status, _| status == 200).await;
    assert_eq!(proxy.get("/nothing").unwrap().0, 404);
    let post =
        "POST /live HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(exchange(proxy.admin, post).unwrap().0, 405);
    let huge = format!(
        "GET /live HTTP/1.1\r\nhost: admin\r\nx: {}\r\n\r\n",
        "a".repeat(64 * 1024)
    );
    assert!(exchange(proxy.admin, &huge).is_none_or(|(status, _)| status == 431));

    // The one place is taken: the next client waits until it is given back.
    let mut first = TcpStream::connect(proxy.admin).unwrap();
    first
        .write_all(b"GET /live HTTP/1.1\r\nhost: admin\r\n\r\n")
        .unwrap();
    let mut line = String::new();
    BufReader::new(&first).read_line(&mut line).unwrap();
    assert!(line.contains("200"), "{line}");
    let mut second = TcpStream::connect(proxy.admin).unwrap();
    second
        .write_all(b"GET /live HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n")
        .unwrap();
    second
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    assert!(second.read(&mut [0; 1]).is_err(), "nothing to read yet");
    drop(first);
    second.set_read_timeout(Some(DEADLINE)).unwrap();
    assert_eq!(second.read(&mut [0; 1]).unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_why_it_cannot_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (anchors, more, said) in [
        (
            authority().anchor_pem(),
            ["--admin-listen", &address],
            vec!["admin.listen", address.as_str()],
        ),
        (
            String::new(),
            ["--admin-log", "info"],
            vec!["anchors.pem", "trust anchors"],
        ),
        (
            authority().anchor_pem(),
            ["--admin-log", "a=b=c"],
            vec!["admin.log", "a=b=c"],
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("anchors.pem");
        std::fs::write(&file, &anchors).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_mesh-proxy"))
            .env_clear()
            .args(["--identity-name", NAME, "--identity-token-file", "token"])
            .args(["--control-address", "127.0.0.1:1"])
            .arg("--identity-trust-anchors-file")
            .arg(&file)
            .args(more)
            .output()
            .unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{message}");
        for part in said {
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_ended_over_the_admin_server_where_that_is_permitted() {
    let post =
        "POST /shutdown HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let controller = Controller::start();
    let anchors = authority().anchor_pem();
    let kept = Proxy::start(controller.address, &anchors, &[]);
    kept.until("/live", |status, _| status == 200).await;
    assert_eq!(exchange(kept.admin, post).unwrap().0, 405);

    let mut ended = Proxy::start(controller.address, &anchors, &["--admin-shutdown", "true"]);
    ended.until("/live", |status, _| status == 200).await;
    assert_eq!(ended.get("/shutdown").unwrap().0, 405, "not by looking");
    assert_eq!(exchange(ended.admin, post).unwrap().0, 200);
    assert_eq!(ended.wait().code(), Some(0));
}
