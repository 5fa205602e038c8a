//! A client and a server, each with a proxy before it, under one controller.

use std::cell::RefCell;
use std::net::Ipv4Addr;

use e2e::{App, Capture, Host, Mesh, Network, Program, PythonPeer, Workload};

/// What no packet between the two may carry.
pub(crate) const MARKER: &str = "a-secret-marker";
/// HTTP of either version, and upgrades.
pub(crate) const HTTP: u16 = 8080;
/// Bytes: an echo, and a server that speaks first.
pub(crate) const ECHO: u16 = 8081;
pub(crate) const GREET: u16 = 8082;
pub(crate) const WEBSOCKET: u16 = 8090;
pub(crate) const GRPC: u16 = 50051;
/// What the server calls itself.
pub(crate) const SERVER: &str = "a-secret-name";

pub(crate) struct Pair {
    capture: RefCell<Option<Capture>>,
    _servers: (App, PythonPeer, PythonPeer),
    _outside_app: App,
    pub(crate) service: Ipv4Addr,
    /// Of no mesh, with an application on [`HTTP`].
    pub(crate) outside: Host,
    pub(crate) outbound: Program,
    pub(crate) inbound: Program,
    pub(crate) client: Workload,
    pub(crate) server: Workload,
}

impl Pair {
    pub(crate) fn start(
        network: &Network,
        mesh: &Mesh<'_>,
        outbound: Program,
        inbound: Program,
    ) -> Self {
        let client = mesh.published(outbound, "client", "client", &[]);
        let ports = [
            (HTTP, "http"),
            (ECHO, "opaque"),
            (GREET, "opaque"),
            (WEBSOCKET, "http"),
            (GRPC, "grpc"),
        ];
        let server = mesh.published(inbound, "web-1", "web", &ports);
        let app = App::start(&server.host, SERVER, HTTP);
        let text = GRPC.to_string();
        let grpc = PythonPeer::start(&server.host, "grpc_server.py", &[&text], Some(GRPC));
        let text = WEBSOCKET.to_string();
        let script = "websocket_server.py";
        let websocket = PythonPeer::start(&server.host, script, &[&text], Some(WEBSOCKET));
        let outside = network.host("outside");
        let outside_app = App::start(&outside, "outside", HTTP);
        let service = mesh.service("web", &ports);
        Self {
            capture: RefCell::new(Some(Capture::start(&server.host))),
            _servers: (app, grpc, websocket),
            _outside_app: outside_app,
            service,
            outside,
            outbound,
            inbound,
            client,
            server,
        }
    }

    /// The URL of `path` at the service.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}:{HTTP}{path}", self.service)
    }

    /// Ends the capture between the two.
    pub(crate) fn assert_nothing_in_the_clear(&self) {
        let capture = self.capture.borrow_mut().take();
        let packets = capture.unwrap_or_else(|| panic!("no capture runs")).stop();
        packets.assert_without(&[MARKER, SERVER], 1_000);
    }
}
