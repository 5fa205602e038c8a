//! Against a real etcd.

use std::{
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tokio::time;

use super::{lead::Candidate, *};

pub(crate) const TTL: Duration = Duration::from_secs(2);

/// One member, gone with this value.
pub(crate) struct Etcd {
    process: Child,
    data: tempfile::TempDir,
    url: String,
}

impl Etcd {
    /// None where etcd is not installed: the test is skipped, and says so.
    pub(crate) async fn start() -> Option<Self> {
        let (url, peers) = (free("http"), free("http"));
        let mut etcd = Self::member("one", url, &peers, &format!("one={peers}"), &[])?;
        let (store, _) = etcd.connect("a", "");
        answers(&store, std::slice::from_mut(&mut etcd)).await;
        Some(etcd)
    }

    fn member(name: &str, url: String, peers: &str, cluster: &str, more: &[&str]) -> Option<Self> {
        let data = tempfile::tempdir().unwrap();
        let log = std::fs::File::create(data.path().join("log")).unwrap();
        let process = Command::new("etcd")
            .args(["--name", name, "--data-dir"])
            .arg(data.path().join("data"))
            .args(["--listen-client-urls", &url])
            .args(["--advertise-client-urls", &url])
            .args(["--listen-peer-urls", peers])
            .args(["--initial-advertise-peer-urls", peers])
            .args(["--initial-cluster", cluster, "--unsafe-no-fsync"])
            .args(more)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let Ok(process) = process else {
            let why = "etcd is not installed (scripts/setup-tests)";
            assert!(std::env::var_os("MESH_TEST_REQUIRE").is_none(), "{why}");
            eprintln!("skipped: {why}");
            return None;
        };
        Some(Self { process, data, url })
    }

    pub(crate) fn connect(&self, name: &str, prefix: &str) -> (EtcdStore, Candidate) {
        EtcdStore::connect(&self.options(prefix), name, TTL).unwrap()
    }

    pub(crate) fn options(&self, prefix: &str) -> EtcdOptions {
        EtcdOptions {
            endpoints: vec![self.url.clone()],
            prefix: prefix.to_owned(),
            ..EtcdOptions::default()
        }
    }

    /// Stops it and lets it go on, as a host that hangs does.
    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([signal, &self.process.id().to_string()])
            .status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl EtcdStore {
    /// The same store, of a controller that sleeps through the end of this term and does not know it.
    pub(crate) fn believing(&self, term: Term) -> Self {
        let until = time::Instant::now() + Duration::from_mins(1);
        Self {
            term: watch::channel(Some(Term { until, ..term })).1,
            ..self.clone()
        }
    }
}

/// A candidate that runs until it is killed.
pub(crate) struct Running {
    pub(crate) store: EtcdStore,
    task: tokio::task::JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl Running {
    pub(crate) fn start(etcd: &Etcd, name: &str, prefix: &str) -> Self {
        Self::with_leases(etcd, name, prefix, TTL)
    }

    pub(crate) fn with_leases(etcd: &Etcd, name: &str, prefix: &str, ttl: Duration) -> Self {
        let (store, candidate) = EtcdStore::connect(&etcd.options(prefix), name, ttl).unwrap();
        let (stop, stopping) = watch::channel(false);
        let task = tokio::spawn(candidate.run(stopping));
        Self { store, task, stop }
    }

    pub(crate) async fn leads(&self) -> Term {
        let mut terms = self.store.terms();
        let led = terms.wait_for(|term| term.is_some_and(|term| term.holds()));
        let led = time::timeout(Duration::from_secs(20), led).await;
        led.expect("nobody leads").unwrap().unwrap()
    }

    /// As a process that is killed: its lease is not given back.
    pub(crate) fn kill(&self) {
        self.task.abort();
    }

    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap();
    }
}

#[tokio::test]
async fn only_the_writer_who_has_read_the_latest_writes() {
    let Some(etcd) = Etcd::start().await else {
        return;
    };
    let (store, _) = etcd.connect("a", "mesh/");
    let first = store.put("k", Expected::Absent, vec![1]).await.unwrap();
    let lost = store.put("k", Expected::Absent, vec![2]).await.unwrap_err();
    assert!(matches!(lost, StoreError::Conflict { found: Some(v), .. } if v == first));
    let second = store.put("k", Expected::At(first), vec![3]).await.unwrap();
    assert!(second > first);
    assert!(store.delete("k", first).await.is_err());
    assert_eq!(store.get("k").await.unwrap().unwrap().value, [3]);
    store.delete("k", second).await.unwrap();
    assert_eq!(store.get("k").await.unwrap(), None);
    let third = store.put("k", Expected::Absent, vec![4]).await.unwrap();
    assert!(third > second);
    let large = vec![0; EtcdStore::MAX_VALUE_BYTES + 1];
    let error = store.put("l", Expected::Absent, large).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { .. }), "{error}");
    let largest = vec![0; EtcdStore::MAX_VALUE_BYTES];
    store.put("l", Expected::Absent, largest).await.unwrap();
}

