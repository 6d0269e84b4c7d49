//! The command line's own errors, in the words of all other ones.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use super::config::ReadFile;
use super::{Cli, Fail, config};
use crate::capture::PortError;

/// A command line that was read, with its configuration file.
#[derive(Debug)]
pub struct Given {
    /// What it says.
    pub cli: Cli,
    /// The words that both came to: those of the file stand behind the command, as `--NAME=VALUE` each.
    pub words: Vec<OsString>,
}

/// Reads the command line of this process.
pub fn parse() -> Result<Cli, Fail> {
    let typed: Vec<OsString> = std::env::args_os().collect();
    given(&typed, &|path| std::fs::read(path)).map(|given| given.cli)
}

/// Reads a command line, and what `file` says of the configuration that it names. Help and version are answered and end the program,
/// with success.
pub fn given(typed: &[OsString], file: ReadFile) -> Result<Given, Fail> {
    let words = config::expanded(typed.to_vec(), file)?;
    match Cli::try_parse_from(&words) {
        Ok(cli) => Ok(Given { cli, words }),
        Err(e) => match e.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => e.exit(),
            _ => {
                let command = typed.get(1).and_then(|c| c.to_str());
                Err(config::in_file(house(&e, command), &e, typed, &words))
            }
        },
    }
}

/// What is wrong in one line, and the way out.
pub(super) fn house(e: &clap::Error, command: Option<&str>) -> Fail {
    let known = |c: &&str| Cli::command().get_subcommands().any(|s| s.get_name() == *c);
    let help = match command.filter(known) {
        Some(command) => format!("syntap {command} --help"),
        None => "syntap --help".into(),
    };
    if e.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Fail::new("no command is given").hint(help);
    }
    let text = e.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    // The first paragraph is the message; tips, usage and where to read on follow.
    let lines = text.lines().map(str::trim);
    let message: Vec<&str> = lines.take_while(|l| !l.is_empty() && !l.starts_with("hint: ")).collect();
    let source = std::error::Error::source(e);
    let own = source.and_then(|s| {
        let fail = s.downcast_ref::<Fail>().and_then(|f| f.way_out().map(str::to_owned));
        fail.or_else(|| s.downcast_ref::<PortError>().map(PortError::hint))
    });
    // No option of ours is meant as a value.
    let mut tips = text.lines().filter_map(|l| l.trim().strip_prefix("tip: "));
    let tip = || tips.find(|t| !t.contains("use '-- ")).map(str::to_owned);
    Fail::new(message.join(" ")).hint(own.or_else(tip).unwrap_or(help))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(args: &[&str]) -> String {
        let e = Cli::try_parse_from(std::iter::once(&"syntap").chain(args)).expect_err("refused");
        house(&e, args.first().copied()).to_string()
    }

    #[test]
    fn a_wrong_command_line_is_one_line_and_a_hint() {
        for (args, message, hint) in [
            (&["run", "-i", "eth0", "-p", "0", "-w", "d"][..], "port 0 is not a port", "ports begin at 1"),
            (&["run", "-i", "eth0", "-p", "9-1", "-w", "d"], "ends before it begins", "write 1-9"),
            (&["run", "-i", "eth0"], "--write <DIR>", "syntap run --help"),
            (&["run", "-i", "eth0", "-w", "d", "--budget", "0"], "--budget", "50000 for packets"),
            (
                &["run", "-i", "eth0", "-w", "d", "--max-flows", "100000000000"],
                "room for flows",
                "a flow takes 77 bytes",
            ),
            (&["run", "-i", "eth0", "-w", "d", "--workers", "0"], "from 1 to 256", "leave the option out"),
            (&["run", "-i", "eth0", "-w", "d", "--duration", "0"], "in seconds", "until Ctrl-C"),
            (&["replay", "--jsn", "f"], "unexpected argument '--jsn'", "'--json'"),
            (&["report", "--limit", "3", "d"], "unexpected argument '--limit'", "syntap report --help"),
            (&["show", "--limit", "-1", "d"], "from 1 on", "leave the option out"),
            (&["show", "--limit", "0", "d"], "from 1 on", "leave the option out"),
            (
                &["show", "--follow", "--until", "1h", "d"],
                "cannot be used with '--until",
                "syntap show --help",
            ),
            (&["show", "--kind", "reset_midflow", "d"], "no such kind", "near: reset_mid_flow"),
            (&["show", "--community-id", "1:abc", "d"], "no Community ID", "1:"),
            (&["rpelay"], "unrecognized subcommand 'rpelay'", "'replay'"),
            (&[], "no command is given", "syntap --help"),
        ] {
            let text = refused(args);
            let (first, rest) = text.split_once("\nhint: ").unwrap_or_else(|| panic!("{args:?}: {text}"));
            assert!(first.contains(message) && !first.contains('\n'), "{args:?}: {text}");
            assert!(rest.contains(hint) && !rest.contains('\n'), "{args:?}: {text}");
        }
    }
}
