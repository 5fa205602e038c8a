//! Real processes in network namespaces: the harness behind the tests of what the mesh promises.
//!
//! Every [`Network`] is a handful of hosts that see each other and nothing else, so tests run side by side and no
//! packet leaves the machine. Programs run as users of their own, so that a [`Redirect`] can tell an application
//! from its proxy. A [`Load`] never retries: what it could not do is in its [`Report`]. A [`Capture`] shows what was
//! on the wire. Everything ends when it is dropped, and a test that needs what the machine lacks says so.
//!
//! ```
//! use e2e::{App, Carriage, Load, Network, Requirement, require};
//! use std::time::Duration;
//!
//! if !require(&[Requirement::Built("e2e-app"), Requirement::Built("e2e-load")]) {
//!     return;
//! }
//! let network = Network::new();
//! let (client, server) = (network.host("client"), network.host("server"));
//! let _app = App::start(&server, "one", 8080);
//! let url = format!("http://{}:8080/", server.address());
//! let mut load = Load::start(&client, Carriage::Http1, &url, 2, Duration::from_millis(1));
//! load.wait_ok(20);
//! load.stop().assert_no_failure(20);
//! ```
//!
//! - [`require`]: what a test needs of the machine
//! - [`Network`], [`Host`]: namespaces; [`Process`], [`Spawn`]: programs in them; [`Answer`]: one request by curl
//! - [`Redirect`]: interception; [`Capture`], [`Packets`]: what crossed a link
//! - [`Clock`]: a program's own clock, set while it runs
//! - [`Load`], [`Report`]: load, and what came of it
//! - [`App`], [`Nginx`], [`Redis`], [`PythonPeer`]: servers
//! - [`Mesh`], [`Workload`], [`Program`]: a controller, and hosts with proxies; [`linkerd2_proxy`]: a stock one
//!
//! It panics where a library would return an error: the message of a failed test is where its errors go.

mod admin;
mod capture;
mod clock;
mod load;
mod mesh;
mod network;
mod peers;
mod process;
mod programs;
mod redirect;
mod report;
mod request;
mod requirement;
mod stock;

pub use capture::{Capture, Packets};
pub use clock::Clock;
pub use load::{Carriage, Load};
pub use mesh::{ETCD, MESH, Mesh, Program, Workload, identity};
pub use network::{Host, Network};
pub use peers::{App, Nginx, PythonPeer, Redis};
pub use process::{APP_USER, PATIENCE, PROXY_USER, Process, Spawn};
pub use programs::built;
pub use redirect::Redirect;
pub use report::{Report, SAMPLES};
pub use request::Answer;
pub use requirement::{NAMESPACES, Requirement, python, require};
pub use stock::linkerd2_proxy;
