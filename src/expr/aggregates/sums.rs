//! `sum`, `avg`, `product`.
//!
//! Whole numbers are summed exactly and wider than any result: whether a sum fits is judged at its end, so it does not depend on
//! the order. Floats are summed as [`super::binned`] says.

use super::binned::Sum;
use super::fixed::{Fixed, Plain, WIDE, int_column, ints, optional, wide_column, wides};
use super::log::{Finish, Keep, Logged};
use super::wide::Wide;
use crate::expr::aggregate::{AggregateSpec, Bound, Example, Takes};
use crate::expr::{Given, OVERFLOW, ParamSpec, Pattern, decimal};
use standpipe_sdk::aggregate::{Aggregate, Input, OnFault, ResultNulls};
use standpipe_sdk::{Arena, Column, Columns, Data, Result, Type};
use std::marker::PhantomData;
use std::sync::Arc;

pub(super) const AGGREGATES: &[AggregateSpec] = &[
    AggregateSpec {
        name: "sum",
        about: "The sum; of floats the same bits in any order; a sum that does not fit is a row error of the group.",
        params: &[ParamSpec::new("x", Pattern::Number)],
        returns: "same",
        examples: &[
            Example::new("[{v: 1}, {v: null}, {v: 2}]", "sum(v)", "3"),
            Example::new("[{v: 0.5}, {v: 0.25}]", "sum(v)", "0.75"),
            Example::new("[{v: 1}]", "sum(v, where: v > 1)", "null"),
        ],
        bind: sum,
        ..AggregateSpec::BASE
    },
    AggregateSpec {
        name: "sum",
        about: "The sum of durations.",
        params: &[ParamSpec::new("x", Pattern::Duration)],
        returns: "duration",
        examples: &[Example::new("[{v: 5m}, {v: 90s}]", "sum(v)", "6m30s")],
        bind: sum,
        ..AggregateSpec::BASE
    },
    AggregateSpec {
        name: "avg",
        about: "The mean: of ints and floats a float, of decimals a decimal with six more digits behind the point.",
        params: &[ParamSpec::new("x", Pattern::Number)],
        returns: "float or decimal",
        examples: &[
            Example::new("[{v: 1}, {v: 2}, {v: null}]", "avg(v)", "1.5"),
            Example::new("[{v: 1}]", "avg(v, where: v > 1)", "null"),
        ],
        bind: avg,
        ..AggregateSpec::BASE
    },
    AggregateSpec {
        name: "product",
        about: "The product; one that does not fit an int is a row error of the group.",
        params: &[ParamSpec::new("x", Pattern::Int)],
        returns: "int",
        examples: &[Example::new("[{v: 2}, {v: 3}, {v: 7}]", "product(v)", "42")],
        bind: product,
        ..AggregateSpec::BASE
    },
    AggregateSpec {
        name: "product",
        about: "The product of floats, of the factors in ascending order.",
        params: &[ParamSpec::new("x", Pattern::Float)],
        returns: "float",
        examples: &[Example::new("[{v: 0.5}, {v: 3.0}]", "product(v)", "1.5")],
        bind: product_of_floats,
        ..AggregateSpec::BASE
    },
];

fn plain<F: Fixed>(name: &'static str, ty: Type, fallible: bool, fixed: F) -> Arc<dyn Aggregate> {
    Arc::new(Plain {
        name,
        ty,
        nulls: ResultNulls::NoValues,
        fallible,
        fixed,
    })
}

