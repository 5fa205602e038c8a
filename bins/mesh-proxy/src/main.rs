//! The `mesh-proxy` program.

fn main() {}
