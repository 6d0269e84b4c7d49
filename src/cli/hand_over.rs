//! `--hand-over`: which spans' workers hand packets over to each other, and what is said of it.

use crate::capture::tap::Tap;
use crate::capture::{Mode, QueueHash};
use crate::pipeline::HandOver;

/// `--hand-over` of `run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum When {
    /// Where the driver does not say that its hash is symmetric.
    Auto,
    /// Wherever a span has several queues.
    On,
    /// Nowhere.
    Off,
}

impl When {
    fn hands_over(self, rings: u32, hash: QueueHash) -> bool {
        let wanted = match self {
            When::Auto => hash != QueueHash::Symmetric,
            When::On => true,
            When::Off => false,
        };
        wanted && rings > 1
    }
}

/// The workers of an open tap that hand over to each other.
pub(super) fn between(tap: &Tap, when: When) -> HandOver {
    let points = tap.points().iter().enumerate();
    let groups = points.filter(|(_, p)| when.hands_over(p.rings, p.hash)).map(|(n, _)| tap.sources_of(n));
    HandOver { groups: groups.collect(), key: *tap.key() }
}

/// What `run` says of a tap point whose queues' agreement matters.
pub(super) fn told(mode: Mode, rings: u32, hash: QueueHash, when: When) -> Option<String> {
    if mode != Mode::Span || rings < 2 {
        return None;
    }
    let why = match hash {
        QueueHash::Symmetric => "its receive hash is symmetric",
        QueueHash::Asymmetric => "its receive hash is not symmetric",
        QueueHash::Unknown => "its driver does not say whether its receive hash is symmetric",
    };
    let cheaper = match hash {
        QueueHash::Symmetric => "",
        _ => "; a symmetric one costs less (docs/nic.md)",
    };
    let does = match (when.hands_over(rings, hash), hash) {
        (true, _) => format!("{rings} workers hand packets over to each other{cheaper}"),
        (false, QueueHash::Symmetric) => "nothing is handed over between workers".to_owned(),
        (false, _) => "and --hand-over is off: connections may be seen in halves".to_owned(),
    };
    Some(format!("{why}: {does}"))
}

/// What `check` says of a span's queues: the text, and what would mend it.
pub(super) fn checked(name: &str, queues: u32, hash: QueueHash) -> Option<(String, Option<String>)> {
    let text = told(Mode::Span, queues, hash, When::Auto)?.replace(": ", ":\n").replace("; ", "\n");
    let mend = match hash {
        QueueHash::Symmetric => return Some((text, None)),
        QueueHash::Asymmetric => format!(
            "ethtool -X {name} hfunc toeplitz symmetric-xor, or a key that repeats 6d:5a, or ethtool -L {name} combined 1"
        ),
        QueueHash::Unknown => {
            format!(
                "if it is symmetric: --hand-over off; else ethtool -L {name} combined 1, if one worker is enough"
            )
        }
    };
    Some((text, Some(mend)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_spans_of_several_queues_that_may_disagree_hand_over() {
        use QueueHash::{Asymmetric, Symmetric, Unknown};
        for (when, hash, does) in [
            (When::Auto, Symmetric, false),
            (When::Auto, Asymmetric, true),
            (When::Auto, Unknown, true),
            (When::On, Symmetric, true),
            (When::Off, Asymmetric, false),
        ] {
            assert_eq!(when.hands_over(2, hash), does, "{when:?} {hash:?}");
            assert!(!when.hands_over(1, hash) && !when.hands_over(0, hash));
            let text = told(Mode::Span, 2, hash, when).expect("it is told");
            assert_eq!(text.contains("workers hand packets over"), does, "{text}");
        }
        assert_eq!(told(Mode::Inline, 0, Symmetric, When::Auto), None);
        assert_eq!(checked("eth3", 1, Symmetric), None);
    }
}
