//! What a process can still do once it is confined as a running tap is, tried out: each attempt is made by a process of its own, which
//! confines itself by the same call as `syntap run` and has one thread, as that has then. So this test has no harness.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{MsgFlags, recv, send};
use syntap::guard::{Guard, Level, Reach, refused};

/// How an attempt must end.
enum Ends {
    /// It can be done.
    Done,
    /// It fails with this, and nothing is said.
    Fails(i32),
    /// It fails, is counted and said.
    Refused,
    /// The process is ended by the kernel.
    Killed,
}

/// What an attempt has, opened before the process was confined, as a tap's is.
struct Here {
    /// The directory of records.
    dir: PathBuf,
    /// The directory of the configuration, of which it may read.
    config: PathBuf,
    /// A listener for metrics.
    listener: TcpListener,
    /// Where somebody else listens.
    other: SocketAddr,
    /// The service manager's socket,
    manager: UnixDatagram,
    /// its other end, which has a message for it,
    other_end: UnixDatagram,
    /// and a socket of somebody else's.
    others: PathBuf,
}

impl Here {
    fn open(dir: &Path) -> Here {
        let (manager, other_end) = UnixDatagram::pair().expect("a pair");
        other_end.send(b"x").expect("sent");
        let listen = || TcpListener::bind("127.0.0.1:0").expect("a listener");
        let other = listen();
        let base = dir.parent().expect("a parent");
        let here = Here {
            dir: dir.to_owned(),
            config: base.join("config"),
            listener: listen(),
            other: other.local_addr().expect("an address"),
            manager,
            other_end,
            others: base.join("others.sock"),
        };
        // It listens as long as this process lives.
        std::mem::forget(other);
        here
    }
}

type Attempt = fn(&Here) -> io::Result<()>;

fn call(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A call of numbers alone.
fn raw(number: libc::c_long, first: i32, second: i32, third: i32) -> io::Result<()> {
    // SAFETY: nothing is passed that the kernel would look behind; what it opens goes with the process.
    call(unsafe { libc::syscall(number, first, second, third, 0) })
}

fn socket(family: i32, kind: i32) -> io::Result<()> {
    raw(libc::SYS_socket, family, kind, 0)
}

/// `sendto` by the listener, to where somebody else listens, or to nobody.
fn send_by_listener(here: &Here, flags: i32, with_address: bool) -> io::Result<()> {
    let SocketAddr::V4(other) = here.other else { unreachable!("it was bound to one") };
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: other.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*other.ip()).to_be() },
        sin_zero: [0; 8],
    };
    let to: *const libc::sockaddr_in = if with_address { &raw const address } else { std::ptr::null() };
    let len = if with_address { size_of_val(&address) } else { 0 };
    // SAFETY: byte and address outlive the call.
    let sent = unsafe {
        libc::sendto(here.listener.as_raw_fd(), b"x".as_ptr().cast(), 1, flags, to.cast(), len as u32)
    };
    call(sent as libc::c_long)
}

fn connect_listener(here: &Here) -> io::Result<()> {
    // An address of no family: the listener listens no more, and could connect.
    let address = [0u8; 16];
    // SAFETY: the address outlives the call.
    let done = unsafe { libc::connect(here.listener.as_raw_fd(), address.as_ptr().cast(), 16) };
    call(done.into())
}

fn with_mode(here: &Here, mode: u32) -> io::Result<()> {
    let path = here.dir.join(format!("mode{mode}"));
    let made = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
    assert_eq!(made.metadata()?.mode() & 0o7777, mode, "whatever umask it was started with");
    fs::remove_file(path)
}

/// Of a file in the directory of records.
fn change_mode(here: &Here, mode: u32) -> io::Result<()> {
    write_in(&here.dir, "changed")?;
    let path = here.dir.join("changed");
    let changed = raw(libc::SYS_fchmod, File::open(&path)?.as_raw_fd(), mode as i32, 0);
    fs::remove_file(path)?;
    changed
}

