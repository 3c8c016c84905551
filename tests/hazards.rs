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
    let table = parse_table(&fs::read_to_string(root.join("tests/hazards.md")).unwrap());
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

fn parse_table(text: &str) -> BTreeMap<String, Row> {
    let mut rows = BTreeMap::new();
    for line in text.lines() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, number, _, tests, _] = cells[..] else {
            continue;
        };
        if !is_number(number) {
            continue;
        }
        let row = match tests.strip_prefix("does not apply: ") {
            Some(reason) => Err(reason.to_owned()),
            None => Ok(tests
                .split('`')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect()),
        };
        assert!(
            rows.insert(number.to_owned(), row).is_none(),
            "{number} is listed twice"
        );
    }
    rows
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
    let table = parse_table(
        "| H01 | a probe leaks | `a.rs`, `b.rs` |\n| H02 | never | does not apply: no such thing |\n| x | y | z |",
    );
    assert_eq!(
        table["H01"],
        Ok(BTreeSet::from(["a.rs".to_owned(), "b.rs".to_owned()]))
    );
    assert_eq!(table["H02"], Err("no such thing".to_owned()));
    assert_eq!(table.len(), 2);
}
