//! `mesh check`: what is wrong, and what to do about it.

mod balancers;
mod findings;
mod live;
mod trust;

use std::process::ExitCode;
use std::time::SystemTime;

use self::findings::{Finding, findings};
use crate::admin::Admin;
use crate::args::Check;
use crate::error::count;
use crate::output::{Output, Tone};
use crate::{Error, data, up};

pub(crate) async fn run(options: Check) -> Result<ExitCode, Error> {
    let found = match options.folder {
        Some(folder) => {
            let wrong = up::Source::open(&up::folder(&folder)?)?.now().wrong;
            let bad = |line| Finding::bad("manifests", line, "correct the file");
            if wrong.is_empty() {
                vec![Finding::good(
                    "manifests",
                    format!("{}: nothing is wrong", folder.display()),
                )]
            } else {
                wrong.into_iter().map(bad).collect()
            }
        }
        None => running(options.data.data).await?,
    };
    let mut output = Output::new();
    for finding in &found {
        show(&mut output, finding);
    }
    let wrong = found
        .iter()
        .filter(|finding| finding.advice.is_some())
        .count();
    if wrong == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    output.line("");
    output.line(&format!("{} found", count(wrong, "problem")));
    Ok(ExitCode::FAILURE)
}

async fn running(given: Option<std::path::PathBuf>) -> Result<Vec<Finding>, Error> {
    let data = data::find(given)?;
    let admin = match Admin::connect(&data).await {
        Ok(admin) => admin,
        Err(error) => return Ok(vec![live::no_controller(&data, &error)]),
    };
    let seen = live::look(&admin, &data).await?;
    Ok(findings(&seen, SystemTime::now()))
}

fn show(output: &mut Output, finding: &Finding) {
    let (tone, word) = if finding.advice.is_some() {
        (Tone::Bad, "wrong")
    } else {
        (Tone::Good, "ok   ")
    };
    let word = output.paint(tone, word);
    output.line(&format!(
        "{word}   {:<12} {}",
        finding.subject, finding.text
    ));
    if let Some(advice) = &finding.advice {
        output.line(&format!("{:21}-> {advice}", ""));
    }
}
