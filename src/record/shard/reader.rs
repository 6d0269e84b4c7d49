//! Frames of a shard: forwards, backwards, and only those of a time.
//!
//! ```no_run
//! # use syntap::record::ShardReader;
//! # fn main() -> Result<(), syntap::record::ShardError> {
//! let shard = ShardReader::open("syntap-gateway-20261124T141752Z-0000.jsonl.zst".as_ref())?;
//! let mut frames = shard.frames()?.since(1_795_529_872_000_000_000);
//! for frame in &mut frames {
//!     let frame = frame?;
//!     for line in frame.lines() { /* one JSON object */ }
//! }
//! let lost = frames.state().lost_bytes;
//! # Ok(()) }
//! ```
//!
//! To share the work out, take [`ShardReader::index`] and have each thread [`ShardReader::read`] frames of it, with an [`Unpacker`]
//! of its own: a reader is shared by reference. No more is held in memory than the index (64 bytes a frame) and the frame at hand.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::head::{HEAD, Head, MAX_FRAME};
use super::walk::{Input, Lost, Step, Walk};
use super::{ShardError, ShardState};

/// Raw bytes of a frame that a reader believes: 16 times what the largest frame of a writer holds is far below.
const MAX_RAW: usize = 256 << 20;

/// Magic number of a zstd frame.
const ZSTD: [u8; 4] = 0xfd2f_b528u32.to_le_bytes();

/// Where a frame is, and what its head says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameAt {
    /// Offset of its head.
    pub at: u64,
    pub(super) head: Head,
    pub(super) head_len: u8,
}

impl FrameAt {
    /// Bytes, head and data.
    pub fn size(&self) -> u64 {
        u64::from(self.head_len) + u64::from(self.head.len)
    }

    /// Records in it.
    pub fn records(&self) -> u32 {
        self.head.records
    }

    /// No record in it begins before or ends after these times, ns since the epoch. `None` of a schema that did not say, and
    /// without records.
    pub fn span(&self) -> Option<(u64, u64)> {
        self.head.span.filter(|_| self.head.records > 0)
    }

    /// Version of its head and records.
    pub fn schema(&self) -> u32 {
        self.head.schema
    }

    /// Whether a record of it may touch the time from `since` to `until`. A frame without records is of time 0.
    pub fn may_be_within(&self, since: u64, until: u64) -> bool {
        self.head.span.is_none_or(|(first, last)| last >= since && first <= until)
    }

    fn data(&self, input: &Input<'_>, to: &mut Vec<u8>) -> io::Result<bool> {
        to.resize(self.head.len as usize, 0);
        let got = input.read_at(to, self.at + u64::from(self.head_len))?;
        Ok(got == to.len() && to.starts_with(&ZSTD) && crc32fast::hash(to) == self.head.crc)
    }

    /// Whether its data is what its head says.
    pub(super) fn is_whole(&self, input: &Input<'_>) -> io::Result<bool> {
        self.data(input, &mut Vec::new())
    }
}

/// A whole frame: lines of JSON, a record each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Offset of its head in the shard.
    pub at: u64,
    /// Version of its records.
    pub schema: u32,
    /// No record of it has a `first_ns` or `ts_ns` before this, ns since the epoch; 0 without records.
    pub first_ns: u64,
    /// No record of it has a `last_ns` or `ts_ns` after this.
    pub last_ns: u64,
    /// Records in it, as its head says.
    pub records: u32,
    /// The lines, each with its end.
    pub bytes: Vec<u8>,
}

impl Frame {
    /// Its lines, oldest first, without their ends.
    pub fn lines(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.bytes.split(|&b| b == b'\n').filter(|l| !l.is_empty())
    }
}

/// What the heads of a shard say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// Frames, in the order in which they were written.
    pub frames: Vec<FrameAt>,
    /// What belongs to no frame. Frames whose data is damaged are not among it: that shows when they are read.
    pub lost: Vec<Lost>,
    /// The shard was closed by its writer. If not, its run still writes it or was killed, or its end is lost.
    pub closed: bool,
    /// A run is writing it now.
    pub written: bool,
    /// Where what was looked at ends: the length of the file, or where a frame begins that a run is writing now.
    pub end: u64,
}

/// What a closed shard says of itself at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closing {
    /// Records in it.
    pub records: u64,
    /// Times that they lie in, ns since the epoch; `None` without records.
    pub span: Option<(u64, u64)>,
    /// Its length.
    pub end: u64,
}

