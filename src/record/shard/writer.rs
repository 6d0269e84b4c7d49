//! Records into frames into shards.

use std::fs::OpenOptions;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::ShardError;
use super::file::ShardFile;
use super::head::{HEAD, Head};
use super::names::host_in_name;
use crate::record::Record;

/// Raw bytes after which a frame is written: large enough to compress well (256 KiB cost 4 % more on the disk, 1 MiB 3 % less), small
/// enough that a torn one is little.
const FRAME_BYTES: usize = 512 * 1024;

/// Raw bytes that are kept at most while frames cannot be written.
const KEPT_BYTES: usize = 4 * FRAME_BYTES;

/// zstd's level where records come in floods: the fastest, and of its levels below 5 the one that packs records best. It takes a
/// third of a core for 100,000 records a second.
const FLOOD_LEVEL: i32 = 1;

/// The level where there is time: a fifth smaller, at a fifth of the speed (about 100 MB/s).
const LEVEL: i32 = 6;

/// Raw bytes a second from which on it is a flood: [`LEVEL`] takes less than a tenth of a core below.
const FLOOD: u128 = 8_000_000;

/// Age after which a frame is written, however small: what the end of the process costs.
const FRAME_AGE: Duration = Duration::from_secs(1);

/// How shards are cut.
#[derive(Clone, Copy, Debug)]
pub struct ShardOptions {
    /// Compressed bytes after which a new shard begins.
    pub max_bytes: u64,
    /// Age after which a new shard begins.
    pub max_age: Duration,
}

impl Default for ShardOptions {
    fn default() -> Self {
        // An hour is the partition of the export; 64 MiB is a comfortable copy.
        ShardOptions { max_bytes: 64 << 20, max_age: Duration::from_secs(3600) }
    }
}

/// Writes records into shards of one directory.
pub struct ShardWriter {
    dir: PathBuf,
    host: String,
    options: ShardOptions,
    sync: Option<SyncBy>,
    open: Option<Open>,
    sequence: u32,
    buffer: Vec<u8>,
    /// Compresses all frames: its tables are taken once.
    packer: zstd::bulk::Compressor<'static>,
    /// The frame last written, with its head: room for the next.
    frame: Vec<u8>,
    records: u32,
    since: Instant,
    /// Times of the first and last record in the buffer, ns since the epoch.
    span: (u64, u64),
    lost: LostRecords,
    written: Written,
    /// Shards that somebody removed while they were written,
    removed: u64,
    /// and when that was looked for.
    looked: Instant,
    /// Why the last attempt to write failed, if it did.
    trouble: Option<io::Error>,
    /// Why the records that are lost are lost.
    lost_because: Option<io::Error>,
}

/// Records that could not be written, and their times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LostRecords {
    /// How many.
    pub records: u64,
    /// The first of them, ns since the epoch; 0 without any.
    pub first_ns: u64,
    /// The last of them.
    pub last_ns: u64,
}

/// Sees to it that a shard gets onto the disk, and does not wait for it.
pub type SyncBy = Box<dyn FnMut(ShardFile) + Send>;
/// What was written into shards since the writer was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Records, in whole frames.
    pub records: u64,
    /// Bytes of these frames.
    pub bytes: u64,
    /// Shards begun.
    pub shards: u64,
}

struct Open {
    file: ShardFile,
    bytes: u64,
    /// Records in its frames.
    records: u64,
    /// Times that they lie in.
    span: Option<(u64, u64)>,
    since: Instant,
}

impl ShardWriter {
    /// Checks that the directory is there and can be written to; the first shard is made with the first record.
    pub fn create(dir: &Path, host: &str, options: ShardOptions) -> Result<ShardWriter, ShardError> {
        let failed = |operation, source| ShardError::Io { operation, path: dir.into(), source };
        let meta = std::fs::metadata(dir).map_err(|e| failed("write records into", e))?;
        if !meta.is_dir() {
            return Err(failed("write records into", io::Error::from_raw_os_error(libc::ENOTDIR)));
        }
        // A directory without room or rights is found now, not at the first anomaly in the night.
        let probe = dir.join(format!(".syntap-probe-{}", std::process::id()));
        // One of a run that died; and whatever else has that name, which is not to be written to, nor what it leads to.
        let _ = std::fs::remove_file(&probe);
        let probed = OpenOptions::new().write(true).create_new(true).mode(0o640).open(&probe);
        let probed = probed.and_then(|mut f| f.write_all(&[0; 4096]));
        let _ = std::fs::remove_file(&probe);
        probed.map_err(|e| failed("write records into", e))?;
        Ok(ShardWriter {
            dir: dir.into(),
            host: host_in_name(host),
            options,
            sync: None,
            open: None,
            sequence: 0,
            buffer: Vec::with_capacity(FRAME_BYTES + 64 * 1024),
            packer: packer().map_err(|e| failed("compress records for", e))?,
            frame: Vec::new(),
            records: 0,
            since: Instant::now(),
            span: (0, 0),
            lost: LostRecords::default(),
            written: Written::default(),
            removed: 0,
            looked: Instant::now(),
            trouble: None,
            lost_because: None,
        })
    }

