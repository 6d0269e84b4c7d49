//! `--config FILE`: options in a file, under their own names.
//!
//! What the file says becomes options in front of those that were typed, so that both mean the same and are checked alike. An option
//! that was typed counts alone: whatever the file says of it is passed over.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::{Arg, ArgAction, CommandFactory};
use toml::{Table, Value};

use super::{Cli, Fail};

/// No file of settings is nearly as long.
const LONGEST: u64 = 1 << 20;

/// The file that a command line names, and the place of that name among its words.
pub fn file_of(words: &[OsString]) -> Option<OsString> {
    let mut words = words.iter().skip(2).take_while(|w| *w != "--");
    while let Some(word) = words.next() {
        if word == "--config" {
            return words.next().cloned();
        }
        if let Some(file) = word.to_str().and_then(|w| w.strip_prefix("--config=")) {
            return Some(file.into());
        }
    }
    None
}

/// The command line with what its file says, if it is one of `run` and names one; else as it is.
pub fn expanded(words: Vec<OsString>) -> Result<Vec<OsString>, Fail> {
    let (Some(command), Some(file)) = (words.get(1).filter(|w| *w == "run"), file_of(&words)) else {
        return Ok(words);
    };
    let (command, typed) = (command.clone(), &words[2..]);
    let from_file = options(Path::new(&file), typed)?;
    let all = [words[0].clone(), command].into_iter().chain(from_file).chain(typed.iter().cloned());
    Ok(all.collect())
}

/// The options of a file, but for those that were typed.
fn options(path: &Path, typed: &[OsString]) -> Result<Vec<OsString>, Fail> {
    let name = path.display();
    let text = read(path)?;
    let table = text.parse::<Table>().map_err(|e| {
        let line = e.span().map_or(1, |s| text[..s.start.min(text.len())].lines().count().max(1));
        Fail::new(format!("{name}, line {line}: {}", e.message()))
            .hint("write NAME = VALUE, with the names of `syntap run --help`: ports = \"443,8080\"")
    })?;
    let cli = Cli::command();
    let run = cli.find_subcommand("run").expect("there is a command run");
    let known: Vec<&Arg> =
        run.get_arguments().filter(|a| a.get_long().is_some_and(|l| l != "config")).collect();
    let mut options = Vec::new();
    for (key, value) in &table {
        let Some(arg) = known.iter().find(|a| a.get_long() == Some(key)) else {
            return Err(unknown(path, key, &known));
        };
        if !typed.iter().any(|word| names(word, arg)) {
            options.extend(words_of(path, key, value, arg)?);
        }
    }
    Ok(options)
}

fn read(path: &Path) -> Result<String, Fail> {
    let cannot = |e: std::io::Error| {
        Fail::new(format!("cannot read {}: {e}", path.display()))
            .hint("--config names a file of options; leave it out to run with those of the command line")
    };
    let len = std::fs::metadata(path).map_err(cannot)?.len();
    if len > LONGEST {
        return Err(cannot(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "it is longer than a MiB")));
    }
    std::fs::read_to_string(path).map_err(cannot)
}

/// Whether a typed word is this option.
fn names(word: &OsStr, arg: &Arg) -> bool {
    let Some(word) = word.to_str() else { return false };
    let long = arg.get_long().unwrap_or("");
    let is_long = word.strip_prefix("--").is_some_and(|w| w.split('=').next() == Some(long));
    let is_short = arg.get_short().is_some_and(|s| {
        let mut letters = word.chars();
        letters.next() == Some('-') && letters.next() == Some(s)
    });
    is_long || is_short
}

fn unknown(path: &Path, key: &str, known: &[&Arg]) -> Fail {
    let all = known.iter().filter_map(|a| a.get_long());
    // One letter too many, too few, or another one; or an underscore for the dash.
    let near = |long: &&str| long.replace('-', "_") == key.replace('-', "_") || distance(long, key) <= 2;
    let fail = Fail::new(format!("{}: there is no option '{key}'", path.display()));
    match all.filter(near).min_by_key(|long| distance(long, key)) {
        Some(long) => fail.hint(format!("did you mean '{long}'?")),
        None => fail.hint("the names are those of `syntap run --help`, without the dashes in front"),
    }
}

