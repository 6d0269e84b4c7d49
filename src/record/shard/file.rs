//! A shard's file while it is written.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{Flock, FlockArg};

/// A shard's file, locked as long as anybody holds it: so others know that it is written, and leave it alone.
#[derive(Clone)]
pub struct ShardFile(Arc<Inner>);

struct Inner {
    file: Locked,
    path: PathBuf,
    /// It waits to be synced.
    waits: AtomicBool,
    /// Its name is on the disk.
    named: AtomicBool,
}

enum Locked {
    Yes(Flock<File>),
    /// Its file system has no locks.
    No(File),
}

impl ShardFile {
    /// Makes it; an error if there is one of that name.
    pub(super) fn create(path: PathBuf) -> io::Result<ShardFile> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(&path)?;
        let file = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_or_else(|(file, _)| Locked::No(file), Locked::Yes);
        Ok(ShardFile(Arc::new(Inner {
            file,
            path,
            waits: AtomicBool::new(false),
            named: AtomicBool::new(false),
        })))
    }

    pub(super) fn file(&self) -> &File {
        match &self.0.file {
            Locked::Yes(file) => file,
            Locked::No(file) => file,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Somebody removed it: what is written into it is for nobody.
    pub(super) fn is_removed(&self) -> bool {
        self.file().metadata().is_ok_and(|m| m.nlink() == 0)
    }

    /// Notes that it waits to be synced; false if it did already.
    pub fn wait(&self) -> bool {
        !self.0.waits.swap(true, Ordering::AcqRel)
    }

    /// Puts on the disk what was written up to now, however long that takes, with its name: also that of a file that is new survives a
    /// power cut then.
    pub fn sync(&self) -> io::Result<()> {
        // What is written from here on is not promised, and may ask again.
        self.0.waits.store(false, Ordering::Release);
        self.file().sync_data()?;
        if let Some(dir) = self.path().parent()
            && !self.0.named.swap(true, Ordering::Relaxed)
        {
            match File::open(dir)?.sync_all() {
                // Not every file system can, and those that cannot do it with the file.
                Err(e) if e.kind() != io::ErrorKind::InvalidInput => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }
}
