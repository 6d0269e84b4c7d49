//! A run under a service manager: what it is told, and that its watchdog is fed only while all threads go on.

mod common;
mod net;

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::syntap;
use common::watched::{PATIENCE, Running, get, sample, until};
use net::{Wire, skip};

/// The manager's end of the socket.
struct Manager {
    socket: UnixDatagram,
    told: Vec<String>,
}

impl Manager {
    fn new(socket: UnixDatagram) -> Manager {
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        Manager { socket, told: Vec::new() }
    }

    /// All that came until now.
    fn read(&mut self) {
        let mut bytes = [0; 4096];
        while let Ok(n) = self.socket.recv(&mut bytes) {
            self.told.push(String::from_utf8_lossy(&bytes[..n]).into_owned());
        }
    }

    fn count(&self, start: &str) -> usize {
        self.told.iter().filter(|t| t.starts_with(start)).count()
    }

    /// Reads until so many of this sort came.
    fn is_told(&mut self, start: &str, times: usize) {
        let until = Instant::now() + PATIENCE;
        while self.count(start) < times {
            assert!(Instant::now() < until, "no {times} {start} in {:?}", self.told);
            self.read();
        }
    }
}

fn tap(wire: &Wire, dir: &tempfile::TempDir, socket: &str, watchdog_us: &str) -> Command {
    let mut command = syntap();
    command.args([
        "run",
        "--user",
        "root",
        "--netns",
        &wire.near.name,
        "-i",
        "near",
        "-p",
        "8080",
        "--status",
        "1",
        "-w",
    ]);
    command.arg(dir.path()).args(["--max-flows", "4096"]);
    command.env("NOTIFY_SOCKET", socket).env("WATCHDOG_USEC", watchdog_us);
    command
}

#[test]
fn the_manager_is_told_of_ready_status_life_and_end() {
    if skip("service") {
        return;
    }
    let (wire, dir) = (Wire::new(), tempfile::tempdir().unwrap());
    let path = dir.path().join("notify");
    let mut manager = Manager::new(UnixDatagram::bind(&path).unwrap());
    let mut run = Running::start(&mut tap(&wire, &dir, path.to_str().unwrap(), "20000000"));
    manager.is_told("READY=1", 1);
    assert!(manager.told.iter().position(|t| t == "READY=1") <= Some(1), "{:?}", manager.told);
    manager.is_told("STATUS=", 1);
    assert!(manager.told.iter().any(|t| t == "STATUS=follows ports 8080 on near"), "{:?}", manager.told);
    manager.is_told("STATUS=", 3);
    manager.is_told("WATCHDOG=1", 1);
    let line = run.says("handshakes 0");
    assert!(
        manager.told.iter().any(|t| t.strip_prefix("STATUS=") == Some(&line)),
        "{line}: {:?}",
        manager.told
    );
    run.end();
    manager.read();
    assert_eq!(manager.told.last().map(String::as_str), Some("STOPPING=1"), "{:?}", manager.told);
    assert_eq!(manager.count("READY=1"), 1);
}

#[test]
fn an_abstract_socket_will_do_and_one_that_nobody_reads_stops_nothing() {
    if skip("service") {
        return;
    }
    let (wire, dir) = (Wire::new(), tempfile::tempdir().unwrap());
    let name = format!("syntest-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let mut manager = Manager::new(UnixDatagram::bind_addr(&address).unwrap());
    let run = Running::start(&mut tap(&wire, &dir, &format!("@{name}"), "0"));
    manager.is_told("READY=1", 1);
    manager.is_told("STATUS=", 2);
    assert_eq!(manager.count("WATCHDOG"), 0, "none was asked for");
    drop(manager);
    thread::sleep(Duration::from_millis(1_500));
    run.end();
}

/// A thread that does not run: held by a tracer, alone of its process.
struct Held(nix::unistd::Pid);

impl Held {
    fn hold(pid: u32, name: &str) -> Held {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        let of_name = |t: &std::fs::DirEntry| {
            std::fs::read_to_string(t.path().join("comm")).is_ok_and(|c| c.trim() == name)
        };
        let task = tasks.into_iter().find(of_name).unwrap_or_else(|| panic!("no thread {name}"));
        let tid: i32 = task.file_name().to_str().unwrap().parse().unwrap();
        // SAFETY: plain system calls on a thread of this test's own child, without pointers.
        unsafe {
            assert_eq!(libc::ptrace(libc::PTRACE_SEIZE, tid, 0, 0), 0, "{}", std::io::Error::last_os_error());
            assert_eq!(libc::ptrace(libc::PTRACE_INTERRUPT, tid, 0, 0), 0);
            assert_eq!(libc::waitpid(tid, std::ptr::null_mut(), libc::__WALL), tid);
        }
        Held(nix::unistd::Pid::from_raw(tid))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0.as_raw(), 0, 0) };
    }
}

#[test]
fn a_thread_that_hangs_starves_the_watchdog_and_one_that_comes_back_feeds_it() {
    if skip("service") {
        return;
    }
    let (wire, dir) = (Wire::new(), tempfile::tempdir().unwrap());
    let path = dir.path().join("notify");
    let mut manager = Manager::new(UnixDatagram::bind(&path).unwrap());
    let run = Running::start(&mut tap(&wire, &dir, path.to_str().unwrap(), "8000000"));
    for thread in ["syntap-w0", "syntap-writer"] {
        let fed = manager.count("WATCHDOG=1");
        manager.is_told("WATCHDOG=1", fed + 2);
        let held = Held::hold(run.child.id(), thread);
        // Half of the watchdog's time, and what was on its way.
        let told = manager.count("STATUS=");
        manager.is_told("STATUS=", told + 6);
        let (fed, told) = (manager.count("WATCHDOG=1"), manager.count("STATUS="));
        manager.is_told("STATUS=", told + 5);
        assert_eq!(manager.count("WATCHDOG=1"), fed, "{thread} does not move, and the watchdog is fed");
        drop(held);
        manager.is_told("WATCHDOG=1", fed + 2);
    }
    run.end();
}

#[test]
fn an_interface_that_flaps_is_spoken_of_a_few_times_and_then_with_a_count() {
    if skip("flapping") {
        return;
    }
    let (wire, dir) = (Wire::new(), tempfile::tempdir().unwrap());
    let mut command = syntap();
    command.args(["run", "--user", "root", "--netns", &wire.near.name, "-i", "near", "-w"]).arg(dir.path());
    let mut run = Running::start(command.args(["--max-flows", "4096", "--metrics", "127.0.0.1:0"]));
    let at = run.address();
    run.says("records go to");
    let is_up = |up: f64| {
        wire.far.ip(if up > 0.0 { "link set far up" } else { "link set far down" });
        until("it is noticed", || match sample(&get(at, "/metrics", "*/*"), "syntap_interface_up", &[]) {
            n if n == up => Ok(()),
            n => Err(n.to_string()),
        });
    };
    for _ in 0..6 {
        is_up(0.0);
        is_up(1.0);
    }
    let said = run.end();
    let of_it: Vec<&str> = said.lines().filter(|l| l.starts_with("syntap: near is ")).collect();
    assert!(of_it[0].contains("near is down"), "the first is said at once: {said}");
    // Of twelve; on a machine that takes minutes for it there may be one more for each.
    assert!((7..11).contains(&of_it.len()), "{said}");
    assert!(of_it.last().unwrap().contains("near is up again"), "the last state is said: {said}");
    assert!(of_it.iter().any(|l| l.contains("left out")), "{said}");
}
