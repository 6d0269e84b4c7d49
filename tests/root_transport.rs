//! Both ways from the hooks into user space, side by side: they show the same packets, and this is what each costs.

mod net;

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use libbpf_rs::query::ProgInfoIter;
use libbpf_rs::{Object, ObjectBuilder};
use net::tap::{Seen, config_by, drain, ifindex, with_both};
use net::{Namespace, Wire, pin, sh, skip};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use syntap::bpf::Budget;
use syntap::bpf::abi::{RECORD_SMALL, reason};
use syntap::bpf::attach::{self, Link, TcxHook};
use syntap::bpf::{Counter, Program};
use syntap::capture::tap::{Mode, Tap, TapConfig, TapInterface};
use syntap::capture::{LiveSource, Polled, Source, Transport};

const PORT: u16 = 8080;

/// A TCP frame to `to` with `payload` bytes behind its options.
fn frame(to: [u8; 6], sport: u16, flags: u8, options: usize, payload: usize) -> Vec<u8> {
    let mut b = to.to_vec();
    b.extend([2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0]);
    b.extend((40 + options as u16 + payload as u16).to_be_bytes());
    b.extend([0, 0, 0, 0, 64, 6, 0, 0, 10, 1, 0, 2, 10, 2, 0, 2]);
    let sum = b[14..].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum::<u32>();
    b[24..26].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    b.extend(sport.to_be_bytes());
    b.extend(PORT.to_be_bytes());
    b.extend([0, 0, 0, 1, 0, 0, 0, 2, ((20 + options) << 2) as u8, flags, 1, 0, 0, 0, 0, 0]);
    b.resize(b.len() + options, 1);
    b.resize(b.len() + payload, 0xaa);
    b
}

/// Sends frames from an interface, as many as fit one system call at a time.
struct Sender {
    socket: OwnedFd,
    to: libc::sockaddr_ll,
}

impl Sender {
    fn new(ns: &Namespace, interface: &str) -> Sender {
        // SAFETY: all zero is a valid address; its fields follow.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = ifindex(ns, interface) as i32;
        let socket = ns.run(|| {
            // SAFETY: a plain system call; the descriptor is owned below.
            let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
            assert!(fd >= 0);
            // SAFETY: a fresh descriptor.
            unsafe { OwnedFd::from_raw_fd(fd) }
        });
        Sender { socket, to }
    }

    fn send(&self, frames: &[Vec<u8>]) {
        let mut parts: Vec<libc::iovec> = frames
            .iter()
            .map(|f| libc::iovec { iov_base: f.as_ptr().cast_mut().cast(), iov_len: f.len() })
            .collect();
        let mut messages: Vec<libc::mmsghdr> = parts
            .iter_mut()
            .map(|part| {
                // SAFETY: all zero is a valid message; its fields follow.
                let mut m: libc::mmsghdr = unsafe { std::mem::zeroed() };
                m.msg_hdr.msg_name = (&raw const self.to).cast_mut().cast();
                m.msg_hdr.msg_namelen = size_of_val(&self.to) as u32;
                m.msg_hdr.msg_iov = part;
                m.msg_hdr.msg_iovlen = 1;
                m
            })
            .collect();
        let mut sent = 0;
        while sent < messages.len() {
            let rest = &mut messages[sent..];
            // SAFETY: messages, parts and frames outlive the call, which does not write to what they point to.
            let n = unsafe {
                libc::sendmmsg(self.socket.as_raw_fd(), rest.as_mut_ptr(), rest.len().min(1024) as u32, 0)
            };
            assert!(n > 0, "{}", std::io::Error::last_os_error());
            sent += n as usize;
        }
    }
}

