//! The folder of manifests as the source of the mesh.

use std::{path::Path, sync::Arc};

use mesh_discovery::{
    manifests::{Folder, Options, Watcher},
    shared::Writer,
};
use mesh_metrics::{ControllerMetrics, RegistrySizes};
use tracing::{info, warn};

use super::{Mesh, Problem, Settings};

/// Reads `folder` into the mesh, and follows it until the returned value is dropped.
///
/// # Errors
/// If there can be no thread to follow it.
pub(crate) fn follow(
    folder: &Path,
    registry: Writer,
    mesh: Arc<Mesh>,
    metrics: ControllerMetrics,
) -> Result<Watcher, mesh_discovery::Error> {
    Watcher::start(folder, Options::default(), move |folder, changes| {
        registry.apply(changes.registry.iter().cloned());
        let mut problems = problems(folder);
        let settings = match Settings::of(folder.mesh_config()) {
            Ok(settings) => settings,
            Err(error) => {
                problems.push(Problem::of_settings(&error));
                (*mesh.settings()).clone()
            }
        };
        mesh.publish(settings, problems, is_readable(folder));
        report(&mesh, &metrics);
    })
}

/// What is wrong in a folder, its annotations apart.
pub(crate) fn problems(folder: &Folder) -> Vec<Problem> {
    let errors = folder.errors().into_iter();
    errors
        .map(|error| Problem {
            kept: folder.keeps(&error.file),
            file: error.file.to_string(),
            line: error.line,
            field: error.field,
            reason: error.reason,
        })
        .collect()
}

/// Whether the folder itself could be read, whatever is wrong in its files.
pub(crate) fn is_readable(folder: &Folder) -> bool {
    !folder.errors().iter().any(|error| &*error.file == ".")
}

fn report(mesh: &Mesh, metrics: &ControllerMetrics) {
    let problems = mesh.problems();
    let registry = mesh.registry().read();
    let sizes = RegistrySizes {
        services: registry.services().count() as u64,
        workloads: registry.workload_count() as u64,
        endpoints: registry.endpoint_count() as u64,
    };
    drop(registry);
    metrics.set_registry(sizes);
    metrics.manifests_read(problems.len() as u64);
    info!(
        services = sizes.services,
        workloads = sizes.workloads,
        endpoints = sizes.endpoints,
        errors = problems.len(),
        "read the manifests"
    );
    for problem in problems.iter().take(LOGGED_PROBLEMS) {
        warn!("{problem}");
    }
    if problems.len() > LOGGED_PROBLEMS {
        warn!(
            more = problems.len() - LOGGED_PROBLEMS,
            "further errors are listed by `mesh check`"
        );
    }
}

const LOGGED_PROBLEMS: usize = 20;
