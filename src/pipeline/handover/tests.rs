//! Mailboxes between workers: against one stream in simulated time, and between two threads.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Barrier;
use std::time::SystemTime;

use proptest::prelude::*;

use super::*;
use crate::capture::Point;

const BEGIN: u64 = 1_700_000_000 * Nanos::SEC;

/// A ring's packets, each readable from a moment on: stamp, moment, owner's hash, what is in it.
struct Ring<'a> {
    now: &'a Cell<u64>,
    packets: VecDeque<(u64, u64, u32, Vec<u8>)>,
}

impl Source for Ring<'_> {
    fn poll(&mut self, _: u32, sink: &mut dyn FnMut(&[Packet<'_>])) -> Result<Polled, SourceError> {
        let ready = self.packets.iter().take_while(|p| p.1 <= self.now.get()).count().min(BATCH);
        if ready == 0 {
            return Ok(Polled::Idle);
        }
        let taken: Vec<_> = self.packets.drain(..ready).collect();
        let packets: Vec<_> = taken.iter().map(|(ts, _, hash, bytes)| packet(*ts, *hash, bytes)).collect();
        sink(&packets);
        Ok(Polled::Packets(ready))
    }
}

fn packet(ts: u64, hash: u32, bytes: &[u8]) -> Packet<'_> {
    Packet { ts: Nanos(ts), now: Nanos(ts), hash, wire_len: bytes.len() as u32, bytes, ..Packet::NONE }
}

/// What one packet was: stamp, hash, bytes.
type Got = (u64, u32, Vec<u8>);

/// What each worker works if their turns come after these pauses (ns), each packet with its ring, hash, the pause since the one before and the
/// time on its way.
fn simulate(
    rings: usize,
    packets: &[(usize, u32, u64, u64, usize)],
    turns: &[u64],
) -> (Vec<Vec<Got>>, Vec<Got>, Arc<Group>) {
    let now = Cell::new(BEGIN);
    let mut all = Vec::new();
    let mut sources: Vec<Ring<'_>> =
        (0..rings).map(|_| Ring { now: &now, packets: VecDeque::new() }).collect();
    let mut at = BEGIN;
    for (n, &(ring, hash, pause, way, len)) in packets.iter().enumerate() {
        at += pause + 1;
        let bytes = vec![n as u8; len];
        all.push((at, hash, bytes.clone()));
        let queue = &mut sources[ring % rings].packets;
        // A ring keeps its order.
        let readable = queue.back().map_or(0, |p| p.1).max(at + way);
        queue.push_back((at, readable, hash, bytes));
    }
    let (group, mut exchanges) = Exchange::group(0..rings, [1, 2]);
    let mut got: Vec<Vec<Got>> = vec![Vec::new(); rings];
    let clock = || Nanos(now.get());
    let take = |packets: &[Packet<'_>], to: &mut Vec<Got>| {
        to.extend(packets.iter().map(|p| (p.ts.0, p.hash, p.bytes.to_vec())));
    };
    for n in 0.. {
        if sources.iter().all(|s| s.packets.is_empty()) {
            break;
        }
        now.set(now.get() + turns[n % turns.len()]);
        let worker = n % rings;
        exchanges[worker]
            .poll(&mut sources[worker], false, &clock, &mut |p| take(p, &mut got[worker]))
            .unwrap();
    }
    let mut over = vec![false; rings];
    for n in (0..).map(|n| n % rings) {
        let polled = exchanges[n].poll(&mut sources[n], true, &clock, &mut |p| take(p, &mut got[n]));
        over[n] |= polled.unwrap() == Polled::Idle;
        if over.iter().all(|o| *o) {
            break;
        }
    }
    (got, all, group)
}

