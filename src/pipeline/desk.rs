//! Where all events meet: one place that knows every responder and every loss, and makes records of anomalies.

use std::collections::VecDeque;

use super::event::{Event, What};
use super::latency::Durations;
use super::onlook::Onlooker;
use super::waiting::Waiting;
use crate::capture::PortSet;
use crate::detect::{Anomaly, Certainty, Kind, Rings, Role, Severity, Sight, Survey, reset};
use crate::flow::{Side, Tuple};
use crate::record::{Coalescer, ConnectionRecord, Context, FigureSet, Loss, Nat, Record};
use crate::wire::Nanos;

/// Stretches of loss remembered for the records that follow. A record waits at most two minutes for its last packet,
/// and losses are looked at every second.
const LOSSES: usize = 256;

/// Anomalies held at most while news of losses may come.
const HELD: usize = 4096;

/// Resets that wait for a FIN at most: a thousand a second make it 300 of them.
const CROSSING: usize = 1024;

/// Events that wait for their turn at most: two seconds of 100,000 handshakes a second; half a second of them waits as a rule. Beyond that the earliest are looked at
/// before their time, which can only mistake the order of what happened at the same moment on two workers.
pub(super) const WAITING: usize = 1 << 20;

/// Where records go.
pub trait RecordSink {
    /// Takes one. An error stops the run; what can be survived (a full disk) is counted inside.
    fn record(&mut self, record: &Record) -> std::io::Result<()>;

    /// Takes figures: no anomaly, and nothing that was asked for. By default they go nowhere.
    fn figures(&mut self, _record: &Record) -> std::io::Result<()> {
        Ok(())
    }

    /// Takes a connection that is over.
    fn connection(&mut self, _connection: &ConnectionRecord) -> std::io::Result<()> {
        Ok(())
    }
}

/// Anomalies by kind and severity.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How long the gateway held SYNs that crossed it.
    pub held: Durations,
    counts: Vec<[u64; 3]>,
}

impl Tally {
    fn add(&mut self, a: &Anomaly) {
        self.counts.resize(Kind::ALL.len(), [0; 3]);
        self.counts[a.kind as usize][a.severity as usize] += a.count;
    }

    /// Kinds that occurred, with how often and how severe at most; the frequent ones first.
    pub fn rows(&self) -> Vec<(Kind, u64, Severity)> {
        let mut rows: Vec<_> = Kind::ALL
            .iter()
            .zip(&self.counts)
            .filter(|(_, c)| c.iter().any(|&n| n > 0))
            .map(|(&k, c)| {
                let worst = match c {
                    [_, _, errors] if *errors > 0 => Severity::Error,
                    [_, warnings, _] if *warnings > 0 => Severity::Warning,
                    _ => Severity::Info,
                };
                (k, c.iter().sum(), worst)
            })
            .collect();
        rows.sort_by_key(|&(k, n, s)| (std::cmp::Reverse(s), std::cmp::Reverse(n), k));
        rows
    }

    /// How many were above `info`.
    pub fn above_info(&self) -> u64 {
        self.counts.iter().map(|c| c[1] + c[2]).sum()
    }

    /// How many of all severities.
    pub fn total(&self) -> u64 {
        self.counts.iter().flatten().sum()
    }
}

/// See the module.
pub struct Desk<S> {
    /// Events of all workers that wait until none earlier can come.
    waiting: Waiting,
    survey: Survey,
    rings: Rings,
    losses: VecDeque<LossSpan>,
    coalescer: Coalescer,
    context: Context,
    tally: Tally,
    sink: S,
    /// How long what rests on an absence waits for news of losses; 0 where nothing can be lost.
    hold_ns: u64,
    held: VecDeque<(Anomaly, Option<Tuple>)>,
    /// Resets that a FIN may still cross, and whether they wait for news of losses after that.
    crossing: VecDeque<(Anomaly, bool)>,
    /// Whoever watches the run.
    onlooker: Option<Onlooker>,
    /// Ports that are followed, once they have changed.
    ports: Option<PortSet>,
}

