//! What can be wrong with a proposed anchor, issuer or cross-certificate, each with a reason of its own.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::event::Proposal;
use crate::id::{AnchorId, ClusterId, Digest, IssuerId, WorkloadId};
use crate::rotation::Rotation;
use crate::time::UnixTime;

/// The most bytes an anchor's certificate may have, so that bundles stay small.
pub const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;

/// What a certificate of an authority says, as far as a change cares. The feature `x509` reads it from DER.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Facts {
    /// A digest of its public key.
    pub key: Digest,
    /// A digest of its subject name.
    pub subject: Digest,
    /// A digest of its issuer's name.
    pub issuer: Digest,
    /// Its subject key identifier.
    pub subject_key_id: Option<Vec<u8>>,
    /// Its authority key identifier.
    pub authority_key_id: Option<Vec<u8>>,
    /// Its key's algorithm.
    pub algorithm: Algorithm,
    /// Whether its basic constraints make it an authority.
    pub authority: bool,
    /// How many authorities may follow below it; none for any number.
    pub path_length: Option<u32>,
    /// Whether its key usage, if it has one, allows to sign certificates.
    pub signs_certificates: bool,
    /// Whether it constrains the names below it.
    pub constrains_names: bool,
    /// The start of its validity.
    pub not_before: UnixTime,
    /// The end of its validity.
    pub not_after: UnixTime,
    /// Its size.
    pub size_bytes: usize,
}

impl Facts {
    /// The certificate's key as an anchor's.
    #[must_use]
    pub fn anchor_id(&self) -> AnchorId {
        AnchorId::new(*self.key.as_bytes())
    }

    /// The certificate's key as an issuer's.
    #[must_use]
    pub fn issuer_id(&self) -> IssuerId {
        IssuerId::new(*self.key.as_bytes())
    }
}

/// A key's algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
    /// RSA, with this many bits.
    Rsa(u32),
    /// Something that proxies cannot be expected to verify.
    Other,
}

/// Something wrong with one certificate of a proposal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Finding {
    /// With which.
    pub of: Role,
    /// What.
    pub flaw: Flaw,
}

/// The part a certificate is to play.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The new anchor.
    Anchor,
    /// The new issuer of a cluster.
    Issuer(ClusterId),
    /// A cross-certificate.
    Bridge,
    /// A canary.
    Canary(WorkloadId),
}

/// What can be wrong.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Flaw {
    /// The key is in use already: by an anchor or an issuer.
    SameKey,
    /// Another key has this subject name: validators would take one for the other.
    SameSubject,
    /// An anchor that is not self-signed belongs in chains, not in bundles.
    NotSelfSigned,
    /// It is no authority.
    NotAuthority,
    /// Its key usage forbids to sign certificates.
    MayNotSign,
    /// Too few authorities may follow below it.
    PathLength {
        /// As many as it allows.
        allowed: u32,
        /// As many as there will be.
        needed: u32,
    },
    /// It constrains names, which validators do differently.
    NameConstraints,
    /// It names another authority as its issuer.
    WrongIssuer,
    /// Its authority key identifier is not its issuer's subject key identifier.
    KeyIdMismatch,
    /// It has no subject key identifier.
    NoSubjectKeyId,
    /// Its key is of an algorithm or size that is not verified everywhere.
    Algorithm(Algorithm),
    /// It ends before the change could.
    TooShort {
        /// When it ends.
        not_after: UnixTime,
        /// When it may end at the earliest.
        needed: UnixTime,
    },
    /// It outlives the authority above it.
    OutlivesIssuer,
    /// Its validity ends before it begins.
    NeverValid,
    /// It is too large.
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// A cluster gets no issuer.
    NoIssuer,
    /// A cluster is not known.
    UnknownCluster,
    /// A consumer is not known, or cannot go first as it reads roots only at start.
    UnfitCanary,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.of {
            Role::Anchor => f.write_str("the anchor ")?,
            Role::Issuer(cluster) => write!(f, "the issuer of cluster `{cluster}` ")?,
            Role::Bridge => f.write_str("the cross-certificate ")?,
            Role::Canary(workload) => write!(f, "canary `{workload}` ")?,
        }
        match &self.flaw {
            Flaw::SameKey => f.write_str("has a key that is in use; make a new one"),
            Flaw::SameSubject => {
                f.write_str("has the subject name of another key; a new key needs a new name")
            }
            Flaw::NotSelfSigned => f.write_str("is not self-signed"),
            Flaw::NotAuthority => f.write_str("is not an authority (basic constraints)"),
            Flaw::MayNotSign => f.write_str("may not sign certificates (key usage)"),
            Flaw::PathLength { allowed, needed } => {
                write!(
                    f,
                    "allows {allowed} authorities below it; {needed} are needed (path length)"
                )
            }
            Flaw::NameConstraints => {
                f.write_str("constrains names, which not every validator does alike")
            }
            Flaw::WrongIssuer => f.write_str("does not name the anchor as its issuer"),
            Flaw::KeyIdMismatch => f.write_str("has an authority key identifier of another key"),
            Flaw::NoSubjectKeyId => f.write_str("has no subject key identifier"),
            Flaw::Algorithm(algorithm) => {
                write!(
                    f,
                    "has a key {algorithm:?}; expected P-256, P-384 or RSA of 2048 bits or more"
                )
            }
            Flaw::TooShort { not_after, needed } => {
                write!(f, "ends at {not_after}; the change needs it until {needed}")
            }
            Flaw::OutlivesIssuer => f.write_str("outlives its anchor"),
            Flaw::NeverValid => f.write_str("ends before it begins"),
            Flaw::TooLarge { bytes } => {
                write!(f, "has {bytes} bytes; at most {MAX_CERTIFICATE_BYTES}")
            }
            Flaw::NoIssuer => f.write_str("is missing"),
            Flaw::UnknownCluster => f.write_str("is for a cluster that is not known"),
            Flaw::UnfitCanary => f.write_str("is not a known consumer that reloads"),
        }
    }
}

