//! The kernel programs of `bpf/bench.bpf.c`, loaded.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use libbpf_rs::{MapCore, MapFlags, Object, ObjectBuilder, ProgramInput};
use syntap::capture::ethtool;

#[repr(C, align(8))]
struct Aligned<B: ?Sized>(B);
static ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/bench.bpf.o")));

/// `BPF_F_TEST_XDP_LIVE_FRAMES` of linux/bpf.h: what the program redirects is really sent.
const LIVE_FRAMES: u32 = 1 << 1;

/// Bytes of a generated frame.
const FRAME_LEN: usize = 74;

/// One side that frames are sent out on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Side {
    pub ifindex: u32,
    pub dst: [u8; 6],
    pub src: [u8; 6],
}

/// `enum mode` of bench.bpf.c.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Ten packets a connection, all of which a tap mirrors.
    Lives = 0,
    /// One packet in five is a SYN, SYN-ACK or FIN; the others are of long connections, which nobody watches.
    Long = 1,
    /// Connections of twenty packets, all of which a tap mirrors: SYN, SYN-ACK, sixteen plain ones, two FINs.
    Short = 2,
    /// Plain packets of long connections.
    Plain = 3,
}

/// What is generated.
#[derive(Clone, Copy, Debug)]
pub struct Generator {
    pub sides: [Side; 2],
    pub bits: u32,
    pub mode: Mode,
}

/// The loaded object.
pub struct Programs(Object);

impl Programs {
    /// Loads them. What is not to be generated needs no generator.
    pub fn load(generator: Option<&Generator>) -> anyhow::Result<Programs> {
        let mut open = ObjectBuilder::default().open_memory(&ALIGNED.0)?;
        for mut map in open.maps_mut() {
            if map.name() == ".rodata.generator"
                && let Some(g) = generator
            {
                let mut bytes = Vec::new();
                for side in g.sides {
                    bytes.extend(side.ifindex.to_ne_bytes());
                    bytes.extend(side.dst);
                    bytes.extend(side.src);
                }
                bytes.extend(g.bits.to_ne_bytes());
                bytes.extend((g.mode as u32).to_ne_bytes());
                map.set_initial_value(&bytes)?;
            }
        }
        Ok(Programs(open.load().context("cannot load the programs of the bench")?))
    }

    /// A program's descriptor, to attach it.
    pub fn program(&self, name: &str) -> anyhow::Result<OwnedFd> {
        let found = self.0.progs().find(|p| p.name() == name).ok_or_else(|| anyhow!("no program {name}"))?;
        Ok(found.as_fd().try_clone_to_owned()?)
    }

    /// The loaded object.
    pub fn object(&self) -> &Object {
        &self.0
    }

