//! Any datagram on a ctnetlink socket: no panic, and no more events than there is room for messages.
#![no_main]

use libfuzzer_sys::fuzz_target;
use syntap::capture::conntrack::read;

fuzz_target!(|data: &[u8]| {
    for listing in [false, true] {
        let mut events = 0;
        read(data, listing, &mut |e| {
            events += 1;
            let _ = (e.seen_reply(), e.assured(), format!("{e:?}"));
        });
        assert!(events <= data.len() / 20, "a message has 20 bytes of headers");
    }
});
