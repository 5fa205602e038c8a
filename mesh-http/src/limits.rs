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
    /// The most bytes of a response that wait on one HTTP/2 stream to be sent. Default 400 KiB.
    pub stream_send_bytes: usize,
    /// An HTTP/2 connection is pinged when nothing came in for this long, to within three quarters; `None` for never. Default 30 s.
    pub keep_alive_interval: Option<Duration>,
    /// How long a ping's answer may take. Default 20 s.
    pub keep_alive_timeout: Duration,
}

impl ServerLimits {
    /// The same for a client that nobody vouches for: one connection holds at most about 16 MiB, whatever it does.
    ///
    /// At most 100 streams, windows of 64 KiB each and 1 MiB together, and 32 KiB of each response. Requests whose bodies
    /// nobody reads may then delay others of the same connection.
    #[must_use]
    pub fn for_strangers(&self) -> Self {
        Self {
            max_concurrent_streams: self.max_concurrent_streams.min(100),
            stream_window_bytes: self.stream_window_bytes.min(64 * 1024),
            connection_window_bytes: self.connection_window_bytes.min(1 << 20),
            stream_send_bytes: self.stream_send_bytes.min(32 * 1024),
            ..self.clone()
        }
    }

    /// What HTTP/2 calls the size of a header list: 32 bytes more for each field (RFC 9113, section 6.5.2). Leaves room for
    /// what HTTP/2 and a proxy add to a head that HTTP/1 let pass.
    pub(crate) fn max_header_list_bytes(&self) -> u32 {
        header_list_bytes(self.max_header_bytes, self.max_headers)
    }
}

/// How much short frames of data that nobody has read yet may add up to, each as 256 bytes without what it carries, before the
/// connection is ended. It bounds what they take beside the window, which counts what they carry alone.
///
/// `h2` would take half of the window: less than a few readers that stall leave there, at frames of 10 bytes; and what comes in for a
/// stream that was reset is never given back.
pub(crate) fn frame_budget(connection_window_bytes: usize) -> usize {
    connection_window_bytes
        .saturating_mul(2)
        .max(MIN_FRAME_BUDGET)
}

const MIN_FRAME_BUDGET: usize = 4 << 20;

/// The size of a header list of `fields` that take `bytes` in HTTP/1, with room for 16 more.
pub(crate) fn header_list_bytes(bytes: usize, fields: usize) -> u32 {
    let overhead = fields.saturating_add(16).saturating_mul(32);
    u32::try_from(bytes.saturating_add(overhead).saturating_add(1024)).unwrap_or(u32::MAX)
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
            stream_send_bytes: 400 * 1024,
            keep_alive_interval: Some(Duration::from_secs(30)),
            keep_alive_timeout: Duration::from_secs(20),
        }
    }
}
