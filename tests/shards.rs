//! A shard survives anything: cut at every byte, flipped at every byte, a disk that fills up and empties again.

mod common;

use proptest::prelude::*;
use syntap::record::{
    Coalescer, Context, Frame, Frames, Record, ShardOptions, ShardReader, ShardWriter, read_bytes,
    read_shard, shard_paths,
};

/// Bytes of a head.
const HEAD: usize = 56;

fn record(n: u64) -> Record {
    use syntap::detect::{Anomaly, Certainty, Fact, Kind, Severity, Verdict};
    use syntap::wire::{Nanos, Way};
    let a = Anomaly {
        kind: Kind::SynRefused,
        severity: Severity::Warning,
        verdict: Verdict::Responder,
        certainty: Certainty::Proven,
        summary: format!(
            "record {n} of a test with some text in it {}",
            n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ),
        time: Nanos(n),
        first: Nanos(n),
        last: Nanos(n),
        count: 1,
        point: None,
        way: Way::Unknown,
        tuple: None,
        vlan: None,
        tunnel: None,
        history: String::new(),
        conn_state: "",
        facts: vec![("n", Fact::U64(n))],
        packets: vec![],
        tuples: Vec::new(),
    };
    Record::from_anomaly(&a, &Context::default(), None)
}

/// A closed shard of `frames` frames with two records each, and where each frame ends.
fn shard(frames: u64) -> (Vec<u8>, Vec<usize>) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut w = ShardWriter::create(dir.path(), "test", ShardOptions::default()).expect("created");
    for n in 0..frames {
        w.push(&record(2 * n)).expect("taken");
        w.push(&record(2 * n + 1)).expect("taken");
        w.flush();
    }
    w.close().expect("closed");
    let paths = shard_paths(&[dir.path().to_owned()]).expect("listed");
    assert_eq!(paths.len(), 1);
    let bytes = std::fs::read(&paths[0]).expect("read");
    let index = ShardReader::of(&bytes).index().expect("memory");
    assert!(index.closed && index.lost.is_empty(), "{index:?}");
    let ends = index.frames.iter().map(|f| (f.at + f.size()) as usize).collect();
    (bytes, ends)
}

fn numbers(bytes: &[u8]) -> (Vec<u64>, syntap::record::ShardState) {
    let mut seen = Vec::new();
    let state = read_bytes(bytes, &mut |r| seen.push(r.ts_ns));
    (seen, state)
}

#[test]
fn a_shard_cut_at_any_byte_keeps_all_whole_frames_and_names_the_loss() {
    let (bytes, ends) = shard(3);
    for cut in 0..=bytes.len() {
        let whole = ends.iter().filter(|&&e| e <= cut).count();
        let (seen, state) = numbers(&bytes[..cut]);
        assert_eq!(seen, (0..2 * whole as u64).collect::<Vec<_>>(), "cut at {cut}");
        let good = if whole == 0 { 0 } else { ends[whole - 1] };
        let good = if cut == bytes.len() { cut } else { good };
        assert_eq!(state.lost_bytes, (cut - good) as u64, "cut at {cut}");
        assert_eq!(state.lost_at, (cut > good).then_some(good as u64), "cut at {cut}");
        assert_eq!(state.closed, cut == bytes.len(), "cut at {cut}");
        // With its head whole the torn frame says how many records it had.
        let head = cut >= good + HEAD && good < ends[2];
        assert_eq!(state.lost_records, if head { 2 } else { 0 }, "cut at {cut}");
    }
}

#[test]
fn a_flipped_byte_costs_its_own_frame_and_no_other_and_is_named_to_the_record() {
    let (bytes, ends) = shard(3);
    for at in 0..bytes.len() {
        let mut hurt = bytes.clone();
        hurt[at] ^= 0x41;
        let frame = ends.iter().position(|&e| at < e).unwrap_or(3);
        let (seen, state) = numbers(&hurt);
        let expected: Vec<u64> = (0..6).filter(|n| n / 2 != frame as u64).collect();
        assert_eq!(seen, expected, "flipped at {at}");
        let begin = if frame == 0 { 0 } else { ends[frame - 1] };
        let end = ends.get(frame).copied().unwrap_or(bytes.len());
        assert_eq!(state.lost_at, Some(begin as u64), "flipped at {at}");
        assert_eq!(state.lost_bytes, (end - begin) as u64, "flipped at {at}");
        assert_eq!((state.lost_records, state.lost_exact), (if frame < 3 { 2 } else { 0 }, frame < 3));
        assert_eq!(state.closed, frame < 3, "flipped at {at}");
    }
}

