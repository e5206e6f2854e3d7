//! Decimals: unscaled i128 values of at most 38 digits. Every function gives `None` where the result does not fit.

use crate::expr::scalar::print::{Buf, write_decimal};
use std::cmp::Ordering;

/// The most digits a decimal has.
pub(in crate::expr) const DIGITS: u8 = 38;

/// 10^n for n up to 38.
pub(in crate::expr) const POWERS: [i128; 39] = {
    let mut powers = [1i128; 39];
    let mut i = 1;
    while i < 39 {
        powers[i] = powers[i - 1] * 10;
        i += 1;
    }
    powers
};

/// `value` if it has at most `precision` digits.
#[inline]
pub(in crate::expr) fn fit(value: i128, precision: u8) -> Option<i128> {
    (value.unsigned_abs() < POWERS[precision.min(DIGITS) as usize].unsigned_abs()).then_some(value)
}

/// `value * 10^by`, rounded half to even where digits are lost.
#[inline]
pub(in crate::expr) fn shift(value: i128, by: i32) -> Option<i128> {
    if value == 0 || by == 0 {
        return Some(value);
    }
    if by > 0 {
        return value.checked_mul(*POWERS.get(by as usize)?);
    }
    let Some(&power) = POWERS.get(by.unsigned_abs() as usize) else {
        return Some(0);
    };
    Some(half_even(value, power))
}

/// `value / by` to the nearest integer, ties to even; `by` is positive.
fn half_even(value: i128, by: i128) -> i128 {
    let (quotient, rest) = (value / by, value % by);
    let twice = rest.unsigned_abs() * 2;
    let up = match twice.cmp(&by.unsigned_abs()) {
        Ordering::Greater => true,
        Ordering::Equal => quotient % 2 != 0,
        Ordering::Less => false,
    };
    quotient + if up { value.signum() } else { 0 }
}

/// Compares values of different scales exactly.
#[inline]
pub(in crate::expr) fn compare(a: i128, a_scale: u8, b: i128, b_scale: u8) -> Ordering {
    if a_scale == b_scale {
        return a.cmp(&b);
    }
    // What overflows when scaled up is greater in magnitude than anything of 38 digits.
    if a_scale < b_scale {
        match a.checked_mul(POWERS[(b_scale - a_scale) as usize]) {
            Some(a) => a.cmp(&b),
            None => a.cmp(&0),
        }
    } else {
        compare(b, b_scale, a, a_scale).reverse()
    }
}

/// `a / b` at `scale`, half to even; `b` is not 0.
pub(in crate::expr) fn divide(a: i128, a_scale: u8, b: i128, b_scale: u8, scale: u8) -> Option<i128> {
    // a / 10^sa / (b / 10^sb) * 10^s = a * 10^(s + sb - sa) / b; s >= sa, so the power is not negative.
    let power = i32::from(scale) + i32::from(b_scale) - i32::from(a_scale);
    let negative = (a < 0) != (b < 0);
    let divisor = b.unsigned_abs();
    // Digit by digit: the quotient is checked at each step, the remainder stays below the divisor (< 10^38 < 2^127).
    let mut quotient = a.unsigned_abs() / divisor;
    let mut rest = a.unsigned_abs() % divisor;
    for _ in 0..power {
        let (digit, next) = ten_times(rest, divisor);
        quotient = quotient.checked_mul(10)?.checked_add(digit)?;
        rest = next;
    }
    let half = rest >= divisor - rest && rest != 0;
    let tie = half && rest == divisor - rest;
    if half && (!tie || quotient % 2 == 1) {
        quotient += 1;
    }
    let value = i128::try_from(quotient).ok()?;
    fit(if negative { -value } else { value }, DIGITS)
}

