//! The stream on which a process reports what it uses, and is given bundles and told what to do.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::stream;
use mesh_control_api::trust as api;
use mesh_tls::Identity;
use mesh_trust_rotation::{Generation, Rotation, WorkloadId, document::MAX_STEP};
use tokio::sync::{mpsc, watch as channel};
use tonic::{Status, Streaming};
use tracing::{info, warn};

use super::{
    Given, Published, Shared, ShownLeaf, Trust,
    consumers::{Process, Reported},
    keys,
    names::Speaker,
    settings,
};
use crate::api::{Frames, frame};

impl Trust {
    /// The documents of the day, for anybody who asks.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` where too many would have to be signed for it.
    pub(crate) fn catch_up(&self, since: &api::Since) -> Result<api::Update, Status> {
        let published = self.shared.published.borrow().clone();
        let adopted = Generation(since.highest_generation);
        let steps = published.all.generation.0.saturating_sub(adopted.0) / MAX_STEP;
        // Whoever asks has proven nothing, and signing costs.
        if steps > MAX_STEPS_FOR_ANYBODY {
            return Err(Status::resource_exhausted(
                "too far behind: join again with the anchors of the day",
            ));
        }
        let documents = documents(&self.shared, &published, &published.all, adopted);
        Ok(api::Update {
            documents: documents.unwrap_or_default(),
            ..api::Update::default()
        })
    }

    /// Follows a process of an identity that the caller has verified, until it ends its reports.
    pub(crate) fn watch(
        &self,
        identity: Identity,
        leaf: Option<ShownLeaf>,
        reports: Streaming<api::Report>,
    ) -> Frames {
        let watching = Watching {
            published: self.shared.published.subscribe(),
            shared: self.shared.clone(),
            identity,
            leaf,
            reports,
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            open: None,
            adopted: Generation(0),
            refused: 0,
            speaker: Speaker::default(),
        };
        Frames::new(stream::unfold(watching, |mut watching| async {
            let next = watching.next().await?;
            Some((next, watching))
        }))
    }
}

struct Watching {
    shared: Arc<Shared>,
    published: channel::Receiver<Arc<Published>>,
    identity: Identity,
    /// What proved it, if that was a certificate.
    leaf: Option<ShownLeaf>,
    reports: Streaming<api::Report>,
    /// Tells this stream from others of the same process.
    number: u64,
    /// Once it has reported.
    open: Option<(WorkloadId, mpsc::Receiver<api::Update>)>,
    /// The highest generation that it has, or was given here.
    adopted: Generation,
    /// How many documents it had refused when it last said so.
    refused: u64,
    speaker: Speaker,
}

impl Watching {
    async fn next(&mut self) -> Option<Result<Bytes, Status>> {
        loop {
            let orders = async {
                match &mut self.open {
                    Some((_, orders)) => orders.recv().await,
                    None => std::future::pending().await,
                }
            };
            let update = tokio::select! {
                report = self.reports.message() => match report {
                    Ok(Some(report)) => match self.heard(report) {
                        Ok(update) => update,
                        Err(status) => return Some(Err(status)),
                    },
                    Ok(None) => return None,
                    Err(status) => return Some(Err(status)),
                },
                // None: another stream of the same process has taken its place.
                order = orders => Some(order?),
                changed = self.published.changed() => {
                    changed.ok()?;
                    self.documents()
                }
            };
            if let Some(update) = update {
                return Some(Ok(frame(&update)));
            }
        }
    }

    /// Hands a report to the driver. The first is answered in any case.
    fn heard(&mut self, report: api::Report) -> Result<Option<api::Update>, Status> {
        let process = Process::of_report(&report).ok_or_else(|| {
            Status::invalid_argument("a report has `process` and a `sequence` from 1 on")
        })?;
        if !self.speaker.is(&process) {
            return Err(Status::invalid_argument(
                "a stream is of one process: its `process` and `workload` stay as they are",
            ));
        }
        // Its anchor's key may have come into other hands since it opened the stream.
        let doubtful = |leaf: &ShownLeaf| {
            self.shared.is_tainted(leaf.anchor) && !self.shared.issued.knows(leaf.key)
        };
        if self.leaf.as_ref().is_some_and(doubtful) {
            return Err(Status::unauthenticated(
                "the client certificate is below an anchor whose key is in other hands: come again",
            ));
        }
        let live = self.shared.live.load();
        let id = process.id(&self.identity, live.rotation());
        let first = self.open.is_none();
        if self.open.as_ref().is_none_or(|(open, _)| *open != id) {
            let (sender, orders) = mpsc::channel(MAX_ORDERS);
            self.close();
            self.shared.sessions.opened(id.clone(), self.number, sender);
            self.open = Some((id.clone(), orders));
        }
        let loaded = process.loaded.map(|loaded| loaded.generation);
        let adopted = Generation(report.highest_generation);
        self.adopted = self.adopted.max(adopted).max(loaded.unwrap_or_default());
        self.note_refusals(&id, &report);
        self.note_clock(&id, &report, live.rotation());
        let reported = Reported {
            process,
            report,
            at: SystemTime::now(),
        };
        self.shared.report(id, reported);
        let update = self.documents();
        if !first {
            return Ok(update);
        }
        let every = settings::report_every(&live.settings);
        Ok(Some(api::Update {
            // A few seconds: it fits.
            report_every: every.try_into().ok(),
            ..update.unwrap_or_default()
        }))
    }

