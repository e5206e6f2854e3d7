//! How often numbers of about the same size came.
//!
//! A bucket is what numbers have in common whose sign, exponent and first bits of the mantissa are the same. So it is found with a shift,
//! the same on every machine, and its middle is off by a share of the number that hangs on the number of bits only.
//!
//! Laws
//! - A histogram hangs on which numbers it was given, not on their order nor on which histograms were put together.
//! - Nothing is left out, and no bucket is given up for another: the promised error is that of every number.

/// How many buckets there is room for more when all are taken: the most that one number adds is as many bytes as these have.
const STEP: usize = 4;
/// Bytes that a number adds, at most.
pub(crate) const ROW_BYTES: usize = STEP * size_of::<(i32, u64)>();

/// How fine buckets are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Precision {
    /// Bits of the mantissa that count.
    bits: u32,
}

/// The bucket of what is no number: behind all others.
const NAN: i32 = i32::MAX;
const MANTISSA: u32 = 52;
const MOST_BITS: u32 = 16;

impl Precision {
    /// The coarsest that is off by `error` of a number at most; `None` where there is none.
    pub(crate) fn of(error: f64) -> Option<Precision> {
        (0..=MOST_BITS)
            .map(|bits| Precision { bits })
            .find(|precision| precision.error() <= error)
    }

    /// The share of a number by which the middle of its bucket is off, at most.
    pub(crate) fn error(self) -> f64 {
        0.5 / f64::from(1u32 << self.bits)
    }

    /// Buckets ascend as numbers do. Numbers too small for an exponent of their own are 0.
    fn bucket(self, x: f64) -> i32 {
        if x.is_nan() {
            return NAN;
        }
        if x.abs() < f64::MIN_POSITIVE {
            return 0;
        }
        let size = (x.abs().to_bits() >> (MANTISSA - self.bits)) as i32;
        if x < 0.0 { -size } else { size }
    }

    /// The middle of a bucket.
    fn middle(self, bucket: i32) -> f64 {
        if bucket == NAN || bucket == 0 {
            return if bucket == NAN { f64::NAN } else { 0.0 };
        }
        let edge = |size: u32| f64::from_bits(u64::from(size) << (MANTISSA - self.bits));
        let least = edge(bucket.unsigned_abs());
        let size = match edge(bucket.unsigned_abs() + 1) {
            // The next edge may be the first one that is no number; and infinity has none.
            most if most.is_finite() => least + (most - least) / 2.0,
            _ if least.is_finite() => least + (f64::MAX - least) / 2.0,
            _ => least,
        };
        if bucket < 0 { -size } else { size }
    }
}

/// Counts by bucket, and the ends.
#[derive(Clone, PartialEq, Debug)]
pub struct Histogram {
    /// Ascending, each with how often it came.
    buckets: Vec<(i32, u64)>,
    least: f64,
    most: f64,
}

impl Histogram {
    pub(crate) const EMPTY: Histogram = Histogram {
        buckets: vec![],
        least: f64::INFINITY,
        most: f64::NEG_INFINITY,
    };

    pub(crate) fn add(&mut self, x: f64, precision: Precision) {
        // Zero has one sign.
        let x = x + 0.0;
        self.ends(x, x);
        let bucket = precision.bucket(x);
        match self.buckets.binary_search_by_key(&bucket, |&(bucket, _)| bucket) {
            Ok(at) => self.buckets[at].1 += 1,
            Err(at) => {
                if self.buckets.len() == self.buckets.capacity() {
                    self.buckets.reserve_exact(STEP);
                }
                self.buckets.insert(at, (bucket, 1));
            }
        }
    }

    fn ends(&mut self, least: f64, most: f64) {
        // What is no number is passed over by both.
        self.least = self.least.min(least);
        self.most = self.most.max(most);
    }

