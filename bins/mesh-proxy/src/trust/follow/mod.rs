//! Bundles and orders, and what becomes of them.

mod stream;

use std::fmt;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_control_api::trust as api;
use mesh_control_api::trust::drain::Mode;
use mesh_control_api::trust::refused::Reason;
use mesh_metrics::{BundleRefusal, TrustHandle};
use mesh_tls::{CredentialReader, KeyId, TrustBundle, TrustWriter};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tonic::Code;
use tonic::transport::Channel;

use super::adopt::{Adopted, Refusal};
use super::catch_up::{self, CatchUp};
use super::connections::Connections;
use super::kept::{Keeper, Start};
use super::probe;
use super::report::{self, Loaded, Process, Standing};
use crate::control::backoff::Backoff;

/// How often a report goes out when nothing changes, until the controller says otherwise.
const REPORT_EVERY: Duration = Duration::from_secs(30);
/// What the controller may say.
const REPORT_BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));
/// How long until a controller that does not know the stream is asked for it again.
const UNKNOWN_PAUSE: Duration = Duration::from_secs(600);
/// How soon it is looked whether who was told how the process stands can be verified then.
const TOLD_PAUSE: Duration = Duration::from_millis(500);
/// The most orders to drain in one update.
const MAX_DRAINS: usize = 64;
/// The most results in one report.
const MAX_RESULTS: usize = 16;
/// The longest that an order may be spread over.
const MAX_WITHIN: Duration = Duration::from_secs(24 * 3600);

/// Opens a channel to the controller.
pub type Dial = Box<dyn Fn(bool) -> Result<Dialled, String> + Send + Sync>;

/// A channel to the controller.
#[derive(Debug)]
pub struct Dialled {
    /// The channel.
    pub channel: Channel,
    /// The join token, where no certificate is shown.
    pub token: Option<Vec<u8>>,
    /// Whether another is to be opened once there is a certificate.
    pub provisional: bool,
}

/// Follows the bundles. Made by [`Follower::new`], run by [`Follower::run`].
pub struct Follower {
    process: Process,
    dial: Dial,
    catch_up: Option<CatchUp>,
    writer: Arc<TrustWriter>,
    credentials: CredentialReader,
    adopted: Adopted,
    keeper: Option<Keeper>,
    backoff: Backoff,
    loaded: watch::Sender<Loaded>,
    heard: watch::Sender<bool>,
    reissue: watch::Sender<Option<SystemTime>>,
    settling: Option<Settling>,
    sequence: u64,
    report_every: Duration,
    tickets: u64,
    results: Vec<api::ProbeResult>,
    refused: Option<api::Refused>,
    connections: Connections,
    metrics: Option<TrustHandle>,
    unknown: bool,
    /// Streams in a row that brought nothing.
    failures: u32,
}

