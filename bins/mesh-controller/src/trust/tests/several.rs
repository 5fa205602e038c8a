//! Several controllers on one etcd, a real one: one drives, any serves, and none acts that does not lead.

use super::*;
use crate::store::{
    StoreError,
    etcd::tests::{Etcd, Running, TTL},
};

/// A controller among several, and the proxies that are on its streams.
pub(super) struct Controller {
    name: String,
    pub(super) running: Running,
    pub(super) trust: Trust,
    pub(super) driver: Driver,
    pub(super) proxies: Vec<Proxy>,
}

impl Controller {
    async fn start(etcd: &Etcd, name: &str, now: SystemTime) -> Self {
        let running = Running::start(etcd, name, "mesh/");
        let place = Place::among_several(running.store.clone(), name.to_owned());
        Self::open(running, place, &settings(), now).await
    }

    pub(super) async fn open(
        running: Running,
        place: Place,
        settings: &Settings,
        now: SystemTime,
    ) -> Self {
        // Of several on an empty store, the one who leads makes what the others wait for.
        if running.store.get(record::KEY).await.unwrap().is_none() {
            running.leads().await;
        }
        let name = place.election.as_ref().unwrap().name.clone();
        let (trust, driver) = Trust::open(place, settings, now).await.unwrap();
        Self {
            name,
            running,
            trust,
            driver,
            proxies: Vec::new(),
        }
    }

    pub(super) fn leads(&self) -> bool {
        self.running.store.term().is_some()
    }

    /// Takes a turn with what its proxies say and ask; what the driver said of it.
    pub(super) async fn turn(
        &mut self,
        now: SystemTime,
        command: Option<Command>,
    ) -> Result<(), TrustError> {
        let life = self.trust.shared.live.load().settings.leaf_lifetime;
        let Asked {
            batch,
            answers,
            told,
        } = Asked::of(&mut self.proxies, command, &self.trust, life, now);
        let done = self.driver.turn(now, batch).await;
        for (number, mut answered) in answers {
            if let Ok(Ok(leaf)) = answered.try_recv() {
                let proxy = &mut self.proxies[number];
                proxy.leaf = Some(proxy.key.credentials(leaf.into_chain()).unwrap());
                proxy.wanted = false;
            }
        }
        if let Some(mut told) = told {
            match told.try_recv() {
                Ok(Err(CommandError::Failed(error))) => return Err(error),
                // Its turn failed, and it was not taken.
                Err(_) if done.is_err() => {}
                other => other.unwrap().unwrap(),
            }
        }
        done
    }
}

/// The names of private keys that the store has, and of those that the record knows: of anchors and of issuers.
pub(super) async fn keys(one: &Controller) -> [Vec<String>; 2] {
    let mut stored = Vec::new();
    for prefix in ["trust/anchor/", "trust/issuer/"] {
        let found = one.running.store.list(prefix, None, 999).await.unwrap();
        stored.extend(found.into_iter().map(|(key, _)| key));
    }
    let record = one.trust.record();
    let rotation = record.rotation();
    let anchors = rotation.anchors().keys();
    let issuers = rotation.issuers().keys();
    let known = anchors.map(|id| format!("trust/anchor/{id}"));
    let known = known.chain(issuers.map(|id| format!("trust/issuer/{id}")));
    [stored, known.collect()]
}

/// What anybody presents verifies under what anybody uses, whichever controller gave it.
fn check(all: &[Controller], now: SystemTime) {
    let proxies = || all.iter().flat_map(|one| &one.proxies);
    for one in proxies() {
        let Some(leaf) = &one.leaf else { continue };
        for other in proxies() {
            leaf.verify(&other.bundle, now).unwrap();
        }
        for controller in all {
            leaf.verify(&controller.trust.bundle(), now).unwrap();
        }
    }
}

async fn second(all: &mut [Controller], now: &mut SystemTime) {
    *now += Duration::from_secs(1);
    for one in all.iter_mut() {
        // Who has just lost the lead is told so by the store; it follows from its next turn on.
        match one.turn(*now, None).await {
            Ok(()) | Err(TrustError::Store(StoreError::Fenced)) => {}
            Err(error) => panic!("{}: {error}", one.name),
        }
    }
    assert!(all.iter().filter(|one| one.leads()).count() <= 1);
    check(all, *now);
}

pub(super) fn phase(all: &[Controller]) -> Option<Phase> {
    let record = all[0].trust.record();
    record.rotation().change().map(|change| change.phase)
}

