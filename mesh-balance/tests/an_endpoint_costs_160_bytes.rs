//! At most 160 bytes are asked of the allocator for each endpoint, everything included but what its key and value own.

use allocation_counter::measure;
use mesh_balance::core::{Change, Outcome, Pool};
use mesh_breaker::ConsecutiveFailures;
use std::time::{Duration, Instant};

#[test]
fn at_most_160_bytes_in_a_set_of_10_000() {
    let origin = Instant::now();
    let mut pool = Pool::<u32, u32>::builder()
        .breaker(ConsecutiveFailures::default())
        .build(origin);
    let bytes = measure(|| {
        pool.apply((0..ENDPOINTS).map(|key| Change::insert(key, key, 1)));
        let picker = pool.picker();
        for random in 0..u64::from(ENDPOINTS) {
            if let Ok(pick) = picker.pick(origin, random, &[]) {
                pick.finish(origin + Duration::from_millis(1), Outcome::Success);
            }
        }
    })
    .bytes_current;
    let each = bytes as f64 / f64::from(ENDPOINTS);
    println!("{each:.1} bytes an endpoint");
    assert!(each <= 160.0, "{each}");
    assert!(each > 64.0, "{each}: it was not counted");
}

const ENDPOINTS: u32 = 10_000;
