//! The loop: read, gather, handle, write, act, confirm. It has the shape of the machine's own driver, around a store that is
//! asynchronous, and answers requests for leaves between writing and acting.
//!
//! - `open`: how it begins; `turn`: one turn, from what was said to what is done about it
//! - `stand`: whether this controller leads
//! - `gather`, `site`, `own`: what the machine is told without being asked: of others, of what is given out, of the controller
//! - `begin`: changes, by an operator or by the schedule; `outside`: by who makes anchors and issuers elsewhere
//! - `root`: the key of the anchor in use, and what is made where it is
//! - `leaves`: who is certified
//! - `give`: what others see of it all
//! - `probe`: who is called to see what it accepts; `sample`: who is asked

mod begin;
mod gather;
mod give;
mod leaves;
mod open;
mod outside;
mod own;
mod probe;
mod root;
mod sample;
mod site;
mod stand;
mod turn;

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
    begin::HELD,
    give::{bundle, published, served},
    own::{Own, own_identity},
    probe::Targets,
    sample::Sample,
    stand::lead,
    turn::is_known,
};
use super::{
    Ask, CertifyError, Command, CommandError, Given, Import, Live, Offered, Published, Request,
    Root, Shared, Shown, Trust, TrustError,
    audit::Archive,
    clocks::Clocks,
    consumers::{self, Reported, Sessions},
    issued::Issued,
    keys::{self, Keys, Made},
    names::Names,
    outside::{Outside, Verdict, verdict},
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
    /// What was probed, and there was no place for in the last turn.
    probed_before: Vec<Event>,
    /// When the file of anchors was looked at last, and whether somebody had edited it.
    looked: Option<UnixTime>,
    edited: bool,
    requests: mpsc::Receiver<Request>,
    data: Option<(DataFolder, Archive)>,
    /// When start-only consumers last got a leaf; for those that were there before, when this driver began.
    pub(super) renewed: BTreeMap<WorkloadId, UnixTime>,
    began: UnixTime,
    /// Who makes anchors and issuers, if it is not this controller.
    outside: Option<Outside>,
    /// Workloads in the manifests, and those that were in them before.
    listed: BTreeSet<WorkloadId>,
    removed: BTreeSet<WorkloadId>,
    /// Where workloads can be called, as long as a change is underway.
    targets: Targets,
    sample: Sample,
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
    Sample(AnchorId),
}

#[cfg(test)]
pub(super) type Watched =
    Box<dyn Fn(&Action) -> Result<(), crate::store::StoreError> + Send + Sync>;

type Answer<T, E> = oneshot::Sender<Result<T, E>>;

impl Driver {
    /// Decides until `stop` turns true.
    pub(crate) async fn run(mut self, mesh: Arc<Mesh>, mut stop: channel::Receiver<bool>) {
        let mut changes = mesh.changes();
        let mut batch = Vec::new();
        let shared = self.shared.clone();
        self.wake_with_others(stop.clone());
        loop {
            let pause = if self.rotation().change().is_some() {
                CHANGE_INTERVAL
            } else if self.outside.is_some() {
                OUTSIDE_INTERVAL
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
/// How many requests are taken in one turn, and wait for one.
const MAX_REQUESTS: usize = 1024;
const IDLE_INTERVAL: Duration = Duration::from_secs(5);
const CHANGE_INTERVAL: Duration = Duration::from_millis(500);
const OUTSIDE_INTERVAL: Duration = Duration::from_secs(1);
const REPORTS_SETTLE: Duration = Duration::from_millis(20);
const AFTER_FAILURE: Duration = Duration::from_secs(1);
const ASK_AGAIN: Duration = Duration::from_secs(15);
const PROBE_AGAIN: Duration = Duration::from_secs(5);
