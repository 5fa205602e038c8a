//! The mesh's trust: who is certified, by whom, and what everybody is given to verify peers with; and its replacement while
//! all of that goes on.
//!
//! [`Trust`] is what the rest of the controller asks. The [`Driver`] is the one task that decides, by the record of
//! `mesh-trust-rotation`: it enters a leaf in the ledger before the leaf is released, and writes what it is about to do
//! before it does it.
//!
//! - `keys`: private keys and where they are kept
//! - `outside`: anchors and issuers that another program makes
//! - `place`: which store, and who may write what of it
//! - `pieces`: how the record lies in the store
//! - `record`: the record in the store, and taking over a mesh that has none yet
//! - `root`: the root's key, for operators
//! - `driver`, `act`: the loop, and what its actions do
//! - `consumers`: who is who among those who trust
//! - `issued`: which keys have leaves
//! - `names`: how many names one identity may have
//! - `audit`: all entries of the audit chain, in a file
//! - `state`: how things stand, for metrics
//! - `watch`: the stream on which proxies report and are told
//! - `settings`, `schedule`: how long things last, and when a change begins by itself

mod act;
mod audit;
mod clocks;
mod consumers;
mod driver;
mod issued;
mod keys;
mod names;
mod outside;
mod pieces;
mod place;
mod record;
mod root;
mod schedule;
mod settings;
mod state;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use mesh_tls::{
    ClientAuth, Identity, Tls, TlsServer, TrustBundle, TrustDomain,
    ca::{Anchor, IssuedLeaf, SecretPem},
    pki_types::CertificateDer,
};
use mesh_trust_rotation::{
    AnchorId, Digest, Event, Generation, NotRecorded, Proposal, Record, Refusal, Rotation, Step,
    UnixTime, WorkloadId, crypto::BundleSigner, lint::Facts,
};
use thiserror::Error;
use tokio::sync::{Notify, mpsc, oneshot, watch as channel};

use self::clocks::Clocks;
use self::consumers::{Reported, Sessions};
pub(crate) use self::{
    clocks::OwnClock,
    consumers::{Process, Shown},
    driver::Driver,
    issued::ShownLeaf,
    outside::{Fault, Standing},
    place::Place,
    root::Import,
    schedule::Next,
};
use crate::{mesh::Settings, store::StoreError};

/// Issues certificates and gives out bundles, through the [`Driver`].
#[derive(Clone)]
pub(crate) struct Trust {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
    tls: Tls,
}

