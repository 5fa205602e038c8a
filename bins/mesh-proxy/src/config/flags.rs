//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, CommandFactory, FromArgMatches, Parser};
use serde_json::Value as Json;

use super::linkerd::Environment;
use super::tables::{self, Layers};
use super::{Config, Error};

/// What the command line asks for.
#[derive(Debug)]
pub enum Action {
    /// Run with this configuration.
    Run(Box<Config>),
    /// The configuration was only to be checked, and is fine.
    Checked,
    /// Help, version or a usage error: for clap to print, with its exit code.
    Usage(clap::Error),
}

/// The mesh-rs data plane: a sidecar proxy that carries a workload's traffic over mTLS.
///
/// Settings come from one TOML file with the tables [identity] [control] [inbound] [outbound] [balance] [limits]
/// [admin] [tap]; environment variables override the file, flags override both. Each flag --TABLE-KEY is the file's key of
/// that table, with _ for -. Durations are written 500ms, 10s, 5m, 1h.
///
/// The variables LINKERD2_PROXY_* that linkerd2-proxy is started with are read too: they go over the file and under the
/// variables MESH_PROXY_* and the flags.
///
/// Exit codes: 0 after a drain, 1 when it cannot run or the drain was cut off, 2 for a wrong command line or configuration.
#[derive(Debug, Parser)]
#[command(name = "mesh-proxy", version, max_term_width = 120)]
struct Flags {
    /// The configuration file.
    #[arg(long, env = "MESH_PROXY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Check the configuration and exit.
    #[arg(long)]
    check: bool,

    #[command(flatten)]
    settings: Layers,
}

/// Reads command line, environment and file.
///
/// # Errors
/// When the file cannot be read or the settings are wrong.
pub fn from_command_line(arguments: impl IntoIterator<Item = OsString>) -> Result<Action, Error> {
    let command = Flags::command().mut_args(with_default);
    let parsed = command
        .try_get_matches_from(arguments)
        .and_then(|matches| Flags::from_arg_matches(&matches));
    let flags = match parsed {
        Ok(flags) => flags,
        Err(usage) => return Ok(Action::Usage(usage)),
    };
    let file = match flags.config {
        Some(path) => read(path)?,
        None => Layers::default(),
    };
    let environment = Environment::read(std::env::vars_os())?;
    let config = environment.configure(flags.settings, file)?;
    Ok(if flags.check {
        Action::Checked
    } else {
        Action::Run(Box::new(config))
    })
}

/// Ends a key's help with its default.
fn with_default(arg: Arg) -> Arg {
    let default = arg
        .get_id()
        .as_str()
        .split_once('-')
        .and_then(|(table, key)| {
            let defaults = tables::defaults();
            text(&defaults[table][key.replace('-', "_")])
        });
    match (default, arg.get_help()) {
        (Some(default), Some(help)) => {
            let help = format!("{help}. Default: {default}");
            arg.help(help.clone()).long_help(help)
        }
        _ => arg,
    }
}

fn text(value: &Json) -> Option<String> {
    match value {
        Json::Null => None,
        Json::String(plain) => (!plain.is_empty()).then(|| plain.clone()),
        Json::Array(items) => {
            let items: Vec<_> = items.iter().filter_map(text).collect();
            (!items.is_empty()).then(|| items.join(","))
        }
        other => Some(other.to_string()),
    }
}

fn read(path: PathBuf) -> Result<Layers, Error> {
    match std::fs::read_to_string(&path) {
        Ok(text) => toml::from_str(&text).map_err(|source| Error::File { path, source }),
        Err(source) => Err(Error::Read { path, source }),
    }
}
