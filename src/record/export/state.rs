//! What of which shard is exported, and how a batch of files becomes part of an export, or does not.
//!
//! A batch is first written under names that no reader takes (`.NAME.part`), each file made durable; then the state says which files
//! these are and how far their shard is exported with them; then they get their names; then the state forgets the list. Whatever
//! ends the program in between, the next one either finds a list and finishes what it says, or none, and begins that shard's rest
//! anew. So a record is exported once. Two programs at once are kept apart by a lock on the directory's state.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Its name; Spark and others pass over what begins with `_`.
const STATE: &str = "_syntap-export.json";

/// How far a shard is exported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Bytes from its beginning to where reading goes on.
    pub bytes: u64,
    /// Records behind that which are exported: whole frames behind a damaged stretch, which may be one that grows.
    #[serde(default)]
    pub records_behind: u64,
    /// Its length then.
    pub length: u64,
    /// CRC-32 of its first bytes, up to 4096: another file of that name is not taken for it.
    pub crc: u32,
    /// Records exported of it.
    pub records: u64,
}

/// Contents of the state file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// What is exported: format and filters. Other ones make another export.
    what: String,
    /// By the shard's name.
    shards: BTreeMap<String, Position>,
    /// Files that are whole and not yet under their names, relative to the directory.
    pending: Vec<PathBuf>,
}

/// Why an export cannot go on here.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system refused.
    #[error("cannot write {path}: {source}")]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another program is at it.
    #[error("another export into {0} is running")]
    Locked(PathBuf),
    /// The directory holds something else.
    #[error("{dir} holds an export of {there}, not of {asked}")]
    Other {
        /// The directory.
        dir: PathBuf,
        /// What it holds.
        there: String,
        /// What was asked for.
        asked: String,
    },
    /// The state cannot be read.
    #[error("{path} cannot be understood: {source}")]
    Odd {
        /// The state file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

impl StateError {
    /// The way out.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            StateError::Io { .. } => None,
            StateError::Locked(_) => Some("wait for it; the lock goes with its program"),
            StateError::Other { .. } => {
                Some("export into another directory, or with the same options as before")
            }
            StateError::Odd { .. } => Some("export everything into a new directory"),
        }
    }
}

/// A directory that records are exported into, locked.
pub struct ExportDir {
    dir: PathBuf,
    state: State,
    _lock: nix::fcntl::Flock<File>,
    /// Files of the batch at hand.
    parts: Vec<PathBuf>,
}

