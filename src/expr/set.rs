//! Sets of constants for `x in [..]`.

use crate::expr::Expr;
use hashbrown::HashSet;
use standpipe_sdk::{Text, Type, Value, View};

/// Constants of one type, none of them null.
#[derive(Clone, Debug)]
pub enum Set {
    /// Ints, timestamps, durations, dates; ascending.
    Ints(Vec<i64>),
    Texts(Texts),
}

/// Up to this many values are compared one by one.
const FEW: usize = 8;

/// Texts, the short ones as the bits of their views.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    few: Vec<u128>,
    short: HashSet<u128, foldhash::fast::FixedState>,
    long: HashSet<Box<[u8]>, foldhash::fast::FixedState>,
}

impl Set {
    /// The set of `items`, if all are constants of type `ty` and the type has sets.
    pub(in crate::expr) fn new(ty: &Type, items: &[Expr]) -> Option<Set> {
        if items.iter().any(|e| e.ty != *ty) {
            return None;
        }
        let values = items.iter().map(Expr::as_value);
        match ty {
            Type::Int | Type::Timestamp | Type::Duration | Type::Date => {
                let number = |value| match value {
                    Some(Value::Int(n) | Value::Timestamp(n) | Value::Duration(n)) => Some(n),
                    Some(Value::Date(n)) => Some(i64::from(n)),
                    _ => None,
                };
                let mut numbers: Vec<i64> = values.map(number).collect::<Option<_>>()?;
                numbers.sort_unstable();
                numbers.dedup();
                Some(Set::Ints(numbers))
            }
            Type::String => {
                let mut texts = Texts::default();
                for value in values {
                    let Some(Value::String(text)) = value else { return None };
                    match View::inline(text.as_bytes()) {
                        Some(view) => {
                            texts.short.insert(view.bits());
                        }
                        None => {
                            texts.long.insert(text.into_bytes().into());
                        }
                    }
                }
                if texts.short.len() <= FEW {
                    texts.few = texts.short.iter().copied().collect();
                    texts.few.sort_unstable();
                    texts.short.clear();
                }
                Some(Set::Texts(texts))
            }
            _ => None,
        }
    }

    /// Whether the set holds `n`.
    #[inline]
    pub(in crate::expr) fn has_int(numbers: &[i64], n: i64) -> bool {
        if numbers.len() <= FEW {
            numbers.contains(&n)
        } else {
            numbers.binary_search(&n).is_ok()
        }
    }
}

impl Texts {
    /// Whether row `row` of `text` is in the set.
    #[inline]
    pub(in crate::expr) fn has(&self, text: &Text<'_>, row: usize) -> bool {
        let view = text.views()[row];
        if view.is_inline() {
            let bits = view.bits();
            self.few.contains(&bits) || (!self.short.is_empty() && self.short.contains(&bits))
        } else {
            !self.long.is_empty() && self.long.contains(text.bytes(row))
        }
    }
}
