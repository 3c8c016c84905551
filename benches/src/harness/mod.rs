//! Timing, allocation counts, tables and targets, with their output as text, JSON and SVG.

pub(crate) mod alloc;
pub(crate) mod json;
pub(crate) mod measure;
pub(crate) mod plot;
pub(crate) mod table;
pub(crate) mod target;
pub(crate) mod timeline;

use json::Json;
use plot::Chart;
use table::Table;
use target::Target;
use timeline::Timeline;

/// The results of a suite.
#[derive(Default)]
pub(crate) struct Findings {
    pub(crate) tables: Vec<Table>,
    pub(crate) targets: Vec<Target>,
    pub(crate) charts: Vec<Chart>,
    pub(crate) timelines: Vec<Timeline>,
}

impl Findings {
    /// Prints the tables, then a line per target.
    pub(crate) fn print(&self) {
        for table in &self.tables {
            println!("{table}");
        }
        for target in &self.targets {
            println!("{target}");
        }
    }

    /// Returns `true` if every target is met.
    pub(crate) fn all_met(&self) -> bool {
        self.targets.iter().all(Target::is_met)
    }

    pub(crate) fn to_json(&self) -> Json {
        json::object([
            ("tables", self.tables.iter().map(Table::to_json).collect()),
            (
                "targets",
                self.targets.iter().map(Target::to_json).collect(),
            ),
        ])
    }
}
