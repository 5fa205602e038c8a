//! `--check`: what is wrong, without running.

use std::path::Path;

use mesh_discovery::{Registry, manifests::Folder};

use crate::{
    Error,
    mesh::{Problem, Settings, source},
};

/// Reads the manifests in `folder` once. What is wrong, in order of file and line; empty when all is well.
fn problems(folder: &Path) -> Vec<Problem> {
    let read = Folder::read(folder);
    let mut problems = source::problems(&read);
    let mut registry = Registry::new(());
    let trust_domain = &read.mesh_config().trust_domain;
    registry.apply(
        read.services()
            .cloned()
            .map(mesh_discovery::Change::SetService),
    );
    registry.apply(
        read.workloads()
            .map(|workload| mesh_discovery::Change::SetWorkload(workload.workload(trust_domain))),
    );
    problems.extend(
        crate::policy::annotation_errors(&registry)
            .into_iter()
            .map(Problem::from),
    );
    if let Err(error) = Settings::of(read.mesh_config()) {
        problems.push(Problem::of_settings(&error));
    }
    problems
}

/// Checks the manifests in `folder` and gives each error to `report`, one line each.
///
/// # Errors
/// [`Error::Manifests`] if there is any.
pub fn check(folder: &Path, mut report: impl FnMut(String)) -> Result<(), Error> {
    let problems = problems(folder);
    for problem in &problems {
        report(problem.to_string());
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::Manifests {
        folder: folder.to_owned(),
        count: problems.len(),
    })
}
