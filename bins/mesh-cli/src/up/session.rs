//! One run of `mesh up`, from the first process to the last.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_discovery::Name;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::addresses::check_free;
use super::controller::Controller;
use super::difference::difference;
use super::event::Event;
use super::manifests::{Source, State};
use super::mesh::Mesh;
use super::plan::{Plan, Surroundings, client_addresses, label, plan};
use super::ports::Listeners;
use super::programs::Programs;
use super::show;
use super::unit::{Common, Keeper};
use crate::args::Up;
use crate::data::{DataFolder, Running, own_pid};
use crate::output::{Output, Tone};
use crate::process::Backoff;
use crate::traffic::{Load, Report, Target, targets};
use crate::{Error, duration};

/// Between two live lines.
const TICK: Duration = Duration::from_secs(1);
/// Ticks between two lines about traffic where nothing is live.
const QUIET_TICKS: u32 = 5;

/// Everything that runs, and what was seen of it.
#[derive(Debug)]
pub(crate) struct Session {
    options: Up,
    programs: Programs,
    data: DataFolder,
    manifests: PathBuf,
    source: Source,
    output: Output,
    mesh: Mesh,
    /// Where the client's proxy listens.
    client: IpAddr,
    listeners: Listeners,
    plan: Plan,
    targets: Vec<Target>,
    controller: Option<Controller>,
    keepers: BTreeMap<Name, Keeper>,
    turn: Arc<Semaphore>,
    /// Who has reported, and whether it was ready then.
    ready: BTreeMap<Name, bool>,
    /// Where the proxies answer about themselves.
    admins: BTreeMap<Name, SocketAddr>,
    load: Option<Load>,
    /// Whether anything went wrong, at any time.
    failed: bool,
    events: Channel<(Name, Event)>,
    lines: Channel<(String, String)>,
}

/// Both ends: what sends is handed out, what receives stays here.
#[derive(Debug)]
struct Channel<T> {
    sender: mpsc::Sender<T>,
    receiver: mpsc::Receiver<T>,
}

impl<T> Channel<T> {
    fn new(size: usize) -> Self {
        let (sender, receiver) = mpsc::channel(size);
        Self { sender, receiver }
    }
}

impl Session {
    /// Nothing runs yet.
    pub(crate) fn new(
        options: Up,
        programs: Programs,
        data: DataFolder,
        manifests: PathBuf,
        source: Source,
        output: Output,
    ) -> Self {
        Self {
            options,
            programs,
            data,
            manifests,
            source,
            output,
            mesh: Mesh::default(),
            client: Ipv4Addr::LOCALHOST.into(),
            listeners: Listeners::default(),
            plan: Plan { units: Vec::new() },
            targets: Vec::new(),
            controller: None,
            keepers: BTreeMap::new(),
            turn: Arc::new(Semaphore::new(1)),
            ready: BTreeMap::new(),
            admins: BTreeMap::new(),
            load: None,
            failed: false,
            events: Channel::new(256),
            lines: Channel::new(1024),
        }
    }

    /// Starts everything and keeps it running; returns when the time that was given is over.
    ///
    /// # Errors
    /// What makes a start pointless: wrong manifests, addresses that are taken, a controller that does not come up.
    pub(crate) async fn run(&mut self) -> Result<(), Error> {
        let began = Instant::now();
        self.prepare()?;
        let lines = self.options.logs.then(|| self.lines.sender.clone());
        let controller =
            Controller::start(&self.programs, self.data.path(), &self.manifests, lines).await?;
        self.controller = Some(controller);
        self.apply(self.mesh.clone()).await?;
        self.wait_for_units().await;
        self.show_mesh(began.elapsed());
        let in_time = self.options.duration.is_some();
        if in_time && self.failed {
            return Ok(());
        }
        if self.options.traffic {
            if self.targets.is_empty() {
                self.output.line("no service to call: none speaks HTTP or says how to call it (annotation mesh-rs.io/traffic)");
            } else {
                self.load = Some(Load::start(self.targets.clone(), self.options.rate)?);
            }
        }
        self.follow().await
    }

    /// Stops everything, proxies before what is behind them, the controller last.
    pub(crate) async fn stop(&mut self) {
        if let Some(load) = self.load.take() {
            let report = load.finish().await;
            self.failed |= !report.is_clean();
            self.output.line("");
            self.output.table(&report.table());
            for reason in report.last_failures() {
                self.output.line(&format!("last failure: {reason}"));
            }
        }
        if self.controller.is_some() {
            self.output.live("stopping");
        }
        let mut stopping: JoinSet<()> = std::mem::take(&mut self.keepers)
            .into_values()
            .map(Keeper::stop)
            .collect();
        while stopping.join_next().await.is_some() {}
        if let Some(controller) = self.controller.take() {
            controller.stop().await;
            self.output.line("stopped");
        }
    }

