//! Changes to what an outside authority has written.

use super::*;

impl Driver {
    /// Where the key of the anchor in use is.
    pub(super) fn root(&self) -> Root {
        let anchor = self.rotation().active().anchor;
        match (&self.outside, self.keys.signs(anchor)) {
            (Some(_), _) => Root::Outside,
            (None, true) => Root::Here,
            (None, false) => Root::PutAway,
        }
    }

    /// Looks at what was written; a change to it, if one is to begin now.
    ///
    /// # Errors
    /// Any [`TrustError`].
    pub(super) async fn offered(&mut self, now: SystemTime) -> Result<Option<Event>, TrustError> {
        let at = unix(now);
        let rotation = self.rotation();
        // Away from a key in other hands leads anything, at once.
        let active = rotation.anchors().get(&rotation.active().anchor);
        let lost = active.is_some_and(|anchor| anchor.tainted.is_some());
        let held = !lost && self.held_since.is_some_and(|since| at < since.after(HELD));
        let frozen = !lost && self.is_frozen(now);
        let rotation = self.stored.record.rotation();
        let Some(outside) = &mut self.outside else {
            return Ok(None);
        };
        let active = rotation.active().anchor;
        let (mut made, mut word, mut detail) = (None, "unsettled", String::new());
        match outside.look(now) {
            None => {}
            Some(Err(fault)) => (word, detail) = ("refused", fault.to_string()),
            Some(Ok(offer)) => {
                let issuer = self.keys.authority(offer.issuer_id());
                let issuer = issuer.map(|authority| authority.issuer().certificate());
                let held_here = |anchor| self.keys.certificate(anchor);
                match verdict(offer, rotation, held_here, issuer, at) {
                    Verdict::InForce => word = "in force",
                    Verdict::Changing => word = "changing",
                    Verdict::Waits(why) => (word, detail) = ("waits", why),
                    Verdict::Refused(fault) => (word, detail) = ("refused", fault.to_string()),
                    Verdict::Begins if rotation.restoring_since().is_some() => {
                        let why = "what is in force is learned after a restore from a backup";
                        (word, detail) = ("waits", why.to_owned());
                    }
                    Verdict::Begins if held => {
                        let why = "a change was undone, or could not begin; another attempt is made ten minutes later";
                        (word, detail) = ("waits", why.to_owned());
                    }
                    Verdict::Begins if frozen => {
                        (word, detail) = ("waits", "until the freeze ends".to_owned());
                    }
                    Verdict::Begins => {
                        word = "changing";
                        let new = offer.anchor_id() != active;
                        info!(anchor = %offer.anchor_id(), new, issuer = %offer.issuer_id(), "begins a change to what the outside authority wrote");
                        made = Some(offer.made(Some(active))?);
                    }
                }
            }
        }
        if outside.stands(word, detail.clone(), now) {
            match word {
                "refused" => {
                    error!(
                        detail,
                        "what the outside authority wrote is not used; what is in force stays"
                    );
                }
                "unsettled" => {}
                _ => info!(word, detail, "looked at what the outside authority wrote"),
            }
        }
        match made {
            None => Ok(None),
            Some(made) => self.start(&made).await.map(Some),
        }
    }

    /// Whether a freeze holds changes back that do not have to be now.
    fn is_frozen(&self, now: SystemTime) -> bool {
        let needed = schedule::needed_by(self.rotation(), &self.cluster, &self.settings);
        needed.is_none_or(|needed| unix(now) < needed) && self.settings.rotation.freeze.covers(now)
    }
}
