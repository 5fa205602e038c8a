//! Calls to etcd: to one member at a time, and to the next one when that fails.

use std::{
    fmt,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures_util::stream;
use http::uri::PathAndQuery;
use tonic::{
    Code, Request, Status, Streaming,
    client::Grpc,
    metadata::MetadataValue,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_prost::ProstCodec;

use super::wire::{
    CompactionRequest, CompactionResponse, LeaseGrantRequest, LeaseGrantResponse,
    LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseRevokeRequest, LeaseRevokeResponse,
    RangeRequest, RangeResponse, TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest,
    WatchResponse,
};
use crate::{is_loopback, store::StoreError};

/// How etcd is reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EtcdOptions {
    /// `https://host:port` of its members; `http://` for loopback addresses only.
    pub endpoints: Vec<String>,
    /// What all keys begin with.
    pub prefix: String,
    /// The certificates that its members' are verified by, PEM.
    pub ca: Option<PathBuf>,
    /// The certificate to show and its key, PEM.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// How long etcd keeps what was changed, by the word of whoever leads; none: that is for others to say.
    pub compact_every: Option<Duration>,
}

/// One connection to each member.
pub(super) struct Client {
    members: Vec<Channel>,
    endpoints: Vec<String>,
    /// The member that answered last.
    current: AtomicUsize,
}

impl Client {
    /// Connects with the first call.
    ///
    /// # Errors
    /// [`StoreError::Etcd`].
    pub(super) fn new(options: &EtcdOptions) -> Result<Self, StoreError> {
        let tls = tls(options)?;
        let members = options.endpoints.iter().map(|text| {
            let wrong = |reason: String| StoreError::Etcd {
                endpoint: text.clone(),
                reason,
            };
            let endpoint = Endpoint::from_shared(text.clone());
            let endpoint = endpoint.map_err(|error| wrong(error.to_string()))?;
            let endpoint = endpoint
                .connect_timeout(CONNECT_TIMEOUT)
                .http2_keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(CALL_TIMEOUT)
                .keep_alive_while_idle(true);
            let endpoint = if text.starts_with("https://") {
                if options.ca.is_none() {
                    let reason = "nobody would be believed; name the certificates to verify by";
                    return Err(wrong(reason.to_owned()));
                }
                let secured = endpoint.tls_config(tls.clone());
                secured.map_err(|error| wrong(error.to_string()))?
            } else if text.starts_with("http://") && local(text) {
                endpoint
            } else {
                return Err(wrong(
                    "private keys would cross the network in the clear; use https:// (http:// on loopback addresses only)"
                        .to_owned(),
                ));
            };
            Ok(endpoint.connect_lazy())
        });
        let members: Vec<_> = members.collect::<Result<_, _>>()?;
        if members.is_empty() {
            return Err(StoreError::Etcd {
                endpoint: String::new(),
                reason: "name at least one member".to_owned(),
            });
        }
        Ok(Self {
            members,
            endpoints: options.endpoints.clone(),
            current: AtomicUsize::new(0),
        })
    }

    /// Reads. May be tried at each member, as it changes nothing.
    pub(super) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        let mut tried = 1;
        loop {
            match self.unary("/etcdserverpb.KV/Range", request.clone()).await {
                Err(_) if tried < self.members.len() => tried += 1,
                done => return done,
            }
        }
    }

    /// Writes. Whether it took effect when it fails is not known, so it is not tried again.
    pub(super) async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, StoreError> {
        self.unary("/etcdserverpb.KV/Txn", request).await
    }

    /// Has it forget what was changed before this revision.
    pub(super) async fn compact(&self, revision: i64) -> Result<(), StoreError> {
        let request = CompactionRequest { revision };
        let path = "/etcdserverpb.KV/Compact";
        let _: CompactionResponse = self.unary(path, request).await?;
        Ok(())
    }

    pub(super) async fn grant(&self, ttl: i64) -> Result<LeaseGrantResponse, StoreError> {
        let request = LeaseGrantRequest { ttl };
        let granted: LeaseGrantResponse = self
            .unary("/etcdserverpb.Lease/LeaseGrant", request)
            .await?;
        if !granted.error.is_empty() {
            return Err(StoreError::Io(granted.error));
        }
        Ok(granted)
    }

    pub(super) async fn revoke(&self, id: i64) -> Result<(), StoreError> {
        let request = LeaseRevokeRequest { id };
        let path = "/etcdserverpb.Lease/LeaseRevoke";
        let _: LeaseRevokeResponse = self.unary(path, request).await?;
        Ok(())
    }

    /// How many seconds the lease has from now on; 0 if it has ended. Takes no longer than `limit`, so that another member can
    /// be asked before the lease has ended.
    pub(super) async fn keep_alive(&self, id: i64, limit: Duration) -> Result<i64, StoreError> {
        let once = stream::iter([LeaseKeepAliveRequest { id }]);
        let path = PathAndQuery::from_static("/etcdserverpb.Lease/LeaseKeepAlive");
        let call = async {
            let mut grpc = self.ready().await?;
            let codec = ProstCodec::<LeaseKeepAliveRequest, LeaseKeepAliveResponse>::default();
            let answers = grpc.streaming(Request::new(once), path, codec).await?;
            answers.into_inner().message().await
        };
        let answer = self.within(limit.min(CALL_TIMEOUT), call).await?;
        Ok(answer.map_or(0, |answer| answer.ttl))
    }

    /// Follows a key from now on.
    pub(super) async fn watch(&self, key: Vec<u8>) -> Result<Streaming<WatchResponse>, StoreError> {
        let create = WatchCreateRequest { key };
        let first = WatchRequest {
            create: Some(create),
        };
        // A stream of requests that ends would end the watch.
        let requests = futures_util::StreamExt::chain(stream::iter([first]), stream::pending());
        let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
        let call = async {
            let mut grpc = self.ready().await?;
            let codec = ProstCodec::<WatchRequest, WatchResponse>::default();
            let mut request = Request::new(requests);
            // A member that has lost the others ends the stream, rather than say nothing on it.
            let metadata = request.metadata_mut();
            metadata.insert("hasleader", MetadataValue::from_static("true"));
            let answers = grpc.streaming(request, path, codec).await?;
            Ok(answers.into_inner())
        };
        self.timed(call).await
    }

    async fn unary<Q, A>(&self, path: &'static str, request: Q) -> Result<A, StoreError>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let path = PathAndQuery::from_static(path);
        let call = async {
            let mut grpc = self.ready().await?;
            let codec = ProstCodec::<Q, A>::default();
            let answer = grpc.unary(Request::new(request), path, codec).await?;
            Ok(answer.into_inner())
        };
        self.timed(call).await
    }

    async fn ready(&self) -> Result<Grpc<Channel>, Status> {
        let current = self.current.load(Ordering::Relaxed) % self.members.len();
        let channel = self.members[current].clone();
        let mut grpc = Grpc::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        let ready = grpc.ready().await;
        ready.map_err(|error| Status::from_error(error.into()))?;
        Ok(grpc)
    }

    async fn timed<T>(
        &self,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, StoreError> {
        self.within(CALL_TIMEOUT, call).await
    }

    /// Goes to the next member after a failure of this one.
    async fn within<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, StoreError> {
        let before = self.current.load(Ordering::Relaxed);
        let late = || Status::deadline_exceeded("etcd does not answer");
        let done = tokio::time::timeout(limit, call).await;
        done.unwrap_or_else(|_| Err(late())).map_err(|status| {
            if matches!(
                status.code(),
                Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled
            ) {
                let next = (before + 1) % self.members.len();
                let order = Ordering::Relaxed;
                // Another call may have moved on already.
                let _ = self.current.compare_exchange(before, next, order, order);
            }
            let endpoint = &self.endpoints[before % self.members.len()];
            StoreError::Io(format!("etcd {endpoint}: {}", told(&status)))
        })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("members", &self.members.len())
            .finish_non_exhaustive()
    }
}

fn tls(options: &EtcdOptions) -> Result<ClientTlsConfig, StoreError> {
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|source| StoreError::Open {
            path: path.clone(),
            source,
        })
    };
    let mut tls = ClientTlsConfig::new();
    if let Some(ca) = &options.ca {
        tls = tls.ca_certificate(Certificate::from_pem(read(ca)?));
    }
    if let Some((certificate, key)) = &options.certificate {
        tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    Ok(tls)
}

