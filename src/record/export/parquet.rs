//! Records as Parquet: a column for each field under its name, nested ones nested, zstd.
//!
//! `time` is a timestamp in microseconds, which every engine reads; the `_ns` columns hold what it drops, as signed 64-bit numbers.
//! `facts` is a map from name to text, for each kind has its own: a list is JSON text in it, null is null. `packets` is a list of
//! structs. Rows are gathered and written as a row group when they fill 32 MiB or are 262,144: memory is bounded by that.

use std::io::{self, Write};
use std::sync::Arc;

use ::parquet::basic::{Compression, Encoding, ZstdLevel};
use ::parquet::data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type};
use ::parquet::errors::ParquetError;
use ::parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesPtr};
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use ::parquet::schema::types::{ColumnPath, SchemaDescriptor, Type, TypePtr};
use bytes::Bytes;
use serde_json::Value;

use crate::record::{Nat, PacketRecord, Record};

/// Bytes gathered for a row group.
const GROUP_BYTES: usize = 32 << 20;

/// Rows of a row group at most.
const GROUP_ROWS: u64 = 262_144;

/// A file with no more rows than this is compressed harder: it takes but a moment.
const SMALL: u64 = 16_384;

/// zstd's level of such a file, and of others.
const SMALL_LEVEL: i32 = 19;
const GROUP_LEVEL: i32 = 9;

const SCHEMA: &str = "
message record {
  required binary kind (STRING); required binary severity (STRING); required binary verdict (STRING);
  required binary certainty (STRING); required binary summary (STRING);
  required int64 time (TIMESTAMP(MICROS,true)); required int64 ts_ns; required int64 first_ns; required int64 last_ns;
  optional int64 mono_ns; required int64 count;
  required binary host (STRING); optional binary interface (STRING); optional binary role (STRING);
  optional binary direction (STRING);
  optional binary src_ip (STRING); optional int32 src_port (INTEGER(16,false));
  optional binary dst_ip (STRING); optional int32 dst_port (INTEGER(16,false));
  optional int32 vlan (INTEGER(16,false));
  optional group tunnel {
    required binary kind (STRING); required int32 id (INTEGER(32,false));
    required binary src_ip (STRING); required binary dst_ip (STRING);
  }
  optional binary community_id (STRING);
  optional group nat {
    required binary src_ip (STRING); required int32 src_port (INTEGER(16,false));
    required binary dst_ip (STRING); required int32 dst_port (INTEGER(16,false));
  }
  optional binary history (STRING); optional binary conn_state (STRING);
  required group facts (MAP) { repeated group key_value { required binary key (STRING); optional binary value (STRING); } }
  PACKETS
  optional group loss { required int64 drops; required int64 misses; }
}";

const PACKETS: &str = "
  required group packets (LIST) { repeated group list { required group element {
    required int64 ts_ns; required binary interface (STRING); optional binary direction (STRING); required binary from (STRING);
    optional binary src_mac (STRING); optional binary dst_mac (STRING); required binary flags (STRING);
    required int32 seq (INTEGER(32,false)); required int32 ack (INTEGER(32,false)); required int32 win (INTEGER(16,false));
    required int32 len (INTEGER(32,false)); required int32 ttl (INTEGER(8,false)); required int32 ip_id (INTEGER(16,false));
    optional int32 tsval (INTEGER(32,false)); optional int32 tsecr (INTEGER(32,false));
    optional int32 mss (INTEGER(16,false)); optional int32 wscale (INTEGER(8,false));
    optional group tuple {
      required binary src_ip (STRING); required int32 src_port (INTEGER(16,false));
      required binary dst_ip (STRING); required int32 dst_port (INTEGER(16,false));
    }
  } } }";

/// See the module.
pub struct ParquetExport<W: Write + Send> {
    /// Where it goes, until the first row group; `None` from then on.
    waiting: Option<W>,
    to: Option<SerializedFileWriter<W>>,
    schema: TypePtr,
    leaves: Vec<Leaf>,
    rows: u64,
    packets: bool,
}

