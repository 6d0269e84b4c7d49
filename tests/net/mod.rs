//! Network namespaces for privileged tests: made under names of this process, removed on drop, and after a
//! process that died.

#![allow(dead_code)]

pub mod flood;
pub mod tap;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, id};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, setns};
use nix::unistd::Pid;

/// True, with the reason printed, where privileged tests cannot run.
pub fn skip(test: &str) -> bool {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped {test}: not root");
        return true;
    }
    if !Path::new("/proc/sys/net").exists() || Command::new("ip").arg("-V").output().is_err() {
        eprintln!("skipped {test}: no ip command");
        return true;
    }
    clean_up_after_the_dead();
    false
}

/// Keeps the calling thread on one CPU. A sender that moves between CPUs overtakes its own packets in the backlogs
/// of a veth pair, and TCP retransmits what was never lost: with or without a tap, some dozens in 64 MiB.
pub fn pin() {
    let all = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let cpu = (0..CpuSet::count()).find(|cpu| all.is_set(*cpu).unwrap()).unwrap();
    let mut one = CpuSet::new();
    one.set(cpu).unwrap();
    sched_setaffinity(Pid::from_raw(0), &one).unwrap();
}

/// Runs a command line and panics with its words if it fails.
pub fn sh(line: &str) -> String {
    let out = Command::new("sh").args(["-c", line]).output().expect("a shell");
    assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// A named namespace.
pub struct Namespace {
    pub name: String,
}

impl Namespace {
    pub fn new() -> Namespace {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("syntest-{}-{}", id(), NEXT.fetch_add(1, Ordering::Relaxed));
        sh(&format!("ip netns add {name} && ip -n {name} link set lo up"));
        let ns = Namespace { name };
        // No router solicitations or multicast reports between the packets of a test.
        ns.run(|| {
            for scope in ["all", "default"] {
                let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/accept_dad"), "0");
            }
        });
        ns
    }

    /// Runs `ip` in the namespace.
    pub fn ip(&self, args: &str) -> String {
        sh(&format!("ip -n {} {args}", self.name))
    }

    /// Runs a command line in the namespace.
    pub fn sh(&self, line: &str) -> String {
        sh(&format!("ip netns exec {} {line}", self.name))
    }

    /// Runs `work` on a thread inside.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.name);
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                setns(File::open(path).expect("the namespace"), CloneFlags::CLONE_NEWNET).expect("root");
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

fn clean_up_after_the_dead() {
    let Ok(names) = fs::read_dir("/run/netns") else { return };
    for name in names.flatten().filter_map(|e| e.file_name().into_string().ok()) {
        let pid = name.strip_prefix("syntest-").and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = Command::new("ip").args(["netns", "del", &name]).output();
        }
    }
}

/// Two namespaces and a veth pair between them: `near` with `10.9.0.1/24` and `fd09::1/64`, `far` with `.2`.
pub struct Wire {
    pub near: Namespace,
    pub far: Namespace,
}

pub const NEAR_IP: &str = "10.9.0.1";
pub const FAR_IP: &str = "10.9.0.2";

impl Wire {
    pub fn new() -> Wire {
        let wire = Wire::bare();
        wire.near.ip("addr add 10.9.0.1/24 dev near");
        wire.near.ip("addr add fd09::1/64 dev near nodad");
        wire.far.ip("addr add 10.9.0.2/24 dev far");
        wire.far.ip("addr add fd09::2/64 dev far nodad");
        wire
    }

    /// The same without addresses.
    pub fn bare() -> Wire {
        Wire::with_queues(1)
    }

    /// The same with this many queues each way. What is sent on one of `far` comes on the one of that number.
    pub fn with_queues(queues: u32) -> Wire {
        let (near, far) = (Namespace::new(), Namespace::new());
        let count = format!("numtxqueues {queues} numrxqueues {queues}");
        sh(&format!(
            "ip link add near netns {} {count} type veth peer name far netns {} {count}",
            near.name, far.name
        ));
        near.ip("link set near addrgenmode none up");
        far.ip("link set far addrgenmode none up");
        Wire { near, far }
    }
}
