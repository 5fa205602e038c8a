//! What waits to be written: no more than one head and one piece of a body.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use tokio::io::AsyncWrite;

use super::encode::last_chunk;

/// Up to so many bytes, a piece is copied behind what waits: that costs less than a write of several parts.
const SMALL: usize = 1024;
/// While fewer bytes wait, more is taken.
const ENOUGH: usize = 4 * 1024;
/// More room is not kept for the next head.
const KEPT_ROOM: usize = 16 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// Heads, chunk sizes and small pieces.
    begin: Vec<u8>,
    /// How much of `begin` was written.
    written: usize,
    /// A large piece, after `begin`.
    piece: Bytes,
    /// The end of the line after it.
    end: &'static [u8],
    unflushed: bool,
}

impl Outgoing {
    /// Where a head is appended, when there is room.
    pub(crate) fn begin(&mut self) -> &mut Vec<u8> {
        debug_assert!(
            self.piece.is_empty() && self.end.is_empty(),
            "a piece is after it"
        );
        &mut self.begin
    }

    /// Whether something may be added.
    pub(crate) fn has_room(&self) -> bool {
        self.piece.is_empty() && self.end.is_empty() && self.begin.len() < ENOUGH
    }

    /// Whether all was written and has left.
    pub(crate) fn is_done(&self) -> bool {
        self.is_written() && !self.unflushed
    }

    /// Adds a piece of a body, where there is room.
    pub(crate) fn piece(&mut self, piece: Bytes, chunked: bool) {
        if piece.is_empty() {
            // An empty chunk would be the last.
            return;
        }
        if chunked {
            let mut digits = [0; 16];
            let mut at = digits.len();
            let mut left = piece.len();
            while left > 0 {
                at -= 1;
                digits[at] = HEX[left % 16];
                left /= 16;
            }
            self.begin.extend_from_slice(&digits[at..]);
            self.begin.extend_from_slice(b"\r\n");
        }
        let end: &[u8] = if chunked { b"\r\n" } else { b"" };
        if piece.len() <= SMALL {
            self.begin.extend_from_slice(&piece);
            self.begin.extend_from_slice(end);
        } else {
            (self.piece, self.end) = (piece, end);
        }
    }

    /// Adds the end of a body in chunks: right after the last piece, or with `trailers` where there is room.
    pub(crate) fn last_chunk(&mut self, trailers: Option<&HeaderMap>) {
        if self.piece.is_empty() && self.end.is_empty() {
            last_chunk(trailers, &mut self.begin);
        } else {
            self.end = b"\r\n0\r\n\r\n";
        }
    }

    /// Writes all there is. Ready once it is with `io`, which may have to be flushed.
    pub(crate) fn poll_write<I: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut I,
    ) -> Poll<io::Result<()>> {
        while !self.is_written() {
            let begin = &self.begin[self.written..];
            let written = if self.piece.is_empty() && self.end.is_empty() {
                ready!(Pin::new(&mut *io).poll_write(cx, begin))?
            } else {
                let parts = [begin, &self.piece, self.end].map(IoSlice::new);
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, &parts))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Ready once what was written has left.
    pub(crate) fn poll_flush<I: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut I,
    ) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn is_written(&self) -> bool {
        self.begin.is_empty() && self.piece.is_empty() && self.end.is_empty()
    }

    fn advance(&mut self, written: usize) {
        let of_begin = written.min(self.begin.len() - self.written);
        self.written += of_begin;
        if self.written == self.begin.len() {
            self.written = 0;
            self.begin.clear();
            self.begin.shrink_to(KEPT_ROOM);
        }
        let of_piece = (written - of_begin).min(self.piece.len());
        self.piece.advance(of_piece);
        if self.piece.is_empty() {
            self.piece = Bytes::new();
        }
        self.end = &self.end[written - of_begin - of_piece..];
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";
