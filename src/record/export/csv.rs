//! Records as CSV (RFC 4180): a header, flat columns under the records' names, nested fields as JSON text, null as nothing.

use std::io::{self, Write};

use serde::Serialize;

use crate::record::Record;

/// Columns in the order of a record's fields.
const COLUMNS: [&str; 28] = [
    "kind",
    "severity",
    "verdict",
    "certainty",
    "summary",
    "time",
    "ts_ns",
    "first_ns",
    "last_ns",
    "mono_ns",
    "count",
    "host",
    "interface",
    "role",
    "direction",
    "src_ip",
    "src_port",
    "dst_ip",
    "dst_port",
    "vlan",
    "tunnel",
    "community_id",
    "nat",
    "history",
    "conn_state",
    "facts",
    "packets",
    "loss",
];

/// See the module.
pub struct CsvExport<W: Write> {
    to: csv::Writer<W>,
    packets: bool,
}

impl<W: Write> CsvExport<W> {
    /// Writes the header; without the column `packets` if that is not wanted.
    pub fn new(to: W, packets: bool) -> io::Result<CsvExport<W>> {
        let mut to = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(to);
        let names = COLUMNS.iter().filter(|c| packets || **c != "packets");
        to.write_record(names).map_err(io::Error::from)?;
        Ok(CsvExport { to, packets })
    }

    /// Writes a record.
    pub fn push(&mut self, r: &Record) -> io::Result<()> {
        let word = |w: &Option<crate::record::Word>| w.as_deref().unwrap_or_default().to_owned();
        let mut row: Vec<String> = vec![
            r.kind.to_string(),
            r.severity.to_string(),
            r.verdict.to_string(),
            r.certainty.to_string(),
            r.summary.clone(),
            r.time.clone(),
            r.ts_ns.to_string(),
            r.first_ns.to_string(),
            r.last_ns.to_string(),
            text(r.mono_ns),
            r.count.to_string(),
            r.host.clone(),
            text(r.interface.as_ref()),
            text(r.role.as_ref()),
            word(&r.direction),
            text(r.src_ip),
            text(r.src_port),
            text(r.dst_ip),
            text(r.dst_port),
            text(r.vlan),
            json(r.tunnel.as_ref())?,
            text(r.community_id.as_ref()),
            json(r.nat.as_ref())?,
            text(r.history.as_ref()),
            word(&r.conn_state),
            json(Some(&r.facts))?,
        ];
        if self.packets {
            row.push(json(Some(&r.packets))?);
        }
        row.push(json(r.loss.as_ref())?);
        self.to.write_record(&row).map_err(io::Error::from)
    }

    /// Writes the rest.
    pub fn finish(mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn text<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(String::new, |v| v.to_string())
}

fn json<T: Serialize>(value: Option<&T>) -> io::Result<String> {
    Ok(value.map(serde_json::to_string).transpose()?.unwrap_or_default())
}
