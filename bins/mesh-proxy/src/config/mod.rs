//! Configuration: one TOML file, under the environment, under the flags.
//!
//! `tables` declares every key, `types`, `balance` and `host_port` the settings with a shape of their own, `value` how each is
//! written, `check` what has to be so between them, `flags` the command line, [`linkerd`] the variables that
//! linkerd2-proxy is started with. A [`Config`] that exists is valid.

mod addresses;
mod balance;
mod check;
mod crypto;
mod flags;
mod host_port;
pub mod linkerd;
mod table;
mod tables;
mod types;
mod value;

use std::path::PathBuf;

use mesh_tls::Identity as Name;

pub use addresses::Addresses;
pub use balance::{LoadBand, Percent, RateLimiting, Zone};
pub use crypto::{CipherSuite, KeyExchange};
pub use flags::{Action, from_command_line};
pub use host_port::{HostPort, Lookup};
pub use linkerd::Unheeded;
pub use tables::{Admin, Balance, Control, Identity, Inbound, Limits, Outbound, Tap};
pub use types::{
    DnsSuffix, LogFormat, Pem, PortMap, PortRange, ServiceListener, SocketPath, contains_port,
};
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
    /// Letting requests be observed.
    pub tap: Tap,
    /// `identity.name`, parsed.
    pub name: Name,
    /// Where the controller is.
    pub controllers: Controllers,
    /// What issues this proxy's certificate.
    pub issuer: Issuer,
    /// The variables of linkerd2-proxy that are set and make no difference.
    pub unheeded: Unheeded,
}

/// Where the services of the controller are. One connection serves both when they are in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controllers {
    /// Endpoints and profiles.
    pub destination: Controller,
    /// Policies.
    pub policy: Controller,
}

/// What issues a proxy's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Issuer {
    /// A controller, for a token.
    Controller {
        /// Where it is.
        controller: Controller,
        /// The file with the token.
        token_file: PathBuf,
    },
    /// A SPIFFE Workload API at this socket.
    WorkloadApi(SocketPath),
}

/// Where a controller is, and who has to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    /// Its address, or those of several of which any will do.
    pub address: Addresses,
    /// Its identity; `None` means plaintext, to a loopback address.
    pub name: Option<Name>,
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
            "tap": self.tap.to_json(),
            "linkerd2_proxy": self.unheeded.to_json(),
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
        let file: tables::Layers = file;
        file.resolve()
    }
}

impl Error {
    /// The key that is missing or wrong, if it is one.
    fn key(&self) -> Option<&'static str> {
        match self {
            Self::Missing { key, .. } | Self::Value { key, .. } | Self::Unnamed { key, .. } => {
                Some(key)
            }
            _ => None,
        }
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
    /// A controller on another machine is to be spoken to without knowing who it is.
    #[error(
        "{key} is not set: the controller's identity, required because {address_key} is {address}, which is not a loopback address"
    )]
    Unnamed {
        /// The key that is missing.
        key: &'static str,
        /// The key of the address.
        address_key: &'static str,
        /// The address.
        address: Addresses,
    },
    /// A variable of linkerd2-proxy holds something wrong.
    #[error("{variable} is {value:?}: {expected}")]
    Variable {
        /// The variable.
        variable: String,
        /// Its value, cut to what is readable.
        value: String,
        /// What would be right.
        expected: String,
    },
    /// A setting is missing or wrong that would come from a variable of linkerd2-proxy.
    #[error("{source} ({variable})")]
    From {
        /// The variable or variables.
        variable: String,
        /// What is wrong.
        source: Box<Error>,
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
