//! `+ - * / // % **` and unary `-`.

use super::zip;
use crate::expr::eval::{Cx, Val};
use crate::expr::function::Values;
use crate::expr::scalar::civil::{self, DAY};
use crate::expr::{Arith, DIVISION, EXPONENT, Expr, OVERFLOW, TIME_RANGE, decimal};
use standpipe_sdk::bits::both;
use standpipe_sdk::{Arena, Bits, Column, Data, Result, Type};

/// Why a row has no result.
#[derive(Clone, Copy)]
enum Bad {
    Overflow,
    Zero,
    Exponent,
    Time,
}

/// `l op r`; the node's type says what comes out.
pub(in crate::expr) fn arith<'a>(
    cx: &Cx<'_, 'a>,
    e: &Expr,
    op: Arith,
    (lt, l): (&Expr, Val<'a>),
    (rt, r): (&Expr, Val<'a>),
    active: Option<Bits<'a>>,
) -> Result<Val<'a>> {
    if l.is_null() || r.is_null() {
        return Ok(Val::null());
    }
    let task = Task {
        cx,
        e,
        constant: l.constant && r.constant && !e.fallible,
        valid: both(l.valid(), r.valid(), cx.arena())?,
        active,
    };
    use Type::{Date, Decimal, Duration, Float, Int, Timestamp};
    match (&lt.ty, &rt.ty) {
        (Int, Int) if op != Arith::Div => ints(&task, op, l.ints(), r.ints()),
        (Int | Float, Int | Float) => floats(&task, op, Num::of(&lt.ty, l), Num::of(&rt.ty, r)),
        (Int | Decimal { .. }, Int | Decimal { .. }) => decimals(&task, op, (lt, l), (rt, r)),
        (Date, Duration) if e.ty == Date => {
            let sign = if op == Arith::Sub { -1 } else { 1 };
            let (days, spans) = (l.dates(), r.ints());
            task.fallible(Data::Date, 0, |row| {
                let day = i64::from(days.get(row)) + sign * (spans.get(row) / DAY);
                if (civil::DAYS.0..=civil::DAYS.1).contains(&day) {
                    Ok(day as i32)
                } else {
                    Err(Bad::Time)
                }
            })
        }
        (Date, Duration) => {
            let (days, spans) = (l.dates(), r.ints());
            task.fallible(Data::Timestamp, 0, |row| {
                let start = i64::from(days.get(row)) * DAY;
                time(if op == Arith::Sub {
                    start.checked_sub(spans.get(row))
                } else {
                    start.checked_add(spans.get(row))
                })
            })
        }
        (Date, Date) => {
            let values = zip(cx.arena(), task.rows(), l.dates(), r.dates(), |a, b| {
                (i64::from(a) - i64::from(b)) * DAY
            })?;
            task.done(Data::Duration(values))
        }
        (Timestamp, Duration) | (Duration, Timestamp) => {
            let (a, b) = (l.ints(), r.ints());
            task.fallible(Data::Timestamp, 0, |row| {
                let (x, y) = (a.get(row), b.get(row));
                time(if op == Arith::Sub {
                    x.checked_sub(y)
                } else {
                    x.checked_add(y)
                })
            })
        }
        (Timestamp, Timestamp) => {
            let (a, b) = (l.ints(), r.ints());
            task.fallible(Data::Duration, 0, |row| {
                a.get(row).checked_sub(b.get(row)).ok_or(Bad::Overflow)
            })
        }
        (Duration, Duration) => durations(&task, op, l.ints(), r.ints()),
        (Duration, number) => scaled(&task, op, l.ints(), Num::of(number, r)),
        (number, _) => scaled(&task, op, r.ints(), Num::of(number, l)),
    }
}

