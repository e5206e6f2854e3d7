//! `count`, `count_distinct`, `approx_distinct`, `any`, `all`.

use super::fixed::{Fixed, Plain, int_column, ints};
use super::log::{Finish, Keep, Logged};
use crate::expr::aggregate::{AggregateSpec, Bound, Example, Takes};
use crate::expr::{Given, ParamSpec, Pattern};
use standpipe_sdk::aggregate::{Input, OnFault, ResultNulls};
use standpipe_sdk::{Arena, Bits, Column, Columns, Data, Result, Type};
use std::sync::Arc;

pub(super) const AGGREGATES: &[AggregateSpec] = &[
    AggregateSpec {
        name: "count",
        about: "How many rows there are.",
        params: &[],
        returns: "int",
        examples: &[Example::new("[{v: 1}, {v: null}]", "count()", "2")],
        bind: count,
        ..AggregateSpec::BASE
    },
    AggregateSpec {
        name: "count",
        about: "How many rows there are with a value.",
        params: &[ParamSpec::new("x", Pattern::Any)],
        returns: "int",
        examples: &[
            Example::new("[{v: 1}, {v: null}]", "count(v)", "1"),
            Example::new("[{v: 1}, {v: 5}]", "count(where: v > 2)", "1"),
        ],
        bind: count,
        ..AggregateSpec::BASE
    },
    AggregateSpec {
        name: "count_distinct",
        about: "How many different values there are, exactly.",
        params: &[ParamSpec::new("x", Pattern::Any)],
        returns: "int",
        examples: &[Example::new(
            r#"[{v: "a"}, {v: "b"}, {v: "a"}, {v: null}]"#,
            "count_distinct(v)",
            "2",
        )],
        bind: count_distinct,
        ..AggregateSpec::BASE
    },
    AggregateSpec {
        name: "approx_distinct",
        about: "How many different values there are, within about 1.6 percent and in little memory.",
        params: &[ParamSpec::new("x", Pattern::Any)],
        returns: "int",
        examples: &[Example::new("[{v: 1}, {v: 2}, {v: 1}]", "approx_distinct(v)", "2")],
        bind: approx_distinct,
        ..AggregateSpec::BASE
    },
    AggregateSpec {
        name: "any",
        about: "Whether a value is true; false without values.",
        params: &[ParamSpec::new("x", Pattern::Bool)],
        returns: "bool",
        examples: &[Example::new("[{v: 1}, {v: 5}]", "any(v > 4)", "true")],
        bind: any,
        ..AggregateSpec::BASE
    },
    AggregateSpec {
        name: "all",
        about: "Whether every value is true; true without values.",
        params: &[ParamSpec::new("x", Pattern::Bool)],
        returns: "bool",
        examples: &[Example::new("[{v: 1}, {v: 5}]", "all(v > 4)", "false")],
        bind: all,
        ..AggregateSpec::BASE
    },
];

fn count(_: &[Given<'_>]) -> Bound {
    Ok(Arc::new(Plain {
        name: "count",
        ty: Type::Int,
        nulls: ResultNulls::Never,
        fallible: false,
        fixed: Count,
    }))
}

#[derive(Clone)]
struct Count;

impl Fixed for Count {
    type State = u64;

    fn columns(&self) -> Vec<Type> {
        vec![Type::Int]
    }

    fn touch(state: &u64) -> u64 {
        *state
    }

    fn update(&self, states: &mut [u64], groups: &[u32], input: &Input<'_>) {
        input.each(|row| states[groups[row] as usize] += 1);
    }

    fn merge(&self, states: &mut [u64], groups: &[u32], partial: &[Column<'_>]) {
        for (&group, &rows) in groups.iter().zip(int_column(partial, 0)) {
            states[group as usize] += rows as u64;
        }
    }

    fn join(&self, state: &mut u64, from: &u64) {
        *state += from;
    }

    fn partial<'a>(&self, states: &[u64], groups: &[u32], arena: &'a Arena, out: &mut Columns<'a>) -> Result<()> {
        out.push(ints(states, groups, arena, |rows| rows as i64)?);
        Ok(())
    }

    fn finish<'a>(&self, states: &[u64], groups: &[u32], arena: &'a Arena, _: OnFault<'_>) -> Result<Column<'a>> {
        ints(states, groups, arena, |rows| rows as i64)
    }
}

fn any(_: &[Given<'_>]) -> Bound {
    Ok(bools("any", true))
}

fn all(_: &[Given<'_>]) -> Bound {
    Ok(bools("all", false))
}

fn bools(name: &'static str, looks_for: bool) -> Arc<Plain<Bools>> {
    Arc::new(Plain {
        name,
        ty: Type::Bool,
        nulls: ResultNulls::Never,
        fallible: false,
        fixed: Bools { looks_for },
    })
}

/// Whether a value is `looks_for`: `any` looks for true, `all` for false.
#[derive(Clone)]
struct Bools {
    looks_for: bool,
}

impl Fixed for Bools {
    type State = bool;

    fn columns(&self) -> Vec<Type> {
        vec![Type::Bool]
    }

    fn touch(state: &bool) -> u64 {
        u64::from(*state)
    }

    fn update(&self, states: &mut [bool], groups: &[u32], input: &Input<'_>) {
        if let Some(Data::Bool(values)) = input.columns.first().map(Column::data) {
            input.each(|row| states[groups[row] as usize] |= values.get(row) == self.looks_for);
        }
    }

    fn merge(&self, states: &mut [bool], groups: &[u32], partial: &[Column<'_>]) {
        if let Some(Data::Bool(found)) = partial.first().map(Column::data) {
            for (row, &group) in groups.iter().enumerate() {
                states[group as usize] |= found.get(row);
            }
        }
    }

    fn join(&self, state: &mut bool, from: &bool) {
        *state |= from;
    }

    fn partial<'a>(&self, states: &[bool], groups: &[u32], arena: &'a Arena, out: &mut Columns<'a>) -> Result<()> {
        let found = Bits::collect(arena, groups.len(), |i| states[groups[i] as usize])?;
        out.push(Column::bool(found, None));
        Ok(())
    }

    fn finish<'a>(&self, states: &[bool], groups: &[u32], arena: &'a Arena, _: OnFault<'_>) -> Result<Column<'a>> {
        let found = |i: usize| states[groups[i] as usize] == self.looks_for;
        Ok(Column::bool(Bits::collect(arena, groups.len(), found)?, None))
    }
}

fn count_distinct(given: &[Given<'_>]) -> Bound {
    Logged::bind(
        "count_distinct",
        Type::Int,
        ResultNulls::Never,
        given,
        Takes::Key,
        Keep::Distinct,
        Finish::Count,
    )
}

fn approx_distinct(given: &[Given<'_>]) -> Bound {
    Logged::bind(
        "approx_distinct",
        Type::Int,
        ResultNulls::Never,
        given,
        Takes::Key,
        Keep::Registers,
        Finish::Estimate,
    )
}