    /// Zero, unless this was a test and something failed.
    pub(crate) fn verdict(&self) -> ExitCode {
        if self.options.duration.is_some() && self.failed {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        }
    }

    /// Reads the manifests and makes sure that what they ask for can be had, before anything is started.
    fn prepare(&mut self) -> Result<(), Error> {
        let State { mesh, wrong } = self.source.now();
        if !wrong.is_empty() {
            for line in &wrong {
                eprintln!("{line}");
            }
            return Err(Error::Manifests(wrong.len()));
        }
        if mesh.workloads.iter().all(|one| one.run.is_none()) {
            return Err(Error::Folder {
                path: self.manifests.clone(),
                reason: "no Workload in it has a command to run (spec.run)".to_owned(),
            });
        }
        let nowhere = (Ipv4Addr::LOCALHOST, 0).into();
        for client in client_addresses() {
            self.client = client;
            let around = self.surroundings(nowhere);
            let planned = plan(&mesh, &mut self.listeners, &around)?;
            let (clients, workloads): (Vec<_>, Vec<_>) =
                planned.units.iter().partition(|unit| unit.app.is_none());
            check_free(workloads)?;
            // The client of another mesh may be there.
            if check_free(clients).is_ok() {
                break;
            }
        }
        targets(&mesh, &self.listeners, self.client)?;
        self.mesh = mesh;
        Ok(())
    }

    fn surroundings(&self, control: SocketAddr) -> Surroundings {
        Surroundings {
            control,
            client: self.client,
            data: self.data.path().to_path_buf(),
            manifests: self.manifests.clone(),
            proxy_program: self.programs.proxy.clone(),
        }
    }

    /// Starts what is new, stops what is gone, and tells the others what they are to be.
    async fn apply(&mut self, mesh: Mesh) -> Result<(), Error> {
        let Some(controller) = &self.controller else {
            return Ok(());
        };
        let around = self.surroundings(controller.addresses.grpc);
        let mut listeners = self.listeners.clone();
        let planned = plan(&mesh, &mut listeners, &around)?;
        let targets = targets(&mesh, &listeners, self.client)?;
        let change = difference(&self.plan, &planned);
        (self.mesh, self.listeners, self.plan, self.targets) = (mesh, listeners, planned, targets);
        let common = Common {
            data: self.data.path().to_path_buf(),
            events: self.events.sender.clone(),
            lines: self.options.logs.then(|| self.lines.sender.clone()),
            turn: self.turn.clone(),
        };
        let mut stopping = JoinSet::new();
        for name in &change.stop {
            self.ready.remove(name);
            self.admins.remove(name);
            if let Some(keeper) = self.keepers.remove(name) {
                stopping.spawn(keeper.stop());
            }
        }
        // Others may want the addresses.
        while stopping.join_next().await.is_some() {}
        for name in &change.stop {
            self.output.line(&format!("{} is gone", label(name)));
        }
        for unit in &self.plan.units {
            match self.keepers.get(&unit.name) {
                Some(keeper) => keeper.change(unit.clone()),
                None => {
                    let keeper = Keeper::start(unit.clone(), common.clone());
                    self.keepers.insert(unit.name.clone(), keeper);
                }
            }
        }
        for line in show::variable_lines(&change.new_variables, &change.old_variables) {
            self.output.line(&line);
        }
        self.running().write(self.data.path())
    }

    fn running(&self) -> Running {
        let proxies = self
            .plan
            .units
            .iter()
            .map(|unit| {
                let admin = self.admins.get(&unit.name);
                let admin = *admin.unwrap_or(&unit.proxies[0].admin);
                (label(&unit.name), admin)
            })
            .collect();
        Running {
            pid: own_pid(),
            proxies,
        }
    }

    /// Until each unit is ready or has failed once. Each has deadlines of its own.
    async fn wait_for_units(&mut self) {
        while self.ready.len() < self.keepers.len() {
            let waiting: Vec<_> = self
                .keepers
                .keys()
                .filter(|name| !self.ready.contains_key(name))
                .map(label)
                .collect();
            self.output
                .live(&format!("starting {}", waiting.join(", ")));
            tokio::select! {
                Some((name, event)) = self.events.receiver.recv() => self.seen(name, &event, false),
                Some((name, line)) = self.lines.receiver.recv() => self.log(&name, &line),
            }
        }
    }

