//! `mesh up`: a whole mesh of real processes, without root.
//!
//! `manifests` are read into a `mesh`, which `plan` turns into processes with their `environment` and `proxy`
//! configuration, on `ports` and `addresses` of their own. A `session` runs them, each by a `unit`, beside the
//! `controller`; a change of manifests is the `difference` of two plans. `show` is what is said about it all.

mod addresses;
mod app;
mod controller;
mod difference;
mod environment;
mod event;
mod manifests;
mod mesh;
mod plan;
mod ports;
mod programs;
mod proxy;
mod quickstart;
mod session;
mod show;
mod unit;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};

use self::programs::Programs;
use self::session::Session;
use crate::Error;
use crate::args::Up;
use crate::data::DataFolder;
use crate::output::Output;

pub(crate) use self::controller::Addresses;
pub(crate) use self::manifests::Source;
pub(crate) use self::mesh::{Mesh, selects};
pub(crate) use self::plan::label;
pub(crate) use self::ports::Listeners;

/// Runs a mesh until it is told to stop.
pub(crate) async fn run(options: Up) -> Result<ExitCode, Error> {
    let mut stop = Stop::listen()?;
    let programs = Programs::find()?;
    let given = options.folder.as_deref().map(folder).transpose()?;
    let data = DataFolder::open(options.data.as_deref())?;
    let manifests = match given {
        Some(given) => given,
        None => quickstart::write(data.path())?,
    };
    let source = Source::open(&manifests)?;
    let mut session = Session::new(options, programs, data, manifests, source, Output::new());
    let ended = tokio::select! {
        ended = session.run() => ended,
        () = stop.asked() => Ok(()),
    };
    tokio::select! {
        () = session.stop() => {}
        // Asked twice: without waiting for anything. Whatever is dropped is killed.
        () = stop.asked() => {}
    }
    ended?;
    Ok(session.verdict())
}

/// A folder of manifests as it was given.
///
/// # Errors
/// When it is not there or not a folder.
pub(crate) fn folder(path: &Path) -> Result<PathBuf, Error> {
    let wrong = |reason: String| Error::Folder {
        path: path.to_path_buf(),
        reason,
    };
    let found = path
        .canonicalize()
        .map_err(|error| wrong(error.to_string()))?;
    if found.is_dir() {
        Ok(found)
    } else {
        Err(wrong("is not a folder".to_owned()))
    }
}

/// What asks a program to stop.
#[derive(Debug)]
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Stop {
    fn listen() -> Result<Self, Error> {
        let listen = |kind| signal(kind).map_err(Error::Runtime);
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
