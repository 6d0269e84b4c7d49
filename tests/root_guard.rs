//! What a running tap may still do, as the kernel shows it; and what it does when something of that is not to be had.

mod common;
mod net;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{TRANSPORTS, json_lines, of_kind, run, syntap};
use net::{FAR_IP, NEAR_IP, Namespace, Wire, sh, skip};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use serde_json::Value;

/// Somebody without rights whom every system has.
const USER: &str = "nobody";

fn user() -> User {
    User::from_name(USER).expect("a list of users").expect("nobody is in it")
}

/// A directory for records of `USER` alone, and what is above it.
fn records_dir() -> (tempfile::TempDir, PathBuf) {
    let base = tempfile::tempdir().expect("a directory");
    fs::set_permissions(base.path(), PermissionsExt::from_mode(0o755)).expect("mode set");
    let dir = base.path().join("records");
    fs::create_dir(&dir).expect("made");
    fs::set_permissions(&dir, PermissionsExt::from_mode(0o750)).expect("mode set");
    chown(&dir, Some(user().uid.as_raw()), Some(user().gid.as_raw())).expect("owned");
    (base, dir)
}

struct Tap {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Tap {
    fn start(ns: &Namespace, args: &str) -> Tap {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &ns.name, env!("CARGO_BIN_EXE_syntap"), "run"]);
        Tap::of(command.args(args.split_whitespace()))
    }

    /// A command that becomes one.
    fn of(command: &mut Command) -> Tap {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (stderr, to) = (child.stderr.take().expect("piped"), lines.clone());
        let reader = thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).for_each(|l| to.lock().unwrap().push(l));
        });
        let tap = Tap { child, lines, reader: Some(reader) };
        tap.wait_for("records go to", 1);
        tap
    }

    fn wait_for(&self, what: &str, times: usize) {
        let begun = Instant::now();
        loop {
            let lines = self.lines.lock().unwrap().clone();
            if lines.iter().filter(|l| l.contains(what)).count() >= times {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "'{what}' is not said: {}", lines.join("\n"));
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    fn end(mut self) -> (Option<i32>, String) {
        kill(Pid::from_raw(self.pid()), Signal::SIGINT).expect("it runs");
        let code = self.child.wait().expect("a child").code();
        self.reader.take().map(thread::JoinHandle::join);
        (code, self.lines.lock().unwrap().join("\n"))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `/proc/PID/task/*/status` of all threads: each thread's name, and its fields.
fn threads(pid: i32) -> Vec<(String, BTreeMap<String, String>)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").flatten();
    let fields = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("status")).ok()?;
        let lines = text.lines().filter_map(|l| l.split_once(':'));
        let fields: BTreeMap<String, String> =
            lines.map(|(k, v)| (k.to_owned(), v.split_whitespace().collect::<Vec<_>>().join(" "))).collect();
        Some((fields["Name"].clone(), fields))
    };
    tasks.filter_map(fields).collect()
}

/// Processes that this one made.
fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("it runs");
    text.split_whitespace().map(|p| p.parse().expect("a number")).collect()
}

fn has_only(pid: i32, capabilities: &str) {
    let id = |n: u32| [n; 4].map(|n| n.to_string()).join(" ");
    let none = "0000000000000000";
    for (name, f) in threads(pid) {
        for (field, wanted) in [
            ("Uid", &*id(user().uid.as_raw())),
            ("Gid", &*id(user().gid.as_raw())),
            ("Groups", &*user().gid.to_string()),
            ("CapInh", none),
            ("CapPrm", capabilities),
            ("CapEff", capabilities),
            ("CapBnd", none),
            ("CapAmb", none),
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
        ] {
            assert_eq!(f[field], wanted, "{field} of thread {name}");
        }
    }
}

/// Nobody of the same user may look into it, or trace it, and it leaves no core dump: the kernel keeps its own files for root.
fn is_private(pid: i32) {
    let owner = fs::metadata(format!("/proc/{pid}/mem")).expect("it runs").uid();
    assert_eq!(owner, 0, "dumpable");
    let line = format!("setpriv --reuid {USER} --regid {} --clear-groups cat /proc/{pid}/maps", user().gid);
    let words: Vec<&str> = line.split(' ').collect();
    let out = Command::new(words[0]).args(&words[1..]).output().expect("it starts");
    assert!(!out.status.success() && out.stdout.is_empty(), "it was read");
}

