//! The end of a `top` in memory: the first rows of each group over all lanes become one list.

use super::super::copies::{Copies, Located};
use super::super::groups::grow_to;
use super::super::picked::Picked;
use super::Top;
use super::entry::Entry;
use super::lane::Lane;
use standpipe_sdk::Kept;
use standpipe_sdk::error::Result;
use std::sync::MutexGuard;

/// The first rows of each group over all lanes, groups in order. Refused, the lanes are as they were.
pub(super) fn merge(lanes: &mut [MutexGuard<'_, Lane>], top: &Top) -> Result<Picked> {
    let mut reservation = top.setup.budget.reserve();
    let mut pieces: Vec<Kept> = vec![];
    let count = lanes.iter().map(|lane| lane.best.copies.pieces().len()).sum();
    grow_to(&mut pieces, count, &mut reservation)?;
    let bases: Vec<u32> = (lanes.iter())
        .scan(0, |base, lane| {
            let before = *base;
            *base += lane.best.copies.pieces().len() as u32;
            Some(before)
        })
        .collect();
    // Each lane's groups, so that equal ones of several lanes stand together.
    let mut groups: Vec<(&[u8], u32, &Vec<Entry>)> = vec![];
    let heaps = || lanes.iter().flat_map(|lane| &lane.best.heaps);
    grow_to(&mut groups, heaps().count(), &mut reservation)?;
    for (number, lane) in (0..).zip(lanes.iter()) {
        let heaps = &lane.best.heaps;
        match &lane.best.groups {
            None => groups.extend(heaps.iter().map(|heap| (&[][..], number, heap))),
            Some(all) => groups.extend(all.keys().zip(heaps).map(|(key, heap)| (key, number, heap))),
        }
    }
    groups.sort_unstable_by_key(|&(key, ..)| key);
    let mut order = vec![];
    grow_to(&mut order, heaps().map(Vec::len).sum(), &mut reservation)?;
    let same = || groups.chunk_by(|a, b| a.0 == b.0);
    let mut best: Vec<(u32, &Entry)> = vec![];
    let most = same().map(|same| same.iter().map(|(.., heap)| heap.len()).sum()).max();
    grow_to(&mut best, most.unwrap_or(0), &mut reservation)?;
    for same in same() {
        best.clear();
        for &(_, lane, heap) in same {
            best.extend(heap.iter().map(|entry| (lane, entry)));
        }
        best.sort_unstable_by(|(_, a), (_, b)| a.cmp(b));
        let picks = best.iter().take(top.rows).map(|(lane, entry)| (*lane, entry.at()));
        order.extend(picks.map(|(lane, (piece, row))| (bases[lane as usize] + piece, row)));
    }
    drop(best);
    drop(groups);
    let mut held = vec![reservation];
    for lane in lanes {
        let empty = Copies::new(top.own, &top.setup.budget);
        let (more, reservation) = std::mem::replace(&mut lane.best.copies, empty).into_parts();
        pieces.extend(more);
        held.push(reservation);
    }
    Ok(Picked::new(pieces, order, top.own, top.setup.chunk_bytes, held))
}
