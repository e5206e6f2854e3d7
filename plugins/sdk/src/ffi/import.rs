//! Arrow arrays that somebody else made, as columns.
//!
//! Laws
//! - Nothing is believed that can be checked: lengths, NULL buffers, offsets, views, UTF-8, nulls where there must be none. What
//!   cannot be checked is whether a buffer is as long as its array says: that is the maker's promise.
//! - Memory of the chunk (its arena, lent input) is borrowed; anything else is copied before it is released.
//! - What comes out keeps the laws of our columns: inline views are padded with zeros, rows under a null are readable.
#![allow(unsafe_code)]

use super::lend::Lent;
use super::{ArrowArray, PLUGIN_FAILED, ReleaseArray};
use crate::arena::Arena;
use crate::bits::Bits;
use crate::column::{Column, Columns, Data, ListData, RecordData};
use crate::error::{Error, Result};
use crate::text::{INLINE, Text, View};
use crate::types::{Field, Type};
use std::ffi::c_void;

/// How arrays become columns of one chunk.
pub struct Importer<'i, 'a> {
    pub arena: &'a Arena,
    /// What was lent for the call: its columns are known when they come back.
    pub lent: Option<&'i Lent<'i, 'a>>,
    /// The `release` of arrays whose memory is the arena's.
    pub arena_release: Option<ReleaseArray>,
    /// All arrays are what a host lends: normalised, and there for `'a`.
    pub all_lasting: bool,
}

