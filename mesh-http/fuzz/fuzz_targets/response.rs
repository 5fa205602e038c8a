//! Whatever a server answers in HTTP/1.
#![no_main]

#[path = "../properties/response.rs"]
mod response;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| response::response(bytes));
