//! Ten 16-bit tags compared at once.

/// Tags in a row.
pub const WAYS: usize = 10;

/// The places where `tag` stands, a bit each. Written so that compilers make vectors of it: some 25 instructions, no branch.
#[inline]
pub fn matching(tags: &[u16; WAYS], tag: u16) -> u32 {
    let mut found = 0;
    // An iterator in place of the index keeps them from it.
    #[allow(clippy::needless_range_loop)]
    for place in 0..WAYS {
        found |= u32::from(tags[place] == tag) << place;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_place_of_a_tag_is_found(
            tags in proptest::array::uniform10(prop_oneof![0u16..4, any::<u16>()]),
            tag in prop_oneof![0u16..4, any::<u16>()],
        ) {
            let plain = (0..WAYS).filter(|&n| tags[n] == tag).fold(0, |all, n| all | 1 << n);
            prop_assert_eq!(matching(&tags, tag), plain);
        }
    }
}
