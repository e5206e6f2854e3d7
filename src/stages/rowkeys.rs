//! The keys of a batch's rows and their hashes, made before a stage's turn and handed on as further columns.
//!
//! Laws
//! - Rows have equal keys iff their values are equal in the key's columns, nulls and NaN being values like others.
//! - A key of one text column is that text, not a copy; null is a byte that no text has.

use super::keys::{self, Keys};
use foldhash::fast::RandomState;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::spec::Call;
use standpipe_sdk::{Arena, Batch, Cell, Column, Columns, Data, Prepare, Text, Type};
use std::hash::BuildHasher;

/// Stands for a null text.
const NULL: &[u8] = &[0xFF];

/// Makes the keys of rows; copies of one maker make the same hashes.
#[derive(Clone)]
pub(super) struct KeyMaker {
    keys: Keys,
    /// The key's only column, a text.
    text: Option<usize>,
    hasher: RandomState,
}

/// The keys of the rows of a batch.
#[derive(Clone, Copy)]
pub(super) struct RowKeys<'a> {
    hashes: &'a [i64],
    text: Option<Text<'a>>,
    column: Column<'a>,
}

impl KeyMaker {
    /// Keys of these columns of a call's input.
    pub(super) fn of(call: &Call<'_>, columns: &[usize]) -> Self {
        KeyMaker::new(columns, |at| call.input.get(at).map(|field| &field.ty))
    }

    /// Keys of `columns`, of which `ty` gives the types.
    pub(super) fn new<'t>(columns: &[usize], ty: impl Fn(usize) -> Option<&'t Type>) -> Self {
        let text = match columns {
            [column] if ty(*column) == Some(&Type::String) => Some(*column),
            _ => None,
        };
        KeyMaker {
            keys: Keys::grouping(columns.iter().copied()),
            text,
            hasher: RandomState::default(),
        }
    }

    /// What [`KeyMaker::sortable`] appends for a key of so many bytes, at most.
    pub(super) fn sortable_bytes(bytes: usize) -> usize {
        2 * bytes + 3
    }

    /// Appends to `out` what a key that [`RowKeys::get`] gave is among keys that sort, and that no other begins with.
    ///
    /// # Errors
    /// `Memory` if `out` cannot grow.
    pub(super) fn sortable(&self, key: &[u8], out: &mut Vec<u8>) -> Result<()> {
        match self.text {
            Some(_) if key == NULL => keys::value(Cell::Null, out),
            Some(_) => keys::value(Cell::Verbatim(key), out),
            None => keys::append(key, out),
        }
    }

    /// The batch with what [`KeyMaker::read`] finds behind its columns.
    pub(super) fn made<'a>(&self, batch: Batch<'a>, arena: &'a Arena) -> Result<Batch<'a>> {
        let width = batch.columns().len();
        let mut columns = Columns::new(arena, width + 2)?;
        for &column in batch.columns() {
            columns.push(column);
        }
        let key = match self.text {
            Some(column) => batch.column(column),
            None => self.keys.column(&batch, arena)?,
        };
        let keys = RowKeys::new(&[], key);
        let hashes = arena.collect(batch.rows(), |row| self.hasher.hash_one(keys.get(row)) as i64)?;
        columns.push(key);
        columns.push(Column::int(hashes, None));
        Ok(batch.with_columns(columns.finish()))
    }

    /// The keys of a batch that was prepared.
    pub(super) fn read<'a>(batch: &Batch<'a>) -> Result<RowKeys<'a>> {
        match batch.columns() {
            [.., key, hashes] if let Data::Int(hashes) = hashes.data() => Ok(RowKeys::new(hashes, *key)),
            _ => Err(Error::Panic("rows without their keys".into())),
        }
    }

    /// The keys of such a batch as a column, in which a null may be a key.
    pub(super) fn key_column<'a>(batch: &Batch<'a>) -> Result<Column<'a>> {
        Ok(KeyMaker::read(batch)?.column)
    }
}

impl Prepare for KeyMaker {
    fn prepare<'a>(&mut self, batch: Batch<'a>, arena: &'a Arena) -> Result<Batch<'a>> {
        self.made(batch, arena)
    }
}

impl<'a> RowKeys<'a> {
    fn new(hashes: &'a [i64], column: Column<'a>) -> Self {
        let text = match column.data() {
            Data::String(text) | Data::Bytes(text) => Some(text),
            _ => None,
        };
        RowKeys { hashes, text, column }
    }

    /// The key of row `row`.
    #[inline]
    pub(super) fn get(&self, row: usize) -> &'a [u8] {
        match self.text {
            Some(text) if self.column.is_valid(row) => text.bytes(row),
            _ => NULL,
        }
    }

    pub(super) fn hashes(&self) -> &'a [i64] {
        self.hashes
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::values;
    use super::*;

    #[test]
    fn sortable_keys_order_like_the_values_of_the_rows() {
        let schema = schema(&[("s", STRING), ("n", INT)]);
        let texts = ["", "\0", "\0a", "a", "a\0", "a\0b", "ab", "b", "ÿ"];
        let mut rows: Rows = texts.iter().map(|&t| vec![text(t), int(1)]).collect();
        rows.push(vec![standpipe_sdk::Value::Null, int(1)]);
        let arena = Arena::new(1 << 20);
        let batch = values::batch(&schema, &rows, &arena).unwrap();
        for columns in [&[0][..], &[0, 1]] {
            let mut maker = KeyMaker::new(columns, |at| schema.get(at).map(|field| &field.ty));
            let made = maker.prepare(batch, &arena).unwrap();
            let keys = KeyMaker::read(&made).unwrap();
            let sortable: Vec<Vec<u8>> = (0..rows.len())
                .map(|row| {
                    let mut out = b"before".to_vec();
                    maker.sortable(keys.get(row), &mut out).unwrap();
                    assert!(out.starts_with(b"before"));
                    out
                })
                .collect();
            assert!(sortable.is_sorted_by(|a, b| a < b && !b.starts_with(a)), "{sortable:?}");
        }
    }
}
