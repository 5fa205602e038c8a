//! A root's key that is elsewhere.

use mesh_tls::ca::Anchor;

use super::*;

const YEAR: Duration = Duration::from_hours(24 * 365);

impl World {
    /// What the driver answers in a turn of its own.
    pub(super) async fn asked<T>(
        &mut self,
        request: impl FnOnce(oneshot::Sender<Result<T, CommandError>>) -> Request,
    ) -> Result<T, CommandError> {
        let (answer, mut answered) = oneshot::channel();
        self.now += Duration::from_secs(1);
        self.driver
            .turn(self.now, vec![request(answer)])
            .await
            .unwrap();
        answered.try_recv().unwrap()
    }

    /// The same where the store may die in that turn.
    async fn tried<T>(
        &mut self,
        request: impl FnOnce(oneshot::Sender<Result<T, CommandError>>) -> Request,
    ) -> Result<T, CommandError> {
        let (answer, mut answered) = oneshot::channel();
        let turn = self.driver.turn(self.now, vec![request(answer)]).await;
        assert!(turn.is_ok() || self.store.is_dead());
        answered.try_recv().unwrap()
    }

    async fn exported(&mut self) -> Anchor {
        let (certificate, key) = self.asked(Request::ExportRoot).await.unwrap();
        Anchor::from_pem(certificate.as_bytes(), key.expose().as_bytes()).unwrap()
    }

    async fn remove(&mut self) -> Result<SystemTime, CommandError> {
        let anchor = self.anchor();
        self.asked(|answer| Request::RemoveRoot(anchor, answer))
            .await
    }

    async fn request(&mut self, anew: bool) -> String {
        let made = self.asked(|answer| Request::Issuer(anew, answer)).await;
        made.unwrap()
    }

    async fn import(&mut self, import: Import) -> Result<(), CommandError> {
        let command = Command::Import(Box::new(import));
        self.asked(|answer| Request::Command(command, answer)).await
    }

    async fn stored(&self) -> String {
        let all = self.store.list("trust/", None, 99).await.unwrap();
        let all = all.into_iter().map(|(_, stored)| stored.value);
        all.map(|value| String::from_utf8_lossy(&value).into_owned())
            .collect()
    }
}

fn import() -> Import {
    Import {
        anchor: String::new(),
        anchor_key: String::new().into(),
        issuer: String::new(),
        issuer_key: String::new().into(),
    }
}

fn issuer(certificate: &str) -> Import {
    Import {
        issuer: certificate.to_owned(),
        ..import()
    }
}

#[tokio::test]
async fn without_the_roots_key_it_works_on_and_takes_an_issuer_that_was_signed_offline() {
    let mut world = World::new(2).await;
    world.seconds(3).await;
    let root = world.exported().await;
    let needed = world.remove().await.unwrap();
    assert!(needed > world.now + Duration::from_hours(24 * 100));
    let key = root.key_pem();
    let secret = key.expose().lines().nth(1).unwrap();
    assert!(!world.stored().await.contains(secret));
    assert_eq!(world.trust.root().0, Some(Root::PutAway));
    assert_eq!(
        world.trust.state(world.now).issuer_needed,
        Some(unix(needed).0)
    );
    world.restart().await;
    world.seconds(70).await;
    assert_eq!(world.refusals, [""; 0]);
    let refused = world.driver.proposal(true, world.now).await.unwrap_err();
    assert!(refused.to_string().contains("is not here"), "{refused}");

    let csr = world.request(false).await;
    assert_eq!(world.request(false).await, csr, "one is out at a time");
    let signed = root.certify(csr.as_bytes(), YEAR, world.now).unwrap();
    let before = world.trust.record().rotation().active().issuers.clone();
    world.import(issuer(&signed)).await.unwrap();
    world.until_ended().await;
    let record = world.trust.record();
    assert_ne!(record.rotation().active().issuers, before);
    assert_eq!(record.rotation().last_outcome(), Some(Outcome::Completed));
    assert_ne!(world.request(false).await, csr, "it was used");
    assert_eq!(world.refusals, [""; 0]);

    // And back again. No other is.
    let other = Anchor::generate("other", YEAR, world.now).unwrap();
    let refused = world
        .asked(|answer| Request::BringBack(other, answer))
        .await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("is not the one in use"), "{refused}");
    let key = Anchor::from_pem(root.certificate_pem().as_bytes(), key.expose().as_bytes());
    let key = key.unwrap();
    world
        .asked(|answer| Request::BringBack(key, answer))
        .await
        .unwrap();
    assert_eq!(world.trust.root().0, Some(Root::Here));
    world.driver.proposal(true, world.now).await.unwrap();

    let record = world.trust.record();
    record.audit().verify(&Sha256).unwrap();
    let deeds = record.audit().recent().filter(|it| it.actor == "operator");
    let deeds: Vec<_> = deeds.map(|it| it.event.as_str()).collect();
    for deed in ["export root key", "remove root key", "root key back"] {
        assert!(deeds.contains(&deed), "{deeds:?}");
    }
}

