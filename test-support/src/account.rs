//! The account that the server runs under: PostgreSQL refuses to run as root.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// An account to run programs under: the caller's own unless that is root.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account(Option<Ids>);

#[derive(Clone, Copy, Debug)]
struct Ids {
    user: u32,
    group: u32,
}

impl Account {
    pub(crate) fn choose() -> Result<Self, String> {
        let own =
            fs::metadata("/proc/self").map_or_else(|_| owner_of_new_file(), |meta| Ok(meta.uid()));
        if own? != 0 {
            return Ok(Self(None));
        }
        let accounts =
            fs::read_to_string("/etc/passwd").map_err(|e| format!("/etc/passwd: {e}"))?;
        let chosen = ["postgres", "nobody"]
            .iter()
            .find_map(|name| ids_of(&accounts, name));
        let missing = "PostgreSQL does not run as root, and there is no account `postgres` or \
                       `nobody` to run it under: run the tests as another user, or add one";
        chosen
            .map(|ids| Self(Some(ids)))
            .ok_or_else(|| missing.to_owned())
    }

    /// `program`, to be run under this account and in `directory`, which it can enter.
    pub(crate) fn command(self, program: impl AsRef<Path>, directory: &Path) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .current_dir(directory)
            .env_remove("PGDATA")
            .env("LC_ALL", "C");
        if let Some(ids) = self.0 {
            // The supplementary groups of root go with it.
            command.uid(ids.user).gid(ids.group);
        }
        command
    }

    pub(crate) fn own(self, path: &Path) -> Result<(), String> {
        let Some(ids) = self.0 else { return Ok(()) };
        chown(path, Some(ids.user), Some(ids.group)).map_err(|e| format!("{}: {e}", path.display()))
    }
}

/// Where there is no /proc: whoever makes a file owns it.
fn owner_of_new_file() -> Result<u32, String> {
    let path = std::env::temp_dir().join(format!("bulkman-owner-{}", std::process::id()));
    let owner = fs::write(&path, "")
        .and_then(|()| fs::metadata(&path))
        .map(|meta| meta.uid());
    let _ = fs::remove_file(&path);
    owner.map_err(|e| format!("{}: {e}", path.display()))
}

fn ids_of(accounts: &str, name: &str) -> Option<Ids> {
    let line = accounts
        .lines()
        .find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some(Ids {
        user: fields.next()?.parse().ok()?,
        group: fields.next()?.parse().ok()?,
    })
}
