//! What every peer needs: the hosts, a folder, the application, certificates.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::process::PATIENCE;
use super::{Child, Cores, Network};
use crate::error::Error;
use crate::load::{Outcome, Plan, Said, Work};

/// Where everything runs. Dropped, all of it ends.
#[derive(Debug)]
pub(crate) struct Ground {
    // In this order: programs end before their hosts, and those before the folder.
    backend: Child,
    pub(crate) network: Network,
    pub(crate) cores: Cores,
    folder: TempDir,
}

impl Ground {
    /// Makes the hosts and starts the application.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) async fn prepare(cores: Cores) -> Result<Self, Error> {
        more_files()?;
        let folder = tempfile::tempdir().map_err(Error::io("no temporary folder"))?;
        let network = Network::new()?;
        let backend = start_backend(&network, &cores, folder.path(), APP_HTTP, APP_TCP)?;
        let ground = Self {
            backend,
            network,
            cores,
            folder,
        };
        ground
            .until_answered(Work::Http1, ground.app_http())
            .await?;
        Ok(ground)
    }

    /// The application as the server's host sees it: HTTP.
    pub(crate) fn local_http() -> SocketAddr {
        (Ipv4Addr::LOCALHOST, APP_HTTP).into()
    }

    /// The application as the server's host sees it: bytes.
    pub(crate) fn local_tcp() -> SocketAddr {
        (Ipv4Addr::LOCALHOST, APP_TCP).into()
    }

    /// The application as the client's host sees it: HTTP.
    pub(crate) fn app_http(&self) -> SocketAddr {
        (self.network.server.address(), APP_HTTP).into()
    }

    /// The application as the client's host sees it: bytes.
    pub(crate) fn app_tcp(&self) -> SocketAddr {
        (self.network.server.address(), APP_TCP).into()
    }

    /// The application's process.
    pub(crate) fn backend(&self) -> &Child {
        &self.backend
    }

    /// A folder for `name`'s files.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf, Error> {
        let folder = self.folder.path().join(name);
        std::fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
        Ok(folder)
    }

    /// Where `name` logs.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    /// One more application, for a peer that takes all traffic of a port.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn another_backend(&self, http: u16, tcp: u16) -> Result<Child, Error> {
        start_backend(&self.network, &self.cores, self.folder.path(), http, tcp)
    }

    /// Waits until something on the server's host listens there.
    ///
    /// # Errors
    /// If nothing does in time.
    pub(crate) async fn until_listening(&self, address: SocketAddr) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        let filter = format!("sport = :{}", address.port());
        while self
            .network
            .server
            .run("ss", &["-Hltn", &filter])?
            .is_empty()
        {
            if Instant::now() > deadline {
                return Err(Error::NotInTime {
                    what: format!("something listens at {address}"),
                    limit: PATIENCE,
                    said: String::new(),
                });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// A load on the client's host.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn load(&self, plan: &Plan) -> Result<Load, Error> {
        let json = serde_json::to_string(plan).map_err(|source| Error::Json {
            what: "the plan of a load".into(),
            source,
        })?;
        let child = self.network.client.spawn(own_program()?);
        let child = child
            .args(["load", &json])
            .cores(self.cores.load.as_ref())
            .start_talking(&self.log("load"))?;
        Ok(Load { child })
    }

    /// Waits until such work is answered right at `target`.
    ///
    /// # Errors
    /// If it is not in time, with what was answered last.
    pub(crate) async fn until_answered(&self, work: Work, target: SocketAddr) -> Result<(), Error> {
        let plan = Plan {
            target,
            work,
            size: 128,
            connections: 1,
            warm_up: Duration::ZERO,
            time: Duration::ZERO,
            rate: None,
            idle: false,
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut load = self.load(&plan)?;
            load.counting().await?;
            let outcome = load.over(&plan).await?;
            drop(load);
            if outcome.failures == 0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::NotInTime {
                    what: format!("{work:?} is answered at {target}"),
                    limit: PATIENCE,
                    said: format!(": {}", outcome.first_failure),
                });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// A load that runs.
#[derive(Debug)]
pub(crate) struct Load {
    child: Child,
}

impl Load {
    /// Waits until what happens counts.
    ///
    /// # Errors
    /// If it ends, or takes too long to connect.
    pub(crate) async fn counting(&mut self) -> Result<(), Error> {
        match self.said(CONNECTING).await? {
            Said::Counting => Ok(()),
            Said::Over(outcome) => Err(Error::LoadFailed {
                work: "connecting".into(),
                failures: outcome.failures,
                attempts: outcome.done + outcome.failures,
                first: outcome.first_failure,
            }),
        }
    }

    /// Waits for what came of it.
    ///
    /// # Errors
    /// If it ends, or says nothing for much longer than planned.
    pub(crate) async fn over(&mut self, plan: &Plan) -> Result<Outcome, Error> {
        match self.said(plan.time + PATIENCE).await? {
            Said::Over(outcome) => Ok(outcome),
            Said::Counting => self.said(plan.time + PATIENCE).await?.into_outcome(),
        }
    }

    /// Lets it end what is in flight, and waits until it has.
    ///
    /// # Errors
    /// If something is left undone.
    pub(crate) async fn release(mut self) -> Result<(), Error> {
        self.child.success().await
    }

    /// Its process.
    pub(crate) fn process(&self) -> &Child {
        &self.child
    }

    async fn said(&mut self, limit: Duration) -> Result<Said, Error> {
        let line = self.child.line(limit).await?;
        serde_json::from_str(&line).map_err(|source| Error::Json {
            what: format!("what a load said, {line:?}"),
            source,
        })
    }
}

/// 10,000 connections, each a handshake or two.
const CONNECTING: Duration = Duration::from_secs(90);

/// The application's ports.
const APP_HTTP: u16 = 8080;
const APP_TCP: u16 = 8081;

fn start_backend(
    network: &Network,
    cores: &Cores,
    folder: &Path,
    http: u16,
    tcp: u16,
) -> Result<Child, Error> {
    let (http, tcp) = (http.to_string(), tcp.to_string());
    network
        .server
        .spawn(own_program()?)
        .args(["backend", "--http", &http, "--tcp", &tcp])
        .cores(cores.backend.as_ref())
        .start(&folder.join("backend.log"))
}

fn own_program() -> Result<PathBuf, Error> {
    std::env::current_exe().map_err(Error::io("the path of this program"))
}

/// Lets what is started hold as many connections as the system gives.
fn more_files() -> Result<(), Error> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let most = Rlimit {
        current: maximum.or(Some(FILES)),
        maximum,
    };
    setrlimit(Resource::Nofile, most)
        .map_err(std::io::Error::from)
        .map_err(Error::io("cannot raise the limit of open files"))
}

/// Where there is no limit.
const FILES: u64 = 65_536;
