//! The keys of a whole batch, column by column: [`Keys::block`].
//!
//! Measure, then fill: the width of every row's key first, sums of them next, then each column writes its part into every row's
//! slot. Keys without nulls, NaN and text are all equally wide and need no sums.
//!
//! Laws
//! - The bytes are those of [`Keys::encode`]; the two move together.
//! - [`hash`] is the partition hash of the product: the same bytes have the same hash on every machine and in every version. Whoever
//!   changes it raises [`HASH_VERSION`].

use super::{END, ESCAPE, Key, Keys, NAN, NULL_FIRST, NULL_LAST, VALUE, float, value};
use standpipe_sdk::build::TextBuilder;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::{Arena, Batch, Bits, Column, Data, Text};

/// The version of [`hash`].
pub const HASH_VERSION: u32 = 1;

/// The keys of the rows of a batch.
#[derive(Clone, Copy, Debug)]
pub struct KeyBlock<'a> {
    bytes: &'a [u8],
    rows: usize,
    ends: Ends<'a>,
}

/// Where each key ends; it starts where the one before it ends.
#[derive(Clone, Copy, Debug)]
enum Ends<'a> {
    /// Every key has this many bytes.
    Every(usize),
    /// A zero, then the end of every key.
    Each(&'a [u32]),
}

impl<'a> KeyBlock<'a> {
    /// Keys that stand one behind the other: `ends` is a zero, then where each ends. Panics if `bytes` do not end with the last.
    pub fn each(bytes: &'a [u8], ends: &'a [u32]) -> Self {
        assert_eq!(
            ends.last().map_or(0, |&end| end as usize),
            bytes.len(),
            "keys fill their bytes"
        );
        KeyBlock {
            bytes,
            rows: ends.len().saturating_sub(1),
            ends: Ends::Each(ends),
        }
    }

    /// `rows` keys of `width` bytes each. Panics if `bytes` are not as many.
    pub fn every(bytes: &'a [u8], width: usize, rows: usize) -> Self {
        assert_eq!(width * rows, bytes.len(), "keys fill their bytes");
        let ends = Ends::Every(width);
        KeyBlock { bytes, rows, ends }
    }

    pub fn len(&self) -> usize {
        self.rows
    }

    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The key of row `row`.
    #[inline]
    pub fn get(&self, row: usize) -> &'a [u8] {
        match self.ends {
            Ends::Every(width) => &self.bytes[row * width..(row + 1) * width],
            Ends::Each(ends) => &self.bytes[ends[row] as usize..ends[row + 1] as usize],
        }
    }

    /// Bytes of all keys together.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// [`hash`] of every key.
    ///
    /// # Errors
    /// `Memory` if `arena` is full.
    pub fn hashes(&self, arena: &'a Arena) -> Result<&'a [u64]> {
        match self.ends {
            // The common widths by themselves: the loop over the words is unrolled.
            Ends::Every(9) => Ok(arena.collect(self.rows, |row| hash(&self.bytes[row * 9..][..9]))?),
            Ends::Every(18) => Ok(arena.collect(self.rows, |row| hash(&self.bytes[row * 18..][..18]))?),
            _ => Ok(arena.collect(self.rows, |row| hash(self.get(row)))?),
        }
    }
}

impl<'a> KeyBlock<'a> {
    /// What the key of row `row` has behind its first [`PREFIX_BYTES`].
    #[inline]
    pub fn tail(&self, row: usize) -> &'a [u8] {
        self.get(row).get(PREFIX_BYTES..).unwrap_or_default()
    }

    /// The first 16 bytes of every key as a number that orders like them; a shorter one has zeros behind it.
    ///
    /// # Errors
    /// `Memory` if `arena` is full.
    pub fn prefixes<'b>(&self, arena: &'b Arena) -> Result<&'b [u128]> {
        match self.ends {
            // The most common width by itself: nothing is copied.
            Ends::Every(9) => Ok(arena.collect(self.rows, |row| {
                let (head, last) = (&self.bytes[row * 9..][..8], self.bytes[row * 9 + 8]);
                let head = head.first_chunk().map_or(0, |head| u64::from_be_bytes(*head));
                u128::from(head) << 64 | u128::from(last) << 56
            })?),
            _ => Ok(arena.collect(self.rows, |row| prefix(self.get(row)))?),
        }
    }
}

/// Bytes that [`prefix`] takes.
pub const PREFIX_BYTES: usize = size_of::<u128>();

