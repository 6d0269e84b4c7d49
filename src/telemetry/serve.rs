//! The listener: few connections at a time, each with a deadline, and none of them waited for by anybody else.
//!
//! One thread polls all of them. A connection that says nothing, or reads nothing, is closed when its time is up; one more than
//! there may be closes the one that has been there longest.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::stat::{Mode, fchmod, umask};

use super::http::{self, Audience, HEAD_MAX};
use super::publish::{Board, Counted};
use super::textfile;

/// Connections at a time: a Prometheus, its twin and a few people. Each holds a page of some 100 KiB at most.
const CONNECTIONS: usize = 16;

/// From its beginning to its end a connection has so long: Prometheus itself gives up after ten seconds.
const DEADLINE: Duration = Duration::from_secs(5);

/// How often it is looked whether the run ends.
const LOOK_EVERY_MS: u16 = 100;

/// How often a text file is written: node_exporter is scraped each 15 s or less often.
const FILE_EVERY: Duration = Duration::from_secs(5);

/// Where metrics are to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// HTTP on an address.
    Tcp(SocketAddr),
    /// HTTP on a Unix socket.
    Unix(PathBuf),
    /// A text file for node_exporter.
    File(PathBuf),
}

impl Endpoint {
    /// The directory that must stay within reach while it is served: a file is renamed in it, a socket removed from it at the end.
    pub fn directory(&self) -> Option<PathBuf> {
        let (Endpoint::Unix(path) | Endpoint::File(path)) = self else { return None };
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
        Some(parent.map_or_else(|| ".".into(), Path::to_path_buf))
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Endpoint::Tcp(at) => write!(f, "http://{at}/metrics"),
            Endpoint::Unix(path) | Endpoint::File(path) => write!(f, "{}", path.display()),
        }
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(s) => s.read(to),
            Stream::Unix(s) => s.read(to),
        }
    }

    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(s) => s.write(from),
            Stream::Unix(s) => s.write(from),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(s) => s.as_fd(),
            Stream::Unix(s) => s.as_fd(),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Tcp(l) => l.as_fd(),
            Listener::Unix(l, _) => l.as_fd(),
        }
    }
}

impl Listener {
    fn accept(&self) -> io::Result<(Stream, Audience)> {
        let (stream, audience) = match self {
            Listener::Tcp(l) => {
                let (stream, _) = l.accept()?;
                // What the connection came to, not what the listener is bound to, which may be every address.
                let local = stream.local_addr().is_ok_and(|a| is_loopback(a.ip()));
                (Stream::Tcp(stream), if local { Audience::Local } else { Audience::Network })
            }
            Listener::Unix(l, _) => {
                let (stream, _) = l.accept()?;
                (Stream::Unix(stream), Audience::Local)
            }
        };
        // Not by the ioctl() of the standard library: what a running tap may call is a short list.
        fcntl(&stream, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok((stream, audience))
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback()),
    }
}

/// One request on its way in, then its answer on its way out.
struct Connection {
    stream: Stream,
    audience: Audience,
    until: Instant,
    head: Vec<u8>,
    answer: Vec<u8>,
    sent: usize,
}

