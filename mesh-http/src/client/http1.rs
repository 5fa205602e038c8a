//! HTTP/1 connections: a pool of idle ones, and one that may be switched to another protocol.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::mem;
use std::rc::Rc;

use hyper::body::Body;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use crate::client::ClientSettings;
use crate::{Error, Prefixed};

/// The HTTP/1 connections to one endpoint that carry no request. Cheap to clone; clones share the connections.
#[derive(Debug)]
pub struct Http1Pool<B> {
    free: Rc<RefCell<Free<B>>>,
    max_idle: usize,
    max_header_bytes: usize,
}

/// A connection that carries no request at the moment.
#[derive(Debug)]
pub struct Available<B> {
    /// Sends a request on it.
    pub sender: SendRequest<B>,
    /// Whether it served a request before, so that the other side may close it any moment.
    pub reused: bool,
}

#[derive(Debug)]
struct Free<B> {
    idle: Vec<Idle<B>>,
    /// Who waits for a connection, first come first served. None is idle while anybody does.
    waiting: VecDeque<Give<B>>,
    /// How many connections are being made: one for each that waits at least.
    making: usize,
}

type Give<B> = oneshot::Sender<Result<Available<B>, Error>>;

#[derive(Debug)]
struct Idle<B> {
    sender: SendRequest<B>,
    /// Whether [`Http1Pool::sweep`] has seen it idle before.
    seen: bool,
}

/// A place among those who wait.
struct Waiter<B> {
    pool: Http1Pool<B>,
    given: oneshot::Receiver<Result<Available<B>, Error>>,
}

impl<B> Http1Pool<B>
where
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// An empty pool.
    #[must_use]
    pub fn new(settings: &ClientSettings) -> Self {
        Self {
            free: Rc::default(),
            max_idle: settings.max_idle,
            max_header_bytes: settings.max_header_bytes as usize,
        }
    }

    /// An idle connection, the one used last first; `None` when there is none that is still open.
    pub async fn get(&self) -> Option<SendRequest<B>> {
        loop {
            let mut sender = self.free.borrow_mut().idle.pop()?.sender;
            if sender.is_ready() || (!sender.is_closed() && sender.ready().await.is_ok()) {
                return Some(sender);
            }
        }
    }

    /// The connection that is free first: one that `connect` gives a stream for, or one that another request came back from.
    ///
    /// A server whose backlog a burst of requests overflows answers them over the connections that it has taken. What is being made
    /// for those who took another goes on being made for the next, up to as many as may be idle.
    ///
    /// # Errors
    /// What `connect` fails with, or [`Error::Http`] when hyper refuses the stream.
    pub async fn free_or_new<I, F>(&self, connect: F) -> Result<Available<B>, Error>
    where
        I: AsyncRead + AsyncWrite + Unpin + 'static,
        F: Future<Output = Result<I, Error>> + 'static,
    {
        let mut waiter = self.wait();
        if self.makes_another() {
            let pool = self.clone();
            tokio::task::spawn_local(async move {
                let made = match connect.await {
                    Ok(io) => pool.connect(io).await,
                    Err(error) => Err(error),
                };
                pool.made(made);
            });
        }
        let ended = |_| Error::Connect("the worker is ending".to_owned());
        let mut available = (&mut waiter.given).await.map_err(ended)??;
        // If it turns out to be closed, who sends on it finds that out.
        let _ = available.sender.ready().await;
        Ok(available)
    }

    /// Speaks HTTP/1 on a new connection.
    ///
    /// # Errors
    /// [`Error::Http`] when hyper refuses the stream.
    pub async fn connect<I>(&self, io: I) -> Result<SendRequest<B>, Error>
    where
        I: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let (sender, connection) = builder(self.max_header_bytes)
            .handshake(TokioIo::new(io))
            .await?;
        // The task ends when the sender is dropped or the server closes; what goes wrong reaches the request.
        tokio::task::spawn_local(connection);
        Ok(sender)
    }

    /// Gives a connection back once its response has ended. `request_ended` says whether its request was sent in full;
    /// when that is not sure it is waited for, off the path of any request.
    pub fn put(&self, mut sender: SendRequest<B>, request_ended: bool) {
        if sender.is_closed() {
            return;
        }
        let reused = true;
        if request_ended || sender.is_ready() {
            self.give(Available { sender, reused });
            return;
        }
        let pool = self.clone();
        tokio::task::spawn_local(async move {
            let wait = tokio::time::timeout(std::time::Duration::from_secs(5), sender.ready());
            if matches!(wait.await, Ok(Ok(()))) {
                pool.give(Available { sender, reused });
            }
        });
    }

    /// Drops the connections that were idle at the last sweep already. Returns how many are left.
    pub fn sweep(&self) -> usize {
        let idle = &mut self.free.borrow_mut().idle;
        idle.retain_mut(|idle| !mem::replace(&mut idle.seen, true) && !idle.sender.is_closed());
        idle.len()
    }
}

