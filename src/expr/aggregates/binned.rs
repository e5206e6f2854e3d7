//! Sums of floats that have the same bits in any order.
//!
//! How: the number line is cut into bins of 40 bits, at places fixed once for all. A sum keeps the bins of the largest value so far
//! and the two below as three exact integers, each wide enough that nothing is ever carried from one to the next. A value is cut at
//! the same places and its pieces are added; what lies below the third bin is dropped. A larger value moves the bins up, and
//! what falls out below is what would have been dropped, had it come first.
//!
//! Laws
//! - The state depends on the multiset of values added, not on their order or on how partial sums were merged.
//! - The error of a sum of n values is below n * 2^-80 of the largest one, and half a unit in the last place of the result.
//! - nan if a value is nan or both infinities are there; an infinity if one is; never -0.0.
//!
//! What will bite: a carry between the windows would be the end of the first law, since it would survive when the bins below
//! are dropped. So each has 96 bits for pieces of 40: room for 2^55 values.

use super::wide::Wide;

/// Bits of a bin.
const BIN: i32 = 40;
const PIECE: u64 = (1 << BIN) - 1;
/// A float's mantissa starts this many bits above the lowest of its three bins, at least.
const LIFT: i32 = 28;
/// Exponent of the lowest bit of a float.
const LOWEST: i32 = -1074;

const SEEN: u16 = 1;
const POSITIVE: u16 = 2;
const NEGATIVE: u16 = 4;
const NAN: u16 = 8;

/// A sum of floats, in 40 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Sum {
    /// The windows, lowest first: `high * 2^64 + low` each. `high` is seldom touched: only when `low` overflows.
    low: [i64; 3],
    high: [i32; 3],
    /// Exponent of the lowest window's lowest bit, above `LOWEST`: a multiple of `BIN` less `LIFT`.
    base: i16,
    flags: u16,
}

impl Default for Sum {
    fn default() -> Self {
        Sum {
            low: [0; 3],
            high: [0; 3],
            base: -LIFT as i16,
            flags: 0,
        }
    }
}

impl Sum {
    /// Adds a value.
    #[inline(always)]
    pub fn add(&mut self, x: f64) {
        let bits = x.to_bits();
        let exponent = (bits >> 52) as i32 & 0x7ff;
        let normal = i32::from(exponent != 0);
        let mantissa = bits & ((1 << 52) - 1) | (normal as u64) << 52;
        let place = exponent - normal;
        let mut shift = place - i32::from(self.base);
        self.flags |= SEEN;
        if shift >= LIFT + BIN || exponent == 0x7ff {
            if exponent == 0x7ff {
                return self.special(x);
            }
            self.raise(place);
            shift = place - i32::from(self.base);
        }
        let frame = if shift >= 0 {
            u128::from(mantissa) << shift
        } else if shift > -64 {
            u128::from(mantissa >> -shift)
        } else {
            0
        };
        let sign = (bits as i64 >> 63) as u64;
        let pieces = [
            frame as u64 & PIECE,
            (frame >> BIN) as u64 & PIECE,
            (frame >> (2 * BIN)) as u64,
        ];
        for (i, piece) in pieces.into_iter().enumerate() {
            self.add_to(i, (piece ^ sign).wrapping_sub(sign) as i64);
        }
    }

    /// Adds to a window.
    #[inline(always)]
    fn add_to(&mut self, window: usize, piece: i64) {
        let (low, overflows) = self.low[window].overflowing_add(piece);
        self.low[window] = low;
        if overflows {
            self.carry(window, piece);
        }
    }

    #[cold]
    fn carry(&mut self, window: usize, piece: i64) {
        self.high[window] += if piece < 0 { -1 } else { 1 };
    }

    /// A window in two's complement: the upper word and the lower one.
    #[inline]
    fn window(&self, i: usize) -> (i64, u64) {
        (i64::from(self.high[i]) + (self.low[i] >> 63), self.low[i] as u64)
    }

