//! What a function is: `const` data and one Rust function over whole columns. Adding a function is one [`FunctionSpec`] row and
//! its `eval` in one family file.
//!
//! Laws
//! - `eval` gives a column of exactly `args.rows()` rows and allocates only in `args.arena()`.
//! - A constant argument has one row; the typed getters hide that, nothing is broadcast.
//! - A fallible function looks at a row only if `args.is_active(row)`; the `try_*` makers do that by themselves.
//! - With [`Nulls::Propagate`] a null argument makes the row null whatever `eval` wrote there.

use crate::expr::eval::Cx;
use crate::expr::{Argument, Expr, Fixed, Lambda};
use regex::Regex;
use standpipe_sdk::build::TextBuilder;
use standpipe_sdk::{Arena, Bits, Code, Column, Data, Error, Field, ListData, Place, Result, Text, Type, Value, View};
use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// One overload of a function.
pub struct FunctionSpec {
    pub name: &'static str,
    /// One line, ends with a dot.
    pub about: &'static str,
    pub params: &'static [ParamSpec],
    pub returns: Returns,
    pub nulls: Nulls,
    /// Whether a row can fail.
    pub fallible: bool,
    /// Depends on the run or on the row's place: never computed before the run.
    pub volatile: bool,
    /// Run as tests, printed as documentation.
    pub examples: &'static [Example],
    /// Looks at constant arguments once, before the run; what it gives is `args.prepared()`. An error is a diagnostic.
    pub prepare: Option<Prepare>,
    pub eval: Eval,
    /// What stands behind a function of a library, with [`FunctionSpec::FOREIGN`].
    pub foreign: Option<&'static dyn Foreign>,
}

