//! Keeping one workload running: its application, then its proxy.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use mesh_discovery::Name;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::plan::{Part, Unit};
use super::proxy;
use crate::admin::Admin;
use crate::data;
use crate::process::{Backoff, Lines, Process};
use crate::{Error, duration};

/// From a process's start until it is ready.
const READY: Duration = Duration::from_secs(15);
/// For a proxy to drain; a little more than it takes itself.
const PROXY_GRACE: Duration = Duration::from_secs(4);
/// For an application to end.
const APP_GRACE: Duration = Duration::from_secs(3);

/// A token is replaced at this age. It is good for a day, and a proxy needs one that is whenever it renews.
const TOKEN_AGE: Duration = Duration::from_secs(8 * 3_600);
/// How often its age is looked at: by the clock on the wall, as a laptop may have slept.
const TOKEN_LOOK: Duration = Duration::from_secs(30);

/// What happened to a unit.
#[derive(Debug)]
pub(crate) enum Event {
    /// Both its processes are ready.
    Ready,
    /// It is not, or no longer: what, why, what was printed last, and when it is started again.
    Down {
        /// The process.
        what: String,
        /// What it did.
        reason: String,
        /// The last lines it printed.
        last_lines: Vec<String>,
        /// Until the next start.
        wait: Duration,
    },
}

/// What every unit needs.
#[derive(Debug, Clone)]
pub(crate) struct Common {
    /// Where the controller answers.
    pub(crate) data: PathBuf,
    /// Where events go.
    pub(crate) events: mpsc::Sender<(Name, Event)>,
    /// Where output goes, if it is wanted.
    pub(crate) lines: Option<Lines>,
}

/// A unit that is kept running.
#[derive(Debug)]
pub(crate) struct Keeper {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Keeper {
    /// Starts `unit` and keeps it running.
    pub(crate) fn start(unit: Unit, common: Common) -> Self {
        let (stop, stopped) = oneshot::channel();
        let mut keeping = Keeping {
            unit,
            common,
            app: None,
            proxy: None,
            token: None,
            app_waits: Backoff::default(),
            proxy_waits: Backoff::default(),
        };
        let task = tokio::spawn(async move {
            tokio::select! {
                never = keeping.keep() => match never {},
                _ = stopped => {}
            }
            keeping.stop().await;
        });
        Self { stop, task }
    }

