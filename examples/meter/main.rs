//! What `tools/bench` and `tools/nic-bench` measure with. Each command prints one JSON object on standard output.
//!
//! An example and not a part of syntap: it transmits, and counts its own allocations.

mod alloc;
mod forward;
mod generate;
mod kernel;
mod life;
mod limit;
mod pair;
mod programs;
mod receive;
mod steady;
mod thread;
mod trace;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

#[derive(Parser)]
#[command(name = "meter", about = "Measures syntap's parts, and what limits them")]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// One worker alone: nanoseconds and allocations a packet with many live flows, and the limit of memory beside it.
    Worker(steady::WorkerArgs),
    /// Two workers on two cores against one.
    Pair(pair::PairArgs),
    /// What a packet costs the kernel programs, by BPF_PROG_TEST_RUN.
    Kernel(kernel::KernelArgs),
    /// Writes a capture of many connections.
    Trace(trace::TraceArgs),
    /// Transmits packets of many connections: XDP live frames.
    Generate(generate::GenerateArgs),
    /// Receives on all AF_XDP rings of an interface and only hands the frames back.
    Receive(receive::ReceiveArgs),
    /// Holds programs that only parse at the tcx hooks of interfaces until standard input ends: the least that a tap there costs.
    Hooks(forward::HooksArgs),
    /// Transmits through a gateway from both its sides, and counts what arrives.
    Forward(forward::ForwardArgs),
}

fn main() -> anyhow::Result<()> {
    let told = match Args::parse().what {
        What::Worker(args) => steady::run(&args)?,
        What::Pair(args) => pair::run(&args)?,
        What::Kernel(args) => kernel::run(&args)?,
        What::Trace(args) => trace::run(&args)?,
        What::Generate(args) => generate::run(&args)?,
        What::Receive(args) => receive::run(&args)?,
        What::Hooks(args) => forward::hooks(&args)?,
        What::Forward(args) => forward::run(&args)?,
    };
    println!("{told}");
    Ok(())
}
