//! Any TCP options behind a sound header: read to the end, called broken, or called cut; never more than was there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use syntap::wire::{Body, LinkType, OffloadedVlan, decode};

fuzz_target!(|data: &[u8]| {
    let options = &data[..data.len().min(40)];
    let padded = options.len().next_multiple_of(4);
    let total = 40 + padded;
    let mut p = vec![0x45, 0, (total >> 8) as u8, total as u8, 0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    p.extend([0, 80, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, ((20 + padded) / 4 << 4) as u8, 2, 0, 1, 0, 0, 0, 0]);
    p.extend(options);
    p.resize(total, 0);
    let read = |bytes: &[u8]| match decode(LinkType::RawIp, bytes, total as u32, OffloadedVlan::default()).body {
        Body::Tcp(s) => s,
        other => panic!("a sound header: {other:?}"),
    };
    let whole = read(&p);
    assert!(!whole.options.cut && whole.payload == 0);
    // Cut anywhere within the options: what was read stands in the whole too, unless a later option repeats it.
    for end in 40..total {
        let part = read(&p[..end]);
        assert!(part.options.cut);
        assert!(part.options.nop_row <= whole.options.nop_row);
        assert!(!part.options.sack_permitted || whole.options.sack_permitted);
    }
});