impl Connection {
    fn wants(&self) -> PollFlags {
        if self.answer.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLOUT }
    }

    /// Does what can be done without waiting; true when the connection is over.
    fn step(&mut self, board: &Board) -> bool {
        match self.go_on(board) {
            Ok(over) => over,
            Err(e) => !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    fn go_on(&mut self, board: &Board) -> io::Result<bool> {
        while self.answer.is_empty() {
            let mut bytes = [0; 2048];
            let n = self.stream.read(&mut bytes)?;
            if n == 0 {
                return Ok(true);
            }
            self.head.extend_from_slice(&bytes[..n]);
            let answer = if http::is_whole(&self.head) {
                http::respond(&self.head, self.audience, board.latest().as_deref())
            } else if self.head.len() > HEAD_MAX {
                http::refuse("431 Request Header Fields Too Large")
            } else {
                continue;
            };
            let counted = board.counted();
            Counted::one(if answer.fine { &counted.answered } else { &counted.refused });
            self.answer = answer.bytes;
        }
        while self.sent < self.answer.len() {
            self.sent += self.stream.write(&self.answer[self.sent..])?;
        }
        Ok(true)
    }
}

/// Listens on some endpoints and writes others.
#[derive(Default)]
pub struct Server {
    listeners: Vec<Listener>,
    files: Vec<PathBuf>,
}

impl Server {
    /// Opens an endpoint: from now on it can be connected to. A file is written for the first time when the server runs.
    pub fn open(&mut self, endpoint: &Endpoint) -> io::Result<()> {
        match endpoint {
            Endpoint::Tcp(at) => {
                let listener = TcpListener::bind(at)?;
                listener.set_nonblocking(true)?;
                self.listeners.push(Listener::Tcp(listener));
            }
            Endpoint::Unix(path) => {
                let listener = listen_at(path)?;
                listener.set_nonblocking(true)?;
                self.listeners.push(Listener::Unix(listener, path.clone()));
            }
            Endpoint::File(path) => {
                // That it cannot be written is found now.
                textfile::try_out(path)?;
                self.files.push(path.clone());
            }
        }
        Ok(())
    }

    /// Where it listens, for one that was asked to take any free port.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let address = |l: &Listener| match l {
            Listener::Tcp(l) => l.local_addr().ok(),
            Listener::Unix(..) => None,
        };
        self.listeners.iter().filter_map(address).collect()
    }

    /// Serves until `stop`.
    pub fn run(self, board: &Board, stop: &AtomicBool) {
        let mut connections: Vec<Connection> = Vec::new();
        let mut written: Option<Instant> = None;
        while !stop.load(Ordering::Relaxed) {
            if !self.files.is_empty() && written.is_none_or(|w| w.elapsed() >= FILE_EVERY) {
                written = Some(Instant::now());
                self.write_files(board);
            }
            let (mut ready, mut called) = (Vec::new(), Vec::new());
            {
                let mut fds: Vec<PollFd<'_>> =
                    self.listeners.iter().map(|l| PollFd::new(l.as_fd(), PollFlags::POLLIN)).collect();
                fds.extend(connections.iter().map(|c| PollFd::new(c.stream.as_fd(), c.wants())));
                if poll(&mut fds, PollTimeout::from(LOOK_EVERY_MS)).is_err() {
                    continue; // A signal.
                }
                let is_ready = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
                let (listening, connected) = fds.split_at(self.listeners.len());
                called.extend((0..listening.len()).filter(|&n| is_ready(&listening[n])));
                ready.extend(connected.iter().map(is_ready));
            }
            let now = Instant::now();
            let mut n = 0;
            connections.retain_mut(|c| {
                let over = ready[n] && c.step(board);
                n += 1;
                if !over && now >= c.until {
                    Counted::one(&board.counted().cut);
                }
                !over && now < c.until
            });
            for n in called {
                self.accept(&self.listeners[n], &mut connections, board);
            }
        }
    }

    fn accept(&self, listener: &Listener, connections: &mut Vec<Connection>, board: &Board) {
        match listener.accept() {
            Ok((stream, audience)) => {
                if connections.len() >= CONNECTIONS {
                    connections.remove(0);
                    Counted::one(&board.counted().cut);
                }
                let until = Instant::now() + DEADLINE;
                let (head, answer) = (Vec::new(), Vec::new());
                connections.push(Connection { stream, audience, until, head, answer, sent: 0 });
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // No descriptor is free, for one: that does not pass by asking again at once.
            Err(_) => std::thread::sleep(Duration::from_millis(u64::from(LOOK_EVERY_MS))),
        }
    }

    fn write_files(&self, board: &Board) {
        let Some(latest) = board.latest() else { return };
        for path in &self.files {
            if let Err(e) = textfile::write(path, &latest.page) {
                board.failed_file(format!("cannot write metrics into {}: {e}", path.display()));
            }
        }
    }
}

impl Drop for Server {
    /// What is left of a run that is over would be taken for its present.
    fn drop(&mut self) {
        for listener in &self.listeners {
            if let Listener::Unix(_, path) = listener {
                let _ = fs::remove_file(path);
            }
        }
        self.files.iter().for_each(|path| textfile::remove(path));
    }
}

