//! What a connection's task and those who use the connection know of each other.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

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

/// A stream whose bytes are counted as they are read.
#[derive(Debug)]
pub(crate) struct Counted<I> {
    pub(crate) io: I,
    pub(crate) state: Rc<State>,
}

impl<I: AsyncRead + Unpin> AsyncRead for Counted<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        let bytes = buffer.filled().len() - before;
        let read = &self.state.read;
        read.set(read.get().wrapping_add(bytes));
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
