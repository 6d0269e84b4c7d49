//! The flow table: fixed capacity, bounded probing, keyed hash, eviction by class without a scan.
//!
//! An index of 64-byte buckets (8 tags and 8 flow numbers: one cache line a probe) points into a slab of flows. A
//! key has two buckets, so a look-up reads at most two lines of the index and then the flow's own. Flows stand in
//! one list for each [`Class`]; when the slab or both buckets are full, [`Table::victim`] names the flow to give
//! up: half-open ones first, then closed, then idle. Memory is reserved at start and never grows beyond.

use super::{FlowKey, Seed};

/// The number of a flow in the slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct FlowId(pub u32);

/// No flow: the end of a list, an empty place of a bucket.
const NONE: u32 = u32::MAX;

/// Places in a bucket: what fits a cache line as tag and number.
const WAYS: usize = 8;

/// How many of a class's oldest flows are looked at for one that is idle before the oldest is taken anyway.
const SECOND_CHANCES: usize = 8;

/// What a flow is worth when room is needed: the first variant is given up first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Class {
    /// A SYN and nothing more: what a flood is made of.
    #[default]
    HalfOpen = 0,
    /// Closed or reset, kept to recognise the reuse of its tuple.
    Closed = 1,
    /// Established, or picked up in mid-stream.
    Open = 2,
}

const CLASSES: usize = 3;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Bucket {
    tags: [u32; WAYS],
    ids: [u32; WAYS],
}

const EMPTY: Bucket = Bucket { tags: [0; WAYS], ids: [NONE; WAYS] };

/// A flow with what the table must know of it. The key comes first, so that comparing it and reading the state
/// behind it touch one line.
#[repr(C, align(64))]
struct Slot<V> {
    key: FlowKey,
    hash: u64,
    used: bool,
    class: Class,
    prev: u32,
    next: u32,
    /// Set by a touch, cleared when the flow was spared once.
    recent: bool,
    value: V,
}

impl<V: Default> Slot<V> {
    fn empty() -> Slot<V> {
        Slot {
            key: FlowKey::default(),
            hash: 0,
            used: false,
            class: Class::HalfOpen,
            prev: NONE,
            next: NONE,
            recent: false,
            value: V::default(),
        }
    }
}

#[derive(Clone, Copy)]
struct List {
    head: u32,
    tail: u32,
    len: u32,
}

/// See the module.
pub struct Table<V> {
    buckets: Box<[Bucket]>,
    /// Grows up to `capacity`, for which memory was reserved; never beyond.
    slots: Vec<Slot<V>>,
    capacity: usize,
    lists: [List; CLASSES],
    free: u32,
    len: u32,
    seed: Seed,
}

impl<V: Clone + Default> Table<V> {
    /// A table for up to `capacity` flows (at least 16, at most 2^30). The index has twice as many places.
    pub fn new(capacity: usize, seed: Seed) -> Table<V> {
        let capacity = capacity.clamp(16, 1 << 30);
        let buckets = (capacity * 2 / WAYS).next_power_of_two();
        Table {
            buckets: vec![EMPTY; buckets].into_boxed_slice(),
            slots: Vec::with_capacity(capacity),
            capacity,
            lists: [List { head: NONE, tail: NONE, len: 0 }; CLASSES],
            free: NONE,
            len: 0,
            seed,
        }
    }

    /// Flows in the table.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// True without flows.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Flows there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes taken for each flow, index included.
    pub fn bytes_per_flow(&self) -> usize {
        size_of::<Slot<V>>() + self.buckets.len() * size_of::<Bucket>() / self.capacity
    }

