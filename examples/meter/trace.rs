//! A capture of many connections at once, the same bytes for the same arguments.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::life::{Family, Maker, Mix, Order, STRIDE};
use super::steady::START;

#[derive(Args)]
pub struct TraceArgs {
    /// Where to.
    file: PathBuf,
    /// Packets.
    #[arg(long, default_value_t = 10_000_000)]
    packets: u64,
    /// Connections at once, as a power of two.
    #[arg(long, default_value_t = 20)]
    bits: u32,
    /// Over IPv6.
    #[arg(long)]
    v6: bool,
}

/// Packets that are made from the beginning of their connections, slot after slot, would be a handshake at a time; here a slot keeps
/// still until the round in which its first connection begins, so that a reader sees every SYN and all connections at once.
pub fn run(args: &TraceArgs) -> anyhow::Result<Value> {
    let family = if args.v6 { Family::V6 } else { Family::V4 };
    let maker = Maker::new(family, Mix::Full, true);
    let mut order = Order::new(args.bits, Mix::Full, START);
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&args.file)?);
    // Classic pcap with nanoseconds, Ethernet, cut behind the headers.
    out.write_all(&0xa1b2_3c4du32.to_le_bytes())?;
    out.write_all(&[2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0])?;
    out.write_all(&(STRIDE as u32).to_le_bytes())?;
    out.write_all(&1u32.to_le_bytes())?;
    let mut frame = [0; STRIDE];
    let (mut written, mut bytes, mut begun) = (0, 24u64, 0u64);
    while written < args.packets {
        let mut v = order.next();
        if v.life == 0 {
            continue; // Its first SYN is still to come.
        }
        v.life -= 1;
        let (len, wire_len) = maker.make(&v, &mut frame);
        let mut head = [0; 16];
        head[..4].copy_from_slice(&((v.at / 1_000_000_000) as u32).to_le_bytes());
        head[4..8].copy_from_slice(&((v.at % 1_000_000_000) as u32).to_le_bytes());
        head[8..12].copy_from_slice(&(len as u32).to_le_bytes());
        head[12..].copy_from_slice(&wire_len.to_le_bytes());
        out.write_all(&head)?;
        out.write_all(&frame[..len])?;
        written += 1;
        bytes += 16 + len as u64;
        begun += u64::from(v.step == 0);
    }
    out.flush()?;
    Ok(json!({
        "file": args.file.display().to_string(),
        "packets": written,
        "bytes": bytes,
        "connections_at_once": 1u64 << args.bits,
        "connections_begun": begun,
    }))
}