/// What was said, and what is behind it: of a connection that could not be made, the last of the causes says why.
fn told(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) && cause_text != "transport error" {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Whether only this host is meant.
fn local(endpoint: &str) -> bool {
    let Ok(uri) = endpoint.parse::<http::Uri>() else {
        return false;
    };
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(is_loopback)
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// For a member that hangs; renewing a lease takes less.
const CALL_TIMEOUT: Duration = Duration::from_millis(1500);
const KEEP_ALIVE: Duration = Duration::from_secs(2);
const MAX_ANSWER_BYTES: usize = 128 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn private_keys_do_not_cross_a_network_in_the_clear() {
        for (endpoint, right) in [
            ("http://127.0.0.1:2379", true),
            ("http://[::1]:2379", true),
            ("http://localhost:2379", true),
            ("https://10.0.0.1:2379", false),
            ("http://10.0.0.1:2379", false),
            ("http://etcd.example:2379", false),
            ("ftp://127.0.0.1", false),
            ("", false),
        ] {
            let options = EtcdOptions {
                endpoints: vec![endpoint.to_owned()],
                ..EtcdOptions::default()
            };
            assert_eq!(Client::new(&options).is_ok(), right, "{endpoint}");
        }
        assert!(Client::new(&EtcdOptions::default()).is_err());
    }
}
