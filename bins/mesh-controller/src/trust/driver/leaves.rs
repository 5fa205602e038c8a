//! Leaves for those who ask: entered in the ledger, then signed.

use super::*;

/// A request for a leaf on its way through a turn.
pub(super) struct Asked {
    pub(super) id: WorkloadId,
    pub(super) ask: Ask,
    pub(super) answer: Answer<IssuedLeaf, CertifyError>,
    pub(super) verdict: Option<Result<Action, CertifyError>>,
}

impl Asked {
    /// If it says so.
    pub(super) fn incarnation(&self) -> Option<Incarnation> {
        self.ask.process.as_ref().map(|process| process.incarnation)
    }
}

impl Driver {
    pub(super) fn asked(&mut self, ask: Ask, answer: Answer<IssuedLeaf, CertifyError>) -> Asked {
        let id = match &ask.process {
            Some(process) => process.id(&ask.identity, self.rotation()),
            None => consumers::start_only(&ask.identity),
        };
        Asked {
            id,
            ask,
            answer,
            verdict: None,
        }
    }

    /// Enters a leaf in the ledger.
    pub(super) fn certified(
        &self,
        record: &mut Record,
        at: UnixTime,
        asked: &Asked,
        names: &mut Names,
    ) -> Result<Action, CertifyError> {
        if let Some(event) = self.returns(record.rotation(), asked) {
            self.take(record, at, event);
        }
        let rotation = record.rotation();
        if !names.admit(rotation, &asked.id) {
            let identity = asked.ask.identity.clone();
            return Err(CertifyError::TooManyNames { identity });
        }
        let (class, incarnation, loaded, accepted) = match &asked.ask.process {
            Some(process) => (
                Class::Reloading,
                process.incarnation,
                process.loaded(rotation),
                None,
            ),
            None => {
                let accepted = match asked.ask.accepted {
                    Shown::Chain(anchor) => anchor,
                    // It could not have come by its roots but from here.
                    Shown::Local => Some(incumbent(rotation)),
                };
                // Which process it is, only probes tell.
                let known = rotation.consumers().get(&asked.id);
                let incarnation = known.map_or(Incarnation(1), |known| known.incarnation);
                (Class::StartOnly, incarnation, None, accepted)
            }
        };
        let request = LeafRequest {
            workload: asked.id.clone(),
            cluster: self.cluster.clone(),
            class,
            incarnation,
            loaded,
            accepted,
        };
        let actions = self.apply(record, at, ACTOR, Event::Certify(request));
        match actions {
            Ok(actions) => actions.into_iter().next().ok_or(CertifyError::Unavailable),
            Err(NotRecorded::Refused(refusal)) => Err(CertifyError::Refused(refusal)),
            Err(error) => {
                error!(%error, "a leaf cannot be entered in the ledger");
                Err(CertifyError::Unavailable)
            }
        }
    }

    /// How somebody who was quarantined comes back.
    fn returns(&self, rotation: &Rotation, asked: &Asked) -> Option<Event> {
        let workload = asked.id.clone();
        let Standing::Quarantined { cause, .. } = rotation.consumers().get(&workload)?.standing
        else {
            return None;
        };
        match (cause, &asked.ask.process) {
            // Its lease is at least as long as a leaf, so it holds nothing; it has proven itself anew, and is admitted as anybody.
            (Cause::LeaseLapsed, _) => Some(Event::Left(workload)),
            // It may hold a leaf that is not to be believed any more: only another process with a token joins again.
            (Cause::Operator, Some(process)) if asked.ask.joins => Some(Event::Rejoined {
                workload,
                incarnation: process.incarnation,
                loaded: process.loaded(rotation)?,
            }),
            _ => None,
        }
    }

    /// Signs what is in the ledger now, and hands it over.
    pub(super) fn release(&mut self, asked: Asked, now: SystemTime) {
        let Asked {
            id,
            ask,
            answer,
            verdict,
        } = asked;
        let leaf = match verdict {
            Some(Ok(sign @ Action::Sign { .. })) => {
                self.renewed.insert(id, unix(now));
                self.sign(&ask.csr, &ask.identity, &sign, now)
                    .inspect(|leaf| self.shared.issued.note(&ask.csr, unix(leaf.not_after())))
                    .map_err(|error| match error {
                        TrustError::Tls(error) => CertifyError::Tls(error),
                        error => {
                            error!(%error, "cannot sign");
                            CertifyError::Unavailable
                        }
                    })
            }
            Some(Err(error)) => Err(error),
            _ => Err(CertifyError::Unavailable),
        };
        // Who has gone away meanwhile has a leaf in the ledger that nobody got: the ledger may say more than there is.
        drop(answer.send(leaf));
    }

    pub(super) fn sign(
        &self,
        csr: &[u8],
        identity: &Identity,
        sign: &Action,
        now: SystemTime,
    ) -> Result<IssuedLeaf, TrustError> {
        let Action::Sign {
            issuer,
            not_after,
            bridge,
            ..
        } = sign
        else {
            return Err(TrustError::Incomplete);
        };
        let issuer = *issuer;
        let authority = self.keys.authority(issuer);
        let authority = authority.ok_or(TrustError::NoIssuer { issuer })?;
        let lifetime = not_after.since(unix(now));
        let leaf = authority.issue(csr, identity, lifetime, now)?;
        let Some(bridge) = bridge else {
            return Ok(leaf);
        };
        let cross = self.keys.cross(bridge);
        let missing = TrustError::NoBridge {
            subject: bridge.subject,
            signer: bridge.signer,
        };
        Ok(leaf.with_cross(cross.ok_or(missing)?.clone()))
    }
}

/// The anchor that everybody had accepted before the change underway.
fn incumbent(rotation: &Rotation) -> AnchorId {
    rotation
        .change()
        .map_or(rotation.active().anchor, |change| change.incumbent)
}
