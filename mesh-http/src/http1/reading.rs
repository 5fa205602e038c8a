//! What was read and not taken yet.

use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

/// How much is read at once to begin with, in bytes.
const FIRST: usize = 8 * 1024;
/// And where more comes.
const MOST: usize = 64 * 1024;

/// Bytes on their way in. Holds no memory before something is read.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) bytes: BytesMut,
    /// How much is read at once.
    size: usize,
}

impl Reading {
    /// Reads once. Ready with how many bytes came; with none, `io` has ended.
    pub(crate) fn poll_read<I: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut I,
    ) -> Poll<io::Result<usize>> {
        if self.bytes.capacity() - self.bytes.len() < FIRST / 2 {
            self.bytes.reserve(self.size);
        }
        let room = (self.bytes.capacity() - self.bytes.len()).min(MOST);
        let mut space = (&mut self.bytes).limit(room);
        // The future keeps nothing between polls.
        let read = ready!(pin!(io.read_buf(&mut space)).poll(cx))?;
        if read == room {
            self.size = (2 * self.size).min(MOST);
        }
        Poll::Ready(Ok(read))
    }
}

impl Default for Reading {
    fn default() -> Self {
        Self {
            bytes: BytesMut::new(),
            size: FIRST,
        }
    }
}

/// Whether nothing comes in on `io`, not even its end; if so, `cx` is woken when something does. What came in is lost.
pub(crate) fn is_silent<I: AsyncRead + Unpin>(io: &mut I, cx: &mut Context<'_>) -> bool {
    let mut space = [MaybeUninit::uninit(); 1];
    let mut probe = ReadBuf::uninit(&mut space);
    Pin::new(io).poll_read(cx, &mut probe).is_pending()
}
