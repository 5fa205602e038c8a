//! A command that calls another service before it listens comes up: its proxy is there when it tries again.

#![allow(clippy::unwrap_used)]

mod running;

use running::{Up, manifests, turn};

const LATE: &str = r#"
apiVersion: mesh-rs.io/v1alpha1
kind: Workload
metadata: {name: late-1, labels: {app: late}}
spec:
  addresses: [127.77.31.9]
  ports: [{name: http, port: 8080, meshPort: 14143, protocol: http}]
  run:
    command:
    - python3
    - -c
    - |
      import http.server, os, socket
      host, port = os.environ["MESH_ECHO_ADDR"].split(":")
      socket.create_connection((host, int(port)), 5).close()
      http.server.HTTPServer((os.environ["HOST"], int(os.environ["PORT"])), http.server.BaseHTTPRequestHandler).serve_forever()
"#;

#[test]
fn and_comes_up() {
    let Some(_turn) = turn() else { return };
    let folder = manifests(31);
    std::fs::write(folder.path().join("late.yaml"), LATE).unwrap();
    let mut up = Up::start(&["up", folder.path().to_str().unwrap()]);
    up.expect("late-1 exited with 1");
    up.expect("late-1 is ready");
}
