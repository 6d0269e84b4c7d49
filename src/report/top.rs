//! Counts by name, bounded: how the busiest responders and networks are found among any number of them.

use std::collections::HashMap;
use std::hash::Hash;

use super::words::plus;

/// Names counted apart. When twice as many have come, the rarer half goes into one row.
const PLACES: usize = 1024;

/// Counts by name. With more names than there is room for, one that comes back after it went into the common row counts from
/// there: what is frequent is counted nearly whole, and nothing is lost of the sum.
#[derive(Clone, Debug)]
pub struct Top<K> {
    counts: HashMap<K, u64, foldhash::fast::RandomState>,
    others: u64,
}

impl<K> Default for Top<K> {
    fn default() -> Self {
        Top { counts: HashMap::default(), others: 0 }
    }
}

impl<K: Clone + Eq + Hash + Ord> Top<K> {
    /// Counts.
    pub fn add(&mut self, name: K, count: u64) {
        plus(self.counts.entry(name).or_default(), count);
        self.bound();
    }

    /// Counts a name that need not be owned.
    pub fn add_ref<Q>(&mut self, name: &Q, count: u64)
    where
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
        K: std::borrow::Borrow<Q>,
    {
        match self.counts.get_mut(name) {
            Some(sum) => plus(sum, count),
            None => self.add(name.to_owned(), count),
        }
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: Top<K>) {
        plus(&mut self.others, other.others);
        for (name, count) in other.counts {
            self.add(name, count);
        }
    }

    fn bound(&mut self) {
        if self.counts.len() < 2 * PLACES {
            return;
        }
        let mut rows: Vec<(K, u64)> = self.counts.drain().collect();
        rows.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        rows.drain(PLACES..).for_each(|r| plus(&mut self.others, r.1));
        self.counts.extend(rows);
    }

    /// True if nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// How many names are counted apart.
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// True if this name was counted.
    pub fn has(&self, name: &K) -> bool {
        self.counts.contains_key(name)
    }

    /// How often this name was.
    pub fn count_of<Q: Hash + Eq + ?Sized>(&self, name: &Q) -> u64
    where
        K: std::borrow::Borrow<Q>,
    {
        self.counts.get(name).copied().unwrap_or(0)
    }

    /// All names counted apart.
    pub fn names(&self) -> impl Iterator<Item = &K> {
        self.counts.keys()
    }

    /// The `n` largest, then what is left of all others together.
    pub fn rows(&self, n: usize) -> (Vec<(&K, u64)>, u64) {
        let mut rows: Vec<_> = self.counts.iter().map(|(k, &v)| (k, v)).collect();
        rows.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        let mut rest = self.others;
        rows.iter().skip(n).for_each(|r| plus(&mut rest, r.1));
        rows.truncate(n);
        (rows, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_the_bound_are_counted_together_and_the_frequent_ones_stay() {
        let mut t = Top::default();
        for n in 0..10 * PLACES as u64 {
            t.add(n, 2);
            // One that comes late, and often.
            if n > 5 * PLACES as u64 {
                t.add(u64::MAX, 3);
            }
        }
        assert!(t.len() < 2 * PLACES);
        let (rows, rest) = t.rows(1);
        let often = 3 * (5 * PLACES as u64 - 1);
        assert_eq!(rows, [(&u64::MAX, often)]);
        assert_eq!(rest, 20 * PLACES as u64);
    }

    #[test]
    fn two_halves_are_a_whole() {
        let (mut a, mut b) = (Top::default(), Top::default());
        a.add_ref("x", 1);
        b.add_ref("x", 2);
        b.add_ref("y", 1);
        a.merge(b);
        assert_eq!((a.count_of("x"), a.count_of("y")), (3, 1));
    }
}
