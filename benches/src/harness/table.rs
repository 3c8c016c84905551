//! A Markdown table, and the same figures as JSON.

use std::fmt;

use super::json::{self, Json};

/// Rows of figures under a title.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    title: String,
    /// The first column contains the labels of the rows.
    columns: Vec<&'static str>,
    rows: Vec<Row>,
}

#[derive(Clone, Debug)]
struct Row {
    label: String,
    figures: Vec<f64>,
}

impl Table {
    pub(crate) fn new<const N: usize>(
        title: impl Into<String>,
        columns: [&'static str; N],
    ) -> Self {
        Self {
            title: title.into(),
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row. A figure that does not apply is NaN.
    pub(crate) fn row<const N: usize>(&mut self, label: impl Into<String>, figures: [f64; N]) {
        assert_eq!(N + 1, self.columns.len(), "a figure for every column");
        self.rows.push(Row {
            label: label.into(),
            figures: figures.to_vec(),
        });
    }

    pub(crate) fn to_json(&self) -> Json {
        let rows = self.rows.iter().map(|row| {
            let figures = self.columns[1..].iter().zip(&row.figures);
            let mut members: serde_json::Map<_, _> = figures
                .map(|(column, figure)| ((*column).to_owned(), Json::from(*figure)))
                .collect();
            members.insert(self.columns[0].to_owned(), row.label.as_str().into());
            Json::Object(members)
        });
        json::object([
            ("title", self.title.as_str().into()),
            ("rows", rows.collect()),
        ])
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self
            .rows
            .iter()
            .map(|row| row.label.chars().count())
            .max()
            .unwrap_or_default();
        let width = width.max(self.columns[0].chars().count());
        writeln!(f, "### {}\n", self.title)?;
        write!(f, "| {:width$} |", self.columns[0])?;
        for column in &self.columns[1..] {
            write!(f, " {column:>9} |")?;
        }
        write!(f, "\n|:{:-<width$}-|", "")?;
        for column in &self.columns[1..] {
            write!(f, "{:->1$}|", ":", column.chars().count().max(9) + 2)?;
        }
        for row in &self.rows {
            write!(f, "\n| {:width$} |", row.label)?;
            for (column, figure) in self.columns[1..].iter().zip(&row.figures) {
                write!(
                    f,
                    " {:>1$} |",
                    rounded(*figure),
                    column.chars().count().max(9)
                )?;
            }
        }
        writeln!(f)
    }
}

/// Formats a figure with at most three digits, which is all that a measurement justifies.
pub(crate) fn rounded(figure: f64) -> String {
    if figure.is_nan() {
        return "-".to_owned();
    }
    if figure.fract() == 0.0 && figure.abs() < 1e6 {
        return format!("{figure}");
    }
    match figure.abs() {
        ..10.0 => format!("{figure:.2}"),
        10.0..100.0 => format!("{figure:.1}"),
        _ => format!("{figure:.0}"),
    }
}