/// How many letters differ (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut before = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let swap = before + usize::from(x != *y);
            before = row[j + 1];
            row[j + 1] = swap.min(before + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// An entry as words of a command line.
fn words_of(path: &Path, key: &str, value: &Value, arg: &Arg) -> Result<Vec<OsString>, Fail> {
    let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
    let wrong = |wanted: &str| {
        Err(Fail::new(format!("{}: '{key}' wants {wanted}", path.display()))
            .hint(format!("`syntap run --help` says what --{key} takes")))
    };
    if is_switch {
        return match value {
            Value::Boolean(true) => Ok(vec![format!("--{key}").into()]),
            Value::Boolean(false) => Ok(Vec::new()),
            _ => wrong("true or false"),
        };
    }
    let one = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(n) => Some(n.to_string()),
        Value::Float(n) => Some(n.to_string()),
        _ => None,
    };
    let values = match (value, arg.get_action()) {
        (Value::Array(list), ArgAction::Append) => list.iter().map(one).collect(),
        (Value::Array(_), _) => None,
        (value, _) => one(value).map(|v| vec![v]),
    };
    match values {
        Some(values) => Ok(values.into_iter().map(|v| format!("--{key}={v}").into()).collect()),
        None if matches!(arg.get_action(), ArgAction::Append) => wrong("a text, a number, or a list of them"),
        None => wrong("a text or a number"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(file: &str, typed: &[&str]) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("syntap.toml");
        std::fs::write(&path, file).unwrap();
        let words =
            ["syntap", "run", "--config", path.to_str().unwrap()].into_iter().chain(typed.iter().copied());
        let words = expanded(words.map(OsString::from).collect()).map_err(|e| e.to_string())?;
        Ok(words
            .into_iter()
            .skip(2)
            .map(|w| w.into_string().unwrap())
            .take_while(|w| w != "--config")
            .collect())
    }

    #[test]
    fn a_file_says_what_the_command_line_would() {
        let file = "# a comment\ninterface = [\"eth0=inside\", \"eth1=outside\"]\nports = \"443,8000-8100\"\nmax-flows = 4096\nbusy-poll = true\nforce = false\n";
        let words = with(file, &[]).unwrap();
        assert_eq!(
            words,
            [
                "--interface=eth0=inside",
                "--interface=eth1=outside",
                "--ports=443,8000-8100",
                "--max-flows=4096",
                "--busy-poll"
            ]
        );
        assert_eq!(
            with("ports = 443\nworkers = 2", &["-p", "80"]).unwrap(),
            ["--workers=2"],
            "what was typed counts"
        );
        assert_eq!(with("ports = 443\nworkers = 2", &["--ports=80", "--workers", "1"]).unwrap(), [""; 0]);
    }

    #[test]
    fn a_wrong_file_is_refused_with_the_place_and_the_way_out() {
        for (file, said, hint) in [
            ("ports = 443\nworkers 2", "line 2", "NAME = VALUE"),
            ("port = 443", "there is no option 'port'", "'ports'"),
            ("max_flows = 5", "there is no option 'max_flows'", "'max-flows'"),
            ("config = \"x\"", "there is no option 'config'", "without the dashes"),
            ("nonsense = 1", "there is no option 'nonsense'", "without the dashes"),
            ("force = 1", "'force' wants true or false", "--force"),
            ("workers = [1, 2]", "'workers' wants a text or a number", "--workers"),
            ("ports = { a = 1 }", "'ports' wants a text, a number, or a list", "--ports"),
        ] {
            let text = with(file, &[]).expect_err(file);
            let (first, rest) = text.split_once("\nhint: ").unwrap_or_else(|| panic!("{file}: {text}"));
            assert!(first.contains(said) && rest.contains(hint), "{file}: {text}");
        }
        let nowhere = ["syntap", "run", "--config=/no/such.toml"].map(OsString::from).to_vec();
        assert!(expanded(nowhere).unwrap_err().to_string().starts_with("cannot read /no/such.toml: "));
        let other = ["syntap", "show", "--config=/no/such.toml"].map(OsString::from).to_vec();
        assert_eq!(expanded(other.clone()).unwrap(), other, "only run has one");
    }
}
