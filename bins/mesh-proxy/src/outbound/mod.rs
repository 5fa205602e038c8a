//! Traffic from the application: accepted, its target and protocol found, sent to an endpoint of its target.
//!
//! - [`serve`]: from the accepted connection to what carries it.
//! - `http`: routing requests. `exchange`: sending one. `retry`: sending it again. `switch`: upgrades and CONNECT. `opaque`: one connection of bytes. `proxy`: requests in HTTP proxy form.
//! - `choose`: from a backend to an endpoint. `record`: what is recorded, once each.

mod choose;
mod exchange;
mod http;
mod opaque;
mod proxy;
mod record;
mod retry;
mod route;
mod switch;
mod tunnel;

pub(crate) use opaque::until_closed;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ::http::Request;
use hyper::service::service_fn;
use mesh_http::Incoming;
use mesh_http::connections::Connection;
use mesh_http::detect::Protocol;
use mesh_http::{Prefixed, server};
use mesh_policy::outbound;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::control::Watched;
use crate::model::{Outbound, Target};
use crate::worker::answer::{Form, Refusal, answer_version};
use crate::worker::{Worker, detect, sni, socket};

/// How an accepted connection says where it goes.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// By the destination it had before a redirect rule.
    Redirected,
    /// By the listener it came in on.
    Service(Target),
    /// By each request's target: an absolute URI, or CONNECT.
    HttpProxy,
}

/// Serves one connection of the application to its end.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    connection: Connection,
    stream: TcpStream,
    client: SocketAddr,
    source: Source,
) {
    let target = match source {
        Source::Service(target) => target,
        Source::HttpProxy => return proxy::serve(worker, &connection, stream, client).await,
        Source::Redirected => match socket::original_destination(&stream) {
            Some(address) => Target::Addr(address),
            None => {
                tracing::debug!(
                    "closed: a connection that was not redirected came in at outbound.listen"
                );
                return;
            }
        },
    };
    serve_target(&worker, &connection, stream, client, target).await;
}

/// Serves a connection that goes to `target`.
pub(crate) async fn serve_target<I>(
    worker: &Rc<Worker>,
    connection: &Connection,
    io: I,
    client: SocketAddr,
    target: Target,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let watched = match worker.shared.control.outbound(target.clone()).await {
        Ok(watched) => watched,
        Err(error) => {
            tracing::debug!(%target, %error, "refused: no policy");
            return Box::pin(refuse(worker, connection, io)).await;
        }
    };
    if let Err(error) = carry(worker, connection, io, client, &watched, &target).await {
        tracing::debug!(%target, %error, "a connection failed");
    }
}

/// Tells a client of HTTP that the target is not known; closes any other connection.
async fn refuse<I>(worker: &Rc<Worker>, connection: &Connection, io: I)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limit = worker.shared.config.outbound.detect_timeout;
    let Ok((protocol, io)) = detect(connection, io, limit).await else {
        return;
    };
    let activity = connection.activity();
    let service = service_fn(|request: Request<Incoming>| {
        let _in_flight = activity.request();
        let mut answer: http::Answer = Refusal::UnknownTarget.answer(Form::of(&request));
        *answer.version_mut() = answer_version(request.version());
        std::future::ready(Ok::<_, Infallible>(answer))
    });
    let _ = match protocol {
        Protocol::Http1 => server::http1(io, &worker.limits, connection, service).await,
        Protocol::Http2 => server::http2(io, &worker.limits, connection, service).await,
        Protocol::Tls | Protocol::Opaque => Ok(()),
    };
}

fn slow() -> mesh_http::Error {
    mesh_http::Error::Io(std::io::ErrorKind::TimedOut.into())
}

async fn carry<I>(
    worker: &Rc<Worker>,
    connection: &Connection,
    io: I,
    client: SocketAddr,
    watched: &Arc<Watched<Outbound>>,
    target: &Target,
) -> Result<(), mesh_http::Error>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let expected = Expected::of(&watched.load());
    // What a connection turns out to be is boxed, so that one that has not said so yet takes no room for it.
    let timeout = match expected {
        Expected::Opaque => {
            return Box::pin(opaque::carry(worker, connection, io, watched, None)).await;
        }
        Expected::Tls => worker.shared.config.outbound.detect_timeout,
        Expected::Http(timeout) => timeout.unwrap_or(worker.shared.config.outbound.detect_timeout),
    };
    let (protocol, io) = detect(connection, io, timeout).await?;
    if expected == Expected::Tls {
        let (name, io) = match protocol {
            Protocol::Tls => tokio::time::timeout(timeout, Box::pin(sni::server_name(io)))
                .await
                .map_err(|_| slow())??,
            _ => (None, io),
        };
        let name = name.as_deref();
        return Box::pin(opaque::carry(worker, connection, io, watched, name)).await;
    }
    match protocol {
        Protocol::Http1 => Box::pin(http1(worker, connection, io, client, watched, target)).await,
        Protocol::Http2 => {
            let http = http::Http::new(
                worker.clone(),
                watched.clone(),
                connection.activity(),
                client,
                target,
            );
            let served = server::http2(io, &worker.limits, connection, http::service(http));
            Box::pin(served).await
        }
        Protocol::Tls | Protocol::Opaque => {
            Box::pin(opaque::carry(worker, connection, io, watched, None)).await
        }
    }
}

async fn http1<I>(
    worker: &Rc<Worker>,
    connection: &Connection,
    io: Prefixed<I>,
    client: SocketAddr,
    watched: &Arc<Watched<Outbound>>,
    target: &Target,
) -> Result<(), mesh_http::Error>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let http = http::Http::new(
        worker.clone(),
        watched.clone(),
        connection.activity(),
        client,
        target,
    );
    server::http1(io, &worker.limits, connection, http::service(http.clone())).await?;
    match http.take_switch() {
        Some(switch) => Box::pin(switch.carry(connection)).await,
        None => Ok(()),
    }
}

/// What a policy lets be expected of a connection before a byte of it was read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Opaque,
    Tls,
    /// HTTP, or whatever it turns out to be within the time.
    Http(Option<Duration>),
}

impl Expected {
    fn of(policy: &Outbound) -> Self {
        match &policy.protocol {
            outbound::Protocol::Opaque(_) => Self::Opaque,
            outbound::Protocol::Tls(_) => Self::Tls,
            outbound::Protocol::Detect { timeout, .. } => Self::Http(Some(*timeout)),
            outbound::Protocol::Http1(_)
            | outbound::Protocol::Http2(_)
            | outbound::Protocol::Grpc(_) => Self::Http(None),
        }
    }
}