impl<'a> Importer<'_, 'a> {
    /// The columns of a struct array, one per field. The array is not released.
    ///
    /// # Errors
    /// `Memory`; `Failed` for what is no such array, naming the column.
    ///
    /// # Safety
    /// `array` is an array as Arrow's C Data Interface describes it whose buffers are as long as its lengths say. Those with our
    /// `release` stay as they are for `'a`, the others until the call returns.
    pub unsafe fn columns(&self, array: &ArrowArray, fields: &[Field]) -> Result<&'a [Column<'a>]> {
        let rows = length(array)?;
        let from = count(array.offset, "offset")?;
        self.shape(array, 1, fields.len())?;
        // SAFETY: `shape` saw one buffer; the caller's promise for its contents.
        if unsafe { self.valid(array, from, rows)? }.is_some() {
            return Err(wrong("the batch itself has nulls"));
        }
        let mut columns = Columns::new(self.arena, fields.len())?;
        for (at, field) in fields.iter().enumerate() {
            // SAFETY: `shape` saw that many children; a child of such an array is one itself.
            let column = unsafe { self.child(array, at, &field.ty, from, rows, self.is_lasting(array)) };
            let column = column.map_err(|e| in_column(&field.name, e))?;
            if !field.nullable && column.null_count() > 0 {
                return Err(in_column(
                    &field.name,
                    wrong("it is declared without nulls and has some"),
                ));
            }
            columns.push(column);
        }
        Ok(columns.finish())
    }

    /// Whether an array's buffers live as long as the chunk.
    fn is_lasting(&self, array: &ArrowArray) -> bool {
        let same = |f: ReleaseArray, g: ReleaseArray| std::ptr::eq(f as *const (), g as *const ());
        self.all_lasting
            || self.lent.is_some_and(|lent| lent.is_ours(array))
            || matches!((array.release, self.arena_release), (Some(f), Some(g)) if same(f, g))
    }

    /// Counts of buffers and children, and that they are there.
    fn shape(&self, array: &ArrowArray, buffers: usize, children: usize) -> Result<()> {
        if array.release.is_none() {
            return Err(wrong("the array is released"));
        }
        if !array.dictionary.is_null() {
            return Err(wrong("dictionaries are not taken"));
        }
        if array.n_buffers != buffers as i64 || (buffers > 0 && array.buffers.is_null()) {
            return Err(wrong(&format!("it has {} buffers, not {buffers}", array.n_buffers)));
        }
        if array.n_children != children as i64 || (children > 0 && array.children.is_null()) {
            return Err(wrong(&format!("it has {} children, not {children}", array.n_children)));
        }
        Ok(())
    }

    /// Child `at` (there are more), rows `from..from + len` of it.
    unsafe fn child(
        &self,
        array: &ArrowArray,
        at: usize,
        ty: &Type,
        from: usize,
        len: usize,
        lasting: bool,
    ) -> Result<Column<'a>> {
        // SAFETY: by the caller there are more than `at` children.
        match unsafe { (*array.children.add(at)).as_ref() } {
            // SAFETY: passed on.
            Some(child) => unsafe { self.column(child, ty, from, len, lasting) },
            None => Err(wrong("the array is NULL")),
        }
    }

    /// Rows `from..from + len` of an array. `lasting`: so is what it is part of.
    unsafe fn column(
        &self,
        array: &ArrowArray,
        ty: &Type,
        from: usize,
        len: usize,
        lasting: bool,
    ) -> Result<Column<'a>> {
        let lasting = lasting && self.is_lasting(array);
        if lasting && let Some(column) = self.lent.and_then(|lent| lent.found(array, ty, from, len)) {
            return Ok(column);
        }
        let rows = length(array)?;
        if from.checked_add(len).is_none_or(|end| end > rows) {
            return Err(wrong(&format!("it has {rows} rows, not {}", from.saturating_add(len))));
        }
        let start = count(array.offset, "offset")?.saturating_add(from);
        let (buffers, children) = match ty {
            Type::Null => (0, 0),
            Type::String | Type::Bytes | Type::Json => (usize::try_from(array.n_buffers).unwrap_or(0).max(3), 0),
            Type::List(_) => (2, 1),
            Type::Record(schema) => (1, schema.width()),
            _ => (2, 0),
        };
        self.shape(array, buffers, children)?;
        if *ty == Type::Null {
            return Ok(Column::nulls(len));
        }
        // SAFETY: `shape` saw the buffers and children that the type has; what is in them is the caller's promise. `start + len` is
        // at most offset + length, which is how far they go.
        unsafe {
            let valid = self.valid(array, start, len)?;
            let data = match ty {
                Type::Bool => Data::Bool(self.bits(array, 1, start, len)?),
                Type::Int => Data::Int(self.values(array, start, len, lasting)?),
                Type::Timestamp => Data::Timestamp(self.values(array, start, len, lasting)?),
                Type::Duration => Data::Duration(self.values(array, start, len, lasting)?),
                Type::Float => Data::Float(self.values(array, start, len, lasting)?),
                Type::Date => Data::Date(self.values(array, start, len, lasting)?),
                Type::Decimal { precision, .. } => {
                    let values: &[i128] = self.values(array, start, len, lasting)?;
                    let most = 10u128.pow(u32::from(*precision).min(38));
                    let too_long = |row: &usize| values[*row].unsigned_abs() >= most && is_valid(valid, *row);
                    if let Some(row) = (0..len).find(too_long) {
                        return Err(wrong(&format!("row {row} has more than {precision} digits")));
                    }
                    Data::Decimal(values)
                }
                Type::String => Data::String(self.text(array, start, len, valid, lasting, true)?),
                Type::Json => Data::Json(self.text(array, start, len, valid, lasting, true)?),
                Type::Bytes => Data::Bytes(self.text(array, start, len, valid, lasting, false)?),
                Type::List(item) => {
                    let offsets: &[i32] = self.values(array, start, len + 1, lasting)?;
                    let (first, last) = ends(offsets)?;
                    let child = self.child(array, 0, &item.ty, first, last - first, lasting)?;
                    let offsets = match first {
                        0 => offsets,
                        _ => self.arena.collect(offsets.len(), |i| offsets[i] - first as i32)?,
                    };
                    let list = ListData {
                        offsets,
                        child: self.arena.one(child)?,
                    };
                    let empty = |row: usize| list.range(row).any(|at| !child.is_valid(at));
                    if !item.nullable && child.null_count() > 0 && (0..len).any(|r| is_valid(valid, r) && empty(r)) {
                        return Err(wrong("its elements are declared without nulls and some are null"));
                    }
                    Data::List(list)
                }
                Type::Record(schema) => {
                    let mut columns = Columns::new(self.arena, schema.width())?;
                    for (at, field) in schema.fields().iter().enumerate() {
                        let child = self.child(array, at, &field.ty, start, len, lasting);
                        let child = child.map_err(|e| in_column(&field.name, e))?;
                        let empty = |row: usize| is_valid(valid, row) && !child.is_valid(row);
                        if !field.nullable && child.null_count() > 0 && (0..len).any(empty) {
                            return Err(in_column(
                                &field.name,
                                wrong("it is declared without nulls and has some"),
                            ));
                        }
                        columns.push(child);
                    }
                    Data::Record(RecordData::new(columns.finish()))
                }
                Type::Null => Data::Null,
            };
            Ok(Column::new(data, valid, len))
        }
    }

    /// The validity; `None` if no row is null.
    unsafe fn valid(&self, array: &ArrowArray, start: usize, len: usize) -> Result<Option<Bits<'a>>> {
        // SAFETY: every type that gets here has a first buffer, as `shape` saw.
        let is_null = unsafe { (*array.buffers).is_null() };
        if array.null_count > array.length || array.null_count < -1 || (array.null_count > 0 && is_null) {
            return Err(wrong(&format!("{} nulls cannot be", array.null_count)));
        }
        if is_null || array.null_count == 0 || len == 0 {
            return Ok(None);
        }
        // SAFETY: passed on.
        let bits = unsafe { self.bits(array, 0, start, len)? };
        Ok((!bits.is_all()).then_some(bits))
    }

    /// Bits `start..start + len` of buffer `at`. Always a copy: foreign bitmaps end at any byte, ours in whole words.
    unsafe fn bits(&self, array: &ArrowArray, at: usize, start: usize, len: usize) -> Result<Bits<'a>> {
        // SAFETY: `shape` saw the buffer's entry.
        let bytes = unsafe { (*array.buffers.add(at)).cast::<u8>() };
        if bytes.is_null() && len > 0 {
            return Err(wrong("a buffer is NULL"));
        }
        Bits::collect_words(self.arena, len, |w| {
            let first = start + w * 64;
            let bits = (len - w * 64).min(64);
            let mut word = [0u8; 16];
            let used = (first % 8 + bits).div_ceil(8);
            // SAFETY: these are the bytes of bits `first..first + bits`, all below `start + len`; at most 9 of 16.
            unsafe { std::ptr::copy_nonoverlapping(bytes.add(first / 8), word.as_mut_ptr(), used) };
            let word = (u128::from_le_bytes(word) >> (first % 8)) as u64;
            if bits == 64 { word } else { word & ((1 << bits) - 1) }
        })
    }

    /// Values `start..start + len` of the second buffer. Every bit pattern must be a `T`.
    unsafe fn values<T: Plain>(&self, array: &ArrowArray, start: usize, len: usize, lasting: bool) -> Result<&'a [T]> {
        if len == 0 {
            return Ok(&[]);
        }
        // SAFETY: `shape` saw two buffers or more.
        let values = unsafe { (*array.buffers.add(1)).cast::<T>() };
        if values.is_null() {
            // An array of no rows may have no offsets.
            return match (T::ZERO, len) {
                (Some(zero), 1) if array.length == 0 => Ok(self.arena.fill(1, zero)?),
                _ => Err(wrong("a buffer is NULL")),
            };
        }
        // SAFETY: the buffer goes on for offset + length values, of which these are some.
        let values = unsafe { values.add(start) };
        if lasting && values.is_aligned() {
            // SAFETY: as above, aligned, and there for `'a`; nobody writes to it any more.
            return Ok(unsafe { std::slice::from_raw_parts(values, len) });
        }
        let mut copy = self.arena.uninit::<T>(len)?;
        // SAFETY: both are `len` values long, byte by byte; then all of them are written.
        unsafe {
            std::ptr::copy_nonoverlapping(
                values.cast::<u8>(),
                copy.as_mut_ptr().cast::<u8>(),
                len * size_of::<T>(),
            );
            Ok(copy.assume_init(len))
        }
    }

    unsafe fn text(
        &self,
        array: &ArrowArray,
        start: usize,
        len: usize,
        valid: Option<Bits<'a>>,
        lasting: bool,
        utf8: bool,
    ) -> Result<Text<'a>> {
        let parts = array.n_buffers as usize - 3;
        // SAFETY: `shape` saw `parts + 3` buffers.
        let lists = unsafe { std::slice::from_raw_parts(array.buffers.cast_const(), parts + 3) };
        let sizes = lists[parts + 2].cast::<i64>();
        if sizes.is_null() && parts > 0 {
            return Err(wrong("the sizes of its buffers are missing"));
        }
        let buffers: &mut [&'a [u8]] = self.arena.fill(parts, &[][..])?;
        for (at, buffer) in buffers.iter_mut().enumerate() {
            // SAFETY: there is a size for each of the variable buffers.
            let size = count(unsafe { sizes.add(at).read_unaligned() }, "buffer size")?;
            // SAFETY: the buffer is as long as its size says.
            *buffer = unsafe { self.buffer(lists[at + 2], size, lasting)? };
        }
        // SAFETY: the caller's promise.
        let views: &[View] = unsafe { self.values(array, start, len, lasting)? };
        if self.all_lasting {
            // SAFETY: the host's promise for what it lends: each view lies inside its buffer, is padded, and is UTF-8 in text.
            return Ok(unsafe { Text::new(views, buffers) });
        }
        let mut mended = false;
        for (row, view) in views.iter().enumerate() {
            match look(*view, buffers, utf8) {
                Look::Fine => {}
                Look::Mend(_) => mended = true,
                Look::Wrong(_) if !is_valid(valid, row) => mended = true,
                Look::Wrong(what) => return Err(wrong(&format!("row {row}: {what}"))),
            }
        }
        let views = match mended {
            false => views,
            true => self.arena.collect(len, |row| match look(views[row], buffers, utf8) {
                Look::Fine => views[row],
                Look::Mend(view) => view,
                Look::Wrong(_) => View::EMPTY,
            })?,
        };
        // SAFETY: `look` has seen each view: inside its buffer, and UTF-8 if it is to be.
        Ok(unsafe { Text::new(views, buffers) })
    }

    unsafe fn buffer(&self, buffer: *const c_void, size: usize, lasting: bool) -> Result<&'a [u8]> {
        if size == 0 {
            return Ok(&[]);
        }
        if buffer.is_null() {
            return Err(wrong("a buffer is NULL"));
        }
        // SAFETY: the caller's promise: `size` bytes are there, for `'a` if `lasting`.
        let bytes: &'a [u8] = unsafe { std::slice::from_raw_parts(buffer.cast(), size) };
        if lasting {
            return Ok(bytes);
        }
        Ok(self.arena.copy(bytes)?)
    }
}

