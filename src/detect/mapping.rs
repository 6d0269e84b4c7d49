//! Translations that were lost while their connections lived: one incident gathers what packets of both sides and the kernel's
//! connection tracking say of it, and is told as one thing.
//!
//! A reset of the gateway's own is no proof by itself: a rule that rejects with one looks the same. Where connection tracking shows that
//! the entry was there the reset is told alone; where it shows nothing, both are named and the incident is only possible.

use super::conntrack::{Change, Conntrack, Destroyed, Entry, LATE, Sequel, Stage};
use super::evidence::endpoint;
use super::gateway::{anomaly, text};
use super::join::{Join, Role};
use super::{Anomaly, Certainty, Fact, Kind, Severity, Verdict};
use crate::flow::{Digest, Tuple};
use crate::wire::Nanos;

/// An incident is told when nothing more of it was seen for so long: it took 13 s until an untranslated packet got out and 6 more
/// until the gateway reset the responder.
const QUIET: u64 = 20 * Nanos::SEC;

/// It is told after this time whatever more comes.
const GATHER: u64 = 60 * Nanos::SEC;

/// Incidents that gather at one time; the oldest are told before their time.
const INCIDENTS: usize = 1024;

/// A next hop whose MAC address changed this long before or after the first sign belongs to it: those who have not asked for it
/// again send to the old one.
const SAME_CAUSE: u64 = 60 * Nanos::SEC;

/// Packets kept of one.
const PACKETS: usize = 24;

/// A connection whose mapping was lost.
#[derive(Clone, Debug)]
struct Incident {
    inside: Tuple,
    outside: Tuple,
    first: Nanos,
    last: Nanos,
    gone: Option<Destroyed>,
    path: Option<&'static str>,
    untranslated: u64,
    first_untranslated: Option<Nanos>,
    gateway_resets: u64,
    remapped: Option<Tuple>,
    /// The record of that, and since when it waits for what connection tracking has to say.
    waiting: Option<(Anomaly, Nanos)>,
    /// An entry that shows that it goes on without translation.
    flooded: bool,
    /// The responder spoke first after its entry was gone.
    wrong_way: bool,
    /// An entry that came after was reset.
    reset: bool,
    silent: bool,
    point: Option<u8>,
    packets: Vec<Digest>,
    /// Theirs: outside it is another one, and another one again after a change.
    tuples: Vec<Tuple>,
}

/// See the module.
#[derive(Debug)]
pub struct Mappings {
    /// What connection tracking said.
    pub conntrack: Conntrack,
    open: Vec<Incident>,
    /// The newest change of a next hop inside: its MAC address before and after.
    next_hop: Option<(Nanos, [Fact; 2])>,
    /// Made room, and not told yet.
    due: Vec<Incident>,
    /// Nothing of what is open is due before: a thousand that gather are not looked at with each packet.
    look: Nanos,
}

impl Mappings {
    /// None yet.
    pub fn new() -> Mappings {
        Mappings {
            conntrack: Conntrack::default(),
            open: Vec::new(),
            next_hop: None,
            due: Vec::new(),
            look: Nanos(0),
        }
    }

    fn incident(&mut self, inside: Tuple, outside: Tuple, at: Nanos, point: Option<u8>) -> &mut Incident {
        let n = self.open.iter().position(|i| i.inside == inside).unwrap_or_else(|| {
            if self.open.len() == INCIDENTS {
                self.due.push(self.open.remove(0));
            }
            let gone = self.conntrack.gone(&inside, at).or_else(|| self.conntrack.gone(&outside, at));
            self.open.push(Incident {
                inside,
                outside,
                first: gone.map_or(at, |g| g.at),
                last: at,
                gone,
                path: None,
                untranslated: 0,
                first_untranslated: None,
                gateway_resets: 0,
                remapped: None,
                waiting: None,
                flooded: false,
                wrong_way: false,
                reset: false,
                silent: false,
                point,
                packets: Vec::new(),
                tuples: Vec::new(),
            });
            self.open.len() - 1
        });
        // What is known of it may make it due earlier. Elsewhere it only becomes due later.
        self.look = Nanos(0);
        let i = &mut self.open[n];
        i.last = i.last.max(at);
        i.point = i.point.or(point);
        i
    }