fn knock(wire: &Wire, port: u16) {
    wire.far.run(|| {
        let to: SocketAddr = format!("{NEAR_IP}:{port}").parse().unwrap();
        TcpStream::connect_timeout(&to, Duration::from_secs(5)).expect_err("nobody listens");
    });
}

fn refused_ports(dir: &Path) -> Vec<u64> {
    let records: Vec<Value> = json_lines(&run(syntap().args(["show", "--json"]).arg(dir)));
    of_kind(&records, "syn_refused").iter().map(|r| r["dst_port"].as_u64().expect("a port")).collect()
}

#[test]
fn root_a_running_tap_has_what_is_documented_and_does_all_that_it_did_before() {
    if skip("root_a_running_tap_has_what_is_documented") {
        return;
    }
    for transport in TRANSPORTS {
        let (wire, (_base, dir)) = (Wire::new(), records_dir());
        wire.near.ip("link add other type veth peer name rehto");
        wire.near.ip("link set other up");
        let mirror = dir.join("mirror.pcapng");
        let args = format!(
            "--user {USER} -i near,other -w {} --mirror-to {} --status 1 --transport {transport}",
            dir.display(),
            mirror.display()
        );
        let tap = Tap::start(&wire.near, &args);
        let names: Vec<String> = threads(tap.pid()).into_iter().map(|t| t.0).collect();
        for thread in ["syntap", "syntap-w0", "syntap-writer", "syntap-mirror", "syntap-link"] {
            assert!(names.iter().any(|n| n == thread), "{thread} runs: {names:?}");
        }
        has_only(tap.pid(), "0000000000000000");
        // The one that asks connection tracking: CAP_NET_ADMIN alone, number 12, and two descriptors.
        let helpers = children(tap.pid());
        if Path::new("/proc/sys/net/netfilter/nf_conntrack_max").exists() {
            assert_eq!(helpers.len(), 1, "{helpers:?}");
        }
        for helper in &helpers {
            has_only(*helper, "0000000000001000");
            let open = fs::read_dir(format!("/proc/{helper}/fd")).expect("it runs").count();
            assert_eq!(open, 2, "its channel, its socket");
        }
        helpers.iter().copied().chain([tap.pid()]).for_each(is_private);

        knock(&wire, 5001);
        wire.near.ip("link set near down");
        tap.wait_for("near is down", 1);
        wire.near.ip("link set near up");
        tap.wait_for("near is up again", 1);
        wire.near.ip("link del near");
        tap.wait_for("near is gone", 1);
        sh(&format!(
            "ip link add near netns {} type veth peer name far netns {}",
            wire.near.name, wire.far.name
        ));
        for (ns, name, ip) in [(&wire.near, "near", NEAR_IP), (&wire.far, "far", FAR_IP)] {
            ns.ip(&format!("link set {name} addrgenmode none up"));
            ns.ip(&format!("addr add {ip}/24 dev {name}"));
        }
        tap.wait_for("near is back and tapped again", 1);
        knock(&wire, 5002);
        kill(Pid::from_raw(tap.pid()), Signal::SIGSTOP).expect("it runs");
        knock(&wire, 5003);
        kill(Pid::from_raw(tap.pid()), Signal::SIGCONT).expect("it runs");
        has_only(tap.pid(), "0000000000000000");
        let (code, said) = tap.end();
        assert_eq!(code, Some(0), "{said}");
        assert!(!said.contains("refused system call") && !said.contains("not heard any more"), "{said}");
        assert!(helpers.iter().all(|h| !Path::new(&format!("/proc/{h}")).exists()), "it ended with the tap");
        let mut ports = refused_ports(&dir);
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports, [5001, 5002, 5003], "{said}");
        assert!(fs::metadata(&mirror).expect("made").len() > 200);
        for file in fs::read_dir(&dir).expect("there").flatten() {
            let meta = file.metadata().expect("there");
            let (mode, uid) = (meta.permissions().mode() & 0o777, meta.uid());
            assert_eq!((mode, uid), (0o640, user().uid.as_raw()), "{:?}", file.file_name());
        }
    }
}

