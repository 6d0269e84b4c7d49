//! Loading the programs, and reading what they count.
//!
//! Nearly everything is fixed at load: the configuration is read-only data that the JIT folds into the code. Ports, slots and budgets
//! may change later. What is loaded lives as long as [`Kernel`]; nothing is pinned, so nothing outlives the process.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, Object, ObjectBuilder, PrintLevel};

use super::abi::{self, Census, Config, Counters, LANES, RINGS, SLOTS};
use super::attach;
use super::budget::{Budget, Kept, per_window};
use super::known::Known;
use super::watch::{self, Watch, Watching};

/// The compiled object.
#[repr(C, align(8))]
struct Aligned<B: ?Sized>(B);
static ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/syntap.bpf.o")));
/// ELF readers want its sections aligned as in a file.
pub static OBJECT: &[u8] = &ALIGNED.0;

/// How long a tuple stays under watch after its last SYN, FIN or RST. A refused reuse and its retries, and the
/// answers to a retransmitted SYN (1, 2, 4 s on Linux), come within 7 s; much longer and idle tuples crowd out
/// new ones in the table.
pub const WATCH_NS: u64 = 10_000_000_000;
/// Plain packets mirrored for a watched tuple. The handshake's ACK, the first request and answer and their
/// acknowledgements are six; sixteen leaves room for a short connection, and bounds what a bulk transfer adds to
/// sixteen packets each time a control packet arms it.
pub const WATCH_PACKETS: u32 = 16;
/// Buckets of four tuples: 262,144 tuples in 4 MiB, and 256 KiB of marks. At 20,000 new connections a second the 200,000 of the last
/// [`WATCH_NS`] fit; beyond that the oldest go first.
pub const WATCH_BUCKETS: u32 = 1 << 16;
/// ARP and neighbour packets a second, CPU and interface, metered apart: a network scan asks some thousands a second, and
/// must not crowd out TCP.
pub const NEIGHBOUR_PPS: u64 = 5_000;
/// Bytes of a packet that are mirrored: Ethernet, two tags, IPv6 with a few extension headers, and a full TCP
/// header are under 200; the rest is the first payload, where a middlebox says why it resets. In a tunnel they count
/// from its inside, so that outer headers, of whatever length, leave the same room.
pub const SNAP: u32 = 256;

/// What the programs are loaded with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Secret of the tuple hash.
    pub key: [u64; 2],
    /// The port set: bit `p % 64` of word `p / 64`.
    pub ports: Box<[u64; 1024]>,
    /// Interface index and first ring (span) of each tap point, at most [`SLOTS`].
    pub slots: Vec<(u32, u32)>,
    /// Rings of the inline mode, at least 1.
    pub shards: u32,
    /// Interface index of the carrier; 0 selects without cloning.
    pub carrier: u32,
    /// Bytes of each shard's ring buffer, a power of two and whole pages: packets are copied into these instead of
    /// cloned to the carrier. 0 makes none.
    pub ring_bytes: u32,
    /// See [`WATCH_NS`].
    pub watch_ns: u64,
    /// See [`WATCH_PACKETS`].
    pub watch_packets: u32,
    /// See [`WATCH_BUCKETS`]; rounded up to a power of two.
    pub watch_buckets: u32,
    /// What each tap point may take of a CPU,
    pub budget: Budget,
    /// but for those of this list, in the order of `slots`.
    pub budgets: Vec<Budget>,
    /// Open tuples there is room for, so that they are kept when others are shed.
    pub known: usize,
    /// See [`NEIGHBOUR_PPS`].
    pub neighbour_pps: u64,
    /// See [`SNAP`].
    pub snap: u32,
    /// The programs that will be attached. No others are loaded: what is not there cannot be attached by whoever takes over the process.
    pub programs: Vec<Program>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            key: [0; 2],
            ports: Box::new([u64::MAX; 1024]),
            slots: Vec::new(),
            shards: 1,
            carrier: 0,
            ring_bytes: 0,
            watch_ns: WATCH_NS,
            watch_packets: WATCH_PACKETS,
            watch_buckets: WATCH_BUCKETS,
            budget: Budget::default(),
            budgets: Vec::new(),
            known: 0,
            neighbour_pps: NEIGHBOUR_PPS,
            snap: SNAP,
            programs: Program::ALL.to_vec(),
        }
    }
}