    /// A packet of a connection left without translation.
    pub fn untranslated(&mut self, inside: Tuple, outside: Tuple, d: &Digest) {
        let i = self.incident(inside, outside, d.ts, Some(d.point));
        i.untranslated += 1;
        i.first_untranslated.get_or_insert(d.ts);
        i.packet(&inside, d);
    }

    /// The same bytes left once more, perhaps as untranslated as before.
    pub fn again_untranslated(&mut self, inside: &Tuple, d: &Digest) {
        if let Some(i) = self.open.iter_mut().find(|i| i.inside == *inside && i.untranslated > 0) {
            i.untranslated += 1;
            i.last = i.last.max(d.ts);
            i.packet(inside, d);
        }
    }

    /// A next hop inside changed its MAC address.
    pub fn next_hop_changed(&mut self, a: &Anomaly) {
        let mac =
            |name: &str| a.facts.iter().find(|(n, _)| *n == name).map_or(Fact::Null, |(_, f)| f.clone());
        self.mac_changed([mac("before"), mac("after")], a.time);
    }

    /// The same: before and after.
    pub fn mac_changed(&mut self, macs: [Fact; 2], at: Nanos) {
        self.next_hop = Some((at, macs));
    }

    /// The gateway reset the responder.
    pub fn gateway_reset(&mut self, inside: Tuple, outside: Tuple, d: &Digest) {
        let i = self.incident(inside, outside, d.ts, Some(d.point));
        i.gateway_resets += 1;
        i.packet(&outside, d);
    }

    /// Bytes were sent again and again after the entry had gone, and nothing came after it.
    pub fn silent(&mut self, inside: Tuple, outside: Tuple, at: Nanos, point: u8) {
        if self.conntrack.gone(&inside, at).is_some() {
            self.incident(inside, outside, at, Some(point)).silent = true;
        }
    }

    /// True if a connection inside has lost its mapping lately, and more than a reset of the gateway's shows it.
    pub fn has(&self, inside: &Tuple) -> bool {
        self.open.iter().any(|i| i.inside == *inside && i.is_shown())
    }

    /// True if the gateway has reset the responder of a connection inside lately.
    pub fn has_reset(&self, inside: &Tuple) -> bool {
        self.open.iter().any(|i| i.inside == *inside && i.gateway_resets > 0)
    }

    /// A connection goes on with another tuple outside. `seen` are the packets that show it, with
    /// their tuples; without them an entry does.
    pub fn remapped(
        &mut self,
        (inside, before, now): (Tuple, Tuple, Tuple),
        at: Nanos,
        point: Option<u8>,
        seen: &[(Tuple, Digest)],
    ) {
        let i = self.incident(inside, before, at, point);
        seen.iter().for_each(|(t, d)| i.packet(t, d));
        // DNAT changes the far end of the tuple, and is an uplink's doing as little as another port is.
        let same_address = before.src.addr == now.src.addr;
        i.path = Some(if same_address { "flush" } else { "uplink" });
        if i.remapped.replace(now) == Some(now) {
            return;
        }
        let summary = format!(
            "the open connection {} went on outside as {} in the place of {}: its responder knows no such connection",
            text(&inside),
            endpoint(now.src),
            endpoint(before.src)
        );
        let mut a = anomaly(Kind::NatRemapped, Severity::Error, 0, Some(inside), (at, at), summary);
        a.point = i.point;
        a.facts = vec![("before", Fact::Str(text(&before).into())), ("after", Fact::Str(text(&now).into()))];
        (a.tuples, a.packets) = seen.iter().copied().unzip();
        // Of one that changes again meanwhile the first change is told, and the last in the incident.
        i.waiting.get_or_insert((a, at));
    }

