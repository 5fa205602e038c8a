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
    let mut config = tonic_prost_build::Config::new();
    // The SPIFFE Workload API has no package.
    config.default_package_filename("spiffe");
    tonic_prost_build::configure()
        .build_transport(false)
        .out_dir(out)
        // Private keys are in them.
        .skip_debug([
            "X509SVID",
            "mesh.admin.v1.ExportRootResponse",
            "mesh.admin.v1.ImportTrustRequest",
        ])
        .compile_with_config(
            config,
            &[
                proto.join("mesh/admin/v1/admin.proto"),
                proto.join("mesh/trust/v1/trust.proto"),
                proto.join("spiffe/workload.proto"),
            ],
            &[proto],
        )?;
    Ok(())
}
