//! What a pick and its record cost, what a change costs, and tower's balancer beside it: `cargo bench -p mesh-balance`
//!
//! Ours is given the time, so that clock reads can be told apart; what the loop does in their place is measured and taken
//! off. tower's balancer reads the clock itself, so it is compared with ours and two reads of the clock.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints"
)]

mod peers;

use mesh_balance::core::{Change, Outcome, Pick, PickError, Picker, Pool};
use mesh_breaker::ConsecutiveFailures;
use std::hint::black_box;
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

fn main() {
    println!("pick + record, ns each, best of {ROUNDS} rounds; of two threads: of each one");
    println!(
        "{:>10} {:>9} {:>8} {:>8} {:>10} {:>10}",
        "endpoints", "weights", "Picker", "Reader", "2 Pickers", "2 Readers"
    );
    let nothing = best(1, OPERATIONS, |operations| {
        repeat(operations, |now, _| black_box(now));
    });
    for endpoints in SIZES {
        for weighted in [false, true] {
            let picker = pool(endpoints, weighted).picker();
            let shared =
                |operations| repeat(operations, ask(|now, word| picker.pick(now, word, &[])));
            let cached = |operations| {
                let mut reader = picker.reader();
                repeat(operations, ask(|now, word| reader.pick(now, word, &[])));
            };
            let [one, one_cached, two, two_cached] = [
                best(1, OPERATIONS, shared),
                best(1, OPERATIONS, cached),
                best(2, OPERATIONS * 20, shared),
                best(2, OPERATIONS * 20, cached),
            ]
            .map(|nanos| nanos - nothing);
            println!(
                "{endpoints:>10} {:>9} {one:>8.1} {one_cached:>8.1} {two:>10.1} {two_cached:>10.1}",
                if weighted { "unequal" } else { "equal" },
            );
        }
    }
    println!("(less {nothing:.1} ns, which the loop takes without a pick)");
    beside_tower();
    publishing();
}

/// Both with the clock reads that they need, through the same shape: choose, call, record.
fn beside_tower() {
    println!("\nclock reads included, ns each");
    println!(
        "{:>10} {:>8} {:>12} {:>11} {:>20}",
        "endpoints", "Picker", "tower's P2C", "2 Pickers", "2 threads, tower's"
    );
    for endpoints in SIZES {
        let picker = pool(endpoints, false).picker();
        let ours = |operations: u64| {
            for operation in 0..operations {
                let pick = picker.pick(Instant::now(), operation.wrapping_mul(ODD), &[]);
                let pick = pick.unwrap();
                black_box(pick.endpoint());
                pick.finish(Instant::now(), Outcome::Success);
            }
        };
        // It takes `&mut self`: threads share it behind a lock, as they would behind a `Buffer`.
        let tower = Mutex::new(peers::Tower::new(endpoints as usize));
        let towers = |operations| {
            for _ in 0..operations {
                black_box(tower.lock().unwrap().call());
            }
        };
        println!(
            "{endpoints:>10} {:>8.1} {:>12.1} {:>11.1} {:>20.1}",
            best(1, OPERATIONS, ours),
            best(1, OPERATIONS, towers),
            best(2, OPERATIONS * 20, ours),
            best(2, OPERATIONS * 4, towers),
        );
    }
}

/// One change in a set of 10,000.
fn publishing() {
    println!();
    for weighted in [false, true] {
        let mut pool = pool(10_000, weighted);
        let change = |key| {
            let start = Instant::now();
            pool.apply([Change::insert(key, key, 1)]);
            start.elapsed()
        };
        let best = (0..100).map(change).min().unwrap();
        let weights = if weighted { "unequal" } else { "equal" };
        println!("one change in 10,000 endpoints of {weights} weight: {best:?}");
    }
}

/// Every endpoint with a breaker and a latency estimate, as in use.
fn pool(endpoints: u32, weighted: bool) -> Pool<u32, u32> {
    let origin = Instant::now();
    let mut pool = Pool::<u32, u32>::builder()
        .breaker(ConsecutiveFailures::default())
        .build(origin);
    let weight = |index| if weighted { 1 + index % 4 } else { 1 };
    pool.apply((0..endpoints).map(|index| Change::insert(index, index, weight(index))));
    let picker: Picker<u32> = pool.picker();
    for random in 0..u64::from(endpoints) * 8 {
        let pick = picker.pick(origin, random.wrapping_mul(ODD), &[]).unwrap();
        let answered = origin + Duration::from_millis(random % 10 + 1);
        pick.finish(answered, Outcome::Success);
    }
    pool
}

/// Calls `each` with times and random words. Virtual time: a microsecond a request.
fn repeat<R>(operations: u64, mut each: impl FnMut(Instant, u64) -> R) {
    let start = Instant::now();
    for operation in 0..operations {
        let now = start + Duration::from_nanos(operation << 10);
        black_box(each(now, operation.wrapping_mul(ODD)));
    }
}

/// A request that is answered in a millisecond.
fn ask(
    mut pick: impl FnMut(Instant, u64) -> Result<Pick<u32>, PickError>,
) -> impl FnMut(Instant, u64) {
    move |now, word| {
        let pick = pick(now, word).unwrap();
        black_box(pick.endpoint());
        pick.finish(now + Duration::from_millis(1), Outcome::Success);
    }
}

/// The nanoseconds of one operation, of each thread.
fn best(threads: usize, operations: u64, run: impl Fn(u64) + Sync) -> f64 {
    run(operations / 20 + 1);
    // Each thread reads its own clock, so that a late start of another is not taken for speed.
    let timed = || {
        let start = Instant::now();
        run(operations);
        start.elapsed().as_nanos() as f64 / operations as f64
    };
    if threads == 1 {
        // Short rounds, so that some of them are not interrupted on a machine that does other things as well.
        return (0..ROUNDS).map(|_| timed()).fold(f64::INFINITY, f64::min);
    }
    let round = |_| {
        let barrier = Barrier::new(threads);
        std::thread::scope(|scope| {
            let spawn = |_| {
                scope.spawn(|| {
                    barrier.wait();
                    timed()
                })
            };
            let threads: Vec<_> = (0..threads).map(spawn).collect();
            let times = threads.into_iter().map(|thread| thread.join().unwrap());
            times.fold(0.0, f64::max)
        })
    };
    (0..ROUNDS / 10).map(round).fold(f64::INFINITY, f64::min)
}

const SIZES: [u32; 3] = [10, 1_000, 100_000];
const ROUNDS: usize = 100;
const OPERATIONS: u64 = 50_000;
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
