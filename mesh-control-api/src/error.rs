use thiserror::Error;

/// Why a join token could not be read. The text itself is never repeated: it may hold a secret.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The text is longer than any token.
    #[error("this is no join token: {bytes} bytes, where a token has at most {max}", max = crate::JoinToken::MAX_TEXT_BYTES)]
    TokenTooLong {
        /// The length of what was given.
        bytes: usize,
    },
    /// The text does not begin as tokens of this version do.
    #[error(
        "this is no join token: it must begin with `mesh1.`; pass the whole text that `mesh token` printed"
    )]
    TokenPrefix,
    /// The text begins well and goes on badly.
    #[error(
        "this join token is damaged (its {what} cannot be read); pass the whole text that `mesh token` printed"
    )]
    TokenMalformed {
        /// The part that is damaged.
        what: &'static str,
    },
}
