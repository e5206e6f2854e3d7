//! Columns as Arrow arrays that are lent for one call.
//!
//! Laws
//! - Where our layout is Arrow's, nothing is copied; array structs, pointer lists and normalised bitmaps live in the chunk's arena.
//! - Every lent array, child or not, is counted in its [`Lease`] until it is released: whoever lends sees what was kept.
#![allow(unsafe_code)]

use super::{ArrowArray, PLUGIN_FAILED, ReleaseArray};
use crate::arena::Arena;
use crate::bits::Bits;
use crate::column::{Column, Data};
use crate::error::{Error, Result};
use crate::text::Text;
use crate::types::Type;
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

/// Counts the lent arrays of one call.
#[derive(Default, Debug)]
pub struct Lease {
    open: AtomicUsize,
    /// The memory of the arrays is gone; only the count may be touched.
    over: AtomicBool,
}

/// One batch, lent.
pub struct Lent<'i, 'a> {
    /// What the borrower gets; the children and all buffers are in the arena.
    pub array: ArrowArray,
    children: &'a [*mut ArrowArray],
    /// Where the buffers of each column are listed: by that a column is known again when it comes back.
    buffers: &'a [*mut *const c_void],
    columns: &'a [Column<'a>],
    types: &'i [Type],
    lease: Arc<Lease>,
}

impl<'i, 'a> Lent<'i, 'a> {
    /// `rows` rows of these columns as a struct array.
    ///
    /// # Errors
    /// `Memory`; `Failed` for a column whose values were not decoded.
    pub fn new(
        columns: &'a [Column<'a>],
        types: &'i [Type],
        rows: usize,
        arena: &'a Arena,
        lease: &Arc<Lease>,
    ) -> Result<Lent<'i, 'a>> {
        let exporter = Exporter {
            arena,
            lease: Some(lease),
            release: release_lent,
        };
        lease.open.store(0, SeqCst);
        lease.over.store(false, SeqCst);
        let children: &'a mut [*mut ArrowArray] = arena.fill(columns.len(), null_mut())?;
        let buffers = arena.fill(columns.len(), null_mut())?;
        for (at, (column, ty)) in columns.iter().zip(types).enumerate() {
            let child = exporter.column(column, ty)?;
            buffers[at] = child.buffers;
            children[at] = arena.one(child)?;
        }
        let array = exporter.array(rows, 0, &[std::ptr::null()], children)?;
        Ok(Lent {
            array,
            children,
            buffers,
            columns,
            types,
            lease: lease.clone(),
        })
    }

    /// The column of type `ty` that `array` is a moved copy of.
    pub(crate) fn found(&self, array: &ArrowArray, ty: &Type, from: usize, len: usize) -> Option<Column<'a>> {
        if array.offset != 0 || array.buffers.is_null() {
            return None;
        }
        let at = self.buffers.iter().position(|&buffers| buffers == array.buffers)?;
        let column = self.columns[at];
        let same = self.types[at] == *ty && array.length == column.len() as i64 && array.n_buffers > 0;
        (same && from.checked_add(len)? <= column.len()).then(|| column.slice(from, len))
    }

    /// Whether `array` was lent here.
    pub(crate) fn is_ours(&self, array: &ArrowArray) -> bool {
        array
            .release
            .is_some_and(|f| std::ptr::eq(f as *const (), release_lent as *const ()))
            && array.private_data == Arc::as_ptr(&self.lease).cast_mut().cast()
    }

    /// Takes back what was left in place of [`Lent::array`].
    ///
    /// # Errors
    /// If the borrower kept an array: then it must not be called again but to end it.
    pub fn take_back(&self, left: ArrowArray) -> Result<()> {
        if left.release.is_some() {
            // The borrower may have written anything else into it; the children are known without it.
            for &child in self.children {
                // SAFETY: the child lies in the arena, which `'a` borrows; the borrower may have made its release NULL, or
                // overwritten it, and so it is only compared.
                unsafe {
                    if (*child).release.is_some() {
                        release_lent(child);
                    }
                }
            }
            self.lease.open.fetch_sub(1, SeqCst);
        }
        if self.lease.open.load(SeqCst) == 0 {
            return Ok(());
        }
        self.lease.over.store(true, SeqCst);
        // Whoever kept an array may still release it, at any time: the count must stay.
        let _ = Arc::into_raw(self.lease.clone());
        Err(Error::failed(PLUGIN_FAILED, "it kept input beyond the call"))
    }
}

