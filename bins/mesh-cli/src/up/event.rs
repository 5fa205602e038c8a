//! What happens to a unit.

use std::net::SocketAddr;
use std::time::Duration;

use crate::{Error, duration};

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// Both its processes are ready.
    Ready {
        /// Where its proxy answers about itself.
        admin: SocketAddr,
    },
    /// Its proxy has taken over from the one before, which drains.
    Replaced {
        /// Where the new one answers about itself.
        admin: SocketAddr,
    },
    /// Its proxy could not be replaced; the one before serves on: what was to replace it, why it did not, and what that printed last.
    Kept {
        /// The process.
        what: String,
        /// What it did.
        reason: String,
        /// The last lines it printed.
        last_lines: Vec<String>,
    },
    /// It is not ready, or no longer: what, why, what was printed last, and when it is started again.
    Down {
        /// The process.
        what: String,
        /// What it did.
        reason: String,
        /// The last lines it printed.
        last_lines: Vec<String>,
        /// Until the next start.
        wait: Duration,
    },
}

impl Event {
    /// For people: the line about it, and what was printed last.
    pub(crate) fn describe(&self, name: &str) -> String {
        match self {
            Self::Ready { .. } => format!("{name} is ready"),
            Self::Replaced { .. } => format!("{name}'s proxy was replaced"),
            Self::Kept {
                what,
                reason,
                last_lines,
            } => format!(
                "{what} cannot be replaced, as the new one {reason}; the one before serves on, and the next change is another try{}",
                crate::error::quoted(last_lines)
            ),
            Self::Down {
                what,
                reason,
                last_lines,
                wait,
            } => {
                format!(
                    "{what} {reason}; starting it again in {}{}",
                    duration::show(*wait),
                    crate::error::quoted(last_lines)
                )
            }
        }
    }

    /// Whether something is wrong.
    pub(crate) fn is_bad(&self) -> bool {
        matches!(self, Self::Kept { .. } | Self::Down { .. })
    }
}

/// Why a process did not come up.
#[derive(Debug)]
pub(super) enum Failure {
    /// What it did, in words that follow its name.
    Reason(String),
    /// It was not even started.
    Error(Error),
}

impl Failure {
    /// In words that follow its name.
    pub(super) fn reason(self) -> String {
        match self {
            Self::Reason(reason) => reason,
            Self::Error(Error::Start { source, .. }) => format!("cannot be started: {source}"),
            Self::Error(error) => format!("cannot be started: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_that_was_not_replaced_is_said_to_serve_on_with_what_the_new_one_printed() {
        let event = Event::Kept {
            what: "web-1's proxy".into(),
            reason: "exited with 2".into(),
            last_lines: vec!["no".into()],
        };
        assert_eq!(
            event.describe("web-1"),
            "web-1's proxy cannot be replaced, as the new one exited with 2; the one before serves on, and the next \
             change is another try\n    | no"
        );
    }
}
