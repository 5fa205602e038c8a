//! HTTP/1.1 with as little work as can be, so that the load is not what is measured.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Failure, Plan, connect};

/// A kept-alive connection.
pub(super) struct Client {
    stream: TcpStream,
    request: String,
    size: usize,
    buffer: Vec<u8>,
}

impl Client {
    pub(super) async fn connect(plan: &Plan) -> Result<Self, Failure> {
        // An idle connection has one small answer to read; 10,000 of them should not cost the machine a gigabyte.
        let buffer = if plan.idle { 2 * 1024 } else { 64 * 1024 };
        Ok(Self {
            stream: connect(plan.target).await?,
            request: format!(
                "GET /{} HTTP/1.1\r\nHost: {}\r\nUser-Agent: mesh-bench\r\nAccept: */*\r\n\r\n",
                plan.size, plan.target
            ),
            size: plan.size,
            buffer: vec![0; buffer],
        })
    }

    /// One request and its whole answer.
    pub(super) async fn exchange(&mut self) -> Result<(), Failure> {
        self.stream.write_all(self.request.as_bytes()).await?;
        let mut filled = 0;
        let (head, length) = loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            if read == 0 {
                return Err(format!("closed after {filled} bytes of an answer").into());
            }
            filled += read;
            if let Some(head) = parse(&self.buffer[..filled])? {
                break head;
            }
        };
        if length != self.size {
            return Err(format!("an answer of {length} bytes, not {}", self.size).into());
        }
        let mut missing = (head + length)
            .checked_sub(filled)
            .ok_or("more than the answer")?;
        while missing > 0 {
            let read = self.stream.read(&mut self.buffer).await?;
            if read == 0 {
                return Err(format!("closed {missing} bytes before the end").into());
            }
            missing = missing.checked_sub(read).ok_or("more than the answer")?;
        }
        Ok(())
    }
}

/// The length of a whole head and of the body after it; `None` if the head is not all there.
fn parse(bytes: &[u8]) -> Result<Option<(usize, usize)>, Failure> {
    let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") else {
        return if bytes.len() > MAX_HEAD {
            Err("a head without an end".into())
        } else {
            Ok(None)
        };
    };
    let head = std::str::from_utf8(&bytes[..end])?;
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 200") {
        return Err(status.into());
    }
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().ok())?
    });
    let length = length.ok_or("an answer without a length")?;
    Ok(Some((end + 4, length)))
}

const MAX_HEAD: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_where_it_ends_and_says_how_long_the_body_is() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 128\r\n\r\nxx";
        assert_eq!(parse(answer).unwrap(), Some((answer.len() - 2, 128)));
        assert_eq!(parse(&answer[..20]).unwrap(), None);
    }

    #[test]
    fn anything_else_is_a_failure() {
        assert_eq!(
            parse(b"HTTP/1.1 503 no\r\n\r\n").unwrap_err().to_string(),
            "HTTP/1.1 503 no"
        );
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(parse(&[b'x'; MAX_HEAD + 1]).is_err());
    }
}
