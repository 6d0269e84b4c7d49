//! The shipped captures of the four stories: what the demo replays where it cannot tap, and what the report says of them.

mod common;

use common::{root, run, syntap};

/// What is replayed, tap point by tap point.
const STORIES: &[&[(&str, &str)]] = &[
    &[("gateway:outside", "time-wait-reuse")],
    &[("inside:inside", "snat-race-inside"), ("outside:outside", "snat-race-outside")],
    &[("docker0:inside", "nat-mapping-lost-inside"), ("out0:outside", "nat-mapping-lost-outside")],
    &[("asker", "arp-duel-asker"), ("owner", "arp-duel-owner"), ("vxlan", "arp-duel-vxlan")],
];

#[test]
fn the_report_names_the_four_causes_in_four_sentences() {
    let dir = tempfile::tempdir().expect("a directory");
    let captures = root().join("tests/captures");
    for story in STORIES {
        let points = story.iter().map(|(point, file)| format!("{point}={}/{file}.pcap", captures.display()));
        run(syntap().args(["replay", "-w"]).arg(dir.path()).args(points));
    }
    let out = run(syntap().args(["report", "--brief"]).env("COLUMNS", "160").arg(dir.path()));
    let said = String::from_utf8(out.stdout).expect("text");
    let (_, short) = said.split_once("\nIn short\n").expect("a short answer");
    let sentences: Vec<&str> = short.lines().filter(|l| l.starts_with("  ") && l.contains(". ")).collect();
    assert_eq!(sentences.iter().filter(|l| l[2..4].ends_with('.')).count(), 4, "{short}");
    for words in [
        "refused 1 new connection because it had not yet forgotten the last one",
        "because two clients used one source port at the same moment",
        "lost the translation of 1 open connection to 198.51.100.2:6783 when its bridge took another MAC address",
        "answer ARP for 10.0.0.3",
    ] {
        assert!(short.replace("\n     ", " ").contains(words), "{words}: {short}");
    }
}
