//! Sums of numbers that are the same in any order, and their mean.
//!
//! Laws
//! - The mean of floats is the one that `avg` gives; NaN and infinities give what adding them would.

use crate::expr::FloatSum;
use standpipe_sdk::{Column, Data, Type};

pub(super) enum Sum {
    /// Whole numbers; `None` once they are too large. The second: how many of the digits stand behind the point.
    Whole(Option<i128>, u8),
    Float(FloatSum),
}

impl Sum {
    /// For columns of a type, if it is one of numbers.
    pub(super) fn of(ty: &Type) -> Option<Sum> {
        match ty {
            Type::Int => Some(Sum::Whole(Some(0), 0)),
            Type::Decimal { scale, .. } => Some(Sum::Whole(Some(0), *scale)),
            Type::Float => Some(Sum::Float(FloatSum::default())),
            _ => None,
        }
    }

    /// Adds the values of a column.
    pub(super) fn add(&mut self, column: &Column<'_>) {
        let valid = |row: &usize| column.is_valid(*row);
        let rows = (0..column.len()).filter(valid);
        match (self, column.data()) {
            (Sum::Whole(sum, _), Data::Int(v)) => {
                rows.for_each(|row| *sum = sum.and_then(|sum| sum.checked_add(i128::from(v[row]))));
            }
            (Sum::Whole(sum, _), Data::Decimal(v)) => {
                rows.for_each(|row| *sum = sum.and_then(|sum| sum.checked_add(v[row])));
            }
            (Sum::Float(sum), Data::Float(v)) => rows.for_each(|row| sum.add(v[row])),
            _ => {}
        }
    }

    pub(super) fn merge(&mut self, other: &Sum) {
        match (self, other) {
            (Sum::Whole(sum, _), Sum::Whole(other, _)) => {
                *sum = sum.zip(*other).and_then(|(sum, other)| sum.checked_add(other));
            }
            (Sum::Float(sum), Sum::Float(other)) => sum.merge(other),
            _ => {}
        }
    }

    /// The mean of `count` values; none of none.
    pub(super) fn mean(&self, count: u64) -> Option<f64> {
        if count == 0 {
            return None;
        }
        Some(match self {
            Sum::Whole(sum, scale) => (*sum)? as f64 / 10f64.powi(i32::from(*scale)) / count as f64,
            Sum::Float(sum) => sum.mean(count),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use standpipe_sdk::Column;

    #[test]
    fn means_of_every_type_whoever_saw_the_values() {
        let decimal = Type::Decimal {
            precision: 10,
            scale: 2,
        };
        let columns = [
            (Type::Int, Column::int(&[1, 2, 6], None), 3.0),
            (Type::Float, Column::float(&[1e300, 1.5, -1e300], None), 0.0),
            (decimal, Column::new(Data::Decimal(&[150, 250, 200]), None, 3), 2.0),
        ];
        for (ty, column, want) in columns {
            let (mut all, mut head, mut tail) = (Sum::of(&ty).unwrap(), Sum::of(&ty).unwrap(), Sum::of(&ty).unwrap());
            all.add(&column);
            head.add(&column.slice(0, 1));
            tail.add(&column.slice(1, 2));
            tail.merge(&head);
            assert_eq!(
                (all.mean(3), tail.mean(3), all.mean(0)),
                (Some(want), Some(want), None),
                "{ty}"
            );
        }
        assert!(Sum::of(&Type::String).is_none());
    }
}
