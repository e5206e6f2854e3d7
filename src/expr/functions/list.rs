//! Lists: looking into them, and mapping, filtering and testing their elements with a lambda.

use crate::expr::choose::merge;
use crate::expr::eval::Each;
use crate::expr::function::{Args, Example, FunctionSpec, Lists, Nulls, ParamSpec, Pattern, Returns};
use crate::expr::kernel::compare::same;
use standpipe_sdk::{Bits, Column, Data, ListData, Result};
use std::ops::Range;

const LIST: ParamSpec = ParamSpec::new("list", Pattern::List);

/// The family.
pub(super) const FUNCTIONS: &[FunctionSpec] = &[
    FunctionSpec {
        name: "len",
        about: "The number of elements.",
        params: &[LIST],
        returns: Returns::Int,
        examples: &[Example::value("len([1, 2, 3])", "3"), Example::value("len([])", "0")],
        eval: len,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "contains",
        about: "Whether an element equals `value`; null elements equal nothing.",
        params: &[LIST, ParamSpec::new("value", Pattern::Element(0))],
        returns: Returns::Bool,
        examples: &[
            Example::value("contains([1, 2, 3], 2)", "true"),
            Example::value("contains([\"a\"], \"b\")", "false"),
        ],
        eval: contains,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "first",
        about: "The first element; null if there is none.",
        params: &[LIST],
        returns: Returns::Element(0),
        nulls: Nulls::Own,
        examples: &[
            Example::value("first([7, 8])", "7"),
            Example::value("first([])", "null"),
        ],
        eval: first,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "last",
        about: "The last element; null if there is none.",
        params: &[LIST],
        returns: Returns::Element(0),
        nulls: Nulls::Own,
        examples: &[Example::value("last([7, 8])", "8"), Example::value("last([])", "null")],
        eval: last,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "reverse",
        about: "The elements from last to first.",
        params: &[LIST],
        returns: Returns::Same(0),
        examples: &[Example::value("reverse([1, 2, 3])", "[3, 2, 1]")],
        eval: reverse,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "slice",
        about: "`count` elements from `start` on (negative: from the end); fewer where the list ends.",
        params: &[
            LIST,
            ParamSpec::new("start", Pattern::Int),
            ParamSpec::default("count", Pattern::Int, "9223372036854775807"),
        ],
        returns: Returns::Same(0),
        examples: &[
            Example::value("slice([1, 2, 3], 1)", "[2, 3]"),
            Example::value("slice([1, 2, 3], -2, 1)", "[2]"),
        ],
        eval: slice,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "join",
        about: "The texts with `separator` between them; null elements are left out.",
        params: &[
            ParamSpec::new("list", Pattern::ListOf(&Pattern::String)),
            ParamSpec::default("separator", Pattern::String, "\"\""),
        ],
        returns: Returns::String,
        examples: &[
            Example::value("join([\"a\", \"b\"], \", \")", "\"a, b\""),
            Example::value("join([\"a\", null], \"-\")", "\"a\""),
        ],
        eval: join,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "map",
        about: "What the lambda gives for each element.",
        params: &[LIST, lambda("f", &Pattern::Any)],
        returns: Returns::ListOfLambda(1),
        examples: &[Example::value("map([1, 2], x => x / 2)", "[0.5, 1.0]")],
        eval: map,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "filter",
        about: "The elements for which the lambda is true.",
        params: &[LIST, lambda("keep", &Pattern::Bool)],
        returns: Returns::Same(0),
        examples: &[Example::value("filter([1, 2, 3], x => x > 1)", "[2, 3]")],
        eval: filter,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "any",
        about: "Whether the lambda is true for an element; false for an empty list.",
        params: &[LIST, lambda("test", &Pattern::Bool)],
        returns: Returns::Bool,
        examples: &[
            Example::value("any([1, 2], x => x > 1)", "true"),
            Example::value("any([1], x => x > 1)", "false"),
        ],
        eval: any,
        ..FunctionSpec::BASE
    },
    FunctionSpec {
        name: "all",
        about: "Whether the lambda is true for every element; true for an empty list.",
        params: &[LIST, lambda("test", &Pattern::Bool)],
        returns: Returns::Bool,
        examples: &[
            Example::value("all([1, 2], x => x > 0)", "true"),
            Example::value("all([1, 2], x => x > 1)", "false"),
        ],
        eval: all,
        ..FunctionSpec::BASE
    },
];

const fn lambda(name: &'static str, gives: &'static Pattern) -> ParamSpec {
    ParamSpec::new(name, Pattern::Lambda { of: 0, gives })
}

fn len<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let Some(lists) = args.lists(0) else {
        return Ok(Column::nulls(args.rows()));
    };
    args.map_ints(|row| lists.range(row).len() as i64)
}

fn contains<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let Some(lists) = args.lists(0) else {
        return Ok(Column::nulls(args.rows()));
    };
    let (elements, values) = (lists.elements(), args.raw(1));
    let valid = args.valid();
    args.map_bools(|row| {
        if !valid.is_none_or(|v| v.get(row)) {
            return false;
        }
        let value = values.cell(if args.is_constant(1) { 0 } else { row });
        lists
            .range(row)
            .any(|at| elements.is_valid(at) && same(&elements.cell(at), &value))
    })
}

