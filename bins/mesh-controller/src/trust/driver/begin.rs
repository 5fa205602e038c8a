//! How a change begins: by an operator, or because something would end. What is to be new is made and kept before the record
//! names it.

use super::*;

impl Driver {
    /// An operator's word as an event. What is to be new is made and kept before the record names it.
    pub(super) async fn prepared(
        &mut self,
        command: Command,
        now: SystemTime,
    ) -> Result<Event, TrustError> {
        if let Some(error) = self.follows().await {
            return Err(error);
        }
        match command {
            Command::Event(event) => Ok(*event),
            Command::Rotate { issuer_only } => self.proposal(issuer_only, now).await,
        }
    }

    pub(super) async fn proposal(
        &mut self,
        issuer_only: bool,
        now: SystemTime,
    ) -> Result<Event, TrustError> {
        let lifetimes = settings::lifetimes(&self.settings);
        let domain = &self.settings.trust_domain;
        let made = if issuer_only {
            let anchor = self.rotation().active().anchor;
            self.keys.make_issuer(anchor, domain, lifetimes, now)?
        } else {
            Keys::make(domain, lifetimes, now)?
        };
        let proposal = made.proposal(&self.cluster)?;
        self.keys.keep(&made).await?;
        Ok(Event::Start(Box::new(proposal)))
    }

    /// A change that is to begin because the schedule says so.
    pub(super) async fn due(&mut self, now: SystemTime) -> Result<Option<Event>, TrustError> {
        let (at, rotation) = (unix(now), self.rotation());
        if rotation.change().is_some() || rotation.restoring_since().is_some() {
            return Ok(None);
        }
        let next = schedule::next(rotation, &self.cluster, &self.settings);
        let Some(next) = next.filter(|next| next.is_due(at, &self.settings)) else {
            return Ok(None);
        };
        if self
            .held_until
            .is_some_and(|until| at < until && next.can_wait(until))
        {
            return Ok(None);
        }
        // Without the anchor's key no issuer can be made below it: another anchor is the way on.
        let held = self.keys.anchor_pem(rotation.active().anchor).is_some();
        let issuer_only = next.kind == Kind::Issuer && held;
        let what = if issuer_only { "issuer" } else { "anchor" };
        info!(what, "begins a change by the schedule");
        Ok(Some(self.proposal(issuer_only, now).await?))
    }

    /// Has the schedule wait for a while: something does not go as it should, or an operator wanted it undone.
    pub(super) fn hold(&mut self, at: UnixTime) {
        self.held_until = Some(at.after(HELD));
    }
}

const HELD: Duration = Duration::from_mins(10);
