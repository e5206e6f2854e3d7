//! Rows as bytes, column by column.
//!
//! A column is its kind, its validity (64-bit words, if it has any), then its values: whole numbers as differences from the least one in
//! as few bytes as the greatest needs, floats and decimals as they are, texts as lengths and all bytes, lists as lengths and their child,
//! records as their fields.
//!
//! Laws
//! - What is read back has the same rows, and stores them in the same way ([`Data`]'s variant, all the way down).
//! - Encoding never grows its buffer: [`bound`] is what it takes at most. Decoding takes at most [`unpacked_bytes`] of its arena beside
//!   the bytes themselves, which texts keep pointing into.
//! - Damaged bytes are an error, never a panic: lengths are checked before they are used.

use standpipe_sdk::error::Error;
use standpipe_sdk::{Arena, Batch, Bits, Cells, Column, Columns, Data, ListData, RecordData, Text};

/// Why bytes cannot be read.
#[derive(Debug)]
pub enum Bad {
    /// They are not what was written.
    Damaged,
    /// There is no room.
    Refused(Error),
}

impl From<Error> for Bad {
    fn from(error: Error) -> Self {
        Bad::Refused(error)
    }
}

type Result<T> = std::result::Result<T, Bad>;

/// Lists in lists in records: deeper than any type.
const DEEPEST: usize = 2000;

/// What rows `from..from + len` take encoded, at most.
pub fn bound(batch: &Batch<'_>, from: usize, len: usize) -> usize {
    8 + batch
        .columns()
        .iter()
        .map(|c| bound_of(&c.slice(from, len)))
        .sum::<usize>()
}

fn numbers_bound(len: usize) -> usize {
    9 + 8 * len
}

fn bound_of(column: &Column<'_>) -> usize {
    let len = column.len();
    let words = 8 * len.div_ceil(64);
    let data = match column.data() {
        Data::Absent | Data::Null => 0,
        Data::Bool(_) => words,
        Data::Int(_) | Data::Timestamp(_) | Data::Duration(_) | Data::Date(_) => numbers_bound(len),
        Data::Float(_) => 8 * len,
        Data::Decimal(_) => 16 * len,
        Data::String(t) | Data::Bytes(t) | Data::Json(t) | Data::Verbatim(t) => 4 + numbers_bound(len) + text_bytes(&t),
        Data::Cells(cells) => 4 + numbers_bound(len) + cells_bytes(&cells),
        Data::List(list) => 4 + numbers_bound(len) + bound_of(&child_of(&list, len)),
        Data::Record(record) => {
            4 + (0..record.width())
                .map(|i| bound_of(&record.field(i, len)))
                .sum::<usize>()
        }
    };
    2 + words + data
}

fn text_bytes(text: &Text<'_>) -> usize {
    text.views().iter().map(|v| v.len()).sum()
}

fn cells_bytes(cells: &Cells<'_>) -> usize {
    (0..cells.len()).map(|row| cells.bytes(row).len()).sum()
}

/// The part of a list's child that its rows have.
fn child_of<'a>(list: &ListData<'a>, len: usize) -> Column<'a> {
    let (first, last) = (list.offsets[0] as usize, list.offsets[len] as usize);
    list.child.slice(first, last - first)
}

/// Bytes of an arena that decoding rows `from..from + len` takes beside the encoded bytes.
pub fn unpacked_bytes(batch: &Batch<'_>, from: usize, len: usize) -> usize {
    let columns = batch.columns().iter().map(|c| unpacked_of(&c.slice(from, len)));
    block::<Column<'_>>(batch.columns().len()) + columns.sum::<usize>()
}

/// What an arena takes for `len` values.
fn block<T>(len: usize) -> usize {
    (len * size_of::<T>()).next_multiple_of(standpipe_sdk::arena::ALIGN)
}

