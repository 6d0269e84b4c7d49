//! The command line program: parses, dispatches, turns errors into one line and an exit code.

use std::process::ExitCode;

use clap::Parser;
use syntap::cli::{self, Cli};

fn main() -> ExitCode {
    match cli::dispatch(Cli::parse()) {
        Ok(code) => code,
        Err(error) if cli::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("syntap: {error:#}");
            ExitCode::from(2)
        }
    }
}