/// One element per row, or none.
fn pick<'a>(args: &Args<'_, 'a>, choose: impl Fn(Range<usize>) -> Option<usize> + Copy) -> Result<Column<'a>> {
    let Some(lists) = args.lists(0) else {
        return Ok(Column::nulls(args.rows()));
    };
    let from = |row: usize| match choose(lists.range(row)) {
        Some(at) if !args.is_null(0, row) => (false, at),
        _ => (true, 0),
    };
    merge(args.arena(), lists.elements(), Column::nulls(1), args.rows(), from)
}

fn first<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    pick(args, |range| (!range.is_empty()).then_some(range.start))
}

fn last<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    pick(args, |range| range.end.checked_sub(1).filter(|&at| at >= range.start))
}

/// Lists of chosen elements: `choose` gives the positions to keep, in order, of the row's range.
fn rebuild<'a, I: Iterator<Item = usize>>(
    args: &Args<'_, 'a>,
    elements: Column<'a>,
    choose: impl Fn(usize) -> I,
) -> Result<Column<'a>> {
    let (arena, rows) = (args.arena(), args.rows());
    let live = |row: usize| args.valid().is_none_or(|v| v.get(row));
    let mut total = 0;
    let offsets = arena.collect(rows + 1, |row| {
        let start = total;
        if row < rows && live(row) {
            total += choose(row).count();
        }
        start as i32
    })?;
    let mut picks = (0..rows).filter(|&row| live(row)).flat_map(&choose);
    let picks = arena.collect(total, |_| picks.next().unwrap_or(0) as u32)?;
    let child = arena.one(elements.gather(picks, arena)?)?;
    Ok(Column::new(Data::List(ListData { offsets, child }), args.valid(), rows))
}

fn reverse<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let Some(lists) = args.lists(0) else {
        return Ok(Column::nulls(args.rows()));
    };
    rebuild(args, lists.elements(), |row| lists.range(row).rev())
}

fn slice<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let Some(lists) = args.lists(0) else {
        return Ok(Column::nulls(args.rows()));
    };
    let (starts, counts) = (args.ints(1), args.ints(2));
    rebuild(args, lists.elements(), |row| {
        let range = lists.range(row);
        let len = range.len() as i64;
        let start = starts.get(row);
        let from = if start < 0 {
            start.saturating_add(len).max(0)
        } else {
            start.min(len)
        };
        let to = from.saturating_add(counts.get(row).max(0)).min(len);
        range.start + from as usize..range.start + to as usize
    })
}

fn join<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let Some(lists) = args.lists(0) else {
        return Ok(Column::nulls(args.rows()));
    };
    let (elements, separators) = (lists.elements(), args.strings(1));
    let Data::String(text) = elements.data() else {
        return args.map_strings(|_, out| out.push(""));
    };
    args.map_strings(|row, out| {
        let parts = || lists.range(row).filter(|&at| elements.is_valid(at));
        let separator = separators.bytes(row);
        let bytes: usize = parts().map(|at| text.bytes(at).len() + separator.len()).sum();
        out.push_with(bytes.saturating_sub(separator.len()), |slot| {
            let mut end = 0;
            for (i, at) in parts().enumerate() {
                let pieces = [if i > 0 { separator } else { &[] }, text.bytes(at)];
                for piece in pieces {
                    slot[end..end + piece.len()].copy_from_slice(piece);
                    end += piece.len();
                }
            }
            end
        })
    })
}

/// The lambda (argument 1) over the elements of the rows that are asked for.
fn each<'a>(args: &Args<'_, 'a>) -> Result<Option<Each<'a>>> {
    let (Some(lists), Some(lambda)) = (args.lists(0), args.lambda(1)) else {
        return Ok(None);
    };
    let Lists { list, constant } = lists;
    let all = !lambda.body.fallible;
    let live = |row: usize| {
        if all {
            args.valid().is_none_or(|v| v.get(row))
        } else {
            args.is_active(row)
        }
    };
    args.cx.each(lambda, list, constant, live).map(Some)
}

fn map<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let Some(each) = each(args)? else {
        return Ok(Column::nulls(args.rows()));
    };
    let child = args.arena().one(each.values)?;
    let list = ListData {
        offsets: each.offsets,
        child,
    };
    Ok(Column::new(Data::List(list), args.valid(), args.rows()))
}

/// Whether the lambda is true for element `at`.
fn is_true(each: &Each<'_>, at: usize) -> bool {
    match each.values.data() {
        Data::Bool(bits) => each.values.is_valid(at) && bits.get(at),
        _ => false,
    }
}

fn range(each: &Each<'_>, row: usize) -> Range<usize> {
    each.offsets[row] as usize..each.offsets[row + 1] as usize
}

fn filter<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let Some(each) = each(args)? else {
        return Ok(Column::nulls(args.rows()));
    };
    rebuild(args, each.elements, |row| {
        range(&each, row).filter(|&at| is_true(&each, at))
    })
}

fn any<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let Some(each) = each(args)? else {
        return Ok(Column::nulls(args.rows()));
    };
    args.map_bools(|row| range(&each, row).any(|at| is_true(&each, at)))
}

fn all<'a>(args: &Args<'_, 'a>) -> Result<Column<'a>> {
    let Some(each) = each(args)? else {
        return Ok(Column::nulls(args.rows()));
    };
    let bits = Bits::collect(args.arena(), args.rows(), |row| {
        range(&each, row).all(|at| is_true(&each, at))
    })?;
    Ok(Column::bool(bits, args.valid()))
}
