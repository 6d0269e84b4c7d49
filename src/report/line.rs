//! A record as far as a report needs it: read from a shard's line without its packets, its strings borrowed from the line.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::record::Nat;

/// A string of the line, copied only if it holds escapes.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// See the module. Fields as in [`crate::record::Record`].
#[derive(Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Line<'a> {
    #[serde(borrow)]
    pub kind: Text<'a>,
    pub severity: Text<'a>,
    pub verdict: Text<'a>,
    pub certainty: Text<'a>,
    pub first_ns: u64,
    pub last_ns: u64,
    pub count: u64,
    pub host: Text<'a>,
    pub interface: Option<Text<'a>>,
    pub role: Option<Text<'a>>,
    pub src_ip: Option<IpAddr>,
    pub src_port: Option<u16>,
    pub dst_ip: Option<IpAddr>,
    pub dst_port: Option<u16>,
    pub community_id: Option<Text<'a>>,
    pub nat: Option<Nat>,
    #[serde(borrow)]
    facts: &'a RawValue,
}

/// Facts that a report looks at. One of another type than expected is as good as none.
#[derive(Debug, Default, Deserialize)]
pub struct Facts<'a> {
    #[serde(borrow, default)]
    request: Option<&'a RawValue>,
    #[serde(borrow, default)]
    link: Option<&'a RawValue>,
    #[serde(borrow, default)]
    cause: Option<&'a RawValue>,
    #[serde(borrow, default)]
    source: Option<&'a RawValue>,
    #[serde(borrow, default)]
    count: Option<&'a RawValue>,
    #[serde(borrow, default)]
    packets: Option<&'a RawValue>,
    #[serde(borrow, default)]
    since_close_ms: Option<&'a RawValue>,
    #[serde(borrow, default)]
    suppressed: Option<&'a RawValue>,
    #[serde(borrow, default)]
    then: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    answered_after_ms: Option<&'a RawValue>,
}

/// Whatever stands there, a null too: that nothing came is an answer.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(d: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(d).map(Some)
}

/// The facts of a record of figures.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct FigureFacts {
    pub attempts: u64,
    pub handshakes: u64,
    pub failed: u64,
    pub resets: u64,
    pub max_us: Option<u64>,
    pub latencies: Vec<(u64, u64)>,
    pub filter: Option<String>,
    pub flags: BTreeMap<String, BTreeMap<String, u64>>,
}

fn of<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>) -> Option<T> {
    serde_json::from_str(raw?.get()).ok()
}

impl<'a> Line<'a> {
    /// Reads it; `None` if it is no record of this version.
    pub fn read(line: &'a [u8]) -> Option<Line<'a>> {
        serde_json::from_slice(line).ok()
    }

    /// Its facts.
    pub fn facts(&self) -> Facts<'a> {
        of(Some(self.facts)).unwrap_or_default()
    }

    /// Its facts, if it is a record of figures.
    pub fn figures(&self) -> FigureFacts {
        of(Some(self.facts)).unwrap_or_default()
    }
}

impl<'a> Facts<'a> {
    /// The address that it is about.
    pub fn request(&self) -> Option<Cow<'a, str>> {
        of::<Text<'a>>(self.request).map(|t| t.0)
    }

    /// The kind that it names as what lies behind it.
    pub fn link(&self) -> Option<Cow<'a, str>> {
        of::<Text<'a>>(self.link).map(|t| t.0)
    }

    /// What lost packets.
    pub fn cause(&self) -> Cow<'a, str> {
        of::<Text<'a>>(self.cause).map_or(Cow::Borrowed(""), |t| t.0)
    }

    /// Where.
    pub fn source(&self) -> Cow<'a, str> {
        of::<Text<'a>>(self.source).map_or(Cow::Borrowed(""), |t| t.0)
    }

    /// How many were lost.
    pub fn count(&self) -> u64 {
        of(self.count).unwrap_or(0)
    }

    /// How many were shed.
    pub fn packets(&self) -> u64 {
        of(self.packets).unwrap_or(0)
    }

    /// How old the tuple's last close was when it was used again.
    pub fn since_close_ms(&self) -> Option<f64> {
        of::<f64>(self.since_close_ms).filter(|ms| ms.is_finite() && *ms >= 0.0)
    }

    /// Whether the connection that it tells of opened in the end; `None` where it does not say.
    pub fn opened(&self) -> Option<bool> {
        let then = of::<Text<'a>>(self.then);
        match (then.as_ref().map(|t| t.0.as_ref()), self.answered_after_ms) {
            (Some("recovered"), _) => Some(true),
            (Some("gave_up"), _) => Some(false),
            (_, answered) => answered.map(|raw| raw.get() != "null"),
        }
    }

    /// Whether the record stands for others like it.
    pub fn is_sum(&self) -> bool {
        self.suppressed.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Context, FigureSet};

    #[test]
    fn a_line_is_read_without_a_copy_and_odd_facts_do_no_harm() {
        let r = FigureSet::default().record(&Context { host: "gw".into(), ..Context::default() });
        let mut bytes = Vec::new();
        r.write_line(&mut bytes);
        let line = Line::read(&bytes).expect("a record");
        assert!(matches!(line.kind.0, Cow::Borrowed("figures")) && line.host.0 == "gw");
        let text = String::from_utf8(bytes).expect("text");
        let odd = text
            .replace("\"attempts\":0", "\"request\":7,\"link\":[],\"cause\":\"\\u0061\\n\",\"count\":null");
        let line = Line::read(odd.as_bytes()).expect("a record");
        let facts = line.facts();
        assert_eq!((facts.request(), facts.link(), facts.count()), (None, None, 0));
        assert_eq!(facts.cause(), "a\n");
        assert!(Line::read(b"{}").is_none());
    }
}