fn unpacked_of(column: &Column<'_>) -> usize {
    let len = column.len();
    let words = block::<u64>(len.div_ceil(64));
    let data = match column.data() {
        Data::Absent | Data::Null => 0,
        Data::Bool(_) => words,
        Data::Int(_) | Data::Timestamp(_) | Data::Duration(_) | Data::Float(_) => block::<i64>(len),
        Data::Date(_) => block::<i32>(len),
        Data::Decimal(_) => block::<i128>(len),
        Data::String(_) | Data::Bytes(_) | Data::Json(_) | Data::Verbatim(_) | Data::Cells(_) => {
            block::<u32>(len) + block::<u128>(len) + block::<&[u8]>(1)
        }
        Data::List(list) => block::<i32>(len + 1) + block::<Column<'_>>(1) + unpacked_of(&child_of(&list, len)),
        Data::Record(record) => {
            let fields = (0..record.width()).map(|i| unpacked_of(&record.field(i, len)));
            block::<Column<'_>>(record.width()) + fields.sum::<usize>()
        }
    };
    let has_validity = column.valid().is_some() || matches!(column.data(), Data::Cells(_));
    data + if has_validity { words } else { 0 }
}

/// Appends rows `from..from + len` to `out`, which has room for [`bound`].
pub fn encode(batch: &Batch<'_>, from: usize, len: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&(len as u32).to_le_bytes());
    out.extend_from_slice(&(batch.columns().len() as u32).to_le_bytes());
    for column in batch.columns() {
        encode_column(&column.slice(from, len), out);
    }
}

fn encode_column(column: &Column<'_>, out: &mut Vec<u8>) {
    let len = column.len();
    out.push(kind(&column.data()));
    if let Data::Cells(cells) = column.data() {
        // They come back as the same texts cut into views.
        out.push(1);
        for from in (0..len).step_by(64) {
            let bits = (from..len.min(from + 64)).rev();
            let word = bits.fold(0u64, |word, row| word << 1 | u64::from(!cells.is_null(row)));
            out.extend_from_slice(&word.to_le_bytes());
        }
        encode_numbers(len, |i| cells.bytes(i).len() as u64, out);
        out.extend_from_slice(&(cells_bytes(&cells) as u32).to_le_bytes());
        (0..len).for_each(|row| out.extend_from_slice(cells.bytes(row)));
        return;
    }
    out.push(u8::from(column.valid().is_some()));
    let words = |bits: &Bits<'_>, out: &mut Vec<u8>| {
        (0..bits.words()).for_each(|w| out.extend_from_slice(&bits.word(w).to_le_bytes()));
    };
    if let Some(valid) = column.valid() {
        words(&valid, out);
    }
    match column.data() {
        Data::Absent | Data::Null | Data::Cells(_) => {}
        Data::Bool(bits) => words(&bits, out),
        Data::Int(v) | Data::Timestamp(v) | Data::Duration(v) => {
            encode_numbers(len, |i| v[i] as u64 ^ 1 << 63, out);
        }
        Data::Date(v) => encode_numbers(len, |i| u64::from(v[i] as u32 ^ 1 << 31), out),
        Data::Float(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_bits().to_le_bytes())),
        Data::Decimal(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        Data::String(t) | Data::Bytes(t) | Data::Json(t) | Data::Verbatim(t) => {
            encode_numbers(len, |i| t.views()[i].len() as u64, out);
            out.extend_from_slice(&(text_bytes(&t) as u32).to_le_bytes());
            (0..len).for_each(|row| out.extend_from_slice(t.bytes(row)));
        }
        Data::List(list) => {
            encode_numbers(len, |i| list.range(i).len() as u64, out);
            let child = child_of(&list, len);
            out.extend_from_slice(&(child.len() as u32).to_le_bytes());
            encode_column(&child, out);
        }
        Data::Record(record) => {
            out.extend_from_slice(&(record.width() as u32).to_le_bytes());
            (0..record.width()).for_each(|i| encode_column(&record.field(i, len), out));
        }
    }
}

fn kind(data: &Data<'_>) -> u8 {
    match data {
        Data::Absent => 0,
        Data::Null => 1,
        Data::Bool(_) => 2,
        Data::Int(_) => 3,
        Data::Float(_) => 4,
        Data::Decimal(_) => 5,
        Data::Date(_) => 6,
        Data::Timestamp(_) => 7,
        Data::Duration(_) => 8,
        Data::String(_) => 9,
        Data::Bytes(_) => 10,
        Data::Json(_) => 11,
        Data::Verbatim(_) | Data::Cells(_) => 12,
        Data::List(_) => 13,
        Data::Record(_) => 14,
    }
}