fn packets(pause: u64, way: u64) -> impl Strategy<Value = Vec<(usize, u32, u64, u64, usize)>> {
    prop::collection::vec((0..4usize, 1..100u32, 0..pause, 0..way, 0..300usize), 1..400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Each worker has a turn at least every 40 ms of a bound of 100.
    #[test]
    fn several_rings_through_mailboxes_give_what_one_stream_gives(
        rings in 2..4usize,
        packets in packets(3 * Nanos::MS, ON_ITS_WAY),
        turns in prop::collection::vec(0..10 * Nanos::MS, 1..50),
    ) {
        prop_assume!(turns.iter().any(|t| *t > 0));
        let (got, all, group) = simulate(rings, &packets, &turns);
        for (n, got) in got.iter().enumerate() {
            let want: Vec<_> = all.iter().filter(|p| p.1 as usize % rings == n).cloned().collect();
            prop_assert_eq!(got, &want);
        }
        let lost: u64 = group.sources().map(|n| group.behind(n)).sum();
        prop_assert_eq!((lost, group.late()), (0, 0));
    }

    /// Turns and ways are far beyond the bound: order goes, and is counted; packets do not.
    #[test]
    fn beyond_the_bound_order_is_lost_and_counted_and_packets_are_not(
        packets in packets(30 * Nanos::MS, 500 * Nanos::MS),
        turns in prop::collection::vec(1..400 * Nanos::MS, 1..50),
    ) {
        let (got, mut all, group) = simulate(2, &packets, &turns);
        let mut late = 0;
        for got in &got {
            let mut latest = 0;
            for p in got {
                late += u64::from(p.0 < latest);
                latest = latest.max(p.0);
            }
        }
        prop_assert_eq!(group.late(), late);
        for (n, got) in got.iter().enumerate() {
            prop_assert!(got.iter().all(|p| p.1 as usize % 2 == n), "each has its own only");
        }
        let mut came: Vec<_> = got.into_iter().flatten().collect();
        came.sort();
        all.sort();
        prop_assert_eq!(came, all);
    }
}

#[test]
fn a_full_mailbox_drops_and_counts_and_keeps_what_fits() {
    let now = Cell::new(BEGIN);
    // Room for 300 packets of one batch after another, all of which belong to the other worker, who never looks.
    let (group, mut exchanges) = Exchange::with_room(5..7, [1, 2], LEAST_ROOM);
    let packets = (0..2_000).map(|n| (BEGIN + n, BEGIN, 1, vec![n as u8; 400])).collect();
    let mut source = Ring { now: &now, packets };
    let clock = || Nanos(now.get());
    while !source.packets.is_empty() {
        exchanges[0].poll(&mut source, false, &clock, &mut |_| panic!("nothing is its own")).unwrap();
    }
    let fit = (LEAST_ROOM / (HEAD + 400)) as u64;
    assert_eq!((group.handed(), group.behind(5), group.behind(6)), (fit, 0, 2_000 - fit));
    // What fitted comes, in order, although the other one has not stopped: its mailbox is more than half full.
    let mut got = Vec::new();
    let mut own = Ring { now: &now, packets: VecDeque::new() };
    for _ in 0..fit {
        exchanges[1].poll(&mut own, false, &clock, &mut |p| got.extend(p.iter().map(|p| p.ts.0))).unwrap();
    }
    assert_eq!(got, (BEGIN..BEGIN + got.len() as u64).collect::<Vec<_>>());
    assert!(got.len() as u64 >= fit / 2, "{}", got.len());
    // One that ends with mail unread has lost it.
    let read = got.len() as u64;
    drop(exchanges.pop());
    assert_eq!(group.behind(6), 2_000 - read);
}

#[test]
fn nobody_waits_for_a_worker_that_is_gone_and_its_mail_is_counted() {
    let now = Cell::new(BEGIN + 5);
    let (group, mut exchanges) = Exchange::group(0..2, [1, 2]);
    drop(exchanges.pop());
    let packets = (0..10).map(|n| (BEGIN + n, BEGIN, n as u32 % 2 + 2, vec![1])).collect();
    let mut source = Ring { now: &now, packets };
    let mut got = 0;
    let mut poll = |stopping, got: &mut usize| {
        let polled = exchanges[0].poll(&mut source, stopping, &|| Nanos(now.get()), &mut |p| *got += p.len());
        polled.unwrap()
    };
    assert_eq!(poll(false, &mut got), Polled::Packets(10), "five are its own, five nobody's");
    assert_eq!(poll(true, &mut got), Polled::Idle);
    assert_eq!((got, group.behind(1), group.handed()), (5, 5, 0));
}

#[test]
fn a_packet_without_the_kernels_hash_goes_where_one_with_it_goes() {
    let (_, exchanges) = Exchange::group(0..7, [3, 4]);
    // ARP belongs to no tuple.
    let arp = [&[0xff; 6][..], &[2; 6], &[8, 6], &[0; 28]].concat();
    assert_eq!(exchanges[4].owner(&packet(BEGIN, 0, &arp)), 4);
    let mut owners = std::collections::HashSet::new();
    for port in 1_000..1_100u16 {
        let tcp = |src: u8, sport: u16, dst: u8, dport: u16| {
            let mut b = [
                &[2; 12][..],
                &[8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, src, 10, 0, 0, dst],
            ]
            .concat();
            b.extend(sport.to_be_bytes());
            b.extend(dport.to_be_bytes());
            b.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x12, 1, 0, 0, 0, 0, 0]);
            b
        };
        let there = exchanges[0].owner(&packet(BEGIN, 0, &tcp(1, port, 2, 443)));
        let back = exchanges[1].owner(&packet(BEGIN, 0, &tcp(2, 443, 1, port)));
        let addr = |n| crate::wire::Addr::v4([10, 0, 0, n]);
        let kernels = hash::tuple(&[3, 4], &addr(1), port, &addr(2), 443) as u32;
        assert_eq!((there, back), (kernels as usize % 7, kernels as usize % 7));
        owners.insert(there);
    }
    assert_eq!(owners.len(), 7, "all have some");
}

