use std::sync::Arc;

use http::StatusCode;

use crate::Error;

/// Fails a share of the requests.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FailureInjector {
    /// The share that fails.
    pub ratio: Ratio,
    /// How they fail.
    pub failure: Failure,
}

/// How a request fails.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Failure {
    /// With an HTTP status.
    Http {
        /// The status.
        status: StatusCode,
        /// What to say about it; stock proxies put it into `l5d-proxy-error`. Not necessarily fit for a header.
        message: Arc<str>,
    },
    /// With a gRPC status, in a response of HTTP status 200.
    Grpc {
        /// The value of `grpc-status`. Not necessarily one that gRPC defines.
        code: u16,
        /// What to say about it, in `grpc-message`. Not necessarily fit for a header.
        message: Arc<str>,
    },
}

/// A share of the requests, from none to all of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ratio {
    numerator: u32,
    // Above zero and not less than the numerator.
    denominator: u32,
}

impl FailureInjector {
    /// The failure, when `random` is among the words that it is for.
    pub fn of(&self, random: u64) -> Option<&Failure> {
        self.ratio.contains(random).then_some(&self.failure)
    }
}

impl Failure {
    /// The longest message, in bytes.
    pub const MAX_MESSAGE_BYTES: usize = 4096;

    /// A failure with an HTTP `status`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when `status` is not one of a final response (200 to 999), or `message` is longer than
    /// [`MAX_MESSAGE_BYTES`](Self::MAX_MESSAGE_BYTES).
    pub fn http(status: u32, message: &str) -> Result<Self, Error> {
        let valid = u16::try_from(status).ok().filter(|status| *status >= 200);
        let valid = valid.and_then(|status| StatusCode::from_u16(status).ok());
        let status = valid.ok_or_else(|| {
            let expected = "a status from 200 to 999";
            Error::invalid(
                "http_route.HttpFailureInjector.status",
                &status.to_string(),
                expected,
            )
        })?;
        let message = checked("http_route.HttpFailureInjector.message", message)?;
        Ok(Self::Http { status, message })
    }

    /// A failure with a gRPC status `code`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when `code` is above 65535, or `message` is longer than
    /// [`MAX_MESSAGE_BYTES`](Self::MAX_MESSAGE_BYTES).
    pub fn grpc(code: u32, message: &str) -> Result<Self, Error> {
        // Not only 0 to 16: controllers are known to send HTTP statuses.
        let code = u16::try_from(code).map_err(|_| {
            let expected = "at most 65535";
            Error::invalid(
                "grpc_route.GrpcFailureInjector.code",
                &code.to_string(),
                expected,
            )
        })?;
        let message = checked("grpc_route.GrpcFailureInjector.message", message)?;
        Ok(Self::Grpc { code, message })
    }
}

impl Ratio {
    /// Every request.
    pub const ALL: Self = Self {
        numerator: 1,
        denominator: 1,
    };

    /// `numerator` of every `denominator` requests.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when `denominator` is zero or less than `numerator`.
    pub fn new(numerator: u32, denominator: u32) -> Result<Self, Error> {
        if denominator == 0 || numerator > denominator {
            let given = format!("{numerator}/{denominator}");
            let expected = "a fraction from 0 to 1";
            return Err(Error::invalid("http_route.Ratio", &given, expected));
        }
        Ok(Self {
            numerator,
            denominator,
        })
    }

    /// True when every request is in it.
    pub fn is_all(self) -> bool {
        self.numerator == self.denominator
    }

    /// Whether a uniformly random word is in it: this share of all words is.
    pub fn contains(self, random: u64) -> bool {
        // The high half of the product is uniform in `0..denominator`.
        let point = (u128::from(random) * u128::from(self.denominator)) >> 64;
        point < u128::from(self.numerator)
    }
}

fn checked(field: &'static str, message: &str) -> Result<Arc<str>, Error> {
    if message.len() > Failure::MAX_MESSAGE_BYTES {
        return Err(Error::invalid(field, message, "at most 4096 bytes"));
    }
    Ok(message.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_a_ratio() {
        for random in [0, 1, u64::MAX / 2, u64::MAX] {
            assert!(Ratio::ALL.contains(random));
            assert!(Ratio::new(u32::MAX, u32::MAX).unwrap().contains(random));
            assert!(!Ratio::new(0, u32::MAX).unwrap().contains(random));
        }
        let half = Ratio::new(1, 2).unwrap();
        assert!(half.contains(u64::MAX / 2) && !half.contains(u64::MAX / 2 + 1));
        assert!(Ratio::new(0, 0).is_err() && Ratio::new(2, 1).is_err());
    }

    #[test]
    fn a_failure_is_a_final_response() {
        for status in [0, 101, 199, 1000, 65_536 + 500] {
            assert!(Failure::http(status, "").is_err(), "{status}");
        }
        assert!(Failure::http(500, "").is_ok() && Failure::grpc(500, "").is_ok());
        assert!(Failure::grpc(65_536, "").is_err());
        assert!(Failure::http(500, &"x".repeat(4097)).is_err());
    }
}