#[test]
fn both_transports_show_the_same_packets() {
    if skip("both_transports_show_the_same_packets") {
        return;
    }
    let broadcast = [0xff; 6];
    let frames: Vec<Vec<u8>> = [
        frame(broadcast, 1, 2, 0, 0),
        frame(broadcast, 1, 0x10, 12, 1000),
        frame(broadcast, 2, 2, 40, 100),
        frame(broadcast, 3, 0x14, 0, 200),
        frame(broadcast, 4, 0x11, 12, 50),
        frame(broadcast, 5, 0, 0, 0),
        frame(broadcast, 5, 0x10, 0, 0),
        frame(broadcast, 4, 0x10, 0, 80),
    ]
    .into();
    let shown = |transport: Transport| {
        let wire = Wire::bare();
        let config = TapConfig { shards: 2, ..config_by(transport, "near", Some(Mode::Inline), "8080") };
        let (tap, mut sources) = wire.near.run(|| Tap::open(&config)).unwrap();
        Sender::new(&wire.far, "far").send(&frames);
        let mut seen = drain(&mut sources);
        let total = tap.close().unwrap().total();
        assert_eq!(total.selected(), total.get(Counter::Mirrored), "{total:?}");
        assert_eq!(total.get(Counter::Mirrored), seen.len() as u64);
        seen.retain(Seen::is_tcp);
        seen.sort_by_key(|s| s.ts);
        seen
    };
    let (copied, cloned) = (shown(Transport::Ringbuf), shown(Transport::Afxdp));
    let what = |seen: &[Seen]| -> Vec<_> {
        seen.iter()
            .map(|s| (s.meta.reason, s.meta.wire_len, s.way, s.vlan, s.bytes[34..54].to_vec()))
            .collect()
    };
    assert_eq!(what(&copied), what(&cloned));
    assert!(copied.len() >= 7, "{copied:#?}");
    for (a, b) in copied.iter().zip(&cloned) {
        assert!(b.bytes.starts_with(&a.bytes), "{a:?} {b:?}");
        // A reset's text is there whole, of the others the headers.
        let room = if a.meta.reason & reason::RST != 0 { 256 } else { RECORD_SMALL };
        assert_eq!(a.bytes.len(), b.bytes.len().min(room), "{a:?}");
    }
}

#[test]
fn a_packet_that_comes_while_its_reader_sleeps_wakes_it() {
    if skip("a_packet_that_comes_while_its_reader_sleeps_wakes_it") {
        return;
    }
    with_both(|transport| {
        let wire = Wire::bare();
        let config = config_by(transport, "near", Some(Mode::Inline), "8080");
        let (_tap, mut sources) = wire.near.run(|| Tap::open(&config)).unwrap();
        let sender = Sender::new(&wire.far, "far");
        drain(&mut sources);
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let begun = Instant::now();
                let polled = sources[0].poll(60_000, &mut |_| ());
                (polled, begun.elapsed())
            });
            // Long enough that it naps no more.
            thread::sleep(Duration::from_millis(300));
            sender.send(&[frame([0xff; 6], 1, 2, 0, 0)]);
            let (polled, waited) = reader.join().unwrap();
            assert!(matches!(polled, Ok(Polled::Packets(1))), "{polled:?}");
            assert!(waited < Duration::from_secs(30), "woken, not timed out: {waited:?}");
        });
    });
}

/// A gateway between two others: `in0` and `out0` forward, nobody answers.
struct Gateway {
    left: Namespace,
    gateway: Namespace,
    right: Namespace,
    mac: [u8; 6],
}

fn mac(ns: &Namespace, interface: &str) -> String {
    let text = ns.ip(&format!("-o link show {interface}"));
    text.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap().to_owned()
}

impl Gateway {
    fn new() -> Gateway {
        let (left, gateway, right) = (Namespace::new(), Namespace::new(), Namespace::new());
        for (ns, far, near) in [(&left, "l0", "in0"), (&right, "r0", "out0")] {
            sh(&format!(
                "ip link add {near} netns {} type veth peer name {far} netns {}",
                gateway.name, ns.name
            ));
            ns.ip(&format!("link set {far} addrgenmode none up"));
            gateway.ip(&format!("link set {near} addrgenmode none up"));
        }
        gateway.ip("addr add 10.1.0.1/24 dev in0");
        gateway.ip("addr add 10.2.0.1/24 dev out0");
        gateway.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0");
        gateway.ip(&format!("neigh add 10.2.0.2 lladdr {} dev out0 nud permanent", mac(&right, "r0")));
        let mut bytes = [0; 6];
        for (byte, hex) in bytes.iter_mut().zip(mac(&gateway, "in0").split(':')) {
            *byte = u8::from_str_radix(hex, 16).unwrap();
        }
        Gateway { left, gateway, right, mac: bytes }
    }

    fn forwarded(&self) -> u64 {
        let text = self.right.sh("cat /sys/class/net/r0/statistics/rx_packets");
        text.trim().parse().unwrap()
    }

