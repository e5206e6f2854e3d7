//! A condition on pairs of rows: what a stage that meets two streams asks the host.

use crate::expr::eval::Evaluator;
use crate::expr::{Expr, Fixed};
use standpipe_sdk::{Arena, Batch, Column, Faults, Judge, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Judges pairs by one expression.
pub struct Condition {
    expr: Expr,
    null_on_error: bool,
    evaluator: Evaluator,
    nulled: Arc<AtomicU64>,
}

impl Condition {
    /// `null_on_error`: a pair that fails is null, and is counted in `nulled`.
    pub fn new(expr: Expr, null_on_error: bool, fixed: Fixed, nulled: Arc<AtomicU64>) -> Condition {
        Condition {
            expr,
            null_on_error,
            evaluator: Evaluator::new(fixed),
            nulled,
        }
    }
}

impl Judge for Condition {
    fn judge<'b>(&mut self, pairs: Batch<'b>, arena: &'b Arena, faults: &Faults<'b>) -> Result<Column<'b>> {
        if self.null_on_error && self.expr.fallible {
            let (column, failed) = self.evaluator.eval_or_null(&self.expr, &pairs, arena)?;
            self.nulled.fetch_add(failed as u64, Ordering::Relaxed);
            return Ok(column);
        }
        self.evaluator.eval(&self.expr, &pairs, arena, faults, None)
    }

    fn may_fail(&self) -> bool {
        self.expr.fallible && !self.null_on_error
    }
}
