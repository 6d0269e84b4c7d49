//! Any file: read to its end without a panic, every packet inside the file, and a longer prefix never reads fewer.
#![no_main]

use std::io::Write;

use libfuzzer_sys::fuzz_target;
use syntap::capture::CaptureFile;

fn packets(bytes: &[u8]) -> Option<usize> {
    let mut file = std::env::temp_dir();
    file.push(format!("syntap-fuzz-{}", std::process::id()));
    std::fs::File::create(&file).and_then(|mut f| f.write_all(bytes)).ok()?;
    let mut capture = CaptureFile::open(&file).ok()?;
    let mut count = 0;
    while let Some(p) = capture.next_packet() {
        assert!(p.range.end <= bytes.len());
        assert_eq!(capture.bytes(&p.range).len(), p.range.len());
        count += 1;
        assert!(count <= bytes.len(), "the reader moves on");
    }
    let _ = capture.notes();
    Some(count)
}

fuzz_target!(|data: &[u8]| {
    if let (Some(half), Some(whole)) = (packets(&data[..data.len() / 2]), packets(data)) {
        assert!(half <= whole);
    }
});
