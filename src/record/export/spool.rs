//! Puts entries in order that are more than memory should hold: sorted runs go into a nameless file and are merged.
//!
//! An entry is a key and bytes. Entries come out by key, those of one key in the order in which they came. 64 MiB are held in
//! memory, then 64 KiB for each run: 16 million packets are some 50 runs.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

/// Bytes in memory.
const RUN: usize = 64 << 20;

/// Bytes of an entry at most.
const ENTRY: usize = 1 << 20;

/// Makes the nameless file, when it is needed.
pub type Scratch = Box<dyn FnMut() -> io::Result<File>>;

/// A nameless file in a directory: it is gone with the program, whatever becomes of that.
pub fn nameless(dir: PathBuf) -> Scratch {
    Box::new(move || {
        let path = dir.join(format!(".syntap-spool-{}", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(file)
    })
}

/// See the module.
pub struct Spool {
    limit: usize,
    bytes: Vec<u8>,
    /// Key and place of each entry in memory.
    entries: Vec<(u64, std::ops::Range<usize>)>,
    scratch: Scratch,
    file: Option<File>,
    /// Where runs begin and end in the file.
    runs: Vec<(u64, u64)>,
}

impl Spool {
    /// With room as the module says.
    pub fn new(scratch: Scratch) -> Spool {
        Spool::with_limit(scratch, RUN)
    }

    fn with_limit(scratch: Scratch, limit: usize) -> Spool {
        Spool { limit, bytes: Vec::new(), entries: Vec::new(), scratch, file: None, runs: Vec::new() }
    }

    /// Takes an entry.
    pub fn push(&mut self, key: u64, entry: &[u8]) -> io::Result<()> {
        if entry.len() > ENTRY {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "an entry that is too large"));
        }
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(entry);
        self.entries.push((key, begin..self.bytes.len()));
        let held = self.bytes.len() + self.entries.len() * size_of::<(u64, std::ops::Range<usize>)>();
        if held >= self.limit { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> io::Result<()> {
        self.entries.sort_by_key(|e| e.0);
        if self.file.is_none() {
            self.file = Some((self.scratch)()?);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let begin = self.runs.last().map_or(0, |r| r.1);
        let mut to = io::BufWriter::with_capacity(256 * 1024, file);
        let mut end = begin;
        for (key, place) in self.entries.drain(..) {
            to.write_all(&key.to_le_bytes())?;
            to.write_all(&(place.len() as u32).to_le_bytes())?;
            end += 12 + place.len() as u64;
            to.write_all(&self.bytes[place])?;
        }
        to.flush()?;
        self.runs.push((begin, end));
        self.bytes.clear();
        Ok(())
    }

    /// Hands over all entries in order.
    pub fn drain(mut self, each: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
        self.entries.sort_by_key(|e| e.0);
        let Some(file) = &self.file else {
            return self.entries.iter().try_for_each(|(key, place)| each(*key, &self.bytes[place.clone()]));
        };
        let mut runs: Vec<Run> = Vec::new();
        for &(at, end) in &self.runs {
            let part = Part { file: file.try_clone()?, at, end };
            runs.push(Run { from: Some(BufReader::with_capacity(64 * 1024, part)), entry: Vec::new() });
        }
        // Those in memory came last, and so does their run.
        let mut held = self.entries.iter();
        let mut next = |n: usize, runs: &mut [Run]| match runs.get_mut(n) {
            Some(run) => run.next(),
            None => Ok(held.next().map(|e| e.0)),
        };
        let mut heap = BinaryHeap::new();
        for n in 0..=runs.len() {
            heap.extend(next(n, &mut runs)?.map(|key| Reverse((key, n))));
        }
        let mut told = 0;
        while let Some(Reverse((key, n))) = heap.pop() {
            match runs.get(n) {
                Some(run) => each(key, &run.entry)?,
                None => {
                    each(key, &self.bytes[self.entries[told].1.clone()])?;
                    told += 1;
                }
            }
            heap.extend(next(n, &mut runs)?.map(|key| Reverse((key, n))));
        }
        Ok(())
    }
}

/// A stretch of a file that others read as well.
struct Part {
    file: File,
    at: u64,
    end: u64,
}

impl Read for Part {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let len = to.len().min(left);
        self.file.seek(SeekFrom::Start(self.at))?;
        let n = self.file.read(&mut to[..len])?;
        self.at += n as u64;
        Ok(n)
    }
}

/// A sorted run and its present entry.
struct Run {
    from: Option<BufReader<Part>>,
    entry: Vec<u8>,
}

impl Run {
    /// Reads the next entry; its key.
    fn next(&mut self) -> io::Result<Option<u64>> {
        let Some(from) = &mut self.from else { return Ok(None) };
        let mut head = [0; 12];
        match from.read_exact(&mut head) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                self.from = None;
                return Ok(None);
            }
            read => read?,
        }
        let (key, len) = head.split_at(8);
        let len = u32::from_le_bytes([len[0], len[1], len[2], len[3]]) as usize;
        self.entry.resize(len.min(ENTRY), 0);
        from.read_exact(&mut self.entry)?;
        let mut bytes = [0; 8];
        bytes.copy_from_slice(key);
        Ok(Some(u64::from_le_bytes(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_out_by_key_and_then_as_they_came_however_little_memory_there_is() {
        let dir = tempfile::tempdir().expect("a directory");
        for limit in [1, 200, 5_000, 1 << 20] {
            let mut spool = Spool::with_limit(nameless(dir.path().into()), limit);
            let mut expected = Vec::new();
            for n in 0..500u64 {
                let key = n * 7_919 % 50;
                let entry = vec![n as u8; (n % 9) as usize];
                spool.push(key, &entry).expect("spooled");
                expected.push((key, entry));
            }
            expected.sort_by_key(|e| e.0);
            let mut got = Vec::new();
            spool
                .drain(&mut |key, entry| {
                    got.push((key, entry.to_vec()));
                    Ok(())
                })
                .expect("read back");
            assert_eq!(got, expected, "limit {limit}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 0);
    }
}
