//! The flow table: fixed capacity, bounded probing, keyed hash, eviction by class without a scan of all.
//!
//! An index of 64-byte buckets (10 tags and 10 flow numbers: one cache line a probe) points into a slab of [`Line`]s, one cache line a
//! flow. A key has two buckets and goes into the second if the first is nearly full, so a look-up reads at most two lines of the index
//! and then the flow's own; tags that agree by chance are one in 2,300 look-ups. What a line cannot hold is in a pool of whole flows
//! (`V`), and the addresses of IPv6 flows in a list of their own. When the slab is full, or all buckets that a key may use,
//! [`Table::victim`] names the flow to give up: a closed one, or a half-open one if there are more of these, which is a flood; of a few
//! the one that was quiet longest; an open one only if hardly anything else is there. Memory is reserved at start and never grows.

use super::line::bit;
use super::tags;
use super::{FlowKey, Line, Narrow, Phase, Seed};
use crate::wire::{Addr, Nanos};

/// The number of a flow in the slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct FlowId(pub u32);

/// No flow: an empty place.
const NONE: u32 = u32::MAX;

/// Places in a bucket: what fits a cache line as tag and number.
const WAYS: usize = tags::WAYS;

/// Flows for ten places of the index. At this load four in five are in their first bucket, and a flow can be moved out of full ones.
const LOAD: usize = 7;

/// Places that a first bucket keeps free as long as the second has more of them.
const SPARE: u32 = 3;

/// Flows that are compared when one must go, and places of the class list looked at for them: 64 cache lines in a
/// row. The next search goes on from there. So open flows make room only if hardly one in 4,096 is anything else.
const CANDIDATES: usize = 4;
const LOOKED_AT: usize = 4096;

/// Whole flows in the pool for each flow in the table, at least; and how many there are in any case. A flow needs one while it does
/// something that connections do not do as a rule.
const FLOWS_A_WHOLE: usize = 256;
const WHOLES: usize = 4_096;

/// Whole flows that are compared when one must become a line.
const WHOLE_CANDIDATES: usize = 8;

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

/// In place of a class: no flow.
const VACANT: u8 = CLASSES as u8;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Bucket {
    ids: [u32; WAYS],
    /// 0 is an empty place.
    tags: [u16; WAYS],
}

const EMPTY: Bucket = Bucket { ids: [NONE; WAYS], tags: [0; WAYS] };

impl Bucket {
    /// The places with this tag, a bit each.
    #[inline]
    fn matching(&self, tag: u16) -> u32 {
        tags::matching(&self.tags, tag)
    }
}

/// Addresses of IPv6 flows, by the flow's number, so that they are fetched together with its line. Zeroed memory, which the kernel gives
/// when it is touched: none for IPv4.
struct Wide {
    words: Box<[u128]>,
    /// Where the first flow's are: at a cache line's beginning, so that no pair lies in two.
    first: usize,
    any: bool,
}

impl Wide {
    fn new(capacity: usize) -> Wide {
        let words = vec![0; capacity * 2 + 4].into_boxed_slice();
        let first = words.as_ptr().align_offset(64).min(4);
        Wide { words, first, any: false }
    }

    #[inline]
    fn place(&self, id: u32) -> &u128 {
        &self.words[self.first + id as usize * 2]
    }

    #[inline]
    fn get(&self, id: u32) -> [Addr; 2] {
        let at = self.first + id as usize * 2;
        [self.words[at], self.words[at + 1]].map(|w| Addr(w.to_ne_bytes()))
    }

    #[inline]
    fn is(&self, id: u32, pair: [&Addr; 2]) -> bool {
        let at = self.first + id as usize * 2;
        [self.words[at], self.words[at + 1]] == pair.map(|a| u128::from_ne_bytes(a.0))
    }

    fn put(&mut self, id: u32, pair: [&Addr; 2]) {
        let at = self.first + id as usize * 2;
        [self.words[at], self.words[at + 1]] = pair.map(|a| u128::from_ne_bytes(a.0));
        self.any = true;
    }
}

/// See the module.
pub struct Table<V> {
    buckets: Box<[Bucket]>,
    /// Grows up to `capacity`, for which memory was reserved; never beyond.
    lines: Vec<Line>,
    classes: Vec<u8>,
    counts: [u32; CLASSES],
    capacity: usize,
    free: u32,
    len: u32,
    hand: usize,
    wholes: Vec<V>,
    /// What each whole flow is worth, and the line it belongs to: apart from them, so that those that are compared are in one cache line.
    ranks: Vec<u64>,
    owners: Vec<u32>,
    wholes_free: Vec<u32>,
    wholes_most: usize,
    whole_hand: usize,
    wide: Wide,
    seed: Seed,
}

