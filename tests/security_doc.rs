//! `docs/security.md` tells of the program that there is: each system call, and tests that exist.

mod common;

use common::root;
use syntap::guard::calls::{self, Call};

fn document() -> String {
    std::fs::read_to_string(root().join("docs/security.md")).expect("docs/security.md")
}

/// The rows of a list, as they must be in the document.
fn table(list: &[Call]) -> String {
    let mut text = String::from("| call | if | what for |\n| --- | --- | --- |\n");
    for (n, call) in list.iter().enumerate() {
        // What is said of the call above, in words: rows are read one by one.
        let why = list[..=n].iter().rev().map(|c| c.why).find(|w| *w != "the same").unwrap_or(call.why);
        let when = call.when.to_string().replace('|', "\\|");
        let when = if when.is_empty() { String::new() } else { format!("`{when}`") };
        text.push_str(&format!("| `{}` | {when} | {why} |\n", call.name));
    }
    text
}

#[test]
#[cfg(target_arch = "x86_64")]
fn every_system_call_is_in_the_document_with_its_reason_and_no_other_is() {
    let document = document();
    for (name, list) in [
        ("running", calls::RUNNING),
        ("inline", calls::INLINE),
        ("never", calls::NEVER),
        ("helper", calls::HELPER),
    ] {
        let begin = format!("<!-- calls: {name} -->\n");
        let told = document.split_once(&begin).and_then(|(_, rest)| rest.split_once("<!-- end -->"));
        let told = told.map_or("", |(table, _)| table);
        let is = table(list);
        assert_eq!(
            told,
            is,
            "docs/security.md, between '{}' and '<!-- end -->'; it must be:\n{is}",
            begin.trim()
        );
    }
}

#[test]
fn every_test_that_the_document_names_exists() {
    let document = document().split_whitespace().collect::<Vec<_>>().join(" ");
    let mut named = 0;
    // A claim is followed by: `tests/file.rs`: `name`, or `src/file.rs`: `name`.
    for (at, _) in document.match_indices(".rs`: `") {
        let file = document[..at].rsplit('`').next().expect("a name");
        let test = document[at + ".rs`: `".len()..].split('`').next().expect("a name");
        let text = std::fs::read_to_string(root().join(format!("{file}.rs")));
        let text = text.unwrap_or_else(|e| panic!("{file}.rs is named: {e}"));
        assert!(
            text.contains(&format!("fn {test}(")) || text.contains(&format!("\"{test}\"")),
            "{file}.rs has no {test}"
        );
        named += 1;
    }
    assert!(named > 20, "the document names {named} tests");
}

#[test]
fn no_source_but_the_pagers_starts_a_program() {
    fn sources(dir: &std::path::Path, out: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
            let path = entry.path();
            if path.is_dir() {
                sources(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    assert!(files.len() > 50, "the test reads the sources");
    // Of `show`, at a terminal: it never runs beside a tap.
    for file in files.iter().filter(|f| !f.ends_with("cli/pager.rs")) {
        let text = std::fs::read_to_string(file).expect("a source file");
        // The parser of options has a type of that name.
        let code = text.split("#[cfg(test)]").next().unwrap_or("").replace("clap::Command::new", "");
        for word in [
            "process::Command",
            "Command::new",
            "libc::exec",
            "unistd::exec",
            "libc::system",
            "posix_spawn",
            "popen",
        ] {
            assert!(!code.contains(word), "{}: {word}", file.display());
        }
    }
}
