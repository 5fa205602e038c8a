//! Who leads: the controller whose lease holds one key. The lease ends by itself when its controller does.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{self, Instant},
};
use tracing::{debug, info, warn};

use super::{
    Client, EtcdOptions, EtcdStore, created, op,
    wire::{PutRequest, RangeRequest, Request, Response, TxnRequest},
};
use crate::store::StoreError;

/// A time for which this controller leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Term {
    /// The revision that created the leadership: a number that no other term has.
    pub(crate) created: i64,
    /// When the lease ends if it is not renewed, by the time at which that was asked for last.
    pub(super) until: Instant,
}

impl Term {
    /// Whether the lease has not ended for sure.
    pub(crate) fn holds(&self) -> bool {
        Instant::now() < self.until
    }
}

/// What keeps a controller among the members, and has it lead when nobody else does.
#[derive(Debug)]
pub(crate) struct Candidate {
    store: EtcdStore,
    name: String,
    ttl: Duration,
    compact_every: Option<Duration>,
    term: watch::Sender<Option<Term>>,
}

impl EtcdStore {
    /// Connects, with the first call. Nobody leads, and nothing is written as the one who does, until the candidate runs.
    ///
    /// # Errors
    /// [`StoreError::Etcd`], [`StoreError::Open`] of the files for TLS.
    pub(crate) fn connect(
        options: &EtcdOptions,
        name: &str,
        ttl: Duration,
    ) -> Result<(Self, Candidate), StoreError> {
        let (sender, term) = watch::channel(None);
        let store = Self {
            client: Arc::new(Client::new(options)?),
            prefix: options.prefix.clone().into(),
            term,
            fenced: false,
        };
        let candidate = Candidate {
            store: store.clone(),
            name: name.to_owned(),
            ttl,
            compact_every: options.compact_every,
            term: sender,
        };
        Ok((store, candidate))
    }
}

impl Candidate {
    /// Stands for election until `stop` turns true; then gives up the lead, so that another need not wait for the lease to end.
    pub(crate) async fn run(self, stop: watch::Receiver<bool>) {
        tokio::select! {
            () = self.compact() => {}
            () = self.stand(stop) => {}
        }
    }

    /// Has etcd forget what was changed some time before, while this one leads: it keeps all of it otherwise, until its space is
    /// full and it takes nothing any more. What is read in pages is of moments, and so never that old.
    async fn compact(&self) {
        let Some(every) = self.compact_every else {
            return std::future::pending().await;
        };
        let mut before = None;
        loop {
            let seen = match self.store.revision().await {
                Ok(revision) => Some(revision),
                Err(error) => {
                    warn!(%error, "what etcd holds is not known now");
                    None
                }
            };
            let leads = self.term.borrow().is_some_and(|term| term.holds());
            if let Some(revision) = before.filter(|_| leads && seen.is_some()) {
                match self.store.client.compact(revision).await {
                    Ok(()) => debug!(revision, "etcd forgets what was changed before"),
                    Err(error) if error.to_string().contains("compacted") => {
                        debug!(%error, "another who uses etcd was faster");
                    }
                    Err(error) => warn!(%error, "etcd does not forget what was changed before"),
                }
            }
            before = seen.or(before);
            time::sleep(every).await;
        }
    }

    async fn stand(&self, mut stop: watch::Receiver<bool>) {
        loop {
            let mut lease = None;
            tokio::select! {
                done = self.hold_one_lease(&mut lease) => if let Err(error) = done {
                    warn!(%error, "no lease in etcd");
                },
                () = crate::listener::stopped(&mut stop) => {
                    self.says(None);
                    if let Some(lease) = lease {
                        // If it does not work the lease ends by itself.
                        let _ = self.store.client.revoke(lease).await;
                    }
                    return;
                }
            }
            if self.term.borrow().is_some() {
                self.says(None);
                warn!("does not lead any more");
            }
            if let Some(lease) = lease {
                // A lead may have been taken under it by a call whose answer was lost.
                let _ = self.store.client.revoke(lease).await;
            }
            time::sleep(self.ttl / 10).await;
        }
    }

    /// Until the lease is lost.
    async fn hold_one_lease(&self, held: &mut Option<i64>) -> Result<(), StoreError> {
        let client = &self.store.client;
        let asked = Instant::now();
        let seconds = i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX);
        let granted = client.grant(seconds).await?;
        let lease = granted.id;
        *held = Some(lease);
        let life = |seconds: i64| Duration::from_secs(seconds.max(0).cast_unsigned());
        let mut until = asked + life(granted.ttl);
        let member = self.store.key(&format!("{MEMBERS}{}", self.name));
        client
            .txn(TxnRequest {
                success: vec![op(put(member, &self.name, lease))],
                ..TxnRequest::default()
            })
            .await?;
        let (mut created, mut failed) = (None, false);
        loop {
            if created.is_none() && !failed {
                created = self.campaign(lease).await?;
                if created.is_some() {
                    info!(name = self.name, "leads");
                }
            }
            let term = created.map(|created| Term { created, until });
            self.says(term);
            // Who does not lead looks more often, so that the lead is taken soon after it is free.
            let pause = match (failed, created) {
                (true, _) => self.ttl / 20,
                (false, Some(_)) => self.ttl / 4,
                (false, None) => self.ttl / 10,
            };
            time::sleep(pause).await;
            let asked = Instant::now();
            let renewed = client.keep_alive(lease, self.ttl / 4).await;
            failed = renewed.is_err();
            match renewed {
                Ok(0) => return Ok(()),
                Ok(left) => until = asked + life(left),
                // Another member is asked at once, and may answer before the lease ends.
                Err(error) if asked < until => {
                    warn!(%error, "the lease could not be renewed yet");
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Lets others see whether it leads, and until when. Who waits is woken where a term begins or ends, not where it is renewed.
    fn says(&self, term: Option<Term>) {
        self.term.send_if_modified(|before| {
            let created = |term: &Option<Term>| term.map(|term| term.created);
            let lapsed = before.is_some_and(|before| !before.holds());
            let another = lapsed || created(before) != created(&term);
            *before = term;
            another
        });
    }

    /// Takes the lead if nobody has it: the revision that did so.
    pub(super) async fn campaign(&self, lease: i64) -> Result<Option<i64>, StoreError> {
        let key = self.store.key(LEADER);
        let read = RangeRequest {
            key: key.clone().into_bytes(),
            ..RangeRequest::default()
        };
        let request = TxnRequest {
            compare: vec![created(key.clone().into_bytes(), 0)],
            success: vec![op(put(key, &self.name, lease))],
            failure: vec![op(Request::Range(read))],
        };
        let answer = self.store.client.txn(request).await?;
        if answer.succeeded {
            return Ok(Some(answer.header.unwrap_or_default().revision));
        }
        // It is led under this lease only: one of before ends, and the lead with it.
        let found = answer.responses.into_iter().next();
        let Some(Response::Range(range)) = found.and_then(|found| found.response) else {
            return Ok(None);
        };
        let own = range.kvs.into_iter().next();
        let own = own.filter(|found| found.lease == lease);
        Ok(own.map(|found| found.create_revision))
    }
}

fn put(key: String, value: &str, lease: i64) -> Request {
    Request::Put(PutRequest {
        key: key.into_bytes(),
        value: value.as_bytes().to_vec(),
        lease,
    })
}

pub(super) const LEADER: &str = "lead";
pub(super) const MEMBERS: &str = "member/";
