//! Connections to one endpoint: shared for HTTP/2, pooled for HTTP/1, and owned by one request that may switch protocols.
//!
//! How a connection is made (TCP, TLS, what is sent first) is the caller's: each function takes a stream, or a future of one.

mod http1;
mod http2;

pub use http1::{Answering, Available, Http1Pool, NoAnswer, Reached, Sender};
pub use http2::{Http2Pool, Stream, Unanswered, Unprocessed};

use std::time::Duration;

/// How connections to endpoints are made and kept.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientSettings {
    /// The most concurrent requests on one HTTP/2 connection before another is opened. Default 100, which a server should
    /// permit at least (RFC 9113, section 6.5.2): what it does not permit would wait for a stream to end, for ever maybe.
    pub streams_per_connection: usize,
    /// The most HTTP/2 connections to one endpoint; beyond, requests share them. Default 8.
    pub max_connections: usize,
    /// The most idle HTTP/1 connections kept for one endpoint. Default 256.
    pub max_idle: usize,
    /// The HTTP/2 flow-control window of a stream, in bytes. Default 512 KiB.
    pub stream_window_bytes: u32,
    /// The HTTP/2 flow-control window of a connection, in bytes. Default 64 MiB: more than the windows of all of
    /// [`Self::streams_per_connection`], so that clients who do not read their responses delay nobody else's.
    pub connection_window_bytes: u32,
    /// The most bytes of a response's head. Default 64 KiB.
    pub max_header_bytes: u32,
    /// An HTTP/2 connection with requests in flight is pinged when nothing came in for this long, to within three
    /// quarters. Default 10 s.
    pub keep_alive_interval: Option<Duration>,
    /// How long nothing may come in after a ping before the connection is given up. Default 5 s.
    pub keep_alive_timeout: Duration,
    /// Whether an HTTP/2 connection without requests in flight is pinged as well. Default no.
    pub keep_alive_while_idle: bool,
    /// Whether HTTP/2 windows follow the bandwidth and delay that are seen, in place of those above. Default no.
    pub adaptive_window: bool,
    /// The largest HTTP/2 frame that is taken, in bytes: from 16 KiB to 16 MiB less one. Default 16 KiB.
    pub max_frame_bytes: Option<u32>,
    /// How much is kept for sending on one HTTP/2 stream, in bytes. Default 1 MiB.
    pub max_send_buffer_bytes: Option<usize>,
    /// How many HTTP/2 streams that were reset here are remembered. Default 50.
    pub max_concurrent_reset_streams: Option<usize>,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            streams_per_connection: 100,
            max_connections: 8,
            max_idle: 256,
            stream_window_bytes: 512 * 1024,
            connection_window_bytes: 64 << 20,
            max_header_bytes: 64 * 1024,
            keep_alive_interval: Some(Duration::from_secs(10)),
            keep_alive_timeout: Duration::from_secs(5),
            keep_alive_while_idle: false,
            adaptive_window: false,
            max_frame_bytes: None,
            max_send_buffer_bytes: None,
            max_concurrent_reset_streams: None,
        }
    }
}