#[tokio::test]
async fn the_key_stays_where_somebody_would_need_it() {
    let mut world = World::new(2).await;
    world.seconds(3).await;
    let stays = |refused: CommandError, word: &str| {
        let text = refused.to_string();
        assert!(text.contains(word), "{text}");
    };
    let other = AnchorId::new([1; 32]);
    let refused = world
        .asked(|answer| Request::RemoveRoot(other, answer))
        .await;
    stays(refused.unwrap_err(), "not that of the anchor in use");
    world.second(Some(ROTATE)).await;
    let refused = world.remove().await;
    stays(refused.unwrap_err(), "a change is underway");
    world.until_ended().await;
    // In the last third of its life the issuer is to be replaced.
    world.now += YEAR * 3 / 4;
    let refused = world.remove().await;
    stays(refused.unwrap_err(), "--issuer-only");
}

#[tokio::test]
async fn nobody_comes_and_the_mesh_does_not_end_with_its_issuer() {
    let mut world = World::new(2).await;
    world.seconds(3).await;
    let old = world.anchor();
    let needed = world.remove().await.unwrap();
    let (next, _) = world.trust.next_change(world.now).unwrap();
    assert_eq!(next.at, unix(needed));
    // Everybody is renewed before, in a year of minutes that nobody waits for.
    world.now = needed - Duration::from_secs(20);
    world.seconds(10).await;
    assert_eq!(world.anchor(), old);
    assert!(world.rotation_ended());
    world.seconds(15).await;
    assert!(!world.rotation_ended(), "another root is better than none");
}

#[tokio::test]
async fn an_anchor_that_was_made_elsewhere_is_taken_with_its_key_or_without() {
    let mut world = World::new(2).await;
    world.seconds(3).await;
    let root = Anchor::generate("ours", YEAR * 5, world.now).unwrap();
    let with_key = Import {
        anchor: root.certificate_pem(),
        anchor_key: root.key_pem().expose().to_owned().into(),
        ..import()
    };
    world.import(with_key).await.unwrap();
    world.until_ended().await;
    let id = Facts::from_der(root.certificate()).unwrap().anchor_id();
    assert_eq!(
        (world.anchor(), world.trust.root().0),
        (id, Some(Root::Here))
    );

    let next = Anchor::generate("ours too", YEAR * 5, world.now).unwrap();
    let csr = world.request(false).await;
    let signed = next.certify(csr.as_bytes(), YEAR, world.now).unwrap();
    let anchor = next.certificate_pem();
    // Not below the anchor in use.
    world.import(issuer(&signed)).await.unwrap_err();
    let without_key = Import {
        anchor,
        ..issuer(&signed)
    };
    world.import(without_key).await.unwrap();
    world.until_ended().await;
    let id = Facts::from_der(next.certificate()).unwrap().anchor_id();
    assert_eq!(
        (world.anchor(), world.trust.root().0),
        (id, Some(Root::PutAway))
    );
    assert_eq!(world.refusals, [""; 0]);
    let nothing = world.import(import()).await.unwrap_err().to_string();
    assert!(nothing.contains("neither"), "{nothing}");
}

