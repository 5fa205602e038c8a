//! What two stock proxies say to each other inside TLS, written down: `bins/mesh-proxy/tests/stock_peer/recorded` is from here.

use std::path::Path;

use e2e::{App, Mesh, Network, PROXY_USER, Program, PythonPeer, Requirement};

use crate::is_possible;

/// Ports whose first connection is one exchange each.
const HTTP1: u16 = 8100;
const ABSOLUTE: u16 = 8110;
const HTTP2: u16 = 8120;
const UPGRADE: u16 = 8130;
const POST: u16 = 8140;
const GRPC: u16 = 50051;
/// Where connections with a transport header go, whatever their port.
const INBOUND: u16 = 4143;

/// Writes recordings into the folder that `STOCK_RECORDINGS` names.
#[test]
#[allow(
    clippy::print_stdout,
    reason = "what the lines of the recorder say is wanted too"
)]
fn of_two_stock_proxies() {
    let Some(out) = std::env::var_os("STOCK_RECORDINGS") else {
        println!("SKIPPED: STOCK_RECORDINGS names no folder to record into");
        return;
    };
    let needs = [
        Requirement::Built("e2e-recorder"),
        Requirement::Python("grpc"),
    ];
    if !is_possible(&needs) {
        return;
    }
    let network = Network::new();
    let mesh = Mesh::start(&network, "");
    let client = mesh.published(Program::Stock, "client", "client", &[]);
    let ports = [
        (HTTP1, "http"),
        (ABSOLUTE, "http"),
        (HTTP2, "http"),
        (UPGRADE, "http"),
        (POST, "http"),
        (HTTP1 + 1, "opaque"),
        (GRPC, "grpc"),
    ];
    let server = mesh.published(Program::Stock, "web-1", "web", &ports);
    let _apps =
        [HTTP1, ABSOLUTE, HTTP2, UPGRADE, POST].map(|port| App::start(&server.host, "one", port));
    let text = GRPC.to_string();
    let _grpc = PythonPeer::start(&server.host, "grpc_server.py", &[&text], Some(GRPC));
    let service = mesh.service("web", &ports);

    // What the client's proxy sends to the server goes to the recorder.
    let middle = network.host("middle");
    let rules = format!(
        "table ip recorder {{\n chain output {{\n  type nat hook output priority -110;\n  \
         meta skuid {PROXY_USER} ip daddr {} dnat to {}\n }}\n}}\n",
        server.host.address(),
        middle.address()
    );
    client.host.run("nft", &[&rules]);
    std::fs::create_dir_all(&out).expect("a folder");
    let numbers: Vec<String> = ports.iter().map(|(port, _)| port.to_string()).collect();
    let mut recorder = middle
        .spawn(e2e::built("e2e-recorder"))
        .args(["--ports", &format!("{INBOUND},{}", numbers.join(","))])
        .args(["--upstream", &server.host.address().to_string()])
        .arg("--client")
        .arg(client.folder())
        .arg("--server")
        .arg(server.folder())
        .arg("--out")
        .arg(Path::new(&out))
        .user(0)
        .start();
    recorder.wait_line("ready");

    let curl = |port: u16, path: &str, options: &[&str]| {
        let url = format!("http://{service}:{port}{path}");
        let answer = client.host.curl(&url, options);
        assert!(matches!(answer.status, 101 | 200), "{answer:?}");
    };
    curl(HTTP1, "/a?b=c", &["-H", "host: web.example:8080"]);
    let proxy = format!("http://{service}:{ABSOLUTE}");
    let absolute = ["--proxy", &proxy, "--noproxy", ""];
    let answer = client.host.curl("http://somewhere.example/a", &absolute);
    assert_eq!(answer.status, 200, "{answer:?}");
    let chunked = ["-d", "hello", "-H", "transfer-encoding: chunked"];
    curl(POST, "/echo", &chunked);
    let trailers = [
        "--http2-prior-knowledge",
        "-d",
        "hello",
        "-H",
        "te: trailers",
    ];
    curl(HTTP2, "/echo", &trailers);
    let upgrade = [
        "-H",
        "connection: upgrade",
        "-H",
        "upgrade: echo",
        "-m",
        "1",
    ];
    curl(UPGRADE, "/up", &upgrade);
    let target = format!("{service}:{GRPC}");
    let mut unary = PythonPeer::start(&client.host, "grpc_unary.py", &[&target, "hello"], None);
    assert_eq!(unary.process.success(), "hello\n");
    let mut opaque = client.host.start(
        "bash",
        &[
            "-c",
            "exec 3<>/dev/tcp/$0/$1; printf 'hello' >&3; head -c 5 <&3",
            &service.to_string(),
            &(HTTP1 + 1).to_string(),
        ],
    );
    assert_eq!(opaque.success(), "hello\n");
    std::thread::sleep(std::time::Duration::from_millis(500));
    println!("{}", recorder.tail());
}
