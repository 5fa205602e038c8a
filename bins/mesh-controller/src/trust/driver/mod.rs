//! The loop: read, gather, handle, write, act, confirm. It has the shape of the machine's own driver, around a store that is
//! asynchronous, and answers requests for leaves between writing and acting.

mod begin;
mod gather;
mod give;
mod leaves;
mod own;
mod probe;
mod site;
mod stand;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use mesh_tls::{
    CredentialWriter, Identity, LeafKey, Tls, TrustBundle, TrustDomain, TrustWriter,
    ca::IssuedLeaf, credential_store, trust_store,
};
use mesh_trust_rotation::{
    Action, AnchorId, Blocker, Cause, Change, Class, ClusterId, Connections, Consumer, Epoch,
    Event, Generation, Incarnation, IssuerId, Kind, Loaded, NotRecorded, Outcome, Phase, Reason,
    Record, Refusal, Report, Request as LeafRequest, Rotation, Standing, Step, Subject, UnixTime,
    WorkloadId, audit::Chain, crypto::Sha256,
};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch as channel},
    time,
};
use tracing::{error, info, warn};

use self::{
    give::{bundle, published, served},
    own::{Own, own_identity},
    probe::Targets,
    stand::lead,
};
use super::{
    Ask, CertifyError, Command, CommandError, Given, Live, Published, Request, Shared, Shown,
    Trust, TrustError,
    audit::Archive,
    consumers::{self, Reported, Sessions},
    keys::{self, Keys, Made},
    names::Names,
    place::Place,
    record::{KEY, Stored, cluster},
    schedule, settings, system, unix,
};
use crate::{
    data_folder::DataFolder,
    listener::stopped,
    mesh::{Mesh, Settings},
};

pub(in crate::trust) use self::probe::Probed;

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
    pub(super) place: Place,
    /// What is told of each action, before and after it.
    #[cfg(test)]
    pub(super) watched: Option<Watched>,
    /// The term in which it led last.
    term: Option<i64>,
    /// Whether it leads in this turn.
    pub(super) leads: bool,
    /// The controllers that there are, if it leads several.
    members: Option<BTreeSet<WorkloadId>>,
    /// What others had given out when it was looked at last.
    followed: Option<(Generation, Option<Generation>)>,
    settings: Arc<Settings>,
    /// Since when no change begins by itself for a while: the last one was undone, or could not begin.
    held_since: Option<UnixTime>,
    /// What the next turn begins with: the last one was full.
    waiting: Vec<Request>,
    /// When the file of anchors was looked at last, and whether somebody had edited it.
    looked: Option<UnixTime>,
    edited: bool,
    requests: mpsc::Receiver<Request>,
    data: Option<(DataFolder, Archive)>,
    /// When start-only consumers last got a leaf; for those that were there before, when this driver began.
    pub(super) renewed: BTreeMap<WorkloadId, UnixTime>,
    began: UnixTime,
    /// Workloads in the manifests, and those that were in them before.
    listed: BTreeSet<WorkloadId>,
    removed: BTreeSet<WorkloadId>,
    /// Where workloads can be called, as long as a change is underway.
    targets: Targets,
    /// Who did not accept the new anchor when it was probed last.
    unconvinced: BTreeSet<WorkloadId>,
}

/// What a consumer can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Order {
    Reissue(IssuerId),
    Drain(AnchorId),
    Restart,
    Probe(AnchorId),
}

#[cfg(test)]
pub(super) type Watched =
    Box<dyn Fn(&Action) -> Result<(), crate::store::StoreError> + Send + Sync>;

type Answer<T, E> = oneshot::Sender<Result<T, E>>;

/// An operator's word on its way through a turn.
struct Told {
    event: Event,
    answer: Answer<(), CommandError>,
    verdict: Option<Result<(), NotRecorded>>,
}

