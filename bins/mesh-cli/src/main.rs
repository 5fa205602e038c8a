//! The `mesh-cli` program.

fn main() {}