/// A function of a library: bound to its arguments before the run.
pub trait Foreign: Send + Sync {
    /// The column that it gives for these arguments, and what computes it; the text is a diagnostic.
    fn bind(&self, given: &[Given<'_>]) -> Result<(Field, Arc<dyn ForeignCall>), String>;
}

/// A call of a [`Foreign`] function.
pub trait ForeignCall: Send + Sync {
    /// See [`FunctionSpec::eval`].
    fn eval<'a>(&self, args: &Args<'_, 'a>) -> Result<Column<'a>>;
}

/// What is prepared of a foreign call.
pub(in crate::expr) struct ForeignPrepared(pub(in crate::expr) Arc<dyn ForeignCall>);

/// See [`FunctionSpec::prepare`].
pub type Prepare = fn(&[Given<'_>]) -> Result<Arc<dyn Any + Send + Sync>, String>;
/// See [`FunctionSpec::eval`].
pub type Eval = for<'a> fn(&Args<'_, 'a>) -> Result<Column<'a>>;

impl FunctionSpec {
    /// To build rows from with `..FunctionSpec::BASE`.
    pub const BASE: FunctionSpec = FunctionSpec {
        name: "",
        about: "",
        params: &[],
        returns: Returns::Bool,
        nulls: Nulls::Propagate,
        fallible: false,
        volatile: false,
        examples: &[],
        prepare: None,
        eval: |args| Ok(Column::nulls(args.rows())),
        foreign: None,
    };

    /// The same for functions of libraries.
    pub const FOREIGN: FunctionSpec = FunctionSpec {
        returns: Returns::Bound("…"),
        eval: |args| match args.prepared::<ForeignPrepared>() {
            Some(prepared) => prepared.0.eval(args),
            None => Err(Error::Panic("a foreign function was not bound".into())),
        },
        ..FunctionSpec::BASE
    };

    /// How many arguments must be given.
    pub fn required(&self) -> usize {
        let optional = |p: &ParamSpec| p.default.is_some() || p.variadic;
        self.params.iter().take_while(|p| !optional(p)).count()
    }
}

impl fmt::Debug for FunctionSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// `round(x: number, n: int = 0)`.
impl fmt::Display for FunctionSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        signature(f, self.name, self.params, self.returns)
    }
}

/// `name(x: float, y: int = 1) -> float`.
pub(super) fn signature(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    params: &[ParamSpec],
    returns: impl fmt::Display,
) -> fmt::Result {
    write!(f, "{name}(")?;
    for (i, param) in params.iter().enumerate() {
        let comma = if i > 0 { ", " } else { "" };
        let dots = if param.variadic { "…" } else { "" };
        write!(f, "{comma}{}: {}{dots}", param.name, param.ty)?;
        if let Some(default) = param.default {
            write!(f, " = {default}")?;
        }
    }
    write!(f, ") -> {returns}")
}

/// A parameter of a function.
#[derive(Clone, Copy, Debug)]
pub struct ParamSpec {
    pub name: &'static str,
    pub ty: Pattern,
    /// A literal as it would be written: `0`, `"x"`, `true`, `null`, `1.5`.
    pub default: Option<&'static str>,
    /// The last parameter may be given any number of times, also none.
    pub variadic: bool,
}

impl ParamSpec {
    /// A required parameter.
    pub const fn new(name: &'static str, ty: Pattern) -> ParamSpec {
        ParamSpec {
            name,
            ty,
            default: None,
            variadic: false,
        }
    }

    /// An optional parameter.
    pub const fn default(name: &'static str, ty: Pattern, default: &'static str) -> ParamSpec {
        ParamSpec {
            name,
            ty,
            default: Some(default),
            variadic: false,
        }
    }

    /// The last parameter, given any number of times.
    pub const fn variadic(name: &'static str, ty: Pattern) -> ParamSpec {
        ParamSpec {
            name,
            ty,
            default: None,
            variadic: true,
        }
    }
}

/// Which types a parameter takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pattern {
    Any,
    Bool,
    Int,
    /// Takes an int as well, converted.
    Float,
    /// Any decimal; takes an int as well, converted.
    Decimal,
    /// int, float or decimal, as it is.
    Number,
    String,
    Bytes,
    Date,
    Timestamp,
    Duration,
    Json,
    /// Any type with an order.
    Ordered,
    /// The type of parameter `n` and of all others of that group: their common type.
    Same(usize),
    /// A list of anything.
    List,
    /// A list of strings (ints, …).
    ListOf(&'static Pattern),
    /// The element type of list parameter `n`.
    Element(usize),
    Record,
    /// `/re/`.
    Regex,
    /// `x => …` over the elements of list parameter `of`; the body must give `gives` (`Any`: whatever).
    Lambda {
        of: usize,
        gives: &'static Pattern,
    },
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Pattern::Any => "any",
            Pattern::Bool => "bool",
            Pattern::Int => "int",
            Pattern::Float => "float",
            Pattern::Decimal => "decimal",
            Pattern::Number => "number",
            Pattern::String => "string",
            Pattern::Bytes => "bytes",
            Pattern::Date => "date",
            Pattern::Timestamp => "timestamp",
            Pattern::Duration => "duration",
            Pattern::Json => "json",
            Pattern::Ordered => "ordered",
            Pattern::Same(_) => "same",
            Pattern::List => "list",
            Pattern::ListOf(item) => return write!(f, "list<{item}>"),
            Pattern::Element(_) => "element",
            Pattern::Record => "record",
            Pattern::Regex => "regex",
            Pattern::Lambda { gives, .. } => return write!(f, "(element) => {gives}"),
        })
    }
}

/// What a function gives.
#[derive(Clone, Copy)]
pub enum Returns {
    Bool,
    Int,
    Float,
    String,
    Bytes,
    Date,
    Timestamp,
    Duration,
    Json,
    /// The type of argument `n` (after conversion).
    Same(usize),
    /// The element type of list argument `n`, always nullable.
    Element(usize),
    /// A list of strings (never null in it).
    Strings,
    /// A list of what the lambda argument `n` gives.
    ListOfLambda(usize),
    /// Computed from the arguments; an error is a diagnostic.
    Of(fn(&[Given<'_>]) -> Result<Type, String>),
    /// What [`Foreign::bind`] says; the word is for people.
    Bound(&'static str),
}

impl fmt::Display for Returns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Returns::Bool => "bool",
            Returns::Int => "int",
            Returns::Float => "float",
            Returns::String => "string",
            Returns::Bytes => "bytes",
            Returns::Date => "date",
            Returns::Timestamp => "timestamp",
            Returns::Duration => "duration",
            Returns::Json => "json",
            Returns::Same(_) => "same",
            Returns::Element(_) => "element?",
            Returns::Strings => "list<string>",
            Returns::ListOfLambda(_) => "list",
            Returns::Of(_) => "…",
            Returns::Bound(word) => word,
        })
    }
}

