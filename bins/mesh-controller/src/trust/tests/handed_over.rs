//! Of several controllers on a real etcd, the one who leads dies at each of its writes. Its lease ends by itself, and another
//! goes on from what is there.

use futures_util::{StreamExt as _, stream};

use super::{
    several::{Controller, keys, phase},
    *,
};
use crate::store::{
    StoreError,
    etcd::tests::{Etcd, Running, TTL},
};

/// How a run ended, whoever died in it.
#[derive(Debug, PartialEq, Eq)]
struct End {
    outcome: Option<Outcome>,
    another_anchor: bool,
    /// That the store has and the record does not know, or the other way round.
    other_keys: usize,
    keys: usize,
    /// Beside the controllers that there are.
    consumers: usize,
    bundle: usize,
}

/// One rotation, in which the one who leads dies at one of its writes, before or after that has taken effect; how it ended,
/// how often the one who led wrote, and how long nobody led.
async fn rotate(
    etcd: &Etcd,
    prefix: &str,
    dies: Option<(u64, bool)>,
) -> (End, u64, Option<Duration>) {
    let leaf = Duration::from_secs(10);
    let settings = Settings {
        leaf_lifetime: leaf,
        rotation: Rotate::of_leaves(leaf),
        ..Settings::default()
    };
    let mut now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let first = Running::start(etcd, "a", prefix);
    first.leads().await;
    let mortal = {
        let leading = first.store.fenced();
        Dying::opened_by(move || Arc::new(leading.clone()))
    };
    let place = Place {
        leading: mortal.clone(),
        ..Place::among_several(first.store.clone(), "a".to_owned())
    };
    let first = Controller::open(first, place, &settings, now).await;
    let second = Running::start(etcd, "b", prefix);
    let place = Place::among_several(second.store.clone(), "b".to_owned());
    let second = Controller::open(second, place, &settings, now).await;
    let mut all = vec![first, second];
    let mut proxy = Proxy::new("web", &all[0].trust);
    proxy.connect(&all[0].trust);
    all[0].proxies.push(proxy);
    for _ in 0..2 {
        second_of(&mut all, &mut now, None, &mortal).await;
    }
    let old = all[0].trust.record().rotation().active().anchor;
    let before = mortal.writes();
    if let Some((write, after)) = dies {
        mortal.dies_at(write, after);
    }
    let (mut alone, mut ended, mut asked) = (None, 0, false);
    for _ in 0..900 {
        let started =
            phase(&all).is_some() || all[0].trust.record().rotation().active().anchor != old;
        // What was not on record yet when it died is said again, to the one who leads then.
        let command = (!asked || !started).then_some(ROTATE);
        asked = true;
        if second_of(&mut all, &mut now, command, &mortal).await {
            let mut gone = all.remove(0);
            gone.running.kill();
            let began = tokio::time::Instant::now();
            for mut proxy in gone.proxies.drain(..) {
                proxy.connect(&all[0].trust);
                all[0].proxies.push(proxy);
            }
            drop(gone.driver);
            all[0].turn(now, None).await.unwrap();
            let at_death = phase(&all);
            while !all[0].leads() {
                tokio::time::sleep(Duration::from_millis(50)).await;
                all[0].turn(now, None).await.unwrap();
                let now_leads = all[0].leads();
                assert!(
                    now_leads || phase(&all) == at_death,
                    "nobody leads and something advances"
                );
            }
            alone = Some(began.elapsed());
            second_of(&mut all, &mut now, None, &mortal).await;
        }
        if started && phase(&all).is_none() {
            ended += 1;
        }
        if ended == 4 {
            break;
        }
    }
    let record = all[0].trust.record();
    record.audit().verify(&Sha256).unwrap();
    let rotation = record.rotation();
    let [stored, known] = keys(&all[0]).await;
    let other =
        |one: &[String], two: &[String]| one.iter().filter(|key| !two.contains(key)).count();
    let end = End {
        outcome: rotation.last_outcome(),
        another_anchor: rotation.active().anchor != old,
        other_keys: other(&stored, &known) + other(&known, &stored),
        keys: stored.len(),
        consumers: rotation.consumers().len() - all.len(),
        bundle: all[0].proxies[0].bundle.anchors().len(),
    };
    (end, mortal.writes() - before, alone)
}

/// A second passes. True if the first of them died in it.
async fn second_of(
    all: &mut [Controller],
    now: &mut SystemTime,
    command: Option<Command>,
    mortal: &Dying,
) -> bool {
    *now += Duration::from_secs(1);
    for (number, one) in all.iter_mut().enumerate() {
        let command = command.clone().filter(|_| number == 0);
        let done = one.turn(*now, command).await;
        if mortal.is_dead() && number == 0 && done.is_err() {
            return true;
        }
        match done {
            // Its lease has ended, on a host that is busy.
            Ok(()) | Err(TrustError::Store(StoreError::Fenced)) => {}
            Err(error) => panic!("{number}: {error}"),
        }
    }
    false
}

#[tokio::test]
async fn killed_at_any_write_while_it_leads_another_ends_in_the_same_place() {
    let Some(etcd) = Etcd::start().await else {
        return;
    };
    let right = End {
        outcome: Some(Outcome::Completed),
        another_anchor: true,
        other_keys: 0,
        keys: 2,
        consumers: 1,
        bundle: 1,
    };
    let (end, writes, _) = rotate(&etcd, "calm/", None).await;
    assert_eq!(end, right);
    assert!(writes > 10, "{writes}");
    let (etcd, right) = (&etcd, &right);
    let deaths = (0..writes).flat_map(|write| [(write, false), (write, true)]);
    let runs = stream::iter(deaths).map(|(write, after)| async move {
        let prefix = format!("{write}-{after}/");
        let (end, _, alone) = rotate(etcd, &prefix, Some((write, after))).await;
        assert_eq!(end, *right, "write {write}, {after}");
        alone
    });
    let alone: Vec<_> = runs.buffer_unordered(AT_A_TIME).collect().await;
    let alone: Vec<Duration> = alone.into_iter().flatten().collect();
    println!(
        "several on etcd: who led was killed before and after each of {writes} of its writes of a rotation: {} deaths, one end; \
         nobody led for {:.1?} at most, of leases of {TTL:?}",
        alone.len(),
        alone.iter().max().unwrap()
    );
    assert!(alone.len() as u64 >= 2 * writes - 20, "{}", alone.len());
}

/// Each waits for a lease to end.
const AT_A_TIME: usize = 16;
