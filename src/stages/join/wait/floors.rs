//! What a join takes at least whose left side waits: while the lanes hold left rows, while both sides meet, and while they are read again.
//!
//! What will bite: what is reserved in [`Wait::meet`](super::Wait::meet) and by whom it makes has to add up to no more than is said here.

use super::super::cursor::{cursor_bytes, room_bytes};
use super::super::meet::{FOUND_BYTES, least_load};
use super::super::nearest::RIGHT_PARTS;
use super::super::parted::{LIST_BYTES, keys_bytes};
use super::super::scratch::FIRST_ROOM;
use crate::stages::spill::{
    lane_floor_beside, loaded_frame, merging_bytes, pass_bytes, store_frame_bytes, writer_floor_beside,
};
use crate::stages::spool::spool_bytes;
use standpipe_sdk::spec::{Least, Room};

/// Parts of a cursor that only passes rows on.
pub(super) const PARTS: usize = 3;
/// Memory for left rows that are made ready.
pub(super) const HELD_BYTES: usize = 128 << 10;
/// Into so many parts the memory goes for what is sorted or written at the same time, so that several joins of one script fit side by side.
pub(in crate::stages::join) const MERGES: usize = 8;
/// The same for left rows as they wait: longer frames, of which there are fewer.
pub(super) const SPOOLS: usize = 4;
/// What reading a frame of hot rows takes, in frames.
const FRAMES_OF_HOT: usize = 6;
/// Blocks of a lane, in rooms of a cursor.
pub(super) const ROOMS_OF_BLOCK: usize = 4;

/// What a join cannot do without: while it gathers the right side, and while the left one meets it.
pub(in crate::stages) fn least(room: &Room) -> Least {
    let scratch = room.share.min(FIRST_ROOM);
    Least {
        takes: room.workers * (lane_floor(room.bytes) + scratch),
        gives: held_bytes(room.bytes, room.workers).max(meeting_bytes(room.bytes, room.workers))
            + room.workers * scratch,
    }
}

/// What a lane sets aside of a budget of so many bytes for sorting one side.
fn lane_floor(budget_bytes: usize) -> usize {
    lane_floor_beside(budget_bytes, MERGES)
}

/// What the lanes set aside for left rows that wait.
pub(super) fn held_bytes(budget_bytes: usize, workers: usize) -> usize {
    let rows = writer_floor_beside(budget_bytes, SPOOLS) + spool_bytes(store_frame_bytes(budget_bytes, SPOOLS));
    let keys = writer_floor_beside(budget_bytes, MERGES) + keys_bytes(budget_bytes) + LIST_BYTES;
    workers * (rows + keys.max(lane_floor(budget_bytes)) + HELD_BYTES)
}

/// What the meeting, or what comes behind it, takes at least, beside what is left of the right side.
pub(super) fn meeting_bytes(budget_bytes: usize, workers: usize) -> usize {
    let rest = lane_floor(budget_bytes) + cursor_bytes(budget_bytes, PARTS + workers);
    let meeting = parted_bytes(budget_bytes, workers).max(sorted_bytes(budget_bytes));
    rest + meeting.max(again_bytes(budget_bytes, workers))
}

/// What meeting by parts takes: the lists of the lanes' keys too.
pub(super) fn parted_bytes(budget_bytes: usize, workers: usize) -> usize {
    2 * writer_floor_beside(budget_bytes, MERGES)
        + cursor_bytes(budget_bytes, PARTS)
        + pass_bytes(budget_bytes, MERGES)
        + making_bytes(budget_bytes)
        + key_frames(workers, store_frame_bytes(budget_bytes, MERGES))
        + workers * LIST_BYTES
        + least_load(budget_bytes)
}

/// What meeting in the order of keys takes.
pub(super) fn sorted_bytes(budget_bytes: usize) -> usize {
    lane_floor(budget_bytes)
        + cursor_bytes(budget_bytes, PARTS)
        + cursor_bytes(budget_bytes, RIGHT_PARTS)
        // One is read while there are passes before the other.
        + merging_bytes(budget_bytes, MERGES)
        + pass_bytes(budget_bytes, MERGES)
        + making_bytes(budget_bytes)
}

/// What is made of the rows of both.
pub(super) fn making_bytes(budget_bytes: usize) -> usize {
    2 * room_bytes(budget_bytes) + FOUND_BYTES
}

/// What reading both sides again takes.
pub(super) fn again_bytes(budget_bytes: usize, workers: usize) -> usize {
    // A frame of what each lane wrote.
    let rows = workers * loaded_frame(budget_bytes / SPOOLS) / 2;
    let left = rows + merging_bytes(budget_bytes, MERGES);
    let hot = FRAMES_OF_HOT * store_frame_bytes(budget_bytes, MERGES);
    2 * cursor_bytes(budget_bytes, PARTS)
        + (left + pass_bytes(budget_bytes, MERGES)).max(pass_bytes(budget_bytes, SPOOLS))
        + workers * (ROOMS_OF_BLOCK * room_bytes(budget_bytes) + hot)
}

/// What reading keys takes.
pub(super) fn key_frames(workers: usize, frame_bytes: usize) -> usize {
    const FRAMES_OF_KEYS: usize = 4;
    workers * FRAMES_OF_KEYS * frame_bytes
}