/// Values of one column, with what Parquet says of nesting beside them.
#[derive(Default)]
struct Leaf {
    ints: Vec<i32>,
    longs: Vec<i64>,
    text: Vec<u8>,
    /// Where each text ends.
    ends: Vec<usize>,
    def: Vec<i16>,
    rep: Vec<i16>,
    most_def: i16,
    most_rep: i16,
}

impl Leaf {
    fn bytes(&self) -> usize {
        self.text.len()
            + 4 * self.ints.len()
            + 8 * (self.longs.len() + self.ends.len())
            + 2 * (self.def.len() + self.rep.len())
    }

    fn level(&mut self, def: i16, rep: i16) {
        if self.most_def > 0 {
            self.def.push(def);
        }
        if self.most_rep > 0 {
            self.rep.push(rep);
        }
    }
}

/// A value on its way into a column.
enum Cell<'a> {
    Int(u32),
    Long(u64),
    Text(&'a str),
}

/// Fills the columns in their order.
struct Row<'a> {
    leaves: std::slice::IterMut<'a, Leaf>,
    rep: i16,
    /// Levels above an optional field: those of a list that holds something.
    base: i16,
}

impl Row<'_> {
    /// The next column's value, or that it is null at `def`.
    fn put(&mut self, value: Result<Cell<'_>, i16>) {
        let Some(leaf) = self.leaves.next() else { return };
        match value {
            Ok(cell) => {
                match cell {
                    Cell::Int(n) => leaf.ints.push(n as i32),
                    Cell::Long(n) => leaf.longs.push(i64::try_from(n).unwrap_or(i64::MAX)),
                    Cell::Text(t) => {
                        leaf.text.extend_from_slice(t.as_bytes());
                        leaf.ends.push(leaf.text.len());
                    }
                }
                leaf.level(leaf.most_def, self.rep);
            }
            Err(def) => leaf.level(def, self.rep),
        }
    }

    fn text(&mut self, t: &str) {
        self.put(Ok(Cell::Text(t)));
    }

    fn int(&mut self, n: impl Into<u32>) {
        self.put(Ok(Cell::Int(n.into())));
    }

    fn long(&mut self, n: u64) {
        self.put(Ok(Cell::Long(n)));
    }

    fn text_or_null(&mut self, t: Option<&str>) {
        self.put(t.map(Cell::Text).ok_or(self.base));
    }

    fn int_or_null(&mut self, n: Option<impl Into<u32>>) {
        self.put(n.map(|n| Cell::Int(n.into())).ok_or(self.base));
    }

    fn long_or_null(&mut self, n: Option<u64>) {
        self.put(n.map(Cell::Long).ok_or(self.base));
    }

    fn tuple_or_null(&mut self, t: Option<&Nat>) {
        let text = |ip: std::net::IpAddr| ip.to_string();
        self.text_or_null(t.map(|t| text(t.src_ip)).as_deref());
        self.int_or_null(t.map(|t| t.src_port));
        self.text_or_null(t.map(|t| text(t.dst_ip)).as_deref());
        self.int_or_null(t.map(|t| t.dst_port));
    }
}

fn other(e: ParquetError) -> io::Error {
    match e {
        ParquetError::External(e) => match e.downcast::<io::Error>() {
            Ok(io) => *io,
            Err(e) => io::Error::other(e),
        },
        e => io::Error::other(e),
    }
}

fn schema(packets: bool) -> io::Result<TypePtr> {
    let text = SCHEMA.replace("PACKETS", if packets { PACKETS } else { "" });
    parse_message_type(&text).map(Arc::new).map_err(other)
}