    pub(crate) fn merge(&mut self, other: &Histogram) {
        self.ends(other.least, other.most);
        let is_new = |&&(bucket, _): &&(i32, u64)| {
            self.buckets
                .binary_search_by_key(&bucket, |&(bucket, _)| bucket)
                .is_err()
        };
        let new = other.buckets.iter().filter(is_new).count();
        self.buckets
            .reserve_exact(new.saturating_sub(self.buckets.capacity() - self.buckets.len()));
        let (mut own, mut theirs) = (self.buckets.len(), other.buckets.len());
        self.buckets.resize(own + new, (0, 0));
        // From behind, in place: what is moved has not been read over yet.
        for to in (0..self.buckets.len()).rev() {
            let mine = own.checked_sub(1).map(|at| self.buckets[at]);
            let other = theirs.checked_sub(1).map(|at| other.buckets[at]);
            self.buckets[to] = match (mine, other) {
                (Some((a, n)), Some((b, m))) if a == b => {
                    (own, theirs) = (own - 1, theirs - 1);
                    (a, n + m)
                }
                (Some(mine), Some(other)) if mine.0 > other.0 => {
                    own -= 1;
                    mine
                }
                (_, Some(other)) => {
                    theirs -= 1;
                    other
                }
                (Some(mine), None) => {
                    own -= 1;
                    mine
                }
                (None, None) => break,
            };
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    pub(crate) fn least(&self) -> f64 {
        if self.least <= self.most { self.least } else { f64::NAN }
    }

    pub(crate) fn most(&self) -> f64 {
        match self.buckets.last() {
            Some((NAN, _)) => f64::NAN,
            _ => self.most,
        }
    }

    /// About the first number, in ascending order, at which that share of all is reached; `None` if there are none.
    pub(crate) fn quantile(&self, share: f64, precision: Precision) -> Option<f64> {
        let count = self.count();
        // At least the first, at most the last.
        let wanted = ((share * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        let (bucket, _) = self.buckets.iter().find(|(_, count)| {
            seen += count;
            seen >= wanted
        })?;
        let middle = precision.middle(*bucket);
        // No number is beyond the ends, which are known.
        Some(match middle.is_nan() {
            true => middle,
            false if wanted == 1 => self.least,
            false if wanted == count => self.most(),
            false => middle.clamp(self.least, self.most),
        })
    }

    /// Appends the bytes of a state.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        number(self.buckets.len() as u64, out);
        if self.buckets.is_empty() {
            return;
        }
        out.extend_from_slice(&self.least.to_bits().to_le_bytes());
        out.extend_from_slice(&self.most.to_bits().to_le_bytes());
        let mut before = i64::from(i32::MIN);
        for &(bucket, count) in &self.buckets {
            number((i64::from(bucket) - before) as u64, out);
            number(count, out);
            before = i64::from(bucket);
        }
    }

    /// The state that gave those bytes; `None` if none did.
    pub(crate) fn read(mut bytes: &[u8]) -> Option<Histogram> {
        let bytes = &mut bytes;
        let buckets = usize::try_from(read(bytes)?).ok()?;
        let mut out = Histogram::EMPTY;
        if buckets == 0 {
            return bytes.is_empty().then_some(out);
        }
        let mut float = || {
            let (float, rest) = bytes.split_first_chunk()?;
            *bytes = rest;
            Some(f64::from_bits(u64::from_le_bytes(*float)))
        };
        (out.least, out.most) = (float()?, float()?);
        // A bucket has two bytes at least.
        if buckets > bytes.len() / 2 {
            return None;
        }
        out.buckets.reserve_exact(buckets);
        let mut before = i64::from(i32::MIN);
        for _ in 0..buckets {
            before = before.checked_add_unsigned(read(bytes)?)?;
            out.buckets.push((i32::try_from(before).ok()?, read(bytes)?));
        }
        let ascends = out.buckets.windows(2).all(|pair| pair[0].0 < pair[1].0);
        (bytes.is_empty() && ascends).then_some(out)
    }

    /// Bytes of the heap that the state of these bytes takes.
    pub(crate) fn room_of(mut bytes: &[u8]) -> usize {
        let buckets = read(&mut bytes).unwrap_or(0) as usize;
        buckets.min(bytes.len() / 2 + 1) * size_of::<(i32, u64)>()
    }
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
fn number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn read(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7F).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    fn of(numbers: &[f64], precision: Precision) -> Histogram {
        let mut histogram = Histogram::EMPTY;
        numbers.iter().for_each(|&x| histogram.add(x, precision));
        histogram
    }

    fn bytes(histogram: &Histogram) -> Vec<u8> {
        let mut out = vec![];
        histogram.write(&mut out);
        out
    }

    #[test]
    fn the_middle_of_a_bucket_is_off_by_no_more_than_was_said() {
        for error in [0.5, 0.1, 0.01, 0.001, 0.000_01] {
            let precision = Precision::of(error).unwrap();
            assert!(precision.error() <= error);
            let mut x = 1e-300f64;
            while x < 1e300 {
                for x in [x, -x] {
                    let middle = precision.middle(precision.bucket(x));
                    assert!((middle - x).abs() <= x.abs() * error, "{x} is {middle}");
                }
                x *= 1.017;
            }
        }
        assert_eq!(Precision::of(1e-9), None);
    }

    #[test]
    fn buckets_ascend_and_the_odd_ones_have_their_place() {
        let precision = Precision::of(0.01).unwrap();
        let ascending = [
            f64::NEG_INFINITY,
            f64::MIN,
            -1.0,
            -f64::MIN_POSITIVE,
            0.0,
            f64::MIN_POSITIVE,
            1.0,
            f64::MAX,
            f64::INFINITY,
            f64::NAN,
        ];
        let buckets: Vec<i32> = ascending.iter().map(|&x| precision.bucket(x)).collect();
        assert!(buckets.is_sorted_by(|a, b| a < b), "{buckets:?}");
        for x in ascending {
            let middle = precision.middle(precision.bucket(x));
            assert!(
                middle.is_nan() == x.is_nan() && middle.is_infinite() == x.is_infinite(),
                "{x}: {middle}"
            );
        }
        assert_eq!(precision.bucket(-0.0), 0);
        assert_eq!(of(&[], precision).quantile(0.5, precision), None);
    }

    #[test]
    fn bytes_that_are_none_are_refused() {
        let whole = bytes(&of(&[1.0, 2.0, -3.0, 1.0], Precision::of(0.01).unwrap()));
        assert!(Histogram::read(&whole).is_some());
        for len in 0..whole.len() {
            assert_eq!(Histogram::read(&whole[..len]), None, "{len}");
        }
        for bad in [&[1u8][..], &[0, 0], &[0xFF; 12]] {
            assert_eq!(Histogram::read(bad), None);
        }
    }

    proptest! {
        #[test]
        fn the_parts_together_are_the_whole(
            numbers in proptest::collection::vec(proptest::num::f64::ANY, 0..200),
            cut in 0usize..200,
        ) {
            let precision = Precision::of(0.02).unwrap();
            let cut = cut.min(numbers.len());
            let whole = of(&numbers, precision);
            let (mut a, mut b) = (of(&numbers[..cut], precision), of(&numbers[cut..], precision));
            let (first, second) = (a.clone(), b.clone());
            a.merge(&second);
            b.merge(&first);
            prop_assert_eq!(&bytes(&a), &bytes(&whole));
            prop_assert_eq!(&bytes(&b), &bytes(&whole));
            let back = Histogram::read(&bytes(&whole)).unwrap();
            prop_assert_eq!(bytes(&back), bytes(&whole));
            prop_assert!(back.buckets.capacity() * size_of::<(i32, u64)>() <= Histogram::room_of(&bytes(&whole)));
        }

        #[test]
        fn quantiles_are_near_the_true_ones(
            mut numbers in proptest::collection::vec(-1e6f64..1e6, 1..200),
            share in 0f64..=1.0,
        ) {
            let precision = Precision::of(0.01).unwrap();
            let got = of(&numbers, precision).quantile(share, precision).unwrap();
            numbers.sort_by(f64::total_cmp);
            let rank = ((share * numbers.len() as f64).ceil() as usize).clamp(1, numbers.len());
            let want = numbers[rank - 1];
            prop_assert!((got - want).abs() <= want.abs() * 0.01, "{} for {}", got, want);
        }
    }
}
