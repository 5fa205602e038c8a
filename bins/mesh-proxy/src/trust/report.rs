//! What this process says of itself, on the trust stream and with each Certify call.

use std::sync::Arc;
use std::time::SystemTime;

use mesh_control_api::{metadata, trust as api};
use mesh_tls::{BundleDigest, Credentials, TrustBundle};
use tokio::sync::watch;
use tonic::metadata::{MetadataMap, MetadataValue};

use super::connections::Summary;

/// The most entries for connections.
const MAX_ANCHORS: usize = 64;
/// As much as is said for people.
const MAX_TEXT_BYTES: usize = 512;

/// What tells this process from others of its identity. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Process(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: [u8; 16],
    incarnation: u64,
    workload: String,
}

/// The bundle that all of the process uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Its generation; 0 for what the process was started with.
    pub generation: u64,
    /// The digest of its anchors.
    pub digest: BundleDigest,
}

/// How the process stands, for whoever calls Certify. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Standing {
    process: Process,
    loaded: watch::Receiver<Loaded>,
    /// Whether the stream has said anything yet, or will not.
    heard: watch::Receiver<bool>,
}

impl Process {
    /// A process that started `now` with these random words, of the workload that `control.workload` names.
    #[must_use]
    pub fn new(random: u128, workload: &str, now: SystemTime) -> Self {
        let since = now.duration_since(SystemTime::UNIX_EPOCH);
        Self(Arc::new(Inner {
            id: random.to_be_bytes(),
            incarnation: since.map_or(1, |since| {
                u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
            }),
            workload: cut(workload).to_owned(),
        }))
    }
}

impl Loaded {
    pub(super) fn of(bundle: &TrustBundle) -> Self {
        Self {
            generation: bundle.generation(),
            digest: bundle.digest(),
        }
    }
}

impl Standing {
    pub(super) fn new(
        process: Process,
        loaded: watch::Receiver<Loaded>,
        heard: watch::Receiver<bool>,
    ) -> Self {
        Self {
            process,
            loaded,
            heard,
        }
    }

    /// Resolves when the stream has said something, or will not.
    pub(crate) async fn heard(&self) {
        // Who follows no more says nothing more.
        let _ = self.heard.clone().wait_for(|heard| *heard).await;
    }

    /// Puts it into the metadata of a call.
    pub(crate) fn state(&self, metadata: &mut MetadataMap) {
        let Inner {
            id,
            incarnation,
            workload,
        } = &*self.process.0;
        let loaded = *self.loaded.borrow();
        metadata.insert(metadata::GENERATION, loaded.generation.into());
        metadata.insert(metadata::INCARNATION, (*incarnation).into());
        let texts = [
            (metadata::DIGEST, hex(loaded.digest.as_bytes())),
            (metadata::PROCESS, hex(id)),
            (metadata::WORKLOAD, workload.clone()),
        ];
        for (name, text) in texts {
            let printable = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
            if !text.is_empty()
                && text.bytes().all(printable)
                && let Ok(value) = MetadataValue::try_from(text)
            {
                metadata.insert(name, value);
            }
        }
    }
}

/// A report as far as it is of the process.
pub(super) fn of(process: &Process, loaded: Loaded) -> api::Report {
    let Inner {
        id,
        incarnation,
        workload,
    } = &*process.0;
    api::Report {
        process: id.to_vec(),
        incarnation: *incarnation,
        workload: workload.clone(),
        loaded: Some(api::Loaded {
            generation: loaded.generation,
            digest: loaded.digest.as_bytes().to_vec(),
        }),
        ..api::Report::default()
    }
}

/// What is presented, and what it leads to in the own bundle.
pub(super) fn leaf(credentials: &Credentials, trust: &TrustBundle, now: SystemTime) -> api::Leaf {
    let keys = credentials.verify(trust, now).ok();
    let issuer = keys.map(|keys| keys.issuer).or(credentials.issuer());
    let bytes =
        |key: Option<mesh_tls::KeyId>| key.map_or_else(Vec::new, |key| key.as_bytes().to_vec());
    api::Leaf {
        issuer: bytes(issuer),
        anchor: bytes(keys.map(|keys| keys.anchor)),
        not_after: Some(credentials.not_after().into()),
    }
}

/// The anchors with live connections.
pub(super) fn connections(anchors: &[Summary]) -> Vec<api::Connections> {
    let one = |summary: &Summary| api::Connections {
        anchor: summary.anchor.as_bytes().to_vec(),
        count: summary.count,
        oldest: Some(summary.oldest.into()),
        draining: summary.draining,
    };
    let named = anchors.len().min(MAX_ANCHORS - 1);
    let (named, rest) = anchors.split_at(named);
    let mut all: Vec<_> = named.iter().map(one).collect();
    // The oldest are first, so the first of the rest is its oldest.
    if let Some(first) = rest.first() {
        all.push(api::Connections {
            anchor: Vec::new(),
            count: rest.iter().map(|one| one.count).sum(),
            oldest: Some(first.oldest.into()),
            draining: rest.iter().map(|one| one.draining).sum(),
        });
    }
    all
}

/// The beginning of `text` that may be sent.
pub(super) fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_call_says_which_process_it_is_and_what_that_uses() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
        let loaded = Loaded {
            generation: 12,
            digest: [0xab; 32].into(),
        };
        let mut map = MetadataMap::new();
        Standing::new(
            Process::new(1, "a\u{e9}", at),
            watch::channel(loaded).1,
            watch::channel(true).1,
        )
        .state(&mut map);
        let get = |name| {
            map.get(name)
                .map(|value: &MetadataValue<_>| value.to_str().unwrap())
        };
        assert_eq!(get(metadata::GENERATION), Some("12"));
        assert_eq!(get(metadata::DIGEST), Some("ab".repeat(32).as_str()));
        assert_eq!(get(metadata::INCARNATION), Some("7000000"));
        assert_eq!(get(metadata::PROCESS), Some(format!("{:032x}", 1).as_str()));
        assert!(map.get(metadata::WORKLOAD).is_none());
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&"\u{e9}".repeat(400)).len(), 512);
        assert_eq!(cut(&format!("a{}", "\u{e9}".repeat(400))).len(), 511);
    }
}
