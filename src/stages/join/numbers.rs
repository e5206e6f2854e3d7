//! Keys and times of a batch as numbers.

use super::super::keys::Keys;
use standpipe_sdk::bits::both;
use standpipe_sdk::error::Result;
use standpipe_sdk::{Arena, Batch, Bits, Column, Data};

/// The keys of a batch as numbers.
pub(super) struct Codes<'a> {
    pub(super) codes: &'a [u64],
    /// Where no key is null; `None` = everywhere.
    pub(super) valid: Option<Bits<'a>>,
}

impl<'a> Codes<'a> {
    /// `exact`: the key itself, else a hash of the keys.
    pub(super) fn of(keys: &[usize], exact: bool, batch: &Batch<'a>, arena: &'a Arena) -> Result<Codes<'a>> {
        let rows = batch.rows();
        let mut valid = None;
        for &key in keys {
            valid = both(valid, validity(&batch.column(key), arena)?, arena)?;
        }
        let codes: &[u64] = match keys {
            [] => arena.fill(rows, 0)?,
            [key] if exact => exact_codes(&batch.column(*key), arena)?,
            _ => {
                let keys = Keys::grouping(keys.iter().copied());
                keys.block(batch, arena)?.hashes(arena)?
            }
        };
        Ok(Codes { codes, valid })
    }
}

/// Where a column has values; `None` = everywhere.
pub(super) fn validity<'a>(column: &Column<'a>, arena: &'a Arena) -> Result<Option<Bits<'a>>> {
    match column.data() {
        Data::Null | Data::Absent => Ok(Some(Bits::all(arena, column.len(), false)?)),
        _ => Ok(column.valid()),
    }
}

/// A key of a type that [`super::is_exact`]. Equal keys have equal codes.
fn exact_codes<'a>(column: &Column<'a>, arena: &'a Arena) -> Result<&'a [u64]> {
    Ok(match column.data() {
        Data::Int(v) | Data::Timestamp(v) | Data::Duration(v) => arena.map(v, |v| v as u64)?,
        Data::Date(v) => arena.map(v, |v| v as u64)?,
        Data::Float(v) => arena.map(v, |v| {
            let bits = if v.is_nan() { f64::NAN } else { v + 0.0 };
            bits.to_bits()
        })?,
        Data::Bool(v) => arena.collect(column.len(), |row| u64::from(v.get(row)))?,
        _ => arena.fill(column.len(), 0)?,
    })
}

/// A time or number as an int with the same order.
pub(super) fn times<'a>(column: &Column<'a>, arena: &'a Arena) -> Result<&'a [i64]> {
    Ok(match column.data() {
        Data::Int(v) | Data::Timestamp(v) | Data::Duration(v) => v,
        Data::Date(v) => arena.map(v, i64::from)?,
        Data::Float(v) => arena.map(v, |v| {
            let bits = if v.is_nan() { f64::NAN.abs() } else { v + 0.0 }.to_bits() as i64;
            // Negative numbers the other way round.
            if bits < 0 { bits ^ i64::MAX } else { bits }
        })?,
        _ => arena.fill(column.len(), 0)?,
    })
}