/// The first 16 bytes of a key as a number that orders like them.
#[inline]
pub fn prefix(key: &[u8]) -> u128 {
    match key.first_chunk() {
        Some(head) => u128::from_be_bytes(*head),
        None => {
            let mut head = [0; PREFIX_BYTES];
            head[..key.len()].copy_from_slice(key);
            u128::from_be_bytes(head)
        }
    }
}

/// The partition hash: 64 bits of `key`, the same on every machine.
///
/// `h = 0x9e3779b97f4a7c15 ^ len`; for every 8 bytes, read as a little-endian number `w` (the last ones padded with zeros):
/// `h = fold((h ^ w) * 0xa0761d6478bd642f)`, `fold` being the xor of the upper and the lower 64 bits of the 128-bit product; at the end
/// `h = fold((h ^ 0xe7037ed1a0b428db) * 0x8ebc6af09c88c6e3)`.
#[inline]
pub fn hash(key: &[u8]) -> u64 {
    let mut h = 0x9e37_79b9_7f4a_7c15 ^ key.len() as u64;
    let (words, rest) = key.as_chunks::<8>();
    for word in words {
        h = fold(h ^ u64::from_le_bytes(*word), 0xa076_1d64_78bd_642f);
    }
    if !rest.is_empty() {
        let mut word = 0;
        for (at, &byte) in rest.iter().enumerate() {
            word |= u64::from(byte) << (8 * at);
        }
        h = fold(h ^ word, 0xa076_1d64_78bd_642f);
    }
    fold(h ^ 0xe703_7ed1_a0b4_28db, 0x8ebc_6af0_9c88_c6e3)
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

impl Keys {
    /// The keys of all rows of `batch` as a column.
    ///
    /// # Errors
    /// `Memory` if `arena` is full.
    pub fn column<'a>(&self, batch: &Batch<'_>, arena: &'a Arena) -> Result<Column<'a>> {
        let block = self.block(batch, arena)?;
        let mut keys = TextBuilder::new(arena, batch.rows(), block.bytes())?;
        for row in 0..batch.rows() {
            keys.push_bytes(block.get(row))?;
        }
        Ok(Column::new(Data::Bytes(keys.finish()?), None, batch.rows()))
    }

    /// The keys of all rows of `batch`, in `arena`.
    ///
    /// # Errors
    /// `Memory` if `arena` is full.
    pub fn block<'a>(&self, batch: &Batch<'_>, arena: &'a Arena) -> Result<KeyBlock<'a>> {
        let rows = batch.rows();
        let columns = || self.keys.iter().map(|key| (key, &batch.columns()[key.column]));
        if let Some(every) = columns().try_fold(0, |sum, (_, column)| Some(sum + width(column)?)) {
            let bytes = arena.fill(narrow(every.saturating_mul(rows), arena)? as usize, 0u8)?;
            let mut at = 0;
            for (key, column) in columns() {
                part(key, column, &mut Pass::Every { bytes, every, at })?;
                at += width(column).unwrap_or_default();
            }
            let ends = Ends::Every(every);
            return Ok(KeyBlock { bytes, rows, ends });
        }

        let ends = arena.fill(rows + 1, 0u32)?;
        for (key, column) in columns() {
            part(key, column, &mut Pass::Measure(&mut ends[1..]))?;
        }
        // Widths become starts; every column that writes moves them on, so that at last they are ends.
        let mut total = 0usize;
        for slot in &mut ends[1..] {
            let width = *slot as usize;
            *slot = narrow(total, arena)?;
            total += width;
        }
        let bytes = arena.fill(narrow(total, arena)? as usize, 0u8)?;
        for (key, column) in columns() {
            let at = &mut ends[1..];
            part(key, column, &mut Pass::Each { bytes, at })?;
        }
        let ends = Ends::Each(ends);
        Ok(KeyBlock { bytes, rows, ends })
    }
}

/// A position in a block is 32 bits.
fn narrow(bytes: usize, arena: &Arena) -> Result<u32> {
    u32::try_from(bytes).map_err(|_| Error::Memory {
        wanted: bytes,
        used: arena.used(),
        limit: arena.limit(),
    })
}

/// The bytes of every row's part of a column, where they are the same.
fn width(column: &Column<'_>) -> Option<usize> {
    let bytes = match column.data() {
        Data::Null | Data::Absent => return Some(1),
        Data::Bool(_) => 1,
        Data::Date(_) => 4,
        Data::Int(_) | Data::Timestamp(_) | Data::Duration(_) => 8,
        Data::Float(values) if !values.iter().any(|v| v.is_nan()) => 8,
        Data::Decimal(_) => 16,
        _ => return None,
    };
    column.valid().is_none().then_some(1 + bytes)
}

/// What is done with the parts of a column.
enum Pass<'p> {
    /// Adds their widths to those of the rows.
    Measure(&'p mut [u32]),
    /// Writes them at `at` of rows of `every` bytes.
    Every {
        bytes: &'p mut [u8],
        every: usize,
        at: usize,
    },
    /// Writes each at `at`, and moves that on.
    Each { bytes: &'p mut [u8], at: &'p mut [u32] },
}

/// One column's parts. A closure says what a row has: bytes behind the tag `VALUE`, or another tag alone.
fn part(key: &Key, column: &Column<'_>, pass: &mut Pass<'_>) -> Result<()> {
    let null = if key.nulls_first { NULL_FIRST } else { NULL_LAST };
    let flip = if key.descending { 0xFF } else { 0 };
    let turned = |bits: u64| (bits ^ if key.descending { u64::MAX } else { 0 }).to_be_bytes();
    match column.data() {
        Data::Null | Data::Absent => pass.fixed::<0>(column.valid(), null, |_| Err(null)),
        Data::Bool(v) => pass.fixed(column.valid(), null, |row| Ok([u8::from(v.get(row)) ^ flip])),
        Data::Int(v) | Data::Timestamp(v) | Data::Duration(v) => {
            pass.fixed(column.valid(), null, |row| Ok(turned(v[row] as u64 ^ 1 << 63)));
        }
        Data::Date(v) => pass.fixed(column.valid(), null, |row| {
            Ok((v[row] as u32 ^ 1 << 31).to_be_bytes().map(|b| b ^ flip))
        }),
        Data::Decimal(v) => pass.fixed(column.valid(), null, |row| {
            Ok((v[row] as u128 ^ 1 << 127).to_be_bytes().map(|b| b ^ flip))
        }),
        Data::Float(v) => pass.fixed(column.valid(), null, |row| {
            if v[row].is_nan() {
                Err(NAN)
            } else {
                Ok(turned(float(v[row])))
            }
        }),
        Data::String(text) | Data::Bytes(text) | Data::Json(text) | Data::Verbatim(text) => {
            pass.text(&text, column.valid(), null, flip);
        }
        Data::List(_) | Data::Record(_) | Data::Cells(_) => return pass.nested(column, null, flip),
    }
    Ok(())
}

impl Pass<'_> {
    fn fixed<const N: usize>(&mut self, valid: Option<Bits<'_>>, null: u8, of: impl Fn(usize) -> Result<[u8; N], u8>) {
        match valid {
            None => self.all_fixed(of),
            Some(valid) => self.all_fixed(|row| if valid.get(row) { of(row) } else { Err(null) }),
        }
    }

    #[inline]
    fn all_fixed<const N: usize>(&mut self, of: impl Fn(usize) -> Result<[u8; N], u8>) {
        match self {
            Pass::Measure(widths) => {
                for (row, width) in widths.iter_mut().enumerate() {
                    *width = width.saturating_add(if of(row).is_ok() { 1 + N as u32 } else { 1 });
                }
            }
            Pass::Every { bytes, every, at } => {
                for (row, slot) in bytes.chunks_exact_mut(*every).enumerate() {
                    write(&mut slot[*at..], of(row));
                }
            }
            Pass::Each { bytes, at } => {
                for (row, at) in at.iter_mut().enumerate() {
                    *at += write(&mut bytes[*at as usize..], of(row));
                }
            }
        }
    }

    fn text(&mut self, text: &Text<'_>, valid: Option<Bits<'_>>, null: u8, flip: u8) {
        let is_valid = |row: usize| valid.is_none_or(|v| v.get(row));
        match self {
            Pass::Measure(widths) => {
                for (row, width) in widths.iter_mut().enumerate() {
                    let bytes = if is_valid(row) {
                        3 + text.views()[row].len() + zeros(text, row)
                    } else {
                        1
                    };
                    *width = width.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
                }
            }
            // A text is never as wide as every other.
            Pass::Every { .. } => {}
            Pass::Each { bytes, at } => {
                for (row, at) in at.iter_mut().enumerate() {
                    let slot = &mut bytes[*at as usize..];
                    *at += if is_valid(row) {
                        write_text(slot, text.bytes(row), zeros(text, row), flip)
                    } else {
                        slot[0] = null;
                        1
                    };
                }
            }
        }
    }

    /// Lists and records, row by row.
    fn nested(&mut self, column: &Column<'_>, null: u8, flip: u8) -> Result<()> {
        let mut scratch = vec![];
        for row in 0..column.len() {
            scratch.clear();
            if column.is_valid(row) {
                value(column.cell(row), &mut scratch)?;
                scratch[1..].iter_mut().for_each(|b| *b ^= flip);
            } else {
                scratch.push(null);
            }
            match self {
                Pass::Measure(widths) => {
                    widths[row] = widths[row].saturating_add(u32::try_from(scratch.len()).unwrap_or(u32::MAX));
                }
                Pass::Every { .. } => {}
                Pass::Each { bytes, at } => {
                    bytes[at[row] as usize..][..scratch.len()].copy_from_slice(&scratch);
                    at[row] += scratch.len() as u32;
                }
            }
        }
        Ok(())
    }
}

