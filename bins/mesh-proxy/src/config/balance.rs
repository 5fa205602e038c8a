//! Settings of choosing endpoints that have a shape of their own.

use mesh_balance::core::Zones;
use serde_json::{Value as Json, json};

use super::value::{Value, kind};

/// What is made of endpoints that refuse requests for their rate, where the controller asks for more than latency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RateLimiting {
    /// Their limits are learned and kept, hints are waited for, and what nobody has room for is turned away at once.
    #[default]
    Learned,
    /// The published semantics of `PenaltyPeakEwma` and no more.
    Exact,
}

impl Value for RateLimiting {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "learned" => Ok(Self::Learned),
            "exact" => Ok(Self::Exact),
            _ => Err(format!("expected learned or exact, found {text:?}")),
        }
    }

    fn to_json(&self) -> Json {
        Json::from(match self {
            Self::Learned => "learned",
            Self::Exact => "exact",
        })
    }
}

/// The name of a zone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Zone(String);

impl Zone {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for Zone {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("expected the name of a zone, as in eu-1a, found nothing".to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    fn to_json(&self) -> Json {
        Json::from(self.0.as_str())
    }
}

/// Between which loads a zone is kept: requests in flight per endpoint. As text: `LOW-HIGH`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadBand {
    low: f32,
    high: f32,
}

impl LoadBand {
    /// Below this load endpoints of other zones leave.
    #[must_use]
    pub fn low(&self) -> f32 {
        self.low
    }

    /// Above this load they come in.
    #[must_use]
    pub fn high(&self) -> f32 {
        self.high
    }

    fn new(low: f32, high: f32) -> Result<Self, String> {
        match Zones::new("").band(low, high) {
            Ok(_) => Ok(Self { low, high }),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// 0.8 to 2.0.
impl Default for LoadBand {
    fn default() -> Self {
        Self {
            low: 0.8,
            high: 2.0,
        }
    }
}

// None of them is NaN.
impl Eq for LoadBand {}

impl Value for LoadBand {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected LOW-HIGH, as in 0.8-2.0, found {text:?}");
        let (low, high) = text.split_once('-').ok_or_else(wrong)?;
        let number = |text: &str| text.trim().parse().map_err(|_| wrong());
        Self::new(number(low)?, number(high)?)
    }

    fn from_toml(value: toml::Value) -> Result<Self, String> {
        let table = match value {
            toml::Value::String(text) => return Self::parse(&text),
            toml::Value::Table(table) => table,
            other => {
                return Err(format!(
                    "expected {{low, high}}, as in {{low = 0.8, high = 2.0}}, found {}",
                    kind(&other)
                ));
            }
        };
        let Self { mut low, mut high } = Self::default();
        for (key, value) in table {
            let end = match key.as_str() {
                "low" => &mut low,
                "high" => &mut high,
                _ => return Err(format!("expected low and high, found {key:?}")),
            };
            *end = match value {
                toml::Value::Float(number) => number as f32,
                toml::Value::Integer(number) => number as f32,
                other => return Err(format!("expected a number, found {}", kind(&other))),
            };
        }
        Self::new(low, high)
    }

    fn to_json(&self) -> Json {
        // By way of its text, so that 0.8 is not shown as 0.800000011920929.
        let number = |end: f32| end.to_string().parse::<f64>().unwrap_or_default();
        json!({"low": number(self.low), "high": number(self.high)})
    }
}

/// A share, from 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Percent(u8);

impl Percent {
    /// The whole.
    pub const ALL: Self = Self(100);

    /// The number.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }
}

impl Value for Percent {
    fn parse(text: &str) -> Result<Self, String> {
        let number = text.parse().ok().filter(|number| *number <= 100);
        number
            .map(Self)
            .ok_or_else(|| format!("expected a whole number from 0 to 100, found {text:?}"))
    }

    fn from_toml(value: toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::Integer(number) => Self::parse(&number.to_string()),
            other => Err(format!("expected a whole number, found {}", kind(&other))),
        }
    }

    fn to_json(&self) -> Json {
        Json::from(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_band_reads_and_shows() {
        let band = LoadBand {
            low: 0.5,
            high: 3.0,
        };
        assert_eq!(LoadBand::parse("0.5-3"), Ok(band));
        let table = |text: &str| LoadBand::from_toml(toml::Value::Table(text.parse().unwrap()));
        assert_eq!(table("low = 0.5\nhigh = 3"), Ok(band));
        let default = LoadBand::default();
        assert_eq!(table("high = 2.0"), Ok(default));
        assert_eq!(default.to_json(), json!({"low": 0.8, "high": 2.0}));
        for text in ["", "1", "2-1", "1-1", "-1-2", "0.8-inf", "NaN-1"] {
            assert!(LoadBand::parse(text).is_err(), "{text}");
        }
        for text in ["low = 2.0", "low = \"1\"", "middle = 1"] {
            assert!(table(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_percentage_is_at_most_the_whole() {
        assert_eq!(Percent::parse("100"), Ok(Percent::ALL));
        for text in ["101", "-1", "50%", ""] {
            assert!(Percent::parse(text).is_err(), "{text}");
        }
    }
}
