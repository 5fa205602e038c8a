//! The gRPC messages and services between the mesh-rs programs.
