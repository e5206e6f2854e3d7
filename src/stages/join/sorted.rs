//! Looks at the order of a stream: each row's time is not before that of the row before it.
//!
//! Null stands anywhere: it matches nothing.

use super::super::codes;
use super::numbers::{times, validity};
use standpipe_sdk::spec::{Factory, Setup};
use standpipe_sdk::{Arena, Batch, Faults, Flow, Result, Serial, Verdict};

/// The check of one column.
pub(super) fn check(column: usize) -> Factory<Box<dyn Serial>> {
    Box::new(move |_: &Setup| Ok(Box::new(Sorted { column, last: i64::MIN })))
}

struct Sorted {
    column: usize,
    /// The latest time so far.
    last: i64,
}

impl Serial for Sorted {
    fn step<'a>(
        &mut self,
        batch: Batch<'a>,
        arena: &'a Arena,
        faults: &Faults<'a>,
    ) -> Result<(Option<Batch<'a>>, Flow)> {
        let column = batch.column(self.column);
        let times = times(&column, arena)?;
        let valid = validity(&column, arena)?;
        let mut last = self.last;
        let keep = arena.fill(batch.rows(), 0u32)?;
        let (mut kept, mut stop) = (0, None);
        for (row, &time) in times.iter().enumerate() {
            let is_late = valid.is_none_or(|valid| valid.get(row)) && time < last;
            if is_late {
                let verdict = faults.report(
                    row,
                    codes::NOT_SORTED,
                    None,
                    format_args!(
                        "`join asof` needs its rows sorted, and this one is before the row that came before it"
                    ),
                )?;
                if verdict == Verdict::Stop {
                    stop = Some(row);
                    break;
                }
                continue;
            }
            if valid.is_none_or(|valid| valid.get(row)) {
                last = time;
            }
            keep[kept] = row as u32;
            kept += 1;
        }
        let out = match stop {
            Some(row) => batch.head(row, arena)?,
            None if kept == batch.rows() => batch,
            None => batch.gather(&keep[..kept], batch.columns().len(), arena)?,
        };
        // Only now: a refusal must leave the state as it was.
        self.last = last;
        Ok((Some(out), Flow::More))
    }
}
