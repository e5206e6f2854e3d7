//! Scalar functions of plugins: `const` data and one Rust function over whole columns. `#[scalar]` writes both for a plain function.
//!
//! Laws
//! - `eval` gives a column of exactly [`Rows::len`] rows.
//! - With [`Nulls::Propagate`] a null argument makes the row null, whatever stands there.
//! - A function that is not fallible may be asked for rows that nobody needs.

use crate::arena::Arena;
use crate::bits::{Bits, both};
use crate::build::TextBuilder;
use crate::column::{Column, Data};
use crate::error::{Error, Result};
use crate::fault::Faults;
use crate::ffi::PLUGIN_FAILED;
use crate::text::Text;
use crate::types::Type;
use std::fmt::Display;

/// A function as it is declared.
pub struct ScalarSpec {
    pub name: &'static str,
    /// One line.
    pub about: &'static str,
    pub params: &'static [ScalarParam],
    pub returns: ScalarType,
    /// Whether a row may be null although no argument is.
    pub nullable: bool,
    pub nulls: Nulls,
    /// Whether a row can fail.
    pub fallible: bool,
    /// Calls, printed as documentation.
    pub examples: &'static [&'static str],
    pub eval: for<'a> fn(&Rows<'_, 'a>) -> Result<Column<'a>>,
}

/// A type whose function can be exported; `#[scalar]` makes one of the function's name.
pub trait Scalar {
    const SPEC: ScalarSpec;
}

/// A parameter of a function.
#[derive(Clone, Copy, Debug)]
pub struct ScalarParam {
    pub name: &'static str,
    pub ty: ScalarType,
    /// A literal of the language: `0`, `"x"`, `true`; `None` = it must be given.
    pub default: Option<&'static str>,
}

/// Types of parameters and results.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScalarType {
    Bool,
    Int,
    /// Takes an int as well, converted.
    Float,
    String,
}

impl ScalarType {
    /// As the language writes it.
    pub const fn word(self) -> &'static str {
        match self {
            ScalarType::Bool => "bool",
            ScalarType::Int => "int",
            ScalarType::Float => "float",
            ScalarType::String => "string",
        }
    }

    pub fn ty(self) -> Type {
        match self {
            ScalarType::Bool => Type::Bool,
            ScalarType::Int => Type::Int,
            ScalarType::Float => Type::Float,
            ScalarType::String => Type::String,
        }
    }
}

/// What a null argument does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nulls {
    /// The row is null.
    Propagate,
    /// The function sees it.
    Own,
}

/// The arguments of a call over some rows.
pub struct Rows<'r, 'a> {
    /// One per parameter.
    pub columns: &'a [Column<'a>],
    pub len: usize,
    pub arena: &'a Arena,
    pub faults: &'r Faults<'a>,
}

/// A Rust type that an argument arrives as.
pub trait Take<'a>: Copy {
    /// What the language calls it.
    const TYPE: ScalarType;
    /// Whether it can hold null.
    const NULLABLE: bool;
    /// One argument of all rows.
    type Column: Copy;
    /// # Errors
    /// If the column is of another type.
    fn column(column: Column<'a>, arena: &'a Arena) -> Result<Self::Column>;
    /// The value of row `row`; of a null row anything, unless the type can hold null.
    fn get(column: Self::Column, row: usize) -> Self;
}

fn other_type<T>() -> Result<T> {
    Err(Error::failed(
        PLUGIN_FAILED,
        "an argument is of another type than declared",
    ))
}

macro_rules! take {
    ($($ty:ty, $variant:ident, $zero:expr;)*) => {$(
        impl<'a> Take<'a> for $ty {
            const TYPE: ScalarType = ScalarType::$variant;
            const NULLABLE: bool = false;
            type Column = &'a [$ty];
            fn column(column: Column<'a>, arena: &'a Arena) -> Result<Self::Column> {
                match column.data() {
                    Data::$variant(values) => Ok(values),
                    Data::Null => Ok(arena.fill(column.len(), $zero)?),
                    _ => other_type(),
                }
            }
            #[inline(always)]
            fn get(column: Self::Column, row: usize) -> $ty {
                column[row]
            }
        }
    )*};
}
take! {
    i64, Int, 0;
    f64, Float, 0.0;
}

impl<'a> Take<'a> for bool {
    const TYPE: ScalarType = ScalarType::Bool;
    const NULLABLE: bool = false;
    type Column = Bits<'a>;
    fn column(column: Column<'a>, arena: &'a Arena) -> Result<Bits<'a>> {
        match column.data() {
            Data::Bool(bits) => Ok(bits),
            Data::Null => Bits::all(arena, column.len(), false),
            _ => other_type(),
        }
    }
    #[inline(always)]
    fn get(column: Bits<'a>, row: usize) -> bool {
        column.get(row)
    }
}

impl<'a> Take<'a> for &'a str {
    const TYPE: ScalarType = ScalarType::String;
    const NULLABLE: bool = false;
    type Column = Text<'a>;
    fn column(column: Column<'a>, arena: &'a Arena) -> Result<Text<'a>> {
        match column.data() {
            Data::String(text) => Ok(text),
            Data::Null => Text::repeat("", column.len(), arena),
            _ => other_type(),
        }
    }
    #[inline(always)]
    fn get(column: Text<'a>, row: usize) -> &'a str {
        column.str(row)
    }
}

impl<'a, T: Take<'a>> Take<'a> for Option<T> {
    const TYPE: ScalarType = T::TYPE;
    const NULLABLE: bool = true;
    type Column = (Column<'a>, T::Column);
    fn column(column: Column<'a>, arena: &'a Arena) -> Result<Self::Column> {
        Ok((column, T::column(column, arena)?))
    }
    #[inline(always)]
    fn get(column: Self::Column, row: usize) -> Self {
        column.0.is_valid(row).then(|| T::get(column.1, row))
    }
}

