//! Sets of HTTP and gRPC statuses.

use std::fmt;

use http::StatusCode;

use crate::Error;

/// A set of HTTP statuses from 100 to 599.
#[derive(Clone, Copy, Default, Eq, Hash, PartialEq)]
pub struct StatusSet([u64; 8]);

/// A set of gRPC statuses, of those that gRPC defines (0 to 16).
#[derive(Clone, Copy, Default, Eq, Hash, PartialEq)]
pub struct GrpcCodes(u32);

impl StatusSet {
    /// The lowest status that a set may have.
    pub const MIN: u16 = 100;

    /// The highest status that a set may have.
    pub const MAX: u16 = 599;

    /// Adds the statuses from `start` to `end`, both included.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] with `field` when it is no such range.
    pub fn insert(&mut self, field: &'static str, start: u32, end: u32) -> Result<(), Error> {
        let valid = |status: u32| {
            let status = u16::try_from(status).ok()?;
            (Self::MIN..=Self::MAX).contains(&status).then_some(status)
        };
        match (valid(start), valid(end)) {
            (Some(start), Some(end)) if start <= end => {
                self.insert_all(start, end);
                Ok(())
            }
            _ => {
                let given = format!("{start}-{end}");
                let expected = "a range of statuses from 100 to 599";
                Err(Error::invalid(field, &given, expected))
            }
        }
    }

    /// True when `status` is in it.
    pub fn contains(&self, status: StatusCode) -> bool {
        match bit(status.as_u16()) {
            Some((word, bit)) => self.0[word] & bit != 0,
            None => false,
        }
    }

    /// True when there is none in it.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; 8]
    }

    /// Those of 100 to 599 that `test` holds for.
    pub(crate) fn of(test: impl Fn(StatusCode) -> bool) -> Self {
        let mut set = Self::default();
        for status in (Self::MIN..=Self::MAX).filter_map(|status| StatusCode::from_u16(status).ok())
        {
            if test(status) {
                set.insert_all(status.as_u16(), status.as_u16());
            }
        }
        set
    }

    /// Those outside of 100 to 599 are left out.
    fn insert_all(&mut self, start: u16, end: u16) {
        for (word, bit) in (start..=end).filter_map(bit) {
            self.0[word] |= bit;
        }
    }
}

impl GrpcCodes {
    /// `CANCELLED`.
    pub const CANCELLED: u16 = 1;
    /// `DEADLINE_EXCEEDED`.
    pub const DEADLINE_EXCEEDED: u16 = 4;
    /// `RESOURCE_EXHAUSTED`.
    pub const RESOURCE_EXHAUSTED: u16 = 8;
    /// `INTERNAL`.
    pub const INTERNAL: u16 = 13;
    /// `UNAVAILABLE`.
    pub const UNAVAILABLE: u16 = 14;

    /// What Linkerd takes as a failure of the server: unknown (2), deadline exceeded (4), permission denied (7), internal (13),
    /// unavailable (14) and data loss (15). Breakers and balancers judge by `mesh_breaker`'s classifiers, whose published set is the same
    /// and whose default set leaves permission denied out.
    pub fn failures() -> Self {
        [2, 4, 7, 13, 14, 15].into_iter().collect()
    }

    /// True when `code` is in it.
    pub fn contains(self, code: u16) -> bool {
        code <= 16 && self.0 & (1 << code) != 0
    }

    /// True when there is none in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Those above 16 are left out.
impl FromIterator<u16> for GrpcCodes {
    fn from_iter<I: IntoIterator<Item = u16>>(codes: I) -> Self {
        let defined = codes.into_iter().filter(|code| *code <= 16);
        Self(defined.fold(0, |set, code| set | 1 << code))
    }
}

impl fmt::Debug for StatusSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has = |status: &u16| bit(*status).is_some_and(|(word, bit)| self.0[word] & bit != 0);
        let statuses = (Self::MIN..=Self::MAX).filter(has);
        f.debug_set().entries(statuses).finish()
    }
}

impl fmt::Debug for GrpcCodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let codes = (0..=16_u16).filter(|code| self.contains(*code));
        f.debug_set().entries(codes).finish()
    }
}

/// The place of a status of 100 to 599 in a [`StatusSet`].
fn bit(status: u16) -> Option<(usize, u64)> {
    let index = status.checked_sub(StatusSet::MIN)?;
    (status <= StatusSet::MAX).then(|| (usize::from(index / 64), 1 << (index % 64)))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use mesh_breaker::{AtHeaders, Classify, GrpcClassifier};

    use super::*;

    fn status(status: u16) -> StatusCode {
        StatusCode::from_u16(status).unwrap()
    }

    #[test]
    fn a_range_has_its_ends_and_nothing_beyond() {
        let mut set = StatusSet::default();
        set.insert("test", 500, 503).unwrap();
        set.insert("test", 100, 100).unwrap();
        set.insert("test", 599, 599).unwrap();
        for (code, expected) in [
            (100, true),
            (101, false),
            (499, false),
            (500, true),
            (503, true),
            (504, false),
            (599, true),
            (600, false),
            (999, false),
        ] {
            assert_eq!(set.contains(status(code)), expected, "{code}");
        }
        for (start, end) in [
            (0, 0),
            (99, 200),
            (503, 500),
            (500, 600),
            (500, 65_536 + 500),
        ] {
            assert!(set.insert("test", start, end).is_err(), "{start}-{end}");
        }
    }

    #[test]
    fn failures_are_those_that_breakers_judge_by() {
        let judged = |classifier: GrpcClassifier| -> GrpcCodes {
            let failure = |code: &u16| {
                let headers = [(
                    "grpc-status".parse().unwrap(),
                    code.to_string().parse().unwrap(),
                )];
                let headers = headers.into_iter().collect();
                let judged = classifier.at_headers(StatusCode::OK, &headers, UNIX_EPOCH);
                matches!(judged, AtHeaders::Decided(outcome) if outcome.is_failure())
            };
            (0..=16).filter(failure).collect()
        };
        assert_eq!(judged(GrpcClassifier::published()), GrpcCodes::failures());
        const PERMISSION_DENIED: u16 = 7;
        let others =
            |code: &u16| *code != PERMISSION_DENIED && GrpcCodes::failures().contains(*code);
        let others: GrpcCodes = (0..=16).filter(others).collect();
        assert_eq!(judged(GrpcClassifier::default()), others);
    }

    #[test]
    fn codes_that_grpc_does_not_define_are_in_no_set() {
        let codes: GrpcCodes = [14, 16, 17, 46, u16::MAX].into_iter().collect();
        assert!(codes.contains(14) && codes.contains(16));
        assert!(!codes.contains(17) && !codes.contains(46) && !codes.contains(13));
    }
}
