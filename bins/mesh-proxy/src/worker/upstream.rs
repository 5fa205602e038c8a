//! One worker's connections to one endpoint or application.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode, Version};
use mesh_http::client::{
    self, Available, ClientSettings, Http1Pool, Http2Pool, NoAnswer, Reached, Sender,
};
use mesh_http::transport_header::{Session, TransportHeader};
use mesh_http::{Broken, Error, Http1Error, Incoming};
use mesh_policy::{FlowControl, Http2Params};
use mesh_tls::TlsClient;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::body::RequestBody;
use super::expect::{Key, Unread};
use super::socket::{self, Liveness};
use super::stream::Stream;
use crate::model::{Endpoint, ProtocolHint};
use crate::trust::{self, Recorded};

/// How often a failure to connect to one endpoint is warned of.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// More anchors than are in use at a time.
const MAX_GROUPS: usize = 8;

/// Makes connections: what all upstreams of a worker share.
#[derive(Debug)]
pub(crate) struct Connector {
    /// Offers no ALPN, as a peer takes HTTP/2 with prior knowledge.
    pub(crate) tls: TlsClient,
    /// Offers the ALPN of the transport header.
    pub(crate) tls_transport: TlsClient,
    pub(crate) connections: trust::Connections,
    pub(crate) timeout: Duration,
    pub(crate) liveness: Liveness,
    pub(crate) settings: ClientSettings,
}

/// The connections to one endpoint.
#[derive(Debug)]
pub(crate) struct Upstream {
    endpoint: Arc<Endpoint>,
    connector: Rc<Connector>,
    http1: Http1Pool<Stream>,
    http2: Rc<Http2Pool>,
    groups: Groups,
    /// When a failure to connect was last warned of.
    warned: Cell<Option<Instant>>,
}

/// The groups that an endpoint's connections were verified in, as [`trust::Connections`] names them; the last few.
#[derive(Clone, Debug, Default)]
struct Groups(Rc<RefCell<Vec<u64>>>);

/// What a connection is to carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carriage {
    Http1,
    Http2,
    Opaque,
}

/// The right to send one request; held until its response has ended.
#[derive(Debug)]
pub(crate) enum Lease {
    Http1 {
        sender: Sender<Stream>,
        /// It served a request before, so that the other side may close it any moment.
        reused: bool,
    },
    Http2 {
        stream: client::Stream,
        /// It was open already.
        reused: bool,
    },
}

/// What a response still holds of its connection.
#[derive(Debug)]
pub(crate) enum Held {
    Http1 {
        pool: Http1Pool<Stream>,
        sender: Sender<Stream>,
        unread: Option<Unread>,
    },
    Http2 {
        _stream: client::Stream,
    },
    /// Nothing: the connection was made for this request alone.
    Nothing,
}

/// A request that was sent and not answered.
#[derive(Debug)]
pub(crate) struct Unanswered {
    pub(crate) error: Broken,
    pub(crate) again: Again,
}

/// Whether a request was put back, as it may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    No,
    /// None of it was sent, or it may be sent twice and came to a connection that the other side was closing for want of requests
    /// (RFC 9112, section 9.3.1), or that had died unnoticed.
    Unnoticed,
    /// It may be sent twice, and its connection was given up as nothing was heard there.
    Unheard,
    /// The other side says that it did nothing about it (RFC 9113, sections 6.8 and 8.7).
    Refused,
}

impl Upstream {
    pub(crate) fn new(endpoint: Arc<Endpoint>, connector: Rc<Connector>) -> Self {
        let http1 = Http1Pool::new(&connector.settings);
        let mut settings = connector.settings.clone();
        // A peer takes pings at any time; servers of gRPC may take many of them for an attack.
        settings.keep_alive_while_idle = endpoint.identity.is_some();
        if let Some(params) = &endpoint.http2 {
            set(&mut settings, params);
        }
        let http2 = Rc::new(Http2Pool::new(settings));
        Self {
            endpoint,
            connector,
            http1,
            http2,
            groups: Groups::default(),
            warned: Cell::new(None),
        }
    }

