//! What can be wrong: with settings and documents ([`Error`]), with an event ([`Refusal`]).

use crate::id::{
    AnchorId, ClusterId, Epoch, Generation, Incarnation, InvalidId, IssuerId, WorkloadId,
};
use crate::lint::Finding;
use crate::phase::Phase;
use crate::time::UnixTime;

/// Something given to this crate is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting contradicts another.
    #[error("setting `{name}`: expected {expected}")]
    Setting {
        /// Which.
        name: &'static str,
        /// What would be right.
        expected: &'static str,
    },
    /// An identifier is malformed.
    #[error(transparent)]
    InvalidId(#[from] InvalidId),
    /// A mesh was described that cannot be.
    #[error("the mesh as described: {reason}")]
    Mesh {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A stored record cannot be read.
    #[error("the stored record: {reason}")]
    Record {
        /// Why.
        reason: String,
    },
    /// A stored record is of a later version than this program knows.
    #[error("the stored record has version {found}; this program reads versions up to {supported}")]
    RecordVersion {
        /// Its version.
        found: u32,
        /// The latest that is known.
        supported: u32,
    },
    /// The audit chain is broken.
    #[error("audit entry {index} does not follow from the one before it")]
    AuditBroken {
        /// The first entry that is wrong.
        index: u64,
    },
    /// A signed document is malformed.
    #[error("bundle document: {reason}")]
    Document {
        /// What is wrong with it.
        reason: String,
    },
    /// A document is not signed by the pinned key.
    #[error("bundle document: not signed by the pinned bundle key")]
    WrongSignature,
    /// A document is for another mesh.
    #[error("bundle document: for trust domain `{found}`, expected `{expected}`")]
    WrongTrustDomain {
        /// The one it is for, cut short.
        found: String,
        /// The one that is pinned.
        expected: String,
    },
    /// A document is older than what is in use.
    #[error("bundle document: generation {found} is not newer than {current}, which is in use")]
    StaleGeneration {
        /// Its generation.
        found: Generation,
        /// The one in use.
        current: Generation,
    },
    /// A document leaps further than any honest one would.
    #[error(
        "bundle document: generation {found} leaps too far from {current}; at most {highest} would be taken"
    )]
    GenerationLeap {
        /// Its generation.
        found: Generation,
        /// The one in use.
        current: Generation,
        /// The highest that would be taken.
        highest: Generation,
    },
    /// A key is not one.
    #[error("bundle key: expected {expected}")]
    Key {
        /// What would be right.
        expected: &'static str,
    },
    /// A certificate cannot be read.
    #[error("certificate: {reason}")]
    Certificate {
        /// Why.
        reason: String,
    },
}