/// A source on a thread of its own: `count` packets, as fast as they are taken.
struct Fast {
    ring: u8,
    next: u64,
    count: u64,
}

impl Source for Fast {
    fn poll(&mut self, wait: u32, sink: &mut dyn FnMut(&[Packet<'_>])) -> Result<Polled, SourceError> {
        if self.next == self.count {
            std::thread::sleep(Duration::from_millis(wait.min(1).into()));
            return Ok(Polled::Idle);
        }
        let until = self.count.min(self.next + 1 + self.next * 7 % BATCH as u64);
        let bodies: Vec<Vec<u8>> = (self.next..until)
            .map(|n| [&n.to_le_bytes()[..], &vec![n as u8; (n * 31 % 200) as usize]].concat())
            .collect();
        let at = real().0;
        let packets: Vec<Packet<'_>> = (self.next..until)
            .zip(&bodies)
            .map(|(n, b)| Packet {
                point: Point(self.ring),
                ..packet(at, ((n * 0x9e37) >> 3) as u32 | 1 << 31, b)
            })
            .collect();
        sink(&packets);
        self.next = until;
        Ok(Polled::Packets(packets.len()))
    }
}

fn real() -> Nanos {
    Nanos(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_nanos() as u64)
}

#[test]
fn two_threads_get_all_that_is_theirs_once_in_each_rings_order_or_it_is_counted() {
    const COUNT: u64 = 200_000;
    // With little room, so that mailboxes turn round often and are full at times; and with the usual.
    for room in [LEAST_ROOM, ROOM / 2] {
        let (group, exchanges) = Exchange::with_room(0..2, [1, 2], room);
        let (stop, started) = (std::sync::atomic::AtomicU64::new(0), Barrier::new(2));
        let work = |(n, mut exchange): (usize, Exchange)| {
            let mut source = Fast { ring: n as u8, next: 0, count: COUNT };
            let (mut got, mut next) = (0u64, [0u64; 2]);
            started.wait();
            loop {
                let stopping = stop.load(Ordering::Acquire) == 2;
                let mut sink = |packets: &[Packet<'_>]| {
                    for p in packets {
                        let (count, body) = p.bytes.split_first_chunk::<8>().expect("a number");
                        let count = u64::from_le_bytes(*count);
                        assert!(
                            body.iter().all(|b| *b == count as u8) && body.len() as u64 == count * 31 % 200
                        );
                        assert_eq!(p.hash as usize % 2, n, "its own");
                        let next = &mut next[usize::from(p.point.0)];
                        assert!(count >= *next, "in the ring's order, once: {count} after {next}");
                        *next = count + 1;
                    }
                    got += packets.len() as u64;
                };
                let polled = exchange.poll(&mut source, stopping, &real, &mut sink).expect("it goes on");
                if stopping && polled == Polled::Idle {
                    return got;
                }
                if source.next == COUNT && source.ring < 2 {
                    source.ring += 2;
                    stop.fetch_add(1, Ordering::AcqRel);
                }
            }
        };
        let got: u64 = std::thread::scope(|s| {
            let threads: Vec<_> = exchanges.into_iter().enumerate().map(|e| s.spawn(|| work(e))).collect();
            threads.into_iter().map(|t| t.join().expect("no panic")).sum()
        });
        let lost = group.behind(0) + group.behind(1);
        assert_eq!(got + lost, 2 * COUNT, "{lost} were lost");
        let mailed = group.handed() + lost;
        assert!(mailed > COUNT / 4, "half belongs to the other one: {mailed}");
    }
}