/// A socket for owner and group. One that nobody listens to any more is taken away; anything else is left alone.
fn listen_at(path: &Path) -> io::Result<UnixListener> {
    if let Ok(meta) = fs::symlink_metadata(path)
        && meta.file_type().is_socket()
    {
        match UnixStream::connect(path) {
            Ok(_) => return Err(io::Error::new(ErrorKind::AddrInUse, "somebody listens there already")),
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path)?,
            Err(e) => return Err(e),
        }
    }
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // Before it has a name: on Linux the file takes the socket's own mode, less the umask's bits, so it is open to others at no moment, and
    // nothing is changed by its name, under which somebody may have put another file.
    fchmod(&socket, Mode::from_bits_truncate(0o660))?;
    let address = UnixAddr::new(path)?;
    let before = umask(Mode::from_bits_truncate(0o007));
    let bound = bind(socket.as_raw_fd(), &address);
    umask(before);
    bound?;
    listen(&socket, Backlog::new(CONNECTIONS as i32)?)?;
    Ok(UnixListener::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Page, Snapshot};
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;
    use std::thread;

    struct Running {
        stop: Arc<AtomicBool>,
        thread: Option<thread::JoinHandle<()>>,
        board: Board,
    }

    fn serve(server: Server) -> Running {
        let mut page = Page::default();
        page.counter("syntap_packets", "Seen.", &[], 5);
        let board = Board::default();
        board.publish(Snapshot { page, ..Snapshot::default() });
        let stop = Arc::new(AtomicBool::new(false));
        let (mine, its) = (stop.clone(), board.clone());
        let thread = thread::spawn(move || server.run(&its, &mine));
        Running { stop, thread: Some(thread), board }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            self.stop.store(true, Ordering::Relaxed);
            self.thread.take().map(thread::JoinHandle::join);
        }
    }

    fn ask(stream: &mut (impl Read + Write)) -> String {
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
    }

    fn on_loopback() -> (Running, SocketAddr) {
        let mut server = Server::default();
        server.open(&Endpoint::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
        let at = server.addresses()[0];
        (serve(server), at)
    }

    #[test]
    fn silent_connections_keep_nobody_out_and_are_few() {
        let (running, at) = on_loopback();
        let silent: Vec<TcpStream> = (0..CONNECTIONS * 3).map(|_| TcpStream::connect(at).unwrap()).collect();
        let mut slow = TcpStream::connect(at).unwrap();
        slow.write_all(b"GET /met").unwrap();
        assert!(ask(&mut TcpStream::connect(at).unwrap()).ends_with("syntap_packets_total 5\n"));
        slow.write_all(b"rics HTTP/1.0\r\n\r\n").unwrap();
        let mut said = String::new();
        slow.read_to_string(&mut said).unwrap();
        assert!(said.starts_with("HTTP/1.1 200 "), "one that takes its time is answered, too");
        let counted = running.board.counted();
        assert!(counted.cut.load(Ordering::Relaxed) >= silent.len() as u64 + 2 - CONNECTIONS as u64);
        assert_eq!(counted.answered.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_file_that_cannot_be_written_any_more_is_said_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let sub = dir.path().join("sub");
        fs::create_dir(&sub).unwrap();
        let endpoint = Endpoint::File(sub.join("x.prom"));
        assert_eq!(endpoint.directory(), Some(sub.clone()));
        let mut server = Server::default();
        server.open(&endpoint).unwrap();
        let board = Board::default();
        board.publish(Snapshot::default());
        fs::remove_dir_all(&sub).unwrap();
        server.write_files(&board);
        let why = board.file_error().expect("an error");
        assert!(why.starts_with("cannot write metrics into ") && board.file_error().is_none(), "{why}");
        assert_eq!(board.counted().failed_files.load(Ordering::Relaxed), 1);
        fs::create_dir(&sub).unwrap();
        server.write_files(&board);
        assert!(board.file_error().is_none() && sub.join("x.prom").exists());
    }

    #[test]
    fn a_request_without_end_is_refused() {
        let (running, at) = on_loopback();
        let mut stream = TcpStream::connect(at).unwrap();
        // More than may be: the rest of it may meet a closed connection.
        let _ = stream.write_all(&[b'a'; HEAD_MAX + 100]);
        let _ = stream.read_to_end(&mut Vec::new());
        while running.board.counted().refused.load(Ordering::Relaxed) == 0 {
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_socket_is_for_owner_and_group_and_goes_with_the_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a crash leaves one behind");
        let mut server = Server::default();
        server.open(&Endpoint::Unix(path.clone())).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let again = Server::default().open(&Endpoint::Unix(path.clone())).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::AddrInUse);
        let running = serve(server);
        assert!(ask(&mut UnixStream::connect(&path).unwrap()).ends_with("syntap_packets_total 5\n"));
        drop(running);
        assert!(!path.exists());
        fs::write(&path, "somebody's").unwrap();
        assert!(Server::default().open(&Endpoint::Unix(path.clone())).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's", "what is no socket is left alone");
    }
}
