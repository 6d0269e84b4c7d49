//! `syntap top` on a real terminal (tmux) over a real tap: what it draws, and that it gives the terminal back however it ends.

mod common;
mod net;

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use common::syntap;
use common::watched::{Running, until};
use net::tap::{ping, serve};
use net::{NEAR_IP, Wire, skip};

/// A terminal with a shell in it.
struct Terminal {
    name: String,
}

impl Terminal {
    /// `None`, said aloud, where there is no tmux.
    fn new(width: u16, height: u16) -> Option<Terminal> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if Command::new("tmux").arg("-V").output().is_err() {
            println!("skipped: there is no tmux (tools/setup --test brings it)");
            return None;
        }
        clean_up_after_the_dead();
        let name = format!("syntest-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let terminal = Terminal { name };
        let (width, height) = (width.to_string(), height.to_string());
        // A shell whose prompt and history are nobody's.
        let shell = "env -i PATH=$PATH TERM=$TERM PS1='ready> ' sh";
        terminal.tmux(&["new-session", "-d", "-x", &width, "-y", &height, shell]);
        terminal.shows("a prompt", |screen| screen.contains("ready>"));
        Some(terminal)
    }

    /// tmux with a server of its own: nobody else's sessions are touched.
    fn tmux(&self, args: &[&str]) -> String {
        let out =
            Command::new("tmux").args(["-L", &self.name, "-f", "/dev/null"]).args(args).output().unwrap();
        assert!(out.status.success(), "tmux {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    fn types(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    fn shows(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        until(what, || {
            last = self.screen();
            if wanted(&last) { Ok(()) } else { Err(format!("\n{last}")) }
        });
        last
    }

    /// What the shell is running.
    fn child(&self) -> String {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"]);
        net::sh(&format!("ps -o pid= --ppid {}", shell.trim())).trim().to_owned()
    }

    /// Starts `syntap top` from the shell; the shell says how it ended.
    fn top(&self, environment: &str, at: SocketAddr) {
        let program = env!("CARGO_BIN_EXE_syntap");
        self.types(&[
            &format!("clear; echo before; {environment} {program} top {at}; echo status $?"),
            "Enter",
        ]);
        self.shows("top", |screen| screen.contains("q quit") && screen.contains("INTERFACE"));
    }

    /// The shell is back on its own screen, with what was on it before, and reads lines as ever.
    fn is_given_back(&self, status: &str) {
        let screen = self.shows("the shell", |s| s.contains("status ") && !s.contains("q quit"));
        assert!(screen.contains("before\n") && screen.contains(&format!("status {status}")), "{screen}");
        self.types(&["echo $((40 + 2)) again", "Enter"]);
        let screen = self.shows("an echo", |s| s.contains("42 again"));
        assert!(screen.contains("echo $((40 + 2)) again"), "what is typed is seen: {screen}");
        let modes = self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag} #{mouse_any_flag}"]);
        assert_eq!(modes.trim(), "0 1 0", "no other screen, a cursor, no mouse");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        end(&self.name);
    }
}

/// Where tmux has its sockets.
fn sockets() -> PathBuf {
    let dir = std::env::var("TMUX_TMPDIR").unwrap_or_else(|_| "/tmp".into());
    Path::new(&dir).join(format!("tmux-{}", nix::unistd::getuid()))
}

/// Ends a server, and takes its socket away.
fn end(name: &str) {
    let _ = Command::new("tmux").args(["-L", name, "kill-server"]).output();
    let _ = fs::remove_file(sockets().join(name));
}

/// Ends the terminals of tests that died.
fn clean_up_after_the_dead() {
    let all = fs::read_dir(sockets()).into_iter().flatten().flatten();
    for name in all.filter_map(|e| e.file_name().into_string().ok()) {
        let pid = name.strip_prefix("syntest-").and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            end(&name);
        }
    }
}

/// A wire, a tap on it, and where it shows itself.
fn tap(dir: &tempfile::TempDir) -> (Wire, Running, SocketAddr) {
    let wire = Wire::new();
    let mut command = syntap();
    command
        .args(["run", "--user", "root", "--netns", &wire.near.name, "-i", "near=inside", "-p", "8080", "-w"])
        .arg(dir.path());
    command.args(["--max-flows", "4096", "--status", "0", "--metrics", "127.0.0.1:0"]);
    let mut run = Running::start(&mut command);
    let at = run.address();
    run.says("records go to");
    (wire, run, at)
}