fn sum(given: &[Given<'_>]) -> Bound {
    let ty = given.first().map_or(Type::Int, |x| x.ty.clone());
    Ok(match &ty {
        Type::Float => plain("sum", ty, false, Floats::<()>::default()),
        Type::Decimal { scale, .. } => {
            let ty = Type::Decimal {
                precision: decimal::DIGITS,
                scale: *scale,
            };
            plain("sum", ty, true, Decimals { mean: None })
        }
        _ => plain("sum", ty.clone(), true, Ints { mean: false, ty }),
    })
}

fn avg(given: &[Given<'_>]) -> Bound {
    Ok(match given.first().map(|x| x.ty) {
        Some(Type::Float) => plain("avg", Type::Float, false, Floats::<u64>::default()),
        Some(Type::Decimal { scale, .. }) => {
            let wanted = (scale + 6).min(decimal::DIGITS);
            let ty = Type::Decimal {
                precision: decimal::DIGITS,
                scale: wanted,
            };
            let mean = Some(u32::from(wanted - scale));
            plain("avg", ty, true, Decimals { mean })
        }
        _ => {
            let ty = Type::Float;
            plain("avg", Type::Float, false, Ints { mean: true, ty })
        }
    })
}

/// How many values a state is made of, where that is asked for.
trait Count: Copy + Default + Send + Sync + 'static {
    /// Columns of a partial state.
    const COLUMNS: usize;

    fn add(&mut self, more: u64);

    /// The mean of a sum of so many; the sum itself where they are not counted.
    fn value(self, sum: &Sum) -> f64;

    fn get(self) -> u64;
}

/// For a mean.
impl Count for u64 {
    const COLUMNS: usize = 1;

    #[inline(always)]
    fn add(&mut self, more: u64) {
        *self += more;
    }

    fn value(self, sum: &Sum) -> f64 {
        sum.mean(self)
    }

    fn get(self) -> u64 {
        self
    }
}

/// For a sum: the state is 40 bytes instead of 48, of which fewer lie across two lines of the processor's cache.
impl Count for () {
    const COLUMNS: usize = 0;

    #[inline(always)]
    fn add(&mut self, _: u64) {}

    fn value(self, sum: &Sum) -> f64 {
        sum.value()
    }

    fn get(self) -> u64 {
        0
    }
}

/// Of floats: a binned sum, and how many.
#[derive(Clone, Default)]
struct Floats<C>(PhantomData<C>);

#[derive(Clone, Copy, Default)]
struct FloatState<C> {
    sum: Sum,
    count: C,
}

impl<C: Count> Fixed for Floats<C> {
    type State = FloatState<C>;

    fn columns(&self) -> Vec<Type> {
        vec![Type::Int; SUM_COLUMNS + C::COLUMNS]
    }

    fn touch(state: &FloatState<C>) -> u64 {
        state.sum.touch() ^ state.count.get()
    }

    fn update(&self, states: &mut [FloatState<C>], groups: &[u32], input: &Input<'_>) {
        if let Some(Data::Float(values)) = input.columns.first().map(Column::data) {
            input.each(|row| {
                let state = &mut states[groups[row] as usize];
                state.sum.add(values[row]);
                state.count.add(1);
            });
        }
    }

    fn merge(&self, states: &mut [FloatState<C>], groups: &[u32], partial: &[Column<'_>]) {
        let counts = int_column(partial, SUM_COLUMNS);
        for (row, &group) in groups.iter().enumerate() {
            let state = &mut states[group as usize];
            state.sum.merge(&sum_at(partial, 0, row));
            state.count.add(counts.get(row).map_or(0, |&count| count as u64));
        }
    }

    fn join(&self, state: &mut FloatState<C>, from: &FloatState<C>) {
        state.sum.merge(&from.sum);
        state.count.add(from.count.get());
    }

    fn partial<'a>(
        &self,
        states: &[FloatState<C>],
        groups: &[u32],
        arena: &'a Arena,
        out: &mut Columns<'a>,
    ) -> Result<()> {
        sum_columns(states, groups, arena, out, |state| state.sum)?;
        if C::COLUMNS > 0 {
            out.push(ints(states, groups, arena, |state| state.count.get() as i64)?);
        }
        Ok(())
    }

    fn finish<'a>(
        &self,
        states: &[FloatState<C>],
        groups: &[u32],
        arena: &'a Arena,
        _: OnFault<'_>,
    ) -> Result<Column<'a>> {
        let (values, valid) = optional(arena, groups.len(), |i| {
            let state = &states[groups[i] as usize];
            Ok((!state.sum.is_empty()).then(|| state.count.value(&state.sum)))
        })?;
        Ok(Column::float(values, valid))
    }
}

/// What a binned sum is as columns.
const SUM_COLUMNS: usize = 5;

/// Five columns of binned sums.
pub(super) fn sum_columns<'a, S: Copy>(
    states: &[S],
    groups: &[u32],
    arena: &'a Arena,
    out: &mut Columns<'a>,
    of: impl Fn(S) -> Sum,
) -> Result<()> {
    for word in 0..SUM_COLUMNS {
        out.push(ints(states, groups, arena, |state| of(state).to_words()[word])?);
    }
    Ok(())
}

