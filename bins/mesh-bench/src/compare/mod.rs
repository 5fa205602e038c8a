//! `mesh-bench compare`: the same work through each peer, side by side.

mod figures;
mod growth;
mod memory;
mod plan;
mod sections;

use std::process::ExitCode;

use crate::args;
use crate::error::Error;
use crate::peers::{Certificates, Found, Kind, Running, find};
use crate::report::{About, Report};
use crate::stage::{Cores, Ground};

pub(crate) use figures::{Figure, Metric};
pub(crate) use growth::{connections, endpoints};
pub(crate) use plan::{Effort, Section};

/// Measures what was asked for and prints it.
///
/// # Errors
/// If nothing can be measured, or something fails on the way.
pub(crate) async fn compare(arguments: &args::Compare) -> Result<ExitCode, Error> {
    let (found, missing) = look_for(arguments);
    for absent in &missing {
        eprintln!("skipped: {absent}");
    }
    let effort = Effort::of(arguments);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let ground = Ground::prepare(Cores::of(cores)).await?;
    let certificates = Certificates::make(&ground.folder("certificates")?)?;
    let mut figures = Vec::new();
    let sections = effort.sections();
    let anew = |section: &Section| matches!(section, Section::Memory | Section::Growth);
    if !sections.iter().all(anew) {
        let mut running = Vec::new();
        for peer in &found {
            running.push(Running::start(peer, &ground, &certificates).await?);
        }
        for section in sections.iter().filter(|section| !anew(section)) {
            figures.extend(sections::measure(*section, &ground, &running, &effort).await?);
        }
    }
    if sections.contains(&Section::Memory) {
        figures.extend(memory::memory(&ground, &found, &certificates, &effort).await?);
    }
    if sections.contains(&Section::Growth) {
        figures.extend(growth::growth(&ground, &found, &certificates, &effort).await?);
    }
    let about = About::new(&ground.cores, &found, &missing);
    let mut report = Report { about, figures };
    if let Some(folder) = &arguments.out {
        report = report.save(folder, arguments.add)?;
    }
    crate::say(&report.markdown());
    Ok(ExitCode::SUCCESS)
}

/// The peers that are there, and what is wrong with the others.
fn look_for(arguments: &args::Compare) -> (Vec<Found>, Vec<String>) {
    let asked = |kind: &Kind| arguments.peers.is_empty() || arguments.peers.contains(kind);
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for kind in Kind::ALL.into_iter().filter(asked) {
        match find(kind, &arguments.wanted) {
            Ok(peer) => found.push(peer),
            Err(error) => missing.push(error.to_string()),
        }
    }
    (found, missing)
}
