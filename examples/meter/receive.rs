//! The least that a program can do with AF_XDP: take every frame, and hand it back.
//!
//! One socket and one thread a queue; ring sizes, batch and way of waiting are syntap's own, so that what differs is the pipeline.
//!
//! Unsafe invariants:
//! - U1: descriptors handed to a UMEM's rings came from that UMEM, and each is given to the kernel once.
//! - U2: a UMEM has one socket.
//! - U3: option buffers live through the call and their length is their size.
#![allow(unsafe_code)]

use std::hint::black_box;
use std::num::NonZeroU32;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use clap::Args;
use serde_json::{Value, json};
use syntap::bpf::attach::{self, XdpMode};
use syntap::capture::BATCH;
use xsk_rs::config::{BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig};
use xsk_rs::umem::frame::FrameDesc;
use xsk_rs::{CompQueue, FillQueue, RxQueue, Socket, TxQueue, Umem};

use super::programs::{Programs, ifindex};
use super::thread;

const FRAMES: u32 = 16_384;
const FRAME_BYTES: u32 = 2048;

/// How long a receiver sleeps at most.
const WAIT_MS: i32 = 100;

#[derive(Args)]
pub struct ReceiveArgs {
    /// Interface to receive on. All that comes in is taken: it must be one that only receives copies.
    interface: String,
    /// Seconds to receive.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// CPUs to receive on, one a queue, in turns.
    #[arg(long, value_delimiter = ',')]
    cpus: Vec<usize>,
    /// Insist on zero-copy, or do without it; tried first if not given.
    #[arg(long)]
    zero_copy: Option<bool>,
    /// Read each packet's bytes before its frame is handed back: what any program that looks at them must wait for.
    #[arg(long)]
    read: bool,
    /// Attach nothing to rings: count by queue and drop in XDP, and say which slots' two directions came to one queue.
    #[arg(long)]
    queues_only: bool,
    /// Print a line when the program is attached.
    #[arg(long)]
    announce: bool,
}

/// One queue's socket and memory.
struct Ring {
    fill: FillQueue,
    receive: RxQueue,
    _transmit: TxQueue,
    _completion: CompQueue,
    umem: Umem,
}

impl Ring {
    fn bind(interface: &str, queue: u32, zero_copy: bool) -> anyhow::Result<Ring> {
        let (ring, unused) = (QueueSize::new(FRAMES)?, QueueSize::new(64)?);
        let umem = UmemConfig::builder()
            .frame_size(FrameSize::new(FRAME_BYTES)?)
            .fill_queue_size(ring)
            .comp_queue_size(unused)
            .build()?;
        let count = NonZeroU32::new(FRAMES).expect("it is not zero");
        let (umem, descs) = Umem::new(umem, count, false)?;
        let copy = if zero_copy { BindFlags::XDP_ZEROCOPY } else { BindFlags::XDP_COPY };
        let config = SocketConfig::builder()
            .rx_queue_size(ring)
            .tx_queue_size(unused)
            .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
            .bind_flags(copy | BindFlags::XDP_USE_NEED_WAKEUP)
            .build();
        let name: Interface = interface.parse()?;
        // SAFETY: U2.
        let (transmit, receive, rings) = unsafe { Socket::new(config, &umem, &name, queue) }?;
        let (mut fill, completion) = rings.ok_or_else(|| anyhow!("the UMEM has a socket already"))?;
        // SAFETY: U1: all of them, for the first time.
        unsafe { fill.produce(&descs) };
        Ok(Ring { fill, receive, _transmit: transmit, _completion: completion, umem })
    }

    /// Receives until it is told to stop: how many, and CPU time in nanoseconds.
    fn run(&mut self, read: bool, stop: &AtomicBool, received: &AtomicU64) -> u64 {
        let mut descs = [FrameDesc::default(); BATCH];
        let start = thread::cpu_ns();
        while !stop.load(Ordering::Relaxed) {
            // SAFETY: U1: ring and descriptors are of one UMEM.
            let n = unsafe { self.receive.consume(&mut descs) };
            if n == 0 {
                let wait = if self.fill.needs_wakeup() { 0 } else { WAIT_MS };
                let _ = self.receive.poll(wait);
                if wait == 0 {
                    let _ = self.receive.poll(WAIT_MS);
                }
                continue;
            }
            if read {
                for desc in &descs[..n] {
                    // SAFETY: U1: of this UMEM, and not given back yet.
                    let data = unsafe { self.umem.data(desc) };
                    // One byte of each cache line: the rest comes with it.
                    data.iter().step_by(64).for_each(|byte| {
                        black_box(*byte);
                    });
                }
            }
            // SAFETY: U1: received, and given back once.
            unsafe { self.fill.produce(&descs[..n]) };
            received.fetch_add(n as u64, Ordering::Relaxed);
        }
        thread::cpu_ns() - start
    }