fn set_affinity(pid: i32) -> io::Result<()> {
    let all = [0xffu8; 128];
    // SAFETY: the set outlives the call.
    call(unsafe { libc::syscall(libc::SYS_sched_setaffinity, pid, all.len(), all.as_ptr()) })
}

fn map(protection: i32) -> io::Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at a place of the kernel's choice.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) };
    if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn bpf(command: i32) -> io::Result<()> {
    let nothing = [0u8; 128];
    // SAFETY: attributes of all zero, which outlive the call.
    call(unsafe { libc::syscall(libc::SYS_bpf, command, nothing.as_ptr(), nothing.len()) })
}

fn write_in(dir: &Path, name: &str) -> io::Result<()> {
    let options = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).clone();
    options.open(dir.join(name))?.write_all(b"x")
}

const ATTEMPTS: &[(&str, Ends, Attempt)] = &[
    // Files.
    ("write, list, read and remove in the directory of records", Ends::Done, |here| {
        write_in(&here.dir, "shard")?;
        assert!(fs::read_dir(&here.dir)?.count() > 0);
        assert_eq!(fs::read(here.dir.join("shard"))?, b"x");
        fs::remove_file(here.dir.join("shard"))
    }),
    ("read a file that everybody may read", Ends::Fails(libc::EACCES), |_| fs::read("/etc/passwd").map(drop)),
    ("list a directory", Ends::Fails(libc::EACCES), |_| fs::read_dir("/etc").map(drop)),
    ("read what the kernel tells", Ends::Fails(libc::EACCES), |_| fs::read("/proc/self/maps").map(drop)),
    ("write beside the directory of records", Ends::Fails(libc::EACCES), |here| {
        write_in(here.dir.parent().expect("a parent"), "beside")
    }),
    ("follow a link out of it", Ends::Fails(libc::EACCES), |here| fs::read(here.dir.join("link")).map(drop)),
    ("make a directory in it", Ends::Refused, |here| fs::create_dir(here.dir.join("more"))),
    ("read the configuration", Ends::Done, |here| {
        assert!(fs::read_dir(&here.config)?.count() > 0);
        fs::read(here.config.join("syntap.toml")).map(drop)
    }),
    ("write beside the configuration", Ends::Fails(libc::EACCES), |here| write_in(&here.config, "more")),
    ("remove the configuration", Ends::Fails(libc::EACCES), |here| {
        fs::remove_file(here.config.join("syntap.toml"))
    }),
    ("make a file as those of records are", Ends::Done, |here| with_mode(here, 0o640)),
    ("make a file that becomes its owner", Ends::Refused, |here| with_mode(here, 0o4640)),
    ("make a file that becomes its group", Ends::Refused, |here| with_mode(here, 0o2640)),
    ("make a file that can be run", Ends::Refused, |here| with_mode(here, 0o750)),
    ("make a file that all may read, as that of metrics", Ends::Done, |here| with_mode(here, 0o644)),
    ("make a file that its group may write", Ends::Refused, |here| with_mode(here, 0o660)),
    ("make a file that others may write", Ends::Refused, |here| with_mode(here, 0o642)),
    ("have its own file read by all", Ends::Refused, |here| change_mode(here, 0o644)),
    ("have what is beside the configuration read by all", Ends::Refused, |here| {
        let secret = File::open(here.config.join("syntap.toml"))?;
        raw(libc::SYS_fchmod, secret.as_raw_fd(), 0o644, 0)
    }),
    ("have a file become its owner", Ends::Refused, |here| change_mode(here, 0o4755)),
    ("have a file written by all", Ends::Refused, |here| change_mode(here, 0o666)),
    ("change the mode of a file by its name", Ends::Refused, |here| {
        fs::set_permissions(here.dir.join("link"), PermissionsExt::from_mode(0o644))
    }),
    ("read what it was given to read, which is nothing any more", Ends::Done, |_| {
        let mut byte = [0];
        let read = nix::unistd::read(io::stdin(), &mut byte)?;
        if read == 0 { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }),
    // Network.
    ("open a TCP socket", Ends::Refused, |_| socket(libc::AF_INET, libc::SOCK_STREAM)),
    ("open a packet socket", Ends::Refused, |_| socket(libc::AF_PACKET, libc::SOCK_RAW)),
    ("open a Unix socket", Ends::Refused, |_| socket(libc::AF_UNIX, libc::SOCK_STREAM)),
    ("open a netlink socket to routing", Ends::Refused, |_| socket(libc::AF_NETLINK, libc::SOCK_RAW)),
    ("open a netlink socket to anything else", Ends::Refused, |_| {
        raw(libc::SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER)
    }),
    ("have a listener listen no more, to connect by it", Ends::Refused, connect_listener),
    ("connect by sending (TCP Fast Open)", Ends::Refused, |here| {
        send_by_listener(here, libc::MSG_FASTOPEN | libc::MSG_NOSIGNAL, true)
    }),
    ("the same without an address", Ends::Refused, |here| {
        send_by_listener(here, libc::MSG_FASTOPEN | libc::MSG_NOSIGNAL, false)
    }),
    // It gets through the filter, and finds that nobody is connected.
    ("send where a socket leads", Ends::Fails(libc::EPIPE), |here| {
        send_by_listener(here, libc::MSG_NOSIGNAL, false)
    }),
    ("tell the service manager", Ends::Done, |here| here.manager.send(b"READY=1").map(drop)),
    ("tell somebody else by the same socket", Ends::Refused, |here| {
        here.manager.send_to(b"READY=1", &here.others).map(drop)
    }),
    ("give a socket a name", Ends::Refused, |here| {
        // SAFETY: the address outlives the call.
        call(unsafe { libc::bind(here.manager.as_raw_fd(), [1u8, 0].as_ptr().cast(), 2) }.into())
    }),
    ("listen", Ends::Refused, |here| raw(libc::SYS_listen, here.listener.as_raw_fd(), 1, 0)),
    // Processes.
    ("run a program", Ends::Killed, |_| Command::new("/bin/true").status().map(drop)),
    ("become that program", Ends::Killed, |_| {
        Err(std::os::unix::process::CommandExt::exec(&mut Command::new("/bin/true")))
    }),
    ("signal another process", Ends::Refused, |_| raw(libc::SYS_kill, 1, 0, 0)),
    ("wait for nobody on a socket", Ends::Done, |here| {
        raw(libc::SYS_fcntl, here.manager.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK)
    }),
    ("have another process signalled by a socket", Ends::Refused, |here| {
        raw(libc::SYS_fcntl, here.manager.as_raw_fd(), libc::F_SETOWN, 1)
    }),
    ("choose the signal", Ends::Refused, |here| {
        // Of asm-generic/fcntl.h.
        const F_SETSIG: i32 = 10;
        raw(libc::SYS_fcntl, here.manager.as_raw_fd(), F_SETSIG, libc::SIGKILL)
    }),
    ("have a terminal's processes signalled", Ends::Refused, |here| {
        raw(libc::SYS_fcntl, here.manager.as_raw_fd(), libc::F_SETFL, libc::O_ASYNC)
    }),
    ("choose its own CPUs", Ends::Done, |_| set_affinity(0)),
    ("choose another process's CPUs", Ends::Refused, |_| set_affinity(1)),
    ("trace another process", Ends::Killed, |_| raw(libc::SYS_ptrace, libc::PTRACE_ATTACH as i32, 1, 0)),
    ("become root", Ends::Killed, |_| raw(libc::SYS_setuid, 0, 0, 0)),
    ("make a namespace", Ends::Killed, |_| raw(libc::SYS_unshare, libc::CLONE_NEWUSER, 0, 0)),
    ("begin a thread, which is as confined", Ends::Fails(libc::EACCES), |_| {
        std::thread::spawn(|| fs::read("/etc/passwd").map(drop)).join().expect("it ends")
    }),
    // Memory and the kernel.
    ("take memory", Ends::Done, |_| map(libc::PROT_READ | libc::PROT_WRITE)),
    ("take memory to run code from", Ends::Killed, |_| map(libc::PROT_READ | libc::PROT_EXEC)),
    ("make a map", Ends::Killed, |_| bpf(0)),
    ("load a program into the kernel", Ends::Killed, |_| bpf(5)),
    ("pin a program", Ends::Refused, |_| bpf(6)),
    ("open what others have loaded", Ends::Refused, |_| bpf(13)),
    ("attach a program without an inline interface", Ends::Refused, |_| bpf(28)),
    // It gets through the filter, and finds that its standard input is no map.
    ("read a map", Ends::Fails(libc::EINVAL), |_| bpf(1)),
    ("set up io_uring", Ends::Killed, |_| raw(libc::SYS_io_uring_setup, 1, 0, 0)),
    ("make a call that nobody listed", Ends::Refused, |_| raw(libc::SYS_getpriority, 0, 0, 0)),
];

/// What the helper that asks connection tracking may try: it is ended for anything that it has no need for.
const OF_THE_HELPER: &[(&str, Ends, Attempt)] = &[
    ("the helper hears a question and answers", Ends::Done, |here| {
        // By the calls that it makes; the standard library writes where it says that it sends.
        let channel = here.manager.as_raw_fd();
        recv(channel, &mut [0; 1], MsgFlags::empty())?;
        Ok(send(channel, b"x", MsgFlags::empty()).map(drop)?)
    }),
    ("the helper sends to somebody else", Ends::Killed, |here| {
        here.manager.send_to(b"x", &here.others).map(drop)
    }),
    ("the helper reads a file", Ends::Killed, |_| fs::read("/etc/passwd").map(drop)),
    ("the helper opens a socket", Ends::Killed, |_| socket(libc::AF_NETLINK, libc::SOCK_RAW)),
    ("the helper writes to what it was given", Ends::Killed, |here| {
        nix::unistd::write(&here.other_end, b"x").map(drop).map_err(Into::into)
    }),
    ("the helper makes a harmless call", Ends::Killed, |_| raw(libc::SYS_getpid, 0, 0, 0)),
];

/// All attempts, by number.
fn tries() -> impl Iterator<Item = &'static (&'static str, Ends, Attempt)> {
    ATTEMPTS.iter().chain(OF_THE_HELPER)
}

