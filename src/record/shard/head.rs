//! What stands before each frame, in a skippable frame of zstd (RFC 8878, section 3.1.2). Little-endian words:
//!
//! | schema 2, bytes | schema 1, bytes | what |
//! | --- | --- | --- |
//! | 0..4 | 0..4 | magic number of the skippable frame |
//! | 4..8 | 4..8 | length of what follows: 48 or 24 |
//! | 8..12 | 8..12 | `SYNT` |
//! | 12..16 | 12..16 | schema |
//! | 16..20 | 16..20 | length of the data frame; 0 in the head that ends a shard, behind which nothing stands |
//! | 20..24 | 20..24 | records in it |
//! | 24..32 | | records before it in the shard |
//! | 32..40 | | no record of it begins before this, ns since the epoch; 0 without records. In the head that ends a shard: of the shard |
//! | 40..48 | | no record of it ends after this |
//! | 48..52 | 24..28 | CRC-32 of the data frame; in the head that ends a shard: bytes of the shard before it, modulo 2^32 |
//! | 52..56 | 28..32 | CRC-32 of the bytes from 8 up to here |

use crate::record::SCHEMA;

/// Magic number of the skippable frame.
const SKIPPABLE: u32 = 0x184d_2a5a;

const NAME: &[u8; 4] = b"SYNT";

/// Bytes of a head as it is written.
pub const HEAD: usize = 56;

/// Bytes of a head of schema 1, which is the shortest.
pub const HEAD_1: usize = 32;

/// Largest frame a reader believes.
pub const MAX_FRAME: usize = 64 << 20;

/// A head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Version of head and records.
    pub schema: u32,
    /// Bytes of the data frame; 0 ends the shard.
    pub len: u32,
    /// Records in it.
    pub records: u32,
    /// Records before it in the shard; `None` in schema 1.
    pub before: Option<u64>,
    /// Times that the records lie in, ns since the epoch; `None` in schema 1.
    pub span: Option<(u64, u64)>,
    /// CRC-32 of the data frame; bytes of the shard before it, modulo 2^32, in the head that ends one.
    pub crc: u32,
}

impl Head {
    /// Of a data frame about to be written.
    pub fn of(data: &[u8], records: u32, before: u64, span: (u64, u64)) -> Head {
        let crc = crc32fast::hash(data);
        let len = data.len() as u32;
        Head { schema: SCHEMA, len, records, before: Some(before), span: Some(span), crc }
    }

    /// Of the end of a shard with so many bytes before it.
    pub fn closing(bytes: u64, records: u64, span: (u64, u64)) -> Head {
        let crc = bytes as u32;
        Head { schema: SCHEMA, len: 0, records: 0, before: Some(records), span: Some(span), crc }
    }

    /// Reads the head at the end of a shard of `bytes` bytes, all that it is made of.
    pub fn read_closing(b: &[u8], bytes: u64) -> Option<Head> {
        let (head, len) = Head::read(b)?;
        let is = head.len == 0 && len == b.len() && bytes.checked_sub(len as u64)? as u32 == head.crc;
        is.then_some(head)
    }

    /// As it is written.
    pub fn bytes(&self) -> [u8; HEAD] {
        let mut h = [0; HEAD];
        let (first, last) = self.span.unwrap_or_default();
        h[..4].copy_from_slice(&SKIPPABLE.to_le_bytes());
        h[4..8].copy_from_slice(&(HEAD as u32 - 8).to_le_bytes());
        h[8..12].copy_from_slice(NAME);
        h[12..16].copy_from_slice(&self.schema.to_le_bytes());
        h[16..20].copy_from_slice(&self.len.to_le_bytes());
        h[20..24].copy_from_slice(&self.records.to_le_bytes());
        h[24..32].copy_from_slice(&self.before.unwrap_or(0).to_le_bytes());
        h[32..40].copy_from_slice(&first.to_le_bytes());
        h[40..48].copy_from_slice(&last.to_le_bytes());
        h[48..52].copy_from_slice(&self.crc.to_le_bytes());
        let crc = crc32fast::hash(&h[8..52]);
        h[52..].copy_from_slice(&crc.to_le_bytes());
        h
    }

    /// Reads a head of any version at the beginning of `b`; with its length in bytes.
    pub fn read(b: &[u8]) -> Option<(Head, usize)> {
        if !is_head(b) {
            return None;
        }
        let whole = match le32(b, 4)? {
            24 => HEAD_1,
            48 => HEAD,
            _ => return None,
        };
        if le32(b, whole - 4)? != crc32fast::hash(b.get(8..whole - 4)?) {
            return None;
        }
        let newer = whole == HEAD;
        let head = Head {
            schema: le32(b, 12)?,
            len: le32(b, 16)?,
            records: le32(b, 20)?,
            before: if newer { Some(le64(b, 24)?) } else { None },
            span: if newer { le64(b, 32).zip(le64(b, 40)) } else { None },
            crc: le32(b, whole - 8)?,
        };
        // A shard ends only in a schema that knows how.
        let sane = head.len as usize <= MAX_FRAME && (head.len > 0 || newer);
        sane.then_some((head, whole))
    }
}

/// Whether a head may begin here, by its first 12 bytes.
fn is_head(b: &[u8]) -> bool {
    b.len() >= 12 && b[..4] == SKIPPABLE.to_le_bytes() && &b[8..12] == NAME
}

/// Where the first head may begin in `b`: all before it is none. Without one: where one may begin whose first 12 bytes are not all there.
pub fn find(b: &[u8]) -> Result<usize, usize> {
    let at = b.windows(12).position(is_head);
    at.ok_or_else(|| b.len().saturating_sub(11))
}

fn le32(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(b.get(at..at + 4)?.try_into().ok()?))
}

fn le64(b: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(b.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_written_and_no_flipped_bit_passes() {
        let head = Head::of(b"data", 7, 1 << 40, (3, u64::MAX));
        let bytes = head.bytes();
        assert_eq!(Head::read(&bytes), Some((head, HEAD)));
        for bit in 0..8 * HEAD {
            let mut hurt = bytes;
            hurt[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Head::read(&hurt), None, "bit {bit}");
        }
        for cut in 0..HEAD {
            assert_eq!(Head::read(&bytes[..cut]), None);
        }
    }

    #[test]
    fn a_head_is_found_behind_anything_and_across_the_end_of_what_is_there() {
        let head = Head::of(b"", 0, 0, (0, 0)).bytes();
        assert_eq!(find(&[&[0x5a; 100], &head[..]].concat()), Ok(100));
        assert_eq!(find(&head[..12]), Ok(0));
        assert_eq!(find(&head[..11]), Err(0));
        assert_eq!(find(&[0; 100]), Err(89));
    }
}
