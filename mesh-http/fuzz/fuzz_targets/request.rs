//! Whatever fields a request has.
#![no_main]

#[path = "../properties/request.rs"]
mod request;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| request::request(bytes));
