//! Community ID, version 1 (github.com/corelight/community-id-spec), seed 0, for TCP.

use base64::Engine as _;
use sha1::{Digest as _, Sha1};

use crate::flow::{Endpoint, Tuple};

const TCP: u8 = 6;

fn put(h: &mut Sha1, e: &Endpoint) {
    if e.addr.is_v4() {
        h.update(&e.addr.0[12..]);
    } else {
        h.update(e.addr.0);
    }
}

/// The identifier of a tuple; the same for both directions.
pub fn community_id(tuple: &Tuple) -> String {
    let (a, b) = (tuple.src, tuple.dst);
    let (low, high) = if (a.addr, a.port) <= (b.addr, b.port) { (a, b) } else { (b, a) };
    let mut h = Sha1::new();
    h.update([0, 0]); // seed
    put(&mut h, &low);
    put(&mut h, &high);
    h.update([TCP, 0]);
    h.update(low.port.to_be_bytes());
    h.update(high.port.to_be_bytes());
    format!("1:{}", base64::engine::general_purpose::STANDARD.encode(h.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    /// The published baselines of the specification.
    #[test]
    fn the_baselines_hold_in_both_directions() {
        for (src, sport, dst, dport, id) in [
            ("128.232.110.120", 34855, "66.35.250.204", 80, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
            (
                "2001:470:e5bf:dead:4957:2174:e82c:4887",
                63943,
                "2607:f8b0:400c:c03::1a",
                25,
                "1:/qFaeAR+gFe1KYjMzVDsMv+wgU4=",
            ),
        ] {
            let end = |ip: &str, port| Endpoint { addr: ip.parse::<IpAddr>().unwrap().into(), port };
            let t = Tuple { src: end(src, sport), dst: end(dst, dport) };
            assert_eq!(community_id(&t), id);
            assert_eq!(community_id(&t.reversed()), id);
        }
    }
}
