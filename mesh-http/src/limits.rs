use std::time::Duration;

/// What a client of a served connection may use.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerLimits {
    /// The most bytes of a request's head. Default 64 KiB.
    pub max_header_bytes: usize,
    /// The most headers of an HTTP/1 request. Default 100.
    pub max_headers: usize,
    /// The most concurrent streams of an HTTP/2 connection. Default 1,024.
    pub max_concurrent_streams: u32,
    /// The most streams that a client reset and that still wait to be accepted (CVE-2023-44487). Default 20.
    pub max_pending_resets: usize,
    /// The most streams that are reset for the client's own errors before it gets GOAWAY. Default 1,024.
    pub max_local_resets: usize,
    /// The HTTP/2 flow-control window of a stream, in bytes. Default 512 KiB.
    pub stream_window_bytes: u32,
    /// The HTTP/2 flow-control window of a connection, in bytes. Default 64 MiB: what a hundred streams can fill, so that
    /// requests whose bodies nobody reads delay no others.
    pub connection_window_bytes: u32,
    /// How often an HTTP/2 connection is pinged; `None` for never. Default 30 s.
    pub keep_alive_interval: Option<Duration>,
    /// How long a ping's answer may take. Default 20 s.
    pub keep_alive_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            max_header_bytes: 64 * 1024,
            max_headers: 100,
            max_concurrent_streams: 1024,
            max_pending_resets: 20,
            max_local_resets: 1024,
            stream_window_bytes: 512 * 1024,
            connection_window_bytes: 64 << 20,
            keep_alive_interval: Some(Duration::from_secs(30)),
            keep_alive_timeout: Duration::from_secs(20),
        }
    }
}
