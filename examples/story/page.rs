//! What the reader sees: plain text, with a little colour on a terminal.

use std::env;
use std::fmt::Display;
use std::io::{IsTerminal, stdout};

pub(crate) struct Page {
    colour: bool,
    acts: usize,
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
            colour: stdout().is_terminal() && env::var_os("NO_COLOR").is_none(),
            acts: 0,
        }
    }

    pub(crate) fn act(&mut self, title: impl Display) {
        self.acts += 1;
        let title = format!("{}. {title}", self.acts);
        println!("\n{}", self.paint(Style::Bold, title));
    }

    pub(crate) fn line(&self, text: impl Display) {
        println!("     {text}");
    }

    pub(crate) fn note(&self, text: impl Display) {
        println!("     {}", self.paint(Style::Dim, text));
    }

    /// Prints what has been found to hold.
    ///
    /// # Panics
    ///
    /// When it does not hold: the program ends with an error.
    #[track_caller]
    pub(crate) fn claim(&self, holds: bool, text: impl Display) {
        assert!(holds, "this does not hold: {text}");
        println!("  {} {text}", self.paint(Style::Green, "ok"));
    }

    fn paint(&self, style: Style, text: impl Display) -> String {
        if self.colour {
            format!("\x1b[{}m{text}\x1b[0m", style as u8)
        } else {
            text.to_string()
        }
    }
}
