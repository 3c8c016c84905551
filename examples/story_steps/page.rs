//! The output: plain text, in color on a terminal.

use std::env;
use std::fmt::Display;
use std::io::{IsTerminal, stdout};

pub(crate) struct Page {
    color: bool,
    steps: usize,
}

#[derive(Clone, Copy)]
enum Style {
    Bold = 1,
    Dim = 2,
    Green = 32,
}

impl Page {
    pub(crate) fn new() -> Self {
        Self {
            color: stdout().is_terminal() && env::var_os("NO_COLOR").is_none(),
            steps: 0,
        }
    }

    pub(crate) fn step(&mut self, title: impl Display) {
        self.steps += 1;
        let title = format!("{}. {title}", self.steps);
        println!("\n{}", self.paint(Style::Bold, title));
    }

    pub(crate) fn line(&self, text: impl Display) {
        println!("     {text}");
    }

    pub(crate) fn note(&self, text: impl Display) {
        println!("     {}", self.paint(Style::Dim, text));
    }

    /// Prints a statement that holds.
    ///
    /// # Panics
    ///
    /// Panics if it does not hold: the program ends with an error.
    #[track_caller]
    pub(crate) fn check(&self, holds: bool, text: impl Display) {
        assert!(holds, "does not hold: {text}");
        println!("  {} {text}", self.paint(Style::Green, "ok"));
    }

    fn paint(&self, style: Style, text: impl Display) -> String {
        if self.color {
            format!("\x1b[{}m{text}\x1b[0m", style as u8)
        } else {
            text.to_string()
        }
    }
}