#[derive(Clone, Copy)]
struct LossSpan {
    first: Nanos,
    last: Nanos,
    drops: u64,
    misses: u64,
}

impl<S: RecordSink> Desk<S> {
    /// A desk that writes to `sink`.
    pub fn new(context: Context, sink: S) -> Desk<S> {
        let roles = context.interfaces.iter().map(|i| Role::from_name(i.role.as_deref())).collect();
        Desk {
            waiting: Waiting::default(),
            survey: Survey::new(roles),
            rings: Rings::default(),
            losses: VecDeque::with_capacity(LOSSES),
            coalescer: Coalescer::default(),
            context,
            tally: Tally::default(),
            sink,
            hold_ns: 0,
            held: VecDeque::new(),
            crossing: VecDeque::new(),
            onlooker: None,
            ports: None,
        }
    }

    /// Lets what rests on an absence wait this long, in packet time, for news of losses: for a live run, where the
    /// counters are looked at after the packets.
    pub fn hold(mut self, ns: u64) -> Desk<S> {
        self.hold_ns = ns;
        self
    }

    /// Tells somebody what comes.
    pub fn told_to(mut self, onlooker: Option<Onlooker>) -> Desk<S> {
        self.onlooker = onlooker;
        self
    }

    /// Other ports are followed now. What is found of a connection with none of them is not told: nothing of it is seen any more, and its
    /// silence means nothing.
    pub fn only_ports(&mut self, ports: PortSet) {
        self.ports = Some(ports);
    }

    /// Events that wait to be put in order.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Lets time pass: what was held or only counted for long enough is written.
    pub fn tick(&mut self, now: Nanos) -> std::io::Result<()> {
        if let Some(onlooker) = &mut self.onlooker {
            onlooker.tick(now);
        }
        self.release_crossing(now)?;
        while self.held.front().is_some_and(|(a, _)| now.since(a.time) >= self.hold_ns) {
            if let Some((a, nat)) = self.held.pop_front() {
                self.write(a, nat)?;
            }
        }
        let Desk { coalescer, sink, .. } = self;
        let mut failed = Ok(());
        coalescer.tick(now.0, &mut |r: Record| {
            if failed.is_ok() {
                failed = sink.record(&r);
            }
        });
        failed
    }

    /// Takes an event of a worker. It is looked at by [`Desk::advance`].
    #[inline]
    pub fn event(&mut self, event: Event) -> std::io::Result<()> {
        self.waiting.push(event);
        if self.waiting.len() > WAITING {
            // A bite, so that what has been put in order is worth it.
            self.take_own(Nanos(u64::MAX), WAITING / 64)?;
        }
        Ok(())
    }

    /// Takes an event that came over a ring of the live run.
    #[inline]
    pub fn event_of(&mut self, ring: usize, event: Event) -> std::io::Result<()> {
        if let What::Sight(sight) = &event.what
            && let Some(a) = self.rings.sight(ring as u16, sight, event.place.at)
        {
            self.anomaly(a)?;
        }
        self.event(event)
    }

    /// Looks at what happened up to `horizon`: no worker will tell of anything earlier.
    pub fn advance(&mut self, horizon: Nanos) -> std::io::Result<()> {
        self.take_own(horizon, usize::MAX)
    }

    /// The same of what lies elsewhere: each worker's events in a place of its own.
    pub(super) fn advance_over(&mut self, horizon: Nanos, workers: &mut [Waiting]) -> std::io::Result<()> {
        if let [one] = workers {
            while let Some(event) = one.pop(horizon) {
                self.look(event)?;
            }
            return Ok(());
        }
        let mut places: Vec<_> = workers.iter_mut().map(|w| w.place(horizon)).collect();
        loop {
            let waits = places.iter().enumerate().filter_map(|(n, place)| Some((n, (*place)?)));
            let Some((n, _)) = waits.min_by_key(|(_, place)| *place) else { return Ok(()) };
            if let Some(event) = workers[n].take() {
                self.look(event)?;
            }
            places[n] = workers[n].place(horizon);
        }
    }