#[tokio::test]
async fn lists_by_prefix_in_order_and_in_pages() {
    let Some(etcd) = Etcd::start().await else {
        return;
    };
    let (store, _) = etcd.connect("a", "mesh/");
    let (other, _) = etcd.connect("a", "mesi/");
    assert!(store.list("t/", None, 9).await.unwrap().is_empty());
    for key in ["t/b", "s/z", "t/a", "t/c", "u/a"] {
        store.put(key, Expected::Absent, vec![]).await.unwrap();
        other.put(key, Expected::Absent, vec![]).await.unwrap();
    }
    for (after, limit, expected) in [
        (None, 9, vec!["t/a", "t/b", "t/c"]),
        (None, 2, vec!["t/a", "t/b"]),
        (Some("t/b"), 2, vec!["t/c"]),
    ] {
        let found = store.list("t/", after, limit).await.unwrap();
        let keys: Vec<_> = found.iter().map(|(key, _)| &**key).collect();
        assert_eq!(keys, expected);
    }
}

#[tokio::test]
async fn who_has_lost_the_lead_writes_nothing_even_if_it_does_not_know() {
    let Some(etcd) = Etcd::start().await else {
        return;
    };
    let first = Running::start(&etcd, "a", "mesh/");
    let old = first.leads().await;
    let leads = first.store.fenced();
    let version = leads.put("k", Expected::Absent, vec![1]).await.unwrap();
    // Its lease ends behind its back: it still believes that it leads.
    first.kill();
    let second = Running::start(&etcd, "b", "mesh/");
    let began = time::Instant::now();
    let new = second.leads().await;
    let took = began.elapsed();
    println!("the lead was taken {took:.1?} after its holder was killed, with leases of {TTL:?}");
    assert!(took < TTL * 2);
    assert!(new.created > old.created);
    let believer = leads.believing(old);
    let refused = believer.put("k", Expected::At(version), vec![2]).await;
    assert!(matches!(refused, Err(StoreError::Fenced)), "{refused:?}");
    let refused = believer.delete("k", version).await;
    assert!(matches!(refused, Err(StoreError::Fenced)), "{refused:?}");
    // It knows by its own clock as well, without asking.
    let refused = leads.put("k", Expected::At(version), vec![2]).await;
    assert!(matches!(refused, Err(StoreError::Fenced)), "{refused:?}");
    let leads = second.store.fenced();
    leads
        .put("k", Expected::At(version), vec![3])
        .await
        .unwrap();
    assert_eq!(second.store.leader().await.unwrap().as_deref(), Some("b"));
    assert_eq!(second.store.members().await.unwrap(), ["b"]);
}

