//! A generator: XDP live frames from one core, into a veth of a namespace made for it, or the port that the user named.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use syntap::bpf::attach::{self, XdpMode};

use super::programs::{Generator, Mode, Programs, Side, ifindex, mac, mac_of, may_transmit};
use super::thread;

#[derive(Args)]
pub struct GenerateArgs {
    /// Interface to transmit on.
    interface: String,
    /// Ethernet address that all frames are sent to.
    #[arg(long)]
    to: String,
    /// Connections at once, as a power of two.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=24))]
    bits: u32,
    /// What to generate.
    #[arg(long, value_enum, default_value_t = Mode::Lives)]
    mode: Mode,
    /// Seconds to transmit.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Packets at most.
    #[arg(long, default_value_t = 1_000_000_000)]
    packets: u64,
    /// CPU to transmit from.
    #[arg(long)]
    cpu: Option<usize>,
    /// The interface once more, if it is a port of this machine and no veth in a namespace made for this.
    #[arg(long, value_name = "IF")]
    transmit_on: Option<String>,
}

/// Frames of the first call: enough to tell how many more the time is for.
const TRY: u64 = 32_768;
/// Frames of one call at most, so that no generator outlives its time by much on a machine that turns slow.
const CALL: u64 = 1 << 22;

/// Transmits until a time or a number is reached: packets sent, and the time that the kernel sent in. It goes in few calls, because
/// each waits some 25 ms for the kernel to make and unmake a pool of pages, in which receivers catch up.
pub fn transmit(programs: &Programs, seconds: f64, packets: u64) -> anyhow::Result<(u64, Duration)> {
    let (mut sent, mut took) = (0, Duration::ZERO);
    while took.as_secs_f64() < seconds && sent < packets {
        let left = seconds - took.as_secs_f64();
        let wanted = if sent == 0 { TRY as f64 } else { sent as f64 * left / took.as_secs_f64() };
        let frames = (wanted as u64).clamp(1024, CALL).min(packets - sent);
        took += programs.send(frames as u32)?;
        sent += frames;
    }
    Ok((sent, took))
}

pub fn run(args: &GenerateArgs) -> anyhow::Result<Value> {
    may_transmit(&args.interface, args.transmit_on.as_deref())?;
    if let Some(cpu) = args.cpu {
        thread::pin(cpu);
    }
    let side =
        Side { ifindex: ifindex(&args.interface)?, dst: mac(&args.to)?, src: mac_of(&args.interface)? };
    let generator = Generator { sides: [side; 2], bits: args.bits, mode: args.mode };
    let programs = Programs::load(Some(&generator))?;
    // Drivers that keep queues for redirected frames only while they have a program; a veth needs its peer to have one.
    let _pass = match args.transmit_on {
        Some(_) => Some(attach::xdp(&programs.program("bench_pass")?, side.ifindex, XdpMode::Native)?),
        None => None,
    };
    let (sent, took) = transmit(&programs, args.seconds, args.packets)?;
    Ok(json!({
        "sent": sent,
        "seconds": took.as_secs_f64(),
        "packets_a_second": sent as f64 / took.as_secs_f64(),
    }))
}
