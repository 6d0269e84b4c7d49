//! The command line program: parses, dispatches, turns errors into one line and an exit code.

use std::io::Write as _;
use std::process::ExitCode;

use syntap::cli;

fn main() -> ExitCode {
    match cli::parse().map_err(Into::into).and_then(cli::dispatch) {
        Ok(code) => code,
        Err(error) if cli::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr().lock(), "syntap: {}", cli::words(&error));
            ExitCode::from(2)
        }
    }
}
