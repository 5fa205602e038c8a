//! What a folder of manifests comes to: resources in force, changes, errors.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use super::{
    addresses::{Addresses, Refused, Stated, refused_at},
    kinds::{MeshConfig, Resource, WorkloadManifest},
    parse::{Key, Located, ManifestError, parse_located},
};
use crate::resource::{Change, Service};

/// Files at most; further ones are refused.
pub const FILES: usize = 10_000;

/// Errors kept of one file at most.
const FILE_ERRORS: usize = 100;

/// Stands for the folder itself in errors.
const SELF: &str = ".";

/// The state of a folder of manifests. A value: it touches no file.
///
/// Of a file with errors, the documents that are right are in force, and so is everything else that
/// was in force of that file, until the file is right again or gone. Of two resources of the same
/// name in different files, the one that was there first stays in force.
///
/// An address and port belongs to one service and to one workload, and to both only in the same
/// namespace. Of several that state it, the one that was there first has it; of those that come at
/// once, services before workloads, the first by namespace and name. The others do without that
/// address, and a workload without any is not in force.
#[derive(Debug, Default)]
pub struct Folder {
    files: BTreeMap<Arc<str>, File>,
    claims: BTreeMap<Key, Claim>,
    addresses: Addresses,
    mesh_config: MeshConfig,
    unreadable: Option<String>,
}

/// What a file turned out to be.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Content<'a> {
    /// This text.
    Text(&'a str),
    /// Not there any more.
    Gone,
    /// There, but not to be read, for this reason.
    Unreadable(&'a str),
}

/// What applying files came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Changes {
    /// For the registry, to be applied as one step.
    pub registry: Vec<Change>,
    /// True when any resource in force is not as it was, which includes what the registry does not
    /// take, such as how to run a workload.
    pub resources: bool,
    /// True when the mesh's configuration is not as it was.
    pub mesh_config: bool,
    /// True when the list of errors is not as it was.
    pub errors: bool,
}

#[derive(Debug, Default)]
struct File {
    resources: BTreeMap<Key, Located>,
    errors: Vec<ManifestError>,
}

/// The files that define a resource, and the one of them that counts.
#[derive(Debug, Default)]
struct Claim {
    files: BTreeSet<Arc<str>>,
    owner: Option<Arc<str>>,
    wants: BTreeSet<SocketAddr>,
    refused: Vec<Refused>,
    in_force: Option<Resource>,
}

impl Folder {
    /// An empty folder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what one file turned out to be.
    pub fn apply(&mut self, file: &str, content: Content<'_>) -> Changes {
        self.apply_all([(file, content)])
    }

