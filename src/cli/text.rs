//! Text for people: widths, colours, packets in tcpdump's words.

use std::net::IpAddr;

use serde_json::Value;

use crate::record::{PacketRecord, Record};

/// How to print.
pub struct Style {
    colour: bool,
    width: usize,
}

impl Style {
    /// Colour on a terminal unless `NO_COLOR` is set; the terminal's width, or 100 columns into a file.
    pub fn of_stdout(terminal: bool) -> Style {
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        let width = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok());
        Style { colour, width: width.unwrap_or(100).clamp(40, 160) }
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    fn code(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Emphasised.
    pub fn bold(&self, text: &str) -> String {
        self.code("1", text)
    }

    /// In the background.
    pub fn dim(&self, text: &str) -> String {
        self.code("2", text)
    }

    /// A severity in its colour.
    pub fn severity(&self, severity: &str) -> String {
        let code = match severity {
            "error" => "31",
            "warning" => "33",
            _ => "36",
        };
        self.code(code, severity)
    }
}

/// Words of `text` in lines of at most `width` columns; a longer word stands alone.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

/// A fact's value.
pub fn fact_text(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(s) => s.clone(),
        Value::Array(list) => list.iter().map(fact_text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// A packet as tcpdump prints it, with absolute numbers, the interface and the direction in front.
pub fn packet_line(p: &PacketRecord, r: &Record) -> String {
    let time = jiff::Timestamp::from_nanosecond(i128::from(p.ts_ns))
        .map_or_else(|_| p.ts_ns.to_string(), |t| t.strftime("%H:%M:%S%.6f").to_string());
    let end = |ip: Option<IpAddr>, port: Option<u16>| match ip {
        // tcpdump joins address and port with a dot.
        Some(ip) => format!("{ip}.{}", port.unwrap_or(0)),
        None => "?".into(),
    };
    let (orig, resp) = (end(r.src_ip, r.src_port), end(r.dst_ip, r.dst_port));
    let (from, to) = if p.from == "orig" { (orig, resp) } else { (resp, orig) };
    let way = match p.direction.as_deref() {
        Some("ingress") => " In ",
        Some("egress") => " Out",
        _ => "",
    };
    let family = if r.src_ip.is_some_and(|ip| ip.is_ipv6()) { "IP6" } else { "IP" };
    let seq = match p.len {
        _ if p.flags == "." && p.len == 0 => String::new(),
        0 => format!(", seq {}", p.seq),
        n => format!(", seq {}:{}", p.seq, p.seq.wrapping_add(n)),
    };
    let ack = if p.flags.contains('.') { format!(", ack {}", p.ack) } else { String::new() };
    let mut options = Vec::new();
    options.extend(p.mss.map(|m| format!("mss {m}")));
    options.extend(p.tsval.zip(p.tsecr).map(|(v, e)| format!("TS val {v} ecr {e}")));
    options.extend(p.wscale.map(|w| format!("wscale {w}")));
    let options =
        if options.is_empty() { String::new() } else { format!(", options [{}]", options.join(",")) };
    format!(
        "{time} {}{way} {family} {from} > {to}: Flags [{}]{seq}{ack}, win {}{options}, length {}",
        p.interface, p.flags, p.win, p.len
    )
}

#[cfg(test)]
mod tests {
    use super::wrap;

    #[test]
    fn words_are_wrapped_and_none_is_lost() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("incomprehensible x", 5), ["incomprehensible", "x"]);
        assert!(wrap("", 5).is_empty());
    }
}
