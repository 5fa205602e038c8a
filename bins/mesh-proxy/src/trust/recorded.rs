//! A connection with its place among those of its anchor.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connections::{Cut, Record};

/// A stream that can be ended from outside its task. What that costs a read that finds nothing is a comparison.
#[derive(Debug)]
pub(crate) struct Recorded<S> {
    stream: S,
    record: Record,
    cut: Arc<Cut>,
    /// The task that is woken when it is cut.
    waker: Option<Waker>,
}

impl<S> Recorded<S> {
    pub(crate) fn new(stream: S, (record, cut): (Record, Arc<Cut>)) -> Self {
        Self {
            stream,
            record,
            cut,
            waker: None,
        }
    }

    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// What ends it: for whoever carries it and may be waiting for something else.
    pub(crate) fn cut(&self) -> Arc<Cut> {
        Arc::clone(&self.cut)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Recorded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.cut.has_fired() {
            let read = Pin::new(&mut this.stream).poll_read(cx, buf);
            if read.is_ready() || this.cut.poll(&mut this.waker, cx).is_pending() {
                return read;
            }
        }
        Poll::Ready(Err(was_cut()))
    }
}

/// What a connection ends with that was cut.
pub(crate) fn was_cut() -> io::Error {
    io::Error::new(
        io::ErrorKind::ConnectionAborted,
        "cut: its peer was verified under a trust anchor that retires",
    )
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Recorded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.cut.has_fired() {
            return Poll::Ready(Err(was_cut()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.cut.has_fired() {
            return Poll::Ready(Err(was_cut()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mesh_tls::KeyId;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::trust::Connections;

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_waits_ends_when_it_is_cut() {
        let (all, anchor) = (Connections::default(), KeyId::from([1; 32]));
        let (near, mut far) = tokio::io::duplex(16);
        let mut stream = Recorded::new(near, all.cuttable(anchor));
        far.write_all(b"a").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'a');
        let reading = tokio::spawn(async move { stream.read_u8().await });
        tokio::task::yield_now().await;
        all.drain(anchor, Some(Duration::from_secs(3)));
        let error = reading.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        assert!(all.summary().is_empty());
        assert_eq!(all.cuts(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_waits_for_a_reader_ends_when_it_is_cut_and_takes_nothing_more() {
        let (all, anchor) = (Connections::default(), KeyId::from([1; 32]));
        let ((near, mut far), (mut client, unread)) =
            (tokio::io::duplex(16), tokio::io::duplex(16));
        let mut stream = Recorded::new(near, all.cuttable(anchor));
        let cut = stream.cut();
        tokio::spawn(async move { far.write_all(&[0; 1024]).await });
        let carrying = async {
            tokio::select! {
                carried = mesh_http::tcp::carry(&mut client, &mut stream, &()) => carried,
                () = cut.fired() => Err(was_cut()),
            }
        };
        all.drain(anchor, Some(Duration::from_secs(1)));
        let error = carrying.await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        let error = stream.write_u8(1).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        drop(unread);
    }
}
