//! The port for bytes. What a connection does is what its first byte says.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use super::accept;

/// What a connection is for; its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// What comes is sent back.
    Echo = b'e' as isize,
    /// What comes is counted; at its end the count is sent, 8 bytes, the highest first.
    Sink = b's' as isize,
    /// As many bytes as are taken.
    Source = b'd' as isize,
}

impl Work {
    pub(crate) fn byte(self) -> u8 {
        self as u8
    }

    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Echo, Self::Sink, Self::Source]
            .into_iter()
            .find(|work| work.byte() == byte)
    }
}

pub(super) async fn serve(listener: TcpListener) {
    loop {
        let stream = accept(&listener).await;
        // Who breaks off is a client that has ended; what it missed is in its own count.
        spawn_local(async move {
            let _ = connection(stream).await;
        });
    }
}

async fn connection(mut stream: TcpStream) -> io::Result<()> {
    let work = Work::from_byte(stream.read_u8().await?);
    match work.ok_or(io::ErrorKind::InvalidData)? {
        Work::Echo => {
            let mut buffer = vec![0; 16 * 1024];
            loop {
                let read = stream.read(&mut buffer).await?;
                if read == 0 {
                    return stream.shutdown().await;
                }
                stream.write_all(&buffer[..read]).await?;
            }
        }
        Work::Sink => {
            let mut buffer = vec![0; CHUNK];
            let mut count = 0;
            loop {
                let read = stream.read(&mut buffer).await?;
                if read == 0 {
                    stream.write_u64(count).await?;
                    return stream.shutdown().await;
                }
                count += read as u64;
            }
        }
        Work::Source => {
            let chunk = vec![b'x'; CHUNK];
            loop {
                stream.write_all(&chunk).await?;
            }
        }
    }
}

/// What is read and written at once, in bytes.
pub(crate) const CHUNK: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_byte_says_what_a_connection_is_for() {
        for work in [Work::Echo, Work::Sink, Work::Source] {
            assert_eq!(Work::from_byte(work.byte()), Some(work));
        }
        assert_eq!(Work::from_byte(b'?'), None);
    }
}