impl<V: Clone + Default> Table<V> {
    /// A table for up to `capacity` flows (at least 16, at most 2^30).
    pub fn new(capacity: usize, seed: Seed) -> Table<V> {
        let capacity = capacity.clamp(16, 1 << 30);
        Table::with_wholes(capacity, Self::wholes_for(capacity), seed)
    }

    /// A table for up to `capacity` flows, of which `wholes` may be whole at one time.
    pub fn with_wholes(capacity: usize, wholes: usize, seed: Seed) -> Table<V> {
        let capacity = capacity.clamp(16, 1 << 30);
        let wholes = wholes.clamp(16, capacity);
        Table {
            buckets: vec![EMPTY; capacity.div_ceil(LOAD)].into_boxed_slice(),
            lines: Vec::with_capacity(capacity),
            classes: Vec::with_capacity(capacity),
            counts: [0; CLASSES],
            capacity,
            free: NONE,
            len: 0,
            hand: 0,
            wholes: Vec::with_capacity(wholes),
            ranks: Vec::with_capacity(wholes),
            owners: Vec::with_capacity(wholes),
            wholes_free: Vec::with_capacity(wholes),
            wholes_most: wholes,
            whole_hand: 0,
            wide: Wide::new(capacity),
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

    /// Bytes taken for each IPv4 flow: its line, its class, its part of the index and of the whole flows. 32 more are for
    /// the addresses of an IPv6 flow: 128 flows that are neighbours in memory have them as soon as one of them is.
    pub fn bytes_per_flow(&self) -> usize {
        Self::bytes_for_each(self.capacity, self.wholes_most)
    }

    /// [`Table::bytes_per_flow`] of one that [`Table::with_wholes`] would make; 0 whole flows are those of [`Table::new`].
    pub fn bytes_for_each(capacity: usize, wholes: usize) -> usize {
        let wholes = if wholes == 0 { Self::wholes_for(capacity) } else { wholes };
        let index = capacity.div_ceil(LOAD) * size_of::<Bucket>();
        let pool = wholes.min(capacity) * (size_of::<V>() + size_of::<(u64, u32, u32)>());
        size_of::<Line>() + size_of::<u8>() + (index + pool).div_ceil(capacity)
    }

    fn wholes_for(capacity: usize) -> usize {
        (capacity / FLOWS_A_WHOLE).max(WHOLES)
    }

    /// The key's hash under this table's seed.
    #[inline]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        key.hash(self.seed)
    }

    /// The same of an IPv4 flow's key.
    #[inline]
    pub fn hash_narrow(&self, key: &Narrow) -> u64 {
        key.hash(self.seed)
    }

    /// The same of the key of a flow over IPv6 that has no [`Narrow`] one.
    #[inline]
    pub fn hash_wide(&self, key: &FlowKey) -> u64 {
        key.hash_wide(self.seed)
    }

    /// The hash of a flow's key.
    #[inline]
    pub fn hash_of(&self, id: FlowId) -> u64 {
        let line = &self.lines[id.0 as usize];
        if line.has(bit::WIDE) { self.hash_wide(&self.key(id)) } else { line.narrow().hash(self.seed) }
    }

    /// Where the look-up of this hash will read first: its two buckets.
    #[inline]
    pub fn buckets(&self, hash: u64) -> [&impl Sized; 2] {
        self.places(hash).map(|p| self.bucket(p))
    }

    /// A bucket, of [`Table::places`].
    #[inline]
    pub fn bucket(&self, place: u32) -> &impl Sized {
        &self.buckets[place as usize]
    }

    /// The flow that the key of this hash most likely is, if there is one; to be confirmed with [`Table::is`]. Found for a whole batch
    /// before its steps, the lines can be fetched all at once.
    #[inline]
    pub fn guess(&self, hash: u64, [first, second]: [u32; 2]) -> Option<FlowId> {
        let tag = Self::tag(hash);
        let found = |p: u32| {
            let bucket = &self.buckets[p as usize];
            bucket.ids.get(bucket.matching(tag).trailing_zeros() as usize).copied()
        };
        found(first).or_else(|| found(second)).map(FlowId)
    }

    /// What is read and written of a flow besides its line.
    #[inline]
    pub fn class_of(&self, id: FlowId) -> &u8 {
        &self.classes[id.0 as usize]
    }

    /// Where the addresses of an IPv6 flow are.
    #[inline]
    pub fn wide(&self, id: FlowId) -> &impl Sized {
        self.wide.place(id.0)
    }

    /// Whether an IPv6 flow was ever in the table.
    #[inline]
    pub fn any_wide(&self) -> bool {
        self.wide.any
    }

    /// The memory of index, lines, classes and IPv6 addresses: addresses and lengths.
    pub fn memory(&self) -> [(usize, usize); 4] {
        let lines = (self.lines.as_ptr() as usize, self.capacity * size_of::<Line>());
        let classes = (self.classes.as_ptr() as usize, self.capacity);
        let wide = (self.wide.words.as_ptr() as usize, size_of_val(&*self.wide.words));
        [(self.buckets.as_ptr() as usize, size_of_val(&*self.buckets)), lines, classes, wide]
    }

    /// True if `key` is the key of the flow `id`, which may be gone.
    #[inline]
    pub fn is(&self, id: FlowId, key: &FlowKey) -> bool {
        match Narrow::of(key) {
            Some(narrow) => self.is_narrow(id, &narrow),
            None => self.is_wide(id, key),
        }
    }

    /// The same of a key that is no [`Narrow`] one.
    #[inline]
    pub fn is_wide(&self, id: FlowId, key: &FlowKey) -> bool {
        self.line(id).may_be_wide(key) && self.wide.is(id.0, key.addresses())
    }

    /// The same for IPv4.
    #[inline]
    pub fn is_narrow(&self, id: FlowId, key: &Narrow) -> bool {
        let line = &self.lines[id.0 as usize];
        line.is_narrow(key) && line.phase != Phase::Free
    }

    /// Where the next flow will be put, if that is known: its line and its class.
    #[inline]
    pub fn vacant(&self) -> Option<FlowId> {
        (self.free != NONE).then_some(FlowId(self.free))
    }

    /// The two buckets of a hash. They may be the same one.
    #[inline]
    pub fn places(&self, hash: u64) -> [u32; 2] {
        let n = self.buckets.len() as u64;
        let place = |half: u64| ((half * n) >> 32) as u32;
        [place(hash >> 32), place((hash.rotate_left(17) ^ hash) & 0xffff_ffff)]
    }

    #[inline]
    fn tag(hash: u64) -> u16 {
        hash as u16 | 1
    }

    /// The flow of `key`.
    #[inline]
    pub fn find(&self, key: &FlowKey, hash: u64) -> Option<FlowId> {
        match Narrow::of(key) {
            Some(narrow) => self.find_narrow(&narrow, hash),
            None => self.find_wide(key, hash),
        }
    }

    /// The flow of a key that is no [`Narrow`] one.
    #[inline]
    pub fn find_wide(&self, key: &FlowKey, hash: u64) -> Option<FlowId> {
        self.find_by(hash, |id, _| self.is_wide(id, key))
    }

    /// The flow of an IPv4 key.
    #[inline]
    pub fn find_narrow(&self, key: &Narrow, hash: u64) -> Option<FlowId> {
        self.find_by(hash, |_, line| line.is_narrow(key))
    }

    #[inline]
    fn find_by(&self, hash: u64, same: impl Fn(FlowId, &Line) -> bool) -> Option<FlowId> {
        let tag = Self::tag(hash);
        for place in self.places(hash) {
            let bucket = &self.buckets[place as usize];
            let mut found = bucket.matching(tag);
            while found != 0 {
                let id = FlowId(bucket.ids[found.trailing_zeros() as usize]);
                if same(id, self.line(id)) {
                    return Some(id);
                }
                found &= found - 1;
            }
        }
        None
    }

    /// A flow that must be removed before a key with `hash` can be inserted, or `None` if there is room. `now` is the newest packet
    /// time.
    pub fn victim(&mut self, hash: u64, now: Nanos) -> Option<FlowId> {
        if self.free == NONE && self.lines.len() == self.capacity {
            return self.quietest(now);
        }
        let places = self.places(hash);
        if places.iter().any(|&p| self.buckets[p as usize].tags.contains(&0)) || self.relocate(places) {
            return None;
        }
        // Both buckets are full, and so are the other buckets of all that is in them: the cheapest class of these twenty, and of that the one that was quiet longest.
        let ids = places.iter().flat_map(|&p| self.buckets[p as usize].ids);
        ids.min_by_key(|&id| (self.classes[id as usize], self.lines[id as usize].last(now))).map(FlowId)
    }

    /// Makes a place in one of these buckets by moving a flow to its other one.
    fn relocate(&mut self, places: [u32; 2]) -> bool {
        for place in places {
            for way in 0..WAYS {
                let Bucket { ids, tags } = self.buckets[place as usize];
                let [first, second] = self.places(self.hash_of(FlowId(ids[way])));
                let other = &mut self.buckets[if place == first { second } else { first } as usize];
                let Some(room) = other.tags.iter().position(|&t| t == 0) else { continue };
                (other.ids[room], other.tags[room]) = (ids[way], tags[way]);
                self.buckets[place as usize].tags[way] = 0;
                return true;
            }
        }
        false
    }

    /// Of the first few of the class that may go, the one that was quiet longest; one of the others only if there is none near, and
    /// then an open one last. A handshake that is under way is worth more than what is over, unless there are so many that
    /// most of them must be a flood's.
    fn quietest(&mut self, now: Nanos) -> Option<FlowId> {
        let flooded = self.counts[Class::HalfOpen as usize] > self.counts[Class::Closed as usize];
        let cheapest = if flooded { Class::HalfOpen } else { Class::Closed } as u8;
        let mut best: Option<(Nanos, u32)> = None;
        let (mut other, mut open, mut found) = (None, None, 0);
        for _ in 0..LOOKED_AT.min(self.classes.len()) {
            self.hand = if self.hand + 1 < self.classes.len() { self.hand + 1 } else { 0 };
            let (class, id) = (self.classes[self.hand], self.hand as u32);
            if class != cheapest {
                let kept = if class == Class::Open as u8 { &mut open } else { &mut other };
                *kept = kept.or((class != VACANT).then_some(id));
                continue;
            }
            let last = self.lines[self.hand].last(now);
            if best.is_none_or(|b| (last, id) < b) {
                best = Some((last, id));
            }
            found += 1;
            if found == CANDIDATES {
                break;
            }
        }
        best.map(|(_, id)| id).or(other).or(open).map(FlowId)
    }

    /// Puts a new flow in, half-open, with an empty line. [`Table::victim`] must have returned `None` for this hash.
    pub fn insert(&mut self, key: FlowKey, hash: u64) -> FlowId {
        if let Some(narrow) = Narrow::of(&key) {
            return self.insert_narrow(narrow, hash);
        }
        let line = Line { ports: key.ports(), point: key.point(), bits: bit::WIDE, ..Line::default() };
        let id = self.put(line, hash);
        self.wide.put(id.0, key.addresses());
        id
    }

    /// The same of an IPv4 flow.
    pub fn insert_narrow(&mut self, Narrow { pair, ports, point }: Narrow, hash: u64) -> FlowId {
        self.put(Line { pair, ports, point, ..Line::default() }, hash)
    }

    fn put(&mut self, line: Line, hash: u64) -> FlowId {
        let id = match self.free {
            NONE => {
                assert!(self.lines.len() < self.capacity, "the caller makes room first");
                self.lines.push(line);
                self.classes.push(VACANT);
                self.lines.len() as u32 - 1
            }
            id => {
                self.free = self.lines[id as usize].pair as u32;
                self.lines[id as usize] = line;
                id
            }
        };
        let room = |p: u32| self.buckets[p as usize].matching(0);
        let places = self.places(hash);
        let rooms = places.map(room);
        let [first, second] = rooms.map(u32::count_ones);
        let choice = usize::from(first < SPARE && second > first);
        let way = rooms[choice].trailing_zeros() as usize;
        assert!(way < WAYS, "the caller makes room first");
        let bucket = &mut self.buckets[places[choice] as usize];
        bucket.tags[way] = Self::tag(hash);
        bucket.ids[way] = id;
        self.len += 1;
        self.classes[id as usize] = Class::HalfOpen as u8;
        self.counts[Class::HalfOpen as usize] += 1;
        FlowId(id)
    }

    /// Takes a flow out, and its whole flow with it.
    pub fn remove(&mut self, id: FlowId) {
        let class = self.classes[id.0 as usize];
        assert!(class != VACANT, "a flow is removed once");
        let hash = self.hash_of(id);
        let tag = Self::tag(hash);
        'found: for place in self.places(hash) {
            let bucket = &mut self.buckets[place as usize];
            let mut alike = bucket.matching(tag);
            while alike != 0 {
                let way = alike.trailing_zeros() as usize;
                if bucket.ids[way] == id.0 {
                    bucket.tags[way] = 0;
                    break 'found;
                }
                alike &= alike - 1;
            }
        }
        self.give_back(id);
        let line = &mut self.lines[id.0 as usize];
        *line = Line { pair: self.free.into(), ..Line::default() };
        self.free = id.0;
        self.classes[id.0 as usize] = VACANT;
        self.counts[usize::from(class)] -= 1;
        self.len -= 1;
    }

