//! The vocabulary of the records: kinds, severities, verdicts, certainties.

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// An anomaly's kind, named for what was seen. The names are part of the record format.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Kind { $($(#[$doc])* $variant,)* }

        impl Kind {
            /// All kinds, in the order of the documentation.
            pub const ALL: &'static [Kind] = &[$(Kind::$variant,)*];

            /// The name in records, filters and `explain`.
            pub const fn name(self) -> &'static str {
                match self { $(Kind::$variant => $name,)* }
            }

            /// The kind with this name.
            pub fn from_name(name: &str) -> Option<Kind> {
                match name { $($name => Some(Kind::$variant),)* _ => None }
            }
        }
    };
}

kinds! {
    /// A SYN sent again, or given up, with no answer of any sort to it.
    SynUnanswered = "syn_unanswered",
    /// A SYN that came in and did not go out.
    SynLostInGateway = "syn_lost_in_gateway",
    /// A SYN that came in and did not go out, because another one took its place outside.
    SnatCollision = "snat_collision",
    /// SYNs that came in and did not go out, because no port outside is free.
    SnatPortsExhausted = "snat_ports_exhausted",
    /// A SYN answered by a reset.
    SynRefused = "syn_refused",
    /// A SYN on a tuple that the responder still holds, answered by the old life's acknowledgement.
    TupleReuseRefused = "tuple_reuse_refused",
    /// A SYN on a tuple closed less than 60 s before, and accepted.
    TupleReuseAccepted = "tuple_reuse_accepted",
    /// A SYN with another ISN on a flow that is not closed.
    SynOnLiveFlow = "syn_on_live_flow",
    /// A SYN-ACK sent again because no acknowledgement of it passed.
    SynackUnacknowledged = "synack_unacknowledged",
    /// A SYN-ACK sent again although its acknowledgement passed: the responder's accept queue is full.
    AcceptQueueOverflow = "accept_queue_overflow",
    /// A SYN-ACK that acknowledges something else than the SYN.
    SynackWrongAck = "synack_wrong_ack",
    /// A SYN-ACK without a SYN.
    SynackUnsolicited = "synack_unsolicited",
    /// Two SYN-ACKs on one attempt with different sequence numbers.
    SynackDiffers = "synack_differs",
    /// SYNs with several initial sequence numbers on one attempt.
    IsnChangedWhileOpening = "isn_changed_while_opening",
    /// A SYN-ACK from the end that sent the SYN.
    SynackFromOriginator = "synack_from_originator",
    /// SYNs both ways.
    SimultaneousOpen = "simultaneous_open",
    /// The responder answered a SYN with an ACK and a SYN of its own, and the originator with a SYN-ACK.
    SplitHandshake = "split_handshake",
    /// Handshakes that their originator resets at once, again and again: a health check.
    ProbeReset = "probe_reset",
    /// Options on a SYN or SYN-ACK that no stack sends.
    OptionsAltered = "options_altered",
    /// The third packet acknowledges something else than the SYN-ACK, or does not follow the SYN.
    FinalAckWrong = "final_ack_wrong",
    /// The responder took the SYN and not the data in it.
    TfoRefused = "tfo_refused",
    /// A SYN-ACK that took far longer than this responder's do.
    SlowHandshake = "slow_handshake",
    /// A reset on an established flow.
    ResetMidFlow = "reset_mid_flow",
    /// A reset on no known flow.
    ResetWithoutFlow = "reset_without_flow",
    /// Resets after the same idle time, again and again.
    ResetAfterIdle = "reset_after_idle",
    /// A reset that the gateway itself sent.
    ResetByGateway = "reset_by_gateway",
    /// The end in whose name a reset came goes on.
    ResetIgnored = "reset_ignored",
    /// A reset with a payload.
    ResetWithText = "reset_with_text",
    /// A reset outside the receive window.
    ResetOutOfWindow = "reset_out_of_window",
    /// A FIN at a place that its receiver has behind it.
    FinOutOfWindow = "fin_out_of_window",
    /// An ICMP error quotes a packet of an open connection.
    IcmpError = "icmp_error",
    /// A FIN sent again and again without an acknowledgement.
    FinUnanswered = "fin_unanswered",
    /// One direction stayed open long after the other closed.
    HalfClosedStuck = "half_closed_stuck",
    /// FINs of one flow without end.
    FinStorm = "fin_storm",
    /// Resets of one flow without end.
    ResetStorm = "reset_storm",
    /// The same bytes sent again and again, and nothing comes back.
    BlackHole = "black_hole",
    /// The gateway lost the translation of a living connection.
    NatMappingLost = "nat_mapping_lost",
    /// A packet left outside with an address from inside.
    UntranslatedPacket = "untranslated_packet",
    /// A connection's tuple outside changed while it lived.
    NatRemapped = "nat_remapped",
    /// Tuples outside are handed on to others soon after their close.
    NatPortPressure = "nat_port_pressure",
    /// Inside and outside cannot be joined.
    NatNotStitchable = "nat_not_stitchable",
    /// One end's MAC address changed within a flow.
    MacChangedInFlow = "mac_changed_in_flow",
    /// The same packet seen twice: the tap point sees both sides of a hop.
    SeenTwice = "seen_twice",
    /// Two answers to one ARP request, both with the same MAC.
    ArpTwoAnswers = "arp_two_answers",
    /// Two answers to one ARP request with different MACs.
    AddressConflict = "address_conflict",
    /// One address had one MAC, another, and the first again.
    AddressFlapping = "address_flapping",
    /// An address moved to another MAC once.
    AddressMoved = "address_moved",
    /// One MAC address comes in at two ports in turn.
    MacMoved = "mac_moved",
    /// The MAC address of a next hop that flows use changed.
    NextHopChanged = "next_hop_changed",
    /// An ARP packet whose Ethernet source is not its sender.
    ArpSpoofSign = "arp_spoof_sign",
    /// The same frame went out of a port and came back in.
    FrameLoop = "frame_loop",
    /// SYNs to one responder without number, and few answers.
    SynFlood = "syn_flood",
    /// Resets of one responder's connections have become frequent.
    ResetRateShift = "reset_rate_shift",
    /// Connections to one responder carry one request each.
    NoKeepalive = "no_keepalive",
    /// Flag combinations that no stack sends.
    InvalidFlags = "invalid_flags",
    /// Packets whose headers contradict themselves.
    Malformed = "malformed",
    /// Only one direction of most flows is seen.
    OneSidedView = "one_sided_view",
    /// The two directions of a tuple reach two rings.
    AsymmetricHash = "asymmetric_hash",
    /// This tool lost packets: cause, source, first and last time, count.
    CaptureGap = "capture_gap",
    /// The kernel lost events of connection tracking.
    ConntrackEventLoss = "conntrack_event_loss",
    /// The kernel side shed tuples to stay in its budget.
    BudgetShed = "budget_shed",
}