    /// Drains and stops it.
    pub(crate) async fn stop(self) {
        // The task ends only by this, or by a panic.
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

#[derive(Debug)]
struct Keeping {
    unit: Unit,
    common: Common,
    /// Kept here rather than in `keep`, so that what `keep` has started is there to stop when it is cancelled.
    app: Option<Process>,
    proxy: Option<Process>,
    /// What its proxy joins with, and since when.
    token: Option<(String, SystemTime)>,
    app_waits: Backoff,
    proxy_waits: Backoff,
}

impl Keeping {
    async fn keep(&mut self) -> std::convert::Infallible {
        loop {
            if let Some(app) = &self.unit.app
                && self.app.is_none()
            {
                let app = app.clone();
                if let Err(error) = self.begin(&app, Which::App).await {
                    self.down(Which::App, &app, error).await;
                    continue;
                }
            }
            if self.proxy.is_none() {
                let proxy = self.unit.proxy.clone();
                if let Err(error) = self.begin(&proxy, Which::Proxy).await {
                    self.down(Which::Proxy, &proxy, error).await;
                    continue;
                }
            }
            self.tell(Event::Ready).await;
            let (which, reason) = self.until_one_ends().await;
            let part = match (which, &self.unit.app) {
                (Which::App, Some(app)) => app.clone(),
                _ => self.unit.proxy.clone(),
            };
            self.down(which, &part, Failure::Reason(reason)).await;
        }
    }

    /// Waits for a process to end, and keeps the token fresh meanwhile.
    async fn until_one_ends(&mut self) -> (Which, String) {
        loop {
            tokio::select! {
                reason = ended(&mut self.app) => return (Which::App, reason),
                reason = ended(&mut self.proxy) => return (Which::Proxy, reason),
                () = tokio::time::sleep(TOKEN_LOOK) => {}
            }
            if self
                .token
                .as_ref()
                .is_none_or(|(_, since)| is_old(*since, SystemTime::now()))
            {
                // The old one is good for a while yet: this is tried again at the next look.
                let _ = self.renew_token().await;
            }
        }
    }

    async fn begin(&mut self, part: &Part, which: Which) -> Result<(), Failure> {
        if which == Which::Proxy {
            self.write_proxy_files().await.map_err(Failure::Error)?;
        }
        self.waits(which).started(Instant::now());
        let slot = match which {
            Which::App => &mut self.app,
            Which::Proxy => &mut self.proxy,
        };
        let process = slot.insert(
            Process::start(&part.launch, self.common.lines.clone()).map_err(Failure::Error)?,
        );
        let Some(probe) = &part.ready else {
            return Ok(());
        };
        tokio::select! {
            ready = probe.wait(READY) => {
                ready.map_err(|reason| Failure::Reason(format!("is not ready after {} s: it {reason}", READY.as_secs())))
            }
            reason = process.ended() => Err(Failure::Reason(reason)),
        }
    }

    /// Its token, the anchors it is to trust, and its configuration.
    async fn write_proxy_files(&mut self) -> Result<(), Error> {
        data::make_private(&self.unit.folder)?;
        self.renew_token().await?;
        data::write_private(&proxy::config_file(&self.unit.folder), &self.unit.config)
    }

    /// Puts a new token where the proxy reads it, and makes the old one useless.
    async fn renew_token(&mut self) -> Result<(), Error> {
        let admin = Admin::connect(&self.common.data).await?;
        let token = admin.issue_token(&self.unit.identity, None, None).await?;
        data::write_private(&proxy::token_file(&self.unit.folder), &token.token)?;
        data::write_private(&proxy::anchors_file(&self.unit.folder), &token.bundle_pem)?;
        if let Some((old, _)) = self.token.replace((token.id, SystemTime::now())) {
            admin.revoke_token(&old).await?;
        }
        Ok(())
    }

    /// Says so, and waits before the next try.
    async fn down(&mut self, which: Which, part: &Part, failure: Failure) {
        let process = match which {
            Which::App => self.app.take(),
            Which::Proxy => self.proxy.take(),
        };
        let last_lines = process
            .as_ref()
            .map(Process::last_lines)
            .unwrap_or_default();
        drop(process);
        let wait = self.waits(which).ended(Instant::now());
        let reason = match failure {
            Failure::Reason(reason) => reason,
            Failure::Error(Error::Start { source, .. }) => format!("cannot be started: {source}"),
            Failure::Error(error) => format!("cannot be started: {error}"),
        };
        self.tell(Event::Down {
            what: part.launch.name.clone(),
            reason,
            last_lines,
            wait,
        })
        .await;
        tokio::time::sleep(wait).await;
    }

    async fn stop(mut self) {
        if let Some(proxy) = self.proxy.take() {
            proxy.stop(PROXY_GRACE).await;
        }
        if let Some(app) = self.app.take() {
            app.stop(APP_GRACE).await;
        }
        if let Some((token, _)) = self.token.take()
            && let Ok(admin) = Admin::connect(&self.common.data).await
        {
            // Without a controller it cannot be used, and it expires by itself.
            let _ = admin.revoke_token(&token).await;
        }
    }

    async fn tell(&self, event: Event) {
        // Nobody listens once everything is being stopped.
        let _ = self
            .common
            .events
            .send((self.unit.name.clone(), event))
            .await;
    }

    fn waits(&mut self, which: Which) -> &mut Backoff {
        match which {
            Which::App => &mut self.app_waits,
            Which::Proxy => &mut self.proxy_waits,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    App,
    Proxy,
}

enum Failure {
    Reason(String),
    Error(Error),
}

/// A clock that was set back makes a token old: nobody knows when it expires.
fn is_old(since: SystemTime, now: SystemTime) -> bool {
    now.duration_since(since)
        .map_or(true, |age| age >= TOKEN_AGE)
}

async fn ended(process: &mut Option<Process>) -> String {
    match process {
        Some(process) => process.ended().await,
        None => std::future::pending().await,
    }
}

impl Event {
    /// For people: the line about it, and what was printed last.
    pub(crate) fn describe(&self, name: &str) -> String {
        match self {
            Self::Ready => format!("{name} is ready"),
            Self::Down {
                what,
                reason,
                last_lines,
                wait,
            } => {
                format!(
                    "{what} {reason}; starting it again in {}{}",
                    duration::show(*wait),
                    crate::error::quoted(last_lines)
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_old_after_a_third_of_its_life_by_the_clock_on_the_wall() {
        let since = SystemTime::now();
        assert!(!is_old(since, since + TOKEN_AGE - Duration::from_secs(1)));
        assert!(is_old(since, since + TOKEN_AGE));
        assert!(is_old(since, since - Duration::from_secs(1)));
    }
}
