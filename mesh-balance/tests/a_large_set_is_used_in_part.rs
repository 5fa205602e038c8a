//! An aperture keeps requests to a part of a large set, as long as that part can take them.

use mesh_balance::core::{
    Aperture, Change, Choice, Outcome, Pick, Policy, Pool, PoolBuilder, RateLimits,
};
use mesh_balance::{ConsecutiveFailures, core::FailureKind};
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

const ENDPOINTS: u32 = 10_000;

/// Pools of a caller whose aperture begins where `random` says.
fn pool(now: Instant, least: u32, random: u64, choice: Choice) -> Pool<u32, u32> {
    let mut pool = PoolBuilder::default()
        .load(choice)
        .aperture(Aperture::new(least, random))
        .build(now);
    pool.apply((0..ENDPOINTS).map(|key| Change::insert(key, key, 1)));
    pool
}

/// Makes `requests`, with `in_flight` of them at once, 1 ms after one another. Says who got them.
fn call(
    pool: &Pool<u32, u32>,
    now: &mut Instant,
    requests: u64,
    in_flight: usize,
) -> HashMap<u32, u32> {
    let picker = pool.picker();
    let mut going: VecDeque<Pick<u32>> = VecDeque::new();
    let mut got = HashMap::new();
    for word in 0..requests {
        *now += Duration::from_millis(1);
        if going.len() == in_flight {
            let pick = going.pop_front().expect("one is in flight");
            let _ = pick.finish(*now, Outcome::Success);
        }
        let pick = picker.pick(*now, word, &[]).expect("endpoints");
        *got.entry(*pick.endpoint()).or_default() += 1;
        going.push_back(pick);
    }
    got
}

#[test]
fn few_requests_use_few_endpoints_whatever_the_choice() {
    for choice in [Choice::default(), Choice::LeastRequest, Choice::RoundRobin] {
        let mut now = Instant::now();
        let pool = pool(now, 256, 7, choice);
        let got = call(&pool, &mut now, 50_000, 32);
        assert!(got.len() <= 300, "{} with {choice:?}", got.len());
        assert!(got.len() >= 200, "{} with {choice:?}", got.len());
    }
}

#[test]
fn more_requests_open_it_and_fewer_close_it() {
    let mut now = Instant::now();
    let pool = pool(now, 256, 7, Choice::default());
    let picker = pool.picker();
    let width = || picker.snapshot().aperture();
    call(&pool, &mut now, 10_000, 1);
    assert_eq!(width(), Some(256));
    call(&pool, &mut now, 100_000, 4_000);
    let wide = width().unwrap_or(ENDPOINTS as usize);
    assert!((2_000..8_000).contains(&wide), "{wide} for 4,000 in flight");
    call(&pool, &mut now, 400_000, 1);
    let narrow = width().expect("closed again");
    assert!(narrow < 300, "{narrow} for one in flight");
}

#[test]
fn many_callers_use_all_endpoints_evenly() {
    const CALLERS: u64 = 400;
    let mut callers_of = vec![0_u32; ENDPOINTS as usize];
    for caller in 0..CALLERS {
        let mut now = Instant::now();
        let pool = pool(now, 500, caller, Choice::LeastRequest);
        for endpoint in call(&pool, &mut now, 5_000, 1).into_keys() {
            callers_of[endpoint as usize] += 1;
        }
    }
    // Binomial, of 400 with a chance of a twentieth: 20 with a deviation of 4.4.
    let (least, most) = (callers_of.iter().min(), callers_of.iter().max());
    assert!(least >= Some(&3), "{least:?}");
    assert!(most <= Some(&45), "{most:?}");
}

#[test]
fn shares_follow_the_weights() {
    let now = Instant::now();
    let mut pool = PoolBuilder::default()
        .aperture(Aperture::new(500, 3))
        .build(now);
    pool.apply(
        (0..ENDPOINTS).map(|key| Change::insert(key, key, if key % 2 == 0 { 1 } else { 3 })),
    );
    let got = call(&pool, &mut { now }, 100_000, 1);
    let heavy: u32 = got
        .iter()
        .filter(|(key, _)| *key % 2 == 1)
        .map(|(_, got)| got)
        .sum();
    let share = f64::from(heavy) / 100_000.0;
    assert!((share - 0.75).abs() < 0.03, "{share} to the heavy half");
}

