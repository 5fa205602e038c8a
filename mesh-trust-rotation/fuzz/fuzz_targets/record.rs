//! Whatever bytes a store holds: they are read or refused, and what is read can be asked and ticked.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_trust_rotation::crypto::Sha256;
use mesh_trust_rotation::{Event, Record, UnixTime};

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut record) = Record::from_bytes(bytes) else {
        return;
    };
    let again = record.to_bytes().map(|bytes| Record::from_bytes(&bytes));
    assert_eq!(again, Ok(Ok(record.clone())));
    let (epoch, now) = (record.rotation().epoch(), UnixTime(1_800_000_000));
    let _ = record.rotation().gate(now);
    let _ = record.rotation().plan(now);
    for event in [Event::Tick, Event::Abort, Event::Restored, Event::Tick] {
        let _ = record.apply(epoch, now, "fuzz", event, &Sha256);
    }
});
