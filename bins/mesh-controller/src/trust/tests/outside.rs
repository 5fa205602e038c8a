//! An outside authority that writes files, rightly and wrongly.

use std::{fs, path::Path};

use mesh_tls::ca::{Anchor, Issuer};

use super::*;

/// A program that keeps a root of its own, and writes what it makes.
struct Author {
    folder: tempfile::TempDir,
    root: Anchor,
    number: u32,
}

const YEAR: Duration = Duration::from_hours(24 * 365);

impl Author {
    fn new(now: SystemTime) -> Self {
        let author = Self {
            folder: tempfile::tempdir().unwrap(),
            root: Anchor::generate("outside 0", YEAR, now).unwrap(),
            number: 0,
        };
        author.write(&[&author.root], &author.issuer(now));
        author
    }

    fn source(&self) -> OutsideCa {
        OutsideCa {
            folder: self.folder.path().to_owned(),
            anchors: None,
        }
    }

    fn issuer(&self, now: SystemTime) -> Issuer {
        self.root.issuer("outside issuer", YEAR, now).unwrap()
    }

    /// Another root; the one of before.
    fn turn(&mut self, now: SystemTime) -> Anchor {
        self.number += 1;
        let next = Anchor::generate(&format!("outside {}", self.number), YEAR, now).unwrap();
        std::mem::replace(&mut self.root, next)
    }

    fn write(&self, anchors: &[&Anchor], issuer: &Issuer) {
        self.anchors(anchors);
        self.sign_with(issuer);
    }

    fn anchors(&self, anchors: &[&Anchor]) {
        let all: String = anchors.iter().map(|one| one.certificate_pem()).collect();
        self.put("ca.crt", &all);
    }

    fn sign_with(&self, issuer: &Issuer) {
        self.put("tls.crt", &issuer.chain_pem());
        self.put("tls.key", issuer.key_pem().expose());
    }

    fn put(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }
}

async fn world() -> (World, Author) {
    configured(settings()).await
}

async fn configured(settings: Settings) -> (World, Author) {
    let author = Author::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    let mut world = World::below(Some(author.source()), Dying::in_memory(), settings, 2).await;
    world.seconds(3).await;
    (world, author)
}

impl World {
    fn offered(&self) -> Standing {
        let (root, offered) = self.trust.root();
        assert_eq!(root, Some(Root::Outside));
        offered.unwrap().standing.unwrap()
    }

    /// What is refused, once it has settled; what is in force is as before.
    async fn refused(&mut self) -> String {
        let before = self.trust.record().rotation().active().clone();
        self.seconds(4).await;
        let offered = self.offered();
        assert_eq!(offered.word, "refused", "{offered:?}");
        assert_eq!(*self.trust.record().rotation().active(), before);
        assert!(self.rotation_ended());
        assert_eq!(self.trust.state(self.now).outside_refused, Some(true));
        offered.detail
    }

    fn issuers(&self) -> Vec<IssuerId> {
        let record = self.trust.record();
        record
            .rotation()
            .active()
            .issuers
            .values()
            .copied()
            .collect()
    }
}

fn id(anchor: &Anchor) -> AnchorId {
    Facts::from_der(anchor.certificate()).unwrap().anchor_id()
}

#[tokio::test]
async fn what_is_written_is_used_and_a_new_issuer_is_a_change_below_the_same_anchor() {
    let (mut world, author) = world().await;
    assert_eq!(world.anchor(), id(&author.root));
    assert_eq!(world.offered().word, "in force");
    let before = world.issuers();
    author.sign_with(&author.issuer(world.now));
    world.seconds(4).await;
    assert_eq!(world.offered().word, "changing");
    world.until_ended().await;
    world.seconds(2).await;
    assert_eq!(world.anchor(), id(&author.root));
    assert_ne!(world.issuers(), before);
    assert_eq!(world.offered().word, "in force");
    assert_eq!(world.refusals, [""; 0]);
    let refused = world.driver.proposal(false, world.now).await.unwrap_err();
    assert!(refused.to_string().contains("come from"), "{refused}");
    // Nor is its root's key taken, by whatever way it came here.
    let (pem, key) = (author.root.certificate_pem(), author.root.key_pem());
    let key = Anchor::from_pem(pem.as_bytes(), key.expose().as_bytes()).unwrap();
    let refused = world.asked(|answer| Request::BringBack(key, answer)).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("come from"), "{refused}");
}

