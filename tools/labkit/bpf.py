"""What others on the machine may do with BPF: programs that do nothing, put onto an interface; and hooks of somebody taken off.

The layouts are those of `union bpf_attr` in linux/bpf.h.
"""

import ctypes
import errno
import os
import platform
import re
import socket
import struct
from pathlib import Path

from .net import within

SYS_BPF = {"x86_64": 321, "aarch64": 280}
PROG_LOAD, PROG_QUERY, LINK_CREATE, LINK_GET_FD_BY_ID, LINK_DETACH = 5, 16, 28, 30, 34
SCHED_CLS, XDP = 3, 6
ATTACH_XDP, TCX_INGRESS, TCX_EGRESS = 37, 46, 47
XDP_PASS, TCX_NEXT = 2, -1
BEFORE, SKB_MODE = 1 << 3, 1 << 1


def bpf(command, attr):
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attr, 144)
    answer = libc.syscall(SYS_BPF[platform.machine()], command, buffer, 144)
    if answer < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"bpf({command}): {os.strerror(error)}")
    return answer, buffer.raw


def program(kind, answer):
    """A program that always answers the same: mov r0, answer; exit."""
    instructions = ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xB7, 0, 0, answer, 0x95, 0, 0, 0))
    licence = ctypes.create_string_buffer(b"GPL")
    attr = struct.pack("=IIQQIIQII16s", kind, 2, ctypes.addressof(instructions), ctypes.addressof(licence), 0, 0, 0, 0, 0,
                       b"foreign")
    return bpf(PROG_LOAD, attr)[0]


class Foreign:
    """Somebody's program on an interface: "xdp", which passes all on, or "tcx", in front of all others, which says "next"."""

    def __init__(self, ns, name, what):
        kind, answer, hook, flags = {"xdp": (XDP, XDP_PASS, ATTACH_XDP, SKB_MODE),
                                     "tcx": (SCHED_CLS, TCX_NEXT, TCX_INGRESS, BEFORE)}[what]
        loaded = program(kind, answer)
        with within(ns):
            self.link, _ = bpf(LINK_CREATE, struct.pack("=IIII", loaded, socket.if_nametoindex(name), hook, flags))
        os.close(loaded)

    def end(self):
        os.close(self.link)


def links_of(pid):
    """The links a process holds: (id, interface's index, attach type)."""
    found = []
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            text = entry.read_text()
        except OSError:
            continue
        field = dict(re.findall(r"^(\w+):\s*(\S+)", text, re.M))
        if "link_id" in field and "ifindex" in field:
            kind = 0 if field["link_type"] == "xdp" else int(re.sub(r"\D", "", field.get("attach_type", "")) or 0)
            found.append((int(field["link_id"]), int(field["ifindex"]), kind))
    return sorted(found)


def wipe(ns, name, pid):
    """Takes one of a process's hooks off an interface, as `bpftool link detach` does."""
    with within(ns):
        there = socket.if_nametoindex(name)
    link = next(link for link, on, _ in links_of(pid) if on == there)
    fd, _ = bpf(LINK_GET_FD_BY_ID, struct.pack("=I", link))
    try:
        bpf(LINK_DETACH, struct.pack("=I", fd))
    finally:
        os.close(fd)


def on_hook(name, hook):
    """How many programs are on one; none where the kernel has no such hook (before 6.6), which it calls an invalid argument."""
    ids = (ctypes.c_uint32 * 64)()
    attr = struct.pack("=IIIIQI", socket.if_nametoindex(name), hook, 0, 0, ctypes.addressof(ids), 64)
    try:
        return struct.unpack_from("=I", bpf(PROG_QUERY, attr)[1], 24)[0]
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
        return 0


def hooks(names):
    """How many programs are on each tcx hook of these interfaces, in this network namespace."""
    both = {"ingress": TCX_INGRESS, "egress": TCX_EGRESS}
    return {f"{name} {way}": on_hook(name, hook) for name in names for way, hook in both.items()}


def programs(names):
    """How many programs are on all of them together."""
    return sum(hooks(names).values())


def attached(ns, names):
    """The same in another one."""
    with within(ns):
        return programs(names)