/// What a null argument does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nulls {
    /// Any null argument makes the result null; otherwise it is null only if a row failed.
    Propagate,
    /// The function decides, and may give null (also for arguments without null).
    Own,
    /// The function looks at nulls itself and never gives one.
    Never,
}

/// A call and what it gives: documentation and test in one.
#[derive(Clone, Copy, Debug)]
pub struct Example {
    /// `starts_with("banana", "ba")`.
    pub call: &'static str,
    /// The result as `standpipe` prints it: `true`, `"text"`, `[1, 2]`, `null`; for `fails` it is empty.
    pub gives: &'static str,
    /// The code of the row error, if the call fails.
    pub fails: Option<Code>,
}

impl Example {
    /// A call that gives a value.
    pub const fn value(call: &'static str, gives: &'static str) -> Example {
        Example {
            call,
            gives,
            fails: None,
        }
    }

    /// A call that fails.
    pub const fn fails(call: &'static str, code: Code) -> Example {
        Example {
            call,
            gives: "",
            fails: Some(code),
        }
    }
}

/// An argument as it is known before the run.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// Its type after conversion; of a lambda, its body's.
    pub ty: &'a Type,
    pub nullable: bool,
    /// Its value, if it is a constant.
    pub value: Option<&'a Value>,
    pub regex: Option<&'a Regex>,
}

impl<'a> Given<'a> {
    /// The text, if it is a constant string.
    pub fn text(&self) -> Option<&'a str> {
        match self.value {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// The number, if it is a constant int.
    pub fn int(&self) -> Option<i64> {
        match self.value {
            Some(Value::Int(n)) => Some(*n),
            _ => None,
        }
    }
}

/// The arguments of one call over one batch.
pub struct Args<'e, 'a> {
    pub(in crate::expr) cx: &'e Cx<'e, 'a>,
    /// One per argument; constants have one row, regexes and lambdas are `Absent`.
    pub(in crate::expr) columns: &'a [Column<'a>],
    /// Bit i: argument i is a constant.
    pub(in crate::expr) constant: u64,
    pub(in crate::expr) valid: Option<Bits<'a>>,
    pub(in crate::expr) active: Option<Bits<'a>>,
    pub(in crate::expr) call: &'e Expr,
    pub(in crate::expr) given: &'e [Argument],
    pub(in crate::expr) prepared: Option<&'e (dyn Any + Send + Sync)>,
}

/// Values of a fixed-size type, constant or one per row.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a, T> {
    pub(in crate::expr) values: &'a [T],
    pub(in crate::expr) constant: bool,
}

impl<'a, T: Copy> Values<'a, T> {
    /// The value of row `row` (of a null row: anything).
    #[inline(always)]
    pub fn get(&self, row: usize) -> T {
        self.values[if self.constant { 0 } else { row }]
    }

    /// The value, if all rows share it.
    pub fn constant(&self) -> Option<T> {
        if self.constant {
            self.values.first().copied()
        } else {
            None
        }
    }

    /// One value per row, unless it is a constant.
    pub fn slice(&self) -> Option<&'a [T]> {
        (!self.constant).then_some(self.values)
    }
}

/// Texts, constant or one per row.
#[derive(Clone, Copy, Debug)]
pub struct Strings<'a> {
    text: Text<'a>,
    constant: bool,
}

impl<'a> Strings<'a> {
    /// The text of row `row` (of a null row: anything).
    #[inline(always)]
    pub fn get(&self, row: usize) -> &'a str {
        self.text.str(if self.constant { 0 } else { row })
    }

    /// The bytes of row `row`.
    #[inline(always)]
    pub fn bytes(&self, row: usize) -> &'a [u8] {
        self.text.bytes(if self.constant { 0 } else { row })
    }

    /// The text, if all rows share it.
    pub fn constant(&self) -> Option<&'a str> {
        self.constant.then(|| self.text.str(0))
    }

    /// The views of all rows, unless it is a constant.
    pub fn text(&self) -> Option<Text<'a>> {
        (!self.constant).then_some(self.text)
    }
}

