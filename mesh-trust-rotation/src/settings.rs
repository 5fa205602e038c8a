//! How long things last and how careful to be.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::phase::Phase;

/// The durations and limits of a mesh. Every duration is a whole number of seconds; parts of one are rounded up.
///
/// [`Event::Configure`](crate::Event::Configure) changes them. Most may change at any time. `skew` may not while a change or a
/// restore is underway, `emergency_quorum` and `emergency_deadline` not in an emergency, `bridges` not be turned off while
/// stragglers are carried, and `consumer_lease` not become shorter than what is left of the leaves that are out.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Settings {
    /// The longest life of a leaf. Default: 24 h.
    pub leaf_life: Duration,
    /// How much earlier than its making a leaf begins to be valid. At least `skew`. Default: 5 min.
    pub backdate: Duration,
    /// How far any clock may be from the controller's. Default: 1 min.
    pub skew: Duration,
    /// How old evidence may be that opens a gate. Default: 15 min.
    pub freshness: Duration,
    /// How long a consumer may be silent before it is quarantined. At least `leaf_life`. Default: 48 h.
    pub consumer_lease: Duration,
    /// How long a signer may sign without hearing from the coordinator. Default: 10 min.
    pub signing_lease: Duration,
    /// How long trust in the new anchor must have held before anything is signed with it. Default: 0.
    pub trust_hold: Duration,
    /// How long canaries run before everybody follows. Default: 10 min.
    pub soak: Duration,
    /// The phases in which a change as planned stands still from its first moment, as if an operator had said so, until an operator
    /// has it resume. An abort or an emergency stands still in none. Default: none.
    pub pause_in: BTreeSet<Phase>,
    /// What each phase may take; a phase is entered only if this much is left for each phase that remains.
    /// Default: 48 h, the default lease of a consumer.
    pub phase_budget: Duration,
    /// How long a connection may live of a consumer that cannot say how old its connections are. Default: 24 h.
    pub unreported_connection_life: Duration,
    /// Whether connections verified under the retiring anchor are awaited or cut. An emergency cuts. Default: wait.
    pub drain: Drain,
    /// Whether stragglers may be carried by a cross-certificate. Default: no.
    pub bridges: bool,
    /// The most re-issues asked for at once. Default: 50.
    pub reissue_batch: usize,
    /// Over how long a batch of re-issues is spread. Default: 30 s.
    pub reissue_jitter: Duration,
    /// The most restarts asked for at once, for consumers that read roots only at start. Default: 1.
    pub restart_batch: usize,
    /// The percentage of consumers that must be ready before an emergency may leave others behind early. Default: 90.
    pub emergency_quorum: u8,
    /// After this an emergency may leave any others behind, by name. Default: 1 h.
    pub emergency_deadline: Duration,
}

/// What becomes of connections that were verified under the retiring anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Drain {
    /// They block, by name, until they have ended.
    Wait,
    /// They are closed, announced and counted.
    Cut,
}

impl Default for Settings {
    fn default() -> Self {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        Self {
            leaf_life: Duration::from_secs(24 * HOUR),
            backdate: Duration::from_secs(5 * MINUTE),
            skew: Duration::from_secs(MINUTE),
            freshness: Duration::from_secs(15 * MINUTE),
            consumer_lease: Duration::from_secs(48 * HOUR),
            signing_lease: Duration::from_secs(10 * MINUTE),
            trust_hold: Duration::ZERO,
            soak: Duration::from_secs(10 * MINUTE),
            pause_in: BTreeSet::new(),
            phase_budget: Duration::from_secs(48 * HOUR),
            unreported_connection_life: Duration::from_secs(24 * HOUR),
            drain: Drain::Wait,
            bridges: false,
            reissue_batch: 50,
            reissue_jitter: Duration::from_secs(30),
            restart_batch: 1,
            emergency_quorum: 90,
            emergency_deadline: Duration::from_secs(HOUR),
        }
    }
}

impl Settings {
    /// Says what contradicts itself.
    ///
    /// # Errors
    /// [`Error::Setting`], naming the first.
    pub fn check(&self) -> Result<(), Error> {
        self.agree()
            .map_err(|(name, expected)| Error::Setting { name, expected })
    }

