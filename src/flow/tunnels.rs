//! The tunnels that flows travel in, each kept once: thousands of connections share one pair of tunnel ends.

use std::collections::HashMap;

use crate::wire::{Tunnel, TunnelKind};

/// Pairs of tunnel ends and networks remembered. What comes after that is followed as well, and its records say nothing of
/// the tunnel: 16 times the nodes of a large overlay.
const MOST: usize = 16_384;

/// A tunnel's number; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct TunnelId(u16);

impl TunnelId {
    /// True for no tunnel.
    pub fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// See the module. Grows with each new pair up to a bound, and never shrinks.
#[derive(Debug, Default)]
pub struct Tunnels {
    list: Vec<Tunnel>,
    ids: HashMap<Tunnel, TunnelId>,
}

impl Tunnels {
    /// The number of this tunnel, a new one if it was not seen before.
    pub fn id(&mut self, tunnel: &Tunnel) -> TunnelId {
        if tunnel.kind == TunnelKind::None {
            return TunnelId(0);
        }
        if let Some(&id) = self.ids.get(tunnel) {
            return id;
        }
        if self.list.len() >= MOST {
            return TunnelId(0);
        }
        self.list.push(*tunnel);
        let id = TunnelId(self.list.len() as u16);
        self.ids.insert(*tunnel, id);
        id
    }

    /// The tunnel of a number.
    pub fn get(&self, id: TunnelId) -> Option<Tunnel> {
        self.list.get(usize::from(id.0).checked_sub(1)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Addr;

    #[test]
    fn a_tunnel_has_one_number_and_beyond_the_bound_there_is_none() {
        let tunnel = |id| Tunnel {
            kind: TunnelKind::Vxlan,
            src: Addr::v4([10, 0, 0, 1]),
            dst: Addr::v4([10, 0, 0, 2]),
            id,
        };
        let mut t = Tunnels::default();
        let first = t.id(&tunnel(42));
        assert_eq!(t.id(&tunnel(42)), first);
        assert_eq!(t.get(first), Some(tunnel(42)));
        assert_eq!(t.id(&Tunnel::default()), TunnelId(0));
        for id in 0..20_000 {
            t.id(&tunnel(id));
        }
        assert_eq!(t.list.len(), MOST);
        assert_eq!(t.get(t.ids[&tunnel(7)]), Some(tunnel(7)));
        assert_eq!(t.get(TunnelId(0)), None);
    }
}
