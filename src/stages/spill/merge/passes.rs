//! Passes before the merge: where memory is not enough for all segments at once, some become one first.
//!
//! Laws
//! - All that a pass takes is there when it begins.
//! - What it has read gives its disk back at once.

use super::super::floors::{FRAMES_OF_PASS, loaded_frame, picks_bytes, writer_floor};
use super::super::segment::Segment;
use super::super::store::{GROUP, Store};
use super::super::writer::SegmentWriter;
use super::{Merge, Picks};
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::{Arena, Budget, Reservation};
use std::sync::Arc;

/// So many segments are looked at together, whatever memory there is.
const FEW: usize = 2 * GROUP;
/// What knowing of many may take of the memory that is free: this part of it.
const PART_OF_FREE: usize = 16;

/// What merging these at once takes: a frame of each, and picks.
pub(super) fn need(segments: &[Segment], budget: &Budget) -> usize {
    let frames: usize = segments.iter().map(Segment::largest).sum();
    frames + picks_bytes(budget.limit())
}

/// All that `store` keeps, and memory for it. Where they are too many to be looked at together, those that were kept first become one, group
/// by group.
pub(super) fn all_of(store: &Arc<Store>, budget: &Arc<Budget>, most: usize) -> Result<(Vec<Segment>, Reservation)> {
    loop {
        let count = store.count();
        let bytes = count.saturating_sub(FEW) * size_of::<Segment>();
        let mut room = budget.reserve();
        let is_few = bytes <= budget.free() / PART_OF_FREE && room.grow(bytes).is_ok();
        let mut some = Vec::with_capacity(if is_few { count } else { GROUP });
        while (is_few || some.len() < GROUP)
            && let Some(segment) = store.take_first()?
        {
            some.push(segment);
        }
        if is_few {
            return Ok((some, room));
        }
        while some.len() > 1 {
            let merged = reduce(store, &mut some, budget, most)?;
            some.push(merged);
        }
        some.into_iter().for_each(|segment| store.keep(segment));
    }
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
    let last = |count: usize| &segments[segments.len() - count..];
    let largest = |count: usize| last(count).iter().map(Segment::largest).max().unwrap_or(0);
    let arena_bytes = |count: usize| FRAMES_OF_PASS * store.frame_bytes() + largest(count);
    let fits = |count: usize| {
        let beside = arena_bytes(count) + writer_floor(budget.limit());
        need(last(count), budget) <= most.min(free.saturating_sub(beside))
    };
    let mut count = 2;
    while count < segments.len() && fits(count + 1) {
        count += 1;
    }
    let (mut writer, room, arena_bytes) = loop {
        let arena_bytes = arena_bytes(count);
        match room_for(store, last(count), budget, largest(count), arena_bytes) {
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

/// All that merging `some` into one segment takes, now and not when there is no memory left.
fn room_for(
    store: &Arc<Store>,
    some: &[Segment],
    budget: &Arc<Budget>,
    largest: usize,
    arena_bytes: usize,
) -> Result<(SegmentWriter, Reservation)> {
    let mut writer = store.writer()?;
    writer.make_room_of(largest)?;
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
            return writer.finish();
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
