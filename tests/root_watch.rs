//! What the kernel side mirrors is enough: the real program chooses from each capture, and a replay of what it chose finds
//! what a replay of everything finds. What it does not is listed here and in docs/limits.md.

mod common;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use common::{corpus, is_root, json_lines, run, syntap};
use libbpf_rs::{MapCore, MapFlags, ProgramInput};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::Value;
use syntap::bpf::abi::{META_LEN, reason};
use syntap::bpf::load::WATCH_NS;
use syntap::bpf::{Budget, Kernel, Meta, Options, Program};
use syntap::capture::{CaptureFile, PortSet};
use syntap::wire::LinkType;

/// Buckets of the watch: 16,384 tuples, more than any of these captures has.
const BUCKETS: u32 = 4096;

/// Frames of a capture that are looked at: more than any of these has.
const FRAMES: usize = 40_000;

/// Differences that are known, by capture and kind; docs/limits.md says the same in words.
const KNOWN: &[(&str, &[&str])] = &[
    // Data sent again in the middle of a connection, long after the watch of its SYN has ended.
    ("nat_mapping_lost-inside.pcap", &["black_hole"]),
    ("nat_mapping_lost-otherport.pcap", &["black_hole"]),
    ("ndpi__waze.pcap", &["black_hole"]),
    ("ppa3__tcp_retransmissions.pcapng", &["black_hole"]),
    // A MAC that changes there.
    ("ppa3__arppoison.pcapng", &["mac_changed_in_flow", "arp_spoof_sign"]),
    ("ppa3__sessionhijacking.pcapng", &["mac_changed_in_flow"]),
    // A connection older than the capture, of which only the reset is a control packet.
    ("ndpi__KakaoTalk_chat.pcap", &["reset_mid_flow", "reset_without_flow"]),
    ("ppa2__double-vision.pcap", &["reset_mid_flow", "reset_without_flow"]),
    // A TCP header in three fragments, of which only the first is mirrored.
    ("suriv__bug-6887-defrag-eth-vlan-ipv4-tcp-syn__frag-eth-vlan-ip-tcp-syn.pcap", &["options_altered"]),
    // ARP behind three VLAN tags: each depth is a broadcast domain of its own, and the kernel side reads two.
    ("suriv__detect-arp-03-vlan__input.pcap", &["arp_spoof_sign"]),
    // What is no TCP, or not readable as far as its ports, is counted by the kernel side and not mirrored.
    ("ndpi__fuzz-2006-06-26-2594.pcap", &["malformed", "one_sided_view"]),
];

/// The span program, loaded anew: choose() runs it in the kernel.
struct Chooser {
    kernel: Kernel,
    armed: HashMap<u32, u64>,
}

impl Chooser {
    fn new() -> Chooser {
        let index = std::fs::read_to_string("/sys/class/net/lo/ifindex").expect("a loopback");
        let kernel = Kernel::load(&Options {
            ports: Box::new(*PortSet::all().words()),
            slots: vec![(index.trim().parse().expect("an index"), 0)],
            watch_buckets: BUCKETS,
            budget: Budget::packets(1_000_000_000),
            neighbour_pps: 1_000_000_000,
            ..Options::default()
        });
        Chooser { kernel: kernel.unwrap_or_else(|e| panic!("{e}")), armed: HashMap::new() }
    }

    /// Forgets all tuples under watch: another capture follows. Loading anew would cost half a second.
    fn clear(&mut self) {
        for (map, elements) in [("watch", BUCKETS), ("watch_marks", BUCKETS / 16)] {
            let watch = self.kernel.object().maps().find(|m| m.name() == map).expect("the watch");
            for element in 0..elements {
                watch.update(&element.to_ne_bytes(), &[0; 64], MapFlags::ANY).expect("an element");
            }
        }
        self.armed.clear();
    }

    /// The mirrored bytes, if the program mirrors this frame at this time of the capture. The program's own clock
    /// hardly moves meanwhile, so the end of a watch is judged here.
    fn choose(&mut self, frame: &[u8], ts: u64) -> Option<Vec<u8>> {
        let program = self.kernel.object().progs_mut().find(|p| p.name() == Program::Span.name());
        let mut out = vec![0; frame.len() + META_LEN];
        let input = ProgramInput {
            data_in: Some(frame),
            data_out: Some(&mut out),
            repeat: 1,
            ..ProgramInput::default()
        };
        let done = program.expect("the span program").test_run(input).ok()?;
        let len = done.data.map_or(0, |d| d.len());
        out.truncate(len);
        let meta = Meta::read(&out)?;
        if meta.reason == reason::WATCH {
            let armed = *self.armed.get(&meta.hash)?;
            if ts.saturating_sub(armed) > WATCH_NS {
                return None;
            }
        } else {
            self.armed.insert(meta.hash, ts);
        }
        Some(out[META_LEN..].to_vec())
    }
}