/// Why there is no authority, or why it does not do as it was told.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrustError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is in the store is not an authority.
    #[error("the certificate authority in the store cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// A certificate cannot be made or used.
    #[error("the certificate authority failed: {0}")]
    Tls(#[from] mesh_tls::Error),
    /// The record is none, or a bundle document cannot be made.
    #[error("the record of trust: {0}")]
    Rotation(#[from] mesh_trust_rotation::Error),
    /// An event that had to be taken was not.
    #[error("the record of trust: {0}")]
    NotRecorded(#[from] NotRecorded),
    /// An anchor that the record names is not in the store.
    #[error("the certificate of anchor {anchor} is not in the store; restore it from a backup")]
    NoAnchor {
        /// Which.
        anchor: AnchorId,
    },
    /// An anchor's key is not in the store.
    #[error("the key of anchor {anchor} is not here: only a change to another anchor is possible")]
    NoAnchorKey {
        /// Which.
        anchor: AnchorId,
    },
    /// An issuer that the record names is not in the store.
    #[error("the key of issuer {issuer} is not in the store; restore it from a backup")]
    NoIssuer {
        /// Which.
        issuer: mesh_trust_rotation::IssuerId,
    },
    /// A cross-certificate that the record names is not in the store.
    #[error(
        "the cross-certificate of anchor {subject} by {signer} is not in the store; restore it from a backup"
    )]
    NoBridge {
        /// Whose key it certifies.
        subject: AnchorId,
        /// Who signed it.
        signer: AnchorId,
    },
    /// Another controller leads.
    #[error("another controller leads this mesh, under epoch {epoch}")]
    Deposed {
        /// Under which epoch.
        epoch: mesh_trust_rotation::Epoch,
    },
    /// It is for the one who leads to do.
    #[error("this controller does not lead; {leader} does: tell that one")]
    Follows {
        /// By name.
        leader: String,
    },
    /// What an outside authority has written cannot be used.
    #[error("the outside authority: {0}")]
    Outside(#[from] Fault),
    /// Anchors and issuers are made by somebody else.
    #[error("anchors and issuers come from {}: have whoever writes there make another; what is new begins a change by itself", folder.display())]
    MadeOutside {
        /// Where they are written.
        folder: std::path::PathBuf,
    },
    /// What was made elsewhere has a key that is held with another certificate, or below another anchor.
    #[error(
        "the key {key} is in use with another certificate, or below another anchor; make a new key for what is to be new"
    )]
    KeyInUse {
        /// The key's name.
        key: Digest,
    },
    /// There is no request for an issuer's certificate.
    #[error(
        "no request for an issuer's certificate is out: `mesh trust issuer-request` makes one; or give the issuer's key too"
    )]
    NoRequest,
    /// There is nothing to make an issuer with.
    #[error("neither an issuer's certificate nor the anchor's key is given; one of them is needed")]
    Incomplete,
    /// A key that was to be taken back is of an anchor that is not in use.
    #[error("anchor {anchor} is not the one in use, and the key of no other is taken back")]
    NotInUse {
        /// Which.
        anchor: AnchorId,
    },
    /// A key would be dropped in silence.
    #[error(
        "the key of the anchor in use is taken back by itself: give anchor and key without an issuer, and the issuer without that key"
    )]
    KeyAlone,
    /// An anchor without its key, where cross-certificates are asked for.
    #[error(
        "`spec.rotation.bridges` is true, and a cross-certificate needs the key of the new anchor: give that too, or set `spec.rotation.bridges` to false first"
    )]
    NoKeyToBridge,
    /// The root's key cannot be put away.
    #[error("the key of the anchor stays: {reason}")]
    KeyStays {
        /// Why, and what to do.
        reason: String,
    },
    /// The files in the data folder cannot be written.
    #[error("cannot write to the data folder: {0}")]
    Data(#[from] std::io::Error),
}

/// Why no leaf was issued.
#[derive(Debug, Error)]
pub(crate) enum CertifyError {
    /// The request, or the authority.
    #[error(transparent)]
    Tls(#[from] mesh_tls::Error),
    /// The mesh is going through a change in which this would not be safe.
    #[error(transparent)]
    Refused(Refusal),
    /// Its identity has as many names as it may have.
    #[error(
        "{identity} has {} workloads already, with those that left of late; give `control.workload` a name that stays the same when the proxy starts again",
        names::MAX_NAMES
    )]
    TooManyNames {
        /// The identity.
        identity: Identity,
    },
    /// The store failed, or the controller is stopping.
    #[error("no certificate can be entered in the ledger now; try again")]
    Unavailable,
}

/// A request for a leaf, by somebody who has proven an identity.
#[derive(Debug)]
pub(crate) struct Ask {
    /// PKCS #10, DER.
    pub(crate) csr: Vec<u8>,
    /// As proven.
    pub(crate) identity: Identity,
    /// Which process asks, if it says so.
    pub(crate) process: Option<Process>,
    /// What it has accepted of this controller.
    pub(crate) accepted: Shown,
    /// Whether it was a join token that proved the identity.
    pub(crate) joins: bool,
}

/// What an operator wants.
#[derive(Debug, Clone)]
pub(crate) enum Command {
    /// A new anchor with a new issuer, or a new issuer only.
    Rotate {
        /// Only a new issuer.
        issuer_only: bool,
    },
    /// An anchor or issuer that was made elsewhere.
    Import(Box<Import>),
    /// An event of the machine.
    Event(Box<Event>),
}

