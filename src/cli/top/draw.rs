//! The screen: what matters most is first, and what has no room is left out, from the bottom of that order.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::figures::Figures;
use crate::telemetry::view::{Event, Latency};

/// Colours, or none of them.
pub struct Palette {
    colour: bool,
}

impl Palette {
    /// None if `NO_COLOR` is set to anything.
    pub fn from_env() -> Palette {
        Palette { colour: std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) }
    }

    fn of(&self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    fn severity(&self, severity: &str) -> Style {
        match severity {
            "error" => self.of(Color::Red).add_modifier(Modifier::BOLD),
            "warning" => self.of(Color::Yellow),
            _ => self.of(Color::Cyan),
        }
    }

    /// Of what should be 0.
    fn bad(&self, is_bad: bool) -> Style {
        if is_bad { self.of(Color::Red).add_modifier(Modifier::BOLD) } else { Style::new() }
    }

    fn title(&self) -> Style {
        self.of(Color::Blue).add_modifier(Modifier::BOLD)
    }
}

const DIM: Style = Style::new().add_modifier(Modifier::DIM);

/// Draws all of it.
pub fn draw(frame: &mut Frame<'_>, f: &Figures, palette: &Palette, paused: bool) {
    let area = frame.area();
    let (width, height) = (area.width, area.height);
    // Of a low screen these lines are what is left, in this order: header, rates, latency, keys, the tap's own, the line over time.
    let line = |rank: u16| u16::from(height >= rank);
    let room = height.saturating_sub(6);
    let interfaces = (f.now.interfaces.len() as u16 + 1).min(room / 3).min(9);
    let responders = (f.now.responders.len().max(1) as u16 + 1).min((room - interfaces) / 3).min(7);
    let events = room - interfaces - responders;
    let parts: [(u16, Vec<Line<'static>>); 9] = [
        (line(1), vec![header(f, palette, paused)]),
        (line(2), vec![rates(f, palette)]),
        (line(3), vec![latency(f, palette, width)]),
        (line(6), vec![history(f, palette, width)]),
        (interfaces, interface_rows(f, palette, width)),
        (responders, responder_rows(f, palette, width)),
        (events, anomalies(f, palette, events, width)),
        (line(5), vec![own(f, palette, width)]),
        (line(4), vec![keys(f, palette)]),
    ];
    let mut y = area.y;
    for (height, lines) in parts {
        frame.render_widget(Paragraph::new(lines), Rect { y, height, ..area });
        y += height;
    }
}

/// `1234`, `12.3k`, `4.56M`; a rate below ten with one digit behind the point.
fn short(n: f64) -> String {
    match n {
        n if n >= 1e9 => format!("{:.2}G", n / 1e9),
        n if n >= 1e6 => format!("{:.2}M", n / 1e6),
        n if n >= 1e5 => format!("{:.0}k", n / 1e3),
        n if n >= 1e4 => format!("{:.1}k", n / 1e3),
        n if n > 0.0 && n < 9.95 => format!("{n:.1}"),
        n => format!("{n:.0}"),
    }
}

/// A count: `7`, `1234`, `12.3k`.
fn count(n: u64) -> String {
    if n < 10_000 { n.to_string() } else { short(n as f64) }
}

fn bytes(n: u64) -> String {
    match n as f64 {
        n if n >= 1e9 => format!("{:.1} GB", n / 1e9),
        n if n >= 1e6 => format!("{:.1} MB", n / 1e6),
        n => format!("{:.0} kB", n / 1e3),
    }
}

fn ms(us: u64) -> String {
    match us {
        0..10_000 => format!("{:.2}", us as f64 / 1e3),
        10_000..100_000 => format!("{:.1}", us as f64 / 1e3),
        _ => format!("{:.0}", us as f64 / 1e3),
    }
}

fn uptime(ms: u64) -> String {
    let s = ms / 1_000;
    let clock = format!("{:02}:{:02}:{:02}", s / 3_600 % 24, s / 60 % 60, s % 60);
    if s >= 86_400 { format!("{} d {clock}", s / 86_400) } else { clock }
}

fn clock(ts_ns: u64) -> String {
    let time = jiff::Timestamp::from_nanosecond(ts_ns.into());
    let zone = jiff::tz::TimeZone::system();
    time.map_or_else(|_| "?".into(), |t| t.to_zoned(zone).strftime("%H:%M:%S").to_string())
}

/// What comes over the wire steers no terminal.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn header(f: &Figures, palette: &Palette, paused: bool) -> Line<'static> {
    let mut spans = vec![
        Span::styled("syntap", palette.title()),
        Span::raw(format!(" on {} up {} ", clean(&f.now.host), uptime(f.now.uptime_ms))),
    ];
    if paused {
        spans.push(Span::styled(" paused ", Style::new().add_modifier(Modifier::REVERSED)));
        spans.push(Span::raw(" "));
    }
    spans.push(Span::styled(format!("{} ports {}", clock(f.now.ts_ns), clean(&f.now.ports)), DIM));
    Line::from(spans)
}

