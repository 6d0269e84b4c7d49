//! `run --config FILE`: options in a TOML file, under the names that they have on the command line.
//!
//! What the command line says itself wins, option by option. A file's values are given to the command line's own parser, so a name
//! means the same in both and is checked in one place; a name that is none is an error, and so is a value of another kind.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, CommandFactory};
use toml::{Table, Value};

use super::{Cli, Fail};

/// The command whose options a file can have.
const COMMAND: &str = "run";

/// The option that names the file.
const OPTION: &str = "config";

/// How the bytes of a file are had.
pub type ReadFile<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

/// A command line with what its configuration file adds; the same if it names none.
pub fn expanded(args: Vec<OsString>, file: ReadFile) -> Result<Vec<OsString>, Fail> {
    let Some(path) = named(&args) else { return Ok(args) };
    let bytes = file(&path).map_err(|e| {
        Fail::new(format!("cannot read {}: {e}", path.display()))
            .hint("--config takes a TOML file; docs/operations.md has one")
    })?;
    let at_byte = |n: usize, what: &str| {
        let line = bytes.iter().take(n).filter(|b| **b == b'\n').count() + 1;
        Fail::new(format!("{}, line {line}: {what}", path.display()))
    };
    let text = std::str::from_utf8(&bytes).map_err(|e| {
        at_byte(e.valid_up_to(), "this is no UTF-8").hint("--config takes a TOML file, which is UTF-8 text")
    })?;
    let table = text.parse::<Table>().map_err(|e| {
        at_byte(e.span().map_or(0, |at| at.start), &shown(&e.message().replace('\n', "; ")))
            .hint("write NAME = VALUE, with text in quotes")
    })?;
    let given = on_the_command_line(&args);
    let mut more = Vec::new();
    for (name, value) in &table {
        let option = option(name, &path)?;
        let words = words(&option, name, value, &path)?;
        if !given.iter().any(|id| id == option.get_id().as_str()) {
            more.extend(words);
        }
    }
    let mut all = args;
    let at = all.iter().position(|a| a == COMMAND).map_or(all.len(), |n| n + 1);
    all.splice(at..at, more);
    Ok(all)
}

/// Says in which file a value is, where the parser refused one of the file's: of those that are in `all` and were not `typed`. What is
/// missing is missing in both.
pub fn in_file(fail: Fail, e: &clap::Error, typed: &[OsString], all: &[OsString]) -> Fail {
    let at = typed.iter().position(|a| a == COMMAND).map_or(typed.len(), |n| n + 1);
    let added = all.get(at..at + all.len().saturating_sub(typed.len())).unwrap_or_default();
    let is_added = |shown: &String| {
        let option = shown.split([' ', '=']).next().unwrap_or_default();
        added.iter().any(|w| w.to_str().is_some_and(|w| w.split('=').next() == Some(option)))
    };
    let concerned = match e.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(option)) => is_added(option),
        _ => e.kind() == ErrorKind::MissingRequiredArgument,
    };
    let Some(path) = named(typed).filter(|_| concerned) else { return fail };
    let text = format!("{} (with {})", fail.message(), path.display());
    let again = Fail::new(text);
    match fail.way_out() {
        Some(hint) => again.hint(hint),
        None => again,
    }
}

/// The file of this process's command line, if that gives an option rather than the line itself.
pub fn gives(option: &str) -> Option<PathBuf> {
    let typed: Vec<OsString> = std::env::args_os().collect();
    let id = options().iter().find(|a| a.get_long() == Some(option))?.get_id().as_str().to_owned();
    named(&typed).filter(|_| !on_the_command_line(&typed).contains(&id))
}

/// The file that a command line of [`COMMAND`] names.
pub fn named(args: &[OsString]) -> Option<PathBuf> {
    if args.get(1).map(OsString::as_os_str) != Some(OsStr::new(COMMAND)) {
        return None;
    }
    let flag = format!("--{OPTION}");
    let mut rest = args[2..].iter();
    while let Some(arg) = rest.next() {
        match arg.to_str() {
            Some("--") => return None,
            Some(text) if text == flag => return rest.next().map(PathBuf::from),
            Some(text) => match text.strip_prefix(&flag).and_then(|t| t.strip_prefix('=')) {
                Some(path) => return Some(PathBuf::from(path)),
                None => continue,
            },
            None => continue,
        }
    }
    None
}