/// A running tap's descriptors, as if this process were the tap: what whoever took it over could use.
fn descriptors(pid: i32) -> Vec<OwnedFd> {
    let owned = |fd: libc::c_long| {
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        // SAFETY: a descriptor that the kernel has just made for this process.
        unsafe { OwnedFd::from_raw_fd(fd as i32) }
    };
    // SAFETY: numbers alone.
    let process = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) });
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").flatten();
    let numbers = open.map(|f| f.file_name().to_string_lossy().parse::<i32>().expect("a number"));
    // SAFETY: as above.
    let copied = |n: i32| unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), n, 0) };
    numbers.map(|n| owned(copied(n))).collect()
}

/// Why the kernel does not do it.
fn error_of(result: i64) -> Option<i32> {
    (result < 0).then(|| std::io::Error::last_os_error().raw_os_error()).flatten()
}

/// Why no frame can be sent by an AF_XDP socket, and a ring to do so neither mapped nor made.
fn sends(socket: &OwnedFd) -> [Option<i32>; 3] {
    let (fd, entries) = (socket.as_raw_fd(), 64u32);
    // SAFETY: nothing is passed.
    let sent = unsafe { libc::sendto(fd, std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0) };
    let sent = error_of(sent as i64);
    // SAFETY: a new mapping at a place of the kernel's choice; it goes with this process.
    let mapped = unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        libc::mmap(std::ptr::null_mut(), 4096, access, libc::MAP_SHARED, fd, libc::XDP_PGOFF_TX_RING)
    };
    let mapped = error_of(if mapped == libc::MAP_FAILED { -1 } else { 0 });
    // SAFETY: the number outlives the call.
    let made =
        unsafe { libc::setsockopt(fd, libc::SOL_XDP, libc::XDP_TX_RING, (&raw const entries).cast(), 4) };
    [sent, mapped, error_of(made.into())]
}

#[test]
fn root_whoever_has_a_taps_sockets_cannot_send_frames_by_them() {
    if skip("root_whoever_has_a_taps_sockets_cannot_send") {
        return;
    }
    let (wire, (_base, dir)) = (Wire::bare(), records_dir());
    let is_xdp = |fd: &OwnedFd| {
        let (mut domain, mut len) = (0i32, 4);
        // SAFETY: number and length outlive the call. What is no socket has no domain.
        let err = unsafe {
            let to = (&raw mut domain).cast();
            libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_DOMAIN, to, &mut len)
        };
        err == 0 && domain == libc::AF_XDP
    };
    for interfaces in ["near --transport afxdp", "near=span"] {
        let tap =
            Tap::start(&wire.near, &format!("--user {USER} -i {interfaces} -w {} --status 0", dir.display()));
        let sockets: Vec<OwnedFd> = descriptors(tap.pid()).into_iter().filter(is_xdp).collect();
        // One by which packets are received, and another for its counters.
        assert_eq!(sockets.len(), 2, "{interfaces}");
        for socket in &sockets {
            let refused = [libc::ENOBUFS, libc::EINVAL, libc::EBUSY].map(Some);
            assert_eq!(sends(socket), refused, "{interfaces}: send, map a ring, make one");
        }
        drop(sockets);
        let (code, said) = tap.end();
        assert_eq!(code, Some(0), "{said}");
    }
}

/// Names of the programs of which a process has a descriptor.
fn programs(pid: i32) -> Vec<String> {
    let mut names = Vec::new();
    for fd in fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("it runs").flatten() {
        let text = fs::read_to_string(fd.path()).unwrap_or_default();
        let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)).map(str::trim);
        // A link has the id of its program, too, and no type.
        if let (Some(_), Some(id)) = (field("prog_type:"), field("prog_id:")) {
            let id: u32 = id.parse().expect("a number");
            let loaded =
                libbpf_rs::query::ProgInfoIter::default().find(|p| p.id == id).expect("it is loaded");
            names.push(loaded.name.to_string_lossy().into_owned());
        }
    }
    names.sort_unstable();
    names
}

