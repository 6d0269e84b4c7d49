"""The guest's whole system where the package is tried: Debian with systemd, as an initramfs, and the package in /tmp, not installed."""

import shutil
from pathlib import Path

from .image import Image
from .kernel import Failed, SUITES, run

TOOLS = Path(__file__).resolve().parent.parent
# The kernel of backports has the root of the release that it is made for.
SUITE = {series: suite.removesuffix("-backports") for series, suite in SUITES.items()}
PACKAGES = ["systemd-sysv", "dbus", "kmod", "iproute2", "python3"]

UNIT = """[Unit]
Description=Tries the package and switches the machine off
After=multi-user.target

[Service]
Environment=PYTHONPATH=/syntap/tools PYTHONDONTWRITEBYTECODE=1
StandardOutput=file:/dev/ttyS1
StandardError=tty
TTYPath=/dev/console
ExecStart=/usr/bin/python3 -m vmkit.service
ExecStopPost=/usr/bin/systemctl poweroff --force --force
"""


def build(kernel, deb, home):
    """Makes the image; its file."""
    if not shutil.which("mmdebstrap"):
        raise Failed("mmdebstrap is missing: tools/setup --package")
    folder = home / "image"
    shutil.rmtree(folder, ignore_errors=True)
    without = [f"--dpkgopt=path-exclude=/usr/share/{it}/*" for it in ("doc", "man", "locale", "info")]
    run("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}", *without, SUITE[kernel.series], folder)
    shutil.rmtree(folder / "var/cache/apt", ignore_errors=True)
    shutil.rmtree(folder / "var/lib/apt/lists", ignore_errors=True)
    image = Image.of(folder)
    image.kernel(kernel)
    image.tree(TOOLS, "/syntap/tools")
    image.put(deb, "/tmp-syntap.deb")
    (image.root / "init").symlink_to("/usr/lib/systemd/systemd")
    (image.root / "etc/hostname").write_text("gateway\n")
    units = image.root / "etc/systemd/system"
    (units / "try.service").write_text(UNIT)
    (units / "multi-user.target.wants").mkdir(exist_ok=True)
    (units / "multi-user.target.wants/try.service").symlink_to("/etc/systemd/system/try.service")
    # Nobody logs in, and a prompt on the console is in the way of what is said there.
    for masked in ("serial-getty@ttyS0.service", "getty@tty1.service", "console-getty.service", "systemd-networkd-wait-online.service"):
        (units / masked).symlink_to("/dev/null")
    file = home / "initramfs.cpio"
    image.pack(file)
    shutil.rmtree(image.root)
    return file