/// Bools, constant or one per row.
#[derive(Clone, Copy, Debug)]
pub struct Bools<'a> {
    bits: Bits<'a>,
    constant: bool,
}

impl Bools<'_> {
    /// The value of row `row` (of a null row: anything).
    #[inline(always)]
    pub fn get(&self, row: usize) -> bool {
        self.bits.get(if self.constant { 0 } else { row })
    }
}

/// Lists, constant or one per row.
#[derive(Clone, Copy, Debug)]
pub struct Lists<'a> {
    pub(in crate::expr) list: ListData<'a>,
    pub(in crate::expr) constant: bool,
}

impl<'a> Lists<'a> {
    /// Where the elements of row `row` are in [`Lists::elements`] (of a null row: anywhere).
    #[inline]
    pub fn range(&self, row: usize) -> Range<usize> {
        self.list.range(if self.constant { 0 } else { row })
    }

    /// The elements of all rows.
    pub fn elements(&self) -> Column<'a> {
        *self.list.child
    }
}

const FALSE: &[u64] = &[0];
const NO_VIEW: &[View] = &[View::EMPTY];

macro_rules! getter {
    ($(#[$doc:meta])* $name:ident, $ty:ty, $($variant:ident)|+, $zero:expr) => {
        $(#[$doc])*
        pub fn $name(&self, index: usize) -> Values<'a, $ty> {
            match self.columns[index].data() {
                $(Data::$variant(values) => Values { values, constant: self.is_constant(index) },)+
                _ => Values { values: &[$zero], constant: true },
            }
        }
    };
}

macro_rules! maker {
    ($map:ident, $try:ident, $ty:ty, $data:ident, $zero:expr) => {
        /// A column of what `f` gives for each row; null where an argument is.
        pub fn $map(&self, f: impl FnMut(usize) -> $ty) -> Result<Column<'a>> {
            let values = self.arena().collect(self.rows(), f)?;
            Ok(Column::new(Data::$data(values), self.valid, self.rows()))
        }

        /// Like the other, but `f` sees only active rows without a null argument, and may give null (see [`Args::fault`]).
        pub fn $try(&self, mut f: impl FnMut(usize) -> Result<Option<$ty>>) -> Result<Column<'a>> {
            let mut outcome = Outcome::new(self)?;
            let values = self.arena().collect(self.rows(), |row| {
                outcome.take(self, row, &mut f).unwrap_or($zero)
            })?;
            let valid = outcome.finish(self)?;
            Ok(Column::new(Data::$data(values), valid, self.rows()))
        }
    };
}

/// What a `try_*` maker keeps: the rows that became null, and an error that ends everything.
struct Outcome<'a> {
    marks: &'a mut [u64],
    nulls: bool,
    error: Option<standpipe_sdk::Error>,
}

impl<'a> Outcome<'a> {
    fn new(args: &Args<'_, 'a>) -> Result<Self> {
        let words = args.rows().div_ceil(64);
        let marks = args
            .arena()
            .collect(words, |w| args.valid.map_or(u64::MAX, |v| v.word(w)))?;
        Ok(Outcome {
            marks,
            nulls: false,
            error: None,
        })
    }

    #[inline]
    fn take<T>(
        &mut self,
        args: &Args<'_, 'a>,
        row: usize,
        f: &mut impl FnMut(usize) -> Result<Option<T>>,
    ) -> Option<T> {
        if self.error.is_some() || !args.is_active(row) {
            return None;
        }
        match f(row) {
            Ok(Some(value)) => return Some(value),
            Ok(None) => {
                self.nulls = true;
                self.marks[row / 64] &= !(1 << (row % 64));
            }
            Err(error) => self.error = Some(error),
        }
        None
    }

    fn finish(self, args: &Args<'_, 'a>) -> Result<Option<Bits<'a>>> {
        match self.error {
            Some(error) => Err(error),
            None if self.nulls => Ok(Some(Bits::new(self.marks, args.rows()))),
            None => Ok(args.valid),
        }
    }
}

impl<'e, 'a> Args<'e, 'a> {
    /// How many rows to give.
    pub fn rows(&self) -> usize {
        self.cx.rows()
    }

