//! Rows of the output: which left row stands beside which right one, and their columns.

use super::super::unnest::number;
use super::Plan;
use super::build::Built;
use super::lookup::Span;
use super::pieces::NONE;
use standpipe_sdk::error::Result;
use standpipe_sdk::{Arena, Batch, Columns, Emitter, Flow, Place};

/// Rows of the output: for each the left row it is of, and the right one.
#[derive(Clone, Copy)]
pub(super) struct Rows<'b> {
    pub(super) parents: &'b [u32],
    pub(super) ids: &'b [u32],
}

impl Rows<'_> {
    /// The first `len`.
    pub(super) fn head(self, len: usize) -> Self {
        Rows {
            parents: &self.parents[..len],
            ids: &self.ids[..len],
        }
    }

    pub(super) fn behind(self, len: usize) -> Self {
        Rows {
            parents: &self.parents[len..],
            ids: &self.ids[len..],
        }
    }
}

/// The columns of a pair: the left stream's own, then the right ones.
pub(super) fn pair_columns<'b>(
    plan: &Plan,
    built: &'b Built,
    batch: &Batch<'b>,
    rows: Rows<'b>,
    arena: &'b Arena,
) -> Result<Batch<'b>> {
    let own = arena.collect(plan.own, |i| i)?;
    columns(plan, built, batch, own, true, rows, arena)
}

pub(super) fn columns<'b>(
    plan: &Plan,
    built: &'b Built,
    batch: &Batch<'b>,
    left: &[usize],
    with_right: bool,
    rows: Rows<'b>,
    arena: &'b Arena,
) -> Result<Batch<'b>> {
    let len = rows.parents.len();
    let first = rows.parents.first().map_or(0, |&row| row as usize);
    // Rows that stand one behind the other, the usual case, need no copy.
    let in_a_row = (rows.parents.iter().enumerate()).all(|(i, &row)| row as usize == first + i);
    let right = match (with_right, plan.record) {
        (false, _) => 0,
        (true, true) => 1,
        (true, false) => plan.right.len(),
    };
    let mut columns = Columns::new(arena, left.len() + right)?;
    for &index in left {
        let column = batch.column(index);
        columns.push(match in_a_row {
            true => column.slice(first, len),
            false => column.gather(rows.parents, arena)?,
        });
    }
    if with_right && plan.record {
        columns.push(built.pieces.record(&plan.right, rows.ids, arena)?);
    } else if with_right {
        for &column in built.pieces.gather(&plan.right, rows.ids, arena)? {
            columns.push(column);
        }
    }
    Ok(Batch::new(columns.finish(), None, len))
}

/// The output's columns and places of some rows; `before` goes on to the last of them.
pub(super) fn output<'b>(
    plan: &Plan,
    built: &'b Built,
    batch: &Batch<'b>,
    rows: Rows<'b>,
    before: &mut Option<(Place, u32)>,
    mut last_parent: u32,
    arena: &'b Arena,
) -> Result<Batch<'b>> {
    let left = arena.collect(plan.left.len(), |i| plan.left[i].0)?;
    let made = columns(plan, built, batch, left, !plan.mode.only_left(), rows, arena)?;
    let places = match batch.origin() {
        Some(places) => Some(&*arena.collect(rows.parents.len(), |i| {
            let parent = rows.parents[i];
            let place = number(before, places[parent as usize], parent != last_parent);
            last_parent = parent;
            place
        })?),
        None => None,
    };
    Ok(Batch::new(made.columns(), places, rows.parents.len()))
}

/// Stands for "no left row yet".
pub(super) const NO_PARENT: u32 = u32::MAX;
/// The left rows `indices`, which is all there is of a semi or anti join.
pub(super) fn only_left<'a>(plan: &Plan, batch: Batch<'a>, indices: &[u32], out: &mut Emitter<'_, 'a>) -> Result<Flow> {
    match indices.len() {
        0 => Ok(Flow::More),
        all if all == batch.rows() => out.last(batch.with_columns(&batch.columns()[..plan.own])),
        _ => out.last(batch.gather(indices, plan.own, out.arena())?),
    }
}

/// Where the rows of spans stand: the next left row, and how many of its matches are out.
#[derive(Clone, Copy, Default)]
pub(super) struct Cursor {
    pub(super) row: usize,
    pub(super) nth: usize,
}

impl Cursor {
    /// The next `count` rows, which must be there. `least`: 1 if a row without a match comes out too.
    pub(super) fn take<'b>(
        &mut self,
        count: usize,
        spans: &[Span],
        least: usize,
        built: &Built,
        arena: &'b Arena,
    ) -> Result<Rows<'b>> {
        let ids = arena.fill(count, NONE)?;
        let parents = arena.collect(count, |i| {
            while self.nth >= (spans[self.row].len as usize).max(least) {
                self.row += 1;
                self.nth = 0;
            }
            let span = spans[self.row];
            if span.len > 0 {
                ids[i] = built.table.id(span.start as usize + self.nth);
            }
            self.nth += 1;
            self.row as u32
        })?;
        Ok(Rows { parents, ids })
    }
}
/// Some of the rows.
pub(super) fn chosen_of<'b>(rows: Rows<'b>, indices: &[u32], arena: &'b Arena) -> Result<Rows<'b>> {
    if indices.len() == rows.ids.len() {
        return Ok(rows);
    }
    Ok(Rows {
        parents: arena.map(indices, |i| rows.parents[i as usize])?,
        ids: arena.map(indices, |i| rows.ids[i as usize])?,
    })
}
