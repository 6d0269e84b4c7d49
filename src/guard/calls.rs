//! The system calls of a running tap, each with its reason. `docs/security.md` has the same lists, and a test compares them.
//!
//! Whatever is in no list is refused with ENOSYS and said (`refused.rs`); what is in [`NEVER`] ends the process.

use libc::c_long;

/// What a call's arguments must be. Pointers are not looked behind: a filter cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum If {
    /// Anything.
    Any,
    /// The argument of this number is one of these values (32 bits are compared).
    OneOf(u8, &'static [u32]),
    /// All of these bits are set in the argument of this number.
    All(u8, u32),
    /// None of them is.
    None(u8, u32),
    /// The argument of this number is this value.
    Is(u8, u32),
    /// The argument of this number is this process's id.
    Own(u8),
    /// The argument of this number is no pointer to anything (64 bits are compared).
    Null(u8),
    /// The argument of this number is a file's mode without any of these bits.
    NoMode(u8, u32),
    /// All of these, none of which is one of these or [`If::Any`].
    Each(&'static [If]),
}

impl std::fmt::Display for If {
    /// In C's words, with the arguments as `arg0`, `arg1`, ...; nothing for [`If::Any`].
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            If::Any => Ok(()),
            If::OneOf(arg, values) => {
                let values: Vec<String> = values.iter().map(u32::to_string).collect();
                write!(f, "arg{arg} in {{{}}}", values.join(", "))
            }
            If::All(arg, bits) => write!(f, "(arg{arg} & {bits:#x}) == {bits:#x}"),
            If::None(arg, bits) => write!(f, "(arg{arg} & {bits:#x}) == 0"),
            If::Is(arg, value) => write!(f, "arg{arg} == {value}"),
            If::Own(arg) => write!(f, "arg{arg} == own pid"),
            If::Null(arg) => write!(f, "arg{arg} == NULL"),
            If::NoMode(arg, bits) => write!(f, "(arg{arg} & 0{bits:o}) == 0"),
            If::Each(all) => {
                let all: Vec<String> = all.iter().map(ToString::to_string).collect();
                f.write_str(&all.join(" && "))
            }
        }
    }
}

/// A system call and why it is in its list.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Number on this architecture.
    pub number: c_long,
    /// Name.
    pub name: &'static str,
    /// What its arguments must be.
    pub when: If,
    /// What for.
    pub why: &'static str,
}