/// The programs by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// tcx ingress of a live interface.
    Ingress,
    /// tcx egress of a live interface.
    Egress,
    /// tcx egress of the carrier.
    Carry,
    /// XDP at the far end of the carrier.
    Ring,
    /// XDP of an interface that only receives copies.
    Span,
}

impl Program {
    /// Each of them.
    pub const ALL: [Program; 5] =
        [Program::Ingress, Program::Egress, Program::Carry, Program::Ring, Program::Span];

    /// Whether it may answer anything but "go on". What it takes are clones in the carrier and copies on a span interface; on a live
    /// interface it would cut that off.
    pub const fn takes_packets(self) -> bool {
        match self {
            Program::Ingress | Program::Egress => false,
            Program::Carry | Program::Ring | Program::Span => true,
        }
    }

    /// The name in the object and in `bpftool prog`.
    pub const fn name(self) -> &'static str {
        match self {
            Program::Ingress => "syntap_ingress",
            Program::Egress => "syntap_egress",
            Program::Carry => "syntap_carry",
            Program::Ring => "syntap_ring",
            Program::Span => "syntap_span",
        }
    }
}

/// Why the kernel did not take the programs.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation}: {source}{log}")]
pub struct LoadError {
    /// What was tried.
    pub operation: &'static str,
    /// What libbpf says.
    pub source: libbpf_rs::Error,
    /// Its last words, each after a line break.
    pub log: String,
}

/// Loaded programs and their maps.
pub struct Kernel {
    object: Object,
    counters: MapHandle,
    census: MapHandle,
    rings: MapHandle,
    tables: MapHandle,
    allowance: MapHandle,
    budget: MapHandle,
    sleepers: MapHandle,
    records: Vec<MapHandle>,
    watch: Watch,
    known: Known,
    ports: Box<[u64; 1024]>,
    slots: Vec<(u32, u32)>,
    /// Those that can be attached.
    programs: Vec<Program>,
}

/// libbpf has one callback for the process; what it says is kept for the next error.
static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn keep_log(level: PrintLevel, line: String) {
    if level == PrintLevel::Warn
        && let Ok(mut log) = LOG.lock()
    {
        log.push(line.trim_end().to_owned());
        // A verifier's log is long and its end tells.
        let extra = log.len().saturating_sub(8);
        log.drain(..extra);
    }
}

fn taken_log() -> String {
    let lines = LOG.lock().map(|mut l| std::mem::take(&mut *l)).unwrap_or_default();
    lines.iter().flat_map(|l| l.lines().rev().take(12).collect::<Vec<_>>().into_iter().rev()).fold(
        String::new(),
        |mut text, line| {
            text.push_str("\n  ");
            text.push_str(line);
            text
        },
    )
}

fn failed(operation: &'static str) -> impl Fn(libbpf_rs::Error) -> LoadError {
    move |source| LoadError { operation, source, log: taken_log() }
}