fn properties(schema: &Type, level: i32) -> io::Result<WriterPropertiesPtr> {
    let level = ZstdLevel::try_new(level).map_err(other)?;
    let mut p = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        // An index of a row group's few pages would be a tenth of a small file.
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true)
        .set_created_by(concat!("syntap ", env!("CARGO_PKG_VERSION")).into());
    // Times follow each other; identifiers and sentences hardly recur as a whole.
    for name in ["time", "ts_ns", "first_ns", "last_ns", "mono_ns"] {
        let path = ColumnPath::from(name);
        p = p
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
    }
    for path in [
        &["summary"][..],
        &["community_id"],
        &["src_port"],
        &["nat", "src_port"],
        &["facts", "key_value", "value"],
    ] {
        let path: Vec<String> = path.iter().map(|p| (*p).to_owned()).collect();
        p = p.set_column_dictionary_enabled(ColumnPath::from(path), false);
    }
    // Least and greatest, by which engines pass over a row group.
    for name in
        ["kind", "time", "ts_ns", "first_ns", "last_ns", "host", "src_ip", "src_port", "dst_ip", "dst_port"]
    {
        p = p.set_column_statistics_enabled(ColumnPath::from(name), EnabledStatistics::Chunk);
    }
    if schema.get_fields().iter().any(|f| f.name() == "packets") {
        let path = ColumnPath::from(["packets", "list", "element", "ts_ns"].map(str::to_owned).to_vec());
        p = p
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
    }
    Ok(Arc::new(p.build()))
}

impl<W: Write + Send> ParquetExport<W> {
    /// Begins a file; without the column `packets` if that is not wanted.
    pub fn new(to: W, packets: bool) -> io::Result<ParquetExport<W>> {
        let schema = schema(packets)?;
        let descr = SchemaDescriptor::new(schema.clone());
        let leaves = descr.columns().iter().map(|c| Leaf {
            most_def: c.max_def_level(),
            most_rep: c.max_rep_level(),
            ..Leaf::default()
        });
        let leaves = leaves.collect();
        Ok(ParquetExport { waiting: Some(to), to: None, schema, leaves, rows: 0, packets })
    }

    /// Takes a record; writes a row group when enough have come.
    pub fn push(&mut self, r: &Record) -> io::Result<()> {
        let mut row = Row { leaves: self.leaves.iter_mut(), rep: 0, base: 0 };
        [&*r.kind, &*r.severity, &*r.verdict, &*r.certainty, &*r.summary]
            .into_iter()
            .for_each(|t| row.text(t));
        [r.ts_ns / 1_000, r.ts_ns, r.first_ns, r.last_ns].into_iter().for_each(|n| row.long(n));
        row.long_or_null(r.mono_ns);
        row.long(r.count);
        row.text(&r.host);
        row.text_or_null(r.interface.as_deref());
        row.text_or_null(r.role.as_deref());
        row.text_or_null(r.direction.as_deref());
        row.text_or_null(r.src_ip.map(|ip| ip.to_string()).as_deref());
        row.int_or_null(r.src_port);
        row.text_or_null(r.dst_ip.map(|ip| ip.to_string()).as_deref());
        row.int_or_null(r.dst_port);
        row.int_or_null(r.vlan);
        let t = r.tunnel.as_ref();
        row.text_or_null(t.map(|t| t.kind.as_str()));
        row.int_or_null(t.map(|t| t.id));
        row.text_or_null(t.map(|t| t.src_ip.to_string()).as_deref());
        row.text_or_null(t.map(|t| t.dst_ip.to_string()).as_deref());
        row.text_or_null(r.community_id.as_deref());
        row.tuple_or_null(r.nat.as_ref());
        row.text_or_null(r.history.as_deref());
        row.text_or_null(r.conn_state.as_deref());
        let Row { mut leaves, .. } = row;
        facts(&mut leaves, r);
        if self.packets {
            packets(&mut leaves, r);
        }
        let mut row = Row { leaves, rep: 0, base: 0 };
        row.long_or_null(r.loss.map(|l| l.drops));
        row.long_or_null(r.loss.map(|l| l.misses));
        self.rows += 1;
        // What is gathered is added up now and then: a record is far below a hundredth of it.
        let full = self.rows.is_multiple_of(256)
            && self.leaves.iter().map(Leaf::bytes).sum::<usize>() >= GROUP_BYTES;
        if full || self.rows == GROUP_ROWS { self.flush(GROUP_LEVEL) } else { Ok(()) }
    }

    /// Begins the file, if it is not yet.
    fn begin(&mut self, level: i32) -> io::Result<()> {
        if let Some(to) = self.waiting.take() {
            let properties = properties(&self.schema, level)?;
            self.to = Some(SerializedFileWriter::new(to, self.schema.clone(), properties).map_err(other)?);
        }
        Ok(())
    }

