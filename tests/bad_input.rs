//! Bad input: a message with a hint, exit code 2, nothing half-written, nothing left attached.

mod common;

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};

use common::packet::{ACK, RST, SYN, Tcp, pcap};
use common::{copy_syntap, corpus, is_root, root, syntap};

fn fails(command: &mut Command, message: &str, hint: &str) -> Output {
    let out = command.output().expect("the program starts");
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(2), "{command:?}: {err}");
    assert!(err.contains(message), "{command:?} says: {err}");
    assert!(err.contains(hint), "{command:?} says: {err}");
    out
}

fn syns(n: u64) -> Vec<u8> {
    let packets: Vec<(u64, Vec<u8>)> = (0..n)
        .map(|i| {
            let tcp = Tcp {
                src: ([192, 0, 2, 1].into(), 1024 + i as u16),
                dst: ([192, 0, 2, 2].into(), 80),
                flags: SYN,
                seq: i as u32,
                ack: 0,
                win: 1,
                options: vec![],
                payload: 0,
                ttl: 64,
                id: 1,
            };
            (1_000_000 * i, tcp.frame())
        })
        .collect();
    pcap(&packets)
}

#[test]
fn a_file_that_is_no_capture_is_refused_with_a_reason() {
    let cargo = root().join("Cargo.toml");
    fails(syntap().arg("replay").arg(&cargo), "neither pcap nor pcapng", "hint: ");
    fails(
        syntap().args(["replay", "/nonexistent.pcap"]),
        "cannot open /nonexistent.pcap",
        "hint: look at the path",
    );
    fails(syntap().arg("replay").arg(root()), "not a regular file", "");
    let dir = tempfile::tempdir().expect("a directory");
    let empty = dir.path().join("empty.pcap");
    std::fs::write(&empty, b"").expect("written");
    fails(syntap().arg("replay").arg(&empty), "too short", "hint: ");
    let whole = syns(1);
    std::fs::write(&empty, &whole[..10]).expect("written");
    fails(syntap().arg("replay").arg(&empty), "file header is cut", "hint: ");
    std::fs::write(&empty, b"\x0a\x0d\x0d\x0a\xff\xff\0\0\x4d\x3c\x2b\x1a\x01\0\0\0").expect("written");
    fails(syntap().arg("replay").arg(&empty), "its section header claims 65535 bytes", "hint: ");
}

#[test]
fn captures_that_their_owners_call_unreadable_are_refused() {
    for (file, why) in [
        ("libpcap__linktype-reserved-field-not-zero.pcap", "reserved bits"),
        ("libpcap__pcapng-invalid-vers-1.pcapng", "version"),
        ("libpcap__shb-option-too-long.pcapng", "option"),
    ] {
        let Some(path) = corpus(file) else { return };
        fails(syntap().arg("replay").arg(&path), why, "");
    }
}

#[test]
fn a_cut_capture_is_read_up_to_the_cut_and_says_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("cut.pcap");
    let whole = syns(3);
    for cut in (24..whole.len()).step_by(7) {
        std::fs::write(&path, &whole[..cut]).expect("written");
        let out = syntap().arg("replay").arg(&path).output().expect("the program starts");
        let err = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(0), "{err}");
        let packet = (whole.len() - 24) / 3;
        let read = (cut - 24) / packet;
        assert!(err.contains(&format!("packets    {read}:")), "cut at {cut}: {err}");
        assert_eq!(err.contains("the file is cut"), (cut - 24) % packet != 0, "cut at {cut}: {err}");
    }
}

#[test]
fn a_missing_directory_or_a_file_in_its_place_is_said_before_anything_is_done() {
    let capture = root().join("tests/captures/time-wait-reuse.pcap");
    let dir = tempfile::tempdir().expect("a directory");
    let missing = dir.path().join("none");
    fails(
        syntap().args(["replay", "-w"]).arg(&missing).arg(&capture),
        "cannot write records into",
        "hint: mkdir -p",
    );
    assert!(!missing.exists());
    fails(syntap().args(["replay", "-w"]).arg(&capture).arg(&capture), "Not a directory", "hint: ");
    fails(
        syntap().args(["run", "--sandbox", "auto", "-i", "lo", "-w"]).arg(&missing),
        "cannot write records into",
        "hint: mkdir -p",
    );
}

#[test]
fn wrong_words_name_the_flag_and_the_way_out() {
    let capture = root().join("tests/captures/time-wait-reuse.pcap");
    for ports in ["0", "80-70", "http", "80,,443", "70000"] {
        let out = fails(syntap().args(["replay", "-p", ports]).arg(&capture), "--ports", "");
        assert!(out.stdout.is_empty());
    }
    for (args, message, hint) in [
        (&["run", "-i", "", "-w", "."][..], "an interface without a name", "hint: write -i eth0"),
        (&["run", "-i", "lo", "-i", "lo=span", "-w", "."], "interface lo is named twice", "hint: "),
        (&["run", "-i", "lo=inside,lo=outside", "-w", "."], "interface lo is named twice", "hint: "),
        (&["run", "-i", "lo"], "syntap: the following required", "hint: syntap run --help"),
        (&["run", "-i", "lo", "-w", ".", "--budget", "0"], "the budget '0' is no number from 100", "hint: "),
        (
            &["run", "-i", "lo", "-w", ".", "--sandbox", "auto", "--max-flows", "1000000000"],
            "MiB of memory, and",
            "hint: --max-flows",
        ),
        (&["replay", "-p", "0", "f"], "port 0 is not a port", "hint: ports begin at 1"),
        (&["rpelay"], "syntap: unrecognized subcommand 'rpelay'", "hint: "),
    ] {
        fails(syntap().args(args), message, hint);
    }
    for help in ["--help", "--version"] {
        let out = syntap().arg(help).output().expect("it starts");
        assert!(out.status.success() && out.stderr.is_empty() && !out.stdout.is_empty(), "{help}");
    }
    fails(syntap().args(["explain", "syn_refuse"]), "no kind 'syn_refuse'", "syn_refused");
    fails(syntap().args(["show", "--kind", "nonsense", "."]), "no such kind", "");
    fails(syntap().args(["show", "/nonexistent"]), "No such file", "");
    fails(syntap().args(["report", "/nonexistent"]), "No such file", "");
    fails(syntap().args(["show"]).arg(root().join("Cargo.toml")), "nothing there can be read", "");
    let dir = tempfile::tempdir().expect("a directory");
    fails(syntap().arg("show").arg(dir.path()), "no shards", "hint: ");
    fails(
        syntap().args(["run", "-i", "eth0=sideways", "-w"]).arg(dir.path()),
        "unknown role",
        "inside, outside or span",
    );
}

