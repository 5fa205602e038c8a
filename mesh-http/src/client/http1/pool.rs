//! The HTTP/1 connections to one endpoint that carry no request.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::mem;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::Sender;
use crate::Error;
use crate::client::ClientSettings;

/// How long a request may still be being sent whose response has ended.
const SENT_TIMEOUT: Duration = Duration::from_secs(5);

/// The HTTP/1 connections to one endpoint that carry no request. Cheap to clone; clones share the connections.
#[derive(Debug)]
pub struct Http1Pool<I> {
    free: Rc<RefCell<Free<I>>>,
    settings: Rc<ClientSettings>,
}

/// A connection that carries no request at the moment.
#[derive(Debug)]
pub struct Available<I> {
    /// Sends a request on it.
    pub sender: Sender<I>,
    /// Whether it served a request before, so that the other side may close it any moment.
    pub reused: bool,
}

#[derive(Debug)]
struct Free<I> {
    idle: Vec<Idle<I>>,
    /// Who waits for a connection, first come first served. None is idle while anybody does.
    waiting: VecDeque<Give<I>>,
    /// How many connections are being made: one for each that waits at least.
    making: usize,
}

type Give<I> = oneshot::Sender<Result<Available<I>, Error>>;

#[derive(Debug)]
struct Idle<I> {
    sender: Sender<I>,
    /// Whether [`Http1Pool::sweep`] has seen it idle before.
    seen: bool,
}

/// A place among those who wait.
struct Waiter<I> {
    pool: Http1Pool<I>,
    given: oneshot::Receiver<Result<Available<I>, Error>>,
}

impl<I> Http1Pool<I>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    /// An empty pool.
    #[must_use]
    pub fn new(settings: &ClientSettings) -> Self {
        Self {
            free: Rc::default(),
            settings: Rc::new(settings.clone()),
        }
    }

    /// An idle connection, the one used last first; `None` when there is none that is still open.
    #[must_use]
    pub fn get(&self) -> Option<Sender<I>> {
        loop {
            let idle = self.free.borrow_mut().idle.pop()?;
            if idle.is_open() {
                return Some(idle.sender);
            }
        }
    }

    /// The connection that is free first: one that `connect` gives a stream for, or one that another request came back from.
    ///
    /// A server whose backlog a burst of requests overflows answers them over the connections that it has taken. What is being made
    /// for those who took another goes on being made for the next, up to as many as may be idle.
    ///
    /// # Errors
    /// What `connect` fails with.
    pub async fn free_or_new<F>(&self, connect: F) -> Result<Available<I>, Error>
    where
        F: Future<Output = Result<I, Error>> + 'static,
    {
        let mut waiter = self.wait();
        if self.makes_another() {
            let pool = self.clone();
            tokio::task::spawn_local(async move {
                let made = connect.await.map(|io| pool.connect(io));
                pool.made(made);
            });
        }
        let ended = |_| Error::Connect("the worker is ending".to_owned());
        // If it turns out to be closed, who sends on it finds that out.
        (&mut waiter.given).await.map_err(ended)?
    }

    /// Speaks HTTP/1 on a new connection.
    #[must_use]
    pub fn connect(&self, io: I) -> Sender<I> {
        Sender::new(io, &self.settings)
    }

    /// Gives a connection back once its response has ended. A request that is not sent in full by then is waited for, off the path of
    /// any other.
    pub fn put(&self, sender: Sender<I>) {
        let reused = true;
        if sender.is_free() {
            self.give(Available { sender, reused });
            return;
        }
        if !sender.is_answered() {
            sender.close();
            return;
        }
        let pool = self.clone();
        tokio::task::spawn_local(async move {
            let sent = tokio::time::timeout(SENT_TIMEOUT, sender.sent()).await;
            if sent.is_ok() && sender.is_free() {
                pool.give(Available { sender, reused });
            }
        });
    }

    /// Drops the connections that were idle at the last sweep already, and those that have ended. Returns how many are left.
    pub fn sweep(&self) -> usize {
        let idle = &mut self.free.borrow_mut().idle;
        let swept = idle.extract_if(.., |idle| {
            mem::replace(&mut idle.seen, true) || !idle.is_open()
        });
        for idle in swept {
            idle.sender.close();
        }
        for idle in idle.iter() {
            idle.sender.rest();
        }
        idle.len()
    }
}

impl<I> Idle<I>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    /// Whether the server has not ended it, as far as is known. Nobody is woken when it does: who wants to use it looks.
    fn is_open(&self) -> bool {
        self.sender.is_open(&mut Context::from_waker(Waker::noop()))
    }
}

