//! Horizontal bars as SVG: a block for each kind of call, with a bar for each contender.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::table::rounded;

const WIDTH: i32 = 960;
const LABELS: i32 = 400;
const FIGURES: i32 = 90;
const LINE: i32 = 21;
/// A correction of font sizes: the SVG backend writes a size of 1.24 as 1.
const POINTS: f64 = 1.24;
const HEAD: i32 = 74;
const FOOT: i32 = 14;
pub(super) const OURS: RGBColor = RGBColor(0x1b, 0x6c, 0xa8);
const THEIRS: RGBColor = RGBColor(0xb4, 0xbc, 0xc4);
pub(super) const INK: RGBColor = RGBColor(0x24, 0x29, 0x2f);
pub(super) const PALE: RGBColor = RGBColor(0x6a, 0x73, 0x7d);

/// A picture of one suite.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    /// The file's name, without `.svg`.
    pub(crate) file: String,
    pub(crate) title: String,
    pub(crate) unit: &'static str,
    pub(crate) blocks: Vec<Block>,
}

/// A group of comparable bars. Each block has its own scale.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) title: String,
    pub(crate) bars: Vec<Bar>,
}

/// A bar, which shows one figure.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) value: f64,
}

impl Chart {
    /// Writes `<folder>/<file>.svg`.
    pub(crate) fn draw(&self, folder: &Path, machine: &str) -> Result<(), Box<dyn Error>> {
        let lines: usize = self.blocks.iter().map(|block| block.bars.len() + 2).sum();
        let height = HEAD + FOOT + LINE * i32::try_from(lines)?;
        let path = folder.join(&self.file).with_extension("svg");
        let area = SVGBackend::new(&path, (WIDTH.unsigned_abs(), height.unsigned_abs()))
            .into_drawing_area();
        area.fill(&WHITE)?;
        area.draw(&text(&self.title, (16, 14), 20, &INK, HPos::Left))?;
        let caption = format!(
            "{}, shorter is better; each block has its own scale",
            self.unit
        );
        area.draw(&text(&caption, (16, 38), 13, &PALE, HPos::Left))?;
        area.draw(&text(machine, (16, 55), 13, &PALE, HPos::Left))?;
        let mut y = HEAD;
        for block in &self.blocks {
            area.draw(&text(
                &block.title,
                (16, y + LINE / 2),
                15,
                &INK,
                HPos::Left,
            ))?;
            y += LINE + LINE / 2;
            let end = block.end();
            for bar in &block.bars {
                let color = if bar.label.starts_with("bulkman") {
                    &OURS
                } else {
                    &THEIRS
                };
                let ink = if bar.label.starts_with("bulkman") {
                    &INK
                } else {
                    &PALE
                };
                area.draw(&text(&bar.label, (LABELS - 10, y), 14, ink, HPos::Right))?;
                let full = f64::from(WIDTH - LABELS - FIGURES);
                #[allow(
                    clippy::cast_possible_truncation,
                    reason = "at most the picture's width"
                )]
                let length = (full * (bar.value / end).min(1.0)).round() as i32;
                let corners = [(LABELS, y), (LABELS + length.max(1), y + LINE - 6)];
                area.draw(&Rectangle::new(corners, color.filled()))?;
                let cut = if bar.value > end { "» " } else { "" };
                let figure = format!("{cut}{}", rounded(bar.value));
                area.draw(&text(
                    &figure,
                    (LABELS + length + 6, y),
                    14,
                    ink,
                    HPos::Left,
                ))?;
                y += LINE;
            }
            y += LINE / 2;
        }
        area.present()?;
        Ok(())
    }
}

impl Block {
    /// Returns the value at the end of the scale.
    ///
    /// It is at most eight times the value at the first third. Longer bars are cut, since the
    /// others would be invisible beside them.
    fn end(&self) -> f64 {
        let mut values: Vec<f64> = self.bars.iter().map(|bar| bar.value).collect();
        values.sort_by(f64::total_cmp);
        let typical = values.get(values.len() / 3).copied().unwrap_or(1.0);
        let largest = values.last().copied().unwrap_or(1.0);
        let end = if typical > 0.0 {
            largest.min(typical * 8.0)
        } else {
            largest
        };
        end.max(f64::MIN_POSITIVE)
    }
}

pub(super) fn text<'a>(
    content: &'a str,
    at: (i32, i32),
    size: i32,
    color: &'a RGBColor,
    side: HPos,
) -> Text<'a, (i32, i32), &'a str> {
    let style = TextStyle::from(("sans-serif", f64::from(size) * POINTS).into_font())
        .color(color)
        .pos(Pos::new(side, VPos::Top));
    Text::new(content, at, style)
}
