//! The operating-system user of the server, since PostgreSQL does not run as root.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// The user under which programs run: the current one, unless that is root.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OsUser(Option<Ids>);

#[derive(Clone, Copy, Debug)]
struct Ids {
    user: u32,
    group: u32,
}

impl OsUser {
    pub(crate) fn choose() -> Result<Self, String> {
        let current =
            fs::metadata("/proc/self").map_or_else(|_| owner_of_new_file(), |meta| Ok(meta.uid()));
        if current? != 0 {
            return Ok(Self(None));
        }
        let users = fs::read_to_string("/etc/passwd").map_err(|e| format!("/etc/passwd: {e}"))?;
        let chosen = ["postgres", "nobody"]
            .iter()
            .find_map(|name| ids_of(&users, name));
        let missing = "PostgreSQL does not run as root, and there is no user `postgres` or `nobody` \
                       to run it: run the tests as another user, or add one";
        chosen
            .map(|ids| Self(Some(ids)))
            .ok_or_else(|| missing.to_owned())
    }

    /// Creates a command that runs `program` under this user in `directory`.
    pub(crate) fn command(self, program: impl AsRef<Path>, directory: &Path) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .current_dir(directory)
            .env_remove("PGDATA")
            .env("LC_ALL", "C");
        if let Some(ids) = self.0 {
            // Setting the user also drops the supplementary groups of root.
            command.uid(ids.user).gid(ids.group);
        }
        command
    }

    /// Changes the owner of a file to this user.
    pub(crate) fn take_ownership(self, path: &Path) -> Result<(), String> {
        let Some(ids) = self.0 else { return Ok(()) };
        chown(path, Some(ids.user), Some(ids.group)).map_err(|e| format!("{}: {e}", path.display()))
    }
}

/// Returns the current user id without /proc: the owner of a new file.
fn owner_of_new_file() -> Result<u32, String> {
    let path = std::env::temp_dir().join(format!("bulkman-owner-{}", std::process::id()));
    let owner = fs::write(&path, "")
        .and_then(|()| fs::metadata(&path))
        .map(|meta| meta.uid());
    let _ = fs::remove_file(&path);
    owner.map_err(|e| format!("{}: {e}", path.display()))
}

fn ids_of(users: &str, name: &str) -> Option<Ids> {
    let line = users
        .lines()
        .find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some(Ids {
        user: fields.next()?.parse().ok()?,
        group: fields.next()?.parse().ok()?,
    })
}
