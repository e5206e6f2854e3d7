//! A row of partial states as bytes: beside rows that have none of them, columns of their own would be mostly empty.
//!
//! Laws
//! - What is read back is what was written; of bytes that were not written here something is read, without a panic.

use standpipe_sdk::build::TextBuilder;
use standpipe_sdk::error::Result;
use standpipe_sdk::{Arena, Bits, Column, Columns, Data, Type};

/// The columns of such a row.
pub(super) struct Packed {
    kinds: Vec<Kind>,
}

#[derive(Clone, Copy)]
enum Kind {
    Bool,
    Int,
    Wide,
    Bytes,
}

impl Packed {
    /// For columns of these types without nulls; `None` if there is another one among them.
    pub(super) fn new<'t>(types: impl Iterator<Item = &'t Type>) -> Option<Packed> {
        let kind = |ty: &Type| match ty {
            Type::Bool => Some(Kind::Bool),
            Type::Int => Some(Kind::Int),
            Type::Decimal { .. } => Some(Kind::Wide),
            Type::Bytes => Some(Kind::Bytes),
            _ => None,
        };
        Some(Packed {
            kinds: types.map(kind).collect::<Option<_>>()?,
        })
    }

    /// Appends row `row` of these columns.
    pub(super) fn write(&self, columns: &[Column<'_>], row: usize, out: &mut Vec<u8>) {
        for column in columns {
            match column.data() {
                Data::Bool(values) => out.push(u8::from(values.get(row))),
                Data::Int(values) => write_number(i128::from(values[row]), out),
                Data::Decimal(values) => write_number(values[row], out),
                Data::Bytes(text) => {
                    let bytes = text.bytes(row);
                    write_number(bytes.len() as i128, out);
                    out.extend_from_slice(bytes);
                }
                _ => {}
            }
        }
    }

    /// The columns of these rows, which are moved behind what is read.
    pub(super) fn read<'a>(&self, rows: &mut [&[u8]], arena: &'a Arena) -> Result<&'a [Column<'a>]> {
        let len = rows.len();
        let mut columns = Columns::new(arena, self.kinds.len())?;
        for kind in &self.kinds {
            columns.push(match kind {
                Kind::Bool => {
                    let values = arena.collect(len, |row| read_byte(&mut rows[row]) == 1)?;
                    Column::bool(Bits::collect(arena, len, |row| values[row])?, None)
                }
                Kind::Int => Column::int(arena.collect(len, |row| read_number(&mut rows[row]) as i64)?, None),
                Kind::Wide => {
                    let values = arena.collect(len, |row| read_number(&mut rows[row]))?;
                    Column::new(Data::Decimal(values), None, len)
                }
                Kind::Bytes => {
                    let mut out = TextBuilder::new(arena, len, 0)?;
                    for row in rows.iter_mut() {
                        let bytes = (read_number(row) as usize).min(row.len());
                        let (text, rest) = row.split_at(bytes);
                        out.push_bytes(text)?;
                        *row = rest;
                    }
                    Column::new(Data::Bytes(out.finish()?), None, len)
                }
            });
        }
        Ok(columns.finish())
    }
}

/// How many bytes it has, then those; small ones of either sign have few.
fn write_number(value: i128, out: &mut Vec<u8>) {
    let value = (value << 1 ^ value >> 127) as u128;
    let len = (u128::BITS - value.leading_zeros()).div_ceil(8) as usize;
    out.push(len as u8);
    out.extend_from_slice(&value.to_le_bytes()[..len]);
}

fn read_byte(bytes: &mut &[u8]) -> u8 {
    match bytes.split_first() {
        Some((&first, rest)) => {
            *bytes = rest;
            first
        }
        None => 0,
    }
}

fn read_number(bytes: &mut &[u8]) -> i128 {
    let len = usize::from(read_byte(bytes)).min(size_of::<u128>()).min(bytes.len());
    let (head, rest) = bytes.split_at(len);
    *bytes = rest;
    let mut whole = [0; size_of::<u128>()];
    whole[..len].copy_from_slice(head);
    let value = u128::from_le_bytes(whole);
    (value >> 1) as i128 ^ -((value & 1) as i128)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back(values in proptest::collection::vec(any::<i128>(), 0..9), shift in 0..128u32) {
            let values: Vec<i128> = values.iter().map(|v| v >> shift).chain([0, -1, i128::MIN, i128::MAX]).collect();
            let mut bytes = vec![];
            values.iter().for_each(|&value| write_number(value, &mut bytes));
            let mut rest = bytes.as_slice();
            for value in values {
                prop_assert_eq!(read_number(&mut rest), value);
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn columns_come_back(ints in proptest::collection::vec(any::<i64>(), 1..20), cut in 0..20usize) {
            let arena = Arena::new(1 << 20);
            let types = [Type::Int, Type::Bool, Type::Decimal { precision: 38, scale: 0 }, Type::Bytes];
            let packed = Packed::new(types.iter()).unwrap();
            let len = ints.len();
            let mut texts = TextBuilder::new(&arena, len, 0).unwrap();
            ints.iter().for_each(|i| texts.push_bytes(format!("{i}").repeat(3).as_bytes()).unwrap());
            let columns = [
                Column::int(&ints, None),
                Column::bool(Bits::collect(&arena, len, |i| ints[i] % 2 == 0).unwrap(), None),
                Column::new(Data::Decimal(arena.map(&ints, |i| i128::from(i) << 60).unwrap()), None, len),
                Column::new(Data::Bytes(texts.finish().unwrap()), None, len),
            ];
            let rows: Vec<Vec<u8>> = (0..len).map(|row| {
                let mut out = vec![];
                packed.write(&columns, row, &mut out);
                out
            }).collect();
            let mut slices: Vec<&[u8]> = rows.iter().map(Vec::as_slice).collect();
            let back = packed.read(&mut slices, &arena).unwrap();
            prop_assert!(slices.iter().all(|rest| rest.is_empty()));
            for (a, b) in columns.iter().zip(back) {
                for row in 0..len {
                    prop_assert_eq!(format!("{:?}", a.cell(row)), format!("{:?}", b.cell(row)));
                }
            }
            // Less than was written is something else, and no panic.
            let mut short: Vec<&[u8]> = rows.iter().map(|row| &row[..cut.min(row.len())]).collect();
            packed.read(&mut short, &arena).unwrap();
        }
    }

    #[test]
    fn other_types_are_not_packed() {
        assert!(Packed::new([Type::Int, Type::list(Type::Int, false)].iter()).is_none());
    }
}
