/// Why a policy could not be built from what was given.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A field that has no meaningful default was absent.
    #[error("{field} is missing")]
    Missing {
        /// The path of the field, e.g. `outbound.ProxyProtocol.Detect.timeout`.
        field: &'static str,
    },

    /// A field held a value that means nothing.
    #[error("{field} is {value:?}, expected {expected}")]
    Invalid {
        /// The path of the field, e.g. `net.TcpAddress.port`.
        field: &'static str,
        /// The offending value, cut to [`Error::MAX_VALUE_CHARS`].
        value: String,
        /// What would be right.
        expected: &'static str,
    },

    /// A regular expression did not compile within its bounds.
    #[error("regular expression {pattern:?}: {reason}")]
    Regex {
        /// The pattern, cut to [`Error::MAX_VALUE_CHARS`].
        pattern: String,
        /// What the compiler said about it.
        reason: String,
    },

    /// There is more of something than is accepted.
    #[error("{given} {what} are more than {max}")]
    TooMany {
        /// What there is too much of, e.g. `backends of a distribution`.
        what: &'static str,
        /// How many there are.
        given: usize,
        /// How many are accepted.
        max: usize,
    },
}

impl Error {
    /// The longest offending value, in characters, that an error repeats.
    pub const MAX_VALUE_CHARS: usize = 128;

    pub(crate) fn invalid(field: &'static str, value: &str, expected: &'static str) -> Self {
        Self::Invalid {
            field,
            value: shorten(value),
            expected,
        }
    }

    pub(crate) fn regex(pattern: &str, reason: &str) -> Self {
        Self::Regex {
            pattern: shorten(pattern),
            reason: reason.to_owned(),
        }
    }
}

fn shorten(value: &str) -> String {
    value.chars().take(Error::MAX_VALUE_CHARS).collect()
}
