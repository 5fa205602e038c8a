//! One pick: candidates are drawn, looked at and compared; where drawing finds nothing, all are looked at.

use super::aperture::Window;
use super::choice::Choice;
use super::endpoint::{Common, Live, SlotId, Weighed};
use super::load::Moment;
use super::pick::Pick;
use super::picker::{PickError, Snapshot};
use super::tier::{Entry, Tier};
use super::words::Words;
use super::zones::Active;
use crate::sync::Ordering;
use mesh_breaker::Ticket;
use std::time::{Duration, Instant};

pub(crate) struct Search<'a, T> {
    snapshot: &'a Snapshot<T>,
    /// Endpoints of other zones that are in use.
    active: Option<&'a Active<T>>,
    now: Instant,
    moment: Moment,
    exclude: &'a [SlotId],
    /// More are out than the limits allow: the set has shrunk since. All are used.
    use_all: bool,
    /// Those that are drawn from.
    window: Window,
    words: Words,
}

/// What a look at an endpoint shows.
enum Sight {
    /// In use, with room.
    Ready,
    /// Out of use, but this request may go there to see whether that can change. It holds the probe's place, so it is
    /// taken without looking further.
    Probe(Ticket),
    /// Held or at its limit until then.
    Full(Moment),
    /// Excluded or out of use.
    Out,
}

