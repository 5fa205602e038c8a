//! How a change begins: by an operator, or because something would end. What is to be new is made and kept before the record
//! names it.

use mesh_trust_rotation::audit::Hash as _;

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
            Command::Import(import) => {
                let made = self.imported(&import, now).await?;
                self.start(&made).await
            }
        }
    }

    pub(in crate::trust) async fn proposal(
        &mut self,
        issuer_only: bool,
        now: SystemTime,
    ) -> Result<Event, TrustError> {
        let made = self.made(issuer_only, now)?;
        self.start(&made).await
    }

    /// Keeps what was made, and proposes it.
    pub(super) async fn start(&mut self, made: &Made) -> Result<Event, TrustError> {
        let mut proposal = made.proposal(&self.cluster)?;
        proposal.canaries = self.canaries();
        self.keys.keep(made).await?;
        Ok(Event::Start(Box::new(proposal)))
    }

    fn made(&self, issuer_only: bool, now: SystemTime) -> Result<Made, TrustError> {
        let lifetimes = settings::lifetimes(&self.settings);
        let domain = &self.settings.trust_domain;
        if let Some(outside) = &self.outside {
            let folder = outside.source().folder.clone();
            return Err(TrustError::MadeOutside { folder });
        }
        if !issuer_only {
            return Keys::make(domain, lifetimes, now);
        }
        let anchor = self.rotation().active().anchor;
        self.keys.make_issuer(anchor, domain, lifetimes, now)
    }

    /// What a change would go through if it began now. Nothing is kept of it.
    pub(in crate::trust) fn planned(
        &self,
        issuer_only: bool,
        now: SystemTime,
    ) -> Result<(Vec<Step>, BTreeSet<WorkloadId>), CommandError> {
        let mut proposal = self.made(issuer_only, now)?.proposal(&self.cluster)?;
        proposal.canaries = self.canaries();
        let canaries = proposal.canaries.clone();
        let mut rotation = self.rotation().clone();
        let started = rotation.handle(unix(now), Event::Start(Box::new(proposal)));
        started.map_err(NotRecorded::from)?;
        Ok((rotation.plan(unix(now)), canaries))
    }

    /// Who goes first: those that the manifests name, and a share of all, another one with each anchor.
    fn canaries(&self) -> BTreeSet<WorkloadId> {
        let schedule = &self.settings.rotation;
        let rotation = self.rotation();
        let fit = rotation.consumers().iter().filter(|(_, known)| {
            known.class == Class::Reloading && known.standing == Standing::Required
        });
        let fit: Vec<&WorkloadId> = fit.map(|(id, _)| id).collect();
        let named = |id: &&&WorkloadId| {
            let name = id.as_str().split_once('@').map(|(name, _)| name);
            name.is_some_and(|name| schedule.canaries.iter().any(|one| one == name))
        };
        let share = (fit.len() * usize::from(schedule.canary_percent)).div_ceil(100);
        let active = rotation.active().anchor;
        let place = |id: &WorkloadId| {
            let text = format!("{active} {id}");
            *Sha256.digest(text.as_bytes()).as_bytes()
        };
        let mut shuffled = fit.clone();
        shuffled.sort_by_cached_key(|id| place(id));
        let shuffled = shuffled.into_iter().take(share);
        let named = fit.iter().filter(named).copied();
        named.chain(shuffled).cloned().collect()
    }

    /// A change that is to begin because the schedule says so.
    pub(super) async fn due(&mut self, now: SystemTime) -> Result<Option<Event>, TrustError> {
        if self.outside.is_some() {
            return self.offered(now).await;
        }
        let (at, rotation) = (unix(now), self.rotation());
        if rotation.change().is_some() || rotation.restoring_since().is_some() {
            return Ok(None);
        }
        let next = schedule::next(rotation, &self.cluster, &self.settings, self.root(), at);
        let Some(next) = next.filter(|next| next.is_due(at, &self.settings)) else {
            return Ok(None);
        };
        let held = self.held_since.is_some_and(|since| {
            let until = since.after(HELD);
            at < since.after(HELD_AT_LEAST) || (at < until && next.can_wait(until))
        });
        if held {
            return Ok(None);
        }
        // Without the anchor's key no issuer can be made below it: another anchor is the way on.
        let issuer_only = next.kind == Kind::Issuer && self.root() == Root::Here;
        let what = if issuer_only { "issuer" } else { "anchor" };
        info!(what, "begins a change by the schedule");
        Ok(Some(self.proposal(issuer_only, now).await?))
    }

    /// Has the schedule wait for a while: something does not go as it should, or an operator wanted it undone.
    pub(super) fn hold(&mut self, at: UnixTime) {
        self.held_since = Some(at);
    }
}

pub(super) const HELD: Duration = Duration::from_mins(10);
/// However late it is: keys are made with every attempt.
const HELD_AT_LEAST: Duration = Duration::from_mins(1);