    /// Moves a flow to another class.
    #[inline]
    pub fn set_class(&mut self, id: FlowId, class: Class) {
        let had = &mut self.classes[id.0 as usize];
        if *had != class as u8 {
            self.counts[usize::from(*had)] -= 1;
            self.counts[class as usize] += 1;
            *had = class as u8;
        }
    }

    /// What a flow is worth; `None` without a flow.
    pub fn class(&self, id: FlowId) -> Option<Class> {
        let class = self.classes.get(id.0 as usize)?;
        [Class::HalfOpen, Class::Closed, Class::Open].get(usize::from(*class)).copied()
    }

    /// The key of a flow.
    #[inline]
    pub fn key(&self, id: FlowId) -> FlowKey {
        let line = &self.lines[id.0 as usize];
        line.key(line.has(bit::WIDE).then(|| self.wide.get(id.0)))
    }

    /// A flow's line.
    #[inline]
    pub fn line(&self, id: FlowId) -> &Line {
        &self.lines[id.0 as usize]
    }

    /// A flow's line.
    #[inline]
    pub fn line_mut(&mut self, id: FlowId) -> &mut Line {
        &mut self.lines[id.0 as usize]
    }

    /// Whether there is a whole flow beside the line.
    #[inline]
    pub fn is_whole(&self, id: FlowId) -> bool {
        self.lines[id.0 as usize].phase == Phase::Whole
    }

