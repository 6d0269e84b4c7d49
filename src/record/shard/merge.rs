//! Records of many shards, in order of their time, one after the other.
//!
//! A shard is opened when its time has come, and of it one frame is in memory: so what is asked for last is never read if nobody waits for
//! it, and shards of months take no more memory than those that overlap. Within a shard records keep the order in which they were
//! written, which is that in which the rules became sure of them; that may differ from `ts_ns` by the seconds that some are held back for.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::Range;
use std::path::PathBuf;

use super::reader::{Frame, FrameAt, ShardReader, Unpacker};
use super::walk::Lost;
use super::{ShardError, ShardState};
use crate::record::Record;

/// A record as it is stored.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its line, without its end.
    pub line: Vec<u8>,
    /// What it says.
    pub record: Record,
}

/// Which records, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// From when to when, ns since the epoch. Shards and frames without anything of that time are passed over; what is in the others
    /// is not looked at.
    pub within: (u64, u64),
    /// The newest first, and backwards from there.
    pub newest_first: bool,
}

/// See the module.
pub struct Merged {
    wanted: Wanted,
    paths: Vec<PathBuf>,
    outcomes: Vec<Result<ShardState, ShardError>>,
    /// Those not opened yet, by the first record they may have.
    waiting: BinaryHeap<Reverse<Turn>>,
    /// The next record of each that is open.
    next: BinaryHeap<Reverse<Turn>>,
    open: Vec<Option<Stream>>,
    /// The shard that the last record came from: its next one is looked for when it is wanted.
    last: Option<usize>,
    with: Option<Unpacker>,
}

/// When it is a shard's turn: what comes first is the smallest.
type Turn = (u64, usize);

/// A shard that is being read. Its file is opened for each frame: there may be more shards than a process may have open.
struct Stream {
    frames: VecDeque<FrameAt>,
    frame: Vec<u8>,
    lines: VecDeque<Range<usize>>,
    next: Option<Stored>,
    state: ShardState,
}

impl Merged {
    /// Of these shards, of which no more is read now than their ends.
    pub fn of(paths: Vec<PathBuf>, wanted: Wanted) -> Merged {
        let mut merged = Merged {
            wanted,
            outcomes: Vec::with_capacity(paths.len()),
            open: paths.iter().map(|_| None).collect(),
            waiting: BinaryHeap::new(),
            next: BinaryHeap::new(),
            last: None,
            with: None,
            paths,
        };
        for n in 0..merged.paths.len() {
            let look = merged.look(n).map(|(span, end)| {
                if let Some(span) = span {
                    let turn = merged.turn(if wanted.newest_first { span.1 } else { span.0 }, n);
                    merged.waiting.push(Reverse(turn));
                }
                ShardState { unread: true, end, lost_exact: true, ..ShardState::default() }
            });
            merged.outcomes.push(look);
        }
        merged
    }

    /// The times that a shard's records may lie in, `None` if none can be wanted; and where it ends.
    fn look(&self, n: usize) -> Result<(Option<(u64, u64)>, u64), ShardError> {
        let reader = ShardReader::open(&self.paths[n])?;
        let (span, end) = match reader.closing()? {
            Some(closing) => (closing.span, closing.end),
            None => {
                let index = reader.index()?;
                let all = (0, u64::MAX);
                let spans = index.frames.iter().filter(|f| f.records() > 0).map(|f| f.span().unwrap_or(all));
                let sum = spans.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
                // What is no shard, or damaged, is opened to be told of.
                let odd = index.frames.is_empty() || !index.lost.is_empty();
                (if odd { Some(all) } else { sum }, index.end)
            }
        };
        let (since, until) = self.wanted.within;
        Ok((span.filter(|&(first, last)| last >= since && first <= until), end))
    }

    fn turn(&self, ns: u64, n: usize) -> Turn {
        if self.wanted.newest_first { (u64::MAX - ns, self.paths.len() - n) } else { (ns, n) }
    }

    /// The shard whose turn it is.
    fn whose(&self, turn: Turn) -> usize {
        if self.wanted.newest_first { self.paths.len() - turn.1 } else { turn.1 }
    }

    fn open(&mut self, n: usize) {
        match self.stream(n) {
            Ok(stream) => {
                self.open[n] = Some(stream);
                self.advance(n);
            }
            Err(e) => self.outcomes[n] = Err(e),
        }
    }