#[inline]
fn write<const N: usize>(slot: &mut [u8], value: Result<[u8; N], u8>) -> u32 {
    match value {
        Ok(bytes) => {
            // One check for tag and value.
            let slot = &mut slot[..1 + N];
            slot[0] = VALUE;
            slot[1..].copy_from_slice(&bytes);
            1 + N as u32
        }
        Err(tag) => {
            slot[0] = tag;
            1
        }
    }
}

#[inline]
fn write_text(slot: &mut [u8], text: &[u8], zeros: usize, flip: u8) -> u32 {
    let slot = &mut slot[..3 + text.len() + zeros];
    slot[0] = VALUE;
    if zeros == 0 {
        let end = 1 + text.len();
        slot[1..end].copy_from_slice(text);
        slot[end] = END;
        slot[end + 1] = END;
    } else {
        let mut at = 1;
        for &byte in text {
            slot[at] = byte;
            at += 1;
            if byte == 0 {
                slot[at] = ESCAPE;
                at += 1;
            }
        }
        slot[at] = END;
        slot[at + 1] = END;
    }
    if flip != 0 {
        slot[1..].iter_mut().for_each(|b| *b ^= flip);
    }
    slot.len() as u32
}

/// How many bytes of a text are zero: nearly always none, which short texts tell without a loop.
#[inline]
fn zeros(text: &Text<'_>, row: usize) -> usize {
    const ONES: u128 = u128::from_ne_bytes([1; 16]);
    const HIGHS: u128 = ONES << 7;
    let view = text.views()[row];
    if view.is_inline() {
        // The text in the lowest bytes, ones above it.
        let bytes = view.bits() >> 32 | u128::MAX << (8 * view.len());
        if bytes.wrapping_sub(ONES) & !bytes & HIGHS == 0 {
            return 0;
        }
    }
    memchr::memchr_iter(0, text.bytes(row)).count()
}

