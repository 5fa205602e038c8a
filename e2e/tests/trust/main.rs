//! What a mesh promises of its roots of trust, with real processes: hosts are network namespaces, clients never retry. Each
//! module is named after its promise.

mod fleet;
mod roots_are_replaced_without_an_error;