    #[cold]
    fn special(&mut self, x: f64) {
        self.flags |= if x.is_nan() {
            NAN
        } else if x > 0.0 {
            POSITIVE
        } else {
            NEGATIVE
        };
    }

    /// Moves the windows up until a value at `place` fits.
    #[inline(never)]
    fn raise(&mut self, place: i32) {
        self.raise_to((place / BIN * BIN - LIFT) as i16);
    }

    fn raise_to(&mut self, base: i16) {
        let by = i32::from(base - self.base) / BIN;
        for i in 0..3 {
            let from = i + by.clamp(0, 3) as usize;
            self.low[i] = self.low.get(from).copied().unwrap_or(0);
            self.high[i] = self.high.get(from).copied().unwrap_or(0);
        }
        self.base = base;
    }

    /// Adds what another sum has.
    pub fn merge(&mut self, other: &Sum) {
        let mut other = *other;
        if other.base > self.base {
            self.raise_to(other.base);
        } else {
            other.raise_to(self.base);
        }
        for i in 0..3 {
            self.add_to(i, other.low[i]);
            self.high[i] += other.high[i];
        }
        self.flags |= other.flags;
    }

    /// Reads a little of it, at both ends: it may lie across two lines of the processor's cache.
    #[inline]
    pub(super) fn touch(&self) -> u64 {
        self.low[0] as u64 ^ u64::from(self.flags)
    }

    /// Whether any value was added.
    pub(super) fn is_empty(&self) -> bool {
        self.flags & SEEN == 0
    }

    /// The infinity or nan that the sum is, if it is one.
    pub(super) fn not_finite(&self) -> Option<f64> {
        match self.flags & (POSITIVE | NEGATIVE | NAN) {
            0 => None,
            POSITIVE => Some(f64::INFINITY),
            NEGATIVE => Some(f64::NEG_INFINITY),
            _ => Some(f64::NAN),
        }
    }

    /// The finite part, exactly: an integer and the exponent of its lowest bit.
    pub(super) fn exact<const N: usize>(&self) -> (Wide<N>, i32) {
        let mut sum = Wide::ZERO;
        for i in 0..3 {
            let (high, low) = self.window(i);
            sum = sum.plus(Wide::from_parts(low, high).shifted(i as i32 * BIN));
        }
        (sum, i32::from(self.base) + LOWEST)
    }

    /// The sum, rounded once.
    pub(super) fn value(&self) -> f64 {
        self.not_finite().unwrap_or_else(|| self.rounded().0)
    }

    /// The sum over `count`, which is not 0: right to within a hair of half a unit in the last place.
    pub fn mean(&self, count: u64) -> f64 {
        if let Some(value) = self.not_finite() {
            return value;
        }
        let (sum, lost) = self.rounded();
        let n = count as f64;
        let mean = sum / n;
        if !mean.is_finite() {
            // The sum is no float; the mean is.
            let (sum, exponent) = self.exact::<6>();
            return sum.shifted(64).over_word(count).to_float(exponent - 64);
        }
        mean + ((-mean).mul_add(n, sum) + lost) / n
    }

    /// The finite part as a float, and what rounding lost.
    #[inline]
    fn rounded(&self) -> (f64, f64) {
        if let Some(rounded) = self.rounded_short() {
            return rounded;
        }
        let (sum, exponent) = self.exact::<4>();
        let value = sum.to_float(exponent);
        (value, 0.0)
    }