    pub fn arena(&self) -> &'a Arena {
        self.cx.arena()
    }

    /// How many arguments there are, defaults included.
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// Whether there is no argument at all.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Whether argument `index` is a constant.
    pub fn is_constant(&self, index: usize) -> bool {
        self.constant >> index & 1 == 1
    }

    /// Rows in which no argument is null; `None` = all. Only with [`Nulls::Propagate`], else always `None`.
    pub fn valid(&self) -> Option<Bits<'a>> {
        self.valid
    }

    /// Whether argument `index` is null in row `row`.
    pub fn is_null(&self, index: usize, row: usize) -> bool {
        let row = if self.is_constant(index) { 0 } else { row };
        !self.columns[index].is_valid(row)
    }

    /// Whether row `row` is asked for and has no null argument: only then may a fallible function look at it.
    #[inline]
    pub fn is_active(&self, row: usize) -> bool {
        self.active.is_none_or(|a| a.get(row)) && self.valid.is_none_or(|v| v.get(row))
    }

    /// Reports row `row` as bad and gives null for it: `return args.fault(row, code, format_args!("…"))`.
    #[cold]
    pub fn fault<T>(&self, row: usize, code: Code, message: fmt::Arguments<'_>) -> Result<Option<T>> {
        self.cx.fault(row, code, self.call, None, message)?;
        Ok(None)
    }

    /// What `prepare` made.
    pub fn prepared<T: Any>(&self) -> Option<&'e T> {
        self.prepared?.downcast_ref::<T>()
    }

    /// The run's fixed values.
    pub fn fixed(&self) -> &'e Fixed {
        self.cx.fixed()
    }

    /// Where row `row` came from.
    pub fn place(&self, row: usize) -> Place {
        self.cx.place(row)
    }

    /// Argument `index` as it is: one row if it is a constant.
    pub fn raw(&self, index: usize) -> Column<'a> {
        self.columns[index]
    }

    /// Argument `index` with `rows()` rows.
    pub fn column(&self, index: usize) -> Result<Column<'a>> {
        self.cx.spread(self.columns[index], self.is_constant(index))
    }

    /// The type of argument `index`, after conversion.
    pub fn ty(&self, index: usize) -> &'e Type {
        match &self.given[index] {
            Argument::Value(expr) => &expr.ty,
            Argument::Lambda(lambda) => &lambda.body.ty,
            Argument::Regex(_) => &Type::Null,
        }
    }

    /// The type of the result.
    pub fn returns(&self) -> &'e Type {
        &self.call.ty
    }

    /// The scale of decimal argument `index` (0 for other types).
    pub fn scale(&self, index: usize) -> u8 {
        match self.ty(index) {
            Type::Decimal { scale, .. } => *scale,
            _ => 0,
        }
    }

    /// The compiled regex argument `index`.
    pub fn regex(&self, index: usize) -> Option<&'e Regex> {
        match &self.given[index] {
            Argument::Regex(regex) => Some(regex),
            _ => None,
        }
    }

    /// The lambda argument `index`.
    pub fn lambda(&self, index: usize) -> Option<&'e Lambda> {
        match &self.given[index] {
            Argument::Lambda(lambda) => Some(lambda),
            _ => None,
        }
    }

    /// Text arguments: string, bytes and json alike.
    pub fn strings(&self, index: usize) -> Strings<'a> {
        match self.columns[index].data() {
            Data::String(text) | Data::Json(text) | Data::Bytes(text) => Strings {
                text,
                constant: self.is_constant(index),
            },
            _ => Strings {
                text: Text::inline(NO_VIEW),
                constant: true,
            },
        }
    }

    pub fn bools(&self, index: usize) -> Bools<'a> {
        match self.columns[index].data() {
            Data::Bool(bits) => Bools {
                bits,
                constant: self.is_constant(index),
            },
            _ => Bools {
                bits: Bits::new(FALSE, 1),
                constant: true,
            },
        }
    }

    /// List arguments; `None` if every row is null.
    pub fn lists(&self, index: usize) -> Option<Lists<'a>> {
        match self.columns[index].data() {
            Data::List(list) => Some(Lists {
                list,
                constant: self.is_constant(index),
            }),
            _ => None,
        }
    }

    getter!(
        /// Int arguments (also timestamps and durations, in microseconds).
        ints, i64, Int | Timestamp | Duration, 0
    );
    getter!(floats, f64, Float, 0.0);
    getter!(
        /// Unscaled decimals; see [`Args::scale`].
        decimals, i128, Decimal, 0
    );
    getter!(
        /// Days since 1970-01-01.
        dates, i32, Date, 0
    );

    maker!(map_ints, try_ints, i64, Int, 0);
    maker!(map_floats, try_floats, f64, Float, 0.0);
    maker!(map_decimals, try_decimals, i128, Decimal, 0);
    maker!(map_dates, try_dates, i32, Date, 0);
    maker!(map_timestamps, try_timestamps, i64, Timestamp, 0);
    maker!(map_durations, try_durations, i64, Duration, 0);

    /// A column of what `f` gives for each row; null where an argument is.
    pub fn map_bools(&self, f: impl FnMut(usize) -> bool) -> Result<Column<'a>> {
        Ok(Column::bool(Bits::collect(self.arena(), self.rows(), f)?, self.valid))
    }

    /// Like [`Args::map_bools`], but `f` sees only active rows without a null argument, and may give null.
    pub fn try_bools(&self, mut f: impl FnMut(usize) -> Result<Option<bool>>) -> Result<Column<'a>> {
        let mut outcome = Outcome::new(self)?;
        let take = |row| outcome.take(self, row, &mut f).unwrap_or(false);
        let values = Bits::collect(self.arena(), self.rows(), take)?;
        Ok(Column::bool(values, outcome.finish(self)?))
    }

    /// A string column: `f` pushes exactly one row into the builder for each row it is called for; null rows are skipped.
    pub fn map_strings(&self, mut f: impl FnMut(usize, &mut TextBuilder<'a>) -> Result<()>) -> Result<Column<'a>> {
        let mut out = TextBuilder::new(self.arena(), self.rows(), self.rows() * 16)?;
        for row in 0..self.rows() {
            if self.valid.is_none_or(|v| v.get(row)) {
                f(row, &mut out)?;
            }
            if out.rows() <= row {
                out.push_empty();
            }
        }
        Ok(Column::string(out.finish()?, self.valid))
    }

    /// Like [`Args::map_strings`], for active rows only; a row for which `f` answers `None` (and pushes nothing) is null.
    pub fn try_strings(
        &self,
        mut f: impl FnMut(usize, &mut TextBuilder<'a>) -> Result<Option<()>>,
    ) -> Result<Column<'a>> {
        let mut out = TextBuilder::new(self.arena(), self.rows(), self.rows() * 16)?;
        let mut outcome = Outcome::new(self)?;
        for row in 0..self.rows() {
            outcome.take(self, row, &mut |row| f(row, &mut out));
            if out.rows() <= row {
                out.push_empty();
            }
        }
        let valid = outcome.finish(self)?;
        Ok(Column::string(out.finish()?, valid))
    }

    /// Parts of text argument `index`, sharing its memory: `f` gives the byte range to keep, moved outwards to character
    /// boundaries and cut at the end of the text.
    pub fn map_parts(&self, index: usize, mut f: impl FnMut(usize, &'a str) -> Range<usize>) -> Result<Column<'a>> {
        let strings = self.strings(index);
        let Some(text) = strings.text() else {
            let one = strings.get(0);
            return self.map_strings(|row, out| out.push(one.get(f(row, one)).unwrap_or_default()));
        };
        Ok(Column::string(text.cut(self.arena(), f)?, self.valid))
    }

    /// String argument `index` through `short` where it is at most 12 ASCII bytes, else through `long`.
    ///
    /// `short` is given 8 bytes at once, must treat each by itself and give ASCII; columns of short texts take no other way.
    pub fn map_ascii(
        &self,
        index: usize,
        short: impl Fn(u64) -> u64 + Copy,
        mut long: impl FnMut(&'a str, &mut TextBuilder<'a>) -> Result<()>,
    ) -> Result<Column<'a>> {
        let strings = self.strings(index);
        if let Some(text) = strings.text()
            && let Some(text) = text.map_short_ascii(self.arena(), short)?
        {
            return Ok(Column::string(text, self.valid));
        }
        self.map_strings(|row, out| long(strings.get(row), out))
    }
}
