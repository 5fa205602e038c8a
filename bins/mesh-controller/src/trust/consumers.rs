//! Who is who among those who trust: the names under which the machine knows them, and the streams they are on.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use http::HeaderMap;
use mesh_control_api::{metadata, trust as api};
use mesh_tls::Identity;
use mesh_trust_rotation::{
    AnchorId, Connections, Digest, Generation, Incarnation, IssuerId, Loaded, Report, Rotation,
    UnixTime, WorkloadId,
};
use tokio::sync::mpsc;

use crate::mesh::workload;

/// Which process speaks, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    /// Random, in hex digits.
    pub(crate) process: String,
    /// Higher for each later one.
    pub(crate) incarnation: Incarnation,
    /// Which workload of its identity.
    pub(crate) workload: String,
    /// The bundle that all of it uses. Generation 0 is what it was started with.
    pub(crate) loaded: Option<Loaded>,
}

/// What somebody who asks for a leaf has accepted of the controller's chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// A chain to this anchor, if that was seen.
    Chain(Option<AnchorId>),
    /// Nothing was shown: it is on this host, over a connection without TLS.
    Local,
}

/// What a process said, and when.
#[derive(Debug, Clone)]
pub(super) struct Reported {
    pub(super) process: Process,
    pub(super) report: api::Report,
    pub(super) at: SystemTime,
}

/// The streams that are open, by who is on them.
#[derive(Default)]
pub(super) struct Sessions {
    open: Mutex<HashMap<WorkloadId, Session>>,
}

struct Session {
    number: u64,
    updates: mpsc::Sender<api::Update>,
}

impl Process {
    /// From the metadata of a call; none if it has none of it.
    pub(crate) fn of_metadata(headers: &HeaderMap) -> Option<Self> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let incarnation = text(metadata::INCARNATION)?.parse().ok()?;
        let process = text(metadata::PROCESS)?;
        let generation = text(metadata::GENERATION).and_then(|text| text.parse().ok());
        let digest = text(metadata::DIGEST).and_then(|text| Digest::try_from(text.to_owned()).ok());
        Some(Self {
            process: shortened(process),
            incarnation: Incarnation(incarnation),
            workload: text(metadata::WORKLOAD).unwrap_or_default().to_owned(),
            loaded: digest.map(|digest| Loaded {
                generation: Generation(generation.unwrap_or(0)),
                digest,
            }),
        })
    }

    /// From a report; none if it lacks what every report has.
    pub(super) fn of_report(report: &api::Report) -> Option<Self> {
        if report.process.is_empty() || report.sequence == 0 {
            return None;
        }
        let hex: String = report
            .process
            .iter()
            .take(16)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let loaded = report.loaded.as_ref().and_then(|loaded| {
            Some(Loaded {
                generation: Generation(loaded.generation),
                digest: Digest::new(bytes(&loaded.digest)?),
            })
        });
        Some(Self {
            process: shortened(&hex),
            incarnation: Incarnation(report.incarnation),
            workload: report.workload.clone(),
            loaded,
        })
    }

    /// The name under which the machine knows it. Nobody gets the name of another identity's workload. A process that was
    /// not the last to start under its name has one of its own: it may be a namesake that goes on.
    pub(super) fn id(&self, identity: &Identity, rotation: &Rotation) -> WorkloadId {
        let plain = |name: &str| {
            !name.is_empty() && name.len() <= MAX_NAME_BYTES && !name.contains(['@', '#'])
        };
        let name = workload::name(&self.workload)
            .map(|name| format!("{}/{}", name.namespace, name.name))
            .filter(|name| plain(name));
        let process = &self.process;
        let name = name.unwrap_or_else(|| format!("process-{process}"));
        let id = named(&format!("{name}@{identity}"));
        let known = rotation.consumers().get(&id);
        if known.is_some_and(|known| known.incarnation > self.incarnation) {
            return named(&format!("{name}#{process}@{identity}"));
        }
        id
    }

    /// The bundle it uses as the machine knows bundles: what it was started with is told by its digest.
    pub(super) fn loaded(&self, rotation: &Rotation) -> Option<Loaded> {
        let loaded = self.loaded?;
        if loaded.generation != Generation(0) {
            return Some(loaded);
        }
        let bundles = rotation.bundles();
        let highest = bundles.highest().0;
        let lowest = highest.saturating_sub(2 * mesh_trust_rotation::Bundles::REMEMBERED as u64);
        let known = (lowest..=highest).rev().map(Generation).find(|generation| {
            let bundle = bundles.known(*generation);
            bundle.is_some_and(|bundle| bundle.digest == Some(loaded.digest))
        });
        Some(Loaded {
            generation: known.unwrap_or_default(),
            digest: loaded.digest,
        })
    }
}