    /// Takes what several files turned out to be as one step. The folder itself is readable, then.
    pub fn apply_all<'a>(
        &mut self,
        files: impl IntoIterator<Item = (&'a str, Content<'a>)>,
    ) -> Changes {
        let errors = self.errors();
        self.unreadable = None;
        let mut touched = BTreeSet::new();
        for (file, content) in files {
            self.take(file, content, &mut touched);
        }
        let mut changes = self.settle(touched);
        changes.errors = errors != self.errors();
        changes
    }

    /// Takes that the folder itself cannot be read. Everything stays in force.
    pub fn unreadable(&mut self, reason: impl Into<String>) -> Changes {
        let errors = self.errors();
        self.unreadable = Some(reason.into());
        Changes {
            errors: errors != self.errors(),
            ..Changes::default()
        }
    }

    /// The services in force, by namespace and name.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.in_force().filter_map(|resource| match resource {
            Resource::Service(service) => Some(service),
            _ => None,
        })
    }

    /// The workloads in force, by namespace and name.
    pub fn workloads(&self) -> impl Iterator<Item = &WorkloadManifest> {
        self.in_force().filter_map(|resource| match resource {
            Resource::Workload(workload) => Some(workload),
            _ => None,
        })
    }

    /// The mesh's configuration; the default when no manifest has one.
    pub fn mesh_config(&self) -> &MeshConfig {
        &self.mesh_config
    }

    /// Everything that is wrong, by file and line.
    pub fn errors(&self) -> Vec<ManifestError> {
        let folder = self.unreadable.iter();
        let mut errors: Vec<_> = folder
            .map(|reason| ManifestError::of_file(&SELF.into(), reason))
            .collect();
        errors.extend(self.files.values().flat_map(|file| &file.errors).cloned());
        for (key, claim) in &self.claims {
            let Some(owner) = &claim.owner else {
                continue;
            };
            let losers = claim.files.iter().filter(|file| *file != owner);
            errors.extend(losers.filter_map(|file| {
                let located = self.files.get(file)?.resources.get(key)?;
                let reason = format!("{key} is defined in {owner} already: remove one");
                Some(ManifestError {
                    line: located.place.line,
                    column: located.place.column,
                    document: located.document,
                    field: "metadata.name".to_owned(),
                    ..ManifestError::of_file(file, reason)
                })
            }));
            errors.extend(self.refusals(key, claim, owner));
        }
        errors.sort();
        errors
    }

    /// False when the folder itself cannot be read, whatever is wrong in its files.
    pub fn is_readable(&self) -> bool {
        self.unreadable.is_none()
    }

    /// True when something of that file, as errors name it, is in force although it has errors or
    /// cannot be read.
    pub fn keeps(&self, file: &str) -> bool {
        if file == SELF {
            return !self.claims.is_empty();
        }
        let Some((name, file)) = self.files.get_key_value(file) else {
            return false;
        };
        let does_without = |key| {
            self.claims.get(key).is_some_and(|claim| {
                claim.owner.as_ref() == Some(name)
                    && claim.in_force.is_some()
                    && !claim.refused.is_empty()
            })
        };
        let kept = !file.errors.is_empty() && !file.resources.is_empty();
        kept || file.resources.keys().any(does_without)
    }

    /// What a resource in `owner` does not get, an error for each address.
    fn refusals(&self, key: &Key, claim: &Claim, owner: &Arc<str>) -> Vec<ManifestError> {
        let located = locate(&self.files, claim, key);
        let stated = located.into_iter().flat_map(|located| {
            let stated = located.addresses.iter();
            stated.map(|stated| (located.document, stated))
        });
        let error = |(document, stated): (usize, &Stated)| {
            let Refused { at, holder } = refused_at(&claim.refused, stated.address)?;
            let file = self.claims.get(holder)?.owner.as_ref()?;
            let reason = format!(
                "{at} belongs to {holder} in {file} already, so {key} does without {}: state another",
                at.ip()
            );
            Some(ManifestError {
                line: stated.place.line,
                column: stated.place.column,
                document,
                field: stated.field.clone(),
                ..ManifestError::of_file(owner, reason)
            })
        };
        stated.filter_map(error).collect()
    }

    fn in_force(&self) -> impl Iterator<Item = &Resource> {
        self.claims.values().flat_map(|claim| &claim.in_force)
    }

    fn resource(&self, key: &Key) -> Option<&Resource> {
        self.claims.get(key)?.in_force.as_ref()
    }

    fn take(&mut self, name: &str, content: Content<'_>, touched: &mut BTreeSet<Key>) {
        let name: Arc<str> = match self.files.get_key_value(name) {
            Some((name, _)) => name.clone(),
            None => name.into(),
        };
        let old = self.files.remove(&name);
        let is_new = old.is_none();
        let mut old = old.unwrap_or_default();
        for key in old.resources.keys() {
            if let Some(claim) = self.claims.get_mut(key) {
                claim.files.remove(&name);
            }
            touched.insert(key.clone());
        }
        let mut file = match content {
            Content::Gone => return,
            _ if is_new && self.files.len() >= FILES => {
                self.unreadable = Some(too_many_files());
                return;
            }
            Content::Unreadable(reason) => File {
                errors: vec![ManifestError::of_file(&name, reason)],
                ..File::default()
            },
            Content::Text(text) => File::parse(&name, text),
        };
        if !file.errors.is_empty() {
            old.resources.append(&mut file.resources);
            file.resources = old.resources;
        }
        for key in file.resources.keys() {
            let claim = self.claims.entry(key.clone()).or_default();
            claim.files.insert(name.clone());
            touched.insert(key.clone());
        }
        self.files.insert(name, file);
    }

    /// Decides anew what is in force under the keys touched.
    fn settle(&mut self, mut touched: BTreeSet<Key>) -> Changes {
        let mut changes = Changes::default();
        // All give up before any takes: addresses may change hands in one step.
        for key in touched.clone() {
            self.elect(&key, &mut touched);
        }
        if touched.remove(&Key::MeshConfig) {
            changes.resources |= self.settle_one(&Key::MeshConfig, &mut touched);
            let config = match self.resource(&Key::MeshConfig) {
                Some(Resource::MeshConfig(config)) => config.clone(),
                _ => MeshConfig::default(),
            };
            changes.mesh_config = config != self.mesh_config;
            if config.trust_domain != self.mesh_config.trust_domain {
                // Identities end in it.
                let workloads = self
                    .workloads()
                    .map(|workload| workload.workload(&config.trust_domain));
                changes.registry.extend(workloads.map(Change::SetWorkload));
            }
            self.mesh_config = config;
        }
        // Who wants more of an address than it had may lose it, and those who waited for it are asked again. It ends: of an
        // address that was taken, every port is held, so it is not lost again.
        while let Some(key) = touched.pop_first() {
            if !self.settle_one(&key, &mut touched) {
                continue;
            }
            changes.resources = true;
            changes.registry.extend(match (self.resource(&key), key) {
                (Some(Resource::Service(service)), _) => Some(Change::SetService(service.clone())),
                (Some(Resource::Workload(workload)), _) => Some(Change::SetWorkload(
                    workload.workload(&self.mesh_config.trust_domain),
                )),
                (None, Key::Service(name)) => Some(Change::RemoveService(name)),
                (None, Key::Workload(name)) => Some(Change::RemoveWorkload(name)),
                _ => None,
            });
        }
        changes
    }

    /// Decides anew which file counts under a key, and gives up the addresses that it does not state
    /// any more. Adds to `touched` those who waited for them.
    fn elect(&mut self, key: &Key, touched: &mut BTreeSet<Key>) {
        let Some(claim) = self.claims.get_mut(key) else {
            return;
        };
        let incumbent = claim.owner.take();
        claim.owner = incumbent
            .filter(|owner| claim.files.contains(owner))
            .or_else(|| claim.files.first().cloned());
        let located = locate(&self.files, claim, key);
        let wants = located.map(|located| located.resource.reached_at());
        let wants = wants.unwrap_or_default();
        self.addresses.release(key, &claim.wants, &wants, touched);
        claim.wants = wants;
    }

    /// Takes what addresses there are. Adds to `touched` those who waited for what it loses. True when what is in force is
    /// not as it was.
    fn settle_one(&mut self, key: &Key, touched: &mut BTreeSet<Key>) -> bool {
        let Some(claim) = self.claims.get_mut(key) else {
            return false;
        };
        claim.refused = self.addresses.take(key, &claim.wants, touched);
        let located = locate(&self.files, claim, key);
        let in_force = located.and_then(|located| located.resource.without(&claim.refused));
        let changed = claim.in_force != in_force;
        claim.in_force = in_force;
        if claim.owner.is_none() {
            self.claims.remove(key);
        }
        changed
    }
}

