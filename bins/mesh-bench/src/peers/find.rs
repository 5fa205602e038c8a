//! Which peers are there.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::Kind;
use super::mesh::Programs;
use crate::error::Error;
use crate::stage::output;

/// Where the mesh's own programs are, if not where they are looked for.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct MeshWanted {
    /// The mesh-proxy to measure [default: built in this checkout with profile `dist`]
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) mesh_proxy: Option<PathBuf>,
    /// Where mesh-controller and mesh are [default: built in this checkout]
    #[arg(long, value_name = "DIR")]
    pub(crate) programs: Option<PathBuf>,
}

/// What was asked for: programs that are not where they are looked for.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Wanted {
    #[command(flatten)]
    mesh: MeshWanted,
    /// The Envoy to measure [default: what is on the path, or was installed by `scripts/setup-tests --bench`]
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) envoy: Option<PathBuf>,
    /// The HAProxy to measure [default: what is on the path]
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) haproxy: Option<PathBuf>,
    /// A linkerd2-proxy to measure; none is looked for
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) linkerd: Option<PathBuf>,
    /// A bare pipeline to measure, called as `scripts/floor-ratio` does; none is looked for
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) floor: Option<PathBuf>,
}

/// A peer that is there.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    /// No proxy needs nothing.
    None,
    /// mesh-proxy and what it needs.
    Mesh(Programs),
    /// HAProxy.
    Haproxy(PathBuf),
    /// Envoy.
    Envoy(PathBuf),
    /// linkerd2-proxy, and the mesh's programs, whose controller it has.
    Linkerd(PathBuf, Programs),
    /// The bare pipeline.
    Floor(PathBuf),
}

impl Found {
    /// Who it is.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::None => Kind::None,
            Self::Mesh(_) => Kind::Mesh,
            Self::Haproxy(_) => Kind::Haproxy,
            Self::Envoy(_) => Kind::Envoy,
            Self::Linkerd(..) => Kind::Linkerd,
            Self::Floor(_) => Kind::Floor,
        }
    }

    /// Its version, as it says itself.
    pub(crate) fn version(&self) -> String {
        let (program, flag) = match self {
            // These do not tell.
            Self::None | Self::Linkerd(..) | Self::Floor(_) => return String::new(),
            Self::Mesh(programs) => (&programs.proxy, "--version"),
            Self::Haproxy(program) => (program, "-v"),
            Self::Envoy(program) => (program, "--version"),
        };
        let said = output(Command::new(program).arg(flag)).unwrap_or_default();
        let line = said.lines().find(|line| !line.trim().is_empty());
        let line = line.unwrap_or("unknown").trim();
        // Envoy says its path, then HASH/VERSION/...
        match (self, line.split('/').rev().nth(3)) {
            (Self::Envoy(_), Some(version)) => format!("Envoy {version}"),
            _ => line.to_owned(),
        }
    }
}

/// Looks for a peer.
///
/// # Errors
/// If it is not there, with what to do about it.
pub(crate) fn find(kind: Kind, wanted: &Wanted) -> Result<Found, Error> {
    match kind {
        Kind::None => Ok(Found::None),
        Kind::Mesh => programs(&wanted.mesh).map(Found::Mesh),
        Kind::Haproxy => program("haproxy", wanted.haproxy.as_deref(), || None).map(Found::Haproxy),
        Kind::Envoy => program("envoy", wanted.envoy.as_deref(), installed_envoy).map(Found::Envoy),
        Kind::Linkerd => {
            let path = path(kind, "--linkerd", wanted.linkerd.as_deref())?;
            Ok(Found::Linkerd(path, programs(&wanted.mesh)?))
        }
        Kind::Floor => path(kind, "--floor", wanted.floor.as_deref()).map(Found::Floor),
    }
}

/// What must be given to be there.
fn path(kind: Kind, flag: &str, wanted: Option<&Path>) -> Result<PathBuf, Error> {
    let missing = |remedy: String| Error::Missing {
        program: kind.name().to_owned(),
        remedy,
    };
    let path = wanted.ok_or_else(|| missing(format!("give its path with {flag}")))?;
    given(path).ok_or_else(|| missing(format!("{} is no file", path.display())))
}

fn program(
    name: &str,
    wanted: Option<&Path>,
    elsewhere: impl FnOnce() -> Option<PathBuf>,
) -> Result<PathBuf, Error> {
    let missing = |remedy: String| Error::Missing {
        program: name.to_owned(),
        remedy,
    };
    if let Some(path) = wanted {
        return given(path).ok_or_else(|| missing(format!("{} is no file", path.display())));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .or_else(elsewhere)
        .ok_or_else(|| missing(format!("run scripts/setup-tests --bench, or give --{name}")))
}

/// A path as it was given, so that it holds on any host and in any folder.
pub(super) fn given(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok().filter(|path| path.is_file())
}

/// Where `scripts/setup-tests --bench` puts it.
fn installed_envoy() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))?;
    let versions = std::fs::read_dir(cache.join("mesh-rs/envoy/lib")).ok()?;
    versions
        .flatten()
        .map(|version| version.path().join("site-packages/envoy/_bin/envoy"))
        .find(|path| path.is_file())
}

/// The mesh's own programs. In a checkout they are built, which is quick when they are there.
///
/// # Errors
/// If they are not there and cannot be built.
pub(crate) fn programs(wanted: &MeshWanted) -> Result<Programs, Error> {
    let missing = |program: &str, remedy: String| Error::Missing {
        program: program.to_owned(),
        remedy,
    };
    let proxy = match &wanted.mesh_proxy {
        Some(path) => given(path)
            .ok_or_else(|| missing("mesh-proxy", format!("{} is no file", path.display())))?,
        None => {
            let root =
                checkout().ok_or_else(|| missing("mesh-proxy", "give --mesh-proxy".into()))?;
            let flags = ["--profile", "dist", "-p", "mesh-proxy"];
            build(&root, &flags)?.join("dist/mesh-proxy")
        }
    };
    let others = match &wanted.programs {
        Some(folder) => folder.clone(),
        None => {
            let root =
                checkout().ok_or_else(|| missing("mesh-controller", "give --programs".into()))?;
            build(&root, &["-p", "mesh-controller", "-p", "mesh-cli"])?.join("debug")
        }
    };
    let other = |name: &str| {
        let path = others.join(name);
        given(&path).ok_or_else(|| missing(name, format!("{} is no file", path.display())))
    };
    Ok(Programs {
        proxy,
        controller: other("mesh-controller")?,
        cli: other("mesh")?,
    })
}

/// The checkout that the working folder is in.
pub(crate) fn checkout() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    here.ancestors()
        .find(|folder| folder.join("bins/mesh-proxy/Cargo.toml").is_file())
        .map(Path::to_owned)
}

/// Builds, and gives the target folder.
fn build(root: &Path, flags: &[&str]) -> Result<PathBuf, Error> {
    let mut command = Command::new("cargo");
    command.args(["build", "--locked", "--quiet"]).args(flags);
    output(command.current_dir(root))?;
    Ok(std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from))
}
