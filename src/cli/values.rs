//! Values on the command line with bounds, and whether this machine has the memory for them.

use std::time::Duration;

use super::Fail;
use crate::bpf::attach::HookKind;
use crate::capture::Transport;
use crate::flow::{Endpoint, Table};
use crate::pipeline::WorkerConfig;
use crate::track::Flow;

/// `--hook` of `run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum HookChoice {
    /// The better one that the kernel has.
    Auto,
    /// By bpf links.
    Tcx,
    /// By clsact filters.
    Classic,
}

impl HookChoice {
    /// The hook that it stands for, if it is one.
    pub fn meant(self) -> Option<HookKind> {
        match self {
            HookChoice::Auto => None,
            HookChoice::Tcx => Some(HookKind::Tcx),
            HookChoice::Classic => Some(HookKind::Classic),
        }
    }
}

/// `--transport` of `run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TransportChoice {
    /// A clone for each mirrored packet.
    Afxdp,
    /// A copy of its headers.
    Ringbuf,
    /// The cheaper one.
    Auto,
}

impl TransportChoice {
    /// The transport that it stands for.
    pub fn meant(self) -> Transport {
        match self {
            TransportChoice::Afxdp => Transport::Afxdp,
            TransportChoice::Ringbuf => Transport::Ringbuf,
            TransportChoice::Auto => Transport::default(),
        }
    }
}

fn between(text: &str, least: u64, most: u64, what: &str, hint: &str) -> Result<u64, Fail> {
    match text.parse::<u64>() {
        Ok(n) if (least..=most).contains(&n) => Ok(n),
        _ => Err(Fail::new(format!("{what} is a number from {least} to {most}")).hint(hint)),
    }
}

/// `--max-flows`.
pub fn max_flows(text: &str) -> Result<usize, Fail> {
    let flows = super::MAX_FLOWS;
    let worker = WorkerConfig { max_flows: flows, recorder: flows, ..WorkerConfig::default() };
    let (flow, all) = (Table::<Flow>::bytes_for_each(1 << 24, 0), worker.bytes() >> 20);
    let hint = format!(
        "a flow takes {flow} bytes; leave the option out for {flows} of them, {all} MiB with all that is kept beside them"
    );
    between(text, 64, 1 << 30, "the room for flows", &hint).map(|n| n as usize)
}

/// `--limit`.
pub fn limit(text: &str) -> Result<u64, Fail> {
    let least = text.parse::<u64>().ok().filter(|n| *n > 0);
    least.ok_or_else(|| {
        Fail::new("the limit is a whole number from 1 on").hint("leave the option out for all records")
    })
}

/// `--workers` of `run`.
pub fn workers(text: &str) -> Result<u16, Fail> {
    let hint = "one worker follows some million packets a second; leave the option out for one";
    between(text, 1, u64::from(crate::bpf::abi::RINGS), "the number of workers", hint).map(|n| n as u16)
}

/// `--conntrack-buffer`.
pub fn conntrack_buffer(text: &str) -> Result<usize, Fail> {
    let hint = "leave the option out for 32768";
    between(text, 4, 1 << 20, "the room for events in KiB", hint).map(|n| n as usize)
}

/// `--duration`.
pub fn duration(text: &str) -> Result<u64, Fail> {
    // A hundred years.
    let hint = "leave the option out to run until Ctrl-C";
    between(text, 1, 3_155_760_000, "the duration in seconds", hint)
}

/// `--keep-bytes`.
pub fn keep_bytes(text: &str) -> Result<u64, Fail> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let power =
        ["", "K", "M", "G", "T"].iter().position(|u| unit.trim_end_matches("iB").eq_ignore_ascii_case(u));
    let bytes = number.parse::<u64>().ok().zip(power).and_then(|(n, power)| n.checked_mul(1 << (10 * power)));
    match bytes {
        Some(bytes) if bytes >= KEEP_BYTES => Ok(bytes),
        Some(_) => Err(Fail::new("less than 16M holds no records worth keeping").hint("write 500M or 20G")),
        None => {
            Err(Fail::new(format!("'{text}' is no size")).hint("write 500M or 20G; these are powers of 1024"))
        }
    }
}