/// Takes frames apart; its tables are taken once.
pub struct Unpacker {
    zstd: zstd::bulk::Decompressor<'static>,
    data: Vec<u8>,
}

impl Unpacker {
    /// With nothing in it.
    pub fn new() -> io::Result<Unpacker> {
        Ok(Unpacker { zstd: zstd::bulk::Decompressor::new()?, data: Vec::new() })
    }

    fn unpack(&mut self) -> Option<Vec<u8>> {
        let Unpacker { zstd, data } = self;
        match zstd::zstd_safe::get_frame_content_size(data) {
            Ok(Some(len)) if len <= MAX_RAW as u64 => zstd.decompress(data, len as usize).ok(),
            Ok(Some(_)) | Err(_) => None,
            Ok(None) => {
                let mut raw = Vec::new();
                let mut from = zstd::stream::Decoder::new(&data[..]).ok()?.take(MAX_RAW as u64 + 1);
                let len = from.read_to_end(&mut raw).ok()?;
                (len <= MAX_RAW).then_some(raw)
            }
        }
    }
}

/// A shard to be read.
pub struct ShardReader<'a> {
    input: Input<'a>,
    path: PathBuf,
}

impl ShardReader<'static> {
    /// Of a file, which may be written meanwhile.
    pub fn open(path: &Path) -> Result<ShardReader<'static>, ShardError> {
        let failed = |source| ShardError::Io { operation: "read", path: path.into(), source };
        // Looked at first: a pipe that nobody writes to would be waited for.
        let kind = std::fs::metadata(path).map_err(failed)?.file_type();
        if kind.is_dir() {
            return Err(failed(io::Error::from_raw_os_error(libc::EISDIR)));
        }
        if !kind.is_file() {
            return Err(failed(io::Error::other("a shard is read at many places, and this is no file")));
        }
        let file = File::open(path).map_err(failed)?;
        Ok(ShardReader { input: Input::File(file), path: path.into() })
    }
}

impl<'a> ShardReader<'a> {
    /// Of bytes in memory.
    pub fn of(bytes: &'a [u8]) -> ShardReader<'a> {
        ShardReader { input: Input::Bytes(bytes), path: "memory".into() }
    }

    fn failed(&self, source: io::Error) -> ShardError {
        ShardError::Io { operation: "read", path: self.path.clone(), source }
    }

    /// Goes from head to head without reading what is between: a few milliseconds for a shard of 64 MiB.
    pub fn index(&self) -> Result<Index, ShardError> {
        self.index_from(0)
    }

    /// The same from a byte on: where a frame begins, a loss does, or the shard ended when it was last read.
    pub fn index_from(&self, at: u64) -> Result<Index, ShardError> {
        self.index_of(at).map_err(|e| self.failed(e))
    }

    fn index_of(&self, from: u64) -> io::Result<Index> {
        let mut index = Index { end: self.input.len()?, ..Index::default() };
        let mut walk = Walk::from(from, index.end);
        loop {
            match walk.step(&self.input)? {
                Step::Frame(frame) => index.frames.push(frame),
                Step::Lost(lost) => index.lost.push(lost),
                Step::End(closed) => {
                    index.closed = closed;
                    // The frame that a run is writing now is not lost.
                    index.written = !closed && self.input.is_being_written();
                    let end = index.end;
                    if index.written
                        && let Some(frame) = index.lost.pop_if(|l| l.at + l.bytes == end && l.bytes > 0)
                    {
                        index.end = frame.at;
                    }
                    return Ok(index);
                }
            }
        }
    }

    /// What the head at the shard's end says of all of it; `None` if it is not closed, or of a schema that did not say.
    pub fn closing(&self) -> Result<Option<Closing>, ShardError> {
        self.closing_of().map_err(|e| self.failed(e))
    }

    fn closing_of(&self) -> io::Result<Option<Closing>> {
        let len = self.input.len()?;
        let mut b = [0; HEAD];
        let Some(at) = len.checked_sub(HEAD as u64) else { return Ok(None) };
        if self.input.read_at(&mut b, at)? < HEAD {
            return Ok(None);
        }
        Ok(Head::read_closing(&b, len).map(|head| {
            let records = head.before.unwrap_or(0);
            Closing { records, span: head.span.filter(|_| records > 0), end: len }
        }))
    }

    /// Reads a frame of the index; `None` if its data is damaged.
    pub fn read(&self, frame: &FrameAt, with: &mut Unpacker) -> Result<Option<Frame>, ShardError> {
        if !frame.data(&self.input, &mut with.data).map_err(|e| self.failed(e))? {
            return Ok(None);
        }
        let Some(bytes) = with.unpack() else { return Ok(None) };
        let FrameAt { at, head, .. } = *frame;
        let (first_ns, last_ns) = head.span.unwrap_or_else(|| span_of(&bytes));
        Ok(Some(Frame { at, schema: head.schema, first_ns, last_ns, records: head.records, bytes }))
    }

    /// All whole frames, in the order in which they were written.
    pub fn frames(&self) -> Result<Frames<'_>, ShardError> {
        self.frames_from(0)
    }