#[tokio::test]
async fn only_who_leads_holds_the_roots_key_and_says_where_it_is() {
    let Some(etcd) = Etcd::start().await else {
        return;
    };
    let mut now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let mut all = Vec::new();
    for name in ["a", "b"] {
        all.push(Controller::start(&etcd, name, now).await);
    }
    for _ in 0..3 {
        second(&mut all, &mut now).await;
    }
    let at = all.iter().position(Controller::leads).unwrap();
    let follower = 1 - at;
    let anchor = all[at].trust.record().rotation().active().anchor;
    assert_eq!(all[at].trust.root().0, Some(Root::Here));
    assert_eq!(all[follower].trust.root().0, None);
    assert!(!all[follower].driver.keys.signs(anchor));
    for request in ["export", "plan"] {
        let (exported, mut export) = oneshot::channel();
        let (planned, mut plan) = oneshot::channel();
        let batch = vec![Request::ExportRoot(exported), Request::Plan(true, planned)];
        all[follower].driver.turn(now, batch).await.unwrap();
        let answer = match request {
            "export" => export.try_recv().unwrap().map(|_| ()),
            _ => plan.try_recv().unwrap().map(|_| ()),
        };
        let refused = answer.unwrap_err().to_string();
        assert!(refused.contains("does not lead"), "{request}: {refused}");
    }
    // It is put away, and the other takes over.
    let (answer, mut removed) = oneshot::channel();
    let batch = vec![Request::RemoveRoot(anchor, answer)];
    all[at].driver.turn(now, batch).await.unwrap();
    removed.try_recv().unwrap().unwrap();
    all.remove(at).running.kill();
    while !all[0].leads() {
        second(&mut all, &mut now).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    second(&mut all, &mut now).await;
    assert_eq!(all[0].trust.root().0, Some(Root::PutAway));
}

#[tokio::test]
async fn one_drives_any_serves_and_another_takes_over_when_it_is_killed() {
    let Some(etcd) = Etcd::start().await else {
        return;
    };
    let mut now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let mut all = Vec::new();
    for name in ["a", "b", "c"] {
        all.push(Controller::start(&etcd, name, now).await);
    }
    for (number, one) in all.iter_mut().enumerate() {
        for proxy in 0..2 {
            let mut proxy = Proxy::new(&format!("web-{number}-{proxy}"), &one.trust);
            proxy.connect(&one.trust);
            one.proxies.push(proxy);
        }
    }
    for _ in 0..3 {
        second(&mut all, &mut now).await;
    }
    assert!(
        all.iter()
            .all(|one| one.proxies.iter().all(|proxy| proxy.leaf.is_some()))
    );
    let known = all[0].trust.record().rotation().consumers().len();
    assert_eq!(
        known, 9,
        "three controllers and six proxies, whoever they are on"
    );

    let mut killed = Vec::new();
    for rotation in 1..=2 {
        let at = all.iter().position(Controller::leads).unwrap();
        let follower = (at + 1) % all.len();
        let refused = all[follower].turn(now, Some(ROTATE)).await.unwrap_err();
        let leader = all[at].name.clone();
        assert!(
            refused.to_string().contains(&format!("{leader} does")),
            "{refused}"
        );
        let before = all[at].trust.record().rotation().active().anchor;
        all[at].turn(now, Some(ROTATE)).await.unwrap();
        // Killed in the middle: of all three, then of the two that are left.
        while phase(&all) < Some(Phase::LeafConverged) {
            second(&mut all, &mut now).await;
        }
        let gone = all.remove(at);
        gone.running.kill();
        let at_death = phase(&all);
        let began = tokio::time::Instant::now();
        all[0].proxies.extend(gone.proxies);
        for one in &mut all {
            for proxy in &mut one.proxies {
                proxy.connect(&one.trust);
            }
        }
        while !all.iter().any(Controller::leads) {
            assert_eq!(phase(&all), at_death, "nobody leads and something advances");
            second(&mut all, &mut now).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let took = began.elapsed();
        assert!(took < TTL * 2, "{took:?}");
        println!(
            "rotation {rotation}: `{leader}` killed in {:?}; another led {took:.1?} later (lease {TTL:?})",
            at_death.unwrap()
        );
        killed.push(leader);
        let mut seconds = 0;
        while phase(&all).is_some() {
            second(&mut all, &mut now).await;
            seconds += 1;
            assert!(
                seconds < 900,
                "{:#?}",
                all[0].trust.record().rotation().gate(unix(now))
            );
        }
        for _ in 0..3 {
            second(&mut all, &mut now).await;
        }
        let record = all[0].trust.record();
        let rotation = record.rotation();
        assert_eq!(rotation.last_outcome(), Some(Outcome::Completed));
        assert_ne!(rotation.active().anchor, before);
        let consumers: Vec<_> = rotation
            .consumers()
            .keys()
            .map(ToString::to_string)
            .collect();
        for dead in &killed {
            let dead = format!("mesh-controller/{dead}");
            assert!(!consumers.contains(&dead), "{consumers:?}");
        }
        for one in &all {
            assert_eq!(one.trust.bundle().anchors().len(), 1, "{}", one.name);
            for proxy in &one.proxies {
                assert_eq!(proxy.bundle.anchors().len(), 1);
            }
        }
        record.audit().verify(&Sha256).unwrap();
        let [stored, known] = keys(&all[0]).await;
        assert_eq!(stored, known);
    }
}

#[tokio::test]
async fn who_follows_holds_the_cross_certificates_of_every_change() {
    let Some(etcd) = Etcd::start().await else {
        return;
    };
    let mut now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let mut settings = settings();
    settings.rotation.bridges = true;
    let mut all = Vec::new();
    for name in ["a", "b"] {
        let running = Running::start(&etcd, name, "mesh/");
        let place = Place::among_several(running.store.clone(), name.to_owned());
        all.push(Controller::open(running, place, &settings, now).await);
    }
    for (number, one) in all.iter_mut().enumerate() {
        let mut proxy = Proxy::new(&format!("web-{number}"), &one.trust);
        proxy.connect(&one.trust);
        one.proxies.push(proxy);
    }
    for _ in 0..3 {
        second(&mut all, &mut now).await;
    }
    for _ in 0..3 {
        let at = all.iter().position(Controller::leads).unwrap();
        all[at].turn(now, Some(ROTATE)).await.unwrap();
        let mut most = 0;
        while phase(&all).is_some() {
            for one in &all {
                let record = one.trust.record();
                let made = record.rotation().bridges();
                let held = made.map(|made| one.driver.keys.cross(made).is_some());
                let held: Vec<bool> = held.collect();
                assert!(!held.contains(&false), "{}: {held:?}", one.name);
                most = most.max(held.len());
            }
            second(&mut all, &mut now).await;
        }
        assert_eq!(most, 2, "one each way");
    }
}

#[tokio::test]
async fn of_two_that_believe_they_lead_one_does_nothing() {
    let Some(etcd) = Etcd::start().await else {
        return;
    };
    let mut now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let mut first = Controller::start(&etcd, "a", now).await;
    let mut second = Controller::start(&etcd, "b", now).await;
    now += Duration::from_secs(1);
    first.turn(now, None).await.unwrap();
    assert!(first.leads() && !second.leads());
    // The first sleeps through the end of its lease, and wakes up in the belief that it leads.
    let term = first.running.store.term().unwrap();
    first.running.kill();
    second.running.leads().await;
    let believer = first.running.store.believing(term);
    first
        .driver
        .use_place(Place::among_several(believer, "a".to_owned()));
    let before = second.running.store.get(record::KEY).await.unwrap();
    now += Duration::from_secs(1);
    // The record does not say yet that another leads. The store does.
    let refused = first.turn(now, Some(ROTATE)).await;
    println!(
        "before the other has written: {}",
        refused.as_ref().unwrap_err()
    );
    let fenced = matches!(refused, Err(TrustError::Store(StoreError::Fenced)));
    assert!(fenced, "{refused:?}");
    let after = second.running.store.get(record::KEY).await.unwrap();
    assert_eq!(
        before.unwrap().version,
        after.unwrap().version,
        "nothing was written"
    );
    let keys = second
        .running
        .store
        .list("trust/anchor/", None, 9)
        .await
        .unwrap();
    assert_eq!(keys.len(), 1);
    second.turn(now, Some(ROTATE)).await.unwrap();
    let refused = first.turn(now, Some(ROTATE)).await;
    println!("after that: {}", refused.as_ref().unwrap_err());
    assert!(
        matches!(refused, Err(TrustError::Follows { .. })),
        "{refused:?}"
    );
    let keys = second
        .running
        .store
        .list("trust/anchor/", None, 9)
        .await
        .unwrap();
    assert_eq!(keys.len(), 2, "those of the change that is underway");
    now += Duration::from_secs(1);
    second.turn(now, None).await.unwrap();
}
