//! Small programs that use the mesh-rs crates; each is run by `cargo run -p examples --example NAME`.