/// The binned sum in row `row` of five columns from `from` on.
pub(super) fn sum_at(partial: &[Column<'_>], from: usize, row: usize) -> Sum {
    let word = |at: usize| int_column(partial, from + at).get(row).copied().unwrap_or_default();
    Sum::from_words([word(0), word(1), word(2), word(3), word(4)])
}

/// Of ints and durations: 128 bits hold any sum of 64-bit numbers.
#[derive(Clone)]
struct Ints {
    mean: bool,
    ty: Type,
}

#[derive(Clone, Copy, Default)]
struct IntState {
    sum: i128,
    count: u64,
}

impl Fixed for Ints {
    type State = IntState;

    fn columns(&self) -> Vec<Type> {
        vec![WIDE, Type::Int]
    }

    fn touch(state: &IntState) -> u64 {
        state.sum as u64 ^ state.count
    }

    fn update(&self, states: &mut [IntState], groups: &[u32], input: &Input<'_>) {
        if let Some(Data::Int(values) | Data::Duration(values)) = input.columns.first().map(Column::data) {
            input.each(|row| {
                let state = &mut states[groups[row] as usize];
                state.sum += i128::from(values[row]);
                state.count += 1;
            });
        }
    }

    fn merge(&self, states: &mut [IntState], groups: &[u32], partial: &[Column<'_>]) {
        let rows = wide_column(partial, 0).iter().zip(int_column(partial, 1));
        for (&group, (&sum, &count)) in groups.iter().zip(rows) {
            let state = &mut states[group as usize];
            state.sum += sum;
            state.count += count as u64;
        }
    }

    fn join(&self, state: &mut IntState, from: &IntState) {
        state.sum += from.sum;
        state.count += from.count;
    }

    fn partial<'a>(&self, states: &[IntState], groups: &[u32], arena: &'a Arena, out: &mut Columns<'a>) -> Result<()> {
        out.push(wides(states, groups, arena, |state| state.sum)?);
        out.push(ints(states, groups, arena, |state| state.count as i64)?);
        Ok(())
    }

    fn finish<'a>(
        &self,
        states: &[IntState],
        groups: &[u32],
        arena: &'a Arena,
        fault: OnFault<'_>,
    ) -> Result<Column<'a>> {
        if self.mean {
            let (values, valid) = optional(arena, groups.len(), |i| {
                let state = &states[groups[i] as usize];
                Ok((state.count > 0).then(|| state.sum as f64 / state.count as f64))
            })?;
            return Ok(Column::float(values, valid));
        }
        let (values, valid) = optional(arena, groups.len(), |i| {
            let state = &states[groups[i] as usize];
            match i64::try_from(state.sum) {
                Ok(sum) => Ok((state.count > 0).then_some(sum)),
                Err(_) => {
                    let message = format!("the sum {} does not fit {}", state.sum, self.ty);
                    fault(i, OVERFLOW, &message)?;
                    Ok(None)
                }
            }
        })?;
        let data = match self.ty {
            Type::Duration => Data::Duration(values),
            _ => Data::Int(values),
        };
        Ok(Column::new(data, valid, groups.len()))
    }
}

/// Of decimals: 192 bits.
#[derive(Clone)]
struct Decimals {
    /// For a mean: how many more digits stand behind the point.
    mean: Option<u32>,
}

#[derive(Clone, Copy, Default)]
struct DecimalState {
    low: u128,
    high: i64,
    count: u64,
}

impl DecimalState {
    #[inline]
    fn add(&mut self, low: u128, high: i64) {
        let (sum, carry) = self.low.overflowing_add(low);
        self.low = sum;
        self.high += high + i64::from(carry);
    }

    fn sum(&self) -> Wide<6> {
        let low = Wide::from_parts(self.low as u64, 0);
        let middle = Wide::from_parts((self.low >> 64) as u64, 0).shifted(64);
        let high = Wide::from_i128(i128::from(self.high)).shifted(128);
        low.plus(middle).plus(high)
    }
}

impl Fixed for Decimals {
    type State = DecimalState;

    fn columns(&self) -> Vec<Type> {
        vec![WIDE, Type::Int, Type::Int]
    }

    fn touch(state: &DecimalState) -> u64 {
        state.low as u64 ^ state.count
    }

    fn update(&self, states: &mut [DecimalState], groups: &[u32], input: &Input<'_>) {
        if let Some(Data::Decimal(values)) = input.columns.first().map(Column::data) {
            input.each(|row| {
                let state = &mut states[groups[row] as usize];
                let value = values[row];
                state.add(value as u128, if value < 0 { -1 } else { 0 });
                state.count += 1;
            });
        }
    }

    fn merge(&self, states: &mut [DecimalState], groups: &[u32], partial: &[Column<'_>]) {
        let (lows, highs, counts) = (wide_column(partial, 0), int_column(partial, 1), int_column(partial, 2));
        for (((&group, &low), &high), &count) in groups.iter().zip(lows).zip(highs).zip(counts) {
            let state = &mut states[group as usize];
            state.add(low as u128, high);
            state.count += count as u64;
        }
    }

    fn join(&self, state: &mut DecimalState, from: &DecimalState) {
        state.add(from.low, from.high);
        state.count += from.count;
    }

    fn partial<'a>(
        &self,
        states: &[DecimalState],
        groups: &[u32],
        arena: &'a Arena,
        out: &mut Columns<'a>,
    ) -> Result<()> {
        out.push(wides(states, groups, arena, |state| state.low as i128)?);
        out.push(ints(states, groups, arena, |state| state.high)?);
        out.push(ints(states, groups, arena, |state| state.count as i64)?);
        Ok(())
    }

