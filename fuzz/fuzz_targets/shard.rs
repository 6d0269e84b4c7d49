//! Any file for a shard; any bytes as one's lines, packed as a frame; any bytes as a frame's compressed data. What is read as a record
//! can be written as one, and reads the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use syntap::record::{Record, read_bytes};

/// A frame around data, with checksums that fit.
fn frame(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(0x184d_2a5au32.to_le_bytes());
    out.extend(24u32.to_le_bytes());
    out.extend(b"SYNT");
    out.extend(1u32.to_le_bytes());
    out.extend((data.len() as u32).to_le_bytes());
    out.extend(3u32.to_le_bytes());
    out.extend(crc32fast::hash(data).to_le_bytes());
    out.extend(crc32fast::hash(&out[8..28]).to_le_bytes());
    out.extend(data);
    out
}

fn read(bytes: &[u8]) -> u64 {
    let state = read_bytes(bytes, &mut |record| {
        let line = serde_json::to_vec(&record).expect("it writes what it reads");
        let again: Record = serde_json::from_slice(&line).expect("and reads what it writes");
        assert_eq!(line, serde_json::to_vec(&again).expect("again"));
    });
    assert!(state.lost_bytes <= bytes.len() as u64);
    state.frames
}

fuzz_target!(|data: &[u8]| {
    let [how, rest @ ..] = data else { return };
    match how % 3 {
        0 => {
            read(rest);
        }
        1 => {
            read(&frame(rest));
        }
        _ => {
            let packed = zstd::bulk::compress(rest, 1).expect("it packs");
            // Whole, then torn somewhere, then whole again: only the middle one is lost.
            let whole = frame(&packed);
            let mut three = whole.clone();
            three.extend(&whole[..whole.len() - 1]);
            three.extend(&whole);
            assert_eq!(read(&three), 2);
        }
    }
});
