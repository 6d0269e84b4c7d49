//! `syntap check`: whether this machine can be tapped, how, at what cost, and the command that mends what is missing.
//!
//! What can be tried is tried: the programs are loaded and the carrier with its ring is opened and closed again.
//! Nothing is attached to any interface.

use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;

use super::hand_over;
use super::run::Wanted;
use crate::bpf::attach::{self, Attached, HookKind, TcxHook};
use crate::bpf::classic::{self, Side};
use crate::bpf::{Kernel, Options};
use crate::capture::interface::{Interface, Rtnetlink};
use crate::capture::tap::{self, Mode, TapError, TapInterface};
use crate::capture::{Transport, ethtool};
use crate::guard::{Guard, Level};

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Interfaces to look at, as `run` takes them: with `=span` as one that only receives copies, else as one that
    /// carries traffic. All Ethernet ones that are up if not given.
    #[arg(short, long = "interface", value_name = "IF[=ROLE]", value_delimiter = ',')]
    interfaces: Vec<String>,

    /// Ask for this network namespace: a name of `ip netns`, or a file such as /proc/PID/ns/net.
    #[arg(long, value_name = "NAME|FILE")]
    netns: Option<String>,
}

/// How a finding bears on running.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Grade {
    /// As it should be.
    Fine,
    /// Works, and is worth knowing.
    Note,
    /// Cannot run before this is mended.
    Missing,
}

/// Prints findings and remembers whether one of them stands in the way.
struct Findings<W: Write> {
    out: W,
    missing: usize,
    /// `run` would not begin as it is called by default.
    refused: bool,
}

impl<W: Write> Findings<W> {
    fn head(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }

    fn say(&mut self, grade: Grade, text: impl AsRef<str>, mend: Option<&str>) -> io::Result<()> {
        let word = match grade {
            Grade::Fine => "ok",
            Grade::Note => "note",
            Grade::Missing => "NO",
        };
        self.missing += usize::from(grade == Grade::Missing);
        let mut lines = text.as_ref().lines();
        writeln!(self.out, "  {word:<5} {}", lines.next().unwrap_or(""))?;
        for line in lines {
            writeln!(self.out, "        {line}")?;
        }
        match mend {
            Some(mend) => writeln!(self.out, "        mend: {mend}"),
            None => Ok(()),
        }
    }
}