fn rates(f: &Figures, palette: &Palette) -> Line<'static> {
    if !f.has_rates() {
        let text = format!("handshakes {} so far; rates follow", f.now.handshakes);
        return Line::from(text);
    }
    let (failed, attempts) = (f.rate(|v| v.failed), f.rate(|v| v.attempts));
    let share = if attempts > 0.0 { failed / attempts * 100.0 } else { 0.0 };
    Line::from(vec![
        Span::raw("handshakes "),
        Span::styled(
            format!("{}/s", short(f.rate(|v| v.handshakes))),
            Style::new().add_modifier(Modifier::BOLD),
        ),
        Span::raw("  failed "),
        Span::styled(format!("{}/s {share:.1} %", short(failed)), palette.bad(share >= 1.0)),
        Span::raw(format!("  resets {}/s  flows {}", short(f.rate(|v| v.resets)), count(f.now.flows.0))),
        Span::styled(format!(" of {}", count(f.now.flows.1)), DIM),
    ])
}

fn latency(f: &Figures, palette: &Palette, width: u16) -> Line<'static> {
    // A second without handshakes says nothing; the minute does.
    let (of, what) =
        if f.now.latency.count > 0 { (f.now.latency, "1 s") } else { (f.now.latency_minute, "1 min") };
    if of.count == 0 {
        return Line::styled("SYN to SYN-ACK: none in the last minute", DIM);
    }
    let all = |l: &Latency| {
        [("median", l.median_us), ("p95", l.p95_us), ("p99", l.p99_us), ("max", l.max_us)]
            .map(|(name, us)| (name, us, ms(us)))
    };
    let mut spans = vec![Span::raw(format!("SYN-ACK {what}: "))];
    for (name, us, text) in all(&of) {
        // From a second on a SYN was sent again.
        spans.push(Span::raw(format!("{name} ")));
        spans.push(Span::styled(format!("{text} "), palette.bad(us >= 1_000_000)));
    }
    spans.push(Span::raw("ms"));
    if what == "1 s" && width >= 78 {
        let minute = &f.now.latency_minute;
        let text = format!("  1 min: p99 {} max {}", ms(minute.p99_us), ms(minute.max_us));
        spans.push(Span::styled(text, DIM));
    }
    Line::from(spans)
}

/// Handshakes a second over time, the latest at the right.
fn history(f: &Figures, palette: &Palette, width: u16) -> Line<'static> {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = f.history.iter().copied().fold(0.0, f64::max);
    let label = format!("0-{}/s ", short(most));
    let columns = usize::from(width).saturating_sub(label.len());
    let bars = f.history.iter().skip(f.history.len().saturating_sub(columns));
    let bar = |n: &f64| if most > 0.0 { BARS[((n / most * 7.0).round() as usize).min(7)] } else { BARS[0] };
    Line::from(vec![
        Span::styled(label, DIM),
        Span::styled(bars.map(bar).collect::<String>(), palette.of(Color::Green)),
    ])
}

/// A cell of this width, cut, to the left.
fn left(text: &str, width: usize) -> String {
    let cut: String = clean(text).chars().take(width).collect();
    format!("{cut:<width$} ")
}

/// The same to the right.
fn right(text: &str, width: usize) -> String {
    format!("{text:>width$} ")
}

fn interface_rows(f: &Figures, palette: &Palette, width: u16) -> Vec<Line<'static>> {
    let wide = width >= 76;
    let mut head = left("INTERFACE", 15) + &left("ROLE", 7) + &left("", 4) + &right("PKT/S", 7);
    head += &right("HANDSH/S", 8);
    head += &right("FAIL %", 6);
    if wide {
        head += &(right("MIRROR/S", 8) + &right("SHED/S", 7) + &right("RST/S", 6));
    }
    let mut rows = vec![Line::styled(head, DIM)];
    for (n, i) in f.now.interfaces.iter().enumerate() {
        let rate = |of: fn(&crate::telemetry::view::Interface) -> u64| f.rate_at(n, of);
        let (attempts, failed) = (rate(|i| i.attempts), rate(|i| i.failed));
        let share = if attempts > 0.0 { failed / attempts * 100.0 } else { 0.0 };
        let mut spans = vec![
            Span::raw(left(&i.name, 15) + &left(&i.role, 7)),
            Span::styled(left(&i.state, 4), palette.bad(i.state != "up")),
            Span::raw(right(&short(rate(|i| i.packets)), 7)),
            Span::raw(right(&short(rate(|i| i.handshakes)), 8)),
            Span::styled(right(&format!("{share:.1}"), 6), palette.bad(share >= 1.0)),
        ];
        if wide {
            let shed = rate(|i| i.shed);
            spans.push(Span::raw(right(&short(rate(|i| i.mirrored)), 8)));
            spans.push(Span::styled(right(&short(shed), 7), palette.bad(shed > 0.0)));
            spans.push(Span::raw(right(&short(rate(|i| i.resets)), 6)));
        }
        rows.push(Line::from(spans));
    }
    rows
}