    /// The same where the sum has at most 127 bits and no end of the floats is near: nearly always.
    #[inline]
    fn rounded_short(&self) -> Option<(f64, f64)> {
        let window = |i: usize| (i128::from(self.high[i]) << 64) + i128::from(self.low[i]);
        let (low, middle) = (window(0), window(1));
        let carried = middle.checked_add(low >> BIN)?;
        let top = window(2).checked_add(carried >> BIN)?;
        let piece = i128::from(PIECE);
        if top >> 46 != top >> 127 {
            return None;
        }
        let sum = top << (2 * BIN) | (carried & piece) << BIN | low & piece;
        let exponent = i32::from(self.base) + LOWEST;
        if !(-900..800).contains(&exponent) {
            return None;
        }
        let unit = f64::from_bits(((exponent + 1023) as u64) << 52);
        let value = sum as f64;
        let lost = sum.wrapping_sub(value as i128) as f64;
        Some((value * unit, lost * unit))
    }

    /// As five ints, for a partial state.
    pub(super) fn to_words(self) -> [i64; 5] {
        let half = |value: i32| u64::from(value as u32);
        let last = half(self.high[2]) | u64::from(self.base as u16) << 32 | u64::from(self.flags) << 48;
        [
            self.low[0],
            self.low[1],
            self.low[2],
            (half(self.high[0]) | half(self.high[1]) << 32) as i64,
            last as i64,
        ]
    }

