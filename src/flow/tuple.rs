//! The key of a flow: two endpoints in an order both directions agree on.

use crate::wire::Addr;

/// One end of a TCP connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Address.
    pub addr: Addr,
    /// Port.
    pub port: u16,
}

/// A TCP tuple with a direction: originator to responder once a flow knows which is which, source to
/// destination of a packet before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// Originator, or source.
    pub src: Endpoint,
    /// Responder, or destination.
    pub dst: Endpoint,
}

impl Tuple {
    /// The same tuple from the other end.
    pub const fn reversed(self) -> Tuple {
        Tuple { src: self.dst, dst: self.src }
    }
}
