"""Debian's kernels: downloaded with apt into a cache of their own and unpacked, never installed."""

import lzma
import re
import shutil
import subprocess
from pathlib import Path

# The suite that a series comes from; the last is whatever is newest there. Only the suite's own list of packages is read, whatever
# this machine's sources are.
SUITES = {"6.1": "bookworm", "6.12": "trixie", "backports": "trixie-backports"}
MIRROR = "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

# What the guest may load; what they depend on comes along. One that a series has built in, or not at all, is left out.
MODULES = [
    "veth", "bridge", "br_netfilter", "tun", "vxlan", "sch_ingress", "cls_bpf", "cls_matchall", "act_gact", "af_packet",
    "crc32c_generic", "nf_tables", "nft_chain_nat", "nft_masq", "nft_nat", "nft_ct", "nft_counter", "nf_conntrack", "nf_conntrack_netlink",
    "nfnetlink", "virtio_pci", "virtio_net", "e1000e", "vmxnet3", "igb",
]


class Failed(Exception):
    """Something that stands in the way, in words."""


def run(*args, **kw):
    done = subprocess.run(args, capture_output=True, text=True, **kw)
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, args))}: {done.stderr.strip()}")
    return done.stdout


class Kernel:
    """One series of kernels, unpacked below `home`."""

    def __init__(self, series, home):
        self.series = series
        self.home = Path(home) / series

    @property
    def image(self):
        return next((file for place in ("boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz") for file in self.home.glob(f"root/{place}")), None)

    @property
    def release(self):
        return self.image.parent.name if self.image.name == "vmlinuz" else self.image.name.removeprefix("vmlinuz-")

    def modules(self):
        """The folder that holds its modules: trixie keeps them below usr."""
        for lib in ("usr/lib", "lib"):
            at = self.home / "root" / lib / "modules" / self.release
            if at.is_dir():
                return at
        raise Failed(f"{self.home}: there are no modules of {self.release}")

    def fetch(self):
        """Downloads and unpacks the newest of the series, once."""
        if self.image:
            return
        home, suite = self.home, SUITES[self.series]
        shutil.rmtree(home, ignore_errors=True)
        for folder in ("apt/lists/partial", "apt/cache/archives/partial", "deb"):
            (home / folder).mkdir(parents=True)
        (home / "apt/status").touch()
        (home / "apt/sources.list").write_text(f"deb [signed-by={KEYRING}] {MIRROR} {suite} main\n")
        at = (home / "apt").resolve()
        options = [
            f"Dir::Etc::sourcelist={at}/sources.list", "Dir::Etc::sourceparts=/dev/null", f"Dir::State={at}",
            f"Dir::State::status={at}/status", f"Dir::Cache={at}/cache", "APT::Sandbox::User=root",
            "Acquire::Languages=none",
        ]
        options = [word for option in options for word in ("-o", option)]
        print(f"vm: downloading the kernel of {suite}", flush=True)
        run("apt-get", *options, "update", "-qq")
        said = run("apt-cache", *options, "depends", "linux-image-amd64")
        found = re.search(r"linux-image-\d\S+-amd64", said)
        wanted = "linux-image-" + (f"{self.series}." if self.series[0].isdigit() else "")
        if not found or not found.group().startswith(wanted):
            raise Failed(f"{suite} has no kernel {self.series} any more: {said.strip()}")
        image = found.group()
        # Newer ones have the kernel and its modules in packages of their own, with the release in their names.
        release = image.removeprefix("linux-image-")
        parts = set(re.findall(r"linux-[a-z-]+-" + re.escape(release) + r"\S*", run("apt-cache", *options, "depends", image)))
        for package in parts | {image}:
            run("apt-get", *options, "download", "-qq", package, cwd=home / "deb")
        for file in (home / "deb").glob("*.deb"):
            run("dpkg-deb", "-x", file, home / "root")
        shutil.rmtree(home / "deb")
        shutil.rmtree(home / "apt")

    def needed(self):
        """The files of `MODULES` and of what they depend on."""
        tree = self.modules()
        by_name, depends = {}, {}
        for file in tree.rglob("*.ko*"):
            by_name[file.name.split(".")[0].replace("-", "_")] = file
        wanted, files = list(MODULES), {}
        while wanted:
            name = wanted.pop().replace("-", "_")
            if name in files or name not in by_name:
                continue
            files[name] = by_name[name]
            depends = re.search(rb"\0depends=([^\0]*)\0", b"\0" + plain(by_name[name]))
            wanted += [n for n in (depends.group(1).decode() if depends else "").split(",") if n]
        return list(files.values())


def plain(file):
    """A module's bytes; some series have them compressed."""
    data = file.read_bytes()
    return lzma.decompress(data) if file.suffix == ".xz" else data
