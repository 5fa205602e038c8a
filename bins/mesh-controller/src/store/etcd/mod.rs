//! The store of several controllers: etcd, over its v3 API.
//!
//! A version is the revision of the write that made a value (`mod_revision`), of which etcd gives none twice. What only
//! the one who leads may write carries the creation of its leadership (`create_revision`) as a condition of the same
//! transaction: whoever has lost it, and does not know it yet, writes nothing.
//!
//! - `wire`: the messages
//! - `client`: calls, to one member or another
//! - `lead`: who leads

mod client;
mod lead;
#[cfg(test)]
pub(crate) mod tests;
mod wire;

use std::{fmt, sync::Arc};

use tokio::sync::watch;

pub use self::client::EtcdOptions;
pub(crate) use self::lead::Term;
use self::{
    client::Client,
    wire::{
        Compare, DeleteRangeRequest, KeyValue, PutRequest, RangeRequest, Request, RequestOp,
        Response, Target, TxnRequest, Union,
    },
};
use super::{Expected, Most, StateStore, StoreError, StoreFuture, Version, Versioned};

/// Keys of one mesh in etcd.
#[derive(Clone)]
pub struct EtcdStore {
    client: Arc<Client>,
    prefix: Arc<str>,
    /// Whether this controller leads, as far as it knows.
    term: watch::Receiver<Option<Term>>,
    /// Whether writes are those of the one who leads.
    fenced: bool,
}

impl EtcdStore {
    /// The largest value, in bytes: etcd takes requests of 1.5 MiB unless it is told otherwise.
    pub const MAX_VALUE_BYTES: usize = 1_400_000;

    /// The same keys, written only while this controller leads.
    pub(crate) fn fenced(&self) -> Self {
        Self {
            fenced: true,
            ..self.clone()
        }
    }

    /// The term in which this controller leads, if it does for sure.
    pub(crate) fn term(&self) -> Option<Term> {
        let term = *self.term.borrow();
        term.filter(Term::holds)
    }

    /// Follows whether this controller leads.
    pub(crate) fn terms(&self) -> watch::Receiver<Option<Term>> {
        self.term.clone()
    }

    /// The names of the controllers that there are.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) async fn members(&self) -> Result<Vec<String>, StoreError> {
        let all = self.list(lead::MEMBERS, None, MAX_MEMBERS).await?;
        let names = all.into_iter();
        Ok(names
            .map(|(key, _)| key[lead::MEMBERS.len()..].to_owned())
            .collect())
    }

    /// The name of the controller that leads, if one does.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) async fn leader(&self) -> Result<Option<String>, StoreError> {
        let leader = self.get(lead::LEADER).await?;
        Ok(leader.map(|leader| String::from_utf8_lossy(&leader.value).into_owned()))
    }

    /// Tells of each write of this key by its revision, until the connection is lost. It begins by telling the revision from
    /// which on nothing is missed.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub(crate) async fn changes(
        &self,
        key: &str,
        mut written: impl FnMut(u64),
    ) -> Result<(), StoreError> {
        let key = self.key(key).into_bytes();
        let mut watch = self.client.watch(key).await?;
        while let Ok(Some(news)) = watch.message().await {
            if news.canceled {
                break;
            }
            let revision = news.header.unwrap_or_default().revision;
            written(revision.cast_unsigned());
        }
        Ok(())
    }

    /// The revision of the last write, of whoever.
    async fn revision(&self) -> Result<i64, StoreError> {
        let request = RangeRequest {
            key: self.key(lead::LEADER).into_bytes(),
            ..RangeRequest::default()
        };
        let answer = self.client.range(request).await?;
        Ok(answer.header.unwrap_or_default().revision)
    }

    /// Without the prefix.
    fn own(&self, found: KeyValue) -> (String, Versioned) {
        let own = &found.key[self.prefix.len()..];
        let key = String::from_utf8_lossy(own).into_owned();
        let version = Version(found.mod_revision.cast_unsigned());
        let value = found.value;
        (key, Versioned { version, value })
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Does all of these if all keys are as expected and, where that is asked for, this controller leads.
    async fn write(
        &self,
        expected: Vec<(String, Expected)>,
        writes: Vec<Request>,
    ) -> Result<Version, StoreError> {
        let term = if self.fenced {
            Some(self.term().ok_or(StoreError::Fenced)?)
        } else {
            None
        };
        let read = |key: Vec<u8>| {
            op(Request::Range(RangeRequest {
                key,
                ..RangeRequest::default()
            }))
        };
        let leader = self.key(lead::LEADER).into_bytes();
        let (mut compare, mut failure) = (Vec::new(), vec![read(leader.clone())]);
        for (key, expected) in &expected {
            let key = self.key(key).into_bytes();
            failure.push(read(key.clone()));
            compare.push(match expected {
                Expected::Absent => created(key, 0),
                Expected::At(version) => Compare {
                    result: 0,
                    target: Target::Mod.into(),
                    key,
                    union: Some(Union::ModRevision(version.0.cast_signed())),
                },
            });
        }
        compare.extend(term.map(|term| created(leader, term.created)));
        let request = TxnRequest {
            compare,
            success: writes.into_iter().map(op).collect(),
            failure,
        };
        let answer = self.client.txn(request).await?;
        if answer.succeeded {
            let header = answer.header.unwrap_or_default();
            return Ok(Version(header.revision.cast_unsigned()));
        }
        let mut found = answer.responses.into_iter().map(|answer| {
            let Some(Response::Range(range)) = answer.response else {
                return None;
            };
            range.kvs.into_iter().next()
        });
        let leads = found.next().flatten();
        let leads = leads.map_or(0, |leader| leader.create_revision);
        if term.is_some_and(|term| term.created != leads) {
            return Err(StoreError::Fenced);
        }
        let mut conflict = StoreError::Fenced;
        for ((key, expected), found) in expected.into_iter().zip(found) {
            let found = found.map(|found| Version(found.mod_revision.cast_unsigned()));
            let as_expected = match expected {
                Expected::Absent => found.is_none(),
                Expected::At(version) => found == Some(version),
            };
            conflict = StoreError::Conflict {
                key,
                expected,
                found,
            };
            if !as_expected {
                break;
            }
        }
        Err(conflict)
    }
}