    /// Out of five ints.
    pub(super) fn from_words(words: [i64; 5]) -> Sum {
        let [a, b, c, high, last] = words;
        let (high, last) = (high as u64, last as u64);
        Sum {
            low: [a, b, c],
            high: [high as i32, (high >> 32) as i32, last as i32],
            base: (last >> 32) as i16,
            flags: (last >> 48) as u16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Wide enough for every float and the sum of any that a test adds.
    type Exact = Wide<36>;

    fn exact(values: &[f64]) -> Exact {
        values.iter().fold(Exact::ZERO, |sum, &x| {
            let bits = x.to_bits();
            let exponent = (bits >> 52 & 0x7ff) as i32;
            let mantissa = bits & ((1 << 52) - 1) | u64::from(exponent != 0) << 52;
            let value = Exact::from_parts(mantissa, 0).shifted(exponent.max(1) - 1);
            if x < 0.0 { sum.minus(value) } else { sum.plus(value) }
        })
    }

    fn sum(values: &[f64]) -> Sum {
        let mut sum = Sum::default();
        values.iter().for_each(|&x| sum.add(x));
        sum
    }

    fn floats() -> impl Strategy<Value = Vec<f64>> {
        let near = (-30..30i32, any::<i64>()).prop_map(|(e, m)| m as f64 * 2f64.powi(e - 62));
        let every = any::<u64>()
            .prop_map(f64::from_bits)
            .prop_filter("finite", |x| x.is_finite());
        let price = (0..100_000i64).prop_map(|cents| cents as f64 / 100.0);
        let far = (-300..300i32, any::<i64>()).prop_map(|(e, m)| m as f64 * 2f64.powi(e));
        prop_oneof![
            proptest::collection::vec(near, 0..80),
            proptest::collection::vec(every, 0..80),
            proptest::collection::vec(far, 0..80),
            proptest::collection::vec(price, 0..80),
            proptest::collection::vec(
                prop_oneof![Just(0.0), Just(-0.0), Just(1e300), Just(-1e300), Just(1.0)],
                0..80
            ),
        ]
    }

    /// Adds the values of a shuffled list in the tree that `cuts` gives.
    fn tree(values: &[f64], cuts: &mut impl Iterator<Item = usize>) -> Sum {
        if values.len() < 2 {
            return sum(values);
        }
        match cuts.next() {
            Some(cut) if !cut.is_multiple_of(4) => {
                let (a, b) = values.split_at(cut % values.len());
                let mut a = tree(a, cuts);
                a.merge(&tree(b, cuts));
                Sum::from_words(a.to_words())
            }
            _ => sum(values),
        }
    }

    proptest! {
        #[test]
        fn any_order_and_any_merge_tree_give_the_same_bits(
            values in floats(),
            seed in any::<u64>(),
            cuts in proptest::collection::vec(any::<usize>(), 0..40),
        ) {
            let want = sum(&values);
            let mut shuffled = values;
            shuffled.sort_by_key(|x| (x.to_bits() ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let mut cuts = cuts.into_iter();
            prop_assert_eq!(tree(&shuffled, &mut cuts), want);
            shuffled.sort_by(f64::total_cmp);
            prop_assert_eq!(tree(&shuffled, &mut cuts), want);
        }

        #[test]
        fn the_error_is_what_the_laws_say(values in floats()) {
            let exact_sum = exact(&values);
            let rounded = exact_sum.to_float(LOWEST);
            let ours = sum(&values).value();
            prop_assume!(rounded.is_finite() && ours.is_finite());
            // n * 2^-80 of the largest, in units of 2^-80 of the lowest bit of a float, and half a unit of the result.
            let largest = values.iter().fold(0f64, |m, x| m.max(x.abs()));
            let part = exact(&[largest]).times_word(values.len() as u64);
            let unit = f64::from_bits(ours.abs().to_bits() + 1) - ours.abs();
            let half = exact(&[unit]).shifted(79);
            let error = exact(&[ours]).minus(exact_sum).magnitude().shifted(80);
            prop_assert!(!part.plus(half).minus(error).is_negative(), "{ours} {rounded}");
        }

        #[test]
        fn what_is_not_finite_is_what_any_order_gives(
            values in proptest::collection::vec(
                prop_oneof![Just(1.5), Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(f64::NAN)], 0..6),
        ) {
            let want: f64 = values.iter().sum();
            let ours = sum(&values).value();
            prop_assert!(ours == want || (ours.is_nan() && want.is_nan()), "{ours} {want}");
        }
    }

    #[test]
    fn means_are_rounded_once() {
        assert_eq!(sum(&[0.1, 0.2, 0.3]).mean(3), 0.2);
        assert_eq!(sum(&[f64::MAX, f64::MAX]).mean(2), f64::MAX);
        assert_eq!(sum(&[1.0, 1.0, 2.0]).mean(3), 4.0 / 3.0);
        assert_eq!(sum(&[1e16, 1.0, 1.0]).mean(3), 1e16 / 3.0 + 2.0 / 3.0);
        assert_eq!(sum(&[-0.0]).mean(1).to_bits(), 0);
    }

    #[test]
    fn a_window_that_overflows_is_carried() {
        let mut large = Sum {
            low: [i64::MAX, i64::MIN, i64::MAX - 1],
            ..Sum::default()
        };
        let mut other = large;
        for (i, piece) in [1, -1, 2].into_iter().enumerate() {
            large.add_to(i, piece);
        }
        assert_eq!((large.low, large.high), ([i64::MIN, i64::MAX, i64::MIN], [1, -1, 1]));
        assert_eq!(large.window(0), (0, 1 << 63));
        assert_eq!(large.window(1), (-1, i64::MAX as u64));
        other.merge(&large);
        assert_eq!((other.low, other.high), ([-1, -1, -2], [1, -1, 1]));
        assert_eq!(Sum::from_words(other.to_words()), other);
    }

    #[test]
    fn small_sums_are_exact() {
        assert_eq!(sum(&[0.1, 0.2]).value(), 0.1 + 0.2);
        assert_eq!(sum(&[1e16, 1.0, -1e16]).value(), 1.0);
        assert_eq!(sum(&[1e300, 1.0, -1e300]).value(), 0.0);
        assert_eq!(sum(&[f64::MAX, f64::MAX, -f64::MAX]).value(), f64::MAX);
        assert_eq!(sum(&[f64::MAX, f64::MAX]).value(), f64::INFINITY);
        assert_eq!(sum(&[-0.0]).value().to_bits(), 0);
        assert_eq!(sum(&[f64::from_bits(1), f64::from_bits(1)]).value(), f64::from_bits(2));
        assert_eq!(size_of::<Sum>(), 40);
        assert!(sum(&[]).is_empty() && !sum(&[0.0]).is_empty());
    }
}