/// The least number, the bytes of a difference (0, 1, 2, 4, 8), the differences.
pub fn encode_numbers(len: usize, of: impl Fn(usize) -> u64, out: &mut Vec<u8>) {
    let (mut least, mut most) = (u64::MAX, 0);
    for i in 0..len {
        least = least.min(of(i));
        most = most.max(of(i));
    }
    let width = match most.saturating_sub(least) {
        0 => 0u8,
        0x1..=0xFF => 1,
        0x100..=0xFFFF => 2,
        0x1_0000..=0xFFFF_FFFF => 4,
        _ => 8,
    };
    out.extend_from_slice(&least.to_le_bytes());
    out.push(width);
    match width {
        0 => {}
        1 => (0..len).for_each(|i| out.push((of(i) - least) as u8)),
        2 => (0..len).for_each(|i| out.extend_from_slice(&((of(i) - least) as u16).to_le_bytes())),
        4 => (0..len).for_each(|i| out.extend_from_slice(&((of(i) - least) as u32).to_le_bytes())),
        _ => (0..len).for_each(|i| out.extend_from_slice(&(of(i) - least).to_le_bytes())),
    }
}

/// The bytes that are still to be read.
pub struct Reading<'b> {
    pub bytes: &'b [u8],
}

impl<'b> Reading<'b> {
    pub fn take(&mut self, len: usize) -> Result<&'b [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or(Bad::Damaged)?;
        self.bytes = rest;
        Ok(taken)
    }

    pub fn u32(&mut self) -> Result<u32> {
        let bytes = self.take(4)?.first_chunk::<4>().ok_or(Bad::Damaged)?;
        Ok(u32::from_le_bytes(*bytes))
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    /// `len` fixed-size values.
    fn values<const N: usize>(&mut self, len: usize) -> Result<&'b [[u8; N]]> {
        let bytes = self.take(len.checked_mul(N).ok_or(Bad::Damaged)?)?;
        Ok(bytes.as_chunks::<N>().0)
    }

    /// Numbers as [`encode_numbers`] wrote them: the least one, and the differences.
    pub fn numbers(&mut self, len: usize) -> Result<Numbers<'b>> {
        let [least] = self.values::<8>(1)? else {
            return Err(Bad::Damaged);
        };
        let differences = match self.byte()? {
            0 => Differences::None,
            1 => Differences::One(self.take(len)?),
            2 => Differences::Two(self.values(len)?),
            4 => Differences::Four(self.values(len)?),
            8 => Differences::Eight(self.values(len)?),
            _ => return Err(Bad::Damaged),
        };
        Ok(Numbers {
            len,
            least: u64::from_le_bytes(*least),
            differences,
        })
    }
}

/// Encoded numbers.
pub struct Numbers<'b> {
    len: usize,
    least: u64,
    differences: Differences<'b>,
}

enum Differences<'b> {
    None,
    One(&'b [u8]),
    Two(&'b [[u8; 2]]),
    Four(&'b [[u8; 4]]),
    Eight(&'b [[u8; 8]]),
}

impl Numbers<'_> {
    /// The numbers, through `f`, in `arena`.
    fn collect<'a, T: Copy>(&self, arena: &'a Arena, f: impl Fn(u64) -> T) -> Result<&'a [T]> {
        let least = self.least;
        Ok(match self.differences {
            Differences::None => arena.fill(self.len, f(least))?,
            Differences::One(d) => arena.map(d, |d| f(least.wrapping_add(d.into())))?,
            Differences::Two(d) => arena.map(d, |d| f(least.wrapping_add(u16::from_le_bytes(d).into())))?,
            Differences::Four(d) => arena.map(d, |d| f(least.wrapping_add(u32::from_le_bytes(d).into())))?,
            Differences::Eight(d) => arena.map(d, |d| f(least.wrapping_add(u64::from_le_bytes(d))))?,
        })
    }

    /// Appends the numbers, through `f`, to `out`, which has room.
    pub fn extend<T: Copy>(&self, out: &mut Vec<T>, f: impl Fn(u64) -> T) {
        let least = self.least;
        match self.differences {
            Differences::None => out.extend(std::iter::repeat_n(f(least), self.len)),
            Differences::One(d) => out.extend(d.iter().map(|&d| f(least.wrapping_add(d.into())))),
            Differences::Two(d) => out.extend(d.iter().map(|&d| f(least.wrapping_add(u16::from_le_bytes(d).into())))),
            Differences::Four(d) => out.extend(d.iter().map(|&d| f(least.wrapping_add(u32::from_le_bytes(d).into())))),
            Differences::Eight(d) => out.extend(d.iter().map(|&d| f(least.wrapping_add(u64::from_le_bytes(d))))),
        }
    }
}

