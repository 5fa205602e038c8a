//! The conversation with a controller: verified, unverified, or only to catch up.

use std::future::pending;
use std::time::Duration;

use mesh_control_api::metadata;
use mesh_control_api::trust::trust_client::TrustClient;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::metadata::MetadataValue;
use tonic::{Request, Status};

use super::super::catch_up;
use super::super::clock::Clock;
use super::{Dialled, Follower, settled};

/// How soon a report that could not be sent is tried again.
const REPORT_AGAIN: Duration = Duration::from_millis(200);
/// How soon it is noticed that the host's clock was set, which is reported.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(1);
/// How soon a report goes out when an anchor's last connection has ended.
const CHANGE_PAUSE: Duration = Duration::from_secs(1);
/// How long who is not verified is told how the process stands.
const TELL_FOR: Duration = Duration::from_secs(5);
/// Reports on their way. Each has everything, so there is no use for more.
const MAX_REPORTS: usize = 2;

impl Follower {
    /// One stream, until it ends. `Ok` when it is to be opened again at once.
    pub(super) async fn session(&mut self) -> Result<(), Status> {
        let certified = self.credentials.load().is_some();
        let dialled = (self.dial)(certified).map_err(Status::unavailable)?;
        // Without a token and a certificate there is nobody to be yet.
        if !certified && dialled.token.is_none() {
            self.certified().await;
            return Ok(());
        }
        self.talk(dialled, None).await
    }

    /// Tells whoever is there how the process stands, and takes the documents that prove themselves. `true` when somebody listened.
    pub(super) async fn tell(&mut self) -> bool {
        if self.credentials.load().is_none() {
            return false;
        }
        let Some(channel) = self.catch_up.as_ref().and_then(|open| open(true)) else {
            return false;
        };
        let anybody = Dialled {
            channel,
            token: None,
            provisional: false,
        };
        let until = Instant::now() + TELL_FOR;
        let told = self.talk(anybody, Some(until)).await;
        if let Err(status) = &told {
            let (code, reason) = (status.code(), status.message());
            tracing::debug!(?code, reason, "nobody listens who cannot be verified");
        }
        told.is_ok()
    }

    /// Reports and does what it is told, until the stream ends. Of who is not verified documents are taken and nothing else, until
    /// the time that is given then.
    async fn talk(&mut self, dialled: Dialled, unverified: Option<Instant>) -> Result<(), Status> {
        let provisional = dialled.provisional;
        let (sender, mut reports) = mpsc::channel(MAX_REPORTS);
        // There is room in a new channel.
        let _ = sender.try_send(self.report(unverified.is_none()));
        let mut request = Request::new(futures_util::stream::poll_fn(move |cx| {
            reports.poll_recv(cx)
        }));
        if let Some(token) = &dialled.token {
            let token = MetadataValue::from_bytes(token);
            request.metadata_mut().insert_bin(metadata::TOKEN, token);
        }
        let mut client = TrustClient::new(dialled.channel);
        let watching = client.watch(request);
        let watching = match unverified {
            // Whoever is there may say nothing at all.
            Some(until) => timeout_at(until, watching)
                .await
                .unwrap_or_else(|_| Err(Status::deadline_exceeded("it does not answer"))),
            None => watching.await,
        };
        let mut updates = watching?.into_inner();
        let mut next = Instant::now() + self.report_every;
        let mut credentials = self.credentials.clone();
        let (mut clock, mut look) = (Clock::now(), Instant::now() + LOOK_AT_CLOCK);
        loop {
            let due = tokio::select! {
                update = updates.message() => match update? {
                    Some(update) if unverified.is_some() => {
                        !update.documents.is_empty() && self.adopt(update.documents).await
                    }
                    Some(update) => {
                        self.backoff.reset();
                        (self.unknown, self.failures) = (false, 0);
                        let due = self.apply(update).await;
                        self.heard.send_replace(true);
                        due
                    }
                    None => return Err(Status::unavailable("the controller ended the stream")),
                },
                () = settled(&mut self.settling) => {
                    self.settled();
                    true
                }
                // Without a writer there is no other certificate to come.
                changed = credentials.changed() => {
                    if changed.is_err() {
                        pending::<()>().await;
                    }
                    if provisional {
                        return Ok(());
                    }
                    true
                }
                () = self.connections.changed() => {
                    // They may come and go one by one.
                    next = next.min(Instant::now() + CHANGE_PAUSE);
                    false
                }
                // It is soon believed no more, and heard no more then.
                () = sleep_until(look) => {
                    look = Instant::now() + LOOK_AT_CLOCK;
                    let now = Clock::now();
                    let set = now.was_set_since(&clock);
                    clock = now;
                    set
                }
                () = sleep_until(unverified.unwrap_or(next)), if unverified.is_some() => return Ok(()),
                () = sleep_until(next) => true,
            };
            if due {
                next = Instant::now()
                    + match sender.try_reserve() {
                        Ok(place) => {
                            place.send(self.report(unverified.is_none()));
                            self.report_every
                        }
                        Err(_) => REPORT_AGAIN,
                    };
            }
        }
    }

    /// Takes what [`catch_up::ask`] brings, and waits until it is used. `true` when a bundle was adopted.
    pub(super) async fn catch_up(&mut self) -> bool {
        let Some(channel) = self.catch_up.as_ref().and_then(|open| open(false)) else {
            return false;
        };
        let Some(documents) = catch_up::ask(channel, self.adopted.pin().generation()).await else {
            return false;
        };
        let before = self.adopted.pin().generation();
        self.adopt(documents).await;
        let after = self.adopted.pin().generation();
        if after == before {
            return false;
        }
        tracing::warn!(
            from = before.0,
            to = after.0,
            "the controller could not be verified under the bundle of before: took a later one, which the pinned key signed"
        );
        while self.settling.is_some() {
            settled(&mut self.settling).await;
            self.settled();
        }
        true
    }

    async fn certified(&mut self) {
        let mut credentials = self.credentials.clone();
        while credentials.load().is_none() {
            if credentials.changed().await.is_err() {
                pending::<()>().await;
            }
        }
    }
}
