"""One virtual machine: its wires, its start, what it says, its end."""

import json
import os
import subprocess
import time
from pathlib import Path

from .kernel import Failed, run

# Model, driver's queues, what else qemu is told. Each has two ports, wired to each other by a bridge in a namespace of this process.
# AF_XDP zero-copy of virtio-net wants the DMA API, hence the platform's access; the old interface of it has no such word. Before its
# version 8 qemu has no igb: what it does not know is left out.
MODELS = [
    ("virtio-net-pci", 4, "mq=on,vectors=10,iommu_platform=on,disable-legacy=on"),
    ("e1000e", 1, ""),
    ("vmxnet3", 1, ""),
    ("igb", 1, ""),
]
MEMORY_MB = 1536


class Machine:
    """A context manager: whatever ends it, qemu, the tap devices and the namespace are gone."""

    def __init__(self, kernel, initramfs, home, kvm=False, wired=True):
        self.kvm, self.wired = kvm, wired
        self.kernel, self.initramfs, self.home = kernel, initramfs, Path(home)
        self.namespace = f"syntapvm-{os.getpid()}-{kernel.series.replace('.', '')}"
        self.process = None

    def __enter__(self):
        sweep()
        run("ip", "netns", "add", self.namespace)
        try:
            self.start(self.wires() if self.wired else [])
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        subprocess.run(["ip", "netns", "del", self.namespace], capture_output=True)
        self.initramfs.unlink(missing_ok=True)

    def wires(self):
        """Tap devices and bridges; qemu's options for them."""
        options, ip, known = [], ["ip", "-n", self.namespace], run("qemu-system-x86_64", "-device", "help")
        for n, (model, queues, more) in enumerate(MODELS):
            if f'name "{model}"' not in known:
                print(f"vm: this qemu has no {model}: not tried", flush=True)
                continue
            run(*ip, "link", "add", f"br{n}", "type", "bridge", "mcast_snooping", "0")
            run(*ip, "link", "set", f"br{n}", "addrgenmode", "none", "up")
            for side in "ab":
                # The slots of two igb must not be neighbours, for those of their virtual functions, which are counted from theirs.
                tap = f"t{n}{side}"
                many = ["multi_queue"] if queues > 1 else []
                run(*ip, "tuntap", "add", tap, "mode", "tap", *many)
                run(*ip, "link", "set", tap, "addrgenmode", "none", "txqueuelen", "10000", "master", f"br{n}", "up")
                backend = f"tap,id={tap},ifname={tap},script=no,downscript=no,vhost=off"
                backend += f",queues={queues}" if queues > 1 else ""
                mac = f"02:5e:00:00:{n:02x}:0{'ab'.index(side) + 1}"
                device = f"{model},netdev={tap},mac={mac},addr=0x{4 + n + len(MODELS) * 'ab'.index(side):x}" + (f",{more}" if more else "")
                options += ["-netdev", backend, "-device", device]
        return options

    def start(self, wires):
        # Not unasked: within a virtual machine KVM is often there and does not work.
        kvm = self.kvm
        self.said, self.console = self.home / "said.jsonl", self.home / "console.log"
        for file in (self.said, self.console):
            file.write_text("")
        command = [
            # It ends with this process, however that ends.
            "setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", self.namespace, "qemu-system-x86_64", "-machine", "q35", "-nodefaults", "-no-user-config",
            "-no-reboot", "-display", "none", "-accel", "kvm" if kvm else "tcg,thread=multi", "-cpu", "host" if kvm else "max",
            "-smp", "2", "-m", str(MEMORY_MB), "-kernel", self.kernel.image, "-initrd", self.initramfs,
            # Mitigations cost an emulated processor much and protect nobody here.
            "-append", "console=ttyS0 rdinit=/init panic=-1 quiet mitigations=off nowatchdog",
            "-serial", f"file:{self.console}", "-serial", f"file:{self.said}", *wires,
        ]
        self.process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE, text=True)

    def results(self, timeout):
        """Waits for the guest's end: release, what was tried, and whether it came to its end."""
        begun, shown = time.monotonic(), 0
        while self.process.poll() is None and time.monotonic() - begun < timeout:
            time.sleep(0.5)
            for line in self.lines()[shown:]:
                shown += 1
                if "name" in line:
                    print(f"  {'ok   ' if line['ok'] else 'WRONG'} {line['name']} ({line['seconds']} s)", flush=True)
        if self.process.poll() not in (None, 0):
            raise Failed(f"qemu: {self.process.stderr.read().strip()}")
        lines = self.lines()
        release = next((x["release"] for x in lines if "release" in x), self.kernel.release)
        return release, [x for x in lines if "name" in x], any("done" in x for x in lines)

    def lines(self):
        """Whole lines of JSON so far; a serial line ends them its own way."""
        whole = self.said.read_text(errors="replace").replace("\r", "").rpartition("\n")[0]
        return [json.loads(x) for x in whole.splitlines() if x.startswith("{")]


def sweep():
    """Removes the namespaces of runs that were killed."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    for line in listed.splitlines():
        name, *_ = line.split() or [""]
        parts = name.split("-")
        if parts[0] == "syntapvm" and not os.path.exists(f"/proc/{parts[1]}"):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
