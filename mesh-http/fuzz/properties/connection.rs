// What must hold of whatever bytes a connection begins with.

use futures_util::FutureExt;
use mesh_http::detect::classify;
use mesh_http::transport_header::TransportHeader;

pub(crate) fn connection(bytes: &[u8]) {
    // What was decided from fewer bytes stays so.
    let mut decided = None;
    for length in 0..=bytes.len().min(64) {
        let protocol = classify(&bytes[..length]);
        assert!(decided.is_none() || protocol == decided, "{length}");
        decided = protocol;
    }

    let mut rest = bytes;
    let header = TransportHeader::read(&mut rest)
        .now_or_never()
        .expect("a slice is always ready");
    let Ok(header) = header else {
        return;
    };
    assert_ne!(header.port, 0);
    let written = header.encode();
    // With as many bytes after it as it has itself: none of them is read.
    let mut twice = [&written[..], &written[..]].concat();
    let mut reader = &twice[..];
    for left in [written.len(), 0] {
        let again = TransportHeader::read(&mut reader)
            .now_or_never()
            .expect("a slice is always ready");
        assert_eq!(again.ok().as_ref(), Some(&header));
        assert_eq!(reader.len(), left);
    }
    twice.truncate(written.len() - 1);
    let cut = TransportHeader::read(&mut &twice[..]).now_or_never();
    assert!(cut.is_some_and(|cut| cut.is_err()));
}
