//! Probe handshakes with those who read roots only at start, and so say nothing of them: whether they accept a certificate of the
//! new issuer is seen by calling them with one, as a peer would.
//!
//! In TLS 1.3 a client is done before the server has judged its certificate. So HTTP/2 is begun after the handshake: its first
//! frame comes from the workload's proxy, and the application hears nothing. Only what came back counts as acceptance.

use std::{
    net::SocketAddr,
    sync::{MutexGuard, PoisonError},
};

use mesh_discovery::Protocol;
use mesh_tls::{Error, TlsClient};
use mesh_trust_rotation::{Evidence, Source};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::*;

/// Where those can be called who prove an identity: all of them, on a port where HTTP may be spoken.
pub(in crate::trust) type Targets = BTreeMap<WorkloadId, Vec<SocketAddr>>;

/// What was seen, until the driver takes it.
#[derive(Debug, Default)]
pub(in crate::trust) struct Probed(Mutex<BTreeMap<WorkloadId, Seen>>);

impl Probed {
    /// As if somebody had been called with a leaf of this anchor, and had one of this issuer, or refused.
    #[cfg(test)]
    pub(in crate::trust) fn saw(
        &self,
        id: WorkloadId,
        anchor: AnchorId,
        at: SystemTime,
        accepted: Option<IssuerId>,
    ) {
        let refused = || Failure::Refused("unknown authority".to_owned());
        let outcome = accepted.ok_or_else(refused);
        let seen = Seen {
            anchor,
            at,
            outcome,
        };
        self.lock().insert(id, seen);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<WorkloadId, Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Seen {
    anchor: AnchorId,
    at: SystemTime,
    /// By whom what it presents was signed; or why its acceptance was not seen.
    outcome: Result<IssuerId, Failure>,
}

#[derive(Debug)]
enum Failure {
    /// It said that it does not believe the certificate.
    Refused(String),
    /// It could not be tried.
    Unknown(String),
}

/// Calls with a certificate of the new issuer. The stores live as long as the calls.
#[derive(Debug)]
struct Caller {
    tls: TlsClient,
    _stores: (TrustWriter, CredentialWriter),
}

impl Driver {
    /// Calls those who are to be probed, each every few seconds as long as a change is underway.
    ///
    /// # Errors
    /// [`TrustError::Tls`], if there is no certificate to call with.
    pub(super) fn probe(&mut self, now: SystemTime) -> Result<(), TrustError> {
        let rotation = self.stored.record.rotation();
        let Some(change) = rotation.change() else {
            self.unconvinced.clear();
            return Ok(());
        };
        let to = change.to.anchor;
        let issuer = change.to.issuers.get(&self.cluster).copied();
        let due = change.kind == Kind::Anchor && change.phase > Phase::Preflight;
        let (true, true, Some(issuer)) = (self.leads, due, issuer) else {
            return Ok(());
        };
        let silent: Vec<WorkloadId> = rotation
            .consumers()
            .iter()
            .filter(|(_, known)| known.class == Class::StartOnly)
            .filter(|(_, known)| matches!(known.standing, Standing::Required))
            .map(|(id, _)| id.clone())
            .collect();
        let mut caller = None;
        for id in silent {
            let Some(addresses) = self.targets.get(&id).cloned() else {
                continue;
            };
            let Ok(identity) = Identity::parse(id.as_str()) else {
                continue;
            };
            if !self.asks(&id, Order::Probe(to), unix(now)) {
                continue;
            }
            let caller = match &caller {
                Some(caller) => Arc::clone(caller),
                None => {
                    let made = Arc::new(self.caller(issuer, now)?);
                    caller = Some(Arc::clone(&made));
                    made
                }
            };
            let shared = self.shared.clone();
            tokio::spawn(async move {
                let outcome = call_all(&caller.tls, &identity, &addresses).await;
                let seen = Seen {
                    anchor: to,
                    at: SystemTime::now(),
                    outcome,
                };
                shared.probed.lock().insert(id, seen);
                shared.wake.notify_one();
            });
        }
        Ok(())
    }

    fn caller(&self, issuer: IssuerId, now: SystemTime) -> Result<Caller, TrustError> {
        let authority = self.keys.authority(issuer);
        let authority = authority.ok_or(TrustError::NoIssuer { issuer })?;
        let identity = self.shared.live.load().identity.clone();
        let key = LeafKey::generate()?;
        // It never leaves this process, and nobody depends on it: it is in no ledger.
        let leaf = authority.issue(&key.csr(&identity)?, &identity, LIFE, now)?;
        let (credentials, own) = credential_store();
        credentials.set(key.credentials(leaf.into_chain())?);
        let (bundle, trust) = trust_store((*self.own.bundle.load()).clone());
        Ok(Caller {
            tls: Tls::new(trust, own).client(&[]),
            _stores: (bundle, credentials),
        })
    }

    /// What was seen since the last time, in the machine's words.
    pub(super) fn probed(&mut self) -> Vec<Event> {
        let seen = std::mem::take(&mut *self.shared.probed.lock());
        let mut events = Vec::new();
        for (id, seen) in seen {
            let consumers = self.stored.record.rotation().consumers();
            let Some(known) = consumers.get(&id) else {
                continue;
            };
            let mut incarnation = known.incarnation;
            let accepted = known.probed.contains_key(&seen.anchor);
            let at = unix(seen.at);
            let restarted = match &seen.outcome {
                // It reads roots only at start. So whoever thinks better of it is another process.
                Ok(_) => self.unconvinced.remove(&id),
                Err(Failure::Refused(why)) => {
                    if self.unconvinced.insert(id.clone()) {
                        warn!(%id, why, "does not accept the new anchor: start it again with the anchors of the day");
                    }
                    accepted
                }
                Err(Failure::Unknown(why)) => {
                    info!(%id, why, "cannot be probed");
                    continue;
                }
            };
            if restarted {
                incarnation = Incarnation(incarnation.0 + 1);
                events.push(Event::Joined {
                    workload: id.clone(),
                    cluster: self.cluster.clone(),
                    class: Class::StartOnly,
                    incarnation,
                });
            }
            if let Ok(issuer) = seen.outcome {
                events.push(evidence(&id, incarnation, seen.anchor, issuer, at, seen.at));
            }
        }
        events
    }
}

fn evidence(
    id: &WorkloadId,
    incarnation: Incarnation,
    anchor: AnchorId,
    issuer: IssuerId,
    at: UnixTime,
    seen: SystemTime,
) -> Event {
    let since = seen.duration_since(SystemTime::UNIX_EPOCH);
    let micros = since.unwrap_or_default().as_micros();
    let report = Report {
        // Later is higher, also for the next controller.
        sequence: u64::try_from(micros).unwrap_or(u64::MAX),
        at,
        loaded: None,
        leaf: Some((issuer, at)),
        connections: Connections::Unknown,
    };
    let evidence = Evidence {
        workload: id.clone(),
        incarnation,
        source: Source::Probe(anchor),
        report,
    };
    Event::Evidence {
        peer: id.clone(),
        evidence,
    }
}

/// Where everybody in the manifests can be called.
pub(super) fn targets(mesh: &Mesh) -> Targets {
    let mut targets = Targets::new();
    let registry = mesh.registry().read();
    for workload in registry.workloads() {
        let Some(identity) = workload.identity().and_then(|id| Identity::parse(id).ok()) else {
            continue;
        };
        let ports = workload.ports();
        let port = ports
            .iter()
            .filter(|port| !matches!(port.protocol, Protocol::Opaque | Protocol::Tls))
            .map(|port| port.mesh_port.unwrap_or(port.port))
            .next();
        let all = targets.entry(consumers::start_only(&identity)).or_default();
        for address in workload.addresses() {
            // Where nothing is served, its proxy takes up a connection to itself.
            all.push((address, port.unwrap_or(INBOUND_PORT)).into());
        }
    }
    targets
}

/// Calls all that prove an identity; they accept it when each does. Otherwise one who does not is named.
async fn call_all(
    tls: &TlsClient,
    identity: &Identity,
    addresses: &[SocketAddr],
) -> Result<IssuerId, Failure> {
    let mut issuers = BTreeSet::new();
    for address in addresses {
        let called = timeout(PATIENCE, call(tls, identity, *address)).await;
        let called =
            called.unwrap_or_else(|_| Err(Failure::Unknown(format!("{address} says nothing"))));
        issuers.insert(called?);
    }
    let mut issuers = issuers.into_iter();
    match (issuers.next(), issuers.next()) {
        (Some(issuer), None) => Ok(issuer),
        (None, _) => Err(Failure::Unknown("its address is not known".to_owned())),
        _ => Err(Failure::Unknown(
            "its workloads present leaves of several issuers".to_owned(),
        )),
    }
}

async fn call(
    tls: &TlsClient,
    identity: &Identity,
    address: SocketAddr,
) -> Result<IssuerId, Failure> {
    let unknown = |error: &dyn std::error::Error| Failure::Unknown(format!("{address}: {error}"));
    let stream = TcpStream::connect(address).await;
    let stream = stream.map_err(|error| unknown(&error))?;
    let connected = tls.connect_verified(stream, identity, None).await;
    let (mut stream, keys) = connected.map_err(|error| match error {
        Error::PeerRefused { .. } => Failure::Refused(format!("{address}: {error}")),
        error => unknown(&error),
    })?;
    let judged = async {
        stream.write_all(HTTP2).await?;
        stream.read_u8().await
    };
    match judged.await {
        Ok(_) => Ok(IssuerId::new(*keys.issuer.as_bytes())),
        Err(error) => match Error::from(error) {
            error @ Error::PeerRefused { .. } => {
                Err(Failure::Refused(format!("{address}: {error}")))
            }
            error => Err(unknown(&error)),
        },
    }
}

/// The beginning of every HTTP/2 connection (RFC 9113, section 3.4), with no settings.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// As Linkerd has it.
const INBOUND_PORT: u16 = 4143;
const PATIENCE: Duration = Duration::from_secs(3);
const LIFE: Duration = Duration::from_mins(1);
