//! Bodies as they are read.

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::SizeHint;
use memchr::memchr;

use super::{Framing, Http1Error, Search};

/// The most bytes of a line that says how long a chunk is.
const MAX_CHUNK_LINE: usize = 4 * 1024;
/// The most bytes of all such lines that say something else than that.
const MAX_EXTENSION_BYTES: usize = 16 * 1024;
/// The most bytes of trailers.
const MAX_TRAILER_BYTES: usize = 16 * 1024;
/// The most trailers.
const MAX_TRAILERS: usize = 100;

/// What is left of a body.
#[derive(Debug)]
pub(crate) enum Decoder {
    /// So many bytes; zero when it has ended.
    Length(u64),
    Chunked(Box<Chunks>),
    UntilEnd,
}

/// What came of a look at the bytes that were read.
#[derive(Debug)]
pub(crate) enum Decoded {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
    /// There are too few bytes.
    Wanting,
}

#[derive(Debug, Default)]
pub(crate) struct Chunks {
    next: Next,
    extension_bytes: usize,
    trailers: Search,
}

/// What comes next of a body in chunks.
#[derive(Debug, Default)]
enum Next {
    #[default]
    Size,
    /// So many bytes of a chunk; after them, or with none, the end of its line.
    Data(u64),
    Trailers,
    Nothing,
}

impl Decoder {
    /// Nothing is left.
    pub(crate) const ENDED: Self = Self::Length(0);

    pub(crate) fn has_ended(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => matches!(chunks.next, Next::Nothing),
            Self::UntilEnd => false,
        }
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Length(left) => SizeHint::with_exact(*left),
            Self::Chunked(_) | Self::UntilEnd => SizeHint::default(),
        }
    }

    /// Takes from `read` what comes next.
    pub(crate) fn decode(&mut self, read: &mut BytesMut) -> Result<Decoded, Http1Error> {
        match self {
            Self::Length(0) => Ok(Decoded::End),
            Self::Length(left) => Ok(take(left, read)),
            Self::Chunked(chunks) => chunks.decode(read),
            Self::UntilEnd if read.is_empty() => Ok(Decoded::Wanting),
            Self::UntilEnd => Ok(Decoded::Data(read.split().freeze())),
        }
    }

    /// The connection has ended: so has the body, or it never will.
    pub(crate) fn end(&mut self) -> Result<(), Http1Error> {
        if matches!(self, Self::UntilEnd) {
            *self = Self::ENDED;
        }
        match self.has_ended() {
            true => Ok(()),
            false => Err(Http1Error::Incomplete),
        }
    }
}

impl From<Framing> for Decoder {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Box::default()),
            Framing::UntilEnd => Self::UntilEnd,
        }
    }
}

impl Chunks {
    fn decode(&mut self, read: &mut BytesMut) -> Result<Decoded, Http1Error> {
        loop {
            match &mut self.next {
                Next::Size => {
                    let Some(size) = self.size(read)? else {
                        return Ok(Decoded::Wanting);
                    };
                    self.next = match size {
                        0 => Next::Trailers,
                        size => Next::Data(size),
                    };
                }
                Next::Data(0) => match &read[..] {
                    [b'\r', b'\n', ..] => {
                        read.advance(2);
                        self.next = Next::Size;
                    }
                    [] | [b'\r'] => return Ok(Decoded::Wanting),
                    _ => return Err(Http1Error::Malformed("a chunk that is longer than it says")),
                },
                Next::Data(left) => return Ok(take(left, read)),
                Next::Trailers => {
                    let found = self.trailers.find(read, MAX_TRAILER_BYTES, MAX_TRAILERS)?;
                    let Some(length) = found else {
                        return Ok(Decoded::Wanting);
                    };
                    let lines = read.split_to(length).freeze();
                    let trailers = self.trailers.fields(&lines, 0)?;
                    self.next = Next::Nothing;
                    if !trailers.is_empty() {
                        return Ok(Decoded::Trailers(trailers));
                    }
                }
                Next::Nothing => return Ok(Decoded::End),
            }
        }
    }

    /// The size of the chunk whose line `read` begins with; `None` while not all of that has come.
    fn size(&mut self, read: &mut BytesMut) -> Result<Option<u64>, Http1Error> {
        let malformed = Http1Error::Malformed("the size of a chunk");
        let seen = &read[..read.len().min(MAX_CHUNK_LINE)];
        let Some(newline) = memchr(b'\n', seen) else {
            return match seen.len() < MAX_CHUNK_LINE {
                true => Ok(None),
                false => Err(malformed),
            };
        };
        let Some(line) = seen[..newline].strip_suffix(b"\r") else {
            return Err(malformed);
        };
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit());
        let (digits, rest) = line.split_at(digits.count());
        self.extension_bytes += rest.len();
        let known = matches!(rest.trim_ascii_start().first(), None | Some(b';'));
        let printable = rest
            .iter()
            .all(|byte| *byte == b'\t' || !byte.is_ascii_control());
        if digits.is_empty()
            || digits.len() > 16
            || !known
            || !printable
            || self.extension_bytes > MAX_EXTENSION_BYTES
        {
            return Err(malformed);
        }
        let size = digits.iter().fold(0, |size, digit| {
            // Sixteen digits fill it.
            size << 4 | u64::from(char::from(*digit).to_digit(16).unwrap_or_default())
        });
        read.advance(newline + 1);
        Ok(Some(size))
    }
}

/// What has come of `left` bytes.
fn take(left: &mut u64, read: &mut BytesMut) -> Decoded {
    if read.is_empty() {
        return Decoded::Wanting;
    }
    let length = usize::try_from(*left).map_or(read.len(), |left| left.min(read.len()));
    *left -= length as u64;
    Decoded::Data(read.split_to(length).freeze())
}
