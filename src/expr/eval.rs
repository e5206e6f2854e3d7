//! Evaluation of expressions over batches.
//!
//! How it works. A node gives a [`Val`]: a column, or one row that stands for all. Fallible nodes get `active`, the rows that
//! are asked for; where they fail they tell the [`Sink`] and leave null. `if`, `and`, `??`, `match` narrow `active` for
//! their fallible parts; infallible parts ignore it and run over everything, which is faster than looking.
//!
//! What must move together: a node that can fail is marked `fallible` in `bind`, and only such a node may call
//! [`Cx::fault`]. A fallible node never runs in one-row mode, as each active row must be reported by itself.

use crate::expr::choose::merge;
use crate::expr::function::{Args, Values};
use crate::expr::{Argument, Expr, Fixed, FunctionSpec, Kind, Lambda, Nulls, kernel, values};
use standpipe_sdk::bits::both;
use standpipe_sdk::build::format_in;
use standpipe_sdk::{Arena, Batch, Bits, Code, Column, Columns, Data, Fault, Faults, ListData, Place, Result, Verdict};
use std::any::Any;
use std::cell::Cell;
use std::fmt;

/// Evaluates expressions.
#[derive(Clone, Debug, Default)]
pub struct Evaluator {
    fixed: Fixed,
}

impl Evaluator {
    /// For one run.
    pub fn new(fixed: Fixed) -> Self {
        Evaluator { fixed }
    }

    /// The values of `expr` for every row of `batch`. Rows that fail go into `faults` and are null; where `active` is 0 no
    /// row fails and the value is unspecified.
    pub fn eval<'a>(
        &self,
        expr: &Expr,
        batch: &Batch<'a>,
        arena: &'a Arena,
        faults: &Faults<'a>,
        active: Option<Bits<'a>>,
    ) -> Result<Column<'a>> {
        let sink = Sink::Report {
            faults,
            stop: Cell::new(usize::MAX),
        };
        self.run(expr, batch, arena, &sink, active)
    }

    /// Like [`Evaluator::eval`], but rows that fail are only null. Also gives how many failed.
    pub fn eval_or_null<'a>(&self, expr: &Expr, batch: &Batch<'a>, arena: &'a Arena) -> Result<(Column<'a>, usize)> {
        let marks = Marks::new(arena, batch.rows())?;
        let sink = Sink::Mark(marks);
        let column = self.run(expr, batch, arena, &sink, None)?;
        let failed = marks.words.iter().map(|w| w.get().count_ones() as usize).sum();
        Ok((column, failed))
    }

    fn run<'a>(
        &self,
        expr: &Expr,
        batch: &Batch<'a>,
        arena: &'a Arena,
        sink: &Sink<'_, 'a>,
        active: Option<Bits<'a>>,
    ) -> Result<Column<'a>> {
        let cx = Cx {
            batch: *batch,
            arena,
            fixed: &self.fixed,
            sink,
            params: &[],
        };
        let value = cx.eval(expr, active)?;
        cx.spread(value.column, value.constant)
    }
}

/// A column, or one row that stands for all.
#[derive(Clone, Copy, Debug)]
pub(in crate::expr) struct Val<'a> {
    pub(in crate::expr) column: Column<'a>,
    pub(in crate::expr) constant: bool,
}

macro_rules! getter {
    ($name:ident, $ty:ty, $($variant:ident)|+, $zero:expr) => {
        pub(in crate::expr) fn $name(&self) -> Values<'a, $ty> {
            match self.column.data() {
                $(Data::$variant(values) => Values { values, constant: self.constant },)+
                _ => Values { values: &[$zero], constant: true },
            }
        }
    };
}

impl<'a> Val<'a> {
    pub(in crate::expr) fn null() -> Self {
        Val {
            column: Column::nulls(1),
            constant: true,
        }
    }