/// The options that a file can have. Made once: a file asks for each of its names.
fn options() -> &'static [Arg] {
    static OPTIONS: LazyLock<Vec<Arg>> = LazyLock::new(|| {
        let command = Cli::command();
        let run = command.find_subcommand(COMMAND).expect("there is this command");
        run.get_arguments().filter(|a| a.get_long().is_some_and(|l| l != OPTION)).cloned().collect()
    });
    &OPTIONS
}

/// The options that are given anyway: those of the file give way.
fn on_the_command_line(args: &[OsString]) -> Vec<String> {
    // A value that is refused later is given, too.
    let any = |arg: Arg| match arg.get_action() {
        ArgAction::Set | ArgAction::Append => arg.value_parser(clap::value_parser!(OsString)),
        _ => arg,
    };
    let command = Cli::command().mut_subcommand(COMMAND, |run| run.mut_args(any)).ignore_errors(true);
    let matches = command.try_get_matches_from(args).ok();
    let run = matches.as_ref().and_then(|m| m.subcommand_matches(COMMAND));
    let given = |m: &clap::ArgMatches| {
        let from = |id: &str| m.value_source(id) == Some(ValueSource::CommandLine);
        m.ids().map(|id| id.as_str().to_owned()).filter(|id| from(id)).collect()
    };
    run.map(given).unwrap_or_default()
}

fn option(name: &str, path: &Path) -> Result<Arg, Fail> {
    let all = options();
    let long = |a: &Arg| a.get_long().unwrap_or_default().to_owned();
    if let Some(found) = all.iter().find(|a| long(a) == name) {
        return Ok(found.clone());
    }
    let fail = Fail::new(format!("{}: there is no option '{}'", path.display(), shown(name)));
    let near = all.iter().map(&long).min_by_key(|l| distance(l, name)).filter(|l| distance(l, name) <= 3);
    Err(match near {
        Some(near) => fail.hint(format!("'{near}' is one")),
        None => fail.hint(format!("they are those of 'syntap {COMMAND} --help', without dashes")),
    })
}

/// How many letters must be changed, added or left out.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let here = (corner + usize::from(x != *y)).min(row[j] + 1).min(row[j + 1] + 1);
            corner = std::mem::replace(&mut row[j + 1], here);
        }
    }
    row[b.len()]
}

/// The option as it would be on the command line, once for each value.
fn words(option: &Arg, name: &str, value: &Value, path: &Path) -> Result<Vec<OsString>, Fail> {
    let wrong = |wants: &str, hint: String| {
        Fail::new(format!("{}: {name} is {}, not {wants}", path.display(), kind(value))).hint(hint)
    };
    if matches!(option.get_action(), ArgAction::SetTrue) {
        return match value {
            Value::Boolean(true) => Ok(vec![format!("--{name}").into()]),
            Value::Boolean(false) => Ok(Vec::new()),
            _ => Err(wrong("true or false", format!("{name} = true"))),
        };
    }
    // A message that quotes it would be more than a line, or steer a terminal.
    let is_odd = |value: &Value| value.as_str().is_some_and(|text| text.contains(char::is_control));
    if is_odd(value) || value.as_array().is_some_and(|list| list.iter().any(is_odd)) {
        return Err(Fail::new(format!("{}: {name} holds a control character", path.display()))
            .hint("end the text on its line, and write no \\n, \\t or \\u00.. in it"));
    }
    let one = |value: &Value| match value {
        Value::String(text) => Some(format!("--{name}={text}").into()),
        Value::Integer(n) => Some(format!("--{name}={n}").into()),
        _ => None,
    };
    let wants = || wrong("text or a number", format!("{name} = \"...\", as behind --{name}"));
    match value {
        Value::Array(list) if matches!(option.get_action(), ArgAction::Append) => {
            list.iter().map(one).collect::<Option<_>>().ok_or_else(wants)
        }
        value => one(value).map(|word| vec![word]).ok_or_else(wants),
    }
}

