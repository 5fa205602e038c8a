//! The loop: read, gather, handle, write, act, confirm. It has the shape of the machine's own driver, around a store that is
//! asynchronous, and answers requests for leaves between writing and acting.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use mesh_tls::{
    CredentialWriter, Identity, LeafKey, Tls, TrustBundle, TrustDomain, TrustWriter,
    ca::IssuedLeaf, credential_store, trust_store,
};
use mesh_trust_rotation::{
    Action, AnchorId, Cause, Change, Class, ClusterId, Connections, Epoch, Event, Generation, Incarnation,
    IssuerId, Loaded, NotRecorded, Phase, Record, Report, Request as LeafRequest, Rotation,
    Standing, UnixTime, WorkloadId, crypto::Sha256,
};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch as channel},
    time,
};
use tracing::{error, info, warn};

use super::{
    Ask, CertifyError, Command, CommandError, Given, Live, Published, Request, Shared, Shown,
    Trust, TrustError,
    audit::Archive,
    consumers::{self, Reported, Sessions},
    keys::{self, Keys, Lifetimes},
    record::{Stored, cluster},
    settings, system, unix,
};
use crate::{
    data_folder::DataFolder,
    listener::stopped,
    mesh::{Mesh, Settings},
    store::StateStore,
};

/// The one task that decides. It owns the record, the keys and the controller's own leaf.
pub(crate) struct Driver {
    pub(super) stored: Stored,
    pub(super) keys: Keys,
    pub(super) shared: Arc<Shared>,
    pub(super) epoch: Epoch,
    pub(super) cluster: ClusterId,
    pub(super) own: Own,
    /// What was asked of whom, and when: it is asked again, but not with every turn.
    pub(super) asked: BTreeMap<(WorkloadId, Order), UnixTime>,
    settings: Settings,
    requests: mpsc::Receiver<Request>,
    data: Option<(DataFolder, Archive)>,
    /// When start-only consumers last got a leaf; for those that were there before, when this driver began.
    renewed: BTreeMap<WorkloadId, UnixTime>,
    began: UnixTime,
    /// Workloads in the manifests, and those that were in them before.
    listed: BTreeSet<WorkloadId>,
    removed: BTreeSet<WorkloadId>,
}

/// The controller as one of those who have a leaf and trust.
pub(super) struct Own {
    key: LeafKey,
    credentials: CredentialWriter,
    bundle: TrustWriter,
    leaf: Option<OwnLeaf>,
    incarnation: Incarnation,
    sequence: u64,
    /// What it said last: nothing is said twice in short order.
    said: Option<(Loaded, Option<IssuerId>, Option<Phase>, UnixTime)>,
    /// The machine wants it to renew.
    pub(super) wanted: bool,
}

struct OwnLeaf {
    identity: Identity,
    issuer: IssuerId,
    anchor: AnchorId,
    not_before: SystemTime,
    not_after: SystemTime,
}

/// What a consumer can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Order {
    Reissue(IssuerId),
    Drain(AnchorId),
    Restart,
}

type Answer<T, E> = oneshot::Sender<Result<T, E>>;

/// A request for a leaf on its way through a turn.
struct Asked {
    id: WorkloadId,
    ask: Ask,
    answer: Answer<IssuedLeaf, CertifyError>,
    verdict: Option<Result<Action, CertifyError>>,
}

/// An operator's word on its way through a turn.
struct Told {
    event: Event,
    answer: Answer<(), CommandError>,
    verdict: Option<Result<(), NotRecorded>>,
}

