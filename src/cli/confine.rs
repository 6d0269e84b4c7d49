//! `--user` and `--sandbox`: what a run gives up once it is set up, and what is said of it.

use std::path::Path;

use clap::Args;

use super::output::hinted;
use super::status::local;
use super::{Fail, many, note};
use crate::guard::{Confined, Guard, GuardError, Level, Reach, close_inherited};

/// Arguments of `run` that say what it gives up.
#[derive(Debug, Args)]
pub struct ConfineArgs {
    /// Become this user once everything is set up; he must be able to write into DIR. Root becomes `syntap` if nobody is named, and
    /// stays root, without capabilities, if `root` is. Whoever else starts it remains who he is.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,

    /// What to give up before the first packet: capabilities, the user, all files but those in DIR, all system calls but those that are
    /// needed. `require`: all of it, or the run does not begin. `auto`: what this machine can take away. `off`: nothing, for debugging.
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Sandbox::Require)]
    sandbox: Sandbox,
}

/// `--sandbox`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Sandbox {
    /// All of it.
    Require,
    /// What can be had.
    Auto,
    /// Nothing.
    Off,
}

/// The first thing that a run does: nothing that was left open for it stays so, but under `--sandbox off`, where a debugger's may.
pub fn begin(args: &ConfineArgs) {
    if args.sandbox != Sandbox::Off
        && let Err(e) = close_inherited()
    {
        note(format!("warning: descriptors that it was started with stay open: {e}"));
    }
}

fn fail(e: &GuardError) -> Fail {
    hinted(e, e.hint())
}

/// What will be given up; says what is lacking, if the run goes on without.
pub fn plan(args: &ConfineArgs) -> Result<Guard, Fail> {
    let level = match args.sandbox {
        Sandbox::Require => Level::Require,
        Sandbox::Auto => Level::Auto,
        Sandbox::Off => Level::Off,
    };
    let guard = Guard::plan(level, args.user.as_deref()).map_err(|e| fail(&e))?;
    say(&guard, 0);
    if !guard.is_on() {
        note("warning: --sandbox off: it keeps all its privileges while it reads packets");
    }
    Ok(guard)
}

fn say(guard: &Guard, from: usize) {
    for what in &guard.lacking()[from..] {
        note(format!("warning: {what}: {}", what.without()));
    }
}

/// Whether DIR is its user's alone.
pub fn private(guard: &mut Guard, dir: &Path) -> Result<(), Fail> {
    let said = guard.lacking().len();
    guard.must_be_private(dir).map_err(|e| fail(&e))?;
    say(guard, said);
    Ok(())
}

/// An error of the directory of records, for the user that it must belong to.
pub fn whose(e: Fail, guard: &Guard) -> Fail {
    if !guard.is_on() || e.way_out().is_none_or(|hint| !hint.contains("can be written to")) {
        return e;
    }
    let user = guard.account().name();
    let text = format!("{} (as user {user})", e.message());
    Fail::new(text)
        .hint(format!("install -d -o {user} -m 750 DIR makes a directory for it; --user is who it becomes"))
}

/// Gives up what can be, for good.
pub fn enter(guard: &Guard, reach: Reach) -> Result<(), Fail> {
    // Of the status line.
    local();
    let on = guard.is_on();
    let confined = guard.enter(&reach).map_err(|e| fail(&e))?;
    if on {
        note(described(&confined));
        if let Some(text) = ungoverned(&confined) {
            note(text);
        }
    }
    Ok(())
}

fn described(c: &Confined) -> String {
    let calls = if c.filtered { "no system calls but those of a running tap" } else { "all system calls" };
    let files = if c.enclosed { "no files but its records" } else { "all files of that user" };
    format!("runs as {} from now on: no capabilities, {calls}, {files}", c.user)
}

/// What an older landlock means.
fn ungoverned(c: &Confined) -> Option<String> {
    let (last, others) = c.ungoverned.split_last()?;
    let what =
        if others.is_empty() { (*last).to_owned() } else { format!("{} and {last}", others.join(", ")) };
    let so = if c.filtered {
        "the list of system calls alone keeps it from that"
    } else {
        "nothing keeps it from that"
    };
    Some(format!("this kernel's landlock has no rules for {what}: {so}"))
}

/// A line of the summary, if system calls were refused.
pub fn refused() -> Option<(String, String)> {
    let n = crate::guard::refused();
    (n > 0).then(|| ("refused".to_owned(), many(n, "system call")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_landlock_means_is_one_line() {
        let of = |filtered, ungoverned: &[&'static str]| {
            let user = "nobody".to_owned();
            super::ungoverned(&Confined { user, filtered, enclosed: true, ungoverned: ungoverned.to_vec() })
        };
        assert_eq!(of(true, &[]), None);
        assert_eq!(
            of(true, &["TCP", "ioctl", "signals"]).as_deref(),
            Some(
                "this kernel's landlock has no rules for TCP, ioctl and signals: the list of system calls alone keeps it from that"
            )
        );
        assert_eq!(
            of(false, &["TCP"]).as_deref(),
            Some("this kernel's landlock has no rules for TCP: nothing keeps it from that")
        );
    }
}