    fn note_refusals(&mut self, id: &WorkloadId, report: &api::Report) {
        let pinned = &report.bundle_key;
        if self.open.is_some() && !pinned.is_empty() {
            let own = self.shared.signer.public_key();
            if pinned != own.as_bytes() && self.refused == 0 {
                warn!(%id, "has pinned another bundle key: it takes no bundle from here");
            }
        }
        if let Some(refused) = &report.refused
            && refused.total > self.refused
        {
            self.refused = refused.total;
            let detail: String = refused.detail.chars().take(512).collect();
            warn!(%id, total = refused.total, detail, "refused a bundle document");
        }
    }

    /// Certificates begin and end by clocks: one that is off believes nobody, or is not believed.
    fn note_clock(&self, id: &WorkloadId, report: &api::Report, rotation: &Rotation) {
        let Some(said) = report
            .clock
            .and_then(|clock| SystemTime::try_from(clock).ok())
        else {
            return;
        };
        let now = SystemTime::now();
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let ahead = match said.duration_since(now) {
            Ok(ahead) => seconds(ahead),
            Err(behind) => -seconds(behind.duration()),
        };
        let skew = rotation.settings().skew;
        let off = ahead.unsigned_abs() > skew.max(CLOCK_TOLERANCE).as_secs();
        let clocks = &self.shared.clocks;
        let news = clocks.note(id, off.then_some(ahead), rotation);
        if news && off {
            let all = rotation.consumers().len();
            let (off, seconds_ahead) = (clocks.count(rotation), ahead);
            warn!(%id, seconds_ahead, off, all, "its clock is not this controller's: certificates will be refused; if most are off, it is this one's");
        } else if news {
            info!(%id, "its clock is right again");
        }
    }

    /// The documents that it has not adopted yet.
    fn documents(&mut self) -> Option<api::Update> {
        let (id, _) = self.open.as_ref()?;
        let published = self.published.borrow_and_update().clone();
        let canary = published.canary.as_ref();
        let given = canary
            .filter(|_| published.canaries.contains(id))
            .unwrap_or(&published.all);
        let documents = documents(&self.shared, &published, given, self.adopted)?;
        self.adopted = given.generation;
        Some(api::Update {
            documents,
            ..api::Update::default()
        })
    }

    fn close(&mut self) {
        if let Some((id, _)) = self.open.take() {
            self.shared.sessions.closed(&id, self.number);
        }
    }
}

/// The documents that lead from the generation `adopted` to what is given out; none if it is in use already.
fn documents(
    shared: &Shared,
    published: &Published,
    given: &Given,
    adopted: Generation,
) -> Option<Vec<api::Document>> {
    if given.generation <= adopted {
        return None;
    }
    // Who is far behind takes no leap: the bundle of the day is signed for it at steps that it takes.
    let mut documents = Vec::new();
    let mut step = adopted.0.saturating_add(MAX_STEP);
    while step < given.generation.0 && documents.len() < MAX_STEPS {
        let signed = keys::signed(
            &shared.signer,
            &published.trust_domain,
            Generation(step),
            &given.anchors,
        );
        documents.push(signed.ok()?);
        step = step.saturating_add(MAX_STEP);
    }
    documents.push(given.document.clone());
    Some(documents)
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Watching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watching")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

static NUMBERS: AtomicU64 = AtomicU64::new(0);
/// Orders on their way to one process; who takes them more slowly is asked again.
const MAX_ORDERS: usize = 16;
const MAX_STEPS: usize = 63;
/// As long as a report may be on its way.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(10);
const MAX_STEPS_FOR_ANYBODY: u64 = 8;