type Settling = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Follower {
    /// A follower that begins with `start`, sets what it adopts in `writer`, and reports about `credentials`. `dial` is told
    /// whether there is a certificate to show. Pauses after failures are from `backoff.0` to `backoff.1`.
    #[must_use]
    pub fn new(
        process: Process,
        start: Start,
        writer: Arc<TrustWriter>,
        credentials: CredentialReader,
        dial: Dial,
        backoff: (Duration, Duration),
    ) -> Self {
        let bundle = TrustBundle::clone(&writer.load());
        let loaded = watch::Sender::new(Loaded::of(&bundle));
        Self {
            process,
            dial,
            catch_up: None,
            writer,
            credentials,
            adopted: Adopted::new(start.pin, bundle),
            keeper: start.keeper,
            backoff: Backoff::new(backoff.0, backoff.1),
            loaded,
            heard: watch::Sender::new(false),
            reissue: watch::Sender::new(None),
            settling: None,
            sequence: 0,
            report_every: REPORT_EVERY,
            tickets: 0,
            results: Vec::new(),
            refused: None,
            connections: Connections::default(),
            metrics: None,
            unknown: false,
            failures: 0,
        }
    }

    /// Reports and drains these.
    #[must_use]
    pub fn with_connections(self, connections: Connections) -> Self {
        Self {
            connections,
            ..self
        }
    }

    /// Asks there for bundles that prove themselves, when the controller cannot be verified any more.
    #[must_use]
    pub fn catching_up_over(self, channel: CatchUp) -> Self {
        Self {
            catch_up: Some(channel),
            ..self
        }
    }

    /// Counts with these.
    #[must_use]
    pub fn counted_by(self, metrics: TrustHandle) -> Self {
        metrics.loaded(self.adopted.bundle().generation());
        Self {
            metrics: Some(metrics),
            ..self
        }
    }

    /// How the process stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing::new(
            self.process.clone(),
            self.loaded.subscribe(),
            self.heard.subscribe(),
        )
    }

    /// Orders to renew the certificate by a time.
    #[must_use]
    pub fn reissues(&self) -> watch::Receiver<Option<SystemTime>> {
        self.reissue.subscribe()
    }

    /// Follows, for ever.
    pub async fn run(mut self) {
        loop {
            let ended = self.session().await;
            self.heard.send_replace(true);
            let pause = match ended {
                // The certificate has come that the next stream is to show.
                Ok(()) => Duration::ZERO,
                Err(status) if status.code() == Code::Unimplemented => {
                    if !std::mem::replace(&mut self.unknown, true) {
                        tracing::warn!(
                            "the controller does not know mesh.trust.v1: the trust anchors stay as they are"
                        );
                    }
                    UNKNOWN_PAUSE
                }
                Err(status) if catch_up::is_mistrust(&status) && self.catch_up().await => {
                    // The certificate that there is may be as old as the bundle was.
                    self.reissue.send_replace(Some(SystemTime::now()));
                    Duration::ZERO
                }
                Err(status) if catch_up::is_mistrust(&status) && self.tell().await => {
                    self.failures = self.failures.saturating_add(1);
                    if self.failures == 2 {
                        let reason = status.message();
                        tracing::warn!(
                            reason,
                            "the controller cannot be verified: it is told how this stands, and no order is taken"
                        );
                    }
                    TOLD_PAUSE
                }
                Err(status) => {
                    let pause = self.backoff.next(fastrand::u64(..));
                    let reason = status.message();
                    self.failures = self.failures.saturating_add(1);
                    // One that ends is nothing: connections end with their certificates.
                    if self.failures == 2 {
                        tracing::warn!(code = ?status.code(), reason, "no trust stream: the bundle stays until there is one");
                    } else {
                        tracing::debug!(code = ?status.code(), reason, ?pause, "no trust stream");
                    }
                    pause
                }
            };
            // What was adopted is used by all in the end, whether there is anyone to tell or not.
            let until = Instant::now() + pause;
            loop {
                tokio::select! {
                    () = sleep_until(until) => break,
                    // What failed may have failed for the certificate of before.
                    Ok(()) = self.credentials.changed(), if self.failures > 0 => break,
                    () = settled(&mut self.settling) => self.settled(),
                }
            }
        }
    }

    /// Does what an update says. `true` when there is something to report.
    async fn apply(&mut self, update: api::Update) -> bool {
        let mut due = false;
        if let Some(every) = update.report_every.and_then(|every| every.try_into().ok()) {
            let (min, max) = REPORT_BOUNDS;
            self.report_every = Duration::clamp(every, min, max);
        }
        if !update.documents.is_empty() {
            due |= self.adopt(update.documents).await;
        }
        if let Some(order) = update.rotate_tickets {
            // None are given out, so none are worth anything.
            self.tickets = self.tickets.max(order.generation);
            due = true;
        }
        for order in update.drains.into_iter().take(MAX_DRAINS) {
            due |= self.drain(&order);
        }
        if let Some(order) = update.reissue {
            self.reissue(&order);
        }
        for probe in update.probes.into_iter().take(MAX_RESULTS) {
            // Of many that nobody waits for, the first are forgotten.
            if self.results.len() >= MAX_RESULTS {
                self.results.remove(0);
            }
            let result = probe::answer(&probe, &self.writer.load(), SystemTime::now());
            self.results.push(result);
            due = true;
        }
        due
    }

    /// Takes documents, if they may be taken. `true` when they may not, which is to be reported.
    async fn adopt(&mut self, documents: Vec<api::Document>) -> bool {
        match self.adopted.after(documents) {
            Ok(None) => false,
            Ok(Some(adopted)) => {
                self.write_down(&adopted).await;
                let bundle = adopted.bundle().clone();
                let (generation, anchors) = (bundle.generation(), bundle.anchors().len());
                if let Err(error) = self.writer.set(bundle) {
                    // The pin does not lag behind the store, which only this writes to.
                    tracing::error!(%error, "a trust bundle that was adopted cannot be used");
                    return false;
                }
                self.adopted = adopted;
                let writer = Arc::clone(&self.writer);
                self.settling = Some(Box::pin(async move { writer.settled().await }));
                tracing::info!(generation, anchors, "adopted a trust bundle");
                false
            }
            Err(refusal) => {
                self.refuse(refusal);
                true
            }
        }
    }

    async fn write_down(&mut self, adopted: &Adopted) {
        let Some(keeper) = self.keeper.take() else {
            return;
        };
        let (pin, bundle) = (adopted.pin().clone(), adopted.bundle().clone());
        let written = tokio::task::spawn_blocking(move || {
            let written = keeper.write(&pin, &bundle);
            (keeper, written)
        });
        match written.await {
            Ok((keeper, written)) => {
                if let Err(error) = written {
                    tracing::warn!(%error, "cannot write identity.bundle_file: a restart begins with an older bundle");
                }
                self.keeper = Some(keeper);
            }
            Err(error) => tracing::error!(%error, "cannot write identity.bundle_file any more"),
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        let before = self.refused.as_ref();
        let same = before.is_some_and(|before| before.reason == refusal.reason as i32);
        let total = before.map_or(0, |before| before.total) + 1;
        let Refusal { reason, detail } = refusal;
        if let Some(metrics) = &self.metrics {
            metrics.refused(counted(reason));
        }
        // Who sends the same again and again does not fill the log.
        if same {
            tracing::debug!(?reason, detail, total, "refused a trust bundle");
        } else {
            tracing::error!(
                ?reason,
                detail,
                total,
                "refused a trust bundle: somebody sends what the pinned key does not vouch for, or what is old"
            );
        }
        self.refused = Some(api::Refused {
            total,
            reason: reason.into(),
            detail: report::cut(&detail).to_owned(),
            at: Some(SystemTime::now().into()),
        });
    }

    fn reissue(&mut self, order: &api::Reissue) {
        let now = SystemTime::now();
        let wanted = key_id(&order.issuer);
        let presented = self.credentials.load().and_then(|credentials| {
            let keys = credentials.verify(&self.writer.load(), now);
            keys.map_or(credentials.issuer(), |keys| Some(keys.issuer))
        });
        if wanted.is_some() && wanted == presented {
            return;
        }
        let due = now + within(order.within.as_ref()).mul_f64(fastrand::f64());
        // An order that is still to be followed is not put off by its repetition.
        self.reissue.send_if_modified(|ordered| {
            let sooner = ordered.is_none_or(|ordered| due < ordered || ordered <= now);
            if sooner {
                *ordered = Some(due);
            }
            sooner
        });
    }

    fn drain(&self, order: &api::Drain) -> bool {
        let Some(anchor) = key_id(&order.anchor) else {
            return false;
        };
        let cut_after = match order.mode() {
            Mode::Wait => None,
            Mode::Cut => Some(within(order.within.as_ref())),
        };
        self.connections.drain(anchor, cut_after);
        true
    }

    /// No handshake under an older bundle goes on: everything uses the one of now.
    fn settled(&mut self) {
        let loaded = Loaded::of(&self.writer.load());
        self.loaded.send_replace(loaded);
        if let Some(metrics) = &self.metrics {
            metrics.loaded(loaded.generation);
        }
        tracing::debug!(
            generation = loaded.generation,
            "all of this proxy uses the bundle"
        );
    }

    /// How the process stands. Answers to orders are for who gave them, and so for nobody who is not verified.
    fn report(&mut self, verified: bool) -> api::Report {
        self.sequence += 1;
        let results = if verified {
            self.results.len().min(MAX_RESULTS)
        } else {
            0
        };
        let trust = self.writer.load();
        let credentials = self.credentials.load();
        let now = SystemTime::now();
        api::Report {
            sequence: self.sequence,
            leaf: credentials.map(|credentials| report::leaf(&credentials, &trust, now)),
            connections: report::connections(&self.connections.summary()),
            connections_cut: self.connections.cuts(),
            tickets: self.tickets,
            probes: self.results.drain(..results).collect(),
            highest_generation: self.adopted.pin().generation().0,
            bundle_key: self.adopted.pin().key().as_bytes().to_vec(),
            refused: self.refused.clone(),
            clock: Some(now.into()),
            ..report::of(&self.process, *self.loaded.borrow())
        }
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower")
            .field("process", &self.process)
            .field("adopted", &self.adopted)
            .finish_non_exhaustive()
    }
}

/// Resolves when what is settling has settled, once.
async fn settled(settling: &mut Option<Settling>) {
    match settling {
        Some(waiting) => waiting.as_mut().await,
        None => pending().await,
    }
    *settling = None;
}

fn counted(reason: Reason) -> BundleRefusal {
    match reason {
        Reason::Signature => BundleRefusal::Signature,
        Reason::Stale => BundleRefusal::Stale,
        Reason::Leap => BundleRefusal::Leap,
        Reason::TrustDomain => BundleRefusal::TrustDomain,
        Reason::Malformed | Reason::Unspecified => BundleRefusal::Malformed,
    }
}

/// A key's id; none where none is given.
pub(super) fn key_id(bytes: &[u8]) -> Option<KeyId> {
    <[u8; 32]>::try_from(bytes).ok().map(KeyId::from)
}

/// How long an order has time.
fn within(given: Option<&prost_types::Duration>) -> Duration {
    let given = given.and_then(|given| Duration::try_from(*given).ok());
    given.unwrap_or_default().min(MAX_WITHIN)
}
