//! Probes of those who say themselves what they trust: some of them are sent a certificate of the new issuer, and say whether they
//! accept it as a peer's. Who does is believed as before. Who does not is not believed what it says that it has loaded, and so is
//! in the way, by name.

use mesh_control_api::trust as api;
use mesh_trust_rotation::{Evidence, Source, audit::Hash as _};

use super::*;

/// Who was asked, and did not accept.
#[derive(Debug, Default)]
pub(super) struct Sample {
    /// The anchor that it is about.
    to: Option<AnchorId>,
    /// What is sent, and when it was signed.
    chain: Option<(SystemTime, Vec<Vec<u8>>)>,
    refused: BTreeMap<WorkloadId, String>,
}

impl Driver {
    /// Sends a certificate of the new issuer to some of those who say that they trust its anchor.
    ///
    /// # Errors
    /// [`TrustError::Tls`], if there is none to send.
    pub(super) fn ask_sample(&mut self, now: SystemTime) -> Result<(), TrustError> {
        let rotation = self.stored.record.rotation();
        let due = rotation.change().filter(|change| {
            let phases = Phase::Distribute..=Phase::LeafConverged;
            change.kind == Kind::Anchor && phases.contains(&change.phase)
        });
        let issuer = due.and_then(|change| change.to.issuers.get(&self.cluster).copied());
        let (Some(change), Some(issuer)) = (due, issuer) else {
            self.sample = Sample::default();
            return Ok(());
        };
        let to = change.to.anchor;
        if self.sample.to != Some(to) {
            self.sample = Sample {
                to: Some(to),
                ..Sample::default()
            };
        }
        let trusts = |known: &Consumer| {
            let loaded = known.report.and_then(|report| report.loaded);
            let bundle = loaded.and_then(|it| rotation.bundles().known(it.generation));
            bundle.is_some_and(|bundle| bundle.anchors.contains(&to))
        };
        let all = rotation.consumers().iter().filter(|(id, known)| {
            let here = known.class == Class::Reloading && self.shared.sessions.is_open(id);
            here && known.standing == Standing::Required
                && (trusts(known) || self.sample.refused.contains_key(*id))
        });
        let mut some: Vec<WorkloadId> = all.map(|(id, _)| id.clone()).collect();
        if some.len() > SAMPLE {
            some.sort_by_cached_key(|id| {
                *Sha256.digest(format!("{to} {id}").as_bytes()).as_bytes()
            });
            some.truncate(SAMPLE);
            // Who is in the way has to be able to get out of it.
            some.extend(self.sample.refused.keys().cloned());
        }
        some.retain(|id| self.asks(id, Order::Sample(to), unix(now)));
        if some.is_empty() {
            return Ok(());
        }
        let chain = self.sample_chain(issuer, now)?;
        for id in some {
            let probe = api::Probe {
                id: number(to),
                anchor: to.as_bytes().to_vec(),
                chain: chain.clone(),
            };
            let update = api::Update {
                probes: vec![probe],
                ..api::Update::default()
            };
            self.shared.sessions.tell(&id, update);
        }
        Ok(())
    }

    /// Takes what a process answered. Evidence for the machine, if it accepted.
    pub(super) fn sampled(
        &self,
        id: &WorkloadId,
        reported: &Reported,
        at: UnixTime,
    ) -> Option<Event> {
        let to = self.sample.to?;
        let results = reported.report.probes.iter();
        let mut accepted = results.filter(|it| it.id == number(to) && it.accepted);
        accepted.next()?;
        let evidence = Evidence {
            workload: id.clone(),
            incarnation: reported.process.incarnation,
            source: Source::Probe(to),
            report: Report {
                sequence: reported.report.sequence,
                at,
                loaded: None,
                leaf: None,
                connections: Connections::Unknown,
            },
        };
        Some(Event::Evidence {
            peer: id.clone(),
            evidence,
        })
    }

    /// Notes who does not accept it, before anybody is believed.
    pub(super) fn note_sampled(&mut self, reports: &BTreeMap<WorkloadId, Reported>) {
        let Some(to) = self.sample.to else {
            return;
        };
        for (id, reported) in reports {
            let results = reported.report.probes.iter();
            let Some(last) = results.rev().find(|it| it.id == number(to)) else {
                continue;
            };
            if last.accepted {
                if self.sample.refused.remove(id).is_some() {
                    info!(%id, "accepts a certificate of the new anchor now");
                }
                continue;
            }
            let why: String = last.reason.chars().take(512).collect();
            if self
                .sample
                .refused
                .insert(id.clone(), why.clone())
                .is_none()
            {
                warn!(%id, why, "says that it trusts the new anchor, and does not accept a certificate of it");
            }
        }
    }

    /// Whether what it says of what it has loaded is not to be believed.
    pub(super) fn is_disbelieved(&self, id: &WorkloadId) -> bool {
        self.sample.refused.contains_key(id)
    }

    /// Who did not accept it, and why.
    pub(super) fn disbelieved(&self) -> BTreeMap<WorkloadId, String> {
        self.sample.refused.clone()
    }

    fn sample_chain(
        &mut self,
        issuer: IssuerId,
        now: SystemTime,
    ) -> Result<Vec<Vec<u8>>, TrustError> {
        if let Some((signed, chain)) = &self.sample.chain
            && now.duration_since(*signed).unwrap_or_default() < SIGNED_AGAIN
        {
            return Ok(chain.clone());
        }
        let authority = self.keys.authority(issuer);
        let authority = authority.ok_or(TrustError::NoIssuer { issuer })?;
        let identity = self.shared.live.load().identity.clone();
        // Its key is forgotten at once, and nobody depends on it: it is in no ledger.
        let key = LeafKey::generate()?;
        let leaf = authority.issue(&key.csr(&identity)?, &identity, LIFE, now)?;
        let chain: Vec<Vec<u8>> = leaf.chain().iter().map(|it| it.to_vec()).collect();
        self.sample.chain = Some((now, chain.clone()));
        Ok(chain)
    }
}

/// By which a probe about this anchor is known again.
fn number(anchor: AnchorId) -> u64 {
    let bytes = anchor.as_bytes();
    u64::from_be_bytes([
        bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7],
    ])
}

/// So many are asked: all of a small mesh.
const SAMPLE: usize = 64;
/// More than clocks may be off: who does not accept it then is off by more.
const LIFE: Duration = Duration::from_mins(10);
const SIGNED_AGAIN: Duration = Duration::from_mins(1);
