//! Names of shards: `syntap-HOST-TIME-SEQUENCE.jsonl.zst`.

use std::path::PathBuf;

use super::ShardError;

/// Shards named on the command line: files as they are, directories as their shards in the order of their names.
pub fn shard_paths(args: &[PathBuf]) -> Result<Vec<PathBuf>, ShardError> {
    let mut paths = Vec::new();
    for arg in args {
        let failed = |source| ShardError::Io { operation: "read", path: arg.clone(), source };
        if !std::fs::metadata(arg).map_err(failed)?.is_dir() {
            paths.push(arg.clone());
            continue;
        }
        let mut own = Vec::new();
        for entry in std::fs::read_dir(arg).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            if name.starts_with("syntap-") && name.ends_with(".jsonl.zst") {
                own.push(path);
            }
        }
        own.sort();
        paths.extend(own);
    }
    Ok(paths)
}
