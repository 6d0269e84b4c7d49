//! Writes manual pages and completions into a directory, from the command line's own definition: for the package.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::Shell;

fn main() -> Result<(), Box<dyn Error>> {
    let to = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: manual DIR")?);
    let (man, completions) = (to.join("man"), to.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    // One page for the program, and one for each command.
    clap_mangen::generate_to(syntap::cli::Cli::command(), &man)?;
    let mut command = syntap::cli::Cli::command();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "syntap", &completions)?;
    }
    Ok(())
}
