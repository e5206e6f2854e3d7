//! Arrow arrays in a frame: their shape is in it, their bytes are in the shared memory, each buffer at its place.
//!
//! Laws
//! - Only what the rows need is written: of a list's child the rows that it refers to, of text the bytes that its views name.
//! - What is read has the shape of its type and buffers as long as its rows need, inside of what is shared; nothing is said of what is
//!   in them: `ffi::import` looks at that.
#![allow(unsafe_code)]

use super::wire::{Broken, Read, Reader, Writer};
use standpipe_sdk::Type;
use standpipe_sdk::ffi::{ArrowArray, ReleaseArray};
use std::ffi::c_void;
use std::ptr::{null, null_mut};

/// The place of a buffer that is not there.
const NOWHERE: u64 = u64::MAX;
/// The longest text that a view holds itself.
const INLINE: usize = 12;
/// The most rows of an array.
const MOST_ROWS: u64 = i32::MAX as u64;

/// Why an array does not cross.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stopped {
    /// There is no room for it.
    NoRoom,
    /// What was said about it cannot be.
    Broken,
    /// The system refuses to copy it.
    System,
}

impl From<Broken> for Stopped {
    fn from(_: Broken) -> Self {
        Stopped::Broken
    }
}

/// Where buffers are put.
pub(super) trait Sink {
    /// Puts a buffer where the other side finds it, and says where.
    fn put(&mut self, bytes: &[u8]) -> Result<u64, Stopped> {
        let at = self.start(bytes.len())?;
        self.more(bytes)?;
        Ok(at)
    }

    /// Begins a buffer of `bytes` bytes, which [`Sink::more`] gives one after another.
    fn start(&mut self, bytes: usize) -> Result<u64, Stopped>;

    fn more(&mut self, bytes: &[u8]) -> Result<(), Stopped>;
}

/// Where buffers come from.
pub(super) trait Land {
    /// `bytes` bytes that lie at `at`, aligned to any value's alignment; there as long as the array.
    fn load(&mut self, at: u64, bytes: usize) -> Result<*const c_void, Stopped>;

    /// Room for `bytes` bytes, aligned to 64; there as long as the array.
    fn room(&mut self, bytes: usize) -> Result<*mut c_void, Stopped>;

    /// What `release` of the arrays is.
    fn release(&self) -> ReleaseArray;
}

/// Writes a struct array, a child per type.
///
/// # Safety
/// `array` is as a host lends it: normalised, with the children of these types, all of it readable.
pub(super) unsafe fn write<S: Sink>(
    array: &ArrowArray,
    types: &[Type],
    to: &mut Writer,
    sink: &mut S,
) -> Result<(), Stopped> {
    let rows = array.length as usize;
    to.u64(array.length as u64);
    for (at, ty) in types.iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { column(&**array.children.add(at), ty, 0, rows, to, sink)? }
    }
    Ok(())
}