/// `release` of every lent array.
unsafe extern "C" fn release_lent(array: *mut ArrowArray) {
    // SAFETY: Arrow's contract: a lent array, perhaps moved, not yet released. `private_data` is the lease, which lives as long as
    // one of its arrays does; children are touched only while the memory they are in is there.
    unsafe {
        if array.is_null() || (*array).release.is_none() {
            return;
        }
        let lease = &*(*array).private_data.cast::<Lease>();
        if !lease.over.load(SeqCst) {
            for at in 0..(*array).n_children.max(0) as usize {
                let child = *(*array).children.add(at);
                if let Some(release) = (*child).release {
                    release(child);
                }
            }
        }
        (*array).release = None;
        lease.open.fetch_sub(1, SeqCst);
    }
}

/// `rows` rows of columns as a struct array that is given away: buffers and structs stay where they are, in or behind the arena.
/// `release` needs nothing but the array.
///
/// # Errors
/// `Memory`; `Failed` for a column whose values were not decoded.
pub fn give<'a>(
    columns: &[Column<'a>],
    types: &[&Type],
    rows: usize,
    arena: &'a Arena,
    release: ReleaseArray,
) -> Result<ArrowArray> {
    let exporter = Exporter {
        arena,
        lease: None,
        release,
    };
    let children = arena.fill(columns.len(), null_mut())?;
    for (at, (column, ty)) in columns.iter().zip(types).enumerate() {
        children[at] = arena.one(exporter.column(column, ty)?)?;
    }
    exporter.array(rows, 0, &[std::ptr::null()], children)
}

/// `release` of arrays that only have to be marked: their memory goes by itself, soon.
///
/// # Safety
/// The array is NULL, or one whose children are there.
pub unsafe extern "C" fn release_marked(array: *mut ArrowArray) {
    // SAFETY: the caller's promise.
    unsafe {
        let Some(array) = array.as_mut() else { return };
        for at in 0..array.n_children.max(0) as usize {
            (**array.children.add(at)).release = None;
        }
        array.release = None;
    }
}

struct Exporter<'a, 'l> {
    arena: &'a Arena,
    /// `None`: what is given is not counted.
    lease: Option<&'l Arc<Lease>>,
    release: ReleaseArray,
}

