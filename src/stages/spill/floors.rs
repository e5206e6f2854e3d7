//! What spilling takes of a budget at least: frames, a lane's writer, a merge.
//!
//! What will bite: a store, a writer and a merge take these numbers when they are made, and the plan of a run sets the sums of them
//! aside before that. Both have to move together.

use super::file::packed_bytes;
use super::lists::WRITING_BYTES;
use standpipe_sdk::interleave::Pick;
use standpipe_sdk::spec::{Least, Room};

/// Encoded bytes of a frame, if the budget is not small: what is unpacked of it stays below the size from which the allocator asks the
/// system each time.
const FRAME_BYTES: usize = 96 << 10;
const SMALLEST_FRAME_BYTES: usize = 16 << 10;
/// Frames of this many bytes fit into a budget side by side.
const FRAMES_OF_BUDGET: usize = 1024;
/// What LZ4 takes to pack a block.
pub(super) const PACKER_BYTES: usize = 16 << 10;

/// What a lane sets aside for its own rows, in frames: ways in, ways out, and some rows.
pub const FRAMES_OF_LANE: usize = 10;

/// A loaded frame takes about so many times its encoded bytes: keys and rows, packed and unpacked.
const FRAMES_LOADED: usize = 8;

/// What a pass gathers rows in, in frames, beside the largest frame that it reads.
pub(super) const FRAMES_OF_PASS: usize = 4;

/// Rows of one claim, if memory does not end it earlier.
const CLAIM_ROWS: usize = 16 << 10;
const FEWEST_CLAIM_ROWS: usize = 256;

/// What a breaker cannot do without whose lanes spill and whose segments are merged.
pub fn least(room: &Room) -> Least {
    Least {
        takes: room.workers * lane_floor(room.bytes),
        gives: merge_floor(room.bytes),
    }
}

/// About how many encoded bytes a frame has in a budget of so many bytes.
pub fn frame_bytes(budget_bytes: usize) -> usize {
    (budget_bytes / FRAMES_OF_BUDGET).clamp(SMALLEST_FRAME_BYTES, FRAME_BYTES)
}

/// What one lane of a stage that spills sets aside in a budget of so many bytes before the first row: its writer,
/// and [`FRAMES_OF_LANE`].
pub fn lane_floor(budget_bytes: usize) -> usize {
    lane_floor_beside(budget_bytes, 1)
}

/// The same for a stage that reads `merges` merges at the same time.
pub fn lane_floor_beside(budget_bytes: usize, merges: usize) -> usize {
    let frame = store_frame_bytes(budget_bytes, merges);
    writer_bytes(frame) + FRAMES_OF_LANE * frame
}

/// What a [`SegmentWriter`](super::SegmentWriter) sets aside in a budget of so many bytes.
pub fn writer_floor(budget_bytes: usize) -> usize {
    writer_floor_beside(budget_bytes, 1)
}

/// The same in a store for a stage that reads `merges` merges at the same time.
pub fn writer_floor_beside(budget_bytes: usize, merges: usize) -> usize {
    writer_bytes(store_frame_bytes(budget_bytes, merges))
}

/// About how many encoded bytes a frame of such a store has.
pub fn store_frame_bytes(budget_bytes: usize, merges: usize) -> usize {
    frame_bytes(budget_bytes / merges.max(1))
}

fn writer_bytes(frame: usize) -> usize {
    buffers_bytes(2 * frame) + WRITING_BYTES
}

/// What writing blocks of at most `contents` bytes takes: those, packed ones, and packing.
pub(super) fn buffers_bytes(contents: usize) -> usize {
    contents + packed_bytes(contents) + PACKER_BYTES
}

/// What a frame takes once it is loaded, if its rows are short.
pub fn loaded_frame(budget_bytes: usize) -> usize {
    FRAMES_LOADED * frame_bytes(budget_bytes)
}

/// Rows of one claim in a budget of so many bytes: the list of them takes little of it.
pub(super) fn claim_rows(budget_bytes: usize) -> usize {
    (budget_bytes / (64 * size_of::<Pick>())).clamp(FEWEST_CLAIM_ROWS, CLAIM_ROWS)
}

/// What a merge takes at least in a budget of so many bytes: merging two segments into one, which is written.
pub fn merge_floor(budget_bytes: usize) -> usize {
    let frame = loaded_frame(budget_bytes);
    writer_floor(budget_bytes) + frame / 2 + frame + 2 * frame + picks_bytes(budget_bytes)
}

/// What a merge of two segments of short rows takes while it is read, in a store for a stage that reads `merges` merges at the same time.
pub fn merging_bytes(budget_bytes: usize, merges: usize) -> usize {
    2 * loaded_short(budget_bytes, merges) + picks_bytes(budget_bytes)
}

/// What a pass before such a merge takes at least: what is read, where it is gathered, and a writer.
pub fn pass_bytes(budget_bytes: usize, merges: usize) -> usize {
    let arena = FRAMES_OF_PASS * store_frame_bytes(budget_bytes, merges) + loaded_short(budget_bytes, merges);
    writer_floor_beside(budget_bytes, merges) + merging_bytes(budget_bytes, merges) + arena
}

/// Of short rows a loaded frame takes half of what it may take.
fn loaded_short(budget_bytes: usize, merges: usize) -> usize {
    loaded_frame(budget_bytes / merges.max(1)) / 2
}

/// What the list of picks of a claim takes, and of one before that.
pub(super) fn picks_bytes(budget_bytes: usize) -> usize {
    2 * claim_rows(budget_bytes) * size_of::<Pick>()
}