#[test]
fn bytes_taken_out_or_put_in_anywhere_cost_one_frame() {
    let (bytes, ends) = shard(3);
    for at in 0..ends[2] {
        let frame = ends.iter().position(|&e| at < e).expect("inside a frame") as u64;
        let expected: Vec<u64> = (0..6).filter(|n| n / 2 != frame).collect();
        let (seen, state) = numbers(&[&bytes[..at], &bytes[at + 1..]].concat());
        assert_eq!(seen, expected, "without {at}");
        assert_eq!((state.lost_records, state.lost_exact), (2, true), "without {at}");
        if at > 0 && !ends.contains(&at) {
            // A byte like its neighbour may as well have been put in beside the frame.
            let odd = (0..=2).find(|b| *b != bytes[at - 1] && *b != bytes[at]).expect("one of three");
            let (seen, state) = numbers(&[&bytes[..at], &[odd], &bytes[at..]].concat());
            assert_eq!(seen, expected, "one more at {at}");
            assert_eq!((state.lost_records, state.lost_exact), (2, true), "one more at {at}");
        }
    }
}

#[test]
fn the_end_of_a_shard_says_what_is_in_it_and_is_not_taken_for_that_of_another() {
    let (bytes, ends) = shard(3);
    let closing = |bytes: &[u8]| ShardReader::of(bytes).closing().expect("memory");
    let all = closing(&bytes).expect("closed");
    assert_eq!((all.records, all.span), (6, Some((0, 5))));
    for cut in 0..bytes.len() {
        assert_eq!(closing(&bytes[..cut]), None, "cut at {cut}");
    }
    // One behind another: the end of the second is that of both only for who does not count.
    assert_eq!(closing(&[&bytes[..], &bytes[..]].concat()), None);
    assert_eq!(closing(&bytes[ends[0]..]), None);
}

#[test]
fn whole_frames_that_are_gone_are_missed_by_their_records() {
    let (bytes, ends) = shard(4);
    for (first, last) in [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3), (0, 3)] {
        let begin = if first == 0 { 0 } else { ends[first - 1] };
        let (seen, state) = numbers(&[&bytes[..begin], &bytes[ends[last - 1]..]].concat());
        assert_eq!(seen.len(), 8 - 2 * (last - first));
        assert_eq!(
            (state.lost_bytes, state.lost_records),
            (0, 2 * (last - first) as u64),
            "{first} to {last}"
        );
        assert_eq!(state.lost_at, Some(begin as u64));
        assert!(state.lost_exact && !state.is_whole());
    }
    // Up to the end as well, for its head counts all.
    let (_, state) = numbers(&[&bytes[..ends[1]], &bytes[ends[3]..]].concat());
    assert_eq!((state.lost_bytes, state.lost_records), (0, 4));
}

#[test]
fn frames_are_read_backwards_and_only_those_of_a_time_are_unpacked() {
    let (bytes, ends) = shard(5);
    let reader = ShardReader::of(&bytes);
    let spans =
        |frames: Frames<'_>| frames.map(|f| f.map(|f| (f.first_ns, f.last_ns)).expect("whole")).collect();
    let all: Vec<(u64, u64)> = spans(reader.frames().expect("memory"));
    assert_eq!(all, [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]);
    let back: Vec<_> = spans(reader.frames().expect("memory").newest_first());
    assert_eq!(back, all.iter().rev().copied().collect::<Vec<_>>());
    // What is passed over is not even looked at: its damage does not show.
    let mut hurt = bytes.clone();
    hurt[ends[0] - 1] ^= 1;
    hurt[ends[4] - 1] ^= 1;
    let reader = ShardReader::of(&hurt);
    let mut frames = reader.frames().expect("memory").since(3).until(6).newest_first();
    let some: Vec<u64> = frames.by_ref().map(|f| f.expect("whole").first_ns).collect();
    assert_eq!(some, [6, 4, 2]);
    assert_eq!((frames.state().passed, frames.state().lost_bytes), (2, 0));
}