    /// Connection tracking tells of an entry.
    pub fn entry(&mut self, e: &Entry, at: Nanos, join: &Join) {
        let point = join.point_of(Role::Inside);
        match e.change {
            Change::Destroy => {
                if let Some(gone) = self.conntrack.destroy(e, at)
                    && let Some(i) = self.open.iter_mut().find(|i| i.is_of(&gone.original))
                {
                    i.gone.get_or_insert(gone);
                }
            }
            Change::Update => {
                // The entry of the responder's packet, or the one that the connection went on with.
                let it = self.open.iter_mut().find(|i| {
                    let back = i.wrong_way
                        && (e.original == i.outside.reversed() || e.original == i.inside.reversed());
                    back || i.remapped.is_some() && i.is_of(&e.original)
                });
                if let Some(i) = it.filter(|_| e.stage == Stage::Reset) {
                    i.reset = true;
                    i.last = i.last.max(at);
                }
            }
            Change::New | Change::Found => match self.conntrack.there(e, at) {
                Some(Sequel::Healed(_)) => {}
                Some(Sequel::Untranslated(gone)) => {
                    let i = self.of_gone(&gone, at, join);
                    i.flooded = true;
                    i.path = Some("flood");
                }
                Some(Sequel::WrongWay(gone)) => {
                    let i = self.of_gone(&gone, at, join);
                    i.wrong_way = true;
                    i.path = Some("flush");
                }
                Some(Sequel::Remapped(gone, now)) => {
                    let i = self.of_gone(&gone, at, join);
                    let change = (i.inside, i.outside, now);
                    self.remapped(change, at, point, &[]);
                }
                None => self.unannounced(e, at, join),
            },
        }
    }

    fn of_gone(&mut self, gone: &Destroyed, at: Nanos, join: &Join) -> &mut Incident {
        let (inside, outside) = sides(join, gone.original, gone.translated);
        let i = self.incident(inside, outside, at, join.point_of(Role::Inside));
        i.gone.get_or_insert(*gone);
        i.first = i.first.min(gone.at);
        i
    }

    /// An open connection's entry that differs from what the packets said: its end and its new beginning were not told.
    fn unannounced(&mut self, e: &Entry, at: Nanos, join: &Join) {
        let now = e.translated();
        // A new one of a connection that the packets knew may be a late packet of one that is over.
        if e.change != Change::Found || e.stage != Stage::Open || e.zone != 0 || now == e.original {
            return;
        }
        let Some(c) = join.crossing(0, &e.original) else { return };
        let Some(before) = c.tuples[1].filter(|_| c.from == 0 && !c.had(&now)) else { return };
        self.remapped((e.original, before, now), at, join.point_of(Role::Inside), &[]);
    }

    /// Lets time pass.
    pub fn release(&mut self, now: Nanos, out: &mut dyn FnMut(Anomaly)) {
        self.due.drain(..).for_each(|i| i.tell(&self.conntrack, self.next_hop.as_ref(), out));
        if now < self.look {
            return;
        }
        for i in &mut self.open {
            if i.waiting.as_ref().is_some_and(|(_, at)| now.since(*at) >= LATE) {
                i.tell_change(out);
            }
        }
        let ripe = |i: &Incident| now.since(i.last) >= QUIET || now.since(i.first) >= GATHER;
        while let Some(n) = self.open.iter().position(ripe) {
            self.open.remove(n).tell(&self.conntrack, self.next_hop.as_ref(), out);
        }
        self.look = self.open.iter().map(Incident::due).min().unwrap_or(Nanos(u64::MAX));
    }

    /// What gathered and was not told.
    pub fn finish(&mut self, out: &mut dyn FnMut(Anomaly)) {
        self.due.append(&mut self.open);
        self.due.drain(..).for_each(|i| i.tell(&self.conntrack, self.next_hop.as_ref(), out));
    }
}