/// Why an operator's word was not taken.
#[derive(Debug, Error)]
pub(crate) enum CommandError {
    /// The machine refuses it.
    #[error(transparent)]
    Refused(#[from] NotRecorded),
    /// Keys or store.
    #[error(transparent)]
    Failed(#[from] TrustError),
    /// No answer: the controller is stopping, or its store failed. What was said may be on record.
    #[error(
        "no answer: the controller is stopping or its store failed; whether it was taken, `mesh trust status` says"
    )]
    Stopping,
}

enum Request {
    /// A dry run; only a new issuer, if true.
    Plan(bool, oneshot::Sender<Result<Planned, CommandError>>),
    Certify(Ask, oneshot::Sender<Result<IssuedLeaf, CertifyError>>),
    Command(Command, oneshot::Sender<Result<(), CommandError>>),
    ExportRoot(oneshot::Sender<Result<(String, SecretPem), CommandError>>),
    RemoveRoot(AnchorId, oneshot::Sender<Result<SystemTime, CommandError>>),
    /// A request for an issuer's certificate; another one, if true.
    Issuer(bool, oneshot::Sender<Result<String, CommandError>>),
    BringBack(Anchor, oneshot::Sender<Result<(), CommandError>>),
}

/// What a change would go through, and who would go first.
pub(crate) type Planned = (Vec<Step>, BTreeSet<WorkloadId>);

/// What the driver lets others see.
struct Shared {
    live: ArcSwap<Live>,
    published: channel::Sender<Arc<Published>>,
    signer: Arc<BundleSigner>,
    sessions: Sessions,
    clocks: Clocks,
    /// The latest of what each process has said, until the driver takes it.
    reports: Mutex<BTreeMap<WorkloadId, Reported>>,
    /// Which keys have leaves.
    issued: issued::Issued,
    /// What probe handshakes have shown, until the driver takes it.
    probed: driver::Probed,
    wake: Notify,
    /// Moves with every turn that changed something.
    turns: channel::Sender<u64>,
    /// Why the last turn failed, if it did.
    failure: ArcSwapOption<String>,
}

/// How things stand after the driver's last turn.
struct Live {
    /// Whether this controller has changes advance.
    leads: bool,
    settings: Arc<Settings>,
    trust_domain: TrustDomain,
    /// Of the controller itself.
    identity: Identity,
    bundle: TrustBundle,
    record: Arc<Record>,
    anchor_not_after: SystemTime,
    issuer_not_after: SystemTime,
    /// What the chain that is served leads to.
    own_anchor: Option<AnchorId>,
    /// None where that is not known: at one who does not lead.
    root: Option<Root>,
    /// Who did not accept a certificate of the new anchor, and why.
    disbelieved: BTreeMap<WorkloadId, String>,
    /// What an outside authority has written.
    offered: Option<Offered>,
}

/// Where the key of the anchor in use is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Root {
    /// In the store.
    Here,
    /// Elsewhere: who has it signs another issuer in time.
    PutAway,
    /// With an outside authority, which writes another issuer in time.
    Outside,
}

/// What an outside authority has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offered {
    /// Where.
    pub(crate) folder: std::path::PathBuf,
    /// How it stands with it; none until this controller has looked, which only the one who leads does.
    pub(crate) standing: Option<Standing>,
}

/// What is given out.
struct Published {
    trust_domain: TrustDomain,
    all: Given,
    canary: Option<Given>,
    canaries: BTreeSet<WorkloadId>,
}

/// A bundle that is given out.
#[derive(Clone)]
struct Given {
    generation: Generation,
    anchors: Vec<CertificateDer<'static>>,
    document: mesh_control_api::trust::Document,
}

impl Trust {
    /// Takes the authority from the store; makes one if there is none. Until the driver runs, nothing is issued.
    ///
    /// # Errors
    /// Any [`TrustError`].
    pub(crate) async fn open(
        place: Place,
        settings: &Settings,
        now: SystemTime,
    ) -> Result<(Self, Driver), TrustError> {
        Driver::open(place, settings, now).await
    }