/// Three replays of before there were times in the heads, one behind the other.
#[test]
fn a_shard_of_the_first_schema_is_read_as_ever() {
    let path = common::root().join("tests/shards/schema-1.jsonl.zst");
    let mut kinds = Vec::new();
    let state = read_shard(&path, &mut |r| kinds.push((r.kind.to_string(), r.host))).expect("read");
    let record = |kind: &str| (kind.to_owned(), "gateway".to_owned());
    assert_eq!(kinds, [record("reset_mid_flow"), record("tuple_reuse_refused")]);
    assert_eq!((state.frames, state.records, state.odd_lines), (5, 2, 0));
    assert!(state.is_whole() && !state.closed);

    let reader = ShardReader::open(&path).expect("opened");
    let frames = reader.frames().expect("read").since(1_795_000_000_000_000_000);
    let frames: Vec<Frame> = frames.map(|f| f.expect("whole")).filter(|f| f.records > 0).collect();
    assert_eq!(frames.len(), 1, "its frames are passed over by the times of their records");
    assert_eq!((frames[0].schema, frames[0].records), (1, 1));
    assert_eq!(frames[0].first_ns, 1_795_770_702_768_379_919);

    // Cut and flipped like any other; its heads count no frames before them.
    let bytes = std::fs::read(&path).expect("read");
    for at in 0..bytes.len() {
        let (seen, state) = numbers(&bytes[..at]);
        let index = ShardReader::of(&bytes[..at]).index().expect("memory");
        assert_eq!(seen.len() as u64, index.frames.iter().map(|f| u64::from(f.records())).sum::<u64>());
        let whole: u64 = index.frames.iter().map(|f| f.size()).sum();
        assert_eq!(whole + state.lost_bytes, at as u64, "every byte is accounted for");
        let mut hurt = bytes.clone();
        hurt[at] ^= 0x10;
        let (seen, state) = numbers(&hurt);
        assert!(!seen.is_empty() && state.lost_bytes > 0, "flipped at {at}");
    }
}

/// A shard of 300 KB in 150 frames, with its index; made once.
fn large() -> &'static (Vec<u8>, syntap::record::Index) {
    static LARGE: std::sync::OnceLock<(Vec<u8>, syntap::record::Index)> = std::sync::OnceLock::new();
    LARGE.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let mut w = ShardWriter::create(dir.path(), "test", ShardOptions::default()).expect("created");
        for n in 0..6_000 {
            w.push(&record(n)).expect("taken");
            // From a frame of one record to one of 79.
            if n % 80 == 0 || n % 80 == 79 {
                w.flush();
            }
        }
        w.close().expect("closed");
        let path = shard_paths(&[dir.path().to_owned()]).expect("listed").remove(0);
        let bytes = std::fs::read(path).expect("read");
        let index = ShardReader::of(&bytes).index().expect("memory");
        (bytes, index)
    })
}

/// The frames that a reader finds in what became of the large shard, and what it lost. They must be some of its own, in order.
fn found(hurt: &[u8]) -> (Vec<(u64, u32)>, syntap::record::ShardState) {
    let reader = ShardReader::of(hurt);
    let mut frames = reader.frames().expect("memory");
    let seen: Vec<(u64, u32)> =
        frames.by_ref().map(|f| f.expect("memory")).map(|f| (f.first_ns, f.records)).collect();
    let own: Vec<(u64, u32)> =
        large().1.frames.iter().map(|f| (f.span().expect("records").0, f.records())).collect();
    assert!(seen.is_sorted() && seen.iter().all(|f| own.contains(f)), "{seen:?}");
    (seen, frames.state().clone())
}

