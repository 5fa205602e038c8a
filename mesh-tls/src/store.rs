//! Stores whose reader and writer halves are different types, so that only the owner can write.
//!
//! Readers load an immutable snapshot without a lock. A snapshot's address changes exactly when its
//! content was set, so "has it changed" is a pointer comparison.

use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use change::{Changes, Notifier};

use crate::bundle::TrustBundle;
use crate::credentials::Credentials;
use crate::error::Error;
#[cfg(feature = "tokio")]
pub(crate) use handshakes::InProgress;

/// Makes a store of the anchors in use, starting with `bundle`.
#[must_use]
pub fn trust_store(bundle: TrustBundle) -> (TrustWriter, TrustReader) {
    let current = Arc::new(ArcSwap::from_pointee(bundle));
    let (notifier, changes) = change::channel();
    #[cfg(feature = "tokio")]
    let handshakes = handshakes::Handshakes::default();
    let writer = TrustWriter {
        current: current.clone(),
        setting: std::sync::Mutex::new(()),
        notifier,
        #[cfg(feature = "tokio")]
        handshakes: handshakes.clone(),
    };
    let reader = TrustReader {
        current,
        changes,
        #[cfg(feature = "tokio")]
        handshakes,
    };
    (writer, reader)
}

/// Makes a store of the workload's own credentials, empty until it is certified.
#[must_use]
pub fn credential_store() -> (CredentialWriter, CredentialReader) {
    let current = Arc::new(ArcSwapOption::empty());
    let (notifier, changes) = change::channel();
    let writer = CredentialWriter {
        current: current.clone(),
        notifier,
    };
    (writer, CredentialReader { current, changes })
}

/// The half of a trust store that its owner keeps.
pub struct TrustWriter {
    current: Arc<ArcSwap<TrustBundle>>,
    setting: std::sync::Mutex<()>,
    notifier: Notifier,
    #[cfg(feature = "tokio")]
    handshakes: handshakes::Handshakes,
}

impl TrustWriter {
    /// Puts `bundle` in use: handshakes from now on see it, live connections go on.
    ///
    /// An adopted generation never goes down, and a generation names one set of anchors for ever.
    /// Setting the bundle in use again changes nothing.
    ///
    /// # Errors
    /// [`Error::StaleBundle`] or [`Error::GenerationReused`]; the bundle in use stays.
    pub fn set(&self, bundle: TrustBundle) -> Result<(), Error> {
        let guard = self
            .setting
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let current = self.current.load();
        if bundle.generation() < current.generation() {
            return Err(Error::StaleBundle {
                offered: bundle.generation(),
                current: current.generation(),
            });
        }
        if bundle.generation() == current.generation() {
            if bundle.digest() == current.digest() {
                return Ok(());
            }
            return Err(Error::GenerationReused {
                generation: bundle.generation(),
            });
        }
        self.current.store(Arc::new(bundle));
        drop(guard);
        self.notifier.notify();
        Ok(())
    }

    /// Waits until every handshake that began before this call has ended, so that none is under an older bundle than the
    /// one in use now. Handshakes by [`TlsServer::accept`](crate::TlsServer::accept),
    /// [`TlsClient::connect`](crate::TlsClient::connect) and their like are known; those with a configuration taken out of
    /// [`TlsServer::config`](crate::TlsServer::config) are not. Cancel-safe.
    #[cfg(feature = "tokio")]
    pub async fn settled(&self) {
        self.handshakes.ended().await;
    }

    /// The bundle in use.
    #[must_use]
    pub fn load(&self) -> Arc<TrustBundle> {
        self.current.load_full()
    }
}

impl fmt::Debug for TrustWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TrustWriter").field(&self.load()).finish()
    }
}

/// The half of a trust store that everybody else holds.
#[derive(Clone)]
pub struct TrustReader {
    current: Arc<ArcSwap<TrustBundle>>,
    #[cfg_attr(not(feature = "tokio"), expect(dead_code))]
    changes: Changes,
    #[cfg(feature = "tokio")]
    handshakes: handshakes::Handshakes,
}

impl TrustReader {
    /// Enters a handshake under the bundle in use.
    #[cfg(feature = "tokio")]
    pub(crate) fn begin(&self) -> (Arc<TrustBundle>, InProgress) {
        // In this order, or one could be entered after those before a bundle were counted, and yet be under it.
        let in_progress = self.handshakes.enter();
        (self.load(), in_progress)
    }

    /// The bundle in use.
    #[must_use]
    pub fn load(&self) -> Arc<TrustBundle> {
        self.current.load_full()
    }

