//! The bundle of the day for a proxy that was away so long that it verifies no controller any more.
//!
//! The documents are asked for over TLS with nobody verified: they prove themselves, as only the pinned key signs what is taken.
//! A controller whose store was restored from a backup may have no certificate that is good, and makes none before it has heard
//! from everybody what is in force: so it is told there, too, and no order is taken from it.

use std::time::Duration;

use mesh_control_api::trust::trust_client::TrustClient;
use mesh_control_api::trust::{Document, Since};
use mesh_tls::Error;
use mesh_trust_rotation::Generation;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// How long asking may take, connecting included.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Opens a channel to the controller over which nobody is verified, and shows the certificate if it is to.
pub type CatchUp = Box<dyn Fn(bool) -> Option<Channel> + Send + Sync>;

/// The documents since `highest`; none where nobody has any to give. What they say is not verified here.
pub(super) async fn ask(channel: Channel, highest: Generation) -> Option<Vec<Document>> {
    let since = Since {
        highest_generation: highest.0,
    };
    let mut client = TrustClient::new(channel);
    match timeout(TIMEOUT, client.catch_up(Request::new(since))).await {
        Ok(Ok(update)) => Some(update.into_inner().documents),
        Ok(Err(status)) => {
            let (code, reason) = (status.code(), status.message());
            tracing::debug!(?code, reason, "no bundle to catch up with");
            None
        }
        Err(_) => {
            tracing::debug!(after = ?TIMEOUT, "no answer about a bundle to catch up with");
            None
        }
    }
}

/// Whether the stream could not be had because the controller's chain leads to no anchor that is known, or has ended, or has not
/// begun by this host's clock.
pub(super) fn is_mistrust(status: &Status) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(status);
    while let Some(error) = cause {
        if matches!(
            error.downcast_ref(),
            Some(Error::UntrustedIssuer | Error::Expired { .. } | Error::NotYetValid { .. })
        ) {
            return true;
        }
        // What is in an I/O error is not among its sources.
        cause = match error
            .downcast_ref::<std::io::Error>()
            .map(|it| it.get_ref())
        {
            Some(inner) => inner.map(|inner| inner as _),
            None => error.source(),
        };
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(error: impl std::error::Error + Send + Sync + 'static) -> Status {
        Status::from_error(Box::new(error))
    }

    #[test]
    fn only_a_chain_that_is_not_verified_is_mistrust() {
        use std::io;
        use std::time::SystemTime;

        assert!(is_mistrust(&status(Error::UntrustedIssuer)));
        assert!(is_mistrust(&status(io::Error::other(
            Error::UntrustedIssuer
        ))));
        let nested = io::Error::other(io::Error::other(Error::UntrustedIssuer));
        assert!(is_mistrust(&status(nested)));
        let now = SystemTime::now();
        let not_before = now + Duration::from_secs(60);
        assert!(is_mistrust(&status(Error::NotYetValid { not_before, now })));
        let not_after = now - Duration::from_secs(60);
        assert!(is_mistrust(&status(Error::Expired { not_after, now })));
        assert!(!is_mistrust(&status(io::Error::other("refused"))));
        assert!(!is_mistrust(&Status::unavailable("UntrustedIssuer")));
    }
}