/// A Rust type that a function gives.
pub trait Give: Sized {
    const TYPE: ScalarType;
    const NULLABLE: bool;
    const FALLIBLE: bool;
    /// The column of what `f` gives for each row of `rows` that `valid` has; the others are null.
    ///
    /// # Errors
    /// `Memory` if the arena is full.
    fn column<'a>(rows: &Rows<'_, 'a>, valid: Option<Bits<'a>>, f: impl FnMut(usize) -> Self) -> Result<Column<'a>>;
}

fn is_asked(valid: Option<Bits<'_>>, row: usize) -> bool {
    valid.is_none_or(|valid| valid.get(row))
}

/// A Rust type of values, of which columns are made.
pub trait Made: Sized + Default {
    const TYPE: ScalarType;
    /// What `f` gives for each row of `rows`.
    ///
    /// # Errors
    /// `Memory` if the arena is full.
    fn data<'a>(rows: &Rows<'_, 'a>, f: impl FnMut(usize) -> Self) -> Result<Data<'a>>;
}

macro_rules! made {
    ($($ty:ty, $variant:ident, |$rows:ident, $f:ident| $data:expr;)*) => {$(
        impl Made for $ty {
            const TYPE: ScalarType = ScalarType::$variant;
            #[allow(unused_mut, reason = "some only pass it on")]
            fn data<'a>($rows: &Rows<'_, 'a>, mut $f: impl FnMut(usize) -> Self) -> Result<Data<'a>> {
                Ok(Data::$variant($data))
            }
        }
    )*};
}
made! {
    i64, Int, |rows, f| rows.arena.collect(rows.len, f)?;
    f64, Float, |rows, f| rows.arena.collect(rows.len, f)?;
    bool, Bool, |rows, f| Bits::collect(rows.arena, rows.len, f)?;
    String, String, |rows, f| {
        let mut text = TextBuilder::new(rows.arena, rows.len, rows.len * 16)?;
        (0..rows.len).try_for_each(|row| text.push(&f(row)))?;
        text.finish()?
    };
}

impl<T: Made> Give for T {
    const TYPE: ScalarType = T::TYPE;
    const NULLABLE: bool = false;
    const FALLIBLE: bool = false;
    fn column<'a>(rows: &Rows<'_, 'a>, valid: Option<Bits<'a>>, mut f: impl FnMut(usize) -> T) -> Result<Column<'a>> {
        let data = match valid {
            None => T::data(rows, f)?,
            Some(valid) => T::data(rows, |row| if valid.get(row) { f(row) } else { T::default() })?,
        };
        Ok(Column::new(data, valid, rows.len))
    }
}

impl<T: Made> Give for Option<T> {
    const TYPE: ScalarType = T::TYPE;
    const NULLABLE: bool = true;
    const FALLIBLE: bool = false;
    fn column<'a>(
        rows: &Rows<'_, 'a>,
        valid: Option<Bits<'a>>,
        mut f: impl FnMut(usize) -> Self,
    ) -> Result<Column<'a>> {
        let mut marks = Marks::new(rows, valid)?;
        let data = T::data(rows, |row| {
            let value = if is_asked(valid, row) { f(row) } else { None };
            marks.see(row, value.is_some());
            value.unwrap_or_default()
        })?;
        Ok(Column::new(data, marks.finish(), rows.len))
    }
}

/// Which rows have a value.
struct Marks<'a> {
    words: &'a mut [u64],
    len: usize,
    nulls: bool,
}

impl<'a> Marks<'a> {
    fn new(rows: &Rows<'_, 'a>, valid: Option<Bits<'a>>) -> Result<Self> {
        Ok(Marks {
            words: rows.arena.fill(rows.len.div_ceil(64), 0)?,
            len: rows.len,
            nulls: valid.is_some(),
        })
    }

    #[inline]
    fn see(&mut self, row: usize, is_there: bool) {
        self.nulls |= !is_there;
        self.words[row / 64] |= u64::from(is_there) << (row % 64);
    }

    fn finish(self) -> Option<Bits<'a>> {
        self.nulls.then(|| Bits::new(self.words, self.len))
    }
}

/// A function that can fail: an error is a bad row, whose message it is.
impl<T: Made, E: Display> Give for Result<T, E> {
    const TYPE: ScalarType = T::TYPE;
    const NULLABLE: bool = false;
    const FALLIBLE: bool = true;
    fn column<'a>(
        rows: &Rows<'_, 'a>,
        valid: Option<Bits<'a>>,
        mut f: impl FnMut(usize) -> Self,
    ) -> Result<Column<'a>> {
        let mut failed = None;
        let column = Option::<T>::column(rows, valid, |row| match f(row) {
            Ok(value) => Some(value),
            Err(error) => {
                let told = rows.faults.report(row, PLUGIN_FAILED, None, format_args!("{error}"));
                failed = failed.take().or(told.err());
                None
            }
        })?;
        failed.map_or(Ok(column), Err)
    }
}

/// Rows in which no argument is null; `None` = all.
///
/// # Errors
/// `Memory` if the arena is full.
pub fn valid_rows<'a>(rows: &Rows<'_, 'a>) -> Result<Option<Bits<'a>>> {
    let mut valid = None;
    for column in rows.columns {
        if matches!(column.data(), Data::Null) {
            return Ok(Some(Bits::all(rows.arena, rows.len, false)?));
        }
        valid = both(valid, column.valid(), rows.arena)?;
    }
    Ok(valid)
}
