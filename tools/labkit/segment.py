"""TCP segments by hand: made for a packet socket, and read from one."""

import socket
import struct

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
WORD = 1 << 32


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def timestamps(tsval, tsecr):
    """The option, as Linux lays it out."""
    return b"\x01\x01\x08\x0a" + struct.pack("!II", tsval % WORD, tsecr)


def frame(macs, addresses, ports, flags, seq, ack, options=b"", payload=b"", ident=0):
    """TCP over IPv4 over Ethernet; each pair is (source, target)."""
    source, target = (socket.inet_aton(a) for a in addresses)
    offset = (20 + len(options)) // 4
    window = 64240 if flags & SYN else 14600
    tcp = struct.pack("!HHIIBBHHH", *ports, seq, ack, offset << 4, flags, window, 0, 0) + options
    pseudo = source + target + struct.pack("!BBH", 0, 6, len(tcp) + len(payload))
    tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp + payload)) + tcp[18:]
    total = 20 + len(tcp) + len(payload)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, total, ident & 0xFFFF, 0x4000, 64, 6, 0, source, target)
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    mac = lambda m: bytes.fromhex(m.replace(":", ""))
    return mac(macs[1]) + mac(macs[0]) + b"\x08\x00" + ip + tcp + payload


def parse(data):
    """What a frame's TCP header says; `None` for what is not TCP over IPv4."""
    if len(data) < 54 or data[12:14] != b"\x08\x00" or data[23] != 6:
        return None
    ip = data[14:]
    tcp = ip[(ip[0] & 15) * 4:struct.unpack("!H", ip[2:4])[0]]
    sport, dport, seq, ack = struct.unpack("!HHII", tcp[:12])
    offset = (tcp[12] >> 4) * 4
    tsval = tsecr = None
    options = tcp[20:offset]
    while options and options[0]:
        if options[0] == 1:
            options = options[1:]
            continue
        if options[0] == 8:
            tsval, tsecr = struct.unpack("!II", options[2:10])
        options = options[options[1]:]
    return {"src": socket.inet_ntoa(ip[12:16]), "dst": socket.inet_ntoa(ip[16:20]), "sport": sport, "dport": dport,
            "flags": tcp[13], "seq": seq, "ack": ack, "len": len(tcp) - offset, "tsval": tsval, "tsecr": tsecr}