#[test]
fn those_outside_take_over_where_nobody_inside_will_do() {
    let now = Instant::now();
    let mut pool = PoolBuilder::default()
        .aperture(Aperture::new(20, 3))
        .breaker(Policy::from(ConsecutiveFailures::default()))
        .build(now);
    pool.apply((0..1_000).map(|key| Change::insert(key, key, 1)));
    let picker = pool.picker();
    let inside: HashSet<u32> = (0..5_000)
        .map(|word| *picker.pick(now, word, &[]).expect("endpoints").endpoint())
        .collect();
    assert!(inside.len() <= 21, "{}", inside.len());
    let mut failures = 0;
    for word in 0..20_000 {
        let pick = picker.pick(now, word, &[]).expect("endpoints");
        let fails = inside.contains(&pick);
        failures += u32::from(fails);
        let outcome = match fails {
            true => Outcome::Failure(FailureKind::Connect),
            false => Outcome::Success,
        };
        let _ = pick.finish(now, outcome);
    }
    assert!(
        failures <= 21 * 7,
        "{failures} before their breakers opened"
    );
}

/// Without breakers nobody is taken out, and failures are quick: nothing else widens it.
#[test]
fn another_attempt_goes_anywhere() {
    let now = Instant::now();
    let mut pool = PoolBuilder::default()
        .aperture(Aperture::new(20, 3))
        .build(now);
    pool.apply((0..1_000).map(|key| Change::insert(key, key, 1)));
    let picker = pool.picker();
    let inside: HashSet<u32> = (0..5_000)
        .map(|word| *picker.pick(now, word, &[]).expect("endpoints").endpoint())
        .collect();
    let mut outside = 0;
    for word in 0..1_000 {
        let first = picker.pick(now, word, &[]).expect("endpoints");
        let slot = first.slot();
        let _ = first.finish(now, Outcome::Failure(FailureKind::Connect));
        let second = picker.pick(now, word + 1, &[slot]).expect("endpoints");
        outside += u32::from(!inside.contains(second.endpoint()));
    }
    assert!(outside > 900, "{outside} of 1000");
}

#[test]
fn limits_inside_open_it() {
    let mut now = Instant::now();
    let mut pool = PoolBuilder::default()
        .aperture(Aperture::new(10, 3))
        .rate_limits(RateLimits::default())
        .build(now);
    pool.apply((0..1_000).map(|key| Change::insert(key, key, 1)));
    let picker = pool.picker();
    // Each endpoint admits ten requests a second, of five hundred that are asked for.
    let mut admitted_at = HashMap::<u32, Instant>::new();
    let mut admitted = 0;
    for word in 0..20_000_u64 {
        now += Duration::from_millis(2);
        let Ok(pick) = picker.pick(now, word, &[]) else {
            continue;
        };
        let key = *pick.endpoint();
        let free = admitted_at
            .get(&key)
            .is_none_or(|at| now.duration_since(*at) >= Duration::from_millis(100));
        if free {
            admitted_at.insert(key, now);
        }
        if word >= 10_000 {
            admitted += u32::from(free);
        }
        let outcome = match free {
            true => Outcome::Success,
            false => Outcome::RateLimited { retry_after: None },
        };
        let _ = pick.finish(now, outcome);
    }
    let width = picker.snapshot().aperture();
    assert!(
        (50..500).contains(&width.expect("still a part")),
        "{width:?}"
    );
    assert!(admitted > 9_000, "{admitted} of 10,000");
}

#[test]
fn it_keeps_its_place_while_the_set_changes() {
    let mut now = Instant::now();
    let mut pool = pool(now, 256, 7, Choice::default());
    let before: HashSet<u32> = call(&pool, &mut now, 20_000, 1).into_keys().collect();
    // A hundredth of the set is replaced.
    pool.apply((0..100).flat_map(|key| {
        [
            Change::remove(key * 97),
            Change::insert(ENDPOINTS + key, ENDPOINTS + key, 1),
        ]
    }));
    let after: HashSet<u32> = call(&pool, &mut now, 20_000, 1).into_keys().collect();
    let kept = before.intersection(&after).count();
    assert!(kept >= 240, "{kept} of {} are still used", before.len());
}