/// Frames of which no byte is in what was hurt, and whether the shard's end is one of these.
fn unhurt(is_hurt: impl Fn(u64, u64) -> bool) -> (Vec<(u64, u32)>, bool) {
    let (bytes, index) = large();
    let frames = index.frames.iter().filter(|f| !is_hurt(f.at, f.at + f.size()));
    let end = bytes.len() as u64;
    (frames.map(|f| (f.span().expect("records").0, f.records())).collect(), !is_hurt(end - HEAD as u64, end))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_large_shard_cut_anywhere_keeps_all_before(cut in 0..large().0.len()) {
        let (seen, state) = found(&large().0[..cut]);
        let (expected, _) = unhurt(|_, end| end > cut as u64);
        prop_assert_eq!(seen, expected);
        prop_assert!(!state.closed);
        let good = large().1.frames.iter().map(|f| f.at + f.size()).filter(|e| *e <= cut as u64).max().unwrap_or(0);
        prop_assert_eq!(state.lost_bytes, cut as u64 - good);
    }

    #[test]
    fn bytes_flipped_at_random_cost_their_frames_and_each_record_is_named(
        flips in proptest::collection::vec((0..large().0.len(), 1..=255u8), 1..12)
    ) {
        let mut hurt = large().0.clone();
        let flips: std::collections::BTreeMap<usize, u8> = flips.into_iter().collect();
        flips.iter().for_each(|(&at, &mask)| hurt[at] ^= mask);
        let (seen, state) = found(&hurt);
        let is_hurt = |at: u64, end: u64| flips.range(at as usize..end as usize).next().is_some();
        let (expected, ends) = unhurt(is_hurt);
        prop_assert_eq!(&seen, &expected);
        prop_assert!(!state.is_whole());
        let there: u64 = seen.iter().map(|f| u64::from(f.1)).sum();
        if ends {
            prop_assert_eq!((there + state.lost_records, state.lost_exact), (6_000, true));
        }
    }

    #[test]
    fn a_stretch_that_is_gone_costs_what_was_in_it_and_each_record_is_named(
        a in 0..large().0.len(), b in 0..large().0.len()
    ) {
        without(a.min(b), a.max(b).max(a.min(b) + 1))?;
    }
}

/// What a reader finds where a stretch is gone.
fn without(from: usize, to: usize) -> Result<(), TestCaseError> {
    let bytes = &large().0;
    let (seen, state) = found(&[&bytes[..from], &bytes[to..]].concat());
    let (expected, ends) = unhurt(|at, end| at < to as u64 && end > from as u64);
    // Heads begin alike: the one behind may have lost what is the same in the one before.
    prop_assert!(expected.iter().all(|f| seen.contains(f)) && seen.len() <= expected.len() + 1);
    let there: u64 = seen.iter().map(|f| u64::from(f.1)).sum();
    if ends {
        prop_assert_eq!((there + state.lost_records, state.lost_exact), (6_000, true));
    }
    Ok(())
}

#[test]
fn a_whole_frame_is_found_also_where_another_ones_length_ends_behind_it() {
    let frames = &large().1.frames;
    // Of a frame so much is gone, with others behind it, that what is left of the last of these and a whole frame take its place.
    let (torn, small) = (&frames[1], &frames[6]);
    assert!(small.size() < torn.size() / 2);
    let behind = small.at + small.size();
    for left in [torn.size() / 4, torn.size() / 3] {
        let from = torn.at + left;
        let to = behind - (torn.size() - left);
        without(from as usize, to as usize).expect("all that is whole");
    }
}

proptest! {
    #[test]
    fn garbage_never_yields_a_record_or_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let (seen, state) = numbers(&bytes);
        prop_assert!(seen.is_empty());
        prop_assert_eq!(state.lost_bytes, bytes.len() as u64);
    }

    #[test]
    fn garbage_between_frames_is_passed_over(garbage in proptest::collection::vec(any::<u8>(), 1..300)) {
        let (bytes, ends) = shard(2);
        let (a, b) = bytes.split_at(ends[0]);
        let (seen, state) = numbers(&[a, &garbage, b].concat());
        prop_assert_eq!(seen, [0, 1, 2, 3]);
        prop_assert_eq!(state.lost_bytes, garbage.len() as u64);
    }
}

#[test]
fn a_shard_is_plain_zstd_of_json_lines_for_everybody_else() {
    let (bytes, _) = shard(2);
    let text = zstd::decode_all(&bytes[..]).expect("any zstd reads it");
    let lines: Vec<serde_json::Value> = String::from_utf8(text)
        .expect("text")
        .lines()
        .map(|l| serde_json::from_str(l).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[3]["facts"]["n"], 3);
    assert_eq!(lines[0]["time"], "1970-01-01T00:00:00.000000000Z");
}