/// What counts under a key.
fn locate<'a>(
    files: &'a BTreeMap<Arc<str>, File>,
    claim: &Claim,
    key: &Key,
) -> Option<&'a Located> {
    files.get(claim.owner.as_ref()?)?.resources.get(key)
}

impl File {
    fn parse(name: &Arc<str>, text: &str) -> Self {
        let (found, errors) = parse_located(name, text);
        let mut file = Self {
            resources: BTreeMap::new(),
            errors,
        };
        for located in found {
            let key = located.resource.key();
            if let Some(first) = file.resources.get(&key) {
                let reason = format!(
                    "{key} is defined in line {} of this file already: remove one",
                    first.place.line
                );
                file.errors.push(ManifestError {
                    line: located.place.line,
                    column: located.place.column,
                    document: located.document,
                    field: "metadata.name".to_owned(),
                    ..ManifestError::of_file(name, reason)
                });
            } else {
                file.resources.insert(key, located);
            }
        }
        let more = file.errors.len().saturating_sub(FILE_ERRORS);
        if more > 0 {
            file.errors.truncate(FILE_ERRORS);
            let reason = format!("{more} more errors in this file");
            file.errors.push(ManifestError::of_file(name, reason));
        }
        file
    }
}

pub(super) fn too_many_files() -> String {
    format!(
        "has more than {FILES} files: put several resources in one file; further files do not count"
    )
}
