//! The name by which the server lists the connections of a process.

use bulkman_core::store::StoreError;

use crate::schema::DEFAULT_SCHEMA;

/// Returns the default name: `bulkman NAMESPACE INSTANCE`, and `bulkman SCHEMA.NAMESPACE INSTANCE`
/// in another schema than the default.
///
/// The server keeps 63 bytes of ASCII. Of longer names, the end of the instance remains, with the
/// host and the process id.
pub(crate) fn default_name(schema: &str, namespace: &str, instance: &str) -> String {
    let prefix = prefix(schema, namespace);
    let instance = ascii(instance);
    let excess = (prefix.len() + instance.len()).saturating_sub(MAX_BYTES);
    format!("{prefix}{}", &instance[excess..])
}

/// Returns the instance if `name` is the default name of a process of the namespace.
pub(crate) fn instance_in<'a>(name: &'a str, schema: &str, namespace: &str) -> Option<&'a str> {
    let instance = name.strip_prefix(&prefix(schema, namespace))?;
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

/// Returns the part before the instance.
fn prefix(schema: &str, namespace: &str) -> String {
    let scope = match schema {
        DEFAULT_SCHEMA => namespace.to_owned(),
        _ => format!("{schema}.{namespace}"),
    };
    let readable = ascii(&scope);
    if readable.len() <= MAX_SCOPE {
        return format!("{PROGRAM}{readable} ");
    }
    // Long names often differ in their end only.
    let (begin, hash) = (&readable[..MAX_SCOPE - 9], fnv_1a(scope.as_bytes()));
    format!("{PROGRAM}{begin}~{hash:08x} ")
}

/// Hashes bytes as all versions of this library do: FNV-1a, of 32 bits.
fn fnv_1a(bytes: &[u8]) -> u32 {
    let add = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    bytes.iter().fold(0x811c_9dc5, add)
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

/// The bytes of schema and namespace in a name. They leave 25 for host and process id.
const MAX_SCOPE: usize = 29;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_name_identifies_namespace_and_process() {
        let name = default_name("bulkman", "shop", "checkout@node-7:4121");
        assert_eq!(name, "bulkman shop checkout@node-7:4121");
        let instance = |name, namespace| instance_in(name, "bulkman", namespace);
        assert_eq!(instance(&name, "shop"), Some("checkout@node-7:4121"));
        assert_eq!(instance(&name, "sho"), None);
        assert_eq!(instance("bulkman shop ", "shop"), None);
        assert_eq!(instance("psql", "shop"), None);
        let spaces = default_name("bulkman", "eu 1", "blue 7 / 日本");
        assert_eq!(instance(&spaces, "eu 1"), Some("blue 7 / ??"));
    }

    #[test]
    fn default_name_identifies_the_schema() {
        let name = default_name("staging", "shop", "checkout@node-7:4121");
        assert_eq!(name, "bulkman staging.shop checkout@node-7:4121");
        let found = instance_in(&name, "staging", "shop");
        assert_eq!(found, Some("checkout@node-7:4121"));
        for (schema, namespace) in [("bulkman", "shop"), ("test", "shop"), ("staging", "sho")] {
            assert_eq!(instance_in(&name, schema, namespace), None, "{schema}");
        }
        let long = format!("{}@node-7:4121", "p".repeat(80));
        let name = default_name("staging_of_eu", "the payments of the shop", &long);
        assert!(name.starts_with("bulkman staging_of_eu.the pa~"), "{name}");
        for (schema, namespace) in [
            ("staging_of_eu", "the payments of the store"),
            ("staging_of_us", "the payments of the shop"),
        ] {
            assert_eq!(instance_in(&name, schema, namespace), None, "{schema}");
        }
        assert!(instance_in(&name, "staging_of_eu", "the payments of the shop").is_some());
        // The example of its authors.
        assert_eq!(fnv_1a(b"foobar"), 0xbf9c_f968);
    }

    #[test]
    fn long_names_keep_host_and_process() {
        let lengths = [(4, 80), (200, 1), (200, 80), (30, 40), (30, 17), (63, 10)];
        let schemas = ["bulkman".to_owned(), "s".repeat(40)];
        for (schema, (namespace, program)) in schemas.iter().flat_map(|s| lengths.map(|l| (s, l))) {
            let namespace = "n".repeat(namespace);
            let instance = format!("{}@node-7:4121", "p".repeat(program));
            let name = default_name(schema, &namespace, &instance);
            assert!(name.len() <= MAX_BYTES, "{name}");
            assert!(name.ends_with("@node-7:4121"), "{name}");
            let found = instance_in(&name, schema, &namespace).unwrap();
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
