//! `and or not`, `is null`, conditions, `match`.

use super::compare;
use crate::expr::eval::{Cx, Val};
use crate::expr::{Cmp, Expr, MatchPattern};
use standpipe_sdk::bits::both;
use standpipe_sdk::{Bits, Column, Data, Result};

/// Bools with nulls, as words.
#[derive(Clone, Copy)]
struct Truth<'a> {
    value: Val<'a>,
    bits: Option<Bits<'a>>,
}

impl<'a> Truth<'a> {
    fn of(value: Val<'a>) -> Truth<'a> {
        let bits = match value.column.data() {
            Data::Bool(bits) => Some(bits),
            _ => None,
        };
        Truth { value, bits }
    }

    /// (known and true, known and false); rows behind the end may be anything.
    #[inline(always)]
    fn word(&self, w: usize) -> (u64, u64) {
        let Some(bits) = self.bits else { return (0, 0) };
        if self.value.constant {
            return if bits.get(0) { (u64::MAX, 0) } else { (0, u64::MAX) };
        }
        let word = bits.word(w);
        match self.value.valid() {
            Some(valid) => (word & valid.word(w), !word & valid.word(w)),
            None => (word, !word),
        }
    }

    fn has_nulls(&self) -> bool {
        self.bits.is_none() || self.value.valid().is_some()
    }
}

/// The rows that are true; `None` if a constant says that none is.
pub(in crate::expr) fn trues<'a>(cx: &Cx<'_, 'a>, value: Val<'a>) -> Result<Option<Bits<'a>>> {
    let truth = Truth::of(value);
    if truth.bits.is_none() {
        return Ok(None);
    }
    if let (Some(bits), false, None) = (truth.bits, value.constant, value.valid()) {
        return Ok(Some(bits));
    }
    Ok(Some(Bits::collect_words(cx.arena(), cx.rows(), |w| truth.word(w).0)?))
}

/// The rows for which the left side of `and` (`or`) does not say it all.
pub(in crate::expr) fn undecided<'a>(cx: &Cx<'_, 'a>, left: Val<'a>, and: bool) -> Result<Bits<'a>> {
    let truth = Truth::of(left);
    Bits::collect_words(cx.arena(), cx.rows(), |w| {
        let (yes, no) = truth.word(w);
        if and { !no } else { !yes }
    })
}

/// Kleene's `and` (`or`).
pub(in crate::expr) fn kleene<'a>(cx: &Cx<'_, 'a>, l: Val<'a>, r: Val<'a>, and: bool) -> Result<Val<'a>> {
    let (left, right) = (Truth::of(l), Truth::of(r));
    let (arena, rows) = (cx.arena(), cx.rows());
    let words = |w: usize| {
        let ((a_yes, a_no), (b_yes, b_no)) = (left.word(w), right.word(w));
        if and {
            (a_yes & b_yes, a_no | b_no)
        } else {
            (a_yes | b_yes, a_no & b_no)
        }
    };
    let value = Bits::collect_words(arena, rows, |w| words(w).0)?;
    let valid = if left.has_nulls() || right.has_nulls() {
        Some(Bits::collect_words(arena, rows, |w| {
            let (yes, no) = words(w);
            yes | no
        })?)
    } else {
        None
    };
    Ok(Val::rows(Column::bool(value, valid)))
}

/// `not value`.
pub(in crate::expr) fn not<'a>(cx: &Cx<'_, 'a>, value: Val<'a>) -> Result<Val<'a>> {
    let Data::Bool(bits) = value.column.data() else {
        return Ok(Val::null());
    };
    Ok(Val::new(
        Column::bool(bits.not(cx.arena())?, value.valid()),
        value.constant,
    ))
}

/// `value is null`, or `is not null`.
pub(in crate::expr) fn is_null<'a>(cx: &Cx<'_, 'a>, value: Val<'a>, negated: bool) -> Result<Val<'a>> {
    let arena = cx.arena();
    let bits = match value.valid() {
        _ if value.is_null() => Bits::all(arena, cx.rows(), !negated)?,
        None => Bits::all(arena, cx.rows(), negated)?,
        Some(valid) if negated => valid,
        Some(valid) => valid.not(arena)?,
    };
    Ok(Val::rows(Column::bool(bits, None)))
}

/// `match`: the first arm with a pattern that holds.
pub(in crate::expr) fn match_<'a>(
    cx: &Cx<'_, 'a>,
    (subject, value): (&Expr, Val<'a>),
    arms: &[(Vec<MatchPattern>, Expr)],
    otherwise: &Expr,
    active: Option<Bits<'a>>,
) -> Result<Val<'a>> {
    let (arena, rows) = (cx.arena(), cx.rows());
    // The rows no arm has taken yet, and what the arms before gave.
    let mut open = Bits::all(arena, rows, true)?;
    let mut result = Val::null();
    for (patterns, then) in arms {
        let mut hits = Bits::all(arena, rows, false)?;
        for pattern in patterns {
            let asked = both(active, Some(open), arena)?;
            let hit = match pattern {
                MatchPattern::Null => trues(cx, is_null(cx, value, false)?)?,
                MatchPattern::Value(e) => {
                    let other = cx.eval(e, asked)?;
                    trues(cx, compare::compare(cx, Cmp::Eq, (&subject.ty, value), (&e.ty, other))?)?
                }
                MatchPattern::Range(low, high) => {
                    let mut within = Some(open);
                    for (op, end) in [(Cmp::Ge, low), (Cmp::Le, high)] {
                        let Some(e) = end else { continue };
                        let other = cx.eval(e, asked)?;
                        let hit = trues(cx, compare::compare(cx, op, (&subject.ty, value), (&e.ty, other))?)?;
                        within = match (within, hit) {
                            (Some(within), Some(hit)) => Some(within.and(&hit, arena)?),
                            _ => None,
                        };
                    }
                    within
                }
            };
            if let Some(hit) = hit {
                hits = hits.or(&hit, arena)?;
            }
        }
        let taken = hits.and(&open, arena)?;
        if taken.count() == 0 {
            continue;
        }
        let asked = if then.fallible {
            both(active, Some(taken), arena)?
        } else {
            None
        };
        let branch = cx.eval(then, asked)?;
        result = cx.pick(taken, branch, result)?;
        open = open.and_not(&taken, arena)?;
    }
    if open.count() == 0 {
        return Ok(result);
    }
    let asked = if otherwise.fallible {
        both(active, Some(open), arena)?
    } else {
        None
    };
    let branch = cx.eval(otherwise, asked)?;
    cx.pick(open, branch, result)
}
