//! `variance`, `stddev`, `corr`: of a sample (n - 1).
//!
//! Sums of values and of products are binned, a product as its float and what the rounding lost. n Σx² - (Σx)² is then computed
//! in whole numbers and rounded once, so a large mean costs no digits: the error is below n * 2^-78 of the largest square.

use super::binned::Sum;
use super::fixed::{Fixed, Plain, int_column, ints, optional};
use super::store::{float_word, word_float};
use super::sums::{sum_at, sum_columns};
use super::wide::{Wide, scaled};
use crate::expr::aggregate::{AggregateSpec, Bound, Example};
use crate::expr::{Given, ParamSpec, Pattern};
use standpipe_sdk::aggregate::{Input, OnFault, ResultNulls};
use standpipe_sdk::{Arena, Column, Columns, Data, Result, Type};
use std::sync::Arc;

pub(super) const AGGREGATES: &[AggregateSpec] = &[
    AggregateSpec {
        name: "variance",
        about: "The variance of a sample (n - 1); null below two values.",
        params: &[ParamSpec::new("x", Pattern::Float)],
        returns: "float",
        examples: &[
            Example::new("[{v: 1}, {v: 2}, {v: 6}]", "variance(v)", "7.0"),
            Example::new("[{v: 1}]", "variance(v)", "null"),
        ],
        bind: variance,
        ..AggregateSpec::BASE
    },
    AggregateSpec {
        name: "stddev",
        about: "The standard deviation of a sample (n - 1); null below two values.",
        params: &[ParamSpec::new("x", Pattern::Float)],
        returns: "float",
        examples: &[Example::new("[{v: 1.0}, {v: 3.0}, {v: 5.0}]", "stddev(v)", "2.0")],
        bind: stddev,
        ..AggregateSpec::BASE
    },
    AggregateSpec {
        name: "corr",
        about: "The correlation of two columns (Pearson), over rows with both; null where one of them does not vary.",
        params: &[ParamSpec::new("x", Pattern::Float), ParamSpec::new("y", Pattern::Float)],
        returns: "float",
        examples: &[Example::new(
            "[{x: 1, y: 2}, {x: 2, y: 4}, {x: 3, y: 6}]",
            "corr(x, y)",
            "1.0",
        )],
        bind: corr,
        ..AggregateSpec::BASE
    },
];

/// Wide enough for n * n * the square of a sum's three windows.
type Big = Wide<12>;

