use std::path::PathBuf;

/// What this crate can fail at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A word that names no protocol.
    #[error("unknown protocol {0:?}: must be one of {words}", words = crate::Protocol::WORDS)]
    UnknownProtocol(String),
    /// The writing half of the registry is gone, so nothing will change any more.
    #[error("the registry has no writer any more")]
    Closed,
    /// The folder cannot be watched.
    #[error("cannot watch {path}: {reason}", path = path.display())]
    Watch {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
}