    fn stream(&self, n: usize) -> Result<Stream, ShardError> {
        let index = ShardReader::open(&self.paths[n])?.index()?;
        let mut state = ShardState::of(&index);
        let (since, until) = self.wanted.within;
        let mut frames = VecDeque::with_capacity(index.frames.len());
        for frame in index.frames {
            match frame.may_be_within(since, until) {
                true => frames.push_back(frame),
                false => state.pass(&frame),
            }
        }
        Ok(Stream { frames, frame: Vec::new(), lines: VecDeque::new(), next: None, state })
    }

    /// Gets the next record of a shard ready, or closes it.
    fn advance(&mut self, n: usize) {
        let Some(mut stream) = self.open[n].take() else { return };
        match self.refill(n, &mut stream) {
            Ok(Some(ts_ns)) => {
                self.next.push(Reverse(self.turn(ts_ns, n)));
                self.open[n] = Some(stream);
            }
            Ok(None) => self.outcomes[n] = Ok(stream.state),
            Err(e) => self.outcomes[n] = Err(e),
        }
    }

    fn refill(&mut self, n: usize, stream: &mut Stream) -> Result<Option<u64>, ShardError> {
        let backwards = self.wanted.newest_first;
        loop {
            while let Some(line) = take(&mut stream.lines, backwards) {
                let line = &stream.frame[line];
                match serde_json::from_slice::<Record>(line) {
                    Ok(record) => {
                        let ts_ns = record.ts_ns;
                        stream.state.records += 1;
                        stream.next = Some(Stored { line: line.to_vec(), record });
                        return Ok(Some(ts_ns));
                    }
                    Err(_) => stream.state.odd_lines += 1,
                }
            }
            let Some(at) = take(&mut stream.frames, backwards) else { return Ok(None) };
            match self.frame(n, &at)? {
                None => {
                    let records = u64::from(at.records());
                    stream.state.add(Lost { at: at.at, bytes: at.size(), records, exact: true });
                }
                Some(frame) if !self.may_have(&frame) => stream.state.pass(&at),
                Some(frame) => {
                    stream.state.frames += 1;
                    let mut end = 0;
                    let line = |line: &[u8]| {
                        end += line.len();
                        end - line.len()..end - 1
                    };
                    stream.lines = frame.bytes.split_inclusive(|b| *b == b'\n').map(line).collect();
                    stream.frame = frame.bytes;
                }
            }
        }
    }

    /// A frame of a schema whose heads have no times shows only now whether it is wanted.
    fn may_have(&self, frame: &Frame) -> bool {
        let (since, until) = self.wanted.within;
        frame.records == 0 || frame.last_ns >= since && frame.first_ns <= until
    }

    fn frame(&mut self, n: usize, at: &FrameAt) -> Result<Option<Frame>, ShardError> {
        let failed = |source| ShardError::Io { operation: "read", path: self.paths[n].clone(), source };
        if self.with.is_none() {
            self.with = Some(Unpacker::new().map_err(failed)?);
        }
        let reader = ShardReader::open(&self.paths[n])?;
        self.with.as_mut().map_or(Ok(None), |with| reader.read(at, with))
    }

    /// Ends; what became of each shard, in the order in which they were given. Damage in frames that were not read is not known.
    pub fn finish(self) -> Vec<(PathBuf, Result<ShardState, ShardError>)> {
        let open = self.open.into_iter().map(|s| s.map(|s| s.state));
        let outcomes = self.outcomes.into_iter().zip(open).map(|(done, open)| open.map_or(done, Ok));
        self.paths.into_iter().zip(outcomes).collect()
    }
}

impl Iterator for Merged {
    type Item = Stored;

    fn next(&mut self) -> Option<Stored> {
        if let Some(n) = self.last.take() {
            self.advance(n);
        }
        // Whatever may have an earlier record is opened first.
        while let Some(&Reverse(turn)) = self.waiting.peek()
            && self.next.peek().is_none_or(|Reverse(next)| turn.0 <= next.0)
        {
            self.waiting.pop();
            self.open(self.whose(turn));
        }
        let Reverse(turn) = self.next.pop()?;
        let n = self.whose(turn);
        self.last = Some(n);
        self.open[n].as_mut().and_then(|s| s.next.take())
    }
}

fn take<T>(from: &mut VecDeque<T>, backwards: bool) -> Option<T> {
    if backwards { from.pop_back() } else { from.pop_front() }
}
