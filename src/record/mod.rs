//! Records: the on-disk form of anomalies, and the shards that hold them.

mod coalesce;
mod community_id;
mod connection;
pub mod export;
mod figures;
mod json;
mod model;
mod shard;

pub use coalesce::Coalescer;
pub use community_id::community_id;
pub use connection::ConnectionRecord;
pub use figures::{FIGURES, FigureSet, bucket, milliseconds, quantile};
pub use model::{Context, Interface, Loss, Nat, PacketRecord, Record, SCHEMA, TunnelRecord, Word, rfc3339};
pub use shard::{
    Closing, Follower, Frame, FrameAt, Frames, Index, Lost, LostRecords, Merged, Removed, Retention,
    ShardError, ShardFile, ShardOptions, ShardReader, ShardState, ShardWriter, Stored, SyncBy, Unpacker,
    Wanted, read_bytes, read_from, read_lines, read_shard, shard_paths,
};