impl<B> Http1Pool<B> {
    fn wait(&self) -> Waiter<B> {
        let (give, given) = oneshot::channel();
        self.free.borrow_mut().waiting.push_back(give);
        let pool = self.clone();
        Waiter { pool, given }
    }

    /// Counts one more connection that is being made, unless so many are that nobody would need it.
    fn makes_another(&self) -> bool {
        let mut free = self.free.borrow_mut();
        let makes = free.making < free.waiting.len() + self.max_idle;
        free.making += usize::from(makes);
        makes
    }

    /// What came of one that was being made. A failure is nobody's as long as there are others for all who wait.
    fn made(&self, made: Result<SendRequest<B>, Error>) {
        let reused = false;
        let mut free = self.free.borrow_mut();
        free.making -= 1;
        match made {
            Ok(sender) => {
                drop(free);
                self.give(Available { sender, reused });
            }
            Err(error) if free.making < free.waiting.len() => {
                if let Some(first) = free.waiting.pop_front() {
                    let _ = first.send(Err(error));
                }
            }
            Err(_) => {}
        }
    }

    /// To who waits first; else it is idle, or dropped where there are enough of them.
    fn give(&self, mut available: Available<B>) {
        let mut free = self.free.borrow_mut();
        while let Some(first) = free.waiting.pop_front() {
            match first.send(Ok(available)) {
                Ok(()) => return,
                Err(Ok(back)) => available = back,
                Err(Err(_)) => return,
            }
        }
        if free.idle.len() < self.max_idle {
            let Available { sender, .. } = available;
            let seen = false;
            free.idle.push(Idle { sender, seen });
        }
    }
}

impl<B> Drop for Waiter<B> {
    /// Who leaves before its turn leaves its place; who leaves at its turn passes the connection on.
    fn drop(&mut self) {
        match self.given.try_recv() {
            Ok(Ok(available)) => self.pool.give(available),
            Err(TryRecvError::Empty) => {
                self.given.close();
                let waiting = &mut self.pool.free.borrow_mut().waiting;
                waiting.retain(|waiting| !waiting.is_closed());
            }
            Ok(Err(_)) | Err(TryRecvError::Closed) => {}
        }
    }
}

impl<B> Default for Free<B> {
    fn default() -> Self {
        Self {
            idle: Vec::new(),
            waiting: VecDeque::new(),
            making: 0,
        }
    }
}

impl<B> Clone for Http1Pool<B> {
    fn clone(&self) -> Self {
        Self {
            free: self.free.clone(),
            max_idle: self.max_idle,
            max_header_bytes: self.max_header_bytes,
        }
    }
}

/// Resolves to the stream and what was read from it beyond the response's head, once the server has switched protocols.
pub type Switched<I> = oneshot::Receiver<Prefixed<I>>;

/// Speaks HTTP/1 on a connection that serves one request, which may switch it to another protocol.
///
/// # Errors
/// [`Error::Http`] when hyper refuses the stream.
pub async fn switchable<I, B>(
    io: I,
    settings: &ClientSettings,
) -> Result<(SendRequest<B>, Switched<I>), Error>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (sender, connection) = builder(settings.max_header_bytes as usize)
        .handshake(TokioIo::new(io))
        .await?;
    let (done, switched) = oneshot::channel();
    tokio::task::spawn_local(async move {
        if let Ok(parts) = connection.without_shutdown().await {
            let _ = done.send(Prefixed::new(parts.read_buf, parts.io.into_inner()));
        }
    });
    Ok((sender, switched))
}

