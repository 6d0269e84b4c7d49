//! Compiles `bpf/syntap.bpf.c` into an object that the library embeds, `bpf/bench.bpf.c` into one that `examples/meter` does, and what
//! tests measure the first against.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::exit;

use libbpf_cargo::SkeletonBuilder;

/// Sources, and the objects' names in `OUT_DIR`. The last is the tests' own; a published package may lack it.
const SOURCES: [(&str, &str); 3] = [
    ("bpf/syntap.bpf.c", "syntap.bpf.o"),
    ("bpf/bench.bpf.c", "bench.bpf.o"),
    ("tests/bpf/floor.bpf.c", "floor.bpf.o"),
];

fn main() {
    println!("cargo:rerun-if-changed=bpf");
    println!("cargo:rerun-if-changed=tests/bpf");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets the target");

    // Debian and its kin keep <asm/types.h> under the multiarch name, where a BPF target does not look.
    let mut args: Vec<OsString> = vec!["-I".into(), format!("/usr/include/{arch}-linux-gnu").into()];
    // v3: 32-bit compares and subtractions; in every kernel that has tcx or AF_XDP with BTF.
    args.extend(["-mcpu=v3", "-Wall", "-Wextra", "-Werror"].map(OsString::from));

    for (source, object) in SOURCES.iter().filter(|(source, _)| Path::new(source).exists()) {
        if let Err(e) =
            SkeletonBuilder::new().source(source).obj(out.join(object)).clang_args(args.clone()).build()
        {
            eprintln!("cannot compile {source}: {e:?}");
            eprintln!("hint: apt install clang llvm libelf-dev zlib1g-dev linux-libc-dev");
            exit(1);
        }
    }
}
