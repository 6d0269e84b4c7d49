"""What the kernel says of another process's AF_XDP sockets: asked of the sockets themselves."""

import ctypes
import os
import socket
import struct

SYS_PIDFD_OPEN, SYS_PIDFD_GETFD = 434, 438
# <linux/socket.h>, <linux/if_xdp.h>, <asm-generic/socket.h>
AF_XDP, SOL_XDP, SO_DOMAIN = 44, 283, 39
XDP_STATISTICS, XDP_OPTIONS, OPTIONS_ZEROCOPY = 7, 8, 1
STATISTICS = ["rx_dropped", "rx_invalid_descs", "tx_invalid_descs", "rx_ring_full", "rx_fill_ring_empty_descs",
              "tx_ring_empty_descs"]


def sockets(pid):
    """One dictionary an AF_XDP socket of the process: whether it is zero-copy, and its statistics."""
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = libc.syscall(SYS_PIDFD_OPEN, pid, 0)
    if pidfd < 0:
        raise OSError(ctypes.get_errno(), "pidfd_open")
    found, inodes = [], set()
    for name in sorted(os.listdir(f"/proc/{pid}/fd"), key=int):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue
        if not target.startswith("socket:") or target in inodes:
            continue
        # The process holds a second descriptor of each ring's socket.
        inodes.add(target)
        fd = libc.syscall(SYS_PIDFD_GETFD, pidfd, int(name), 0)
        if fd < 0:
            raise OSError(ctypes.get_errno(), "pidfd_getfd")
        # Python has no name for the family, and asks nothing if it is told all three.
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, 0, fileno=fd) as s:
            if s.getsockopt(socket.SOL_SOCKET, SO_DOMAIN) == AF_XDP:
                flags, = struct.unpack("=I", s.getsockopt(SOL_XDP, XDP_OPTIONS, 4))
                numbers = struct.unpack("=6Q", s.getsockopt(SOL_XDP, XDP_STATISTICS, 48))
                found.append({"zero_copy": bool(flags & OPTIONS_ZEROCOPY), **dict(zip(STATISTICS, numbers))})
    os.close(pidfd)
    return found
