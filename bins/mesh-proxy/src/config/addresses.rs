//! Where controllers are, of which one is enough.

use std::fmt;
use std::net::SocketAddr;

use serde_json::Value as Json;

use super::host_port::HostPort;
use super::value::Value;

/// One `host:port` or several, comma separated or as an array: controllers of one mesh, any of which will do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Addresses(Vec<HostPort>);

impl Addresses {
    /// The most there may be.
    pub const MOST: usize = 16;

    /// All of them; at least one.
    #[must_use]
    pub fn all(&self) -> &[HostPort] {
        &self.0
    }

    /// Whether all are this machine's loopback interface: what is spoken to without TLS.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.0.iter().all(HostPort::is_loopback)
    }

    fn of(addresses: Vec<HostPort>) -> Result<Self, String> {
        match addresses.len() {
            0 => Err("expected a host with a port, found nothing".to_owned()),
            1..=Self::MOST => Ok(Self(addresses)),
            more => Err(format!("expected at most {}, found {more}", Self::MOST)),
        }
    }
}

impl Value for Addresses {
    fn parse(text: &str) -> Result<Self, String> {
        // One that is empty is said to be wrong as one.
        if !text.contains(',') {
            return HostPort::parse(text).map(Self::from);
        }
        Self::of(Vec::parse(text)?)
    }

    fn from_toml(value: toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::String(text) => Self::parse(&text),
            toml::Value::Array(_) => Self::of(Vec::from_toml(value)?),
            other => HostPort::from_toml(other).map(Self::from),
        }
    }

    fn to_json(&self) -> Json {
        match &self.0[..] {
            [one] => one.to_json(),
            all => all.iter().map(Value::to_json).collect(),
        }
    }
}

impl From<HostPort> for Addresses {
    fn from(address: HostPort) -> Self {
        Self(vec![address])
    }
}

impl From<SocketAddr> for Addresses {
    fn from(address: SocketAddr) -> Self {
        HostPort::from(address).into()
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, address) in self.0.iter().enumerate() {
            let comma = if number > 0 { ", " } else { "" };
            write!(f, "{comma}{address}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_or_several_as_text_or_array() {
        let one = Addresses::parse("127.0.0.1:1").unwrap();
        assert_eq!(one.to_json(), "127.0.0.1:1");
        assert!(one.is_loopback());
        let two = Addresses::parse("127.0.0.1:1, Control.example:2").unwrap();
        assert_eq!(two.to_string(), "127.0.0.1:1, control.example:2");
        assert!(!two.is_loopback(), "one of them is elsewhere");
        assert_eq!(
            two.to_json(),
            serde_json::json!(["127.0.0.1:1", "control.example:2"])
        );
        let array = toml::Value::from(vec!["127.0.0.1:1", "control.example:2"]);
        assert_eq!(Addresses::from_toml(array), Ok(two));
        for wrong in ["", ",", "127.0.0.1:1,x", "127.0.0.1:1,127.0.0.1"] {
            assert!(Addresses::parse(wrong).is_err(), "{wrong}");
        }
        let many = vec!["127.0.0.1:1"; 17].join(",");
        let error = Addresses::parse(&many).unwrap_err();
        assert_eq!(error, "expected at most 16, found 17");
        assert!(Addresses::from_toml(toml::Value::Array(Vec::new())).is_err());
    }
}
