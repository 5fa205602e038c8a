//! Whatever status and fields a response has.
#![no_main]

#[path = "../properties/classify.rs"]
mod classify;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| classify::classify(bytes));
