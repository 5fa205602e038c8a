//! The `mesh-controller` program.

fn main() {}
