//! Whatever bytes are in Retry-After, grpc-retry-pushback-ms or RateLimit.
#![no_main]

#[path = "../properties/hints.rs"]
mod hints;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hints::hints(bytes));
