//! Compiles `bpf/syntap.bpf.c` into an object that the library embeds, and `bpf/bench.bpf.c` into one that `examples/meter` does.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::exit;

use libbpf_cargo::SkeletonBuilder;

const SOURCES: [(&str, &str); 2] = [("bpf/syntap.bpf.c", "syntap.bpf.o"), ("bpf/bench.bpf.c", "bench.bpf.o")];

fn main() {
    println!("cargo:rerun-if-changed=bpf");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets the target");

    // Debian and its kin keep <asm/types.h> under the multiarch name, where a BPF target does not look.
    let mut args: Vec<OsString> = vec!["-I".into(), format!("/usr/include/{arch}-linux-gnu").into()];
    // v3: 32-bit compares and subtractions; in every kernel that has tcx or AF_XDP with BTF.
    args.extend(["-mcpu=v3", "-Wall", "-Wextra", "-Werror"].map(OsString::from));

    for (source, object) in SOURCES {
        let built = SkeletonBuilder::new().source(source).obj(out.join(object)).clang_args(&args).build();
        if let Err(e) = built {
            eprintln!("cannot compile {source}: {e:?}");
            eprintln!("hint: apt install clang llvm libelf-dev zlib1g-dev linux-libc-dev");
            exit(1);
        }
    }
}