#[test]
fn root_a_running_tap_holds_no_program_that_takes_packets_away() {
    if skip("root_a_running_tap_holds_no_program_that_takes_packets_away") {
        return;
    }
    let (wire, (_base, dir)) = (Wire::bare(), records_dir());
    wire.near.ip("link add other type veth peer name rehto");
    wire.near.ip("link set other up");
    let inline = &["syntap_egress", "syntap_ingress"][..];
    for (interfaces, held) in [
        ("other --transport ringbuf", inline),
        ("other --transport afxdp --reattach", inline),
        ("near=span,other --transport afxdp", inline),
        ("near=span", &[]),
    ] {
        let tap =
            Tap::start(&wire.near, &format!("--user {USER} -i {interfaces} -w {} --status 0", dir.display()));
        assert_eq!(programs(tap.pid()), held, "{interfaces}");
        let (code, said) = tap.end();
        assert_eq!(code, Some(0), "{said}");
    }
}

#[test]
fn root_a_killed_tap_takes_its_helper_along() {
    if skip("root_a_killed_tap_takes_its_helper_along") {
        return;
    }
    let (wire, (_base, dir)) = (Wire::new(), records_dir());
    let mut tap = Tap::start(&wire.near, &format!("--user {USER} -i near -w {}", dir.display()));
    let helpers = children(tap.pid());
    tap.child.kill().expect("it runs");
    tap.child.wait().expect("a child");
    // One that nobody has waited for yet is over, too.
    let lives = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
    };
    let begun = Instant::now();
    while helpers.iter().any(lives) {
        assert!(begun.elapsed() < Duration::from_secs(10), "a helper lives on");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Capabilities that a start without root needs, and those that would not do.
#[test]
fn root_it_starts_without_root_by_the_capabilities_that_are_documented_and_by_no_fewer() {
    if skip("root_it_starts_without_root") {
        return;
    }
    let wire = Wire::bare();
    let with = |capabilities: &[&str], args: &str, who: &str| {
        let (base, dir) = records_dir();
        // Also the program must be within reach of nobody, and of a root that may not pass over modes.
        let program = base.path().join("syntap");
        common::copy_syntap(&program);
        fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("mode set");
        let list: String = capabilities.iter().map(|c| format!(",+{c}")).collect();
        let sets = format!("--inh-caps=-all{list} --ambient-caps=-all{list} --bounding-set=-all{list}");
        let line = format!(
            "setpriv {who} --clear-groups {sets} {} run {args} --duration 1 --status 0 -w {}",
            program.display(),
            dir.display()
        );
        let out = Command::new("ip")
            .args(["netns", "exec", &wire.near.name])
            .args(line.split_whitespace())
            .output()
            .expect("it starts");
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let nobody = format!("--reuid {USER} --regid {}", user().gid);
    let root = "--reuid 0 --regid 0";
    let (netns, user) =
        (format!("-i near --netns {}", wire.near.name), format!("-i near --transport ringbuf --user {USER}"));
    for (who, args, needed) in [
        (&*nobody, "-i near --transport ringbuf", &["bpf", "net_admin", "perfmon"][..]),
        (&*nobody, "-i near=span", &["bpf", "net_admin", "perfmon", "net_raw", "ipc_lock"]),
        // CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON, too.
        (&*nobody, "-i near --transport afxdp", &["net_admin", "net_raw", "ipc_lock", "sys_admin"]),
        // Started as root, to become somebody else.
        (root, &*user, &["bpf", "net_admin", "perfmon", "setuid", "setgid"]),
    ] {
        let (code, said) = with(needed, args, who);
        assert_eq!(code, Some(0), "{args} by {needed:?}: {said}");
        assert!(said.contains(&format!("runs as {USER} from now on: no capabilities")), "{said}");
        for without in needed {
            let fewer: Vec<&str> = needed.iter().copied().filter(|c| c != without).collect();
            let (code, said) = with(&fewer, args, who);
            assert_eq!(code, Some(2), "{args} without {without}: {said}");
            assert!(said.contains("hint: "), "{said}");
        }
    }
    // Those that CAP_SYS_ADMIN stands for do not enter a namespace. For programs and maps it stands for CAP_NET_ADMIN, too; for sockets not.
    let (code, said) = with(&["net_admin", "sys_admin"], &netns, &nobody);
    assert!(code == Some(0) && !said.contains("going on without"), "{said}");
    let (code, said) = with(&["sys_admin"], &netns, &nobody);
    assert!(code == Some(0) && said.contains("going on without link-layer events"), "{said}");
    let (code, said) = with(&["bpf", "net_admin", "perfmon"], &netns, &nobody);
    assert!(code == Some(2) && said.contains("cannot enter network namespace"), "{said}");
}

#[test]
fn root_what_was_left_open_for_it_is_closed_and_its_copy_of_packets_is_not_for_others() {
    if skip("root_what_was_left_open_for_it_is_closed") {
        return;
    }
    let (wire, base) = (Wire::bare(), tempfile::tempdir().expect("a directory"));
    let (dir, secret) = (base.path().join("records"), base.path().join("secret"));
    fs::create_dir(&dir).expect("made");
    fs::write(&secret, "x").expect("written");
    for sandbox in ["", "--sandbox off"] {
        let mirror = base.path().join(format!("mirror{}", sandbox.len()));
        let user = if sandbox.is_empty() { "--user root" } else { sandbox };
        let line = format!(
            "umask 0; exec 7<{0} <{0} ip netns exec {1} {2} run {user} -i near -w {3} --mirror-to {4} --status 0",
            secret.display(),
            wire.near.name,
            env!("CARGO_BIN_EXE_syntap"),
            dir.display(),
            mirror.display()
        );
        let tap = Tap::of(Command::new("sh").args(["-c", &line]));
        let open = fs::read_dir(format!("/proc/{}/fd", tap.pid())).expect("it runs").flatten();
        let open: Vec<PathBuf> = open.filter_map(|f| fs::read_link(f.path()).ok()).collect();
        // As number 7, and as standard input.
        let of_it = open.iter().filter(|f| **f == secret).count();
        assert_eq!(of_it, if sandbox.is_empty() { 0 } else { 2 }, "{user}: {open:?}");
        let mode = fs::metadata(&mirror).expect("made").permissions().mode() & 0o777;
        assert_eq!(mode, 0o640, "{user}");
        let (code, said) = tap.end();
        assert_eq!(code, Some(0), "{said}");
    }
}

#[test]
fn root_what_a_run_makes_has_the_modes_that_are_documented_whatever_the_umask_is() {
    if skip("root_what_a_run_makes_has_the_modes_that_are_documented") {
        return;
    }
    let wire = Wire::bare();
    for (umask, user) in [("0", "--user root"), ("077", "--user root"), ("077", "--sandbox off")] {
        let base = tempfile::tempdir().expect("a directory");
        let (dir, metrics) = (base.path().join("records"), base.path().join("metrics"));
        fs::create_dir(&dir).expect("made");
        fs::create_dir(&metrics).expect("made");
        let (text, socket) = (metrics.join("syntap.prom"), metrics.join("syntap.sock"));
        let mirror = base.path().join("mirror");
        let line = format!(
            "umask {umask}; exec ip netns exec {} {} run {user} -i near -w {} --mirror-to {} --metrics {},{} --status 0",
            wire.near.name,
            env!("CARGO_BIN_EXE_syntap"),
            dir.display(),
            mirror.display(),
            text.display(),
            socket.display()
        );
        let tap = Tap::of(Command::new("sh").args(["-c", &line]));
        let begun = Instant::now();
        while !text.exists() {
            assert!(begun.elapsed() < Duration::from_secs(20), "no text file is written");
            thread::sleep(Duration::from_millis(20));
        }
        let mode = |path: &Path| fs::metadata(path).expect("made").permissions().mode() & 0o7777;
        let modes = [&text, &socket, &mirror].map(|p| mode(p));
        assert_eq!(modes, [0o644, 0o660, 0o640], "umask {umask}, {user}: in decimal {modes:?}");
        let shards: Vec<u32> =
            fs::read_dir(&dir).expect("there").flatten().map(|f| mode(&f.path())).collect();
        assert!(!shards.is_empty() && shards.iter().all(|m| *m == 0o640), "{user}: in decimal {shards:?}");
        let (code, said) = tap.end();
        assert!(code == Some(0) && !said.contains("refused system call"), "{said}");
    }
}

/// Starts `run` in a namespace as `before` has it: exit code and what it said.
fn started(ns: &Namespace, args: &str, before: fn() -> std::io::Result<()>) -> (Option<i32>, String) {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &ns.name, env!("CARGO_BIN_EXE_syntap"), "run"]);
    command.args(args.split_whitespace()).args(["--duration", "1", "--status", "0"]);
    // SAFETY: `before` makes system calls only, and allocates what its one thread may.
    let out = unsafe { command.pre_exec(before) }.output().expect("it starts");
    (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
}

/// As on a kernel that has no landlock: its first call is not known.
fn no_landlock() -> std::io::Result<()> {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
    let rules = [(libc::SYS_landlock_create_ruleset, Vec::new())].into_iter().collect();
    let arch = std::env::consts::ARCH.try_into().map_err(std::io::Error::other)?;
    let unknown = SeccompAction::Errno(libc::ENOSYS as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, unknown, arch);
    let program: BpfProgram = filter.and_then(TryInto::try_into).map_err(std::io::Error::other)?;
    seccompiler::apply_filter(&program).map_err(std::io::Error::other)
}

#[test]
fn root_what_is_lacking_is_said_and_only_who_is_told_goes_on_without() {
    if skip("root_what_is_lacking_is_said") {
        return;
    }
    let (wire, dir) = (Wire::bare(), tempfile::tempdir().expect("a directory"));
    let here = format!("-i near -w {}", dir.path().display());
    let as_is: fn() -> std::io::Result<()> = || Ok(());

    // The kernel.
    let (code, said) = started(&wire.near, &format!("{here} --user root"), no_landlock);
    assert!(code == Some(2) && said.contains("no landlock") && said.contains("\nhint: "), "{said}");
    let (code, said) = started(&wire.near, &format!("{here} --user root --sandbox auto"), no_landlock);
    assert!(code == Some(0) && said.contains("warning: this kernel has no landlock"), "{said}");
    assert!(said.contains("no capabilities") && said.contains("all files of that user"), "{said}");

    // The user.
    if User::from_name("syntap").is_ok_and(|u| u.is_some()) {
        println!("skipped: this machine has a user syntap, so a run without one was not tried");
    } else {
        let (code, said) = started(&wire.near, &here, as_is);
        assert!(code == Some(2) && said.contains("there is no user syntap"), "{said}");
        assert!(said.contains("\nhint: useradd --system"), "{said}");
        let (code, said) = started(&wire.near, &format!("{here} --sandbox auto"), as_is);
        assert!(code == Some(0) && said.contains("warning: there is no user syntap"), "{said}");
        assert!(said.contains("runs as root from now on: no capabilities"), "{said}");
    }
    let (code, said) = started(&wire.near, &format!("{here} --user nobody-at-all"), as_is);
    assert!(code == Some(2) && said.contains("there is no user nobody-at-all\nhint: useradd"), "{said}");
    // A directory of somebody else's.
    let (code, said) = started(&wire.near, &format!("{here} --user {USER}"), as_is);
    assert!(
        code == Some(2) && said.contains(&format!("(as user {USER})\nhint: install -d -o {USER}")),
        "{said}"
    );
    // One that everybody can write into.
    let open = tempfile::tempdir().expect("a directory");
    fs::set_permissions(open.path(), PermissionsExt::from_mode(0o777)).expect("mode set");
    let there = format!("-i near --user root -w {}", open.path().display());
    let (code, said) = started(&wire.near, &there, as_is);
    assert!(
        code == Some(2) && said.contains("everybody can write into") && said.contains("hint: chmod 750"),
        "{said}"
    );
    let (code, said) = started(&wire.near, &format!("{there} --sandbox auto"), as_is);
    assert!(code == Some(0) && said.contains("warning: everybody can write"), "{said}");

    // Without any of it, if that is said.
    let (code, said) = started(&wire.near, &format!("{here} --sandbox off"), as_is);
    assert!(code == Some(0) && said.contains("warning: --sandbox off"), "{said}");
    let (code, said) = started(&wire.near, &format!("{here} --sandbox off --user {USER}"), as_is);
    assert!(code == Some(2) && said.contains("hint: leave out --user or"), "{said}");
}