/// Runs it: exit code 0 if this machine can be tapped, 2 if something is missing.
pub fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    if let Some(name) = &args.netns {
        super::netns::enter(name)?;
    }
    let wanted = Wanted::parse(&args.interfaces)?.taps;
    let mut findings = Findings { out: io::stdout().lock(), missing: 0, refused: false };
    let inline = wanted.is_empty() || wanted.iter().any(|t| t.mode != Some(Mode::Span));
    machine(&mut findings, inline)?;
    interfaces(&mut findings, &wanted)?;
    let verdict = match findings.missing {
        0 if findings.refused => {
            "This machine can be tapped, once what `run` refuses to go on without is there; or with its --sandbox auto."
                .to_owned()
        }
        0 => "This machine can be tapped.".to_owned(),
        1 => "This machine cannot be tapped before the line marked NO is mended.".to_owned(),
        n => format!("This machine cannot be tapped before the {n} lines marked NO are mended."),
    };
    writeln!(findings.out, "\n{verdict}")?;
    Ok(if findings.missing == 0 { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

/// `6.18.44-x` as (6, 18).
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// What a capability is needed for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needed {
    /// Every tap; for the second of these numbers the first will do as well.
    Always(Option<u32>),
    /// Some taps.
    By(&'static str),
}

const SYS_ADMIN: u32 = 21;

/// The capabilities that set-up needs, by number in linux/capability.h, and what for. docs/security.md says by which calls.
const CAPABILITIES: [(u32, &str, &str, Needed); 6] = [
    (12, "CAP_NET_ADMIN", "attach programs, hear connection tracking", Needed::Always(None)),
    (38, "CAP_PERFMON", "have the programs verified", Needed::Always(Some(SYS_ADMIN))),
    (39, "CAP_BPF", "load programs", Needed::Always(Some(SYS_ADMIN))),
    (13, "CAP_NET_RAW", "open AF_XDP sockets", Needed::By("span interfaces and --transport afxdp")),
    (14, "CAP_IPC_LOCK", "lock the frames' memory", Needed::By("span interfaces and --transport afxdp")),
    (SYS_ADMIN, "CAP_SYS_ADMIN", "make or enter a namespace", Needed::By("--transport afxdp and --netns")),
];

/// What of them is not in `effective`.
fn lacking(effective: u64) -> impl Iterator<Item = &'static (u32, &'static str, &'static str, Needed)> {
    let has = move |n: u32| effective >> n & 1 != 0;
    CAPABILITIES.iter().filter(move |(n, .., needed)| match needed {
        Needed::Always(Some(or)) => !has(*n) && !has(*or),
        _ => !has(*n),
    })
}

/// What the kernel's release says, and which hook its live interfaces would be tapped by.
fn kernel<W: Write>(findings: &mut Findings<W>, release: &str, hook: HookKind) -> io::Result<()> {
    match (version(release), hook) {
        (Some(v), _) if v < (5, 18) => {
            let text = format!("Linux {release}: too old; 5.18 is the first that has what the programs call");
            findings.say(Grade::Missing, text, Some("a newer kernel"))
        }
        (_, HookKind::Tcx) => {
            let text = format!("Linux {release}: tcx hooks for live interfaces (since 6.6), AF_XDP");
            findings.say(Grade::Fine, text, None)
        }
        (_, HookKind::Classic) => findings.say(
            Grade::Note,
            format!(
                "Linux {release}: no tcx hooks (since 6.6), so live interfaces are tapped by clsact filters; AF_XDP\n\
                 these outlive a process that is killed, so a second one takes them off; should both be killed, packets\n\
                 go on as before, and the next run on the interface removes what they left"
            ),
            None,
        ),
    }
}

fn machine<W: Write>(findings: &mut Findings<W>, inline: bool) -> io::Result<()> {
    findings.head("machine")?;
    let release = nix::sys::utsname::uname()
        .map(|u| u.release().to_string_lossy().into_owned())
        .unwrap_or_else(|_| "unknown".into());
    kernel(findings, &release, HookKind::best())?;

    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|l| l.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let always: Vec<_> = lacking(effective)
        .filter(|c| matches!(c.3, Needed::Always(_)))
        .map(|c| format!("{} ({})", c.1, c.2))
        .collect();
    if always.is_empty() {
        findings.say(Grade::Fine, "privileges", None)?;
        for (_, name, what, needed) in lacking(effective) {
            if let Needed::By(whom) = needed {
                findings.say(Grade::Note, format!("no {name} ({what}): not for {whom}"), None)?;
            }
        }
    } else {
        findings.say(
            Grade::Missing,
            format!("privileges are missing: {}", always.join(", ")),
            Some("run it as root (sudo syntap check)"),
        )?;
        return findings.say(Grade::Note, "programs and rings were not tried without them", None);
    }
    sandbox(findings)?;

    match Kernel::load(&Options::default()) {
        Ok(_) => findings.say(Grade::Fine, "the programs load (the kernel's BTF is not needed)", None)?,
        Err(e) => {
            let hint = TapError::from(e);
            findings.say(Grade::Missing, hint.to_string(), hint.hint().as_deref())?;
        }
    }
    // A span tap needs no pair.
    if inline {
        transports(findings)?;
    }
    let jit = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable");
    if jit.is_ok_and(|j| j.trim() == "0") {
        let mend = Some("sysctl net.core.bpf_jit_enable=1");
        findings.say(Grade::Note, "the BPF compiler is off: every packet costs several times more", mend)?;
    }
    Ok(())
}

/// What `run` gives up before the first packet, and what of that is not to be had.
fn sandbox<W: Write>(findings: &mut Findings<W>) -> io::Result<()> {
    let Ok(guard) = Guard::plan(Level::Auto, None) else { return Ok(()) };
    if guard.lacking().is_empty() {
        let user = guard.account().name();
        let text = format!("privileges can be given up after set-up: user {user}, landlock, seccomp");
        return findings.say(Grade::Fine, text, None);
    }
    for what in guard.lacking() {
        findings.refused = true;
        findings.say(Grade::Note, format!("{what}: run refuses to go on"), Some(&what.hint()))?;
    }
    Ok(())
}

/// What each transport needs of the machine. One that cannot be had is a note as long as the other one can.
fn transports<W: Write>(findings: &mut Findings<W>) -> io::Result<()> {
    let ringbuf = tap::probe(Transport::Ringbuf);
    let afxdp = tap::probe(Transport::Afxdp);
    let lacking = |other: &Result<(), TapError>| if other.is_ok() { Grade::Note } else { Grade::Missing };
    for (transport, opened, grade, what) in [
        (Transport::Ringbuf, &ringbuf, lacking(&afxdp), "a BPF ring buffer opens"),
        (Transport::Afxdp, &afxdp, lacking(&ringbuf), "the private veth pair and an AF_XDP ring open"),
    ] {
        let default = if transport == Transport::default() { ", which is auto" } else { "" };
        let name = transport.name();
        match opened {
            Ok(()) => findings.say(Grade::Fine, format!("--transport {name}{default}: {what}"), None)?,
            Err(e) => {
                let text = format!("--transport {name}{default}: {e}");
                findings.say(grade, text, e.hint().as_deref())?;
            }
        }
    }
    Ok(())
}

fn interfaces<W: Write>(findings: &mut Findings<W>, wanted: &[TapInterface]) -> io::Result<()> {
    let known = match Rtnetlink::open().and_then(|mut r| r.interfaces()) {
        Ok(known) => known,
        Err(e) => {
            findings.head("interfaces")?;
            return findings.say(Grade::Missing, format!("cannot list interfaces: {e}"), None);
        }
    };
    if wanted.is_empty() {
        for interface in
            known.iter().filter(|i| i.ethernet && i.up && !i.loopback && !tap::is_carrier(&i.name))
        {
            one(findings, interface, Mode::Inline)?;
        }
        return Ok(());
    }
    for TapInterface { name, mode } in wanted {
        match known.iter().find(|i| i.name == *name) {
            Some(interface) => one(findings, interface, mode.unwrap_or(Mode::Inline))?,
            None => {
                findings.head(name)?;
                let names: Vec<_> = known.iter().map(|i| i.name.as_str()).collect();
                let there = format!("interfaces here: {}", names.join(", "));
                findings.say(Grade::Missing, "there is no such interface", Some(&there))?;
            }
        }
    }
    Ok(())
}

/// What `run` would make of an interface in this mode, in the same words.
fn one<W: Write>(findings: &mut Findings<W>, interface: &Interface, mode: Mode) -> io::Result<()> {
    let name = &interface.name;
    findings.head(name)?;
    let refused = match interface {
        i if !i.ethernet => Some(TapError::NotEthernet(name.clone())),
        i if i.loopback => Some(TapError::Loopback(name.clone())),
        _ => None,
    };
    if let Some(e) = refused {
        return findings.say(Grade::Missing, e.to_string(), e.hint().as_deref());
    }
    let driver = ethtool::driver(name).unwrap_or_else(|_| "unknown".into());
    let queues = ethtool::receive_queues(name).ok().filter(|n| *n > 0).unwrap_or(interface.receive_queues);
    let about = format!("driver {driver}, {queues} receive queue{}, MTU {}", plural(queues), interface.mtu);
    let down = if mode == Mode::Span { Grade::Missing } else { Grade::Note };
    if interface.up {
        findings.say(Grade::Fine, about, None)?;
    } else {
        findings.say(down, format!("{about}, down"), Some(&format!("ip link set {name} up")))?;
    }
    match mode {
        Mode::Inline => findings.say(
            Grade::Fine,
            format!(
                "will be tapped inline: its traffic goes on; -i {name}=span if it only receives copies\n\
                 costs about 0.1 us for each packet at most, and about 0.2 us for one that is mirrored (1.6 us by afxdp)"
            ),
            None,
        )?,
        Mode::Span => as_span(findings, interface)?,
    }
    if mode == Mode::Inline
        && HookKind::best() == HookKind::Classic
        && !classic::has_clsact(interface.index).unwrap_or(false)
    {
        let text = "there is no clsact qdisc: the first run makes it, for which the kernel stops the queues some milliseconds\n\
                    and drops what is sent then; it stays, so that this happens once";
        let mend = format!("in a quiet moment: tc qdisc add dev {name} clsact");
        findings.say(Grade::Note, text, Some(&mend))?;
    }
    if mode == Mode::Inline
        && let Some(program) = attach::xdp_state(interface.index).unwrap_or_default().attached
    {
        let text = format!("XDP program {} is attached; an inline tap does not touch it", describe(&program));
        findings.say(Grade::Note, text, None)?;
    }
    for (hook, side, word) in
        [(TcxHook::Ingress, Side::Ingress, "ingress"), (TcxHook::Egress, Side::Egress, "egress")]
    {
        filters(findings, interface, side, word)?;
        let programs = attach::tcx_programs(interface.index, hook).unwrap_or_default();
        if !programs.is_empty() {
            let list: Vec<_> = programs.iter().map(describe).collect();
            let text = format!("tcx programs on {word}: {}; the tap runs before them", list.join(", "));
            findings.say(Grade::Note, text, None)?;
        }
    }
    Ok(())
}

/// Filters at a classic hook: those of others, and what a dead tap left.
fn filters<W: Write>(
    findings: &mut Findings<W>,
    interface: &Interface,
    side: Side,
    word: &str,
) -> io::Result<()> {
    let found = classic::filters(interface.index, side).unwrap_or_default();
    let others: Vec<_> = found
        .iter()
        .filter(|f| !f.ours)
        .map(|f| format!("{} {} (priority {})", f.kind, f.name, f.priority).replace("  ", " "))
        .collect();
    if !others.is_empty() {
        let text = format!("tc filters on {word}: {}; the tap does not touch them", others.join(", "));
        findings.say(Grade::Note, text, None)?;
    }
    for stale in found.iter().filter(|f| f.stale) {
        let text =
            format!("a killed tap left its filter on {word}: packets go on, and the next run removes it");
        findings.say(Grade::Note, text, Some(&stale.removal(&interface.name, side)))?;
    }
    Ok(())
}

/// Largest MTU with which drivers run an XDP program natively: a page less headroom and tail, for those that need the
/// packet in one piece. Some allow a little more.
const NATIVE_MTU: u32 = 3_498;

fn as_span<W: Write>(findings: &mut Findings<W>, interface: &Interface) -> io::Result<()> {
    let name = &interface.name;
    let live = interface.live_because().unwrap_or_else(|e| Some(format!("its routes cannot be read ({e})")));
    match live {
        Some(because) => {
            let e = TapError::Live { name: name.clone(), because };
            findings.say(Grade::Missing, e.to_string(), e.hint().as_deref())?;
        }
        None => findings.say(
            Grade::Fine,
            "will be tapped as span: no address, master, upper interface or route speaks for live traffic\n\
             that takes ALL its packets away from this machine",
            None,
        )?,
    }
    let xdp = attach::xdp_state(interface.index).unwrap_or_default();
    let native = match xdp.native() {
        Some(false) => "generic only (an skb for each packet, some 80 ns)".to_owned(),
        _ if interface.mtu > NATIVE_MTU => format!(
            "probably generic (an skb for each packet, some 80 ns): with an MTU of {} most drivers do not run it \
             natively, up to {NATIVE_MTU} they do",
            interface.mtu
        ),
        Some(true) => "native".to_owned(),
        None => "not told by kernel or driver; native is tried first".to_owned(),
    };
    let zero_copy = match xdp.zero_copy() {
        Some(true) => "zero-copy",
        Some(false) => "copied (30 to 170 ns)",
        None => "tried first",
    };
    findings.say(Grade::Fine, format!("XDP: {native}; frames: {zero_copy}"), None)?;
    let queues = ethtool::receive_queues(name).unwrap_or(1);
    if let Some((text, mend)) = hand_over::checked(name, queues, ethtool::queue_hash(name)) {
        let grade = if mend.is_some() { Grade::Note } else { Grade::Fine };
        findings.say(grade, text, mend.as_deref())?;
    }
    if let Some(program) = xdp.attached {
        let e = TapError::ForeignXdp { name: name.clone(), program };
        findings.say(Grade::Missing, e.to_string(), e.hint().as_deref())?;
    }
    Ok(())
}

fn plural(n: u32) -> &'static str {
    if n == 1 { "" } else { "s" }
}