    /// Certifies a key for an identity that the caller has proven. The leaf is in the ledger when this returns.
    ///
    /// # Errors
    /// [`CertifyError`].
    pub(crate) async fn certify(&self, ask: Ask) -> Result<IssuedLeaf, CertifyError> {
        ask.identity.require_trust_domain(&self.trust_domain())?;
        let (answer, answered) = oneshot::channel();
        let request = Request::Certify(ask, answer);
        let sent = self.requests.send(request).await;
        sent.map_err(|_| CertifyError::Unavailable)?;
        answered.await.unwrap_or(Err(CertifyError::Unavailable))
    }

    /// Does what an operator wants; true once it is on record.
    ///
    /// # Errors
    /// [`CommandError`].
    pub(crate) async fn command(&self, command: Command) -> Result<(), CommandError> {
        let (answer, answered) = oneshot::channel();
        let request = Request::Command(command, answer);
        let sent = self.requests.send(request).await;
        sent.map_err(|_| CommandError::Stopping)?;
        answered.await.unwrap_or(Err(CommandError::Stopping))
    }

    /// What a new change would go through, as a dry run: nothing is kept.
    ///
    /// # Errors
    /// [`CommandError`], as starting it would say.
    pub(crate) async fn plan(&self, issuer_only: bool) -> Result<Planned, CommandError> {
        let (answer, answered) = oneshot::channel();
        let sent = self.requests.send(Request::Plan(issuer_only, answer)).await;
        sent.map_err(|_| CommandError::Stopping)?;
        answered.await.unwrap_or(Err(CommandError::Stopping))
    }

    /// Why nothing can be issued, if that is the driver's doing.
    pub(crate) fn failure(&self) -> Option<String> {
        if self.requests.is_closed() {
            return Some("what decides on trust has ended: start the controller again".to_owned());
        }
        let failure = self.shared.failure.load_full()?;
        Some(format!(
            "the record of trust cannot be gone on with: {failure}"
        ))
    }

    /// What is wrong with certificates that are to become anchor and issuer; without an anchor, with an issuer below the one
    /// in use.
    ///
    /// # Errors
    /// [`TrustError`], if they are none.
    pub(crate) fn lint(
        &self,
        anchor: &str,
        issuer: &str,
        now: SystemTime,
    ) -> Result<Vec<String>, TrustError> {
        let facts = |pem: &str| -> Result<Facts, TrustError> {
            let bundle = TrustBundle::from_pem(0, pem.as_bytes())?;
            Ok(Facts::from_der(&bundle.anchors()[0])?)
        };
        let proposal = Proposal {
            anchor: (!anchor.is_empty()).then(|| facts(anchor)).transpose()?,
            issuers: [(record::cluster(), facts(issuer)?)].into(),
            canaries: BTreeSet::new(),
        };
        let record = self.record();
        let findings = record.rotation().lint(unix(now), &proposal);
        Ok(findings.iter().map(ToString::to_string).collect())
    }

    /// Who says that it trusts the new anchor and did not accept a certificate of it, and why.
    pub(crate) fn disbelieved(&self) -> BTreeMap<WorkloadId, String> {
        self.shared.live.load().disbelieved.clone()
    }

    /// Whether a certificate that was verified proves what it says: below an anchor whose key is in other hands, only if a leaf
    /// was issued here for its key.
    pub(crate) async fn believes(&self, leaf: &ShownLeaf) -> bool {
        !self.shared.is_tainted(leaf.anchor) || self.shared.issued.finds(leaf.key).await
    }

    /// The record after the driver's last turn.
    pub(crate) fn record(&self) -> Arc<Record> {
        self.shared.live.load().record.clone()
    }

    /// What peers must trust.
    pub(crate) fn bundle(&self) -> TrustBundle {
        self.shared.live.load().bundle.clone()
    }

