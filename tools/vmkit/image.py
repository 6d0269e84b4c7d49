"""The guest's whole system: an initramfs with busybox, iproute2, nftables, Python, the lab, and the program under test."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from .kernel import Failed, plain, run

TOOLS = Path(__file__).resolve().parent.parent
PROGRAMS = ["ip", "bridge", "tc", "ethtool", "nft"]
# Of Python's library, what no scenario imports.
LEFT_OUT = {"site-packages", "test", "idlelib", "tkinter", "ensurepip", "lib2to3", "turtledemo", "pydoc_data", "__pycache__"}

INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/ PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /run /tmp
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
ip link set lo up
cd /syntap/tools
{python} -m vmkit.guest {args} >/dev/ttyS1
echo "vm: the guest ended with $?" >/dev/console
poweroff -f
"""


def libraries(binary):
    """The shared libraries that a program is linked to; none for a static one."""
    done = subprocess.run(["ldd", binary], capture_output=True, text=True)
    words = [w for line in done.stdout.splitlines() for w in line.split() if w.startswith("/")]
    return [Path(w) for w in words]


class Image:
    """A folder that becomes the guest's root."""

    def __init__(self, folder):
        self.root = Path(folder)
        shutil.rmtree(self.root, ignore_errors=True)
        for name in ("bin", "sbin", "usr/bin", "usr/sbin", "proc", "sys", "dev", "run", "tmp", "etc", "var/run"):
            (self.root / name).mkdir(parents=True)

    @classmethod
    def of(cls, folder):
        """A root that is there already."""
        image = cls.__new__(cls)
        image.root = Path(folder)
        return image

    def put(self, file, at=None):
        """Copies a file to the same path, or another one."""
        to = self.root / str(at or file).lstrip("/")
        to.parent.mkdir(parents=True, exist_ok=True)
        if not to.exists():
            shutil.copy(file, to)
        return to

    def program(self, file, at=None):
        for library in libraries(file):
            self.put(library)
        return self.put(file, at)

    def tree(self, folder, at=None):
        to = self.root / str(at or folder).lstrip("/")
        shutil.copytree(folder, to, ignore=lambda _, names: LEFT_OUT & set(names), dirs_exist_ok=True)

    def busybox(self):
        busybox = shutil.which("busybox")
        if not busybox or libraries(busybox):
            raise Failed("a static busybox is missing: apt-get install busybox-static")
        self.put(busybox, "/bin/busybox")
        for name in run(busybox, "--list").split():
            if name not in PROGRAMS and name not in ("busybox", "modprobe"):
                (self.root / "bin" / name).symlink_to("/bin/busybox")

    def python(self):
        """The Python that runs this, and its library. Its name in the guest."""
        self.program(os.path.realpath(sys.executable))
        library = Path(sysconfig.get_paths()["stdlib"])
        self.tree(library)
        for extension in (library / "lib-dynload").glob("*.so"):
            for needed in libraries(extension):
                self.put(needed)
        return os.path.realpath(sys.executable)

    def kernel(self, kernel):
        """Its modules, unpacked, with the lists that modprobe reads."""
        # Where /lib is a link of the root's own it is one to usr/lib.
        at = self.root / ("usr/lib" if (self.root / "lib").is_symlink() else "lib") / "modules" / kernel.release
        for file in kernel.needed():
            to = at / file.relative_to(kernel.modules())
            to = to.with_name(to.name.removesuffix(".xz"))
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(plain(file))
        for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
            self.put(kernel.modules() / name, at.relative_to(self.root) / name)
        # The kernel calls it by this path, with names that busybox's own does not find.
        if not (self.root / "sbin/modprobe").is_symlink():
            self.program(os.path.realpath(shutil.which("kmod") or "/bin/kmod"), "/sbin/modprobe")
        run("depmod", "-b", self.root, kernel.release)

    def pack(self, to):
        names = run("find", ".", cwd=self.root)
        with open(to, "wb") as out:
            done = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet", "-R", "0:0"], input=names.encode(), stdout=out,
                                  cwd=self.root)
        if done.returncode != 0:
            raise Failed("cpio failed")


def build(kernel, syntap, args, home):
    """Makes the image; its file."""
    image = Image(home / "image")
    image.busybox()
    python = image.python()
    for name in PROGRAMS:
        image.program(shutil.which(name) or f"/usr/sbin/{name}", f"/usr/sbin/{name}")
    image.tree(TOOLS, "/syntap/tools")
    program = image.program(syntap, "/syntap/syntap")
    # Debug information is most of it, and the guest's memory is small.
    run("strip", "--strip-debug", program)
    image.kernel(kernel)
    (image.root / "python3").symlink_to(python)
    for folder in ("bin", "usr/bin"):
        link = image.root / folder / "python3"
        if not link.exists():
            link.symlink_to(python)
    init = image.root / "init"
    init.write_text(INIT.format(python=python, args=" ".join(args)))
    init.chmod(0o755)
    file = home / "initramfs.cpio"
    image.pack(file)
    shutil.rmtree(image.root)
    return file
