//! Whatever bytes a controller sends, a message that decodes is converted or refused, never a panic, and a field that
//! names its own path is what a refusal holds.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[allow(dead_code)]
mod samples;

use linkerd2_proxy_api::{destination, inbound, outbound};
use mesh_policy::{Error, proxy_api};
use proptest::prelude::*;
use prost::Message;

/// Changes a valid message's bytes: overwrites, cuts, and repeats of parts.
#[derive(Clone, Debug)]
enum Edit {
    Overwrite(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    Insert(prop::sample::Index, u8),
    Truncate(prop::sample::Index),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let at = any::<prop::sample::Index>;
    let edit = prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, byte)| Edit::Overwrite(at, byte)),
        2 => at().prop_map(Edit::Remove),
        2 => (at(), any::<u8>()).prop_map(|(at, byte)| Edit::Insert(at, byte)),
        1 => at().prop_map(Edit::Truncate),
    ];
    prop::collection::vec(edit, 0..6)
}

fn edited(mut bytes: Vec<u8>, edits: &[Edit]) -> Vec<u8> {
    for edit in edits {
        if bytes.is_empty() {
            break;
        }
        match edit {
            Edit::Overwrite(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Edit::Remove(at) => {
                bytes.remove(at.index(bytes.len()));
            }
            Edit::Insert(at, byte) => bytes.insert(at.index(bytes.len()), *byte),
            Edit::Truncate(at) => bytes.truncate(at.index(bytes.len())),
        }
    }
    bytes
}

fn judge(bytes: &[u8]) -> Vec<Error> {
    let mut errors = Vec::new();
    if let Ok(message) = outbound::OutboundPolicy::decode(bytes) {
        errors.extend(proxy_api::outbound_policy(&message).err());
    }
    if let Ok(message) = inbound::Server::decode(bytes) {
        errors.extend(proxy_api::server_policy(&message).err());
    }
    if let Ok(message) = destination::Update::decode(bytes) {
        errors.extend(proxy_api::endpoint_update(&message).err());
    }
    if let Ok(message) = destination::DestinationProfile::decode(bytes) {
        errors.extend(proxy_api::profile(&message).err());
    }
    errors
}

fn all_samples() -> Vec<Vec<u8>> {
    vec![
        samples::outbound_detect().encode_to_vec(),
        samples::outbound_grpc().encode_to_vec(),
        samples::outbound_tls().encode_to_vec(),
        samples::server().encode_to_vec(),
        samples::endpoints().encode_to_vec(),
        samples::profile().encode_to_vec(),
        samples::outbound_http_filtered().encode_to_vec(),
        samples::outbound_grpc_filtered().encode_to_vec(),
        samples::server_filtered().encode_to_vec(),
        samples::server_grpc().encode_to_vec(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn edited_messages(sample in 0..10_usize, edits in edits()) {
        // One number for each sample.
        prop_assert_eq!(all_samples().len(), 10);
        let bytes = edited(all_samples().swap_remove(sample), &edits);
        for error in judge(&bytes) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        judge(&bytes);
    }

    #[test]
    fn arbitrary_durations(seconds in prop_oneof![any::<i64>(), -10..400_000_000_000_i64], nanos: i32) {
        let mut message = samples::outbound_detect();
        let detect = message.protocol.as_mut().and_then(|protocol| protocol.kind.as_mut());
        if let Some(outbound::proxy_protocol::Kind::Detect(detect)) = detect {
            detect.timeout = Some(prost_types::Duration { seconds, nanos });
        }
        match proxy_api::outbound_policy(&message) {
            Ok(_) => {
                prop_assert!(seconds >= 0 || nanos > 0);
                prop_assert!(seconds <= 315_576_000_000);
            }
            Err(Error::Invalid { field, .. }) => {
                prop_assert_eq!(field, "outbound.ProxyProtocol.Detect.timeout");
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    #[test]
    fn arbitrary_ports(port: u32) {
        let mut addr = samples::weighted_addr();
        addr.addr.as_mut().unwrap().port = port;
        let profile = destination::DestinationProfile { endpoint: Some(addr), ..Default::default() };
        let valid = (1..=65535).contains(&port);
        prop_assert_eq!(proxy_api::profile(&profile).is_ok(), valid);
    }
}