/// Least bytes to keep: shards of a quarter of that must hold some frames.
const KEEP_BYTES: u64 = 16 << 20;

/// `--keep-age`.
pub fn keep_age(text: &str) -> Result<Duration, Fail> {
    let hint = "write 12h or 30d";
    match span_of_time(text).and_then(|s| u64::try_from(s.as_secs()).ok()) {
        Some(seconds @ 60..) => Ok(Duration::from_secs(seconds)),
        Some(_) => Err(Fail::new("less than a minute keeps no records").hint(hint)),
        None => Err(Fail::new(format!("'{text}' is no length of time")).hint(hint)),
    }
}

/// `30s`, `1h30m`, `1d 12h`: seconds, minutes, hours, days, weeks.
pub fn span_of_time(text: &str) -> Option<jiff::SignedDuration> {
    let mut rest = text.trim();
    let mut seconds = 0i64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|n| *n > 0)?;
        let n: i64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].chars().next()?;
        let each = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return None,
        };
        seconds = seconds.checked_add(n.checked_mul(each)?)?;
        rest = rest[digits + unit.len_utf8()..].trim_start();
    }
    Some(jiff::SignedDuration::from_secs(seconds))
}

/// `--responder`.
pub fn responder(text: &str) -> Result<Endpoint, Fail> {
    match text.parse::<std::net::SocketAddr>() {
        Ok(at) if at.port() != 0 => Ok(Endpoint { addr: at.ip().into(), port: at.port() }),
        _ => Err(Fail::new(format!("'{text}' is no address and port"))
            .hint("write 198.51.100.2:443, or [2001:db8::2]:443")),
    }
}

/// Refuses to take more memory than there is: the kernel would give it, and kill somebody later.
pub fn has_memory(each: &WorkerConfig, workers: usize) -> Result<(), Fail> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = meminfo.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
    let available = available.and_then(|l| l.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    let wanted = each.bytes().saturating_mul(workers as u64);
    let Some(available) = available.map(|kib| kib * 1024).filter(|a| wanted > *a) else { return Ok(()) };
    let flows = each.max_flows as u64 * workers as u64;
    let fit = available / 2 / (wanted / flows.max(1)).max(1);
    let mib = |bytes: u64| bytes >> 20;
    let text =
        format!("{flows} flows take {} MiB of memory, and {} MiB are available", mib(wanted), mib(available));
    Err(Fail::new(text).hint(format!("--max-flows {fit} would take half of that")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_bounds_is_refused_with_the_bounds() {
        for (refused, bounds) in [
            (workers("0").unwrap_err(), "from 1 to 256"),
            (limit("0").unwrap_err(), "from 1 on"),
            (limit("-1").unwrap_err(), "from 1 on"),
            (workers("257").unwrap_err(), "from 1 to 256"),
            (max_flows("0").unwrap_err(), "from 64 to"),
            (max_flows("100000000000").unwrap_err(), "from 64 to"),
            (duration("0").unwrap_err(), "from 1 to"),
            (keep_bytes("15M").unwrap_err(), "less than 16M"),
            (keep_bytes("99999999999999T").unwrap_err(), "no size"),
            (keep_bytes("10 monkeys").unwrap_err(), "no size"),
            (keep_bytes("-1").unwrap_err(), "no size"),
            (keep_age("59s").unwrap_err(), "less than a minute"),
            (keep_age("10").unwrap_err(), "no length of time"),
        ] {
            let text = refused.to_string();
            assert!(text.contains(bounds) && text.contains("\nhint: "), "{text}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024_and_times_add_up() {
        for (text, bytes) in
            [("16777216", 16 << 20), ("500M", 500 << 20), ("20g", 20 << 30), ("2TiB", 2 << 40)]
        {
            assert_eq!(keep_bytes(text).expect(text), bytes);
        }
        for (text, seconds) in [("12h", 43_200), ("1d 12h", 129_600), ("90m", 5_400)] {
            assert_eq!(keep_age(text).expect(text).as_secs(), seconds);
        }
    }
}
