//! What was fuzzed holds: the corpus, and every file of it with one byte changed.

#[path = "../fuzz/properties/classify.rs"]
mod classify;
#[path = "../fuzz/properties/hints.rs"]
mod hints;

use std::fs;
use std::path::Path;

#[test]
fn of_hints() {
    replay("hints", hints::hints);
}

#[test]
fn of_classified_responses() {
    replay("classify", classify::classify);
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
