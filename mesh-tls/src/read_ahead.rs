//! Reading more than TLS asks for, where there is more.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// How much is read ahead, in bytes: four of the largest records.
const AHEAD: usize = 64 * 1024;
/// Who is given less than this has no use for reading ahead.
const FEW: usize = 4 * 1024;

/// A stream below TLS. rustls reads one record at a time; while records come in faster than they are read, this reads
/// several at once. It holds no buffer while nothing comes in.
#[derive(Debug)]
pub struct ReadAhead<I> {
    io: I,
    /// What was read ahead; the first `taken` bytes of it are read.
    ahead: Vec<u8>,
    taken: usize,
    /// Whether the last read gave all that it could, so that there is more.
    more: bool,
}

impl<I> ReadAhead<I> {
    /// Reads ahead of who reads from `io`.
    #[must_use]
    pub fn new(io: I) -> Self {
        Self {
            io,
            ahead: Vec::new(),
            taken: 0,
            more: false,
        }
    }

    /// The stream itself.
    #[must_use]
    pub fn get_ref(&self) -> &I {
        &self.io
    }
}

impl<I: AsyncRead + Unpin> ReadAhead<I> {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.taken = 0;
        self.ahead.clear();
        self.ahead.reserve(AHEAD);
        // The future keeps nothing between polls.
        let filled = pin!(self.io.read_buf(&mut self.ahead)).poll(cx);
        if let Poll::Ready(Ok(bytes)) = filled {
            self.more = bytes >= FEW;
        } else {
            self.ahead = Vec::new();
        }
        filled.map_ok(|_| ())
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for ReadAhead<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.taken == this.ahead.len() {
            if !this.more {
                // Before the read: nobody comes back to do it after one that waits.
                this.ahead = Vec::new();
                this.taken = 0;
                let room = buf.remaining();
                ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
                this.more = room >= FEW && buf.remaining() == 0;
                return Poll::Ready(Ok(()));
            }
            ready!(this.poll_fill(cx))?;
        }
        let bytes = buf.remaining().min(this.ahead.len() - this.taken);
        buf.put_slice(&this.ahead[this.taken..this.taken + bytes]);
        this.taken += bytes;
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for ReadAhead<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use tokio::io::{AsyncWriteExt, duplex};

    /// Counts the reads that gave something.
    struct Counted<I>(I, Cell<usize>);

    impl<I: AsyncRead + Unpin> AsyncRead for Counted<I> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            ready!(Pin::new(&mut self.0).poll_read(cx, buf))?;
            self.1.set(self.1.get() + 1);
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn many_records_take_few_reads_and_every_byte_arrives() {
        let sent: Vec<u8> = (0..1_000_000u32).map(|n| n.to_le_bytes()[1]).collect();
        let (mut near, far) = duplex(sent.len());
        near.write_all(&sent).await.unwrap();
        drop(near);
        let mut io = ReadAhead::new(Counted(far, Cell::new(0)));
        let mut read = Vec::new();
        loop {
            let mut record = vec![0; FEW];
            match io.read(&mut record).await.unwrap() {
                0 => break,
                bytes => read.extend_from_slice(&record[..bytes]),
            }
        }
        assert!(read == sent, "{} bytes", read.len());
        assert!(io.io.1.get() <= sent.len() / AHEAD + 3);
    }

    #[tokio::test]
    async fn between_records_nothing_is_held() {
        let (mut near, far) = duplex(1 << 20);
        let mut io = ReadAhead::new(far);
        let mut record = vec![0; FEW];
        for bytes in [100, FEW + 100, FEW, 100, 100_000] {
            near.write_all(&vec![7; bytes]).await.unwrap();
            let mut left = bytes;
            while left > 0 {
                left -= io.read(&mut record).await.unwrap();
            }
            let waits =
                pin!(io.read(&mut record)).poll(&mut Context::from_waker(std::task::Waker::noop()));
            assert!(waits.is_pending());
            assert_eq!(io.ahead.capacity(), 0);
        }
    }
}