#[cfg(test)]
mod tests {
    use super::super::tests::cases;
    use super::*;
    use crate::stages::testing::{BOOL, INT, STRING, schema, text};
    use crate::stages::values;
    use proptest::prelude::*;
    use standpipe_sdk::{Field, Schema, Value, View};

    fn same_as_encode(keys: &Keys, batch: &Batch<'_>) {
        let arena = Arena::new(1 << 20);
        let block = keys.block(batch, &arena).unwrap();
        assert_eq!(block.len(), batch.rows());
        let hashes = block.hashes(&arena).unwrap();
        let mut bytes = 0;
        assert_eq!(hashes.len(), batch.rows());
        for (row, &hashed) in hashes.iter().enumerate() {
            let mut want = vec![];
            keys.encode(batch.columns(), row, &mut want).unwrap();
            assert_eq!(block.get(row), want, "row {row}");
            assert_eq!(hashed, hash(&want));
            bytes += want.len();
        }
        assert_eq!(block.bytes(), bytes);
    }

    proptest! {
        #[test]
        fn a_block_has_the_bytes_of_its_rows((tys, keys, rows) in cases(), from in 0..2usize) {
            let arena = Arena::new(1 << 20);
            let schema: Schema = tys.iter().map(|t| Field::new("k", t.clone(), true)).collect();
            let batch = values::batch(&schema, &rows, &arena).unwrap();
            let keys = Keys::new(keys);
            same_as_encode(&keys, &batch);
            same_as_encode(&keys, &batch.slice(from, rows.len() - from, &arena).unwrap());
            same_as_encode(&keys, &batch.head(0, &arena).unwrap());
        }
    }

