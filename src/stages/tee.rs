//! `tee { pipelines }`: the rows go on, and a copy of them into each pipeline.
//!
//! Edges of the graph, done by the host.

use standpipe_sdk::spec::{BlockKind, Bound, Call, Complaint, Kind, Make, StageSpec};

/// `tee`.
pub const SPEC: StageSpec = StageSpec {
    name: "tee",
    about: "Gives the same rows to further pipelines as well",
    kind: Kind::Wiring,
    block: BlockKind::Tee,
    bind: &bind,
    ..StageSpec::BASE
};

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    Ok(Bound::keeps(call, vec![], Make::Wiring))
}