/// In the process of its own: confines it and tries. Exit code 0 for done, else the errno; standard error has what was said.
fn attempt(number: usize, dir: &Path, user: Option<&str>) -> ! {
    let (here, guard) = (Here::open(dir), Guard::plan(Level::Require, user).expect("all of it is to be had"));
    let try_it = tries().nth(number).expect("an attempt").2;
    if number >= ATTEMPTS.len() {
        let helper = guard.helper().expect("it can be confined").expect("it is to be confined");
        helper.enter().expect("confined");
        let done = try_it(&here);
        let code = done.map_or_else(|e| e.raw_os_error().unwrap_or(199), |()| 0);
        // SAFETY: it only ends; what the library does at an end of its own are calls that the helper has not.
        unsafe { libc::_exit(code) }
    }
    let reach = Reach { write: vec![dir.to_owned()], read: vec![here.config.clone()], attach: false };
    guard.enter(&reach).expect("confined");
    let before = refused();
    let done = try_it(&here);
    if refused() > before {
        exit(200);
    }
    exit(done.map_or_else(|e| e.raw_os_error().unwrap_or(199), |()| 0))
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, flag, number, dir, user] = &args[..]
        && flag == "--attempt"
    {
        let user = Some(user.as_str()).filter(|u| !u.is_empty());
        attempt(number.parse().expect("a number"), Path::new(dir), user);
    }
    if args.iter().any(|a| a == "--abort") {
        std::process::abort();
    }
    // As any test: chosen by a word of its name.
    let name = "a_confined_process_can_do_what_a_tap_does_and_nothing_else";
    if args[1..].iter().any(|a| !a.starts_with('-') && !name.contains(a.as_str())) {
        return;
    }
    if args.iter().any(|a| a == "--list") {
        return println!("{name}: test");
    }
    let lacking = Guard::plan(Level::Auto, nix::unistd::geteuid().is_root().then_some("root"));
    if let Some(what) = lacking.expect("a user").lacking().first() {
        return println!("skipped: {what}");
    }
    // Root that stays root shows that it is not owners and modes that keep it from files; somebody else that the rest is.
    let users = if nix::unistd::geteuid().is_root() { &["root", "nobody"][..] } else { &[""] };
    for user in users {
        let base = tempfile::tempdir().expect("a directory");
        let dir = records(base.path(), user);
        // Nobody but root has a capability for the helper to keep.
        let number_of = if user.is_empty() { ATTEMPTS.len() } else { usize::MAX };
        for (number, (what, ends, _)) in tries().take(number_of).enumerate() {
            tried(number, &dir, user, what, ends);
        }
        assert!(!base.path().join("beside").exists());
    }
    if !dumps() {
        println!(
            "skipped: this system writes no core dumps, so that there is none of a confined process shows nothing"
        );
    }
    println!("test {name} ... ok");
}

