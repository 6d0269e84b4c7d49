//! Attaching by bpf links, and asking what else is attached.
//!
//! A link is a descriptor: when it closes, also by a crash, the kernel detaches the program. Nothing here
//! replaces a program that is not ours: links are created, never updated, and XDP links are exclusive.
//!
//! Unsafe invariants:
//! - U1: an options struct is all zero but for what is set, and its `sz` is its own size.
//! - U2: a descriptor or pointer passed to a call outlives the call.
//! - U3: a non-negative answer of `bpf_link_create` is a descriptor that nobody else owns.
//! - U4: of a program that was unloaded nobody asks libbpf for the descriptor: [`super::load`] sees to it.
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use std::sync::Arc;

use libbpf_rs::query::ProgInfoIter;
use libbpf_rs::{AsRawLibbpf, ProgramMut};
use libbpf_sys as sys;

use super::classic::{self, Classic, Side};

/// How an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the stack, after the driver built an skb: works everywhere, costs what the skb costs.
    Generic,
}

impl XdpMode {
    /// The word in messages.
    pub const fn name(self) -> &'static str {
        match self {
            XdpMode::Native => "native",
            XdpMode::Generic => "generic",
        }
    }
}

/// Which tcx hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcxHook {
    /// Packets that the interface received.
    Ingress,
    /// Packets that leave by the interface.
    Egress,
}

impl TcxHook {
    fn attach_type(self) -> sys::bpf_attach_type {
        match self {
            TcxHook::Ingress => sys::BPF_TCX_INGRESS,
            TcxHook::Egress => sys::BPF_TCX_EGRESS,
        }
    }
}

/// A foreign or own program on a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Its id, as `bpftool prog` shows it.
    pub id: u32,
    /// Its name; empty if it has none or is gone by now.
    pub name: String,
}

/// An attachment; dropping it detaches.
#[derive(Debug)]
pub struct Link {
    fd: OwnedFd,
    /// Id of the program; 0 if the kernel did not tell.
    program: u32,
}

/// What has become of an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// It is what it was, as far as the kernel tells.
    Ours,
    /// Its interface is gone, or somebody detached it.
    Detached,
    /// Somebody put the program of this id into its place.
    Replaced(u32),
}

impl Link {
    /// What has become of it. Asks for no capability.
    pub fn held(&self) -> Held {
        match self.info() {
            Some((_, 0)) => Held::Detached,
            Some((program, _)) if program != self.program && self.program != 0 => Held::Replaced(program),
            _ => Held::Ours,
        }
    }

    /// The ids of program and interface; the latter is 0 once it is attached to none.
    fn info(&self) -> Option<(u32, u32)> {
        // SAFETY: the kernel's structure is of integers and unions of such, for which all zero is a value.
        let mut info: sys::bpf_link_info = unsafe { std::mem::zeroed() };
        let mut len = size_of::<sys::bpf_link_info>() as u32;
        // SAFETY: U2: `info` outlives the call and is `len` long.
        let err = unsafe { sys::bpf_link_get_info_by_fd(self.fd.as_raw_fd(), &mut info, &mut len) };
        // SAFETY: links of XDP and of tcx both begin with the interface.
        (err == 0).then_some((info.prog_id, unsafe { info.__bindgen_anon_1.tcx.ifindex }))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Detaching before the close makes it certain that no packet enters the program afterwards, whatever
        // other references the kernel still holds.
        // SAFETY: U2: the descriptor is owned by self.
        unsafe { sys::bpf_link_detach(self.fd.as_raw_fd()) };
    }
}

fn create(program: RawFd, ifindex: u32, hook: sys::bpf_attach_type, flags: u32) -> io::Result<Link> {
    let opts = sys::bpf_link_create_opts {
        sz: size_of::<sys::bpf_link_create_opts>() as sys::size_t,
        flags,
        ..Default::default()
    };
    // SAFETY: U1, U2.
    let fd = unsafe { sys::bpf_link_create(program, ifindex as i32, hook, &opts) };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: U3.
    let mut link = Link { fd: unsafe { OwnedFd::from_raw_fd(fd) }, program: 0 };
    link.program = link.info().map_or(0, |(program, _)| program);
    Ok(link)
}

