//! Carrying bytes both ways between two streams, each direction ending on its own.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The buffer of one direction, in bytes: the largest TLS record's plaintext.
const BUFFER: usize = 16 * 1024;

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
/// Each direction holds at most one buffer, so that a slow reader slows the writer down.
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
    buffer: Option<Box<[u8]>>,
    from: usize,
    to: usize,
    state: State,
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
            if self.from < self.to {
                let buffer = self.buffer.as_deref().unwrap_or_default();
                let written =
                    ready!(Pin::new(&mut *writer).poll_write(cx, &buffer[self.from..self.to]))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                count(written);
                self.from += written;
                self.unflushed = true;
                continue;
            }
            match self.state {
                State::Open => {
                    if self.poll_fill(cx, reader)?.is_pending() {
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
                    self.buffer = None;
                }
                State::Ended => return Poll::Ready(Ok(())),
            }
        }
    }

    fn poll_fill<R>(&mut self, cx: &mut Context<'_>, reader: &mut R) -> io::Result<Poll<()>>
    where
        R: AsyncRead + Unpin,
    {
        let buffer = self
            .buffer
            .get_or_insert_with(|| vec![0; BUFFER].into_boxed_slice());
        let mut into = ReadBuf::new(buffer);
        match Pin::new(reader).poll_read(cx, &mut into) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(read) => read?,
        }
        (self.from, self.to) = (0, into.filled().len());
        if self.to == 0 {
            self.state = State::Ending;
        }
        Ok(Poll::Ready(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

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
            sent <= BUFFER + 3 * 64,
            "{sent} bytes were taken with nobody reading"
        );
    }
}