impl Rotation {
    /// Everything that is wrong with a proposal now; empty if it can be started.
    #[must_use]
    pub fn lint(&self, now: UnixTime, proposal: &Proposal) -> Vec<Finding> {
        let mut findings = Vec::new();
        let needed = now
            .after(self.settings.phase_budget.saturating_mul(9))
            .after(self.settings.leaf_life);
        let mut above = None;
        if let Some(anchor) = &proposal.anchor {
            let mut found = |flaw| {
                findings.push(Finding {
                    of: Role::Anchor,
                    flaw,
                });
            };
            root(anchor, needed, &mut found);
            self.same(anchor, &mut found);
            above = Some(anchor);
        }
        for cluster in self.clusters.keys() {
            let of = Role::Issuer(cluster.clone());
            let Some(issuer) = proposal.issuers.get(cluster) else {
                findings.push(Finding {
                    of,
                    flaw: Flaw::NoIssuer,
                });
                continue;
            };
            let mut found = |flaw| {
                findings.push(Finding {
                    of: of.clone(),
                    flaw,
                });
            };
            authority(issuer, 0, needed, &mut found);
            self.same(issuer, &mut found);
            match above {
                Some(anchor) => below(issuer, anchor, &mut found),
                None => self.below_active(issuer, &mut found),
            }
        }
        for cluster in proposal.issuers.keys() {
            if !self.clusters.contains_key(cluster) {
                let of = Role::Issuer(cluster.clone());
                findings.push(Finding {
                    of,
                    flaw: Flaw::UnknownCluster,
                });
            }
        }
        for canary in &proposal.canaries {
            let fit = self
                .consumers
                .get(canary)
                .is_some_and(|consumer| consumer.class == crate::Class::Reloading);
            if !fit {
                let of = Role::Canary(canary.clone());
                findings.push(Finding {
                    of,
                    flaw: Flaw::UnfitCanary,
                });
            }
        }
        findings
    }

    fn same(&self, facts: &Facts, found: &mut impl FnMut(Flaw)) {
        if self.anchors.contains_key(&facts.anchor_id())
            || self.issuers.contains_key(&facts.issuer_id())
        {
            found(Flaw::SameKey);
        }
        if self
            .anchors
            .values()
            .any(|anchor| anchor.subject == facts.subject && anchor.id != facts.anchor_id())
        {
            found(Flaw::SameSubject);
        }
    }

