//! Keeping one workload running: its application, then its proxy.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mesh_discovery::Name;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::app::App;
use super::event::{Event, Failure};
use super::plan::{Part, Unit};
use super::proxy::{self, Proxy};
use crate::admin::Admin;
use crate::probe::Probe;
use crate::process::{Backoff, Launch, Lines, Process};
use crate::{Error, data};

/// From a process's start until it is ready.
const READY: Duration = Duration::from_secs(15);
/// For a proxy that was replaced to drain; a little more than it takes itself.
const DRAIN: Duration = Duration::from_secs(11);
/// For a proxy to drain when its application ends.
const PROXY_GRACE: Duration = Duration::from_secs(3);
/// For an application to end.
const APP_GRACE: Duration = Duration::from_secs(3);

/// A token is replaced at this age. It is good for a day, and a proxy needs one that is whenever it renews.
const TOKEN_AGE: Duration = Duration::from_secs(8 * 3_600);
/// How often its age is looked at: by the clock on the wall, as a laptop may have slept.
const TOKEN_LOOK: Duration = Duration::from_secs(30);

/// What every unit needs.
#[derive(Debug, Clone)]
pub(crate) struct Common {
    /// Where the controller answers.
    pub(crate) data: PathBuf,
    /// Where events go.
    pub(crate) events: mpsc::Sender<(Name, Event)>,
    /// Where output goes, if it is wanted.
    pub(crate) lines: Option<Lines>,
    /// Held by who starts something anew, so that the replicas of a service are not all gone at once.
    pub(crate) turn: Arc<Semaphore>,
}

/// A unit that is kept running.
#[derive(Debug)]
pub(crate) struct Keeper {
    stop: oneshot::Sender<()>,
    planned: watch::Sender<Unit>,
    task: JoinHandle<()>,
}

impl Keeper {
    /// Starts `unit` and keeps it running.
    pub(crate) fn start(unit: Unit, common: Common) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (planned, changes) = watch::channel(unit.clone());
        let mut keeping = Keeping {
            unit,
            changes,
            common,
            app: None,
            proxy: None,
            place: 0,
            next: None,
            draining: JoinSet::new(),
            in_vain: false,
            sound: None,
            token: None,
            app_waits: Backoff::default(),
            proxy_waits: Backoff::default(),
            needs_proxy: false,
        };
        let task = tokio::spawn(async move {
            tokio::select! {
                never = keeping.keep() => match never {},
                _ = stopped => {}
            }
            keeping.stop().await;
        });
        Self {
            stop,
            planned,
            task,
        }
    }

    /// From now on it is to be `unit`. What of it has to be started anew is, when it is its turn.
    pub(crate) fn change(&self, unit: Unit) {
        self.planned.send_replace(unit);
    }

    /// Drains and stops it.
    pub(crate) async fn stop(self) {
        // The task ends only by this, or by a panic.
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

/// What runs is kept here rather than in `keep`, so that it is there to stop when `keep` is cancelled.
#[derive(Debug)]
struct Keeping {
    /// What is wanted.
    unit: Unit,
    changes: watch::Receiver<Unit>,
    common: Common,
    app: Option<Running<App>>,
    proxy: Option<Running<Proxy>>,
    /// Which of the unit's two proxies the one that runs is, or the last one that ran.
    place: usize,
    /// A proxy that is to take over, until it is ready.
    next: Option<Process>,
    /// A proxy that has been replaced or did not come to replace one; while it is there, no other is started beside the one in force.
    draining: JoinSet<()>,
    /// The proxy that is wanted did not come to replace the one in force: not before the next change is it tried again.
    in_vain: bool,
    /// The last proxy that was ready.
    sound: Option<Proxy>,
    /// What its proxy joins with, and since when.
    token: Option<(String, SystemTime)>,
    app_waits: Backoff,
    proxy_waits: Backoff,
    /// The command did not come up before its proxy: it may need to call others for that, and so its proxy first.
    needs_proxy: bool,
}

/// A process and what it was started as.
#[derive(Debug)]
struct Running<T> {
    process: Process,
    as_planned: T,
}

/// What has to be started anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Nothing,
    /// And its proxy with it: drained first, so that callers go to other replicas.
    App,
    Proxy,
}

