//! Nanoseconds per pick and finish, clock reads apart: `cargo bench -p mesh-balance`
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints"
)]

use mesh_balance::core::{Change, Outcome, Pick, PickError, Picker, Pool};
use mesh_breaker::ConsecutiveFailures;
use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

fn main() {
    println!(
        "pick + finish, ns each (best of {ROUNDS} rounds); two threads: ns per operation of each thread"
    );
    println!(
        "{:>10} {:>9} {:>16} {:>16} {:>16} {:>16}",
        "endpoints",
        "weights",
        "picker 1 thread",
        "reader 1 thread",
        "picker 2 threads",
        "reader 2 threads"
    );
    for endpoints in [10, 1_000, 100_000] {
        for weighted in [false, true] {
            let picker = pool(endpoints, weighted).picker();
            println!(
                "{endpoints:>10} {:>9} {:>16.1} {:>16.1} {:>16.1} {:>16.1}",
                if weighted { "unequal" } else { "equal" },
                best(&picker, 1, shared),
                best(&picker, 1, cached),
                best(&picker, 2, shared),
                best(&picker, 2, cached),
            );
        }
    }
    publishing();
}

/// Every endpoint with a breaker and a latency estimate, as in use.
fn pool(endpoints: u32, weighted: bool) -> Pool<u32, u32> {
    let origin = Instant::now();
    let mut pool = Pool::<u32, u32>::builder()
        .breaker(ConsecutiveFailures::default())
        .build(origin);
    let weight = |index| if weighted { 1 + index % 4 } else { 1 };
    pool.apply((0..endpoints).map(|index| Change::insert(index, index, weight(index))));
    let picker = pool.picker();
    for random in 0..u64::from(endpoints) * 8 {
        let pick = picker.pick(origin, random.wrapping_mul(ODD), &[]).unwrap();
        pick.finish(
            origin + Duration::from_millis(random % 10 + 1),
            Outcome::Success,
        );
    }
    pool
}

fn shared(picker: &Picker<u32>, operations: u64) {
    repeat(operations, |now, random| picker.pick(now, random, &[]));
}

fn cached(picker: &Picker<u32>, operations: u64) {
    let mut reader = picker.reader();
    repeat(operations, |now, random| reader.pick(now, random, &[]));
}

fn repeat(operations: u64, mut pick: impl FnMut(Instant, u64) -> Result<Pick<u32>, PickError>) {
    let start = Instant::now();
    for operation in 0..operations {
        // Virtual time: a microsecond a request, answered in a millisecond.
        let now = start + Duration::from_nanos(operation << 10);
        let pick = pick(now, operation.wrapping_mul(ODD)).unwrap();
        black_box(pick.endpoint());
        pick.finish(now + Duration::from_millis(1), Outcome::Success);
    }
}

fn best(picker: &Picker<u32>, threads: usize, run: fn(&Picker<u32>, u64)) -> f64 {
    run(picker, OPERATIONS);
    // Each thread reads its own clock, so that a late start of another is not taken for speed.
    let timed = |operations: u64| {
        let start = Instant::now();
        run(picker, operations);
        start.elapsed().as_nanos() as f64 / operations as f64
    };
    if threads == 1 {
        // Short rounds, so that some of them are not interrupted on a machine that does other things as well.
        let rounds = (0..ROUNDS).map(|_| timed(OPERATIONS));
        return rounds.fold(f64::INFINITY, f64::min);
    }
    let round = |_| {
        let barrier = Barrier::new(threads);
        std::thread::scope(|scope| {
            let spawn = |_| {
                scope.spawn(|| {
                    barrier.wait();
                    timed(OPERATIONS * 20)
                })
            };
            let threads: Vec<_> = (0..threads).map(spawn).collect();
            let times = threads.into_iter().map(|thread| thread.join().unwrap());
            times.fold(0.0, f64::max)
        })
    };
    (0..ROUNDS / 10).map(round).fold(f64::INFINITY, f64::min)
}

/// One change in a set of 10,000.
fn publishing() {
    for weighted in [false, true] {
        let mut pool = pool(10_000, weighted);
        let change = |key| {
            let start = Instant::now();
            pool.apply([Change::insert(key, key, 1)]);
            start.elapsed()
        };
        let best = (0..100).map(change).min().unwrap();
        println!(
            "one change in 10,000 endpoints of {} weight: {best:?}",
            if weighted { "unequal" } else { "equal" }
        );
    }
}

const ROUNDS: usize = 100;
const OPERATIONS: u64 = 50_000;
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
