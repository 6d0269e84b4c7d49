//! `--mirror-to`: the file behind the mirrored packets' copies.
//!
//! Blocks are gathered and written together. Where the disk is full the file is cut behind its last whole block, so
//! that it stays readable, and given up.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Fail;
use crate::capture::{MirrorWriter, Packet};
use crate::pipeline::{Copied, CopySink};
use crate::record::Interface;
use crate::wire::Nanos;

/// Bytes gathered before they are written: some 200 packets.
const TOGETHER: usize = 64 * 1024;

/// Age at which less is written: whoever reads along is not more behind than this.
const AGE: Duration = Duration::from_secs(1);

/// See the module.
pub struct MirrorFile {
    writer: MirrorWriter<Blocks>,
    since: Instant,
}

/// Whole pcapng blocks on their way into a file.
struct Blocks {
    file: File,
    /// Bytes in the file: whole blocks.
    whole: u64,
    pending: Vec<u8>,
    /// Packets that were pending when writing failed.
    unwritten: u64,
}

impl Write for Blocks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut done = 0;
        let mut failed = None;
        while done < self.pending.len() && failed.is_none() {
            match self.file.write(&self.pending[done..]) {
                Ok(0) => failed = Some(io::ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => failed = Some(e),
            }
        }
        let (whole, missing) = blocks(&self.pending, done);
        self.whole += whole as u64;
        self.pending.clear();
        match failed {
            None => Ok(()),
            Some(e) => {
                self.unwritten += missing;
                let _ = self.file.set_len(self.whole);
                Err(e)
            }
        }
    }
}

/// Length of the whole blocks within the first `done` bytes, and how many packets are behind them.
fn blocks(bytes: &[u8], done: usize) -> (usize, u64) {
    let word = |at: usize| bytes.get(at..at + 4).and_then(|b| Some(u32::from_le_bytes(b.try_into().ok()?)));
    let (mut at, mut whole, mut packets) = (0, 0, 0);
    while let (Some(kind), Some(len)) = (word(at), word(at + 4)) {
        at += (len as usize).max(12);
        if at <= done {
            whole = at;
        } else {
            packets += u64::from(kind == 6);
        }
    }
    (whole, packets)
}

impl MirrorFile {
    /// Refuses a path where something is already.
    pub fn is_free(path: &Path) -> Result<(), Fail> {
        if path.symlink_metadata().is_ok() { Err(exists(path)) } else { Ok(()) }
    }

    /// Makes the file, with an interface block for each tap point.
    pub fn create(path: &Path, interfaces: &[Interface]) -> Result<MirrorFile, Fail> {
        let names: Vec<_> = interfaces.iter().map(|i| (i.name.as_str(), i.role.as_deref())).collect();
        // It holds packets: never for others, whatever the umask is.
        let made = OpenOptions::new().write(true).create_new(true).mode(0o640).open(path);
        let file = made.map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => exists(path),
            _ => cannot_write(path, &e),
        })?;
        let blocks = Blocks { file, whole: 0, pending: Vec::with_capacity(2 * TOGETHER), unwritten: 0 };
        let failed = |e: io::Error| {
            let _ = std::fs::remove_file(path);
            cannot_write(path, &e)
        };
        let mut writer = MirrorWriter::new(blocks, &names).map_err(failed)?;
        writer.get_mut().flush().map_err(failed)?;
        Ok(MirrorFile { writer, since: Instant::now() })
    }
}

fn exists(path: &Path) -> Fail {
    Fail::new(format!("will not write over {}: it exists", path.display()))
        .hint("--mirror-to takes the name of a new file")
}

/// What is said of a mirror file that cannot be written.
pub fn cannot_write(path: &Path, e: &io::Error) -> Fail {
    let hint = match e.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => "make room on that file system, or mirror to another one",
        Some(libc::ENOENT) => "the directory of --mirror-to must exist",
        _ => "--mirror-to takes the name of a new file",
    };
    Fail::new(format!("cannot write {}: {e}", path.display())).hint(hint)
}

impl CopySink for MirrorFile {
    fn copied(&mut self, p: &Copied) -> io::Result<()> {
        if self.writer.get_mut().pending.is_empty() {
            self.since = Instant::now();
        }
        self.writer.write(&Packet {
            ts: p.ts,
            now: p.ts,
            point: p.point,
            way: p.way,
            link: p.link,
            wire_len: p.wire_len,
            vlan: p.vlan,
            reason: 0,
            hash: 0,
            bytes: &p.bytes,
        })?;
        let blocks = self.writer.get_mut();
        if blocks.pending.len() >= TOGETHER { blocks.flush() } else { Ok(()) }
    }

    fn tick(&mut self) -> io::Result<()> {
        let old = self.since.elapsed() >= AGE;
        let blocks = self.writer.get_mut();
        if old && !blocks.pending.is_empty() { blocks.flush() } else { Ok(()) }
    }

    fn end(&mut self, at: Nanos) -> io::Result<()> {
        self.writer.finish(at)?;
        self.writer.get_mut().file.sync_all()
    }

    fn unwritten(&self) -> u64 {
        self.writer.get_ref().unwritten
    }
}

#[cfg(test)]
mod tests {
    use super::blocks;

    #[test]
    fn a_cut_falls_between_blocks_and_the_packets_behind_it_are_counted() {
        let block = |kind: u32, len: u32| {
            let mut b = vec![0; len as usize];
            b[..4].copy_from_slice(&kind.to_le_bytes());
            b[4..8].copy_from_slice(&len.to_le_bytes());
            b
        };
        let bytes = [block(1, 20), block(6, 60), block(6, 64), block(5, 40)].concat();
        assert_eq!(blocks(&bytes, bytes.len()), (184, 0));
        assert_eq!(blocks(&bytes, 143), (80, 1));
        assert_eq!(blocks(&bytes, 80), (80, 1));
        assert_eq!(blocks(&bytes, 79), (20, 2));
        assert_eq!(blocks(&bytes, 0), (0, 2));
    }
}
