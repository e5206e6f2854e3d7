//! Integers of many words, for what floats and 128 bits cannot hold exactly. Two's complement, least word first.

/// An integer of `N` 64-bit words. It wraps; whoever uses it knows that its values fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Wide<const N: usize>([u64; N]);

impl<const N: usize> Wide<N> {
    pub(super) const ZERO: Self = Wide([0; N]);

    /// `high * 2^64 + low`.
    pub(super) fn from_parts(low: u64, high: i64) -> Self {
        let mut words = [if high < 0 { u64::MAX } else { 0 }; N];
        words[0] = low;
        words[1] = high as u64;
        Wide(words)
    }

    pub(super) fn from_i128(value: i128) -> Self {
        Self::from_parts(value as u64, (value >> 64) as i64)
    }

    pub(super) fn is_negative(&self) -> bool {
        self.0[N - 1] >> 63 == 1
    }

    pub(super) fn is_zero(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    #[must_use]
    pub(super) fn plus(mut self, other: Self) -> Self {
        let mut carry = false;
        for (a, &b) in self.0.iter_mut().zip(&other.0) {
            let (sum, first) = a.overflowing_add(b);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            (*a, carry) = (sum, first | second);
        }
        self
    }

    #[must_use]
    pub(super) fn negated(mut self) -> Self {
        let mut carry = true;
        for word in &mut self.0 {
            (*word, carry) = (!*word).overflowing_add(u64::from(carry));
        }
        self
    }

    #[must_use]
    pub(super) fn minus(self, other: Self) -> Self {
        self.plus(other.negated())
    }

    /// Without its sign.
    #[must_use]
    pub(super) fn magnitude(self) -> Self {
        if self.is_negative() { self.negated() } else { self }
    }

    /// `self * 2^bits`; for negative `bits` rounded down.
    #[must_use]
    pub(super) fn shifted(self, bits: i32) -> Self {
        let fill = if self.is_negative() { u64::MAX } else { 0 };
        let word = |at: i64| match usize::try_from(at) {
            Ok(at) => self.0.get(at).copied().unwrap_or(fill),
            Err(_) => 0,
        };
        let (words, rest) = (i64::from(bits.div_euclid(64)), bits.rem_euclid(64) as u32);
        Wide(std::array::from_fn(|at| {
            let at = at as i64 - words;
            match rest {
                0 => word(at),
                rest => word(at) << rest | word(at - 1) >> (64 - rest),
            }
        }))
    }

    /// Times a number without sign.
    #[must_use]
    pub(super) fn times_word(self, by: u64) -> Self {
        let negative = self.is_negative();
        let mut out = self.magnitude();
        let mut carry = 0u128;
        for word in &mut out.0 {
            carry += u128::from(*word) * u128::from(by);
            *word = carry as u64;
            carry >>= 64;
        }
        if negative { out.negated() } else { out }
    }

    #[must_use]
    pub(super) fn times(self, other: Self) -> Self {
        let negative = self.is_negative() != other.is_negative();
        let (a, b) = (self.magnitude(), other.magnitude());
        let mut out = [0u64; N];
        for (i, &x) in a.0.iter().enumerate() {
            let mut carry = 0u128;
            for (slot, &y) in out[i..].iter_mut().zip(&b.0) {
                carry += u128::from(x) * u128::from(y) + u128::from(*slot);
                *slot = carry as u64;
                carry >>= 64;
            }
        }
        let out = Wide(out);
        if negative { out.negated() } else { out }
    }

    /// Divided by a number without sign, to the nearest, ties to even. `by` is not 0.
    #[must_use]
    pub(super) fn over_word(self, by: u64) -> Self {
        let negative = self.is_negative();
        let mut out = self.magnitude();
        let mut rest = 0u128;
        for word in out.0.iter_mut().rev() {
            let value = rest << 64 | u128::from(*word);
            *word = (value / u128::from(by)) as u64;
            rest = value % u128::from(by);
        }
        let twice = rest * 2;
        if twice > u128::from(by) || (twice == u128::from(by) && out.0[0] & 1 == 1) {
            out = out.plus(Self::from_parts(1, 0));
        }
        if negative { out.negated() } else { out }
    }

    /// As 128 bits, if it fits.
    pub(super) fn to_i128(self) -> Option<i128> {
        let low = i128::from(self.0[1] as i64) << 64 | i128::from(self.0[0]);
        (Self::from_i128(low) == self).then_some(low)
    }

    /// How many bits the magnitude has.
    fn bits(self) -> i32 {
        let top = self.0.iter().rposition(|&word| word != 0);
        top.map_or(0, |at| at as i32 * 64 + 64 - self.0[at].leading_zeros() as i32)
    }

    /// `self * 2^exponent` as the nearest float, ties to even.
    pub(super) fn to_float(self, exponent: i32) -> f64 {
        let sign = if self.is_negative() { -1.0 } else { 1.0 };
        let value = self.magnitude();
        let bits = value.bits();
        if bits == 0 {
            return 0.0;
        }
        let top = bits - 1 + exponent;
        if top > 1023 {
            return sign * f64::INFINITY;
        }
        // The exponent of the last bit that the float has.
        let last = (top - 52).max(-1074);
        let drop = last - exponent;
        let kept = value.shifted(-drop);
        let mut mantissa = kept.0[0];
        if drop > 0 {
            let rest = value.minus(kept.shifted(drop));
            let half = Self::from_parts(1, 0).shifted(drop - 1);
            let above = half.minus(rest);
            if above.is_negative() || (above.is_zero() && mantissa & 1 == 1) {
                mantissa += 1;
            }
        }
        let magnitude = if mantissa < 1 << 52 {
            f64::from_bits(mantissa)
        } else {
            // A mantissa that was rounded up to the next power of two carries into the exponent.
            f64::from_bits((((last + 1075) as u64) << 52) + (mantissa - (1 << 52)))
        };
        sign * magnitude
    }

    /// `self * 2^exponent` as a float from 1 to 2 and an exponent; (0, 0) for 0.
    pub(super) fn to_parts(self, exponent: i32) -> (f64, i32) {
        let bits = self.magnitude().bits();
        match bits {
            0 => (0.0, 0),
            bits => (self.to_float(1 - bits), bits - 1 + exponent),
        }
    }
}

/// `value * 2^exponent`.
pub(super) fn scaled(value: f64, exponent: i32) -> f64 {
    // Powers of two are exact as long as they are no subnormals: in steps.
    let mut left = exponent.clamp(-3000, 3000);
    let mut out = value;
    while left != 0 {
        let step = left.clamp(-900, 900);
        out *= f64::from_bits(((step + 1023) as u64) << 52);
        left -= step;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type W = Wide<6>;

    proptest! {
        #[test]
        fn agrees_with_128_bits(a in any::<i64>(), b in any::<i64>(), c in 1..u64::MAX, by in 0..60i32) {
            let (x, y) = (i128::from(a), i128::from(b));
            let (wa, wb) = (W::from_i128(x), W::from_i128(y));
            prop_assert_eq!(wa.plus(wb).to_i128(), Some(x + y));
            prop_assert_eq!(wa.minus(wb).to_i128(), Some(x - y));
            prop_assert_eq!(wa.times(wb).to_i128(), Some(x * y));
            prop_assert_eq!(wa.shifted(by).to_i128(), Some(x << by));
            prop_assert_eq!(wa.shifted(-by).to_i128(), Some(x >> by));
            prop_assert_eq!(wa.times_word(c).shifted(130).shifted(-130), wa.times_word(c));
            prop_assert_eq!(wa.times_word(c).over_word(c), wa);
            let (quotient, rest) = (x.unsigned_abs() / u128::from(c), x.unsigned_abs() % u128::from(c));
            let up = rest * 2 > u128::from(c) || (rest * 2 == u128::from(c) && quotient % 2 == 1);
            let want = (quotient + u128::from(up)) as i128 * if a < 0 { -1 } else { 1 };
            prop_assert_eq!(wa.over_word(c).to_i128(), Some(want));
        }

        #[test]
        fn floats_are_rounded_to_the_nearest(a in any::<i128>(), by in 0..200i32) {
            prop_assert_eq!(W::from_i128(a).to_float(0), a as f64);
            prop_assert_eq!(W::from_i128(a).shifted(by).to_float(-by), a as f64);
            let (value, exponent) = W::from_i128(a).to_parts(0);
            prop_assert_eq!(scaled(value, exponent), a as f64);
        }

        #[test]
        fn every_float_comes_back(bits in any::<u64>()) {
            let x = f64::from_bits(bits);
            prop_assume!(x.is_finite());
            let exponent = (bits >> 52 & 0x7ff) as i32;
            let mantissa = (bits & ((1 << 52) - 1)) | u64::from(exponent != 0) << 52;
            let wide = W::from_parts(mantissa, 0);
            let back = wide.to_float(exponent.max(1) - 1075);
            prop_assert_eq!(back.to_bits(), x.abs().to_bits());
        }
    }

    #[test]
    fn the_ends_of_the_floats() {
        assert_eq!(W::from_parts(1, 0).to_float(-1074), f64::from_bits(1));
        assert_eq!(W::from_parts(1, 0).to_float(-1075), 0.0);
        assert_eq!(W::from_parts(3, 0).to_float(-1076), f64::from_bits(1));
        assert_eq!(W::from_parts(u64::MAX, 0).to_float(960), f64::INFINITY);
        assert_eq!(W::from_parts(1, 0).negated().to_float(1024), f64::NEG_INFINITY);
        assert_eq!(W::ZERO.to_float(5), 0.0);
    }
}
