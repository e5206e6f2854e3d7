//! `read FORMAT path, …`: rows of files.
//!
//! Only what the words mean stands here; formats bind it.

use standpipe_sdk::spec::{ArgKind, Items, Kind, StageSpec, Want};

/// `read`; its modes and options are the formats'.
pub const SPEC: StageSpec = StageSpec {
    name: "read",
    about: "Rows of files of a format; paths may be patterns, `-` is standard input",
    kind: Kind::Source,
    items: Items::some(ArgKind::Const(Want::String), 1, usize::MAX, "paths or patterns"),
    ..StageSpec::BASE
};