    /// The names of the settings that are not the same in another.
    pub(crate) fn differing(&self, other: &Self) -> Vec<&'static str> {
        let Self {
            leaf_life,
            backdate,
            skew,
            freshness,
            consumer_lease,
            signing_lease,
            trust_hold,
            soak,
            pause_in,
            phase_budget,
            unreported_connection_life,
            drain,
            bridges,
            reissue_batch,
            reissue_jitter,
            restart_batch,
            emergency_quorum,
            emergency_deadline,
        } = self;
        let all = [
            ("leaf_life", *leaf_life != other.leaf_life),
            ("backdate", *backdate != other.backdate),
            ("skew", *skew != other.skew),
            ("freshness", *freshness != other.freshness),
            ("consumer_lease", *consumer_lease != other.consumer_lease),
            ("signing_lease", *signing_lease != other.signing_lease),
            ("trust_hold", *trust_hold != other.trust_hold),
            ("soak", *soak != other.soak),
            ("pause_in", *pause_in != other.pause_in),
            ("phase_budget", *phase_budget != other.phase_budget),
            (
                "unreported_connection_life",
                *unreported_connection_life != other.unreported_connection_life,
            ),
            ("drain", *drain != other.drain),
            ("bridges", *bridges != other.bridges),
            ("reissue_batch", *reissue_batch != other.reissue_batch),
            ("reissue_jitter", *reissue_jitter != other.reissue_jitter),
            ("restart_batch", *restart_batch != other.restart_batch),
            (
                "emergency_quorum",
                *emergency_quorum != other.emergency_quorum,
            ),
            (
                "emergency_deadline",
                *emergency_deadline != other.emergency_deadline,
            ),
        ];
        let changed = all.into_iter().filter(|(_, changed)| *changed);
        changed.map(|(name, _)| name).collect()
    }

    /// The same as [`check`](Self::check); the setting and what would be right.
    pub(crate) fn agree(&self) -> Result<(), (&'static str, &'static str)> {
        let positive = [
            ("leaf_life", self.leaf_life),
            ("freshness", self.freshness),
            ("signing_lease", self.signing_lease),
        ];
        for (name, value) in positive {
            require(name, !value.is_zero(), "more than 0")?;
        }
        require(
            "consumer_lease",
            self.consumer_lease >= self.leaf_life,
            "at least leaf_life, or a leaf outlives its holder's lease",
        )?;
        require(
            "backdate",
            self.backdate >= self.skew,
            "at least skew, or a slow clock refuses a new leaf",
        )?;
        require("reissue_batch", self.reissue_batch > 0, "at least 1")?;
        require("restart_batch", self.restart_batch > 0, "at least 1")?;
        require(
            "emergency_quorum",
            (1..=100).contains(&self.emergency_quorum),
            "a percentage from 1 to 100",
        )
    }
}

fn require(
    name: &'static str,
    right: bool,
    expected: &'static str,
) -> Result<(), (&'static str, &'static str)> {
    if right {
        return Ok(());
    }
    Err((name, expected))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn defaults_agree_with_themselves() {
        assert_eq!(Settings::default().check(), Ok(()));
    }

    #[test]
    fn each_setting_that_differs_is_named() {
        let one = Settings::default();
        let mut json = serde_json::to_value(&one).unwrap();
        let names: Vec<String> = json.as_object().unwrap().keys().cloned().collect();
        for name in &names {
            let before = json[name].clone();
            json[name] = match &before {
                serde_json::Value::Bool(said) => (!said).into(),
                serde_json::Value::Number(number) => (number.as_u64().unwrap() + 1).into(),
                serde_json::Value::String(_) => "cut".into(),
                serde_json::Value::Array(_) => serde_json::json!(["drain"]),
                _ => serde_json::json!({"secs": 77, "nanos": 0}),
            };
            let other: Settings = serde_json::from_value(json.clone()).unwrap();
            assert_eq!(one.differing(&other), [name.as_str()]);
            json[name] = before;
        }
        assert_eq!(names.len(), 18);
    }

    #[test]
    fn a_lease_shorter_than_a_leaf_is_refused_by_name() {
        let settings = Settings {
            consumer_lease: Duration::from_secs(5),
            ..Settings::default()
        };
        let error = settings.check().unwrap_err().to_string();
        assert!(error.contains("consumer_lease"), "{error}");
    }
}
