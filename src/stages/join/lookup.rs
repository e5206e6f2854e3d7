//! Left rows → positions in the table.

use super::super::keys::Keys;
use super::Plan;
use super::build::Built;
use super::numbers::{Codes, times, validity};
use super::pieces::NONE;
use standpipe_sdk::error::Result;
use standpipe_sdk::{Arena, Batch, Bits, Data};
use std::ops::Range;

/// Positions in the table: the matches, or candidates, of one left row.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) len: u32,
}

impl Span {
    pub(super) fn range(self) -> Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }
}
/// Where each row's code stands in the table.
pub(super) fn spans<'a>(plan: &Plan, built: &Built, batch: &Batch<'a>, arena: &'a Arena) -> Result<&'a [Span]> {
    if plan.left_keys.is_empty() {
        let all = Span {
            start: 0,
            len: built.table.rows() as u32,
        };
        return Ok(arena.fill(batch.rows(), all)?);
    }
    let keys = Codes::of(&plan.left_keys, plan.exact, batch, arena)?;
    let span = |code: u64| {
        let found = built.table.find(code);
        Span {
            start: found.start as u32,
            len: found.len() as u32,
        }
    };
    Ok(match keys.valid {
        None => arena.map(keys.codes, span)?,
        Some(valid) => arena.collect(batch.rows(), |row| match valid.get(row) {
            true => span(keys.codes[row]),
            false => Span { start: 0, len: 0 },
        })?,
    })
}

/// The last position of each row's key that is not after it.
pub(super) fn spans_before<'a>(
    plan: &Plan,
    built: &'a Built,
    batch: &Batch<'a>,
    arena: &'a Arena,
) -> Result<&'a [Span]> {
    let none = Span { start: 0, len: 0 };
    let Some(asof) = plan.asof else {
        return Ok(arena.fill(batch.rows(), none)?);
    };
    let keys = Codes::of(&plan.left_keys, plan.exact, batch, arena)?;
    let column = batch.column(asof.left);
    let (at, at_valid) = (times(&column, arena)?, validity(&column, arena)?);
    let found = arena.collect(batch.rows(), |row| {
        let known = |valid: Option<Bits<'_>>| valid.is_none_or(|valid| valid.get(row));
        if !known(keys.valid) || !known(at_valid) {
            return none;
        }
        let run = built.table.find(keys.codes[row]);
        let behind = built.times[run.clone()].partition_point(|&time| time <= at[row]);
        Span {
            start: run.start as u32,
            len: behind as u32,
        }
    })?;
    // Of what is left the last one with the same key: the first that is looked at, but for equal hashes of other keys.
    let exact = plan.exact || plan.left_keys.is_empty();
    let mut open = arena.collect(found.len(), |row| row as u32)?;
    let mut count = open.len();
    while count > 0 && !exact {
        let ids = arena.collect(count, |i| match found[open[i] as usize] {
            Span { len: 0, .. } => NONE,
            span => built.table.id(span.range().end - 1),
        })?;
        let same = same_keys(plan, built, batch, &open[..count], ids, arena)?;
        let mut next = 0;
        for i in 0..count {
            let span = &mut found[open[i] as usize];
            if span.len > 0 && !same.get(i) {
                span.len -= 1;
                open[next] = open[i];
                next += 1;
            }
        }
        count = next;
        if next == 0 {
            open = &mut [];
        }
    }
    for (row, span) in found.iter_mut().enumerate() {
        if span.len == 0 {
            continue;
        }
        let last = span.range().end - 1;
        let age = i128::from(at[row]) - i128::from(built.times[last]);
        let near = asof.within.is_none_or(|within| age <= within);
        *span = Span {
            start: last as u32,
            len: u32::from(near),
        };
    }
    Ok(found)
}

/// Whether the keys of each pair (row of `batch`, id) are equal; `NONE` is equal to nothing.
pub(super) fn same_keys<'b>(
    plan: &Plan,
    built: &'b Built,
    batch: &Batch<'b>,
    parents: &[u32],
    ids: &[u32],
    arena: &'b Arena,
) -> Result<Bits<'b>> {
    let rights = built.pieces.gather(&plan.right_keys, ids, arena)?;
    let mut same = Bits::collect(arena, ids.len(), |i| ids[i] != NONE)?;
    for (&left, right) in plan.left_keys.iter().zip(rights) {
        let left = batch.column(left).gather(parents, arena)?;
        let equal = match (left.data(), right.data()) {
            (Data::Int(a), Data::Int(b))
            | (Data::Timestamp(a), Data::Timestamp(b))
            | (Data::Duration(a), Data::Duration(b)) => Bits::collect(arena, ids.len(), |i| a[i] == b[i])?,
            (Data::Date(a), Data::Date(b)) => Bits::collect(arena, ids.len(), |i| a[i] == b[i])?,
            (Data::Decimal(a), Data::Decimal(b)) => Bits::collect(arena, ids.len(), |i| a[i] == b[i])?,
            (Data::Float(a), Data::Float(b)) => {
                Bits::collect(arena, ids.len(), |i| a[i] == b[i] || (a[i].is_nan() && b[i].is_nan()))?
            }
            (Data::String(a), Data::String(b)) | (Data::Bytes(a), Data::Bytes(b)) => {
                Bits::collect(arena, ids.len(), |i| a.bytes(i) == b.bytes(i))?
            }
            _ => {
                let both = [left, *right];
                let both = arena.copy(&both)?;
                let pairs = Batch::new(both, None, ids.len());
                let (a, b) = (
                    Keys::grouping([0]).block(&pairs, arena)?,
                    Keys::grouping([1]).block(&pairs, arena)?,
                );
                Bits::collect(arena, ids.len(), |i| a.get(i) == b.get(i))?
            }
        };
        same = same.and(&equal, arena)?;
    }
    Ok(same)
}
