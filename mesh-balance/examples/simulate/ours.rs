//! This crate's core, with its settings at their defaults.

use crate::engine::Balancer;
use mesh_balance::core::{Change, Outcome, Pick, Picker, Pool, PoolBuilder};
use std::collections::HashMap;
use std::time::Instant;

pub struct Ours {
    pool: Pool<usize, usize>,
    picker: Picker<usize>,
    under_way: HashMap<usize, Pick<usize>>,
}

impl Ours {
    pub fn new(origin: Instant, builder: PoolBuilder) -> Self {
        let pool = builder.build(origin);
        Self {
            picker: pool.picker(),
            pool,
            under_way: HashMap::new(),
        }
    }
}

impl Balancer for Ours {
    fn discover(&mut self, _now: Instant, present: &[(usize, u8)]) {
        let change = |(server, zone): &(usize, u8)| {
            Change::insert(*server, *server, 1).in_zone(zone.to_string())
        };
        self.pool.replace(present.iter().map(change));
    }

    fn pick(&mut self, request: usize, now: Instant, random: u64) -> Option<usize> {
        let pick = self.picker.pick(now, random, &[]).ok()?;
        let server = *pick;
        self.under_way.insert(request, pick);
        Some(server)
    }

    fn finish(&mut self, request: usize, now: Instant, outcome: Outcome) {
        if let Some(pick) = self.under_way.remove(&request) {
            pick.finish(now, outcome);
        }
    }
}