impl<'a> Exporter<'a, '_> {
    fn array(
        &self,
        len: usize,
        nulls: usize,
        buffers: &[*const c_void],
        children: &'a [*mut ArrowArray],
    ) -> Result<ArrowArray> {
        let buffers = self.arena.copy(buffers)?;
        self.listed(len, nulls, buffers, children)
    }

    /// An array whose list of buffers is in the arena already.
    fn listed(
        &self,
        len: usize,
        nulls: usize,
        buffers: &'a mut [*const c_void],
        children: &'a [*mut ArrowArray],
    ) -> Result<ArrowArray> {
        if let Some(lease) = self.lease {
            lease.open.fetch_add(1, SeqCst);
        }
        Ok(ArrowArray {
            length: len as i64,
            null_count: nulls as i64,
            offset: 0,
            n_buffers: buffers.len() as i64,
            n_children: children.len() as i64,
            buffers: buffers.as_mut_ptr(),
            children: children.as_ptr().cast_mut(),
            dictionary: null_mut(),
            release: Some(self.release),
            private_data: self
                .lease
                .map_or(null_mut(), |lease| Arc::as_ptr(lease).cast_mut().cast()),
        })
    }

    fn column(&self, column: &Column<'a>, ty: &Type) -> Result<ArrowArray> {
        let len = column.len();
        if matches!(column.data(), Data::Absent | Data::Null) {
            return self.nothing(len, ty);
        }
        let nulls = column.null_count();
        let valid = match column.valid() {
            Some(bits) if nulls > 0 => self.bits(bits)?,
            _ => std::ptr::null(),
        };
        let flat = |values: *const c_void| self.array(len, nulls, &[valid, values], &[]);
        match column.data() {
            Data::Bool(v) => flat(self.bits(v)?),
            Data::Int(v) | Data::Timestamp(v) | Data::Duration(v) => flat(v.as_ptr().cast()),
            Data::Float(v) => flat(v.as_ptr().cast()),
            Data::Decimal(v) => flat(v.as_ptr().cast()),
            Data::Date(v) => flat(v.as_ptr().cast()),
            Data::String(v) | Data::Bytes(v) | Data::Json(v) => self.text(len, nulls, valid, &v),
            Data::List(list) => {
                let Type::List(item) = ty else { return Err(not_of(ty)) };
                let child = self.column(list.child, &item.ty)?;
                let children = self.arena.fill(1, &raw mut *self.arena.one(child)?)?;
                self.array(len, nulls, &[valid, list.offsets.as_ptr().cast()], children)
            }
            Data::Record(record) => {
                let Type::Record(schema) = ty else {
                    return Err(not_of(ty));
                };
                let children = self.arena.fill(schema.width(), null_mut())?;
                for (at, field) in schema.fields().iter().enumerate() {
                    let child = self.column(&record.field(at, len), &field.ty)?;
                    children[at] = self.arena.one(child)?;
                }
                self.array(len, nulls, &[valid], children)
            }
            Data::Absent | Data::Null | Data::Verbatim(_) | Data::Cells(_) => Err(not_of(ty)),
        }
    }

    fn text(&self, len: usize, nulls: usize, valid: *const c_void, text: &Text<'a>) -> Result<ArrowArray> {
        let parts = text.buffers();
        let sizes = self.arena.collect(parts.len(), |i| parts[i].len() as i64)?;
        let buffers = self.arena.collect(parts.len() + 3, |i| match i {
            0 => valid,
            1 => text.views().as_ptr().cast(),
            i => parts
                .get(i - 2)
                .map_or(sizes.as_ptr().cast(), |part| part.as_ptr().cast::<c_void>()),
        })?;
        self.listed(len, nulls, buffers, &[])
    }

    /// Bits from the first one of a word on.
    fn bits(&self, bits: Bits<'a>) -> Result<*const c_void> {
        let words = match bits.as_words() {
            Some(words) => words,
            None => self.arena.collect(bits.words(), |w| bits.word(w))?,
        };
        Ok(words.as_ptr().cast())
    }

    /// `len` nulls of a type.
    fn nothing(&self, len: usize, ty: &Type) -> Result<ArrowArray> {
        if *ty == Type::Null {
            return self.listed(len, len, &mut [], &[]);
        }
        let valid: *const c_void = match len {
            0 => std::ptr::null(),
            _ => self.arena.fill(len.div_ceil(64), 0u64)?.as_ptr().cast(),
        };
        let zeros = |bytes: usize| -> Result<*const c_void> { Ok(self.arena.fill(bytes, 0u8)?.as_ptr().cast()) };
        let flat = |bytes: usize| self.array(len, len, &[valid, zeros(bytes)?], &[]);
        match ty {
            Type::Bool => flat(len.div_ceil(64) * 8),
            Type::Int | Type::Float | Type::Timestamp | Type::Duration => flat(len * 8),
            Type::Decimal { .. } => flat(len * 16),
            Type::Date => flat(len * 4),
            Type::String | Type::Bytes | Type::Json => self.array(len, len, &[valid, zeros(len * 16)?, zeros(0)?], &[]),
            Type::List(item) => {
                let child = self.arena.one(self.nothing(0, &item.ty)?)?;
                let children = self.arena.fill(1, &raw mut *child)?;
                self.array(len, len, &[valid, zeros((len + 1) * 4)?], children)
            }
            Type::Record(schema) => {
                let children = self.arena.fill(schema.width(), null_mut())?;
                for (at, field) in schema.fields().iter().enumerate() {
                    children[at] = self.arena.one(self.nothing(len, &field.ty)?)?;
                }
                self.array(len, len, &[valid], children)
            }
            Type::Null => self.listed(len, len, &mut [], &[]),
        }
    }
}

fn not_of(ty: &Type) -> Error {
    Error::failed(PLUGIN_FAILED, format!("a column of `{ty}` holds something else"))
}
