//! Standard output for a person: through a pager where it is a terminal.

use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::note;

/// What the pager is told unless the person told it otherwise: colours, no more than is needed of the screen, and to end by itself
/// where all fits on it.
const LESS: &str = "FRX";

/// Where text goes.
pub enum Page {
    /// Into a pager.
    Paged(Child, BufWriter<std::process::ChildStdin>),
    /// To standard output as it is.
    Plain(BufWriter<io::Stdout>),
}

impl Page {
    /// Standard output, through `$PAGER` or `less` if it is a terminal and paging is wanted.
    pub fn new(paging: bool) -> Page {
        let plain = || Page::Plain(BufWriter::new(io::stdout()));
        if !paging || !io::stdout().is_terminal() || std::env::var("TERM").is_ok_and(|t| t == "dumb") {
            return plain();
        }
        let pager = std::env::var("PAGER").unwrap_or_else(|_| "less".into());
        if pager.trim().is_empty() || pager.trim() == "cat" {
            return plain();
        }
        let mut command = Command::new("sh");
        command.args(["-c", &pager]).stdin(Stdio::piped());
        if std::env::var_os("LESS").is_none() {
            command.env("LESS", LESS);
        }
        match command.spawn().map(|mut child| (child.stdin.take(), child)) {
            Ok((Some(stdin), child)) => {
                // Ctrl-C is for the pager; this program ends when nobody reads any more.
                let _ = signal_hook::flag::register(
                    signal_hook::consts::SIGINT,
                    Arc::new(AtomicBool::new(false)),
                );
                Page::Paged(child, BufWriter::new(stdin))
            }
            Ok((None, _)) => plain(),
            Err(e) => {
                note(format!("going on without a pager: {e}"));
                plain()
            }
        }
    }

    /// Writes the rest, and waits until the person has read it.
    pub fn finish(self) -> io::Result<()> {
        match self {
            Page::Plain(mut out) => out.flush(),
            Page::Paged(mut child, mut out) => {
                let written = out.flush();
                // Its input ends, or a pager would wait for more.
                drop(out.into_parts());
                child.wait()?;
                written
            }
        }
    }
}

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Page::Paged(_, out) => out.write(bytes),
            Page::Plain(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Page::Paged(_, out) => out.flush(),
            Page::Plain(out) => out.flush(),
        }
    }
}
