//! What peers say of the captures in the corpus, and syntap beside it: `tools/corpus` with its totals held.

mod common;

use std::collections::HashMap;
use std::process::Command;

use common::{corpus, root, run};

#[test]
fn peers_agree_on_all_captures_but_where_the_packets_or_the_documents_say_why_not() {
    if corpus("MANIFEST.tsv").is_none() {
        return;
    }
    let out = run(Command::new(root().join("tools/corpus")).arg(env!("CARGO_BIN_EXE_syntap")));
    let text = String::from_utf8(out.stdout).expect("text");
    let line = text.lines().find(|l| l.starts_with("all ")).expect("the totals");
    let words: Vec<&str> = line.split_whitespace().skip(1).collect();
    let totals: HashMap<&str, (u64, u64)> = words
        .chunks_exact(2)
        .map(|w| {
            let (hit, all) = w[1].split_once('/').expect("hits of all");
            (w[0], (hit.parse().expect("a number"), all.parse().expect("a number")))
        })
        .collect();
    for (what, share) in [("conn_state", 99), ("history", 97)] {
        let (hit, all) = totals[what];
        assert!(all > 50 && hit * 100 >= all * share, "{what}: {line}");
    }
    for what in [
        "opens",
        "quiet",
        "arkime.counts",
        "tcptrace.counts",
        "tshark.counts",
        "tcptrace.conn",
        "community_id",
        "suricata",
        "snort",
        "deepflow",
        "ndpi",
        "tshark.reused",
    ] {
        let (hit, all) = totals[what];
        assert!(all > 0 && hit == all, "{what}: {line}");
    }
}
