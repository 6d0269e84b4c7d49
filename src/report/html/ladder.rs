//! The packets of a record between originator, tap and responder, as a ladder.

use maud::{Markup, html};

use super::clean;
use crate::record::{PacketRecord, Record};

/// Rungs at most: what is beyond is in the words below it.
const RUNGS: usize = 40;

/// Units from one rung to the next, and of the head above the first.
const RUNG: usize = 30;
const HEAD: usize = 30;

/// Where the lanes stand, of 400 units.
const LANES: [usize; 3] = [100, 245, 390];

/// The lanes between which a packet was seen. On the inside of a gateway that is between the originator and it.
fn between(p: &PacketRecord, r: &Record) -> (usize, usize) {
    let here = r.interface.as_deref() == Some(&p.interface);
    let (low, high) = match r.role.as_deref() {
        Some("inside") if here => (0, 1),
        Some("outside") if here => (1, 2),
        // Another tap point than the record's is the other side of it.
        Some("inside") => (1, 2),
        Some("outside") => (0, 1),
        _ => (0, 2),
    };
    if p.from == "orig" { (low, high) } else { (high, low) }
}

fn since(ns: u64, first: u64) -> String {
    let us = ns.saturating_sub(first) / 1_000;
    match us {
        0..1_000 => format!("+{us} us"),
        1_000..1_000_000 => format!("+{:.1} ms", us as f64 / 1e3),
        _ => format!("+{:.3} s", us as f64 / 1e6),
    }
}

fn label(p: &PacketRecord) -> String {
    let number = if p.flags == "." { format!("ack {}", p.ack) } else { format!("seq {}", p.seq) };
    let len = if p.len > 0 { format!(" +{}", p.len) } else { String::new() };
    format!("[{}] {number}{len}", p.flags)
}

/// Draws it; nothing for a record without packets.
pub fn draw(r: &Record) -> Markup {
    let shown = &r.packets[..r.packets.len().min(RUNGS)];
    let Some(first) = shown.first().map(|p| p.ts_ns) else { return html! {} };
    let height = HEAD + RUNG * shown.len() + 8;
    let say = format!(
        "Ladder diagram of {} packets between originator, tap and responder; the same packets are listed below in tcpdump's words",
        shown.len()
    );
    html! {
        svg.ladder role="img" aria-label=(say) viewBox=(format!("0 0 400 {height}")) {
            @for (x, name, anchor) in [(LANES[0], "originator", "middle"), (LANES[1], if r.role.is_some() { "gateway" } else { "tap" }, "middle"), (398, "responder", "end")] {
                text x=(x) y="14" text-anchor=(anchor) { (name) }
            }
            @for x in LANES {
                line.lane x1=(x) x2=(x) y1="20" y2=(height) {}
            }
            @for (n, p) in shown.iter().enumerate() {
                @let (from, to) = between(p, r);
                @let y = HEAD + RUNG * n + 20;
                @let (x1, x2) = (LANES[from], LANES[to]);
                @let head = if x2 > x1 { x2 - 7 } else { x2 + 7 };
                @let class = if p.flags.contains('R') { "arrow rst" } else if p.from == "orig" { "arrow" } else { "arrow resp" };
                text.t x="2" y=(y + 4) { (since(p.ts_ns, first)) }
                text.l.rst[p.flags.contains('R')] x=((x1 + x2) / 2) y=(y - 5) text-anchor="middle" { (clean(&label(p))) }
                line class=(class) x1=(x1) x2=(x2) y1=(y) y2=(y) {}
                polygon class=(class) points=(format!("{x2},{y} {head},{} {head},{}", y - 4, y + 4)) {}
            }
        }
        p.dim {
            "Times since the first packet; +N is N bytes of payload. Arrows reach as far as this tap point sees: from the originator blue, "
            "from the responder green, resets red."
        }
        @if r.packets.len() > RUNGS {
            p.dim { "The first " (RUNGS) " of " (r.packets.len()) " packets; all are below." }
        }
    }
}
