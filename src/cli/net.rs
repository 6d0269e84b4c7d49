//! Nets on the command line.

use std::fmt;
use std::net::IpAddr;

/// Addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    ip: IpAddr,
    len: u8,
}

impl Net {
    /// Whether an address is in it.
    pub fn holds(&self, ip: IpAddr) -> bool {
        let (own, other, bits) = match (self.ip, ip) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (own.to_bits().into(), other.to_bits().into(), 32),
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits(), other.to_bits(), 128),
            _ => return false,
        };
        let differ: u128 = own ^ other;
        differ.checked_shr(bits - u32::from(self.len)).unwrap_or(0) == 0
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.len)
    }
}

/// `10.0.0.0/8`, `2001:db8::/32`; an address is a net of its own.
pub fn parse_net(text: &str) -> Result<Net, String> {
    let (ip, len) = text.split_once('/').map_or((text, None), |(ip, len)| (ip, Some(len)));
    let ip: IpAddr = ip.parse().map_err(|_| "an address and how many bits of it count: 10.0.0.0/8")?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let len = len.map_or(Ok(most), str::parse).ok().filter(|len| *len <= most);
    len.map(|len| Net { ip, len }).ok_or_else(|| format!("from 0 to {most} bits of that address can count"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_net_holds_what_begins_as_it_does() {
        let holds = |net: &str, ip: &str| parse_net(net).expect(net).holds(ip.parse().expect(ip));
        assert!(holds("10.0.0.0/8", "10.255.0.1") && !holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("10.1.2.3/31", "10.1.2.2") && !holds("10.1.2.3/31", "10.1.2.4"));
        assert!(holds("192.0.2.1", "192.0.2.1") && !holds("192.0.2.1", "192.0.2.0"));
        assert!(holds("0.0.0.0/0", "203.0.113.9") && !holds("0.0.0.0/0", "2001:db8::1"));
        assert!(holds("2001:db8::/32", "2001:db8:ffff::1") && !holds("2001:db8::/32", "2001:db9::1"));
        assert!(holds("::/0", "2001:db8::1") && holds("::1", "::1") && !holds("::1", "::2"));
        for bad in ["10.0.0.0/33", "::/129", "10/8", "net", "10.0.0.0/", "10.0.0.0/-1", "/8"] {
            assert!(parse_net(bad).is_err(), "{bad}");
        }
    }
}