impl Kernel {
    /// Loads the programs. Nothing is attached.
    ///
    /// # Panics
    /// With more slots than [`SLOTS`], or no shard.
    pub fn load(options: &Options) -> Result<Kernel, LoadError> {
        assert!(options.slots.len() <= SLOTS && options.shards > 0);
        libbpf_rs::set_print(Some((PrintLevel::Warn, keep_log)));
        let mut open =
            ObjectBuilder::default().open_memory(OBJECT).map_err(failed("read the embedded programs"))?;

        let mut allowance = [options.budget.allowance(); SLOTS];
        for (slot, budget) in allowance.iter_mut().zip(&options.budgets) {
            *slot = budget.allowance();
        }
        let known_buckets = Known::buckets(options.known);
        let buckets = options.watch_buckets.clamp(1, 1 << 26).next_power_of_two();
        let config = Config {
            key: options.key,
            watch_ns: options.watch_ns,
            watch_packets: options.watch_packets,
            watch_mask: buckets - 1,
            neighbour_budget: per_window(options.neighbour_pps),
            shards: options.shards,
            snap: options.snap,
            carrier: options.carrier,
            known_mask: known_buckets - 1,
            records: u32::from(options.ring_bytes > 0),
        };
        for mut map in open.maps_mut() {
            let done = match map.name().to_str().unwrap_or("") {
                ".rodata.config" => map.set_initial_value(&config.bytes()),
                ".data.tables" => map.set_initial_value(&abi::tables_bytes(&options.ports, &options.slots)),
                ".data.allowance" => map.set_initial_value(&abi::allowance_bytes(&allowance)),
                "watch" => map.set_max_entries(buckets),
                "watch_marks" => map.set_max_entries(watch::marks_of(buckets)),
                "known" => map.set_max_entries(known_buckets),
                _ => Ok(()),
            };
            done.map_err(failed("configure the programs"))?;
        }
        for mut program in open.progs_mut() {
            let wanted = options.programs.iter().any(|p| program.name() == p.name());
            program.set_autoload(wanted);
        }
        let object = open.load().map_err(failed("load the programs"))?;
        let handle = |name: &str| {
            let map = object.maps().find(|m| m.name() == name).expect("the object has this map");
            MapHandle::try_from(&map).map_err(failed("open a map"))
        };
        let (counters, census, rings) = (handle("counters")?, handle("census")?, handle("rings")?);
        let (tables, budget) = (handle(".data.tables")?, handle("budget")?);
        let allowance = handle(".data.allowance")?;
        let watching = Watching {
            key: options.key,
            mask: buckets - 1,
            ns: options.watch_ns,
            packets: options.watch_packets,
        };
        let watch = Watch::over(handle("watch")?, &handle("watch_marks")?, watching)
            .map_err(|e| failed("map the watch")(e.into()))?;
        let known = Known::over(handle("known")?.as_fd(), known_buckets, options.key)
            .map_err(|e| failed("map the known tuples")(e.into()))?;
        let sleepers = handle(".data.sleepers")?;
        let records =
            if options.ring_bytes > 0 { ring_buffers(&handle("records")?, options)? } else { vec![] };
        let (ports, slots) = (options.ports.clone(), options.slots.clone());
        Ok(Kernel {
            object,
            counters,
            census,
            rings,
            tables,
            allowance,
            budget,
            sleepers,
            records,
            watch,
            known,
            ports,
            slots,
            programs: options.programs.clone(),
        })
    }

    /// Descriptors of a shard's ring buffer, and of the map that says who sleeps.
    pub fn ring_buffer(&self, shard: u32) -> (BorrowedFd<'_>, BorrowedFd<'_>) {
        (self.records[shard as usize].as_fd(), self.sleepers.as_fd())
    }

    /// Gives a tap point another interface: one that was made anew under its name. Nothing may be attached to the old
    /// one any more.
    pub fn set_slot(&mut self, slot: usize, ifindex: u32) -> Result<(), libbpf_rs::Error> {
        self.slots[slot].0 = ifindex;
        let tables = abi::tables_bytes(&self.ports, &self.slots);
        self.tables.update(&0u32.to_ne_bytes(), &tables, MapFlags::ANY)
    }

    /// Chooses other ports, while everything is attached. The set is written over in place, so a port that is in both is chosen at every
    /// moment.
    pub fn set_ports(&mut self, ports: &[u64; 1024]) -> Result<(), libbpf_rs::Error> {
        *self.ports = *ports;
        let tables = abi::tables_bytes(&self.ports, &self.slots);
        self.tables.update(&0u32.to_ne_bytes(), &tables, MapFlags::ANY)
    }

    /// Gives the tap points other budgets, in the order of the slots. They count from each CPU's next window on.
    ///
    /// # Panics
    /// With more of them than [`SLOTS`].
    pub fn set_budgets(&mut self, budgets: &[Budget]) -> Result<(), libbpf_rs::Error> {
        let mut allowance = [Budget::default().allowance(); SLOTS];
        for (slot, budget) in allowance[..budgets.len()].iter_mut().zip(budgets) {
            *slot = budget.allowance();
        }
        self.allowance.update(&0u32.to_ne_bytes(), &abi::allowance_bytes(&allowance), MapFlags::ANY)
    }

    /// A program's descriptor, to attach it.
    ///
    /// # Panics
    /// If it is none of [`Options::programs`], or was let go of.
    pub fn program(&self, program: Program) -> OwnedFd {
        assert!(self.programs.contains(&program), "{} is there", program.name());
        let name = program.name();
        let found = self.object.progs().find(|p| p.name() == name).expect("the object has this program");
        found.as_fd().try_clone_to_owned().expect("a descriptor is free")
    }

