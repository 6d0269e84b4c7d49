//! The story that was never solved: its own packets, made from the numbers that its author printed.

mod common;

use std::net::Ipv4Addr;

use common::packet::{ACK, FIN, PSH, RST, SYN, Tcp, pcap};
use common::{of_kind, replay, root};

const BALANCER: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 10), 30001);
const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 20), 8080);

/// Microseconds since midnight, who, flags, relative sequence and acknowledgement, window, payload. Relative to the
/// first connection's numbers, as tcpdump printed them; SYNs are absolute.
#[rustfmt::skip]
const LINES: &[(&str, bool, u8, u32, u32, u16, usize)] = &[
    ("17:15:00.320997", true,  SYN,       1640887617, 0,   14600, 0),
    ("17:15:00.321014", false, SYN | ACK, 2030898605, 1,   14600, 0),
    ("17:15:00.321464", true,  ACK,       1,   1,   14600, 0),
    ("17:15:00.321485", true,  PSH | ACK, 1,   1,   14600, 320),
    ("17:15:00.321494", false, ACK,       1,   321, 15544, 0),
    ("17:15:00.325898", false, PSH | ACK, 1,   321, 15544, 270),
    ("17:15:00.325969", false, FIN | ACK, 271, 321, 15544, 0),
    ("17:15:00.326334", true,  ACK,       321, 271, 15544, 0),
    ("17:15:00.328226", true,  FIN | ACK, 321, 272, 15544, 0),
    ("17:15:00.328266", false, ACK,       272, 322, 15544, 0),
    ("17:15:55.915648", true,  SYN,       1563951501, 0, 64240, 0),
    ("17:15:55.915670", false, ACK,       272, 322, 15544, 0),
    ("17:15:56.915125", true,  SYN,       1563951501, 0, 64240, 0),
    ("17:15:56.915172", false, ACK,       272, 322, 15544, 0),
    ("17:15:57.914873", true,  SYN,       1563951501, 0, 64240, 0),
    ("17:15:57.914881", false, ACK,       272, 322, 15544, 0),
    ("17:15:58.916339", true,  RST | ACK, 4218031181, 782496990, 0, 0),
];

const BALANCER_ISN: u32 = 1_640_887_617;
const SERVER_ISN: u32 = 2_030_898_605;

/// 13 April 2017, the day in the story, at midnight UTC.
const DAY: u64 = 1_492_041_600_000_000;

fn capture() -> Vec<u8> {
    let packets: Vec<(u64, Vec<u8>)> = LINES
        .iter()
        .enumerate()
        .map(|(n, &(time, from_balancer, flags, seq, ack, win, payload))| {
            let part = |range: std::ops::Range<usize>| time[range].parse::<u64>().expect("a number");
            let us = ((part(0..2) * 60 + part(3..5)) * 60 + part(6..8)) * 1_000_000 + part(9..15);
            let (own, other) =
                if from_balancer { (BALANCER_ISN, SERVER_ISN) } else { (SERVER_ISN, BALANCER_ISN) };
            let syn = flags & SYN != 0;
            let tcp = Tcp {
                src: if from_balancer { BALANCER } else { SERVER },
                dst: if from_balancer { SERVER } else { BALANCER },
                flags,
                seq: if syn { seq } else { own.wrapping_add(seq) },
                ack: if flags & ACK != 0 { other.wrapping_add(ack) } else { 0 },
                win,
                options: if syn { vec![2, 4, 5, 180] } else { vec![] },
                payload,
                ttl: 64,
                id: n as u16 + 1,
            };
            (DAY + us, tcp.frame())
        })
        .collect();
    pcap(&packets)
}

#[test]
fn the_shipped_capture_is_made_of_the_storys_numbers() {
    let path = root().join("tests/captures/time-wait-reuse.pcap");
    if std::env::var_os("SYNTAP_REGENERATE").is_some() {
        std::fs::write(&path, capture()).expect("the capture is written");
    }
    assert!(
        std::fs::read(&path).expect("the capture is shipped") == capture(),
        "run with SYNTAP_REGENERATE=1"
    );
}

#[test]
fn the_story_is_one_refused_reuse_with_the_numbers_that_its_author_missed() {
    let path = root().join("tests/captures/time-wait-reuse.pcap");
    let records = replay(&[path.to_str().expect("a path")]);
    let refused = of_kind(&records, "tuple_reuse_refused");
    assert_eq!(refused.len(), 1);
    assert_eq!(records.len(), 1, "and nothing else: {records:?}");
    let r = refused[0];
    let f = &r["facts"];
    assert_eq!(f["isn"], 1_563_951_501u32);
    assert_eq!(f["rcv_nxt"], 1_640_887_939u32);
    assert_eq!(f["distance"], -76_936_438);
    assert_eq!(f["rule"], "isn_not_after");
    assert!(f["tsval"].is_null() && f["ts_recent"].is_null());
    assert_eq!(f["old_state"], "time_wait");
    assert_eq!(f["closed_first"], "responder");
    let since = f["since_close_ms"].as_f64().expect("a figure");
    assert!((since - 55_587.382).abs() < 0.001, "{since}");
    assert_eq!((&f["syns"], &f["stale_acks"]), (&3.into(), &3.into()));
    assert_eq!(f["then"], "gave_up");
    assert_eq!(r["certainty"], "proven");
    assert_eq!(r["severity"], "error");
    assert_eq!((&r["src_ip"], &r["src_port"]), (&"192.0.2.10".into(), &30001.into()));
    assert_eq!(r["time"], "2017-04-13T17:15:58.916339000Z");
    let packets = r["packets"].as_array().expect("a list");
    assert_eq!(packets.len(), 17, "the record shows both conversations");
    // Facts say that the reset's absolute numbers are ISN + 1 and one out of nowhere.
    assert_eq!(
        (&packets[16]["seq"], &packets[16]["ack"]),
        (&1_563_951_502u32.into(), &2_813_395_595u32.into())
    );
    assert!(r["summary"].as_str().expect("text").contains("76936438 before"));
}