#[tokio::test]
async fn an_import_that_is_refused_changes_nothing_that_signs() {
    let mut world = World::new(2).await;
    world.seconds(3).await;
    let root = Anchor::generate("ours", YEAR * 5, world.now).unwrap();
    let request = mesh_tls::ca::IssuerRequest::generate("issuer").unwrap();
    let below = |root: &Anchor, now| Import {
        anchor: root.certificate_pem(),
        issuer_key: request.key_pem().expose().to_owned().into(),
        ..issuer(
            &root
                .certify(request.csr_pem().as_bytes(), YEAR, now)
                .unwrap(),
        )
    };
    world.import(below(&root, world.now)).await.unwrap();
    world.until_ended().await;
    let before = world.stored().await;

    let other = Anchor::generate("theirs", YEAR * 5, world.now).unwrap();
    let refused = world.import(below(&other, world.now)).await.unwrap_err();
    assert!(refused.to_string().contains("is in use"), "{refused}");
    let again = Import {
        anchor: String::new(),
        ..below(&root, world.now - Duration::from_secs(60))
    };
    let refused = world.import(again).await.unwrap_err();
    assert!(refused.to_string().contains("is in use"), "{refused}");
    let keys = |stored: String| stored.matches("PRIVATE KEY").count();
    assert_eq!(keys(world.stored().await), keys(before));
    // Everybody is renewed, and `World::check` looks at what signed.
    world.seconds(70).await;
    assert_eq!(world.anchor(), id(&root));
    assert_eq!(world.refusals, [""; 0]);
}

#[tokio::test]
async fn a_key_that_could_not_be_removed_is_not_said_to_be() {
    let mut world = World::new(2).await;
    world.seconds(3).await;
    let root = world.exported().await;
    let key = root.key_pem();
    let secret = key.expose().lines().nth(1).unwrap();
    let anchor = world.anchor();
    let remove = |answer| Request::RemoveRoot(anchor, answer);
    world.store.dies_at(0, false);
    world.tried(remove).await.unwrap_err();
    world.store.revive();
    assert!(world.stored().await.contains(secret));
    world.tried(remove).await.unwrap();
    assert!(!world.stored().await.contains(secret));

    // The same on the way back.
    let back = |answer| {
        let key = Anchor::from_pem(root.certificate_pem().as_bytes(), key.expose().as_bytes());
        Request::BringBack(key.unwrap(), answer)
    };
    world.store.dies_at(0, false);
    world.tried(back).await.unwrap_err();
    world.store.revive();
    world.seconds(1).await;
    assert_eq!(world.trust.root().0, Some(Root::PutAway));
    world.tried(back).await.unwrap();
    assert!(world.stored().await.contains(secret));
}

#[tokio::test]
async fn no_change_waits_for_a_cross_certificate_that_nobody_can_make() {
    let mut world = World::new(2).await;
    world.seconds(3).await;
    world.remove().await.unwrap();
    // Only now somebody asks for them.
    world.settings.rotation.bridges = true;
    let settings = Arc::new(world.settings.clone());
    world.driver.follow_settings(settings);
    world.seconds(2).await;
    assert!(world.trust.asks_for_impossible_bridges());
    let next = Anchor::generate("ours", YEAR * 5, world.now).unwrap();
    let csr = world.request(false).await;
    let signed = next.certify(csr.as_bytes(), YEAR, world.now).unwrap();
    let without_key = Import {
        anchor: next.certificate_pem(),
        ..issuer(&signed)
    };
    let refused = world.import(without_key.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("bridges"), "{refused}");
    let with_key = Import {
        anchor_key: next.key_pem().expose().to_owned().into(),
        ..without_key
    };
    world.import(with_key).await.unwrap();
    world.until_ended().await;
    assert_eq!(world.anchor(), id(&next));
    // From here on both keys are.
    world.seconds(2).await;
    assert!(world.trust.record().rotation().settings().bridges);
    world.second(Some(ROTATE)).await;
    world.until_ended().await;
    assert_ne!(world.anchor(), id(&next));
    assert_eq!(world.refusals, [""; 0]);
}

#[tokio::test]
async fn the_key_of_the_anchor_in_use_is_not_dropped_in_silence() {
    let mut world = World::new(2).await;
    world.seconds(3).await;
    let root = world.exported().await;
    let csr = world.request(false).await;
    let signed = root.certify(csr.as_bytes(), YEAR, world.now).unwrap();
    let both = Import {
        anchor: root.certificate_pem(),
        anchor_key: root.key_pem().expose().to_owned().into(),
        ..issuer(&signed)
    };
    let refused = world.import(both).await.unwrap_err().to_string();
    assert!(refused.contains("taken back by itself"), "{refused}");
}

fn id(anchor: &Anchor) -> AnchorId {
    Facts::from_der(anchor.certificate()).unwrap().anchor_id()
}