fn describe(program: &Attached) -> String {
    match program.name.as_str() {
        "" => format!("id {}", program.id),
        name => format!("{name} (id {})", program.id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_read_as_numbers() {
        assert_eq!(version("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(version("6.1.0-13-amd64"), Some((6, 1)));
        assert_eq!(version("6.6-rc3"), Some((6, 6)));
        assert_eq!(version("unknown"), None);
    }

    #[test]
    fn a_capability_that_stands_for_others_will_do_and_some_are_needed_by_some_taps_only() {
        let names = |held: &[u32]| -> Vec<&str> {
            let effective = held.iter().fold(0, |all, n| all | 1 << n);
            lacking(effective).map(|c| c.1).collect()
        };
        assert_eq!(names(&[12, 13, 14, 21]), [""; 0]);
        assert_eq!(names(&[12, 38, 39]), ["CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_SYS_ADMIN"]);
        assert_eq!(names(&[12, 39])[0], "CAP_PERFMON");
    }

    #[test]
    fn a_kernel_without_tcx_is_good_enough_and_what_it_lacks_is_said() {
        let said = |release: &str, hook: HookKind| {
            let mut findings = Findings { out: Vec::new(), missing: 0, refused: false };
            kernel(&mut findings, release, hook).unwrap();
            (findings.missing, String::from_utf8(findings.out).unwrap())
        };
        let (missing, text) = said("6.6.0", HookKind::Tcx);
        assert!(missing == 0 && text.contains("ok ") && text.contains("tcx hooks for live"), "{text}");
        let (missing, text) = said("6.1.0-13-amd64", HookKind::Classic);
        assert!(missing == 0 && text.contains("note") && text.contains("clsact filters"), "{text}");
        assert_eq!((said("5.17.1", HookKind::Classic).0, said("unknown", HookKind::Tcx).0), (1, 0));
    }

    #[test]
    fn only_what_is_missing_stands_in_the_way() {
        let mut findings = Findings { out: Vec::new(), missing: 0, refused: false };
        findings.say(Grade::Fine, "one", None).unwrap();
        findings.say(Grade::Note, "two\nlines", Some("do this")).unwrap();
        assert_eq!(findings.missing, 0);
        findings.say(Grade::Missing, "three", None).unwrap();
        assert_eq!(findings.missing, 1);
        let text = String::from_utf8(findings.out).unwrap();
        assert_eq!(text, "  ok    one\n  note  two\n        lines\n        mend: do this\n  NO    three\n");
    }
}
