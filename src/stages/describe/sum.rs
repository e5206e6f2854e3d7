//! Exact sums of numbers, and their mean.
//!
//! A float is a whole number of up to 53 bits, shifted; a sum of floats is kept as one long whole number, in limbs of 32 bits with room for
//! carries. So nothing is rounded before the end, and the order of the values says nothing.
//!
//! Laws
//! - The mean is the exact sum, rounded once to a float, over the count; NaN and infinities give what adding them would.

use standpipe_sdk::{Column, Data, Type};

/// Bits of the smallest float to the greatest, and of 2^64 of those.
const LIMBS: usize = (2046 + 53 + 64) / 32 + 2;
/// After so many additions carries are settled.
const SETTLE: u32 = 1 << 28;

pub(super) enum Sum {
    /// Whole numbers; `None` once they are too large. The second: how many of the digits stand behind the point.
    Whole(Option<i128>, u8),
    Float(Box<Long>),
}

/// A sum of floats.
pub(super) struct Long {
    limbs: [i64; LIMBS],
    unsettled: u32,
    /// Sum of what has no such digits: NaN and infinities.
    special: f64,
}

impl Sum {
    /// For columns of a type, if it is one of numbers.
    pub(super) fn of(ty: &Type) -> Option<Sum> {
        match ty {
            Type::Int => Some(Sum::Whole(Some(0), 0)),
            Type::Decimal { scale, .. } => Some(Sum::Whole(Some(0), *scale)),
            Type::Float => Some(Sum::Float(Box::new(Long {
                limbs: [0; LIMBS],
                unsettled: 0,
                special: 0.0,
            }))),
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
            Sum::Float(sum) => sum.value() / count as f64,
        })
    }
}

impl Long {
    fn add(&mut self, value: f64) {
        if !value.is_finite() {
            self.special += value;
            return;
        }
        let bits = value.to_bits();
        let exponent = (bits >> 52 & 0x7FF) as usize;
        let fraction = bits & ((1 << 52) - 1);
        let digits = if exponent == 0 { fraction } else { fraction | 1 << 52 };
        let shift = exponent.max(1) - 1;
        let shifted = u128::from(digits) << (shift % 32);
        for limb in 0..3 {
            let part = (shifted >> (32 * limb)) as u32;
            let part = if value < 0.0 { -i64::from(part) } else { i64::from(part) };
            self.limbs[shift / 32 + limb] += part;
        }
        self.unsettled += 1;
        if self.unsettled == SETTLE {
            self.settle();
        }
    }

    /// Every limb but the last becomes one of 32 bits.
    fn settle(&mut self) {
        self.unsettled = 0;
        let mut carry = 0;
        for limb in &mut self.limbs[..LIMBS - 1] {
            let value = *limb + carry;
            *limb = value & 0xFFFF_FFFF;
            carry = value >> 32;
        }
        self.limbs[LIMBS - 1] += carry;
    }

    fn merge(&mut self, other: &Long) {
        self.settle();
        let mut other = Long {
            limbs: other.limbs,
            unsettled: 0,
            special: other.special,
        };
        other.settle();
        for (limb, other) in self.limbs.iter_mut().zip(other.limbs) {
            *limb += other;
        }
        self.special += other.special;
        self.settle();
    }