    fn show_mesh(&mut self, took: Duration) {
        let table = show::table(
            &self.mesh,
            &self.listeners,
            &self.targets,
            self.client,
            &self.ready,
        );
        self.output.line("");
        self.output.table(&table);
        self.output.line("");
        let tone = if self.failed { Tone::Bad } else { Tone::Good };
        let line = self
            .output
            .paint(tone, &show::ready_line(&self.mesh, &self.ready, took));
        self.output.line(&line);
        let client = self.plan.units.iter().find(|unit| unit.app.is_none());
        let client = client.map_or("", |unit| unit.identity.as_str());
        let hints = [
            format!("CALL works from any shell here, with the identity {client}"),
            format!(
                "changes in {} are followed; Ctrl-C stops everything",
                self.manifests.display()
            ),
        ];
        for hint in hints {
            let hint = self.output.paint(Tone::Faint, &hint);
            self.output.line(&hint);
        }
    }

    /// Shows how it goes and follows the manifests.
    async fn follow(&mut self) -> Result<(), Error> {
        let began = Instant::now();
        let mut ticks = tokio::time::interval(TICK);
        ticks.tick().await;
        let (mut before, mut before_at, mut quiet) = (self.report(), Instant::now(), 0);
        let mut waits = Backoff::default();
        waits.started(Instant::now());
        let time = self.options.duration;
        let over = async move {
            match time {
                Some(time) => tokio::time::sleep(time).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return Ok(()),
                Some((name, event)) = self.events.receiver.recv() => self.seen(name, &event, true),
                Some((name, line)) = self.lines.receiver.recv() => self.log(&name, &line),
                state = self.source.changed() => self.changed(state).await,
                (reason, last) = controller_ended(&mut self.controller) => {
                    let wait = waits.ended(Instant::now());
                    self.failed = true;
                    let said = crate::error::quoted(&last);
                    self.output.line(&format!("the controller {reason}; starting it again in {}{said}", duration::show(wait)));
                    tokio::time::sleep(wait).await;
                    waits.started(Instant::now());
                    if let Some(controller) = &mut self.controller {
                        match controller.restart().await {
                            Ok(()) => self.output.line("the controller is ready"),
                            Err(error) => self.output.line(&error.to_string()),
                        }
                    }
                }
                _ = ticks.tick() => {
                    let (now, report) = (Instant::now(), self.report());
                    let up = duration::show(began.elapsed());
                    let ready = self.ready.values().filter(|ready| **ready).count();
                    let state = format!("up {up} | {ready}/{} ready", self.keepers.len());
                    quiet += 1;
                    if self.output.is_terminal() {
                        let load = report.as_ref().map(|report| report.line(&before.clone().unwrap_or_default(), now - before_at));
                        self.output.live(&[Some(state), load].into_iter().flatten().collect::<Vec<_>>().join(" | "));
                        (before, before_at) = (report, now);
                    } else if let Some(report) = report && quiet % QUIET_TICKS == 0 {
                        let line = report.line(&before.unwrap_or_default(), now - before_at);
                        self.output.line(&format!("{state} | {line}"));
                        (before, before_at) = (Some(report), now);
                    }
                }
            }
        }
    }

    fn report(&self) -> Option<Report> {
        self.load.as_ref().map(Load::report)
    }

    async fn changed(&mut self, State { mesh, wrong }: State) {
        for line in &wrong {
            let line = self.output.paint(Tone::Bad, line);
            self.output.line(&line);
        }
        if mesh == self.mesh {
            return;
        }
        let called = self.targets.clone();
        if let Err(error) = self.apply(mesh).await {
            let line = self
                .output
                .paint(Tone::Bad, &format!("{error}; what ran before still runs"));
            self.output.line(&line);
        } else if self.load.is_some() && called != self.targets {
            self.output
                .line("traffic still goes to the services that were there when it began");
        }
    }

    fn seen(&mut self, name: Name, event: &Event, say_ready: bool) {
        if !self.keepers.contains_key(&name) {
            return;
        }
        let is_ready = matches!(event, Event::Ready { .. });
        self.failed |= event.is_bad();
        if !is_ready || say_ready {
            let tone = if event.is_bad() {
                Tone::Bad
            } else {
                Tone::Plain
            };
            let line = self.output.paint(tone, &event.describe(&label(&name)));
            self.output.line(&line);
        }
        if let Event::Ready { admin } | Event::Replaced { admin } = event
            && self.admins.insert(name.clone(), *admin) != Some(*admin)
            && let Err(error) = self.running().write(self.data.path())
        {
            self.output.line(&error.to_string());
        }
        if let Event::Ready { .. } | Event::Down { .. } = event {
            self.ready.insert(name, is_ready);
        }
    }

    fn log(&mut self, name: &str, line: &str) {
        let name = self.output.paint(Tone::Faint, &format!("{name} |"));
        self.output.line(&format!("{name} {line}"));
    }
}

async fn controller_ended(controller: &mut Option<Controller>) -> (String, Vec<String>) {
    match controller {
        Some(controller) => controller.ended().await,
        None => std::future::pending().await,
    }
}
