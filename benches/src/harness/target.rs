//! Targets: limits for measured figures.

use std::fmt;

use super::json::{self, Json};

/// A limit, and the figure that was measured.
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

    /// Adds the floor: the cost of the unavoidable parts in the same run.
    ///
    /// On a machine where the floor exceeds the limit, no implementation can meet the target.
    #[must_use]
    pub(crate) fn with_floor(self, floor: f64, parts: impl Into<String>) -> Self {
        Self {
            floor: Some((floor, parts.into())),
            ..self
        }
    }

    /// Returns `true` if the figure is within the limit.
    pub(crate) fn is_met(&self) -> bool {
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
            ("ok", self.is_met().into()),
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
        let result = if self.is_met() { "ok" } else { "MISS" };
        write!(
            f,
            "target {name}: {measured:.2}{unit} (limit {sign} {limit}{unit}) {result}"
        )?;
        match &self.floor {
            Some((floor, parts)) => write!(f, "\n  floor {floor:.2}{unit}: {parts}"),
            None => Ok(()),
        }
    }
}
