//! A minute of `tools/soak`: traffic and faults without pause, and what must be true of the tap at the end. Longer ones: docs/soak.md.

mod common;

use std::process::Command;

use common::{is_root, root};

#[test]
fn root_a_minute_of_faults_disturbs_no_traffic_and_each_is_told() {
    if !is_root() {
        return;
    }
    let mut soak = Command::new("python3");
    soak.arg(root().join("tools/soak")).args(["--minutes", "1", "--seed", "135"]);
    let out = soak.args(["--syntap", env!("CARGO_BIN_EXE_syntap")]).output().expect("python3");
    let said = [out.stdout, out.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).join("\n");
    assert!(out.status.success(), "{said}");
    assert!(said.contains("| ok |"), "{said}");
}
