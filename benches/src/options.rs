//! The command line options.

use std::path::PathBuf;
use std::time::Duration;

use crate::suites::{SEPARATE_SUITES, SUITES, Suite};

pub(crate) const USAGE: &str =
    "usage: bulkman-bench <overhead|contention|memory|scaling|snapshot|overload|fairness|all> [--json FILE] [--plot DIR]
       bulkman-bench <limits|listeners|fleet|fleet-growth> [--json FILE] [--plot DIR]
       bulkman-bench fleet-load [--seconds N] [--json FILE]
       bulkman-bench instructions [--record]";

/// The suites to run, and the files to write.
pub(crate) struct Options {
    pub(crate) suites: Vec<&'static Suite>,
    pub(crate) json: Option<PathBuf>,
    pub(crate) plots: Option<PathBuf>,
    /// The duration of `fleet-load`.
    pub(crate) load: Duration,
}

impl Options {
    /// Parses the command line arguments.
    ///
    /// # Errors
    ///
    /// Returns a message that describes the problem.
    pub(crate) fn parse(arguments: &[&str]) -> Result<Self, String> {
        let mut options = Self {
            suites: Vec::new(),
            json: None,
            plots: None,
            load: Duration::from_secs(60),
        };
        let mut arguments = arguments.iter();
        while let Some(&argument) = arguments.next() {
            let mut next = || {
                arguments
                    .next()
                    .ok_or_else(|| format!("{argument} needs a value"))
            };
            match argument {
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
                    .chain(&SEPARATE_SUITES)
                    .find(|suite| suite.name == name)
                {
                    Some(suite) => options.suites.push(suite),
                    None => return Err(format!("unknown suite or option {name}")),
                },
            }
        }
        if options.suites.is_empty() {
            Err("no suite was given".to_owned())
        } else {
            Ok(options)
        }
    }
}
