//! From head to head of a shard, over whatever is damaged in between.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use nix::fcntl::{Flock, FlockArg};

use super::head::{self, HEAD, HEAD_1, Head};
use super::reader::FrameAt;

/// Bytes that are looked through at once for the next head.
const CHUNK: usize = 64 * 1024;

/// What a shard is read from.
pub enum Input<'a> {
    /// A file, read at places: several threads may.
    File(File),
    /// Memory.
    Bytes(&'a [u8]),
}

impl Input<'_> {
    /// Whether a run holds it open to write more: it has locked it.
    pub fn is_being_written(&self) -> bool {
        let Input::File(file) = self else { return false };
        let locked = file.try_clone().map(|f| Flock::lock(f, FlockArg::LockSharedNonblock));
        matches!(locked, Ok(Err((_, nix::errno::Errno::EWOULDBLOCK))))
    }

    /// Bytes there are now.
    pub fn len(&self) -> io::Result<u64> {
        match self {
            Input::File(file) => Ok(file.metadata()?.len()),
            Input::Bytes(bytes) => Ok(bytes.len() as u64),
        }
    }

    /// Fills `to` from `at` on, as far as there is something; how far.
    pub fn read_at(&self, to: &mut [u8], at: u64) -> io::Result<usize> {
        match self {
            Input::File(file) => {
                let mut got = 0;
                while got < to.len() {
                    match file.read_at(&mut to[got..], at + got as u64) {
                        Ok(0) => break,
                        Ok(n) => got += n,
                        Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                        Err(e) => return Err(e),
                    }
                }
                Ok(got)
            }
            Input::Bytes(bytes) => {
                let from = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                let len = to.len().min(bytes.len() - from);
                to[..len].copy_from_slice(&bytes[from..from + len]);
                Ok(len)
            }
        }
    }
}

/// A stretch of a shard that belongs to no whole frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Offset of its first byte.
    pub at: u64,
    /// Its length. 0 where frames are missing without a trace in between.
    pub bytes: u64,
    /// Records that were in it: as announced by the heads in it, or by what the head behind it says came before.
    pub records: u64,
    /// Whether that is all of them. If not, nothing is left that could say how many there were.
    pub exact: bool,
}

/// What comes next in a shard.
pub enum Step {
    /// A frame with a whole head. Whether its data is whole shows when it is read.
    Frame(FrameAt),
    /// Something that is none.
    Lost(Lost),
    /// The end: `true` if the shard was closed here.
    End(bool),
}

/// See the module.
pub struct Walk {
    at: u64,
    len: u64,
    /// Records up to `at` by the heads, if the last of them knew.
    records: Option<u64>,
    closed: bool,
    /// What was found behind a loss.
    next: Option<(Head, usize)>,
}

impl Walk {
    /// Begins at `at`, which must be where a frame begins.
    pub fn from(at: u64, len: u64) -> Walk {
        Walk { at, len, records: (at == 0).then_some(0), closed: false, next: None }
    }

    /// The next step.
    pub fn step(&mut self, input: &Input<'_>) -> io::Result<Step> {
        while self.at < self.len {
            let from = self.at;
            let (head, len) = match self.next.take() {
                Some(found) => found,
                None => match self.head(input, from)? {
                    Found::Head(head, len) => (head, len),
                    Found::Torn(head) => return self.lost(input, from, u64::from(head.records)),
                    Found::Nothing => return self.lost(input, from, 0),
                },
            };
            // Whole frames that stood here went away without a trace but this.
            if let Some((expected, before)) = self.records.zip(head.before)
                && before > expected
            {
                self.records = Some(before);
                self.next = Some((head, len));
                return Ok(Step::Lost(Lost { at: from, bytes: 0, records: before - expected, exact: true }));
            }
            self.at = from + len as u64 + u64::from(head.len);
            self.closed = head.len == 0;
            if !self.closed {
                self.records = head.before.map(|n| n.saturating_add(u64::from(head.records)));
                return Ok(Step::Frame(FrameAt { at: from, head, head_len: len as u8 }));
            }
            // Behind its end only another shard can stand.
            self.records = Some(0);
        }
        Ok(Step::End(self.closed))
    }

    /// Passes over what is no whole frame, from `from` on, to the next head. `announced` are the records of the head there.
    fn lost(&mut self, input: &Input<'_>, from: u64, mut announced: u64) -> io::Result<Step> {
        self.closed = false;
        let (mut exact, mut begin) = (false, from + 1);
        let mut chunk = vec![0; CHUNK];
        self.at = self.len;
        'chunks: while begin + HEAD_1 as u64 <= self.len {
            let got = input.read_at(&mut chunk, begin)?;
            let mut n = 0;
            loop {
                match head::find(&chunk[n..got]) {
                    Ok(found) => n += found,
                    Err(rest) => {
                        if n + rest == 0 {
                            break 'chunks;
                        }
                        begin += (n + rest) as u64;
                        break;
                    }
                }
                match self.head(input, begin + n as u64)? {
                    Found::Head(head, len) => {
                        if let Some((expected, before)) = self.records.zip(head.before)
                            && before >= expected
                        {
                            announced = before - expected;
                            exact = true;
                        }
                        self.at = begin + n as u64;
                        self.records = head.before;
                        self.next = Some((head, len));
                        break 'chunks;
                    }
                    Found::Torn(head) => announced += u64::from(head.records),
                    Found::Nothing => {}
                }
                n += 1;
            }
        }
        if self.next.is_none() {
            self.records = None;
        }
        Ok(Step::Lost(Lost { at: from, bytes: self.at - from, records: announced, exact }))
    }

    /// What stands at `at`.
    fn head(&self, input: &Input<'_>, at: u64) -> io::Result<Found> {
        let mut b = [0; HEAD];
        let got = input.read_at(&mut b, at)?;
        let Some((head, len)) = Head::read(&b[..got]) else { return Ok(Found::Nothing) };
        let end = at + len as u64 + u64::from(head.len);
        if end > self.len {
            return Ok(Found::Torn(head));
        }
        // A head's word for its frame's length is as good as the frame: something may have been cut out of it, or put in. So is the next
        // head's for what came before it: where that is more, what is missing may lie within.
        let mut b = [0; HEAD];
        let got = input.read_at(&mut b[..HEAD.min((self.len - end) as usize)], end)?;
        let upto = head.before.map(|n| n.saturating_add(u64::from(head.records)));
        let goes_on = |next: Head| upto.zip(next.before).is_none_or(|(upto, before)| before <= upto);
        let follows = got == 0 || Head::read(&b[..got]).is_some_and(|(next, _)| goes_on(next));
        if follows || head.len == 0 || (FrameAt { at, head, head_len: len as u8 }).is_whole(input)? {
            return Ok(Found::Head(head, len));
        }
        Ok(Found::Torn(head))
    }
}

enum Found {
    /// A head, its data as far as can be told without reading it.
    Head(Head, usize),
    /// A head whose data is not all there.
    Torn(Head),
    Nothing,
}
