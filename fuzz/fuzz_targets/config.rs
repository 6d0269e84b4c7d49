//! Any bytes for the file of `run --config`. A file that is accepted says the same once it is written anew, and no file outweighs
//! the command line. An error is one line that names a line of the file or an option, and a hint.
#![no_main]

use std::ffi::OsString;
use std::sync::LazyLock;

use clap::CommandFactory;
use libfuzzer_sys::fuzz_target;
use syntap::cli::{Cli, Fail, Given, given};

const FILE: &str = "f.toml";

static OPTIONS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let command = Cli::command();
    let run = command.find_subcommand("run").expect("there is this command");
    run.get_arguments().filter_map(|a| a.get_long().map(str::to_owned)).collect()
});

/// Between `syntap run` and the option that names the file.
fn read(typed: &[OsString], file: &[u8]) -> Result<Given, Fail> {
    let mut args: Vec<OsString> = vec!["syntap".into(), "run".into()];
    args.extend_from_slice(typed);
    args.extend(["--config".into(), FILE.into()]);
    given(&args, &|_| Ok(file.to_vec()))
}

/// What a file has become.
fn added(given: &Given) -> &[OsString] {
    &given.words[2..given.words.len() - 2]
}

/// The options as a file, each letter as its number.
fn written(words: &[OsString]) -> String {
    let mut options: Vec<(&str, Vec<String>)> = Vec::new();
    for word in words {
        let word = word.to_str().and_then(|w| w.strip_prefix("--")).expect("words of a file");
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        let text = |value: &str| {
            let letters: String = value.chars().map(|c| format!("\\U{:08X}", u32::from(c))).collect();
            format!("\"{letters}\"")
        };
        let value = value.map_or("true".into(), text);
        match options.last_mut().filter(|(last, _)| *last == name) {
            Some((_, values)) => values.push(value),
            None => options.push((name, vec![value])),
        }
    }
    let line = |(name, values): &(&str, Vec<String>)| match &values[..] {
        [one] => format!("{name} = {one}\n"),
        more => format!("{name} = [{}]\n", more.join(", ")),
    };
    options.iter().map(line).collect()
}

/// All that is known of a run before it looks at the machine.
fn meaning(given: &Given) -> String {
    let settings = given.cli.settings().map_err(|e| {
        check(&e);
        e.to_string()
    });
    format!("{:?} {settings:?}", given.cli)
}

fn check(e: &Fail) {
    let (text, hint) = (e.message(), e.way_out().unwrap_or_default());
    assert!(!text.is_empty() && !hint.is_empty(), "{text:?}, {hint:?}");
    assert!(!text.contains(char::is_control) && !hint.contains(char::is_control), "{text:?}, {hint:?}");
    let of_option = |o: &String| {
        text.contains(&format!("--{o}"))
            || text.starts_with(&format!("{FILE}: {o} "))
            || o == "interface" && text.contains(o)
    };
    let of_file = text.starts_with(&format!("{FILE}, line "))
        || text.starts_with(&format!("{FILE}: there is no option '"));
    assert!(of_file || OPTIONS.iter().any(of_option), "{text:?}");
}

fuzz_target!(|file: &[u8]| {
    // Without what every run needs, a file must have it all.
    let needed = ["-i", "lo", "-w", "d"].map(OsString::from);
    let (alone, helped) = (read(&[], file), read(&needed, file));
    for e in [&alone, &helped].into_iter().filter_map(|r| r.as_ref().err()) {
        check(e);
    }
    let helped = match (&alone, &helped) {
        (Ok(_), Err(e)) => panic!("more options make it worse: {e}"),
        (_, Err(_)) => return,
        (_, Ok(helped)) => helped,
    };
    // They outweigh the file's.
    let outweighed =
        |w: &OsString| ["--interface=", "--write="].iter().any(|o| w.to_string_lossy().starts_with(o));
    assert!(!added(helped).iter().any(outweighed));
    for (typed, given) in [(&[][..], alone.as_ref().ok()), (&needed, Some(helped))] {
        let Some(given) = given else { continue };
        let words = &added(given)[..added(given).len() - typed.len()];
        let again = read(typed, written(words).as_bytes()).expect("it reads what it wrote");
        assert_eq!(given.words, again.words);
        assert_eq!(meaning(given), meaning(&again));
    }
});
