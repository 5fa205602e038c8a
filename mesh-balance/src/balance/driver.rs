use super::builder::Traits;
use crate::core::{self, Pool};
use crate::{BoxError, Error};
use futures_core::Stream;
use std::fmt;
use std::future::{Future, poll_fn};
use std::hash::Hash;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use tokio::sync::watch;
use tower::discover::Change;

/// Applies discovery to a [`Balance`](super::Balance), and does nothing else.
///
/// It ends when the stream ends (the endpoints stay as they are), when the stream fails
/// ([`Error::Discovery`]; they stay as well), or when the last clone of the balance is gone.
#[must_use = "a driver must be spawned, or no endpoint is ever found"]
pub struct Driver(Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>);

impl Driver {
    pub(super) fn new<D, K, S, E>(
        discovery: D,
        mut pool: Pool<K, S>,
        traits: Traits<K, S>,
        found: watch::Sender<bool>,
    ) -> Self
    where
        D: Stream<Item = Result<Change<K, S>, E>> + Send + 'static,
        K: Eq + Hash + Send + 'static,
        S: Send + Sync + 'static,
        E: Into<BoxError>,
    {
        Self(Box::pin(async move {
            let mut discovery = pin!(discovery);
            loop {
                let next = poll_fn(|cx| poll_batch(discovery.as_mut(), cx));
                let Batch { changes, end } = tokio::select! {
                    batch = next => batch,
                    () = found.closed() => return Ok(()),
                };
                pool.apply(changes.into_iter().map(|change| match change {
                    Change::Insert(key, service) => traits.insertion(key, service),
                    Change::Remove(key) => core::Change::remove(key),
                }));
                let any = !pool.picker().snapshot().is_empty();
                found.send_if_modified(|before| std::mem::replace(before, any) != any);
                if let Some(end) = end {
                    return end.map_err(|error| Error::Discovery(error.into()));
                }
            }
        }))
    }
}

impl Future for Driver {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

/// What a stream had ready, and how it ended, if it did.
struct Batch<K, S, E> {
    changes: Vec<Change<K, S>>,
    end: Option<Result<(), E>>,
}

/// Everything that is ready, up to a limit, so that a thousand changes are published as one.
fn poll_batch<D, K, S, E>(mut discovery: Pin<&mut D>, cx: &mut Context<'_>) -> Poll<Batch<K, S, E>>
where
    D: Stream<Item = Result<Change<K, S>, E>>,
{
    let mut changes = Vec::new();
    while changes.len() < MAX_BATCH {
        match discovery.as_mut().poll_next(cx) {
            Poll::Ready(Some(Ok(change))) => changes.push(change),
            Poll::Ready(Some(Err(error))) => {
                return Poll::Ready(Batch {
                    changes,
                    end: Some(Err(error)),
                });
            }
            Poll::Ready(None) => {
                return Poll::Ready(Batch {
                    changes,
                    end: Some(Ok(())),
                });
            }
            Poll::Pending if changes.is_empty() => return Poll::Pending,
            Poll::Pending => break,
        }
    }
    Poll::Ready(Batch { changes, end: None })
}

const MAX_BATCH: usize = 1024;
