//! The configuration: read from YAML, the environment and what values refer to, checked whole, and said as structs.

mod settings;

pub use settings::{
    CaptureConfig, Compression, Config, Directions, Images, LOG_TABLE, LinkConfig, LogConfig, LogFormat, MigrateMode,
    NodeConfig, OnDivergence, OnTypeMismatch, Policy, Retention, Seed,
};
