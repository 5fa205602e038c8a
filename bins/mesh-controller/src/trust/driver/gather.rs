//! What the machine is told with every turn, without anybody having asked for something.

use super::*;

impl Driver {
    /// Everything that is known without being asked. Says whose reports have to wait for another turn, as the record is `full`.
    pub(super) fn gather(
        &self,
        record: &mut Record,
        at: UnixTime,
        reports: &BTreeMap<WorkloadId, Reported>,
        names: &mut Names,
        full: impl Fn(&Record) -> bool,
    ) -> BTreeSet<WorkloadId> {
        let mut left = BTreeSet::new();
        if self.leads {
            self.configure(record, at);
            for event in self.leases(record.rotation(), at) {
                self.take(record, at, event);
            }
            if let Some(event) = self.inventory(record.rotation(), at) {
                self.take(record, at, event);
            }
        }
        if let Some(event) = self.own_report(record.rotation(), at) {
            self.take(record, at, event);
        }
        for (id, reported) in reports {
            if full(record) && !is_known(record.rotation(), id, Some(reported.process.incarnation))
            {
                left.insert(id.clone());
                continue;
            }
            let (process, received) = (&reported.process, unix(reported.at));
            let known = record.rotation().consumers().get(id);
            // What it says does not bring it back: it joins again, as a process that was not heard of before.
            if known.is_some_and(|known| matches!(known.standing, Standing::Quarantined { .. })) {
                continue;
            }
            if known.is_none() {
                if !names.admit(record.rotation(), id) {
                    info!(%id, "its identity has too many names");
                    continue;
                }
                let joined = Event::Joined {
                    workload: id.clone(),
                    cluster: self.cluster.clone(),
                    class: Class::Reloading,
                    incarnation: process.incarnation,
                };
                self.take(record, at, joined);
            }
            if let Some(accepted) = self.sampled(id, reported, received) {
                self.take(record, at, accepted);
            }
            let mut report = reported.evidence(record.rotation(), received);
            if self.is_disbelieved(id) {
                report.loaded = None;
            }
            let said = Event::said(id, process.incarnation, report);
            self.take(record, at, said);
        }
        if self.leads {
            for id in self.gone(record.rotation(), at) {
                if full(record) {
                    break;
                }
                self.take(record, at, Event::Left(id));
            }
        }
        left
    }

    /// Has the machine go by what the manifests say. What something underway relies on stays as it is until that has ended.
    fn configure(&self, record: &mut Record, at: UnixTime) {
        let mut pace = settings::pace(&self.settings);
        pace.bridges &= self.can_bridge(record.rotation());
        for _ in 0..=KEPT_SETTINGS {
            let present = record.rotation().settings();
            if *present == pace {
                return;
            }
            let (skew, lease) = (present.skew, present.consumer_lease);
            let calm = (present.emergency_quorum, present.emergency_deadline);
            let event = Event::Configure(Box::new(pace.clone()));
            match self.apply(record, at, ACTOR, event) {
                Ok(_) => return,
                Err(NotRecorded::Refused(Refusal::SettingInUse { name, .. })) => match name {
                    "skew" => pace.skew = skew,
                    "consumer_lease" => pace.consumer_lease = lease,
                    "emergency_quorum" | "emergency_deadline" => {
                        (pace.emergency_quorum, pace.emergency_deadline) = calm;
                    }
                    "bridges" => pace.bridges = true,
                    _ => return,
                },
                Err(error) => {
                    warn!(%error, "what the manifests say of rotation is not taken");
                    return;
                }
            }
        }
    }

    /// Leases to sign that are wanted for another while, and those that are given back.
    pub(super) fn leases(&self, rotation: &Rotation, at: UnixTime) -> Vec<Event> {
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
    pub(super) fn inventory(&self, rotation: &Rotation, at: UnixTime) -> Option<Event> {
        let here = rotation.clusters().get(&self.cluster)?;
        let known = rotation.consumers().contains_key(&self.own.id);
        let wanted = rotation.change().is_some_and(|change| {
            change.phase == Phase::Preflight
                && here
                    .inventoried
                    .is_none_or(|listed| listed < change.started)
        });
        ((wanted && at >= self.stored.complete_from) || !known).then(|| Event::Inventory {
            cluster: self.cluster.clone(),
            consumers: [(self.own.id.clone(), Class::ControlPlane)].into(),
        })
    }

    /// Who holds nothing any more: those that say nothing of themselves and whose last leaf has ended, and those whose
    /// workload is in the manifests no more and who are on no stream.
    pub(super) fn gone(&self, rotation: &Rotation, at: UnixTime) -> Vec<WorkloadId> {
        let pace = rotation.settings();
        // Its last leaf may be another controller's.
        let heard = |known: &Consumer| known.lease_until.before(pace.consumer_lease);
        let ended = |id: &WorkloadId, known: &Consumer| {
            let renewed = self.renewed.get(id).copied().unwrap_or(self.began);
            let renewed = renewed.max(heard(known));
            renewed.after(pace.leaf_life).after(pace.skew) < at
        };
        let elsewhere = |known: &Consumer| {
            self.place.election.is_some() && heard(known).after(pace.leaf_life) >= at
        };
        let all = rotation.consumers().iter();
        let gone = all.filter(|(id, known)| match known.class {
            // It has been out for another lease, and if it comes back it joins anew in any case.
            _ if matches!(
                known.standing,
                Standing::Quarantined { cause: Cause::LeaseLapsed, since }
                    if since.after(pace.consumer_lease) < at
            ) =>
            {
                !self.shared.sessions.is_open(id)
            }
            Class::StartOnly => ended(id, known),
            Class::Reloading => {
                let replaced = id.as_str().contains('#') && ended(id, known);
                (self.removed.contains(id) || replaced)
                    && !self.shared.sessions.is_open(id)
                    && !elsewhere(known)
            }
            // Another controller, whose lease in the store has ended.
            Class::ControlPlane => self
                .members
                .as_ref()
                .is_some_and(|members| **id != self.own.id && !members.contains(*id)),
            _ => false,
        });
        gone.map(|(id, _)| id.clone()).collect()
    }
}

/// How many settings something underway can rely on.
const KEPT_SETTINGS: usize = 5;