impl Kind {
    /// True for a kind that always rests on something that was not seen: with packets lost it may be the one that was.
    pub const fn rests_on_absence(self) -> bool {
        matches!(
            self,
            Kind::SynUnanswered
                | Kind::SynLostInGateway
                | Kind::SnatCollision
                | Kind::SnatPortsExhausted
                | Kind::ResetByGateway
                | Kind::TupleReuseRefused
                | Kind::SynackUnacknowledged
                | Kind::SynackUnsolicited
                | Kind::SynOnLiveFlow
                | Kind::ResetWithoutFlow
                | Kind::FinUnanswered
                | Kind::HalfClosedStuck
                | Kind::BlackHole
        )
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $ty:ident { $($(#[$vdoc:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $ty { $($(#[$vdoc])* $variant,)* }

        impl $ty {
            /// All of them, in the order of their declaration.
            pub const ALL: &[$ty] = &[$($ty::$variant),*];

            /// The word in records and filters.
            pub const fn name(self) -> &'static str {
                match self { $($ty::$variant => $name,)* }
            }

            /// The value with this name.
            pub fn from_name(name: &str) -> Option<$ty> {
                match name { $($name => Some($ty::$variant),)* _ => None }
            }
        }
    };
}

words! {
    /// How much an operator should care.
    Severity {
        /// Worth knowing; nobody was hurt.
        Info = "info",
        /// A connection was hurt or delayed, or something is set up in a way that will.
        Warning = "warning",
        /// Connections fail.
        Error = "error",
    }
}

words! {
    /// Whose doing it is.
    Verdict {
        /// The end that was called.
        Responder = "responder",
        /// The end that called.
        Originator = "originator",
        /// The machine that is tapped.
        Gateway = "gateway",
        /// The path beyond the tapped machine.
        Network = "network",
        /// A device in between that takes part in the connection.
        Middlebox = "middlebox",
        /// The packets seen do not say.
        Unknown = "unknown",
    }
}

words! {
    /// How well the packets prove it.
    Certainty {
        /// Consistent with the packets, and so are other causes.
        Possible = "possible",
        /// Other causes are unusual.
        Likely = "likely",
        /// No other cause produces these packets.
        Proven = "proven",
    }
}
