//! Leading, or following another who leads: the record is everybody's, and only the one who leads has it advance.

use super::*;

impl Driver {
    /// Sees who leads and what others have written. Where this controller is the only one, nothing has changed.
    pub(super) async fn stand(&mut self, now: SystemTime) -> Result<(), TrustError> {
        let Some(election) = self.place.election.clone() else {
            return Ok(());
        };
        self.stored.follow().await?;
        let term = self.place.term();
        if term.is_some() && term != self.term {
            self.leads = false;
            self.epoch = lead(&mut self.stored, unix(now)).await?;
            // An anchor's key may have been put away by whoever led, too.
            self.keys.read().await?;
            info!(epoch = ?self.epoch, "drives the record of trust");
        }
        (self.leads, self.term) = (term.is_some(), term);
        let epoch = self.rotation().epoch();
        if self.leads && epoch != self.epoch {
            // Another has led meanwhile: it is for the store to say who does now.
            (self.leads, self.term) = (false, None);
        }
        if !self.leads {
            self.epoch = epoch;
        }
        self.members = if self.leads {
            let names = election.store.members().await?;
            let ids = names.iter().map(|name| consumers::controller(Some(name)));
            Some(ids.collect())
        } else {
            None
        };
        if let Some(outside) = self.outside.as_mut().filter(|_| !self.leads) {
            // Only who leads looks.
            outside.standing = None;
        }
        let rotation = self.stored.record.rotation();
        self.keys.follow(rotation, self.leads).await?;
        let given = (served(rotation), rotation.bundles().canary());
        if self.followed != Some(given) && given.0 >= self.given_out() {
            self.give_out(given.0)?;
            self.followed = Some(given);
        }
        Ok(())
    }

    /// What says that another has written, or that somebody else leads.
    pub(super) fn wake_with_others(&self, mut stop: channel::Receiver<bool>) {
        let Some(election) = self.place.election.clone() else {
            return;
        };
        let (shared, news) = (self.shared.clone(), self.stored.news());
        tokio::spawn(async move {
            let mut terms = election.store.terms();
            let watch = async {
                loop {
                    let written = |revision| {
                        news.written(revision);
                        shared.wake.notify_one();
                    };
                    let watched = election.store.changes(KEY, written).await;
                    news.nothing();
                    if let Err(error) = watched {
                        info!(%error, "the record of trust is not watched now");
                    }
                    time::sleep(AFTER_FAILURE).await;
                }
            };
            tokio::pin!(watch);
            loop {
                tokio::select! {
                    () = &mut watch => return,
                    // Not with each renewal of the lease.
                    changed = terms.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        shared.wake.notify_one();
                    }
                    () = stopped(&mut stop) => return,
                }
            }
        });
    }

    /// Says who leads, to somebody who wants what only that one does.
    pub(super) async fn follows(&self) -> Option<TrustError> {
        let election = self.place.election.as_ref().filter(|_| !self.leads)?;
        let leader = election.store.leader().await.ok().flatten();
        Some(TrustError::Follows {
            leader: leader.unwrap_or_else(|| "nobody".to_owned()),
        })
    }
}

/// Begins an epoch: whoever led before is refused from then on.
pub(super) async fn lead(stored: &mut Stored, at: UnixTime) -> Result<Epoch, TrustError> {
    loop {
        let mut record = Record::clone(&stored.record);
        let epoch = record.rotation().epoch().next();
        record.apply(epoch, at, ACTOR, Event::Lead(epoch), &Sha256)?;
        if stored.write(record, true).await? {
            return Ok(epoch);
        }
    }
}