/// The rows that `bytes`, which are in `arena` or live as long, hold.
pub fn decode<'a>(bytes: &'a [u8], arena: &'a Arena) -> Result<Batch<'a>> {
    let mut reading = Reading { bytes };
    let rows = reading.u32()? as usize;
    let width = reading.u32()? as usize;
    if width > bytes.len() {
        return Err(Bad::Damaged);
    }
    let mut columns = Columns::new(arena, width)?;
    for _ in 0..width {
        columns.push(decode_column(&mut reading, rows, arena, 0)?);
    }
    if !reading.bytes.is_empty() {
        return Err(Bad::Damaged);
    }
    Ok(Batch::new(columns.finish(), None, rows))
}

fn decode_bits<'a>(reading: &mut Reading<'a>, len: usize, arena: &'a Arena) -> Result<Bits<'a>> {
    let words = reading.values::<8>(len.div_ceil(64))?;
    Ok(Bits::collect_words(arena, len, |w| u64::from_le_bytes(words[w]))?)
}

fn decode_column<'a>(reading: &mut Reading<'a>, len: usize, arena: &'a Arena, depth: usize) -> Result<Column<'a>> {
    if depth > DEEPEST {
        return Err(Bad::Damaged);
    }
    let kind = reading.byte()?;
    let valid = match reading.byte()? {
        0 => None,
        1 => Some(decode_bits(reading, len, arena)?),
        _ => return Err(Bad::Damaged),
    };
    let signed = |n: u64| (n ^ 1 << 63) as i64;
    let data = match kind {
        0 => Data::Absent,
        1 => Data::Null,
        2 => Data::Bool(decode_bits(reading, len, arena)?),
        3 => Data::Int(reading.numbers(len)?.collect(arena, signed)?),
        4 => Data::Float(arena.map(reading.values(len)?, |b| f64::from_bits(u64::from_le_bytes(b)))?),
        5 => Data::Decimal(arena.map(reading.values(len)?, i128::from_le_bytes)?),
        6 => Data::Date(reading.numbers(len)?.collect(arena, |n| (n as u32 ^ 1 << 31) as i32)?),
        7 => Data::Timestamp(reading.numbers(len)?.collect(arena, signed)?),
        8 => Data::Duration(reading.numbers(len)?.collect(arena, signed)?),
        9..=12 => {
            let lens = reading.numbers(len)?.collect(arena, |n| n as u32)?;
            let bytes = reading.u32()? as usize;
            let text = Text::split(reading.take(bytes)?, lens, matches!(kind, 9 | 11), arena)?.ok_or(Bad::Damaged)?;
            match kind {
                9 => Data::String(text),
                10 => Data::Bytes(text),
                11 => Data::Json(text),
                _ => Data::Verbatim(text),
            }
        }
        13 => {
            let lens = reading.numbers(len)?;
            let rows = reading.u32()?;
            let offsets = decode_offsets(&lens, rows, arena)?;
            let child = decode_column(reading, rows as usize, arena, depth + 1)?;
            let child = arena.one(child)?;
            Data::List(ListData { offsets, child })
        }
        14 => {
            let width = reading.u32()? as usize;
            if width > reading.bytes.len() {
                return Err(Bad::Damaged);
            }
            let mut columns = Columns::new(arena, width)?;
            for _ in 0..width {
                columns.push(decode_column(reading, len, arena, depth + 1)?);
            }
            Data::Record(RecordData::new(columns.finish()))
        }
        _ => return Err(Bad::Damaged),
    };
    Ok(Column::new(data, valid, len))
}

