//! What must hold.

use std::fmt;

use super::json::{self, Json};

/// A bound, and what was measured against it.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    name: String,
    measured: f64,
    limit: Limit,
    unit: &'static str,
}

#[derive(Clone, Copy, Debug)]
enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    pub(crate) fn at_most(name: impl Into<String>, measured: f64, limit: f64, unit: &'static str) -> Self {
        Self { name: name.into(), measured, limit: Limit::AtMost(limit), unit }
    }

    pub(crate) fn at_least(name: impl Into<String>, measured: f64, limit: f64, unit: &'static str) -> Self {
        Self { name: name.into(), measured, limit: Limit::AtLeast(limit), unit }
    }

    pub(crate) fn holds(&self) -> bool {
        match self.limit {
            Limit::AtMost(limit) => self.measured <= limit,
            Limit::AtLeast(limit) => self.measured >= limit,
        }
    }

    pub(crate) fn to_json(&self) -> Json {
        let (bound, limit) = match self.limit {
            Limit::AtMost(limit) => ("at most", limit),
            Limit::AtLeast(limit) => ("at least", limit),
        };
        json::object([
            ("name", self.name.as_str().into()),
            ("measured", self.measured.into()),
            ("bound", bound.into()),
            ("limit", limit.into()),
            ("unit", self.unit.into()),
            ("ok", self.holds().into()),
        ])
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, limit) = match self.limit {
            Limit::AtMost(limit) => ("<=", limit),
            Limit::AtLeast(limit) => (">=", limit),
        };
        let Self { name, measured, unit, .. } = self;
        let verdict = if self.holds() { "ok" } else { "MISS" };
        write!(f, "target {name}: {measured:.2}{unit} (limit {sign} {limit}{unit}) {verdict}")
    }
}
