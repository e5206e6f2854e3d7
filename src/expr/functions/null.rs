//! Functions about null, and the choice of one argument per row that `least`, `greatest` and `clamp` share.

use crate::expr::choose::merge;
use crate::expr::function::{Args, Example, FunctionSpec, Nulls, ParamSpec, Pattern, Returns};
use standpipe_sdk::{Bits, Column, Data, Result};
use std::cmp::Ordering;

/// The null functions.
pub(in crate::expr) const FUNCTIONS: &[FunctionSpec] = &[
    FunctionSpec {
        name: "is_null",
        about: "Whether the value is null.",
        params: &[ParamSpec::new("value", Pattern::Any)],
        returns: Returns::Bool,
        nulls: Nulls::Never,
        examples: &[
            Example::value("is_null(null)", "true"),
            Example::value(r#"is_null("")"#, "false"),
        ],
        eval: is_null,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "coalesce",
        about: "The first of the values that is not null.",
        params: &[
            ParamSpec::new("value", Pattern::Any),
            ParamSpec::variadic("more", Pattern::Same(0)),
        ],
        returns: Returns::Same(0),
        nulls: Nulls::Own,
        examples: &[
            Example::value(r#"coalesce(null, "a", "b")"#, r#""a""#),
            Example::value("coalesce(1, null)", "1"),
            Example::value("coalesce(null, null)", "null"),
        ],
        eval: coalesce,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "null_if",
        about: "The value, or null if it equals `other`.",
        params: &[
            ParamSpec::new("value", Pattern::Ordered),
            ParamSpec::new("other", Pattern::Same(0)),
        ],
        returns: Returns::Same(0),
        nulls: Nulls::Own,
        examples: &[
            Example::value(r#"null_if("-", "-")"#, "null"),
            Example::value("null_if(0, 1)", "0"),
            Example::value("null_if(1, null)", "1"),
            Example::value("null_if(null, 1)", "null"),
        ],
        eval: null_if,
        ..FunctionSpec::BASE
    },
];

fn is_null<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    args.map_bools(|row| args.is_null(0, row))
}

fn coalesce<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let first = |row| (0..args.len()).find(|&index| !args.is_null(index, row));
    let picks = args.arena().collect(args.rows(), |row| first(row).unwrap_or(0) as u8)?;
    choose(args, picks)
}

fn null_if<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let column = args.column(0)?;
    if matches!(column.data(), Data::Null) {
        return Ok(column);
    }
    let order = Order::new(args)?;
    let equal = |row| !args.is_null(1, row) && order.compare(row, 0, 1) == Ordering::Equal;
    let valid = Bits::collect(args.arena(), args.rows(), |row| !args.is_null(0, row) && !equal(row))?;
    Ok(column.with_valid(Some(valid)))
}

/// In each row the argument that `picks` names; null where that one is.
pub(super) fn choose<'a>(args: &Args<'_, 'a>, picks: &[u8]) -> Result<Column<'a>> {
    let mut chosen = args.column(0)?;
    for index in 1..args.len() {
        let constant = args.is_constant(index);
        chosen = merge(args.arena(), chosen, args.raw(index), args.rows(), |row| {
            let picked = picks[row] as usize == index;
            (picked, if picked && constant { 0 } else { row })
        })?;
    }
    Ok(chosen)
}

/// The order of the arguments of one row: the language's, so -0.0 equals 0.0 and NaN is behind the numbers.
pub(super) struct Order<'e, 'c, 'a> {
    args: &'c Args<'e, 'a>,
    columns: &'a [Column<'a>],
}

impl<'e, 'c, 'a> Order<'e, 'c, 'a> {
    pub(super) fn new(args: &'c Args<'e, 'a>) -> Result<Self> {
        let columns = args.arena().collect(args.len(), |index| args.raw(index))?;
        Ok(Order { args, columns })
    }

    /// How argument `a` compares with argument `b` in row `row`; neither is null there.
    #[inline]
    pub(super) fn compare(&self, row: usize, a: usize, b: usize) -> Ordering {
        let at = |index: usize| if self.args.is_constant(index) { 0 } else { row };
        let (i, j) = (at(a), at(b));
        match (self.columns[a].data(), self.columns[b].data()) {
            (Data::Int(a), Data::Int(b))
            | (Data::Timestamp(a), Data::Timestamp(b))
            | (Data::Duration(a), Data::Duration(b)) => a[i].cmp(&b[j]),
            (Data::Float(a), Data::Float(b)) => floats(a[i], b[j]),
            (Data::Decimal(a), Data::Decimal(b)) => a[i].cmp(&b[j]),
            (Data::Date(a), Data::Date(b)) => a[i].cmp(&b[j]),
            (Data::Bool(a), Data::Bool(b)) => a.get(i).cmp(&b.get(j)),
            (Data::String(a), Data::String(b)) => a.bytes(i).cmp(b.bytes(j)),
            _ => Ordering::Equal,
        }
    }
}

fn floats(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}