impl Driver {
    pub(super) async fn open(
        store: Arc<dyn StateStore>,
        settings: &Settings,
        now: SystemTime,
    ) -> Result<(Trust, Self), TrustError> {
        let pace = settings::pace(settings);
        let mut keys = Keys::open(store.clone()).await?;
        let domain = &settings.trust_domain;
        let mut stored = Stored::open(store, &mut keys, domain, &pace, now).await?;
        // The store has one owner, who has just been given it: whoever led before does not any more.
        let epoch = loop {
            let mut record = Record::clone(&stored.record);
            let epoch = record.rotation().epoch().next();
            record.apply(epoch, unix(now), ACTOR, Event::Lead(epoch), &Sha256)?;
            if stored.write(record).await? {
                break epoch;
            }
        };
        keys.sweep(stored.record.rotation()).await?;

        let rotation = stored.record.rotation();
        let generation = served(rotation);
        let published = published(&keys, rotation, generation, domain)?;
        let bundle = bundle(&published.all)?;
        let (bundle_writer, trust) = trust_store(bundle.clone());
        let (credentials, credential_reader) = credential_store();
        let identity = own_identity(domain)?;
        let live = Live {
            trust_domain: domain.clone(),
            identity,
            bundle,
            record: stored.record.clone(),
            anchor_not_after: now,
            issuer_not_after: now,
            own_anchor: None,
        };
        let shared = Arc::new(Shared {
            live: ArcSwap::from_pointee(live),
            published: channel::channel(Arc::new(published)).0,
            signer: keys.bundle_signer().clone(),
            sessions: Sessions::default(),
            reports: Mutex::default(),
            wake: Notify::new(),
            turns: channel::channel(0).0,
        });
        let (sender, requests) = mpsc::channel(MAX_REQUESTS);
        let since = now.duration_since(SystemTime::UNIX_EPOCH);
        let micros = since.unwrap_or_default().as_micros();
        let own = Own {
            key: LeafKey::generate()?,
            credentials,
            bundle: bundle_writer,
            leaf: None,
            incarnation: Incarnation(u64::try_from(micros).unwrap_or(u64::MAX)),
            sequence: 0,
            said: None,
            wanted: false,
        };
        let mut driver = Self {
            stored,
            keys,
            shared: shared.clone(),
            epoch,
            cluster: cluster(),
            own,
            asked: BTreeMap::new(),
            settings: settings.clone(),
            requests,
            data: None,
            renewed: BTreeMap::new(),
            began: unix(now),
            listed: BTreeSet::new(),
            removed: BTreeSet::new(),
        };
        driver.turn(now, Vec::new()).await?;
        let trust = Trust {
            shared,
            requests: sender,
            tls: Tls::new(trust, credential_reader),
        };
        Ok((trust, driver))
    }

    /// Writes what others read into the data folder, now and with every change.
    ///
    /// # Errors
    /// [`TrustError::Data`].
    pub(crate) fn write_to(&mut self, data: DataFolder) -> Result<(), TrustError> {
        let live = self.shared.live.load();
        data.write_anchors(&live.bundle.to_pem())?;
        data.write_bundle_key(self.shared.signer.public_key())?;
        let mut archive = Archive::open(&data.audit())?;
        archive.append(self.stored.record.audit())?;
        self.data = Some((data, archive));
        Ok(())
    }

