//! What the machine's actions do here.

use std::time::{Duration, SystemTime};

use mesh_control_api::trust as api;
use mesh_trust_rotation::{
    Action, AnchorId, Digest, Event, IssuerId, Record, Scope, UnixTime, WorkloadId, crypto::Sha256,
};
use tracing::{info, warn};

use super::{
    TrustError,
    driver::{Driver, Order},
    unix,
};

impl Driver {
    /// Does what is due, and puts on record what is seen of it.
    ///
    /// # Errors
    /// Any [`TrustError`]; what was not confirmed is due again with the next turn.
    pub(super) async fn act(&mut self, now: SystemTime) -> Result<(), TrustError> {
        let at = unix(now);
        let rotation = self.stored.record.rotation();
        let mut confirmations = Vec::new();
        for action in rotation.pending(at) {
            // Who does not lead tells those who are on its own streams, and does nothing else.
            let told = matches!(
                action,
                Action::Reissue { .. } | Action::DrainConnections { .. } | Action::Restart { .. }
            );
            if !self.leads && !told {
                continue;
            }
            #[cfg(test)]
            self.passes(&action)?;
            if let Some(event) = self.carry_out(&action, now).await? {
                confirmations.push(event);
            }
            #[cfg(test)]
            self.passes(&action)?;
        }
        while !confirmations.is_empty() {
            let mut record = Record::clone(&self.stored.record);
            for event in &confirmations {
                let taken = record.apply(self.epoch, at, ACTOR, event.clone(), &Sha256);
                if let Err(error) = taken {
                    info!(%error, "a confirmation is not taken into the record of trust");
                }
            }
            if record == *self.stored.record || self.stored.write(record, self.leads).await? {
                break;
            }
        }
        let rotation = self.stored.record.rotation();
        if rotation.change().is_none() {
            self.asked.clear();
        }
        if !self.leads {
            return Ok(());
        }
        let known = rotation.consumers();
        self.renewed.retain(|id, _| known.contains_key(id));
        // Keys of what has ended, and of what was proposed and refused.
        self.keys.sweep(rotation).await
    }

    /// Before and after each action, for what watches them.
    #[cfg(test)]
    fn passes(&self, action: &Action) -> Result<(), TrustError> {
        let Some(watched) = &self.watched else {
            return Ok(());
        };
        watched(action).map_err(TrustError::Store)
    }

    async fn carry_out(
        &mut self,
        action: &Action,
        now: SystemTime,
    ) -> Result<Option<Event>, TrustError> {
        let at = unix(now);
        match action {
            Action::Publish {
                scope, generation, ..
            } => {
                let all = match scope {
                    Scope::All => *generation,
                    Scope::Canaries => self.given_out(),
                };
                self.give_out(all)?;
            }
            // It was made by a value that signs with it and verifies what it signed, or it would not be here.
            Action::VerifyIssuer { issuer } if self.keys.authority(*issuer).is_none() => {
                return Ok(None);
            }
            Action::MakeBridge { subject, signer } => {
                return match self.keys.bridge(*subject, *signer, now).await {
                    Ok(bridge) => Ok(Some(Event::BridgeMade(bridge))),
                    Err(error @ TrustError::Store(_)) => Err(error),
                    // It stands in the way by name.
                    Err(error) => {
                        warn!(%error, "a cross-certificate cannot be made");
                        Ok(None)
                    }
                };
            }
            Action::RetireAnchor { anchor } => {
                info!(?anchor, "retires a trust anchor");
                self.keys.remove_anchor(*anchor).await?;
            }
            Action::SwitchIssuer { issuer, .. } => info!(?issuer, "signs with another issuer"),
            Action::Reissue { workloads, within } => {
                let to = self.stored.record.rotation().change().and_then(|change| {
                    let issuer = change.to.issuers.get(&self.cluster);
                    issuer.copied()
                });
                for id in workloads {
                    self.ask_to_renew(id, *within, to, at);
                }
            }
            Action::DrainConnections {
                workload,
                anchor,
                cut,
            } => self.ask_to_drain(workload, *anchor, *cut, at),
            Action::Restart { workloads, .. } => {
                for workload in workloads {
                    if self.asks(workload, Order::Restart, at) {
                        warn!(%workload, "reads roots only at start: start it again");
                    }
                }
            }
            _ => {}
        }
        let none = Digest::new([0; 32]);
        let mut missing = None;
        let done = action.done(|anchors| {
            self.keys.digest(anchors).unwrap_or_else(|error| {
                missing = Some(error);
                none
            })
        });
        match missing {
            Some(error) => Err(error),
            None => Ok(done),
        }
    }

    fn ask_to_drain(&mut self, id: &WorkloadId, anchor: AnchorId, cut: bool, at: UnixTime) {
        if !self.asks(id, Order::Drain(anchor), at) {
            return;
        }
        // What is cut is told to end before: a request that is underway then ends as it would have.
        let (mode, within) = if cut {
            (api::drain::Mode::Cut, CUT_AFTER.try_into().ok())
        } else {
            (api::drain::Mode::Wait, None)
        };
        let drain = api::Drain {
            anchor: anchor.as_bytes().to_vec(),
            mode: mode.into(),
            within,
        };
        let update = api::Update {
            drains: vec![drain],
            ..api::Update::default()
        };
        self.shared.sessions.tell(id, update);
    }

    fn ask_to_renew(
        &mut self,
        id: &WorkloadId,
        within: Duration,
        to: Option<IssuerId>,
        at: UnixTime,
    ) {
        if *id == self.own.id {
            self.own.wanted = true;
            return;
        }
        let Some(issuer) = to else { return };
        if self.asks(id, Order::Reissue(issuer), at) {
            let reissue = api::Reissue {
                within: within.try_into().ok(),
                issuer: issuer.as_bytes().to_vec(),
            };
            let update = api::Update {
                reissue: Some(reissue),
                ..api::Update::default()
            };
            self.shared.sessions.tell(id, update);
        }
    }
}

const ACTOR: &str = "controller";
/// How long connections that are to be cut have to end by themselves.
const CUT_AFTER: Duration = Duration::from_secs(5);
