//! What is said in the end: tables to read, JSON to compute with.

mod about;
mod tables;
mod targets;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::compare::Figure;
use crate::error::Error;

pub(crate) use about::About;

/// A comparison.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Where and of what.
    pub(crate) about: About,
    /// Everything that was measured.
    pub(crate) figures: Vec<Figure>,
}

impl Report {
    /// As Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut text = self.about.markdown("compare");
        tables::write(&mut text, &self.figures);
        targets::write(&mut text, &self.figures);
        targets::write_growth(&mut text, &self.figures);
        text
    }

    /// Writes `NAME.json` and `NAME.md` into the folder. With `add`, what is in the folder already stays where it was not
    /// measured anew, if it is of the same code on the same machine.
    ///
    /// # Errors
    /// If a file cannot be written, or what is there is of something else.
    pub(crate) fn save(mut self, folder: &Path, add: bool) -> Result<Self, Error> {
        let json = folder.join("compare.json");
        if add && json.exists() {
            let earlier = std::fs::read(&json).map_err(Error::file(&json))?;
            let earlier = serde_json::from_slice(&earlier).map_err(|source| Error::Json {
                what: json.display().to_string(),
                source,
            })?;
            self.add(earlier)?;
        }
        std::fs::create_dir_all(folder).map_err(Error::file(folder))?;
        let text = serde_json::to_string_pretty(&self).map_err(|source| Error::Json {
            what: "the report".into(),
            source,
        })?;
        std::fs::write(&json, text + "\n").map_err(Error::file(&json))?;
        let tables = folder.join("compare.md");
        std::fs::write(&tables, self.markdown()).map_err(Error::file(tables))?;
        Ok(self)
    }

    /// Takes over the parts of `earlier` that this has not.
    fn add(&mut self, earlier: Self) -> Result<(), Error> {
        if let Some(difference) = self.about.difference(&earlier.about) {
            return Err(Error::Setting {
                setting: "--add",
                value: difference,
                right:
                    "only what was measured of the same code on the same machine can be added to"
                        .into(),
            });
        }
        self.about.join(earlier.about);
        let parts: Vec<_> = self.figures.iter().map(|figure| figure.section).collect();
        let others = earlier.figures.into_iter();
        self.figures
            .extend(others.filter(|figure| !parts.contains(&figure.section)));
        self.figures.sort_by_key(|figure| figure.section);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{Metric, Section};
    use crate::peers::Kind;

    fn report(section: Section, value: f64) -> Report {
        Report {
            about: About::example(),
            figures: vec![Figure {
                section,
                work: "w".into(),
                peer: Kind::Mesh,
                metric: Metric::P99Micros,
                rounds: vec![value],
            }],
        }
    }

    #[test]
    fn what_is_measured_anew_replaces_its_part_and_leaves_the_others() {
        let mut now = report(Section::Latency, 1.0);
        let mut earlier = report(Section::Latency, 2.0);
        earlier.figures.extend(report(Section::Http1, 3.0).figures);
        now.add(earlier).unwrap();
        let rounds: Vec<_> = now.figures.iter().map(|figure| figure.rounds[0]).collect();
        assert_eq!(rounds, [3.0, 1.0]);
    }

    #[test]
    fn other_code_is_not_added_to() {
        let mut now = report(Section::Latency, 1.0);
        let mut earlier = report(Section::Latency, 2.0);
        earlier.about.commit = "another".into();
        assert!(now.add(earlier).is_err());
    }

    #[test]
    fn a_report_survives_being_written() {
        let folder = tempfile::tempdir().unwrap();
        report(Section::Latency, 1.0)
            .save(folder.path(), false)
            .unwrap();
        let both = report(Section::Http1, 3.0)
            .save(folder.path(), true)
            .unwrap();
        assert_eq!(both.figures.len(), 2);
        let tables = std::fs::read_to_string(folder.path().join("compare.md")).unwrap();
        assert_eq!(tables, both.markdown());
    }
}