/// Which of an entry's tuples is the inside's, and which the outside's. Source translation leaves inside as it was, translation of the
/// destination outside.
fn sides(join: &Join, original: Tuple, translated: Tuple) -> (Tuple, Tuple) {
    let from_outside = join.crossing(1, &original).is_some()
        || join.crossing(0, &original).is_none() && original.src == translated.src;
    if from_outside { (translated, original) } else { (original, translated) }
}

impl Incident {
    /// When it, or the change that it waits with, is told if nothing more comes.
    fn due(&self) -> Nanos {
        let change = self.waiting.as_ref().map_or(u64::MAX, |(_, at)| at.add(LATE).0);
        self.last.add(QUIET).min(self.first.add(GATHER)).min(Nanos(change))
    }

    fn is_of(&self, original: &Tuple) -> bool {
        self.inside == *original || self.outside == *original
    }

    fn packet(&mut self, tuple: &Tuple, d: &Digest) {
        if self.packets.len() < PACKETS && !self.packets.contains(d) {
            self.packets.push(*d);
            self.tuples.push(*tuple);
        }
    }

    /// A responder that spoke first is no harm until somebody was reset for it.
    fn is_harm(&self) -> bool {
        self.gateway_resets > 0 || self.is_shown()
    }

    /// Something shows that the translation is lost. That the entry went is no harm, but says why the gateway sent a reset.
    fn is_shown(&self) -> bool {
        self.untranslated > 0
            || self.gateway_resets > 0 && self.gone.is_some()
            || self.remapped.is_some()
            || self.flooded
            || self.silent
            || self.reset
    }

    /// Its entry was there when the gateway sent its resets: some rule of its own had it do that.
    fn was_there(&self, conntrack: &Conntrack) -> bool {
        let there = |t: &Tuple| conntrack.was_there(t, self.first) && conntrack.was_there(t, self.last);
        there(&self.inside) || there(&self.outside)
    }

    /// The record of its other tuple.
    fn tell_change(&mut self, out: &mut dyn FnMut(Anomaly)) {
        if let Some((mut a, _)) = self.waiting.take() {
            a.certainty = if self.gone.is_some() { Certainty::Proven } else { Certainty::Likely };
            out(a);
        }
    }

    fn tell(
        mut self,
        conntrack: &Conntrack,
        next_hop: Option<&(Nanos, [Fact; 2])>,
        out: &mut dyn FnMut(Anomaly),
    ) {
        self.tell_change(out);
        if self.is_shown() || self.is_harm() && !self.was_there(conntrack) {
            let same = |at: Nanos| at.since(self.first).max(self.first.since(at)) <= SAME_CAUSE;
            let macs = next_hop.filter(|(at, _)| same(*at)).map(|(_, macs)| macs.clone());
            out(self.told(macs.unwrap_or([Fact::Null, Fact::Null])));
        }
    }

