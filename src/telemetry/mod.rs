//! What a running tap shows of itself: a page of metrics, a live view, and the listener that serves both.
//!
//! It reads snapshots that others have made: nothing here knows a worker, a map or a record, and nothing here is waited for
//! by those that do.

pub mod http;
pub mod page;
pub mod publish;
pub mod serve;
pub mod textfile;
pub mod view;

pub use page::{Family, Form, Page, Times};
pub use publish::{Board, Snapshot};
pub use serve::{Endpoint, Server};
pub use view::View;
