//! Checks that every row of `hazards.md` has a test, and that every test that names a hazard has a
//! row.
//!
//! A test names its hazards in its documentation: `/// Hazard H18, H27.`

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The files that a row of the table lists, or the reason why the hazard does not apply.
type Row = Result<BTreeSet<String>, String>;

#[test]
fn every_hazard_has_a_test_and_every_named_hazard_has_a_row() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = parse_table(&fs::read_to_string(root.join("tests/hazards.md")).unwrap()).unwrap();
    let catalog: Vec<_> = table
        .keys()
        .filter(|number| number.starts_with(['H', 'P']))
        .cloned()
        .collect();
    assert_eq!(catalog, expected_numbers(), "the numbers in the table");

    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in rust_sources(root) {
        let file = path
            .strip_prefix(root)
            .unwrap()
            .to_str()
            .unwrap()
            .replace('\\', "/");
        for number in hazards_of_tests(&fs::read_to_string(&path).unwrap()) {
            found.entry(number).or_default().insert(file.clone());
        }
    }
    for (number, row) in &table {
        match row {
            Err(reason) => assert!(!reason.is_empty(), "{number}: no reason"),
            Ok(files) => assert_eq!(Some(files), found.get(number), "{number}: listed and found"),
        }
    }
    let unknown: Vec<_> = found
        .keys()
        .filter(|number| !table.contains_key(*number))
        .collect();
    assert!(unknown.is_empty(), "not in the table: {unknown:?}");
}

/// Reads all tables. Returns the first line that does not belong where it is.
fn parse_table(text: &str) -> Result<BTreeMap<String, Row>, String> {
    let mut rows = BTreeMap::new();
    // The lines of the current table before this one.
    let mut above = 0;
    for (index, line) in text.lines().enumerate() {
        let unexpected = || format!("line {}: {line:?}", index + 1);
        let is_in_table = above > 0 || line.starts_with('|');
        if !is_in_table || line.is_empty() {
            if is_conflict_marker(line) {
                return Err(unexpected());
            }
            above = 0;
            continue;
        }
        match above {
            0 if line == HEADER => {}
            1 if line == SEPARATOR => {}
            2.. => {
                let (number, row) = parse_row(line).ok_or_else(unexpected)?;
                if rows.insert(number, row).is_some() {
                    return Err(format!("listed twice: {}", unexpected()));
                }
            }
            _ => return Err(unexpected()),
        }
        above += 1;
    }
    Ok(rows)
}

const HEADER: &str = "| number | what must not happen | tests |";
const SEPARATOR: &str = "| --- | --- | --- |";

fn is_conflict_marker(line: &str) -> bool {
    ["<<<<<<<", "|||||||", "=======", ">>>>>>>"]
        .iter()
        .any(|marker| line.starts_with(marker))
}

/// Reads a row: a number, a hazard, and its files or the reason why it does not apply.
fn parse_row(line: &str) -> Option<(String, Row)> {
    let cells: Vec<_> = line.split('|').map(str::trim).collect();
    let ["", number, hazard, tests, ""] = cells[..] else {
        return None;
    };
    if !is_number(number) || hazard.is_empty() {
        return None;
    }
    let row = match tests.strip_prefix("does not apply: ") {
        Some(reason) => Err(reason.to_owned()),
        None => {
            let file = |cell: &str| {
                let path = cell.strip_prefix('`')?.strip_suffix('`')?;
                (!path.is_empty() && !path.contains('`')).then(|| path.to_owned())
            };
            Ok(tests.split(", ").map(file).collect::<Option<_>>()?)
        }
    };
    Some((number.to_owned(), row))
}

/// Returns the numbers in `/// Hazard` lines that belong to a function.
fn hazards_of_tests(source: &str) -> Vec<String> {
    let mut numbers = Vec::new();
    let mut pending = Vec::new();
    for line in source.lines().map(str::trim) {
        if let Some(list) = line
            .strip_prefix("/// Hazard ")
            .or_else(|| line.strip_prefix("/// Fault "))
        {
            let list = list.split(['.', ':']).next().unwrap_or(list);
            pending.extend(
                list.split(", ")
                    .filter(|number| is_number(number))
                    .map(str::to_owned),
            );
        } else if line.contains("fn ") && !line.starts_with("//") {
            numbers.append(&mut pending);
        } else if !line.starts_with("//") && !line.starts_with("#[") {
            pending.clear();
        }
    }
    numbers
}

