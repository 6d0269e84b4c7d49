//! Names of shards: `syntap-HOST-TIME-SEQUENCE.jsonl.zst`.

use std::collections::HashSet;
use std::path::PathBuf;

use super::ShardError;

/// The host's part of a shard's name; `None` if it is not one.
pub fn host_of(name: &str) -> Option<&str> {
    let mut parts = name.strip_prefix("syntap-")?.strip_suffix(".jsonl.zst")?.split('-');
    let (host, time, sequence) = (parts.next()?, parts.next()?, parts.next()?);
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let is_time = time.len() == 16
        && time.is_ascii()
        && digits(&time[..8])
        && &time[8..9] == "T"
        && digits(&time[9..15])
        && time.ends_with('Z');
    let is_sequence = sequence.len() >= 4 && digits(sequence);
    (is_time && is_sequence && parts.next().is_none()).then_some(host)
}

/// A host's name as it stands in those of its shards.
pub fn host_in_name(host: &str) -> String {
    host.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' }).collect()
}

/// Shards named on the command line: files as they are, directories as their shards in the order of their names. What is named twice
/// is there once.
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
    if args.len() > 1 {
        let mut seen = HashSet::new();
        paths.retain(|path| seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())));
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_shards_own_name_is_one() {
        assert_eq!(host_of("syntap-gw_1.example-20261124T141752Z-0000.jsonl.zst"), Some("gw_1.example"));
        assert_eq!(host_of("syntap-gw-20261124T141752Z-12345.jsonl.zst"), Some("gw"));
        for other in [
            "syntap-gw-20261124T141752Z-0000.jsonl",
            "syntap-gw-20261124T141752Z-000.jsonl.zst",
            "syntap-gw-old-20261124T141752Z-0000.jsonl.zst",
            "syntap-gw-20261124T141752-0000.jsonl.zst",
            "syntap-gw-2026112\u{e4}T141752Z-0000.jsonl.zst",
            "my-syntap-gw-20261124T141752Z-0000.jsonl.zst",
        ] {
            assert_eq!(host_of(other), None, "{other}");
        }
    }
}
