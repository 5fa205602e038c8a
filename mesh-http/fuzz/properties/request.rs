// What must hold of whatever a request says of its host, its version and its hops: a byte of choices, then values, each ended by
// a zero, of `FIELDS` in turn.

use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version};
use mesh_http::headers::{
    OrigProto, authority, names_its_host, remove_hop_by_hop, to_absolute, to_origin,
};

pub(crate) fn request(bytes: &[u8]) {
    let [choices, rest @ ..] = bytes else {
        return;
    };
    let mut parts = rest.split(|byte| *byte == 0);
    let target = parts.next().unwrap_or_default();
    let mut fields = HeaderMap::new();
    for (name, value) in FIELDS.into_iter().cycle().zip(parts).take(32) {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            fields.append(name, value);
        }
    }
    let version = [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2][usize::from(choices % 3)];

    if let Ok(mut uri) = Uri::try_from(target) {
        let named = authority(&uri, &fields);
        if names_its_host(version, &uri, &fields) {
            let hosts = fields.get_all("host").iter().count();
            assert!(hosts <= 1, "one host");
            assert!(
                !named
                    .as_ref()
                    .is_some_and(|named| named.as_str().contains('@'))
            );
        }
        if let Some(named) = named {
            to_absolute(&mut uri, named.clone());
            assert_eq!(uri.authority(), Some(&named));
            to_origin(&mut uri);
            assert!(uri.authority().is_none() && uri.scheme().is_none());
        }
    }

    let mut once = fields.clone();
    if let Some(orig) = OrigProto::take(&mut once) {
        let mut written = HeaderMap::new();
        written.insert("l5d-orig-proto", orig.value());
        assert_eq!(OrigProto::take(&mut written), Some(orig));
    }
    assert_eq!(OrigProto::take(&mut once), None);

    let named: Vec<HeaderName> = fields
        .get_all("connection")
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        // What frames a message or says where it goes is of no connection.
        .filter(|name| name != "te" && name != "host" && name != "content-length")
        .filter(|name| !name.as_str().starts_with("l5d-"))
        .collect();
    remove_hop_by_hop(&mut fields);
    assert!(!fields.contains_key("connection") && !fields.contains_key("upgrade"));
    let mut te = fields.get_all("te").iter();
    assert!(te.all(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers")));
    for name in named {
        assert!(
            !fields.contains_key(&name),
            "{name} was of that connection only"
        );
    }
}

const FIELDS: [&str; 6] = [
    "host",
    "l5d-orig-proto",
    "connection",
    "x-hop",
    "te",
    "upgrade",
];
