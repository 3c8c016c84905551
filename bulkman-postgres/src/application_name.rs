//! The name by which the server lists the connections of a process.

use bulkman_core::store::StoreError;

/// Returns the default name: `bulkman NAMESPACE INSTANCE`.
///
/// The server keeps 63 bytes of ASCII. Of longer names, the end of the instance remains, with the
/// host and the process id.
pub(crate) fn default_name(namespace: &str, instance: &str) -> String {
    let instance = ascii(instance);
    let mut prefix = prefix(namespace, MAX_BYTES);
    if prefix.len() + instance.len() > MAX_BYTES {
        prefix = self::prefix(namespace, SHORT_NAMESPACE);
    }
    let excess = (prefix.len() + instance.len()).saturating_sub(MAX_BYTES);
    format!("{prefix}{}", &instance[excess..])
}

/// Returns the instance if `name` is the default name of a process of the namespace.
pub(crate) fn instance_in<'a>(name: &'a str, namespace: &str) -> Option<&'a str> {
    let instance = [MAX_BYTES, SHORT_NAMESPACE]
        .iter()
        .find_map(|&length| name.strip_prefix(&prefix(namespace, length)))?;
    (!instance.is_empty()).then_some(instance)
}

/// Checks a name that was set explicitly.
pub(crate) fn check(name: &str) -> Result<(), StoreError> {
    let valid = (1..=MAX_BYTES).contains(&name.len()) && name.bytes().all(|b| is_kept(b.into()));
    if valid {
        return Ok(());
    }
    Err(StoreError::invalid_argument(format!(
        "application name {name:?} must be 1 to {MAX_BYTES} printable characters of ASCII"
    )))
}

/// Returns the part before the instance, with at most `length` bytes of the namespace.
fn prefix(namespace: &str, length: usize) -> String {
    let mut namespace = ascii(namespace);
    namespace.truncate(length);
    format!("{PROGRAM}{namespace} ")
}

/// Replaces what the server would replace, in a way that depends on its version.
fn ascii(text: &str) -> String {
    let replaced = |c| if is_kept(c) { c } else { '?' };
    text.chars().map(replaced).collect()
}

const fn is_kept(c: char) -> bool {
    c.is_ascii_graphic() || c == ' '
}

const PROGRAM: &str = "bulkman ";

const MAX_BYTES: usize = 63;

/// The bytes of the namespace in a name that would be too long.
const SHORT_NAMESPACE: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_name_identifies_namespace_and_process() {
        let name = default_name("shop", "checkout@node-7:4121");
        assert_eq!(name, "bulkman shop checkout@node-7:4121");
        assert_eq!(instance_in(&name, "shop"), Some("checkout@node-7:4121"));
        assert_eq!(instance_in(&name, "sho"), None);
        assert_eq!(instance_in("bulkman shop ", "shop"), None);
        assert_eq!(instance_in("psql", "shop"), None);
        let spaces = default_name("eu 1", "blue 7 / 日本");
        assert_eq!(instance_in(&spaces, "eu 1"), Some("blue 7 / ??"));
    }

    #[test]
    fn long_names_keep_host_and_process() {
        for (namespace, program) in [(4, 80), (200, 1), (200, 80), (30, 40), (30, 17), (63, 10)] {
            let namespace = "n".repeat(namespace);
            let instance = format!("{}@node-7:4121", "p".repeat(program));
            let name = default_name(&namespace, &instance);
            assert!(name.len() <= MAX_BYTES, "{name}");
            assert!(name.ends_with("@node-7:4121"), "{name}");
            let found = instance_in(&name, &namespace).unwrap();
            assert!(instance.ends_with(found), "{name}: {found}");
            assert!(check(&name).is_ok(), "{name}");
        }
    }

    #[test]
    fn names_that_the_server_would_change_are_rejected() {
        for name in ["", "caf\u{e9}", "a\nb", &"a".repeat(64)] {
            assert!(check(name).is_err(), "{name:?}");
        }
    }
}
