//! The mesh command: run a whole mesh from a folder of manifests, and look into it.
