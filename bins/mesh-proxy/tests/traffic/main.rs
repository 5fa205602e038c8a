//! What the data path promises, shown by two proxy processes between clients and applications of the test.
//!
//! `mesh` runs the proxies and the controller they follow, `policy` is what it says, `wire` the clients and applications.
//! The other modules are named after what they show.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test that cannot go on fails"
)]
#![cfg(unix)]

#[path = "../controller/mod.rs"]
mod controller;
mod mesh;
mod policy;
mod wire;

mod http1_arrives_as_sent;
