//! What must be so before this proxy says that it is ready, and what of it is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use tokio::sync::watch;

use crate::drain;

/// The state of readiness. Clones share it.
#[derive(Clone, Debug)]
pub struct Readiness {
    identity: watch::Receiver<Certification>,
    bound: Arc<AtomicUsize>,
    workers: usize,
    drain: drain::Signal,
}

/// How the proxy stands with its own certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certification {
    /// When the leaf in use expires; `None` before the first.
    pub not_after: Option<SystemTime>,
    /// Why the last attempt failed; `None` after a success.
    pub failure: Option<String>,
}

impl Readiness {
    pub(crate) fn new(
        identity: watch::Receiver<Certification>,
        workers: usize,
        drain: drain::Signal,
    ) -> Self {
        Self {
            identity,
            bound: Arc::default(),
            workers,
            drain,
        }
    }

    /// A worker says, once, that all its listeners are bound.
    pub fn worker_bound(&self) {
        self.bound.fetch_add(1, Ordering::AcqRel);
    }

    /// Resolves when the first certificate is in use, at once if it already is. Cancel safe.
    pub async fn certified(&self) {
        let mut identity = self.identity.clone();
        if identity
            .wait_for(|identity| identity.not_after.is_some())
            .await
            .is_err()
        {
            // The certifier is gone without a certificate: there will be none.
            std::future::pending::<()>().await;
        }
    }

    /// What is missing; empty when ready.
    #[must_use]
    pub fn missing(&self, now: SystemTime) -> Vec<String> {
        let mut missing = Vec::new();
        let identity = self.identity.borrow();
        let failure = identity.failure.as_deref();
        match identity.not_after {
            None => missing.push(match failure {
                Some(why) => format!("identity: not certified: {why}"),
                None => "identity: not certified yet".to_owned(),
            }),
            Some(not_after) if not_after <= now => missing.push(match failure {
                Some(why) => {
                    format!("identity: the certificate has expired and cannot be renewed: {why}")
                }
                None => "identity: the certificate has expired".to_owned(),
            }),
            Some(_) => {}
        }
        let bound = self.bound.load(Ordering::Acquire);
        if bound < self.workers {
            missing.push(format!(
                "listeners: {bound} of {} workers have bound theirs",
                self.workers
            ));
        }
        if self.drain.fired() {
            missing.push("draining".to_owned());
        }
        missing
    }

    /// What is wrong but does not stop traffic yet: a renewal that fails.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let identity = self.identity.borrow();
        match (&identity.failure, identity.not_after) {
            (Some(why), Some(_)) => vec![format!("identity: renewal fails: {why}")],
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_missing_part_is_named() {
        let (identity, status) = watch::channel(Certification::default());
        let (trigger, drain) = drain::channel();
        let readiness = Readiness::new(status, 2, drain);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        assert_eq!(
            readiness.missing(now),
            [
                "identity: not certified yet",
                "listeners: 0 of 2 workers have bound theirs"
            ]
        );
        readiness.worker_bound();
        readiness.worker_bound();
        identity.send_modify(|status| status.failure = Some("refused".to_owned()));
        assert_eq!(readiness.missing(now), ["identity: not certified: refused"]);
        identity.send_replace(Certification {
            not_after: Some(now + Duration::from_secs(1)),
            failure: None,
        });
        assert!(readiness.missing(now).is_empty());

        identity.send_modify(|status| status.failure = Some("refused".to_owned()));
        assert!(
            readiness.missing(now).is_empty(),
            "a leaf that lives still serves"
        );
        assert_eq!(readiness.warnings(), ["identity: renewal fails: refused"]);
        assert_eq!(
            readiness.missing(now + Duration::from_secs(1)).len(),
            1,
            "an expired one does not"
        );
        trigger.fire();
        assert_eq!(readiness.missing(now), ["draining"]);
    }

    #[tokio::test]
    async fn the_first_certificate_wakes_who_waits_for_it() {
        let (identity, status) = watch::channel(Certification::default());
        let (_trigger, drain) = drain::channel();
        let readiness = Readiness::new(status, 0, drain);
        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.certified().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        identity.send_modify(|status| status.not_after = Some(SystemTime::UNIX_EPOCH));
        waiting.await.unwrap();
    }
}
