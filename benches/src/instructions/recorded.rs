//! The recorded counts, in a file under version control.

use std::path::Path;
use std::{fs, io};

const HEAD: &str = "\
# Instructions per call, counted by callgrind: `cargo run --release -p bulkman-bench -- instructions`
# compares with these, and `instructions --record` replaces them.
";

/// The recorded counts: lines of the form `name = count`.
pub(crate) struct Recorded(Vec<(String, f64)>);

impl Recorded {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read, or a line is not empty, a comment or a count.
    pub(crate) fn read(file: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        let text =
            fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let mut figures = Vec::new();
        for line in text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let (name, count) = line
                .split_once('=')
                .ok_or_else(|| format!("not a count: {line}"))?;
            figures.push((name.trim().to_owned(), count.trim().parse()?));
        }
        Ok(Self(figures))
    }

    pub(crate) fn write(file: &Path, figures: &[(&str, f64)]) -> io::Result<()> {
        let lines: String = figures
            .iter()
            .map(|(name, count)| format!("{name} = {count:.0}\n"))
            .collect();
        fs::write(file, format!("{HEAD}{lines}"))
    }

    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, count)| *count)
    }
}