/// A packet of any link type as an Ethernet frame, which is what the programs see.
fn ethernet(link: LinkType, bytes: &[u8], wire_len: u32) -> Option<(Vec<u8>, u32)> {
    let (skip, kind) = match link {
        LinkType::Ethernet => return Some((bytes.to_vec(), wire_len)),
        LinkType::LinuxSll => (16, bytes.get(14..16)?.to_vec()),
        LinkType::LinuxSll2 => (20, bytes.get(0..2)?.to_vec()),
        LinkType::RawIp | LinkType::BsdLoopback => {
            let skip = if link == LinkType::RawIp { 0 } else { 4 };
            let kind = if bytes.get(skip)? >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
            (skip, kind.to_vec())
        }
        LinkType::Nflog => return None,
    };
    let frame = [&[0; 12][..], &kind, bytes.get(skip..)?].concat();
    Some((frame, wire_len + 14 - skip as u32))
}

fn write(path: &std::path::Path, packets: &[(u64, u32, Vec<u8>)]) {
    let mut out = Vec::new();
    out.extend(0xa1b2_3c4du32.to_le_bytes());
    out.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0]);
    for (ts, wire, bytes) in packets {
        out.extend(((ts / 1_000_000_000) as u32).to_le_bytes());
        out.extend(((ts % 1_000_000_000) as u32).to_le_bytes());
        out.extend((bytes.len() as u32).to_le_bytes());
        out.extend(wire.to_le_bytes());
        out.extend(bytes);
    }
    std::fs::write(path, out).expect("written");
}

/// Records by kind and tuple.
fn records(path: &std::path::Path) -> BTreeMap<(String, String), u64> {
    let mut found = BTreeMap::new();
    for r in json_lines(&run(syntap().args(["replay", "--json"]).arg(path))) {
        let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        let tuple = ["src_ip", "src_port", "dst_ip", "dst_port"].map(|f| text(&r[f])).join(" ");
        *found.entry((text(&r["kind"]), tuple)).or_default() += 1;
    }
    found
}

#[test]
fn root_a_replay_of_what_the_kernel_mirrors_finds_what_a_replay_of_everything_finds() {
    if !is_root() {
        return;
    }
    let Some(lab) = corpus("lab") else { return };
    // One CPU: the watch is shared, the budget's windows are not.
    let mut set = CpuSet::new();
    let allowed = nix::sched::sched_getaffinity(Pid::from_raw(0)).expect("an affinity");
    let cpu = (0..CpuSet::count()).find(|c| allowed.is_set(*c).unwrap_or(false)).expect("a CPU");
    set.set(cpu).expect("a CPU number");
    sched_setaffinity(Pid::from_raw(0), &set).expect("pinned");

    let mut chooser = Chooser::new();
    let dir = tempfile::tempdir().expect("a directory");
    let mut files: Vec<_> = [lab.parent().expect("a parent"), lab.as_path()]
        .iter()
        .flat_map(|d| std::fs::read_dir(d).expect("a directory").flatten().map(|e| e.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "pcap" || e == "pcapng"))
        .collect();
    files.sort();
    let (mut compared, mut chosen, mut all) = (0, 0, 0);
    let (mut differences, mut met) = (Vec::new(), BTreeSet::new());
    for path in files {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let Ok(mut capture) = CaptureFile::open(&path) else { continue };
        chooser.clear();
        let (mut whole, mut mirrored) = (Vec::new(), Vec::new());
        while let Some(p) = capture.next_packet().filter(|_| whole.len() < FRAMES) {
            let Some((bytes, wire_len)) = ethernet(p.link, capture.bytes(&p.range), p.wire_len) else {
                continue;
            };
            // The kernel runs no frame shorter than an Ethernet header, and none longer than a page allows.
            if bytes.len() < 14 || bytes.len() > 3_000 {
                continue;
            }
            if let Some(bytes) = chooser.choose(&bytes, p.ts.0) {
                mirrored.push((p.ts.0, wire_len, bytes));
            }
            whole.push((p.ts.0, wire_len, bytes));
        }
        if whole.is_empty() {
            continue;
        }
        let (one, two) = (dir.path().join("all.pcap"), dir.path().join("mirrored.pcap"));
        write(&one, &whole);
        write(&two, &mirrored);
        let (expected, found) = (records(&one), records(&two));
        compared += 1;
        all += whole.len();
        chosen += mirrored.len();
        for key in expected.keys().chain(found.keys()) {
            let known = KNOWN.iter().any(|(file, kinds)| *file == name && kinds.contains(&key.0.as_str()));
            if expected.get(key) != found.get(key) && known {
                met.insert((name.clone(), key.0.clone()));
            }
            if expected.get(key) != found.get(key) && !known {
                differences.push(format!(
                    "{name}: {key:?}: {:?} of all, {:?} of mirrored",
                    expected.get(key),
                    found.get(key)
                ));
            }
        }
    }
    println!("{compared} captures, {all} frames, {chosen} mirrored");
    assert!(compared > 80, "the corpus was read");
    let known: usize = KNOWN.iter().map(|(_, kinds)| kinds.len()).sum();
    assert_eq!(met.len(), known, "differences that are gone stand in the list: {met:?}");
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}