    fn path(&self) -> &'static str {
        match (self.path, self.gone) {
            (Some("flush") | None, Some(g)) if g.expired => "timeout",
            (Some(path), _) => path,
            // Somebody's command.
            (None, Some(g)) if g.by != 0 => "flush",
            _ => "unknown",
        }
    }

    fn told(self, [mac_before, mac_after]: [Fact; 2]) -> Anomaly {
        let mut seen = Vec::new();
        if let Some(g) = self.gone {
            let how = match (g.expired, g.by) {
                (true, _) => "timed out".to_owned(),
                // Masquerading does that when a packet of it leaves by another interface (nf_nat_oif_changed).
                (false, 0) if self.path() == "flood" => {
                    "was taken away by the kernel's own masquerading, as a packet of it left by another interface,"
                        .to_owned()
                }
                (false, 0) => "was taken away by the kernel itself".to_owned(),
                (false, by) => format!("was deleted by a program (netlink port {by})"),
            };
            seen.push(format!("its entry {how} in state {}", g.state));
        }
        if self.untranslated > 0 {
            seen.push("its packets left untranslated".to_owned());
        } else if self.flooded {
            seen.push("it was picked up again without translation".to_owned());
        }
        if self.gateway_resets > 0 {
            let how_often = if self.gateway_resets == 1 { "once" } else { "repeatedly" };
            seen.push(format!("the gateway reset the responder {how_often}"));
        } else if self.reset && self.remapped.is_none() {
            seen.push("the responder's next packet was reset".to_owned());
        }
        if let Some(now) = self.remapped {
            let end = if self.reset { " and was reset" } else { "" };
            seen.push(format!("it went on as {}{end}", endpoint(now.src)));
        }
        if self.silent {
            seen.push("what it sends gets no answer".to_owned());
        }
        let (lost, or_else) = if self.is_shown() {
            ("lost", "")
        } else {
            ("may have lost", "; a rule of its own that rejects with a reset looks the same")
        };
        let summary = format!(
            "the gateway {lost} the translation of the open connection {} (outside {}): {}{or_else}",
            text(&self.inside),
            endpoint(self.outside.src),
            seen.join(", ")
        );
        let path = self.path();
        let mut a = anomaly(
            Kind::NatMappingLost,
            Severity::Error,
            0,
            Some(self.inside),
            (self.first, self.last),
            summary,
        );
        a.point = self.point;
        a.verdict = Verdict::Gateway;
        a.certainty = match self.untranslated > 0 || self.gone.is_some() {
            true => Certainty::Proven,
            false if self.is_shown() => Certainty::Likely,
            false => Certainty::Possible,
        };
        let optional = |tuple: Option<Tuple>| tuple.map_or(Fact::Null, |t| Fact::Str(text(&t).into()));
        a.facts = vec![
            ("destroyed_state", self.gone.map_or(Fact::Null, |g| Fact::Str(g.state.into()))),
            ("destroyed_by", self.gone.filter(|g| g.by != 0).map_or(Fact::Null, |g| Fact::U64(g.by.into()))),
            ("path", Fact::Str(path.into())),
            ("first_untranslated", self.first_untranslated.map_or(Fact::Null, |t| Fact::U64(t.0))),
            ("untranslated", Fact::U64(self.untranslated)),
            ("gateway_resets", Fact::U64(self.gateway_resets)),
            ("outside", Fact::Str(text(&self.outside).into())),
            ("remapped", optional(self.remapped)),
            ("mac_before", mac_before),
            ("mac_after", mac_after),
        ];
        (a.tuples, a.packets) = (self.tuples, self.packets);
        a
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Endpoint;

    fn end(text: &str) -> Endpoint {
        let s: std::net::SocketAddr = text.parse().expect("an endpoint");
        Endpoint { addr: s.ip().into(), port: s.port() }
    }

    const CLIENT: &str = "10.77.0.11:33333";
    const SERVER: &str = "198.51.100.2:8080";
    const OUTSIDE: &str = "198.51.100.1:33333";

    fn tuple(src: &str, dst: &str) -> Tuple {
        Tuple { src: end(src), dst: end(dst) }
    }

    fn entry(change: Change, original: (&str, &str), reply: (&str, &str)) -> Entry {
        Entry {
            change,
            original: tuple(original.0, original.1),
            reply: tuple(reply.0, reply.1),
            stage: Stage::Open,
            state: "ESTABLISHED",
            zone: 0,
            timeout_s: Some(300),
            by: 0,
        }
    }

    fn gone() -> Entry {
        entry(Change::Destroy, (CLIENT, SERVER), (SERVER, OUTSIDE))
    }

    /// What is told of entries, a second apart.
    fn told(entries: &[Entry]) -> Vec<Anomaly> {
        let join = Join::new(vec![Role::Inside, Role::Outside]);
        let (mut m, mut out) = (Mappings::new(), Vec::new());
        for (n, e) in entries.iter().enumerate() {
            let at = Nanos((100 + n as u64) * Nanos::SEC);
            m.release(at, &mut |a| out.push(a));
            m.entry(e, at, &join);
        }
        m.finish(&mut |a| out.push(a));
        out
    }

    fn fact(a: &Anomaly, name: &str) -> String {
        match a.facts.iter().find(|(n, _)| *n == name) {
            Some((_, Fact::Str(s))) => s.to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_flush_that_the_next_packet_mends_is_silence() {
        let again = entry(Change::New, (CLIENT, SERVER), (SERVER, OUTSIDE));
        assert!(told(&[gone(), again]).is_empty());
        assert!(told(&[gone()]).is_empty(), "nobody sends any more");
        let another =
            Entry { stage: Stage::Opening, ..entry(Change::New, (CLIENT, SERVER), (SERVER, CLIENT)) };
        assert!(told(&[gone(), another]).is_empty(), "the connection was over");
    }

    #[test]
    fn the_way_in_which_it_goes_on_names_the_path() {
        let on = |reply| entry(Change::New, (CLIENT, SERVER), (SERVER, reply));
        for (reply, path, kinds) in
            [(CLIENT, "flood", 1), ("198.51.100.1:1024", "flush", 2), ("203.0.113.1:33333", "uplink", 2)]
        {
            let found = told(&[gone(), on(reply)]);
            assert_eq!(found.len(), kinds, "{reply}");
            let lost = found.last().expect("the incident comes last");
            assert_eq!((lost.kind, fact(lost, "path").as_str()), (Kind::NatMappingLost, path));
            assert_eq!(fact(lost, "destroyed_state"), "ESTABLISHED");
            assert_eq!(lost.certainty, Certainty::Proven);
            if kinds == 2 {
                assert_eq!(found[0].kind, Kind::NatRemapped);
                assert_eq!(fact(&found[0], "after"), format!("{reply} > {SERVER}"));
                assert_eq!(fact(&found[0], "before"), format!("{OUTSIDE} > {SERVER}"));
            }
        }
        let timed_out = told(&[Entry { timeout_s: None, ..gone() }, on("198.51.100.1:1024")]);
        assert_eq!(fact(&timed_out[1], "path"), "timeout");
    }

    #[test]
    fn a_responder_that_speaks_first_is_harm_once_somebody_was_reset_for_it() {
        let back = entry(Change::New, (SERVER, OUTSIDE), (OUTSIDE, SERVER));
        assert!(told(&[gone(), back]).is_empty());
        let reset = Entry { change: Change::Update, stage: Stage::Reset, state: "CLOSE", ..back };
        let found = told(&[gone(), back, reset]);
        assert_eq!(found.len(), 1);
        assert_eq!(fact(&found[0], "path"), "flush");
        assert!(found[0].summary.contains("was reset"), "{}", found[0].summary);
    }

    /// What is told of a reset of the gateway's own at 105 s, of entries before, and of what comes a second after it.
    fn told_of_a_reset(listens: bool, before: &[Entry], after: &[Entry]) -> Vec<Anomaly> {
        let join = Join::new(vec![Role::Inside, Role::Outside]);
        let (mut m, mut out) = (Mappings::new(), Vec::new());
        let s = |n: u64| Nanos(n * Nanos::SEC);
        if listens {
            (90..130).for_each(|n| m.conntrack.reading(s(n), s(n + 1), Default::default()));
        }
        before.iter().for_each(|e| m.entry(e, s(100), &join));
        let (inside, outside) = (tuple(CLIENT, SERVER), tuple(OUTSIDE, SERVER));
        m.gateway_reset(inside, outside, &Digest { ts: s(105), point: 1, ..Digest::default() });
        assert!(m.has_reset(&inside));
        after.iter().for_each(|e| m.entry(e, s(106), &join));
        m.release(s(130), &mut |a| out.push(a));
        out
    }

    #[test]
    fn a_reset_of_the_gateways_is_no_lost_mapping_while_its_entry_is_there() {
        let new = Entry {
            stage: Stage::Opening,
            state: "SYN_SENT",
            ..entry(Change::New, (CLIENT, SERVER), (SERVER, OUTSIDE))
        };
        assert!(told_of_a_reset(true, &[new], &[]).is_empty(), "a rule rejects");
        // Connection tracking is not heard, does not know the connection, or says so too late to tell.
        let ended = Entry { change: Change::Destroy, stage: Stage::Reset, state: "CLOSE", ..new };
        for (listens, before, after) in
            [(false, [].as_slice(), [].as_slice()), (true, &[], &[]), (true, &[new], &[ended])]
        {
            let found = told_of_a_reset(listens, before, after);
            assert_eq!(found.len(), 1, "{listens} {before:?}");
            assert_eq!((found[0].kind, found[0].certainty), (Kind::NatMappingLost, Certainty::Possible));
            assert!(found[0].summary.contains("rejects with a reset looks the same"), "{}", found[0].summary);
        }
    }

    #[test]
    fn a_reset_of_the_gateways_after_its_entry_went_is_a_lost_mapping() {
        let new = Entry { stage: Stage::Opening, ..entry(Change::New, (CLIENT, SERVER), (SERVER, OUTSIDE)) };
        for (before, after) in [([new, gone()].as_slice(), [].as_slice()), (&[new], &[gone()])] {
            let found = told_of_a_reset(true, before, after);
            assert_eq!(found.len(), 1);
            assert_eq!((found[0].kind, found[0].certainty), (Kind::NatMappingLost, Certainty::Proven));
            assert!(found[0].summary.starts_with("the gateway lost the translation"), "{}", found[0].summary);
        }
    }

    #[test]
    fn a_mac_that_changed_within_a_minute_is_part_of_it() {
        let join = Join::new(vec![Role::Inside, Role::Outside]);
        for (changed_at, before) in [(90, "a"), (101, "a"), (10, "Some((\"mac_before\", Null))")] {
            let (mut m, mut out) = (Mappings::new(), Vec::new());
            m.mac_changed(["a", "b"].map(|t| Fact::Str(t.into())), Nanos(changed_at * Nanos::SEC));
            m.entry(&gone(), Nanos(100 * Nanos::SEC), &join);
            let on = entry(Change::New, (CLIENT, SERVER), (SERVER, CLIENT));
            m.entry(&on, Nanos(101 * Nanos::SEC), &join);
            m.finish(&mut |a| out.push(a));
            assert_eq!(fact(&out[0], "mac_before"), before, "{changed_at}");
        }
    }

    #[test]
    fn a_translated_destination_is_the_outside_tuple() {
        let (far, here, server) = ("203.0.113.9:5555", "198.51.100.1:80", "10.77.0.11:8080");
        let gone = entry(Change::Destroy, (far, here), (server, far));
        let on = entry(Change::New, (far, here), (here, far));
        let found = told(&[gone, on]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].tuple, Some(tuple(far, server)), "as it was inside");
        assert_eq!(fact(&found[0], "outside"), format!("{far} > {here}"));
    }

    #[test]
    fn a_flush_of_a_whole_table_loses_no_incident() {
        let client = |n: usize| format!("10.77.0.11:{}", 1_000 + n);
        let mut entries = Vec::new();
        for n in 0..INCIDENTS + 10 {
            let (src, out) = (client(n), format!("198.51.100.1:{}", 1_000 + n));
            entries.push(entry(Change::Destroy, (&src, SERVER), (SERVER, &out)));
        }
        for n in 0..INCIDENTS + 10 {
            let src = client(n);
            entries.push(entry(Change::New, (&src, SERVER), (SERVER, &src)));
        }
        let join = Join::new(vec![Role::Inside, Role::Outside]);
        let (mut m, mut out) = (Mappings::new(), Vec::new());
        entries.iter().for_each(|e| m.entry(e, Nanos(Nanos::SEC), &join));
        m.finish(&mut |a| out.push(a));
        assert_eq!(out.len(), INCIDENTS + 10);
    }
}
