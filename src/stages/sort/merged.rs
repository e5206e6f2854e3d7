//! The end of a sort in memory: the lanes' sorted rows become one list.

use super::super::groups::grow_to;
use super::super::heap;
use super::super::picked::Picked;
use super::collected::Collected;
use super::entry::compare;
use standpipe_sdk::error::Error;
use standpipe_sdk::interleave::Pick;
use standpipe_sdk::{Budget, Kept};
use std::cmp::Ordering;
use std::sync::Arc;

/// One list of all rows, and the batches they are in. What does not fit comes back.
pub(super) fn merge(
    mut lanes: Vec<Collected>,
    budget: &Arc<Budget>,
    chunk_bytes: usize,
    width: usize,
) -> Result<Picked, (Vec<Collected>, Error)> {
    let rows: usize = lanes.iter().map(|l| l.entries.len()).sum();
    let mut reservation = budget.reserve();
    let mut order: Vec<Pick> = vec![];
    let mut kept: Vec<Kept> = vec![];
    let all = lanes.iter().map(|l| l.pieces.len()).sum();
    let room = grow_to(&mut order, rows, &mut reservation).and_then(|()| grow_to(&mut kept, all, &mut reservation));
    if let Err(error) = room {
        return Err((lanes, error));
    }
    lanes.retain(|lane| !lane.entries.is_empty());
    let mut bases = vec![];
    let mut pieces = 0usize;
    for lane in &lanes {
        bases.push(pieces as u32);
        pieces += lane.pieces.len();
    }
    // A heap of the lanes by their next entries: `heap[0]` holds the least.
    let mut heap: Vec<usize> = (0..lanes.len()).collect();
    let mut next = vec![0usize; lanes.len()];
    let less = |a: usize, b: usize, next: &[usize]| match (lanes[a].entries.get(next[a]), lanes[b].entries.get(next[b]))
    {
        (Some(x), Some(y)) => {
            compare(
                x,
                &lanes[a].pieces[x.piece as usize],
                y,
                &lanes[b].pieces[y.piece as usize],
            ) == Ordering::Less
        }
        (x, _) => x.is_some(),
    };
    heap::build(&mut heap, |&a, &b| less(a, b, &next));
    for _ in 0..rows {
        let lane = heap[0];
        let entry = lanes[lane].entries[next[lane]];
        order.push((bases[lane] + entry.piece, entry.row));
        next[lane] += 1;
        heap::sift_down(&mut heap, |&a, &b| less(a, b, &next));
    }

    let mut reservations = vec![reservation];
    for lane in lanes {
        kept.extend(lane.pieces.into_iter().map(|piece| piece.rows));
        reservations.push(lane.kept);
    }
    Ok(Picked::new(kept, order, width, chunk_bytes, reservations))
}
