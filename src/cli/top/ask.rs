//! Asks a running tap for its live view.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::super::{Fail, metrics};
use crate::telemetry::{View, view::VERSION};

/// A tap on this machine answers within a millisecond.
const PATIENCE: Duration = Duration::from_secs(3);

/// No view is nearly as long.
const LONGEST: u64 = 4 << 20;

/// Where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An address,
    Tcp(SocketAddr),
    /// or a socket.
    Unix(PathBuf),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Tcp(at) => write!(f, "{at}"),
            Place::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Reads it.
pub fn place(text: &str) -> Result<Place, Fail> {
    if text.contains('/') {
        return Ok(Place::Unix(text.into()));
    }
    metrics::address(text).map(Place::Tcp).ok_or_else(|| {
        Fail::new(format!("'{text}' is no place of a tap")).hint(format!(
            "write what `syntap run --metrics` was given: {}, or the path of a socket",
            metrics::DEFAULT
        ))
    })
}

/// Its view at this moment; of a run that is being set up, its first one.
pub fn ask(at: &Place) -> Result<View, Fail> {
    let until = Instant::now() + PATIENCE;
    loop {
        match once(at)? {
            Some(view) => return Ok(view),
            None if Instant::now() < until => std::thread::sleep(Duration::from_millis(100)),
            None => {
                return Err(Fail::new(format!("the syntap at {at} is still being set up"))
                    .hint("try again in a moment"));
            }
        }
    }
}

fn once(at: &Place) -> Result<Option<View>, Fail> {
    let answer = exchange(at).map_err(|e| {
        let fail = Fail::new(format!("no syntap answers at {at}: {e}"));
        match e.kind() {
            io::ErrorKind::PermissionDenied => fail.hint("its socket is for its own user and group"),
            _ => fail.hint(format!(
                "is one running with --metrics {at}? If it shows its metrics elsewhere: syntap top ADDR|SOCKET"
            )),
        }
    })?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1) {
        Some("200") => {}
        Some("503") => return Ok(None),
        Some("403") => {
            return Err(Fail::new(format!(
                "the syntap at {at} shows its live view on its own machine alone"
            ))
            .hint("run it there: ssh -t HOST syntap top"));
        }
        _ => return Err(Fail::new(format!("what answers at {at} is no syntap"))),
    }
    let view = serde_json::from_str::<View>(body).ok().filter(|v| v.version == VERSION);
    view.map(Some).ok_or_else(|| {
        Fail::new(format!("the live view of what answers at {at} is of another version"))
            .hint("use the syntap that runs there")
    })
}

fn exchange(at: &Place) -> io::Result<String> {
    match at {
        Place::Tcp(at) => {
            let stream = TcpStream::connect_timeout(at, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            talk(stream, &at.to_string())
        }
        Place::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            talk(stream, "localhost")
        }
    }
}

fn talk(mut stream: impl Read + Write, host: &str) -> io::Result<String> {
    stream
        .write_all(format!("GET /live HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(LONGEST).read_to_string(&mut answer)?;
    Ok(answer)
}