/// `-value`.
pub(in crate::expr) fn neg<'a>(cx: &Cx<'_, 'a>, e: &Expr, value: Val<'a>, active: Option<Bits<'a>>) -> Result<Val<'a>> {
    if value.is_null() {
        return Ok(Val::null());
    }
    let task = Task {
        cx,
        e,
        constant: value.constant && !e.fallible,
        valid: value.valid(),
        active,
    };
    match value.column.data() {
        Data::Float(values) => task
            .done(Data::Float(cx.arena().map(&values[..task.rows_of(value)], |x| -x)?))
            .map(|v| keep(v, value)),
        Data::Decimal(values) => task
            .done(Data::Decimal(cx.arena().map(&values[..task.rows_of(value)], |x| -x)?))
            .map(|v| keep(v, value)),
        _ => {
            let values = value.ints();
            let negate = |row: usize| values.get(row).checked_neg().ok_or(Bad::Overflow);
            if e.ty == Type::Duration {
                task.fallible(Data::Duration, 0, negate)
            } else {
                task.fallible(Data::Int, 0, negate)
            }
        }
    }
}

fn keep<'a>(out: Val<'a>, input: Val<'a>) -> Val<'a> {
    Val {
        constant: input.constant,
        ..out
    }
}

fn time(micros: Option<i64>) -> Result<i64, Bad> {
    micros.filter(|&m| civil::in_range(m)).ok_or(Bad::Time)
}

/// One operation over one batch.
struct Task<'t, 'e, 'a> {
    cx: &'t Cx<'e, 'a>,
    e: &'t Expr,
    constant: bool,
    valid: Option<Bits<'a>>,
    active: Option<Bits<'a>>,
}

impl<'a> Task<'_, '_, 'a> {
    fn rows(&self) -> usize {
        if self.constant { 1 } else { self.cx.rows() }
    }

    fn rows_of(&self, value: Val<'a>) -> usize {
        value.column.len()
    }

    fn arena(&self) -> &'a Arena {
        self.cx.arena()
    }

    fn done(&self, data: Data<'a>) -> Result<Val<'a>> {
        let rows = match data {
            Data::Int(v) | Data::Timestamp(v) | Data::Duration(v) => v.len(),
            Data::Float(v) => v.len(),
            Data::Decimal(v) => v.len(),
            Data::Date(v) => v.len(),
            _ => self.rows(),
        };
        Ok(Val::new(Column::new(data, self.valid, rows), self.constant))
    }

    /// Row by row, for operations that may fail; failing rows are reported and null.
    fn fallible<T: Copy + 'a>(
        &self,
        data: impl FnOnce(&'a [T]) -> Data<'a>,
        zero: T,
        f: impl Fn(usize) -> Result<T, Bad>,
    ) -> Result<Val<'a>> {
        let (values, valid) = self.cx.attempt(self.valid, self.active, zero, |row| match f(row) {
            Ok(value) => Ok(Some(value)),
            Err(bad) => {
                self.fault(row, bad)?;
                Ok(None)
            }
        })?;
        Ok(Val::rows(Column::new(data(values), valid, values.len())))
    }

    #[cold]
    fn fault(&self, row: usize, bad: Bad) -> Result<()> {
        if self.cx.quiet(row) {
            return Ok(());
        }
        let ty = match &self.e.ty {
            Type::Decimal { .. } => "a decimal of 38 digits".to_string(),
            ty => ty.to_string(),
        };
        match bad {
            Bad::Overflow => {
                let help = if self.e.ty == Type::Int {
                    Some(format_args!("`float(…)` on one side, or `catch null`").to_string())
                } else {
                    None
                };
                let message = format!("the result does not fit {ty}");
                match help {
                    Some(help) => self.cx.fault(
                        row,
                        OVERFLOW,
                        self.e,
                        Some(format_args!("{help}")),
                        format_args!("{message}"),
                    ),
                    None => self.cx.fault(row, OVERFLOW, self.e, None, format_args!("{message}")),
                }
            }
            Bad::Zero => self.cx.fault(
                row,
                DIVISION,
                self.e,
                Some(format_args!("`({}) catch null`", self.e)),
                format_args!("division by zero"),
            ),
            Bad::Exponent => self.cx.fault(
                row,
                EXPONENT,
                self.e,
                Some(format_args!("`float(…) ** …`")),
                format_args!("an int to a negative power"),
            ),
            Bad::Time => self.cx.fault(
                row,
                TIME_RANGE,
                self.e,
                None,
                format_args!("the result is not in the years -9999 to 9999"),
            ),
        }
    }
}