    /// Packets that found no frame or no room.
    fn lost(&self) -> u64 {
        let mut raw = [0u64; 6];
        let mut len = size_of_val(&raw) as libc::socklen_t;
        let fd = self.receive.fd().as_raw_fd();
        // SAFETY: U3.
        unsafe {
            libc::getsockopt(fd, libc::SOL_XDP, libc::XDP_STATISTICS, raw.as_mut_ptr().cast(), &mut len);
        }
        raw[0] + raw[3]
    }
}

/// Receive queues that the interface has.
fn queues(interface: &str) -> anyhow::Result<u32> {
    let list = std::fs::read_dir(format!("/sys/class/net/{interface}/queues"))
        .with_context(|| format!("no queues of {interface}"))?;
    Ok(list.flatten().filter(|q| q.file_name().to_string_lossy().starts_with("rx-")).count() as u32)
}

fn announce(args: &ReceiveArgs) {
    if args.announce {
        eprintln!("ready");
    }
}

pub fn run(args: &ReceiveArgs) -> anyhow::Result<Value> {
    let programs = Programs::load(None)?;
    let (index, queues) = (ifindex(&args.interface)?, queues(&args.interface)?);
    if args.queues_only {
        return by_queue(args, &programs, index, queues);
    }
    let mut zero_copy = args.zero_copy.unwrap_or(true);
    let mut link = Some(attach::xdp(&programs.program("bench_receive")?, index, XdpMode::Native)?);
    let bind = |zero_copy| (0..queues).map(|q| Ring::bind(&args.interface, q, zero_copy)).collect();
    let mut bound: anyhow::Result<Vec<Ring>> = bind(zero_copy);
    if bound.is_err() && args.zero_copy.is_none() {
        zero_copy = false;
        bound = bind(false);
    }
    let mut rings = bound.with_context(|| format!("cannot bind to {}", args.interface))?;
    for (queue, ring) in (0..).zip(&rings) {
        programs.set_ring(queue, ring.receive.fd().as_raw_fd())?;
    }
    let (stop, received, cpu) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let start = Instant::now();
    announce(args);
    std::thread::scope(|s| {
        for (n, ring) in rings.iter_mut().enumerate() {
            let cpus = &args.cpus;
            let (stop, received, cpu) = (&stop, &received, &cpu);
            s.spawn(move || {
                if !cpus.is_empty() {
                    thread::pin(cpus[n % cpus.len()]);
                }
                cpu.fetch_add(ring.run(args.read, stop, received), Ordering::Relaxed);
            });
        }
        std::thread::sleep(Duration::from_secs_f64(args.seconds));
        stop.store(true, Ordering::Relaxed);
    });
    drop(link.take());
    let (received, seconds) = (received.into_inner(), start.elapsed().as_secs_f64());
    Ok(json!({
        "received": received,
        "lost": rings.iter().map(Ring::lost).sum::<u64>(),
        "seconds": seconds,
        "queues": queues,
        "zero_copy": zero_copy,
        "user_ns_a_packet": cpu.into_inner() as f64 / received.max(1) as f64,
    }))
}

/// Which queues packets come to, and whether both directions of a slot agree.
fn by_queue(args: &ReceiveArgs, programs: &Programs, index: u32, queues: u32) -> anyhow::Result<Value> {
    let _link = attach::xdp(&programs.program("bench_queues")?, index, XdpMode::Native)?;
    announce(args);
    std::thread::sleep(Duration::from_secs_f64(args.seconds));
    let (mut together, mut apart) = (0, 0);
    for slot in 0..4096 {
        if let [Some(from_client), Some(from_server)] = programs.landed(slot)? {
            *(if from_client == from_server { &mut together } else { &mut apart }) += 1;
        }
    }
    let counts: Vec<u64> = (0..queues).map(|q| programs.counted(q)).collect::<anyhow::Result<_>>()?;
    Ok(json!({
        "queues": queues,
        "packets_a_queue": counts,
        "slots_in_one_queue": together,
        "slots_in_two_queues": apart,
    }))
}