impl StateStore for EtcdStore {
    fn get(&self, key: &str) -> StoreFuture<'_, Option<Versioned>> {
        let key = self.key(key).into_bytes();
        Box::pin(async move {
            let request = RangeRequest {
                key,
                ..RangeRequest::default()
            };
            let found = self.client.range(request).await?.kvs.into_iter().next();
            Ok(found.map(|found| Versioned {
                version: Version(found.mod_revision.cast_unsigned()),
                value: found.value,
            }))
        })
    }

    fn commit(
        &self,
        expected: Vec<(String, Expected)>,
        values: Vec<(String, Vec<u8>)>,
    ) -> StoreFuture<'_, Version> {
        Box::pin(async move {
            let bytes = values.iter().map(|(_, value)| value.len()).sum();
            if bytes > Self::MAX_VALUE_BYTES {
                return Err(StoreError::TooLarge {
                    what: "a value",
                    bytes,
                    max: Self::MAX_VALUE_BYTES,
                });
            }
            let puts = values.into_iter().map(|(key, value)| {
                Request::Put(PutRequest {
                    key: self.key(&key).into_bytes(),
                    value,
                    lease: 0,
                })
            });
            self.write(expected, puts.collect()).await
        })
    }

    fn most(&self) -> Most {
        // Each key of a commit is at most compared and written, and beside it is who leads.
        Most {
            keys: MAX_OPERATIONS - 2,
            bytes: Self::MAX_VALUE_BYTES,
        }
    }

    fn written(
        &self,
        prefix: &str,
        since: Option<Version>,
    ) -> StoreFuture<'_, Vec<(String, Versioned)>> {
        let prefix = self.key(prefix).into_bytes();
        Box::pin(async move {
            let range_end = after_all(&prefix);
            let since = since.map_or(0, |since| since.0.saturating_add(1).cast_signed());
            let (mut all, mut key, mut revision) = (Vec::new(), prefix, 0);
            loop {
                let request = RangeRequest {
                    key,
                    range_end: range_end.clone(),
                    limit: PAGE,
                    // All pages are of one moment: that of the first.
                    revision,
                    min_mod_revision: since,
                };
                let page = self.client.range(request).await?;
                if revision == 0 {
                    revision = page.header.unwrap_or_default().revision;
                }
                let last = page.kvs.last().map(|last| last.key.clone());
                let whole = !page.more;
                all.extend(page.kvs);
                match last {
                    Some(last) if !whole => key = [last.as_slice(), &[0]].concat(),
                    _ => break,
                }
            }
            Ok(all.into_iter().map(|found| self.own(found)).collect())
        })
    }

    fn delete(&self, key: &str, expected: Version) -> StoreFuture<'_, ()> {
        let key = key.to_owned();
        Box::pin(async move {
            let delete = DeleteRangeRequest {
                key: self.key(&key).into_bytes(),
            };
            let expected = vec![(key, Expected::At(expected))];
            self.write(expected, vec![Request::Delete(delete)]).await?;
            Ok(())
        })
    }

    fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> StoreFuture<'_, Vec<(String, Versioned)>> {
        let first = self.key(prefix).into_bytes();
        let range_end = after_all(&first);
        // The next key after one is that key with a zero byte behind it.
        let from = after.map(|after| [self.key(after).as_bytes(), &[0]].concat());
        let key = from.filter(|from| *from > first).unwrap_or(first);
        Box::pin(async move {
            let request = RangeRequest {
                key,
                range_end,
                limit: i64::try_from(limit).unwrap_or(i64::MAX),
                ..RangeRequest::default()
            };
            let found = self.client.range(request).await?.kvs;
            Ok(found.into_iter().map(|found| self.own(found)).collect())
        })
    }
}

impl fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdStore")
            .field("prefix", &self.prefix)
            .field("fenced", &self.fenced)
            .finish_non_exhaustive()
    }
}

fn op(request: Request) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

/// That a key was created by this revision; 0 if there is none.
fn created(key: Vec<u8>, revision: i64) -> Compare {
    Compare {
        result: 0,
        target: Target::Create.into(),
        key,
        union: Some(Union::CreateRevision(revision)),
    }
}

/// The first key after all that begin with this one.
fn after_all(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

const MAX_MEMBERS: usize = 64;
/// How many comparisons, and how many writes, a transaction may have: etcd's own default of `--max-txn-ops`.
const MAX_OPERATIONS: usize = 128;
/// Of shards of some 20 kB, as many as go into an answer that is on its way for a moment.
const PAGE: i64 = 64;