    fn map(&self, name: &str) -> anyhow::Result<libbpf_rs::MapImpl<'_>> {
        self.0.maps().find(|m| m.name() == name).ok_or_else(|| anyhow!("no map {name}"))
    }

    /// Puts a socket into the XSKMAP.
    pub fn set_ring(&self, queue: u32, socket: i32) -> anyhow::Result<()> {
        Ok(self.map("bench_rings")?.update(&queue.to_ne_bytes(), &socket.to_ne_bytes(), MapFlags::ANY)?)
    }

    /// Packets counted of one queue; the sink counts under 0.
    pub fn counted(&self, queue: u32) -> anyhow::Result<u64> {
        let cpus = self.map("bench_counts")?.lookup_percpu(&queue.to_ne_bytes(), MapFlags::ANY)?;
        let one = |b: &Vec<u8>| b.first_chunk().map_or(0, |b| u64::from_ne_bytes(*b));
        Ok(cpus.unwrap_or_default().iter().map(one).sum())
    }

    /// The queues that a slot's packets came to: from the client, from the server.
    pub fn landed(&self, slot: u32) -> anyhow::Result<[Option<u32>; 2]> {
        let value = self.map("bench_landed")?.lookup(&slot.to_ne_bytes(), MapFlags::ANY)?;
        let word = value.and_then(|v| v.first_chunk().map(|b| u32::from_ne_bytes(*b))).unwrap_or(0);
        Ok([word & 0xffff, word >> 16].map(|q| q.checked_sub(1)))
    }

    /// Sends this many frames in one call; how long the kernel says that took, without what it made ready before.
    pub fn send(&self, frames: u32) -> anyhow::Result<Duration> {
        let found = self.0.progs_mut().find(|p| p.name() == "bench_generate");
        let program = found.ok_or_else(|| anyhow!("no program to generate with"))?;
        let input = ProgramInput {
            data_in: Some(&template()),
            flags: LIVE_FRAMES,
            repeat: frames,
            ..ProgramInput::default()
        };
        let done =
            program.test_run(input).context("the kernel sends no live frames (it needs Linux 5.18)")?;
        Ok(done.duration * frames)
    }

    /// Nanoseconds a call of a program on a frame, the best of a few runs.
    pub fn cost(object: &Object, name: &str, frame: &[u8], repeat: u32) -> anyhow::Result<u64> {
        let found = object.progs_mut().find(|p| p.name() == name);
        let program = found.ok_or_else(|| anyhow!("no program {name}"))?;
        let mut best = u64::MAX;
        for _ in 0..7 {
            let input = ProgramInput { data_in: Some(frame), repeat, ..ProgramInput::default() };
            best = best.min(program.test_run(input)?.duration.as_nanos() as u64);
        }
        Ok(best)
    }
}

/// What the generator leaves as it is.
fn template() -> [u8; FRAME_LEN] {
    let mut frame = [0; FRAME_LEN];
    frame[48..50].copy_from_slice(&64_240u16.to_be_bytes());
    // Behind the twelve bytes of options that are written: TSecr, NOP and window scale of a SYN.
    frame[66..74].copy_from_slice(&[0, 0, 0, 0, 1, 3, 3, 7]);
    frame
}

/// Index of an interface in this thread's namespace.
pub fn ifindex(name: &str) -> anyhow::Result<u32> {
    nix::net::if_::if_nametoindex(name).with_context(|| format!("no interface {name}"))
}

/// An address such as 02:00:00:00:00:01.
pub fn mac(text: &str) -> anyhow::Result<[u8; 6]> {
    let bytes: Result<Vec<u8>, _> = text.split(':').map(|b| u8::from_str_radix(b, 16)).collect();
    bytes.ok().and_then(|b| b.try_into().ok()).ok_or_else(|| anyhow!("{text} is no MAC address"))
}

/// An interface's own address.
pub fn mac_of(name: &str) -> anyhow::Result<[u8; 6]> {
    let text = fs::read_to_string(format!("/sys/class/net/{name}/address"))
        .with_context(|| format!("no address of {name}"))?;
    mac(text.trim())
}

/// Names of network namespaces that may be transmitted in begin with this.
const MADE_FOR_IT: &str = "syntapbench-";

/// Refuses to transmit anywhere but into a veth of a namespace that was made for it, unless the very interface was named to
/// transmit on.
pub fn may_transmit(interface: &str, named: Option<&str>) -> anyhow::Result<()> {
    if named == Some(interface) {
        return Ok(());
    }
    let here = fs::metadata("/proc/thread-self/ns/net")?;
    let made = fs::read_dir("/run/netns").into_iter().flatten().flatten().any(|n| {
        n.file_name().to_string_lossy().starts_with(MADE_FOR_IT)
            && fs::metadata(n.path()).is_ok_and(|m| (m.dev(), m.ino()) == (here.dev(), here.ino()))
    });
    if !made {
        bail!("will not transmit on {interface}: this is no namespace of the bench ({MADE_FOR_IT}...)");
    }
    let driver = ethtool::driver(interface).with_context(|| format!("what is {interface}?"))?;
    if driver != "veth" {
        bail!("will not transmit on {interface}, which is no veth but {driver}");
    }
    Ok(())
}
