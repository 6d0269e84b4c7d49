//! What is measured at one moment: families of samples, and their text.
//!
//! The text is OpenMetrics 1.0, or Prometheus' older format (0.0.4), which is what node_exporter's textfile collector and
//! `promtool check metrics` read. The two differ in what a counter is called in its `HELP` and `TYPE`, and in the last line.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

/// Upper bounds of a time's buckets, microseconds: a LAN's handshakes take tens, a continent's hundreds of thousands, and a SYN that was
/// sent again one, three or seven million.
pub const BOUNDS_US: [u64; 18] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 60_000_000,
];

/// What a sample says.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    Count(u64),
    /// Any number.
    Number(f64),
    /// Many times.
    Times(Times),
}

/// A histogram of times that only grows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Times {
    /// How many fell into each bucket of [`BOUNDS_US`], and, last, how many were longer.
    counts: [u64; BOUNDS_US.len() + 1],
    sum_us: u128,
}

impl Times {
    /// Adds `count` times of `us` microseconds.
    pub fn add(&mut self, us: u64, count: u64) {
        self.counts[BOUNDS_US.partition_point(|&bound| bound < us)] += count;
        self.sum_us += u128::from(us) * u128::from(count);
    }

    /// How many.
    pub fn len(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A family's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, from the start of the run.
    Counter,
    /// It is what it is now.
    Gauge,
    /// Of times.
    Histogram,
}

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Labels and what they are.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: Value,
}

/// Samples of one name.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// The name, without `_total`.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// The type.
    pub kind: Kind,
    /// The samples; none is a family that is left out.
    pub samples: Vec<Sample>,
}

/// How the text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus 0.0.4.
    Prometheus,
}

impl Form {
    /// The content type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Form::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Form::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    families: Vec<Family>,
}

impl Page {
    /// Adds a sample to a family, which is begun with its first one.
    fn add(
        &mut self,
        kind: Kind,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        value: Value,
    ) {
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let sample = Sample { labels, value };
        match self.families.iter_mut().find(|f| f.name == name) {
            Some(family) => family.samples.push(sample),
            None => self.families.push(Family { name, help, kind, samples: vec![sample] }),
        }
    }

    /// A counter; `name` is without `_total`.
    pub fn counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        value: u64,
    ) {
        self.add(Kind::Counter, name, help, labels, Value::Count(value));
    }

    /// A counter of seconds.
    pub fn seconds(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        value: f64,
    ) {
        self.add(Kind::Counter, name, help, labels, Value::Number(value));
    }

    /// A gauge.
    pub fn gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        value: f64,
    ) {
        self.add(Kind::Gauge, name, help, labels, Value::Number(value));
    }

    /// A histogram.
    pub fn times(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        value: &Times,
    ) {
        self.add(Kind::Histogram, name, help, labels, Value::Times(value.clone()));
    }

    /// All families, in the order in which they were begun.
    pub fn families(&self) -> &[Family] {
        &self.families
    }

    /// As text.
    pub fn text(&self, form: Form) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.clone()));
        let mut text = String::new();
        // A string takes whatever is written.
        let _ = text::encode(&mut text, &registry);
        match form {
            Form::OpenMetrics => text,
            Form::Prometheus => self.older(&text),
        }
    }

    /// OpenMetrics as the older format: counters have their full names in what describes them.
    fn older(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len() + 1024);
        let is_counter = |name: &str| self.families.iter().any(|f| f.name == name && f.kind == Kind::Counter);
        for line in text.lines().filter(|l| *l != "# EOF") {
            let described = ["# HELP ", "# TYPE "].into_iter().find_map(|word| {
                let (name, rest) = line.strip_prefix(word)?.split_once(' ')?;
                is_counter(name).then(|| format!("{word}{name}_total {rest}"))
            });
            out.push_str(described.as_deref().unwrap_or(line));
            out.push('\n');
        }
        out
    }
}

/// Of exemplars, which there are none of.
type NoLabels = [(&'static str, &'static str); 0];

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in &self.families {
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let mut family_encoder = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for sample in &family.samples {
                let labels: Vec<(&str, &str)> = sample.labels.iter().map(|(n, v)| (*n, v.as_str())).collect();
                let mut encoder = family_encoder.encode_family(&labels)?;
                match &sample.value {
                    Value::Count(n) if family.kind == Kind::Counter => {
                        encoder.encode_counter::<NoLabels, u64, f64>(n, None)?;
                    }
                    Value::Number(n) if family.kind == Kind::Counter => {
                        encoder.encode_counter::<NoLabels, f64, f64>(n, None)?;
                    }
                    Value::Count(n) => encoder.encode_gauge(&(*n as f64))?,
                    Value::Number(n) => encoder.encode_gauge(n)?,
                    Value::Times(times) => {
                        let bounds = BOUNDS_US.iter().map(|&us| us as f64 / 1e6).chain([f64::INFINITY]);
                        let buckets: Vec<(f64, u64)> = bounds.zip(times.counts).collect();
                        encoder.encode_histogram::<NoLabels>(
                            times.sum_us as f64 / 1e6,
                            times.len(),
                            &buckets,
                            None,
                        )?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Page {
        let mut page = Page::default();
        page.counter("syntap_dropped_packets", "Lost.", &[("cause", "ring_full")], 3);
        page.counter("syntap_dropped_packets", "Lost.", &[("cause", "a \"b\"\\\n")], u64::MAX);
        page.gauge("syntap_flows", "Open.", &[], 7.0);
        let mut times = Times::default();
        times.add(50, 2);
        times.add(51, 1);
        times.add(u64::from(u32::MAX), 1);
        page.times("syntap_handshake_seconds", "Long.", &[("interface", "eth0")], &times);
        page
    }

    #[test]
    fn both_forms_say_the_same_in_their_own_way() {
        let open = page().text(Form::OpenMetrics);
        let older = page().text(Form::Prometheus);
        assert!(open.ends_with("# EOF\n") && !older.contains("EOF"));
        assert!(open.contains("# TYPE syntap_dropped_packets counter\n"), "{open}");
        assert!(older.contains("# TYPE syntap_dropped_packets_total counter\n"), "{older}");
        assert!(older.contains("# HELP syntap_dropped_packets_total Lost.\n"), "{older}");
        for text in [&open, &older] {
            for line in [
                "syntap_dropped_packets_total{cause=\"ring_full\"} 3\n",
                "syntap_dropped_packets_total{cause=\"a \\\"b\\\"\\\\\\n\"} 18446744073709551615\n",
                "syntap_flows 7",
                "syntap_handshake_seconds_bucket{le=\"0.00005\",interface=\"eth0\"} 2\n",
                "syntap_handshake_seconds_bucket{le=\"0.0001\",interface=\"eth0\"} 3\n",
                "syntap_handshake_seconds_bucket{le=\"60.0\",interface=\"eth0\"} 3\n",
                "syntap_handshake_seconds_bucket{le=\"+Inf\",interface=\"eth0\"} 4\n",
                "syntap_handshake_seconds_count{interface=\"eth0\"} 4\n",
            ] {
                assert!(text.contains(line), "{line} in {text}");
            }
        }
    }
}
