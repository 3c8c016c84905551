//! The location of the PostgreSQL binaries.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Returns the directory with `initdb`, `pg_ctl` and `postgres`.
pub(crate) fn directory() -> Result<PathBuf, String> {
    on_path()
        .chain(packaged())
        .chain(configured())
        .find(|directory| {
            PROGRAMS
                .iter()
                .all(|program| directory.join(program).is_file())
        })
        .ok_or_else(|| {
            "found no PostgreSQL server: initdb, pg_ctl and postgres are neither on PATH, nor under \
             /usr/lib/postgresql/*/bin, nor in `pg_config --bindir`. Install a \
             server (Debian, Ubuntu: `apt-get install postgresql`; Fedora: `dnf install \
             postgresql-server`; macOS: `brew install postgresql`), or set \
             BULKMAN_TEST_DATABASE_URL to one in which tests may create schemas \
             (postgres://user:password@host:5432/database)."
                .to_owned()
        })
}

/// Returns the path of `psql`.
pub(crate) fn psql() -> PathBuf {
    program("psql")
}

/// Returns the path of `pg_basebackup`.
pub(crate) fn pg_basebackup() -> PathBuf {
    program("pg_basebackup")
}

fn program(name: &str) -> PathBuf {
    let found = on_path()
        .chain(packaged())
        .map(|directory| directory.join(name))
        .find(|p| p.is_file());
    found.unwrap_or_else(|| PathBuf::from(name))
}

fn on_path() -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).collect::<Vec<_>>().into_iter()
}

/// Returns the directories of Debian packages, which are not on PATH, newest version first.
fn packaged() -> impl Iterator<Item = PathBuf> {
    let entries = Path::new("/usr/lib/postgresql")
        .read_dir()
        .into_iter()
        .flatten();
    let mut directories: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    directories.sort_by_key(|directory| {
        let version = directory
            .file_name()
            .and_then(|name| name.to_str()?.parse::<u32>().ok());
        std::cmp::Reverse(version)
    });
    directories
        .into_iter()
        .map(|directory| directory.join("bin"))
}

fn configured() -> impl Iterator<Item = PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok();
    output.into_iter().filter_map(|output| {
        let text = String::from_utf8(output.stdout).ok()?;
        Some(PathBuf::from(text.trim()))
    })
}

const PROGRAMS: [&str; 3] = ["initdb", "pg_ctl", "postgres"];
