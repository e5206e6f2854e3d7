//! What a run did, stage by stage.

use crate::plugin::Usage;
use serde::Serialize;
use std::time::Duration;

/// The outcome of a successful run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub stages: Vec<StageReport>,
    pub outputs: Vec<Output>,
    /// What stages and functions of plugins did.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<Usage>,
    /// What people should know: fields that were ignored, values that a format could not hold.
    pub notes: Vec<String>,
    /// The most bytes any lane's arena handed out in one chunk.
    pub peak_arena_bytes: usize,
    /// The most bytes that stages had reserved.
    pub peak_reserved_bytes: usize,
    /// The most bytes that lay on disk.
    pub peak_spilled_bytes: u64,
    pub memory_limit_bytes: usize,
    pub workers: usize,
    pub chunks: u64,
    /// Rows that the script's sources gave.
    pub rows_read: u64,
    /// Bytes of input read.
    pub bytes_read: u64,
    #[serde(serialize_with = "seconds")]
    pub elapsed: Duration,
}

/// One stage of the graph.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StageReport {
    pub name: String,
    pub rows_in: u64,
    /// Bad rows: skipped, made null or rejected.
    pub bad_rows: u64,
    /// Rows that `route` sent nowhere.
    pub discarded_rows: u64,
    /// Bytes that did not fit into memory and went to disk, as they lay there.
    pub spilled_bytes: u64,
    /// Bytes of them that were read back.
    pub reread_bytes: u64,
    /// Sorted pieces on disk.
    pub segments: u64,
    /// Rows merged from sorted pieces, once per merge.
    pub merged_rows: u64,
}

/// One file or stream written.
#[derive(Clone, Debug, Serialize)]
pub struct Output {
    pub path: String,
    pub rows: u64,
    pub bytes: u64,
}

fn seconds<S: serde::Serializer>(elapsed: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_f64(elapsed.as_secs_f64())
}

impl Report {
    /// Bad rows of all stages.
    pub fn bad_rows(&self) -> u64 {
        self.stages.iter().map(|s| s.bad_rows).sum()
    }
}
