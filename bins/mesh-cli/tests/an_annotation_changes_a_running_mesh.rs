//! What the annotations of a Service ask for is in force as soon as they are written, and what is wrong changes nothing.

#![allow(clippy::unwrap_used)]

mod running;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use running::{Up, manifests, mesh, said, turn};

const PATIENCE: Duration = Duration::from_secs(20);
const OK: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
const FULL: &str = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 60\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// An endpoint that takes so long for an answer, and counts what it is asked.
fn endpoint(at: &str, answer: &'static str, takes: Duration) -> Arc<AtomicUsize> {
    let listener = TcpListener::bind(at).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                head.push(byte[0]);
            }
            if head.ends_with(b"\r\n\r\n") {
                counted.fetch_add(1, SeqCst);
                std::thread::sleep(takes);
                let _ = stream.write_all(answer.as_bytes());
            }
        }
    });
    asked
}

/// The Service `limited` of two endpoints in plaintext, with this annotation.
fn limited(folder: &Path, annotation: &str) {
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: limited\n  annotations:\n    {annotation}\nspec:\n  \
         selector: {{app: limited}}\n  ports: [{{port: 80, targetPort: 8080, appProtocol: http}}]\n"
    );
    for number in [1, 2] {
        text += &format!(
            "---\napiVersion: mesh-rs.io/v1alpha1\nkind: Workload\nmetadata: {{name: limited-{number}, labels: {{app: limited}}}}\n\
             spec:\n  addresses: [127.77.34.10{number}]\n  ports: [{{port: 8080}}]\n"
        );
    }
    // As an editor writes: at once.
    let scratch = folder.join(".limited");
    std::fs::write(&scratch, text).unwrap();
    std::fs::rename(scratch, folder.join("limited.yaml")).unwrap();
}

fn proxy(up: &Up) -> SocketAddr {
    let line = up
        .seen
        .iter()
        .find_map(|line| line.split("curl http://").nth(1));
    let address: SocketAddr = line.unwrap().split('/').next().unwrap().parse().unwrap();
    (address.ip(), 15_000).into()
}

fn ask(proxy: SocketAddr) -> u16 {
    let mut stream = TcpStream::connect(proxy).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let host = "limited.default.svc.cluster.local";
    write!(
        stream,
        "GET http://{host}/ HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

fn refused(proxy: SocketAddr) -> usize {
    (0..40).filter(|_| ask(proxy) == 429).count()
}

fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn and_a_wrong_one_does_not() {
    let Some(_turn) = turn() else { return };
    let folder = manifests(34);
    let full = endpoint("127.77.34.101:8080", FULL, Duration::ZERO);
    // Longer than a refusal, which makes it the worse of the two.
    let _free = endpoint("127.77.34.102:8080", OK, Duration::from_millis(30));
    limited(folder.path(), "example.com/note: nothing is asked");
    let data = tempfile::tempdir().unwrap();
    let data = data.path().to_str().unwrap();
    let mut up = Up::start(&["up", folder.path().to_str().unwrap(), "--data", data]);
    up.expect("curl http://");
    let proxy = proxy(&up);
    assert!(matches!(proxy.ip(), IpAddr::V4(_)));
    until("the service is known", || matches!(ask(proxy), 200 | 429));
    until("nobody minds that a fast answer is a refusal", || {
        refused(proxy) > 2
    });

    let penalize = "balancer.alpha.linkerd.io/penalize-failures";
    limited(folder.path(), &format!("{penalize}: \"true\""));
    until("the endpoint that refuses is spared", || {
        refused(proxy) == 0
    });
    let before = full.load(SeqCst);
    let check = mesh(&["check", "--data", data]).output().unwrap();
    let told = said(&check);
    assert!(
        told.contains("leaves 1 of 2 endpoints of limited.default.svc.cluster.local:80 alone"),
        "{told}"
    );

    limited(folder.path(), &format!("{penalize}: \"yes\""));
    let wrong = format!(
        "limited.yaml:6:5: metadata.annotations[{penalize}]: \"yes\": must be \"true\" or \"false\""
    );
    let wrong = wrong.replace(":6:5", ":6");
    until("the mistake is named", || {
        let check = mesh(&["check", "--data", data]).output().unwrap();
        !check.status.success() && said(&check).contains(&wrong)
    });
    assert_eq!(refused(proxy), 0, "the last good one stays in force");
    assert_eq!(full.load(SeqCst), before);
}