fn variance(_: &[Given<'_>]) -> Bound {
    Ok(plain("variance", Moments { root: false }))
}

fn stddev(_: &[Given<'_>]) -> Bound {
    Ok(plain("stddev", Moments { root: true }))
}

fn corr(_: &[Given<'_>]) -> Bound {
    Ok(plain("corr", Corr))
}

fn plain<F: Fixed>(name: &'static str, fixed: F) -> Arc<Plain<F>> {
    Arc::new(Plain {
        name,
        ty: Type::Float,
        nulls: ResultNulls::Some,
        fallible: false,
        fixed,
    })
}

/// Adds `x * y` exactly.
#[inline]
fn add_product(sum: &mut Sum, x: f64, y: f64) {
    let product = x * y;
    sum.add(product);
    let lost = x.mul_add(y, -product);
    // Of a product that is no float nothing is lost; 0 would only be added.
    if lost != 0.0 && product.is_finite() {
        sum.add(lost);
    }
}

/// n Σab - Σa Σb as a float from 1 to 2 and an exponent.
fn centred(n: u64, ab: &Sum, a: &Sum, b: &Sum) -> (f64, i32) {
    let (products, from) = ab.exact::<12>();
    let ((a, a_exponent), (b, b_exponent)) = (a.exact::<12>(), b.exact::<12>());
    let exponent = a_exponent + b_exponent;
    let products: Big = products.times_word(n).shifted(from - exponent);
    products.minus(a.times(b)).to_parts(exponent)
}

/// The least and the greatest of values, as words: where they are one, nothing varies, whatever the sums dropped.
#[derive(Clone, Copy)]
struct Range {
    least: u64,
    most: u64,
}

impl Default for Range {
    fn default() -> Self {
        Range {
            least: u64::MAX,
            most: 0,
        }
    }
}

impl Range {
    #[inline]
    fn add(&mut self, x: f64) {
        let word = float_word(x, true);
        self.least = self.least.min(word);
        self.most = self.most.max(word);
    }

    fn merge(&mut self, least: i64, most: i64) {
        self.least = self.least.min(least as u64);
        self.most = self.most.max(most as u64);
    }

    fn join(&mut self, from: &Range) {
        self.least = self.least.min(from.least);
        self.most = self.most.max(from.most);
    }

    /// One finite value.
    fn is_one(&self) -> bool {
        self.least == self.most && word_float(self.least).is_finite()
    }
}

#[derive(Clone)]
struct Moments {
    root: bool,
}

#[derive(Clone, Copy, Default)]
struct MomentState {
    x: Sum,
    xx: Sum,
    range: Range,
    count: u64,
}

impl MomentState {
    #[inline]
    fn add(&mut self, x: f64) {
        self.x.add(x);
        add_product(&mut self.xx, x, x);
        self.range.add(x);
        self.count += 1;
    }

    fn variance(&self) -> Option<f64> {
        if self.count < 2 {
            return None;
        }
        if self.range.is_one() {
            return Some(0.0);
        }
        if self.x.not_finite().is_some() {
            return Some(f64::NAN);
        }
        if self.xx.not_finite().is_some() {
            return Some(f64::INFINITY);
        }
        let (value, exponent) = centred(self.count, &self.xx, &self.x, &self.x);
        // Below zero only by what the binned sums dropped.
        let n = self.count as f64;
        Some(scaled(value.max(0.0) / n / (n - 1.0), exponent))
    }
}

impl Fixed for Moments {
    type State = MomentState;

    fn columns(&self) -> Vec<Type> {
        vec![Type::Int; 13]
    }

    fn touch(state: &MomentState) -> u64 {
        state.x.touch() ^ state.xx.touch() ^ state.count
    }

    fn update(&self, states: &mut [MomentState], groups: &[u32], input: &Input<'_>) {
        if let Some(Data::Float(values)) = input.columns.first().map(Column::data) {
            input.each(|row| {
                states[groups[row] as usize].add(values[row]);
            });
        }
    }

    fn merge(&self, states: &mut [MomentState], groups: &[u32], partial: &[Column<'_>]) {
        for (row, (&group, &count)) in groups.iter().zip(int_column(partial, 10)).enumerate() {
            let state = &mut states[group as usize];
            state.x.merge(&sum_at(partial, 0, row));
            state.xx.merge(&sum_at(partial, 5, row));
            state
                .range
                .merge(int_column(partial, 11)[row], int_column(partial, 12)[row]);
            state.count += count as u64;
        }
    }

    fn join(&self, state: &mut MomentState, from: &MomentState) {
        state.x.merge(&from.x);
        state.xx.merge(&from.xx);
        state.range.join(&from.range);
        state.count += from.count;
    }

    fn partial<'a>(
        &self,
        states: &[MomentState],
        groups: &[u32],
        arena: &'a Arena,
        out: &mut Columns<'a>,
    ) -> Result<()> {
        sum_columns(states, groups, arena, out, |state| state.x)?;
        sum_columns(states, groups, arena, out, |state| state.xx)?;
        out.push(ints(states, groups, arena, |state| state.count as i64)?);
        out.push(ints(states, groups, arena, |state| state.range.least as i64)?);
        out.push(ints(states, groups, arena, |state| state.range.most as i64)?);
        Ok(())
    }

    fn finish<'a>(
        &self,
        states: &[MomentState],
        groups: &[u32],
        arena: &'a Arena,
        _: OnFault<'_>,
    ) -> Result<Column<'a>> {
        let (values, valid) = optional(arena, groups.len(), |i| {
            let variance = states[groups[i] as usize].variance();
            Ok(variance.map(|v| if self.root { v.sqrt() } else { v }))
        })?;
        Ok(Column::float(values, valid))
    }
}

#[derive(Clone)]
struct Corr;

#[derive(Clone, Copy, Default)]
struct CorrState {
    x: Sum,
    y: Sum,
    xx: Sum,
    yy: Sum,
    xy: Sum,
    x_range: Range,
    y_range: Range,
    count: u64,
}

impl CorrState {
    #[inline]
    fn add(&mut self, x: f64, y: f64) {
        self.x.add(x);
        self.y.add(y);
        add_product(&mut self.xx, x, x);
        add_product(&mut self.yy, y, y);
        add_product(&mut self.xy, x, y);
        self.x_range.add(x);
        self.y_range.add(y);
        self.count += 1;
    }

    fn corr(&self) -> Option<f64> {
        if self.count < 2 || self.x_range.is_one() || self.y_range.is_one() {
            return None;
        }
        let sums = [&self.x, &self.y, &self.xx, &self.yy, &self.xy];
        if sums.iter().any(|sum| sum.not_finite().is_some()) {
            return Some(f64::NAN);
        }
        let (xx, xx_exponent) = centred(self.count, &self.xx, &self.x, &self.x);
        let (yy, yy_exponent) = centred(self.count, &self.yy, &self.y, &self.y);
        if xx <= 0.0 || yy <= 0.0 {
            return None;
        }
        let (xy, xy_exponent) = centred(self.count, &self.xy, &self.x, &self.y);
        // An even exponent has a root.
        let (square, exponent) = (xx * yy, xx_exponent + yy_exponent);
        let odd = exponent.rem_euclid(2);
        let root = scaled(square, odd).sqrt();
        let value = scaled(xy / root, xy_exponent - (exponent - odd) / 2);
        Some(value.clamp(-1.0, 1.0))
    }
}

impl Fixed for Corr {
    type State = CorrState;

    fn columns(&self) -> Vec<Type> {
        vec![Type::Int; 30]
    }

    fn touch(state: &CorrState) -> u64 {
        [&state.x, &state.y, &state.xx, &state.yy, &state.xy]
            .iter()
            .fold(state.count, |all, sum| all ^ sum.touch())
    }

    fn update(&self, states: &mut [CorrState], groups: &[u32], input: &Input<'_>) {
        let [x, y] = input.columns else { return };
        let (Data::Float(xs), Data::Float(ys)) = (x.data(), y.data()) else {
            return;
        };
        input.each(|row| {
            states[groups[row] as usize].add(xs[row], ys[row]);
        });
    }

    fn merge(&self, states: &mut [CorrState], groups: &[u32], partial: &[Column<'_>]) {
        for (row, (&group, &count)) in groups.iter().zip(int_column(partial, 25)).enumerate() {
            let state = &mut states[group as usize];
            let sums = [&mut state.x, &mut state.y, &mut state.xx, &mut state.yy, &mut state.xy];
            for (number, sum) in sums.into_iter().enumerate() {
                sum.merge(&sum_at(partial, number * 5, row));
            }
            let word = |at: usize| int_column(partial, at)[row];
            state.x_range.merge(word(26), word(27));
            state.y_range.merge(word(28), word(29));
            state.count += count as u64;
        }
    }

    fn join(&self, state: &mut CorrState, from: &CorrState) {
        let sums = [
            (&mut state.x, &from.x),
            (&mut state.y, &from.y),
            (&mut state.xx, &from.xx),
            (&mut state.yy, &from.yy),
            (&mut state.xy, &from.xy),
        ];
        sums.into_iter().for_each(|(sum, more)| sum.merge(more));
        state.x_range.join(&from.x_range);
        state.y_range.join(&from.y_range);
        state.count += from.count;
    }

    fn partial<'a>(&self, states: &[CorrState], groups: &[u32], arena: &'a Arena, out: &mut Columns<'a>) -> Result<()> {
        sum_columns(states, groups, arena, out, |state| state.x)?;
        sum_columns(states, groups, arena, out, |state| state.y)?;
        sum_columns(states, groups, arena, out, |state| state.xx)?;
        sum_columns(states, groups, arena, out, |state| state.yy)?;
        sum_columns(states, groups, arena, out, |state| state.xy)?;
        out.push(ints(states, groups, arena, |state| state.count as i64)?);
        out.push(ints(states, groups, arena, |state| state.x_range.least as i64)?);
        out.push(ints(states, groups, arena, |state| state.x_range.most as i64)?);
        out.push(ints(states, groups, arena, |state| state.y_range.least as i64)?);
        out.push(ints(states, groups, arena, |state| state.y_range.most as i64)?);
        Ok(())
    }

    fn finish<'a>(&self, states: &[CorrState], groups: &[u32], arena: &'a Arena, _: OnFault<'_>) -> Result<Column<'a>> {
        let (values, valid) = optional(arena, groups.len(), |i| Ok(states[groups[i] as usize].corr()))?;
        Ok(Column::float(values, valid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variance_of(values: &[f64]) -> Option<f64> {
        let mut state = MomentState::default();
        values.iter().for_each(|&x| state.add(x));
        state.variance()
    }

    fn corr_of(pairs: &[(f64, f64)]) -> Option<f64> {
        let mut state = CorrState::default();
        pairs.iter().for_each(|&(x, y)| state.add(x, y));
        state.corr()
    }

    #[test]
    fn a_large_mean_costs_no_digits() {
        for mean in [0.0, 1.0, 1e9, -1e11, 1e-300, 3.0 * 2f64.powi(500)] {
            let step = if mean > 1e100 { 2f64.powi(470) } else { 1.0 };
            let values = [mean - step, mean, mean + step];
            let spread: Vec<f64> = values.iter().map(|x| (x - mean) / step).collect();
            assert_eq!(spread, [-1.0, 0.0, 1.0]);
            assert_eq!(variance_of(&values), Some(step * step), "{mean}");
        }
        assert_eq!(variance_of(&[0.1; 1000]), Some(0.0));
        assert_eq!(variance_of(&[5e-324, 5e-324]), Some(0.0));
        assert_eq!(variance_of(&[1e300, -1e300]), Some(f64::INFINITY));
        assert!(variance_of(&[1.0, f64::INFINITY]).unwrap().is_nan());
        assert_eq!(variance_of(&[1.0]), None);
    }

    #[test]
    fn correlations_of_any_size() {
        for scale in [1.0, 1e-140, 1e140] {
            for (factor, want) in [(3.0, 1.0), (-0.001, -1.0)] {
                let pairs: Vec<(f64, f64)> = (0..10).map(|i| (f64::from(i), f64::from(i) * scale * factor)).collect();
                let got = corr_of(&pairs).unwrap();
                assert!((got - want).abs() < 1e-14, "{scale} {factor} {got}");
            }
        }
        assert_eq!(corr_of(&[(1.0, 2.0), (1.0, 3.0)]), None);
        assert_eq!(corr_of(&[(1.0, 0.1), (2.0, 0.1), (7.0, 0.1)]), None);
        assert_eq!(
            corr_of(&[(1.0, -1.0), (1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0)]),
            Some(0.0)
        );
    }
}