impl<I> Http1Pool<I> {
    fn wait(&self) -> Waiter<I> {
        let (give, given) = oneshot::channel();
        self.free.borrow_mut().waiting.push_back(give);
        let pool = self.clone();
        Waiter { pool, given }
    }

    /// Counts one more connection that is being made, unless so many are that nobody would need it.
    fn makes_another(&self) -> bool {
        let mut free = self.free.borrow_mut();
        let makes = free.making < free.waiting.len() + self.settings.max_idle;
        free.making += usize::from(makes);
        makes
    }

    /// What came of one that was being made. A failure is nobody's as long as there are others for all who wait.
    fn made(&self, made: Result<Sender<I>, Error>) {
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
    fn give(&self, mut available: Available<I>) {
        let mut free = self.free.borrow_mut();
        while let Some(first) = free.waiting.pop_front() {
            match first.send(Ok(available)) {
                Ok(()) => return,
                Err(Ok(back)) => available = back,
                Err(Err(_)) => return,
            }
        }
        if free.idle.len() < self.settings.max_idle {
            let Available { sender, .. } = available;
            let seen = false;
            free.idle.push(Idle { sender, seen });
        }
    }
}

impl<I> Drop for Waiter<I> {
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

impl<I> Default for Free<I> {
    fn default() -> Self {
        Self {
            idle: Vec::new(),
            waiting: VecDeque::new(),
            making: 0,
        }
    }
}

impl<I> Clone for Http1Pool<I> {
    fn clone(&self) -> Self {
        Self {
            free: self.free.clone(),
            settings: self.settings.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::cell::Cell;
    use std::io;
    use std::pin::Pin;
    use std::task::Poll;
    use tokio::io::{DuplexStream, ReadBuf};
    use tokio::task::{LocalSet, yield_now};

    type Pool = Http1Pool<DuplexStream>;
    type Connected = Result<DuplexStream, Error>;

    fn pool(max_idle: usize) -> Pool {
        Http1Pool::new(&ClientSettings {
            max_idle,
            ..ClientSettings::default()
        })
    }

    /// A connection on which nothing is said, and its other end.
    fn open(pool: &Pool) -> (Sender<DuplexStream>, DuplexStream) {
        let (near, far) = tokio::io::duplex(64);
        (pool.connect(near), far)
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
            let (sender, _far) = open(&pool);
            let mut first = Box::pin(pool.free_or_new(never()));
            let mut second = Box::pin(pool.free_or_new(never()));
            assert!(first.as_mut().now_or_never().is_none());
            assert!(second.as_mut().now_or_never().is_none());
            pool.put(sender);
            assert!(second.as_mut().now_or_never().is_none());
            let Available { sender, reused } = first.await.unwrap();
            assert!(reused);
            drop(second);
            // Nobody waits any more.
            pool.put(sender);
            assert!(pool.get().is_some());
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn who_leaves_at_its_turn_passes_the_connection_on() {
        let test = async {
            let pool = pool(8);
            let (sender, _far) = open(&pool);
            let mut first = Box::pin(pool.free_or_new(never()));
            let mut second = Box::pin(pool.free_or_new(never()));
            assert!(first.as_mut().now_or_never().is_none());
            assert!(second.as_mut().now_or_never().is_none());
            pool.put(sender);
            drop(first);
            assert!(second.await.unwrap().reused);
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn what_was_begun_is_there_for_the_next() {
        let test = async {
            let pool = pool(8);
            let (sender, _far) = open(&pool);
            let (begin, connect) = connecting();
            let mut request = Box::pin(pool.free_or_new(connect));
            assert!(request.as_mut().now_or_never().is_none());
            pool.put(sender);
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
            let (sender, _far) = open(&pool);
            let (begins, connects) = (connecting(), connecting());
            let mut first = Box::pin(pool.free_or_new(begins.1));
            assert!(first.as_mut().now_or_never().is_none());
            pool.put(sender);
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

    /// Notes that it was ended in order.
    struct Noted(DuplexStream, Rc<Cell<bool>>);

    impl AsyncRead for Noted {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Noted {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(cx, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.1.set(true);
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    /// TLS tells an end from one that was cut off.
    #[tokio::test]
    async fn what_nobody_used_is_ended_in_order() {
        let pool = Http1Pool::new(&ClientSettings::default());
        let ended = Rc::new(Cell::new(false));
        let (near, _far) = tokio::io::duplex(64);
        pool.put(pool.connect(Noted(near, ended.clone())));
        assert_eq!(pool.sweep(), 1);
        assert!(!ended.get());
        assert_eq!(pool.sweep(), 0);
        assert!(ended.get());
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