/// With leases that end long after: who waited for one to end would not be done in time.
#[tokio::test]
async fn one_leads_and_the_next_takes_over_at_once_when_it_stops() {
    let Some(etcd) = Etcd::start().await else {
        return;
    };
    let ttl = Duration::from_secs(20);
    let mut left: Vec<_> = ["a", "b", "c"]
        .map(|name| Running::with_leases(&etcd, name, "mesh/", ttl))
        .into();
    let mut terms = Vec::new();
    while !left.is_empty() {
        let began = time::Instant::now();
        let at = loop {
            let leading: Vec<_> = left.iter().map(|one| one.store.term()).collect();
            assert!(leading.iter().flatten().count() <= 1, "{leading:?}");
            if let Some(at) = leading.iter().position(Option::is_some) {
                break at;
            }
            assert!(began.elapsed() < ttl / 2, "nobody leads");
            time::sleep(Duration::from_millis(20)).await;
        };
        println!("leads after {:.1?}, of a lease of {ttl:?}", began.elapsed());
        let one = left.remove(at);
        terms.push(one.store.term().unwrap().created);
        one.stop().await;
    }
    assert!(terms.is_sorted() && terms.len() == 3, "{terms:?}");
}

#[tokio::test]
async fn who_cannot_reach_etcd_stops_to_lead_before_its_lease_ends() {
    let Some(etcd) = Etcd::start().await else {
        return;
    };
    let one = Running::start(&etcd, "a", "mesh/");
    one.leads().await;
    etcd.signal("-STOP");
    let began = time::Instant::now();
    while one.store.term().is_some() {
        assert!(began.elapsed() < TTL + Duration::from_millis(200));
        time::sleep(Duration::from_millis(20)).await;
    }
    let refused = one.store.fenced().put("k", Expected::Absent, vec![]).await;
    assert!(matches!(refused, Err(StoreError::Fenced)), "{refused:?}");
    etcd.signal("-CONT");
    one.leads().await;
}

/// Where nobody else listens: the address is this process's by its number, and the port is below those that are given to
/// whoever asks for any.
fn free(scheme: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(FIRST_PORT);
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let port = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(port < 32_768, "too many for one process");
    format!("{scheme}://127.{}.{middle}.{low}:{port}", 128 + high % 64)
}

/// Until it does. Who has ended says why in its log.
async fn answers(store: &EtcdStore, members: &mut [Etcd]) {
    for _ in 0..400 {
        if store.get("x").await.is_ok() {
            return;
        }
        for one in &mut *members {
            if let Some(ended) = one.process.try_wait().unwrap() {
                let log = std::fs::read_to_string(one.data.path().join("log"));
                panic!("etcd ended ({ended}): {}", log.unwrap_or_default());
            }
        }
        time::sleep(Duration::from_millis(50)).await;
    }
    panic!("etcd does not answer");
}

/// Three members that know each other, each with its client's address.
async fn three_members() -> Option<(Vec<Etcd>, EtcdOptions)> {
    let members: Vec<_> = (0..3)
        .map(|n| (format!("m{n}"), free("http"), free("http")))
        .collect();
    let cluster: Vec<_> = members
        .iter()
        .map(|(name, _, peers)| format!("{name}={peers}"))
        .collect();
    let mut all = Vec::new();
    for (name, url, peers) in members {
        all.push(Etcd::member(&name, url, &peers, &cluster.join(","), &[])?);
    }
    let options = EtcdOptions {
        endpoints: all.iter().map(|one| one.url.clone()).collect(),
        prefix: "mesh/".to_owned(),
        ..EtcdOptions::default()
    };
    let (store, _) = EtcdStore::connect(&options, "x", TTL).unwrap();
    answers(&store, &mut all).await;
    Some((all, options))
}

