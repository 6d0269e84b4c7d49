//! SIGHUP: what may change while a run goes on is read again from the file of `--config`.
//!
//! Ports, budgets and filters are taken over; for all else the run would have to begin anew, and that is said. A file that makes no sense
//! changes nothing.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::Args as _;

use super::budget::{self, BudgetArg};
use super::filter::{Choice, Filter};
use super::run::RunArgs;
use super::usage::{self, Given};
use super::{Command, Fail, config};
use crate::bpf::Budget;
use crate::capture::{PortSet, TapConfig, TapInterface};

/// What may change.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Ports that are followed.
    pub ports: PortSet,
    /// The budget of each tap point.
    pub budgets: Vec<Budget>,
    /// Records that are written.
    pub filter: Filter,
}

impl Settings {
    /// As options say, for these interfaces.
    pub fn of(
        ports: &[PortSet],
        budgets: &[BudgetArg],
        filter: &Choice,
        taps: &[TapInterface],
    ) -> Result<Settings, Fail> {
        let mut config = TapConfig { interfaces: taps.to_vec(), ..TapConfig::default() };
        budget::set(budgets, &mut config)?;
        let budgets = taps.iter().map(|t| config.budget_of(&t.name)).collect();
        Ok(Settings { ports: PortSet::union(ports), budgets, filter: filter.clone().into() })
    }
}

/// What was read again.
#[derive(Debug)]
pub struct Reloaded {
    /// To be taken over.
    pub settings: Settings,
    /// Options that have changed and cannot be taken over.
    pub others: Vec<String>,
}

/// The command line that the run was started with, and what it came to.
pub struct Reload {
    words: Vec<OsString>,
    options: BTreeMap<String, Vec<String>>,
}

impl Reload {
    /// Of this process, which has just read its file.
    pub fn of_process() -> Reload {
        let words: Vec<OsString> = std::env::args_os().collect();
        let options = config::expanded(words.clone(), &|path| std::fs::read(path));
        let options = options.map_or_else(|_| BTreeMap::new(), |all| self::options(&all));
        Reload { words, options }
    }

    /// Reads the file again.
    pub fn read(&mut self, taps: &[TapInterface]) -> Result<Reloaded, Fail> {
        if let Some(path) = config::named(&self.words) {
            std::fs::File::open(&path).map_err(|e| {
                Fail::new(format!("cannot read {}: {e}", path.display()))
                    .hint("put the file back, readable for the user of the run, and send SIGHUP again")
            })?;
        }
        let Given { cli, words } = usage::given(&self.words, &|path| std::fs::read(path))?;
        let Command::Run(RunArgs { ports, budget, filter, .. }) = &cli.command else {
            return Err(Fail::new("the command line is none of run"));
        };
        let settings = Settings::of(ports, budget, filter, taps)?;
        let now = options(&words);
        let both = self.options.keys().chain(now.keys());
        let mut others: Vec<String> = both.filter(|k| self.options.get(*k) != now.get(*k)).cloned().collect();
        others.sort();
        others.dedup();
        let taken = taken();
        others.retain(|k| !taken.contains(k));
        // Named once, not at each reload that follows.
        self.options = now;
        Ok(Reloaded { settings, others })
    }
}

/// Options that are taken over.
fn taken() -> Vec<String> {
    let filters = Choice::augment_args(clap::Command::new("run"));
    let filters = filters.get_arguments().filter_map(|a| a.get_long());
    ["ports", "budget"].into_iter().chain(filters).map(str::to_owned).collect()
}

/// What the words of a file say, option by option: they are all of the form that [`config::expanded`] makes.
fn options(words: &[OsString]) -> BTreeMap<String, Vec<String>> {
    let mut options: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for word in words.iter().filter_map(|w| w.to_str()?.strip_prefix("--")) {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        options.entry(name.to_owned()).or_default().push(value.to_owned());
    }
    options
}
