//! Traffic through a gateway, from both its sides, by one core; what comes out is counted and dropped.

use clap::Args;
use serde_json::{Value, json};
use syntap::bpf::attach::{self, TcxHook};

use super::generate::transmit;
use super::programs::{Generator, Mode, Programs, Side, ifindex, mac, mac_of, may_transmit};
use super::thread;

#[derive(Args)]
pub struct ForwardArgs {
    /// Interface towards the gateway's inside: clients speak here.
    #[arg(long)]
    inside: String,
    /// The gateway's Ethernet address there.
    #[arg(long)]
    inside_to: String,
    /// Interface towards the gateway's outside: servers speak here.
    #[arg(long)]
    outside: String,
    /// The gateway's Ethernet address there.
    #[arg(long)]
    outside_to: String,
    /// Connections at once, as a power of two.
    #[arg(long, default_value_t = 14, value_parser = clap::value_parser!(u32).range(1..=24))]
    bits: u32,
    /// What to generate.
    #[arg(long, value_enum, default_value_t = Mode::Long)]
    mode: Mode,
    /// Seconds to transmit.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// CPU to transmit from, and with a veth pair to forward on.
    #[arg(long)]
    cpu: Option<usize>,
}

#[derive(Args)]
pub struct HooksArgs {
    /// Interfaces; both hooks of each.
    interfaces: Vec<String>,
}

/// Says `ready` when the programs are attached.
pub fn hooks(args: &HooksArgs) -> anyhow::Result<Value> {
    let programs = Programs::load(None)?;
    let parse = programs.program("bench_parse_skb")?;
    let mut links = Vec::new();
    for name in &args.interfaces {
        for hook in [TcxHook::Ingress, TcxHook::Egress] {
            links.push(attach::tcx(&parse, ifindex(name)?, hook)?);
        }
    }
    eprintln!("ready");
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(json!({ "hooks": links.len() }))
}

pub fn run(args: &ForwardArgs) -> anyhow::Result<Value> {
    if let Some(cpu) = args.cpu {
        thread::pin(cpu);
    }
    let side = |name: &str, to: &str| -> anyhow::Result<Side> {
        may_transmit(name, None)?;
        Ok(Side { ifindex: ifindex(name)?, dst: mac(to)?, src: mac_of(name)? })
    };
    let sides = [side(&args.inside, &args.inside_to)?, side(&args.outside, &args.outside_to)?];
    let programs = Programs::load(Some(&Generator { sides, bits: args.bits, mode: args.mode }))?;
    let sink = programs.program("bench_sink")?;
    let _links = [
        attach::tcx(&sink, sides[0].ifindex, TcxHook::Ingress)?,
        attach::tcx(&sink, sides[1].ifindex, TcxHook::Ingress)?,
    ];
    let before = thread::cpu_ns();
    let (sent, took) = transmit(&programs, args.seconds, u64::MAX)?;
    let cpu = thread::cpu_ns() - before;
    let came = programs.counted(0)?;
    Ok(json!({
        "sent": sent,
        "forwarded": came,
        "seconds": took.as_secs_f64(),
        "packets_a_second": came as f64 / took.as_secs_f64(),
        "cpu_ns_a_packet": cpu as f64 / came.max(1) as f64,
    }))
}
