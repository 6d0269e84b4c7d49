//! Interfaces come and go under a tap: which of them are still there, and hooks for those that come back.
//!
//! An inline interface that was deleted and made anew under its name is tapped again. A span interface is not: its
//! rings went with it. An interface that only changed its name stays tapped. One whose hooks somebody took off is hooked again
//! only if the tap was told so; its other hook is taken off until then: half of what passes would be told as what it is not.

use super::interface::LinkState;
use super::tap::{Mode, Tap};
use super::tap_error::TapError;
use crate::bpf::attach::Held;

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

/// What was last seen of a tap point besides.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Its name, where that is not the one that it is tapped by.
    called: Option<String>,
    /// A foreign XDP program on it.
    xdp: Option<u32>,
    /// Its hooks were taken off.
    unhooked: bool,
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
    /// It has this name now, and is tapped as before; `None`: it has its own one again.
    Renamed(Option<String>),
    /// An XDP program of this id is on it, in front of an inline tap; `None`: no longer.
    ForeignXdp(Option<u32>),
    /// Somebody took its hooks off, or put the program of this id into their place.
    Unhooked(Option<u32>),
    /// It is hooked again.
    Rehooked,
    /// It cannot be hooked again. That is tried at each look.
    NotRehooked(TapError),
}

impl Tap {
    /// Looks at every tapped interface, and hooks those that are back. Tap points by number, each with what changed;
    /// a point that went and came back since the last look is named twice.
    pub fn look(&mut self) -> Result<Vec<(usize, Change)>, TapError> {
        // Before the interfaces: one that is removed is not listed any more when it loses its hooks.
        let lost: Vec<(u32, Held)> = self
            .hooks
            .iter()
            .filter_map(|(on, link)| Some(((*on)?, link.held())))
            .filter(|(_, held)| *held != Held::Ours)
            .collect();
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
            if let Some(link) = here {
                self.look_closer(n, link, &lost, &mut changes);
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

    /// Whether a hook is not what it was: a look will tell why. Cheap enough for many times a second, and worth it: with one of two
    /// hooks, half of what passes looks like what it is not.
    pub fn unhooked(&self) -> bool {
        self.hooks.iter().any(|(on, link)| on.is_some() && link.held() != Held::Ours)
    }

    /// Looks at an interface that is there: its name, and what others did to its hooks.
    fn look_closer(
        &mut self,
        n: usize,
        link: &LinkState,
        lost: &[(u32, Held)],
        changes: &mut Vec<(usize, Change)>,
    ) {
        let point = &mut self.points[n];
        let called = Some(link.name.clone()).filter(|name| *name != point.name);
        if called != point.seen.called {
            point.seen.called = called.clone();
            changes.push((n, Change::Renamed(called)));
        }
        if point.mode == Mode::Inline && link.xdp != point.seen.xdp {
            point.seen.xdp = link.xdp;
            changes.push((n, Change::ForeignXdp(link.xdp)));
        }
        if !point.seen.unhooked
            && let Some((_, held)) = lost.iter().find(|(on, _)| *on == link.index)
        {
            point.seen.unhooked = true;
            let by = if let Held::Replaced(by) = held { Some(*by) } else { None };
            changes.push((n, Change::Unhooked(by)));
            self.let_go(link.index);
        }
        let point = &self.points[n];
        if point.seen.unhooked && self.reattach && point.mode == Mode::Inline {
            let name = point.name.clone();
            match self.hook_inline(&name, link.index) {
                Ok(_) => {
                    self.points[n].seen.unhooked = false;
                    changes.push((n, Change::Rehooked));
                }
                Err(e) => {
                    self.let_go(link.index);
                    changes.push((n, Change::NotRehooked(e)));
                }
            }
        }
    }

    /// Takes off what is left of an interface's hooks, but for one that holds somebody's program by now: that would go with it.
    fn let_go(&mut self, index: u32) {
        for (on, _) in self
            .hooks
            .iter_mut()
            .filter(|(on, l)| *on == Some(index) && matches!(l.held(), Held::Replaced(_)))
        {
            *on = None;
        }
        self.hooks.retain(|(on, _)| *on != Some(index));
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
        self.points[n].seen = Seen::default();
        self.points[n].presence = if there.running { Presence::Up } else { Presence::Down };
        Some(Change::Back)
    }
}
