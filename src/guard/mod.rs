//! What the process may still do once everything is set up, before it looks at the first packet.
//!
//! Set-up needs capabilities; what follows reads bytes that anybody on the wire may have written, and needs none. So in between
//! [`Guard::enter`] gives up, for good and for all threads to come: the user it began as, every capability, the right to gain
//! any (`rights.rs`), standard input (`inherited.rs`), all files but the directory of records (`files.rs`), and all system calls but those in [`calls`]
//! (`filter.rs`, `refused.rs`). The one thing that needs a capability while running, asking connection tracking, is done by a
//! process of its own that can do nothing else ([`helper`]).
//!
//! It guarantees that a run goes on with less than asked for only if [`Level::Auto`] or [`Level::Off`] says so. It does not
//! protect from what may be done with the descriptors that are open: `docs/security.md` has the list.

pub mod calls;
mod files;
mod filter;
pub mod helper;
mod inherited;
mod lacking;
mod refused;
mod rights;

use std::io;
use std::path::{Path, PathBuf};

pub use inherited::close_inherited;
pub use lacking::Lacking;
pub use refused::refused;
pub use rights::{Account, DEFAULT_USER};

/// How much must be given up for the run to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// All of it.
    Require,
    /// What can be given up here.
    Auto,
    /// Nothing is.
    Off,
}

/// Why it cannot be confined as was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// Something is not to be had here, and must be.
    #[error("{0}")]
    Lacking(Lacking),
    /// `--user` names nobody.
    #[error("there is no user {0}")]
    Unknown(String),
    /// Only root becomes another user.
    #[error("cannot become user {0}: only root can")]
    NotRoot(String),
    /// A user without a sandbox.
    #[error("cannot become a user without the sandbox")]
    UserWithoutSandbox,
    /// Some thread would keep what the others give up.
    #[error("cannot give up privileges: {0} threads run already")]
    Threads(usize),
    /// The kernel refused.
    #[error("cannot {operation}: {source}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// The kernel's word.
        source: io::Error,
    },
}

impl GuardError {
    /// The way out, where one is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            GuardError::Lacking(what) => Some(what.hint()),
            GuardError::Unknown(name) => {
                Some(format!("useradd --system --no-create-home --shell /usr/sbin/nologin {name}"))
            }
            GuardError::NotRoot(_) => Some("leave --user out, or start it as root".into()),
            GuardError::UserWithoutSandbox => Some("leave out --user or --sandbox off".into()),
            GuardError::Threads(_) => None,
            GuardError::System { .. } => Some(
                "--sandbox auto goes on without what cannot be had, --sandbox off without any of it".into(),
            ),
        }
    }
}

fn failed<E: Into<io::Error>>(operation: &'static str) -> impl Fn(E) -> GuardError {
    move |e| GuardError::System { operation, source: e.into() }
}

/// What the run must still reach.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// Directories in which files are made, written, listed and removed.
    pub write: Vec<PathBuf>,
    /// Files, and directories with all that is in them, that are read.
    pub read: Vec<PathBuf>,
    /// Programs are attached again to interfaces that come back.
    pub attach: bool,
}

/// What will be given up.
#[derive(Debug)]
pub struct Guard {
    level: Level,
    account: Account,
    lacking: Vec<Lacking>,
}

/// What was given up, for the user to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confined {
    /// The user it runs as from now on.
    pub user: String,
    /// System calls are filtered.
    pub filtered: bool,
    /// Files are out of reach but for those of [`Reach`].
    pub enclosed: bool,
    /// What this kernel's landlock has no rule for, though later ones do, in words.
    pub ungoverned: Vec<&'static str>,
}

impl Guard {
    /// Finds out what can be given up here, before anything is opened. From here on a file has the mode that it is made with, whoever
    /// started the process with whatever umask: all that a run makes names its mode, since a confined one can change none.
    ///
    /// `user` is whom to become; if nobody is named, root becomes [`DEFAULT_USER`], and anybody else remains who he is.
    pub fn plan(level: Level, user: Option<&str>) -> Result<Guard, GuardError> {
        // Others may read what is made for them, and write nothing, also where somebody forgets to name a mode.
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        if level == Level::Off {
            if user.is_some() {
                return Err(GuardError::UserWithoutSandbox);
            }
            return Ok(Guard { level, account: Account::own(), lacking: Vec::new() });
        }
        let (account, nobody) = rights::account(user)?;
        let mut guard = Guard { level, account, lacking: Vec::new() };
        guard.lacks(nobody)?;
        guard.lacks((!files::supported()).then_some(Lacking::Landlock))?;
        guard.lacks((!filter::supported()).then_some(Lacking::Seccomp))?;
        Ok(guard)
    }

    fn lacks(&mut self, what: Option<Lacking>) -> Result<(), GuardError> {
        match what {
            None => Ok(()),
            Some(what) if self.level == Level::Require => Err(GuardError::Lacking(what)),
            Some(what) => {
                self.lacking.push(what);
                Ok(())
            }
        }
    }

    /// Whether anything is given up at all.
    pub fn is_on(&self) -> bool {
        self.level != Level::Off
    }

    /// What is lacking and was said to be dispensable.
    pub fn lacking(&self) -> &[Lacking] {
        &self.lacking
    }

    /// Who it will be.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// A directory of records must not be writable by everybody: who can put files there can have them read as records.
    pub fn must_be_private(&mut self, dir: &Path) -> Result<(), GuardError> {
        use std::os::unix::fs::PermissionsExt;
        let open = |m: std::fs::Metadata| m.permissions().mode() & 0o002 != 0;
        let open = self.is_on() && std::fs::metadata(dir).is_ok_and(open);
        self.lacks(open.then(|| Lacking::Private(dir.to_owned())))
    }

    /// Does `work` with the file rights of the user that it will be: files that it makes are his, and what he may not do fails now.
    pub fn as_user<T>(&self, work: impl FnOnce() -> T) -> T {
        if self.is_on() { self.account.files_as(work) } else { work() }
    }

    /// Gives up everything that can be. Nothing of it comes back; threads made from now on have as little. Call it from the only
    /// thread there is.
    pub fn enter(&self, reach: &Reach) -> Result<Confined, GuardError> {
        let user = self.account.name().to_owned();
        if !self.is_on() {
            return Ok(Confined { user, filtered: false, enclosed: false, ungoverned: Vec::new() });
        }
        let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
        if threads != 1 {
            return Err(GuardError::Threads(threads));
        }
        let (enclosed, filtered) =
            (!self.lacking.contains(&Lacking::Landlock), !self.lacking.contains(&Lacking::Seccomp));
        // Opened while everything can be, used when hardly anything can.
        let fence = if enclosed { Some(files::Fence::around(reach)?) } else { None };
        let filters = if filtered { Some(filter::Filters::running(reach.attach)?) } else { None };
        inherited::let_input_go().map_err(failed("put /dev/null in the place of standard input"))?;
        rights::give_up(&self.account)?;
        let ungoverned = fence.map_or(Ok(Vec::new()), files::Fence::close)?;
        if let Some(filters) = filters {
            refused::report().map_err(failed("report refused system calls"))?;
            filters.apply()?;
        }
        Ok(Confined { user, filtered, enclosed, ungoverned })
    }
}
