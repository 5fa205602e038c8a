//! How one setting is written: as TOML in the file, as text in a flag or an environment variable, as JSON in `/config`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use serde::de::{Deserialize, Deserializer, Error as _};
use serde_json::Value as Json;

/// A setting's type.
pub trait Value: Clone + Sized {
    /// Reads the text of a flag or variable. The error says what would be right.
    fn parse(text: &str) -> Result<Self, String>;

    /// Reads the file's form. The error says what would be right; the parser adds line and column.
    fn from_toml(value: toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::String(text) => Self::parse(&text),
            other => Err(format!("expected a string, found {}", kind(&other))),
        }
    }

    /// What `/config` shows.
    fn to_json(&self) -> Json;
}

/// A value as a layer (file or flags) states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting<T>(pub T);

impl<T: Value> FromStr for Setting<T> {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        T::parse(text.trim()).map(Self).map_err(Invalid)
    }
}

impl<'de, T: Value> Deserialize<'de> for Setting<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = toml::Value::deserialize(deserializer)?;
        T::from_toml(value).map(Self).map_err(D::Error::custom)
    }
}

/// Why a setting's text was refused.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

/// The kind of a TOML value, with its article, for error messages.
pub(super) fn kind(value: &toml::Value) -> String {
    match value {
        toml::Value::Integer(n) => format!("the integer {n}"),
        toml::Value::Float(n) => format!("the number {n}"),
        toml::Value::Boolean(b) => format!("the boolean {b}"),
        toml::Value::String(s) => format!("the string {s:?}"),
        toml::Value::Datetime(d) => format!("the date {d}"),
        toml::Value::Array(_) => "an array".to_owned(),
        toml::Value::Table(_) => "a table".to_owned(),
    }
}

macro_rules! integer {
    ($($type:ty),*) => {$(
        impl Value for $type {
            fn parse(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| {
                    format!("expected a whole number from {} to {}, found {text:?}", <$type>::MIN, <$type>::MAX)
                })
            }

            fn from_toml(value: toml::Value) -> Result<Self, String> {
                match value {
                    toml::Value::Integer(n) => Self::parse(&n.to_string()),
                    other => Err(format!("expected a whole number, found {}", kind(&other))),
                }
            }

            fn to_json(&self) -> Json {
                Json::from(*self)
            }
        }
    )*};
}

integer!(u16, u32, u64, usize);

impl Value for bool {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
            .map_err(|_| format!("expected true or false, found {text:?}"))
    }

    fn from_toml(value: toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::Boolean(value) => Ok(value),
            other => Err(format!("expected true or false, found {}", kind(&other))),
        }
    }

    fn to_json(&self) -> Json {
        Json::from(*self)
    }
}

impl Value for String {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }

    fn to_json(&self) -> Json {
        Json::from(self.as_str())
    }
}

impl Value for PathBuf {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("expected a path, found nothing".to_owned());
        }
        Ok(Self::from(text))
    }

    fn to_json(&self) -> Json {
        Json::from(self.display().to_string())
    }
}

impl Value for SocketAddr {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| {
            format!("expected an IP address with a port, as in 127.0.0.1:4191, found {text:?}")
        })
    }

    fn to_json(&self) -> Json {
        Json::from(self.to_string())
    }
}

impl Value for IpAddr {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
            .map_err(|_| format!("expected an IP address, as in 10.0.0.1, found {text:?}"))
    }

    fn to_json(&self) -> Json {
        Json::from(self.to_string())
    }
}

impl Value for IpNet {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse::<Self>()
            .or_else(|_| text.parse::<std::net::IpAddr>().map(Self::from))
            .map_err(|_| format!("expected a network, as in 10.0.0.0/8, found {text:?}"))
    }

    fn to_json(&self) -> Json {
        Json::from(self.to_string())
    }
}

impl Value for Duration {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected a duration, as in 500ms, 10s or 5m, found {text:?}");
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        number
            .checked_mul(milliseconds)
            .map(Self::from_millis)
            .ok_or_else(wrong)
    }

    fn to_json(&self) -> Json {
        let milliseconds = self.as_millis();
        Json::from(if milliseconds.is_multiple_of(1_000) {
            format!("{}s", milliseconds / 1_000)
        } else {
            format!("{milliseconds}ms")
        })
    }
}

impl<T: Value> Value for Option<T> {
    fn parse(text: &str) -> Result<Self, String> {
        T::parse(text).map(Some)
    }

    fn from_toml(value: toml::Value) -> Result<Self, String> {
        T::from_toml(value).map(Some)
    }

    fn to_json(&self) -> Json {
        self.as_ref().map_or(Json::Null, Value::to_json)
    }
}

impl<T: Value> Value for Vec<T> {
    fn parse(text: &str) -> Result<Self, String> {
        text.split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(T::parse)
            .collect()
    }

    fn from_toml(value: toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::Array(items) => items.into_iter().map(T::from_toml).collect(),
            toml::Value::String(text) => Self::parse(&text),
            other => Err(format!("expected an array, found {}", kind(&other))),
        }
    }

    fn to_json(&self) -> Json {
        self.iter().map(Value::to_json).collect()
    }
}

impl<T: fmt::Display> fmt::Display for Setting<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_show() {
        for (text, expected) in [
            ("500ms", Duration::from_millis(500)),
            ("10s", Duration::from_secs(10)),
            ("5m", Duration::from_secs(300)),
            ("1h", Duration::from_secs(3600)),
            ("2d", Duration::from_secs(172_800)),
        ] {
            assert_eq!(Duration::parse(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "10",
            "s",
            "-1s",
            "1.5s",
            "10 s",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert!(Duration::parse(text).is_err(), "{text}");
        }
        assert_eq!(Duration::from_millis(1_500).to_json(), "1500ms");
        assert_eq!(Duration::from_secs(90).to_json(), "90s");
    }

    #[test]
    fn integers_keep_their_range() {
        assert_eq!(u16::from_toml(toml::Value::Integer(65_535)), Ok(65_535));
        assert!(u16::from_toml(toml::Value::Integer(65_536)).is_err());
        assert!(usize::from_toml(toml::Value::Integer(-1)).is_err());
        assert!(u32::from_toml(toml::Value::String("1".to_owned())).is_err());
    }

    #[test]
    fn lists_split_at_commas() {
        assert_eq!(Vec::<u16>::parse("25, 3306,"), Ok(vec![25, 3306]));
        assert_eq!(Vec::<u16>::parse(""), Ok(vec![]));
        assert!(Vec::<u16>::parse("25,x").is_err());
        let text = toml::Value::String("25,26".to_owned());
        assert_eq!(Vec::<u16>::from_toml(text), Ok(vec![25, 26]));
    }
}