#[tokio::test]
async fn a_member_that_is_lost_costs_a_moment_and_a_quorum_that_is_lost_the_lead() {
    let Some((mut members, options)) = three_members().await else {
        return;
    };
    // Members elect a leader among themselves in about as long as a short lease of ours.
    let ttl = Duration::from_secs(5);
    let (store, candidate) = EtcdStore::connect(&options, "a", ttl).unwrap();
    let (stop, stopping) = watch::channel(false);
    let task = tokio::spawn(candidate.run(stopping));
    let one = Running { store, task, stop };
    let first = one.leads().await;
    let leads = one.store.fenced();
    let mut version = leads.put("k", Expected::Absent, vec![0]).await.unwrap();
    // Which of them leads the others is not asked for: each is lost in turn, so the leader is among them.
    for lost in 0..3u8 {
        members[usize::from(lost)].signal("-STOP");
        let began = time::Instant::now();
        let mut failed = 0u32;
        version = loop {
            match leads.put("k", Expected::At(version), vec![lost]).await {
                Ok(version) => break version,
                // It may have taken effect, and its answer been lost.
                Err(StoreError::Conflict {
                    found: Some(found), ..
                }) => break found,
                Err(error) => {
                    failed += 1;
                    assert!(failed < 3, "{error}");
                    time::sleep(Duration::from_millis(100)).await;
                }
            }
        };
        let took = began.elapsed();
        println!("member {lost} hangs: written {took:.1?} later, after {failed} failures");
        assert!(took < ttl, "{took:?}");
        members[usize::from(lost)].signal("-CONT");
        time::sleep(Duration::from_secs(2)).await;
    }
    let last = one.leads().await;
    println!("terms: {} and {}", first.created, last.created);
    // Of two of three, nothing is left to agree with.
    members.truncate(1);
    let began = time::Instant::now();
    while one.store.term().is_some() {
        // The one that is left renews leases until it sees that it is alone.
        assert!(began.elapsed() < ttl * 2, "it still leads");
        time::sleep(Duration::from_millis(50)).await;
    }
    println!(
        "without a quorum it led for {:.1?} more, of a lease of {ttl:?}",
        began.elapsed()
    );
    let refused = leads.put("k", Expected::At(version), vec![9]).await;
    assert!(matches!(refused, Err(StoreError::Fenced)), "{refused:?}");
}

/// Whose call took the lead, and who never heard so, does not lead by a lease that nobody renews.
#[tokio::test]
async fn a_lead_of_an_earlier_lease_is_waited_for() {
    let Some(etcd) = Etcd::start().await else {
        return;
    };
    let (store, candidate) = etcd.connect("one", "mesh/");
    let granted = store.client.grant(2).await.unwrap();
    let took = candidate.campaign(granted.id).await.unwrap();
    assert!(took.is_some());
    let other = store.client.grant(20).await.unwrap();
    assert_eq!(candidate.campaign(other.id).await.unwrap(), None);
    assert_eq!(candidate.campaign(granted.id).await.unwrap(), took);
    let began = time::Instant::now();
    let led = loop {
        if let Some(led) = candidate.campaign(other.id).await.unwrap() {
            break led;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "never");
        time::sleep(Duration::from_millis(100)).await;
    };
    assert!(Some(led) > took);
}

/// Certificates of one authority, as files.
struct Authority {
    folder: tempfile::TempDir,
    params: rcgen::CertificateParams,
    key: rcgen::KeyPair,
}

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let folder = tempfile::tempdir().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        Self {
            folder,
            params,
            key,
        }
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// The paths of a certificate of this name and of its key.
    fn certificate(&self, name: &str) -> (std::path::PathBuf, std::path::PathBuf) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let issuer = rcgen::Issuer::from_params(&self.params, &self.key);
        let signed = params.signed_by(&key, &issuer).unwrap();
        let (certificate, private) = (
            self.file(&format!("{name}.pem")),
            self.file(&format!("{name}.key")),
        );
        std::fs::write(&certificate, signed.pem()).unwrap();
        std::fs::write(&private, key.serialize_pem()).unwrap();
        (certificate, private)
    }
}