fn responder_rows(f: &Figures, palette: &Palette, width: u16) -> Vec<Line<'static>> {
    let name = usize::from(width.saturating_sub(46)).clamp(21, 46);
    let head = left("WORST RESPONDERS", name) + &right("1 MIN", 7) + &right("TOTAL", 8) + "MOST OFTEN";
    let mut rows = vec![Line::styled(head, DIM)];
    if f.now.responders.is_empty() {
        rows.push(Line::styled("none has an anomaly above info", DIM));
    }
    for r in &f.now.responders {
        rows.push(Line::from(vec![
            Span::raw(left(&r.at, name)),
            Span::styled(right(&count(r.recent), 7), palette.bad(r.recent > 0)),
            Span::raw(right(&count(r.total), 8)),
            Span::raw(clean(&r.kind)),
        ]));
    }
    rows
}

fn anomalies(f: &Figures, palette: &Palette, height: u16, width: u16) -> Vec<Line<'static>> {
    let [info, warning, error] = f.now.anomalies;
    let mut head = vec![
        Span::styled("ANOMALIES ", DIM),
        Span::styled(format!("{} error", count(error)), palette.bad(error > 0)),
        Span::raw(format!(" {} warning {} info", count(warning), count(info))),
    ];
    if f.now.events_passed_over > 0 {
        head.push(Span::styled(
            format!("; {} came too fast to be shown", count(f.now.events_passed_over)),
            DIM,
        ));
    }
    let room = usize::from(height).saturating_sub(1);
    let mut rows = vec![Line::from(head)];
    if f.events.is_empty() {
        rows.push(Line::styled("none yet", DIM));
    }
    // The latest is first: the eye is there already.
    rows.extend(f.events.iter().rev().take(room).map(|e| event(e, palette, width)));
    rows
}

fn event(e: &Event, palette: &Palette, width: u16) -> Line<'static> {
    let kind = if width >= 60 { left(&e.kind, 21) } else { left(&e.kind, 14) };
    Line::from(vec![
        Span::styled(format!("{} ", clock(e.ts_ns)), DIM),
        Span::styled(kind, palette.severity(&e.severity)),
        Span::raw(clean(&e.summary)),
    ])
}

/// What the tap costs and loses.
fn own(f: &Figures, palette: &Palette, width: u16) -> Line<'static> {
    let own = &f.now.own;
    let cpu = f.rate(|v| v.own.cpu_us) / 1e4;
    let lost = own.dropped + own.missed;
    let mut spans = vec![
        Span::styled("TAP ", DIM),
        Span::raw(format!("cpu {cpu:.1} % mem {} ", bytes(own.memory_bytes))),
        Span::styled(format!("dropped {} missed {} ", own.dropped, own.missed), palette.bad(lost > 0)),
    ];
    if own.given_up > 0 {
        spans.push(Span::styled(format!("given up {} ", own.given_up), palette.bad(true)));
    }
    if own.records_lost > 0 {
        spans.push(Span::styled(format!("records lost {} ", own.records_lost), palette.bad(true)));
    }
    spans.push(Span::raw(format!("records {} {} ", count(own.records), bytes(own.shard_bytes))));
    let (queue, share) = &own.queue;
    let filled = format!("{} {:.0} %", clean(queue), share * 100.0);
    // As many words as there is room for.
    let room = usize::from(width).saturating_sub(spans.iter().map(Span::width).sum());
    let words = [format!("fullest queue: {filled}"), format!("queue {filled}")];
    let text = words.into_iter().find(|w| w.len() <= room).unwrap_or(filled);
    spans.push(Span::styled(text, palette.bad(*share > 0.8)));
    Line::from(spans)
}

