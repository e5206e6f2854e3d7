//! What does not fit into memory goes to disk in one shape: *segments*, rows sorted by (key, order), written frame by frame and merged
//! by one loser tree. For every stage that sorts, groups or joins more than fits.
//!
//! How to use it
//! - In the stage's `make`: `Store::new("sort", setup)`. The lanes share it; it opens its file with the first frame.
//! - Each lane, when it is made: `store.writer()`. That sets aside in the budget all that writing a segment takes: a refusal later on leaves
//!   the lane able to spill. What the lane needs to take at least one row is its own to set aside ([`Reservation::set_aside`]).
//! - Reserve before touching state. Refused (or after [`Spill::spill_rows`] rows, a hook of tests): bring what is there into the order of (key, order),
//!   `writer.append(&batch, &keys, chunks, rows)` it piece by piece (batches of any length; about [`Store::frame_bytes`] is good), `writer.keep()`,
//!   give its memory back, and take the refused batch again. Batches that do not [`Column::mixes_with`] go into calls of their own.
//! - `writer.make_room(&batch, &keys)` before a batch is taken: it may have a row longer than a frame.
//! - At the end, if `!store.is_empty()`: every lane spills what it has left; then `Merge::new(&store, &budget)`, which merges in passes first
//!   where the memory is not enough to merge all at once.
//! - `Arc::new(Merged::new(merge, setup))` is the whole as a [`Source`], whose lanes share all work but the tree. Who wants runs of equal keys
//!   calls [`Merge::next`] with a [`Picks`] again and again (it lets go of the picks before): [`Picks::key`] and [`Picks::row`] say (key, frame, row in it) of each row,
//!   [`Frame::rows`] is the frame's batch, [`Picks::gather`] makes batches of ranges. Other columns than the stage's own can be spilled and merged
//!   as well: what is in the batches is the stage's affair (partial states, places, flags).
//! - Where only the first rows are wanted, of all or of each group: keys that begin with the group's and end with [`end_group`], and
//!   [`Merged::of_chosen`].
//! - Whoever reads several merges at the same time says how many, so that none takes the memory of the others: `Store::beside`, `Merge::one_of`, [`Merge::with`].
//! - Keys are compared as bytes. "Order" is (u64 chunk, u32 row), what makes equal keys keep the order of the input; segments of one merge may not
//!   have rows of the same key and order.
//!
//! [`Column::mixes_with`]: standpipe_sdk::Column::mixes_with
//! [`Reservation::set_aside`]: standpipe_sdk::Reservation::set_aside
//! [`Source`]: standpipe_sdk::Source
//! [`Spill::spill_rows`]: standpipe_sdk::Spill::spill_rows
//!
//! Laws
//! - Memory is reserved before it is taken: the writer's when it is made, the merge's before its first frame is read.
//! - A frame is read only if its checksum says that it is what was written, there; a damaged one is an error that says where.
//! - The file has no name and disk is given back as segments are dropped: nothing is left behind, whatever ends the run.

pub mod file;
pub mod firsts;
mod floors;
pub mod frame;
mod keys;
mod lists;
mod loaded;
pub mod merge;
pub mod segment;
mod store;
mod writer;

pub use file::{Address, SpillFile};
pub use firsts::{Firsts, end_group};
pub use floors::{
    FRAMES_OF_LANE, frame_bytes, lane_floor, lane_floor_beside, least, loaded_frame, merge_floor, merging_bytes,
    pass_bytes, store_frame_bytes, writer_floor, writer_floor_beside,
};
pub use loaded::Frame;
pub use merge::{Choose, Merge, Merged, Picks};
pub use segment::Segment;
pub use store::Store;
pub use writer::SegmentWriter;
