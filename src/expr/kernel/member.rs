//! `in` and `~`.

use super::{bits1, compare};
use crate::expr::eval::{Cx, Val};
use crate::expr::{Cmp, Expr, Set};
use regex::Regex;
use standpipe_sdk::bits::both;
use standpipe_sdk::{Bits, Column, Data, Result, Type};

/// `bits`, null where `value` is, turned round if `negated`.
fn done<'a>(cx: &Cx<'_, 'a>, value: Val<'a>, bits: Bits<'a>, negated: bool) -> Result<Val<'a>> {
    let bits = if negated { bits.not(cx.arena())? } else { bits };
    Ok(Val::new(Column::bool(bits, value.valid()), value.constant))
}

/// `value in [constants]`.
pub(in crate::expr) fn in_set<'a>(cx: &Cx<'_, 'a>, value: Val<'a>, set: &Set, negated: bool) -> Result<Val<'a>> {
    if value.is_null() {
        return Ok(Val::null());
    }
    let arena = cx.arena();
    let bits = match (set, value.column.data()) {
        (Set::Ints(set), Data::Date(days)) => bits1(arena, days, |day| Set::has_int(set, i64::from(day)))?,
        (Set::Ints(set), Data::Int(numbers) | Data::Timestamp(numbers) | Data::Duration(numbers)) => {
            bits1(arena, numbers, |n| Set::has_int(set, n))?
        }
        (Set::Texts(set), Data::String(text)) => Bits::collect(arena, text.len(), |row| set.has(&text, row))?,
        _ => Bits::all(arena, value.column.len(), false)?,
    };
    done(cx, value, bits, negated)
}

/// `value in [items]`, where the items are computed: those that are null match nothing.
pub(in crate::expr) fn in_any<'a>(
    cx: &Cx<'_, 'a>,
    (ty, value): (&Type, Val<'a>),
    items: &[Expr],
    negated: bool,
    active: Option<Bits<'a>>,
) -> Result<Val<'a>> {
    let (arena, rows) = (cx.arena(), cx.rows());
    let mut hits = Bits::all(arena, rows, false)?;
    for item in items {
        let other = cx.eval(item, active)?;
        if other.is_null() || value.is_null() {
            continue;
        }
        let mut hit = compare::test(cx, rows, Cmp::Eq, (ty, value), (&item.ty, other))?;
        if let Some(valid) = other.valid() {
            hit = hit.and(&valid, arena)?;
        }
        hits = hits.or(&hit, arena)?;
    }
    if value.is_null() {
        return Ok(Val::null());
    }
    let bits = if negated { hits.not(arena)? } else { hits };
    Ok(Val::rows(Column::bool(bits, value.valid())))
}

/// `value in list`, with a list per row; nulls in it match nothing.
pub(in crate::expr) fn in_values<'a>(cx: &Cx<'_, 'a>, value: Val<'a>, list: Val<'a>, negated: bool) -> Result<Val<'a>> {
    let Data::List(lists) = list.column.data() else {
        return Ok(Val::null());
    };
    if value.is_null() {
        return Ok(Val::null());
    }
    let arena = cx.arena();
    let valid = both(value.valid(), list.valid(), arena)?;
    let bits = Bits::collect(arena, cx.rows(), |row| {
        if !valid.is_none_or(|v| v.get(row)) {
            return false;
        }
        let wanted = value.column.cell(value.at(row));
        let mut range = lists.range(list.at(row));
        range.any(|at| compare::same(&wanted, &lists.child.cell(at))) != negated
    })?;
    Ok(Val::rows(Column::bool(bits, valid)))
}

/// `value in low..high`, both included.
pub(in crate::expr) fn in_range<'a>(
    cx: &Cx<'_, 'a>,
    value: (&Type, Val<'a>),
    low: (&Type, Val<'a>),
    high: (&Type, Val<'a>),
    negated: bool,
) -> Result<Val<'a>> {
    if value.1.is_null() || low.1.is_null() || high.1.is_null() {
        return Ok(Val::null());
    }
    let (arena, rows) = (cx.arena(), cx.rows());
    let above = compare::test(cx, rows, Cmp::Ge, value, low)?;
    let below = compare::test(cx, rows, Cmp::Le, value, high)?;
    let turn = if negated { u64::MAX } else { 0 };
    let bits = Bits::collect_words(arena, rows, |w| (above.word(w) & below.word(w)) ^ turn)?;
    let valid = both(both(value.1.valid(), low.1.valid(), arena)?, high.1.valid(), arena)?;
    Ok(Val::rows(Column::bool(bits, valid)))
}

/// `value ~ /regex/`.
pub(in crate::expr) fn regex<'a>(cx: &Cx<'_, 'a>, value: Val<'a>, regex: &Regex) -> Result<Val<'a>> {
    let Some(text) = value.text() else {
        return Ok(Val::null());
    };
    let valid = value.valid();
    let bits = Bits::collect(cx.arena(), text.len(), |row| {
        valid.is_none_or(|v| v.get(row)) && regex.is_match(text.str(row))
    })?;
    done(cx, value, bits, false)
}