fn keys(f: &Figures, palette: &Palette) -> Line<'static> {
    match &f.trouble {
        Some(why) => {
            let text = format!("{}; the figures are {} s old", clean(why), f.age().as_secs());
            Line::styled(text, palette.bad(true))
        }
        None => Line::styled("q quit  p pause", DIM),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::View;
    use crate::telemetry::view::{Interface, Responder};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn view(seconds: u64) -> View {
        let interface = |name: &str| Interface {
            name: name.into(),
            role: "outside".into(),
            state: "up".into(),
            packets: seconds * 123_456,
            attempts: seconds * 100,
            failed: seconds * 10,
            ..Interface::default()
        };
        let event = |number| Event {
            number,
            ts_ns: number * 1_000_000_000,
            kind: "syn_lost_in_gateway".into(),
            severity: "error".into(),
            summary: format!(
                "number {number} \x1b[31m and a long sentence that goes on and on and on and on"
            ),
            ..Event::default()
        };
        let latency = Latency { count: 5, median_us: 210, p95_us: 900, p99_us: 12_300, max_us: 1_034_000 };
        View {
            host: "gw1".into(),
            uptime_ms: seconds * 1_000,
            handshakes: seconds * 90,
            attempts: seconds * 100,
            failed: seconds * 10,
            latency,
            latency_minute: latency,
            interfaces: (0..4).map(|n| interface(&format!("eth{n}"))).collect(),
            responders: (1..9)
                .map(|n| Responder { at: format!("192.0.2.{n}:443"), recent: 9 - n, ..Responder::default() })
                .collect(),
            events: (1..=seconds).map(event).collect(),
            anomalies: [1, 2, 12_345],
            own: crate::telemetry::view::Own {
                records: 2,
                queue: ("notices".into(), 0.0),
                ..Default::default()
            },
            ..View::default()
        }
    }

    fn screen(f: &Figures, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, f, &Palette { colour: true }, false)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let row = |y| (0..width).map(|x| buffer[(x, y)].symbol().to_owned()).collect::<String>();
        (0..height).map(row).collect()
    }

    fn after(seconds: u64) -> Figures {
        let mut f = Figures::new(view(1));
        (2..=seconds).for_each(|s| f.look(Ok(view(s))));
        f
    }

    #[test]
    fn eighty_by_twenty_four_holds_all_that_matters() {
        let lines = screen(&after(30), 80, 24);
        let all = lines.join("\n");
        for part in [
            "syntap on gw1 up 00:00:30",
            "handshakes 90/s  failed 10/s 10.0 %",
            "median 0.21 p95 0.90 p99 12.3 max 1034 ms",
            "eth3            outside up      123k",
            "WORST RESPONDERS",
            "192.0.2.1:443",
            "ANOMALIES",
            "syn_lost_in_gateway   number 30",
            "ANOMALIES 12.3k error 2 warning 1 info",
            "TAP cpu 0.0 %",
            "records 2 0 kB queue notices 0 %",
            "q quit",
        ] {
            assert!(all.contains(part), "'{part}' is not in\n{all}");
        }
        assert!(!all.contains('\x1b'), "what the wire sends steers no terminal");
        let (newest, older) = (all.find("number 30").unwrap(), all.find("number 29").unwrap());
        assert!(newest < older, "the latest anomaly is first");
    }

    #[test]
    fn any_size_is_drawn_and_the_first_lines_stay() {
        let (young, old) = (Figures::new(View::default()), after(40));
        for (width, height) in [(1, 1), (3, 2), (20, 5), (40, 12), (79, 23), (500, 200), (80, 7), (10, 60)] {
            screen(&young, width, height);
            let lines = screen(&old, width, height);
            assert!(lines[0].starts_with(&"syntap on gw1"[..usize::from(width.min(13))]), "{width}x{height}");
        }
        assert!(screen(&old, 100, 24)[22].contains("fullest queue: notices 0 %"));
        let narrow = screen(&old, 40, 16).join("\n");
        assert!(
            narrow.contains("eth0") && narrow.contains("syn_lost_in_ga") && narrow.contains("q quit"),
            "{narrow}"
        );
    }

    #[test]
    fn without_colour_there_is_none() {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| draw(frame, &after(9), &Palette { colour: false }, true)).unwrap();
        let buffer = terminal.backend().buffer();
        assert!(buffer.content().iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
    }

    #[test]
    fn a_tap_that_is_gone_is_said_with_the_age_of_what_is_seen() {
        let mut f = after(3);
        f.look(Err("no syntap answers at 127.0.0.1:9477: refused".into()));
        let lines = screen(&f, 80, 24);
        assert!(lines[23].contains("no syntap answers") && lines[23].contains("0 s old"), "{}", lines[23]);
    }
}
