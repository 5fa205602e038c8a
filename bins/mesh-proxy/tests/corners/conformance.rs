//! What programs that look for faults find. `scripts/check-http2` installs and names them; without it nothing is run.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use http::Response;
use http_body_util::BodyExt;

use crate::h2;
use crate::mesh::Mesh;
use crate::wire::{App, Wire, app, mirror};

/// What passes of 108 cases. Those that fail want another error code than the h2 crate answers with, nearly all.
const KNOWN_PASSED: usize = 86;

fn program(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable);
    path.unwrap_or_else(|| panic!("{variable} is not set: run scripts/check-http2"))
        .into()
}

/// What it said, and whether it was content.
async fn run(mut command: Command) -> (String, bool) {
    command.stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        String::from_utf8_lossy(&said).into_owned(),
        output.status.success(),
    )
}

async fn httpwg(address: SocketAddr) -> String {
    let mut command = Command::new(program("HTTPWG"));
    command
        .args(["--address", &address.to_string()])
        .args(["--frame-timeout", "1000"])
        .env("SEQUENTIAL", "1");
    run(command).await.0
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/check-http2"]
#[allow(clippy::print_stdout, reason = "what it is run for")]
async fn of_http_2() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = h2::app(mesh.net.app(), |request| async move {
        let _ = request.into_body().collect().await;
        Response::new(h2::full("ok"))
    })
    .await;
    let ways = [
        ("outbound", mesh.net.web()),
        ("inbound", mesh.net.mesh_port()),
    ];
    for (what, address) in ways {
        let said = httpwg(address).await;
        let all = said.lines().filter(|line| !line.contains("DEBUG"));
        let (passed, failed): (Vec<_>, Vec<_>) = all
            .filter(|line| line.contains("Test passed") || line.contains("Test failed"))
            .partition(|line| line.contains("Test passed"));
        println!("=== {what}: {} passed", passed.len());
        println!("{}", failed.join("\n"));
        assert!(passed.len() >= KNOWN_PASSED, "{what}: fewer than before");
    }
}

const CHECKS: &str = "cl-te,te-cl,te-te,h2c,h2,cl-edge,cl-0,0-cl,parser-discrepancy";

async fn smugglex(address: SocketAddr) -> (String, bool) {
    let mut command = Command::new(program("SMUGGLEX"));
    command
        .args(["--checks", CHECKS, "--timeout", "3", "--no-color"])
        .arg(format!("http://{address}/"));
    run(command).await
}

/// A proxy that goes by Content-Length alone, before a server that prefers chunks: what a scanner has to find.
async fn gullible(address: SocketAddr, behind: SocketAddr) -> App {
    app(address, move |mut wire| async move {
        let mut upstream = Wire::connect(behind).await;
        while let Some(head) = wire.head().await {
            let length = head.header("content-length").and_then(|n| n.parse().ok());
            let mut bytes = format!("{}\r\n", head.first).into_bytes();
            for (name, value) in &head.headers {
                bytes.extend(format!("{name}: {value}\r\n").into_bytes());
            }
            bytes.extend(b"\r\n");
            bytes.extend(wire.exactly(length.unwrap_or(0)).await);
            upstream.send(bytes).await;
            let answer = upstream.response("POST").await;
            let length = answer.body.len();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
            if !wire.offer([head.as_bytes(), &answer.body].concat()).await {
                return;
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by scripts/check-http2"]
#[allow(clippy::print_stdout, reason = "what it is run for")]
async fn of_smuggling() {
    let mesh = Mesh::start();
    let _proxies = mesh.both().await;
    let _app = mirror(mesh.net.app()).await;
    let control = mesh.net.plain(1);
    let _control = gullible(control, mesh.net.app()).await;
    let (said, clean) = smugglex(control).await;
    assert!(
        !clean,
        "the scanner finds nothing where there is something: {said}"
    );
    for address in crate::ways(&mesh) {
        let (said, clean) = smugglex(address).await;
        println!("=== {address}\n{said}");
        assert!(clean, "{address} can be smuggled past");
    }
}