#[tokio::test]
async fn over_tls_each_side_knows_the_other_or_it_says_why_not() {
    let (url, peers) = (free("https"), free("http"));
    let address: http::Uri = url.parse().unwrap();
    let authority = Authority::new();
    let (certificate, key) = authority.certificate(address.host().unwrap());
    let text = |path: &std::path::Path| path.display().to_string();
    let (certificate, key, ca) = (
        text(&certificate),
        text(&key),
        text(&authority.file("ca.pem")),
    );
    let tls = [
        "--cert-file",
        &certificate,
        "--key-file",
        &key,
        "--trusted-ca-file",
        &ca,
        "--client-cert-auth",
    ];
    let cluster = format!("one={peers}");
    let Some(etcd) = Etcd::member("one", url, &peers, &cluster, &tls) else {
        return;
    };
    let right = EtcdOptions {
        ca: Some(authority.file("ca.pem")),
        certificate: Some(authority.certificate("controller.test")),
        ..etcd.options("mesh/")
    };
    let connect = |options: &EtcdOptions| EtcdStore::connect(options, "a", TTL).unwrap().0;
    let mut all = [etcd];
    let store = connect(&right);
    answers(&store, &mut all).await;
    store.put("k", Expected::Absent, vec![1]).await.unwrap();
    assert_eq!(store.get("k").await.unwrap().unwrap().value, [1]);

    let other = Authority::new();
    let of_another = EtcdOptions {
        ca: Some(other.file("ca.pem")),
        ..right.clone()
    };
    let unknown = EtcdOptions {
        certificate: Some(other.certificate("controller.test")),
        ..right.clone()
    };
    let nobody = EtcdOptions {
        certificate: None,
        ..right.clone()
    };
    for (options, what, why) in [
        (of_another, "the wrong CA", "invalid peer certificate"),
        (unknown, "a certificate that etcd does not know", ""),
        (nobody, "no certificate", ""),
    ] {
        let error = connect(&options).get("k").await.unwrap_err().to_string();
        println!("{what}: {error}");
        assert!(error.contains(&all[0].url), "{what}: {error}");
        assert!(error.contains(why), "{what}: {error}");
    }
    let missing = EtcdOptions {
        ca: Some("nowhere.pem".into()),
        ..right
    };
    let error = EtcdStore::connect(&missing, "a", TTL).unwrap_err();
    assert!(error.to_string().contains("nowhere.pem"), "{error}");
}

const FIRST_PORT: u32 = 10_000;

#[tokio::test]
async fn whoever_leads_has_etcd_forget_what_was_changed_before() {
    let Some(etcd) = Etcd::start().await else {
        return;
    };
    let (store, _) = etcd.connect("a", "mesh/");
    let secret = store.put("k", Expected::Absent, vec![1]).await.unwrap();
    store.put("k", Expected::At(secret), vec![]).await.unwrap();
    let at_that_time = || {
        store.client.range(RangeRequest {
            key: store.key("k").into_bytes(),
            revision: secret.0.cast_signed(),
            ..RangeRequest::default()
        })
    };
    assert_eq!(at_that_time().await.unwrap().kvs[0].value, [1]);

    let options = EtcdOptions {
        compact_every: Some(Duration::from_millis(50)),
        ..etcd.options("mesh/")
    };
    let (_, candidate) = EtcdStore::connect(&options, "a", TTL).unwrap();
    let (_stop, stopping) = watch::channel(false);
    let task = tokio::spawn(candidate.run(stopping));
    let forgotten = async {
        while at_that_time().await.is_ok() {
            time::sleep(Duration::from_millis(20)).await;
        }
        at_that_time().await.unwrap_err().to_string()
    };
    let why = time::timeout(Duration::from_secs(20), forgotten).await;
    let why = why.expect("it is kept for ever");
    assert!(why.contains("compacted"), "{why}");
    assert_eq!(store.get("k").await.unwrap().unwrap().value, [0; 0]);
    task.abort();
}