/// Attaches a tcx program in front of all others on the hook.
///
/// In front on both hooks: a program that answers anything but "next" ends the chain, so behind it the tap would
/// silently see nothing. The price is that it shows a packet which a later program drops or rewrites.
pub fn tcx(program: &OwnedFd, ifindex: u32, hook: TcxHook) -> io::Result<Link> {
    create(program.as_raw_fd(), ifindex, hook.attach_type(), sys::BPF_F_BEFORE)
}

/// How a program is attached to packets of a live interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookKind {
    /// By a bpf link, since Linux 6.6: it goes with the process.
    Tcx,
    /// As a filter in a clsact qdisc: it outlives the process, so a supervisor takes it off.
    Classic,
}

impl HookKind {
    /// The word in options and messages.
    pub const fn name(self) -> &'static str {
        match self {
            HookKind::Tcx => "tcx",
            HookKind::Classic => "classic",
        }
    }

    /// The better one that this kernel has.
    pub fn best() -> HookKind {
        // The loopback, which every namespace has. A kernel without tcx does not know what it is asked.
        match tcx_programs(1, TcxHook::Ingress) {
            Ok(_) => HookKind::Tcx,
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => HookKind::Classic,
            // Nobody without privileges gets an answer.
            Err(_) => HookKind::of_release(
                &std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default(),
            ),
        }
    }

    /// By the kernel's release alone, such as `6.1.0-13-amd64`; tcx if it cannot be read.
    fn of_release(release: &str) -> HookKind {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < (6, 6) => HookKind::Classic,
            _ => HookKind::Tcx,
        }
    }
}

/// Anything attached; dropping it detaches.
#[derive(Debug)]
pub enum Hook {
    /// By a bpf link.
    Link(Link),
    /// As a filter.
    Filter(classic::Attached),
}

/// What is to be said of a live interface's hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveHooks {
    /// How the programs are attached.
    pub kind: HookKind,
    /// Classic: filters of others run before them.
    pub behind: bool,
    /// Classic: there was no clsact qdisc, and making it has cost some packets.
    pub made_qdisc: bool,
}

impl Hook {
    /// What has become of it. Of a filter nobody knows: asking takes a capability that a running tap has not.
    pub fn held(&self) -> Held {
        match self {
            Hook::Link(link) => link.held(),
            Hook::Filter(_) => Held::Ours,
        }
    }
}

impl LiveHooks {
    /// Of hooks that attach this way, none yet.
    pub fn new(kind: HookKind) -> LiveHooks {
        LiveHooks { kind, behind: false, made_qdisc: false }
    }

    /// With one more.
    pub fn with(self, hook: &Hook) -> LiveHooks {
        let Hook::Filter(filter) = hook else { return self };
        LiveHooks {
            behind: self.behind | (filter.priority() > 1),
            made_qdisc: self.made_qdisc | filter.made_qdisc(),
            ..self
        }
    }
}

/// Attaches a program to packets of a live interface, in front of all others: by `classic` if there is one, else by tcx.
pub fn live(
    program: &OwnedFd,
    name: &str,
    ifindex: u32,
    hook: TcxHook,
    classic: Option<&Arc<Classic>>,
) -> io::Result<Hook> {
    let side = match hook {
        TcxHook::Ingress => Side::Ingress,
        TcxHook::Egress => Side::Egress,
    };
    match classic {
        Some(classic) => classic.attach(program, name, ifindex, side).map(Hook::Filter),
        None => tcx(program, ifindex, hook).map(Hook::Link),
    }
}

/// Closes the descriptor that libbpf has of a program. It stays attached where it is.
pub(super) fn unload(program: &mut ProgramMut<'_>) {
    // SAFETY: U2, U4.
    unsafe { sys::bpf_program__unload(program.as_libbpf_object().as_ptr()) };
}