macro_rules! calls {
    ($($(#[$cfg:meta])* $number:ident $when:expr, $why:literal;)*) => {
        &[$($(#[$cfg])* Call {
            number: libc::$number,
            // After SYS_.
            name: stringify!($number).split_at(4).1,
            when: $when,
            why: $why,
        }),*]
    };
}

use If::{Any, OneOf};

const BPF_MAP_LOOKUP_ELEM: u32 = 1;
const BPF_MAP_UPDATE_ELEM: u32 = 2;
const BPF_OBJ_GET_INFO_BY_FD: u32 = 15;
const BPF_LINK_CREATE: u32 = 28;
const BPF_LINK_DETACH: u32 = 34;

/// Commands of `bpf` while running. Maps are made and programs loaded at set-up only.
const BPF: &[u32] = &[BPF_MAP_LOOKUP_ELEM, BPF_MAP_UPDATE_ELEM, BPF_OBJ_GET_INFO_BY_FD, BPF_LINK_DETACH];

/// Bits of `openat` that make a file, or one without a name.
const MAKES: u32 = (libc::O_CREAT | (libc::O_TMPFILE & !libc::O_DIRECTORY)) as u32;
/// Modes that no file of ours has: it becomes its owner or group, or can be run, which as root's would be a way to be root again; or
/// somebody else may write it.
const NOT_OURS: u32 = 0o7133;
/// What `sendto` is without an address: to whom the socket was connected at set-up. With one, or by TCP Fast Open, it would connect.
const TO_ITS_PEER: If = If::Each(&[If::Null(4), If::None(3, libc::MSG_FASTOPEN as u32)]);
/// Commands of `fcntl` that copy a descriptor, tell and set what it is. None that has signals sent to somebody: `F_SETOWN`, `F_SETSIG`.
const DESCRIPTORS: &[u32] =
    &[libc::F_GETFD as u32, libc::F_SETFD as u32, libc::F_GETFL as u32, libc::F_DUPFD_CLOEXEC as u32];

/// Allowed while running.
pub const RUNNING: &[Call] = calls! {
    // Packets.
    #[cfg(target_arch = "x86_64")]
    SYS_poll Any, "wait for packets, netlink messages; wake the driver of an AF_XDP ring";
    SYS_ppoll Any, "poll, where a C library or an architecture has none";
    SYS_recvfrom Any, "read netlink messages, and what the helper answers";
    SYS_sendto TO_ITS_PEER, "ask rtnetlink, the conntrack helper and the supervisor; answer for metrics";
    SYS_getsockopt Any, "losses of an AF_XDP ring and of conntrack's socket; whether a ring's device is gone";
    SYS_clock_nanosleep Any, "naps of the workers, the writer and the control thread";
    SYS_nanosleep Any, "naps, in older C libraries";
    SYS_clock_gettime Any, "time, where the kernel's page for it (vDSO) has none";

    // The kernel side.
    SYS_bpf OneOf(0, BPF), "read counters and budgets; put tuples under watch; see whether hooks are still there; take them off at the end";

    // Records.
    SYS_openat If::None(2, MAKES), "look into a shard; read the configuration, at SIGHUP (landlock: in their directories only)";
    SYS_openat If::NoMode(3, NOT_OURS), "begin a shard; a text file of metrics (landlock: in their directories only)";
    SYS_write Any, "write frames, copies of packets, the status line; tell the service manager; answer for metrics";
    SYS_lseek Any, "cut off a frame that could not be written whole";
    SYS_ftruncate Any, "the same";
    SYS_fsync Any, "finish a shard; keep the name of a new one";
    SYS_fdatasync Any, "finish a shard";
    SYS_flock Any, "hold a shard while it is written, so that nobody takes it for an old one";
    SYS_read Any, "read what is in a shard before it is removed; requests for metrics; the configuration, at SIGHUP";
    SYS_pread64 Any, "read what is in a shard before it is removed; its own memory's size, for metrics";
    SYS_close Any, "close shards, sockets, and all at the end";
    SYS_fstat Any, "look at an open file";
    #[cfg(target_arch = "x86_64")]
    SYS_stat Any, "look at a file by its name";
    SYS_newfstatat Any, "look at a file by its name";
    SYS_statx Any, "the same";
    #[cfg(target_arch = "x86_64")]
    SYS_unlink Any, "remove a shard that is empty or too old; a text file of metrics that was left half made, and at the end it and the socket";
    SYS_unlinkat Any, "the same";
    SYS_getdents64 Any, "list the directory of records";
    SYS_fcntl OneOf(1, DESCRIPTORS), "flags of descriptors: closed on exec, non-blocking; a copy of a program's, to attach it again";
    SYS_fcntl If::Each(&[If::Is(1, libc::F_SETFL as u32), If::None(2, libc::O_ASYNC as u32)]), "not to wait for a connection's bytes";

    // Metrics. The listeners are bound before.
    SYS_accept4 Any, "a connection to the metrics";
    SYS_getsockname Any, "whether that connection came to this machine's own address";
    #[cfg(target_arch = "x86_64")]
    SYS_rename Any, "a text file of metrics, written beside, gets its name";
    SYS_renameat Any, "the same";
    SYS_renameat2 If::Is(4, 0), "the same";
    SYS_getrusage Any, "CPU time of its own";

    // Threads and memory: workers begin after the filter is on.
    SYS_clone If::All(0, (libc::CLONE_THREAD | libc::CLONE_VM) as u32), "begin a thread; never a process";
    SYS_clone3 Any, "answered with ENOSYS by a filter of its own, so that clone is used, whose flags can be seen";
    SYS_set_robust_list Any, "a thread's beginning, by the C library";
    SYS_rseq Any, "the same";
    SYS_rt_sigprocmask Any, "the same";
    SYS_sigaltstack Any, "a stack on which an overflow of the thread's own can be told";
    SYS_gettid Any, "the same";
    SYS_prctl OneOf(0, &[libc::PR_SET_NAME as u32, libc::PR_SET_VMA as u32]), "name a thread, or its memory";
    SYS_sched_setaffinity If::Is(0, 0), "pin a worker to its CPU";
    SYS_sched_getaffinity Any, "the C library's, for a thread's attributes";
    SYS_sched_yield Any, "a short wait in the standard library's locks";
    SYS_futex Any, "wait for and wake threads";
    SYS_mmap If::None(2, libc::PROT_EXEC as u32), "memory, threads' stacks; never to run code from";
    SYS_mprotect If::None(2, libc::PROT_EXEC as u32), "grow the heap, guard stacks; never to run code from";
    SYS_mremap Any, "grow large allocations";
    SYS_munmap Any, "give memory and rings back";
    SYS_madvise Any, "huge pages for flow tables; a thread's stack given back";
    SYS_brk Any, "the heap";
    SYS_getrandom Any, "seeds of hash maps";
    SYS_exit Any, "a thread's end";

    // Signals and the end.
    SYS_rt_sigreturn Any, "come back from a signal's handler";
    SYS_restart_syscall Any, "go on with a call after SIGSTOP and SIGCONT";
    SYS_rt_sigaction Any, "a second Ctrl-C; the C library's abort, and its own signal before the first thread";
    SYS_getpid Any, "the C library's abort";
    SYS_tgkill If::Own(0), "the C library's abort: a signal to this process, no other";
    SYS_wait4 Any, "wait for the conntrack helper's end";
    SYS_exit_group Any, "the end";
};

/// Allowed besides where there is an inline interface.
pub const INLINE: &[Call] = calls! {
    SYS_bpf OneOf(0, &[BPF_LINK_CREATE]), "hook an interface that came back under its name, or one whose hooks somebody took off";
};

/// Nothing that syntap is would ever make these: somebody else's code runs, and the process ends at once. The kernel logs it (audit).
pub const NEVER: &[Call] = calls! {
    SYS_execve Any, "run another program";
    SYS_execveat Any, "the same";
    #[cfg(target_arch = "x86_64")]
    SYS_fork Any, "begin a process";
    #[cfg(target_arch = "x86_64")]
    SYS_vfork Any, "the same";
    SYS_clone If::None(0, libc::CLONE_THREAD as u32), "the same";
    SYS_mmap If::All(2, libc::PROT_EXEC as u32), "bring code in";
    SYS_mprotect If::All(2, libc::PROT_EXEC as u32), "the same";
    SYS_pkey_mprotect If::All(2, libc::PROT_EXEC as u32), "the same";
    SYS_memfd_create Any, "the same, as a file";
    SYS_ptrace Any, "take over another process";
    SYS_process_vm_readv Any, "read another process";
    SYS_process_vm_writev Any, "write into one";
    SYS_pidfd_getfd Any, "take its descriptors";
    SYS_bpf OneOf(0, &[0, 5]), "make a map, load a program (BPF_MAP_CREATE, BPF_PROG_LOAD)";
    SYS_setuid Any, "become somebody else";
    SYS_setgid Any, "the same";
    SYS_setreuid Any, "the same";
    SYS_setregid Any, "the same";
    SYS_setresuid Any, "the same";
    SYS_setresgid Any, "the same";
    SYS_setfsuid Any, "the same";
    SYS_setfsgid Any, "the same";
    SYS_setgroups Any, "the same";
    SYS_capset Any, "change capabilities";
    SYS_unshare Any, "leave a namespace";
    SYS_setns Any, "enter one";
    SYS_mount Any, "change the file system";
    SYS_umount2 Any, "the same";
    SYS_move_mount Any, "the same";
    SYS_open_tree Any, "the same";
    SYS_fsopen Any, "the same";
    SYS_pivot_root Any, "the same";
    SYS_chroot Any, "the same";
    SYS_init_module Any, "change the kernel";
    SYS_finit_module Any, "the same";
    SYS_delete_module Any, "the same";
    SYS_kexec_load Any, "the same";
    SYS_reboot Any, "end the kernel";
    SYS_io_uring_setup Any, "make calls past this filter";
    SYS_userfaultfd Any, "a tool of kernel exploits";
    SYS_perf_event_open Any, "the same";
    SYS_keyctl Any, "the same";
    SYS_add_key Any, "the same";
};

/// Of the helper that asks connection tracking ([`super::helper`]). Anything else ends it.
pub const HELPER: &[Call] = calls! {
    SYS_recvfrom Any, "wait for a question";
    SYS_sendto TO_ITS_PEER, "send the request; answer the question";
    SYS_exit_group Any, "the end, when the tap is gone";
    SYS_rt_sigreturn Any, "come back from a signal's handler";
    SYS_restart_syscall Any, "go on after SIGSTOP and SIGCONT";
};
