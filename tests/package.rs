//! What the package's files say is what the program knows.

mod common;

use std::collections::BTreeSet;
use std::process::Command;

use clap::CommandFactory;
use common::{root, syntap};

fn packaged(file: &str) -> String {
    std::fs::read_to_string(root().join("packaging").join(file)).expect("a file of the package")
}

/// The options of `run` that a configuration file can have, but for those that are not told of.
fn options() -> BTreeSet<String> {
    let command = syntap::cli::Cli::command();
    let run = command.find_subcommand("run").expect("there is run");
    let told = run.get_arguments().filter(|a| !a.is_hide_set());
    let longs = told.filter_map(|a| a.get_long().map(str::to_owned));
    longs.filter(|l| !matches!(l.as_str(), "config" | "help")).collect()
}

/// Options in the default configuration, set or shown, as `NAME = VALUE`.
fn shown() -> Vec<String> {
    let text = packaged("syntap.toml");
    let lines = text.lines().map(|l| l.strip_prefix('#').unwrap_or(l));
    lines
        .filter(|l| l.split_once(" = ").is_some_and(|(name, _)| !name.contains(' ')))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_default_configuration_has_every_option_of_run_and_no_other() {
    let names: Vec<String> =
        shown().iter().map(|l| l.split(" = ").next().expect("a name").to_owned()).collect();
    let each: BTreeSet<String> = names.iter().cloned().collect();
    assert_eq!(each.len(), names.len(), "each once: {names:?}");
    assert_eq!(each, options());
    // Each with words before it.
    for (line, before) in packaged("syntap.toml").lines().skip(1).zip(packaged("syntap.toml").lines()) {
        if shown().iter().any(|s| line.strip_prefix('#').unwrap_or(line) == s) {
            assert!(before.starts_with("# "), "{line} is explained");
        }
    }
}

#[test]
fn every_line_of_the_default_configuration_is_taken_if_it_is_meant() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("syntap.toml");
    // In a file of its own each, with what a run must have: it gets as far as to look for its directory, which is not there.
    for line in shown() {
        let needed = ["interface = \"eth0\"", "write = \"/nonexistent/records\"", "sandbox = \"auto\""];
        let name = |l: &str| l.split(" = ").next().expect("a name").to_owned();
        // A user and a namespace are those of another machine.
        if ["user", "netns"].contains(&name(&line).as_str()) {
            continue;
        }
        let line = if name(&line) == "write" { needed[1] } else { &line };
        let rest = needed.iter().copied().filter(|n| name(n) != name(line));
        let text: Vec<&str> = rest.chain([line]).collect();
        std::fs::write(&file, text.join("\n")).expect("written");
        let out = syntap().args(["run", "--config"]).arg(&file).output().expect("it starts");
        let said = String::from_utf8_lossy(&out.stderr);
        let found = ["cannot write records into /nonexistent", "to become", "MiB are available"]
            .iter()
            .any(|w| said.contains(w));
        assert!(out.status.code() == Some(2) && found, "{line}: {said}");
    }
}

#[test]
fn what_a_configuration_file_gets_wrong_is_said_with_its_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("f.toml");
    let said = |text: &str| {
        std::fs::write(&file, text).expect("written");
        let out = syntap().args(["run", "--config"]).arg(&file).output().expect("it starts");
        assert_eq!(out.status.code(), Some(2));
        String::from_utf8_lossy(&out.stderr).into_owned()
    };
    for (text, message, hint) in [
        ("interfce = \"eth0\"", "there is no option 'interfce'", "hint: 'interface' is one"),
        ("interface = \"eth0\"\nwrite = \".\"\nports = \"http\"", "'--ports", "hint: "),
        ("interface = \"eth0\"", "--write <DIR>", "hint: "),
    ] {
        let said = said(text);
        assert!(said.contains(message) && said.contains("f.toml") && said.contains(hint), "{text}: {said}");
    }
    let out = syntap().args(["run", "--config", "/nonexistent.toml"]).output().expect("it starts");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("cannot read /nonexistent.toml") && said.contains("hint: "), "{said}");
}

#[test]
fn the_unit_gives_what_the_document_says_that_a_tap_needs() {
    let unit = packaged("syntap.service");
    let set = |name: &str| {
        let line = unit.lines().find_map(|l| l.strip_prefix(name)).expect("it is set");
        line.split_whitespace().map(str::to_owned).collect::<BTreeSet<String>>()
    };
    let given = set("AmbientCapabilities=");
    assert_eq!(given, set("CapabilityBoundingSet="));
    let document = std::fs::read_to_string(root().join("docs/security.md")).expect("docs/security.md");
    let rows = document.lines().filter(|l| l.contains("| every tap |"));
    let needed: BTreeSet<String> = rows.filter_map(|l| Some(l.split('`').nth(1)?.to_owned())).collect();
    assert_eq!(given, needed, "for inline interfaces");
    assert!(unit.contains("ExecStart=/usr/bin/syntap run --config /etc/syntap/syntap.toml\n"));
}

#[test]
fn the_units_exposure_is_what_the_document_says() {
    let unit = root().join("packaging/syntap.service");
    let Ok(out) = Command::new("systemd-analyze").args(["security", "--offline=true"]).arg(unit).output()
    else {
        return println!("skipped: no systemd-analyze");
    };
    let said = String::from_utf8_lossy(&out.stdout);
    let Some(score) = said.split("Overall exposure level for syntap.service: ").nth(1) else {
        return println!("skipped: this systemd-analyze tells no exposure offline");
    };
    let score: f64 = score.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number");
    assert!(score <= 2.0, "more is exposed than docs/operations.md says: {score}");
}