/// The outage that everybody has once: the file of anchors has the new one only, from one moment to the next. `World::check` looks
/// at everybody each second.
#[tokio::test]
async fn an_anchor_swapped_without_overlap_stays_until_nobody_needs_it_twice_in_a_row() {
    let (mut world, mut author) = world().await;
    for _ in 0..2 {
        let old = author.turn(world.now);
        author.write(&[&author.root], &author.issuer(world.now));
        world.seconds(6).await;
        let record = world.trust.record();
        assert!(record.rotation().change().is_some());
        let both = world.trust.bundle().anchors().len();
        assert_eq!(both, 2, "the old one is given out as long as it is needed");
        assert_eq!(world.anchor(), id(&old));
        world.until_ended().await;
        world.seconds(2).await;
        assert_eq!(world.anchor(), id(&author.root));
        assert_eq!(world.trust.bundle().anchors().len(), 1);
        assert_eq!(world.offered().word, "in force");
    }
    assert_eq!(world.refusals, [""; 0]);
    assert_eq!(world.authorities().await.len(), 2);
}

#[tokio::test]
async fn whichever_file_comes_first_the_change_begins_with_the_last() {
    let (mut world, mut author) = world().await;
    // The anchors alone, with the old one.
    let old = author.turn(world.now);
    author.anchors(&[&old, &author.root]);
    world.seconds(4).await;
    assert_eq!(world.offered().word, "waits");
    assert!(world.offered().detail.contains("outside 1"));
    // The anchors alone, without: nobody signed the issuer any more.
    author.anchors(&[&author.root]);
    let why = world.refused().await;
    assert!(why.contains("tls.crt:1: issuer: no anchor in"), "{why}");
    assert!(why.contains("expected one of: CN=outside 1"), "{why}");
    author.sign_with(&author.issuer(world.now));
    world.seconds(4).await;
    world.until_ended().await;
    assert_eq!(world.anchor(), id(&author.root));
    // The issuer first.
    author.turn(world.now);
    author.sign_with(&author.issuer(world.now));
    let why = world.refused().await;
    assert!(why.contains("no anchor in"), "{why}");
    author.anchors(&[&author.root]);
    world.seconds(4).await;
    world.until_ended().await;
    assert_eq!(world.anchor(), id(&author.root));
    assert_eq!(world.refusals, [""; 0]);
}

