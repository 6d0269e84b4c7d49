//! A look as a page of metrics: every counter that there is, under the name that `docs/operations.md` lists.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Look, Metrics};
use crate::bpf::Counter;
use crate::bpf::abi::Counters;
use crate::capture::Presence;
use crate::cli::losses::{Whose, causes};
use crate::cli::say;
use crate::pipeline::WorkerCounters;
use crate::telemetry::Page;
use crate::wire::Malformed;

/// The family, what tells its samples apart, and its sentence, of a counter of the kernel side. All have interface and direction.
fn kernel_family(counter: Counter) -> (&'static str, &'static str, &'static str) {
    use Counter::*;
    match counter {
        Packets => ("syntap_packets", "", "Packets that passed the hooks."),
        NoSlot | NotIp | NotTcp | LaterFragment | PortNotChosen | NotWatched => {
            ("syntap_passed_over_packets", "cause", "Packets that are not looked at, and why.")
        }
        LinkCut | VlanBad | Ipv4Bad | Ipv6Bad | Ipv6ChainBad | TunnelBad | TcpCut => {
            ("syntap_unreadable_packets", "cause", "Packets whose headers the kernel side could not read.")
        }
        SelectedSyn | SelectedControl | SelectedWatch | SelectedNeighbour | SelectedIcmp => {
            ("syntap_selected_packets", "class", "Packets that were chosen and within the budget.")
        }
        ShedSyn | ShedControl | ShedWatch | ShedNeighbour | ShedIcmp => (
            "syntap_shed_packets",
            "class",
            "Packets that were chosen and over the budget: not mirrored, but passed on as ever.",
        ),
        Mirrored => ("syntap_mirrored_packets", "", "Packets that were mirrored."),
        TunnelLarge => (
            "syntap_tunnel_large_packets",
            "",
            "Plain data in a tunnel, left large by offload: not mirrored, and no loss.",
        ),
        CloneFailed | TrimFailed | PushFailed | NoRing | RingFull => {
            ("syntap_unmirrored_packets", "cause", "Chosen packets that did not reach a ring, and why.")
        }
        ShedHard => (
            "syntap_shed_hard_packets",
            "",
            "Of the shed packets, those that met the hard cap: their tuples are not whole.",
        ),
        ShedKnown => (
            "syntap_shed_known_packets",
            "",
            "Of the shed packets, those of connections that were known to be open.",
        ),
        Broken => ("syntap_broken_packets", "", "Chosen packets whose TCP header is broken."),
        PiecesLost => (
            "syntap_pieces_lost_packets",
            "",
            "Mirrored packets that went in pieces, of which the last did not arrive.",
        ),
        Stray => ("syntap_stray_packets", "", "Packets in the private pair that are not syntap's."),
    }
}

/// What tells a counter apart within its family: its name without what all of the family have.
fn short(counter: Counter) -> &'static str {
    let name = counter.name();
    ["selected_", "shed_"].into_iter().find_map(|p| name.strip_prefix(p)).unwrap_or(name)
}

fn lane(page: &mut Page, interface: &str, direction: &str, counters: &Counters) {
    for &counter in Counter::ALL {
        let (family, label, help) = kernel_family(counter);
        let value = counters.get(counter);
        let place = [("interface", interface), ("direction", direction)];
        match label {
            "" => page.counter(family, help, &place, value),
            label => page.counter(family, help, &[place[0], place[1], (label, short(counter))], value),
        }
    }
}

impl Metrics {
    pub(super) fn page(&self, look: &Look<'_>) -> Page {
        let mut page = Page::default();
        self.about(&mut page, look);
        kernel(&mut page, look);
        lost(&mut page, look);
        workers(&mut page, look.counters);
        self.handshakes(&mut page);
        self.found(&mut page);
        self.queues(&mut page, look);
        witnesses(&mut page, look);
        self.listener(&mut page);
        page
    }