impl Driver {
    pub(super) async fn open(
        place: Place,
        settings: &Settings,
        now: SystemTime,
    ) -> Result<(Trust, Self), TrustError> {
        let mut keys = Keys::open(place.clone()).await?;
        let domain = &settings.trust_domain;
        let mut stored = Stored::open(place.clone(), &mut keys, settings, now).await?;
        // Where the store has one owner, this has just become it: whoever led before does not any more.
        let term = place.term();
        let epoch = if term.is_some() {
            let epoch = lead(&mut stored, unix(now)).await?;
            keys.sweep(stored.record.rotation()).await?;
            epoch
        } else {
            keys.follow(stored.record.rotation()).await?;
            stored.record.rotation().epoch()
        };

        let rotation = stored.record.rotation();
        let generation = served(rotation);
        let published = published(&keys, rotation, generation, domain)?;
        let bundle = bundle(&published.all)?;
        let (bundle_writer, trust) = trust_store(bundle.clone());
        let (credentials, credential_reader) = credential_store();
        let identity = own_identity(domain)?;
        let settings = Arc::new(settings.clone());
        let live = Live {
            leads: term.is_some(),
            settings: settings.clone(),
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
            probed: Probed::default(),
            wake: Notify::new(),
            turns: channel::channel(0).0,
            failure: ArcSwapOption::empty(),
        });
        let (sender, requests) = mpsc::channel(MAX_REQUESTS);
        let since = now.duration_since(SystemTime::UNIX_EPOCH);
        let micros = since.unwrap_or_default().as_micros();
        let name = place.election.as_ref().map(|election| &*election.name);
        let own = Own {
            id: consumers::controller(name),
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
            #[cfg(test)]
            watched: None,
            term,
            leads: term.is_some(),
            members: None,
            followed: None,
            place,
            settings,
            held_since: None,
            waiting: Vec::new(),
            looked: None,
            edited: false,
            requests,
            data: None,
            renewed: BTreeMap::new(),
            began: unix(now),
            listed: BTreeSet::new(),
            removed: BTreeSet::new(),
            targets: Targets::new(),
            unconvinced: BTreeSet::new(),
        };
        if driver.rotation().last_outcome() == Some(Outcome::SafelyAborted) {
            driver.hold(unix(now));
        }
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
        self.wake_with_others(stop.clone());
        loop {
            let pause = if self.rotation().change().is_some() {
                CHANGE_INTERVAL
            } else {
                IDLE_INTERVAL
            };
            tokio::select! {
                received = self.requests.recv_many(&mut batch, MAX_REQUESTS), if self.waiting.is_empty() => {
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
            while self.waiting.is_empty()
                && batch.len() < MAX_REQUESTS
                && let Ok(request) = self.requests.try_recv()
            {
                batch.push(request);
            }
            self.follow_settings(mesh.settings());
            self.follow(listed(&mesh));
            if self.rotation().change().is_some() {
                self.targets = probe::targets(&mesh);
            }
            match self
                .turn(SystemTime::now(), std::mem::take(&mut batch))
                .await
            {
                Ok(()) => {}
                Err(error @ TrustError::Deposed { .. }) if self.place.election.is_none() => {
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
        let taken = self.try_turn(now, batch).await;
        let failure = taken
            .as_ref()
            .err()
            .map(|error| Arc::new(error.to_string()));
        self.shared.failure.store(failure);
        taken
    }

    async fn try_turn(&mut self, now: SystemTime, batch: Vec<Request>) -> Result<(), TrustError> {
        let at = unix(now);
        self.stand(now).await?;
        let reports = self.shared.take_reports();
        let probed = self.probed();
        let (mut asks, mut told) = (Vec::new(), Vec::new());
        for request in std::mem::take(&mut self.waiting).into_iter().chain(batch) {
            match request {
                Request::Plan(issuer_only, answer) => {
                    drop(answer.send(self.planned(issuer_only, now)));
                }
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
        let due = match self.leads {
            true => match self.due(now).await {
                Ok(due) => due,
                Err(error @ TrustError::Store(_)) => return Err(error),
                Err(error) => {
                    warn!(%error, "a change of the schedule cannot be prepared");
                    self.hold(at);
                    None
                }
            },
            false => None,
        };
        let (mut refused, under_way) = (false, self.rotation().change().is_some());
        let own_ask = self.own_request(now);
        let site = self.site(at);
        let entered = self.stored.record.audit().length();
        let (own_leaf, left) = loop {
            let mut record = Record::clone(&self.stored.record);
            let epoch = record.rotation().epoch();
            if !self.leads {
                self.epoch = epoch;
            } else if epoch != self.epoch {
                return Err(TrustError::Deposed { epoch });
            }
            let mut names = Names::default();
            let full = |record: &Record| record.audit().length() >= entered + MOST_ENTRIES;
            let left = self.gather(&mut record, at, &reports, &mut names, full);
            for event in &probed {
                self.take(&mut record, at, event.clone());
            }
            if self.leads {
                for event in &site {
                    self.take(&mut record, at, event.clone());
                }
            }
            for told in &mut told {
                let taken = self.apply(&mut record, at, OPERATOR, told.event.clone());
                told.verdict = Some(taken.map(|_| ()));
            }
            if let Some(event) = &due {
                let taken = self.apply(&mut record, at, SCHEDULE, event.clone());
                let taken = taken.inspect_err(
                    |error| warn!(%error, "a change of the schedule cannot begin now"),
                );
                refused = taken.is_err();
            }
            let own_leaf = own_ask.clone().and_then(|ask| {
                let signed = self.apply(&mut record, at, ACTOR, Event::Certify(ask));
                let signed = signed.inspect_err(
                    |error| warn!(%error, "the controller's own certificate is not renewed now"),
                );
                signed.ok()?.into_iter().next()
            });
            for asked in &mut asks {
                asked.verdict = None;
                let incarnation = asked.incarnation();
                if !full(&record) || is_known(record.rotation(), &asked.id, incarnation) {
                    asked.verdict = Some(self.certified(&mut record, at, asked, &mut names));
                }
            }
            if self.leads {
                self.take(&mut record, at, Event::Tick);
            }
            if record == *self.stored.record || self.stored.write(record, self.leads).await? {
                break (own_leaf, left);
            }
        };
        let undone = self.rotation().last_outcome() == Some(Outcome::SafelyAborted);
        if refused || (under_way && undone && self.rotation().change().is_none()) {
            self.hold(at);
        }
        if let Some(sign) = own_leaf {
            self.certify_itself(&sign, now)?;
        }
        let (taken, later): (Vec<_>, Vec<_>) =
            asks.into_iter().partition(|asked| asked.verdict.is_some());
        for asked in taken {
            self.release(asked, now);
        }
        if !left.is_empty() || !later.is_empty() {
            let again = later.into_iter();
            self.waiting = again
                .map(|it| Request::Certify(it.ask, it.answer))
                .collect();
            let left = reports.into_iter().filter(|(id, _)| left.contains(id));
            self.shared.report_again(left);
        }
        // Who is told that its word is on record sees it in what is shown.
        self.show(now)?;
        for told in told {
            let verdict = told.verdict.unwrap_or(Ok(()));
            drop(told.answer.send(verdict.map_err(CommandError::from)));
        }
        self.act(now).await?;
        if let Err(error) = self.probe(now) {
            warn!(%error, "nobody can be probed");
        }
        self.show(now)
    }

    pub(super) fn follow_settings(&mut self, settings: Arc<Settings>) {
        self.settings = settings;
    }

    /// Goes on in another place, as if it always had.
    #[cfg(test)]
    pub(super) fn use_place(&mut self, place: Place) {
        self.stored.use_place(place.clone());
        self.keys.use_place(place.clone());
        self.place = place;
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

    /// Whether the time has come to ask somebody for something again.
    pub(super) fn asks(&mut self, id: &WorkloadId, order: Order, at: UnixTime) -> bool {
        let key = (id.clone(), order);
        let asked = self.asked.get(&key);
        let again = match order {
            Order::Probe(_) => PROBE_AGAIN,
            _ => ASK_AGAIN,
        };
        if asked.is_some_and(|asked| at < asked.after(again)) {
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

/// Whether the record knows this process already, so that what it says or asks for adds nothing to the audit chain.
fn is_known(rotation: &Rotation, id: &WorkloadId, incarnation: Option<Incarnation>) -> bool {
    let known = rotation.consumers().get(id);
    known.is_some_and(|known| {
        incarnation.is_none_or(|it| it == known.incarnation)
            && !matches!(known.standing, Standing::Quarantined { .. })
    })
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

/// Who acts when nobody told it to.
const ACTOR: &str = "controller";
const OPERATOR: &str = "operator";
const SCHEDULE: &str = "schedule";
/// How many requests are taken in one turn, and wait for one.
const MAX_REQUESTS: usize = 1024;
/// After so many entries of the audit chain a turn takes no more that may add to it: what it adds has to be in the record still when
/// it is written to the archive, or when the next process opens that. The rest of a turn adds less than what is left.
const MOST_ENTRIES: u64 = Chain::RECENT as u64 / 2;
const IDLE_INTERVAL: Duration = Duration::from_secs(5);
const CHANGE_INTERVAL: Duration = Duration::from_millis(500);
const REPORTS_SETTLE: Duration = Duration::from_millis(20);
const AFTER_FAILURE: Duration = Duration::from_secs(1);
const ASK_AGAIN: Duration = Duration::from_secs(15);
const PROBE_AGAIN: Duration = Duration::from_secs(5);
