//! `syntap report`: what is wrong here, how often, since when, whose doing, what to do.

mod read;
mod text;

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::filter::Filter;
use super::pager::Page;
use super::text::Style;
use super::{Fail, note};
use crate::report::{html, json};

/// Arguments of `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    #[command(flatten)]
    filter: Filter,

    /// Leave out the example with its packets, and what the words mean.
    #[arg(long)]
    brief: bool,

    /// Print the whole report as one JSON object, for scripts.
    #[arg(long)]
    json: bool,

    /// Write it as one HTML page with plots into this file; it needs nothing else, and nothing from the network. `-` is standard
    /// output.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    html: Option<PathBuf>,

    /// Do not start $PAGER (or `less`) where standard output is a terminal.
    #[arg(long)]
    no_pager: bool,

    /// Directories of shards, or shards.
    #[arg(required = true, value_name = "DIR|SHARD")]
    paths: Vec<PathBuf>,
}

/// Runs it.
pub fn run(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    args.filter.makes_sense()?;
    let (report, read) = read::all(&args.paths, &args.filter)?;
    let since = read.paths.iter().filter_map(|p| begun(p)).min();
    if let Some(path) = &args.html {
        write_html(path, &html::page(&report, since.as_deref()))?;
        return Ok(read.exit_code());
    }
    let style = Style::of_stdout(io::stdout().is_terminal());
    let mut out = Page::new(!args.json && !args.no_pager);
    let printed = if args.json {
        serde_json::to_writer_pretty(&mut out, &json::of(&report, since.as_deref()))
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out))
    } else {
        text::print(&report, since, args.brief, &style, &mut out)
    };
    out.finish().and(printed)?;
    Ok(read.exit_code())
}

fn write_html(path: &Path, page: &str) -> anyhow::Result<()> {
    if path.as_os_str() == "-" {
        let mut out = io::stdout().lock();
        out.write_all(page.as_bytes())?;
        out.flush()?;
        return Ok(());
    }
    let failed = |e: io::Error| {
        Fail::new(format!("cannot write {}: {e}", path.display()))
            .hint("name a file in a directory that can be written to")
    };
    let mut file = File::create(path).map_err(failed)?;
    file.write_all(page.as_bytes()).map_err(failed)?;
    note(format!("the report is in {}", path.display()));
    Ok(())
}

/// When a shard was begun, from its name.
fn begun(shard: &Path) -> Option<String> {
    let name = shard.file_name()?.to_str()?.strip_suffix(".jsonl.zst")?;
    let mut parts = name.rsplit('-').skip(1);
    let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", parts.next()?).ok()?;
    Some(format!("{time}Z"))
}
