//! Interfaces come and go under a tap: which of them are still there, and hooks for those that come back.
//!
//! An inline interface that was deleted and made anew under its name is tapped again. A span interface is not: its
//! rings went with it. An interface that only changed its name stays tapped.

use super::interface::LinkState;
use super::tap::{Mode, Tap};
use super::tap_error::TapError;

/// What an interface is at a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// There, up, and with a carrier.
    Up,
    /// There, but nothing passes it.
    Down,
    /// Not in this network namespace any more.
    Gone,
}

/// What became of a tap point since the look before.
#[derive(Debug)]
pub enum Change {
    /// It is gone: its hooks are, too.
    Gone,
    /// An interface of its name is there again and tapped.
    Back,
    /// An interface of its name is there again and cannot be tapped. It is tried again at each look.
    NotBack(TapError),
    /// Nothing passes it any more.
    Down,
    /// It passes packets again.
    Up,
}

impl Tap {
    /// Looks at every tapped interface, and hooks those that are back. Tap points by number, each with what changed;
    /// a point that went and came back since the last look is named twice.
    pub fn look(&mut self) -> Result<Vec<(usize, Change)>, TapError> {
        let states = self.rtnetlink.states().map_err(|source| TapError::System {
            operation: "list",
            object: "interfaces".into(),
            source,
        })?;
        let mut changes = Vec::new();
        for n in 0..self.points.len() {
            let (before, ifindex) = (self.points[n].presence, self.points[n].ifindex);
            let here = states.iter().find(|l| l.index == ifindex).filter(|_| before != Presence::Gone);
            let now = match here {
                Some(l) if l.running => Presence::Up,
                Some(_) => Presence::Down,
                None => Presence::Gone,
            };
            self.points[n].presence = now;
            match (before, now) {
                (Presence::Down, Presence::Up) => changes.push((n, Change::Up)),
                (Presence::Up, Presence::Down) => changes.push((n, Change::Down)),
                (Presence::Up | Presence::Down, Presence::Gone) => {
                    self.hooks.retain(|(on, _)| *on != Some(ifindex));
                    changes.push((n, Change::Gone));
                }
                _ => {}
            }
            if now == Presence::Gone
                && self.points[n].mode == Mode::Inline
                && let Some(change) = self.come_back(n, &states)
            {
                changes.push((n, change));
            }
        }
        Ok(changes)
    }

    fn come_back(&mut self, n: usize, states: &[LinkState]) -> Option<Change> {
        let name = self.points[n].name.clone();
        let there = states.iter().find(|l| l.name == name && l.ethernet)?;
        // A tap point may have changed its name and live on under this one's.
        if self.points.iter().any(|p| p.ifindex == there.index && p.presence != Presence::Gone) {
            return None;
        }
        let hooked = self
            .kernel
            .set_slot(n, there.index)
            .map_err(|source| TapError::Map { operation: "name the new interface to the programs", source })
            .and_then(|()| self.hook_inline(&name, there.index));
        match hooked {
            Ok(hooks) => self.points[n].hooks = Some(hooks),
            Err(e) => {
                self.hooks.retain(|(on, _)| *on != Some(there.index));
                return Some(Change::NotBack(e));
            }
        }
        self.points[n].ifindex = there.index;
        self.points[n].presence = if there.running { Presence::Up } else { Presence::Down };
        Some(Change::Back)
    }
}
