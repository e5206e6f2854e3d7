//! Columns: typed values and validity of the rows of one batch.
//!
//! Laws
//! - Every part has exactly `len` rows; a null row's value is unspecified but readable (zero or empty where we make it).
//! - Copying a `Column` copies pointers, never values.

use crate::arena::{Arena, bytes_of};
use crate::bits::Bits;
use crate::cells::Cells;
use crate::error::Result;
use crate::text::{INLINE, Text, View};
use crate::types::Type;
use crate::value::Cell;

/// One column of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Column<'a> {
    data: Data<'a>,
    /// 1 = the row has a value; `None` = every row has.
    valid: Option<Bits<'a>>,
    len: usize,
}

/// The values of a column. A `Column`'s type is its field's; this is how the values are stored.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    /// Nothing downstream reads this column: it keeps its position and has no values.
    Absent,
    /// Every row is null.
    Null,
    Bool(Bits<'a>),
    Int(&'a [i64]),
    Float(&'a [f64]),
    /// Unscaled; the scale is the type's.
    Decimal(&'a [i128]),
    /// Days since 1970-01-01.
    Date(&'a [i32]),
    /// Microseconds since 1970-01-01T00:00:00Z.
    Timestamp(&'a [i64]),
    /// Microseconds.
    Duration(&'a [i64]),
    String(Text<'a>),
    Bytes(Text<'a>),
    /// JSON text.
    Json(Text<'a>),
    /// Cells as they stood in a CSV file, quotes and all, whatever the field's type is: only text sinks get these. An
    /// empty cell is null in the validity.
    Verbatim(Text<'a>),
    /// The same, not even cut into views yet; its validity is in the cells. Whatever picks rows makes it `Verbatim`.
    Cells(Cells<'a>),
    List(ListData<'a>),
    Record(RecordData<'a>),
}

/// Lists: row `r` is `child[offsets[r]..offsets[r + 1]]`.
#[derive(Clone, Copy, Debug)]
pub struct ListData<'a> {
    /// One more than rows; ascending; need not start at 0.
    pub offsets: &'a [i32],
    pub child: &'a Column<'a>,
}

/// Records: row `r` is row `from + r` of each of `columns`.
#[derive(Clone, Copy, Debug)]
pub struct RecordData<'a> {
    columns: &'a [Column<'a>],
    from: usize,
}

impl<'a> RecordData<'a> {
    /// Records of these columns, which all have the same number of rows.
    pub fn new(columns: &'a [Column<'a>]) -> Self {
        RecordData { columns, from: 0 }
    }

    /// Number of fields.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// Field `index` as a column of `len` rows. Its nulls are its own: a null record's fields may be anything.
    pub fn field(&self, index: usize, len: usize) -> Column<'a> {
        self.columns[index].slice(self.from, len)
    }
}

impl<'a> ListData<'a> {
    /// Where row `row` is in the child.
    #[inline]
    pub fn range(&self, row: usize) -> std::ops::Range<usize> {
        self.offsets[row] as usize..self.offsets[row + 1] as usize
    }
}

impl<'a> Column<'a> {
    /// A column of `len` rows. Panics if a part has another number of rows.
    pub fn new(data: Data<'a>, valid: Option<Bits<'a>>, len: usize) -> Self {
        let rows = match &data {
            Data::Absent | Data::Null => len,
            Data::Bool(bits) => bits.len(),
            Data::Int(v) | Data::Timestamp(v) | Data::Duration(v) => v.len(),
            Data::Float(v) => v.len(),
            Data::Decimal(v) => v.len(),
            Data::Date(v) => v.len(),
            Data::String(t) | Data::Bytes(t) | Data::Json(t) | Data::Verbatim(t) => t.len(),
            Data::Cells(cells) => cells.len(),
            Data::List(list) => list.offsets.len().saturating_sub(1),
            Data::Record(record) => match record.columns.iter().map(|c| c.len).min() {
                Some(rows) if rows < record.from + len => rows,
                _ => len,
            },
        };
        assert!(rows == len, "a column of {len} rows has values for {rows}");
        assert!(
            valid.is_none_or(|v| v.len() == len),
            "validity and values differ in length"
        );
        assert!(
            valid.is_none() || !matches!(data, Data::Cells(_)),
            "cells know themselves which are null"
        );
        Column { data, valid, len }
    }

    pub fn absent(len: usize) -> Self {
        Column {
            data: Data::Absent,
            valid: None,
            len,
        }
    }

    pub fn nulls(len: usize) -> Self {
        Column {
            data: Data::Null,
            valid: None,
            len,
        }
    }

    pub fn int(values: &'a [i64], valid: Option<Bits<'a>>) -> Self {
        Column::new(Data::Int(values), valid, values.len())
    }

    pub fn float(values: &'a [f64], valid: Option<Bits<'a>>) -> Self {
        Column::new(Data::Float(values), valid, values.len())
    }

    pub fn bool(values: Bits<'a>, valid: Option<Bits<'a>>) -> Self {
        Column::new(Data::Bool(values), valid, values.len())
    }

    pub fn string(text: Text<'a>, valid: Option<Bits<'a>>) -> Self {
        Column::new(Data::String(text), valid, text.len())
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn data(&self) -> Data<'a> {
        self.data
    }

    pub fn is_absent(&self) -> bool {
        matches!(self.data, Data::Absent)
    }

    /// The validity; `None` = every row has a value (but see [`Data::Null`] and [`Data::Cells`]).
    pub fn valid(&self) -> Option<Bits<'a>> {
        self.valid
    }

    #[inline]
    pub fn is_valid(&self, row: usize) -> bool {
        match self.valid {
            Some(bits) => bits.get(row),
            None => match self.data {
                Data::Null => false,
                Data::Cells(cells) => !cells.is_null(row),
                _ => true,
            },
        }
    }

    pub fn null_count(&self) -> usize {
        match self.valid {
            Some(bits) => self.len - bits.count(),
            None => match self.data {
                Data::Null => self.len,
                Data::Cells(cells) => (0..self.len).filter(|&row| cells.is_null(row)).count(),
                _ => 0,
            },
        }
    }

    /// The same values under another validity.
    #[must_use]
    pub fn with_valid(self, valid: Option<Bits<'a>>) -> Self {
        Column::new(self.data, valid, self.len)
    }

    /// Row `row`.
    pub fn cell(&self, row: usize) -> Cell<'a> {
        if !self.is_valid(row) {
            return Cell::Null;
        }
        match self.data {
            Data::Absent | Data::Null => Cell::Null,
            Data::Bool(v) => Cell::Bool(v.get(row)),
            Data::Int(v) => Cell::Int(v[row]),
            Data::Float(v) => Cell::Float(v[row]),
            Data::Decimal(v) => Cell::Decimal(v[row]),
            Data::Date(v) => Cell::Date(v[row]),
            Data::Timestamp(v) => Cell::Timestamp(v[row]),
            Data::Duration(v) => Cell::Duration(v[row]),
            Data::String(t) => Cell::String(t.str(row)),
            Data::Bytes(t) => Cell::Bytes(t.bytes(row)),
            Data::Json(t) => Cell::Json(t.str(row)),
            Data::Verbatim(t) => Cell::Verbatim(t.bytes(row)),
            Data::Cells(cells) => Cell::Verbatim(cells.bytes(row)),
            Data::List(list) => {
                let range = list.range(row);
                Cell::List(list.child.slice(range.start, range.len()))
            }
            Data::Record(record) => Cell::Record(record.columns, record.from + row),
        }
    }

    /// Rows `from..from + len`, without copying. Panics if there are fewer.
    #[must_use]
    pub fn slice(&self, from: usize, len: usize) -> Self {
        if from == 0 && len == self.len {
            return *self;
        }
        let data = match self.data {
            Data::Absent => Data::Absent,
            Data::Null => Data::Null,
            Data::Bool(v) => Data::Bool(v.slice(from, len)),
            Data::Int(v) => Data::Int(&v[from..from + len]),
            Data::Float(v) => Data::Float(&v[from..from + len]),
            Data::Decimal(v) => Data::Decimal(&v[from..from + len]),
            Data::Date(v) => Data::Date(&v[from..from + len]),
            Data::Timestamp(v) => Data::Timestamp(&v[from..from + len]),
            Data::Duration(v) => Data::Duration(&v[from..from + len]),
            Data::String(t) => Data::String(t.slice(from, len)),
            Data::Bytes(t) => Data::Bytes(t.slice(from, len)),
            Data::Json(t) => Data::Json(t.slice(from, len)),
            Data::Verbatim(t) => Data::Verbatim(t.slice(from, len)),
            Data::Cells(cells) => Data::Cells(cells.slice(from, len)),
            Data::List(list) => Data::List(ListData {
                offsets: &list.offsets[from..=from + len],
                child: list.child,
            }),
            Data::Record(record) => Data::Record(RecordData {
                from: record.from + from,
                ..record
            }),
        };
        Column {
            data,
            valid: self.valid.map(|v| v.slice(from, len)),
            len,
        }
    }

    /// The rows named by `indices`, in that order: numbers are copied, text is shared.
    pub fn gather(&self, indices: &[u32], arena: &'a Arena) -> Result<Self> {
        let len = indices.len();
        let at = |i: usize| indices[i] as usize;
        let data = match self.data {
            Data::Absent => Data::Absent,
            Data::Null => Data::Null,
            Data::Bool(v) => Data::Bool(Bits::collect(arena, len, |i| v.get(at(i)))?),
            Data::Int(v) => Data::Int(arena.collect(len, |i| v[at(i)])?),
            Data::Float(v) => Data::Float(arena.collect(len, |i| v[at(i)])?),
            Data::Decimal(v) => Data::Decimal(arena.collect(len, |i| v[at(i)])?),
            Data::Date(v) => Data::Date(arena.collect(len, |i| v[at(i)])?),
            Data::Timestamp(v) => Data::Timestamp(arena.collect(len, |i| v[at(i)])?),
            Data::Duration(v) => Data::Duration(arena.collect(len, |i| v[at(i)])?),
            Data::String(t) => Data::String(t.gather(indices, arena)?),
            Data::Bytes(t) => Data::Bytes(t.gather(indices, arena)?),
            Data::Json(t) => Data::Json(t.gather(indices, arena)?),
            Data::Verbatim(t) => Data::Verbatim(t.gather(indices, arena)?),
            Data::Cells(cells) => {
                let (text, valid) = cells.views(len, arena, at)?;
                return Ok(Column::new(Data::Verbatim(text), valid, len));
            }
            Data::List(list) => Data::List(self.gather_list(list, indices, arena)?),
            Data::Record(record) => {
                let mut columns = Columns::new(arena, record.width())?;
                for index in 0..record.width() {
                    columns.push(record.field(index, self.len).gather(indices, arena)?);
                }
                Data::Record(RecordData::new(columns.finish()))
            }
        };
        let valid = match self.valid {
            Some(v) => Some(Bits::collect(arena, len, |i| v.get(at(i)))?),
            None => None,
        };
        Ok(Column { data, valid, len })
    }

    /// The same column with its cells cut into views, if they are not yet.
    pub fn settled(&self, arena: &'a Arena) -> Result<Self> {
        match self.data {
            Data::Cells(cells) => {
                let (text, valid) = cells.views(self.len, arena, |row| row)?;
                Ok(Column::new(Data::Verbatim(text), valid, self.len))
            }
            _ => Ok(*self),
        }
    }

    fn gather_list(&self, list: ListData<'a>, indices: &[u32], arena: &'a Arena) -> Result<ListData<'a>> {
        let size = |row: u32| {
            if self.is_valid(row as usize) {
                list.range(row as usize).len()
            } else {
                0
            }
        };
        let mut total = 0usize;
        let offsets = arena.collect(indices.len() + 1, |i| {
            let start = total;
            total += indices.get(i).map_or(0, |&row| size(row));
            start as i32
        })?;
        let mut rows = indices.iter().flat_map(|&row| {
            let range = list.range(row as usize);
            range.start..range.start + size(row)
        });
        let rows = arena.collect(total, |_| rows.next().unwrap_or(0) as u32)?;
        let child = arena.one(list.child.gather(rows, arena)?)?;
        Ok(ListData { offsets, child })
    }

    /// Bytes that [`Column::copy_to`] takes of an arena. The two move together.
    pub fn copy_bytes(&self) -> usize {
        let bits = bytes_of::<u64>(self.len.div_ceil(64));
        let data = match self.data {
            Data::Absent | Data::Null => 0,
            Data::Bool(_) => bits,
            Data::Int(_) | Data::Timestamp(_) | Data::Duration(_) | Data::Float(_) => bytes_of::<i64>(self.len),
            Data::Decimal(_) => bytes_of::<i128>(self.len),
            Data::Date(_) => bytes_of::<i32>(self.len),
            Data::String(t) | Data::Bytes(t) | Data::Json(t) | Data::Verbatim(t) => t.copy_bytes(),
            Data::Cells(cells) => {
                let long = |row| cells.bytes(row).len();
                let long: usize = (0..self.len).map(long).filter(|&bytes| bytes > INLINE).sum();
                let text = if long == 0 {
                    0
                } else {
                    bytes_of::<u8>(long) + bytes_of::<&[u8]>(1)
                };
                bytes_of::<View>(self.len) + text + if self.null_count() == 0 { 0 } else { bits }
            }
            Data::List(list) => {
                let first = list.offsets[0];
                let used = (list.offsets[self.len] - first) as usize;
                let child = list.child.slice(first as usize, used).copy_bytes();
                bytes_of::<i32>(list.offsets.len()) + child + bytes_of::<Column<'_>>(1)
            }
            Data::Record(record) => {
                let fields: usize = (0..record.width())
                    .map(|i| record.field(i, self.len).copy_bytes())
                    .sum();
                fields + bytes_of::<Column<'_>>(record.width())
            }
        };
        data + if self.valid.is_some() { bits } else { 0 }
    }

    /// A copy that borrows nothing but `arena`.
    pub fn copy_to<'b>(&self, arena: &'b Arena) -> Result<Column<'b>> {
        let data = match self.data {
            Data::Absent => Data::Absent,
            Data::Null => Data::Null,
            Data::Bool(v) => Data::Bool(Bits::collect_words(arena, self.len, |w| v.word(w))?),
            Data::Int(v) => Data::Int(arena.copy(v)?),
            Data::Float(v) => Data::Float(arena.copy(v)?),
            Data::Decimal(v) => Data::Decimal(arena.copy(v)?),
            Data::Date(v) => Data::Date(arena.copy(v)?),
            Data::Timestamp(v) => Data::Timestamp(arena.copy(v)?),
            Data::Duration(v) => Data::Duration(arena.copy(v)?),
            Data::String(t) => Data::String(t.copy_to(arena)?),
            Data::Bytes(t) => Data::Bytes(t.copy_to(arena)?),
            Data::Json(t) => Data::Json(t.copy_to(arena)?),
            Data::Verbatim(t) => Data::Verbatim(t.copy_to(arena)?),
            Data::Cells(cells) => {
                let text = Text::copy_of(
                    self.len,
                    arena,
                    |row| View::inline(cells.bytes(row)),
                    |row| cells.bytes(row),
                )?;
                let valid = match self.null_count() {
                    0 => None,
                    _ => Some(Bits::collect(arena, self.len, |row| !cells.is_null(row))?),
                };
                return Ok(Column::new(Data::Verbatim(text), valid, self.len));
            }
            Data::List(list) => {
                let first = list.offsets[0];
                let offsets = arena.collect(list.offsets.len(), |i| list.offsets[i] - first)?;
                let used = (list.offsets[self.len] - first) as usize;
                let child = list.child.slice(first as usize, used).copy_to(arena)?;
                Data::List(ListData {
                    offsets,
                    child: arena.one(child)?,
                })
            }
            Data::Record(record) => {
                let mut columns = Columns::new(arena, record.width())?;
                for index in 0..record.width() {
                    columns.push(record.field(index, self.len).copy_to(arena)?);
                }
                Data::Record(RecordData::new(columns.finish()))
            }
        };
        let valid = match self.valid {
            Some(v) => Some(Bits::collect_words(arena, self.len, |w| v.word(w))?),
            None => None,
        };
        Ok(Column {
            data,
            valid,
            len: self.len,
        })
    }

    /// Whether the stored values can be those of a field of this type; `Absent`, `Null`, `Verbatim` and `Cells` fit all.
    pub fn fits(&self, ty: &Type) -> bool {
        matches!(
            (&self.data, ty),
            (Data::Absent | Data::Null | Data::Verbatim(_) | Data::Cells(_), _)
                | (Data::Bool(_), Type::Bool)
                | (Data::Int(_), Type::Int)
                | (Data::Float(_), Type::Float)
                | (Data::Decimal(_), Type::Decimal { .. })
                | (Data::Date(_), Type::Date)
                | (Data::Timestamp(_), Type::Timestamp)
                | (Data::Duration(_), Type::Duration)
                | (Data::String(_), Type::String)
                | (Data::Bytes(_), Type::Bytes)
                | (Data::Json(_), Type::Json)
                | (Data::List(_), Type::List(_))
                | (Data::Record(_), Type::Record(_))
        )
    }
}

/// An array of columns being filled.
pub struct Columns<'a> {
    slots: crate::arena::Uninit<'a, Column<'a>>,
    count: usize,
}

impl<'a> Columns<'a> {
    /// Room for `width` columns.
    pub fn new(arena: &'a Arena, width: usize) -> Result<Self> {
        Ok(Columns {
            slots: arena.uninit(width)?,
            count: 0,
        })
    }

    /// Adds the next column. Panics behind `width`.
    pub fn push(&mut self, column: Column<'a>) {
        self.slots[self.count].write(column);
        self.count += 1;
    }

    /// The columns pushed.
    pub fn finish(self) -> &'a [Column<'a>] {
        self.slots.finish(self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::View;

    fn ints(column: &Column<'_>) -> Vec<Option<i64>> {
        (0..column.len())
            .map(|row| match column.cell(row) {
                Cell::Int(v) => Some(v),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn gather_and_slice_agree_on_lists_and_records() {
        let arena = Arena::new(1 << 16);
        let valid = Bits::collect(&arena, 6, |i| i != 2).unwrap();
        let child = Column::int(arena.collect(6, |i| i as i64).unwrap(), Some(valid));
        let list = ListData {
            offsets: &[0, 2, 2, 5, 6],
            child: &child,
        };
        let lists = Column::new(Data::List(list), None, 4);
        let columns = [Column::int(&[10, 11, 12, 13], None), lists];
        let records = Column::new(Data::Record(RecordData::new(&columns)), None, 4);
        let some = records.slice(1, 3).gather(&[2, 1], &arena).unwrap();
        let Data::Record(record) = some.data() else {
            panic!("a record")
        };
        assert_eq!(ints(&record.field(0, 2)), [Some(13), Some(12)]);
        let lists = record.field(1, 2);
        let Cell::List(first) = lists.cell(0) else {
            panic!("a list")
        };
        let Cell::List(second) = lists.cell(1) else {
            panic!("a list")
        };
        assert_eq!(ints(&first), [Some(5)]);
        assert_eq!(ints(&second), [None, Some(3), Some(4)]);
        let other = Arena::new(1 << 16);
        let copy = some.copy_to(&other).unwrap();
        let Data::Record(record) = copy.data() else {
            panic!("a record")
        };
        assert_eq!(ints(&record.field(0, 2)), [Some(13), Some(12)]);
    }

    #[test]
    fn bits_behind_an_offset_are_the_same_bits() {
        let arena = Arena::new(1 << 16);
        let bits = Bits::collect(&arena, 200, |i| i % 3 == 0).unwrap();
        for from in [0, 1, 63, 64, 65, 130] {
            let part = bits.slice(from, 200 - from);
            let want: Vec<usize> = (0..200 - from).filter(|i| (i + from) % 3 == 0).collect();
            assert_eq!(part.ones().collect::<Vec<_>>(), want);
            assert_eq!(part.count(), want.len());
            let indices: Vec<usize> = part.indices(&arena).unwrap().iter().map(|&i| i as usize).collect();
            assert_eq!(indices, want);
        }
        let views = [View::inline(b"a").unwrap(), View::inline(b"bc").unwrap()];
        assert_eq!(Text::inline(&views).str(1), "bc");
    }
}
