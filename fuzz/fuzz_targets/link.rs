//! Any datagrams on an rtnetlink socket: no panic, no endless chain of masters, and no more events than messages times points.
#![no_main]

use libfuzzer_sys::fuzz_target;
use syntap::capture::link::read;

fuzz_target!(|data: &[u8]| {
    let names: Vec<String> = ["a", "b", "eth0"].map(String::from).into();
    let (mut events, points) = (0, names.len());
    read(names, std::iter::once(data), &mut |e| {
        events += 1;
        let _ = format!("{e:?}");
    });
    assert!(events <= points * (data.len() / 16 + 1));
});
