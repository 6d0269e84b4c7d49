//! What may be missing on a machine, in words.

use std::fmt;
use std::path::PathBuf;

use super::DEFAULT_USER;

/// Something that a confined run needs and that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lacking {
    /// Root has nobody to become.
    User,
    /// The kernel has no landlock, or was booted without.
    Landlock,
    /// The kernel has no filters of system calls, or this architecture has none here.
    Seccomp,
    /// Everybody can write into the directory of records.
    Private(PathBuf),
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lacking::User => write!(f, "there is no user {DEFAULT_USER} to become once it is set up"),
            Lacking::Landlock => {
                f.write_str("this kernel has no landlock to keep it from files that it does not need")
            }
            Lacking::Seccomp => {
                f.write_str("this kernel has no seccomp to keep it from system calls that it does not need")
            }
            Lacking::Private(dir) => write!(f, "everybody can write into {}", dir.display()),
        }
    }
}

impl Lacking {
    /// What it means to go on without.
    pub fn without(&self) -> &'static str {
        match self {
            Lacking::User => "it stays root, without capabilities",
            Lacking::Landlock => "files are protected by their owners and modes alone",
            Lacking::Seccomp => "every system call is allowed",
            Lacking::Private(_) => "records there may be anybody's",
        }
    }

    /// The way out.
    pub fn hint(&self) -> String {
        let mend = match self {
            Lacking::User => format!(
                "useradd --system --no-create-home --shell /usr/sbin/nologin {DEFAULT_USER}, --user NAME for another one \
                 (--user root stays root, without capabilities)"
            ),
            Lacking::Landlock => "boot with landlock in lsm=, on Linux 5.13 or newer".into(),
            Lacking::Seccomp => "a kernel with CONFIG_SECCOMP_FILTER, on x86-64 or arm64".into(),
            Lacking::Private(dir) => format!("chmod 750 {}", dir.display()),
        };
        format!("{mend}; or --sandbox auto to go on without")
    }
}
