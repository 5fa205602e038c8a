//! Heads: found in what was read, and parsed without a copy of any value.
//!
//! Lines end with CRLF alone: one that ends otherwise, begins with white space or has it before its colon is refused, as others
//! may read something else. That names and values consist of what they may is checked where they become [`HeaderName`] and
//! [`HeaderValue`].

use std::ops::Range;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode, Version};
use hyper::ext::ReasonPhrase;
use memchr::{memchr, memchr_iter};

use super::Http1Error;

/// The lines of a head, as far as they have come. Kept between heads for its room.
#[derive(Debug, Default)]
pub(crate) struct Search {
    /// Where each line ends, without its CRLF; the empty line is none.
    ends: Vec<usize>,
    /// Where the line begins whose end has not come.
    line: usize,
    /// What was looked at.
    scanned: usize,
}

impl Search {
    /// Whether all of the head has come that `bytes` begin with, and so how many bytes it has. To be asked again with more bytes.
    pub(crate) fn find(
        &mut self,
        bytes: &[u8],
        max_bytes: usize,
        max_lines: usize,
    ) -> Result<Option<usize>, Http1Error> {
        for found in memchr_iter(b'\n', &bytes[self.scanned..]) {
            let newline = self.scanned + found;
            if newline == self.line || bytes[newline - 1] != b'\r' {
                return Err(Http1Error::Malformed("a line that ends without CR"));
            }
            let (line, end) = (self.line, newline - 1);
            self.line = newline + 1;
            if line == end {
                return match newline < max_bytes {
                    true => Ok(Some(newline + 1)),
                    false => Err(Http1Error::HeadTooLong(max_bytes)),
                };
            }
            if self.ends.len() >= max_lines {
                return Err(Http1Error::TooManyFields(max_lines));
            }
            self.ends.push(end);
        }
        self.scanned = bytes.len();
        match bytes.len() < max_bytes {
            true => Ok(None),
            false => Err(Http1Error::HeadTooLong(max_bytes)),
        }
    }

    /// Forgets the head that was found, as the next one is looked for.
    pub(crate) fn restart(&mut self) {
        self.ends.clear();
        (self.line, self.scanned) = (0, 0);
    }

    /// The first line of `head`, where one has to be.
    fn first<'a>(&self, head: &'a [u8]) -> Result<&'a [u8], Http1Error> {
        let end = self.ends.first();
        end.map(|end| &head[..*end])
            .ok_or(Http1Error::Malformed("an empty line before the head"))
    }

    /// The fields of `head`, from the line `from` on.
    pub(crate) fn fields(&self, head: &Bytes, from: usize) -> Result<HeaderMap, Http1Error> {
        let lines = self.ends.get(from..).unwrap_or_default();
        let mut fields = HeaderMap::with_capacity(lines.len());
        let mut begin = match from {
            0 => 0,
            _ => self.ends[from - 1] + 2,
        };
        for end in lines {
            let line = &head[begin..*end];
            let colon = memchr(b':', line).ok_or(Http1Error::Malformed("a field without colon"))?;
            let name = HeaderName::from_bytes(&line[..colon])
                .map_err(|_| Http1Error::Malformed("a field's name"))?;
            let value = trimmed(head, begin + colon + 1..*end);
            let value = HeaderValue::from_maybe_shared(head.slice(value))
                .map_err(|_| Http1Error::Malformed("a field's value"))?;
            fields
                .try_append(name, value)
                .map_err(|_| Http1Error::TooManyFields(lines.len()))?;
            begin = end + 2;
        }
        Ok(fields)
    }
}

/// What of `value` is left without white space around it.
fn trimmed(head: &[u8], mut value: Range<usize>) -> Range<usize> {
    while value.start < value.end && is_blank(head[value.start]) {
        value.start += 1;
    }
    while value.start < value.end && is_blank(head[value.end - 1]) {
        value.end -= 1;
    }
    value
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// The response whose head is `head`, which `search` has found.
pub(crate) fn response_head(head: &Bytes, search: &Search) -> Result<Response<()>, Http1Error> {
    let malformed = Http1Error::Malformed("a status line");
    let line = search.first(head)?;
    let [
        b'H',
        b'T',
        b'T',
        b'P',
        b'/',
        b'1',
        b'.',
        minor,
        b' ',
        a,
        b,
        c,
        rest @ ..,
    ] = line
    else {
        return Err(malformed);
    };
    let version = match minor {
        b'0' => Version::HTTP_10,
        b'1' => Version::HTTP_11,
        _ => return Err(malformed),
    };
    let Ok(status) = StatusCode::from_bytes(&[*a, *b, *c]) else {
        return Err(malformed);
    };
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = version;
    *response.headers_mut() = search.fields(head, 1)?;
    match rest {
        // The space before a reason that is missing may be missing as well.
        [] | [b' '] => {}
        [b' ', reason @ ..] if status.canonical_reason().map(str::as_bytes) == Some(reason) => {}
        [b' ', reason @ ..] => {
            let reason = ReasonPhrase::try_from(reason).map_err(|_| malformed)?;
            response.extensions_mut().insert(reason);
        }
        _ => return Err(malformed),
    }
    Ok(response)
}
