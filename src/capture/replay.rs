//! Captures as a source: several files merged by time, each a tap point (or several, if syntap wrote it).

use super::file::Reader;
use super::{BATCH, CaptureFile, Packet, Point, Polled, RawPacket, Source, SourceError};
use crate::wire::{Nanos, OffloadedVlan};

/// Times that go back by more than this are not packets that overtook each other (drivers and merged files swap
/// milliseconds): another recording was appended.
const BACK: u64 = 10 * Nanos::SEC;

struct Input {
    file: CaptureFile,
    base: Point,
    /// Tap points of the file.
    points: u32,
    head: Option<RawPacket>,
    done: bool,
}

/// An input as it is read: its bytes, in which packets lie, apart from what moves on.
struct Cursor<'a> {
    bytes: &'a [u8],
    reader: &'a mut Reader,
    head: &'a mut Option<RawPacket>,
    done: &'a mut bool,
    base: Point,
    points: u32,
}

/// See the module. Within a file the order of the file stands, even where its times go back.
pub struct ReplaySource {
    inputs: Vec<Input>,
    now: Nanos,
    new_recording: bool,
}

impl<'a> Cursor<'a> {
    fn new(input: &'a mut Input) -> Cursor<'a> {
        let Input { file, base, points, head, done } = input;
        let (bytes, reader) = file.parts();
        Cursor { bytes, reader, head, done, base: *base, points: *points }
    }

    /// When its next packet came.
    #[inline]
    fn time(&mut self) -> Option<Nanos> {
        if self.head.is_none() && !*self.done {
            *self.head = self.reader.next(self.bytes);
            *self.done = self.head.is_none();
        }
        self.head.as_ref().map(|p| p.ts)
    }

    /// Its next packet, which [`Cursor::time`] has read; `now` is the latest time so far.
    #[inline]
    fn take(&mut self, now: Nanos) -> Option<Packet<'a>> {
        let p = self.head.take()?;
        // A later section of a file numbers its interfaces anew, and most likely they are the same.
        let own = if p.interface < self.points { p.interface } else { p.interface % self.points } as u8;
        Some(Packet {
            ts: p.ts,
            now,
            point: Point(self.base.0.saturating_add(own)),
            way: p.way,
            link: p.link,
            wire_len: p.wire_len,
            vlan: OffloadedVlan::default(),
            reason: 0,
            hash: 0,
            bytes: self.bytes.get(p.range).unwrap_or_default(),
        })
    }
}

impl ReplaySource {
    /// A source over `files`. Beside each stands the point of its first interface, and how many follow for the others.
    pub fn new(files: Vec<(Point, u32, CaptureFile)>) -> ReplaySource {
        let input = |(base, points, file): (Point, u32, _)| Input {
            file,
            base,
            points: points.max(1),
            head: None,
            done: false,
        };
        let inputs = files.into_iter().map(input).collect();
        ReplaySource { inputs, now: Nanos(0), new_recording: false }
    }

    /// When the captures say that they ended: the latest, if any does.
    pub fn end_time(&self) -> Option<Nanos> {
        self.inputs.iter().filter_map(|i| i.file.end_time()).max()
    }

    /// What a person should know about the files.
    pub fn notes(&self) -> Vec<String> {
        self.inputs.iter().flat_map(|i| i.file.notes()).collect()
    }

    /// True if what comes next is another recording: its first packet is much older than the last one handed over.
    pub fn new_recording(&self) -> bool {
        self.new_recording
    }

    /// Hands over up to `most` packets of one recording, those from `until` on left for another round; none at the end, or where one
    /// recording is over and the next has not begun.
    #[inline]
    pub fn round<'a>(&'a mut self, most: usize, until: Nanos, mut each: impl FnMut(Packet<'a>)) {
        let ReplaySource { inputs, now, new_recording } = self;
        if std::mem::take(new_recording) {
            *now = Nanos(0);
        }
        let mut cursors: Vec<_> = inputs.iter_mut().map(Cursor::new).collect();
        for taken in 0..most {
            let Some((cursor, ts)) = earliest(&mut cursors) else { return };
            *new_recording = ts.add(BACK) < *now;
            if *new_recording || ts >= until && taken != 0 {
                return;
            }
            *now = ts.max(*now);
            cursor.take(*now).map(&mut each);
        }
    }
}

/// The input whose next packet is the earliest; files given first win a tie.
#[inline]
fn earliest<'l, 'a>(cursors: &'l mut [Cursor<'a>]) -> Option<(&'l mut Cursor<'a>, Nanos)> {
    let times = cursors.iter_mut().enumerate().filter_map(|(n, cursor)| Some((n, cursor.time()?)));
    let (n, ts) = times.min_by_key(|&(_, ts)| ts)?;
    Some((&mut cursors[n], ts))
}

impl Source for ReplaySource {
    fn poll(&mut self, _wait_ms: u32, sink: &mut dyn FnMut(&[Packet<'_>])) -> Result<Polled, SourceError> {
        loop {
            let mut packets = Vec::with_capacity(BATCH);
            self.round(BATCH, Nanos(u64::MAX), |p| packets.push(p));
            if !packets.is_empty() {
                sink(&packets);
                return Ok(Polled::Packets(packets.len()));
            }
            if !self.new_recording {
                return Ok(Polled::End);
            }
        }
    }
}
