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
        let (domain, lifetimes) = (&self.settings.trust_domain, Lifetimes::default());
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

    /// A change that is to begin because something would end.
    pub(super) async fn due(&mut self, now: SystemTime) -> Result<Option<Event>, TrustError> {
        let (rotation, lifetimes) = (self.rotation(), Lifetimes::default());
        if rotation.change().is_some() || rotation.restoring_since().is_some() {
            return Ok(None);
        }
        let anchor = rotation.anchors().get(&rotation.active().anchor);
        let issuer = rotation.active().issuers.get(&self.cluster);
        let issuer = issuer.and_then(|issuer| rotation.issuers().get(issuer));
        let ends = |until: UnixTime, margin: Duration| until.before(margin) <= unix(now);
        let anchor_due =
            anchor.is_some_and(|anchor| ends(anchor.not_after, lifetimes.anchor_margin()));
        let issuer_due =
            issuer.is_some_and(|issuer| ends(issuer.not_after, lifetimes.issuer_margin()));
        if !anchor_due && !issuer_due {
            return Ok(None);
        }
        // Without the anchor's key no issuer can be made below it: another anchor is the way on.
        let issuer_only = !anchor_due && self.keys.anchor_pem(rotation.active().anchor).is_some();
        let what = if issuer_only { "issuer" } else { "anchor" };
        info!(what, "begins a change of what would end");
        Ok(Some(self.proposal(issuer_only, now).await?))
    }
}
