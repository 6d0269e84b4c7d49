//! Standard output for a person: through a pager where it is a terminal.

use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What the pager is told unless the person told it otherwise: colours, no more than is needed of the screen, and to end by itself
/// where all fits on it.
const LESS: &str = "FRX";

/// Where text goes.
pub enum Page {
    /// Into a pager.
    Paged(Child, BufWriter<ChildStdin>),
    /// To standard output as it is.
    Plain(BufWriter<io::Stdout>),
}

impl Page {
    /// Standard output, through `$PAGER` or else `less` if it is a terminal and paging is wanted. Nobody needs to have `less`.
    pub fn new(paging: bool) -> Page {
        let paging = paging && io::stdout().is_terminal() && std::env::var("TERM").is_ok_and(|t| t != "dumb");
        let child = if paging {
            pager().and_then(|mut command| command.stdin(Stdio::piped()).spawn().ok())
        } else {
            None
        };
        match child.map(|mut child| (child.stdin.take(), child)) {
            Some((Some(stdin), child)) => {
                // Ctrl-C is for the pager; this program ends when nobody reads any more.
                let ignored = Arc::new(AtomicBool::new(false));
                let _ = signal_hook::flag::register(signal_hook::consts::SIGINT, ignored);
                Page::Paged(child, BufWriter::new(stdin))
            }
            _ => Page::Plain(BufWriter::new(io::stdout())),
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
                match child.wait()?.code() {
                    // The shell's word.
                    Some(126 | 127) => {
                        Err(io::Error::other("$PAGER cannot be started; --no-pager goes without"))
                    }
                    _ => written,
                }
            }
        }
    }
}

/// The pager; `None` if none is wanted.
fn pager() -> Option<Command> {
    let mut command = match std::env::var("PAGER") {
        Ok(own) if matches!(own.trim(), "" | "cat") => return None,
        Ok(own) => {
            let mut shell = Command::new("sh");
            shell.args(["-c", &own]);
            shell
        }
        Err(_) => Command::new("less"),
    };
    if std::env::var_os("LESS").is_none() {
        command.env("LESS", LESS);
    }
    Some(command)
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
