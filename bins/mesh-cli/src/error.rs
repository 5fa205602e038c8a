//! What goes wrong: one line that says what failed, where, and what to do.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused what every program needs.
    #[error("cannot run here: {0}")]
    Runtime(#[source] std::io::Error),

    /// A program of the mesh was not found.
    #[error(
        "`{name}` is not in {}; build it with `cargo build --release -p {name}`, or say where it is with MESH_BIN_DIR",
        folder.display()
    )]
    MissingProgram {
        /// Its name.
        name: &'static str,
        /// Where it should be.
        folder: PathBuf,
    },

    /// A folder of manifests cannot be used.
    #[error("{}: {reason}; give a folder of YAML manifests, or none for the quickstart", path.display())]
    Folder {
        /// As given.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// The manifests are wrong, each as it was said on its own line.
    #[error("{} in the manifests; nothing was started", count(*.0, "error"))]
    Manifests(usize),

    /// The manifests ask for what cannot be run on one machine.
    #[error("{subject}: {reason}")]
    Plan {
        /// The workload or service.
        subject: String,
        /// What is wrong and what would be right.
        reason: String,
    },

    /// Something else listens where this mesh should.
    #[error("{address} ({what}) cannot be listened on: {source}; {}", advice(*address, source))]
    Address {
        /// Where.
        address: SocketAddr,
        /// Who wants it.
        what: String,
        /// What the system says.
        source: std::io::Error,
    },

    /// A file or folder could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },

    /// Another `mesh up` has its state there.
    #[error("{} is in use by another `mesh up`; stop it, or choose another folder with --data", path.display())]
    DataInUse {
        /// The data folder.
        path: PathBuf,
    },

    /// A process could not be started.
    #[error("{name} cannot be started: {source}")]
    Start {
        /// Which.
        name: String,
        /// What the system says.
        source: std::io::Error,
    },

    /// A process did not do what was needed of it in time.
    #[error("{name} {reason}{}", quoted(last_lines))]
    Failed {
        /// Which.
        name: String,
        /// What it did instead.
        reason: String,
        /// What it printed last.
        last_lines: Vec<String>,
    },

    /// No running mesh was found.
    #[error("{0}")]
    NoMesh(String),

    /// The controller cannot be asked.
    #[error("the controller does not answer on {}: {reason}; is it running? `mesh check` says more", socket.display())]
    Unreachable {
        /// Its admin socket.
        socket: PathBuf,
        /// What was seen.
        reason: String,
    },

    /// A stock proxy cannot be set up.
    #[error("no stock proxy for {subject}: {reason}")]
    StockProxy {
        /// The workload, folder or controller.
        subject: String,
        /// What is wrong and what would be right.
        reason: String,
    },

    /// The controller refused.
    #[error("the controller refuses: {0}")]
    Refused(String),
}

/// `1 error`, `2 errors`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// The lines, each on its own below, set off from what is said about them.
pub(crate) fn quoted(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n    | {line}")).collect()
}

fn advice(address: SocketAddr, source: &std::io::Error) -> String {
    match source.kind() {
        std::io::ErrorKind::AddrInUse => {
            "is another `mesh up` running? Stop it, or give the workload another address".to_owned()
        }
        std::io::ErrorKind::AddrNotAvailable => {
            format!(
                "{} is not an address of this machine; use one in 127.0.0.0/8",
                address.ip()
            )
        }
        _ => "choose another port or address".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_failed_and_what_to_do() {
        let error = Error::Address {
            address: ([127, 77, 0, 2], 8080).into(),
            what: "web-1's port http".into(),
            source: std::io::ErrorKind::AddrInUse.into(),
        };
        assert_eq!(
            error.to_string(),
            "127.77.0.2:8080 (web-1's port http) cannot be listened on: address in use; \
             is another `mesh up` running? Stop it, or give the workload another address"
        );
    }

    #[test]
    fn quotes_what_a_failed_process_printed() {
        let error = Error::Failed {
            name: "web-1".into(),
            reason: "exited with 3".into(),
            last_lines: vec!["no".into(), "way".into()],
        };
        assert_eq!(
            error.to_string(),
            "web-1 exited with 3\n    | no\n    | way"
        );
    }
}
