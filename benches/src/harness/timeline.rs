//! Lines over time as SVG: a column for each case, and a row for each quantity.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::plot::{INK, OURS, PALE, text};
use super::table::rounded;

const LEFT: i32 = 62;
const COLUMN: i32 = 330;
const GAP: i32 = 34;
const ROW_GAP: i32 = 52;
const HEAD: i32 = 140;
const ROW: i32 = 190;
const GRID: RGBColor = RGBColor(0xe4, 0xe7, 0xea);
const OTHERS: [RGBColor; 4] = [
    RGBColor(0xd9, 0x82, 0x2b),
    RGBColor(0x4c, 0x9a, 0x5b),
    RGBColor(0x9a, 0x6f, 0xb0),
    RGBColor(0xc2, 0x56, 0x5b),
];

/// A picture of how quantities change over time.
#[derive(Clone, Debug)]
pub(crate) struct Timeline {
    /// The file's name, without `.svg`.
    pub(crate) file: &'static str,
    pub(crate) title: &'static str,
    pub(crate) caption: &'static str,
    /// The lines of every panel. The first is the yardstick, the second is this project.
    pub(crate) lines: Vec<&'static str>,
    pub(crate) rows: Vec<Row>,
    pub(crate) columns: Vec<Column>,
    /// The end of the time scale, in seconds.
    pub(crate) length: f64,
}

/// A quantity.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) title: &'static str,
    /// The end of the scale. Larger values are cut.
    pub(crate) end: f64,
}

/// A case.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) title: &'static str,
    /// For each row the points of each line.
    pub(crate) panels: Vec<Vec<Points>>,
}

/// Times and values, in order.
pub(crate) type Points = Vec<(f64, f64)>;

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

impl Timeline {
    /// Writes `<folder>/<file>.svg`.
    pub(crate) fn draw(&self, folder: &Path) -> Result<(), Box<dyn Error>> {
        let (columns, rows) = (
            i32::try_from(self.columns.len())?,
            i32::try_from(self.rows.len())?,
        );
        let width = LEFT + columns * (COLUMN + GAP);
        let height = HEAD + rows * (ROW + ROW_GAP);
        let path = folder.join(self.file).with_extension("svg");
        let size = (width.unsigned_abs(), height.unsigned_abs());
        let area = SVGBackend::new(&path, size).into_drawing_area();
        area.fill(&WHITE)?;
        area.draw(&text(self.title, (16, 14), 20, &INK, HPos::Left))?;
        area.draw(&text(self.caption, (16, 38), 13, &PALE, HPos::Left))?;
        self.draw_legend(&area)?;
        for (x, column) in (0..).zip(&self.columns) {
            let left = LEFT + x * (COLUMN + GAP);
            area.draw(&text(column.title, (left, HEAD - 50), 15, &INK, HPos::Left))?;
            for (y, (row, lines)) in (0..).zip(self.rows.iter().zip(&column.panels)) {
                let top = HEAD + y * (ROW + ROW_GAP);
                self.draw_panel(&area, (left, top), row, lines)?;
            }
        }
        area.present()?;
        Ok(())
    }

    fn draw_legend(&self, area: &Area<'_>) -> Result<(), Box<dyn Error>> {
        let mut x = 16;
        for (index, name) in self.lines.iter().enumerate() {
            let style = style(index);
            area.draw(&PathElement::new([(x, 64), (x + 24, 64)], style))?;
            area.draw(&text(name, (x + 30, 57), 13, &INK, HPos::Left))?;
            x += 52 + 7 * i32::try_from(name.len())?;
        }
        Ok(())
    }

    fn draw_panel(
        &self,
        area: &Area<'_>,
        (left, top): (i32, i32),
        row: &Row,
        lines: &[Points],
    ) -> Result<(), Box<dyn Error>> {
        area.draw(&text(row.title, (left, top - 20), 13, &PALE, HPos::Left))?;
        for part in 0..=4 {
            let value = row.end * f64::from(part) / 4.0;
            let y = top + ROW - part * ROW / 4;
            area.draw(&PathElement::new([(left, y), (left + COLUMN, y)], GRID))?;
            let label = rounded(value);
            area.draw(&text(&label, (left - 6, y - 7), 11, &PALE, HPos::Right))?;
        }
        for part in 0..=3 {
            let seconds = self.length * f64::from(part) / 3.0;
            let label = format!("{} s", rounded(seconds));
            let at = (left + part * COLUMN / 3, top + ROW + 4);
            area.draw(&text(&label, at, 11, &PALE, HPos::Center))?;
        }
        let x = |time: f64| left + scaled(time / self.length, COLUMN);
        let y = |value: f64| top + ROW - scaled(value / row.end, ROW);
        // This project and the yardstick are drawn last.
        let order = (2..lines.len()).chain([1, 0]);
        for index in order.filter(|&index| index < lines.len()) {
            let points: Vec<_> = (lines[index].iter())
                .map(|&(time, value)| (x(time), y(value)))
                .collect();
            area.draw(&PathElement::new(points, style(index)))?;
        }
        Ok(())
    }
}

fn style(index: usize) -> ShapeStyle {
    match index {
        0 => INK.stroke_width(1),
        1 => OURS.stroke_width(3),
        _ => OTHERS[(index - 2) % OTHERS.len()].stroke_width(1),
    }
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "at most the picture's width"
)]
fn scaled(fraction: f64, length: i32) -> i32 {
    (fraction.clamp(0.0, 1.0) * f64::from(length)).round() as i32
}
