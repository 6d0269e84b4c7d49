//! What mirroring may cost: the allowance of an interface, and how the kernel side keeps to it.

use super::abi::{KEEP_ALL, WINDOW_NS};

/// What one interface may take of each CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Mirrored packets a second, at least 100.
    pub pps: u64,
    /// Share of the CPU's time that mirroring may take at the hook, in millionths; 0 meters no time.
    pub share: u32,
}

impl Budget {
    /// Packets a second and CPU. A clone costs up to 1.6 us where packets come one at a time (measured on a veth
    /// pair: 0.45 to select and clone, 0.15 to put the metadata in front, 0.85 for the pair, 0.15 for the ring), less in
    /// batches, so this is a third of a core at worst. Lower sheds on machines that could bear more, higher lets a SYN
    /// flood take the gateway's CPU.
    pub const PPS: u64 = 200_000;

    /// A budget in packets alone.
    pub const fn packets(pps: u64) -> Budget {
        Budget { pps, share: 0 }
    }

    /// `struct syntap_allowance`: packets and nanoseconds a window.
    pub(super) fn allowance(&self) -> [u32; 2] {
        let share = u64::from(self.share.min(1_000_000)) * WINDOW_NS / 1_000_000;
        [per_window(self.pps), share as u32]
    }
}

impl Default for Budget {
    fn default() -> Budget {
        Budget::packets(Budget::PPS)
    }
}

pub(super) fn per_window(pps: u64) -> u32 {
    // The kernel side doubles it.
    (u128::from(pps) * u128::from(WINDOW_NS) / 1_000_000_000).clamp(1, 1 << 30) as u32
}

/// Share of the tuples that an interface's budget lets through at this moment, 0 to 1: that of the CPU which keeps least.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kept {
    /// Of those that are not known to be open.
    pub new: f64,
    /// Of those that are.
    pub known: f64,
}

impl Kept {
    /// Nothing is shed.
    pub const ALL: Kept = Kept { new: 1.0, known: 1.0 };

    /// The lesser of two, each by itself.
    pub fn least(self, other: Kept) -> Kept {
        Kept { new: self.new.min(other.new), known: self.known.min(other.known) }
    }

    /// Of a CPU's `struct syntap_budget`; `None` where its last window is too long ago to count, or never was.
    pub(super) fn read(value: &[u8], monotonic_ns: u64) -> Option<Kept> {
        let window = u64::from_ne_bytes(value.get(..8)?.try_into().ok()?);
        let share = |at: usize| {
            let keep = u32::from_ne_bytes(value.get(at..at + 4)?.try_into().ok()?);
            Some(f64::from(keep.min(KEEP_ALL)) / f64::from(KEEP_ALL))
        };
        let kept = Kept { new: share(28)?, known: share(32)? };
        (window != 0 && monotonic_ns.saturating_sub(window) < 10 * WINDOW_NS).then_some(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_is_what_a_window_holds() {
        assert_eq!(Budget::default().allowance(), [2_000, 0]);
        assert_eq!(Budget { pps: 50, share: 250_000 }.allowance(), [1, 2_500_000]);
        assert_eq!(Budget { pps: u64::MAX, share: u32::MAX }.allowance(), [1 << 30, WINDOW_NS as u32]);
    }
}
