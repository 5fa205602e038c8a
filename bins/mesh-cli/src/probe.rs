//! Asking whether something is ready.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// One try.
const TRY: Duration = Duration::from_secs(2);
/// More of an answer than this is not read.
const BODY_BYTES: usize = 64 * 1024;

/// What shows that something is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Probe {
    /// It answers a GET with a status of 200 to 399.
    Http {
        /// Where.
        address: SocketAddr,
        /// Which path.
        path: String,
    },
    /// It takes a connection.
    Tcp(SocketAddr),
}

impl Probe {
    /// Asks once.
    ///
    /// # Errors
    /// What it did instead, in words that follow its name.
    pub(crate) async fn ask(&self) -> Result<(), String> {
        match self {
            Self::Http { address, path } => {
                let (status, body) = get(*address, path).await?;
                if status.is_success() || status.is_redirection() {
                    return Ok(());
                }
                let reason = body.split_whitespace().collect::<Vec<_>>().join(" ");
                Err(format!(
                    "answers {path} with {} {}",
                    status.as_u16(),
                    reason.chars().take(200).collect::<String>()
                ))
            }
            Self::Tcp(address) => match timeout(TRY, TcpStream::connect(address)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(format!("does not listen on {address}: {error}")),
                Err(_) => Err(format!("does not take connections on {address}")),
            },
        }
    }

    /// Asks until it is ready.
    ///
    /// # Errors
    /// What it did last, once `deadline` has passed.
    pub(crate) async fn wait(&self, deadline: Duration) -> Result<(), String> {
        let mut last = "did not answer".to_owned();
        let asking = async {
            loop {
                match self.ask().await {
                    Ok(()) => return,
                    Err(reason) => last = reason,
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        match timeout(deadline, asking).await {
            Ok(()) => Ok(()),
            Err(_) => Err(last),
        }
    }
}

/// One GET over a connection of its own. The body is empty if it is too long.
///
/// # Errors
/// Why there was no answer, in words that follow the name of what was asked.
pub(crate) async fn get(
    address: SocketAddr,
    path: &str,
) -> Result<(http::StatusCode, String), String> {
    get_at_most(address, path, BODY_BYTES).await
}

/// The same, with a body of so many bytes at most.
pub(crate) async fn get_at_most(
    address: SocketAddr,
    path: &str,
    body_bytes: usize,
) -> Result<(http::StatusCode, String), String> {
    let exchange = async {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| format!("does not listen on {address}: {error}"))?;
        let broken = |error: hyper::Error| format!("breaks off its answer on {address}: {error}");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let request = http::Request::get(path)
            .header(http::header::HOST, address.to_string())
            .body(Empty::<Bytes>::new())
            .map_err(|error| format!("cannot be asked for {path}: {error}"))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(broken)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), body_bytes)
                .collect()
                .await;
            let body = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned());
            Ok((status, body.unwrap_or_default()))
        };
        tokio::select! {
            answer = answer => answer,
            Err(error) = connection => Err(broken(error)),
        }
    };
    timeout(TRY, exchange).await.unwrap_or_else(|_| {
        Err(format!(
            "does not answer on {address} within {} s",
            TRY.as_secs()
        ))
    })
}
