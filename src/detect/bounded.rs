//! A map that never holds more than it was made for: the entry that came first makes room.
//!
//! The entries stand in a ring in the order in which they came, so that the oldest is where the newest goes; an open table of their
//! hashes and numbers finds them. One probe and one entry are touched for each access. The hash is keyed at random, for keys are
//! what anybody on the wire likes to send; the order in which [`Bounded::drain`] gives entries does not depend on it.

use std::hash::{BuildHasher, Hash};

/// See the module. Putting a key again keeps its place in the queue.
#[derive(Debug)]
pub struct Bounded<K, V> {
    /// Grows to `most`; from then on the oldest is at `oldest`.
    entries: Vec<Entry<K, V>>,
    oldest: usize,
    most: usize,
    /// 0, or a hash (low half) and the number of its entry plus 1 (high half). A power of two, at most half full.
    table: Vec<u64>,
    keyed: foldhash::quality::RandomState,
}

#[derive(Debug)]
struct Entry<K, V> {
    hash: u32,
    key: K,
    value: V,
}

/// Slots of the first table.
const FIRST: usize = 64;

impl<K: Copy + Eq + Hash, V> Bounded<K, V> {
    /// Room for `most` entries (at most 2^31), taken as they come.
    pub fn new(most: usize) -> Bounded<K, V> {
        Bounded {
            entries: Vec::new(),
            oldest: 0,
            most: most.clamp(1, 1 << 31),
            table: vec![0; FIRST],
            keyed: foldhash::quality::RandomState::default(),
        }
    }

    fn hash(&self, key: &K) -> u32 {
        self.keyed.hash_one(key) as u32
    }

    /// The slots from that of a hash on, round and round.
    fn slots(&self, hash: u32) -> impl Iterator<Item = usize> + use<K, V> {
        let mask = self.table.len() - 1;
        (0..).map(move |n| (hash as usize + n) & mask)
    }

    /// The number of a key's entry, if it is there.
    #[inline]
    fn find(&self, hash: u32, key: &K) -> Option<usize> {
        for slot in self.slots(hash) {
            let here = self.table[slot];
            if here == 0 {
                return None;
            }
            let n = number(here);
            if here as u32 == hash && self.entries[n].key == *key {
                return Some(n);
            }
        }
        None
    }

    /// The value of `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.find(self.hash(key), key).map(|n| &self.entries[n].value)
    }

    /// The value of `key`.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.find(self.hash(key), key).map(|n| &mut self.entries[n].value)
    }

    /// Puts a value; gives back the one before.
    pub fn put(&mut self, key: K, value: V) -> Option<V> {
        let hash = self.hash(&key);
        match self.find(hash, &key) {
            Some(n) => Some(std::mem::replace(&mut self.entries[n].value, value)),
            None => {
                self.add(hash, key, value);
                None
            }
        }
    }

    /// The value of `key`, put there if it was missing.
    pub fn entry(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        let hash = self.hash(&key);
        let n = match self.find(hash, &key) {
            Some(n) => n,
            None => self.add(hash, key, make()),
        };
        &mut self.entries[n].value
    }

    /// Adds an entry whose key is not there; its number.
    fn add(&mut self, hash: u32, key: K, value: V) -> usize {
        let entry = Entry { hash, key, value };
        let n = if self.entries.len() < self.most {
            self.entries.push(entry);
            if 2 * self.entries.len() > self.table.len() {
                self.grow();
            }
            self.entries.len() - 1
        } else {
            let n = self.oldest;
            self.oldest = (n + 1) % self.most;
            let old = self.entries[n].hash;
            self.forget(old, n);
            self.entries[n] = entry;
            n
        };
        self.point(hash, n);
        n
    }

    /// Enters an entry's number into the table.
    fn point(&mut self, hash: u32, n: usize) {
        let free = self.slots(hash).find(|&slot| self.table[slot] == 0);
        if let Some(slot) = free {
            self.table[slot] = (n as u64 + 1) << 32 | u64::from(hash);
        }
    }

    /// Takes an entry's number out, and closes the gap: what follows and would not be found any more moves up.
    fn forget(&mut self, hash: u32, n: usize) {
        let mask = self.table.len() - 1;
        let Some(mut gap) = self.slots(hash).find(|&s| self.table[s] == 0 || number(self.table[s]) == n)
        else {
            return;
        };
        let mut next = gap;
        loop {
            next = (next + 1) & mask;
            let here = self.table[next];
            if here == 0 {
                break;
            }
            // How far it is from where it wants to be, and how far the gap is from here.
            let wants = here as u32 as usize & mask;
            if (next.wrapping_sub(wants) & mask) >= (next.wrapping_sub(gap) & mask) {
                self.table[gap] = here;
                gap = next;
            }
        }
        self.table[gap] = 0;
    }

    /// A table twice as large, of all entries but the last.
    fn grow(&mut self) {
        self.table = vec![0; 2 * self.table.len()];
        for n in 0..self.entries.len() - 1 {
            self.point(self.entries[n].hash, n);
        }
    }

    /// Takes everything out, the oldest first.
    pub fn drain(&mut self) -> Vec<(K, V)> {
        self.entries.rotate_left(self.oldest);
        self.oldest = 0;
        self.table.fill(0);
        self.entries.drain(..).map(|e| (e.key, e.value)).collect()
    }

    /// Entries.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

/// The entry that a slot that is not free names.
fn number(slot: u64) -> usize {
    (slot >> 32) as usize - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, VecDeque};

    use proptest::prelude::*;

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
        assert_eq!((b.len(), b.table.len()), (3, FIRST));
        assert_eq!(b.drain(), [(9_997, 9_997), (9_998, 9_998), (9_999, 9_999)]);
    }

    /// The same as a map and a queue.
    struct Plain {
        map: HashMap<u16, u32>,
        order: VecDeque<u16>,
        most: usize,
    }

    impl Plain {
        fn put(&mut self, k: u16, v: u32) -> Option<u32> {
            let before = self.map.insert(k, v);
            if before.is_none() {
                self.order.push_back(k);
            }
            if self.order.len() > self.most {
                let oldest = self.order.pop_front().expect("one");
                self.map.remove(&oldest);
            }
            before
        }
    }

    proptest! {
        #[test]
        fn it_does_what_a_map_and_a_queue_do(
            most in 1..200usize,
            steps in proptest::collection::vec((0..4u8, 0..400u16, any::<u32>()), 0..2_000),
        ) {
            let mut bounded = Bounded::new(most);
            let mut plain = Plain { map: HashMap::new(), order: VecDeque::new(), most };
            for (what, k, v) in steps {
                match what {
                    0 => prop_assert_eq!(bounded.put(k, v), plain.put(k, v)),
                    1 => prop_assert_eq!(bounded.get(&k), plain.map.get(&k)),
                    2 => prop_assert_eq!(bounded.get_mut(&k), plain.map.get_mut(&k)),
                    _ => {
                        if !plain.map.contains_key(&k) {
                            plain.put(k, v);
                        }
                        prop_assert_eq!(*bounded.entry(k, || v), plain.map[&k]);
                    }
                }
                prop_assert_eq!(bounded.len(), plain.order.len());
            }
            let all: Vec<_> = plain.order.iter().map(|k| (*k, plain.map[k])).collect();
            prop_assert_eq!(bounded.drain(), all);
            prop_assert_eq!(bounded.get(&0), None);
        }
    }
}
