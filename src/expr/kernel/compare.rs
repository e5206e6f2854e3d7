//! `== != < <= > >=` and `is`. NaN comes after all numbers and equals itself; -0.0 equals 0.0; int and float compare exactly.

use super::arith::Wide;
use super::{bits1, bits2};
use crate::expr::eval::{Cx, Val};
use crate::expr::function::Values;
use crate::expr::{Cmp, decimal};
use standpipe_sdk::bits::both;
use standpipe_sdk::{Bits, Cell, Column, Data, Result, Text, Type, View};
use std::cmp::Ordering;

impl Cmp {
    #[inline(always)]
    pub(in crate::expr) fn holds(self, order: Ordering) -> bool {
        match self {
            Cmp::Eq => order.is_eq(),
            Cmp::Ne => order.is_ne(),
            Cmp::Lt => order.is_lt(),
            Cmp::Le => order.is_le(),
            Cmp::Gt => order.is_gt(),
            Cmp::Ge => order.is_ge(),
        }
    }

    fn turned(self) -> Cmp {
        match self {
            Cmp::Lt => Cmp::Gt,
            Cmp::Le => Cmp::Ge,
            Cmp::Gt => Cmp::Lt,
            Cmp::Ge => Cmp::Le,
            same => same,
        }
    }
}

/// The order of floats: NaN last and equal to itself.
#[inline(always)]
pub(in crate::expr) fn floats(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// The exact order of an int and a float.
#[inline]
pub(in crate::expr) fn int_float(a: i64, b: f64) -> Ordering {
    const END: f64 = 9_223_372_036_854_775_808.0;
    if b.is_nan() || b >= END {
        return Ordering::Less;
    }
    if b < -END {
        return Ordering::Greater;
    }
    let whole = b.trunc();
    a.cmp(&(whole as i64))
        .then_with(|| 0.0.partial_cmp(&(b - whole)).unwrap_or(Ordering::Equal))
}

type Side<'t, 'a> = (&'t Type, Val<'a>);

/// `l op r`, null where either is.
pub(in crate::expr) fn compare<'a>(
    cx: &Cx<'_, 'a>,
    op: Cmp,
    (lt, l): Side<'_, 'a>,
    (rt, r): Side<'_, 'a>,
) -> Result<Val<'a>> {
    if l.is_null() || r.is_null() {
        return Ok(Val::null());
    }
    let constant = l.constant && r.constant;
    let rows = if constant { 1 } else { cx.rows() };
    let bits = test(cx, rows, op, (lt, l), (rt, r))?;
    let valid = both(l.valid(), r.valid(), cx.arena())?;
    Ok(Val::new(Column::bool(bits, valid), constant))
}

/// `l is r`: never null.
pub(in crate::expr) fn is<'a>(
    cx: &Cx<'_, 'a>,
    (lt, l): Side<'_, 'a>,
    (rt, r): Side<'_, 'a>,
    negated: bool,
) -> Result<Val<'a>> {
    let rows = cx.rows();
    let arena = cx.arena();
    let turn = if negated { u64::MAX } else { 0 };
    let null = |value: Val<'a>, w: usize| match value.valid() {
        _ if value.is_null() => u64::MAX,
        Some(valid) => !valid.word(w),
        None => 0,
    };
    if l.is_null() || r.is_null() {
        let bits = Bits::collect_words(arena, rows, |w| (null(l, w) & null(r, w)) ^ turn)?;
        return Ok(Val::rows(Column::bool(bits, None)));
    }
    let equal = test(cx, rows, Cmp::Eq, (lt, l), (rt, r))?;
    let bits = Bits::collect_words(arena, rows, |w| {
        let (x, y) = (null(l, w), null(r, w));
        ((equal.word(w) & !x & !y) | (x & y)) ^ turn
    })?;
    Ok(Val::rows(Column::bool(bits, None)))
}