    fn tap(&self, transport: Transport) -> (Tap, Vec<LiveSource>) {
        let point = |name: &str| TapInterface { name: name.into(), mode: Some(Mode::Inline) };
        let config = TapConfig {
            interfaces: vec![point("in0"), point("out0")],
            budget: Budget { pps: 100_000_000, share: 0 },
            frames: 16_384,
            ..config_by(transport, "in0", None, "8080")
        };
        self.gateway.run(|| Tap::open(&config)).unwrap()
    }
}

/// What is attached while packets are forwarded.
#[derive(Clone, Copy, Debug, PartialEq)]
enum On {
    /// Nothing.
    Off,
    /// Programs that do nothing, on all four hooks: what every program there pays for.
    Nothing,
    /// The tap.
    By(Transport),
}

impl On {
    fn name(self) -> &'static str {
        match self {
            On::Off => "off",
            On::Nothing => "nothing",
            On::By(transport) => transport.name(),
        }
    }
}

static FLOOR: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/floor.bpf.o")));

/// ELF readers want its sections aligned as in a file.
#[repr(C, align(8))]
struct Aligned<B: ?Sized>(B);

/// Programs that do nothing, in a gateway.
struct Nothing {
    _links: Vec<Link>,
    _object: Object,
}

impl Nothing {
    fn at(g: &Gateway) -> Nothing {
        let object = ObjectBuilder::default().open_memory(&FLOOR.0).unwrap().load().unwrap();
        let program = object.progs().find(|p| p.name() == "floor_nothing").unwrap();
        let fd = program.as_fd().try_clone_to_owned().unwrap();
        let hook = |(interface, hook)| {
            let index = ifindex(&g.gateway, interface);
            g.gateway.run(|| attach::tcx(&fd, index, hook)).unwrap()
        };
        let hooks = ["in0", "out0"].into_iter().flat_map(|i| [(i, TcxHook::Ingress), (i, TcxHook::Egress)]);
        Nothing { _links: hooks.map(hook).collect(), _object: object }
    }
}

/// Moves the calling thread to the last CPU: the first one forwards.
fn pin_to_another() {
    let all = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let cpu = (0..CpuSet::count()).rfind(|cpu| all.is_set(*cpu).unwrap()).unwrap();
    let mut one = CpuSet::new();
    one.set(cpu).unwrap();
    sched_setaffinity(Pid::from_raw(0), &one).unwrap();
}

/// What a round over one transport, or none, gave.
#[derive(Clone, Copy, Default)]
struct Round {
    /// Nanoseconds a forwarded packet took, sending included.
    ns: f64,
    mirrored: u64,
    lost: u64,
}

