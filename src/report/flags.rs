//! The flag census: which TCP flags went by, at each interface and in each direction.

use super::Figures;

/// Flags at one interface in one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// `eth0 in`, `eth0 out`, or `eth0` where a capture does not say which way.
    pub name: String,
    /// Flags as tcpdump writes them, and segments: the frequent first.
    pub cells: Vec<(String, u64)>,
}

impl Row {
    /// Segments in all.
    pub fn total(&self) -> u64 {
        self.cells.iter().map(|c| c.1).sum()
    }

    /// Segments with exactly these flags.
    pub fn of(&self, flags: &str) -> u64 {
        self.cells.iter().find(|c| c.0 == flags).map_or(0, |c| c.1)
    }
}

/// A row for each interface and direction in which there was a segment.
pub fn table(figures: &Figures) -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, place) in &figures.points {
        for (way, word) in [("ingress", " in"), ("egress", " out"), ("unknown", "")] {
            let Some(flags) = place.flags.get(way) else { continue };
            let mut cells: Vec<(String, u64)> = flags.iter().map(|(f, &n)| (f.clone(), n)).collect();
            cells.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            rows.push(Row { name: format!("{name}{word}"), cells });
        }
    }
    rows
}

/// What flags mean, for whoever does not read them daily.
pub fn meaning(flags: &str) -> &'static str {
    match flags {
        "S" => "SYN: asks to open",
        "S." => "SYN-ACK: accepts",
        "." => "ACK alone",
        "P." => "data, pushed",
        "F." | "F" => "FIN: closes its direction",
        "FP." => "FIN with data",
        "R" => "reset",
        "R." => "reset that acknowledges: a refusal, or a close with unread data",
        _ => "",
    }
}