    /// Looks at the earliest events that wait here, `most` of them, as far as they are not later than `horizon`.
    fn take_own(&mut self, horizon: Nanos, most: usize) -> std::io::Result<()> {
        // What is found in them is no event, so nothing comes to wait meanwhile.
        let mut waiting = std::mem::take(&mut self.waiting);
        let mut looked = Ok(());
        for _ in 0..most {
            let Some(event) = waiting.pop(horizon) else { break };
            looked = self.look(event);
            if looked.is_err() {
                break;
            }
        }
        self.waiting = waiting;
        looked
    }

    /// Looks at an event in its turn, and takes what is in it.
    pub(super) fn look(&mut self, event: &mut Event) -> std::io::Result<()> {
        let at = event.place.at;
        if let What::Sight(sight) = &event.what {
            if let Sight::FinAfterReset(fin) = sight {
                self.crossing.iter_mut().any(|(a, _)| reset::crossed(a, fin));
            }
            // Allocates nothing as long as nothing is found.
            let mut found = Vec::new();
            self.survey.sight(sight, at, &mut |a| found.push(a));
            found.into_iter().try_for_each(|a| self.anomaly(a))?;
            return self.release_crossing(at);
        }
        match std::mem::replace(&mut event.what, What::Taken) {
            What::Sight(_) | What::Taken => {}
            What::Anomaly(a) => self.anomaly(*a)?,
            What::Life(life) => {
                let record = ConnectionRecord::of(&life.key, &life.flow, life.tunnel, &self.context);
                let tuple = life.key.tuple();
                let tuple = if life.flow.orig == Side::Orig { tuple } else { tuple.reversed() };
                let nat = self.survey.nat(life.key.point(), &tuple).map(Nat::from);
                self.sink.connection(&ConnectionRecord { nat, ..record })?;
            }
        }
        self.release_crossing(at)
    }

    /// Takes an anomaly, of a worker or of the tool itself. It is judged now, in its turn, by what is known of its time; only its
    /// record may wait.
    pub fn anomaly(&mut self, mut a: Anomaly) -> std::io::Result<()> {
        let mut more = Vec::new();
        // A reset may be the gateway's own: that none came in inside is an absence, too.
        let waits = a.rests_on_absence() || a.kind == Kind::ResetMidFlow;
        let told = self.survey.judge(&mut a, &mut |a| more.push(a));
        let waits = waits || a.rests_on_absence();
        for more in more {
            let waits = more.rests_on_absence();
            self.judged(more, waits)?;
        }
        match told {
            false => Ok(()),
            true if reset::may_cross(&a) => {
                self.crossing.push_back((a, waits));
                let full = self.crossing.len() > CROSSING;
                let oldest = if full { self.crossing.pop_front() } else { None };
                oldest.map_or(Ok(()), |(a, waits)| self.judged(a, waits))
            }
            true => self.judged(a, waits),
        }
    }

    /// Lets go of resets that no FIN crosses any more.
    fn release_crossing(&mut self, now: Nanos) -> std::io::Result<()> {
        let late = |a: &Anomaly| now.since(a.time) >= reset::FIN_CROSSES || a.severity == Severity::Info;
        while self.crossing.front().is_some_and(|(a, _)| late(a)) {
            if let Some((a, waits)) = self.crossing.pop_front() {
                self.judged(a, waits)?;
            }
        }
        Ok(())
    }

    fn judged(&mut self, a: Anomaly, waits: bool) -> std::io::Result<()> {
        let nat = a.point.zip(a.tuple).and_then(|(p, t)| self.survey.nat(p, &t));
        if self.hold_ns == 0 || !waits {
            return self.write(a, nat);
        }
        self.held.push_back((a, nat));
        // More than fit wait: the oldest makes room.
        match self.held.len() > HELD {
            true => self.held.pop_front().map_or(Ok(()), |(oldest, nat)| self.write(oldest, nat)),
            false => Ok(()),
        }
    }