macro_rules! by_op {
    ($cx:expr, $rows:expr, $op:expr, $l:expr, $r:expr) => {
        match $op {
            Cmp::Eq => bits2($cx.arena(), $rows, $l, $r, |a, b| a == b),
            Cmp::Ne => bits2($cx.arena(), $rows, $l, $r, |a, b| a != b),
            Cmp::Lt => bits2($cx.arena(), $rows, $l, $r, |a, b| a < b),
            Cmp::Le => bits2($cx.arena(), $rows, $l, $r, |a, b| a <= b),
            Cmp::Gt => bits2($cx.arena(), $rows, $l, $r, |a, b| a > b),
            Cmp::Ge => bits2($cx.arena(), $rows, $l, $r, |a, b| a >= b),
        }
    };
}

/// The bits of `l op r`; unspecified where either is null.
pub(in crate::expr) fn test<'a>(
    cx: &Cx<'_, 'a>,
    rows: usize,
    op: Cmp,
    (lt, l): Side<'_, 'a>,
    (rt, r): Side<'_, 'a>,
) -> Result<Bits<'a>> {
    let arena = cx.arena();
    match (lt, rt) {
        (Type::Int, Type::Float) => {
            let (a, b) = (l.ints(), r.floats());
            Bits::collect(arena, rows, |row| op.holds(int_float(a.get(row), b.get(row))))
        }
        (Type::Float, Type::Int) => {
            let (a, b) = (l.floats(), r.ints());
            Bits::collect(arena, rows, |row| op.holds(int_float(b.get(row), a.get(row)).reverse()))
        }
        (Type::Int | Type::Timestamp | Type::Duration, Type::Int | Type::Timestamp | Type::Duration) => {
            by_op!(cx, rows, op, l.ints(), r.ints())
        }
        (Type::Date, _) => by_op!(cx, rows, op, l.dates(), r.dates()),
        (Type::Float, _) => float_test(cx, rows, op, l.floats(), r.floats()),
        (Type::Int | Type::Decimal { .. }, Type::Int | Type::Decimal { .. }) => {
            let scale = |ty: &Type| {
                if let Type::Decimal { scale, .. } = ty {
                    *scale
                } else {
                    0
                }
            };
            let (a, b) = (Wide::of(lt, l), Wide::of(rt, r));
            let (s, t) = (scale(lt), scale(rt));
            Bits::collect(arena, rows, |row| {
                op.holds(decimal::compare(a.get(row), s, b.get(row), t))
            })
        }
        (Type::Bool, _) => {
            let (Data::Bool(a), Data::Bool(b)) = (l.column.data(), r.column.data()) else {
                return Bits::all(arena, rows, false);
            };
            let side = |value: Val<'a>, bits: Bits<'a>, w: usize| match value.constant {
                true => u64::from(bits.get(0)).wrapping_neg(),
                false => bits.word(w),
            };
            Bits::collect_words(arena, rows, |w| {
                let (a, b) = (side(l, a, w), side(r, b, w));
                match op {
                    Cmp::Eq => !(a ^ b),
                    Cmp::Ne => a ^ b,
                    Cmp::Lt => !a & b,
                    Cmp::Le => !a | b,
                    Cmp::Gt => a & !b,
                    Cmp::Ge => a | !b,
                }
            })
        }
        (Type::String | Type::Bytes, _) => match (l.text(), r.text()) {
            (Some(a), Some(b)) => text_test(cx, rows, op, (a, l), (b, r)),
            _ => Bits::all(arena, rows, false),
        },
        _ => Bits::collect(arena, rows, |row| {
            let equal = same(&l.column.cell(l.at(row)), &r.column.cell(r.at(row)));
            equal == matches!(op, Cmp::Eq | Cmp::Le | Cmp::Ge)
        }),
    }
}

