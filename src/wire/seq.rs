//! TCP sequence numbers: 32-bit serial arithmetic (RFC 9293 section 3.4), without an order.

use std::fmt;

/// A TCP sequence number. It has `before`, `after` and `distance` and deliberately no `Ord`:
/// sequence space is a circle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Seq(pub u32);

impl Seq {
    /// Signed distance `self - other` on the circle, as the kernel's `(s32)(a - b)`.
    #[inline]
    pub const fn distance(self, other: Seq) -> i32 {
        self.0.wrapping_sub(other.0) as i32
    }

    /// `before()` of the kernel's `include/net/tcp.h`: `(s32)(self - other) < 0`.
    #[inline]
    pub const fn before(self, other: Seq) -> bool {
        self.distance(other) < 0
    }

    /// `after()` of the kernel's `include/net/tcp.h`: `(s32)(other - self) < 0`.
    #[inline]
    pub const fn after(self, other: Seq) -> bool {
        other.distance(self) < 0
    }

    /// `self + n` on the circle.
    #[inline]
    #[allow(clippy::should_implement_trait)]
    pub const fn add(self, n: u32) -> Seq {
        Seq(self.0.wrapping_add(n))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::Seq;

    #[test]
    fn before_and_after_wrap_around_as_in_the_kernel() {
        assert!(Seq(u32::MAX).before(Seq(0)));
        assert!(Seq(0).after(Seq(u32::MAX)));
        assert!(!Seq(5).before(Seq(5)) && !Seq(5).after(Seq(5)));
        // Half the circle away: the kernel's cast makes both directions "before".
        assert!(Seq(0x8000_0000).before(Seq(0)) && Seq(0).before(Seq(0x8000_0000)));
        // The story's own numbers.
        assert_eq!(Seq(1_563_951_501).distance(Seq(1_640_887_939)), -76_936_438);
    }
}
