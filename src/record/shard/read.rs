//! Records of a shard, and what of it is lost.

use std::path::Path;

use super::ShardError;
use super::reader::{Frame, FrameAt, Index, ShardReader};
use super::walk::Lost;
use crate::record::Record;

/// Losses of a shard that are told apart; what is beyond is in the sums.
const LOSSES: usize = 1_000;

/// What a reader found of a shard besides its records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardState {
    /// Whole frames read.
    pub frames: u64,
    /// Nothing of it was looked at, as nothing of it was wanted.
    pub unread: bool,
    /// Frames that were passed over, unread, because of their time.
    pub passed: u64,
    /// Records in those.
    pub passed_records: u64,
    /// Records read.
    pub records: u64,
    /// Bytes that belong to no whole frame.
    pub lost_bytes: u64,
    /// Offset of the first lost byte.
    pub lost_at: Option<u64>,
    /// Records that were in them, as far as anything says so.
    pub lost_records: u64,
    /// Whether anything says so of all of them.
    pub lost_exact: bool,
    /// How many losses there are.
    pub losses: u64,
    /// Each of them, in the order of their places; the first 1,000.
    pub lost: Vec<Lost>,
    /// Lines that are not records of this version.
    pub odd_lines: u64,
    /// The shard was closed by its writer. If not, its run still writes it or was killed, or its end is lost.
    pub closed: bool,
    /// A run is writing it now.
    pub written: bool,
    /// Where it ends, or where a frame begins that a run is writing now.
    pub end: u64,
}

impl ShardState {
    pub(super) fn of(index: &Index) -> ShardState {
        let mut state = ShardState {
            closed: index.closed,
            written: index.written,
            lost_exact: true,
            end: index.end,
            ..ShardState::default()
        };
        index.lost.iter().for_each(|l| state.add(*l));
        state
    }

    pub(super) fn add(&mut self, lost: Lost) {
        self.losses += 1;
        self.lost_bytes += lost.bytes;
        self.lost_records = self.lost_records.saturating_add(lost.records);
        self.lost_exact &= lost.exact;
        self.lost_at = Some(self.lost_at.map_or(lost.at, |at| at.min(lost.at)));
        if self.lost.len() < LOSSES {
            let place = self.lost.partition_point(|l| l.at < lost.at);
            self.lost.insert(place, lost);
        }
    }

    pub(super) fn pass(&mut self, frame: &FrameAt) {
        self.passed += 1;
        self.passed_records += u64::from(frame.records());
    }

    /// Whether its run has written nothing into it yet, or was killed before it did.
    pub fn is_empty(&self) -> bool {
        !self.unread && self.end == 0 && self.is_whole()
    }

    /// Whether nothing is missing.
    pub fn is_whole(&self) -> bool {
        self.lost_at.is_none()
    }
}

/// Reads a shard, frame by frame; hands over each record. What is torn or flipped is passed over and said.
pub fn read_shard(path: &Path, each: &mut dyn FnMut(Record)) -> Result<ShardState, ShardError> {
    records(&ShardReader::open(path)?, 0, &mut |_, record| each(record))
}

/// As [`read_shard`], from a byte on, where a frame begins, a loss does, or the shard ended when it was last read. With the offset of the
/// frame that a record is in.
pub fn read_from(path: &Path, at: u64, each: &mut dyn FnMut(u64, Record)) -> Result<ShardState, ShardError> {
    records(&ShardReader::open(path)?, at, each)
}

/// As [`read_shard`], but hands over the lines as they are stored, of frames that may hold something from one time to another (ns
/// since the epoch); `each` says whether it was a record.
pub fn read_lines(
    path: &Path,
    within: (u64, u64),
    each: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<ShardState, ShardError> {
    lines(&ShardReader::open(path)?, 0, within, &mut |_, line| each(line))
}

/// As [`read_shard`], over bytes in memory.
pub fn read_bytes(bytes: &[u8], each: &mut dyn FnMut(Record)) -> ShardState {
    // Memory gives no errors.
    records(&ShardReader::of(bytes), 0, &mut |_, record| each(record)).unwrap_or_default()
}

fn records(
    shard: &ShardReader<'_>,
    from: u64,
    each: &mut dyn FnMut(u64, Record),
) -> Result<ShardState, ShardError> {
    let mut each = |frame: &Frame, line: &[u8]| match serde_json::from_slice(line) {
        Ok(record) => {
            each(frame.at, record);
            true
        }
        Err(_) => false,
    };
    lines(shard, from, (0, u64::MAX), &mut each)
}

fn lines(
    shard: &ShardReader<'_>,
    from: u64,
    (since, until): (u64, u64),
    each: &mut dyn FnMut(&Frame, &[u8]) -> bool,
) -> Result<ShardState, ShardError> {
    let mut frames = shard.frames_from(from)?.since(since).until(until);
    while let Some(frame) = frames.next() {
        let frame = frame?;
        let state = frames.state_mut();
        for line in frame.lines() {
            match each(&frame, line) {
                true => state.records += 1,
                false => state.odd_lines += 1,
            }
        }
    }
    Ok(frames.state().clone())
}