#[test]
fn root_an_unknown_interface_or_the_loopback_is_refused_with_the_names_there_are() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    fails(
        syntap().args(["run", "--user", "root", "-i", "nosuch0", "-w"]).arg(dir.path()),
        "no interface nosuch0",
        "hint: ",
    );
    // Whose name is that? The file's, unless the command line has another one.
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "interface = \"nosuch1\"").expect("written");
    let named = format!("no interface nosuch1 (with {})", file.path().display());
    let by_file = |more: &[&str]| {
        let mut command = syntap();
        command.args(["run", "--user", "root", "-w"]).arg(dir.path()).arg("--config").arg(file.path());
        command.args(more);
        command
    };
    fails(&mut by_file(&[]), &named, "hint: interfaces here");
    fails(&mut by_file(&["-i", "nosuch2"]), "no interface nosuch2\n", "hint: ");
    fails(
        syntap().args(["run", "--user", "root", "-i", "lo", "-w"]).arg(dir.path()),
        "it is the loopback",
        "hint: tap the interface",
    );
    assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 0, "nothing half-written");
}

#[test]
fn root_without_root_it_says_what_it_needs() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777))
        .expect("mode set");
    // Somebody without any privilege, who may read neither root's home nor the build's folder: run a copy.
    let copy = dir.path().join("syntap");
    copy_syntap(&copy);
    let mut command = Command::new(&copy);
    command.args(["run", "--sandbox", "auto", "-i", "eth0", "-w"]).arg(dir.path()).uid(65534).gid(65534);
    fails(&mut command, "", "hint: ");
}

#[test]
fn root_a_full_disk_is_named_and_leaves_whole_frames_only() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mount = Mount::small(dir.path());
    // The file system has no room at all: found before anything is done.
    let mut filler = std::fs::File::create(dir.path().join("filler")).expect("created");
    while std::io::Write::write_all(&mut filler, &[1; 4096]).is_ok() {}
    let capture = root().join("tests/captures/time-wait-reuse.pcap");
    fails(syntap().args(["replay", "-w"]).arg(dir.path()).arg(&capture), "No space left", "hint: make room");
    let left: Vec<_> =
        std::fs::read_dir(dir.path()).expect("a directory").flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["filler"], "nothing half-written");
    drop(mount);
}

#[test]
fn root_a_disk_that_fills_up_during_a_replay_is_said_once_and_counts_what_is_lost() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let capture = dir.path().join("refused.pcap");
    let packets: Vec<(u64, Vec<u8>)> = (0..6_000u64)
        .map(|i| {
            let client = ([192, 0, 2, 1].into(), 1024 + (i / 2) as u16);
            let server = ([192, 0, 2, 2].into(), 2000 + (i / 2) as u16);
            let (win, options, payload, ttl, id) = (1, vec![], 0, 64, 1);
            let isn = (i as u32 / 2).wrapping_mul(0x9e37_79b9);
            let tcp = match i % 2 {
                0 => Tcp {
                    src: client,
                    dst: server,
                    flags: SYN,
                    seq: isn,
                    ack: 0,
                    win,
                    options,
                    payload,
                    ttl,
                    id,
                },
                _ => Tcp {
                    src: server,
                    dst: client,
                    flags: RST | ACK,
                    seq: 0,
                    ack: isn.wrapping_add(1),
                    win,
                    options,
                    payload,
                    ttl,
                    id,
                },
            };
            (1_000_000 * i, tcp.frame())
        })
        .collect();
    std::fs::write(&capture, pcap(&packets)).expect("written");
    let at = dir.path().join("records");
    std::fs::create_dir(&at).expect("made");
    let mount = Mount::small(&at);
    let out = fails(
        syntap().args(["replay", "-w"]).arg(&at).arg(&capture),
        "records could not be written into",
        "hint: make room",
    );
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(err.matches("syntap: cannot write records into").count(), 1, "at once, and once: {err}");
    assert!(err.contains("anomalies"), "the summary: {err}");
    let last = err.lines().rev().nth(1).expect("a message and a hint");
    assert_eq!(last.matches("No space left").count(), 1, "{err}");
    drop(mount);
}

/// A file system of 64 KiB.
struct Mount(std::path::PathBuf);

impl Mount {
    fn small(at: &std::path::Path) -> Mount {
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("none"), at, Some("tmpfs"), flags, Some("size=64k,mode=700"))
            .expect("mounted");
        Mount(at.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = nix::mount::umount(&self.0);
    }
}
