//! The guards by name. Everything that holds a change back, or refuses an event, for the sake of an invariant asks here,
//! so that the proof can take away one at a time and show what then breaks. Outside the proof every guard always holds.

/// One guard. The table in `docs/why-it-is-safe.md` says which hazard each one is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Guard {
    /// Nothing is signed on the new side before everybody trusts it.
    TrustBeforeIssue,
    /// Trust is read from the digest of what is loaded.
    DigestOfLoaded,
    /// Evidence opens a gate only while it is fresh.
    Freshness,
    /// Evidence about one process says nothing about the next.
    Incarnation,
    /// What was observed earlier never replaces what was observed later.
    Newest,
    /// Evidence about a consumer comes from that consumer.
    Authenticated,
    /// What was stamped on a consumer is no evidence.
    NoAnnotations,
    /// Consumers that read roots at start are believed only when probed.
    ProbeStartOnly,
    /// Every cluster has listed its consumers since the change began.
    Inventory,
    /// Whoever presents a certificate and is in no inventory blocks.
    Undeclared,
    /// A silent consumer blocks until its lease has lapsed.
    SilentBlocks,
    /// All clusters trust before any one signs.
    ClusterBarrier,
    /// All clusters give out the bundle before any one signs.
    PublishedEverywhere,
    /// A cluster that is cut off holds everybody.
    ClusterHeard,
    /// Nobody gets a leaf who does not trust those whom its peers' leaves chain to.
    Admission,
    /// A quarantined consumer gets no leaf.
    QuarantineCertify,
    /// A quarantined consumer returns only with a bundle that will do.
    RejoinBundle,
    /// A quarantined consumer returns as a new process, which holds nothing from before.
    RejoinAfresh,
    /// A lapsed consumer is put on record as quarantined.
    LapseOnRecord,
    /// Canaries get new leaves first.
    CanarySigning,
    /// Canaries lose the old anchor first.
    CanaryRetirement,
    /// The old anchor stays until everybody has a leaf of the new side.
    LeafConverged,
    /// A leaf that was seen before another one was given says nothing.
    LeafAsGiven,
    /// The old anchor stays until every leaf that was entered has ended.
    LedgerEntered,
    /// The old anchor stays until every leaf that a signer may have released on its lease has ended.
    LedgerLease,
    /// Leaves are waited for by the slowest clock.
    RetireSkew,
    /// A leaf is entered in the ledger in the same step that releases it.
    LedgerBeforeRelease,
    /// Leaves are signed only under a live lease.
    SigningLease,
    /// Session ticket keys are new before the old anchor goes.
    Tickets,
    /// They are made new only after the last old leaf is out of use.
    TicketsAfterLeaves,
    /// No connection that the old anchor verified is left.
    Connections,
    /// What is said of connections counts once no old leaf is left to open another with.
    ConnectionsAfterLeaves,
    /// Controllers change their own chain last.
    ControllerLast,
    /// Whoever signs is in every bundle given out.
    SignerPublished,
    /// Certificates are used only once they are valid by every clock.
    NotBefore,
    /// Leaves begin to be valid earlier than they are made.
    Backdate,
    /// No leaf outlives its issuer.
    LeafCap,
    /// A phase is entered only with time left for those that remain.
    TimeBudget,
    /// One change at a time.
    OneChange,
    /// Only the leading epoch writes.
    Epoch,
    /// A tainted anchor signs nothing.
    TaintStopsSigning,
    /// A tainted anchor is bridged to nothing.
    TaintedBridge,
    /// A revert keeps both anchors until what was signed has ended.
    RevertKeepsBoth,
    /// Whom an emergency breaks is named.
    OverrideNames,
    /// An emergency leaves others behind only with a quorum or after its deadline.
    OverrideQuorum,
    /// Nothing advances while an operator has it stand still.
    Paused,
    /// Nothing advances while a cluster serves what nobody published.
    Drift,
    /// After a restore, generations are learned anew.
    RestoreGeneration,
    /// After a restore, every issuer is taken to have signed until now.
    RestoreLedger,
    /// After a restore, nothing is signed before everybody trusts all anchors again.
    RestoreSigning,
    /// After a restore, nothing is given out before generations are learned.
    RestoreQuiet,
    /// After a restore, every anchor that may have leaves stays, tainted or not.
    RestoreKeepsAll,
    /// After a restore, it is not known who signs.
    RestoreSigner,
    /// A change that may have had an effect is undone through the gates, not forgotten.
    UndoneByGates,
    /// A key that was found in other hands is remembered when its anchor has gone.
    TaintRemembered,
    /// An anchor that a change was to lead to leaves with the one it was to replace.
    AbandonedLeave,
    /// Stragglers are carried only while the cross-certificate lasts.
    BridgeEnding,
    /// While stragglers are carried, every chain has the cross-certificate.
    BridgeServed,
    /// Issuers are verified before they sign.
    IssuerVerified,
    /// Leaves that are out live as long as they were made to, whatever the settings have become.
    LivesAsMade,
    /// Whoever was given a leaf of another issuer is not given one of a third, or of the first again, within the same second.
    OneTurnASecond,
}

impl crate::rotation::Rotation {
    /// Whether the guard is in place.
    #[cfg(not(test))]
    pub(crate) const fn guards(&self, _: Guard) -> bool {
        true
    }

    /// Whether the guard is in place: all are but the one that the proof took away.
    #[cfg(test)]
    pub(crate) fn guards(&self, guard: Guard) -> bool {
        self.without != Some(guard)
    }
}
