//! The mesh-rs data plane: a sidecar proxy that carries a workload's traffic over mTLS.
