//! A stock proxy at the other end of a mesh connection, simulated: it says what one was recorded saying, and takes what one
//! takes. `scripts/test-stock-proxy` shows the same with the real one, where there is one.
#![allow(
    clippy::unwrap_used,
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "a test that cannot go on fails; what is shared with other tests is not all used here"
)]
#![cfg(unix)]

#[path = "../controller/mod.rs"]
mod controller;
#[path = "../traffic/h2.rs"]
mod h2;
#[path = "../traffic/mesh.rs"]
mod mesh;
#[path = "../traffic/policy.rs"]
mod policy;
#[path = "../traffic/wire.rs"]
mod wire;

mod its_outbound_calls_our_inbound;
mod our_outbound_calls_its_inbound;
mod recorded;