#[tokio::test]
async fn what_is_wrong_is_named_with_its_file_and_changes_nothing() {
    let (mut world, author) = world().await;
    let good = author.issuer(world.now);
    // Half of a file.
    author.sign_with(&good);
    let half: String = good.chain_pem().chars().take(200).collect();
    author.put("tls.crt", &half);
    let why = world.refused().await;
    assert!(
        why.contains("tls.crt:1: PEM: a section has no end"),
        "{why}"
    );
    // Another's key.
    author.sign_with(&good);
    author.put("tls.key", author.issuer(world.now).key_pem().expose());
    let why = world.refused().await;
    assert!(
        why.contains("tls.key: private key: it is of another"),
        "{why}"
    );
    author.put("tls.key", "nothing");
    let why = world.refused().await;
    assert!(why.contains("tls.key: private key"), "{why}");
    // Too short: it would end before a change could.
    let short = author
        .root
        .issuer("short", Duration::from_mins(5), world.now);
    author.sign_with(&short.unwrap());
    let why = world.refused().await;
    assert!(why.contains("tls.crt:1: validity"), "{why}");
    assert!(why.contains("2027 +00:00 or later"), "{why}");
    // Ended long ago.
    let long_ago = world.now - YEAR * 2;
    let ended = Anchor::generate("ended", YEAR, long_ago).unwrap();
    let issuer = ended.issuer("ended issuer", YEAR, long_ago).unwrap();
    author.write(&[&author.root, &ended], &issuer);
    let why = world.refused().await;
    assert!(why.contains("ca.crt:") && why.contains("validity"), "{why}");
    // A leaf in the issuer's place.
    author.anchors(&[&author.root]);
    let leaf = world.proxies[0].leaf.as_ref().unwrap().chain()[0].clone();
    let pem = pem(&leaf);
    author.put("tls.crt", &pem);
    let why = world.refused().await;
    assert!(
        why.contains("basic constraints") && why.contains("CA:TRUE"),
        "{why}"
    );
    fs::remove_file(author.folder.path().join("tls.crt")).unwrap();
    let why = world.refused().await;
    assert!(why.contains("tls.crt: file: No such file"), "{why}");
    // And then it is right.
    author.sign_with(&good);
    world.seconds(4).await;
    world.until_ended().await;
    world.seconds(2).await;
    assert_eq!(world.offered().word, "in force");
    assert_eq!(world.refusals, [""; 0]);
}

#[tokio::test]
async fn another_certificate_of_the_same_key_is_no_new_issuer() {
    let (mut world, author) = world().await;
    let first = author.issuer(world.now);
    author.sign_with(&first);
    world.seconds(4).await;
    world.until_ended().await;
    let request = mesh_tls::ca::IssuerRequest::generate("again").unwrap();
    let sign = |now| {
        let csr = request.csr_pem().as_bytes();
        let chain = author.root.certify(csr, YEAR / 2, now).unwrap();
        author.put("tls.crt", &chain);
        author.put("tls.key", request.key_pem().expose());
    };
    sign(world.now);
    world.seconds(4).await;
    world.until_ended().await;
    sign(world.now);
    let why = world.refused().await;
    assert!(why.contains("rotationPolicy: Always"), "{why}");
}

#[tokio::test]
async fn no_freeze_keeps_an_anchor_whose_key_is_in_other_hands() {
    // The world begins at 08:00 UTC.
    let freeze = "freeze: [{from: '08:00', to: '20:00'}]";
    let (mut world, mut author) = configured(super::schedule::scheduled(freeze)).await;
    let old = author.turn(world.now);
    author.write(&[&author.root], &author.issuer(world.now));
    world.seconds(6).await;
    assert_eq!(world.offered().detail, "until the freeze ends");
    let taint = Event::Taint(id(&old));
    world.second(Some(Command::Event(Box::new(taint)))).await;
    world.seconds(2).await;
    assert_eq!(world.offered().word, "changing");
    world.until_ended().await;
    assert_eq!(world.anchor(), id(&author.root));
}

#[tokio::test]
async fn a_mounted_folder_moves_in_one_step() {
    let (mut world, mut author) = world().await;
    let mounted = tempfile::tempdir().unwrap();
    let version = |number: u32, author: &Author| {
        let at = mounted.path().join(format!("..v{number}"));
        fs::create_dir(&at).unwrap();
        for name in ["ca.crt", "tls.crt", "tls.key"] {
            fs::copy(author.folder.path().join(name), at.join(name)).unwrap();
        }
        link(mounted.path(), "..data", &format!("..v{number}"));
    };
    version(0, &author);
    for name in ["ca.crt", "tls.crt", "tls.key"] {
        link(mounted.path(), name, &format!("..data/{name}"));
    }
    world.outside = Some(OutsideCa {
        folder: mounted.path().to_owned(),
        anchors: None,
    });
    world.restart().await;
    world.seconds(4).await;
    assert_eq!(world.offered().word, "in force");
    author.turn(world.now);
    author.write(&[&author.root], &author.issuer(world.now));
    version(1, &author);
    fs::remove_dir_all(mounted.path().join("..v0")).unwrap();
    world.seconds(4).await;
    world.until_ended().await;
    assert_eq!(world.anchor(), id(&author.root));
}

