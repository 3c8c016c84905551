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
    floor: Option<(f64, String)>,
}

#[derive(Clone, Copy, Debug)]
enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    pub(crate) fn at_most(
        name: impl Into<String>,
        measured: f64,
        limit: f64,
        unit: &'static str,
    ) -> Self {
        Self {
            name: name.into(),
            measured,
            limit: Limit::AtMost(limit),
            unit,
            floor: None,
        }
    }

    pub(crate) fn at_least(
        name: impl Into<String>,
        measured: f64,
        limit: f64,
        unit: &'static str,
    ) -> Self {
        Self {
            name: name.into(),
            measured,
            limit: Limit::AtLeast(limit),
            unit,
            floor: None,
        }
    }

    /// What the parts `of` it take in the same run, without which it can't be done: on machines on
    /// which that is beyond the limit nobody could hold it.
    #[must_use]
    pub(crate) fn above(self, floor: f64, of: impl Into<String>) -> Self {
        Self {
            floor: Some((floor, of.into())),
            ..self
        }
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
            (
                "floor",
                self.floor
                    .as_ref()
                    .map_or(Json::Null, |(floor, _)| (*floor).into()),
            ),
        ])
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, limit) = match self.limit {
            Limit::AtMost(limit) => ("<=", limit),
            Limit::AtLeast(limit) => (">=", limit),
        };
        let Self {
            name,
            measured,
            unit,
            ..
        } = self;
        let verdict = if self.holds() { "ok" } else { "MISS" };
        write!(
            f,
            "target {name}: {measured:.2}{unit} (limit {sign} {limit}{unit}) {verdict}"
        )?;
        match &self.floor {
            Some((floor, of)) => write!(f, "\n  floor {floor:.2}{unit}: {of}"),
            None => Ok(()),
        }
    }
}
