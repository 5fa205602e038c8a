//! What comes in on a connection, without the DATA frames that say nothing.
//!
//! `h2` takes a hundred frames of DATA that are empty and not the last of their stream in all of a connection's life, and ends it at
//! the next one. That keeps a flood of them out; but who passes on a body whose end came by itself, and trailers after it, sends
//! one with each, and a connection that many share has carried a hundred soon.

/// What a frame's header takes: length, type, flags, stream (RFC 9113, section 4.1).
const HEADER_BYTES: usize = 9;
const TYPE: usize = 3;
const FLAGS: usize = 4;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;
/// No type of frame that there is. What is not known is ignored (RFC 9113, section 5.5).
const IGNORED: u8 = 0xff;

/// What a client sends before its first frame.
const PREFACE_BYTES: usize = 24;
/// How many frames that say something are remembered.
const MAX_CREDIT: u32 = 1_000;

/// Follows the frames of a connection, and has as many empty ones ignored as others came before them. Those beyond that are left
/// to `h2` to judge.
#[derive(Debug, Default)]
pub(super) struct Sieve {
    header: [u8; HEADER_BYTES],
    /// How much of it has come.
    known: usize,
    /// How many bytes come before the next header.
    skip: usize,
    credit: u32,
}

impl Sieve {
    /// For what a client sends.
    pub(super) fn of_client() -> Self {
        Self {
            skip: PREFACE_BYTES,
            ..Self::default()
        }
    }

    /// Takes in the next bytes of the connection, and changes the type of frames that are to be ignored.
    pub(super) fn pass(&mut self, mut bytes: &mut [u8]) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &mut bytes[skipped..];
            if bytes.is_empty() {
                return;
            }
            let before = self.known;
            let part = bytes.len().min(HEADER_BYTES - before);
            self.known += part;
            self.header[before..self.known].copy_from_slice(&bytes[..part]);
            // Where the type was handed on before the flags came, it stays what it is.
            if before <= TYPE && self.known > FLAGS && self.is_ignored() {
                bytes[TYPE - before] = IGNORED;
            }
            if self.known == HEADER_BYTES {
                self.known = 0;
                self.skip = self.length();
            }
            bytes = &mut bytes[part..];
        }
    }

    fn length(&self) -> usize {
        let [high, middle, low, ..] = self.header;
        u32::from_be_bytes([0, high, middle, low]) as usize
    }

    fn is_ignored(&mut self) -> bool {
        let last = self.header[FLAGS] & END_STREAM != 0;
        match self.header[TYPE] {
            DATA if self.length() == 0 && !last => {
                let credit = self.credit.checked_sub(1);
                self.credit = credit.unwrap_or_default();
                credit.is_some()
            }
            DATA | HEADERS => {
                self.credit = (self.credit + 1).min(MAX_CREDIT);
                false
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        frame.extend_from_slice(payload);
        frame
    }

    fn types(bytes: &[u8]) -> Vec<u8> {
        let mut types = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            types.push(bytes[at + TYPE]);
            at += HEADER_BYTES + usize::from(bytes[at + 2]);
        }
        types
    }

    #[test]
    fn empty_data_is_ignored_as_long_as_others_say_something() {
        let frames = [
            frame(HEADERS, 4, b"head"),
            frame(DATA, 0, b""),
            frame(DATA, 0, b""),
            frame(DATA, 0, b"\0\0\0\0\0\0\0\0\0"),
            frame(DATA, END_STREAM, b""),
        ];
        let mut bytes = frames.concat();
        Sieve::default().pass(&mut bytes);
        assert_eq!(types(&bytes), [HEADERS, IGNORED, DATA, DATA, DATA]);
        bytes[HEADER_BYTES + 4 + TYPE] = DATA;
        assert_eq!(bytes, frames.concat(), "nothing else is changed");
    }

    #[test]
    fn a_clients_preface_is_no_frame() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(HEADERS, 4, b"head"));
        bytes.extend(frame(DATA, 0, b""));
        Sieve::of_client().pass(&mut bytes);
        assert_eq!(types(&bytes[PREFACE_BYTES..]), [HEADERS, IGNORED]);
    }

    proptest! {
        #[test]
        fn nothing_is_changed_but_the_type_of_empty_frames_however_the_bytes_come(
            frames in proptest::collection::vec((0_u8..4, 0_u8..4, 0_usize..12), 1..40),
            cuts in proptest::collection::vec(1_usize..30, 1..60),
        ) {
            let payload = [7; 12];
            let frames = frames.iter().map(|(kind, flags, length)| frame(*kind, *flags, &payload[..*length]));
            let whole: Vec<u8> = frames.flatten().collect();
            let mut passed = whole.clone();
            let (mut sieve, mut rest) = (Sieve::default(), &mut passed[..]);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at_mut(rest.len().min(*cut));
                sieve.pass(piece);
                rest = after;
            }
            let mut at = 0;
            while at < whole.len() {
                let length = usize::from(whole[at + 2]);
                let empty = whole[at + TYPE] == DATA && length == 0 && whole[at + FLAGS] & END_STREAM == 0;
                if empty && passed[at + TYPE] == IGNORED {
                    passed[at + TYPE] = DATA;
                }
                at += HEADER_BYTES + length;
            }
            prop_assert_eq!(passed, whole);
        }
    }
}