    /// Closes the descriptors of programs that take packets away. Where they are attached they stay, and from then on nobody can attach
    /// them anywhere else, also not whoever takes this process over.
    pub fn let_takers_go(&mut self) {
        for mut program in self.object.progs_mut() {
            if Program::ALL.iter().any(|p| p.takes_packets() && program.name() == p.name()) {
                attach::unload(&mut program);
            }
        }
        self.programs.retain(|p| !p.takes_packets());
    }

    /// Puts a socket into the XSKMAP.
    pub fn set_ring(&self, ring: u32, socket: BorrowedFd<'_>) -> Result<(), libbpf_rs::Error> {
        assert!(ring < RINGS);
        self.rings.update(&ring.to_ne_bytes(), &socket.as_raw_fd().to_ne_bytes(), MapFlags::ANY)
    }

    /// A reader of the counters that can go to another thread.
    pub fn readings(&self) -> Result<Readings, LoadError> {
        let again = |m: &MapHandle| MapHandle::try_from(m).map_err(failed("open a map"));
        let (counters, census) = (again(&self.counters)?, again(&self.census)?);
        Ok(Readings { counters, census, budget: again(&self.budget)? })
    }

    /// What puts tuples under watch.
    pub fn watch(&self) -> Result<Watch, LoadError> {
        self.watch.again().map_err(failed("open a map"))
    }

    /// What tells the kernel side which tuples are open.
    pub fn known(&self) -> Known {
        self.known.clone()
    }

    /// The loaded object: tests run its programs and read its maps.
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// The same, for [`libbpf_rs::ProgramMut::test_run`].
    pub fn object_mut(&mut self) -> &mut Object {
        &mut self.object
    }
}

/// One for each shard, where the programs look for it.
fn ring_buffers(map: &MapHandle, options: &Options) -> Result<Vec<MapHandle>, LoadError> {
    let opts = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
        ..Default::default()
    };
    let make = |shard: u32| {
        let name = Some("syntap_records");
        let ring = MapHandle::create(MapType::RingBuf, name, 0, 0, options.ring_bytes, &opts)?;
        map.update(&shard.to_ne_bytes(), &ring.as_fd().as_raw_fd().to_ne_bytes(), MapFlags::ANY)?;
        Ok(ring)
    };
    (0..options.shards).map(make).collect::<Result<_, _>>().map_err(failed("make a ring buffer"))
}

/// Counters and census as the kernel has them now.
pub struct Readings {
    counters: MapHandle,
    census: MapHandle,
    budget: MapHandle,
}

impl Readings {
    /// What the budget of a tap point lets through at this moment. `monotonic_ns` is the present on the monotonic clock;
    /// a CPU without a packet for ten windows keeps all again.
    pub fn kept(&self, slot: usize, monotonic_ns: u64) -> Result<Kept, libbpf_rs::Error> {
        let cpus = per_cpu(&self.budget, slot as u32)?;
        Ok(cpus.iter().filter_map(|b| Kept::read(b, monotonic_ns)).fold(Kept::ALL, Kept::least))
    }

    /// All lanes' counters, summed over CPUs: slot 0 ingress, slot 0 egress, slot 1 ingress, ..., stray.
    pub fn counters(&self) -> Result<Vec<Counters>, libbpf_rs::Error> {
        (0..LANES as u32)
            .map(|lane| {
                let mut sum = Counters::default();
                for cpu in per_cpu(&self.counters, lane)? {
                    sum.add_bytes(&cpu);
                }
                Ok(sum)
            })
            .collect()
    }

    /// One lane's census, summed over CPUs.
    pub fn census(&self, lane: usize) -> Result<Census, libbpf_rs::Error> {
        let mut sum = Census::default();
        for cpu in per_cpu(&self.census, lane as u32)? {
            sum.add_bytes(&cpu);
        }
        Ok(sum)
    }
}

fn per_cpu(map: &MapHandle, key: u32) -> Result<Vec<Vec<u8>>, libbpf_rs::Error> {
    Ok(map.lookup_percpu(&key.to_ne_bytes(), MapFlags::ANY)?.unwrap_or_default())
}