/// Why a unit that runs is looked at again.
enum Woken {
    Ended(Which, String),
    Changed,
    /// It is this unit's turn to start anew what is due.
    Turn(OwnedSemaphorePermit),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    App,
    Proxy,
}

impl Keeping {
    async fn keep(&mut self) -> std::convert::Infallible {
        // Held while an application that was stopped is started anew.
        let mut turn = None;
        loop {
            match self.start_missing().await {
                Ok(false) => {}
                Ok(true) => self.tell_ready().await,
                Err((which, failure)) => {
                    turn = None;
                    self.down(which, failure).await;
                    self.look();
                    continue;
                }
            }
            drop(turn.take());
            match self.woken().await {
                Woken::Changed => self.look(),
                Woken::Ended(which, reason) => {
                    self.down(which, Failure::Reason(reason)).await;
                    self.look();
                }
                Woken::Turn(permit) => match self.due() {
                    Due::Nothing => {}
                    Due::Proxy => self.replace_proxy().await,
                    Due::App => {
                        self.stop_both().await;
                        turn = Some(permit);
                    }
                },
            }
        }
    }

    /// Sees what is wanted by now.
    fn look(&mut self) {
        if self.changes.has_changed().unwrap_or(false) {
            self.unit = self.changes.borrow_and_update().clone();
            self.in_vain = false;
        }
    }

    fn due(&self) -> Due {
        let (Some(proxy), app) = (&self.proxy, &self.app) else {
            return Due::Nothing;
        };
        let serves = match (app, &self.unit.app) {
            (Some(app), Some(planned)) => app.as_planned.serves_as(planned),
            (app, planned) => app.is_none() && planned.is_none(),
        };
        if !serves {
            Due::App
        } else if self.in_vain || proxy.as_planned == self.unit.proxies[self.place] {
            Due::Nothing
        } else {
            Due::Proxy
        }
    }

    /// Starts what does not run. Returns whether there was anything.
    ///
    /// The command first, so that its proxy takes no calls that it cannot answer yet; its proxy first once that has failed.
    async fn start_missing(&mut self) -> Result<bool, (Which, Failure)> {
        let mut started = self.needs_proxy && self.start_proxy().await?;
        if let Some(app) = self.unit.app.clone()
            && self.app.is_none()
        {
            self.app_waits.started(Instant::now());
            let process = self
                .launch(&app.launch())
                .map_err(|failure| (Which::App, failure))?;
            let ready = app.part.ready.clone();
            let app = self.app.insert(Running {
                process,
                as_planned: app,
            });
            until_ready(&mut app.process, ready.as_ref())
                .await
                .map_err(|failure| (Which::App, failure))?;
            started = true;
        }
        Ok(self.start_proxy().await? || started)
    }

    /// Starts the proxy if it does not run. Returns whether it did not.
    async fn start_proxy(&mut self) -> Result<bool, (Which, Failure)> {
        if self.proxy.is_some() {
            return Ok(false);
        }
        let failed = |failure| (Which::Proxy, failure);
        // What stays in force stays so when its process ends.
        let sound = self.sound.clone().filter(|_| self.in_vain);
        let proxy = sound.unwrap_or_else(|| self.unit.proxies[self.place].clone());
        self.proxy_waits.started(Instant::now());
        self.write_files(&proxy)
            .await
            .map_err(|error| failed(Failure::Error(error)))?;
        let process = self.launch(&proxy.part.launch).map_err(failed)?;
        let ready = proxy.part.ready.clone();
        let proxy = self.proxy.insert(Running {
            process,
            as_planned: proxy,
        });
        until_ready(&mut proxy.process, ready.as_ref())
            .await
            .map_err(failed)?;
        self.sound = Some(proxy.as_planned.clone());
        Ok(true)
    }

    fn launch(&self, launch: &Launch) -> Result<Process, Failure> {
        Process::start(launch, self.common.lines.clone()).map_err(Failure::Error)
    }