    /// Whether a failure to connect is worth a warning: one in a while is, as those that follow say the same.
    pub(crate) fn warns(&self) -> bool {
        let now = Instant::now();
        let again = |last: Instant| now.saturating_duration_since(last) >= WARN_INTERVAL;
        let warns = self.warned.get().is_none_or(again);
        if warns {
            self.warned.set(Some(now));
        }
        warns
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// How a request of `version` is carried: as it is, or over HTTP/2 to a peer that takes that. One that waits for 100 stays
    /// in HTTP/1, as sending over HTTP/2 waits for the head of the response alone.
    pub(crate) fn carriage(&self, version: Version, body: &RequestBody) -> Carriage {
        match self.endpoint.hint {
            _ if body.gate().is_some() => Carriage::Http1,
            ProtocolHint::H2 => Carriage::Http2,
            _ if version == Version::HTTP_2 => Carriage::Http2,
            _ => Carriage::Http1,
        }
    }

    /// A connection with room for a request, if there is one that nobody has to be waited for.
    pub(crate) fn at_hand(&self, carriage: Carriage) -> Option<Lease> {
        if carriage == Carriage::Http2 {
            let reused = |stream| Lease::Http2 {
                stream,
                reused: true,
            };
            return self.http2.get().map(reused);
        }
        None
    }

    /// A connection with room for a request, an open one if there is one. With `fresh`, no idle HTTP/1 connection, as
    /// where one was found closed the others are suspect.
    pub(crate) async fn lease(&self, carriage: Carriage, fresh: bool) -> Result<Lease, Rc<Error>> {
        if carriage == Carriage::Http2 {
            if let Some(lease) = self.at_hand(carriage) {
                return Ok(lease);
            }
        } else if !fresh && let Some(sender) = self.http1.get() {
            return Ok(Lease::Http1 {
                sender,
                reused: true,
            });
        }
        // Boxed, as every request's future has room for what few requests do.
        Box::pin(self.lease_new(carriage, fresh)).await
    }

    /// A connection with room for a request, where none has at the moment.
    async fn lease_new(&self, carriage: Carriage, fresh: bool) -> Result<Lease, Rc<Error>> {
        let connect = || {
            let (endpoint, connector) = (self.endpoint.clone(), self.connector.clone());
            connect(endpoint, connector, self.groups.clone(), carriage)
        };
        if carriage == Carriage::Http2 {
            let stream = self.http2.connect(connect).await?;
            let reused = false;
            return Ok(Lease::Http2 { stream, reused });
        }
        let Available { sender, reused } = if fresh {
            let io = connect().await.map_err(Rc::new)?;
            Available {
                sender: self.http1.connect(io),
                reused: false,
            }
        } else {
            self.http1.free_or_new(connect()).await.map_err(Rc::new)?
        };
        Ok(Lease::Http1 { sender, reused })
    }

    /// Sends `request` on `lease`: it is taken out, and put back where it may be sent again.
    pub(crate) async fn send(
        &self,
        lease: Lease,
        request: &mut Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Held), Unanswered> {
        match lease {
            Lease::Http2 { stream, reused } => {
                // Nobody is told of a 100 here.
                if let Some(key) = request.body().gate() {
                    key.open();
                }
                match stream.send(std::mem::take(request)).await {
                    Ok(response) => Ok((
                        response.map(Incoming::Http2),
                        Held::Http2 { _stream: stream },
                    )),
                    Err(unanswered) => Err(Unanswered::http2(unanswered, reused, request)),
                }
            }
            Lease::Http1 { mut sender, reused } => {
                let key = request.body().gate();
                // To a connection that may be closing, what is idempotent (RFC 9110, section 9.2.2) and has no body may be sent twice.
                // Looked at before the body is taken out.
                let twice = reused
                    && request.method().is_idempotent()
                    && matches!(request.body(), RequestBody::Empty);
                let sent = sender.send(request, interim(key.clone())).await;
                let mut response = sent.map_err(|failed| Unanswered::http1(failed, twice))?;
                let held = Held::Http1 {
                    pool: self.http1.clone(),
                    sender,
                    unread: key.and_then(|key| key.answered(&mut response)),
                };
                Ok((response, held))
            }
        }
    }

    /// A connection of its own for a request that may switch protocols.
    pub(crate) async fn switchable(&self) -> Result<Sender<Stream>, Error> {
        let io = self.connect(Carriage::Http1).await?;
        Ok(Sender::new(io, &self.connector.settings))
    }

    /// A new connection to the endpoint, ready for `carriage`.
    pub(crate) async fn connect(&self, carriage: Carriage) -> Result<Stream, Error> {
        let (endpoint, connector) = (self.endpoint.clone(), self.connector.clone());
        connect(endpoint, connector, self.groups.clone(), carriage).await
    }

    /// Whether a connection was verified in one of `groups`.
    pub(crate) fn is_of(&self, groups: &[u64]) -> bool {
        let own = self.groups.0.borrow();
        own.iter().any(|own| groups.contains(own))
    }

    /// Drops the HTTP/1 connections that nobody used since the last sweep but one, and the HTTP/2 connections that nobody used for
    /// `kept` sweeps. `true` when nothing is left.
    pub(crate) fn sweep(&self, kept: u32) -> bool {
        self.http1.sweep() + self.http2.sweep(kept) == 0
    }
}

impl Unanswered {
    /// A request of which the server took no notice is put back into `request`; and one that may be sent twice, where nothing was
    /// heard on a connection that was `reused`.
    fn http2(
        unanswered: client::Unanswered<RequestBody>,
        reused: bool,
        request: &mut Request<RequestBody>,
    ) -> Self {
        let client::Unanswered {
            error,
            unprocessed,
            unheard,
        } = unanswered;
        let Some(unprocessed) = unprocessed else {
            let twice = unheard.filter(|sent| reused && sent.method().is_idempotent());
            let again = match (twice.is_some(), &error) {
                (false, _) => Again::No,
                (true, Broken::Silent(_)) => Again::Unheard,
                (true, _) => Again::Unnoticed,
            };
            if let Some(sent) = twice {
                *request = sent;
            }
            return Self { error, again };
        };
        *request = unprocessed.request;
        request.body_mut().put_back(unprocessed.taken);
        let again = if unprocessed.refused {
            Again::Refused
        } else {
            Again::Unnoticed
        };
        Self { error, again }
    }