    #[test]
    fn keys_without_nulls_are_equally_wide_and_all_kinds_are_known() {
        let arena = Arena::new(1 << 20);
        let views = [b"a\0", b"\0\0", b"bc"].map(|t| View::inline(t).unwrap());
        let words = Text::inline(&views);
        let bits = Bits::collect(&arena, 3, |i| i == 1).unwrap();
        let list = standpipe_sdk::ListData {
            offsets: &[0, 1, 1, 3],
            child: &Column::int(&[5, -5, 7], None),
        };
        let columns = [
            Column::int(&[3, -1, 0], None),
            Column::float(&[-0.0, 0.0, -7.5], None),
            Column::new(Data::Date(&[4, -4, 0]), None, 3),
            Column::new(Data::Decimal(&[1, -1, i128::MAX]), None, 3),
            Column::bool(bits, None),
            Column::nulls(3),
            Column::absent(3),
            Column::new(Data::Duration(&[1, 2, 3]), None, 3),
            Column::new(Data::Timestamp(&[1, 2, 3]), Some(bits), 3),
            Column::new(Data::Bytes(words), None, 3),
            Column::new(Data::Verbatim(words), Some(bits), 3),
            Column::new(Data::List(list), Some(bits), 3),
            Column::new(Data::List(list), None, 3),
        ];
        let batch = Batch::new(&columns, None, 3);
        for descending in [false, true] {
            let key = |column| Key {
                column,
                descending,
                nulls_first: column % 2 == 0,
            };
            for width in 1..=columns.len() {
                same_as_encode(&Keys::new((0..width).map(key).collect()), &batch);
                same_as_encode(&Keys::new(vec![key(width - 1)]), &batch);
            }
        }
        let block = Keys::grouping(0..8).block(&batch, &arena).unwrap();
        assert!(matches!(block.ends, Ends::Every(53)));
        same_as_encode(&Keys::new(vec![]), &batch);
    }

    #[test]
    fn a_block_that_does_not_fit_is_refused() {
        let schema = schema(&[("a", INT), ("b", STRING), ("c", BOOL)]);
        let rows = vec![vec![Value::Int(1), text("some text or other"), Value::Null]; 100];
        let arena = Arena::new(1 << 20);
        let batch = values::batch(&schema, &rows, &arena).unwrap();
        for limit in [0, 100, 1000] {
            let small = Arena::new(limit);
            assert!(matches!(
                Keys::grouping([0, 1, 2]).block(&batch, &small),
                Err(Error::Memory { .. })
            ));
        }
    }

    #[test]
    fn the_hash_is_the_same_for_ever() {
        let known = [
            (&b""[..], 0x247c_67d4_fab4_e199),
            (b"a", 0x8ef8_89da_abef_7b9c),
            (b"standpipe", 0xd16d_4e53_75cf_6deb),
            (&[0; 16], 0x5825_a959_ba12_9e87),
        ];
        for (key, want) in known {
            assert_eq!(hash(key), want, "{key:?}");
        }
        assert_eq!(HASH_VERSION, 1);
    }

    #[test]
    fn hashes_are_spread_in_low_and_high_bits() {
        // Keys as they are: consecutive ints, ints in steps of a power of two, numbered names.
        let int = |v: u64| {
            let mut key = vec![VALUE];
            key.extend((v ^ 1 << 63).to_be_bytes());
            key
        };
        let name = |v: u64| format!("\u{1}user{v}@mail.example\0\0").into_bytes();
        let families: [&dyn Fn(u64) -> Vec<u8>; 4] = [&int, &|v| int(v << 20), &|v| int((v as f64).to_bits()), &name];
        for (family, make) in families.iter().enumerate() {
            const KEYS: u64 = 1 << 16;
            let hashes: Vec<u64> = (0..KEYS).map(|v| hash(&make(v))).collect();
            for shift in [0, 26, 52, 58] {
                // 64 buckets of 1024: the deviation of a fair throw is 32, six times that is never seen.
                let mut buckets = [0i64; 64];
                hashes.iter().for_each(|h| buckets[(h >> shift & 63) as usize] += 1);
                let worst = buckets.iter().map(|b| (b - 1024).abs()).max().unwrap();
                assert!(worst < 192, "family {family}, bits from {shift}: {worst}");
            }
            let mut distinct = hashes.clone();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!(distinct.len(), hashes.len());
        }
    }
}
