//! Shards: sequences of self-contained zstd frames of JSON lines.
//!
//! A frame carries its length before it (in a skippable frame, with a CRC) and a checksum of its content inside, so
//! `zstdcat` reads a shard as it is, and a reader can tell a whole frame from a torn one without trusting it. A frame
//! is appended by one write; one that fails is cut off again. So a shard cut anywhere loses its last frame at most.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Record, SCHEMA};

/// Magic number of the skippable frame in front of each data frame (zstd format, RFC 8878 section 3.1.2).
const SKIPPABLE: u32 = 0x184d_2a5a;

/// What the skippable frame holds: "SYNT", schema, length of the data frame, records in it, CRC-32 of the data frame,
/// CRC-32 of all that.
const HEAD_LEN: usize = 24;

/// Magic number of a zstd frame.
const ZSTD: u32 = 0xfd2f_b528;

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

/// Age after which a frame is written, however small: what a power cut costs.
const FRAME_AGE: Duration = Duration::from_secs(1);

/// Largest frame a reader believes.
const MAX_FRAME: usize = 64 << 20;

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

/// Why shards cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShardError {
    /// A file or directory operation failed.
    #[error("cannot {operation} {path}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// Records are gone for good.
    #[error("{records} {} could not be written into {path}: {source}", if *.records == 1 { "record" } else { "records" })]
    Lost {
        /// How many.
        records: u64,
        /// The directory.
        path: PathBuf,
        /// Why the last of them could not be written.
        source: io::Error,
    },
}

impl ShardError {
    /// The way out, if one is known.
    pub fn hint(&self) -> Option<String> {
        let (ShardError::Io { path, source, .. } | ShardError::Lost { path, source, .. }) = self;
        match source.raw_os_error() {
            Some(libc::ENOENT) => Some(format!("mkdir -p {}", path.display())),
            Some(libc::ENOTDIR) => Some("a directory is wanted".into()),
            Some(libc::ENOSPC | libc::EDQUOT) => {
                Some("make room on that file system, or write elsewhere".into())
            }
            Some(libc::EACCES | libc::EROFS) => Some("choose a directory that can be written to".into()),
            _ => None,
        }
    }
}

