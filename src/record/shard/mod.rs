//! Shards: sequences of self-contained zstd frames of JSON lines.
//!
//! A head stands before each frame (in a skippable frame, so that `zstdcat` reads a shard as it is) and says how long the frame is,
//! how many records it holds, of what time, and how many came before it in the shard. Head and frame have a checksum each. So a
//! reader tells a whole frame from a torn one without trusting it, passes over what it does not want without reading it, and says
//! how much is missing. A frame is appended by one write; one that fails is cut off again: a shard cut anywhere loses its last
//! frame at most.
//!
//! | file | what |
//! | --- | --- |
//! | `head` | what stands before a frame, in all versions |
//! | `walk` | from head to head, over what is damaged |
//! | `reader` | frames, forwards and backwards, chosen by time |
//! | `read` | records, and what was lost |
//! | `merge` | records of many shards in order of time, both ways |
//! | `follow` | records as they are written |
//! | `names` | names of shards, and their order |
//! | `file` | the file of a shard that is written, and its way onto the disk |
//! | `retain` | which shards make room |
//! | `writer` | records into frames into shards |

mod file;
mod follow;
mod head;
mod merge;
mod names;
mod read;
mod reader;
mod retain;
mod walk;
mod writer;

use std::io;
use std::path::PathBuf;

pub use file::ShardFile;
pub use follow::Follower;
pub use merge::{Merged, Stored, Wanted};
pub use names::shard_paths;
pub use read::{ShardState, read_bytes, read_from, read_lines, read_shard};
pub use reader::{Closing, Frame, FrameAt, Frames, Index, ShardReader, Unpacker};
pub use retain::{Removed, Retention};
pub use walk::Lost;
pub use writer::{LostRecords, ShardOptions, ShardWriter, SyncBy};

/// Why shards cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShardError {
    /// A file or directory operation failed.
    #[error("cannot {operation} {path}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// Records are gone for good.
    #[error("{records} {} could not be written into {path}: {source}", if *.records == 1 { "record" } else { "records" })]
    Lost {
        /// How many.
        records: u64,
        /// The directory.
        path: PathBuf,
        /// Why the last of them could not be written.
        source: io::Error,
    },
}

impl ShardError {
    /// The way out, if one is known.
    pub fn hint(&self) -> Option<String> {
        let (ShardError::Io { path, source, .. } | ShardError::Lost { path, source, .. }) = self;
        match source.raw_os_error() {
            Some(libc::ENOENT) => Some(format!("mkdir -p {}", path.display())),
            Some(libc::ENOTDIR) => Some("a directory is wanted".into()),
            Some(libc::ENOSPC | libc::EDQUOT) => {
                Some("make room on that file system, or write elsewhere".into())
            }
            Some(libc::EACCES | libc::EROFS) => Some("choose a directory that can be written to".into()),
            _ => None,
        }
    }
}