/// An event that is not taken, and why. What was known before is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Another controller leads.
    #[error("epoch {found} does not lead; epoch {current} does")]
    Fenced {
        /// The epoch it was tried under.
        found: Epoch,
        /// The one that leads.
        current: Epoch,
    },
    /// A change is underway.
    #[error("a change is underway, in phase `{phase}`; abort it or let it end")]
    Underway {
        /// Where it is.
        phase: Phase,
    },
    /// No change is underway.
    #[error("no change is underway")]
    NothingUnderway,
    /// The change is beyond the point from which it can be undone.
    #[error("too late in phase `{phase}`: everybody is being given the new anchor only")]
    TooLate {
        /// Where it is.
        phase: Phase,
    },
    /// The proposal is unfit; without any finding, as a standby has no anchor of its own.
    #[error("the proposal is unfit: {}", listed(.0))]
    Unfit(Vec<Finding>),
    /// An emergency has a key to leave and none to go to.
    #[error("anchor {anchor} is tainted")]
    Tainted {
        /// The anchor.
        anchor: AnchorId,
    },
    /// The store was restored; nothing is signed or started before it has learned anew.
    #[error("restored from a backup at {since} and still learning what was in force")]
    Restoring {
        /// Since when.
        since: UnixTime,
    },
    /// Nobody knows this consumer.
    #[error(
        "consumer `{workload}` is not in the inventory; it blocks until it is declared or has left"
    )]
    UnknownConsumer {
        /// Which.
        workload: WorkloadId,
    },
    /// Nobody knows this cluster.
    #[error("cluster `{cluster}` is not known")]
    UnknownCluster {
        /// Which.
        cluster: ClusterId,
    },
    /// Nobody knows this anchor.
    #[error("anchor {anchor} is not known")]
    UnknownAnchor {
        /// Which.
        anchor: AnchorId,
    },
    /// Nobody knows this issuer.
    #[error("issuer {issuer} is not known")]
    UnknownIssuer {
        /// Which.
        issuer: IssuerId,
    },
    /// The consumer is quarantined.
    #[error("`{workload}` is quarantined; it has to join again")]
    Quarantined {
        /// Which.
        workload: WorkloadId,
    },
    /// Evidence about one consumer came from another.
    #[error("`{peer}` spoke about `{workload}`")]
    Forged {
        /// Whom it was about.
        workload: WorkloadId,
        /// Who was authenticated.
        peer: WorkloadId,
    },
    /// It is about a process that is gone.
    #[error("`{workload}`: process {found} is gone; {current} is running")]
    StaleIncarnation {
        /// Which consumer.
        workload: WorkloadId,
        /// The process it is about.
        found: Incarnation,
        /// The latest known.
        current: Incarnation,
    },
    /// It is from the future.
    #[error("observed at {at}, which is later than any clock could say at {now}")]
    FromTheFuture {
        /// When it says it was observed.
        at: UnixTime,
        /// The time.
        now: UnixTime,
    },
    /// The consumer does not trust an anchor under which its peers have leaves.
    #[error("`{workload}` has not loaded anchor {anchor}, under which its peers have leaves")]
    NotAdmitted {
        /// Which.
        workload: WorkloadId,
        /// The anchor it lacks.
        anchor: AnchorId,
    },
    /// The signer has no lease for the issuer.
    #[error("cluster `{cluster}` has no signing lease for issuer {issuer}")]
    NoSigningLease {
        /// Which cluster.
        cluster: ClusterId,
        /// Which issuer.
        issuer: IssuerId,
    },
    /// The cluster is not to sign with this issuer.
    #[error("cluster `{cluster}` is not to sign with issuer {issuer}")]
    NotTheSigner {
        /// Which cluster.
        cluster: ClusterId,
        /// Which issuer.
        issuer: IssuerId,
    },
    /// The issuer or its anchor is not valid now, by every clock.
    #[error("issuer {issuer} is not valid now, or will not be long enough")]
    IssuerNotValid {
        /// Which.
        issuer: IssuerId,
    },
    /// The consumers named are not those that block.
    #[error("the override has to name exactly those it breaks: {}", names(.blocking))]
    OverrideNames {
        /// Those that block.
        blocking: Vec<WorkloadId>,
    },
    /// Something else blocks, which no override helps against.
    #[error("the override is not allowed: {reason}")]
    OverrideNotAllowed {
        /// Why.
        reason: &'static str,
    },
    /// Cross-certificates cannot be used here.
    #[error("no cross-certificate: {reason}")]
    NoBridge {
        /// Why.
        reason: &'static str,
    },
    /// The settings contradict themselves.
    #[error("setting `{name}`: expected {expected}")]
    UnfitSetting {
        /// The first that does.
        name: &'static str,
        /// What would be right.
        expected: &'static str,
    },
    /// Something underway relies on a setting.
    #[error("setting `{name}` cannot become that now: {reason}")]
    SettingInUse {
        /// Which.
        name: &'static str,
        /// What relies on it.
        reason: &'static str,
    },
    /// The consumer was given a leaf of another issuer within this second, so that no clock could tell which of them it serves.
    #[error(
        "`{workload}` was given a leaf of another issuer within this second; it may ask again in the next"
    )]
    TooSoon {
        /// Which.
        workload: WorkloadId,
    },
    /// A cluster cannot confirm what nobody asked for.
    #[error("nobody published generation {generation}")]
    UnknownGeneration {
        /// Which.
        generation: Generation,
    },
}

fn listed(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "a standby needs an anchor of its own".to_owned();
    }
    let all: Vec<String> = findings.iter().map(ToString::to_string).collect();
    all.join("; ")
}

fn names(workloads: &[WorkloadId]) -> String {
    if workloads.is_empty() {
        return "nobody".to_owned();
    }
    let all: Vec<&str> = workloads.iter().map(WorkloadId::as_str).collect();
    all.join(", ")
}