    fn about(&self, page: &mut Page, look: &Look<'_>) {
        let version = env!("CARGO_PKG_VERSION");
        page.gauge("syntap_build_info", "The program's version.", &[("version", version)], 1.0);
        page.gauge(
            "syntap_start_time_seconds",
            "When the run began, since the epoch.",
            &[],
            self.process.began,
        );
        let now = look.clock.now().0 as f64 / 1e9;
        page.gauge(
            "syntap_last_look_time_seconds",
            "When these figures were taken, since the epoch.",
            &[],
            now,
        );
        let cpu = self.process.cpu_us as f64 / 1e6;
        page.seconds(
            "syntap_cpu_seconds",
            "CPU time that the process took; the hooks' is the kernel's own.",
            &[],
            cpu,
        );
        page.gauge("syntap_memory_bytes", "Memory that the process holds.", &[], self.process.memory as f64);
        let offset = look.clock.ns() as f64 / 1e9;
        page.gauge(
            "syntap_clock_offset_seconds",
            "Epoch less monotonic clock, as the records have it.",
            &[],
            offset,
        );
        let uncertainty = look.clock.uncertainty_ns() as f64 / 1e9;
        page.gauge("syntap_clock_uncertainty_seconds", "The offset is right to this.", &[], uncertainty);
        let help = "Times that the realtime clock was set while syntap ran.";
        page.counter("syntap_clock_steps", help, &[], self.gathered.clock_steps);
        page.gauge("syntap_ports", "Ports that are followed.", &[], look.ports.len() as f64);
    }

    fn handshakes(&self, page: &mut Page) {
        for (interface, totals) in self.interfaces.iter().zip(&self.gathered.points) {
            let at = [("interface", interface.name.as_str())];
            let help = "Attempts to connect that ended, well or not.";
            page.counter("syntap_attempts", help, &at, totals.attempts);
            page.counter("syntap_failed_attempts", "Attempts that led to nothing.", &at, totals.failed);
            page.counter("syntap_resets", "Resets on open flows.", &at, totals.resets);
            page.times(
                "syntap_handshake_seconds",
                "From the first SYN to the SYN-ACK.",
                &at,
                &totals.syn_acks,
            );
        }
        let help = "From the first SYN-ACK to the final ACK.";
        page.times("syntap_handshake_ack_seconds", help, &[], &self.gathered.acks);
        for (at, attempts, failed, times) in &self.gathered.responders {
            let at = [("responder", at.as_str())];
            page.counter(
                "syntap_responder_attempts",
                "Attempts to connect to a --responder.",
                &at,
                *attempts,
            );
            page.counter("syntap_responder_failed_attempts", "Those that led to nothing.", &at, *failed);
            let help = "From the first SYN to the SYN-ACK of a --responder.";
            page.times("syntap_responder_handshake_seconds", help, &at, times);
        }
    }

    fn found(&self, page: &mut Page) {
        for (kind, verdict, severity, count) in self.onlooking.counts.all() {
            let labels = [("kind", kind.name()), ("verdict", verdict.name()), ("severity", severity.name())];
            page.counter(
                "syntap_anomalies",
                "Anomalies, before any are joined into one record.",
                &labels,
                count,
            );
        }
        let records = self.records.now();
        page.counter("syntap_records_written", "Records in shards.", &[], records.written);
        page.counter("syntap_records_lost", "Records that could not be written.", &[], records.lost);
        page.counter("syntap_shard_bytes", "Bytes of shards written.", &[], records.bytes);
        page.counter("syntap_shards", "Shards begun.", &[], records.shards);
        let help = "1 while records cannot be written.";
        page.gauge("syntap_records_blocked", help, &[], f64::from(u8::from(records.blocked)));
    }

