//! Captures as a source: several files merged by time, each a tap point (or several, if syntap wrote it).

use super::{BATCH, CaptureFile, Packet, Point, Polled, RawPacket, Source, SourceError};
use crate::wire::{Nanos, OffloadedVlan};

struct Input {
    file: CaptureFile,
    base: Point,
    head: Option<RawPacket>,
    done: bool,
}

/// See the module. Within a file the order of the file stands, even where its times go back.
pub struct ReplaySource {
    inputs: Vec<Input>,
    /// The packets of a batch and the inputs they came from.
    batch: Vec<(usize, RawPacket)>,
}

impl ReplaySource {
    /// A source over `files`; the first interface of each is the point beside it.
    pub fn new(files: Vec<(Point, CaptureFile)>) -> ReplaySource {
        let inputs =
            files.into_iter().map(|(base, file)| Input { file, base, head: None, done: false }).collect();
        ReplaySource { inputs, batch: Vec::with_capacity(BATCH) }
    }

    /// When the captures say that they ended: the latest, if any does.
    pub fn end_time(&self) -> Option<Nanos> {
        self.inputs.iter().filter_map(|i| i.file.end_time()).max()
    }

    /// What a person should know about the files.
    pub fn notes(&self) -> Vec<String> {
        self.inputs.iter().flat_map(|i| i.file.notes()).collect()
    }

    /// Takes the earliest packet of all inputs; files given first win a tie.
    fn take(&mut self) -> Option<(usize, RawPacket)> {
        for input in self.inputs.iter_mut().filter(|i| i.head.is_none() && !i.done) {
            input.head = input.file.next_packet();
            input.done = input.head.is_none();
        }
        let heads = self.inputs.iter().enumerate();
        let (first, _) =
            heads.filter_map(|(n, i)| Some((n, i.head.as_ref()?.ts))).min_by_key(|&(_, ts)| ts)?;
        Some((first, self.inputs[first].head.take()?))
    }
}

impl Source for ReplaySource {
    fn poll(&mut self, _wait_ms: u32, sink: &mut dyn FnMut(&[Packet<'_>])) -> Result<Polled, SourceError> {
        self.batch.clear();
        while self.batch.len() < BATCH {
            let Some(packet) = self.take() else { break };
            self.batch.push(packet);
        }
        if self.batch.is_empty() {
            return Ok(Polled::End);
        }
        let mut packets = [Packet::NONE; BATCH];
        for (slot, (n, p)) in packets.iter_mut().zip(&self.batch) {
            let Input { file, base, .. } = &self.inputs[*n];
            // Interfaces of a capture that syntap wrote are tap points of their own.
            let own = if file.is_own() { p.interface as u8 } else { 0 };
            *slot = Packet {
                ts: p.ts,
                point: Point(base.0.saturating_add(own)),
                way: p.way,
                link: p.link,
                wire_len: p.wire_len,
                vlan: OffloadedVlan::default(),
                reason: 0,
                bytes: file.bytes(&p.range),
            };
        }
        sink(&packets[..self.batch.len()]);
        Ok(Polled::Packets(self.batch.len()))
    }
}