    /// The whole flow, of one that [`Table::is_whole`].
    #[inline]
    pub fn get(&self, id: FlowId) -> &V {
        &self.wholes[self.lines[id.0 as usize].whole()]
    }

    /// The whole flow, of one that [`Table::is_whole`].
    #[inline]
    pub fn get_mut(&mut self, id: FlowId) -> &mut V {
        &mut self.wholes[self.lines[id.0 as usize].whole()]
    }

    /// The whole flow that must become a line, or go, before one more can be whole: of the next few the one of the least rank.
    pub fn crowded(&mut self) -> Option<FlowId> {
        if !self.wholes_free.is_empty() || self.wholes.len() < self.wholes_most {
            return None;
        }
        let at = self.least();
        self.whole_hand = (self.whole_hand + WHOLE_CANDIDATES) % self.wholes.len();
        Some(FlowId(self.owners[at]))
    }

    /// The flow that [`Table::crowded`] will name next, unless a rank changes meanwhile: to be fetched.
    #[inline]
    pub fn next_crowded(&self) -> (&V, FlowId) {
        let at = self.least();
        (&self.wholes[at], FlowId(self.owners[at]))
    }

    /// The place of the least rank of the next few; of two alike the first.
    #[inline]
    fn least(&self) -> usize {
        let (mut least, mut at, mut hand) = (u64::MAX, self.whole_hand, self.whole_hand);
        for _ in 0..WHOLE_CANDIDATES.min(self.ranks.len()) {
            hand = if hand + 1 < self.ranks.len() { hand + 1 } else { 0 };
            if self.ranks[hand] < least {
                (least, at) = (self.ranks[hand], hand);
            }
        }
        at
    }