#[test]
fn it_shows_connections_and_anomalies_as_they_come_and_at_any_size() {
    if skip("top") {
        return;
    }
    let Some(terminal) = Terminal::new(80, 24) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (wire, run, at) = tap(&dir);
    terminal.top("NO_COLOR=", at);
    let address = format!("{NEAR_IP}:8080");
    serve(&wire.near, &address, 20, || {
        wire.far.run(|| {
            for _ in 0..20 {
                ping(&address);
            }
        });
    });
    assert!(wire.far.run(|| TcpStream::connect((NEAR_IP, 8080)).is_err()), "nobody listens there any more");
    let screen = terminal.shows("what happened", |s| s.contains("syn_refused") && s.contains("SYN-ACK 1 "));
    let lines: Vec<&str> = screen.lines().collect();
    assert!(lines[0].starts_with("syntap on ") && lines[0].contains(" ports 8080"), "{screen}");
    assert!(
        lines.iter().any(|l| l.starts_with("near") && l.contains("inside") && l.contains("up")),
        "{screen}"
    );
    assert!(screen.contains("dropped 0 missed 0") && screen.contains("TAP cpu "), "{screen}");
    assert!(lines.iter().all(|l| l.chars().count() <= 80), "{screen}");
    assert!(terminal.tmux(&["capture-pane", "-p", "-e"]).contains("\x1b[3"), "it has colours");

    terminal.tmux(&["resize-window", "-x", "40", "-y", "12"]);
    let screen = terminal
        .shows("a small screen", |s| s.lines().all(|l| l.chars().count() <= 40) && s.contains("q quit"));
    assert!(screen.starts_with("syntap on ") && screen.contains("ANOMALIES"), "{screen}");
    terminal.tmux(&["resize-window", "-x", "132", "-y", "50"]);
    terminal.shows("a large screen", |s| s.lines().count() >= 50 && s.contains("q quit"));
    terminal.types(&["p"]);
    terminal.shows("a pause", |s| s.contains(" paused "));
    terminal.types(&["p"]);
    terminal.shows("its end", |s| !s.contains(" paused "));

    // The tap goes; top stays, and says so.
    run.end();
    terminal.shows("that the tap is gone", |s| s.contains("no syntap answers at"));
    terminal.types(&["q"]);
    terminal.is_given_back("0");
}

#[test]
fn it_has_no_colours_if_none_are_wanted_and_gives_the_terminal_back_however_it_ends() {
    if skip("top") {
        return;
    }
    let Some(terminal) = Terminal::new(80, 24) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (_wire, run, at) = tap(&dir);
    terminal.top("NO_COLOR=1", at);
    let codes = terminal.tmux(&["capture-pane", "-p", "-e"]);
    let colours = (30..38)
        .chain(90..98)
        .any(|n| codes.contains(&format!("\x1b[{n}m")) || codes.contains(&format!(";{n}m")));
    assert!(!colours && !codes.contains("38;"), "{codes:?}");
    terminal.types(&["C-c"]);
    terminal.is_given_back("0");

    for signal in ["TERM", "INT", "HUP"] {
        terminal.top("", at);
        net::sh(&format!("kill -{signal} {}", terminal.child()));
        terminal.is_given_back("0");
    }

    terminal.types(&[
        &format!(
            "clear; echo before; SYNTAP_TEST_PANIC=1 {} top {at}; echo status $?",
            env!("CARGO_BIN_EXE_syntap")
        ),
        "Enter",
    ]);
    let screen = terminal.shows("a panic", |s| s.contains("status 101"));
    assert!(screen.contains("asked to panic"), "{screen}");
    terminal.is_given_back("101");

    // The terminal goes: nothing is left that runs for nobody.
    terminal.top("", at);
    let pid = terminal.child();
    drop(terminal);
    until("its end", || {
        if fs::exists(format!("/proc/{pid}")).unwrap_or(true) { Err(format!("{pid} runs")) } else { Ok(()) }
    });
    run.end();
}

#[test]
fn without_a_tap_or_a_terminal_it_says_so() {
    // A port that nobody listens on any more.
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).unwrap();
    let out = syntap().args(["top", &free.to_string()]).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(said.contains("draws on a terminal") && said.contains("\nhint: "), "{said}");
    let Some(terminal) = Terminal::new(100, 24) else { return };
    terminal.types(&[&format!("{} top {free}; echo status $?", env!("CARGO_BIN_EXE_syntap")), "Enter"]);
    let screen = terminal.shows("an error", |s| s.contains("status 2"));
    assert!(
        screen.contains(&format!("no syntap answers at {free}")) && screen.contains("hint: "),
        "{screen}"
    );
    terminal.types(&[
        &format!("{} top /no/such.sock; echo status $((1 + 1))", env!("CARGO_BIN_EXE_syntap")),
        "Enter",
    ]);
    terminal.shows("an error of a socket", |s| s.contains("no syntap answers at /no/such.sock"));
}
