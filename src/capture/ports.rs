//! The set of chosen ports, as `-p` gives it and as the kernel side reads it.

use std::fmt;
use std::str::FromStr;

/// A set of TCP ports.
#[derive(Clone, PartialEq, Eq)]
pub struct PortSet(Box<[u64; 1024]>);

/// What is wrong with a list of ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Port 0 is never on the wire of a working connection, and a range from 0 is a slip.
    #[error("port 0 is not a port")]
    Zero,
    /// A range that ends before it begins.
    #[error("the range {0}-{1} ends before it begins")]
    Reversed(u16, u16),
    /// Not a number from 1 to 65535.
    #[error("'{0}' is not a port (1 to 65535) or a range of ports")]
    NotAPort(String),
    /// Nothing between two commas, or nothing at all.
    #[error("the list of ports has an empty entry")]
    Empty,
}

impl PortError {
    /// The way out.
    pub fn hint(&self) -> String {
        match self {
            PortError::Zero => "ports begin at 1; leave the option out to tap all ports".into(),
            PortError::Reversed(a, b) => format!("write {b}-{a}"),
            PortError::NotAPort(_) | PortError::Empty => {
                "write ports and ranges like 80,443,8000-8100".into()
            }
        }
    }
}

impl PortSet {
    /// No port.
    pub fn none() -> PortSet {
        PortSet(Box::new([0; 1024]))
    }

    /// Ports 1 to 65535.
    pub fn all() -> PortSet {
        let mut set = PortSet(Box::new([u64::MAX; 1024]));
        set.0[0] &= !1;
        set
    }

    /// Adds the ports from `first` to `last`.
    pub fn insert(&mut self, first: u16, last: u16) {
        for port in first..=last {
            self.0[usize::from(port) / 64] |= 1 << (port % 64);
        }
    }

    /// True if the port is in the set.
    #[inline]
    pub fn contains(&self, port: u16) -> bool {
        self.0[usize::from(port) / 64] >> (port % 64) & 1 != 0
    }

    /// Number of ports.
    pub fn len(&self) -> usize {
        self.0.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// True without any port.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bit `p % 64` of word `p / 64` is port `p`.
    pub fn words(&self) -> &[u64; 1024] {
        &self.0
    }

    /// All of these together; all ports if there are none.
    pub fn union(sets: &[PortSet]) -> PortSet {
        let Some((first, rest)) = sets.split_first() else { return PortSet::all() };
        let mut all = first.clone();
        for set in rest {
            all.extend(set);
        }
        all
    }

    /// Adds another set.
    pub fn extend(&mut self, other: &PortSet) {
        for (w, o) in self.0.iter_mut().zip(other.0.iter()) {
            *w |= o;
        }
    }
}

impl Default for PortSet {
    /// All ports: what a tap without `-p` watches.
    fn default() -> PortSet {
        PortSet::all()
    }
}

impl FromStr for PortSet {
    type Err = PortError;

    /// Reads `80,443,8000-8100`.
    fn from_str(list: &str) -> Result<PortSet, PortError> {
        let port = |text: &str| match text.trim().parse::<u16>() {
            Ok(0) => Err(PortError::Zero),
            Ok(port) => Ok(port),
            Err(_) => Err(PortError::NotAPort(text.trim().to_owned())),
        };
        let mut set = PortSet::none();
        for entry in list.split(',') {
            if entry.trim().is_empty() {
                return Err(PortError::Empty);
            }
            let (first, last) = match entry.split_once('-') {
                Some((first, last)) => (port(first)?, port(last)?),
                None => (port(entry)?, port(entry)?),
            };
            if first > last {
                return Err(PortError::Reversed(first, last));
            }
            set.insert(first, last);
        }
        Ok(set)
    }
}

/// As it can be typed; `all` for all ports.
impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == PortSet::all() {
            return f.write_str("all");
        }
        let mut comma = "";
        let mut port = 0u32;
        while port < 65536 {
            if !self.contains(port as u16) {
                port += 1;
                continue;
            }
            let first = port;
            while port < 65536 && self.contains(port as u16) {
                port += 1;
            }
            match port - 1 {
                last if last == first => write!(f, "{comma}{first}")?,
                last => write!(f, "{comma}{first}-{last}")?,
            }
            comma = ",";
        }
        Ok(())
    }
}

impl fmt::Debug for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PortSet({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_holds_its_ports_and_no_others() {
        let set: PortSet = "80, 443,8000-8100,65535".parse().unwrap();
        assert_eq!(set.len(), 104);
        for port in [80, 443, 8000, 8100, 65535] {
            assert!(set.contains(port), "{port}");
        }
        for port in [0, 79, 81, 7999, 8101, 65534] {
            assert!(!set.contains(port), "{port}");
        }
        assert_eq!(set.to_string(), "80,443,8000-8100,65535");
        assert_eq!(set.to_string().parse::<PortSet>().unwrap(), set);
    }

    #[test]
    fn all_ports_are_all_but_zero() {
        let all = PortSet::all();
        assert_eq!(all.len(), 65535);
        assert!(!all.contains(0));
        assert_eq!(all, "1-65535".parse().unwrap());
        assert_eq!(all.to_string(), "all");
    }

    #[test]
    fn a_bad_list_names_the_slip_and_the_way_out() {
        let error = |list: &str| list.parse::<PortSet>().unwrap_err();
        assert_eq!(error("0"), PortError::Zero);
        assert_eq!(error("0-80"), PortError::Zero);
        assert_eq!(error("90-80"), PortError::Reversed(90, 80));
        assert_eq!(error("90-80").hint(), "write 80-90");
        assert_eq!(error("http"), PortError::NotAPort("http".into()));
        assert_eq!(error("70000"), PortError::NotAPort("70000".into()));
        assert_eq!(error(""), PortError::Empty);
        assert_eq!(error("80,,443"), PortError::Empty);
    }
}
