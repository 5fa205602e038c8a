//! The variables that linkerd2-proxy is started with, so that this program can be put in its place.
//!
//! `table` lists them; `forms` reads what is written otherwise there than here.

mod forms;
mod table;

use std::ffi::OsString;
use std::net::SocketAddr;

use super::tables::Layers;
use super::value::{Setting, Value};
use super::{Config, Error};
pub use table::{HONOURED, NOT_HONOURED, Variable};

/// What each of the variables begins with.
pub const PREFIX: &str = "LINKERD2_PROXY_";

/// The variables that are set and make no difference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unheeded {
    /// Those that linkerd2-proxy has and this proxy does not honour: [`NOT_HONOURED`].
    pub not_honoured: Vec<String>,
    /// Those that others go over: the name of a controller at a loopback address, the token beside a Workload API.
    pub overridden: Vec<String>,
    /// Those that nobody knows.
    pub unknown: Vec<String>,
}

impl Unheeded {
    /// As `/config` shows it.
    pub(super) fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "not_honoured": self.not_honoured,
            "overridden": self.overridden,
            "unknown": self.unknown,
        })
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.not_honoured.is_empty() && self.overridden.is_empty() && self.unknown.is_empty()
    }
}

/// What the variables say.
#[derive(Debug, Default)]
pub(super) struct Environment {
    /// What they state.
    stated: Layers,
    /// What linkerd2-proxy does where they state nothing; empty unless the program stands in for it.
    defaults: Layers,
    /// Whether the program stands in for linkerd2-proxy.
    stands_in: bool,
    /// Those that make no difference.
    unheeded: Unheeded,
}

impl Environment {
    /// Picks the variables out of an environment.
    ///
    /// # Errors
    /// When one of them holds something wrong.
    pub(super) fn read(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Error> {
        let mut given = Vec::new();
        for (name, value) in variables {
            let Some(name) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else {
                continue;
            };
            match value.into_string() {
                Ok(value) => given.push((name.to_owned(), value)),
                Err(value) => {
                    return Err(wrong(
                        name,
                        &value.to_string_lossy(),
                        "expected UTF-8".into(),
                    ));
                }
            }
        }
        given.sort_unstable();
        let value = |name| {
            let found = given.binary_search_by(|(given, _)| given.as_str().cmp(name));
            found.ok().map(|index| given[index].1.as_str())
        };
        let stands_in = STANDING_IN.iter().any(|name| value(name).is_some());
        // In the order of the table, where later ones go over earlier ones.
        let all = Given::read(|variable| value(variable.name))?;
        let is_overridden = |name: &str| {
            let others =
                |variable: &Variable| value(variable.name).filter(|_| variable.name != name);
            Given::read(others).is_ok_and(|others| others.amounts_to(&all))
        };
        let defaults = if stands_in {
            Given::read(|variable| variable.default)?.into_layers()
        } else {
            Layers::default()
        };
        let mut unheeded = Unheeded::default();
        for (name, value) in &given {
            // An empty one asks for nothing.
            if value.is_empty() {
                continue;
            }
            let list = if HONOURED.iter().any(|honoured| honoured.name == *name) {
                if !is_overridden(name) {
                    continue;
                }
                &mut unheeded.overridden
            } else if NOT_HONOURED.iter().any(|(known, _)| known == name) {
                &mut unheeded.not_honoured
            } else {
                &mut unheeded.unknown
            };
            list.push(format!("{PREFIX}{name}"));
        }
        Ok(Self {
            stated: all.into_layers(),
            defaults,
            stands_in,
            unheeded,
        })
    }

    /// Joins what they say with the layer that goes over it and the file, which goes under it.
    ///
    /// # Errors
    /// When something is missing or wrong, or does not fit together.
    pub(super) fn configure(mut self, over: Layers, file: Layers) -> Result<Config, Error> {
        let stated = over.over(std::mem::take(&mut self.stated)).over(file);
        if self.stands_in && stated.control.workload.is_none() {
            let (key, why) = (
                "control.workload",
                "what names this workload to the policy controller",
            );
            return Err(self.explain(Error::Missing { key, why }));
        }
        let layers = stated.over(std::mem::take(&mut self.defaults));
        let mut config = layers.resolve().map_err(|error| self.explain(error))?;
        config.unheeded = self.unheeded;
        Ok(config)
    }

    /// Names the variables that an error is about, when the settings were to come from them.
    fn explain(&self, error: Error) -> Error {
        let variables: Vec<String> = HONOURED
            .iter()
            .filter(|variable| error.key().is_some_and(|key| key.starts_with(variable.key)))
            .map(|variable| format!("{PREFIX}{}", variable.name))
            .collect();
        if !self.stands_in || variables.is_empty() {
            return error;
        }
        Error::From {
            variable: variables.join(" or "),
            source: Box::new(error),
        }
    }
}

/// What a variable adds to: settings, and what comes of several variables.
#[derive(Debug, Default)]
struct Given {
    layers: Layers,
    cores: forms::Cores,
    /// Where requests would be observed.
    tap: Option<SocketAddr>,
}

impl Given {
    /// What the variables of [`HONOURED`] make, with what `value` says each holds.
    fn read<'a>(value: impl Fn(&Variable) -> Option<&'a str>) -> Result<Self, Error> {
        let mut given = Self::default();
        for variable in HONOURED {
            if let Some(value) = value(variable) {
                (variable.set)(&mut given, value.trim())
                    .map_err(|expected| wrong(variable.name, value, expected))?;
            }
        }
        Ok(given)
    }

    /// Whether both make the same settings.
    fn amounts_to(&self, other: &Self) -> bool {
        self.layers == other.layers && self.cores == other.cores
    }

    fn into_layers(self) -> Layers {
        let Self {
            mut layers, cores, ..
        } = self;
        let available = std::thread::available_parallelism().map_or(1, usize::from);
        if let Some(workers) = cores.workers(available) {
            layers.limits.workers = Some(Setting(workers));
        }
        layers
    }
}

fn wrong(name: &str, value: &str, expected: String) -> Error {
    Error::Variable {
        variable: format!("{PREFIX}{name}"),
        value: value.chars().take(MAX_SHOWN).collect(),
        expected,
    }
}

/// Sets a setting to what its text says.
fn put<T: Value>(slot: &mut Option<Setting<T>>, value: Result<T, String>) -> Result<(), String> {
    *slot = Some(Setting(value?));
    Ok(())
}

/// With one of these the program stands in for linkerd2-proxy, which does not start without them.
const STANDING_IN: &[&str] = &["DESTINATION_SVC_ADDR", "POLICY_SVC_ADDR"];

/// How much of a wrong value is shown.
const MAX_SHOWN: usize = 120;

#[cfg(test)]
mod tests;
