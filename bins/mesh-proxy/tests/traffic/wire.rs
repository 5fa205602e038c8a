//! Connections whose every byte the test says and sees.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::controller::soon;

/// One side of a connection.
#[derive(Debug)]
pub struct Wire<I = TcpStream>(BufReader<I>);

/// The head of a message and, once read, its body.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// The request line or the status line.
    pub first: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Message {
    /// The values of a header, joined as a list.
    pub fn header(&self, name: &str) -> Option<String> {
        let values: Vec<_> = self
            .headers
            .iter()
            .filter(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    pub fn status(&self) -> u16 {
        self.first
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap_or_default()
    }

    pub fn body_text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    fn length(&self) -> Option<usize> {
        self.header("content-length")
            .map(|length| length.parse().unwrap())
    }

    fn is_chunked(&self) -> bool {
        self.header("transfer-encoding")
            .is_some_and(|coding| coding.contains("chunked"))
    }
}

impl Wire {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address)
            .await
            .unwrap_or_else(|| panic!("nobody listens on {address}"))
    }

    pub async fn try_connect(address: SocketAddr) -> Option<Self> {
        let stream = soon("a connection", TcpStream::connect(address))
            .await
            .ok()?;
        stream.set_nodelay(true).unwrap();
        Some(Self(BufReader::new(stream)))
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        let stream = self.0.into_inner();
        socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Wire<I> {
    pub fn over(io: I) -> Self {
        Self(BufReader::new(io))
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        assert!(self.offer(bytes).await, "the peer is gone");
    }

    /// Sends; `false` when the peer is gone.
    pub async fn offer(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        soon("sending", self.0.get_mut().write_all(bytes.as_ref()))
            .await
            .is_ok()
    }

    /// Says that nothing more comes from here.
    pub async fn finish(&mut self) {
        self.0.get_mut().shutdown().await.unwrap();
    }

    /// Says the same, to a peer that may be gone.
    pub async fn close(&mut self) {
        let _ = soon("closing", self.0.get_mut().shutdown()).await;
    }

    pub async fn exactly(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        soon("bytes", self.0.read_exact(&mut bytes)).await.unwrap();
        bytes
    }

    /// At most so many bytes; none at the end.
    pub async fn up_to(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let read = soon("bytes", self.0.read(&mut bytes)).await.unwrap();
        bytes.truncate(read);
        bytes
    }

    /// An HTTP/2 frame: its type and payload; `None` at the end.
    pub async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 9];
        soon("a frame", self.0.read_exact(&mut head)).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        soon("a frame", self.0.read_exact(&mut payload))
            .await
            .ok()?;
        Some((head[3], payload))
    }

    /// What comes until the end.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        soon("the end", self.0.read_to_end(&mut bytes))
            .await
            .unwrap();
        bytes
    }

    /// What comes until the end or a reset.
    pub async fn rest_if_any(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = soon("the end", self.0.read_to_end(&mut bytes)).await;
        bytes
    }

    /// Whether the peer has ended, by an end or a reset, within the time; bytes that come first are dropped.
    pub async fn ends_within(&mut self, time: Duration) -> bool {
        let mut bytes = [0; 4096];
        let ending = async { while !matches!(self.0.read(&mut bytes).await, Ok(0) | Err(_)) {} };
        tokio::time::timeout(time, ending).await.is_ok()
    }

    /// Nothing comes, not even an end, for a while.
    pub async fn is_silent(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.0.read_u8()).await.is_err()
    }

    /// The head of a message; `None` at the end of the connection.
    pub async fn head(&mut self) -> Option<Message> {
        soon("a head", read_head(&mut self.0)).await
    }

    /// A request with its body.
    pub async fn request(&mut self) -> Option<Message> {
        let mut message = self.head().await?;
        let length = message.length();
        self.read_body(&mut message, length.or(Some(0))).await;
        Some(message)
    }

    /// The response to a request of `method`, with its body.
    pub async fn response(&mut self, method: &str) -> Message {
        let mut message = self.head().await.expect("a response");
        let bodiless = matches!(method, "HEAD" | "CONNECT")
            || matches!(message.status(), 100..200 | 204 | 304);
        let length = if bodiless { Some(0) } else { message.length() };
        if !bodiless || length.is_none() {
            self.read_body(&mut message, length).await;
        }
        message
    }

    async fn read_body(&mut self, message: &mut Message, length: Option<usize>) {
        if message.is_chunked() {
            message.body = soon("chunks", read_chunks(&mut self.0, &mut message.headers)).await;
        } else if let Some(length) = length {
            message.body = self.exactly(length).await;
        } else {
            message.body = self.rest().await;
        }
    }

    /// One request, one response.
    pub async fn ask(&mut self, request: &str) -> Message {
        self.send(request).await;
        self.response(request.split(' ').next().unwrap()).await
    }
}

