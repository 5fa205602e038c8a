//! The controller that `mesh up` runs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::programs::Programs;
use crate::Error;
use crate::admin::Admin;
use crate::process::{Launch, Lines, Process};

/// From its start until it says where it listens.
const START: Duration = Duration::from_secs(15);
/// For ending by itself.
const GRACE: Duration = Duration::from_secs(5);

/// What a controller writes once it is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct Addresses {
    /// Where proxies find it.
    pub(crate) grpc: SocketAddr,
    /// Where it answers `/ready` and `/metrics`.
    pub(crate) admin: SocketAddr,
    pid: u32,
}

impl Addresses {
    /// What is written in `data`.
    pub(crate) fn read(data: &Path) -> Option<Self> {
        serde_json::from_str(&std::fs::read_to_string(data.join("controller.json")).ok()?).ok()
    }
}

/// A running controller.
#[derive(Debug)]
pub(crate) struct Controller {
    process: Process,
    program: PathBuf,
    data: PathBuf,
    manifests: PathBuf,
    lines: Option<Lines>,
    /// Where it listens.
    pub(crate) addresses: Addresses,
}

impl Controller {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it ends or is not ready in time, with what it printed last.
    pub(crate) async fn start(
        programs: &Programs,
        data: &Path,
        manifests: &Path,
        lines: Option<Lines>,
    ) -> Result<Self, Error> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let launch = launch(&programs.controller, data, manifests, (any, any));
        let (process, addresses) = begin(&launch, data, lines.clone()).await?;
        let program = programs.controller.clone();
        Ok(Self {
            process,
            program,
            data: data.to_path_buf(),
            manifests: manifests.to_path_buf(),
            lines,
            addresses,
        })
    }

    /// Waits for it to end, which it should not.
    pub(crate) async fn ended(&mut self) -> (String, Vec<String>) {
        (self.process.ended().await, self.process.last_lines())
    }

    /// Starts it again where it was, so that every proxy finds it.
    pub(crate) async fn restart(&mut self) -> Result<(), Error> {
        let at = (self.addresses.grpc, self.addresses.admin);
        let launch = launch(&self.program, &self.data, &self.manifests, at);
        (self.process, self.addresses) = begin(&launch, &self.data, self.lines.clone()).await?;
        Ok(())
    }

    /// Lets it end.
    pub(crate) async fn stop(self) -> bool {
        self.process.stop(GRACE).await
    }
}

fn launch(
    program: &Path,
    data: &Path,
    manifests: &Path,
    (grpc, admin): (SocketAddr, SocketAddr),
) -> Launch {
    let words: [OsString; 9] = [
        program.into(),
        "--data".into(),
        data.into(),
        "--manifests".into(),
        manifests.into(),
        "--listen".into(),
        grpc.to_string().into(),
        "--admin".into(),
        admin.to_string().into(),
    ];
    Launch {
        name: "the controller".to_owned(),
        command: words.into(),
        env: BTreeMap::new(),
        isolated: true,
        folder: data.to_path_buf(),
    }
}

async fn begin(
    launch: &Launch,
    data: &Path,
    lines: Option<Lines>,
) -> Result<(Process, Addresses), Error> {
    // What an earlier one wrote is not what this one will.
    let _ = std::fs::remove_file(data.join("controller.json"));
    let mut process = Process::start(launch, lines)?;
    let ready = async {
        loop {
            if let Some(addresses) = Addresses::read(data)
                && Admin::connect(data).await.is_ok()
            {
                return addresses;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let reason = tokio::select! {
        addresses = tokio::time::timeout(START, ready) => match addresses {
            Ok(addresses) => return Ok((process, addresses)),
            Err(_) => format!("is not ready after {} s", START.as_secs()),
        },
        ended = process.ended() => ended,
    };
    Err(Error::Failed {
        name: launch.name.clone(),
        reason,
        last_lines: process.last_lines(),
    })
}