/// Wrapping results and whether any wrapped; only then row by row again.
fn checked<'a>(
    task: &Task<'_, '_, 'a>,
    data: impl Fn(&'a [i64]) -> Data<'a>,
    l: Values<'a, i64>,
    r: Values<'a, i64>,
    op: impl Fn(i64, i64) -> (i64, bool),
) -> Result<Val<'a>> {
    let mut any = false;
    let values = zip(task.arena(), task.rows(), l, r, |x, y| {
        let (value, over) = op(x, y);
        any |= over;
        value
    })?;
    if !any {
        return task.done(data(values));
    }
    task.fallible(data, 0, |row| match op(l.get(row), r.get(row)) {
        (value, false) => Ok(value),
        _ => Err(Bad::Overflow),
    })
}

fn ints<'a>(task: &Task<'_, '_, 'a>, op: Arith, l: Values<'a, i64>, r: Values<'a, i64>) -> Result<Val<'a>> {
    match op {
        Arith::Add => checked(task, Data::Int, l, r, i64::overflowing_add),
        Arith::Sub => checked(task, Data::Int, l, r, i64::overflowing_sub),
        Arith::Mul => checked(task, Data::Int, l, r, i64::overflowing_mul),
        // A constant divisor that is neither 0 nor -1 cannot fail.
        Arith::FloorDiv if !task.e.fallible => task.done(Data::Int(zip(task.arena(), task.rows(), l, r, floor_div)?)),
        Arith::Rem if !task.e.fallible => task.done(Data::Int(zip(task.arena(), task.rows(), l, r, floor_rem)?)),
        _ => task.fallible(Data::Int, 0, |row| int(op, l.get(row), r.get(row))),
    }
}

fn floor_div(x: i64, y: i64) -> i64 {
    let quotient = x.wrapping_div(y);
    if x % y != 0 && (x < 0) != (y < 0) {
        quotient - 1
    } else {
        quotient
    }
}

fn floor_rem(x: i64, y: i64) -> i64 {
    let rest = x.wrapping_rem(y);
    if rest != 0 && (rest < 0) != (y < 0) {
        rest + y
    } else {
        rest
    }
}

fn int(op: Arith, x: i64, y: i64) -> Result<i64, Bad> {
    match op {
        Arith::FloorDiv | Arith::Rem if y == 0 => Err(Bad::Zero),
        Arith::FloorDiv if y == -1 => x.checked_neg().ok_or(Bad::Overflow),
        Arith::FloorDiv => Ok(floor_div(x, y)),
        Arith::Rem if y == -1 => Ok(0),
        Arith::Rem => Ok(floor_rem(x, y)),
        _ if y < 0 => Err(Bad::Exponent),
        _ => match u32::try_from(y) {
            Ok(y) => x.checked_pow(y).ok_or(Bad::Overflow),
            Err(_) => match x {
                0 | 1 => Ok(x),
                -1 => Ok(if y % 2 == 0 { 1 } else { -1 }),
                _ => Err(Bad::Overflow),
            },
        },
    }
}

