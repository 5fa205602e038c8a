//! What keeps a measurement from being made.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why nothing, or not everything, was measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Namespaces and priorities need root.
    #[error("this needs root: it makes network namespaces")]
    NotRoot,
    /// A program that is needed is not there.
    #[error("{program} is not there: {remedy}")]
    Missing {
        /// The program.
        program: String,
        /// What to do about it.
        remedy: String,
    },
    /// A file or folder cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A program cannot be started, or talked to.
    #[error("{program}: {source}")]
    Program {
        /// Which one.
        program: String,
        /// What the system says.
        source: io::Error,
    },
    /// A program ended as it should not have.
    #[error("{program}: {status}\n{said}")]
    Ended {
        /// Which one, with its arguments.
        program: String,
        /// How it ended.
        status: String,
        /// The last of what it said.
        said: String,
    },
    /// Something did not become true in time.
    #[error("not in {limit:?}: {what}{said}")]
    NotInTime {
        /// What should have been.
        what: String,
        /// How long was waited.
        limit: Duration,
        /// What the program in question said last, from a new line on.
        said: String,
    },
    /// The load saw failures: what was measured would not be the work that was asked for.
    #[error("{work}: {failures} of {attempts} failed, the first with: {first}")]
    LoadFailed {
        /// The work, and through whom.
        work: String,
        /// How many failed.
        failures: u64,
        /// How many were tried.
        attempts: u64,
        /// What the first said.
        first: String,
    },
    /// A certificate cannot be made.
    #[error("a certificate cannot be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A socket operation of the load or the backend failed.
    #[error("{what}: {source}")]
    Io {
        /// What was done.
        what: String,
        /// What the system says.
        source: io::Error,
    },
    /// What another part of the program said cannot be understood.
    #[error("{what}: {source}")]
    Json {
        /// What was read.
        what: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A setting makes no sense.
    #[error("{setting}: {value}: {right}")]
    Setting {
        /// Which one.
        setting: &'static str,
        /// Its value.
        value: String,
        /// What would be right.
        right: String,
    },
    /// Ctrl-C.
    #[error("interrupted; everything that was started has ended")]
    Interrupted,
}

impl Error {
    /// For `map_err`: a file that cannot be read or written.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        |source| Self::File { path, source }
    }

    /// For `map_err`: a socket operation that failed.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        |source| Self::Io { what, source }
    }
}
