//! Shards get onto the disk without stalling who writes them, and the oldest make room.

mod common;
mod net;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant, SystemTime};

use common::{run, syntap};
use syntap::pipeline::{Disk, Keeper};
use syntap::record::{
    Record, Removed, Retention, ShardFile, ShardOptions, ShardWriter, read_shard, shard_paths,
};

/// A disk on which a sync hangs until it is told not to, and may fail then.
#[derive(Default)]
struct Hanging {
    works: Mutex<Option<bool>>,
    changed: Condvar,
    asked: AtomicU64,
}

impl Hanging {
    fn go_on(&self, well: bool) {
        *self.works.lock().expect("nobody panicked") = Some(well);
        self.changed.notify_all();
    }
}

struct Hung(Arc<Hanging>);

impl Disk for Hung {
    fn sync(&mut self, file: &ShardFile) -> io::Result<()> {
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        let works = self.0.works.lock().expect("nobody panicked");
        let works = self.0.changed.wait_while(works, |works| works.is_none()).expect("nobody panicked");
        match *works {
            Some(true) => file.sync(),
            _ => Err(io::Error::from_raw_os_error(libc::EIO)),
        }
    }

    fn tidy(&mut self) -> (Removed, io::Result<()>) {
        (Removed::default(), Ok(()))
    }
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(120), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn numbers(dir: &Path) -> Vec<u64> {
    let mut seen = Vec::new();
    for path in shard_paths(&[dir.to_owned()]).expect("listed") {
        let state = read_shard(&path, &mut |r| seen.push(r.ts_ns)).expect("read");
        assert!(state.is_whole(), "{path:?}: {state:?}");
    }
    seen
}

#[test]
fn records_are_written_while_a_sync_hangs_and_shards_are_closed() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = Arc::new(Hanging::default());
    let (keeper, sync) = Keeper::start(Hung(disk.clone())).expect("a thread");
    // Each frame fills a shard.
    let options = ShardOptions { max_bytes: 1, ..ShardOptions::default() };
    let mut w = ShardWriter::create(dir.path(), "gw", options).expect("created");
    w.sync_by(sync);
    let base = common::a_record();
    let mut write = |n: u64| {
        w.push(&Record { ts_ns: n, ..base.clone() }).expect("taken");
        w.flush();
    };
    write(0);
    until("the disk is asked", || disk.asked.load(Ordering::SeqCst) == 1);
    // It hangs from here on. More shards are closed than can wait for it.
    (1..100).for_each(&mut write);
    assert_eq!(numbers(dir.path()), (0..100).collect::<Vec<_>>(), "all can be read");
    assert_eq!(disk.asked.load(Ordering::SeqCst), 1, "it still hangs");
    let left = keeper.totals().left.load(Ordering::SeqCst);
    assert!(left > 0, "some found no room to wait, and that is counted");
    disk.go_on(true);
    w.close().expect("closed");
    let totals = keeper.finish();
    assert!(totals.sync_error().is_none());
    assert_eq!(disk.asked.load(Ordering::SeqCst) + left, 100, "all others are on the disk");
}

#[test]
fn a_file_waits_once_and_a_sync_that_fails_is_known_at_the_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = Arc::new(Hanging::default());
    let (keeper, sync) = Keeper::start(Hung(disk.clone())).expect("a thread");
    let mut w = ShardWriter::create(dir.path(), "gw", ShardOptions::default()).expect("created");
    w.sync_by(sync);
    let base = common::a_record();
    for n in 0..200 {
        w.push(&Record { ts_ns: n, ..base.clone() }).expect("taken");
        w.flush();
    }
    disk.go_on(false);
    w.close().expect("all is written");
    let totals = keeper.finish();
    assert_eq!(totals.sync_error().and_then(io::Error::raw_os_error), Some(libc::EIO));
    assert_eq!(totals.left.load(Ordering::SeqCst), 0, "frames of one file do not fill the ring");
    assert_eq!(numbers(dir.path()).len(), 200);
}

#[test]
fn a_shard_that_somebody_removes_is_not_written_on_and_a_new_one_is_begun() {
    let own = tempfile::tempdir().expect("a directory");
    let dir = own.path().join("records");
    fs::create_dir(&dir).expect("made");
    let mut w = ShardWriter::create(&dir, "gw", ShardOptions::default()).expect("created");
    let base = common::a_record();
    let write = |w: &mut ShardWriter, n: u64| {
        w.push(&Record { ts_ns: n, ..base.clone() }).expect("taken");
        w.flush();
    };
    let remove = || {
        shard_paths(std::slice::from_ref(&dir))
            .expect("listed")
            .iter()
            .for_each(|p| fs::remove_file(p).expect("removed"));
    };
    write(&mut w, 1);
    remove();
    write(&mut w, 2);
    assert_eq!((w.removed(), numbers(&dir)), (1, vec![2]));

    // Where nothing is to be written the next tick finds out.
    remove();
    until("a new shard is begun", || {
        w.tick();
        shard_paths(std::slice::from_ref(&dir)).expect("listed").len() == 1
    });
    assert_eq!(w.removed(), 2);

    // The whole directory: what comes meanwhile is kept.
    fs::remove_dir_all(&dir).expect("removed");
    until("it is in trouble", || {
        w.tick();
        w.trouble().1.is_some()
    });
    write(&mut w, 3);
    assert_eq!(w.trouble().1.map(io::Error::kind), Some(io::ErrorKind::NotFound));
    fs::create_dir(&dir).expect("made");
    write(&mut w, 4);
    assert!(w.trouble().1.is_none());
    w.close().expect("closed");
    assert_eq!(numbers(&dir), [3, 4]);
}