/// One request on a connection of its own.
pub async fn ask(address: SocketAddr, request: &str) -> Message {
    Wire::connect(address).await.ask(request).await
}

async fn read_line(io: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(io.read_u8().await.ok()?);
    }
    line.truncate(line.len() - 2);
    Some(String::from_utf8_lossy(&line).into_owned())
}

async fn read_headers(io: &mut (impl AsyncRead + Unpin)) -> Option<Vec<(String, String)>> {
    let mut headers = Vec::new();
    loop {
        let line = read_line(io).await?;
        let Some((name, value)) = line.split_once(':') else {
            return Some(headers);
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

async fn read_head(io: &mut (impl AsyncRead + Unpin)) -> Option<Message> {
    Some(Message {
        first: read_line(io).await?,
        headers: read_headers(io).await?,
        body: Vec::new(),
    })
}

/// Trailers are added to the headers.
async fn read_chunks(
    io: &mut (impl AsyncRead + Unpin),
    headers: &mut Vec<(String, String)>,
) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let size = read_line(io).await.expect("a chunk's size");
        let size = usize::from_str_radix(&size, 16).unwrap();
        if size == 0 {
            headers.extend(read_headers(io).await.expect("the end of the chunks"));
            return body;
        }
        let at = body.len();
        body.resize(at + size, 0);
        io.read_exact(&mut body[at..]).await.unwrap();
        read_line(io).await.expect("the end of a chunk");
    }
}

/// An application; it ends with the test.
#[derive(Debug)]
pub struct App(JoinHandle<()>);

impl Drop for App {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Serves each connection so.
pub async fn app<F>(address: SocketAddr, serve: impl Fn(Wire) -> F + Send + Sync + 'static) -> App
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(address).await.unwrap();
    let serve = Arc::new(serve);
    App(tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            tokio::spawn(serve(Wire(BufReader::new(stream))));
        }
    }))
}

/// Answers every request with the request itself: its line, its headers, sorted, and its body.
pub async fn mirror(address: SocketAddr) -> App {
    app(address, |mut wire| async move {
        while let Some(request) = wire.request().await {
            let mut lines: Vec<_> = request
                .headers
                .iter()
                .map(|(name, value)| format!("{name}: {value}"))
                .collect();
            lines.sort();
            let mut body = format!("{}\n{}\n\n", request.first, lines.join("\n")).into_bytes();
            body.extend(&request.body);
            let mut answer =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
            answer.extend(body);
            if !wire.offer(answer).await {
                return;
            }
        }
    })
    .await
}

/// Answers every request with this.
pub async fn canned(address: SocketAddr, answer: impl Into<String>) -> App {
    let answer: Arc<str> = answer.into().into();
    app(address, move |mut wire| {
        let answer = answer.clone();
        async move {
            while wire.request().await.is_some() {
                if !wire.offer(answer.as_bytes()).await {
                    return;
                }
            }
        }
    })
    .await
}
