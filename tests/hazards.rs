//! Every known defect has its test: `hazards.md` says which, and this that it is so.

use std::collections::BTreeMap;
use std::path::Path;

#[test]
fn every_hazard_has_a_test_that_carries_its_number() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = std::fs::read_to_string(root.join("tests/hazards.md")).unwrap();
    let mut rows = BTreeMap::new();
    for line in table.lines() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, number, _, tests, _] = cells[..] else { continue };
        if is_number(number) {
            assert!(rows.insert(number.to_owned(), tests.to_owned()).is_none(), "{number} is there twice");
        }
    }
    let listed: Vec<_> = rows.keys().cloned().collect();
    assert_eq!(listed, expected(), "the numbers in the table");
    let mut checked = 0;
    for (number, tests) in &rows {
        if let Some(reason) = tests.strip_prefix("does not apply: ") {
            assert!(!reason.is_empty(), "{number}: no reason");
            continue;
        }
        // `file` `test`, and again.
        let quoted: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!quoted.is_empty() && quoted.len() % 2 == 0, "{number}: {tests}");
        for pair in quoted.chunks(2) {
            let [file, test] = pair else { unreachable!("chunks of two") };
            let source = std::fs::read_to_string(root.join(file))
                .unwrap_or_else(|error| panic!("{number}: {file}: {error}"));
            check(number, &source, test)
                .unwrap_or_else(|problem| panic!("{number}: {file}: {test} {problem}"));
            checked += 1;
        }
    }
    assert!(checked >= rows.len(), "only {checked} tests were looked at");
}

/// The test is there, and its name or the comment right above it has the number.
fn check(number: &str, source: &str, test: &str) -> Result<(), &'static str> {
    let lines: Vec<_> = source.lines().collect();
    let begins = format!("fn {test}(");
    let place = lines.iter().position(|line| line.contains(&begins)).ok_or("is not there")?;
    let above = lines[..place].iter().rev().take_while(|line| {
        let line = line.trim_start();
        line.starts_with("//") || line.starts_with("#[")
    });
    let mut carries = std::iter::once(&lines[place]).chain(above);
    let spellings = spellings(number);
    if carries.any(|line| spellings.iter().any(|spelling| has_word(&line.to_lowercase(), spelling))) {
        Ok(())
    } else {
        Err("does not carry the number")
    }
}

/// How a number is written in names and comments.
fn spellings(number: &str) -> Vec<String> {
    let number = number.to_lowercase();
    let Some(defect) = number.strip_prefix('p') else { return vec![number] };
    let short = defect.trim_start_matches('0');
    ["python_", "defect_", "defect "]
        .iter()
        .flat_map(|prefix| [defect, short].map(|n| format!("{prefix}{n}")))
        .chain([format!("4_and_{short}_")])
        .collect()
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word)
        .any(|(at, _)| !line[at + word.len()..].starts_with(|c: char| c.is_ascii_alphanumeric()))
}

fn is_number(cell: &str) -> bool {
    let Some(digits) = cell.strip_prefix(['H', 'P']) else { return false };
    digits.len() >= 2 && digits.as_bytes()[..2].iter().all(u8::is_ascii_digit)
}

fn expected() -> Vec<String> {
    let hazards = (1..=39).chain(50..=65).chain(78..=88).map(|number| format!("H{number:02}"));
    let queue = ["H39a", "H39b", "H39c"].map(str::to_owned);
    let python = (1..=15).map(|number| format!("P{number:02}"));
    let mut all: Vec<_> = hazards.chain(queue).chain(python).collect();
    all.sort_unstable();
    all
}

/// The check itself sees what is missing.
mod checker {
    use super::check;

    #[test]
    fn a_test_that_is_missing_or_has_no_number_is_found() {
        let source = "/// As in H12.\n#[test]\nfn one() {}\n\nfn h34_two() {}\n\nfn defect_4_three() {}\n";
        assert_eq!(check("H12", source, "one"), Ok(()));
        assert_eq!(check("H34", source, "h34_two"), Ok(()));
        assert_eq!(check("P04", source, "defect_4_three"), Ok(()));
        assert!(check("H01", source, "one").is_err());
        assert!(check("H3", source, "h34_two").is_err());
        assert!(check("P05", source, "defect_4_three").is_err());
        assert!(check("H12", source, "on").is_err());
        assert!(check("H12", source, "gone").is_err());
    }
}