/// Rows `from..from + len` of an array; `from` is a multiple of eight, so that bitmaps are cut at a byte.
///
/// # Safety
/// As [`write`]; there are so many rows.
unsafe fn column<S: Sink>(
    array: &ArrowArray,
    ty: &Type,
    from: usize,
    len: usize,
    to: &mut Writer,
    sink: &mut S,
) -> Result<(), Stopped> {
    to.u64(len as u64);
    if *ty == Type::Null {
        return Ok(());
    }
    // SAFETY: every type from here on has a first buffer, for the validity.
    let valid = unsafe { (*array.buffers).cast::<u8>() };
    let buffer = |at: usize| -> *const u8 {
        // SAFETY: types with more than one buffer ask for no more than they have.
        unsafe { (*array.buffers.add(at)).cast() }
    };
    // SAFETY: the caller's promise: these are the bytes of rows `from..from + len`.
    let mut put = |buffer: *const u8, start: usize, bytes: usize, to: &mut Writer| -> Result<(), Stopped> {
        let place = match buffer.is_null() || bytes == 0 {
            true => NOWHERE,
            // SAFETY: as above.
            false => sink.put(unsafe { std::slice::from_raw_parts(buffer.add(start), bytes) })?,
        };
        to.u64(place).u64(bytes as u64);
        Ok(())
    };
    put(valid, from / 8, len.div_ceil(8), to)?;
    if let Some(width) = width(ty) {
        return put(buffer(1), from * width, len * width, to);
    }
    match ty {
        Type::Bool => put(buffer(1), from / 8, len.div_ceil(8), to),
        // SAFETY: passed on.
        Type::String | Type::Bytes | Type::Json => unsafe { text(array, valid, from, len, to, sink) },
        Type::List(item) => {
            // SAFETY: a list has an offset more than rows, which ascend and lie within its child.
            let (child, offsets) = unsafe {
                let offsets = buffer(1).cast::<i32>();
                let offsets = match offsets.is_null() {
                    true => &[0][..],
                    false => std::slice::from_raw_parts(offsets.add(from), len + 1),
                };
                (&**array.children, offsets)
            };
            let (first, last) = (offsets[0] as usize, offsets[offsets.len() - 1] as usize);
            let start = first / 8 * 8;
            to.u64(sink.start(offsets.len() * 4)?).u64(offsets.len() as u64 * 4);
            for &offset in offsets {
                sink.more(&(offset - start as i32).to_le_bytes())?;
            }
            // SAFETY: rows up to `last` are there.
            unsafe { column(child, &item.ty, start, last - start, to, sink) }
        }
        Type::Record(schema) => {
            for (at, field) in schema.fields().iter().enumerate() {
                // SAFETY: a record has a child per field, of as many rows.
                unsafe { column(&**array.children.add(at), &field.ty, from, len, to, sink)? }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Bytes of a value, of types that have one buffer of values.
fn width(ty: &Type) -> Option<usize> {
    match ty {
        Type::Int | Type::Float | Type::Timestamp | Type::Duration => Some(8),
        Type::Decimal { .. } => Some(16),
        Type::Date => Some(4),
        _ => None,
    }
}

/// The views of rows `from..from + len`, and behind them one buffer with what they name.
///
/// # Safety
/// As [`column`].
unsafe fn text<S: Sink>(
    array: &ArrowArray,
    valid: *const u8,
    from: usize,
    len: usize,
    to: &mut Writer,
    sink: &mut S,
) -> Result<(), Stopped> {
    if len == 0 {
        to.u64(NOWHERE).u64(0).u32(0);
        return Ok(());
    }
    let row = |at: usize| -> u128 {
        // SAFETY: there is a view for each row, and the bit of its validity if there are nulls.
        unsafe {
            let at = from + at;
            if !valid.is_null() && *valid.add(at / 8) >> (at % 8) & 1 == 0 {
                return 0;
            }
            (*array.buffers.add(1)).cast::<u128>().add(at).read_unaligned()
        }
    };
    let length = |view: u128| view as u32 as usize;
    let mut total = 0usize;
    to.u64(sink.start(len * 16)?).u64(len as u64 * 16);
    for at in 0..len {
        let mut view = row(at);
        if length(view) > INLINE {
            let offset = u32::try_from(total).map_err(|_| Stopped::NoRoom)?;
            // The length and the first four bytes stay; the buffer is the only one.
            view = view & u128::from(u64::MAX) | u128::from(offset) << 96;
            total += length(view);
        }
        sink.more(&view.to_le_bytes())?;
    }
    if total == 0 {
        to.u32(0);
        return Ok(());
    }
    to.u32(1).u64(sink.start(total)?).u64(total as u64);
    for view in (0..len).map(row).filter(|&view| length(view) > INLINE) {
        let (part, offset) = ((view >> 64) as u32 as usize, (view >> 96) as u32 as usize);
        // SAFETY: a view of a normalised array names bytes of one of its buffers.
        let bytes = unsafe {
            let part = (*array.buffers.add(2 + part)).cast::<u8>();
            std::slice::from_raw_parts(part.add(offset), length(view))
        };
        sink.more(bytes)?;
    }
    Ok(())
}

/// Reads a struct array, a child per type.
pub(super) fn read<L: Land>(from: &mut Reader<'_>, types: &[Type], land: &mut L) -> Result<ArrowArray, Stopped> {
    let rows = from.u64()?;
    let children = list(land, types.len(), |land, at| {
        let child = array(from, &types[at], land)?;
        match child.length as u64 == rows {
            true => Ok(child),
            false => Err(Stopped::Broken),
        }
    })?;
    made(rows, 0, &[null()], types.len(), children, land)
}

/// Reads a struct array that comes from a process: there it may find no room here, and then nothing more of the frame is wanted.
pub(super) fn arrived<L: Land>(
    from: &mut Reader<'_>,
    types: &[Type],
    land: &mut L,
) -> Read<Result<ArrowArray, Stopped>> {
    match read(from, types, land) {
        Err(Stopped::Broken) => Err(Broken),
        Err(stopped) => {
            from.0 = &[];
            Ok(Err(stopped))
        }
        Ok(array) => Ok(Ok(array)),
    }
}

/// An array with these buffers.
fn made<L: Land>(
    rows: u64,
    nulls: i64,
    buffers: &[*const c_void],
    n_children: usize,
    children: *mut *mut ArrowArray,
    land: &mut L,
) -> Result<ArrowArray, Stopped> {
    if rows > MOST_ROWS {
        return Err(Stopped::Broken);
    }
    let mut listed = null_mut();
    if !buffers.is_empty() {
        listed = land.room(size_of_val(buffers))?.cast::<*const c_void>();
        // SAFETY: there is room for so many pointers, fresh and aligned.
        unsafe { std::ptr::copy_nonoverlapping(buffers.as_ptr(), listed, buffers.len()) }
    }
    Ok(ArrowArray {
        length: rows as i64,
        null_count: nulls,
        n_buffers: buffers.len() as i64,
        n_children: n_children as i64,
        buffers: listed,
        children,
        release: Some(land.release()),
        ..ArrowArray::EMPTY
    })
}

/// `count` arrays and the list of pointers to them.
fn list<L: Land>(
    land: &mut L,
    count: usize,
    mut one: impl FnMut(&mut L, usize) -> Result<ArrowArray, Stopped>,
) -> Result<*mut *mut ArrowArray, Stopped> {
    if count == 0 {
        return Ok(null_mut());
    }
    let arrays = land.room(count * size_of::<ArrowArray>())?.cast::<ArrowArray>();
    let pointers = land
        .room(count * size_of::<*mut ArrowArray>())?
        .cast::<*mut ArrowArray>();
    for at in 0..count {
        let array = one(land, at)?;
        // SAFETY: there is room for `count` of each, fresh and aligned.
        unsafe {
            arrays.add(at).write(array);
            pointers.add(at).write(arrays.add(at));
        }
    }
    Ok(pointers)
}

fn array<L: Land>(from: &mut Reader<'_>, ty: &Type, land: &mut L) -> Result<ArrowArray, Stopped> {
    let rows = from.u64()?;
    if rows > MOST_ROWS {
        return Err(Stopped::Broken);
    }
    let len = rows as usize;
    if *ty == Type::Null {
        return made(rows, rows as i64, &[], 0, null_mut(), land);
    }
    let valid = buffer(from, len.div_ceil(8), true, land)?;
    let nulls = if valid.is_null() { 0 } else { -1 };
    if let Some(width) = width(ty) {
        let values = buffer(from, len * width, false, land)?;
        return made(rows, nulls, &[valid, values], 0, null_mut(), land);
    }
    match ty {
        Type::Bool => {
            let bits = buffer(from, len.div_ceil(8), false, land)?;
            made(rows, nulls, &[valid, bits], 0, null_mut(), land)
        }
        Type::String | Type::Bytes | Type::Json => {
            let views = buffer(from, len * 16, false, land)?;
            // Ours writes all text into one.
            let parts = from.u32()?;
            if parts > 1 {
                return Err(Stopped::Broken);
            }
            if parts == 0 {
                return made(rows, nulls, &[valid, views, null()], 0, null_mut(), land);
            }
            let (place, bytes) = (from.u64()?, from.u64()?);
            let size = usize::try_from(bytes).map_err(|_| Stopped::Broken)?;
            let text = land.load(place, size)?;
            let sizes = land.room(8)?.cast::<i64>();
            // SAFETY: there is room for one, fresh and aligned.
            unsafe { sizes.write(size as i64) }
            made(
                rows,
                nulls,
                &[valid, views, text, sizes.cast_const().cast()],
                0,
                null_mut(),
                land,
            )
        }
        Type::List(item) => {
            let offsets = buffer(from, (len + 1) * 4, false, land)?;
            let children = list(land, 1, |land, _| array(from, &item.ty, land))?;
            made(rows, nulls, &[valid, offsets], 1, children, land)
        }
        Type::Record(schema) => {
            let children = list(land, schema.width(), |land, at| {
                let child = array(from, &schema.fields()[at].ty, land)?;
                match child.length as u64 == rows {
                    true => Ok(child),
                    false => Err(Stopped::Broken),
                }
            })?;
            made(rows, nulls, &[valid], schema.width(), children, land)
        }
        _ => Err(Stopped::Broken),
    }
}

/// A buffer of at least `needed` bytes, of which so many are taken.
fn buffer<L: Land>(
    from: &mut Reader<'_>,
    needed: usize,
    may_lack: bool,
    land: &mut L,
) -> Result<*const c_void, Stopped> {
    let (place, bytes) = (from.u64()?, from.u64()?);
    if place == NOWHERE {
        return match may_lack || needed == 0 {
            true => Ok(null()),
            false => Err(Stopped::Broken),
        };
    }
    if bytes < needed as u64 {
        return Err(Stopped::Broken);
    }
    land.load(place, needed)
}

#[cfg(test)]
mod tests;
