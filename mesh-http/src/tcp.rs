//! Carrying bytes both ways between two streams, each direction ending on its own.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::BufMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

/// The buffer of one direction to begin with, in bytes: the largest TLS record's plaintext.
const FIRST_BUFFER: usize = 16 * 1024;
/// And when bytes come in faster. A write to an application wakes it, often on another core, so that few and large ones cost less.
const BUFFER: usize = 128 * 1024;

/// Who is told how many bytes went which way, as they go.
pub trait Count {
    /// `bytes` went from the first stream to the second.
    fn forward(&self, bytes: usize);
    /// `bytes` went from the second stream to the first.
    fn backward(&self, bytes: usize);
}

impl Count for () {
    fn forward(&self, _: usize) {}
    fn backward(&self, _: usize) {}
}

/// Carries bytes between `a` and `b` until both have ended; the end of one direction is passed on and leaves the other be.
///
/// Each direction holds at most one buffer, so that a slow reader slows the writer down, and none while nothing comes in.
///
/// # Errors
/// The first error of either stream.
pub async fn carry<A, B>(a: &mut A, b: &mut B, count: &impl Count) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let mut there = Direction::default();
    let mut back = Direction::default();
    poll_fn(|cx| {
        let forward = there.poll(cx, a, b, |bytes| count.forward(bytes))?;
        let backward = back.poll(cx, b, a, |bytes| count.backward(bytes))?;
        match (forward, backward) {
            (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    })
    .await
}

/// One way: what was read and not yet written, and how far the end has come.
#[derive(Default)]
struct Direction {
    buffer: Vec<u8>,
    written: usize,
    /// Whether the last buffer was filled, so that a larger one is worth its while.
    filled: bool,
    state: State,
    /// What the reader failed with, once all that was read is written.
    error: Option<io::Error>,
    unflushed: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// The reader gave its end; the writer has yet to be shut down.
    Ending,
    Ended,
}

impl Direction {
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        count: impl Fn(usize),
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            if self.written < self.buffer.len() {
                let left = &self.buffer[self.written..];
                let written = ready!(Pin::new(&mut *writer).poll_write(cx, left))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                count(written);
                self.written += written;
                self.unflushed = true;
                continue;
            }
            if self.error.is_some() {
                // An error of the writer would say no more than the reader's.
                let _ = ready!(Pin::new(&mut *writer).poll_flush(cx));
            }
            if let Some(error) = self.error.take() {
                return Poll::Ready(Err(error));
            }
            match self.state {
                State::Open => {
                    if self.poll_fill(cx, reader).is_pending() {
                        if self.unflushed {
                            ready!(Pin::new(&mut *writer).poll_flush(cx))?;
                            self.unflushed = false;
                        }
                        return Poll::Pending;
                    }
                }
                State::Ending => {
                    ready!(Pin::new(&mut *writer).poll_shutdown(cx))?;
                    self.state = State::Ended;
                    self.buffer = Vec::new();
                }
                State::Ended => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Reads until the buffer is full, or nothing more has come in: what is written at once takes fewer calls and wakes less. Pending
    /// without a buffer when nothing has come in at all.
    fn poll_fill<R>(&mut self, cx: &mut Context<'_>, reader: &mut R) -> Poll<()>
    where
        R: AsyncRead + Unpin,
    {
        let size = if self.filled { BUFFER } else { FIRST_BUFFER };
        self.written = 0;
        self.buffer.clear();
        self.buffer.reserve_exact(size);
        while self.buffer.len() < size {
            let room = size - self.buffer.len();
            let mut space = (&mut self.buffer).limit(room);
            // The future keeps nothing between polls.
            match pin!(reader.read_buf(&mut space)).poll(cx) {
                Poll::Ready(Ok(0)) => {
                    self.state = State::Ending;
                    break;
                }
                Poll::Ready(Ok(_)) => {}
                // What came in before is passed on first.
                Poll::Ready(Err(error)) => {
                    self.error = Some(error);
                    break;
                }
                Poll::Pending if self.buffer.is_empty() => {
                    self.buffer = Vec::new();
                    return Poll::Pending;
                }
                Poll::Pending => break,
            }
        }
        self.filled = self.buffer.len() >= FIRST_BUFFER;
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter, ReadBuf, duplex};

    /// Gives its bytes, then a reset; takes what is written.
    struct Resetting(&'static [u8]);

    impl AsyncRead for Resetting {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if self.0.is_empty() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            buf.put_slice(std::mem::take(&mut self.0));
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Resetting {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[derive(Default)]
    struct Counted(Cell<(usize, usize)>);

    impl Count for Counted {
        fn forward(&self, bytes: usize) {
            self.0.set((self.0.get().0 + bytes, self.0.get().1));
        }
        fn backward(&self, bytes: usize) {
            self.0.set((self.0.get().0, self.0.get().1 + bytes));
        }
    }

    #[tokio::test]
    async fn one_end_passes_and_the_other_direction_goes_on() {
        let (mut client, mut a) = duplex(64);
        let (mut b, mut server) = duplex(64);
        let counted = Counted::default();
        let ends = async {
            client.write_all(&[7; 1000]).await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, vec![9; 3000]);
        };
        let app = async {
            let mut asked = Vec::new();
            server.read_to_end(&mut asked).await.unwrap();
            assert_eq!(asked, vec![7; 1000]);
            server.write_all(&[9; 3000]).await.unwrap();
            server.shutdown().await.unwrap();
        };
        let (carried, (), ()) = tokio::join!(carry(&mut a, &mut b, &counted), ends, app);
        carried.unwrap();
        assert_eq!(counted.0.get(), (1000, 3000));
    }

    #[tokio::test]
    async fn what_came_before_an_error_is_passed_on() {
        let mut a = Resetting(b"hello");
        let (b, mut server) = duplex(64);
        // As TLS does, it keeps what is written until it is flushed.
        let mut b = BufWriter::new(b);
        let error = carry(&mut a, &mut b, &()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        drop(b);
        let mut arrived = Vec::new();
        server.read_to_end(&mut arrived).await.unwrap();
        assert_eq!(arrived, b"hello");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_slows_the_writer() {
        let (mut client, mut a) = duplex(64);
        let (mut b, _server) = duplex(64);
        let carrying = carry(&mut a, &mut b, &());
        let mut sent = 0;
        let writing = async {
            loop {
                sent += client.write(&[0; 64]).await.unwrap();
            }
        };
        let stalled = tokio::time::timeout(std::time::Duration::from_millis(200), async {
            tokio::join!(carrying, writing)
        })
        .await;
        assert!(stalled.is_err());
        assert!(
            sent <= FIRST_BUFFER + 3 * 64,
            "{sent} bytes were taken with nobody reading"
        );
    }
}
