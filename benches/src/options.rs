//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use crate::suites::{BY_NAME, SUITES, Suite};

pub(crate) const USAGE: &str =
    "usage: bulkman-bench <overhead|contention|memory|scaling|snapshot|overload|all> [--json FILE] [--plot DIR]
       bulkman-bench <listeners|fleet> [--json FILE] [--plot DIR]
       bulkman-bench fleet-load [--seconds N] [--json FILE]
       bulkman-bench instructions [--record]";

/// What to run, and where to write besides standard output.
pub(crate) struct Options {
    pub(crate) suites: Vec<&'static Suite>,
    pub(crate) json: Option<PathBuf>,
    pub(crate) plots: Option<PathBuf>,
    /// The duration of `fleet-load`.
    pub(crate) load: Duration,
}

impl Options {
    /// # Errors
    ///
    /// A message that describes the problem.
    pub(crate) fn parse(words: &[&str]) -> Result<Self, String> {
        let mut options = Self {
            suites: Vec::new(),
            json: None,
            plots: None,
            load: Duration::from_secs(60),
        };
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            let mut next = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word {
                "--json" => options.json = Some(next()?.into()),
                "--plot" => options.plots = Some(next()?.into()),
                "--seconds" => {
                    let seconds = next()?
                        .parse()
                        .map_err(|_| "--seconds needs a whole number".to_owned())?;
                    options.load = Duration::from_secs(seconds);
                }
                "all" => options.suites.extend(&SUITES),
                name => match SUITES
                    .iter()
                    .chain(&BY_NAME)
                    .find(|suite| suite.name == name)
                {
                    Some(suite) => options.suites.push(suite),
                    None => return Err(format!("there is no suite {name}")),
                },
            }
        }
        if options.suites.is_empty() {
            Err("which suite?".to_owned())
        } else {
            Ok(options)
        }
    }
}
