//! The mesh-rs control plane: destinations, policies and identities over the Linkerd proxy API.
