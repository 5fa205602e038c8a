//! What was fuzzed holds: the corpus, and every file of it with one byte changed.

#[path = "../fuzz/properties/connection.rs"]
mod connection;
#[path = "../fuzz/properties/request.rs"]
mod request;
#[path = "../fuzz/properties/response.rs"]
mod response;

use std::fs;
use std::path::Path;

#[test]
fn of_connections() {
    replay("connection", connection::connection);
}

#[test]
fn of_requests() {
    replay("request", request::request);
}

#[test]
fn of_responses() {
    replay("response", response::response);
}

fn replay(name: &str, holds: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut replayed = 0;
    for file in fs::read_dir(folder.join(name)).expect("a corpus") {
        let mut bytes = fs::read(file.expect("a file").path()).expect("a file");
        holds(&bytes);
        for index in 0..bytes.len() {
            let byte = bytes[index];
            for other in [0, b'0', b';', b'-', 0xff, byte ^ 1] {
                bytes[index] = other;
                holds(&bytes);
            }
            bytes[index] = byte;
            holds(&bytes[..index]);
        }
        replayed += 1;
    }
    assert!(replayed > 3, "{name}: {replayed} files");
}
