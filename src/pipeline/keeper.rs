//! The thread that puts shards onto the disk and removes old ones, so that a slow disk stalls nobody who writes records.
//!
//! The writer leaves a file with it after each frame. A file waits once, however much was written to it meanwhile, so the ring to the
//! thread holds as many files as shards were closed while the disk hangs; one that finds no room is left to the kernel and counted.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use rtrb::{Consumer, RingBuffer};

use crate::record::{Removed, Retention, ShardFile, SyncBy};

/// Files that wait at most: 4 GiB of full shards.
const FILES: usize = 64;

/// How often it is looked whether shards must go. A shard of a flood is full in a few seconds.
const TIDY_EVERY: Duration = Duration::from_secs(5);

/// What the thread does; each call may take as long as it likes.
pub trait Disk: Send {
    /// Puts onto the disk what was written to a file.
    fn sync(&mut self, file: &ShardFile) -> io::Result<()>;
    /// Removes what is too much; with the first error.
    fn tidy(&mut self) -> (Removed, io::Result<()>);
}

/// The real one: shards of a host in a directory.
pub struct ShardDisk {
    /// The directory.
    pub dir: PathBuf,
    /// The host, as it is in the names of shards.
    pub host: String,
    /// How much of them is kept.
    pub retention: Retention,
}

impl Disk for ShardDisk {
    fn sync(&mut self, file: &ShardFile) -> io::Result<()> {
        file.sync()
    }

    fn tidy(&mut self) -> (Removed, io::Result<()>) {
        self.retention.apply(&self.dir, &self.host, SystemTime::now())
    }
}

/// What the thread did.
#[derive(Debug, Default)]
pub struct KeeperTotals {
    shards: AtomicU64,
    bytes: AtomicU64,
    records: AtomicU64,
    /// Files that found no room to wait: the kernel writes them when it likes.
    pub left: AtomicU64,
    sync_error: OnceLock<io::Error>,
    tidy_error: OnceLock<io::Error>,
}

impl KeeperTotals {
    /// What was removed.
    pub fn removed(&self) -> Removed {
        let of = |n: &AtomicU64| n.load(Ordering::Acquire);
        // Shards last, as they are counted last: what they held is counted then.
        let shards = of(&self.shards);
        Removed { shards, bytes: of(&self.bytes), records: of(&self.records) }
    }

    /// The first error of a sync: what was written before it may not survive a power cut.
    pub fn sync_error(&self) -> Option<&io::Error> {
        self.sync_error.get()
    }

    /// The first error of a removal.
    pub fn tidy_error(&self) -> Option<&io::Error> {
        self.tidy_error.get()
    }
}

/// A running thread.
pub struct Keeper {
    thread: JoinHandle<()>,
    totals: Arc<KeeperTotals>,
}

impl Keeper {
    /// Starts it; with what the writer leaves files by.
    pub fn start(disk: impl Disk + 'static) -> io::Result<(Keeper, SyncBy)> {
        let (mut files, ring) = RingBuffer::new(FILES);
        let totals = Arc::<KeeperTotals>::default();
        let own = totals.clone();
        let thread = std::thread::Builder::new().name("syntap-keeper".into());
        let thread = thread.spawn(move || keep(disk, ring, &own))?;
        let (wake, left) = (thread.thread().clone(), totals.clone());
        let sync = move |file: ShardFile| {
            if !file.wait() {
                return;
            }
            if files.push(file).is_err() {
                left.left.fetch_add(1, Ordering::Relaxed);
            }
            wake.unpark();
        };
        Ok((Keeper { thread, totals }, Box::new(sync)))
    }

    /// What it did so far.
    pub fn totals(&self) -> &Arc<KeeperTotals> {
        &self.totals
    }

    /// Waits until all that was left with it is on the disk. The other end must be gone.
    pub fn finish(self) -> Arc<KeeperTotals> {
        self.thread.thread().unpark();
        if self.thread.join().is_err() {
            let _ = self.totals.sync_error.set(io::Error::other("its thread panicked"));
        }
        self.totals
    }
}

/// Ends when the ring is empty and its other end gone.
fn keep(mut disk: impl Disk, mut files: Consumer<ShardFile>, totals: &KeeperTotals) {
    let mut tidied: Option<Instant> = None;
    loop {
        // Asked before the ring is emptied: nothing can come after an abandoned ring was found empty.
        let last = files.is_abandoned();
        while let Ok(file) = files.pop() {
            if let Err(e) = disk.sync(&file) {
                let _ = totals.sync_error.set(e);
            }
        }
        if last || tidied.is_none_or(|t| t.elapsed() >= TIDY_EVERY) {
            tidied = Some(Instant::now());
            let (removed, result) = disk.tidy();
            totals.records.fetch_add(removed.records, Ordering::Release);
            totals.bytes.fetch_add(removed.bytes, Ordering::Release);
            totals.shards.fetch_add(removed.shards, Ordering::Release);
            if let Err(e) = result {
                let _ = totals.tidy_error.set(e);
            }
        }
        if last {
            return;
        }
        std::thread::park_timeout(TIDY_EVERY);
    }
}