impl Reported {
    /// What it says, in the machine's words.
    pub(super) fn evidence(&self, rotation: &Rotation, at: UnixTime) -> Report {
        let leaf = self.report.leaf.as_ref().and_then(|leaf| {
            let issuer = IssuerId::new(bytes(&leaf.issuer)?);
            let not_after = leaf.not_after.as_ref()?.seconds;
            Some((issuer, UnixTime(u64::try_from(not_after).ok()?)))
        });
        Report {
            sequence: self.report.sequence,
            at,
            loaded: self.process.loaded(rotation),
            leaf,
            connections: self.connections(rotation),
        }
    }

    /// The machine wants to know of one connection, the worst: one under an anchor that leaves.
    fn connections(&self, rotation: &Rotation) -> Connections {
        let live = self.report.connections.iter().filter(|some| some.count > 0);
        let mut worst = Connections::None;
        for some in live {
            let Some(anchor) = bytes(&some.anchor).map(AnchorId::new) else {
                return Connections::Unknown;
            };
            let leaves = rotation
                .change()
                .is_some_and(|change| change.is_leaving(anchor));
            if leaves || worst == Connections::None {
                worst = Connections::Oldest(anchor);
            }
            if leaves {
                return worst;
            }
        }
        worst
    }
}

impl Sessions {
    /// Somebody is on a stream; who was there under that name before is not told anything any more.
    pub(super) fn opened(&self, id: WorkloadId, number: u64, updates: mpsc::Sender<api::Update>) {
        self.lock().insert(id, Session { number, updates });
    }

    /// The stream is gone.
    pub(super) fn closed(&self, id: &WorkloadId, number: u64) {
        let mut open = self.lock();
        if open.get(id).is_some_and(|session| session.number == number) {
            open.remove(id);
        }
    }

    /// Tells somebody something; false if it is on no stream, or is slow to take what it was told before.
    pub(super) fn tell(&self, id: &WorkloadId, update: api::Update) -> bool {
        let open = self.lock();
        open.get(id)
            .is_some_and(|session| session.updates.try_send(update).is_ok())
    }

    /// Whether somebody is on a stream.
    pub(super) fn is_open(&self, id: &WorkloadId) -> bool {
        self.lock().contains_key(id)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<WorkloadId, Session>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions")
            .field("open", &self.lock().len())
            .finish()
    }
}

/// A controller, as the machine knows it; without a name the only one.
pub(super) fn controller(name: Option<&str>) -> WorkloadId {
    match name {
        None => named("mesh-controller"),
        Some(name) => named(&format!("mesh-controller/{name}")),
    }
}

/// A consumer that says nothing of itself is known by its identity alone.
pub(super) fn start_only(identity: &Identity) -> WorkloadId {
    named(identity.as_str())
}

/// A name that is short enough by what it is made of: an identity has at most 253 or 255 bytes, a name less than what is left.
fn named(text: &str) -> WorkloadId {
    let end = (0..=WorkloadId::MAX_BYTES.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end))
        .unwrap_or(0);
    #[allow(clippy::expect_used)]
    WorkloadId::new(&text[..end]).expect("invariant: between 1 and 512 bytes")
}

/// Enough to tell processes apart; the rest of the text is not ours to keep.
fn shortened(process: &str) -> String {
    process
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(12)
        .collect()
}

fn bytes(digest: &[u8]) -> Option<[u8; 32]> {
    digest.try_into().ok()
}

const MAX_NAME_BYTES: usize = 200;
