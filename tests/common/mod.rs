//! What several test files share. Each uses a part of it.
#![allow(dead_code)]

pub mod anomalies;
pub mod packet;
pub mod talk;
pub mod watched;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The program under test.
pub fn syntap() -> Command {
    Command::new(env!("CARGO_BIN_EXE_syntap"))
}

/// A copy of the program. By a process of its own: a descriptor that writes to it here would be inherited by what another test starts
/// meanwhile, and the kernel starts no program that somebody may write to.
pub fn copy_syntap(to: &Path) {
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_syntap")).arg(to).status();
    assert!(copied.expect("it runs").success());
}

/// The project's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Captures that others made, beside the project; `None`, said aloud, where they are absent.
pub fn corpus(file: &str) -> Option<PathBuf> {
    let path = root().join("../shared/corpus").join(file);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: the corpus is not beside the project ({})", path.display());
    None
}

/// True for root; says why a privileged test does not run otherwise.
pub fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped: needs root, for network namespaces and BPF");
    }
    root
}

/// Runs a command to its end and gives back its output; panics with its standard error if it fails.
pub fn run(command: &mut Command) -> Output {
    let out = command.output().expect("the program starts");
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    out
}

/// Standard output as JSON lines.
pub fn json_lines(out: &Output) -> Vec<Value> {
    let text = String::from_utf8(out.stdout.clone()).expect("output is text");
    text.lines().map(|l| serde_json::from_str(l).expect("each line is JSON")).collect()
}

/// The records of a replay.
pub fn replay(args: &[&str]) -> Vec<Value> {
    json_lines(&run(syntap().args(["replay", "--json"]).args(args)))
}

/// Records of one kind.
pub fn of_kind<'a>(records: &'a [Value], kind: &str) -> Vec<&'a Value> {
    records.iter().filter(|r| r["kind"] == kind).collect()
}

/// How many records are above `info`.
pub fn above_info(records: &[Value]) -> usize {
    records.iter().filter(|r| r["severity"] != "info").count()
}

/// Both ways into user space, as `--transport` has them.
pub const TRANSPORTS: [&str; 2] = ["ringbuf", "afxdp"];

/// ` --transport HOW` where the environment asks for one: the lab and the tests that tap by the command line heed it.
pub fn transport_option() -> String {
    std::env::var("SYNTAP_TRANSPORT").map_or_else(|_| String::new(), |how| format!(" --transport {how}"))
}

/// Runs a scenario of `tools/lab`; its ground truth.
pub fn lab(args: &[&str]) -> Value {
    lab_by(None, args)
}

/// The same with the lab's taps on a transport and by the hook of kernels without tcx.
pub fn lab_by_hook(transport: &str, args: &[&str]) -> Value {
    let mut command = Command::new("python3");
    command.arg(root().join("tools/lab")).args(args);
    let out = run(command.env("SYNTAP_TRANSPORT", transport).env("SYNTAP_HOOK", "classic"));
    serde_json::from_slice(&out.stdout).expect("the lab prints JSON")
}

/// The same with the lab's taps on a transport.
pub fn lab_by(transport: Option<&str>, args: &[&str]) -> Value {
    let mut command = Command::new("python3");
    command.arg(root().join("tools/lab")).args(args);
    let out = run(command.envs(transport.map(|how| ("SYNTAP_TRANSPORT", how))));
    serde_json::from_slice(&out.stdout).expect("the lab prints JSON")
}

/// A record of the host `gw`, with packets.
pub fn a_record() -> syntap::record::Record {
    let capture = root().join("tests/captures/time-wait-reuse.pcap").display().to_string();
    let records = replay(&["--host", "gw", &capture]);
    serde_json::from_value(records[0].clone()).expect("a record")
}
