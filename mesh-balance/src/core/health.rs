use super::SlotId;
use crate::sync::{AtomicU32, Ordering};
use mesh_breaker::{BreakerCell, State, Transition};
use std::fmt;
use std::sync::Arc;

/// How many endpoints may be out of use at once because their breakers are open.
///
/// What is beyond a limit stays in use although its breaker is open, and when the set shrinks until the limits no longer
/// hold, every endpoint is in use again. Defaults: no minimum, at most half, never the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EjectionLimits {
    min_ready_endpoints: u32,
    max_ejected_percent: u8,
    eject_last: bool,
}

impl EjectionLimits {
    /// So many endpoints stay in use, whatever their breakers say. Default: 0.
    #[must_use]
    pub fn min_ready_endpoints(self, min: u32) -> Self {
        Self {
            min_ready_endpoints: min,
            ..self
        }
    }

    /// The largest share of the set that may be out, in percent; 100 and above is no limit. Default: 50.
    #[must_use]
    pub fn max_ejected_percent(self, percent: u8) -> Self {
        Self {
            max_ejected_percent: percent.min(100),
            ..self
        }
    }

    /// Whether even the last endpoint may be out, so that picks fail. Default: no.
    #[must_use]
    pub fn eject_last(self, eject_last: bool) -> Self {
        Self { eject_last, ..self }
    }

    /// The most that may be out of `endpoints`.
    pub(crate) fn max_ejected(&self, endpoints: u32) -> u32 {
        let share = (u64::from(endpoints) * u64::from(self.max_ejected_percent) / 100) as u32;
        let kept = self.min_ready_endpoints.max(u32::from(!self.eject_last));
        share.min(endpoints.saturating_sub(kept))
    }
}

impl Default for EjectionLimits {
    fn default() -> Self {
        Self {
            min_ready_endpoints: 0,
            max_ejected_percent: 50,
            eject_last: false,
        }
    }
}

/// A breaker changed its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// Whose.
    pub slot: SlotId,
    /// How.
    pub transition: Transition,
    /// Whether the endpoint is now out of use. With an open breaker it may still be in use because of the limits.
    pub ejected: bool,
}

/// Called with every event, on the thread that caused it.
pub(crate) type Observer = Arc<dyn Fn(Event) + Send + Sync>;

/// What the endpoints of one pool have in common.
pub(crate) struct Ward {
    pub(crate) limits: EjectionLimits,
    pub(crate) observer: Option<Observer>,
    max_ejected: AtomicU32,
    ejected: AtomicU32,
}

impl Ward {
    pub(crate) fn new(limits: EjectionLimits, observer: Option<Observer>) -> Self {
        Self {
            limits,
            observer,
            max_ejected: AtomicU32::new(0),
            ejected: AtomicU32::new(0),
        }
    }

    /// How many are out.
    #[inline]
    pub(crate) fn ejected(&self) -> u32 {
        self.ejected.load(Ordering::Relaxed)
    }

    pub(crate) fn resize(&self, max_ejected: u32) {
        self.max_ejected.store(max_ejected, Ordering::Relaxed);
    }

    /// Takes one of the places of those that are out.
    ///
    /// Writes even where there is none, so that who gives one back next sees what was done before.
    fn take_place(&self) -> bool {
        let max = self.max_ejected.load(Ordering::Relaxed);
        let take = |ejected: u32| Some(ejected + u32::from(ejected < max));
        self.ejected
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, take)
            .is_ok_and(|ejected| ejected < max)
    }

    fn give_place_back(&self) {
        self.ejected.fetch_sub(1, Ordering::AcqRel);
    }
}

impl fmt::Debug for Ward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ward")
            .field("limits", &self.limits)
            .field("ejected", &self.ejected)
            .finish_non_exhaustive()
    }
}

/// Whether one endpoint is in use, and the requests to it that have been answered and have not ended, in one word: the standing
/// in its two low bits. An endpoint holds a place of its [`Ward`] exactly while it is ejected.
#[derive(Debug, Default)]
pub(crate) struct Standing(AtomicU32);

impl Standing {
    #[inline]
    pub(crate) fn is_ejected(&self) -> bool {
        self.0.load(Ordering::Relaxed) & STANDING == EJECTED
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.0.load(Ordering::Relaxed) & STANDING == RETIRED
    }

    /// Requests that have been answered and have not ended.
    #[inline]
    pub(crate) fn streaming(&self) -> u32 {
        self.0.load(Ordering::Relaxed) / STREAM
    }

