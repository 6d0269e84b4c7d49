//! `syntap explain`: what an anomaly means.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::process::ExitCode;

use clap::Args;

use super::Fail;
use super::text::{Style, wrap};
use crate::detect::Kind;
use crate::detect::explain::explain;

/// Columns of running text: longer lines are hard to read, and 80 fit every terminal and ticket.
const COLUMNS: usize = 80;

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The kind, as records name it. Without one all kinds are listed.
    #[arg(value_name = "KIND")]
    kind: Option<String>,
}

/// Runs it.
pub fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let stdout = io::stdout();
    let style = Style::of_stdout(stdout.is_terminal());
    let mut out = BufWriter::new(stdout.lock());
    match &args.kind {
        None => {
            for &kind in Kind::ALL {
                let lines = wrap(explain(kind).one_line, style.width().saturating_sub(24));
                for (n, line) in lines.iter().enumerate() {
                    writeln!(out, "{:<23} {line}", if n == 0 { kind.name() } else { "" })?;
                }
            }
        }
        Some(name) => {
            let kind = Kind::from_name(name).ok_or_else(|| unknown(name))?;
            print(kind, &style, &mut out)?;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn print(kind: Kind, style: &Style, to: &mut dyn Write) -> io::Result<()> {
    let e = explain(kind);
    let width = style.width().min(COLUMNS);
    writeln!(to, "{}\n", style.bold(kind.name()))?;
    let paragraph = |to: &mut dyn Write, title: &str, text: &str| -> io::Result<()> {
        writeln!(to, "{}", style.bold(title))?;
        for line in wrap(text, width - 2) {
            writeln!(to, "  {line}")?;
        }
        writeln!(to)
    };
    paragraph(to, "What it means", &format!("{} {}", e.one_line, e.meaning))?;
    paragraph(to, "The rule", e.rule)?;
    for (title, list) in
        [("Usual causes", e.causes), ("What to do", e.remedy), ("What else it could be", e.or_else)]
    {
        writeln!(to, "{}", style.bold(title))?;
        for item in list {
            for (n, line) in wrap(item, width - 4).into_iter().enumerate() {
                writeln!(to, "  {} {line}", if n == 0 { "-" } else { " " })?;
            }
        }
        writeln!(to)?;
    }
    writeln!(to, "{}", style.bold("What others call it"))?;
    for line in wrap(e.peers, width - 2) {
        writeln!(to, "  {line}")?;
    }
    Ok(())
}

/// A hint at the kinds nearest to what was typed: the share of letter pairs that both have (Dice), best first.
pub(super) fn near(name: &str) -> String {
    const NEAR_PERCENT: usize = 25;
    let pairs = |s: &str| s.as_bytes().windows(2).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let typed = pairs(&name.to_ascii_lowercase().replace('-', "_"));
    let likeness = |kind: &str| {
        let own = pairs(kind);
        200 * own.iter().filter(|p| typed.contains(p)).count() / (own.len() + typed.len())
    };
    let mut near: Vec<(usize, &str)> = Kind::ALL.iter().map(|k| (likeness(k.name()), k.name())).collect();
    near.sort_by(|a, b| b.cmp(a));
    let best: Vec<&str> = near.iter().take(3).filter(|n| n.0 >= NEAR_PERCENT).map(|n| n.1).collect();
    if best.is_empty() {
        "`syntap explain` lists all kinds".to_owned()
    } else {
        format!("near: {}; `syntap explain` lists all kinds", best.join(", "))
    }
}

fn unknown(name: &str) -> Fail {
    Fail::new(format!("there is no kind '{name}'")).hint(near(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_fits_and_says_all_sections() {
        let style = Style::of_stdout(false);
        for &kind in Kind::ALL {
            let mut out = Vec::new();
            print(kind, &style, &mut out).expect("a vector takes it");
            let text = String::from_utf8(out).expect("text");
            for line in text.lines() {
                assert!(line.chars().count() <= COLUMNS, "{}: {line}", kind.name());
            }
            for title in
                ["What it means", "The rule", "Usual causes", "What to do", "What else", "What others"]
            {
                assert!(text.contains(title), "{}: {title}", kind.name());
            }
        }
    }

    #[test]
    fn near_names_are_hinted_and_nonsense_gets_the_list() {
        let said = |name| unknown(name).to_string();
        assert!(said("syn_refuse").contains("near: syn_refused"));
        assert!(said("Tuple-Reuse-Refused").contains("near: tuple_reuse_refused"));
        assert!(said("arp").contains("arp_two_answers"));
        assert!(!said("").contains("near:"));
        assert!(!said("zzz").contains("near:"));
    }
}