    /// Leaves it to another to put shards onto the disk: it is told after each frame and when a shard is closed. By itself a writer
    /// does so when a shard is closed, and waits.
    pub fn sync_by(&mut self, sync: SyncBy) {
        self.sync = Some(sync);
    }

    /// The host, as it is in the names of shards.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Begins the first shard, with an empty frame: so that a run in which nothing went wrong can be told from none.
    pub fn begin_first(&mut self) -> Result<(), ShardError> {
        let path = self.dir.clone();
        self.write_frame().map_err(|source| ShardError::Io { operation: "write records into", path, source })
    }

    /// Takes a record; writes a frame when enough have come. A frame that cannot be written is kept and tried again
    /// until it has grown fourfold; then its records are counted as lost.
    pub fn push(&mut self, record: &Record) -> io::Result<()> {
        if self.records == 0 {
            self.since = Instant::now();
            self.span = (u64::MAX, 0);
        }
        let (first, last) = self.span;
        self.span =
            (first.min(record.first_ns).min(record.ts_ns), last.max(record.last_ns).max(record.ts_ns));
        record.write_line(&mut self.buffer);
        self.records += 1;
        // A frame that could not be written is tried again each second, not with each record.
        let wait = self.trouble.is_some() && self.since.elapsed() < FRAME_AGE;
        if self.buffer.len() >= if wait { KEPT_BYTES } else { FRAME_BYTES } {
            self.flush();
        }
        Ok(())
    }

    /// Lets time pass: writes what is old enough, ends a shard that is.
    pub fn tick(&mut self) {
        if self.records > 0 {
            if self.since.elapsed() >= FRAME_AGE {
                self.flush();
            }
        } else if self.looked.elapsed() >= FRAME_AGE {
            // Nothing to write, perhaps for long: whether it could be is found out now.
            self.looked = Instant::now();
            if self.let_go_if_removed() || (self.open.is_none() && self.trouble.is_some()) {
                self.trouble = self.write_frame().err();
            }
        }
        if self.open.as_ref().is_some_and(|o| o.since.elapsed() >= self.options.max_age) {
            self.rotate();
        }
    }

    /// Records that could not be written, and why the last attempt failed, if it did.
    pub fn trouble(&self) -> (u64, Option<&io::Error>) {
        (self.lost.records, self.trouble.as_ref())
    }

    /// Shards that somebody removed while they were written; each time a new one was begun, or that is the trouble.
    pub fn removed(&self) -> u64 {
        self.removed
    }

    /// What was written so far.
    pub fn written(&self) -> Written {
        self.written
    }