    #[inline]
    pub(crate) fn begin_stream(&self) {
        self.0.fetch_add(STREAM, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn end_stream(&self) {
        self.0.fetch_sub(STREAM, Ordering::Relaxed);
    }

    /// Puts the endpoint out of use if the limits allow. Says whether it is out.
    pub(crate) fn eject(&self, ward: &Ward) -> bool {
        if let Err(standing) = self.change(READY, READY) {
            return standing == EJECTED;
        }
        if !ward.take_place() {
            return false;
        }
        match self.change(READY, EJECTED) {
            Ok(()) => true,
            Err(standing) => {
                ward.give_place_back();
                standing == EJECTED
            }
        }
    }

    /// Puts it back into use.
    pub(crate) fn readmit(&self, ward: &Ward) {
        if self.change(EJECTED, READY).is_ok() {
            ward.give_place_back();
        }
    }

    /// The endpoint has left the set: late outcomes of its requests no longer count towards anything.
    pub(crate) fn retire(&self, ward: &Ward) {
        let before = self.0.fetch_or(RETIRED, Ordering::AcqRel) & STANDING;
        if before == EJECTED {
            ward.give_place_back();
        }
    }

    /// Changes the standing and leaves the streams. Otherwise says what the standing is.
    ///
    /// Writes even where nothing changes, so that of two threads the later sees what the earlier had done before.
    fn change(&self, from: u32, to: u32) -> Result<(), u32> {
        let change = |word: u32| {
            Some(if word & STANDING == from {
                word & !STANDING | to
            } else {
                word
            })
        };
        let before = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, change)
            .unwrap_or_else(|word| word)
            & STANDING;
        if before == from { Ok(()) } else { Err(before) }
    }
}

/// Follows a breaker's change of state: an endpoint whose breaker opens is put out, one whose breaker closes comes back.
pub(crate) fn follow(
    slot: SlotId,
    transition: Transition,
    breaker: &BreakerCell,
    standing: &Standing,
    ward: &Ward,
) {
    let mut closed = transition.state() == State::Closed;
    // While a probe is under way everything stays as it is.
    while transition.state() != State::HalfOpen {
        if closed {
            standing.readmit(ward);
        } else {
            standing.eject(ward);
        }
        // Another thread may have closed or opened it since, and followed that before the lines above.
        let still = (breaker.state() == State::Closed) == closed;
        if still {
            break;
        }
        closed = !closed;
    }
    if let Some(observer) = &ward.observer
        && !standing.is_retired()
    {
        observer(Event {
            slot,
            transition,
            ejected: standing.is_ejected(),
        });
    }
}

const STANDING: u32 = 3;
const READY: u32 = 0;
const EJECTED: u32 = 1;
/// All bits of the standing, so that it can be set without a look.
const RETIRED: u32 = 3;
/// One stream.
const STREAM: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_leave_enough_in_use() {
        let default = EjectionLimits::default();
        assert_eq!(
            [0, 1, 2, 3, 10].map(|n| default.max_ejected(n)),
            [0, 0, 1, 1, 5]
        );
        let none = default.max_ejected_percent(100);
        assert_eq!([0, 1, 2, 10].map(|n| none.max_ejected(n)), [0, 0, 1, 9]);
        assert_eq!(none.eject_last(true).max_ejected(1), 1);
        assert_eq!(none.min_ready_endpoints(4).max_ejected(10), 6);
        assert_eq!(none.min_ready_endpoints(4).max_ejected(3), 0);
    }

    #[test]
    fn places_are_never_lost_or_made() {
        let ward = Ward::new(EjectionLimits::default(), None);
        ward.resize(1);
        let (one, two) = (Standing::default(), Standing::default());
        assert!(one.eject(&ward) && one.eject(&ward));
        assert!(!two.eject(&ward), "the only place is taken");
        one.retire(&ward);
        assert!(!one.eject(&ward), "it has left the set");
        one.readmit(&ward);
        assert_eq!(ward.ejected(), 0);
        assert!(two.eject(&ward));
        two.begin_stream();
        two.readmit(&ward);
        two.readmit(&ward);
        assert_eq!(ward.ejected(), 0);
        assert_eq!(two.streaming(), 1);
        two.retire(&ward);
        two.end_stream();
        assert!(two.is_retired() && two.streaming() == 0);
    }
}