    fn queues(&self, page: &mut Page, look: &Look<'_>) {
        page.gauge("syntap_flows", "Flows in the table now.", &[], look.counters.live as f64);
        page.gauge("syntap_flows_limit", "Flows that there is room for.", &[], self.max_flows as f64);
        for level in &self.gathered.levels {
            let number = level.number.to_string();
            let labels = [("queue", level.queue), ("number", number.as_str())];
            let help = "The most that waited within the last second: bytes of packets, entries elsewhere.";
            page.gauge("syntap_queue_depth", help, &labels, level.most as f64);
            page.gauge("syntap_queue_limit", "What a queue has room for.", &labels, level.room as f64);
        }
        let ages = look.progress.ages(Instant::now());
        let writer = ages.len().saturating_sub(1);
        for (n, age) in ages.into_iter().enumerate() {
            let Some(age) = age else { continue };
            let name = if n == writer { "writer".to_owned() } else { format!("worker {n}") };
            let help = "How long ago a thread was last seen to go round its loop.";
            page.gauge("syntap_thread_idle_seconds", help, &[("thread", &name)], age.as_secs_f64());
        }
    }

    fn listener(&self, page: &mut Page) {
        let counted = self.board.counted();
        let name = "syntap_metrics_requests";
        let help = "Connections to the metrics listener by what became of them.";
        for (outcome, n) in
            [("answered", &counted.answered), ("refused", &counted.refused), ("cut", &counted.cut)]
        {
            page.counter(name, help, &[("outcome", outcome)], n.load(Ordering::Relaxed));
        }
        let failed = counted.failed_files.load(Ordering::Relaxed);
        page.counter(
            "syntap_metrics_file_errors",
            "Times that a metrics file could not be written.",
            &[],
            failed,
        );
        let help = "Messages that were left out because the same had been said within a minute.";
        page.counter("syntap_messages_left_out", help, &[], say::left_out());
    }
}

/// What the hooks counted, and what they let through.
fn kernel(page: &mut Page, look: &Look<'_>) {
    for (n, point) in look.stats.points.iter().enumerate() {
        lane(page, &point.name, "ingress", &point.ingress);
        lane(page, &point.name, "egress", &point.egress);
        let up = look.tap.points().get(n).is_some_and(|p| p.presence == Presence::Up);
        let at = [("interface", point.name.as_str())];
        page.gauge(
            "syntap_interface_up",
            "1 if the interface is there and passes packets.",
            &at,
            f64::from(u8::from(up)),
        );
        let kept = look.losses.kept_at_last(n);
        for (tuples, share) in [("new", kept.new), ("known", kept.known)] {
            let help = "The least share of tuples that the budget let through within the last second.";
            page.gauge("syntap_kept_ratio", help, &[at[0], ("tuples", tuples)], share);
        }
        let budget = look.losses.budget_of(n);
        let help = "Packets a second and CPU that may be mirrored.";
        page.gauge("syntap_budget_packets_per_second", help, &at, budget.pps as f64);
        let help = "Share of each CPU that mirroring may take; 0 is not metered.";
        page.gauge("syntap_budget_cpu_ratio", help, &at, f64::from(budget.share) / 1e6);
    }
    lane(page, "none", "none", &look.stats.stray);
}

/// Losses by cause and place, as the records have them in `capture_gap`.
fn lost(page: &mut Page, look: &Look<'_>) {
    for cause in causes(look.stats, look.shared) {
        let labels = [("cause", cause.name), ("place", cause.place.as_str())];
        match cause.whose {
            Whose::Ours => {
                page.counter("syntap_dropped_packets", "Packets that syntap lost.", &labels, cause.count)
            }
            Whose::Kernels => {
                let help = "Packets that the kernel or the NIC never gave.";
                page.counter("syntap_missed_packets", help, &labels, cause.count);
            }
            Whose::Tables => {
                let help = "Flows that were given up for room before they were over.";
                page.counter("syntap_given_up_flows", help, &labels, cause.count);
            }
            Whose::Copies => {
                let help = "Packets that are missing in the file of --mirror-to.";
                page.counter("syntap_uncopied_packets", help, &labels, cause.count);
            }
        }
    }
    let help = "Open connections that found no room among those that the kernel side keeps when it sheds.";
    page.counter("syntap_known_refused", help, &[], look.tap.known().refused());
    if let Some((handed, late)) = look.shared.handed() {
        page.counter("syntap_handed_over_packets", "Packets that workers handed to each other.", &[], handed);
        page.counter("syntap_late_packets", "Of these, worked after one with a later stamp.", &[], late);
    }
}

