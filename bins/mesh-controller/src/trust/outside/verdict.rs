//! What becomes of an offer, by what is in force.

use mesh_tls::pki_types::CertificateDer;
use mesh_trust_rotation::{
    AnchorId, Rotation, UnixTime,
    lint::{Finding, Flaw, Role, lint_first},
};

use super::{
    Fault, Offer,
    offer::{Certificate, date},
};
use crate::trust::record::cluster;

/// What becomes of it.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::trust) enum Verdict {
    /// It is what is used already.
    InForce,
    /// A change to it is underway.
    Changing,
    /// Nothing is wrong with it, and it is not its time.
    Waits(String),
    /// A change to it is to begin.
    Begins,
    /// Something is wrong with it.
    Refused(Fault),
}

/// Judges an offer by the record. `held` are the certificates of anchors, and of the issuer in use, as they are kept here.
pub(in crate::trust) fn verdict<'a>(
    offer: &Offer,
    rotation: &Rotation,
    held: impl Fn(AnchorId) -> Option<&'a CertificateDer<'static>>,
    issuer_held: Option<&CertificateDer<'static>>,
    now: UnixTime,
) -> Verdict {
    let active = rotation.active();
    let refused = |file: &std::path::Path, of: &Certificate, field, reason: String| {
        Verdict::Refused(Fault {
            file: file.to_owned(),
            line: Some(of.line),
            field,
            reason,
        })
    };
    // Away from a key in other hands leads anything.
    let lost = |id: &AnchorId| {
        let known = rotation.anchors().get(id);
        known.is_some_and(|anchor| anchor.tainted.is_some())
    };
    let change = rotation.change().filter(|change| !lost(&change.to.anchor));
    if let Some(change) = change {
        if change.to.signs_with(offer.issuer_id()) {
            return Verdict::Changing;
        }
        if !change.from.signs_with(offer.issuer_id()) {
            return Verdict::Waits("another change is underway".to_owned());
        }
    }
    for anchor in &offer.anchors {
        let id = anchor.facts.anchor_id();
        if held(id).is_some_and(|held| *held != anchor.der) {
            let reason = format!(
                "`{}` is another certificate of a key that is trusted already; a new anchor needs a new key",
                anchor.name
            );
            return refused(&offer.paths.anchors, anchor, "public key", reason);
        }
    }
    if active.issuers.get(&cluster()) == Some(&offer.issuer_id()) {
        if issuer_held.is_some_and(|held| *held != offer.issuer.der) {
            let reason = format!(
                "`{}` is another certificate of the key in use; a new issuer needs a new key (with cert-manager: `rotationPolicy: Always`)",
                offer.issuer.name
            );
            return refused(&offer.paths.issuer, &offer.issuer, "public key", reason);
        }
        let news = offer.anchors.iter().find(|anchor| {
            let id = anchor.facts.anchor_id();
            !rotation.anchors().contains_key(&id)
        });
        return news.map_or(Verdict::InForce, |anchor| {
            Verdict::Waits(format!(
                "anchor `{}` is given out when there is an issuer below it",
                anchor.name
            ))
        });
    }
    if change.is_some() {
        // It was in force when the change began, and may come to be again.
        return Verdict::Changing;
    }
    let proposal = offer.proposal(active.anchor);
    match rotation.lint(now, &proposal).first() {
        None => Verdict::Begins,
        Some(finding) => Verdict::Refused(offer.fault(finding)),
    }
}

impl Offer {
    /// Whether a mesh can begin with it, where there is no record to judge it by yet.
    ///
    /// # Errors
    /// The [`Fault`].
    pub(in crate::trust) fn begins(&self, now: UnixTime, needed: UnixTime) -> Result<(), Fault> {
        let both = [
            (&self.paths.anchors, self.anchor()),
            (&self.paths.issuer, &self.issuer),
        ];
        for (file, one) in both {
            let (begins, ends) = (one.facts.not_before, one.facts.not_after);
            if begins > now || ends < needed {
                let reason = format!(
                    "`{}` is good from {} to {}; expected from now to {}",
                    one.name,
                    date(begins.0),
                    date(ends.0),
                    date(needed.0)
                );
                return Err(Fault {
                    file: file.clone(),
                    line: Some(one.line),
                    field: "validity",
                    reason,
                });
            }
        }
        let issuers = [(cluster(), self.issuer.facts.clone())].into();
        let findings = lint_first(&self.anchor().facts, &issuers, needed);
        findings.first().map_or(Ok(()), |it| Err(self.fault(it)))
    }

    fn fault(&self, finding: &Finding) -> Fault {
        let (file, one) = match &finding.of {
            Role::Anchor => (&self.paths.anchors, self.anchor()),
            _ => (&self.paths.issuer, &self.issuer),
        };
        let reason = match &finding.flaw {
            Flaw::TooShort { not_after, needed } => format!(
                "`{}` ends {}; expected {} or later, for the change and the leaves (have it last longer, or shorten `leafLifetime` or `rotation.phaseBudget`)",
                one.name,
                date(not_after.0),
                date(needed.0)
            ),
            _ => format!("`{}`: {finding}", one.name),
        };
        Fault {
            file: file.clone(),
            line: Some(one.line),
            field: field(&finding.flaw),
            reason,
        }
    }
}

/// The part of a certificate that is meant.
fn field(flaw: &Flaw) -> &'static str {
    match flaw {
        Flaw::SameKey | Flaw::Algorithm(_) => "public key",
        Flaw::SameSubject => "subject",
        Flaw::NotSelfSigned | Flaw::WrongIssuer => "issuer",
        Flaw::NotAuthority | Flaw::PathLength { .. } => "basic constraints",
        Flaw::MayNotSign => "key usage",
        Flaw::NameConstraints => "name constraints",
        Flaw::KeyIdMismatch => "authority key identifier",
        Flaw::NoSubjectKeyId => "subject key identifier",
        Flaw::TooShort { .. } | Flaw::OutlivesIssuer | Flaw::NeverValid => "validity",
        _ => "certificate",
    }
}