    fn flush(&mut self, level: i32) -> io::Result<()> {
        self.begin(level)?;
        let Some(to) = self.to.as_mut().filter(|_| self.rows > 0) else { return Ok(()) };
        self.rows = 0;
        let mut group = to.next_row_group().map_err(other)?;
        for leaf in &mut self.leaves {
            let Some(mut column) = group.next_column().map_err(other)? else { break };
            let def = (leaf.most_def > 0).then_some(leaf.def.as_slice());
            let rep = (leaf.most_rep > 0).then_some(leaf.rep.as_slice());
            let written = match column.untyped() {
                ::parquet::column::writer::ColumnWriter::Int32ColumnWriter(_) => {
                    column.typed::<Int32Type>().write_batch(&leaf.ints, def, rep)
                }
                ::parquet::column::writer::ColumnWriter::Int64ColumnWriter(_) => {
                    column.typed::<Int64Type>().write_batch(&leaf.longs, def, rep)
                }
                _ => {
                    let all = Bytes::from(std::mem::take(&mut leaf.text));
                    let begins = std::iter::once(0).chain(leaf.ends.iter().copied());
                    let texts: Vec<ByteArray> =
                        begins.zip(&leaf.ends).map(|(a, b)| ByteArray::from(all.slice(a..*b))).collect();
                    column.typed::<ByteArrayType>().write_batch(&texts, def, rep)
                }
            };
            written.map_err(other)?;
            column.close().map_err(other)?;
            let Leaf { most_def, most_rep, .. } = *leaf;
            *leaf = Leaf { most_def, most_rep, ..Leaf::default() };
        }
        group.close().map(|_| ()).map_err(other)
    }

    /// Writes the rest and the footer.
    pub fn finish(mut self) -> io::Result<()> {
        let level = if self.rows <= SMALL { SMALL_LEVEL } else { GROUP_LEVEL };
        self.flush(level)?;
        let Some(to) = self.to else { return Ok(()) };
        to.into_inner().map_err(other)?.flush()
    }
}

type Leaves<'a> = std::slice::IterMut<'a, Leaf>;

/// The two columns of a map.
fn facts(leaves: &mut Leaves<'_>, r: &Record) {
    let (Some(key), Some(value)) = (leaves.next(), leaves.next()) else { return };
    if r.facts.is_empty() {
        key.level(0, 0);
        value.level(0, 0);
    }
    for (n, (name, v)) in r.facts.iter().enumerate() {
        let rep = i16::from(n > 0);
        Row { leaves: std::slice::from_mut(key).iter_mut(), rep, base: 1 }.text(name);
        let text = match v {
            Value::Null => None,
            Value::String(s) => Some(s.clone()),
            v => Some(v.to_string()),
        };
        Row { leaves: std::slice::from_mut(value).iter_mut(), rep, base: 1 }.text_or_null(text.as_deref());
    }
}

/// Columns of a packet.
const PACKET_COLUMNS: usize = 21;

fn packets(leaves: &mut Leaves<'_>, r: &Record) {
    let all = std::mem::take(leaves).into_slice();
    let (own, rest) = all.split_at_mut(PACKET_COLUMNS.min(all.len()));
    *leaves = rest.iter_mut();
    if r.packets.is_empty() {
        own.iter_mut().for_each(|l| l.level(0, 0));
    }
    for (n, p) in r.packets.iter().enumerate() {
        packet(Row { leaves: own.iter_mut(), rep: i16::from(n > 0), base: 1 }, p);
    }
}

fn packet(mut row: Row<'_>, p: &PacketRecord) {
    row.long(p.ts_ns);
    row.text(&p.interface);
    row.text_or_null(p.direction.as_deref());
    row.text(&p.from);
    row.text_or_null(p.src_mac.as_deref());
    row.text_or_null(p.dst_mac.as_deref());
    row.text(&p.flags);
    row.int(p.seq);
    row.int(p.ack);
    row.int(p.win);
    row.int(p.len);
    row.int(p.ttl);
    row.int(p.ip_id);
    row.int_or_null(p.tsval);
    row.int_or_null(p.tsecr);
    row.int_or_null(p.mss);
    row.int_or_null(p.wscale);
    row.tuple_or_null(p.tuple.as_ref());
}