    /// The public key that bundle documents are signed by, in hex digits: what who joins pins.
    pub(crate) fn bundle_key(&self) -> String {
        self.shared.signer.public_key().clone().into()
    }

    /// The domain in which certificates are issued.
    pub(crate) fn trust_domain(&self) -> TrustDomain {
        self.shared.live.load().trust_domain.clone()
    }

    /// The controller's own identity, and the name by which it is asked for.
    pub(crate) fn identity(&self) -> Identity {
        self.shared.live.load().identity.clone()
    }

    /// The anchor that the controller's own chain leads to.
    pub(crate) fn own_anchor(&self) -> Option<AnchorId> {
        self.shared.live.load().own_anchor
    }

    /// The next change that begins by itself, and whether a freeze would hold it back now. Only who leads says so.
    pub(crate) fn next_change(&self, now: SystemTime) -> Option<(Next, bool)> {
        let live = self.shared.live.load();
        let next = schedule::next(
            live.rotation(),
            &record::cluster(),
            &live.settings,
            live.root?,
            unix(now),
        )?;
        Some((next, next.is_frozen(unix(now), &live.settings)))
    }

    /// When the anchor ends.
    pub(crate) fn anchor_not_after(&self) -> SystemTime {
        self.shared.live.load().anchor_not_after
    }

    /// When the issuer ends.
    pub(crate) fn issuer_not_after(&self) -> SystemTime {
        self.shared.live.load().issuer_not_after
    }

    /// TLS for listeners of the proxy API. A client may have no certificate yet.
    pub(crate) fn server(&self) -> TlsServer {
        self.tls.server(&[b"h2"], ClientAuth::Optional)
    }

    /// Follows the driver's turns that change something.
    pub(crate) fn changes(&self) -> channel::Receiver<u64> {
        self.shared.turns.subscribe()
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let live = self.shared.live.load();
        f.debug_struct("Trust")
            .field("trust_domain", &live.trust_domain)
            .field("identity", &live.identity)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Whether an anchor's key is in other hands.
    fn is_tainted(&self, anchor: AnchorId) -> bool {
        let live = self.live.load();
        let known = live.rotation().anchors().get(&anchor);
        known.is_some_and(|anchor| anchor.tainted.is_some())
    }

    /// Takes what has been said since the last time.
    fn take_reports(&self) -> BTreeMap<WorkloadId, Reported> {
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *reports)
    }

    /// Keeps what there was no place for in a turn, unless more has been said since.
    fn report_again(&self, left: impl Iterator<Item = (WorkloadId, Reported)>) {
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, reported) in left {
            reports.entry(id).or_insert(reported);
        }
        drop(reports);
        self.wake.notify_one();
    }

    /// Keeps what a process said for the driver. There is one of each process, so at most as many as there are streams.
    fn report(&self, id: WorkloadId, mut reported: Reported) {
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        // What it answered is said once.
        if let Some(last) = reports.remove(&id)
            && last.process == reported.process
        {
            let new = std::mem::replace(&mut reported.report.probes, last.report.probes);
            reported.report.probes.extend(new);
            let older = reported.report.probes.len().saturating_sub(MAX_RESULTS);
            reported.report.probes.drain(..older);
        }
        reports.insert(id, reported);
        drop(reports);
        self.wake.notify_one();
    }
}

impl Live {
    fn rotation(&self) -> &Rotation {
        self.record.rotation()
    }
}

/// Whole seconds since 1970.
pub(crate) fn unix(now: SystemTime) -> UnixTime {
    let since = now.duration_since(SystemTime::UNIX_EPOCH);
    UnixTime(since.unwrap_or_default().as_secs())
}

/// The time of a record.
pub(crate) fn system(at: UnixTime) -> SystemTime {
    let since = std::time::Duration::from_secs(at.0);
    SystemTime::UNIX_EPOCH
        .checked_add(since)
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// As many results of probes as a report may have.
const MAX_RESULTS: usize = 16;

#[cfg(test)]
mod tests;