#[test]
fn names_stay_in_order_and_shards_are_cut_by_size() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = ShardOptions { max_bytes: 200, ..ShardOptions::default() };
    let mut w = ShardWriter::create(dir.path(), "a host/name", options).expect("created");
    for n in 0..2_000 {
        w.push(&record(n)).expect("taken");
    }
    w.close().expect("closed");
    let paths = shard_paths(&[dir.path().to_owned()]).expect("listed");
    assert!(paths.len() >= 2, "{paths:?}");
    let mut seen = Vec::new();
    for path in &paths {
        read_shard(path, &mut |r| seen.push(r.ts_ns)).expect("read");
    }
    assert_eq!(seen, (0..2_000).collect::<Vec<_>>());
}

#[test]
fn root_a_disk_that_fills_up_and_empties_again_loses_no_record() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root, for a small file system");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("none"), dir.path(), Some("tmpfs"), flags, Some("size=96k")).expect("mounted");
    let result = std::panic::catch_unwind(|| {
        let mut w = ShardWriter::create(dir.path(), "test", ShardOptions::default()).expect("created");
        let filler = dir.path().join("filler");
        let mut n = 0;
        let mut push = |w: &mut ShardWriter, count: u64| {
            for _ in 0..count {
                w.push(&record(n)).expect("taken");
                n += 1;
            }
            n
        };
        push(&mut w, 700);
        {
            let mut f = std::fs::File::create(&filler).expect("created");
            while std::io::Write::write_all(&mut f, &[7; 512]).is_ok() {}
        }
        push(&mut w, 900);
        let (lost, trouble) = w.trouble();
        assert_eq!(lost, 0);
        assert_eq!(trouble.map(std::io::Error::raw_os_error), Some(Some(libc::ENOSPC)));
        std::fs::remove_file(&filler).expect("removed");
        let all = push(&mut w, 10);
        w.close().expect("the rest is written");
        let mut seen = Vec::new();
        for path in shard_paths(&[dir.path().to_owned()]).expect("listed") {
            let state = read_shard(&path, &mut |r| seen.push(r.ts_ns)).expect("read");
            assert_eq!(state.lost_bytes, 0, "nothing half-written");
        }
        assert_eq!(seen, (0..all).collect::<Vec<_>>());
    });
    nix::mount::umount(dir.path()).expect("unmounted");
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn beyond_a_rate_records_are_counted_and_what_syntap_lost_never_is() {
    let (mut coalescer, mut out) = (Coalescer::default(), Vec::new());
    for n in 0..500 {
        for kind in ["handshake_slow", "capture_gap", "budget_shed"] {
            let ts_ns = 1_000_000_000 + n;
            let r = Record { kind: kind.into(), count: 1, ts_ns, ..record(n) };
            coalescer.push(r, &mut |r| out.push(r));
        }
    }
    coalescer.finish(&mut |r| out.push(r));
    let of = |kind: &str| out.iter().filter(|r| *r.kind == *kind).count();
    assert_eq!((of("capture_gap"), of("budget_shed")), (500, 500));
    let sum: u64 = out.iter().filter(|r| *r.kind == *"handshake_slow").map(|r| r.count).sum();
    assert_eq!((of("handshake_slow"), sum), (201, 500), "200 whole, and one that stands for the others");
    let rest = out.iter().find(|r| r.facts.contains_key("suppressed")).expect("counted");
    assert_eq!(
        (rest.count, rest.first_ns, rest.last_ns, rest.ts_ns),
        (300, 200, 499, 1_000_000_499),
        "{rest:?}"
    );
}

#[test]
fn what_was_only_counted_is_written_when_nothing_follows_it() {
    const SECOND: u64 = 1_000_000_000;
    let (mut coalescer, mut out) = (Coalescer::default(), Vec::new());
    for n in 0..205 {
        coalescer.push(Record { ts_ns: 100 * SECOND, ..record(n) }, &mut |r| out.push(r));
    }
    assert_eq!(out.len(), 200);
    coalescer.tick(119 * SECOND, &mut |r| out.push(r));
    assert_eq!(out.len(), 200, "more of it may be on its way");
    coalescer.tick(120 * SECOND, &mut |r| out.push(r));
    coalescer.tick(121 * SECOND, &mut |r| out.push(r));
    assert_eq!(out.iter().skip(200).map(|r| r.count).collect::<Vec<_>>(), [5]);
}