/// What stands in a file, in a message.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "text",
        Value::Integer(_) => "a number",
        Value::Float(_) => "a number with a point",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a section",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(file: &str, args: &[&str]) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.toml");
        std::fs::write(&path, file).unwrap();
        let mut all: Vec<OsString> = vec!["syntap".into(), "run".into()];
        all.extend(args.iter().map(OsString::from));
        all.extend(["--config".into(), path.into()]);
        let text = |args: Vec<OsString>| {
            args[2..args.len() - 2].iter().map(|a| a.to_str().unwrap().to_owned()).collect()
        };
        let shown = |e: Fail| e.to_string().replace(&*dir.path().to_string_lossy(), "");
        expanded(all, &|path| std::fs::read(path)).map(text).map_err(shown)
    }

    #[test]
    fn a_file_gives_options_and_the_command_line_wins() {
        let file = "interface = [\"eth0=inside\", \"eth1\"]\nports = \"443,8080\"\nworkers = 2\nbusy-poll = true\nforce = false";
        let said = with(file, &[]).unwrap();
        assert_eq!(
            said,
            ["--busy-poll", "--interface=eth0=inside", "--interface=eth1", "--ports=443,8080", "--workers=2"]
        );
        let said = with(file, &["-i", "eth7", "--workers=4"]).unwrap();
        assert_eq!(said, ["--busy-poll", "--ports=443,8080", "-i", "eth7", "--workers=4"]);
    }

    #[test]
    fn the_file_is_named_where_it_is_to_blame() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.toml");
        std::fs::write(&path, "ports = \"99999\"\nworkers = 0").unwrap();
        let said = |args: &[&str]| {
            let mut typed: Vec<OsString> = vec!["syntap".into(), "run".into()];
            typed.extend(args.iter().map(OsString::from));
            typed.extend(["--config".into(), path.clone().into()]);
            super::super::given(&typed, &|path| std::fs::read(path)).unwrap_err().to_string()
        };
        let named = format!("(with {})", path.display());
        for (args, what, by_file) in [
            (&["-i", "eth0", "-w", "d", "--workers", "1"][..], "99999", true),
            (&["-i", "eth0", "-w", "d", "-p", "70000", "--workers", "1"], "70000", false),
            (&["-i", "eth0", "-w", "d", "-p", "80"], "--workers", true),
            (&["-i", "eth0", "-w", "d", "-p", "80", "--workers", "300"], "300", false),
            (&["-i", "eth0", "-p", "80", "--workers", "1"], "--write", true),
        ] {
            let text = said(args);
            assert!(text.contains(what) && text.contains(&named) == by_file, "{args:?}: {text}");
        }
    }

    #[test]
    fn what_is_no_option_or_no_value_is_named_with_the_way_out() {
        for (file, message, hint) in [
            ("intreface = \"eth0\"", "/f.toml: there is no option 'intreface'", "'interface' is one"),
            ("colour = \"red\"", "there is no option 'colour'", "syntap run --help"),
            ("config = \"more.toml\"", "there is no option 'config'", "hint: "),
            ("[run]\nworkers = 1", "there is no option 'run'", "hint: "),
            ("force = 1", "force is a number, not true or false", "force = true"),
            ("workers = [1, 2]", "workers is a list", "hint: "),
            ("workers = 1.5", "workers is a number with a point", "hint: "),
            ("ports = 80\nworkers = ", "/f.toml, line 2: ", "NAME = VALUE"),
            ("ports = 80\n= 1", "/f.toml, line 2: ", "NAME = VALUE"),
            ("ports = 80\n\nports = 81", "/f.toml, line 3: ", "NAME = VALUE"),
            ("ports = \"a\\n\\nb\"", "/f.toml: ports holds a control character", "on its line"),
            ("net = [\"::/0\", \"\\u001b[2J\"]", "/f.toml: net holds a control character", "on its line"),
            ("\"a\\n\\nb\" = 1", "there is no option 'a\u{fffd}\u{fffd}b'", "hint: "),
        ] {
            let said = with(file, &[]).expect_err(file);
            assert!(
                said.contains(message) && said.contains("\nhint: ") && said.contains(hint),
                "{file}: {said}"
            );
            assert_eq!(said.lines().count(), 2, "{said}");
        }
    }

    #[test]
    fn a_file_that_is_no_text_is_refused_with_the_line() {
        let typed: Vec<OsString> = ["syntap", "run", "--config", "f.toml"].map(OsString::from).into();
        let said =
            expanded(typed, &|_| Ok(b"ports = 80\nwrite = \"\xff\"".to_vec())).unwrap_err().to_string();
        assert!(said.starts_with("f.toml, line 2: ") && said.contains("\nhint: "), "{said}");
    }
}
