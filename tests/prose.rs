//! Checks the prose of comments and documents: plain words, lines that fit.
//!
//! CONTRIBUTING has the rules and `docs/GLOSSARY.md` the words. The idioms counted here were common
//! once, and each has a plain replacement. A few uses are fine, so there is a limit per 1,000
//! lines.

use std::fs;
use std::path::{Path, PathBuf};

/// The most idioms per 1,000 lines of prose.
const LIMIT: f64 = 8.0;

/// The longest line of a comment, in characters.
const WIDTH: usize = 100;

const IDIOMS: &[&str] = &[
    "who",
    "whoever",
    "whose",
    "nobody",
    "somebody",
    "anybody",
    "everybody",
    "look",
    "looks",
    "looked",
    "told",
    "tell",
    "tells",
    "hear",
    "heard",
    "hears",
    "heeds",
    "made by",
    "makes",
    "of its own",
    "of one's own",
    "of their own",
    "mend",
    "mends",
    "says",
    "said",
    "is over",
    "so many",
    "so much",
    "by hand",
    "a hand",
    "what became of",
    "has become of",
    "goes on",
    "go on",
    "comes back",
    "come back",
    "also when",
    "also if",
    "for ever",
    "as a rule",
];

#[test]
fn prose_uses_plain_words() {
    let (mut lines, mut found) = (0_usize, Vec::new());
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        for (number, prose) in prose(&path, &text) {
            lines += 1;
            for idiom in idioms(&prose) {
                found.push(format!(
                    "{}:{number}: {idiom:?} in {prose:?}",
                    path.display()
                ));
            }
        }
    }
    assert!(lines > 5_000, "only {lines} lines of prose were found");
    let rate = found.len() as f64 * 1_000.0 / lines as f64;
    assert!(
        rate <= LIMIT,
        "{rate:.1} idioms per 1,000 lines, at most {LIMIT}:\n{}",
        found.join("\n")
    );
}

#[test]
fn comments_fit_their_lines() {
    let mut long = Vec::new();
    for path in sources().into_iter().filter(|path| is_rust(path)) {
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in (1..).zip(text.lines()) {
            // A table and a link cannot be wrapped.
            let fits =
                line.chars().count() <= WIDTH || line.contains("http") || line.contains("| ");
            if line.trim_start().starts_with("//") && !fits {
                long.push(format!("{}:{number}", path.display()));
            }
        }
    }
    assert!(
        long.is_empty(),
        "comments of more than {WIDTH} characters:\n{}",
        long.join("\n")
    );
}

/// Returns the lines of prose with their numbers: comments, or all of a document but its code.
fn prose(path: &Path, text: &str) -> Vec<(usize, String)> {
    let mut fenced = false;
    let mut prose = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if is_rust(path) {
            if line.starts_with("//") {
                prose.push((number, without_code(line)));
            }
        } else if line.starts_with("```") {
            fenced = !fenced;
        } else if !fenced && !line.is_empty() {
            prose.push((number, without_code(line)));
        }
    }
    prose
}

fn without_code(line: &str) -> String {
    line.split('`')
        .step_by(2)
        .collect::<Vec<_>>()
        .join("`")
        .to_lowercase()
}

fn idioms(prose: &str) -> impl Iterator<Item = &'static str> {
    IDIOMS.iter().copied().filter(move |idiom| {
        prose.match_indices(idiom).any(|(at, _)| {
            let before = prose[..at].chars().next_back();
            let after = prose[at + idiom.len()..].chars().next();
            ![before, after]
                .into_iter()
                .flatten()
                .any(char::is_alphanumeric)
        })
    })
}

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rs")
}

fn sources() -> Vec<PathBuf> {
    let mut sources = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if (is_rust(&path) && name != "prose.rs")
                || (name.ends_with(".md") && name != "GLOSSARY.md" && name != "CONTRIBUTING.md")
            {
                sources.push(path);
            }
        }
    }
    sources
}

#[test]
fn idioms_are_found_as_words() {
    let found = |text: &str| idioms(text).collect::<Vec<_>>();
    assert_eq!(found("// the one who waits is told"), ["who", "told"]);
    assert_eq!(found("// the whole lookup"), [""; 0]);
    let path = Path::new("page.md");
    assert_eq!(
        prose(path, "a `told` b\n```\nwho\n```\n"),
        [(1, "a ` b".to_owned())]
    );
}
