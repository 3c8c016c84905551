//! The default name of a process.

use std::env;
use std::fmt::Write;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// Returns the name of this process: `program@host:pid`, without what is unknown.
pub(super) fn default_instance() -> Arc<str> {
    static NAME: OnceLock<Arc<str>> = OnceLock::new();
    let name = NAME.get_or_init(|| name(&program(), &host(), std::process::id()).into());
    Arc::clone(name)
}

fn name(program: &str, host: &str, pid: u32) -> String {
    let mut name = shortened(program);
    if name.is_empty() {
        name.push_str("process");
    }
    let host = shortened(host);
    if !host.is_empty() {
        let _infallible = write!(name, "@{host}");
    }
    let _infallible = write!(name, ":{pid}");
    name
}

/// Returns a part of a name that a store accepts: at most 80 bytes, no control characters.
fn shortened(text: &str) -> String {
    let mut shortened = String::new();
    for c in text.trim().chars().filter(|c| !c.is_control()) {
        if shortened.len() + c.len_utf8() > 80 {
            break;
        }
        shortened.push(c);
    }
    shortened
}

fn program() -> String {
    let path = env::args_os().next().unwrap_or_default();
    let stem = Path::new(&path).file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}

/// Returns the name of the host, which the name of the container or pod is, too.
fn host() -> String {
    let variables = ["HOSTNAME", "COMPUTERNAME"];
    let variables = variables.iter().filter_map(|name| env::var(name).ok());
    let files = ["/proc/sys/kernel/hostname", "/etc/hostname"];
    let files = files
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok());
    let mut names = variables.chain(files);
    names
        .find(|name| !name.trim().is_empty())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreSettings;

    #[test]
    fn default_instance_names_program_and_process() {
        let name = StoreSettings::new().instance_name();
        assert!(
            name.ends_with(&format!(":{}", std::process::id())),
            "{name}"
        );
        assert!(name.starts_with("bulkman_core"), "{name}");
        let named = StoreSettings::new().instance("blue-7");
        assert_eq!(&*named.instance_name(), "blue-7");
    }

    #[test]
    fn default_instance_is_a_valid_name() {
        assert_eq!(name("shop", "node-7\n", 12), "shop@node-7:12");
        assert_eq!(name("", "", 12), "process:12");
        let long = name(&"\u{1b}\u{6f22}".repeat(100), &"h".repeat(300), u32::MAX);
        let settings = StoreSettings::new().instance(long.clone());
        assert!(settings.validate().is_ok(), "{long}");
    }
}
