//! What a process of the fleet is to be: said on its command line.

use std::fmt;
use std::str::FromStr;

/// What a process of the fleet is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Role {
    pub(crate) executor: Executor,
    pub(crate) link: Link,
    /// Circuits, named `c0` and so on.
    pub(crate) circuits: usize,
    pub(crate) tells: Tells,
}

/// On what it runs, with one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Executor {
    Tokio,
    Smol,
}

/// How it hears of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Listening,
    Polling,
    /// Not at all: its circuits are its own.
    Alone,
}

/// What it tells unasked, besides the link's condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tells {
    Nothing,
    /// Every change of a circuit.
    Moves,
    /// What became of its decisions.
    Endings,
}

impl Role {
    pub(crate) const fn new(circuits: usize, tells: Tells) -> Self {
        Self { executor: Executor::Tokio, link: Link::Listening, circuits, tells }
    }

    pub(crate) const fn executor(self, executor: Executor) -> Self {
        Self { executor, ..self }
    }

    pub(crate) const fn link(self, link: Link) -> Self {
        Self { link, ..self }
    }

    /// The words of the command line.
    pub(crate) fn words(self) -> [String; 4] {
        let Self { executor, link, circuits, tells } = self;
        [executor.to_string(), link.to_string(), circuits.to_string(), tells.to_string()]
    }

    /// Reads what [`words`](Self::words) wrote.
    pub(crate) fn parse(words: &[&str]) -> Result<Self, String> {
        let [executor, link, circuits, tells] = words else { return Err("a role has four words".to_owned()) };
        let circuits = circuits.parse().map_err(|_| format!("{circuits} is no number"))?;
        Ok(Self { executor: executor.parse()?, link: link.parse()?, circuits, tells: tells.parse()? })
    }
}

/// A word for each variant.
macro_rules! words {
    ($($type:ident { $($variant:ident = $word:literal),* })*) => {
        $(
            impl fmt::Display for $type {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.pad(match self {
                        $(Self::$variant => $word,)*
                    })
                }
            }

            impl FromStr for $type {
                type Err = String;

                fn from_str(word: &str) -> Result<Self, String> {
                    match word {
                        $($word => Ok(Self::$variant),)*
                        _ => Err(format!("{word} is no {}", stringify!($type))),
                    }
                }
            }
        )*
    };
}

words! {
    Executor { Tokio = "tokio", Smol = "smol" }
    Link { Listening = "listening", Polling = "polling", Alone = "alone" }
    Tells { Nothing = "nothing", Moves = "moves", Endings = "endings" }
}