    /// Decides until `stop` turns true.
    pub(crate) async fn run(mut self, mesh: Arc<Mesh>, mut stop: channel::Receiver<bool>) {
        let mut changes = mesh.changes();
        let mut batch = Vec::new();
        let shared = self.shared.clone();
        loop {
            let pause = if self.rotation().change().is_some() {
                CHANGE_INTERVAL
            } else {
                IDLE_INTERVAL
            };
            tokio::select! {
                received = self.requests.recv_many(&mut batch, MAX_REQUESTS) => {
                    if received == 0 {
                        return;
                    }
                }
                () = shared.wake.notified() => {
                    // Reports come in crowds; a moment later there are more of them.
                    time::sleep(REPORTS_SETTLE).await;
                }
                changed = changes.changed() => if changed.is_err() { return },
                () = time::sleep(pause) => {}
                () = stopped(&mut stop) => return,
            }
            while batch.len() < MAX_REQUESTS
                && let Ok(request) = self.requests.try_recv()
            {
                batch.push(request);
            }
            self.follow_settings((*mesh.settings()).clone());
            self.follow(listed(&mesh));
            match self
                .turn(SystemTime::now(), std::mem::take(&mut batch))
                .await
            {
                Ok(()) => {}
                Err(error @ TrustError::Deposed { .. }) => {
                    error!(%error, "nothing is issued here any more");
                    return;
                }
                Err(error) => {
                    error!(%error, "cannot go on with trust; what is in use stays");
                    time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    /// Takes one turn.
    ///
    /// # Errors
    /// Any [`TrustError`]. Whoever asked for something in it is told that it cannot be had now.
    pub(super) async fn turn(
        &mut self,
        now: SystemTime,
        batch: Vec<Request>,
    ) -> Result<(), TrustError> {
        let at = unix(now);
        let reports = self.shared.take_reports();
        let (mut asks, mut told) = (Vec::new(), Vec::new());
        for request in batch {
            match request {
                Request::ExportRoot(answer) => {
                    let anchor = self.rotation().active().anchor;
                    let held = self.keys.anchor_pem(anchor);
                    let none = TrustError::NoAnchorKey { anchor };
                    drop(answer.send(held.ok_or_else(|| none.into())));
                }
                Request::Certify(ask, answer) => asks.push(self.asked(ask, answer)),
                Request::Command(command, answer) => match self.prepared(command, now).await {
                    Ok(event) => told.push(Told {
                        event,
                        answer,
                        verdict: None,
                    }),
                    Err(error) => drop(answer.send(Err(error.into()))),
                },
            }
        }
        let due = self.due(now).await?;
        let own_ask = self.own_request(now);
        let own_leaf = loop {
            let mut record = Record::clone(&self.stored.record);
            let leads = record.rotation().epoch();
            if leads != self.epoch {
                return Err(TrustError::Deposed { epoch: leads });
            }
            self.gather(&mut record, at, &reports);
            for told in &mut told {
                let taken = self.apply(&mut record, at, OPERATOR, told.event.clone());
                told.verdict = Some(taken.map(|_| ()));
            }
            if let Some(event) = &due {
                self.take(&mut record, at, event.clone());
            }
            let own_leaf = own_ask.clone().and_then(|ask| {
                let signed = self.apply(&mut record, at, ACTOR, Event::Certify(ask));
                let signed = signed.inspect_err(
                    |error| warn!(%error, "the controller's own certificate is not renewed now"),
                );
                signed.ok()?.into_iter().next()
            });
            for asked in &mut asks {
                asked.verdict = Some(self.certified(&mut record, at, asked));
            }
            self.take(&mut record, at, Event::Tick);
            if record == *self.stored.record || self.stored.write(record).await? {
                break own_leaf;
            }
        };
        for told in told {
            let verdict = told.verdict.unwrap_or(Ok(()));
            drop(told.answer.send(verdict.map_err(CommandError::from)));
        }
        if let Some(sign) = own_leaf {
            self.certify_itself(&sign, now)?;
        }
        for asked in asks {
            self.release(asked, now);
        }
        self.act(now).await?;
        self.show(now)
    }

    pub(super) fn follow_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    #[cfg(test)]
    pub(super) async fn next_request(&mut self) -> Request {
        self.requests.recv().await.unwrap()
    }

    /// Takes note of which workloads are in the manifests.
    fn follow(&mut self, listed: BTreeSet<WorkloadId>) {
        if listed != self.listed {
            let gone = self.listed.difference(&listed).cloned();
            self.removed.extend(gone);
            self.removed.retain(|id| !listed.contains(id));
            self.listed = listed;
        }
    }

    /// Has the machine take an event on behalf of the epoch that this controller leads under.
    fn apply(
        &self,
        record: &mut Record,
        at: UnixTime,
        actor: &str,
        event: Event,
    ) -> Result<Vec<Action>, NotRecorded> {
        record.apply(self.epoch, at, actor, event, &Sha256)
    }

    /// The same for what is only told: if it is refused there is nothing to be done about it but to say so.
    fn take(&self, record: &mut Record, at: UnixTime, event: Event) {
        if let Err(error) = self.apply(record, at, ACTOR, event) {
            info!(%error, "not taken into the record of trust");
        }
    }

    fn rotation(&self) -> &Rotation {
        self.stored.record.rotation()
    }

    /// Everything that is known without being asked.
    fn gather(&self, record: &mut Record, at: UnixTime, reports: &BTreeMap<WorkloadId, Reported>) {
        let pace = settings::pace(&self.settings);
        if record.rotation().change().is_none() && *record.rotation().settings() != pace {
            self.take(record, at, Event::Configure(Box::new(pace)));
        }
        for event in self.leases(record.rotation(), at) {
            self.take(record, at, event);
        }
        if let Some(event) = self.inventory(record.rotation(), at) {
            self.take(record, at, event);
        }
        if let Some(event) = self.own_report(record.rotation(), at) {
            self.take(record, at, event);
        }
        for (id, reported) in reports {
            let (process, received) = (&reported.process, unix(reported.at));
            if !record.rotation().consumers().contains_key(id) {
                let joined = Event::Joined {
                    workload: id.clone(),
                    cluster: self.cluster.clone(),
                    class: Class::Reloading,
                    incarnation: process.incarnation,
                };
                self.take(record, at, joined);
            }
            let report = reported.evidence(record.rotation(), received);
            let said = Event::said(id, process.incarnation, report);
            self.take(record, at, said);
        }
        for id in self.gone(record.rotation(), at) {
            self.take(record, at, Event::Left(id));
        }
    }

    /// Leases to sign that are wanted for another while, and those that are given back.
    fn leases(&self, rotation: &Rotation, at: UnixTime) -> Vec<Event> {
        let Some(here) = rotation.clusters().get(&self.cluster) else {
            return Vec::new();
        };
        let cluster = || self.cluster.clone();
        let authorised = rotation.authorised(&self.cluster);
        let soon = at.after(rotation.settings().signing_lease / 2);
        let lapses = |issuer: &IssuerId| {
            let lease = here
                .ledger
                .get(issuer)
                .and_then(|ledger| ledger.lease_until);
            lease.is_none_or(|until| until < soon)
        };
        let wanted = authorised.iter().filter(|issuer| lapses(issuer));
        let mut events: Vec<Event> = wanted
            .map(|issuer| Event::SigningLease {
                cluster: cluster(),
                issuer: *issuer,
            })
            .collect();
        // It signs in this task, so what it has signed is what is in the ledger.
        let unused = here.ledger.iter().filter(|(issuer, ledger)| {
            ledger.lease_until.is_some() && !authorised.contains(issuer)
        });
        events.extend(unused.map(|(issuer, ledger)| Event::LeaseReturned {
            cluster: cluster(),
            issuer: *issuer,
            entered: ledger.entered,
        }));
        events
    }

    /// Everybody who has a leaf is in the record since it got that leaf, so there is nobody to add; unless there are leaves
    /// from before there was a record.
    fn inventory(&self, rotation: &Rotation, at: UnixTime) -> Option<Event> {
        let here = rotation.clusters().get(&self.cluster)?;
        let known = rotation.consumers().contains_key(&consumers::controller());
        let wanted = rotation.change().is_some_and(|change| {
            change.phase == Phase::Preflight
                && here
                    .inventoried
                    .is_none_or(|listed| listed < change.started)
        });
        ((wanted && at >= self.stored.complete_from) || !known).then(|| Event::Inventory {
            cluster: self.cluster.clone(),
            consumers: [(consumers::controller(), Class::ControlPlane)].into(),
        })
    }

    /// Who holds nothing any more: those that say nothing of themselves and whose last leaf has ended, and those whose
    /// workload is in the manifests no more and who are on no stream.
    fn gone(&self, rotation: &Rotation, at: UnixTime) -> Vec<WorkloadId> {
        let pace = rotation.settings();
        let ended = |id: &WorkloadId| {
            let renewed = self.renewed.get(id).copied().unwrap_or(self.began);
            renewed.after(pace.leaf_life).after(pace.skew) < at
        };
        let all = rotation.consumers().iter();
        let gone = all.filter(|(id, known)| match known.class {
            Class::StartOnly => ended(id),
            Class::Reloading => {
                let replaced = id.as_str().contains('#') && ended(id);
                (self.removed.contains(id) || replaced) && !self.shared.sessions.is_open(id)
            }
            _ => false,
        });
        gone.map(|(id, _)| id.clone()).collect()
    }

    /// What the machine is told of the controller itself: that is what it really uses.
    fn own_report(&self, rotation: &Rotation, at: UnixTime) -> Option<Event> {
        let bundle = self.own.bundle.load();
        let loaded = Loaded {
            generation: Generation(bundle.generation()),
            digest: mesh_trust_rotation::Digest::new(*bundle.digest().as_bytes()),
        };
        let leaf = self.own.leaf.as_ref();
        let phase = rotation.change().map(|change| change.phase);
        let issuer = leaf.map(|leaf| leaf.issuer);
        // What was said before the last old leaf ended does not count, and nobody else asks for it again.
        let draining = rotation.change().is_some_and(Change::is_draining);
        let interval = if draining {
            OWN_REPORT_DRAINING
        } else {
            OWN_REPORT_INTERVAL
        };
        if let Some((said, of, then, when)) = self.own.said
            && (said, of, then) == (loaded, issuer, phase)
            && at < when.after(interval)
        {
            return None;
        }
        let report = Report {
            sequence: self.own.sequence + 1,
            at,
            loaded: Some(loaded),
            leaf: leaf.map(|leaf| (leaf.issuer, unix(leaf.not_after))),
            // What a client's certificate proves ends with that certificate, on open connections too.
            connections: Connections::None,
        };
        Some(Event::said(
            &consumers::controller(),
            self.own.incarnation,
            report,
        ))
    }

    /// A request for a leaf of the controller's own, if one is due.
    fn own_request(&self, now: SystemTime) -> Option<LeafRequest> {
        let due = self.own.wanted
            || self.own.leaf.as_ref().is_none_or(|leaf| {
                let life = leaf.not_after.duration_since(leaf.not_before);
                let left = leaf.not_after.duration_since(now).unwrap_or_default();
                let life = life
                    .unwrap_or_default()
                    .saturating_sub(mesh_tls::ca::BACKDATE);
                left < life.mul_f32(0.3)
                    || own_identity(&self.settings.trust_domain)
                        .is_ok_and(|identity| identity != leaf.identity)
            });
        due.then(|| {
            let bundle = self.own.bundle.load();
            LeafRequest {
                workload: consumers::controller(),
                cluster: self.cluster.clone(),
                class: Class::ControlPlane,
                incarnation: self.own.incarnation,
                loaded: Some(Loaded {
                    generation: Generation(bundle.generation()),
                    digest: mesh_trust_rotation::Digest::new(*bundle.digest().as_bytes()),
                }),
                accepted: None,
            }
        })
    }

    fn certify_itself(&mut self, sign: &Action, now: SystemTime) -> Result<(), TrustError> {
        let Action::Sign {
            issuer, not_after, ..
        } = sign
        else {
            return Ok(());
        };
        let identity = own_identity(&self.settings.trust_domain)?;
        let csr = self.own.key.csr(&identity)?;
        let leaf = self.sign(&csr, &identity, *issuer, *not_after, now)?;
        let (not_before, not_after) = (leaf.not_before(), leaf.not_after());
        let credentials = self.own.key.credentials(leaf.into_chain())?;
        // Nobody could fetch the next bundle if this chain were one that today's bundle does not vouch for.
        credentials.verify(&self.own.bundle.load(), now)?;
        self.own.credentials.set(credentials);
        let anchor = self.rotation().issuers().get(issuer);
        self.own.leaf = Some(OwnLeaf {
            identity,
            issuer: *issuer,
            anchor: anchor.map_or(AnchorId::new([0; 32]), |issuer| issuer.anchor),
            not_before,
            not_after,
        });
        self.own.wanted = false;
        Ok(())
    }

    fn asked(&mut self, ask: Ask, answer: Answer<IssuedLeaf, CertifyError>) -> Asked {
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
    fn certified(
        &self,
        record: &mut Record,
        at: UnixTime,
        asked: &Asked,
    ) -> Result<Action, CertifyError> {
        let known = record.rotation().consumers().get(&asked.id);
        // Its lease is at least as long as a leaf, so it holds nothing; it has proven itself anew, and is admitted as anybody.
        if known.is_some_and(|known| {
            matches!(
                known.standing,
                Standing::Quarantined {
                    cause: Cause::LeaseLapsed,
                    ..
                }
            )
        }) {
            self.take(record, at, Event::Left(asked.id.clone()));
        }
        let rotation = record.rotation();
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
                (Class::StartOnly, Incarnation(1), None, accepted)
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

    /// Signs what is in the ledger now, and hands it over.
    fn release(&mut self, asked: Asked, now: SystemTime) {
        let Asked {
            id,
            ask,
            answer,
            verdict,
        } = asked;
        let leaf = match verdict {
            Some(Ok(Action::Sign {
                issuer, not_after, ..
            })) => {
                self.renewed.insert(id, unix(now));
                self.sign(&ask.csr, &ask.identity, issuer, not_after, now)
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

    fn sign(
        &self,
        csr: &[u8],
        identity: &Identity,
        issuer: IssuerId,
        not_after: UnixTime,
        now: SystemTime,
    ) -> Result<IssuedLeaf, TrustError> {
        let authority = self.keys.authority(issuer);
        let authority = authority.ok_or(TrustError::NoIssuer { issuer })?;
        let lifetime = not_after.since(unix(now));
        Ok(authority.issue(csr, identity, lifetime, now)?)
    }

    /// An operator's word as an event. What is to be new is made and kept before the record names it.
    async fn prepared(&mut self, command: Command, now: SystemTime) -> Result<Event, TrustError> {
        match command {
            Command::Event(event) => Ok(*event),
            Command::Rotate { issuer_only } => self.proposal(issuer_only, now).await,
        }
    }

    async fn proposal(&mut self, issuer_only: bool, now: SystemTime) -> Result<Event, TrustError> {
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
    async fn due(&mut self, now: SystemTime) -> Result<Option<Event>, TrustError> {
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

    /// Lets others see how things stand.
    pub(super) fn show(&mut self, now: SystemTime) -> Result<(), TrustError> {
        self.note_own_report(unix(now));
        let rotation = self.rotation();
        let domain = &self.settings.trust_domain;
        let anchor = rotation.anchors().get(&rotation.active().anchor);
        let here = rotation.clusters().get(&self.cluster);
        let issuer = here.and_then(|here| rotation.issuers().get(&here.signer));
        let anchor_not_after = anchor.map_or(now, |anchor| system(anchor.not_after));
        let live = Live {
            trust_domain: domain.clone(),
            identity: own_identity(domain)?,
            bundle: (*self.own.bundle.load()).clone(),
            record: self.stored.record.clone(),
            anchor_not_after,
            issuer_not_after: issuer
                .map_or(now, |issuer| system(issuer.not_after))
                .min(anchor_not_after),
            own_anchor: self.own.leaf.as_ref().map(|leaf| leaf.anchor),
        };
        let moved = live.trust_domain != self.shared.live.load().trust_domain;
        let before = self.shared.live.swap(Arc::new(live));
        if !Arc::ptr_eq(&before.record, &self.stored.record) {
            self.shared.turns.send_modify(|turns| *turns += 1);
        }
        if moved {
            let generation = Generation(self.own.bundle.load().generation());
            let published = published(&self.keys, self.rotation(), generation, domain)?;
            self.shared.published.send_replace(Arc::new(published));
        }
        if let Some((_, archive)) = &mut self.data {
            archive.append(self.stored.record.audit())?;
        }
        Ok(())
    }

    /// What the controller said of itself is on record now.
    fn note_own_report(&mut self, at: UnixTime) {
        let known = self.rotation().consumers().get(&consumers::controller());
        let report = known.and_then(|known| known.report);
        let phase = self.rotation().change().map(|change| change.phase);
        if let Some(report) = report
            && report.sequence > self.own.sequence
            && let Some(loaded) = report.loaded
        {
            self.own.sequence = report.sequence;
            self.own.said = Some((loaded, report.leaf.map(|(issuer, _)| issuer), phase, at));
        }
    }

    /// Gives a bundle out: to who verifies here, in the data folder, and on every stream.
    pub(super) fn give_out(&mut self, generation: Generation) -> Result<(), TrustError> {
        let domain = &self.settings.trust_domain;
        let published = published(&self.keys, self.rotation(), generation, domain)?;
        let bundle = bundle(&published.all)?;
        if bundle.generation() > self.own.bundle.load().generation() {
            self.own.bundle.set(bundle.clone())?;
        }
        if let Some((data, _)) = &self.data {
            data.write_anchors(&bundle.to_pem())?;
        }
        self.shared.published.send_replace(Arc::new(published));
        Ok(())
    }

    /// The generation that everybody is given.
    pub(super) fn given_out(&self) -> Generation {
        Generation(self.own.bundle.load().generation())
    }

    /// Whether the time has come to ask somebody for something again.
    pub(super) fn asks(&mut self, id: &WorkloadId, order: Order, at: UnixTime) -> bool {
        let key = (id.clone(), order);
        let asked = self.asked.get(&key);
        if asked.is_some_and(|asked| at < asked.after(ASK_AGAIN)) {
            return false;
        }
        self.asked.insert(key, at);
        true
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver")
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// The generation that this controller is known to give out; the one to be given out, if that is none.
fn served(rotation: &Rotation) -> Generation {
    let given = |generation: Generation| {
        let bundle = rotation.bundles().known(generation);
        bundle.is_some_and(|bundle| bundle.digest.is_some())
    };
    let here = rotation.clusters().get(&cluster());
    let published = here.map(|here| here.published).unwrap_or_default();
    let current = rotation.bundles().current();
    if given(published) { published } else { current }
}

/// What is given out when everybody gets this generation.
fn published(
    keys: &Keys,
    rotation: &Rotation,
    generation: Generation,
    trust_domain: &TrustDomain,
) -> Result<Published, TrustError> {
    let given = |generation: Generation| -> Result<Given, TrustError> {
        let none = BTreeSet::new();
        let bundle = rotation.bundles().known(generation);
        let anchors = keys.certificates(bundle.map_or(&none, |bundle| &bundle.anchors))?;
        let document = keys::signed(keys.bundle_signer(), trust_domain, generation, &anchors)?;
        Ok(Given {
            generation,
            anchors,
            document,
        })
    };
    let canary = rotation.bundles().canary();
    let composed = |generation: &Generation| {
        let bundle = rotation.bundles().known(*generation);
        bundle.is_some_and(|bundle| bundle.digest.is_some())
    };
    let canaries = rotation.change().map(|change| change.canaries.clone());
    Ok(Published {
        trust_domain: trust_domain.clone(),
        all: given(generation)?,
        canary: canary.filter(composed).map(given).transpose()?,
        canaries: canaries.unwrap_or_default(),
    })
}

fn bundle(given: &Given) -> Result<TrustBundle, TrustError> {
    Ok(TrustBundle::from_der(
        given.generation.0,
        given.anchors.iter().cloned(),
    )?)
}

/// The anchor that everybody had accepted before the change underway.
fn incumbent(rotation: &Rotation) -> AnchorId {
    rotation
        .change()
        .map_or(rotation.active().anchor, |change| change.incumbent)
}

/// The workloads in the manifests.
fn listed(mesh: &Mesh) -> BTreeSet<WorkloadId> {
    let registry = mesh.registry().read();
    let workloads = registry.workloads();
    let names = workloads.iter().filter_map(|workload| {
        let (namespace, name) = (workload.namespace(), workload.name());
        let identity = workload.identity()?;
        WorkloadId::new(&format!("{namespace}/{name}@{identity}")).ok()
    });
    names.collect()
}

fn own_identity(trust_domain: &TrustDomain) -> Result<Identity, mesh_tls::Error> {
    Identity::linkerd("mesh-controller", "linkerd", "linkerd", trust_domain)
}

/// Who acts when nobody told it to.
const ACTOR: &str = "controller";
const OPERATOR: &str = "operator";
/// How many requests are taken in one turn, and wait for one.
const MAX_REQUESTS: usize = 1024;
const IDLE_INTERVAL: Duration = Duration::from_secs(5);
const CHANGE_INTERVAL: Duration = Duration::from_millis(500);
const REPORTS_SETTLE: Duration = Duration::from_millis(20);
const AFTER_FAILURE: Duration = Duration::from_secs(1);
const OWN_REPORT_INTERVAL: Duration = Duration::from_mins(1);
const OWN_REPORT_DRAINING: Duration = Duration::from_secs(2);
const ASK_AGAIN: Duration = Duration::from_secs(15);