/// Numbers of which every bit pattern is one.
trait Plain: Copy {
    /// For offsets: where an empty array starts.
    const ZERO: Option<Self> = None;
}
impl Plain for i64 {}
impl Plain for f64 {}
impl Plain for i128 {}
impl Plain for View {}
impl Plain for i32 {
    const ZERO: Option<i32> = Some(0);
}

enum Look {
    Fine,
    /// The same text as our views hold it.
    Mend(View),
    Wrong(&'static str),
}

/// Checks one view.
fn look(view: View, buffers: &[&[u8]], utf8: bool) -> Look {
    let bits = view.bits();
    let len = view.len();
    if len <= INLINE {
        let bytes = bits.to_le_bytes();
        let (text, rest) = bytes[4..].split_at(len);
        if utf8 && std::str::from_utf8(text).is_err() {
            return Look::Wrong("not UTF-8");
        }
        if rest.iter().any(|&b| b != 0) {
            return View::inline(text).map_or(Look::Wrong("a view cannot be read"), Look::Mend);
        }
        return Look::Fine;
    }
    let (buffer, offset) = ((bits >> 64) as u32 as usize, (bits >> 96) as u32 as usize);
    let text = buffers
        .get(buffer)
        .and_then(|b| b.get(offset..offset.checked_add(len)?));
    match text {
        None => Look::Wrong("a view points outside its buffer"),
        Some(text) if text[..4] != ((bits >> 32) as u32).to_le_bytes() => {
            Look::Wrong("a view's prefix is not its text's")
        }
        Some(text) if utf8 && std::str::from_utf8(text).is_err() => Look::Wrong("not UTF-8"),
        Some(_) => Look::Fine,
    }
}

/// The first and last offset, if they ascend.
fn ends(offsets: &[i32]) -> Result<(usize, usize)> {
    let ascend = offsets.is_sorted() && offsets.first().is_some_and(|&first| first >= 0);
    match (offsets.first(), offsets.last()) {
        (Some(&first), Some(&last)) if ascend => Ok((first as usize, last as usize)),
        _ => Err(wrong("its offsets do not ascend")),
    }
}

fn is_valid(valid: Option<Bits<'_>>, row: usize) -> bool {
    valid.is_none_or(|bits| bits.get(row))
}

/// The rows of an array; a batch never has more than fit into 31 bits.
fn length(array: &ArrowArray) -> Result<usize> {
    match i32::try_from(array.length) {
        Ok(rows) if rows >= 0 => Ok(rows as usize),
        _ => Err(wrong(&format!("{} rows cannot be", array.length))),
    }
}

fn count(number: i64, what: &str) -> Result<usize> {
    match usize::try_from(number) {
        Ok(number) if number <= isize::MAX as usize / 32 => Ok(number),
        _ => Err(wrong(&format!("{what} {number} cannot be"))),
    }
}

fn wrong(what: &str) -> Error {
    Error::failed(PLUGIN_FAILED, what)
}

/// The same failure, saying which column.
fn in_column(name: &str, error: Error) -> Error {
    match error {
        Error::Failed {
            code,
            message,
            help,
            span,
        } => Error::Failed {
            code,
            message: format!("column `{name}`: {message}"),
            help,
            span,
        },
        other => other,
    }
}