/// A candidate.
enum Found<'a, T> {
    Ready(&'a Entry<T>),
    Probe(&'a Entry<T>, Ticket),
}

impl<'a, T> Search<'a, T> {
    pub(crate) fn new(
        snapshot: &'a Snapshot<T>,
        active: Option<&'a Active<T>>,
        now: Instant,
        moment: Moment,
        exclude: &'a [SlotId],
        words: Words,
    ) -> Self {
        Self {
            snapshot,
            active: active.filter(|active| !active.entries.is_empty()),
            now,
            moment,
            exclude,
            use_all: snapshot.common.ward.ejected() > snapshot.max_ejected,
            // Where an attempt has failed the next may go anywhere: without breakers nothing else says that those inside are out.
            window: match exclude {
                [] => snapshot.window(),
                _ => Window::WHOLE,
            },
            words,
        }
    }

    #[inline]
    pub(crate) fn run(mut self) -> Result<Pick<T>, PickError> {
        if self.full_for_long() {
            return Err(self.limited(Moment::from_nanos(
                self.snapshot.full_until.load(Ordering::Relaxed),
            )));
        }
        let found = match self.snapshot.common.choice {
            Choice::RoundRobin => self.next_in_turn(),
            _ => self.best_drawn(),
        };
        match found {
            Some(Found::Probe(entry, ticket)) => Ok(self.take(entry, Some(ticket))),
            Some(Found::Ready(entry)) if self.has_place(entry) => {
                let ticket = entry.live.admit(self.now);
                Ok(self.take(entry, ticket))
            }
            _ => self.any(),
        }
    }

    #[inline(never)]
    fn next_in_turn(&mut self) -> Option<Found<'a, T>> {
        let home = &self.snapshot.home;
        if self.active.is_some() || home.is_empty() || !home.is_even() {
            return self.draw(&[]);
        }
        let turn = self.snapshot.common.turn.0.fetch_add(1, Ordering::Relaxed);
        let (first, open) = self.window.of(home.len());
        let start = (first + (turn % open as u64) as usize) % home.len();
        home.iter_from(start)
            .take(DRAWS)
            .find_map(|entry| self.consider(entry))
    }

    /// Two choices; more where the better of them is slow or near its limit.
    #[inline]
    fn best_drawn(&mut self) -> Option<Found<'a, T>> {
        let first = match self.draw(&[])? {
            Found::Ready(entry) => entry,
            probe => return Some(probe),
        };
        if self.size() < 2 {
            return Some(Found::Ready(first));
        }
        let second = match self.draw(&[first]) {
            Some(Found::Ready(entry)) => entry,
            Some(probe) => return Some(probe),
            None => return Some(Found::Ready(first)),
        };
        let best = self.less_loaded(first, second);
        if self.size() > 2 && best.live.is_strained(&self.snapshot.common, self.moment) {
            return Some(self.best_of_more(first, second, best));
        }
        Some(Found::Ready(best))
    }

    /// Draws further ones, and compares them with the best of the first two.
    #[inline(never)]
    fn best_of_more(
        &mut self,
        first: &'a Entry<T>,
        second: &'a Entry<T>,
        mut best: &'a Entry<T>,
    ) -> Found<'a, T> {
        let mut seen = [first; MORE + 2];
        seen[1] = second;
        for count in 2..MORE + 2 {
            match self.draw(&seen[..count]) {
                Some(Found::Ready(entry)) => {
                    seen[count] = entry;
                    best = self.less_loaded(best, entry);
                }
                Some(probe) => return probe,
                None => break,
            }
        }
        Found::Ready(best)
    }

    /// An endpoint that is not among `seen`, drawn by weight.
    #[inline]
    fn draw(&mut self, seen: &[&Entry<T>]) -> Option<Found<'a, T>> {
        for _ in 0..DRAWS {
            let entry = self.sample()?;
            if seen.iter().any(|seen| seen.is(entry)) {
                continue;
            }
            if let Some(found) = self.consider(entry) {
                return Some(found);
            }
        }
        None
    }

    #[inline]
    fn sample(&mut self) -> Option<&'a Entry<T>> {
        let snapshot = self.snapshot;
        let entry = if let Some(active) = self.active {
            let at = self.words.below(snapshot.home.weight() + active.weight);
            match at.checked_sub(snapshot.home.weight()) {
                Some(at) => active.at(at),
                None => snapshot.home.draw(self.window, &mut self.words),
            }
        } else if snapshot.home.is_empty() {
            let total = snapshot.away.iter().map(Tier::weight).sum();
            let mut at = self.words.below(total);
            let tier = snapshot.away.iter().find(|tier| {
                let found = at < tier.weight();
                at = at.saturating_sub(tier.weight());
                found
            });
            tier?.draw(self.window, &mut self.words)
        } else {
            snapshot.home.draw(self.window, &mut self.words)
        }?;
        if snapshot.common.slow_start_ticks != 0 {
            let warmth = entry.live.warmth(self.moment);
            if warmth < 1.0 && self.words.unit() > warmth {
                // Once more, so that it is not passed over when there is little else.
                return snapshot
                    .home
                    .draw(self.window, &mut self.words)
                    .or(Some(entry));
            }
        }
        Some(entry)
    }

    /// How many endpoints are drawn from.
    #[inline]
    fn size(&self) -> usize {
        let snapshot = self.snapshot;
        match self.active {
            Some(active) => snapshot.home.len() + active.entries.len(),
            None if snapshot.home.is_empty() => snapshot.len,
            None => snapshot.home.len(),
        }
    }

    fn weight(&self) -> u64 {
        let snapshot = self.snapshot;
        match self.active {
            Some(active) => snapshot.home.weight() + active.weight,
            None if snapshot.home.is_empty() => snapshot.away.iter().map(Tier::weight).sum(),
            None => snapshot.home.weight(),
        }
    }

    #[inline]
    fn consider(&self, entry: &'a Entry<T>) -> Option<Found<'a, T>> {
        match self.look(entry) {
            Sight::Ready => Some(Found::Ready(entry)),
            Sight::Probe(ticket) => Some(Found::Probe(entry, ticket)),
            Sight::Full(_) => {
                if let Some(limit) = entry.live.limit() {
                    limit.passed_over(self.moment);
                }
                None
            }
            Sight::Out => None,
        }
    }

    #[inline]
    fn look(&self, entry: &Entry<T>) -> Sight {
        let live = &entry.live;
        if !self.exclude.is_empty() && self.exclude.contains(&entry.slot()) {
            return Sight::Out;
        }
        if let Some(limit) = live.limit()
            && (limit.held(self.moment).is_some() || limit.fullness(self.moment) >= 1.0)
        {
            return Sight::Full(limit.room_at(self.moment));
        }
        if self.use_all || !live.is_ejected() {
            return Sight::Ready;
        }
        live.admit(self.now).map_or(Sight::Out, Sight::Probe)
    }

    /// The second if its load is lower, else the first.
    #[inline]
    fn less_loaded(&mut self, first: &'a Entry<T>, second: &'a Entry<T>) -> &'a Entry<T> {
        if let Some(own) = &self.snapshot.own_load {
            let load = |entry: &Entry<T>| {
                let load = own.load(&entry.endpoint.value, entry.live.seen(self.moment));
                load * entry.live.crowding(self.moment)
            };
            return if load(second) < load(first) {
                second
            } else {
                first
            };
        }
        let total = self.weight();
        lighter(
            &self.snapshot.common,
            first,
            second,
            total,
            self.moment,
            &mut self.words,
        )
    }

    /// Looks at all, those of other zones last, and takes the first that will do.
    #[cold]
    fn any(&mut self) -> Result<Pick<T>, PickError> {
        let snapshot = self.snapshot;
        snapshot.nobody_in_the_window();
        let start = self.words.below(snapshot.len as u64) as usize;
        let mut soonest: Option<(Moment, &'a Entry<T>)> = None;
        let tiers = || std::iter::once(&snapshot.home).chain(&snapshot.away);
        for tier in tiers() {
            for entry in tier.iter_from(start % tier.len().max(1)) {
                let at = match self.look(entry) {
                    Sight::Ready if self.has_place(entry) => {
                        let ticket = entry.live.admit(self.now);
                        return Ok(self.take(entry, ticket));
                    }
                    Sight::Probe(ticket) => return Ok(self.take(entry, Some(ticket))),
                    // Another thread was faster.
                    Sight::Ready => entry
                        .live
                        .limit()
                        .map_or(self.moment, |limit| limit.room_at(self.moment)),
                    Sight::Full(at) => at,
                    Sight::Out => continue,
                };
                let sooner = soonest.as_ref().is_none_or(|(soonest, _)| at < *soonest);
                if sooner && !live_is_out(self, entry) {
                    soonest = Some((at, entry));
                }
            }
        }
        let Some((at, entry)) = soonest else {
            return Err(PickError::Exhausted);
        };
        // None has room: those that are at their limits press against them.
        for entry in tiers().flat_map(|tier| tier.iter_from(start % tier.len().max(1))) {
            if let Some(limit) = entry.live.limit()
                && !live_is_out(self, entry)
                && limit.held(self.moment).is_none()
            {
                limit.press(self.moment);
                if limit.fullness(self.moment) < 1.0 && self.has_place(entry) {
                    let ticket = entry.live.admit(self.now);
                    return Ok(self.take(entry, ticket));
                }
            }
        }
        let sheds = snapshot
            .common
            .rate_limits
            .is_none_or(|settings| settings.sheds());
        if !sheds {
            let ticket = entry.live.admit(self.now);
            return Ok(self.take(entry, ticket));
        }
        if snapshot.len > FEW && self.exclude.is_empty() {
            let until = at.nanos().min(self.moment.nanos() + FULL_FOR_NANOS);
            snapshot.full_until.store(until, Ordering::Relaxed);
        }
        Err(self.limited(at))
    }

    /// Takes the place that its limit gives, if there still is one.
    #[inline]
    fn has_place(&self, entry: &Entry<T>) -> bool {
        entry
            .live
            .limit()
            .is_none_or(|limit| limit.take(self.moment))
    }

    #[inline]
    fn full_for_long(&self) -> bool {
        let until = self.snapshot.full_until.load(Ordering::Relaxed);
        until != 0 && self.moment.nanos() < until
    }

    fn limited(&self, at: Moment) -> PickError {
        let nanos = at.nanos().saturating_sub(self.moment.nanos());
        PickError::Limited {
            retry_after: Duration::from_nanos(nanos.max(1)),
        }
    }

    #[inline]
    fn take(&mut self, entry: &Entry<T>, ticket: Option<Ticket>) -> Pick<T> {
        self.snapshot.felt(entry, &mut self.words);
        Pick::new(entry, self.moment, ticket, self.words)
    }
}

