//! Left rows as they wait: beside their columns what tells their order and their place, and their keys.

use super::super::Plan;
use super::super::numbers::{Codes, times, validity};
use super::super::parted::{bucket_of, part_of};
use super::super::sides::{K_TIME, K_WIDTH, Origin, key_column, left_rows};
use super::Wait;
use super::holder::KeysOfLane;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::{Arena, Batch, Bits, Column, Data, Waiting};
use std::ops::Range;

/// Rows of a batch as they wait, without those that never come out, and their keys.
pub(super) struct Waiters<'a> {
    pub(super) rows: Batch<'a>,
    codes: Codes<'a>,
    key: Column<'a>,
    /// For `asof`.
    times: Option<Column<'a>>,
}

impl<'a> Waiters<'a> {
    pub(super) fn of(
        plan: &Plan,
        wait: &'a Wait,
        chunk: &Waiting<'a>,
        batch: &Batch<'a>,
        range: Range<usize>,
        first: u64,
        arena: &'a Arena,
    ) -> Result<Waiters<'a>> {
        let own = batch.columns().get(..plan.left_width);
        let own = own.ok_or_else(|| Error::Panic("a batch without its keys".into()))?;
        let batch = batch.with_columns(own).slice(range.start, range.len(), arena)?;
        let mut codes = Codes::of(&plan.left_keys, plan.exact, &batch, arena)?;
        let mut batch = batch;
        if let Some(valid) = codes.valid
            && plan.mode.drops_unmatched()
        {
            let rows = valid.indices(arena)?;
            batch = batch.gather(rows, batch.columns().len(), arena)?;
            codes = Codes {
                codes: arena.collect(rows.len(), |i| codes.codes[rows[i] as usize])?,
                valid: None,
            };
        }
        let key = key_column(&plan.left_keys, plan.exact, &batch, &codes, arena)?;
        let times = match plan.asof {
            Some(asof) => {
                let column = batch.column(asof.left);
                let valid = validity(&column, arena)?;
                Some(Column::int(times(&column, arena)?, valid))
            }
            None => None,
        };
        let origin = Origin {
            number: chunk.number,
            first,
            chunk: chunk.chunk,
            locator: chunk.locator,
            texts: chunk.texts,
            origins: &wait.origins,
        };
        Ok(Waiters {
            rows: left_rows(&batch, &origin, arena)?,
            codes,
            key,
            times,
        })
    }

    /// For `asof`: what is sorted of rows that have a time and a key, of which the first is the row at `order`.
    pub(super) fn timed_keys(&self, order: (u64, u64), arena: &'a Arena) -> Result<Option<Batch<'a>>> {
        let Some(times) = self.times else { return Ok(None) };
        let rows = self.codes.codes.len();
        let is_some = |row: usize| times.is_valid(row) && self.key.is_valid(row);
        let bits = Bits::collect(arena, rows, is_some)?;
        let columns = [
            times,
            self.key,
            Column::int(arena.fill(rows, order.0 as i64)?, None),
            Column::int(arena.collect(rows, |row| (order.1 + row as u64) as i64)?, None),
        ];
        let all = Batch::new(arena.copy(&columns)?, None, rows);
        let some = all.gather(bits.indices(arena)?, K_WIDTH, arena)?;
        let columns = arena.copy(some.columns())?;
        if let Data::Int(times) = some.column(K_TIME).data() {
            columns[K_TIME] = Column::int(times, None);
        }
        Ok(Some(Batch::new(columns, None, some.rows())))
    }

    /// Keys without a null, of which the first is that of the row at `order`.
    pub(super) fn push_keys(&self, keys: &mut KeysOfLane, timed: Option<Batch<'_>>, order: (u64, u64)) -> Result<()> {
        match keys {
            KeysOfLane::Parted(keys, parts) => {
                let Data::Bytes(texts) = self.key.data() else {
                    return Err(Error::Panic("keys that are no bytes".into()));
                };
                for (row, &code) in self.codes.codes.iter().enumerate() {
                    if self.codes.valid.is_none_or(|valid| valid.get(row)) {
                        let part = part_of(bucket_of(code), *parts);
                        keys.push(part, texts.bytes(row), (order.0, (order.1 + row as u64) as u32))?;
                    }
                }
                Ok(())
            }
            KeysOfLane::Sorted(sorted) => match timed {
                Some(rows) if rows.rows() > 0 => sorted.push(order.0, rows),
                Some(_) => Ok(()),
                None => Err(Error::Panic("keys without their times".into())),
            },
        }
    }
}
