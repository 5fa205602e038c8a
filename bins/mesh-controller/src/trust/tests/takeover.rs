//! Stores from before there was a record, and other trust domains.

use super::*;

/// As it was written before there was a record.
async fn legacy(store: &Dying, now: SystemTime) -> TrustBundle {
    let day = Duration::from_hours(24);
    let anchor = mesh_tls::ca::Anchor::generate("root.cluster.local", day * 3650, now).unwrap();
    let issuer = anchor
        .issuer("issuer.cluster.local", day * 365, now)
        .unwrap();
    let value = serde_json::json!({
        "anchor": anchor.certificate_pem(),
        "anchor_key": anchor.key_pem().expose(),
        "issuer": issuer.chain_pem(),
        "issuer_key": issuer.key_pem().expose(),
    });
    let value = serde_json::to_vec(&value).unwrap();
    store
        .put(record::LEGACY, Expected::Absent, value)
        .await
        .unwrap();
    TrustBundle::from_pem(1, anchor.certificate_pem().as_bytes()).unwrap()
}

#[tokio::test]
async fn the_authority_of_a_store_without_a_record_is_taken_over_and_its_leaves_are_waited_for() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    for at in -1..8 {
        let store = Dying::in_memory();
        let bundle = legacy(&store, now).await;
        if let Ok(at) = u64::try_from(at) {
            store.dies_at(at, false);
            let died = Trust::open(Place::sole(store.clone()), &settings(), now).await;
            assert!(died.is_err(), "write {at}");
            store.revive();
        }
        let mut world = World::on(store, settings(), 2).await;
        assert_eq!(world.trust.bundle().digest(), bundle.digest(), "write {at}");
        assert_eq!(world.store.get(record::LEGACY).await.unwrap(), None);
        if at < 0 {
            world.second(Some(ROTATE)).await;
            world.seconds(10).await;
            let gate = world.trust.record().rotation().gate(unix(world.now));
            assert!(
                gate.blockers()[0].to_string().contains("has not listed"),
                "{gate:?}"
            );
            world.until_ended().await;
        }
    }
}

#[tokio::test]
async fn identities_of_other_domains_are_refused_until_the_domain_changes() {
    let mut world = World::new(0).await;
    let domain = TrustDomain::parse("b.example").unwrap();
    let web = Identity::linkerd("web", "shop", "linkerd", &domain).unwrap();
    let ask = move || Ask {
        csr: LeafKey::generate().unwrap().csr(&web).unwrap(),
        identity: web.clone(),
        process: None,
        accepted: Shown::Local,
        joins: false,
    };
    let refused = world.trust.certify(ask()).await.unwrap_err();
    assert!(matches!(refused, CertifyError::Tls(_)), "{refused}");
    world.driver.follow_settings(Arc::new(Settings {
        trust_domain: domain,
        ..settings()
    }));
    world.second(None).await;
    let identity = world.trust.identity();
    assert!(identity.as_str().ends_with(".linkerd.b.example"));
    let trust = world.trust.clone();
    let asking = tokio::spawn(async move { trust.certify(ask()).await });
    tokio::task::yield_now().await;
    let request = world.driver.next_request().await;
    world.driver.turn(world.now, vec![request]).await.unwrap();
    asking.await.unwrap().unwrap();
}
