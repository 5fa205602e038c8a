//! Who consumes trust, and what is known about each: joining, evidence, leases, quarantine.

use std::collections::BTreeMap;

use crate::consumer::{Cause, Class, Consumer, Standing};
use crate::error::Refusal;
use crate::evidence::{Evidence, Loaded, Source};
use crate::guard::Guard;
use crate::id::{AnchorId, ClusterId, Incarnation, WorkloadId};
use crate::rotation::Rotation;
use crate::time::UnixTime;

impl Rotation {
    /// A cluster has listed all its consumers. Those that are new block until something is known about them.
    pub(crate) fn inventory(
        &mut self,
        now: UnixTime,
        cluster: &ClusterId,
        consumers: BTreeMap<WorkloadId, Class>,
    ) -> Result<(), Refusal> {
        let at = self.cluster(cluster)?;
        at.heard = now;
        at.inventoried = Some(now);
        for (workload, class) in consumers {
            self.undeclared.remove(&workload);
            self.consumer(now, &workload, cluster, class);
        }
        Ok(())
    }

    pub(crate) fn joined(
        &mut self,
        now: UnixTime,
        workload: &WorkloadId,
        cluster: &ClusterId,
        class: Class,
        incarnation: Incarnation,
    ) -> Result<(), Refusal> {
        self.cluster(cluster)?;
        if let Some(known) = self.consumers.get(workload) {
            let workload = workload.clone();
            if !known.is_required() {
                return Err(Refusal::Quarantined { workload });
            }
            if incarnation < known.incarnation {
                let current = known.incarnation;
                return Err(Refusal::StaleIncarnation {
                    workload,
                    found: incarnation,
                    current,
                });
            }
        }
        self.cluster(cluster)?.heard = now;
        self.undeclared.remove(workload);
        self.consumer(now, workload, cluster, class);
        self.process(now, workload, incarnation)
    }

    /// A quarantined consumer returns, authenticated anew, if its bundle will do.
    pub(crate) fn rejoined(
        &mut self,
        now: UnixTime,
        workload: &WorkloadId,
        incarnation: Incarnation,
        loaded: Loaded,
    ) -> Result<(), Refusal> {
        if self.guards(Guard::RejoinBundle)
            && let Some(anchor) = self.lacking(now, Some(loaded))
        {
            return Err(Refusal::NotAdmitted {
                workload: workload.clone(),
                anchor,
            });
        }
        // Its last process may hold a leaf that nobody is to believe any more.
        let current = self.known(workload)?.incarnation;
        if incarnation <= current && self.guards(Guard::RejoinAfresh) {
            let workload = workload.clone();
            return Err(Refusal::StaleIncarnation {
                workload,
                found: incarnation,
                current,
            });
        }
        self.process(now, workload, incarnation)?;
        let lease_until = now.after(self.settings.consumer_lease);
        let consumer = self.known(workload)?;
        consumer.standing = Standing::Required;
        consumer.lease_until = lease_until;
        Ok(())
    }

    pub(crate) fn left(&mut self, workload: &WorkloadId) {
        self.consumers.remove(workload);
        self.undeclared.remove(workload);
        if let Some(change) = &mut self.change {
            change.bridged.remove(workload);
            change.canaries.remove(workload);
        }
    }

    pub(crate) fn quarantine(
        &mut self,
        now: UnixTime,
        workload: &WorkloadId,
    ) -> Result<(), Refusal> {
        let consumer = self.known(workload)?;
        if consumer.is_required() {
            consumer.standing = Standing::Quarantined {
                since: now,
                cause: Cause::Operator,
            };
        }
        Ok(())
    }

