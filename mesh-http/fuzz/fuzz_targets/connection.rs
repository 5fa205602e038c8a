//! Whatever the first bytes of a connection are.
#![no_main]

#[path = "../properties/connection.rs"]
mod connection;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| connection::connection(bytes));