fn rust_sources(root: &Path) -> Vec<PathBuf> {
    let mut sources = Vec::new();
    let mut folders: Vec<_> = [
        "src",
        "tests",
        "bulkman-core",
        "bulkman-tokio",
        "bulkman-smol",
        "bulkman-postgres",
    ]
    .map(|folder| root.join(folder))
    .into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.ends_with("tests/hazards.rs")
            {
                sources.push(path);
            }
        }
    }
    sources
}

/// A family in capital letters, and a number: `H39a`, `API04`.
fn is_number(text: &str) -> bool {
    let digits = text.trim_start_matches(|c: char| c.is_ascii_uppercase());
    (1..=4).contains(&(text.len() - digits.len()))
        && digits.starts_with(|c: char| c.is_ascii_digit())
}

fn expected_numbers() -> Vec<String> {
    let hazards = (1..=39)
        .chain(50..=65)
        .chain(78..=88)
        .map(|number| format!("H{number:02}"));
    let queue = ["H39a", "H39b", "H39c"].map(str::to_owned);
    let python = (1..=15).map(|number| format!("P{number:02}"));
    let mut all: Vec<_> = hazards.chain(queue).chain(python).collect();
    all.sort_unstable();
    all
}

#[test]
fn hazards_are_read_from_the_documentation_of_functions() {
    let source = "
        /// Hazard H12, P04.
        #[test]
        fn one() {}

        /// Hazard H13.
        struct NotAFunction;

        // Hazard H14.
        fn two() {}

        /// Explains more.
        /// Hazard H15.
        async fn three() {}
    ";
    assert_eq!(hazards_of_tests(source), ["H12", "P04", "H15"]);
}

#[test]
fn rows_list_files_or_a_reason() {
    let rows = [
        "| H01 | a probe leaks | `a.rs`, `b.rs` |",
        "| H02 | never | does not apply: no such thing |",
    ];
    let table = parse_table(&table_of(&rows)).unwrap();
    assert_eq!(
        table["H01"],
        Ok(BTreeSet::from(["a.rs".to_owned(), "b.rs".to_owned()]))
    );
    assert_eq!(table["H02"], Err("no such thing".to_owned()));
    assert_eq!(table.len(), 2);
}

#[test]
fn lines_of_a_table_that_are_no_rows_are_errors() {
    for line in [
        "<<<<<<< HEAD",
        "||||||| base",
        "=======",
        ">>>>>>> other",
        "a sentence",
        "| x | a hazard | `a.rs` |",
        "| H02 | | `a.rs` |",
        "| H02 | a hazard | a.rs |",
        "| H02 | a hazard | `a.rs`, |",
        "| H02 | a hazard | |",
        "| H02 | a hazard | `a.rs`",
        "| H02 | a hazard | `a.rs` | more |",
        "| H01 | again | `a.rs` |",
        SEPARATOR,
        HEADER,
    ] {
        let first = table_of(&[line, "| H01 | a hazard | `a.rs` |"]);
        let last = table_of(&["| H01 | a hazard | `a.rs` |", line]);
        for text in [first, last] {
            let error = parse_table(&text).unwrap_err();
            assert!(error.contains("line "), "{error}");
        }
    }
}

#[test]
fn rows_and_conflict_markers_beside_a_table_are_errors() {
    for text in [
        "| H01 | a hazard | `a.rs` |",
        "# Title\n\n=======\n",
        "<<<<<<< HEAD\n\nA sentence.",
        "A sentence.\n>>>>>>> other",
    ] {
        parse_table(text).unwrap_err();
        let below = format!("{}\n{text}\n", table_of(&["| H02 | a hazard | `a.rs` |"]));
        parse_table(&below).unwrap_err();
    }
    let without_separator = format!("{HEADER}\n| H01 | a hazard | `a.rs` |\n");
    parse_table(&without_separator).unwrap_err();
}

fn table_of(rows: &[&str]) -> String {
    format!(
        "# Title\n\nA sentence.\n\n{HEADER}\n{SEPARATOR}\n{}\n\nMore.\n",
        rows.join("\n")
    )
}
