//! `route { when c => s, else => _ }`: each row goes to the first arm whose condition is true.
//!
//! Edges of the graph, done by the host.

use standpipe_sdk::spec::{BlockKind, Bound, Call, Complaint, Kind, Make, StageSpec};

/// `route`.
pub const SPEC: StageSpec = StageSpec {
    name: "route",
    about: "Sends each row to the stream of the first arm whose condition is true; `_` discards and counts",
    kind: Kind::Wiring,
    block: BlockKind::Route,
    bind: &bind,
    ..StageSpec::BASE
};

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    Ok(Bound::keeps(call, vec![], Make::Wiring))
}
