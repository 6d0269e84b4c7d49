//! The budget of one interface on one CPU, said a second time in plain Rust: in whole numbers, without a limit on their
//! size, and with the clock as an argument.

use syntap::bpf::abi::{KEEP_ALL, WINDOW_NS};

const ALL: u64 = KEEP_ALL as u64;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Mirrored,
    /// It was not its tuple's turn.
    Shed,
    /// The cap.
    Hard,
}

/// `struct syntap_budget`, in its order but for the window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    pub window_ns: u64,
    pub cap: u64,
    pub used: u64,
    pub demand: u64,
    pub judged: u64,
    pub known: u64,
    pub keep_new: u64,
    pub keep_known: u64,
    pub neighbours: u64,
    pub spent_ns: u64,
    pub cost: u64,
}

impl Budget {
    /// From the map's bytes.
    pub fn read(raw: &[u8]) -> Budget {
        let word = |n: usize| u64::from(u32::from_ne_bytes(raw[8 + n * 4..12 + n * 4].try_into().unwrap()));
        Budget {
            window_ns: u64::from_ne_bytes(raw[..8].try_into().unwrap()),
            cap: word(0),
            used: word(1),
            demand: word(2),
            judged: word(3),
            known: word(4),
            keep_new: word(5),
            keep_known: word(6),
            neighbours: word(7),
            spent_ns: word(8),
            cost: word(9),
        }
    }

    /// A packet of a tuple with this slice of the hash comes at `now`; the allowance is in packets and ns a window.
    pub fn packet(&mut self, now: u64, (packets, ns): (u64, u64), slice: u64, is_known: bool) -> Fate {
        if now - self.window_ns >= WINDOW_NS {
            self.next_window(now, packets, ns);
        }
        self.demand += 1;
        // Nobody asks whose packet it is while all are kept and half the window is free.
        let asked = self.keep_new < ALL || self.demand > self.cap / 2;
        let known = asked && is_known;
        self.judged += u64::from(asked);
        self.known += u64::from(known);
        let (keep, height) = if known { (self.keep_known, 2) } else { (self.keep_new, 1) };
        if slice >= keep {
            return Fate::Shed;
        }
        if self.used >= height * self.cap || ns > 0 && self.spent_ns >= height * ns {
            return Fate::Hard;
        }
        self.used += 1;
        Fate::Mirrored
    }

    /// What mirroring a packet took.
    pub fn charge(&mut self, ns: u64) {
        self.spent_ns += ns;
        self.cost = self.cost + ns - self.cost / 64;
    }

    fn next_window(&mut self, now: u64, packets: u64, ns: u64) {
        let windows = (now - self.window_ns) / WINDOW_NS;
        let overdrawn = |used: u64, allowed: u64| used.saturating_sub(allowed.saturating_mul(windows));
        let owed = overdrawn(self.used, self.cap);
        let eighth_less = |n: u64| n - n / 8;
        let (mut new_goal, mut known_goal) = (ALL, ALL);
        if windows == 1 && self.demand > self.cap {
            let known = (self.demand * self.known).checked_div(self.judged).unwrap_or(0);
            let reserve = self.cap / 16;
            let for_known = self.cap - reserve;
            let room = if known > for_known {
                known_goal = eighth_less(for_known) * ALL / known;
                reserve
            } else {
                (self.cap - known).saturating_sub(owed).max(reserve)
            };
            new_goal = (eighth_less(room) * ALL).checked_div(self.demand - known).unwrap_or(ALL).min(ALL);
        }
        for (keep, goal) in [(&mut self.keep_new, new_goal), (&mut self.keep_known, known_goal)] {
            *keep = match windows {
                10.. => ALL,
                _ => goal.min(*keep + *keep / 8 + ALL / 1024),
            };
        }
        (self.window_ns, self.used) = (now, owed);
        (self.demand, self.judged, self.known, self.neighbours) = (0, 0, 0, 0);
        self.cap = packets;
        if ns > 0 {
            self.spent_ns = overdrawn(self.spent_ns, ns);
            if let Some(fit) = (ns * 64).checked_div(self.cost) {
                self.cap = packets.min(fit.max(1));
            }
        }
    }
}