/// Forwards `frames` `times` times while a worker's place reads what is mirrored.
fn round(g: &Gateway, sender: &Sender, frames: &[Vec<u8>], times: usize, on: On) -> Round {
    let _nothing = (on == On::Nothing).then(|| Nothing::at(g));
    let mut opened = if let On::By(t) = on { Some(g.tap(t)) } else { None };
    let before = g.forwarded();
    let (done, read) = (AtomicBool::new(false), AtomicU64::new(0));
    let all = (frames.len() * times) as u64;
    let took = thread::scope(|scope| {
        if let Some((_, sources)) = &mut opened {
            let (done, read) = (&done, &read);
            scope.spawn(move || {
                pin_to_another();
                loop {
                    let last = done.load(Ordering::Relaxed);
                    match sources[0].poll(if last { 0 } else { 50 }, &mut |_| ()).unwrap() {
                        Polled::Packets(n) => drop(read.fetch_add(n as u64, Ordering::Relaxed)),
                        _ if last => break,
                        _ => {}
                    }
                }
            });
        }
        let begun = Instant::now();
        (0..times).for_each(|_| sender.send(frames));
        let took = begun.elapsed();
        thread::sleep(Duration::from_millis(30));
        done.store(true, Ordering::Relaxed);
        took
    });
    let forwarded = g.forwarded() - before;
    assert!(forwarded >= all, "{forwarded} of {all}");
    let mut result = Round { ns: took.as_nanos() as f64 / all as f64, ..Round::default() };
    if let Some((tap, _)) = opened {
        let stats = tap.close().unwrap();
        result.mirrored = read.load(Ordering::Relaxed);
        result.lost = stats.total().selected() - result.mirrored;
    }
    result
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Nanoseconds that a run of the newest program of that name took since it was loaded.
fn run_time(program: &str) -> f64 {
    let mine = ProgInfoIter::default().filter(|p| p.name.to_str() == Ok(program));
    let newest = mine.max_by_key(|p| p.id).expect("loaded");
    newest.run_time_ns as f64 / newest.run_cnt as f64
}

/// Not a test of anything: prints what a packet costs a gateway by each transport. Rounds of a normal mix (one in five a control
/// packet) and of control packets alone, with the tap off and on, are interleaved; then the kernel times the hooks' programs
/// themselves. One line each: `transport NAME: N ns`.
#[test]
#[ignore = "a measurement"]
fn cost_of_the_transports() {
    if skip("cost_of_the_transports") {
        return;
    }
    const ROUNDS: usize = 9;
    let g = Gateway::new();
    pin();
    let sender = Sender::new(&g.left, "l0");
    let syns: Vec<_> = (0..1000).map(|i| frame(g.mac, 10_000 + i, 2, 20, 0)).collect();
    // Tuples that no SYN puts under watch.
    let mix: Vec<_> = (0..1000)
        .map(|i| if i % 5 == 0 { syns[i as usize].clone() } else { frame(g.mac, 20_000 + i, 0x10, 12, 1000) })
        .collect();
    let ways = [On::Off, On::Nothing, On::By(Transport::Ringbuf), On::By(Transport::Afxdp)];
    for (kind, frames, times) in [("mix", &mix, 100), ("control", &syns, 50)] {
        let mut rounds = [const { Vec::new() }; 4];
        for _ in 0..ROUNDS {
            for (way, rounds) in ways.iter().zip(&mut rounds) {
                rounds.push(round(&g, &sender, frames, times, *way));
            }
        }
        for (way, of_it) in ways.iter().zip(&rounds) {
            let name = way.name();
            let ns = median(of_it.iter().map(|r| r.ns).collect());
            // Neighbours in time share the machine's moods.
            let throughput = of_it.iter().zip(&rounds[0]).map(|(on, off)| off.ns / on.ns).collect();
            let sum = |f: fn(&Round) -> u64| of_it.iter().map(f).sum::<u64>();
            println!(
                "transport {kind} {name}: {ns:.0} ns, throughput {:.3} of the tap off, {} mirrored, {} lost",
                median(throughput),
                sum(|r| r.mirrored),
                sum(|r| r.lost)
            );
        }
    }
    // SAFETY: a plain system call; the statistics are on as long as its descriptor.
    let stats = unsafe { libbpf_sys::bpf_enable_stats(libbpf_sys::BPF_STATS_RUN_TIME) };
    assert!(stats >= 0);
    // SAFETY: a fresh descriptor.
    let _stats = unsafe { OwnedFd::from_raw_fd(stats) };
    let plain: Vec<_> = mix.iter().filter(|f| f[47] == 0x10).cloned().collect();
    let few: Vec<_> = (0..1000).map(|i| plain[i % 10].clone()).collect();
    let mut other = plain.clone();
    other.iter_mut().for_each(|f| f[36..38].copy_from_slice(&9u16.to_be_bytes()));
    for (kind, frames) in
        [("port not chosen", &other), ("plain, 10 tuples", &few), ("plain", &plain), ("control", &syns)]
    {
        let mut best = [f64::MAX; 4];
        for _ in 0..5 {
            for (on, best) in ways.into_iter().zip(&mut best).skip(1) {
                let _nothing = (on == On::Nothing).then(|| Nothing::at(&g));
                let mut opened = if let On::By(t) = on { Some(g.tap(t)) } else { None };
                for _ in 0..20 {
                    sender.send(frames);
                    if let Some((_, sources)) = &mut opened {
                        while !matches!(sources[0].poll(0, &mut |_| ()).unwrap(), Polled::Idle) {}
                    }
                }
                let program = if opened.is_some() { Program::Ingress.name() } else { "floor_nothing" };
                *best = best.min(run_time(program));
            }
        }
        for (on, ns) in ways.iter().zip(best).skip(1) {
            println!(
                "transport hook {kind} {}: {ns:.0} ns, {:.0} beyond nothing",
                on.name(),
                (ns - best[1]).max(0.0)
            );
        }
    }
}
