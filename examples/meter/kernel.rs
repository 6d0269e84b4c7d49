//! What a packet costs the kernel programs, one stage after the other, run by the kernel on frames of ours.
//!
//! Nothing is cloned or copied into a ring here; the bench on veth pairs has that. A program that only answers is the cost of a test
//! run itself; one that only parses is what the goal is measured by.

use clap::Args;
use serde_json::{Value, json};
use syntap::bpf::Budget;
use syntap::bpf::{Kernel, Options};
use syntap::capture::PortSet;

use super::life::{Family, Maker, Mix, STRIDE, Visit};
use super::programs::{Programs, ifindex};
use super::thread;

#[derive(Args)]
pub struct KernelArgs {
    /// Calls in one run; the best of seven runs counts.
    #[arg(long, default_value_t = 500_000)]
    repeat: u32,
}

/// Programs of the carrier's two ends: they have nothing to choose.
const NO_HOOK: [&str; 2] = ["syntap_carry", "syntap_ring"];

fn frame(family: Family, slot: u32, step: u8, port: u16) -> Vec<u8> {
    let mut room = [0; STRIDE];
    let maker = Maker::new(family, Mix::Steady, true);
    let (len, wire_len) = maker.make(&Visit { slot, life: 0, step, at: 0 }, &mut room);
    let mut frame = room[..len].to_vec();
    frame.resize(wire_len as usize, 0);
    let tcp = if family == Family::V4 { 34 } else { 54 };
    // The server's end; the client is the one that speaks in all steps used here.
    frame[tcp + 2..tcp + 4].copy_from_slice(&port.to_be_bytes());
    frame
}

fn udp() -> Vec<u8> {
    let mut frame = frame(Family::V4, 1, 2, 443);
    frame[23] = 17;
    frame
}

pub fn run(args: &KernelArgs) -> anyhow::Result<Value> {
    let cpu = *thread::cpus().first().unwrap_or(&0);
    thread::pin(cpu);
    let ports: PortSet = "443".parse()?;
    let options = Options {
        key: [0x5eed_0000_1111_2222, 0x3333_4444_5555_6666],
        ports: Box::new(*ports.words()),
        slots: vec![(ifindex("lo")?, 0)],
        watch_packets: u32::MAX,
        budget: Budget { pps: 1_000_000_000, share: 0 },
        neighbour_pps: 1_000_000_000,
        ..Options::default()
    };
    let kernel = Kernel::load(&options).map_err(|e| anyhow::anyhow!("{e}"))?;
    let bench = Programs::load(None)?;
    let names: Vec<String> =
        kernel.object().progs().map(|p| p.name().to_string_lossy().into_owned()).collect();
    let hooks = names.iter().filter(|n| n.starts_with("syntap_") && !NO_HOOK.contains(&n.as_str()));
    let ack = frame(Family::V4, 2, 2, 443);
    let shapes = [
        ("udp", udp()),
        ("port not chosen", frame(Family::V4, 1, 2, 80)),
        ("plain, not watched", frame(Family::V4, 1, 2, 443)),
        ("plain over IPv6, not watched", frame(Family::V6, 1, 2, 443)),
        ("plain with data, not watched", frame(Family::V4, 1, 3, 443)),
        ("SYN", frame(Family::V4, 2, 0, 443)),
        ("plain, watched", ack.clone()),
    ];
    let mut out = Vec::new();
    for hook in hooks {
        // An XDP program puts metadata in front of what it chose, and so a frame grows with each call.
        let xdp = hook.contains("span");
        let (nothing, parse) = if xdp {
            ("bench_nothing_xdp", "bench_parse_xdp")
        } else {
            ("bench_nothing_skb", "bench_parse_skb")
        };
        let floor = Programs::cost(bench.object(), nothing, &ack, args.repeat)?;
        let parse = Programs::cost(bench.object(), parse, &ack, args.repeat)?;
        for (shape, frame) in &shapes {
            if xdp && (*shape == "SYN" || *shape == "plain, watched") {
                continue;
            }
            let ns = Programs::cost(kernel.object(), hook, frame, args.repeat)?;
            out.push(json!({
                "program": hook, "packet": shape, "ns": ns, "parse_only_ns": parse, "call_ns": floor,
            }));
        }
    }
    Ok(json!({ "stages": out }))
}
