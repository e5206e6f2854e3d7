//! What left rows have found in a load, until it is copied.

use super::super::pieces::NONE;
use standpipe_sdk::error::Result;
use standpipe_sdk::{Arena, Column, Data};
use std::ops::Range;

/// Copies that are made together.
pub(super) const COPIES: usize = 1 << 10;
/// What the lists of copies that are to be made take.
pub(in crate::stages::join) const FOUND_BYTES: usize =
    2 * COPIES * (size_of::<u32>() + size_of::<(u64, u32)>() + size_of::<(u32, u64, u64)>());

/// What left rows have found and is to be copied.
#[derive(Default)]
pub(super) struct Found {
    /// Right rows of the load; `NONE` where there is nothing to copy.
    pub(super) ids: Vec<u32>,
    /// The orders of the left rows.
    pub(super) orders: Vec<(u64, u32)>,
    /// Which of these stand for hot rows: the first one, and how many.
    pub(super) hot: Vec<(u32, u64, u64)>,
    /// How many were copied before.
    pub(super) before: u64,
}

impl Found {
    #[inline]
    pub(super) fn push(&mut self, id: u32, order: (u64, u32)) {
        self.ids.push(id);
        self.orders.push(order);
    }

    /// Those of some rows that stand for hot ones.
    pub(super) fn hot_of(&self, some: &Range<usize>) -> &[(u32, u64, u64)] {
        let from = self.hot.partition_point(|hot| (hot.0 as usize) < some.start);
        let to = self.hot.partition_point(|hot| (hot.0 as usize) < some.end);
        &self.hot[from..to]
    }

    /// An int column in which rows that stand for hot ones have what `next` gives.
    pub(super) fn patched<'a>(
        &self,
        column: &Column<'a>,
        some: &Range<usize>,
        arena: &'a Arena,
        mut next: impl FnMut() -> Option<i64>,
    ) -> Result<Column<'a>> {
        let values = match column.data() {
            Data::Int(values) => Some(values),
            _ => None,
        };
        let values = arena.collect(some.len(), |at| match self.ids[some.start + at] {
            NONE => next().unwrap_or(0),
            _ => values.map_or(0, |values| values[at]),
        })?;
        Ok(Column::int(values, None))
    }

    pub(super) fn clear(&mut self) {
        self.before += self.ids.len() as u64;
        self.ids.clear();
        self.orders.clear();
        self.hot.clear();
    }
}