    /// Makes a flow whole: an empty one, to be filled. [`Table::crowded`] must have returned `None`.
    pub fn make_whole(&mut self, id: FlowId) -> &mut V {
        let at = match self.wholes_free.pop() {
            Some(at) => {
                self.wholes[at as usize] = V::default();
                at
            }
            None => {
                assert!(self.wholes.len() < self.wholes_most, "the caller makes room first");
                self.wholes.push(V::default());
                self.ranks.push(0);
                self.owners.push(0);
                self.wholes.len() as u32 - 1
            }
        };
        let line = &mut self.lines[id.0 as usize];
        line.phase = Phase::Whole;
        line.ends[0].next.0 = at;
        self.ranks[at as usize] = 0;
        self.owners[at as usize] = id.0;
        &mut self.wholes[at as usize]
    }

    /// Says what a whole flow is worth: one of a lesser rank gives way before it.
    #[inline]
    pub fn set_rank(&mut self, id: FlowId, rank: u64) {
        self.ranks[self.lines[id.0 as usize].whole()] = rank;
    }

    /// Gives the place of a whole flow back. The caller says what the line is now.
    pub fn give_back(&mut self, id: FlowId) {
        let line = &mut self.lines[id.0 as usize];
        if line.phase == Phase::Whole {
            line.phase = Phase::Free;
            self.wholes_free.push(line.whole() as u32);
        }
    }

    /// The first flow at `from` or behind, for emptying the table at the end.
    pub fn first(&self, from: u32) -> Option<FlowId> {
        let rest = self.classes.get(from as usize..)?;
        rest.iter().position(|&c| c != VACANT).map(|n| FlowId(from + n as u32))
    }
}

#[cfg(test)]
mod tests;