    /// Waits until there is something to do, and keeps the token fresh meanwhile.
    async fn woken(&mut self) -> Woken {
        let due = self.due();
        let turn = self.common.turn.clone();
        let draining = &mut self.draining;
        // Made before the loop, so that a look at the token does not give up the place in the queue.
        let turn = async move {
            if due == Due::Nothing {
                std::future::pending::<()>().await;
            }
            // The one before the last has the place that the next proxy needs.
            while draining.join_next().await.is_some() {}
            match turn.acquire_owned().await {
                Ok(permit) => permit,
                // It is never closed.
                Err(_) => std::future::pending().await,
            }
        };
        tokio::pin!(turn);
        loop {
            tokio::select! {
                reason = ended(&mut self.app) => return Woken::Ended(Which::App, reason),
                reason = ended(&mut self.proxy) => return Woken::Ended(Which::Proxy, reason),
                Ok(()) = self.changes.changed() => {
                    self.changes.mark_changed();
                    return Woken::Changed;
                }
                permit = &mut turn => return Woken::Turn(permit),
                () = tokio::time::sleep(TOKEN_LOOK) => {}
            }
            if self
                .token
                .as_ref()
                .is_none_or(|(_, since)| is_old(*since, SystemTime::now()))
            {
                // The old one is good for a while yet: this is tried again at the next look.
                let _ = renew_token(&self.common, &self.unit, &mut self.token).await;
            }
        }
    }

    /// Starts the proxy that is wanted beside the one in force, and lets that one drain once the new one is ready.
    async fn replace_proxy(&mut self) {
        let place = 1 - self.place;
        let proxy = self.unit.proxies[place].clone();
        let failure = match self.start_next(&proxy).await {
            Ok(true) => {
                let Some(process) = self.next.take() else {
                    return;
                };
                self.sound = Some(proxy.clone());
                let before = self.proxy.replace(Running {
                    process,
                    as_planned: proxy,
                });
                self.place = place;
                self.proxy_waits = Backoff::default();
                self.proxy_waits.started(Instant::now());
                if let Some(admin) = self.admin() {
                    // Before the one before says that it drains, so that nobody takes that for trouble.
                    self.tell(Event::Replaced { admin }).await;
                }
                self.drain(before.map(|before| before.process));
                return;
            }
            // Something else is wanted by now.
            Ok(false) => None,
            Err(failure) => Some(failure),
        };
        self.in_vain = failure.is_some();
        let last_lines = self
            .next
            .as_ref()
            .map(Process::last_lines)
            .unwrap_or_default();
        // It may have taken connections.
        let next = self.next.take();
        self.drain(next);
        if let Some(failure) = failure {
            self.tell(Event::Kept {
                what: proxy.part.launch.name,
                reason: failure.reason(),
                last_lines,
            })
            .await;
        }
    }

    /// Starts `proxy` as the next. Returns whether it became ready before something else was wanted.
    async fn start_next(&mut self, proxy: &Proxy) -> Result<bool, Failure> {
        // What cannot be had is found out before anything listens there that would have to close again.
        let held = self
            .proxy
            .as_ref()
            .map(|proxy| proxy.as_planned.listens.as_slice());
        for address in proxy.listens.iter().chain([&proxy.admin]) {
            if !held.is_some_and(|held| held.contains(address)) {
                TcpListener::bind(address).map_err(|source| {
                    Failure::Reason(format!("could not listen on {address}: {source}"))
                })?;
            }
        }
        self.write_files(proxy).await.map_err(Failure::Error)?;
        let process = self.launch(&proxy.part.launch)?;
        let next = self.next.insert(process);
        tokio::select! {
            ready = until_ready(next, proxy.part.ready.as_ref()) => ready.map(|()| true),
            Ok(()) = self.changes.changed() => {
                self.changes.mark_changed();
                self.look();
                Ok(false)
            }
        }
    }

    fn drain(&mut self, proxy: Option<Process>) {
        if let Some(proxy) = proxy {
            self.draining.spawn(async move {
                proxy.stop(DRAIN).await;
            });
        }
    }

    /// Its token, the anchors it is to trust, and its configuration.
    async fn write_files(&mut self, proxy: &Proxy) -> Result<(), Error> {
        data::make_private(&self.unit.folder)?;
        renew_token(&self.common, &self.unit, &mut self.token).await?;
        data::write_private(&proxy.file, &proxy.config)
    }