    /// Records that could not be written, with their times.
    pub fn lost(&self) -> LostRecords {
        self.lost
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes the rest. An error says how much could not be written since the writer was made.
    pub fn close(mut self) -> Result<(), ShardError> {
        self.end();
        let path = std::mem::take(&mut self.dir);
        match self.lost_because.take() {
            Some(source) => Err(ShardError::Lost { records: self.lost.records, path, source }),
            // Everything was written; whether it is on the disk nobody knows.
            None => match self.trouble.take() {
                Some(source) => Err(ShardError::Io { operation: "write all records into", path, source }),
                None => Ok(()),
            },
        }
    }

    /// Writes the rest, counts what cannot be, and closes the shard.
    fn end(&mut self) {
        if self.records > 0 {
            self.flush();
        }
        if self.records > 0 {
            self.give_up();
        }
        self.rotate();
    }

    /// Writes what waits as a frame, however small.
    pub fn flush(&mut self) {
        if self.records == 0 {
            return;
        }
        match self.write_frame() {
            Ok(()) => self.trouble = None,
            Err(e) => {
                self.trouble = Some(e);
                self.since = Instant::now();
                if self.buffer.len() >= KEPT_BYTES {
                    self.give_up();
                }
                return;
            }
        }
        self.buffer.clear();
        self.records = 0;
    }

    /// Counts what is in the buffer as lost.
    fn give_up(&mut self) {
        let (first, last) = self.span;
        let before = self.lost;
        self.lost = LostRecords {
            records: before.records + u64::from(self.records),
            first_ns: if before.records == 0 { first } else { before.first_ns.min(first) },
            last_ns: before.last_ns.max(last),
        };
        self.lost_because = self.trouble.as_ref().map(again);
        self.buffer.clear();
        self.records = 0;
    }

    /// Whether somebody removed the shard that is being written; it is let go then.
    fn let_go_if_removed(&mut self) -> bool {
        let removed = self.open.as_ref().is_some_and(|open| open.file.is_removed());
        if removed {
            self.open = None;
            self.removed += 1;
        }
        removed
    }

    fn write_frame(&mut self) -> io::Result<()> {
        self.let_go_if_removed();
        self.pack()?;
        if self.open.is_none() {
            self.open = Some(self.begin()?);
            self.written.shards += 1;
        }
        let frame = &self.frame;
        let Some(open) = &mut self.open else { return Ok(()) };
        if let Err(e) = open.file.file().write_all(frame) {
            // Nothing half-written stays. If even that fails, the next shard begins clean.
            let mut file = open.file.file();
            if file.set_len(open.bytes).and_then(|()| file.seek(SeekFrom::Start(open.bytes))).is_err() {
                self.open = None;
            }
            return Err(e);
        }
        open.bytes += frame.len() as u64;
        if self.records > 0 {
            let (first, last) = self.span;
            open.records += u64::from(self.records);
            open.span = Some(open.span.map_or(self.span, |s| (s.0.min(first), s.1.max(last))));
        }
        self.written.bytes += frame.len() as u64;
        self.written.records += u64::from(self.records);
        if open.bytes >= self.options.max_bytes {
            self.rotate();
        } else if let Some(sync) = &mut self.sync {
            sync(open.file.clone());
        }
        Ok(())
    }

    /// Makes the frame of what is in the buffer.
    fn pack(&mut self) -> io::Result<()> {
        let before = self.open.as_ref().map_or(0, |o| o.records);
        let span = if self.records > 0 { self.span } else { (0, 0) };
        let ShardWriter { buffer, packer, frame, .. } = self;
        let flood = buffer.len() as u128 * 1_000 > FLOOD * self.since.elapsed().as_millis();
        packer.set_compression_level(if flood { FLOOD_LEVEL } else { LEVEL })?;
        frame.resize(HEAD + zstd::zstd_safe::compress_bound(buffer.len()), 0);
        let len = packer.compress_to_buffer(buffer, &mut frame[HEAD..])?;
        frame.truncate(HEAD + len);
        let head = Head::of(&frame[HEAD..], self.records, before, span);
        frame[..HEAD].copy_from_slice(&head.bytes());
        Ok(())
    }

    fn begin(&mut self) -> io::Result<Open> {
        let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        loop {
            let name = format!("syntap-{}-{time}-{:04}.jsonl.zst", self.host, self.sequence);
            self.sequence += 1;
            let path = self.dir.join(name);
            match ShardFile::create(path) {
                Ok(file) => {
                    return Ok(Open { file, bytes: 0, records: 0, span: None, since: Instant::now() });
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && self.sequence < 10_000 => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn rotate(&mut self) {
        if let Some(open) = self.open.take() {
            if open.bytes == 0 {
                let _ = std::fs::remove_file(open.file.path());
                return;
            }
            let mut file = open.file.file();
            let end = Head::closing(open.bytes, open.records, open.span.unwrap_or_default()).bytes();
            // Without room for its end a shard is as one whose run was killed: nothing else is lost.
            if file.write_all(&end).is_err() {
                let _ = file.set_len(open.bytes);
            }
            match &mut self.sync {
                Some(sync) => sync(open.file),
                None => {
                    if let Err(e) = open.file.sync() {
                        self.trouble = Some(e);
                    }
                }
            }
        }
    }
}

/// What was pushed is written, also where an error elsewhere ends the run.
impl Drop for ShardWriter {
    fn drop(&mut self) {
        self.end();
    }
}

/// The same error once more; `io::Error` cannot be cloned.
fn again(e: &io::Error) -> io::Error {
    e.raw_os_error().map_or_else(|| io::Error::new(e.kind(), e.to_string()), io::Error::from_raw_os_error)
}

fn packer() -> io::Result<zstd::bulk::Compressor<'static>> {
    let mut packer = zstd::bulk::Compressor::new(FLOOD_LEVEL)?;
    packer.set_parameter(zstd::zstd_safe::CParameter::ChecksumFlag(true))?;
    Ok(packer)
}
