//! The quickstart's services answer one another through whatever addresses their environment names.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct Service {
    child: Child,
    address: SocketAddr,
}

impl Service {
    fn start(kind: &str, env: &[(&str, String)]) -> Self {
        // Freed again before the service takes it; nothing else takes ports of this address.
        let free = TcpListener::bind((Ipv4Addr::new(127, 77, 9, 1), 0)).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let child = Command::new(env!("CARGO_BIN_EXE_mesh"))
            .args(["demo", kind])
            .env("HOST", address.ip().to_string())
            .env("PORT", address.port().to_string())
            .env("MESH_WORKLOAD", format!("{kind}-1"))
            .env("MESH_ZONE", "eu-1a")
            .envs(env.iter().cloned())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "{kind} does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { child, address }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn web_greets_with_the_help_of_the_other_two() {
    let greeter = Service::start("greeter", &[]);
    let echo = Service::start("echo", &[]);
    let web = Service::start(
        "web",
        &[
            ("MESH_GREETER_ADDR", greeter.address.to_string()),
            ("MESH_ECHO_ADDR", echo.address.to_string()),
        ],
    );

    assert!(get(web.address, "/healthz").starts_with("HTTP/1.1 200"));
    let answer = get(web.address, "/hello");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("web       web-1 in eu-1a"), "{answer}");
    assert!(
        answer.contains("greeter   hello, web-1, from greeter-1 in eu-1a"),
        "{answer}"
    );
    assert!(answer.contains("echo      web-1"), "{answer}");

    drop(greeter);
    let answer = get(web.address, "/hello");
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert!(answer.contains("greeter: Unavailable"), "{answer}");
}
