//! A map that never holds more than it was made for: the entry that came first makes room.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// See the module. Putting a key again keeps its place in the queue.
#[derive(Debug)]
pub struct Bounded<K, V> {
    map: HashMap<K, V>,
    order: VecDeque<K>,
    most: usize,
}

impl<K: Copy + Eq + Hash, V> Bounded<K, V> {
    /// Room for `most` entries, taken as they come.
    pub fn new(most: usize) -> Bounded<K, V> {
        Bounded { map: HashMap::new(), order: VecDeque::new(), most: most.max(1) }
    }

    /// The value of `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.map.get(key)
    }

    /// The value of `key`.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.map.get_mut(key)
    }

    /// Puts a value; gives back the one before.
    pub fn put(&mut self, key: K, value: V) -> Option<V> {
        let before = self.map.insert(key, value);
        if before.is_none() {
            self.order.push_back(key);
            while self.order.len() > self.most {
                if let Some(oldest) = self.order.pop_front() {
                    self.map.remove(&oldest);
                }
            }
        }
        before
    }

    /// The value of `key`, put there if it was missing.
    pub fn entry(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        if !self.map.contains_key(&key) {
            self.put(key, make());
        }
        match self.map.get_mut(&key) {
            Some(value) => value,
            None => unreachable!("it was put there"),
        }
    }

    /// Takes everything out, the oldest first.
    pub fn drain(&mut self) -> Vec<(K, V)> {
        let Bounded { map, order, .. } = self;
        order.drain(..).filter_map(|k| Some((k, map.remove(&k)?))).collect()
    }

    /// Entries.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.map.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room_and_a_key_put_again_keeps_its_place() {
        let mut b = Bounded::new(3);
        for k in 0..3 {
            b.put(k, k * 10);
        }
        assert_eq!(b.put(0, 7), Some(0));
        b.put(3, 30);
        assert_eq!((b.get(&0), b.get(&1), b.get(&3), b.len()), (None, Some(&10), Some(&30), 3));
        *b.entry(9, || 1) += 1;
        assert_eq!(b.get(&9), Some(&2));
        for k in 100..10_000 {
            b.put(k, k);
        }
        assert_eq!((b.len(), b.order.len()), (3, 3));
    }
}
