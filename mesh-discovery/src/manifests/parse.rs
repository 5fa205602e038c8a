//! From a file's text to resources and errors.

use std::{fmt, sync::Arc};

use super::{
    addresses::Stated,
    document::{Document, Node, Place, split},
    kinds::{API_VERSION, Resource},
    service::read_service,
    tree::Fault,
    workload::{read_mesh_config, read_workload},
};
use crate::resource::Name;

/// Bytes of a file at most.
pub const FILE_BYTES: usize = 4 * 1024 * 1024;

/// Documents of a file at most.
pub const FILE_DOCUMENTS: usize = 10_000;

/// Errors reported of one document; the rest is only counted.
const DOCUMENT_ERRORS: usize = 20;

/// What is wrong in a manifest, where, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct ManifestError {
    /// The file's path below the folder.
    pub file: Arc<str>,
    /// From 1; 0 when the whole file is meant.
    pub line: usize,
    /// From 1; 0 when a whole line or file is meant.
    pub column: usize,
    /// Which of the file's documents, from 1 and empty ones not counted; 0 when the whole file is meant.
    pub document: usize,
    /// For example `spec.ports[0].port`; empty when no field can be named.
    pub field: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

/// What a resource is called. No two of a folder are called the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Key {
    /// A service.
    Service(Name),
    /// A workload.
    Workload(Name),
    /// The mesh's configuration, of which there is one.
    MeshConfig,
}

/// A resource and where its document starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Located {
    pub(super) resource: Resource,
    pub(super) place: Place,
    pub(super) document: usize,
    pub(super) addresses: Vec<Stated>,
}

/// Reads every document of a file. One that is wrong gives errors and takes no other down.
pub fn parse(file: &str, text: &str) -> (Vec<Resource>, Vec<ManifestError>) {
    let (found, errors) = parse_located(&file.into(), text);
    (
        found.into_iter().map(|found| found.resource).collect(),
        errors,
    )
}

pub(super) fn parse_located(file: &Arc<str>, text: &str) -> (Vec<Located>, Vec<ManifestError>) {
    if text.len() > FILE_BYTES {
        let reason = format!(
            "has {} bytes: must have at most {FILE_BYTES}; split it",
            text.len()
        );
        return (Vec::new(), vec![ManifestError::of_file(file, reason)]);
    }
    let documents = split(text.strip_prefix('\u{feff}').unwrap_or(text));
    if documents.len() > FILE_DOCUMENTS {
        let reason = format!(
            "has {} documents: must have at most {FILE_DOCUMENTS}; split it",
            documents.len()
        );
        return (Vec::new(), vec![ManifestError::of_file(file, reason)]);
    }
    let mut found = Vec::new();
    let mut errors = Vec::new();
    for (number, document) in documents.iter().enumerate() {
        let number = number + 1;
        match read(document) {
            Ok((resource, root)) => found.push(Located {
                addresses: resource.stated_addresses(&root),
                resource,
                place: root.place,
                document: number,
            }),
            Err(mut faults) => {
                let more = faults.len().saturating_sub(DOCUMENT_ERRORS);
                faults.truncate(DOCUMENT_ERRORS);
                errors.extend(faults.into_iter().map(|fault| {
                    ManifestError {
                        file: file.clone(),
                        line: fault
                            .place
                            .map_or(document.lines_before + 1, |place| place.line),
                        column: fault.place.map_or(0, |place| place.column),
                        document: number,
                        field: fault.field,
                        reason: fault.reason,
                    }
                }));
                if more > 0 {
                    errors.push(ManifestError {
                        line: document.lines_before + 1,
                        document: number,
                        ..ManifestError::of_file(
                            file,
                            format!("{more} more errors in this document"),
                        )
                    });
                }
            }
        }
    }
    (found, errors)
}

fn read(document: &Document<'_>) -> Result<(Resource, Node), Vec<Fault>> {
    let root = document.read().map_err(|error| {
        vec![Fault {
            place: error.place,
            field: String::new(),
            reason: format!("not YAML: {}", error.reason),
        }]
    })?;
    let resource = match (text(&root, "apiVersion")?, text(&root, "kind")?) {
        ("v1", "Service") => Resource::Service(read_service(&root)?),
        (API_VERSION, "Workload") => Resource::Workload(read_workload(&root)?),
        (API_VERSION, "MeshConfig") => Resource::MeshConfig(read_mesh_config(&root)?),
        (version, kind) => {
            let reason = format!(
                "unknown kind {kind} of {version}: must be Service of v1, or Workload or MeshConfig of {API_VERSION}"
            );
            return Err(vec![fault(&root, "kind", reason)]);
        }
    };
    Ok((resource, root))
}

fn text<'a>(root: &'a Node, field: &str) -> Result<&'a str, Vec<Fault>> {
    root.text(field).ok_or_else(|| {
        let reason = match root.field(field) {
            Some(_) => "must be text",
            None => "missing: a manifest starts with apiVersion and kind",
        };
        vec![fault(root, field, reason.to_owned())]
    })
}

fn fault(root: &Node, field: &str, reason: String) -> Fault {
    Fault {
        place: Some(root.nearest(field).place),
        field: field.to_owned(),
        reason,
    }
}

impl Resource {
    /// What it is called.
    pub fn key(&self) -> Key {
        match self {
            Self::Service(service) => Key::Service(service.id()),
            Self::Workload(workload) => Key::Workload(workload.id()),
            Self::MeshConfig(_) => Key::MeshConfig,
        }
    }
}

impl ManifestError {
    pub(super) fn of_file(file: &Arc<str>, reason: impl Into<String>) -> Self {
        Self {
            file: file.clone(),
            line: 0,
            column: 0,
            document: 0,
            field: String::new(),
            reason: reason.into(),
        }
    }
}

/// `web.yaml:7:12: spec.ports[0].port: 0 is no port: must be 1 to 65535`
impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if self.column > 0 {
            write!(f, ":{}", self.column)?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl std::error::Error for ManifestError {}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "Service {name}"),
            Self::Workload(name) => write!(f, "Workload {name}"),
            Self::MeshConfig => f.write_str("MeshConfig"),
        }
    }
}
