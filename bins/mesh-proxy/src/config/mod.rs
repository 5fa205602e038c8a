//! Configuration: one TOML file, under the environment, under the flags.
//!
//! `tables` declares every key, `types` the settings with a shape of their own, `value` how each is written, `flags` the
//! command line. A [`Config`] that exists is valid.

mod flags;
mod table;
mod tables;
mod types;
mod value;

use std::path::PathBuf;

use mesh_tls::Identity as Name;

pub use flags::{Action, from_command_line};
pub use tables::{Admin, Balance, Control, Identity, Inbound, Limits, Outbound};
pub use types::{Pem, PortMap, ServiceListener};
pub use value::{Invalid, Setting, Value};

/// The whole configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who this proxy is.
    pub identity: Identity,
    /// Where the controller is.
    pub control: Control,
    /// Traffic to the application.
    pub inbound: Inbound,
    /// Traffic from the application.
    pub outbound: Outbound,
    /// Choosing endpoints.
    pub balance: Balance,
    /// What is bounded.
    pub limits: Limits,
    /// The admin server and the log.
    pub admin: Admin,
    /// `identity.name`, parsed.
    pub name: Name,
    /// `control.name`, parsed; `None` means plaintext, to a controller on a loopback address.
    pub controller: Option<Name>,
}

impl Config {
    /// The effective configuration as JSON. It holds no secrets: the token's path is shown, never the token.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "identity": self.identity.to_json(),
            "control": self.control.to_json(),
            "inbound": self.inbound.to_json(),
            "outbound": self.outbound.to_json(),
            "balance": self.balance.to_json(),
            "limits": self.limits.to_json(),
            "admin": self.admin.to_json(),
        })
    }

    /// Reads a file's text. `Display` of the error gives line and column.
    ///
    /// # Errors
    /// On bad TOML, unknown keys, wrong values and settings that do not fit together.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        let file = toml::from_str(text).map_err(|source| Error::File {
            path: PathBuf::from("-"),
            source,
        })?;
        tables::Layers::default().over(file)
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what it should be; the source names line and column.
    #[error("{}: {source}", path.display())]
    File {
        /// The file; `-` for text that came from elsewhere.
        path: PathBuf,
        /// What is wrong, with line and column.
        source: toml::de::Error,
    },
    /// A setting that must be given is missing.
    #[error("{key} is not set: {why}")]
    Missing {
        /// The key.
        key: &'static str,
        /// What it is for.
        why: &'static str,
    },
    /// A value does not fit.
    #[error("{key} is {value}: {expected}")]
    Value {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// Two listeners want one address.
    #[error("{first} and {second} both listen on {address}")]
    Listeners {
        /// The key of one.
        first: &'static str,
        /// The key of the other.
        second: &'static str,
        /// The address.
        address: std::net::SocketAddr,
    },
}
