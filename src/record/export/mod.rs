//! Records for other tools: evidence as pcapng, rows as JSON lines, CSV and Parquet.
//!
//! Pure: no printing, no threads. What is exported can be read by programs that know nothing of syntap.

mod capture;
mod csv;
mod headers;
mod parquet;
mod spool;
mod state;

pub use capture::{CaptureExport, Captured};
pub use csv::CsvExport;
pub use headers::{Rebuilt, rebuild};
pub use parquet::ParquetExport;
pub use spool::{Scratch, nameless};
pub use state::{ExportDir, Position, StateError};
