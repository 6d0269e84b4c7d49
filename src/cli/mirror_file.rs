//! `--mirror-to`: the file behind the mirrored packets' copies.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;

use super::Fail;
use crate::capture::{MirrorWriter, Packet};
use crate::pipeline::{Copied, CopySink};
use crate::record::Interface;
use crate::wire::Nanos;

/// See the module.
pub struct MirrorFile(MirrorWriter<BufWriter<File>>);

impl MirrorFile {
    /// Makes the file, with an interface block for each tap point.
    pub fn create(path: &Path, interfaces: &[Interface]) -> Result<MirrorFile, Fail> {
        let names: Vec<_> = interfaces.iter().map(|i| (i.name.as_str(), i.role.as_deref())).collect();
        let file = File::create(path).and_then(|f| MirrorWriter::new(BufWriter::new(f), &names));
        file.map(MirrorFile).map_err(|e| {
            Fail::new(format!("cannot write {}: {e}", path.display()))
                .hint("--mirror-to takes the name of a new file")
        })
    }
}

impl CopySink for MirrorFile {
    fn copied(&mut self, p: &Copied) -> io::Result<()> {
        self.0.write(&Packet {
            ts: p.ts,
            now: p.ts,
            point: p.point,
            way: p.way,
            link: p.link,
            wire_len: p.wire_len,
            vlan: p.vlan,
            reason: 0,
            bytes: &p.bytes,
        })
    }

    fn end(&mut self, at: Nanos) -> io::Result<()> {
        self.0.finish(at)
    }
}
