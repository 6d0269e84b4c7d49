//! `syntap top`: a running tap, live. It asks the tap's own metrics listener each second, and draws what changed.
//!
//! Whatever happens, the terminal is given back as it was: at a key, a signal, an error, and in a panic.

mod ask;
mod draw;
mod figures;

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::{Fail, metrics};
use crate::telemetry::View;
use ask::Place;
use draw::Palette;
use figures::Figures;

/// How often it is looked for a key or a signal.
const KEY_WAIT: Duration = Duration::from_millis(100);

/// So long after a signal the program is over, whatever it does.
const LEAVE_WITHIN: Duration = Duration::from_millis(500);

/// Arguments of `top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Where the run shows its metrics: what its --metrics says, an address, a port of this machine, or the path of a socket.
    #[arg(value_name = "ADDR|SOCKET", default_value = metrics::DEFAULT, value_parser = ask::place)]
    at: Place,

    /// Seconds between looks. The tap itself counts anew each second.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
}

/// Runs it.
pub fn run(args: &TopArgs) -> anyhow::Result<ExitCode> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(Fail::new("syntap top draws on a terminal, and there is none")
            .hint("metrics are for scripts: curl http://ADDR/metrics, or /live for JSON")
            .into());
    }
    // What is wrong at once is said on a terminal that is as it was.
    let first = ask::ask(&args.at)?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, stop.clone()).context("cannot catch signals")?;
    }
    let looks = looks(args.at.clone(), Duration::from_secs(args.interval))?;
    let mut figures = Figures::new(first);
    leave_on_time(stop.clone())?;
    // Enters the other screen, and sees to it that a panic leaves it before it speaks.
    let mut terminal = ratatui::try_init().context("cannot set up the terminal")?;
    let shown = show(&mut terminal, &mut figures, &looks, &stop);
    let restored = ratatui::try_restore().context("cannot give the terminal back");
    shown.and(restored)?;
    Ok(ExitCode::SUCCESS)
}

/// Sees to it that a signal, or a terminal that is gone, ends the program even where its main thread cannot: the library that reads keys
/// reads for ever from a terminal that has hung up.
fn leave_on_time(stop: Arc<AtomicBool>) -> anyhow::Result<()> {
    let thread = std::thread::Builder::new().name("syntap-leave".into());
    thread
        .spawn(move || {
            let mut since = None;
            while since.is_none_or(|s: Instant| s.elapsed() < LEAVE_WITHIN) {
                std::thread::sleep(KEY_WAIT);
                let stdin = io::stdin();
                // Asked for nothing, it tells of a hang-up.
                let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::empty())];
                if poll(&mut fds, PollTimeout::ZERO).is_ok() && fds[0].any() == Some(true) {
                    stop.store(true, Ordering::Relaxed);
                }
                if stop.load(Ordering::Relaxed) {
                    since.get_or_insert_with(Instant::now);
                }
            }
            ratatui::restore();
            std::process::exit(0);
        })
        .context("cannot start a thread")?;
    Ok(())
}

/// Looks again and again, on a thread of its own: a tap that does not answer keeps nobody from quitting.
fn looks(at: Place, every: Duration) -> anyhow::Result<Receiver<Result<View, String>>> {
    let (tell, looks) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("syntap-ask".into());
    thread
        .spawn(move || {
            let mut next = Instant::now() + every;
            loop {
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
                // What was late once is not made up for.
                next = (next + every).max(Instant::now());
                let look = ask::ask(&at).map_err(|fail| fail.message().to_owned());
                if tell.send(look).is_err() {
                    return;
                }
            }
        })
        .context("cannot start a thread")?;
    Ok(looks)
}

fn show(
    terminal: &mut ratatui::DefaultTerminal,
    figures: &mut Figures,
    looks: &Receiver<Result<View, String>>,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let palette = Palette::from_env();
    let mut paused = false;
    let mut drawn = false;
    while !stop.load(Ordering::Relaxed) {
        while let Ok(look) = looks.try_recv() {
            if !paused {
                figures.look(look);
                drawn = false;
            }
        }
        if !drawn {
            // A mistake in here must not cost anybody his terminal: this is how the tests make one.
            #[cfg(debug_assertions)]
            assert!(std::env::var_os("SYNTAP_TEST_PANIC").is_none(), "asked to panic");
            terminal.draw(|frame| draw::draw(frame, figures, &palette, paused)).context("cannot draw")?;
            drawn = true;
        }
        let asked = event::poll(KEY_WAIT);
        // A signal is no error.
        if asked.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::Interrupted) || !asked? {
            continue;
        }
        match event::read()? {
            Event::Key(key) if key.kind == KeyEventKind::Press => match key.code {
                KeyCode::Char('q' | 'Q') | KeyCode::Esc => return Ok(()),
                KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(()),
                KeyCode::Char('p' | ' ') => {
                    paused = !paused;
                    drawn = false;
                }
                // Whatever has scribbled over the screen.
                KeyCode::Char('l') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                    terminal.clear()?;
                    drawn = false;
                }
                _ => {}
            },
            Event::Resize(..) => drawn = false,
            _ => {}
        }
    }
    Ok(())
}
