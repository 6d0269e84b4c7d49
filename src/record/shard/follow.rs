//! Records as they are written, over the ends of shards and the beginnings of new ones.

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::merge::Stored;
use super::reader::{ShardReader, Unpacker};
use super::{ShardError, shard_paths};

/// How far each shard is read.
pub struct Follower {
    named: Vec<PathBuf>,
    places: HashMap<PathBuf, Place>,
    with: Unpacker,
    /// What could not be read, until it is asked for, and the shards of which that was said.
    odd: Vec<ShardError>,
    said: HashSet<PathBuf>,
}

#[derive(Clone, Copy, Default)]
struct Place {
    /// Where the next frame begins.
    next: u64,
    /// Its length when it was looked at: without a byte more there is nothing new in it.
    len: u64,
}

impl Follower {
    /// Of the shards named, and of those that appear in the directories named, from now on.
    pub fn from_now(named: &[PathBuf]) -> Result<Follower, ShardError> {
        let mut follower = Follower::from_all(named)?;
        for path in shard_paths(named)? {
            match ShardReader::open(&path).and_then(|reader| reader.index()) {
                Ok(index) => drop(follower.places.insert(path, Place { next: index.end, len: 0 })),
                // What is odd in a directory hides nothing else.
                Err(e) if named.contains(&path) => return Err(e),
                Err(e) => follower.pass_over(path, e),
            }
        }
        Ok(follower)
    }

    /// The same from where a reading of them ended.
    pub fn from_ends(
        named: &[PathBuf],
        ends: impl Iterator<Item = (PathBuf, u64)>,
    ) -> Result<Follower, ShardError> {
        let mut follower = Follower::from_all(named)?;
        follower.places = ends.map(|(path, next)| (path, Place { next, len: 0 })).collect();
        Ok(follower)
    }

    fn from_all(named: &[PathBuf]) -> Result<Follower, ShardError> {
        let failed = |source| ShardError::Io { operation: "read", path: PathBuf::new(), source };
        Ok(Follower {
            named: named.to_vec(),
            places: HashMap::new(),
            with: Unpacker::new().map_err(failed)?,
            odd: Vec::new(),
            said: HashSet::new(),
        })
    }

    /// Shards in a directory that could not be read since the last call, each told once; one that was removed meanwhile is none.
    pub fn passed_over(&mut self) -> Vec<ShardError> {
        std::mem::take(&mut self.odd)
    }

    fn pass_over(&mut self, path: PathBuf, e: ShardError) {
        let gone = matches!(&e, ShardError::Io { source, .. } if source.kind() == ErrorKind::NotFound);
        if !gone && self.said.insert(path) {
            self.odd.push(e);
        }
    }

    /// What was written since the last call, in order of time as far as that goes. What is damaged is passed over: whoever reads the
    /// shard as a whole is told.
    pub fn poll(&mut self) -> Result<Vec<Stored>, ShardError> {
        let mut new = Vec::new();
        let paths = shard_paths(&self.named)?;
        self.places.retain(|path, _| paths.contains(path));
        self.said.retain(|path| paths.contains(path));
        for path in paths {
            match self.shard(&path, &mut new) {
                Err(e) if self.named.contains(&path) => return Err(e),
                Err(e) => self.pass_over(path, e),
                Ok(()) => {}
            }
        }
        new.sort_by_key(|s| s.record.ts_ns);
        Ok(new)
    }

    fn shard(&mut self, path: &Path, new: &mut Vec<Stored>) -> Result<(), ShardError> {
        let failed = |source| ShardError::Io { operation: "read", path: path.into(), source };
        let place = self.places.get(path).copied().unwrap_or_default();
        let len = std::fs::metadata(path).map_err(failed)?.len();
        if len == place.len {
            return Ok(());
        }
        let reader = ShardReader::open(path)?;
        let index = reader.index_from(place.next)?;
        for at in &index.frames {
            let Some(frame) = reader.read(at, &mut self.with)? else { continue };
            let stored = |line: &[u8]| {
                let record = serde_json::from_slice(line).ok()?;
                Some(Stored { line: line.to_vec(), record })
            };
            new.extend(frame.lines().filter_map(stored));
        }
        // What ends in something that is no frame may be whole the next time.
        let torn = index.lost.last().filter(|l| l.at + l.bytes == index.end && l.bytes > 0);
        let next = torn.map_or(index.end, |l| l.at);
        self.places.insert(path.into(), Place { next, len });
        Ok(())
    }
}
