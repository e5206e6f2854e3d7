//! The operator that evaluates expressions: input columns, then values.
//!
//! Laws
//! - A row that fails in any expression goes to the policy once and does not go on; with `null_on_error` only the failing value
//!   is null.
//! - When the policy stops at a row, the rows before it still go on, none behind it.

use crate::expr::{Evaluator, Expr, Fixed, share};
use standpipe_sdk::{Batch, Bits, Column, Columns, Emitter, Flow, Result, RowWise};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Appends the values of `exprs` to the input's columns.
pub struct Compute {
    exprs: Arc<[Expr]>,
    /// What several of them need: columns behind the input's, for their eyes only.
    shared: Arc<[Expr]>,
    keep: Arc<[bool]>,
    null_on_error: bool,
    evaluator: Evaluator,
    nulled: Arc<AtomicU64>,
}

impl Compute {
    /// `keep`: one per input column, `false` makes it `Absent`. `null_on_error`: a failing value is null and the row goes on.
    pub fn new(exprs: &[Expr], keep: Arc<[bool]>, null_on_error: bool, fixed: Fixed) -> Compute {
        let mut exprs = exprs.to_vec();
        let shared = share::share(&mut exprs, keep.len());
        Compute {
            exprs: exprs.into(),
            shared: shared.into(),
            keep,
            null_on_error,
            evaluator: Evaluator::new(fixed),
            nulled: Arc::default(),
        }
    }

    /// The same, adding to `nulled` how many values were made null: one counter for the copies of all lanes.
    #[must_use]
    pub fn count_into(mut self, nulled: Arc<AtomicU64>) -> Compute {
        self.nulled = nulled;
        self
    }
}

impl Compute {
    /// The batch with the shared values behind its columns.
    fn with_shared<'a>(&self, batch: Batch<'a>, out: &Emitter<'_, 'a>) -> Result<Batch<'a>> {
        if self.shared.is_empty() {
            return Ok(batch);
        }
        debug_assert_eq!(batch.columns().len(), self.keep.len());
        let (arena, width) = (out.arena(), batch.columns().len());
        let mut seen = batch;
        for expr in self.shared.iter() {
            let value = self.evaluator.eval(expr, &seen, arena, out.faults(), None)?;
            let mut columns = Columns::new(arena, seen.columns().len() + 1)?;
            seen.columns().iter().for_each(|column| columns.push(*column));
            columns.push(value);
            seen = batch.with_columns(columns.finish());
        }
        debug_assert_eq!(seen.columns().len(), width + self.shared.len());
        Ok(seen)
    }
}

impl RowWise for Compute {
    fn push<'a>(&mut self, batch: Batch<'a>, out: &mut Emitter<'_, 'a>) -> Result<Flow> {
        let (arena, rows, faults) = (out.arena(), batch.rows(), out.faults());
        let before = faults.len();
        let mut columns = Columns::new(arena, batch.columns().len() + self.exprs.len())?;
        for (index, column) in batch.columns().iter().enumerate() {
            let kept = self.keep.get(index).copied().unwrap_or(true);
            columns.push(if kept { *column } else { Column::absent(rows) });
        }
        let seen = self.with_shared(batch, out)?;
        let mut nulled = 0;
        for expr in self.exprs.iter() {
            columns.push(if self.null_on_error && expr.fallible {
                let (column, failed) = self.evaluator.eval_or_null(expr, &seen, arena)?;
                nulled += failed as u64;
                column
            } else {
                self.evaluator.eval(expr, &seen, arena, faults, None)?
            });
        }
        // Only now: a refused push is repeated, and must not be counted twice.
        self.nulled.fetch_add(nulled, Ordering::Relaxed);
        let done = batch.with_columns(columns.finish());
        let found = faults.len() - before;
        if found == 0 {
            return out.last(done);
        }
        if faults.stops() {
            let first = faults.iter().take(found).map(|f| f.row as usize).min().unwrap_or(rows);
            return out.last(done.head(first, arena)?);
        }
        let bad = arena.fill(rows.div_ceil(64), 0u64)?;
        for fault in faults.iter().take(found) {
            let row = fault.row as usize;
            bad[row / 64] |= 1 << (row % 64);
        }
        let good = Bits::collect_words(arena, rows, |w| !bad[w])?;
        let width = done.columns().len();
        out.last(done.gather(good.indices(arena)?, width, arena)?)
    }
}
