//! How much is kept: the oldest shards make room.

use std::fs::{DirEntry, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::ShardReader;
use super::names::host_of;

/// How many bytes of shards, and shards how old, stay in a directory. Without either all do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Bytes of all shards of the host, the one that is written included.
    pub max_bytes: Option<u64>,
    /// How long ago a shard may have been written last.
    pub max_age: Option<Duration>,
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Shards.
    pub shards: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Records in them, as their heads say.
    pub records: u64,
}

struct Old {
    path: PathBuf,
    meta: Metadata,
}

impl Retention {
    /// Removes the oldest shards of a host, as it is in their names, that are too many or too old. The newest one stays, and so does any
    /// that somebody holds a lock on: a run still writes it. The second is the first error of those that stayed because of one.
    pub fn apply(&self, dir: &Path, host: &str, now: SystemTime) -> (Removed, io::Result<()>) {
        let mut removed = Removed::default();
        if *self == Retention::default() {
            return (removed, Ok(()));
        }
        let mut shards = match shards_of(dir, host) {
            Ok(shards) => shards,
            Err(e) => return (removed, Err(e)),
        };
        let mut all: u64 = shards.iter().map(|s| s.meta.len()).sum();
        shards.pop();
        let mut first_error = Ok(());
        for old in shards {
            let age = old.meta.modified().ok().and_then(|m| now.duration_since(m).ok()).unwrap_or_default();
            let too_old = self.max_age.is_some_and(|max| age > max);
            if !too_old && self.max_bytes.is_none_or(|max| all <= max) {
                continue;
            }
            match old.remove() {
                Ok(Some(records)) => {
                    all -= old.meta.len();
                    removed.shards += 1;
                    removed.bytes += old.meta.len();
                    removed.records += records;
                }
                Ok(None) => {}
                Err(e) => first_error = first_error.and(Err(e)),
            }
        }
        (removed, first_error)
    }
}

impl Old {
    /// Removes it, and says how many records were in it; `None` if a run writes it.
    fn remove(&self) -> io::Result<Option<u64>> {
        let locked = match Flock::lock(File::open(&self.path)?, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => locked,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            // Nobody can say whether it is written.
            Err((_, e)) => return Err(e.into()),
        };
        let records = self.records().unwrap_or(0);
        std::fs::remove_file(&self.path)?;
        drop(locked);
        Ok(Some(records))
    }

    fn records(&self) -> Option<u64> {
        let reader = ShardReader::open(&self.path).ok()?;
        match reader.closing().ok()? {
            Some(closing) => Some(closing.records),
            None => Some(reader.index().ok()?.frames.iter().map(|f| u64::from(f.records())).sum()),
        }
    }
}

/// The shards of a host, oldest first.
fn shards_of(dir: &Path, host: &str) -> io::Result<Vec<Old>> {
    let own = |entry: &DirEntry| host_of(&entry.file_name().to_string_lossy()) == Some(host);
    let mut shards = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if !own(&entry) {
            continue;
        }
        // What a name leads to elsewhere is not ours; what is gone meanwhile needs no removal.
        match entry.metadata() {
            Ok(meta) if meta.is_file() => shards.push(Old { path: entry.path(), meta }),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    shards.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(shards)
}
