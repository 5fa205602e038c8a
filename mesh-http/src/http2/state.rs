//! What a connection's task and those who use the connection know of each other.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::sieve::Sieve;
use crate::Broken;

#[derive(Debug, Default)]
pub(crate) struct State {
    /// How many requests are in flight.
    pub(crate) streams: Cell<usize>,
    /// No new request can be sent.
    pub(crate) closed: Cell<bool>,
    /// It was given up, as nothing was heard for so long after a ping.
    pub(crate) silent: Cell<Option<Duration>>,
    /// How many bytes were read; it wraps around.
    pub(crate) read: Cell<usize>,
    /// A request was queued that the connection's task has not written yet.
    pub(crate) queued: Cell<bool>,
}

impl State {
    /// What `error` of a stream comes of.
    pub(crate) fn broken(&self, error: h2::Error) -> Broken {
        match self.silent.get() {
            Some(silent) => Broken::Silent(silent),
            None => Broken::Http2(error),
        }
    }
}

/// A stream whose bytes are counted as they are read, without empty frames, and which is read when there may be something: `h2`
/// tries to each time that it has something to write.
#[derive(Debug)]
pub(crate) struct Counted<I> {
    io: I,
    state: Rc<State>,
    reading: Option<Reading>,
    sieve: Sieve,
}

/// What wakes the task that reads.
#[derive(Debug)]
struct Reading {
    due: Arc<Due>,
    waker: Waker,
}

/// Whether a read is worth while, as the last one did not wait or what it waited for has come.
#[derive(Debug)]
struct Due {
    now: AtomicBool,
    task: Waker,
}

impl<I> Counted<I> {
    /// That to a client.
    pub(crate) fn to_client(io: I, state: Rc<State>) -> Self {
        Self {
            sieve: Sieve::of_client(),
            ..Self::to_server(io, state)
        }
    }

    /// That to a server.
    pub(crate) fn to_server(io: I, state: Rc<State>) -> Self {
        Self {
            io,
            state,
            reading: None,
            sieve: Sieve::default(),
        }
    }
}

impl Reading {
    fn of(task: &Waker) -> Self {
        let due = Arc::new(Due {
            now: AtomicBool::new(true),
            task: task.clone(),
        });
        let waker = Waker::from(due.clone());
        Self { due, waker }
    }
}

impl Wake for Due {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.now.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Counted<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let reading = match &mut this.reading {
            Some(reading) if reading.due.task.will_wake(cx.waker()) => reading,
            other => other.insert(Reading::of(cx.waker())),
        };
        let queued = this.state.queued.take();
        if !reading.due.now.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        if queued {
            // A server that is ending takes what comes before the answer to its ping (RFC 9113, section 6.8), which may be there
            // already.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // Before the read, so that no wake after it is lost.
        reading.due.now.swap(false, Ordering::AcqRel);
        let before = buffer.filled().len();
        let polled =
            Pin::new(&mut this.io).poll_read(&mut Context::from_waker(&reading.waker), buffer);
        if polled.is_ready() {
            reading.due.now.store(true, Ordering::Release);
        }
        let bytes = &mut buffer.filled_mut()[before..];
        this.sieve.pass(bytes);
        let read = &this.state.read;
        read.set(read.get().wrapping_add(bytes.len()));
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Counted<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// Counts how often it is asked.
    struct Asked<I>(I, Rc<Cell<usize>>);

    impl<I: AsyncRead + Unpin> AsyncRead for Asked<I> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<std::io::Result<()>> {
            self.1.set(self.1.get() + 1);
            Pin::new(&mut self.0).poll_read(cx, buffer)
        }
    }

    async fn polled<I: AsyncRead + Unpin>(io: &mut Counted<I>) -> usize {
        let mut bytes = [0; 10];
        let mut buffer = ReadBuf::new(&mut bytes);
        let read =
            |cx: &mut Context<'_>| Poll::Ready(Pin::new(&mut *io).poll_read(cx, &mut buffer));
        let _ = poll_fn(read).await;
        buffer.filled().len()
    }

    #[tokio::test]
    async fn what_waits_is_asked_again_when_it_has_something() {
        let (near, mut far) = duplex(100);
        let (asked, state) = (Rc::<Cell<usize>>::default(), Rc::<State>::default());
        let mut io = Counted::to_server(Asked(near, asked.clone()), state.clone());
        for _ in 0..3 {
            assert_eq!(polled(&mut io).await, 0);
        }
        assert_eq!(asked.get(), 1);
        far.write_all(b"some").await.unwrap();
        assert_eq!((polled(&mut io).await, state.read.get()), (4, 4));
        for _ in 0..3 {
            assert_eq!(polled(&mut io).await, 0);
        }
        assert_eq!(asked.get(), 3);
    }

    #[tokio::test]
    async fn whichever_task_reads_is_woken() {
        let (near, mut far) = duplex(100);
        let mut io = Counted::to_server(near, Rc::default());
        assert_eq!(polled(&mut io).await, 0);
        let other = tokio::spawn(async move {
            tokio::task::yield_now().await;
            far.write_all(b"some").await.unwrap();
            far
        });
        let mut bytes = [0; 4];
        tokio::task::LocalSet::new()
            .run_until(async {
                let reading = async move { io.read_exact(&mut bytes).await.map(|_| bytes) };
                let read = tokio::task::spawn_local(reading).await;
                assert_eq!(&read.unwrap().unwrap(), b"some");
            })
            .await;
        other.await.unwrap();
    }

    #[tokio::test]
    async fn what_is_queued_is_written_before_anything_is_read() {
        let (near, mut far) = duplex(100);
        let state = Rc::<State>::default();
        let mut io = Counted::to_server(near, state.clone());
        far.write_all(b"some").await.unwrap();
        state.queued.set(true);
        assert_eq!(polled(&mut io).await, 0);
        assert_eq!(polled(&mut io).await, 4);
    }
}