impl ExportDir {
    /// Opens or begins an export of `what`; finishes a batch that was cut off while its files got their names.
    pub fn open(dir: &Path, what: &str) -> Result<ExportDir, StateError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| StateError::Io { path, source }
        };
        std::fs::create_dir_all(dir).map_err(failed(dir))?;
        let lock_path = dir.join("_syntap-export.lock");
        let lock = File::options().create(true).append(true).open(&lock_path).map_err(failed(&lock_path))?;
        let lock = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusiveNonblock)
            .map_err(|_| StateError::Locked(dir.into()))?;
        let path = dir.join(STATE);
        let mut text = String::new();
        let state = match File::open(&path).and_then(|mut f| f.read_to_string(&mut text)) {
            Ok(_) => serde_json::from_str(&text)
                .map_err(|source| StateError::Odd { path: path.clone(), source })?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => State { what: what.into(), ..State::default() },
            Err(e) => return Err(failed(&path)(e)),
        };
        if state.what != what {
            return Err(StateError::Other { dir: dir.into(), there: state.what, asked: what.into() });
        }
        let mut own = ExportDir { dir: dir.into(), state, _lock: lock, parts: Vec::new() };
        own.name_pending().and_then(|()| own.save()).map_err(failed(dir))?;
        Ok(own)
    }

    /// How far a shard is exported.
    pub fn position(&self, shard: &str) -> Option<&Position> {
        self.state.shards.get(shard)
    }

    /// Begins a file of the batch under `name`, relative to the directory.
    pub fn begin(&mut self, name: &Path) -> io::Result<File> {
        let part = self.dir.join(part_of(name));
        if let Some(dir) = part.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let file = File::options().write(true).create(true).truncate(true).open(part)?;
        self.parts.push(name.into());
        Ok(file)
    }

    /// Gives the batch up.
    pub fn give_up(&mut self) {
        for name in self.parts.drain(..) {
            let _ = std::fs::remove_file(self.dir.join(part_of(&name)));
        }
    }

    /// All files of the batch are written: makes them part of the export, and the shard exported up to `position`.
    pub fn commit(&mut self, shard: &str, position: Position) -> io::Result<()> {
        for name in &self.parts {
            File::open(self.dir.join(part_of(name)))?.sync_all()?;
        }
        self.state.shards.insert(shard.to_owned(), position);
        self.state.pending = std::mem::take(&mut self.parts);
        self.save()?;
        self.name_pending()?;
        self.save()
    }

    /// Gives pending files their names; one that has it already is done.
    fn name_pending(&mut self) -> io::Result<()> {
        for name in std::mem::take(&mut self.state.pending) {
            let (from, to) = (self.dir.join(part_of(&name)), self.dir.join(&name));
            match std::fs::rename(&from, &to) {
                // It has its name, or somebody took it away.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                renamed => renamed?,
            }
            if let Some(dir) = to.parent() {
                File::open(dir)?.sync_all()?;
            }
        }
        Ok(())
    }

    fn save(&self) -> io::Result<()> {
        let (part, path) = (self.dir.join(format!(".{STATE}.part")), self.dir.join(STATE));
        let mut file = File::create(&part)?;
        file.write_all(&serde_json::to_vec_pretty(&self.state)?)?;
        file.sync_all()?;
        std::fs::rename(&part, &path)?;
        File::open(&self.dir)?.sync_all()
    }
}

/// A batch that is given up leaves nothing.
impl Drop for ExportDir {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// What a file is called until it is whole.
fn part_of(name: &Path) -> PathBuf {
    let last = name.file_name().unwrap_or_default().to_string_lossy();
    name.with_file_name(format!(".{last}.part"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).expect("readable");
        let mut names: Vec<_> =
            entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.retain(|n| !n.starts_with("_syntap"));
        names.sort();
        names
    }

    #[test]
    fn a_batch_that_was_cut_off_before_its_commit_leaves_nothing_and_after_it_is_finished() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = Position { bytes: 10, records: 2, ..Position::default() };
        let mut export = ExportDir::open(dir.path(), "x").expect("opened");
        std::io::Write::write_all(&mut export.begin(Path::new("a")).expect("begun"), b"1").expect("written");
        // Killed: not even dropped.
        let ExportDir { state, .. } = &mut export;
        assert!(state.shards.is_empty());
        std::mem::take(&mut export.parts);
        drop(export);
        assert_eq!(files(dir.path()), [".a.part"]);
        let mut export = ExportDir::open(dir.path(), "x").expect("opened");
        assert_eq!(export.position("s"), None, "begins anew");
        export.begin(Path::new("a")).expect("begun");
        export.begin(Path::new("b")).expect("begun");
        // Killed between the two names.
        export.state.shards.insert("s".into(), at.clone());
        export.state.pending = std::mem::take(&mut export.parts);
        export.save().expect("saved");
        std::fs::rename(dir.path().join(".a.part"), dir.path().join("a")).expect("renamed");
        drop(export);
        let export = ExportDir::open(dir.path(), "x").expect("opened");
        assert_eq!(files(dir.path()), ["a", "b"]);
        assert_eq!(export.position("s"), Some(&at));
        assert!(matches!(ExportDir::open(dir.path(), "x"), Err(StateError::Locked(_))));
        drop(export);
        assert!(matches!(ExportDir::open(dir.path(), "y"), Err(StateError::Other { .. })));
    }
}