    /// Waits until a bundle is set that this reader has not waited for yet; several at once count as
    /// one. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::WriterGone`]: trust is frozen as it is.
    #[cfg(feature = "tokio")]
    pub async fn changed(&mut self) -> Result<(), Error> {
        self.changes.changed().await
    }
}

impl fmt::Debug for TrustReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TrustReader").field(&self.load()).finish()
    }
}

/// The half of a credential store that its owner keeps.
pub struct CredentialWriter {
    current: Arc<ArcSwapOption<Credentials>>,
    notifier: Notifier,
}

impl CredentialWriter {
    /// Puts `credentials` in use: handshakes from now on present them, live connections go on.
    pub fn set(&self, credentials: Credentials) {
        self.current.store(Some(Arc::new(credentials)));
        self.notifier.notify();
    }
}

impl fmt::Debug for CredentialWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CredentialWriter")
            .field(&self.current.load())
            .finish()
    }
}

/// The half of a credential store that everybody else holds.
#[derive(Clone)]
pub struct CredentialReader {
    current: Arc<ArcSwapOption<Credentials>>,
    #[cfg_attr(not(feature = "tokio"), expect(dead_code))]
    changes: Changes,
}

impl CredentialReader {
    /// The credentials in use, or `None` until the first are set.
    #[must_use]
    pub fn load(&self) -> Option<Arc<Credentials>> {
        self.current.load_full()
    }

    /// Waits until credentials are set that this reader has not waited for yet; several at once
    /// count as one. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::WriterGone`]: the credentials stay as they are until they expire.
    #[cfg(feature = "tokio")]
    pub async fn changed(&mut self) -> Result<(), Error> {
        self.changes.changed().await
    }
}

impl fmt::Debug for CredentialReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CredentialReader")
            .field(&self.load())
            .finish()
    }
}

#[cfg(feature = "tokio")]
mod handshakes {
    use std::sync::{Arc, Mutex, PoisonError};

    use arc_swap::ArcSwap;
    use tokio::sync::watch;

    /// The handshakes that are going on, in batches: whoever waits for those of now begins another one.
    #[derive(Clone)]
    pub(super) struct Handshakes(Arc<Inner>);

    struct Inner {
        current: ArcSwap<Batch>,
        /// Those that may not have ended.
        earlier: Mutex<Vec<watch::Receiver<()>>>,
    }

    /// Closed when the last of its handshakes drops it.
    struct Batch(watch::Sender<()>);

    /// Dropped when a handshake has ended.
    pub(crate) struct InProgress(#[expect(dead_code, reason = "held, not read")] Arc<Batch>);

    impl Handshakes {
        pub(super) fn enter(&self) -> InProgress {
            InProgress(self.0.current.load_full())
        }

        pub(super) async fn ended(&self) {
            let batch = self.0.current.swap(Arc::default());
            let mut earlier = {
                let mut earlier = self
                    .0
                    .earlier
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                earlier.retain(|batch| batch.has_changed().is_ok());
                earlier.push(batch.0.subscribe());
                earlier.clone()
            };
            drop(batch);
            for batch in &mut earlier {
                // Nothing is ever sent: it ends when the batch has.
                while batch.changed().await.is_ok() {}
            }
        }
    }

    impl Default for Handshakes {
        fn default() -> Self {
            Self(Arc::new(Inner {
                current: ArcSwap::default(),
                earlier: Mutex::default(),
            }))
        }
    }

    impl Default for Batch {
        fn default() -> Self {
            Self(watch::channel(()).0)
        }
    }
}

#[cfg(feature = "tokio")]
mod change {
    use tokio::sync::watch;

    use crate::error::Error;

    pub(super) fn channel() -> (Notifier, Changes) {
        let (sender, receiver) = watch::channel(());
        (Notifier(sender), Changes(receiver))
    }

    pub(super) struct Notifier(watch::Sender<()>);

    impl Notifier {
        pub(super) fn notify(&self) {
            self.0.send_replace(());
        }
    }

    #[derive(Clone)]
    pub(super) struct Changes(watch::Receiver<()>);

    impl Changes {
        pub(super) async fn changed(&mut self) -> Result<(), Error> {
            self.0.changed().await.map_err(|_| Error::WriterGone)
        }
    }
}

/// Without an executor there is nobody to wake.
#[cfg(not(feature = "tokio"))]
mod change {
    pub(super) fn channel() -> (Notifier, Changes) {
        (Notifier, Changes)
    }

    pub(super) struct Notifier;

    impl Notifier {
        pub(super) fn notify(&self) {}
    }

    #[derive(Clone)]
    pub(super) struct Changes;
}
