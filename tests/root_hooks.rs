//! What others do to the hooks and names of a tapped interface: noticed at the next look, and mended only if the tap is told to.

mod net;

use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use net::tap::{config_by, drain, foreign, ifindex, ping, serve};
use net::{NEAR_IP, Wire, skip};
use syntap::bpf::attach::{self, TcxHook, XdpMode};
use syntap::capture::tap::Tap;
use syntap::capture::{LiveSource, Transport};

/// A tap on `near`.
fn tapped(wire: &Wire, reattach: bool) -> (Tap, Vec<LiveSource>) {
    let mut config = config_by(Transport::Ringbuf, "near", None, "8080");
    config.reattach = reattach;
    wire.near.run(|| Tap::open(&config)).unwrap()
}

/// The changes of a look, in words.
fn look(wire: &Wire, tap: &mut Tap) -> Vec<String> {
    let changes = wire.near.run(|| tap.look()).unwrap();
    changes.into_iter().map(|(_, change)| format!("{change:?}")).collect()
}

/// The first tcx link that this process holds, as somebody else would get at it: by its id.
fn link() -> OwnedFd {
    let texts = fs::read_dir("/proc/self/fdinfo").unwrap().flatten();
    let texts = texts.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    let id = texts.filter(|text| text.contains("link_type:\ttcx")).find_map(|text| {
        text.lines().find_map(|l| l.strip_prefix("link_id:")).and_then(|id| id.trim().parse().ok())
    });
    // SAFETY: asks for a descriptor; nothing is handed over.
    let fd = unsafe { libbpf_sys::bpf_link_get_fd_by_id(id.expect("a tcx link")) };
    assert!(fd >= 0, "{fd}");
    // SAFETY: a fresh descriptor that nobody else owns.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn wipe() {
    let link = link();
    // SAFETY: the descriptor outlives the call.
    assert_eq!(unsafe { libbpf_sys::bpf_link_detach(link.as_raw_fd()) }, 0);
}

/// Programs on both tcx hooks of `near`, by id.
fn hooked(wire: &Wire) -> Vec<u32> {
    let index = ifindex(&wire.near, "near");
    let on = |hook| wire.near.run(|| attach::tcx_programs(index, hook)).unwrap();
    [on(TcxHook::Ingress), on(TcxHook::Egress)].concat().iter().map(|p| p.id).collect()
}

/// Whether a handshake is seen both ways.
fn sees(wire: &Wire, sources: &mut [LiveSource]) -> bool {
    let server = format!("{NEAR_IP}:8080");
    drain(sources);
    serve(&wire.near, &server, 1, || {
        wire.far.run(|| ping(&server));
    });
    drain(sources).iter().filter(|s| s.is_tcp()).count() >= 5
}

// One test: each finds the links of its process.
#[test]
fn root_what_others_do_to_hooks_and_names_is_noticed_at_the_next_look() {
    if skip("root_what_others_do_to_hooks_and_names") {
        return;
    }
    not_mended_unless_told();
    mended_if_told();
    names_and_xdp_programs();
}

fn not_mended_unless_told() {
    let wire = Wire::new();
    let (mut tap, _sources) = tapped(&wire, false);
    assert!(look(&wire, &mut tap).is_empty());
    assert_eq!(hooked(&wire).len(), 2);
    assert!(!tap.unhooked());
    wipe();
    assert!(tap.unhooked());
    assert_eq!(look(&wire, &mut tap), ["Unhooked(None)"]);
    assert!(!tap.unhooked());
    assert_eq!(hooked(&wire).len(), 0, "half of what passes is not shown as if it were all");
    assert!(look(&wire, &mut tap).is_empty(), "said once");
    // It is made anew: then it is tapped as any that comes back.
    wire.near.ip("link del near");
    assert_eq!(look(&wire, &mut tap), ["Gone"]);
}

fn mended_if_told() {
    let wire = Wire::new();
    let (mut tap, mut sources) = tapped(&wire, true);
    wipe();
    assert_eq!(look(&wire, &mut tap), ["Unhooked(None)", "Rehooked"]);
    assert!(look(&wire, &mut tap).is_empty());
    assert_eq!(hooked(&wire).len(), 2);
    assert!(sees(&wire, &mut sources));

    // Somebody's program in the place of ours stays where it is.
    let theirs = foreign(libbpf_sys::BPF_PROG_TYPE_SCHED_CLS, "theirs", -1);
    let link = link();
    // SAFETY: both descriptors outlive the call, and no options are given.
    let err = unsafe { libbpf_sys::bpf_link_update(link.as_raw_fd(), theirs.as_raw_fd(), std::ptr::null()) };
    assert_eq!(err, 0);
    drop(link);
    let changes = look(&wire, &mut tap);
    assert!(changes[0].starts_with("Unhooked(Some(") && changes[1] == "Rehooked", "{changes:?}");
    let id: u32 = changes[0].chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap();
    let now = hooked(&wire);
    assert!(now.len() == 3 && now.contains(&id), "{now:?} {id}");
    assert!(look(&wire, &mut tap).is_empty());
    assert!(sees(&wire, &mut sources));
    tap.close().unwrap();
    assert_eq!(hooked(&wire).len(), 0);
}

fn names_and_xdp_programs() {
    let wire = Wire::new();
    let (mut tap, mut sources) = tapped(&wire, false);
    wire.near.ip("link set near down");
    wire.near.ip("link set near name other");
    wire.near.ip("link set other up");
    assert_eq!(look(&wire, &mut tap), [r#"Renamed(Some("other"))"#]);
    assert!(look(&wire, &mut tap).is_empty());
    assert!(sees(&wire, &mut sources), "it is tapped on");
    wire.near.ip("link set other down");
    wire.near.ip("link set other name near");
    wire.near.ip("link set near up");
    assert_eq!(look(&wire, &mut tap), ["Renamed(None)"]);

    let passes = foreign(libbpf_sys::BPF_PROG_TYPE_XDP, "passes", 2);
    let index = ifindex(&wire.near, "near");
    let link = wire.near.run(|| attach::xdp(&passes, index, XdpMode::Generic)).unwrap();
    let changes = look(&wire, &mut tap);
    assert!(changes.len() == 1 && changes[0].starts_with("ForeignXdp(Some("), "{changes:?}");
    assert!(look(&wire, &mut tap).is_empty());
    drop(link);
    assert_eq!(look(&wire, &mut tap), ["ForeignXdp(None)"]);
    assert!(look(&wire, &mut tap).is_empty());
}