fn builder(max_header_bytes: usize) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(max_header_bytes.max(8192));
    builder
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures_util::FutureExt;
    use http_body_util::Empty;
    use tokio::io::DuplexStream;
    use tokio::task::{LocalSet, yield_now};

    type Pool = Http1Pool<Empty<Bytes>>;
    type Connected = Result<DuplexStream, Error>;

    fn pool(max_idle: usize) -> Pool {
        Http1Pool::new(&ClientSettings {
            max_idle,
            ..ClientSettings::default()
        })
    }

    /// A connection on which nothing is said, and its other end.
    async fn open(pool: &Pool) -> (SendRequest<Empty<Bytes>>, DuplexStream) {
        let (near, far) = tokio::io::duplex(64);
        let mut sender = pool.connect(near).await.unwrap();
        sender.ready().await.unwrap();
        (sender, far)
    }

    /// What becomes of connections that are being made is for the test to say.
    fn connecting() -> (oneshot::Sender<Connected>, impl Future<Output = Connected>) {
        let (begin, begun) = oneshot::channel();
        (begin, async { begun.await.unwrap() })
    }

    fn refused() -> Connected {
        Err(Error::Connect("refused".to_owned()))
    }

    fn never() -> impl Future<Output = Connected> {
        std::future::pending()
    }

    /// Lets what was spawned run.
    async fn settle() {
        for _ in 0..10 {
            yield_now().await;
        }
    }

    #[tokio::test]
    async fn who_waits_for_a_new_connection_takes_one_that_comes_free() {
        let test = async {
            let pool = pool(8);
            let (sender, _far) = open(&pool).await;
            let mut first = Box::pin(pool.free_or_new(never()));
            let mut second = Box::pin(pool.free_or_new(never()));
            assert!(first.as_mut().now_or_never().is_none());
            assert!(second.as_mut().now_or_never().is_none());
            pool.put(sender, true);
            assert!(second.as_mut().now_or_never().is_none());
            let Available { sender, reused } = first.await.unwrap();
            assert!(reused);
            drop(second);
            // Nobody waits any more.
            pool.put(sender, true);
            assert!(pool.get().await.is_some());
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn who_leaves_at_its_turn_passes_the_connection_on() {
        let test = async {
            let pool = pool(8);
            let (sender, _far) = open(&pool).await;
            let mut first = Box::pin(pool.free_or_new(never()));
            let mut second = Box::pin(pool.free_or_new(never()));
            assert!(first.as_mut().now_or_never().is_none());
            assert!(second.as_mut().now_or_never().is_none());
            pool.put(sender, true);
            drop(first);
            assert!(second.await.unwrap().reused);
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn what_was_begun_is_there_for_the_next() {
        let test = async {
            let pool = pool(8);
            let (sender, _far) = open(&pool).await;
            let (begin, connect) = connecting();
            let mut request = Box::pin(pool.free_or_new(connect));
            assert!(request.as_mut().now_or_never().is_none());
            pool.put(sender, true);
            let _used = request.await.unwrap();
            let (near, _far) = tokio::io::duplex(64);
            begin.send(Ok(near)).unwrap();
            settle().await;
            assert_eq!(pool.sweep(), 1);
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn a_failure_is_told_to_who_has_no_other_to_wait_for() {
        let test = async {
            let pool = pool(8);
            let (begins, connects) = (connecting(), connecting());
            let mut first = Box::pin(pool.free_or_new(begins.1));
            let mut second = Box::pin(pool.free_or_new(connects.1));
            assert!(first.as_mut().now_or_never().is_none());
            assert!(second.as_mut().now_or_never().is_none());
            // The first takes the second's, so that the first's is the second's to wait for.
            let (near, _far) = tokio::io::duplex(64);
            connects.0.send(Ok(near)).unwrap();
            assert!(!first.await.unwrap().reused);
            begins.0.send(refused()).unwrap();
            let failed = second.await;
            assert!(matches!(failed, Err(Error::Connect(_))), "{failed:?}");
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn a_failure_is_nobodys_while_there_is_another_to_wait_for() {
        let test = async {
            let pool = pool(8);
            let (sender, _far) = open(&pool).await;
            let (begins, connects) = (connecting(), connecting());
            let mut first = Box::pin(pool.free_or_new(begins.1));
            assert!(first.as_mut().now_or_never().is_none());
            pool.put(sender, true);
            let _used = first.await.unwrap();
            let mut second = Box::pin(pool.free_or_new(connects.1));
            assert!(second.as_mut().now_or_never().is_none());
            begins.0.send(refused()).unwrap();
            settle().await;
            assert!(second.as_mut().now_or_never().is_none());
            let (near, _far) = tokio::io::duplex(64);
            connects.0.send(Ok(near)).unwrap();
            assert!(!second.await.unwrap().reused);
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn those_who_leave_do_not_pile_connections_up() {
        let test = async {
            let pool = pool(3);
            for _ in 0..20 {
                let request = Box::pin(pool.free_or_new(never()));
                assert!(request.now_or_never().is_none());
            }
            let free = pool.free.borrow();
            // The last one waited for one itself.
            assert_eq!((free.making, free.waiting.len()), (3 + 1, 0));
        };
        LocalSet::new().run_until(test).await;
    }
}
