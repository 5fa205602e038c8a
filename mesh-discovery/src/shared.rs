//! One writer, many readers, and subscriptions that wait for what they have not read.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! use mesh_discovery::{Name, Registry, View, shared};
//!
//! let (writer, reader) = shared::new(Registry::new(()));
//! let mut subscription = reader.subscribe(View::new(Name::new("shop", "web"), 80));
//! let messages = subscription.next().await?;
//! assert_eq!(messages.len(), 1, "no_endpoints is sent at once");
//! # drop(writer); Ok::<(), mesh_discovery::Error>(()) }).unwrap();
//! ```

use std::{
    collections::HashMap,
    fmt,
    ops::Deref,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use tokio::sync::watch;

use crate::{
    Error,
    registry::{Applied, Registry},
    resource::Change,
    view::{Messages, Position, View, ViewId},
};

/// Shares a registry between its only writer and any number of readers.
pub fn new(registry: Registry) -> (Writer, Reader) {
    let (version, changes) = watch::channel(registry.version());
    let state = Arc::new(RwLock::new(State {
        registry,
        bells: HashMap::new(),
        closed: false,
    }));
    let reader = Reader {
        state: state.clone(),
        changes,
    };
    (Writer { state, version }, reader)
}

/// The half that changes the registry. When it is dropped, subscriptions end once they have read
/// everything.
pub struct Writer {
    state: Arc<RwLock<State>>,
    version: watch::Sender<u64>,
}

/// The half that asks. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    state: Arc<RwLock<State>>,
    changes: watch::Receiver<u64>,
}

/// The registry, locked for reading: not to be held across an await.
#[derive(Debug)]
pub struct ReadGuard<'a>(RwLockReadGuard<'a, State>);

/// Waits for any change to the registry.
#[derive(Debug, Clone)]
pub struct Changes(watch::Receiver<u64>);

/// One subscriber's place in a view. It holds a position, not a queue.
pub struct Subscription {
    state: Arc<RwLock<State>>,
    view: ViewId,
    position: Position,
    bell: watch::Receiver<()>,
}

#[derive(Debug)]
struct State {
    registry: Registry,
    /// One for each open view, rung when it moves.
    bells: HashMap<ViewId, watch::Sender<()>>,
    closed: bool,
}

impl Writer {
    /// Applies changes as one step and wakes who is concerned.
    pub fn apply(&self, changes: impl IntoIterator<Item = Change>) -> Applied {
        let mut state = write(&self.state);
        let applied = state.registry.apply(changes);
        for bell in applied.views.iter().filter_map(|id| state.bells.get(id)) {
            bell.send_replace(());
        }
        if applied.changed {
            self.version.send_replace(state.registry.version());
        }
        applied
    }
}

impl Reader {
    /// The registry as it is now. Writers wait while the guard is held.
    pub fn read(&self) -> ReadGuard<'_> {
        ReadGuard(read(&self.state))
    }

    /// Follows a view from its present state on.
    pub fn subscribe(&self, view: View) -> Subscription {
        let mut state = write(&self.state);
        let id = state.registry.open(view);
        let closed = state.closed;
        let bell = if closed {
            // Nothing will ring it: the subscription gives the present and ends.
            watch::channel(()).1
        } else {
            let bell = state
                .bells
                .entry(id)
                .or_insert_with(|| watch::channel(()).0);
            bell.subscribe()
        };
        Subscription {
            state: self.state.clone(),
            view: id,
            position: Position::default(),
            bell,
        }
    }

    /// Follows everything: services, annotations, workloads, readiness. What it has seen is the
    /// registry as it is now.
    pub fn changes(&self) -> Changes {
        let mut changes = self.changes.clone();
        changes.mark_unchanged();
        Changes(changes)
    }
}

impl Changes {
    /// Waits until the registry is not as it was when this was last asked, and gives its version.
    ///
    /// # Errors
    /// [`Error::Closed`] when the writer is gone.
    pub async fn changed(&mut self) -> Result<u64, Error> {
        self.0.changed().await.map_err(|_| Error::Closed)?;
        Ok(*self.0.borrow_and_update())
    }
}

impl Subscription {
    /// The next messages: a snapshot first, `no_endpoints` when there is nothing to reach, then
    /// whatever changed since, coalesced. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`Error::Closed`] when the writer is gone and everything has been read.
    pub async fn next(&mut self) -> Result<Messages, Error> {
        loop {
            // Before reading, so that a change after it rings again.
            self.bell.mark_unchanged();
            if let Some(messages) = self.try_next() {
                return Ok(messages);
            }
            if self.bell.changed().await.is_err() {
                return self.try_next().ok_or(Error::Closed);
            }
        }
    }

    /// What [`Subscription::next`] would give without waiting.
    pub fn try_next(&mut self) -> Option<Messages> {
        let state = read(&self.state);
        loop {
            let update = state.registry.updates(self.view, self.position)?;
            self.position = update.position;
            // Empty when everything that happened was undone.
            if !update.messages.is_empty() {
                return Some(update.messages);
            }
        }
    }
}

impl Deref for ReadGuard<'_> {
    type Target = Registry;

    fn deref(&self) -> &Registry {
        &self.0.registry
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut state = write(&self.state);
        state.closed = true;
        state.bells.clear();
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = write(&self.state);
        if state.registry.close(self.view) {
            state.bells.remove(&self.view);
        }
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("view", &self.view)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

/// A panic elsewhere cannot leave the registry half changed in a way that readers would notice, so
/// a poisoned lock is taken all the same.
fn read(state: &RwLock<State>) -> RwLockReadGuard<'_, State> {
    state.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(state: &RwLock<State>) -> RwLockWriteGuard<'_, State> {
    state.write().unwrap_or_else(PoisonError::into_inner)
}
