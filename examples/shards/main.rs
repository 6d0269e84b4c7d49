//! Writes shards with many different records, as a month of bad nights would bring them: what `report` and other readers are
//! measured with.
//!
//! `cargo run --release --example shards -- DIR [RECORDS]`, 10,000,000 of them if nothing else is said, 30 days long, with figures of
//! each minute. Six in ten have 3 packets, three have 8, one has 18: about 2 KB each as a line, 0.25 KB on the disk.

use std::path::PathBuf;

use syntap::pipeline::Interval;
use syntap::record::{Record, ShardOptions, ShardWriter};
use syntap::wire::Nanos;

#[path = "../../tests/common/anomalies.rs"]
mod anomalies;

use anomalies::{BEGIN, Night, context};

const MINUTE: u64 = 60 * Nanos::SEC;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().ok_or("DIR [RECORDS]")?);
    let count: u64 = args.next().map_or(Ok(10_000_000), |n| n.parse())?;
    let context = context();
    let mut shards = ShardWriter::create(&dir, &context.host, ShardOptions::default())?;
    let mut night = Night::new(1);
    let step = 30 * 24 * 60 * MINUTE / count.max(1);
    let mut told = BEGIN / MINUTE;
    for n in 0..count {
        night.now = BEGIN + n * step;
        let anomaly = match night.random() % 10 {
            0..6 => night.unanswered(),
            6..9 => night.reset(),
            _ => night.refused(),
        };
        shards.push(&Record::from_anomaly(&anomaly, &context, None))?;
        while told < night.now / MINUTE {
            let mut interval = Interval::default();
            for point in 0..2 {
                let here = interval.at(point);
                here.attempts = 6_000;
                for _ in 0..5_990 {
                    here.syn_acks.record(200_000 + night.random() % 300_000);
                }
                here.failed = 10;
            }
            for set in interval.sets(Nanos(told * MINUTE), Nanos((told + 1) * MINUTE)) {
                shards.push(&set.record(&context))?;
            }
            told += 1;
        }
    }
    shards.close()?;
    Ok(())
}
