//! `--netns`: into another network namespace, before anything is looked at or attached.

use std::fs::File;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};

use super::Fail;

/// The file of a namespace: a name as `ip netns` knows it, or a path (`/proc/PID/ns/net` for a container's).
fn file_of(name: &str) -> PathBuf {
    if name.contains('/') { PathBuf::from(name) } else { Path::new("/run/netns").join(name) }
}

/// Goes into it. Threads made later are in it too, so call it before any is made.
pub fn enter(name: &str) -> Result<(), Fail> {
    let path = file_of(name);
    let cannot = |what: &str, e: &dyn std::fmt::Display| {
        Fail::new(format!("cannot {what} network namespace {}: {e}", path.display()))
            .hint("name one that `ip netns list` shows, or a file such as /proc/PID/ns/net; it needs root")
    };
    let file = File::open(&path).map_err(|e| cannot("open", &e))?;
    setns(file, CloneFlags::CLONE_NEWNET).map_err(|e| cannot("enter", &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_of_ip_netns_and_a_path_is_a_path() {
        assert_eq!(file_of("blue"), Path::new("/run/netns/blue"));
        assert_eq!(file_of("/proc/7/ns/net"), Path::new("/proc/7/ns/net"));
    }
}