    /// A request of which nothing was taken may be sent again; and one that may be sent `twice`, unless the server said something.
    fn http1(failed: NoAnswer, twice: bool) -> Self {
        let NoAnswer { error, reached } = failed;
        let again = match (reached, &error) {
            (_, Http1Error::Body(_)) => Again::No,
            (Reached::Nothing, _) => Again::Unnoticed,
            (Reached::Silence, _) if twice => Again::Unnoticed,
            (Reached::Silence | Reached::Answer, _) => Again::No,
        };
        let error = error.into();
        Self { error, again }
    }
}

/// Opens the gate where a request's body waits when the server asks for it.
pub(crate) fn interim(key: Option<Key>) -> impl FnMut(StatusCode) {
    move |status| {
        if let Some(key) = &key
            && status == StatusCode::CONTINUE
        {
            key.open();
        }
    }
}

/// What a controller says of the HTTP/2 connections to an endpoint.
fn set(settings: &mut ClientSettings, params: &Http2Params) {
    match params.flow_control {
        Some(FlowControl::Adaptive) => settings.adaptive_window = true,
        Some(FlowControl::Fixed {
            connection_window,
            stream_window,
        }) => {
            settings.connection_window_bytes = connection_window;
            settings.stream_window_bytes = stream_window;
        }
        None => {}
    }
    if let Some(keep_alive) = params.keep_alive {
        settings.keep_alive_interval = Some(keep_alive.interval);
        settings.keep_alive_timeout = keep_alive.timeout;
        settings.keep_alive_while_idle = keep_alive.while_idle;
    }
    let size = |given: Option<u32>| given.and_then(|given| usize::try_from(given).ok());
    settings.max_frame_bytes = params.max_frame_size;
    settings.max_send_buffer_bytes = size(params.max_send_buf_size);
    settings.max_concurrent_reset_streams = size(params.max_concurrent_reset_streams);
}

impl Held {
    /// The response ended as it should: its connection can carry the next one.
    pub(crate) fn complete(self) {
        if let Self::Http1 {
            pool,
            sender,
            unread: None,
        } = self
        {
            pool.put(sender);
        }
    }
}

impl Groups {
    fn add(&self, group: u64) {
        let mut groups = self.0.borrow_mut();
        if !groups.contains(&group) {
            groups.push(group);
        }
        if groups.len() > MAX_GROUPS {
            groups.remove(0);
        }
    }
}

async fn connect(
    endpoint: Arc<Endpoint>,
    connector: Rc<Connector>,
    groups: Groups,
    carriage: Carriage,
) -> Result<Stream, Error> {
    let limit = connector.timeout;
    // Boxed, as every request's future has room for what few requests do.
    let established = Box::pin(establish(&endpoint, &connector, &groups, carriage));
    tokio::time::timeout(limit, established)
        .await
        .unwrap_or(Err(Error::ConnectTimeout(limit)))
}

async fn establish(
    endpoint: &Endpoint,
    connector: &Connector,
    groups: &Groups,
    carriage: Carriage,
) -> Result<Stream, Error> {
    let mut address = endpoint.addr;
    // Without an identity there is nobody to send a transport header to.
    let transport = endpoint
        .opaque_transport
        .filter(|_| endpoint.identity.is_some());
    if let Some(port) = transport {
        address.set_port(port);
    }
    let tcp = TcpStream::connect(address).await?;
    socket::tune(&tcp, connector.liveness)?;
    let Some((identity, name)) = endpoint.identity.as_deref() else {
        return Ok(Stream::Plain(tcp));
    };
    let tls = if transport.is_some() {
        &connector.tls_transport
    } else {
        &connector.tls
    };
    let failed = |error: mesh_tls::Error| match error {
        mesh_tls::Error::Io { .. } => Error::Connect(error.to_string()),
        _ => Error::Untrusted(error.to_string()),
    };
    let (stream, keys) = tls
        .connect_verified(tcp, identity, name.clone())
        .await
        .map_err(failed)?;
    let mut stream = Recorded::new(stream, connector.connections.cuttable(keys.anchor));
    // At once: an order may come before the first request does.
    groups.add(stream.record().group());
    if transport.is_some() {
        let session = match carriage {
            Carriage::Http1 => Some(Session::Http1),
            Carriage::Http2 => Some(Session::Http2),
            Carriage::Opaque => None,
        };
        let header = TransportHeader {
            port: endpoint.addr.port(),
            name: None,
            session,
        };
        stream.write_all(&header.encode()).await?;
    }
    Ok(Stream::Tls(Box::new(stream)))
}