fn float_test<'a>(cx: &Cx<'_, 'a>, rows: usize, op: Cmp, l: Values<'a, f64>, r: Values<'a, f64>) -> Result<Bits<'a>> {
    let arena = cx.arena();
    // Against a number that is not NaN the machine's comparison is nearly the order: only > and >= take NaN in.
    if let (Some(a), Some(c)) = (l.slice(), r.constant())
        && !c.is_nan()
    {
        return match op {
            Cmp::Eq => bits1(arena, a, |x| x == c),
            Cmp::Ne => bits1(arena, a, |x| x != c),
            Cmp::Lt => bits1(arena, a, |x| x < c),
            Cmp::Le => bits1(arena, a, |x| x <= c),
            Cmp::Gt => bits1(arena, a, |x| (x > c) | x.is_nan()),
            Cmp::Ge => bits1(arena, a, |x| (x >= c) | x.is_nan()),
        };
    }
    if let (Some(_), Some(_)) = (l.constant(), r.slice()) {
        return float_test(cx, rows, op.turned(), r, l);
    }
    let less = |a: f64, b: f64| (a < b) | (!a.is_nan() & b.is_nan());
    let equal = |a: f64, b: f64| (a == b) | (a.is_nan() & b.is_nan());
    match op {
        Cmp::Eq => bits2(arena, rows, l, r, equal),
        Cmp::Ne => bits2(arena, rows, l, r, |a, b| !equal(a, b)),
        Cmp::Lt => bits2(arena, rows, l, r, less),
        Cmp::Le => bits2(arena, rows, l, r, |a, b| !less(b, a)),
        Cmp::Gt => bits2(arena, rows, l, r, |a, b| less(b, a)),
        Cmp::Ge => bits2(arena, rows, l, r, |a, b| !less(a, b)),
    }
}

fn text_test<'a>(
    cx: &Cx<'_, 'a>,
    rows: usize,
    op: Cmp,
    (a, l): (Text<'a>, Val<'a>),
    (b, r): (Text<'a>, Val<'a>),
) -> Result<Bits<'a>> {
    let arena = cx.arena();
    if l.constant && !r.constant {
        return text_test(cx, rows, op.turned(), (b, r), (a, l));
    }
    if l.constant {
        let order = a.bytes(0).cmp(b.bytes(0));
        return Bits::all(arena, rows, op.holds(order));
    }
    if matches!(op, Cmp::Eq | Cmp::Ne) {
        let wanted = op == Cmp::Eq;
        if !r.constant {
            let views = (a.views(), b.views());
            return Bits::collect(arena, rows, |row| {
                let (x, y) = (views.0[row], views.1[row]);
                let equal = if x.is_inline() {
                    x == y
                } else {
                    x.bits() as u64 == y.bits() as u64 && a.bytes(row) == b.bytes(row)
                };
                equal == wanted
            });
        }
        let text = b.bytes(0);
        if let Some(constant) = View::inline(text) {
            // A longer text has another length, which is part of the bits.
            let constant = constant.bits();
            return bits1(arena, a.views(), |view: View| (view.bits() == constant) == wanted);
        }
        let start = b.views()[0].bits() as u64;
        let views = a.views();
        return Bits::collect(arena, rows, |row| {
            (views[row].bits() as u64 == start && a.bytes(row) == text) == wanted
        });
    }
    Bits::collect(arena, rows, |row| {
        let at = r.at(row);
        let order = a.views()[row].prefix().cmp(&b.views()[at].prefix());
        op.holds(order.then_with(|| a.bytes(row).cmp(b.bytes(at))))
    })
}

/// Whether two cells of one type are equal, nulls being values.
pub(in crate::expr) fn same(a: &Cell<'_>, b: &Cell<'_>) -> bool {
    match (a, b) {
        (Cell::Null, Cell::Null) => true,
        (Cell::Bool(a), Cell::Bool(b)) => a == b,
        (Cell::Int(a), Cell::Int(b)) => a == b,
        (Cell::Timestamp(a), Cell::Timestamp(b)) | (Cell::Duration(a), Cell::Duration(b)) => a == b,
        (Cell::Float(a), Cell::Float(b)) => floats(*a, *b).is_eq(),
        (Cell::Decimal(a), Cell::Decimal(b)) => a == b,
        (Cell::Date(a), Cell::Date(b)) => a == b,
        (Cell::String(a), Cell::String(b)) | (Cell::Json(a), Cell::Json(b)) => a == b,
        (Cell::Bytes(a), Cell::Bytes(b)) => a == b,
        (Cell::List(a), Cell::List(b)) => {
            a.len() == b.len() && (0..a.len()).all(|row| same(&a.cell(row), &b.cell(row)))
        }
        (Cell::Record(a, i), Cell::Record(b, j)) => {
            a.len() == b.len() && a.iter().zip(*b).all(|(a, b)| same(&a.cell(*i), &b.cell(*j)))
        }
        _ => false,
    }
}
