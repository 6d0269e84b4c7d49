"""What is known of a port: driver, queues, how it spreads packets over them."""

import json
import re
import subprocess


def said(argv):
    """What a command says; nothing if it fails, as drivers refuse what they do not have."""
    done = subprocess.run(argv, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else ""


def current(text, name):
    """A value under "Current hardware settings" of ethtool -l."""
    part = text.split("Current hardware settings:")[-1]
    m = re.search(rf"^{name}:\s+(\d+)", part, re.M)
    return int(m.group(1)) if m else None


def symmetric_key(key):
    """A Toeplitz key of one 16-bit word over and over gives both directions of a tuple the same hash."""
    digits = key.replace(":", "").strip()
    return len(digits) >= 8 and all(digits[i:i + 4] == digits[:4] for i in range(0, len(digits) - 3, 4))


def facts(within, interface):
    """As a dictionary; what the driver does not tell is None."""
    def ethtool(*args):
        return said([*within, "ethtool", *args])

    driver, queues, spread = ethtool("-i", interface), ethtool("-l", interface), ethtool("-x", interface)
    features = ethtool("-k", interface)
    speed = re.search(r"Speed:\s+(\S+)", ethtool(interface))

    def feature(name):
        m = re.search(rf"^{name}:\s+(\w+)", features, re.M)
        return m.group(1) if m else None

    key = re.search(r"RSS hash key:\n(\S+)", spread)
    key = key.group(1) if key and ":" in key.group(1) else None
    transform = re.search(r"symmetric-(?:or-)?xor:\s+(\w+)", spread)
    return {
        "interface": interface,
        "driver": (re.search(r"^driver:\s+(\S+)", driver, re.M) or [None, None])[1],
        "firmware": (re.search(r"^firmware-version:[ \t]*(.*)", driver, re.M) or [None, None])[1] or None,
        "speed": speed.group(1) if speed else None,
        "combined_queues": current(queues, "Combined"),
        "rx_queues": current(queues, "RX"),
        "rss_key": key,
        "rss_key_symmetric": symmetric_key(key) if key else None,
        "symmetric_xor": transform.group(1) if transform else None,
        "rx_vlan_offload": feature("rx-vlan-offload"),
        "rx_hashing": feature("receive-hashing"),
        "generic_receive_offload": feature("generic-receive-offload"),
        "hardware_lro": feature("rx-gro-hw"),
    }


def in_use(within, interface):
    """Why an interface is not one that only receives copies; None if it may be."""
    shown = json.loads(said([*within, "ip", "-j", "addr", "show", "dev", interface]) or "[]")
    if not shown:
        return "there is no such interface"
    for address in shown[0].get("addr_info", []):
        if address.get("scope") != "link":
            return f"it has the address {address['local']}"
    if shown[0].get("master"):
        return f"it belongs to {shown[0]['master']}"
    routes = json.loads(said([*within, "ip", "-j", "route", "show", "dev", interface]) or "[]")
    if routes:
        return f"a route uses it ({routes[0]['dst']})"
    links = json.loads(said([*within, "ip", "-j", "link", "show"]) or "[]")
    above = [link["ifname"] for link in links if link.get("link") == interface and "link_netnsid" not in link]
    return f"{above[0]} lies on it" if above else None
