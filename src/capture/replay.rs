//! Captures as a source: several files merged by time, each a tap point (or several, if syntap wrote it).

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

/// See the module. Within a file the order of the file stands, even where its times go back.
pub struct ReplaySource {
    inputs: Vec<Input>,
    /// The packets of a round and the inputs they came from.
    taken: Vec<(usize, RawPacket)>,
    now: Nanos,
    new_recording: bool,
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
        ReplaySource { inputs, taken: Vec::with_capacity(BATCH), now: Nanos(0), new_recording: false }
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

    /// Up to `most` packets of one recording, those from `until` on left for another round, but at least one; none at the end.
    pub fn round(&mut self, most: usize, until: Nanos) -> Vec<Packet<'_>> {
        self.taken.clear();
        if std::mem::take(&mut self.new_recording) {
            self.now = Nanos(0);
        }
        let mut latest = self.now;
        while self.taken.len() < most {
            let Some((n, ts)) = self.head() else { break };
            self.new_recording = ts.add(BACK) < latest && !self.taken.is_empty();
            if self.new_recording {
                break;
            }
            if ts >= until && !self.taken.is_empty() {
                break;
            }
            latest = latest.max(ts);
            self.taken.extend(self.inputs[n].head.take().map(|p| (n, p)));
        }
        let now = &mut self.now;
        let inputs = &self.inputs;
        let packet = |(n, p): &(usize, RawPacket)| {
            let Input { file, base, points, .. } = &inputs[*n];
            // A later section of a file numbers its interfaces anew, and most likely they are the same.
            let own = (p.interface % points) as u8;
            *now = (*now).max(p.ts);
            Packet {
                ts: p.ts,
                now: *now,
                point: Point(base.0.saturating_add(own)),
                way: p.way,
                link: p.link,
                wire_len: p.wire_len,
                vlan: OffloadedVlan::default(),
                reason: 0,
                hash: 0,
                bytes: file.bytes(&p.range),
            }
        };
        self.taken.iter().map(packet).collect()
    }

    /// The input whose next packet is the earliest; files given first win a tie.
    fn head(&mut self) -> Option<(usize, Nanos)> {
        for input in self.inputs.iter_mut().filter(|i| i.head.is_none() && !i.done) {
            input.head = input.file.next_packet();
            input.done = input.head.is_none();
        }
        let heads = self.inputs.iter().enumerate();
        heads.filter_map(|(n, i)| Some((n, i.head.as_ref()?.ts))).min_by_key(|&(_, ts)| ts)
    }
}

impl Source for ReplaySource {
    fn poll(&mut self, _wait_ms: u32, sink: &mut dyn FnMut(&[Packet<'_>])) -> Result<Polled, SourceError> {
        let packets = self.round(BATCH, Nanos(u64::MAX));
        match packets.len() {
            0 => Ok(Polled::End),
            n => {
                sink(&packets);
                Ok(Polled::Packets(n))
            }
        }
    }
}