    /// Takes evidence. Repeats and latecomers change nothing.
    pub(crate) fn observe(
        &mut self,
        now: UnixTime,
        peer: &WorkloadId,
        evidence: Evidence,
    ) -> Result<(), Refusal> {
        let Evidence {
            workload,
            incarnation,
            source,
            report,
        } = evidence;
        if self.guards(Guard::Authenticated) && *peer != workload {
            return Err(Refusal::Forged {
                workload,
                peer: peer.clone(),
            });
        }
        if report.at > now.after(self.settings.skew) {
            return Err(Refusal::FromTheFuture { at: report.at, now });
        }
        if !self.consumers.contains_key(&workload) {
            if self.guards(Guard::Undeclared) && self.undeclared.len() < Self::MAX_UNDECLARED {
                self.undeclared.entry(workload).or_insert(now);
                return Ok(());
            }
            return Err(Refusal::UnknownConsumer { workload });
        }
        if source == Source::Annotation && self.guards(Guard::NoAnnotations) {
            return Ok(());
        }
        let (one_process, newest) = (self.guards(Guard::Incarnation), self.guards(Guard::Newest));
        let lease_until = report.at.after(self.settings.consumer_lease);
        let consumer = self.known(&workload)?;
        if one_process && incarnation < consumer.incarnation {
            return Err(Refusal::StaleIncarnation {
                workload,
                found: incarnation,
                current: consumer.incarnation,
            });
        }
        if incarnation > consumer.incarnation {
            consumer.restart(incarnation, report.at);
        }
        let seen = consumer.report.map(|report| report.sequence);
        if newest && seen.is_some_and(|seen| report.sequence <= seen) {
            return Ok(());
        }
        if let Source::Probe(anchor) = source {
            consumer.probed.insert(anchor, report.at);
        }
        // A probe of a consumer that speaks for itself says nothing of what it has loaded: keep what it said.
        if !matches!(source, Source::Probe(_)) || consumer.class.needs_probe() {
            consumer.report = Some(report);
        }
        consumer.lease_until = consumer.lease_until.max(lease_until);
        let cluster = consumer.cluster.clone();
        let cluster = self.cluster(&cluster)?;
        cluster.heard = cluster.heard.max(report.at);
        Ok(())
    }

    /// Puts on record who was silent for longer than its lease: its leaf has ended, and it has to join again.
    pub(crate) fn quarantine_lapsed(&mut self, now: UnixTime) {
        if !self.guards(Guard::LapseOnRecord) {
            return;
        }
        let skew = self.settings.skew;
        for consumer in self.consumers.values_mut() {
            if consumer.is_required() && consumer.lease_until.after(skew) < now {
                consumer.standing = Standing::Quarantined {
                    since: now,
                    cause: Cause::LeaseLapsed,
                };
            }
        }
    }

    /// Whether a consumer was silent for longer than its lease, by any clock.
    pub(crate) fn has_lapsed(&self, now: UnixTime, consumer: &Consumer) -> bool {
        consumer.lease_until.after(self.settings.skew) < now
    }

    /// Begins to know a process of a consumer: an earlier one is refused, a later one starts afresh.
    pub(crate) fn process(
        &mut self,
        now: UnixTime,
        workload: &WorkloadId,
        incarnation: Incarnation,
    ) -> Result<(), Refusal> {
        let one_process = self.guards(Guard::Incarnation);
        let consumer = self.known(workload)?;
        if incarnation < consumer.incarnation && one_process {
            return Err(Refusal::StaleIncarnation {
                workload: workload.clone(),
                found: incarnation,
                current: consumer.incarnation,
            });
        }
        if incarnation > consumer.incarnation {
            consumer.restart(incarnation, now);
        }
        Ok(())
    }

    /// Adds a consumer, unless it is known.
    pub(crate) fn consumer(
        &mut self,
        now: UnixTime,
        workload: &WorkloadId,
        cluster: &ClusterId,
        class: Class,
    ) {
        let lease_until = now.after(self.settings.consumer_lease);
        self.consumers
            .entry(workload.clone())
            .or_insert_with(|| Consumer {
                cluster: cluster.clone(),
                class,
                incarnation: Incarnation(0),
                started: now,
                report: None,
                given: None,
                turned: None,
                probed: BTreeMap::new(),
                lease_until,
                standing: Standing::Required,
            });
    }

    pub(crate) fn known(&mut self, workload: &WorkloadId) -> Result<&mut Consumer, Refusal> {
        self.consumers
            .get_mut(workload)
            .ok_or_else(|| Refusal::UnknownConsumer {
                workload: workload.clone(),
            })
    }

    /// The first anchor with leaves alive that a consumer with this bundle would not accept.
    pub(crate) fn lacking(&self, now: UnixTime, loaded: Option<Loaded>) -> Option<AnchorId> {
        let anchors = loaded.and_then(|loaded| self.loaded(loaded));
        self.anchors_with_leaves(now)
            .into_iter()
            .find(|anchor| !anchors.is_some_and(|anchors| anchors.contains(anchor)))
    }
}