/// Attaches an XDP program; fails where there is one already.
pub fn xdp(program: &OwnedFd, ifindex: u32, mode: XdpMode) -> io::Result<Link> {
    // XDP_FLAGS_SKB_MODE and XDP_FLAGS_DRV_MODE of linux/if_link.h.
    let flags = match mode {
        XdpMode::Generic => 1 << 1,
        XdpMode::Native => 1 << 2,
    };
    create(program.as_raw_fd(), ifindex, sys::BPF_XDP, flags)
}

/// What the kernel says of XDP on an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XdpState {
    /// The attached program.
    pub attached: Option<Attached>,
    /// Driver feature bits (`NETDEV_XDP_ACT_*`); 0 where kernel or driver do not tell.
    pub features: u64,
    /// `xdp_zc_max_segs`: 0 without zero-copy.
    pub zero_copy_segments: u32,
}

impl XdpState {
    /// Native XDP with redirection, or `None` where it is not told.
    pub fn native(&self) -> Option<bool> {
        // NETDEV_XDP_ACT_BASIC and _REDIRECT.
        (self.features != 0).then_some(self.features & 3 == 3)
    }

    /// AF_XDP zero-copy, or `None` where it is not told.
    pub fn zero_copy(&self) -> Option<bool> {
        // NETDEV_XDP_ACT_XSK_ZEROCOPY.
        (self.features != 0).then_some(self.features & 8 != 0)
    }
}

/// The XDP program on an interface and what its driver can do.
pub fn xdp_state(ifindex: u32) -> io::Result<XdpState> {
    let mut opts = sys::bpf_xdp_query_opts {
        sz: size_of::<sys::bpf_xdp_query_opts>() as sys::size_t,
        ..Default::default()
    };
    // SAFETY: U1, U2.
    let err = unsafe { sys::bpf_xdp_query(ifindex as i32, 0, &mut opts) };
    if err < 0 {
        return Err(io::Error::from_raw_os_error(-err));
    }
    let id =
        [opts.prog_id, opts.drv_prog_id, opts.skb_prog_id, opts.hw_prog_id].into_iter().find(|id| *id != 0);
    Ok(XdpState {
        attached: id.map(describe),
        features: opts.feature_flags,
        zero_copy_segments: opts.xdp_zc_max_segs,
    })
}

/// The tcx programs on a hook, first to run first.
pub fn tcx_programs(ifindex: u32, hook: TcxHook) -> io::Result<Vec<Attached>> {
    let mut ids = [0u32; 64];
    let mut opts = sys::bpf_prog_query_opts {
        sz: size_of::<sys::bpf_prog_query_opts>() as sys::size_t,
        ..Default::default()
    };
    opts.prog_ids = ids.as_mut_ptr();
    opts.__bindgen_anon_1.prog_cnt = ids.len() as u32;
    // SAFETY: U1, U2: `ids` outlives the call and has room for `prog_cnt` of them.
    let err = unsafe { sys::bpf_prog_query_opts(ifindex as i32, hook.attach_type(), &mut opts) };
    if err < 0 {
        return Err(io::Error::from_raw_os_error(-err));
    }
    // SAFETY: both members of the union are the same count.
    let count = unsafe { opts.__bindgen_anon_1.prog_cnt } as usize;
    Ok(ids[..count.min(ids.len())].iter().map(|id| describe(*id)).collect())
}

fn describe(id: u32) -> Attached {
    let name = ProgInfoIter::default().find(|p| p.id == id).map(|p| p.name.to_string_lossy().into_owned());
    Attached { id, name: name.unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::HookKind;

    #[test]
    fn the_release_says_which_hook_there_is_where_nothing_else_does() {
        for (release, kind) in [
            ("6.1.0-13-amd64", HookKind::Classic),
            ("5.18.1", HookKind::Classic),
            ("6.6-rc3", HookKind::Tcx),
            ("7.0.1", HookKind::Tcx),
            ("", HookKind::Tcx),
        ] {
            assert_eq!(HookKind::of_release(release), kind, "{release}");
        }
    }
}
