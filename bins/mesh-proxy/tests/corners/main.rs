//! The corners of HTTP and TCP, each shown by two proxy processes between clients and applications of the test, or real ones.
//!
//! The modules are named after what they show. `programs` starts nginx, HAProxy, curl and the like; a test that needs one
//! that is missing says SKIPPED, or fails where `MESH_TEST_REQUIRE=1`.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test that cannot go on fails"
)]
#![cfg(unix)]

#[path = "../controller/mod.rs"]
mod controller;
#[path = "../traffic/h2.rs"]
#[allow(dead_code, reason = "shared with the tests of traffic")]
mod h2;
#[path = "../traffic/mesh.rs"]
#[allow(dead_code, reason = "shared with the tests of traffic")]
mod mesh;
#[path = "../traffic/policy.rs"]
#[allow(dead_code, reason = "shared with the tests of traffic")]
mod policy;
#[path = "../traffic/wire.rs"]
#[allow(dead_code, reason = "shared with the tests of traffic")]
mod wire;

mod calls_end_when_their_clients_do;
mod conformance;
mod expectations_are_for_the_server_to_meet;
mod framing_is_never_ambiguous;
mod half_closed_is_not_closed;
mod heads_fit_or_are_refused;
mod idle_clients_are_ended;
mod ipv6_is_carried;
mod namespace;
mod nobody_buffers_without_bound;
mod programs;
mod real_programs_agree;
mod redirects_are_followed;
mod strangers_get_less;
mod targets_mean_one_thing;
mod tls_passes_through;
mod trailers_arrive;
mod websockets_cross_http_2;
mod what_breaks_is_told;
mod who_leaves_is_let_go;
mod who_vanishes_is_noticed;

/// The addresses by which an HTTP client reaches the application: over the mesh, from outside of it, and past its proxy.
fn ways(mesh: &mesh::Mesh) -> [std::net::SocketAddr; 3] {
    let other = controller::messages::balanced("other", "other.test:80");
    mesh.says.policy("other.test:80", other);
    mesh.says
        .endpoints("other.test:80", vec![policy::plain(mesh.net.app())]);
    [mesh.net.web(), mesh.net.mesh_port(), mesh.net.other()]
}
