//! What a process can still do once it is confined as a running tap is, tried out: each attempt is made by a process of its own, which
//! confines itself by the same call as `syntap run` and has one thread, as that has then. So this test has no harness.

use std::fs;
use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

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

type Attempt = fn(&Path) -> io::Result<()>;

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
    fs::write(dir.join(name), "x")
}

const ATTEMPTS: &[(&str, Ends, Attempt)] = &[
    // Files.
    ("write, list, read and remove in the directory of records", Ends::Done, |dir| {
        write_in(dir, "shard")?;
        assert!(fs::read_dir(dir)?.count() > 0);
        assert_eq!(fs::read(dir.join("shard"))?, b"x");
        fs::remove_file(dir.join("shard"))
    }),
    ("read a file that everybody may read", Ends::Fails(libc::EACCES), |_| fs::read("/etc/passwd").map(drop)),
    ("list a directory", Ends::Fails(libc::EACCES), |_| fs::read_dir("/etc").map(drop)),
    ("read what the kernel tells", Ends::Fails(libc::EACCES), |_| fs::read("/proc/self/maps").map(drop)),
    ("write beside the directory of records", Ends::Fails(libc::EACCES), |dir| {
        write_in(dir.parent().expect("a parent"), "beside")
    }),
    ("follow a link out of it", Ends::Fails(libc::EACCES), |dir| fs::read(dir.join("link")).map(drop)),
    ("make a directory in it", Ends::Refused, |dir| fs::create_dir(dir.join("more"))),
    // Network.
    ("open a TCP socket", Ends::Refused, |_| socket(libc::AF_INET, libc::SOCK_STREAM)),
    ("open a packet socket", Ends::Refused, |_| socket(libc::AF_PACKET, libc::SOCK_RAW)),
    ("open a Unix socket", Ends::Refused, |_| socket(libc::AF_UNIX, libc::SOCK_STREAM)),
    ("open a netlink socket to routing", Ends::Done, |_| socket(libc::AF_NETLINK, libc::SOCK_RAW)),
    ("open a netlink socket to anything else", Ends::Refused, |_| {
        raw(libc::SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER)
    }),
    // Processes.
    ("run a program", Ends::Killed, |_| Command::new("/bin/true").status().map(drop)),
    ("become that program", Ends::Killed, |_| {
        Err(std::os::unix::process::CommandExt::exec(&mut Command::new("/bin/true")))
    }),
    ("signal another process", Ends::Refused, |_| raw(libc::SYS_kill, 1, 0, 0)),
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

/// In the process of its own: confines it and tries. Exit code 0 for done, else the errno; standard error has what was said.
fn attempt(number: usize, dir: &Path, user: Option<&str>) -> ! {
    let guard = Guard::plan(Level::Require, user).expect("all of it is to be had");
    let reach = Reach { write: vec![dir.to_owned()], ..Reach::default() };
    guard.enter(&reach).expect("confined");
    let before = refused();
    let done = (ATTEMPTS[number].2)(dir);
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
        for (number, (what, ends, _)) in ATTEMPTS.iter().enumerate() {
            tried(number, &dir, user, what, ends);
        }
        assert!(!base.path().join("beside").exists());
    }
    println!("test {name} ... ok");
}

fn records(base: &Path, user: &str) -> PathBuf {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    fs::set_permissions(base, PermissionsExt::from_mode(0o755)).expect("mode set");
    let dir = base.join("records");
    fs::create_dir(&dir).expect("made");
    symlink("/etc/passwd", dir.join("link")).expect("linked");
    if let Ok(Some(user)) = nix::unistd::User::from_name(user) {
        chown(&dir, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("owned");
    }
    dir
}

fn tried(number: usize, dir: &Path, user: &str, what: &str, ends: &Ends) {
    let (mut reader, writer) = io::pipe().expect("a pipe");
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--attempt", &number.to_string(), &dir.to_string_lossy(), user])
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
        Ends::Killed => status.signal() == Some(libc::SIGSYS),
    };
    assert!(
        as_it_must,
        "{what}, as {user}: {status}, errno {:?}: {said}",
        status.code().map(io::Error::from_raw_os_error)
    );
}
