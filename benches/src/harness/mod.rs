//! What every suite needs: timing, allocation counts, tables, targets, and their two other forms
//! (JSON for machines, SVG for readers).

pub(crate) mod alloc;
pub(crate) mod json;
pub(crate) mod measure;
pub(crate) mod plot;
pub(crate) mod table;
pub(crate) mod target;

use json::Json;
use plot::Chart;
use table::Table;
use target::Target;

/// What a suite found out.
#[derive(Default)]
pub(crate) struct Findings {
    pub(crate) tables: Vec<Table>,
    pub(crate) targets: Vec<Target>,
    pub(crate) charts: Vec<Chart>,
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

    pub(crate) fn holds(&self) -> bool {
        self.targets.iter().all(Target::holds)
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