/// Lengths as offsets that end at `total`.
fn decode_offsets<'a>(lens: &Numbers<'_>, total: u32, arena: &'a Arena) -> Result<&'a [i32]> {
    let at = |i: usize| {
        let difference = match lens.differences {
            Differences::None => 0,
            Differences::One(d) => d[i].into(),
            Differences::Two(d) => u16::from_le_bytes(d[i]).into(),
            Differences::Four(d) => u32::from_le_bytes(d[i]).into(),
            Differences::Eight(d) => u64::from_le_bytes(d[i]),
        };
        lens.least.wrapping_add(difference)
    };
    let mut sum = 0u64;
    let offsets = arena.collect(lens.len + 1, |i| {
        let start = sum;
        if i < lens.len {
            sum = sum.saturating_add(at(i));
        }
        start as i32
    })?;
    if sum == u64::from(total) && i32::try_from(sum).is_ok() {
        Ok(offsets)
    } else {
        Err(Bad::Damaged)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::stages::values;
    use proptest::prelude::*;
    use standpipe_sdk::{Field, Grid, Kept, Schema, Type, Value, View};

    fn any_type() -> impl Strategy<Value = Type> {
        let plain = prop_oneof![
            Just(Type::Bool),
            Just(Type::Int),
            Just(Type::Float),
            Just(Type::Decimal {
                precision: 38,
                scale: 2
            }),
            Just(Type::Date),
            Just(Type::Timestamp),
            Just(Type::Duration),
            Just(Type::String),
            Just(Type::Bytes),
            Just(Type::Json),
        ];
        plain.prop_recursive(2, 6, 3, |inner| {
            prop_oneof![
                inner.clone().prop_map(|t| Type::list(t, true)),
                proptest::collection::vec(inner, 1..3).prop_map(|types| {
                    let field = |(i, t)| Field::new(format!("f{i}"), t, true);
                    Type::Record(types.into_iter().enumerate().map(field).collect())
                }),
            ]
        })
    }

    fn any_value(ty: &Type) -> BoxedStrategy<Value> {
        let text = "[a-zé\u{0}]{0,30}";
        let some = match ty {
            Type::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
            Type::Int => prop_oneof![any::<i64>(), 1000i64..1200].prop_map(Value::Int).boxed(),
            Type::Float => any::<f64>().prop_map(Value::Float).boxed(),
            Type::Decimal { scale, .. } => {
                let scale = *scale;
                any::<i128>()
                    .prop_map(move |value| Value::Decimal { value, scale })
                    .boxed()
            }
            Type::Date => any::<i32>().prop_map(Value::Date).boxed(),
            Type::Timestamp => any::<i64>().prop_map(Value::Timestamp).boxed(),
            Type::Duration => (-70_000i64..70_000).prop_map(Value::Duration).boxed(),
            Type::String => text.prop_map(Value::String).boxed(),
            Type::Bytes => proptest::collection::vec(any::<u8>(), 0..20)
                .prop_map(Value::Bytes)
                .boxed(),
            Type::Json => text.prop_map(|t| Value::Json(format!("{t:?}"))).boxed(),
            Type::List(item) => proptest::collection::vec(any_value(&item.ty), 0..4)
                .prop_map(Value::List)
                .boxed(),
            Type::Record(schema) => {
                let fields: Vec<_> = schema
                    .fields()
                    .iter()
                    .map(|f| {
                        let name = f.name.to_string();
                        any_value(&f.ty).prop_map(move |v| (name.clone(), v))
                    })
                    .collect();
                fields.prop_map(Value::Record).boxed()
            }
            _ => Just(Value::Null).boxed(),
        };
        prop_oneof![1 => Just(Value::Null), 5 => some].boxed()
    }

    fn cases() -> impl Strategy<Value = (Vec<Type>, Vec<Vec<Value>>)> {
        proptest::collection::vec(any_type(), 1..5).prop_flat_map(|types| {
            let row: Vec<_> = types.iter().map(any_value).collect();
            (Just(types), proptest::collection::vec(row, 1..80))
        })
    }

    /// The same cells, stored in the same way.
    pub(crate) fn assert_same(a: &Batch<'_>, b: &Batch<'_>) {
        assert_eq!((a.rows(), a.columns().len()), (b.rows(), b.columns().len()));
        for (a, b) in a.columns().iter().zip(b.columns()) {
            assert_eq!(kind(&a.data()), kind(&b.data()));
            for row in 0..a.len() {
                assert_eq!(format!("{:?}", Shown(a, row)), format!("{:?}", Shown(b, row)));
            }
        }
    }

    /// A cell by its values alone, not by where they lie.
    struct Shown<'c>(&'c Column<'c>, usize);

    impl std::fmt::Debug for Shown<'_> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            use standpipe_sdk::Cell;
            match self.0.cell(self.1) {
                Cell::Float(v) => write!(f, "{:x}", v.to_bits()),
                Cell::List(list) => f
                    .debug_list()
                    .entries((0..list.len()).map(|row| Shown(&list, row)))
                    .finish(),
                Cell::Record(fields, row) => f.debug_list().entries(fields.iter().map(|c| Shown(c, row))).finish(),
                other => write!(f, "{other:?}"),
            }
        }
    }

    fn there_and_back(batch: &Batch<'_>, from: usize, len: usize) {
        let mut bytes = vec![];
        encode(batch, from, len, &mut bytes);
        assert!(bytes.len() <= bound(batch, from, len));
        let room = unpacked_bytes(batch, from, len) + block::<u8>(bytes.len());
        let kept = Kept::make(room, |arena| {
            let bytes: &[u8] = arena.copy(&bytes)?;
            decode(bytes, arena)
        });
        let kept = match kept {
            Ok(kept) => kept,
            Err(bad) => panic!("{bad:?}"),
        };
        let arena = Arena::new(1 << 20);
        assert_same(&batch.slice(from, len, &arena).unwrap(), &kept.batch());
    }

    proptest! {
        #[test]
        fn rows_come_back_as_they_were((types, rows) in cases(), from in 0..20usize) {
            let arena = Arena::new(1 << 22);
            let schema: Schema = types.iter().map(|t| Field::new("c", t.clone(), true)).collect();
            let batch = values::batch(&schema, &rows, &arena).unwrap();
            there_and_back(&batch, 0, rows.len());
            let from = from.min(rows.len());
            there_and_back(&batch, from, rows.len() - from);
            there_and_back(&batch, 0, from);
        }

        #[test]
        fn damaged_bytes_are_an_error_or_other_rows((types, rows) in cases(), at in any::<usize>(), to in any::<u8>(), cut in any::<bool>()) {
            let arena = Arena::new(1 << 22);
            let schema: Schema = types.iter().map(|t| Field::new("c", t.clone(), true)).collect();
            let batch = values::batch(&schema, &rows, &arena).unwrap();
            let mut bytes = vec![];
            encode(&batch, 0, rows.len(), &mut bytes);
            let at = at % bytes.len();
            if cut {
                bytes.truncate(at);
                prop_assert!(decode(&bytes, &arena).is_err());
            } else {
                bytes[at] = to;
                let _ = decode(&bytes, &arena);
            }
        }
    }

    #[test]
    fn columns_that_are_absent_null_or_verbatim_stay_so() {
        let arena = Arena::new(1 << 16);
        let views = [
            View::inline(b"007").unwrap(),
            View::EMPTY,
            View::inline(b"\"x\"").unwrap(),
        ];
        let valid = Bits::collect(&arena, 3, |i| i != 1).unwrap();
        let columns = [
            Column::absent(3),
            Column::nulls(3),
            Column::new(Data::Verbatim(Text::inline(&views)), Some(valid), 3),
        ];
        let batch = Batch::new(&columns, None, 3);
        there_and_back(&batch, 0, 3);
        there_and_back(&batch, 1, 2);
        there_and_back(&Batch::new(&[], None, 3), 0, 3);
    }

    #[test]
    fn cells_come_back_as_texts() {
        let block: &[u8] = b"a,007,\"x, y\"\nb,,a text that is longer than a view\n";
        let grid = Grid {
            bytes: block,
            width: 3,
            rows: 2,
            ends: &[1, 5, 12, 14, 15, 47],
            starts: None,
            first: 0,
            delimiter: b',',
        };
        for cell in 0..3 {
            let columns = [Column::new(Data::Cells(Cells::new(&grid, cell)), None, 2)];
            let batch = Batch::new(&columns, None, 2);
            let mut bytes = vec![];
            encode(&batch, 0, 2, &mut bytes);
            assert!(bytes.len() <= bound(&batch, 0, 2));
            let arena = Arena::new(1 << 16);
            let back = decode(&bytes, &arena).unwrap();
            assert!(arena.used() <= unpacked_bytes(&batch, 0, 2));
            for row in 0..2 {
                assert_eq!(
                    format!("{:?}", back.column(0).cell(row)),
                    format!("{:?}", columns[0].cell(row))
                );
            }
        }
    }
}