    /// One value per row of `column`, which has as many rows as the batch.
    pub(in crate::expr) fn rows(column: Column<'a>) -> Self {
        match column.data() {
            Data::Null | Data::Absent | Data::Verbatim(_) | Data::Cells(_) => {
                debug_assert!(matches!(column.data(), Data::Null), "a column that is read has values");
                Val::null()
            }
            _ => Val {
                column,
                constant: false,
            },
        }
    }

    /// One row for all if `constant`.
    pub(in crate::expr) fn new(column: Column<'a>, constant: bool) -> Self {
        if !constant {
            return Val::rows(column);
        }
        if column.is_empty() || !column.is_valid(0) {
            return Val::null();
        }
        Val {
            column: column.with_valid(None),
            constant: true,
        }
    }

    pub(in crate::expr) fn is_null(&self) -> bool {
        matches!(self.column.data(), Data::Null)
    }

    pub(in crate::expr) fn valid(&self) -> Option<Bits<'a>> {
        if self.constant { None } else { self.column.valid() }
    }

    /// The row of `column` that row `row` of the batch has.
    #[inline(always)]
    pub(in crate::expr) fn at(&self, row: usize) -> usize {
        if self.constant { 0 } else { row }
    }

    getter!(ints, i64, Int | Timestamp | Duration, 0);
    getter!(floats, f64, Float, 0.0);
    getter!(decimals, i128, Decimal, 0);
    getter!(dates, i32, Date, 0);

    /// The texts and whether there is only one.
    pub(in crate::expr) fn text(&self) -> Option<standpipe_sdk::Text<'a>> {
        match self.column.data() {
            Data::String(text) | Data::Bytes(text) | Data::Json(text) => Some(text),
            _ => None,
        }
    }
}

/// Rows that failed where nobody wants to know why.
#[derive(Clone, Copy)]
pub(in crate::expr) struct Marks<'a> {
    words: &'a [Cell<u64>],
}

impl<'a> Marks<'a> {
    pub(in crate::expr) fn new(arena: &'a Arena, rows: usize) -> Result<Self> {
        let words = arena.fill(rows.div_ceil(64), 0u64)?;
        Ok(Marks {
            words: Cell::from_mut(words).as_slice_of_cells(),
        })
    }

    fn mark(&self, row: usize) {
        if let Some(word) = self.words.get(row / 64) {
            word.set(word.get() | 1 << (row % 64));
        }
    }

    fn any(&self) -> bool {
        self.words.iter().any(|w| w.get() != 0)
    }

    fn bits(&self, arena: &'a Arena, rows: usize) -> Result<Bits<'a>> {
        Bits::collect_words(arena, rows, |w| self.words[w].get())
    }
}

/// Where failing rows go.
pub(in crate::expr) enum Sink<'e, 'a> {
    /// To the script's policy; once it said stop at row r, nothing behind r matters.
    Report { faults: &'e Faults<'a>, stop: Cell<usize> },
    /// Only marked.
    Mark(Marks<'a>),
    /// To the rows that these belong to: elements of lists.
    Mapped { outer: &'e Cx<'e, 'a>, rows: &'a [u32] },
}

/// What the evaluation of one expression over one batch has at hand.
pub(in crate::expr) struct Cx<'e, 'a> {
    pub(in crate::expr) batch: Batch<'a>,
    arena: &'a Arena,
    fixed: &'e Fixed,
    sink: &'e Sink<'e, 'a>,
    params: &'a [Column<'a>],
}

impl<'e, 'a> Cx<'e, 'a> {
    pub(in crate::expr) fn rows(&self) -> usize {
        self.batch.rows()
    }

    pub(in crate::expr) fn arena(&self) -> &'a Arena {
        self.arena
    }