    fn below_active(&self, issuer: &Facts, found: &mut impl FnMut(Flaw)) {
        if let Some(anchor) = self.anchors.get(&self.active.anchor) {
            if anchor.subject != issuer.issuer {
                found(Flaw::WrongIssuer);
            }
            if issuer.not_after > anchor.not_after {
                found(Flaw::OutlivesIssuer);
            }
        }
    }
}

/// Everything that is wrong with an anchor and the issuers below it that a mesh is to begin with, if they are to be used until
/// `needed`: what [`Rotation::lint`] says of a change, where there is no record yet to judge by.
#[must_use]
pub fn lint_first(
    anchor: &Facts,
    issuers: &BTreeMap<ClusterId, Facts>,
    needed: UnixTime,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    root(anchor, needed, &mut |flaw| {
        findings.push(Finding {
            of: Role::Anchor,
            flaw,
        });
    });
    for (cluster, issuer) in issuers {
        let mut found = |flaw| {
            findings.push(Finding {
                of: Role::Issuer(cluster.clone()),
                flaw,
            });
        };
        authority(issuer, 0, needed, &mut found);
        below(issuer, anchor, &mut found);
        if issuer.key == anchor.key {
            found(Flaw::SameKey);
        }
        if issuer.subject == anchor.subject {
            found(Flaw::SameSubject);
        }
    }
    findings
}

/// Everything that is wrong with a cross-certificate that certifies the key of `subject` and is signed by `signer`, if it is
/// to be used until `needed`.
#[must_use]
pub fn lint_bridge(
    bridge: &Facts,
    subject: &Facts,
    signer: &Facts,
    needed: UnixTime,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |flaw| {
        findings.push(Finding {
            of: Role::Bridge,
            flaw,
        });
    };
    // Below the cross-certificate there is an issuer, as below the anchor that it stands for.
    authority(bridge, 1, needed, &mut found);
    below(bridge, signer, &mut found);
    if bridge.key != subject.key {
        found(Flaw::KeyIdMismatch);
    }
    if bridge.subject != subject.subject {
        found(Flaw::WrongIssuer);
    }
    if let Some(allowed) = signer.path_length.filter(|allowed| *allowed < 2) {
        found(Flaw::PathLength { allowed, needed: 2 });
    }
    findings
}

fn root(facts: &Facts, needed: UnixTime, found: &mut impl FnMut(Flaw)) {
    authority(facts, 1, needed, found);
    if facts.subject != facts.issuer {
        found(Flaw::NotSelfSigned);
    }
}

fn authority(facts: &Facts, below: u32, needed: UnixTime, found: &mut impl FnMut(Flaw)) {
    if !facts.authority {
        found(Flaw::NotAuthority);
    }
    if !facts.signs_certificates {
        found(Flaw::MayNotSign);
    }
    if let Some(allowed) = facts.path_length.filter(|allowed| *allowed < below) {
        found(Flaw::PathLength {
            allowed,
            needed: below,
        });
    }
    if facts.constrains_names {
        found(Flaw::NameConstraints);
    }
    if facts.subject_key_id.is_none() {
        found(Flaw::NoSubjectKeyId);
    }
    match facts.algorithm {
        Algorithm::P256 | Algorithm::P384 => {}
        Algorithm::Rsa(bits) if bits >= 2048 => {}
        algorithm => found(Flaw::Algorithm(algorithm)),
    }
    if facts.not_after <= facts.not_before {
        found(Flaw::NeverValid);
    } else if facts.not_after < needed {
        let not_after = facts.not_after;
        found(Flaw::TooShort { not_after, needed });
    }
    if facts.size_bytes > MAX_CERTIFICATE_BYTES {
        found(Flaw::TooLarge {
            bytes: facts.size_bytes,
        });
    }
}

fn below(facts: &Facts, above: &Facts, found: &mut impl FnMut(Flaw)) {
    if facts.issuer != above.subject {
        found(Flaw::WrongIssuer);
    }
    if let (Some(authority), Some(subject)) = (&facts.authority_key_id, &above.subject_key_id)
        && authority != subject
    {
        found(Flaw::KeyIdMismatch);
    }
    if facts.not_after > above.not_after {
        found(Flaw::OutlivesIssuer);
    }
}