    /// The float that is nearest.
    fn value(&self) -> f64 {
        if !self.special.is_finite() {
            return self.special;
        }
        let mut sum = Long {
            limbs: self.limbs,
            unsettled: 0,
            special: 0.0,
        };
        sum.settle();
        let negative = sum.limbs[LIMBS - 1] < 0;
        if negative {
            sum.limbs.iter_mut().for_each(|limb| *limb = -*limb);
            sum.settle();
        }
        let Some(top) = sum.limbs.iter().rposition(|limb| *limb != 0) else {
            return 0.0;
        };
        // The highest 96 bits or more, and whether anything is below them.
        let limb = |at: Option<usize>| at.map_or(0, |at| sum.limbs[at] as u128);
        let high = limb(Some(top)) << 64 | limb(top.checked_sub(1)) << 32 | limb(top.checked_sub(2));
        let below = top
            .checked_sub(3)
            .is_some_and(|at| sum.limbs[..=at].iter().any(|limb| *limb != 0));
        // `high` counts in 2^(32 * (top - 2) - 1074); it has at least 65 bits unless the number is small, and is exact then.
        let size = 128 - high.leading_zeros() as i32;
        let unit = 32 * (top as i32 - 2) - 1074;
        // A float has 53 bits, and none below 2^-1074.
        let cut = (size - 53).max(-1074 - unit).max(0);
        let kept = high >> cut;
        let rest = high & ((1u128 << cut) - 1);
        let half = if cut == 0 { 0 } else { 1u128 << (cut - 1) };
        let up = cut > 0 && (rest > half || (rest == half && (below || kept & 1 == 1)));
        let digits = (kept + u128::from(up)) as f64;
        // In two steps: the whole factor may be no float.
        let exponent = unit + cut;
        let value = digits * 2f64.powi(exponent / 2) * 2f64.powi(exponent - exponent / 2);
        if negative { -value } else { value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn long() -> Long {
        match Sum::of(&Type::Float) {
            Some(Sum::Float(long)) => *long,
            _ => panic!("a sum of floats"),
        }
    }

    fn sum(values: &[f64]) -> f64 {
        let mut long = long();
        values.iter().for_each(|&value| long.add(value));
        long.value()
    }

    #[test]
    fn sums_that_rounding_spoils() {
        let tiny = f64::from_bits(1);
        for (values, want) in [
            (&[][..], 0.0),
            (&[0.1, 0.2, 0.3], 0.6),
            (&[1e300, 1.0, -1e300], 1.0),
            (&[1e16, 1.0, 1.0], 1e16 + 2.0),
            (&[9_007_199_254_740_992.0, 1.0], 9_007_199_254_740_992.0),
            (&[9_007_199_254_740_992.0, 1.0, tiny], 9_007_199_254_740_994.0),
            (&[9_007_199_254_740_994.0, 1.0], 9_007_199_254_740_996.0),
            (&[tiny, tiny], 2.0 * tiny),
            (&[f64::MIN_POSITIVE, -tiny], f64::MIN_POSITIVE - tiny),
            (&[f64::MAX, f64::MAX, -f64::MAX], f64::MAX),
            (&[f64::MAX, f64::MAX], f64::INFINITY),
            (&[-3.5], -3.5),
            (&[1.0, f64::NEG_INFINITY], f64::NEG_INFINITY),
        ] {
            assert_eq!(sum(values), want, "{values:?}");
        }
        assert!(sum(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan() && sum(&[1.0, f64::NAN]).is_nan());
    }

    proptest! {
        #[test]
        fn one_float_is_itself_and_two_are_added(a in any::<f64>(), b in any::<f64>()) {
            prop_assume!(a.is_finite() && b.is_finite());
            prop_assert_eq!(sum(&[a]), a);
            // The sum of two floats is rounded once in hardware too.
            prop_assert_eq!(sum(&[a, b]), a + b);
        }

        #[test]
        fn any_order_and_any_merge_give_the_same(values in proptest::collection::vec(any::<f64>(), 0..40), at in 0usize..40) {
            let values: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
            let want = sum(&values);
            let mut backwards = values.clone();
            backwards.reverse();
            prop_assert_eq!(sum(&backwards).to_bits(), want.to_bits());
            let (head, tail) = values.split_at(at.min(values.len()));
            let (mut one, mut other) = (long(), long());
            head.iter().for_each(|&value| one.add(value));
            tail.iter().for_each(|&value| other.add(value));
            one.merge(&other);
            prop_assert_eq!(one.value().to_bits(), want.to_bits());
        }
    }
}