/// The usual case of a pick: no zones, nobody excluded, and the two that are drawn are in use and have nothing rare about them.
/// `None` is any other, for [`Search::run`], which draws the same two from the same word.
#[inline]
pub(crate) fn usual<T>(
    snapshot: &Snapshot<T>,
    now: Instant,
    moment: Moment,
    mut words: Words,
) -> Option<Pick<T>> {
    let (common, home) = (&*snapshot.common, &snapshot.home);
    let window = snapshot.window();
    let first = home.draw(window, &mut words)?;
    let mut drawn = (0..DRAWS).map_while(|_| home.draw(window, &mut words));
    let second = drawn.find(|entry| !entry.is(first))?;
    if !first.live.is_usual() || !second.live.is_usual() {
        return None;
    }
    let best = lighter(common, first, second, home.weight(), moment, &mut words);
    if best.live.is_strained(common, moment) {
        return None;
    }
    let ticket = match &common.breaker {
        Some(settings) => Some(best.live.admit_closed(settings, now)?),
        None => None,
    };
    snapshot.felt(best, &mut words);
    Some(Pick::new(best, moment, ticket, words))
}

/// The second if its load is lower, else the first.
#[inline]
fn lighter<'a, T>(
    common: &Common,
    first: &'a Entry<T>,
    second: &'a Entry<T>,
    total: u64,
    now: Moment,
    words: &mut Words,
) -> &'a Entry<T> {
    let weighed = |entry: &'a Entry<T>| Weighed {
        live: &entry.live,
        weight: entry.weight,
    };
    // Rounds where the weights differ.
    let random = if first.weight == second.weight {
        0
    } else {
        words.next()
    };
    let (load_a, load_b) = Live::loads(common, weighed(first), weighed(second), now, random);
    if load_b >= load_a {
        return first;
    }
    if first.weight > second.weight
        && load_a <= 2.0 * load_b
        && !accept_lighter(total, first.weight, second.weight, words)
    {
        return first;
    }
    second
}

/// Two different endpoints are sampled in the order heavy, light more often than in the order light, heavy. Moving
/// from the heavy one to the light one as often as back keeps the shares (as Metropolis 1953 does for detailed balance).
fn accept_lighter(total: u64, heavy: u32, light: u32, words: &mut Words) -> bool {
    let rest = |weight: u32| total.saturating_sub(u64::from(weight)) as f32;
    words.unit() * rest(light) < rest(heavy)
}

/// Is it excluded, or out of use for another reason than its limit?
fn live_is_out<T>(search: &Search<'_, T>, entry: &Entry<T>) -> bool {
    search.exclude.contains(&entry.slot()) || (!search.use_all && entry.live.is_ejected())
}

/// With half of the endpoints out of use, one draw in 65,000 goes on to look at all.
const DRAWS: usize = 16;
/// Further choices where the better of two is slow or near its limit.
const MORE: usize = 2;
/// In a larger set, that all are full is remembered for a moment.
const FEW: usize = 64;
/// 1 ms.
const FULL_FOR_NANOS: u64 = 1_000_000;
