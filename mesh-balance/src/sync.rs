//! The atomics: the standard library's, or those that the model checker follows (`--cfg mesh_loom`).

#[cfg(mesh_loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
#[cfg(not(mesh_loom))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