    fn finish<'a>(
        &self,
        states: &[DecimalState],
        groups: &[u32],
        arena: &'a Arena,
        fault: OnFault<'_>,
    ) -> Result<Column<'a>> {
        let (values, valid) = optional(arena, groups.len(), |i| {
            let state = &states[groups[i] as usize];
            if state.count == 0 {
                return Ok(None);
            }
            let value = match self.mean {
                None => state.sum(),
                Some(digits) => state.sum().times_word(10u64.pow(digits)).over_word(state.count),
            };
            let value = value.to_i128().and_then(|value| decimal::fit(value, decimal::DIGITS));
            if value.is_none() {
                let what = if self.mean.is_some() { "mean" } else { "sum" };
                fault(
                    i,
                    OVERFLOW,
                    &format!("the {what} has more than {} digits", decimal::DIGITS),
                )?;
            }
            Ok(value)
        })?;
        Ok(Column::new(Data::Decimal(values), valid, groups.len()))
    }
}

fn product(_: &[Given<'_>]) -> Bound {
    Ok(plain("product", Type::Int, true, Product))
}

/// Of ints: sign and magnitude; a magnitude that does not fit stays too large unless a zero comes.
#[derive(Clone)]
struct Product;

#[derive(Clone, Copy)]
struct ProductState {
    magnitude: u64,
    flags: u8,
}

const SEEN: u8 = 1;
const MINUS: u8 = 2;
const ZERO: u8 = 4;
const LARGE: u8 = 8;

impl Default for ProductState {
    fn default() -> Self {
        ProductState { magnitude: 1, flags: 0 }
    }
}

impl ProductState {
    fn times(&mut self, other: ProductState) {
        self.flags = (self.flags | other.flags) & (SEEN | ZERO | LARGE) | (self.flags ^ other.flags) & MINUS;
        match self.magnitude.checked_mul(other.magnitude) {
            Some(magnitude) => self.magnitude = magnitude,
            None => {
                self.magnitude = u64::MAX;
                self.flags |= LARGE;
            }
        }
    }

    fn of(value: i64) -> ProductState {
        let mut flags = SEEN;
        if value < 0 {
            flags |= MINUS;
        }
        if value == 0 {
            flags |= ZERO;
        }
        ProductState {
            magnitude: value.unsigned_abs().max(1),
            flags,
        }
    }

    /// The product; `None` if it does not fit.
    fn value(self) -> Option<i64> {
        if self.flags & ZERO != 0 {
            return Some(0);
        }
        if self.flags & LARGE != 0 {
            return None;
        }
        let magnitude = i128::from(self.magnitude);
        let signed = if self.flags & MINUS != 0 { -magnitude } else { magnitude };
        i64::try_from(signed).ok()
    }
}

impl Fixed for Product {
    type State = ProductState;

    fn columns(&self) -> Vec<Type> {
        vec![Type::Int, Type::Int]
    }

    fn touch(state: &ProductState) -> u64 {
        state.magnitude
    }

    fn update(&self, states: &mut [ProductState], groups: &[u32], input: &Input<'_>) {
        if let Some(Data::Int(values)) = input.columns.first().map(Column::data) {
            input.each(|row| states[groups[row] as usize].times(ProductState::of(values[row])));
        }
    }

    fn merge(&self, states: &mut [ProductState], groups: &[u32], partial: &[Column<'_>]) {
        let rows = int_column(partial, 0).iter().zip(int_column(partial, 1));
        for (&group, (&magnitude, &flags)) in groups.iter().zip(rows) {
            states[group as usize].times(ProductState {
                magnitude: magnitude as u64,
                flags: flags as u8,
            });
        }
    }

    fn join(&self, state: &mut ProductState, from: &ProductState) {
        state.times(*from);
    }

    fn partial<'a>(
        &self,
        states: &[ProductState],
        groups: &[u32],
        arena: &'a Arena,
        out: &mut Columns<'a>,
    ) -> Result<()> {
        out.push(ints(states, groups, arena, |state| state.magnitude as i64)?);
        out.push(ints(states, groups, arena, |state| i64::from(state.flags))?);
        Ok(())
    }

    fn finish<'a>(
        &self,
        states: &[ProductState],
        groups: &[u32],
        arena: &'a Arena,
        fault: OnFault<'_>,
    ) -> Result<Column<'a>> {
        let (values, valid) = optional(arena, groups.len(), |i| {
            let state = states[groups[i] as usize];
            if state.flags & SEEN == 0 {
                return Ok(None);
            }
            let value = state.value();
            if value.is_none() {
                fault(i, OVERFLOW, "the product does not fit int")?;
            }
            Ok(value)
        })?;
        Ok(Column::int(values, valid))
    }
}

fn product_of_floats(given: &[Given<'_>]) -> Bound {
    Logged::bind(
        "product",
        Type::Float,
        ResultNulls::NoValues,
        given,
        Takes::Value,
        Keep::Values,
        Finish::Product,
    )
}