/// `(10 * rest / divisor, 10 * rest % divisor)` without overflow; `rest < divisor < 2^127`.
fn ten_times(rest: u128, divisor: u128) -> (u128, u128) {
    if let Some(ten) = rest.checked_mul(10) {
        return (ten / divisor, ten % divisor);
    }
    // 10 = 2 * (2 * 2 + 1); doubling a number below 2^127 fits u128.
    let double = |(digit, rest): (u128, u128)| {
        let twice = rest * 2;
        (
            digit * 2 + u128::from(twice >= divisor),
            if twice >= divisor { twice - divisor } else { twice },
        )
    };
    let (digit, four) = double(double((0, rest)));
    let five = four + rest;
    let five = (
        digit + u128::from(five >= divisor),
        if five >= divisor { five - divisor } else { five },
    );
    double(five)
}

/// `a * b`, unscaled, within 38 digits.
#[inline]
pub(in crate::expr) fn multiply(a: i128, b: i128) -> Option<i128> {
    fit(a.checked_mul(b)?, DIGITS)
}

/// The nearest decimal of `scale`, if there is one of at most `precision` digits.
pub(in crate::expr) fn from_float(value: f64, precision: u8, scale: u8) -> Option<i128> {
    if !value.is_finite() {
        return None;
    }
    // Through the shortest text, so that 0.1 is 0.1 and not 0.1000000000000000055….
    let mut buffer = zmij::Buffer::new();
    let (value, exponent) = parts(buffer.format_finite(value).as_bytes())?;
    fit(shift(value, exponent + i32::from(scale))?, precision)
}

/// A number as a script or `zmij` writes it, as `value * 10^exponent`; zeros at the end beyond 38 digits are allowed, other digits not.
pub(in crate::expr) fn parts(text: &[u8]) -> Option<(i128, i32)> {
    let (negative, rest) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let mut value = 0i128;
    let mut exponent = 0i32;
    let mut behind = false;
    for (i, &byte) in rest.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                let digit = i128::from(byte - b'0');
                match value.checked_mul(10).and_then(|v| v.checked_add(digit)) {
                    Some(next) => {
                        value = next;
                        exponent -= i32::from(behind);
                    }
                    None if digit == 0 || behind => exponent += i32::from(!behind),
                    None => return None,
                }
            }
            b'.' => behind = true,
            b'_' => {}
            b'e' | b'E' => {
                let text = std::str::from_utf8(&rest[i + 1..]).ok()?;
                exponent = exponent.checked_add(text.parse().ok()?)?;
                break;
            }
            _ => return None,
        }
    }
    Some((if negative { -value } else { value }, exponent))
}

/// The nearest float.
pub(in crate::expr) fn to_float(value: i128, scale: u8) -> f64 {
    const EXACT: i128 = 1 << 53;
    if value.abs() <= EXACT && scale <= 22 {
        // Both are exact, so the quotient is rounded once.
        return value as f64 / POWERS[scale as usize] as f64;
    }
    let mut text = Buf::default();
    write_decimal(&mut text, value, scale);
    text.as_str().parse().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_half_even_and_division_is_exact_beyond_128_bits() {
        assert_eq!(
            [shift(25, -1), shift(35, -1), shift(-25, -1), shift(26, -1)],
            [2, 4, -2, 3].map(Some)
        );
        assert_eq!(divide(1, 0, 3, 0, 12), Some(333_333_333_333));
        assert_eq!(divide(-2, 0, 3, 0, 12), Some(-666_666_666_667));
        let big = POWERS[38] - 1;
        assert_eq!(divide(big, 38, big, 38, 38), None);
        assert_eq!(divide(big, 38, big, 38, 12), Some(POWERS[12]));
        assert_eq!(divide(1, 0, big, 0, 38), Some(1));
        assert_eq!(compare(POWERS[37], 0, 1, 38), Ordering::Greater);
        assert_eq!(compare(-POWERS[37], 0, 1, 38), Ordering::Less);
        assert_eq!(from_float(0.1, 38, 20), Some(POWERS[19]));
        assert_eq!(to_float(15, 1), 1.5);
    }
}
