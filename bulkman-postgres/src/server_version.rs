//! The supported versions of the server.

use bulkman_core::store::StoreError;

/// The oldest version of PostgreSQL that is supported.
pub(crate) const OLDEST_SERVER: i32 = 13;

/// Checks a version in the form of the setting `server_version_num`.
pub(crate) fn check_server_version(number: i32) -> Result<(), StoreError> {
    match too_old(number) {
        None => Ok(()),
        Some(version) => Err(StoreError::incompatible(format!(
            "the server is PostgreSQL {version}, which is too old: use PostgreSQL {OLDEST_SERVER} or newer"
        ))),
    }
}

/// Returns the major version if it is not supported.
pub(crate) const fn too_old(number: i32) -> Option<i32> {
    let version = number / 10_000;
    if version < OLDEST_SERVER {
        Some(version)
    } else {
        None
    }
}

/// Returns the version of the server.
pub(crate) const SERVER_VERSION: &str =
    "SELECT current_setting('server_version_num')::int AS server_version";
