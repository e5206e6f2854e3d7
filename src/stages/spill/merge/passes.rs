//! Passes before the merge: where memory is not enough for all segments at once, some become one first.
//!
//! Laws
//! - All that a pass takes is there when it begins, the list of what it writes included.
//! - What it has read gives its disk back at once.

use super::super::floors::{FRAMES_OF_PASS, loaded_frame, picks_bytes, writer_floor};
use super::super::segment::Segment;
use super::super::store::Store;
use super::super::writer::SegmentWriter;
use super::{Merge, Picks};
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::{Arena, Budget, Reservation};
use std::sync::Arc;

/// What merging these at once takes: a frame of each, and picks.
pub(super) fn need(segments: &[Segment], budget: &Budget) -> usize {
    let frames: usize = segments.iter().map(Segment::largest).sum();
    frames + picks_bytes(budget.limit())
}

/// Merges as many of the shortest segments as fit into one, and takes them out of the list.
pub(super) fn reduce(
    store: &Arc<Store>,
    segments: &mut Vec<Segment>,
    budget: &Arc<Budget>,
    most: usize,
) -> Result<Segment> {
    // Rows that take much memory are read when all of them are, and not here too, unless there is nothing else.
    let usual = loaded_frame(budget.limit()).max(1);
    segments.sort_by_key(|segment| std::cmp::Reverse((segment.largest() / usual, segment.rows())));
    let free = budget.free();
    let is_short = segments.iter().any(Segment::is_of_short);
    let last = |count: usize| &segments[segments.len() - count..];
    let largest = |count: usize| last(count).iter().map(Segment::largest).max().unwrap_or(0);
    let arena_bytes = |count: usize| FRAMES_OF_PASS * store.frame_bytes() + largest(count);
    let fits = |count: usize| {
        let beside = arena_bytes(count) + writer_floor(budget.limit());
        let takes = need(last(count), budget) + Segment::list_bytes(list_of(last(count), is_short));
        takes <= most.min(free.saturating_sub(beside))
    };
    let mut count = 2;
    while count < segments.len() && fits(count + 1) {
        count += 1;
    }
    let (mut writer, room, arena_bytes) = loop {
        let arena_bytes = arena_bytes(count);
        match room_for(store, last(count), budget, largest(count), arena_bytes, is_short) {
            // What was free a moment ago others have by now.
            Err(Error::Memory { .. }) if count > 2 => count = count.div_ceil(2),
            other => break other.map(|(writer, room)| (writer, room, arena_bytes))?,
        }
    };
    let some = segments.split_off(segments.len() - count);
    let bytes = need(&some, budget);
    let merge = Merge::of(store, some, room, bytes, true)?;
    rewrite(merge, &mut writer, Arena::new(arena_bytes))
}

/// Frames of what these segments become: each batch that is written may begin one that the next does not go on with.
fn list_of(some: &[Segment], is_short: bool) -> usize {
    match is_short {
        true => 0,
        false => 2 * some.iter().map(Segment::frames).sum::<usize>() + 8,
    }
}

/// All that merging `some` into one segment takes, now and not when there is no memory left.
fn room_for(
    store: &Arc<Store>,
    some: &[Segment],
    budget: &Arc<Budget>,
    largest: usize,
    arena_bytes: usize,
    is_short: bool,
) -> Result<(SegmentWriter, Reservation)> {
    let mut writer = if is_short {
        store.short_writer()?
    } else {
        store.writer()?
    };
    writer.make_room_of(largest)?;
    writer.expect(list_of(some, is_short))?;
    let mut room = budget.reserve();
    room.grow(need(some, budget) + arena_bytes)?;
    Ok((writer, room))
}

/// Writes all rows of a merge as one segment.
fn rewrite(mut merge: Merge, writer: &mut SegmentWriter, mut arena: Arena) -> Result<Segment> {
    let usual = merge.store.frame_bytes() / merge.row_bytes.max(merge.key_bytes);
    let usual = usual.clamp(1, merge.claim_rows);
    let mut picks = Picks::default();
    loop {
        merge.next(usual, &mut picks)?;
        if picks.is_empty() {
            // All frames are back: what they took is there for the list of the new ones.
            return writer.finish_from(&mut merge.room);
        }
        let (mut from, mut len) = (0, picks.len());
        while from < picks.len() {
            len = len.min(picks.len() - from);
            let written = (|| {
                let batch = picks.gather(from, len, &arena)?;
                let keys = picks.keys(from, batch.rows(), &arena)?;
                let (chunks, rows) = picks.orders(from, batch.rows(), &arena)?;
                writer.append(&batch, &keys, chunks, rows)?;
                Ok(batch.rows())
            })();
            match written {
                Ok(rows) => from += rows,
                // Nothing was written: gathering comes first.
                Err(Error::Memory { .. }) if len > 1 => len = len.div_ceil(2),
                Err(error) => return Err(error),
            }
            arena.reset();
        }
    }
}