    fn write(&mut self, mut a: Anomaly, nat: Option<Tuple>) -> std::io::Result<()> {
        if let (Some(ports), Some(tuple)) = (&self.ports, &a.tuple)
            && ![tuple.src, tuple.dst].iter().any(|end| ports.contains(end.port))
        {
            return Ok(());
        }
        let loss = self.loss_in(a.first, a.last);
        if loss.is_some() && a.rests_on_absence() {
            // It rests on an absence, and something is absent that was there.
            a.certainty = Certainty::Possible;
            a.severity = Severity::Info;
            a.summary
                .push_str("; but this tool lost packets meanwhile, and what is missing may be among them");
        }
        self.tally.add(&a);
        if let Some(onlooker) = &mut self.onlooker {
            onlooker.anomaly(&a);
        }
        let Desk { coalescer, context, sink, .. } = self;
        let mut failed = Ok(());
        let record = Record { nat: nat.map(Nat::from), ..Record::from_anomaly(&a, context, loss) };
        coalescer.push(record, &mut |r: Record| {
            if failed.is_ok() {
                failed = sink.record(&r);
            }
        });
        failed
    }

    /// Writes figures, past all that judges and counts anomalies.
    pub fn figures(&mut self, set: &FigureSet) -> std::io::Result<()> {
        self.sink.figures(&set.record(&self.context))
    }

    /// Remembers that packets were lost between `first` and `last`: drops by this program, misses before it.
    pub fn lost(&mut self, first: Nanos, last: Nanos, drops: u64, misses: u64) {
        if self.losses.len() == LOSSES {
            self.losses.pop_front();
        }
        self.losses.push_back(LossSpan { first, last, drops, misses });
    }

    fn loss_in(&self, first: Nanos, last: Nanos) -> Option<Loss> {
        // A stretch without a number is one as well: nobody counts what an interface that is gone does not show.
        let spans = self.losses.iter().filter(|l| l.last >= first && l.first <= last);
        spans.fold(None, |sum: Option<Loss>, l| {
            let Loss { drops, misses } = sum.unwrap_or(Loss { drops: 0, misses: 0 });
            Some(Loss { drops: drops + l.drops, misses: misses + l.misses })
        })
    }

    /// Ends: what was held back is written. Gives back the sink and the tally.
    pub fn finish(mut self) -> std::io::Result<(S, Tally)> {
        self.advance(Nanos(u64::MAX))?;
        let mut found = Vec::new();
        self.survey.finish(&mut |a| found.push(a));
        found.into_iter().try_for_each(|a| self.anomaly(a))?;
        self.release_crossing(Nanos(u64::MAX))?;
        while let Some((a, nat)) = self.held.pop_front() {
            self.write(a, nat)?;
        }
        let Desk { coalescer, sink, .. } = &mut self;
        let mut failed = Ok(());
        coalescer.finish(&mut |r: Record| {
            if failed.is_ok() {
                failed = sink.record(&r);
            }
        });
        failed?;
        self.tally.held = Durations::of(self.survey.held().clone());
        Ok((self.sink, self.tally))
    }

    /// Where records go, for its clock.
    pub fn sink(&mut self) -> &mut S {
        &mut self.sink
    }

    /// What was found so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Endpoint;

    #[derive(Default)]
    struct Kept(Vec<u16>);

    impl RecordSink for Kept {
        fn record(&mut self, record: &Record) -> std::io::Result<()> {
            self.0.push(record.dst_port.unwrap_or(0));
            Ok(())
        }
    }

    #[test]
    fn of_ports_that_are_followed_no_more_nothing_is_told() {
        let mut desk = Desk::new(Context::default(), Kept::default());
        let found = |desk: &mut Desk<Kept>, port: Option<u16>| {
            let mut a = Anomaly::new(Kind::SynUnanswered, String::new(), Nanos(5), Nanos(6));
            let end = |port| Endpoint { port, ..Endpoint::default() };
            a.tuple = port.map(|port| Tuple { src: end(40_000), dst: end(port) });
            desk.anomaly(a).unwrap();
        };
        found(&mut desk, Some(80));
        desk.only_ports("443".parse().unwrap());
        for port in [Some(80), Some(443), None] {
            found(&mut desk, port);
        }
        let (kept, tally) = desk.finish().unwrap();
        assert_eq!((kept.0, tally.total()), (vec![80, 443, 0], 3));
    }
}