/// Shards of a host, each with so many records, all written an hour apart up to now.
fn shards(dir: &Path, host: &str, records: &[u64]) -> Vec<PathBuf> {
    let base = common::a_record();
    let now = SystemTime::now();
    let mut paths = Vec::new();
    for (n, &count) in records.iter().enumerate() {
        let own = tempfile::tempdir().expect("a directory");
        let mut w = ShardWriter::create(own.path(), host, ShardOptions::default()).expect("created");
        (0..count).for_each(|ts_ns| w.push(&Record { ts_ns, ..base.clone() }).expect("taken"));
        w.close().expect("closed");
        let from = shard_paths(&[own.path().to_owned()]).expect("listed").remove(0);
        let to = dir.join(format!("syntap-{host}-20261124T{n:02}0000Z-0000.jsonl.zst"));
        std::fs::copy(from, &to).expect("copied");
        let hours = (records.len() - 1 - n) as u64;
        let written = now - Duration::from_secs(3_600 * hours);
        File::options().write(true).open(&to).expect("there").set_modified(written).expect("set");
        paths.push(to);
    }
    paths
}

fn there(paths: &[PathBuf]) -> Vec<bool> {
    paths.iter().map(|p| p.exists()).collect()
}

#[test]
fn the_oldest_shards_of_a_host_make_room_by_size() {
    let dir = tempfile::tempdir().expect("a directory");
    let own = shards(dir.path(), "gw", &[5, 6, 7, 8]);
    let others = shards(dir.path(), "gw2", &[5, 5]);
    let stranger = dir.path().join("syntap-gw-notes.jsonl.zst");
    std::fs::write(&stranger, [0; 10_000]).expect("written");
    let sizes: Vec<u64> = own.iter().map(|p| std::fs::metadata(p).expect("there").len()).collect();
    let keep = |bytes: u64| Retention { max_bytes: Some(bytes), max_age: None };
    let apply = |r: Retention| r.apply(dir.path(), "gw", SystemTime::now());

    let (removed, result) = apply(keep(sizes.iter().sum()));
    assert_eq!((removed, there(&own)), (Removed::default(), vec![true; 4]), "they fit");
    result.expect("nothing failed");
    let (removed, _) = apply(keep(sizes[2..].iter().sum()));
    assert_eq!(removed, Removed { shards: 2, bytes: sizes[0] + sizes[1], records: 11 });
    assert_eq!(there(&own), [false, false, true, true]);
    // The newest stays, however little may.
    let (removed, _) = apply(keep(1));
    assert_eq!((removed.records, there(&own)), (7, vec![false, false, false, true]));
    assert!(there(&others).iter().all(|t| *t) && stranger.exists(), "what is not its own stays");
    assert_eq!(apply(Retention::default()).0, Removed::default());
}

#[test]
fn shards_make_room_by_age_and_one_that_is_written_stays() {
    let dir = tempfile::tempdir().expect("a directory");
    let own = shards(dir.path(), "gw", &[5, 6, 7, 8]);
    let mut w = ShardWriter::create(dir.path(), "gw", ShardOptions::default()).expect("created");
    w.begin_first().expect("begun");
    // Somebody else writes the oldest.
    let file = File::open(&own[0]).expect("there");
    let lock = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive).expect("locked");
    let keep = Retention { max_bytes: None, max_age: Some(Duration::from_secs(5_400)) };
    let (removed, result) = keep.apply(dir.path(), "gw", SystemTime::now());
    result.expect("nothing failed");
    assert_eq!((removed.shards, removed.records), (1, 6));
    assert_eq!(there(&own), [true, false, true, true]);
    drop(lock);
    assert_eq!(keep.apply(dir.path(), "gw", SystemTime::now()).0.records, 5, "now it may go");
    // Its time is that of the clock: all but the one that is written.
    let later = SystemTime::now() + Duration::from_secs(1_000_000);
    assert_eq!(keep.apply(dir.path(), "gw", later).0.shards, 2);
    w.close().expect("closed");
    assert_eq!(shard_paths(&[dir.path().to_owned()]).expect("listed").len(), 1);
}

#[test]
fn root_a_run_removes_what_is_too_old_and_says_so() {
    if net::skip("root_a_run_removes_what_is_too_old_and_says_so") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let host = nix::unistd::gethostname().expect("a name").to_string_lossy().into_owned();
    let host: String =
        host.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' }).collect();
    let own = shards(dir.path(), &host, &[5, 6, 7]);
    let kib = std::fs::metadata(&own[0]).expect("there").len().div_ceil(1_024);
    let wire = net::Wire::new();
    let out = wire.near.run(|| {
        run(syntap()
            .args([
                "run",
                "--user",
                "root",
                "-i",
                "near",
                "--duration",
                "1",
                "--status",
                "0",
                "--keep-age",
                "90m",
                "-w",
            ])
            .arg(dir.path()))
    });
    assert_eq!(there(&own), [false, true, true]);
    let said = String::from_utf8_lossy(&out.stderr);
    let size = format!("1 shard, {kib} KiB, 5 records removed");
    assert!(
        said.contains(&format!("{size} to make room")) && said.contains(&format!("shards     {size}")),
        "{said}"
    );
}

#[test]
fn the_trial_file_follows_no_link_that_somebody_put_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let victim = dir.path().join("victim");
    std::fs::write(&victim, "kept").expect("written");
    let records = dir.path().join("records");
    std::fs::create_dir(&records).expect("made");
    let probe = records.join(format!(".syntap-probe-{}", std::process::id()));
    std::os::unix::fs::symlink(&victim, &probe).expect("linked");
    drop(ShardWriter::create(&records, "gw", ShardOptions::default()).expect("it can write there"));
    assert_eq!(std::fs::read_to_string(&victim).expect("readable"), "kept");
    assert!(!probe.is_symlink(), "and it is gone");
}