/// A numeric operand as floats.
#[derive(Clone, Copy)]
enum Num<'a> {
    Float(&'a [f64]),
    Int(&'a [i64]),
    One(f64),
}

impl<'a> Num<'a> {
    fn of(ty: &Type, value: Val<'a>) -> Num<'a> {
        if *ty == Type::Int {
            let values = value.ints();
            values.slice().map_or_else(|| Num::One(values.get(0) as f64), Num::Int)
        } else {
            let values = value.floats();
            values.slice().map_or_else(|| Num::One(values.get(0)), Num::Float)
        }
    }

    fn get(&self, row: usize) -> f64 {
        match self {
            Num::Float(values) => values[row],
            Num::Int(values) => values[row] as f64,
            Num::One(value) => *value,
        }
    }
}

#[inline(always)]
fn float_zip<'a>(
    arena: &'a Arena,
    rows: usize,
    l: Num<'a>,
    r: Num<'a>,
    f: impl Fn(f64, f64) -> f64,
) -> Result<&'a [f64]> {
    Ok(match (l, r) {
        (Num::Float(a), Num::Float(b)) => arena.map2(a, b, f)?,
        (Num::Float(a), Num::Int(b)) => arena.map2(a, b, |x, y| f(x, y as f64))?,
        (Num::Int(a), Num::Float(b)) => arena.map2(a, b, |x, y| f(x as f64, y))?,
        (Num::Int(a), Num::Int(b)) => arena.map2(a, b, |x, y| f(x as f64, y as f64))?,
        (Num::Float(a), Num::One(y)) => arena.map(a, |x| f(x, y))?,
        (Num::One(x), Num::Float(b)) => arena.map(b, |y| f(x, y))?,
        (Num::Int(a), Num::One(y)) => arena.map(a, |x| f(x as f64, y))?,
        (Num::One(x), Num::Int(b)) => arena.map(b, |y| f(x, y as f64))?,
        (Num::One(x), Num::One(y)) => arena.fill(rows, f(x, y))?,
    })
}

fn floats<'a>(task: &Task<'_, '_, 'a>, op: Arith, l: Num<'a>, r: Num<'a>) -> Result<Val<'a>> {
    let (arena, rows) = (task.arena(), task.rows());
    let rem = |x: f64, y: f64| {
        let rest = x % y;
        if rest != 0.0 && (rest < 0.0) != (y < 0.0) {
            rest + y
        } else {
            rest
        }
    };
    // Only a zero can fail, and mostly there is none.
    let has_zero = || match r {
        Num::Float(values) => values.iter().fold(false, |any, &y| any | (y == 0.0)),
        Num::Int(values) => values.iter().fold(false, |any, &y| any | (y == 0)),
        Num::One(y) => y == 0.0,
    };
    if task.e.fallible && matches!(op, Arith::Div | Arith::FloorDiv | Arith::Rem) && has_zero() {
        return task.fallible(Data::Float, 0.0, |row| {
            let (x, y) = (l.get(row), r.get(row));
            if y == 0.0 {
                return Err(Bad::Zero);
            }
            Ok(match op {
                Arith::Div => x / y,
                Arith::FloorDiv => (x / y).floor(),
                _ => rem(x, y),
            })
        });
    }
    let values = match op {
        Arith::Add => float_zip(arena, rows, l, r, |x, y| x + y)?,
        Arith::Sub => float_zip(arena, rows, l, r, |x, y| x - y)?,
        Arith::Mul => float_zip(arena, rows, l, r, |x, y| x * y)?,
        Arith::Div => float_zip(arena, rows, l, r, |x, y| x / y)?,
        Arith::FloorDiv => float_zip(arena, rows, l, r, |x, y| (x / y).floor())?,
        Arith::Rem => float_zip(arena, rows, l, r, rem)?,
        Arith::Pow => float_zip(arena, rows, l, r, f64::powf)?,
    };
    task.done(Data::Float(values))
}