#[tokio::test]
async fn a_mesh_that_made_its_own_root_goes_over_to_an_outside_one() {
    let mut world = World::new(2).await;
    world.seconds(3).await;
    let own = world.anchor();
    let author = Author::new(world.now);
    world.outside = Some(author.source());
    world.restart().await;
    world.seconds(4).await;
    assert_eq!(world.anchor(), own);
    world.until_ended().await;
    assert_eq!(world.anchor(), id(&author.root));
    assert_eq!(world.refusals, [""; 0]);
}

#[tokio::test]
async fn without_what_it_needs_a_new_mesh_does_not_begin() {
    let folder = tempfile::tempdir().unwrap();
    let source = OutsideCa {
        folder: folder.path().to_owned(),
        anchors: None,
    };
    let place = Place::sole(Dying::in_memory()).with_outside(Some(source));
    let opened = Trust::open(place, &settings(), SystemTime::now()).await;
    let error = opened.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("ca.crt: file:"), "{error}");
}

#[tokio::test]
async fn an_outside_authority_is_asked_for_no_cross_certificates() {
    let mut bridged = settings();
    bridged.rotation.bridges = true;
    let (mut world, mut author) = configured(bridged).await;
    author.turn(world.now);
    author.write(&[&author.root], &author.issuer(world.now));
    world.seconds(6).await;
    world.until_ended().await;
    assert_eq!(world.anchor(), id(&author.root));
}

/// Each is one that a change would be refused for; without a record there is nothing to go back to.
#[tokio::test]
async fn what_could_not_be_changed_to_is_nothing_to_begin_with() {
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, GeneralSubtree, IsCa, KeyPair,
        KeyUsagePurpose, NameConstraints,
    };
    type Flawed = fn(&mut CertificateParams, &mut CertificateParams);
    let constrained: Flawed = |root, _| {
        root.name_constraints = Some(NameConstraints {
            permitted_subtrees: Vec::new(),
            excluded_subtrees: vec![GeneralSubtree::DnsName("nowhere.example".to_owned())],
        });
    };
    let longer: Flawed = |root, issuer| {
        issuer.not_after = root.not_after.replace_year(2500).unwrap();
    };
    let tight: Flawed = |root, _| root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let sound: Flawed = |_, _| {};
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let store = Dying::in_memory();
    for (flaw, field) in [
        (constrained, "ca.crt:1: name constraints"),
        (longer, "tls.crt:1: validity"),
        (tight, "ca.crt:1: basic constraints"),
        (sound, ""),
    ] {
        let author = Author::new(now);
        let authority = |name: &str| {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            params.not_after = rcgen::date_time_ymd(2400, 1, 1);
            params
        };
        let (mut root, mut issuer) = (authority("root"), authority("issuer"));
        flaw(&mut root, &mut issuer);
        let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        author.put("ca.crt", &root.self_signed(&root_key).unwrap().pem());
        let above = rcgen::Issuer::from_params(&root, &root_key);
        author.put("tls.crt", &issuer.signed_by(&key, &above).unwrap().pem());
        author.put("tls.key", &key.serialize_pem());

        let place = Place::sole(store.clone()).with_outside(Some(author.source()));
        let opened = Trust::open(place, &settings(), now).await;
        if field.is_empty() {
            opened.unwrap();
            return;
        }
        let why = opened.map(|_| ()).unwrap_err().to_string();
        assert!(why.contains(field), "{field}: {why}");
        let kept = store.list("trust/anchor/", None, 9).await.unwrap();
        assert_eq!(kept.len(), 0, "{field}");
    }
}

fn link(folder: &Path, name: &str, to: &str) {
    let new = folder.join("..new");
    std::os::unix::fs::symlink(to, &new).unwrap();
    fs::rename(new, folder.join(name)).unwrap();
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let text = STANDARD.encode(certificate);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}