/// Writes records into shards of one directory.
pub struct ShardWriter {
    dir: PathBuf,
    host: String,
    options: ShardOptions,
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
    file: File,
    path: PathBuf,
    bytes: u64,
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
        let probed = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&probe);
        let probed = probed.and_then(|mut f| f.write_all(&[0; 4096]));
        let _ = std::fs::remove_file(&probe);
        probed.map_err(|e| failed("write records into", e))?;
        let host: String =
            host.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' }).collect();
        Ok(ShardWriter {
            dir: dir.into(),
            host,
            options,
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
            trouble: None,
            lost_because: None,
        })
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
            self.span = (record.ts_ns, record.ts_ns);
        }
        self.span = (self.span.0.min(record.ts_ns), self.span.1.max(record.ts_ns));
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
        if self.records > 0 && self.since.elapsed() >= FRAME_AGE {
            self.flush();
        }
        if self.open.as_ref().is_some_and(|o| o.since.elapsed() >= self.options.max_age) {
            self.rotate();
        }
    }

    /// Records that could not be written, and why the last attempt failed, if it did.
    pub fn trouble(&self) -> (u64, Option<&io::Error>) {
        (self.lost.records, self.trouble.as_ref())
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

    fn flush(&mut self) {
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

    fn write_frame(&mut self) -> io::Result<()> {
        self.pack()?;
        if self.open.is_none() {
            self.open = Some(self.begin()?);
            self.written.shards += 1;
        }
        let frame = &self.frame;
        let Some(open) = &mut self.open else { return Ok(()) };
        if let Err(e) = open.file.write_all(frame) {
            // Nothing half-written stays. If even that fails, the next shard begins clean.
            if open
                .file
                .set_len(open.bytes)
                .and_then(|()| open.file.seek(SeekFrom::Start(open.bytes)))
                .is_err()
            {
                self.open = None;
            }
            return Err(e);
        }
        open.bytes += frame.len() as u64;
        self.written.bytes += frame.len() as u64;
        self.written.records += u64::from(self.records);
        if open.bytes >= self.options.max_bytes {
            self.rotate();
        }
        Ok(())
    }

    /// Makes the frame of what is in the buffer.
    fn pack(&mut self) -> io::Result<()> {
        const HEAD: usize = 8 + HEAD_LEN;
        let ShardWriter { buffer, packer, frame, .. } = self;
        let flood = buffer.len() as u128 * 1_000 > FLOOD * self.since.elapsed().as_millis();
        packer.set_compression_level(if flood { FLOOD_LEVEL } else { LEVEL })?;
        frame.resize(HEAD + zstd::zstd_safe::compress_bound(buffer.len()), 0);
        let len = packer.compress_to_buffer(buffer, &mut frame[HEAD..])?;
        frame.truncate(HEAD + len);
        let head = head(&frame[HEAD..], self.records);
        frame[..HEAD].copy_from_slice(&head);
        Ok(())
    }

    fn begin(&mut self) -> io::Result<Open> {
        let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        loop {
            let name = format!("syntap-{}-{time}-{:04}.jsonl.zst", self.host, self.sequence);
            self.sequence += 1;
            let path = self.dir.join(name);
            match OpenOptions::new().write(true).create_new(true).mode(0o640).open(&path) {
                Ok(file) => return Ok(Open { file, path, bytes: 0, since: Instant::now() }),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && self.sequence < 10_000 => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn rotate(&mut self) {
        if let Some(open) = self.open.take() {
            if open.bytes == 0 {
                let _ = std::fs::remove_file(&open.path);
            } else if let Err(e) = open.file.sync_all() {
                self.trouble = Some(e);
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

fn head(data: &[u8], records: u32) -> [u8; 8 + HEAD_LEN] {
    let mut h = [0; 8 + HEAD_LEN];
    h[..4].copy_from_slice(&SKIPPABLE.to_le_bytes());
    h[4..8].copy_from_slice(&(HEAD_LEN as u32).to_le_bytes());
    h[8..12].copy_from_slice(b"SYNT");
    h[12..16].copy_from_slice(&SCHEMA.to_le_bytes());
    h[16..20].copy_from_slice(&(data.len() as u32).to_le_bytes());
    h[20..24].copy_from_slice(&records.to_le_bytes());
    h[24..28].copy_from_slice(&crc32fast::hash(data).to_le_bytes());
    let crc = crc32fast::hash(&h[8..28]);
    h[28..32].copy_from_slice(&crc.to_le_bytes());
    h
}

/// What a reader found of a shard besides its records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardState {
    /// Whole frames read.
    pub frames: u64,
    /// Records read.
    pub records: u64,
    /// Bytes that belong to no whole frame, and where the first of them is.
    pub lost_bytes: u64,
    /// Offset of the first lost byte.
    pub lost_at: Option<u64>,
    /// Records that frames announced and that could not be read.
    pub lost_records: u64,
    /// Lines that are not records of this version.
    pub odd_lines: u64,
}

/// Reads a shard, frame by frame; hands over each record. What is torn or flipped is passed over and said.
pub fn read_shard(path: &Path, each: &mut dyn FnMut(Record)) -> Result<ShardState, ShardError> {
    let failed = |source| ShardError::Io { operation: "read", path: path.into(), source };
    let mut bytes = Vec::new();
    File::open(path).and_then(|mut f| f.read_to_end(&mut bytes)).map_err(failed)?;
    Ok(read_bytes(&bytes, each))
}

/// The same, but hands over the lines as they are stored; `each` says whether it was a record.
pub fn read_lines(path: &Path, each: &mut dyn FnMut(&[u8]) -> bool) -> Result<ShardState, ShardError> {
    let failed = |source| ShardError::Io { operation: "read", path: path.into(), source };
    let mut bytes = Vec::new();
    File::open(path).and_then(|mut f| f.read_to_end(&mut bytes)).map_err(failed)?;
    Ok(lines_of(&bytes, each))
}

/// As [`read_shard`], over bytes in memory.
pub fn read_bytes(bytes: &[u8], each: &mut dyn FnMut(Record)) -> ShardState {
    lines_of(bytes, &mut |line| serde_json::from_slice(line).map(&mut *each).is_ok())
}

fn lines_of(bytes: &[u8], each: &mut dyn FnMut(&[u8]) -> bool) -> ShardState {
    let mut state = ShardState::default();
    let mut at = 0;
    while at < bytes.len() {
        match frame_at(&bytes[at..]) {
            Frame::Whole { len, raw } => {
                state.frames += 1;
                for line in raw.split(|&b| b == b'\n').filter(|l| !l.is_empty()) {
                    match each(line) {
                        true => state.records += 1,
                        false => state.odd_lines += 1,
                    }
                }
                at += len;
            }
            Frame::Torn { records } => {
                state.lost_at.get_or_insert(at as u64);
                state.lost_records += u64::from(records);
                // The next head is looked for from the byte after this one's beginning.
                let next = find_head(&bytes[at + 1..]).map_or(bytes.len(), |n| at + 1 + n);
                state.lost_bytes += (next - at) as u64;
                at = next;
            }
        }
    }
    state
}

enum Frame {
    Whole { len: usize, raw: Vec<u8> },
    Torn { records: u32 },
}

fn le32(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(b.get(at..at + 4)?.try_into().ok()?))
}

fn frame_at(b: &[u8]) -> Frame {
    const TORN: Frame = Frame::Torn { records: 0 };
    let Some(h) = b.get(..8 + HEAD_LEN) else { return TORN };
    let crc_fits = le32(h, 28) == Some(crc32fast::hash(&h[8..28]));
    let skippable = le32(h, 0) == Some(SKIPPABLE) && le32(h, 4) == Some(HEAD_LEN as u32);
    if !skippable || &h[8..12] != b"SYNT" || !crc_fits {
        return TORN;
    }
    let (Some(len), Some(records)) = (le32(h, 16), le32(h, 20)) else { return TORN };
    let len = len as usize;
    let torn = Frame::Torn { records };
    let Some(data) = b.get(h.len()..h.len() + len).filter(|_| len <= MAX_FRAME) else { return torn };
    if le32(data, 0) != Some(ZSTD) || le32(h, 24) != Some(crc32fast::hash(data)) {
        return torn;
    }
    let mut raw = Vec::new();
    let decoder = zstd::stream::Decoder::new(data).map(|d| d.take(16 * MAX_FRAME as u64));
    match decoder.and_then(|mut d| d.read_to_end(&mut raw)) {
        Ok(_) => Frame::Whole { len: h.len() + len, raw },
        Err(_) => torn,
    }
}

fn find_head(b: &[u8]) -> Option<usize> {
    let magic = SKIPPABLE.to_le_bytes();
    b.windows(12).position(|w| w[..4] == magic && &w[8..12] == b"SYNT")
}

/// Shards named on the command line: files as they are, directories as their shards in the order of their names.
pub fn shard_paths(args: &[PathBuf]) -> Result<Vec<PathBuf>, ShardError> {
    let mut paths = Vec::new();
    for arg in args {
        let failed = |source| ShardError::Io { operation: "read", path: arg.clone(), source };
        if !std::fs::metadata(arg).map_err(failed)?.is_dir() {
            paths.push(arg.clone());
            continue;
        }
        let mut own = Vec::new();
        for entry in std::fs::read_dir(arg).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            if name.starts_with("syntap-") && name.ends_with(".jsonl.zst") {
                own.push(path);
            }
        }
        own.sort();
        paths.extend(own);
    }
    Ok(paths)
}
