//! Parses scenarios from Markdown; strict, so that no line is skipped silently.

use std::collections::HashSet;
use std::str::FromStr;
use std::time::Duration;

/// One scenario.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) kind: String,
    pub(crate) cfg: Vec<(String, String)>,
    pub(crate) steps: Vec<Step>,
    /// The line of the heading.
    pub(crate) line: usize,
}

/// One step of a scenario.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) at: Duration,
    pub(crate) op: String,
    pub(crate) args: Vec<String>,
    pub(crate) expected: Vec<Expected>,
    pub(crate) line: usize,
}

/// One expectation: `key=value` or a single word.
#[derive(Debug)]
pub(crate) struct Expected {
    pub(crate) key: String,
    pub(crate) value: Option<String>,
}

/// Parses a file; an error begins with the line number.
pub(crate) fn parse(text: &str) -> Result<Vec<Scenario>, String> {
    let mut scenarios = Vec::new();
    let mut heading: Option<(usize, String, String)> = None;
    let mut lines = (1..).zip(text.lines());
    while let Some((number, line)) = lines.next() {
        let at = |problem: String| format!("{number}: {problem}");
        if let Some(rest) = line.strip_prefix("#### ") {
            if let Some((earlier, id, _)) = heading {
                return Err(format!("{earlier}: {id} has no block"));
            }
            let (id, title) = rest
                .split_once(" — ")
                .ok_or_else(|| at(format!("not a heading: {line}")))?;
            heading = Some((number, id.trim().into(), title.trim().into()));
        } else if let Some(tag) = line.strip_prefix("```") {
            let block =
                take_block(&mut lines).ok_or_else(|| at("the block is not closed".into()))?;
            match (tag.trim(), heading.take()) {
                ("scn", Some(heading)) => scenarios.push(scenario(heading, &block)?),
                ("scn", None) => return Err(at("a block without a heading".into())),
                (_, None) => {}
                (tag, Some(_)) => return Err(at(format!("unknown block {tag:?}"))),
            }
        }
    }
    match heading {
        Some((number, id, _)) => Err(format!("{number}: {id} has no block")),
        None => Ok(scenarios),
    }
}

/// Parses milliseconds with up to six decimals: `1000`, `0.5`.
pub(crate) fn millis(text: &str) -> Result<Duration, String> {
    let problem = || format!("not a number of milliseconds: {text:?}");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 6 || text.ends_with('.') {
        return Err(problem());
    }
    let whole: u64 = digits(whole).ok_or_else(problem)?;
    let nanos: u64 = digits(&format!("{fraction:0<6}")).ok_or_else(problem)?;
    Ok(Duration::from_millis(whole) + Duration::from_nanos(nanos))
}

/// Parses a number.
pub(crate) fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("not a number in range: {text:?}"))
}

/// Parses `xN`; `None` if `arg` has another form.
pub(crate) fn times(arg: &str) -> Option<Result<u32, String>> {
    let n = arg.strip_prefix('x')?;
    Some(number(n).and_then(|n| {
        if n == 0 {
            Err("x0 has no effect".into())
        } else {
            Ok(n)
        }
    }))
}

fn digits(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().ok()
    } else {
        None
    }
}

fn take_block<'a>(
    lines: &mut impl Iterator<Item = (usize, &'a str)>,
) -> Option<Vec<(usize, &'a str)>> {
    let mut block = Vec::new();
    for (number, line) in lines {
        if line.trim_end() == "```" {
            return Some(block);
        }
        block.push((number, line.trim()));
    }
    None
}

fn scenario(heading: (usize, String, String), block: &[(usize, &str)]) -> Result<Scenario, String> {
    let (line, id, title) = heading;
    let mut lines = block.iter().filter(|(_, text)| !text.is_empty());
    let kind = match lines.next() {
        Some((_, text)) if text.starts_with("kind ") => text["kind ".len()..].trim().to_owned(),
        _ => return Err(format!("{line}: {id} does not begin with a kind")),
    };
    let cfg = match lines.next() {
        Some((number, text)) if *text == "cfg" || text.starts_with("cfg ") => {
            settings(&text[3..]).map_err(|problem| format!("{number}: {problem}"))?
        }
        _ => return Err(format!("{line}: {id} has no cfg")),
    };
    let steps: Vec<_> = lines
        .map(|(number, text)| {
            step(*number, text).map_err(|problem| format!("{number}: {problem}: {text}"))
        })
        .collect::<Result<_, _>>()?;
    if steps.is_empty() {
        return Err(format!("{line}: {id} has no step"));
    }
    for pair in steps.windows(2) {
        if pair[1].at < pair[0].at {
            return Err(format!(
                "{}: the time is before that of the previous step",
                pair[1].line
            ));
        }
    }
    Ok(Scenario {
        id,
        title,
        kind,
        cfg,
        steps,
        line,
    })
}

fn settings(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut seen = HashSet::new();
    text.split_whitespace()
        .map(|word| {
            let (key, value) = word
                .split_once('=')
                .ok_or_else(|| format!("not key=value: {word:?}"))?;
            if !seen.insert(key) {
                return Err(format!("{key} is set twice"));
            }
            Ok((key.to_owned(), value.to_owned()))
        })
        .collect()
}

fn step(line: usize, text: &str) -> Result<Step, String> {
    let (left, right) = text.split_once("=>").ok_or("no expectation")?;
    let mut words = left.split_whitespace();
    let time = words
        .next()
        .and_then(|word| word.strip_prefix('@'))
        .ok_or("no time")?;
    let op = words.next().ok_or("no operation")?.to_owned();
    let args = words.map(str::to_owned).collect();
    let expected: Vec<_> = right
        .split_whitespace()
        .map(|word| match word.split_once('=') {
            Some((key, value)) => Expected {
                key: key.to_owned(),
                value: Some(value.to_owned()),
            },
            None => Expected {
                key: word.to_owned(),
                value: None,
            },
        })
        .collect();
    if expected.is_empty() {
        return Err("no expectation".into());
    }
    Ok(Step {
        at: millis(time)?,
        op,
        args,
        expected,
        line,
    })
}
