//! Turns `proto/` into `src/generated/`, or into the folder named as the first argument.
//!
//! `scripts/check-protos` runs it and compares; it needs `protoc` (Debian: `protobuf-compiler`).

use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = std::env::args_os()
        .nth(1)
        .map_or_else(|| package.join("src/generated"), PathBuf::from);
    let proto = package.join("proto");
    tonic_prost_build::configure()
        .build_transport(false)
        .out_dir(out)
        .compile_protos(&[proto.join("mesh/admin/v1/admin.proto")], &[proto])?;
    Ok(())
}