fn workers(page: &mut Page, c: &WorkerCounters) {
    // All fields are named, so that a new one is not forgotten here.
    let WorkerCounters {
        packets: _,
        segments,
        arp,
        later_fragments,
        others,
        malformed,
        flows,
        evicted,
        evicted_early,
        evicted_open,
        untimed,
        live: _,
        handshakes,
        attempts,
        failed,
        resets: _,
    } = c;
    for (class, n) in
        [("tcp", segments), ("arp_or_neighbour", arp), ("later_fragment", later_fragments), ("other", others)]
    {
        page.counter(
            "syntap_worked_packets",
            "Packets that the workers took, by what they are.",
            &[("class", class)],
            *n,
        );
    }
    for (cause, n) in Malformed::ALL.iter().zip(malformed) {
        let help = "Packets that the workers could not decode, and why.";
        page.counter("syntap_malformed_packets", help, &[("cause", cause.name())], *n);
    }
    page.counter("syntap_flows_begun", "Flows begun: lives of tuples.", &[], *flows);
    let help =
        "Flows given up for room: over, early (opening or open), or open, of which early ones are a part.";
    for (state, n) in [("any", evicted), ("early", evicted_early), ("open", evicted_open)] {
        page.counter("syntap_evicted_flows", help, &[("state", state)], *n);
    }
    let help = "Times that a flow found no room in the timer wheel.";
    page.counter("syntap_untimed_flows", help, &[], *untimed);
    page.counter(
        "syntap_handshakes",
        "Attempts that were answered with a SYN-ACK, all tap points.",
        &[],
        *handshakes,
    );
    page.counter("syntap_all_attempts", "Attempts that ended, all tap points.", &[], *attempts);
    page.counter("syntap_all_failed_attempts", "Attempts that led to nothing, all tap points.", &[], *failed);
}

/// Connection tracking and the link layer.
fn witnesses(page: &mut Page, look: &Look<'_>) {
    let conntrack = &look.shared.conntrack;
    let read = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
    page.counter(
        "syntap_conntrack_events",
        "Events of connection tracking that were heard.",
        &[],
        read(&conntrack.events),
    );
    let help = "Events of connection tracking that the kernel had no room for.";
    page.counter("syntap_conntrack_events_lost", help, &[], read(&conntrack.lost));
    page.counter(
        "syntap_conntrack_dumps",
        "Times that all entries were listed instead.",
        &[],
        read(&conntrack.dumps),
    );
    for (counter, n) in conntrack.counters() {
        let help = "What connection tracking counted since the start, by the names of `conntrack -S`.";
        page.counter("syntap_conntrack_counted", help, &[("counter", counter)], n);
    }
    let help = "Times that the kernel had no room for link-layer events.";
    page.counter("syntap_link_events_lost", help, &[], read(&look.shared.link.lost));
    let deaf = [("conntrack", conntrack.error().is_some()), ("link", look.shared.link.error().is_some())];
    for (witness, deaf) in deaf {
        let help = "1 if it is not heard any more although it was asked for.";
        page.gauge("syntap_witness_deaf", help, &[("witness", witness)], f64::from(u8::from(deaf)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_counter_of_the_kernel_side_is_a_sample_of_its_own() {
        let mut page = Page::default();
        let mut counters = Counters::default();
        for (n, counter) in Counter::ALL.iter().enumerate() {
            counters.0[*counter as usize] = n as u64 + 1;
        }
        lane(&mut page, "eth0", "ingress", &counters);
        let samples: Vec<_> =
            page.families().iter().flat_map(|f| f.samples.iter().map(move |s| (f.name, s))).collect();
        assert_eq!(samples.len(), Counter::COUNT);
        let labels: HashSet<_> = samples.iter().map(|(name, s)| (*name, s.labels.clone())).collect();
        assert_eq!(labels.len(), Counter::COUNT, "no two have the same name and labels");
        assert!(page.text(crate::telemetry::Form::Prometheus).contains(
            "syntap_shed_packets_total{interface=\"eth0\",direction=\"ingress\",class=\"syn\"} 20\n"
        ));
    }
}