    /// The key's hash under this table's seed.
    #[inline]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        key.hash(self.seed)
    }

    /// Reads a word of the hash's first bucket. Called for a whole batch before its look-ups, the loads overlap
    /// instead of waiting for memory one after the other.
    #[inline]
    pub fn touch(&self, hash: u64) -> u32 {
        self.buckets[self.places(hash)[0]].tags[0]
    }

    /// The two buckets of a hash. They may be the same one.
    #[inline]
    fn places(&self, hash: u64) -> [usize; 2] {
        let mask = self.buckets.len() - 1;
        [hash as usize & mask, (hash >> 32 ^ hash.rotate_left(9)) as usize & mask]
    }

    #[inline]
    fn tag(hash: u64) -> u32 {
        (hash >> 24) as u32
    }

    /// The flow of `key`.
    #[inline]
    pub fn find(&self, key: &FlowKey, hash: u64) -> Option<FlowId> {
        let tag = Self::tag(hash);
        for place in self.places(hash) {
            let bucket = &self.buckets[place];
            for way in 0..WAYS {
                if bucket.tags[way] == tag && bucket.ids[way] != NONE {
                    let id = bucket.ids[way];
                    if self.slots[id as usize].key == *key {
                        return Some(FlowId(id));
                    }
                }
            }
        }
        None
    }

    /// A flow that must be removed before a key with `hash` can be inserted, or `None` if there is room.
    pub fn victim(&mut self, hash: u64) -> Option<FlowId> {
        if self.free == NONE && self.slots.len() == self.capacity {
            return self.oldest();
        }
        let places = self.places(hash);
        if places.iter().any(|&p| self.buckets[p].ids.contains(&NONE)) {
            return None;
        }
        // Both buckets are full: the cheapest class of these sixteen, the first one found.
        let ids = places.iter().flat_map(|&p| self.buckets[p].ids);
        ids.min_by_key(|&id| self.slots[id as usize].class).map(FlowId)
    }

    /// The oldest idle flow of the cheapest class that has any.
    fn oldest(&mut self) -> Option<FlowId> {
        let class = (0..CLASSES).find(|&c| self.lists[c].len > 0)?;
        for _ in 0..SECOND_CHANCES.min(self.lists[class].len as usize) {
            let id = self.lists[class].head;
            if !self.slots[id as usize].recent {
                return Some(FlowId(id));
            }
            self.slots[id as usize].recent = false;
            self.unlink(id);
            self.link(id, class);
        }
        Some(FlowId(self.lists[class].head))
    }

    /// Puts a new flow in, half-open, with a default value. [`Table::victim`] must have returned `None` for this hash.
    pub fn insert(&mut self, key: FlowKey, hash: u64) -> FlowId {
        let id = match self.free {
            NONE => {
                assert!(self.slots.len() < self.capacity, "the caller makes room first");
                self.slots.push(Slot::empty());
                self.slots.len() as u32 - 1
            }
            id => {
                self.free = self.slots[id as usize].next;
                id
            }
        };
        let place = self.places(hash).into_iter().find_map(|p| {
            let way = self.buckets[p].ids.iter().position(|&i| i == NONE)?;
            Some((p, way))
        });
        let Some((place, way)) = place else { unreachable!("the caller makes room first") };
        self.slots[id as usize] = Slot { key, hash, used: true, ..Slot::empty() };
        self.buckets[place].tags[way] = Self::tag(hash);
        self.buckets[place].ids[way] = id;
        self.len += 1;
        self.link(id, Class::HalfOpen as usize);
        FlowId(id)
    }

    /// Takes a flow out.
    pub fn remove(&mut self, id: FlowId) {
        let hash = self.slots[id.0 as usize].hash;
        assert!(self.slots[id.0 as usize].used, "a flow is removed once");
        for place in self.places(hash) {
            if let Some(way) = self.buckets[place].ids.iter().position(|&i| i == id.0) {
                self.buckets[place].ids[way] = NONE;
                break;
            }
        }
        self.unlink(id.0);
        let slot = &mut self.slots[id.0 as usize];
        slot.used = false;
        slot.next = self.free;
        self.free = id.0;
        self.len -= 1;
    }

    /// Moves a flow to another class, as its youngest.
    #[inline]
    pub fn set_class(&mut self, id: FlowId, class: Class) {
        let slot = &mut self.slots[id.0 as usize];
        slot.recent = true;
        if slot.class != class {
            self.unlink(id.0);
            self.link(id.0, class as usize);
            self.slots[id.0 as usize].class = class;
        }
    }

    /// The key of a flow.
    #[inline]
    pub fn key(&self, id: FlowId) -> &FlowKey {
        &self.slots[id.0 as usize].key
    }

    /// The flow itself.
    #[inline]
    pub fn get(&self, id: FlowId) -> &V {
        &self.slots[id.0 as usize].value
    }

    /// The flow itself.
    #[inline]
    pub fn get_mut(&mut self, id: FlowId) -> &mut V {
        &mut self.slots[id.0 as usize].value
    }

    /// Any flow, for emptying the table at the end; in the order of the classes, oldest first.
    pub fn first(&self) -> Option<FlowId> {
        self.lists.iter().find(|l| l.len > 0).map(|l| FlowId(l.head))
    }

    fn link(&mut self, id: u32, class: usize) {
        let tail = self.lists[class].tail;
        let slot = &mut self.slots[id as usize];
        slot.class = [Class::HalfOpen, Class::Closed, Class::Open][class];
        slot.prev = tail;
        slot.next = NONE;
        if tail == NONE {
            self.lists[class].head = id;
        } else {
            self.slots[tail as usize].next = id;
        }
        self.lists[class].tail = id;
        self.lists[class].len += 1;
    }

    fn unlink(&mut self, id: u32) {
        let (prev, next, class) = {
            let s = &self.slots[id as usize];
            (s.prev, s.next, s.class as usize)
        };
        match prev {
            NONE => self.lists[class].head = next,
            p => self.slots[p as usize].next = next,
        }
        match next {
            NONE => self.lists[class].tail = prev,
            n => self.slots[n as usize].prev = prev,
        }
        self.lists[class].len -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Endpoint;
    use crate::wire::Addr;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn key(n: u16) -> FlowKey {
        let src = Endpoint { addr: Addr::v4([10, 0, (n >> 8) as u8, n as u8]), port: n };
        FlowKey::new(src, Endpoint { addr: Addr::v4([192, 0, 2, 1]), port: 80 }, 0).0
    }

    /// Inserts with eviction, as the worker does; returns the keys that had to go.
    fn put(t: &mut Table<u16>, n: u16) -> Vec<u16> {
        let k = key(n);
        let h = t.hash(&k);
        let mut gone = Vec::new();
        while let Some(v) = t.victim(h) {
            gone.push(*t.get(v));
            t.remove(v);
        }
        let id = t.insert(k, h);
        *t.get_mut(id) = n;
        gone
    }

    #[test]
    fn half_open_flows_go_before_closed_ones_and_those_before_open_ones() {
        let mut t: Table<u16> = Table::new(16, Seed::FIXED);
        for n in 0..16 {
            put(&mut t, n);
            let id = t.find(&key(n), t.hash(&key(n))).unwrap();
            t.set_class(id, [Class::Open, Class::Closed, Class::HalfOpen][n as usize % 3]);
        }
        let mut order = Vec::new();
        for n in 100..116 {
            let gone = put(&mut t, n);
            order.extend(gone.iter().map(|g| g % 3));
            let id = t.find(&key(n), t.hash(&key(n))).unwrap();
            t.set_class(id, Class::Open);
        }
        assert_eq!(order[..5], [2; 5], "half-open first");
        assert_eq!(order[5..10], [1; 5], "then closed");
        assert_eq!(t.len(), 16);
    }

    proptest! {
        #[test]
        fn the_table_agrees_with_a_plain_map(ops in proptest::collection::vec((0u8..3, 0u16..200), 1..400)) {
            let mut t: Table<u16> = Table::new(64, Seed::FIXED);
            let mut model: HashMap<u16, ()> = HashMap::new();
            for (op, n) in ops {
                let k = key(n);
                let h = t.hash(&k);
                match (op, t.find(&k, h)) {
                    (0 | 1, None) => {
                        prop_assert!(!model.contains_key(&n));
                        for gone in put(&mut t, n) {
                            prop_assert!(model.remove(&gone).is_some());
                        }
                        model.insert(n, ());
                    }
                    (_, Some(id)) => {
                        prop_assert!(model.contains_key(&n));
                        prop_assert_eq!(*t.get(id), n);
                        if op == 2 {
                            t.remove(id);
                            model.remove(&n);
                        } else {
                            t.set_class(id, [Class::HalfOpen, Class::Closed, Class::Open][n as usize % 3]);
                        }
                    }
                    _ => {}
                }
                prop_assert_eq!(t.len(), model.len());
                prop_assert!(t.len() <= 64);
            }
            while let Some(id) = t.first() {
                prop_assert!(model.remove(t.get(id)).is_some());
                t.remove(id);
            }
            prop_assert!(model.is_empty());
        }
    }
}