    /// Says so, and waits before the next try.
    async fn down(&mut self, which: Which, failure: Failure) {
        let part = |part: &Part| part.launch.name.clone();
        let (process, what) = match which {
            Which::App => (
                self.app.take().map(|app| app.process),
                self.unit.app.as_ref().map(|app| part(&app.part)),
            ),
            Which::Proxy => (
                self.proxy.take().map(|proxy| proxy.process),
                Some(part(&self.unit.proxies[self.place].part)),
            ),
        };
        let last_lines = process
            .as_ref()
            .map(Process::last_lines)
            .unwrap_or_default();
        drop(process);
        let waits = match which {
            Which::App => &mut self.app_waits,
            Which::Proxy => &mut self.proxy_waits,
        };
        let wait = waits.ended(Instant::now());
        self.needs_proxy |= which == Which::App && self.proxy.is_none();
        self.tell(Event::Down {
            what: what.unwrap_or_default(),
            reason: failure.reason(),
            last_lines,
            wait,
        })
        .await;
        // What is wrong may just have been put right.
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            Ok(()) = self.changes.changed() => self.changes.mark_changed(),
        }
    }

    /// The proxies first, as they need what is behind them to drain.
    async fn stop_both(&mut self) {
        let proxies = [
            self.proxy.take().map(|proxy| proxy.process),
            self.next.take(),
        ];
        let mut stopping: JoinSet<bool> = proxies
            .into_iter()
            .flatten()
            .map(|proxy| proxy.stop(PROXY_GRACE))
            .collect();
        while stopping.join_next().await.is_some() {}
        let drained = async { while self.draining.join_next().await.is_some() {} };
        if tokio::time::timeout(PROXY_GRACE, drained).await.is_err() {
            self.draining.shutdown().await;
        }
        if let Some(app) = self.app.take() {
            app.process.stop(APP_GRACE).await;
        }
    }

    async fn stop(mut self) {
        self.stop_both().await;
        if let Some((token, _)) = self.token.take()
            && let Ok(admin) = Admin::connect(&self.common.data).await
        {
            // Without a controller it cannot be used, and it expires by itself.
            let _ = admin.revoke_token(&token).await;
        }
    }

    fn admin(&self) -> Option<std::net::SocketAddr> {
        self.proxy.as_ref().map(|proxy| proxy.as_planned.admin)
    }

    async fn tell_ready(&self) {
        if let Some(admin) = self.admin() {
            self.tell(Event::Ready { admin }).await;
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
}

/// Puts a new token where the proxy reads it, and makes the old one useless.
async fn renew_token(
    common: &Common,
    unit: &Unit,
    token: &mut Option<(String, SystemTime)>,
) -> Result<(), Error> {
    let admin = Admin::connect(&common.data).await?;
    let new = admin.issue_token(&unit.identity, None, None).await?;
    data::write_private(&proxy::token_file(&unit.folder), &new.token)?;
    data::write_private(&proxy::anchors_file(&unit.folder), &new.bundle_pem)?;
    if let Some((old, _)) = token.replace((new.id, SystemTime::now())) {
        admin.revoke_token(&old).await?;
    }
    Ok(())
}

/// Waits until `process` is ready.
async fn until_ready(process: &mut Process, probe: Option<&Probe>) -> Result<(), Failure> {
    let Some(probe) = probe else {
        return Ok(());
    };
    tokio::select! {
        ready = probe.wait(READY) => {
            ready.map_err(|reason| Failure::Reason(format!("is not ready after {} s: it {reason}", READY.as_secs())))
        }
        reason = process.ended() => Err(Failure::Reason(reason)),
    }
}

/// A clock that was set back makes a token old: nobody knows when it expires.
fn is_old(since: SystemTime, now: SystemTime) -> bool {
    now.duration_since(since)
        .map_or(true, |age| age >= TOKEN_AGE)
}

async fn ended<T>(running: &mut Option<Running<T>>) -> String {
    match running {
        Some(running) => running.process.ended().await,
        None => std::future::pending().await,
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
