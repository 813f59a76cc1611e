//! What a node says about itself: log lines, counters, the status board, and the failpoints that tests stop it at.
//!
//! Every stage and `replicate` feed it; the command line and the admin socket read from it. Imports only the model.

mod copying;
pub mod failpoint;
mod links;
pub mod logging;
pub mod metrics;
mod outputs;
pub mod plugin_log;
pub mod report;
pub mod status;
#[cfg(test)]
mod status_tests;

pub use links::LinkHandle;
pub use metrics::Metrics;
pub use outputs::EventsHandle;
pub use report::{
    BROKEN_SHOWN_MAX, BrokenReport, Direction, EventsReport, EventsState, LinkReport, LinkState, LogReport, NodeReport,
    PositionReport, StatusReport, TableReport, TableState, utc,
};
pub use status::{Board, Heard};