fn records(base: &Path, user: &str) -> PathBuf {
    use std::os::unix::fs::{chown, symlink};
    fs::set_permissions(base, PermissionsExt::from_mode(0o755)).expect("mode set");
    let (dir, config) = (base.join("records"), base.join("config"));
    for made in [&dir, &config] {
        fs::create_dir(made).expect("made");
        fs::set_permissions(made, PermissionsExt::from_mode(0o755)).expect("mode set");
    }
    write_in(&config, "syntap.toml").expect("written");
    fs::set_permissions(config.join("syntap.toml"), PermissionsExt::from_mode(0o644)).expect("mode set");
    // Nobody listens any more, and it would not matter.
    drop(UnixDatagram::bind(base.join("others.sock")).expect("bound"));
    symlink("/etc/passwd", dir.join("link")).expect("linked");
    if let Ok(Some(user)) = nix::unistd::User::from_name(user) {
        chown(&dir, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("owned");
    }
    dir
}

/// This program, allowed to leave a core dump, in a directory that goes with it.
fn again() -> Command {
    let all = getrlimit(Resource::RLIMIT_CORE).expect("a limit").1;
    setrlimit(Resource::RLIMIT_CORE, all, all).expect("set");
    Command::new(std::env::current_exe().expect("this program"))
}

/// Whether a process that is not confined leaves a core dump here.
fn dumps() -> bool {
    let dir = tempfile::tempdir().expect("a directory");
    let status = again().arg("--abort").current_dir(dir.path()).status().expect("it starts");
    status.signal() == Some(libc::SIGABRT) && status.core_dumped()
}

fn tried(number: usize, dir: &Path, user: &str, what: &str, ends: &Ends) {
    let (mut reader, writer) = io::pipe().expect("a pipe");
    let (input, mut secret) = io::pipe().expect("a pipe");
    secret.write_all(b"x").expect("written");
    let mut child = again()
        .args(["--attempt", &number.to_string(), &dir.to_string_lossy(), user])
        .current_dir(dir.parent().expect("a parent"))
        .stdin(input)
        .stderr(writer)
        .spawn()
        .expect("it starts");
    let status = child.wait().expect("a child");
    let mut said = String::new();
    reader.read_to_string(&mut said).expect("text");
    let as_it_must = match ends {
        Ends::Done => status.code() == Some(0) && said.is_empty(),
        Ends::Fails(errno) => status.code() == Some(*errno) && said.is_empty(),
        Ends::Refused => status.code() == Some(200) && said.contains("syntap: refused system call "),
        // A core dump would hold packets.
        Ends::Killed => status.signal() == Some(libc::SIGSYS) && !status.core_dumped(),
    };
    assert!(
        as_it_must,
        "{what}, as {user}: {status}, errno {:?}: {said}",
        status.code().map(io::Error::from_raw_os_error)
    );
}