fn decimals<'a>(
    task: &Task<'_, '_, 'a>,
    op: Arith,
    (lt, l): (&Expr, Val<'a>),
    (rt, r): (&Expr, Val<'a>),
) -> Result<Val<'a>> {
    let scale_of = |ty: &Type| match ty {
        Type::Decimal { scale, .. } => *scale,
        _ => 0,
    };
    let (a, b, scale) = (scale_of(&lt.ty), scale_of(&rt.ty), scale_of(&task.e.ty));
    let (x, y) = (Wide::of(&lt.ty, l), Wide::of(&rt.ty, r));
    let up = |value: i128, from: u8, to: u8| decimal::shift(value, i32::from(to) - i32::from(from));
    task.fallible(Data::Decimal, 0, |row| {
        let (x, y) = (x.get(row), y.get(row));
        if matches!(op, Arith::Div | Arith::FloorDiv | Arith::Rem) && y == 0 {
            return Err(Bad::Zero);
        }
        let value = match op {
            Arith::Add => up(x, a, scale).zip(up(y, b, scale)).and_then(|(x, y)| x.checked_add(y)),
            Arith::Sub => up(x, a, scale).zip(up(y, b, scale)).and_then(|(x, y)| x.checked_sub(y)),
            Arith::Mul => decimal::multiply(x, y),
            Arith::Div => decimal::divide(x, a, y, b, scale),
            _ => {
                let both = a.max(b);
                up(x, a, both).zip(up(y, b, both)).and_then(|(x, y)| {
                    let rest = x.checked_rem(y)?;
                    let off = rest != 0 && (rest < 0) != (y < 0);
                    if op == Arith::Rem {
                        return Some(if off { rest + y } else { rest });
                    }
                    Some(x.checked_div(y)? - i128::from(off))
                })
            }
        };
        value
            .and_then(|v| decimal::fit(v, decimal::DIGITS))
            .ok_or(Bad::Overflow)
    })
}

/// A decimal or int operand.
#[derive(Clone, Copy)]
pub(super) enum Wide<'a> {
    Decimal(Values<'a, i128>),
    Int(Values<'a, i64>),
}

impl<'a> Wide<'a> {
    pub(super) fn of(ty: &Type, value: Val<'a>) -> Wide<'a> {
        if *ty == Type::Int {
            Wide::Int(value.ints())
        } else {
            Wide::Decimal(value.decimals())
        }
    }

    #[inline(always)]
    pub(super) fn get(&self, row: usize) -> i128 {
        match self {
            Wide::Decimal(values) => values.get(row),
            Wide::Int(values) => i128::from(values.get(row)),
        }
    }
}

fn durations<'a>(task: &Task<'_, '_, 'a>, op: Arith, l: Values<'a, i64>, r: Values<'a, i64>) -> Result<Val<'a>> {
    match op {
        Arith::Add => checked(task, Data::Duration, l, r, i64::overflowing_add),
        Arith::Sub => checked(task, Data::Duration, l, r, i64::overflowing_sub),
        Arith::FloorDiv => task.fallible(Data::Int, 0, |row| int(op, l.get(row), r.get(row))),
        Arith::Rem => task.fallible(Data::Duration, 0, |row| int(op, l.get(row), r.get(row))),
        _ => task.fallible(Data::Float, 0.0, |row| match r.get(row) {
            0 => Err(Bad::Zero),
            y => Ok(l.get(row) as f64 / y as f64),
        }),
    }
}

/// A duration times or by a number; what is not a whole microsecond is rounded to the nearest.
fn scaled<'a>(task: &Task<'_, '_, 'a>, op: Arith, spans: Values<'a, i64>, number: Num<'a>) -> Result<Val<'a>> {
    task.fallible(Data::Duration, 0, |row| {
        let span = spans.get(row);
        if let (Num::Int(values), Arith::Mul) = (number, op) {
            return span.checked_mul(values[row]).ok_or(Bad::Overflow);
        }
        let by = number.get(row);
        if op != Arith::Mul && by == 0.0 {
            return Err(Bad::Zero);
        }
        if op == Arith::Mul && by.fract() == 0.0 && by.abs() < 9.0e15 {
            return span.checked_mul(by as i64).ok_or(Bad::Overflow);
        }
        let value = if op == Arith::Mul {
            span as f64 * by
        } else {
            span as f64 / by
        };
        let value = value.round_ties_even();
        if value.abs() < 9.2e18 {
            Ok(value as i64)
        } else {
            Err(Bad::Overflow)
        }
    })
}