    /// The same from a byte on: see [`ShardReader::index_from`].
    pub fn frames_from(&self, at: u64) -> Result<Frames<'_>, ShardError> {
        let index = self.index_from(at)?;
        Ok(Frames {
            state: ShardState::of(&index),
            ahead: index.frames.into_iter(),
            reader: self,
            with: Unpacker::new().map_err(|e| self.failed(e))?,
            newest_first: false,
            within: (0, u64::MAX),
        })
    }
}

/// Whole frames of a shard, one after the other; each is read and unpacked when its turn comes. An error of the system ends them.
pub struct Frames<'a> {
    reader: &'a ShardReader<'a>,
    ahead: std::vec::IntoIter<FrameAt>,
    with: Unpacker,
    newest_first: bool,
    within: (u64, u64),
    state: ShardState,
}

impl Frames<'_> {
    /// Goes on with the newest of those left, and backwards from there. The lines of each frame remain oldest first: see
    /// [`Frame::lines`].
    pub fn newest_first(mut self) -> Self {
        self.newest_first = true;
        self
    }

    /// Passes over frames that end before this, ns since the epoch, without reading them.
    pub fn since(mut self, ns: u64) -> Self {
        self.within.0 = ns;
        self
    }

    /// Passes over frames that begin after this.
    pub fn until(mut self, ns: u64) -> Self {
        self.within.1 = ns;
        self
    }

    /// What was found so far: losses between frames at once, those within frames as they are come by.
    pub fn state(&self) -> &ShardState {
        &self.state
    }

    pub(super) fn state_mut(&mut self) -> &mut ShardState {
        &mut self.state
    }
}

impl Iterator for Frames<'_> {
    type Item = Result<Frame, ShardError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let at = if self.newest_first { self.ahead.next_back() } else { self.ahead.next() }?;
            let (since, until) = self.within;
            if !at.may_be_within(since, until) {
                self.state.pass(&at);
                continue;
            }
            match self.reader.read(&at, &mut self.with) {
                Ok(Some(frame)) if frame.records > 0 && (frame.last_ns < since || frame.first_ns > until) => {
                    self.state.pass(&at);
                }
                Ok(Some(frame)) => {
                    self.state.frames += 1;
                    return Some(Ok(frame));
                }
                Ok(None) => {
                    let records = u64::from(at.records());
                    self.state.add(Lost { at: at.at, bytes: at.size(), records, exact: true });
                }
                Err(e) => {
                    self.ahead = Vec::new().into_iter();
                    return Some(Err(e));
                }
            }
        }
    }
}

/// The times that lines of a schema without them in its heads lie in.
fn span_of(lines: &[u8]) -> (u64, u64) {
    let lines = lines.split(|&b| b == b'\n').filter(|l| !l.is_empty());
    let spans = lines.filter_map(|line| {
        let [ts, first, last] = ["ts_ns", "first_ns", "last_ns"].map(|name| number(line, name));
        Some((first?.min(ts?), last?.max(ts?)))
    });
    spans.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap_or_default()
}

/// The first number of this name in a line: within a string there are no quotes that are not escaped, and a record's own times come
/// before those of its packets.
fn number(line: &[u8], name: &str) -> Option<u64> {
    let name = format!(",\"{name}\":");
    let at = line.windows(name.len()).position(|w| w == name.as_bytes())? + name.len();
    let digits = line[at..].iter().take_while(|b| b.is_ascii_digit()).count();
    std::str::from_utf8(&line[at..at + digits]).ok()?.parse().ok()
}

/// Frames a reader believes are of a size that an index entry can hold.
const _: () = assert!(MAX_FRAME <= u32::MAX as usize);
