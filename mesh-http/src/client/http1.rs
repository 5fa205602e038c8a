//! HTTP/1 connections: a pool of idle ones, and one that may be switched to another protocol.

use std::cell::RefCell;
use std::rc::Rc;

use hyper::body::Body;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::client::ClientSettings;
use crate::{Error, Prefixed};

/// The idle HTTP/1 connections to one endpoint. Cheap to clone; clones share the connections.
#[derive(Debug)]
pub struct Http1Pool<B> {
    idle: Rc<RefCell<Vec<Idle<B>>>>,
    max_idle: usize,
    max_header_bytes: usize,
}

#[derive(Debug)]
struct Idle<B> {
    sender: SendRequest<B>,
    /// Whether [`Http1Pool::sweep`] has seen it idle before.
    seen: bool,
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
            idle: Rc::default(),
            max_idle: settings.max_idle,
            max_header_bytes: settings.max_header_bytes as usize,
        }
    }

    /// An idle connection, the one used last first; `None` when there is none that is still open.
    pub async fn get(&self) -> Option<SendRequest<B>> {
        loop {
            let mut idle = self.idle.borrow_mut().pop()?;
            if idle.sender.is_ready()
                || (!idle.sender.is_closed() && idle.sender.ready().await.is_ok())
            {
                return Some(idle.sender);
            }
        }
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
        if sender.is_closed() || self.idle.borrow().len() >= self.max_idle {
            return;
        }
        if request_ended || sender.is_ready() {
            self.idle.borrow_mut().push(Idle {
                sender,
                seen: false,
            });
            return;
        }
        let idle = self.idle.clone();
        tokio::task::spawn_local(async move {
            let wait = tokio::time::timeout(std::time::Duration::from_secs(5), sender.ready());
            if matches!(wait.await, Ok(Ok(()))) {
                idle.borrow_mut().push(Idle {
                    sender,
                    seen: false,
                });
            }
        });
    }

    /// Drops the connections that were idle at the last sweep already. Returns how many are left.
    pub fn sweep(&self) -> usize {
        let mut idle = self.idle.borrow_mut();
        idle.retain_mut(|idle| {
            !std::mem::replace(&mut idle.seen, true) && !idle.sender.is_closed()
        });
        idle.len()
    }
}

impl<B> Clone for Http1Pool<B> {
    fn clone(&self) -> Self {
        Self {
            idle: self.idle.clone(),
            max_idle: self.max_idle,
            max_header_bytes: self.max_header_bytes,
        }
    }
}

/// Resolves to the stream and what was read from it beyond the response's head, once the server has switched protocols.
pub type Switched<I> = tokio::sync::oneshot::Receiver<Prefixed<I>>;

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
    let (done, switched) = tokio::sync::oneshot::channel();
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
