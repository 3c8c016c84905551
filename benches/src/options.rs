//! The command line.

use std::path::PathBuf;

use crate::suites::{SUITES, Suite};

pub(crate) const USAGE: &str =
    "usage: bulkman-bench <overhead|contention|memory|scaling|all> [--json FILE] [--plot DIR]
       bulkman-bench instructions [--record]";

/// What to run, and where to write besides standard output.
pub(crate) struct Options {
    pub(crate) suites: Vec<&'static Suite>,
    pub(crate) json: Option<PathBuf>,
    pub(crate) plots: Option<PathBuf>,
}

impl Options {
    /// # Errors
    ///
    /// What is wrong, in words.
    pub(crate) fn parse(words: &[&str]) -> Result<Self, String> {
        let mut options = Self { suites: Vec::new(), json: None, plots: None };
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            let mut file = || words.next().map(PathBuf::from).ok_or_else(|| format!("{word} needs a path"));
            match word {
                "--json" => options.json = Some(file()?),
                "--plot" => options.plots = Some(file()?),
                "all" => options.suites.extend(&SUITES),
                name => match SUITES.iter().find(|suite| suite.name == name) {
                    Some(suite) => options.suites.push(suite),
                    None => return Err(format!("there is no suite {name}")),
                },
            }
        }
        if options.suites.is_empty() { Err("which suite?".to_owned()) } else { Ok(options) }
    }
}
