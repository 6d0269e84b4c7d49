//! A run that is watched: started, asked over HTTP, ended.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A started `syntap run`; killed where a test fails.
pub struct Running {
    pub child: Child,
    lines: Receiver<String>,
    pub said: Vec<String>,
}

impl Running {
    /// Starts it; what it says on standard error is gathered.
    pub fn start(command: &mut Command) -> Running {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let (tell, lines) = mpsc::channel();
        thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|l| tell.send(l)));
        Running { child, lines, said: Vec::new() }
    }

    /// Waits for a line that holds this, among those not waited for before, and gives it back.
    pub fn says(&mut self, part: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.unwrap_or_else(|_| panic!("it never said '{part}': {}", self.said.join("\n")));
            self.said.push(line.clone());
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Where its metrics are to be had.
    pub fn address(&mut self) -> SocketAddr {
        let line = self.says("metrics at http://");
        let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
        address.and_then(|a| a.parse().ok()).unwrap_or_else(|| panic!("{line}"))
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Ends it as an operator does; all that it said.
    pub fn end(mut self) -> String {
        kill(self.pid(), Signal::SIGTERM).expect("it runs");
        let status = self.child.wait().expect("it ends");
        self.said.extend(self.lines.iter());
        assert!(status.success(), "{}", self.said.join("\n"));
        self.said.join("\n")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A request, and all of its answer.
pub fn ask(stream: &mut (impl Read + Write), path: &str, accept: &str) -> String {
    let head = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: {accept}\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("it listens");
    let mut said = String::new();
    stream.read_to_string(&mut said).expect("an answer");
    said
}

/// The body of a successful answer, once set-up is done.
pub fn get(at: SocketAddr, path: &str, accept: &str) -> String {
    let mut body = String::new();
    until("there is something to show", || {
        let said = ask(&mut TcpStream::connect(at).expect("it listens"), path, accept);
        let (head, rest) = said.split_once("\r\n\r\n").expect("a head");
        if head.starts_with("HTTP/1.1 503 ") {
            return Err("it is being set up".into());
        }
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        body = rest.to_owned();
        Ok(())
    });
    body
}

/// Asks until the answer is as wanted.
pub fn until(what: &str, mut wanted: impl FnMut() -> Result<(), String>) {
    let end = Instant::now() + PATIENCE;
    loop {
        match wanted() {
            Ok(()) => return,
            Err(e) if Instant::now() > end => panic!("{what}: {e}"),
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// The sum of a page's samples of this name with all of these labels.
pub fn sample(page: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let labels: Vec<String> = labels.iter().map(|(n, v)| format!("{n}=\"{v}\"")).collect();
    let lines = page.lines().filter(|l| {
        l.split(['{', ' ']).next() == Some(name) && labels.iter().all(|label| l.contains(label.as_str()))
    });
    lines.map(|l| l.rsplit(' ').next().and_then(|v| v.parse::<f64>().ok()).unwrap_or(f64::NAN)).sum()
}

/// A program of Prometheus: installed, or where `tools/setup --test` puts it. Says so where there is none.
pub fn prometheus(program: &str) -> Option<PathBuf> {
    let own = super::root().join("target/prometheus/usr/bin").join(program);
    let found = [PathBuf::from("/usr/bin").join(program), own].into_iter().find(|p| p.exists());
    if found.is_none() {
        println!("skipped: there is no {program} (tools/setup --test brings it)");
    }
    found
}

/// Runs promtool over an input; what it says against it.
pub fn promtool(program: &PathBuf, args: &[&str], input: &str) -> Result<(), String> {
    let mut child = Command::new(program)
        .args(args)
        .current_dir(super::root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_owned();
    let writer = thread::spawn(move || {
        let _ = stdin.write_all(input.as_bytes());
    });
    let out = child.wait_with_output().expect("promtool ends");
    writer.join().expect("it is read");
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    // Advice on style is an error here, too.
    if out.status.success() && (args[0] != "check" || args[1] != "metrics" || said.trim().is_empty()) {
        Ok(())
    } else {
        Err(said)
    }
}
