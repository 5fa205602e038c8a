//! What a controller must not forget: its certificate authority and the join tokens.
//!
//! Keys are changed by compare-and-swap: one, or several that must change together. A writer that lost a race sees
//! [`StoreError::Conflict`] and starts again from a fresh read.

mod embedded;
pub(crate) mod etcd;

use std::{fmt, future::Future, io, path::PathBuf, pin::Pin};

use thiserror::Error;

pub use self::{
    embedded::EmbeddedStore,
    etcd::{EtcdOptions, EtcdStore},
};

/// What a store's calls return: boxed, so that the kind of store is chosen at start.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Keys with versioned values, changed by compare-and-swap.
pub trait StateStore: Send + Sync + fmt::Debug + 'static {
    /// The value of a key, if it has one.
    fn get(&self, key: &str) -> StoreFuture<'_, Option<Versioned>>;

    /// Writes a value if the key is still at `expected`. Durable once it returns.
    fn put(&self, key: &str, expected: Expected, value: Vec<u8>) -> StoreFuture<'_, Version> {
        let expected = vec![(key.to_owned(), expected)];
        self.commit(expected, vec![(key.to_owned(), value)])
    }

    /// Writes all of these values, or none: if all these keys are still as expected. All of them get one version. Durable once it
    /// returns. To be within [`StateStore::most`].
    fn commit(
        &self,
        expected: Vec<(String, Expected)>,
        values: Vec<(String, Vec<u8>)>,
    ) -> StoreFuture<'_, Version>;

    /// How much one commit may write.
    fn most(&self) -> Most;

    /// What was written since a version, or ever, of the keys that begin with `prefix`; as it is at one moment.
    fn written(
        &self,
        prefix: &str,
        since: Option<Version>,
    ) -> StoreFuture<'_, Vec<(String, Versioned)>>;

    /// Removes a key if it is still at `expected`. Durable once it returns.
    fn delete(&self, key: &str, expected: Version) -> StoreFuture<'_, ()>;

    /// Up to `limit` keys that begin with `prefix`, in order, from the first after `after`.
    fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> StoreFuture<'_, Vec<(String, Versioned)>>;
}

/// How much one commit may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Most {
    /// Keys that it compares or writes.
    pub keys: usize,
    /// Keys and values, in bytes.
    pub bytes: usize,
}

/// Says which write a value comes from. Never used for two writes in the life of a store, not even to different keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u64);

impl Version {
    /// Higher for each later write.
    pub(crate) fn number(self) -> u64 {
        self.0
    }

    #[cfg(test)]
    pub(crate) fn of(number: u64) -> Self {
        Self(number)
    }
}

/// A value and the write it comes from. `Debug` does not show the value: it may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Versioned {
    /// The write that made it.
    pub version: Version,
    /// What was written.
    pub value: Vec<u8>,
}

impl fmt::Debug for Versioned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Versioned")
            .field("version", &self.version)
            .field("bytes", &self.value.len())
            .finish()
    }
}

/// What a writer believes about the key it writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// It has no value.
    Absent,
    /// It has the value of this write.
    At(Version),
}

/// Why a store did not do as it was told.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Someone else wrote first.
    #[error("the key `{key}` was changed meanwhile (expected {expected:?}, found {found:?})")]
    Conflict {
        /// The key.
        key: String,
        /// What the writer believed.
        expected: Expected,
        /// What is there.
        found: Option<Version>,
    },
    /// Another process has the store open.
    #[error(
        "the store {} is in use by another process; a data folder belongs to one controller at a time",
        path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be opened or made.
    #[error("cannot open the store {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not a store, or is damaged.
    #[error("the store {} is damaged: {reason}; restore it from a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// Reading or writing failed.
    #[error("the store failed: {0}")]
    Io(String),
    /// Only who leads may write this, and this controller does not.
    #[error("another controller leads, or none does: nothing is written")]
    Fenced,
    /// etcd cannot be reached so.
    #[error("etcd `{endpoint}`: {reason}")]
    Etcd {
        /// The member.
        endpoint: String,
        /// What is wrong.
        reason: String,
    },
    /// A key or a value is larger than any that a controller writes.
    #[error("{what} of {bytes} bytes is too large for the store (at most {max})")]
    TooLarge {
        /// `a key` or `a value`.
        what: &'static str,
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        max: usize,
    },
}