    pub(in crate::expr) fn fixed(&self) -> &'e Fixed {
        self.fixed
    }

    pub(in crate::expr) fn place(&self, row: usize) -> Place {
        match self.sink {
            Sink::Mapped { outer, rows } => outer.place(rows[row] as usize),
            _ => self.batch.place(row),
        }
    }

    /// A column with one row per row of the batch.
    pub(in crate::expr) fn spread(&self, column: Column<'a>, constant: bool) -> Result<Column<'a>> {
        if !constant {
            return Ok(column);
        }
        let rows = self.rows();
        Ok(match column.data() {
            Data::Null => Column::nulls(rows),
            Data::Int(v) => Column::int(self.arena.fill(rows, v[0])?, None),
            Data::Float(v) => Column::float(self.arena.fill(rows, v[0])?, None),
            _ => column.gather(self.arena.fill(rows, 0u32)?, self.arena)?,
        })
    }

    /// Whether nobody wants to know why row `row` failed; then that is all there is to say.
    pub(in crate::expr) fn quiet(&self, row: usize) -> bool {
        match self.sink {
            Sink::Mark(marks) => {
                marks.mark(row);
                true
            }
            Sink::Mapped { outer, rows } => outer.quiet(rows[row] as usize),
            Sink::Report { stop, .. } => row >= stop.get(),
        }
    }

    /// Says that row `row` failed in `expr`.
    #[cold]
    pub(in crate::expr) fn fault(
        &self,
        row: usize,
        code: Code,
        expr: &Expr,
        help: Option<fmt::Arguments<'_>>,
        message: fmt::Arguments<'_>,
    ) -> Result<()> {
        match self.sink {
            Sink::Mark(marks) => marks.mark(row),
            Sink::Mapped { outer, rows } => return outer.fault(rows[row] as usize, code, expr, help, message),
            Sink::Report { stop, .. } if row >= stop.get() => {}
            Sink::Report { faults, stop } => {
                let column = match expr.only_column() {
                    Some(name) => Some(self.arena.copy_str(name)?),
                    None => None,
                };
                let help = match help {
                    Some(help) => Some(format_in(self.arena, help)?),
                    None => None,
                };
                let verdict = faults.push(Fault {
                    row: row as u32,
                    code,
                    span: Some(expr.span),
                    column,
                    message: format_in(self.arena, message)?,
                    help,
                    byte: None,
                    record: false,
                })?;
                if verdict == Verdict::Stop {
                    stop.set(row);
                }
            }
        }
        Ok(())
    }

    /// What `f` gives for each row that is active and valid; `None` makes the row null.
    pub(in crate::expr) fn attempt<T: Copy>(
        &self,
        valid: Option<Bits<'a>>,
        active: Option<Bits<'a>>,
        zero: T,
        mut f: impl FnMut(usize) -> Result<Option<T>>,
    ) -> Result<(&'a [T], Option<Bits<'a>>)> {
        let rows = self.rows();
        let marks = Marks::new(self.arena, rows)?;
        let mut error = None;
        let values = self.arena.collect(rows, |row| {
            let live = active.is_none_or(|a| a.get(row)) && valid.is_none_or(|v| v.get(row));
            if !live || error.is_some() {
                return zero;
            }
            match f(row) {
                Ok(Some(value)) => value,
                Ok(None) => {
                    marks.mark(row);
                    zero
                }
                Err(e) => {
                    error = Some(e);
                    zero
                }
            }
        })?;
        if let Some(error) = error {
            return Err(error);
        }
        if !marks.any() {
            return Ok((values, valid));
        }
        let valid = Bits::collect_words(self.arena, rows, |w| {
            valid.map_or(u64::MAX, |v| v.word(w)) & !marks.words[w].get()
        })?;
        Ok((values, Some(valid)))
    }

    /// The rows of `active` that are also in `rows`, for a part that can fail; nothing to narrow for one that cannot.
    fn narrow(&self, part: &Expr, active: Option<Bits<'a>>, rows: Bits<'a>) -> Result<Option<Bits<'a>>> {
        if !part.fallible {
            return Ok(None);
        }
        both(active, Some(rows), self.arena)
    }

    /// The values of `e`.
    pub(in crate::expr) fn eval(&self, e: &Expr, active: Option<Bits<'a>>) -> Result<Val<'a>> {
        let active = if e.fallible { active } else { None };
        match &e.kind {
            Kind::Column { index, .. } => Ok(Val::rows(self.batch.column(*index))),
            Kind::Param { slot, .. } => Ok(self.params.get(*slot).map_or(Val::null(), |c| Val::rows(*c))),
            Kind::Constant(value) => Ok(Val::new(values::column(self.arena, &[value], &e.ty)?, true)),
            Kind::FloatText { value, .. } => Ok(Val::new(Column::float(self.arena.fill(1, *value)?, None), true)),
            Kind::Arith { op, l, r } => {
                let (left, right) = (self.eval(l, active)?, self.eval(r, active)?);
                kernel::arith::arith(self, e, *op, (&**l, left), (&**r, right), active)
            }
            Kind::Neg(part) => {
                let value = self.eval(part, active)?;
                kernel::arith::neg(self, e, value, active)
            }
            Kind::Compare { op, l, r } => {
                let (left, right) = (self.eval(l, active)?, self.eval(r, active)?);
                kernel::compare::compare(self, *op, (&l.ty, left), (&r.ty, right))
            }
            Kind::Is { l, r, negated } => {
                let (left, right) = (self.eval(l, active)?, self.eval(r, active)?);
                kernel::compare::is(self, (&l.ty, left), (&r.ty, right), *negated)
            }
            Kind::IsNull { e: part, negated } => {
                let value = self.eval(part, active)?;
                kernel::logic::is_null(self, value, *negated)
            }
            Kind::And(l, r) => self.logical(l, r, active, true),
            Kind::Or(l, r) => self.logical(l, r, active, false),
            Kind::Not(part) => {
                let value = self.eval(part, active)?;
                kernel::logic::not(self, value)
            }
            Kind::If(c, a, b) => {
                let condition = self.eval(c, active)?;
                self.branch(condition, a, b, active)
            }
            Kind::Coalesce(l, r) => {
                let left = self.eval(l, active)?;
                if left.is_null() {
                    return self.eval(r, active);
                }
                let Some(valid) = left.valid() else { return Ok(left) };
                let right = self.eval(r, self.narrow(r, active, valid.not(self.arena)?)?)?;
                self.pick(valid, left, right)
            }
            Kind::Catch(l, r) => self.catch(l, r, active),
            Kind::Match {
                subject,
                arms,
                otherwise,
            } => {
                let value = self.eval(subject, active)?;
                kernel::logic::match_(self, (&**subject, value), arms, otherwise, active)
            }
            Kind::InSet {
                e: part, set, negated, ..
            } => {
                let value = self.eval(part, active)?;
                kernel::member::in_set(self, value, set, *negated)
            }
            Kind::InAny {
                e: part,
                items,
                negated,
            } => {
                let value = self.eval(part, active)?;
                kernel::member::in_any(self, (&part.ty, value), items, *negated, active)
            }
            Kind::InValues { e: part, list, negated } => {
                let (value, list) = (self.eval(part, active)?, self.eval(list, active)?);
                kernel::member::in_values(self, value, list, *negated)
            }
            Kind::InRange {
                e: part,
                low,
                high,
                negated,
            } => {
                let value = self.eval(part, active)?;
                let (low_value, high_value) = (self.eval(low, active)?, self.eval(high, active)?);
                kernel::member::in_range(
                    self,
                    (&part.ty, value),
                    (&low.ty, low_value),
                    (&high.ty, high_value),
                    *negated,
                )
            }
            Kind::Regex { e: part, regex, .. } => {
                let value = self.eval(part, active)?;
                kernel::member::regex(self, value, regex)
            }
            Kind::Field { e: part, index, .. } => {
                let value = self.eval(part, active)?;
                kernel::nested::field(self, value, *index)
            }
            Kind::JsonField {
                e: part,
                name,
                optional,
            } => {
                let value = self.eval(part, active)?;
                kernel::nested::json_field(self, e, value, name, *optional, active)
            }
            Kind::Index {
                e: part,
                index,
                optional,
            } => {
                let (value, at) = (self.eval(part, active)?, self.eval(index, active)?);
                kernel::nested::index(self, e, value, at, *optional, active)
            }
            Kind::List(items) => {
                let mut columns = Columns::new(self.arena, items.len())?;
                for item in items {
                    let value = self.eval(item, active)?;
                    columns.push(self.spread(value.column, value.constant)?);
                }
                kernel::nested::list(self, columns.finish())
            }
            Kind::Record(fields) => {
                let mut columns = Columns::new(self.arena, fields.len())?;
                for (_, item) in fields {
                    let value = self.eval(item, active)?;
                    columns.push(self.spread(value.column, value.constant)?);
                }
                let data = Data::Record(standpipe_sdk::RecordData::new(columns.finish()));
                Ok(Val::rows(Column::new(data, None, self.rows())))
            }
            Kind::Format(pieces) => kernel::text::format(self, pieces, active),
            Kind::Cast { e: part, .. } => {
                let value = self.eval(part, active)?;
                kernel::cast::cast(self, e, (&part.ty, value), &e.ty, active)
            }
            Kind::Call { spec, args, prepared } => self.call(e, spec, args, prepared.as_deref(), active),
        }
    }

    /// Row by row out of `a` where `mask` is 1, else out of `b`.
    pub(in crate::expr) fn pick(&self, mask: Bits<'a>, a: Val<'a>, b: Val<'a>) -> Result<Val<'a>> {
        if a.is_null() && b.is_null() {
            return Ok(Val::null());
        }
        let from = |row: usize| {
            if mask.get(row) {
                (false, a.at(row))
            } else {
                (true, b.at(row))
            }
        };
        Ok(Val::rows(merge(self.arena, a.column, b.column, self.rows(), from)?))
    }

    /// `if condition then a else b`: each side only for its rows, if it can fail.
    fn branch(&self, condition: Val<'a>, a: &Expr, b: &Expr, active: Option<Bits<'a>>) -> Result<Val<'a>> {
        let Some(mask) = kernel::logic::trues(self, condition)? else {
            return self.eval(b, active);
        };
        let count = mask.count();
        if count == self.rows() {
            return self.eval(a, active);
        }
        if count == 0 {
            return self.eval(b, active);
        }
        let left = self.eval(a, self.narrow(a, active, mask)?)?;
        let others = if b.fallible { mask.not(self.arena)? } else { mask };
        let right = self.eval(b, self.narrow(b, active, others)?)?;
        self.pick(mask, left, right)
    }

    fn logical(&self, l: &Expr, r: &Expr, active: Option<Bits<'a>>, and: bool) -> Result<Val<'a>> {
        let left = self.eval(l, active)?;
        let needed = if r.fallible {
            let open = kernel::logic::undecided(self, left, and)?;
            self.narrow(r, active, open)?
        } else {
            None
        };
        let right = self.eval(r, needed)?;
        kernel::logic::kleene(self, left, right, and)
    }

    fn catch(&self, l: &Expr, r: &Expr, active: Option<Bits<'a>>) -> Result<Val<'a>> {
        let marks = Marks::new(self.arena, self.rows())?;
        let quiet = Cx {
            sink: &Sink::Mark(marks),
            ..*self
        };
        let left = quiet.eval(l, active)?;
        if !marks.any() {
            return Ok(left);
        }
        let failed = marks.bits(self.arena, self.rows())?;
        let right = self.eval(r, self.narrow(r, active, failed)?)?;
        self.pick(failed, right, left)
    }

    fn call(
        &self,
        e: &Expr,
        spec: &'static FunctionSpec,
        given: &[Argument],
        prepared: Option<&(dyn Any + Send + Sync)>,
        active: Option<Bits<'a>>,
    ) -> Result<Val<'a>> {
        let rows = self.rows();
        let mut columns = Columns::new(self.arena, given.len())?;
        let mut constant = 0;
        let mut valid = None;
        let mut null = false;
        for (i, arg) in given.iter().enumerate() {
            let Argument::Value(part) = arg else {
                columns.push(Column::absent(0));
                continue;
            };
            let value = self.eval(part, active)?;
            if spec.nulls == Nulls::Propagate {
                // The other arguments are evaluated all the same: whether a row fails must not depend on how a column of
                // nulls is stored.
                null |= value.is_null();
                valid = both(valid, value.valid(), self.arena)?;
            }
            constant |= u64::from(value.constant) << i;
            columns.push(value.column);
        }
        if null {
            return Ok(Val::null());
        }
        let args = Args {
            cx: self,
            columns: columns.finish(),
            constant,
            valid,
            active,
            call: e,
            given,
            prepared,
        };
        let column = (spec.eval)(&args)?;
        debug_assert_eq!(column.len(), rows, "{} gives a row for each", spec.name);
        // Whatever the function wrote there: a null argument makes the row null.
        let column = match valid {
            Some(_) if !matches!(column.data(), Data::Null) => {
                column.with_valid(both(valid, column.valid(), self.arena)?)
            }
            _ => column,
        };
        Ok(Val::rows(column))
    }

    /// The body of a lambda for every element of the lists of the rows that are live.
    pub(in crate::expr) fn each(
        &self,
        lambda: &Lambda,
        list: ListData<'a>,
        constant: bool,
        live: impl Fn(usize) -> bool,
    ) -> Result<Each<'a>> {
        let rows = self.rows();
        let range = |row: usize| {
            if live(row) {
                list.range(if constant { 0 } else { row })
            } else {
                0..0
            }
        };
        let mut total = 0;
        let offsets = self.arena.collect(rows + 1, |row| {
            let start = total;
            if row < rows {
                total += range(row).len();
            }
            start as i32
        })?;
        let mut pairs = (0..rows).flat_map(|row| range(row).map(move |at| (row as u32, at as u32)));
        let pairs: &[(u32, u32)] = self.arena.collect(total, |_| pairs.next().unwrap_or_default())?;
        let owners: &[u32] = self.arena.map(pairs, |(row, _)| row)?;
        let picks: &[u32] = self.arena.map(pairs, |(_, at)| at)?;
        let elements = list.child.gather(picks, self.arena)?;
        let width = self.batch.columns().len();
        let wanted = self.arena.fill(width, false)?;
        lambda.body.columns(&mut |index| {
            if let Some(slot) = wanted.get_mut(index) {
                *slot = true;
            }
        });
        let mut columns = Columns::new(self.arena, width)?;
        for (column, wanted) in self.batch.columns().iter().zip(&*wanted) {
            columns.push(if *wanted {
                column.gather(owners, self.arena)?
            } else {
                Column::absent(total)
            });
        }
        let mut params = Columns::new(self.arena, self.params.len() + 1)?;
        for param in self.params {
            params.push(param.gather(owners, self.arena)?);
        }
        params.push(elements);
        let inner = Cx {
            batch: Batch::new(columns.finish(), None, total),
            arena: self.arena,
            fixed: self.fixed,
            sink: &Sink::Mapped {
                outer: self,
                rows: owners,
            },
            params: params.finish(),
        };
        let value = inner.eval(&lambda.body, None)?;
        Ok(Each {
            offsets,
            elements,
            values: inner.spread(value.column, value.constant)?,
        })
    }

    /// The same with the rows of `child`, whose row `i` belongs to row `owners[i]` of ours: for casts of elements.
    pub(in crate::expr) fn within<T>(&self, owners: &'a [u32], f: impl FnOnce(&Cx<'_, 'a>) -> Result<T>) -> Result<T> {
        let inner = Cx {
            batch: Batch::new(&[], None, owners.len()),
            arena: self.arena,
            fixed: self.fixed,
            sink: &Sink::Mapped {
                outer: self,
                rows: owners,
            },
            params: &[],
        };
        f(&inner)
    }
}

/// A lambda's values over the elements of lists: row `r` has `offsets[r]..offsets[r + 1]` of `elements` and `values`.
pub(in crate::expr) struct Each<'a> {
    pub(in crate::expr) offsets: &'a [i32],
    pub(in crate::expr) elements: Column<'a>,
    pub(in crate::expr) values: Column<'a>,
}
