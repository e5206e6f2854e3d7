//! `join left s as c on k where: …`: rows meet those of a second stream by equal keys.
//!
//! How: the right side is gathered (`build`), its rows kept in batches and its keys in a table (`table`); then the left side's
//! batches look their keys up in it, in parallel (`probe`). Rows of the right side that nobody found come last (`rest`).
//!
//! A right side that does not fit is sorted by key, on disk where it must be. Then the left side waits (`wait`) and is sorted too; both meet
//! (`meet`), and left rows come again in their old order (`again`), each with its matches, to the same probers.
//!
//! Where the left side comes out of files that are much smaller than the right one's, the host reads it first and lets only those right rows
//! be gathered that some left key may want (`sieve`). Of two files with an error it is then the left one's that ends the run.
//!
//! Laws
//! - Left order, then right order within a match; what is left of the right side comes behind all, in right order.
//! - Null keys match nothing. Keys are equal as grouping has it: -0.0 and 0.0, every NaN.
//! - A left row for which the condition of a pair fails is set aside as a whole: it is in the output or it is bad, never both.
//! - Whether rows waited cannot be seen: not in what comes out, not in what is set aside, here or behind, nor in what ends the run.
//!
//! Advice for whoever changes this: a pair's columns (what `where:` sees) and the output's are laid out by the same [`Plan`];
//! the host lays out its condition by the rule that [`standpipe_sdk::Judge`] states. The three move together.

mod again;
mod build;
mod checked;
mod cursor;
mod fill;
mod hot;
mod lookup;
mod meet;
mod nearest;
mod numbers;
mod parted;
mod pieces;
mod probe;
mod rest;
mod rows;
mod scratch;
mod sides;
mod sieve;
mod sorted;
mod table;
#[cfg(test)]
mod tests;
mod wait;

use super::codes;
use super::keys;
use standpipe_sdk::spec::{
    Arg, ArgKind, Bound, Call, Compare, Complaint, Example, Items, Kind, Lineage, Make, Meets, Memory, Param, Probing,
    Setup, Sieve, StageSpec, Want,
};
use standpipe_sdk::{Build, Field, Result, Schema, Type, Value};
use std::sync::Arc;

/// `join`.
pub const SPEC: StageSpec = StageSpec {
    name: "join",
    about: "Rows together with those of another stream that have the same keys: the right ones are gathered, out of much larger files only those that a left key wants; what does not fit into memory is sorted on disk",
    modes: &["inner", "left", "right", "full", "semi", "anti", "cross", "asof"],
    kind: Kind::Probe,
    items: Items::some(ArgKind::Stream, 1, 1, "the stream to join"),
    on: Items::some(
        ArgKind::Match,
        0,
        usize::MAX,
        "keys: a name that both sides have, or `a == b`",
    ),
    as_name: Some("one record column for the right row, null where there is none"),
    options: &[
        Param::new(
            "where",
            ArgKind::Pairs,
            None,
            "a condition that a pair of rows must meet beside its keys",
        ),
        Param::new(
            "within",
            ArgKind::Const(Want::Any),
            None,
            "`asof`: how far back the right row may be",
        ),
    ],
    memory: Memory::Spill,
    least: wait::least,
    examples: &[
        Example {
            script: "stream c = from rows [{id: 1, name: \"Ada\"}, {id: 2, name: \"Bo\"}]\n\
                     from rows [{n: 7, id: 2}, {n: 8, id: 3}, {n: 9, id: 1}] | join c on id",
            output: "n,id,name\n7,2,Bo\n9,1,Ada\n",
        },
        Example {
            script: "stream c = from rows [{id: 1, name: \"Ada\"}]\n\
                     from rows [{n: 8, id: 3}, {n: 9, id: 1}] | join left c as c on id | select n, name = c.name",
            output: "n,name\n8,\n9,Ada\n",
        },
        Example {
            script: "stream p = from rows [{low: 0, high: 9, name: \"small\"}, {low: 5, high: 50, name: \"large\"}]\n\
                     from rows [{n: 7}, {n: 20}] | join cross p where: low <= n and n < high | select n, name",
            output: "n,name\n7,small\n7,large\n20,large\n",
        },
        Example {
            script: "stream b = from rows [{id: 2}]\nfrom rows [{id: 1}, {id: 2}] | join anti b on id",
            output: "id\n1\n",
        },
        Example {
            script: "stream rates = from rows [{day: 1, rate: 1.5}, {day: 4, rate: 2.5}]\n\
                     from rows [{at: 3}, {at: 4}, {at: 9}] | join asof rates on at >= day within: 3",
            output: "at,day,rate\n3,1,1.5\n4,4,2.5\n9,,\n",
        },
    ],
    bind: &bind,
    meets,
    sieve,
    ..StageSpec::BASE
};

/// What becomes of rows with and without a match.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Inner,
    Left,
    Right,
    Full,
    Semi,
    Anti,
    Asof,
}

impl Mode {
    /// Left rows without a match come out, with nulls.
    fn keeps_left(self) -> bool {
        matches!(self, Mode::Left | Mode::Full | Mode::Asof)
    }

    /// Right rows without a match come out, with nulls.
    fn keeps_right(self) -> bool {
        matches!(self, Mode::Right | Mode::Full)
    }

    /// Left rows without a match never come out.
    fn drops_unmatched(self) -> bool {
        matches!(self, Mode::Inner | Mode::Right | Mode::Semi)
    }

    /// The right side only decides.
    fn only_left(self) -> bool {
        matches!(self, Mode::Semi | Mode::Anti)
    }
}

/// A join as it was bound.
#[derive(Clone, Debug)]
struct Plan {
    mode: Mode,
    /// Columns of the left stream's own.
    own: usize,
    /// Columns of each side, with those that were computed for its keys.
    left_width: usize,
    right_width: usize,
    left_keys: Vec<usize>,
    right_keys: Vec<usize>,
    /// Columns of the right stream in a pair, in order.
    right: Vec<usize>,
    /// They are one record.
    record: bool,
    /// For each of the left stream's columns the input column it comes from, and the right one that stands in for it where there
    /// is no left row.
    left: Vec<(usize, Option<usize>)>,
    /// There is one key, and it is a number of up to 64 bits: its code is the key.
    exact: bool,
    condition: bool,
    asof: Option<Asof>,
}

/// The last right row not after.
#[derive(Clone, Copy, Debug)]
struct Asof {
    left: usize,
    right: usize,
    /// In the units of the column.
    within: Option<i128>,
}

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    let (Some(item), Some(other), Some(beside)) = (call.items.first(), call.streams.first(), call.beside) else {
        return Err(vec![]);
    };
    let stream = item.name.as_deref().unwrap_or("s");
    let mut complaints = vec![];
    let (mode, cross) = match call.mode {
        None | Some("inner") => (Mode::Inner, false),
        Some("left") => (Mode::Left, false),
        Some("right") => (Mode::Right, false),
        Some("full") => (Mode::Full, false),
        Some("semi") => (Mode::Semi, false),
        Some("anti") => (Mode::Anti, false),
        Some("cross") => (Mode::Inner, true),
        _ => (Mode::Asof, false),
    };
    let condition = call.option("where").is_some();
    let (matches, last) = matches_of(call, beside, mode, cross, &mut complaints);
    let asof = last.and_then(|last| asof(call, beside, last, &mut complaints));
    if mode == Mode::Asof
        && let Some(option) = call.option("where")
    {
        complaints.push(
            Complaint::new(
                codes::WRONG_ARGUMENT,
                option.span,
                "`join asof` takes no `where:`",
                "not allowed here",
            )
            .help("`| filter …` behind it sees both rows"),
        );
    }
    if mode != Mode::Asof
        && let Some(option) = call.option("within")
    {
        complaints.push(Complaint::new(
            codes::WRONG_ARGUMENT,
            option.span,
            "only `join asof` takes `within:`",
            "not allowed here",
        ));
    }

    let shared = |index: usize| {
        let name = other.get(index).map(|field| &field.name);
        matches.iter().any(|m| m.shared && m.name.as_ref() == name)
    };
    let record = call.as_name.is_some();
    let right: Vec<usize> = (0..other.width()).filter(|&index| record || !shared(index)).collect();
    names_collide(call, other, &right, mode, stream, &mut complaints);
    if !complaints.is_empty() {
        return Err(complaints);
    }

    let mut left: Vec<(usize, Option<usize>)> = (0..call.own).map(|index| (index, None)).collect();
    let mut fields = call.own_fields().to_vec();
    for m in &matches {
        let nullable = match mode {
            // A null matches nothing.
            Mode::Inner | Mode::Semi if !cross => Some(false),
            _ => None,
        };
        if let (Some(nullable), Some(field)) = (nullable, fields.get_mut(m.left)) {
            field.nullable = nullable;
        }
    }
    if mode.keeps_right() {
        fields.iter_mut().for_each(|field| field.nullable = true);
        for m in matches.iter().filter(|m| m.shared) {
            // The left side's column of that name, which a computed key may stand for.
            let at = fields.iter().position(|field| m.name.as_ref() == Some(&field.name));
            let (Some(at), Some(l), Some(r)) = (at, call.input.get(m.left), beside.get(m.right)) else {
                continue;
            };
            let nullable = r.nullable || (mode == Mode::Full && l.nullable);
            fields[at] = Field::new(fields[at].name.clone(), l.ty.clone(), nullable);
            left[at] = (m.left, Some(m.right));
        }
    }
    let mut lineage: Vec<Lineage> = left.iter().map(|(index, _)| Lineage::From(*index)).collect();
    if !mode.only_left() {
        match call.as_name {
            Some(name) => {
                fields.push(Field::new(name, Type::Record(other.clone()), mode.keeps_left()));
                lineage.push(Lineage::BesideAll);
            }
            None => {
                for &index in &right {
                    let Some(field) = other.get(index) else { continue };
                    let is_key = mode == Mode::Inner && matches.iter().any(|m| m.right == index);
                    let nullable = mode.keeps_left() || (field.nullable && !is_key);
                    fields.push(Field::new(field.name.clone(), field.ty.clone(), nullable));
                    lineage.push(Lineage::Beside(index));
                }
            }
        }
    }
    let exact = match matches.as_slice() {
        [one] => call.input.get(one.left).is_some_and(|field| is_exact(&field.ty)),
        _ => false,
    };
    let plan = Arc::new(Plan {
        mode,
        own: call.own,
        left_width: call.input.width(),
        right_width: beside.width(),
        left_keys: matches.iter().map(|m| m.left).collect(),
        right_keys: matches.iter().map(|m| m.right).collect(),
        right,
        record,
        left,
        exact,
        condition,
        asof,
    });
    let mut reads = plan.left_keys.clone();
    let mut right_reads = plan.right_keys.clone();
    if let Some(asof) = plan.asof {
        // First: the check of the order looks at the first column that is read.
        reads.insert(0, asof.left);
        right_reads.insert(0, asof.right);
    }
    let checks = plan
        .asof
        .map(|asof| [sorted::check(asof.left), sorted::check(asof.right)]);
    let rest = mode.keeps_right();
    let make = move |setup: &Setup| -> Result<Arc<dyn Build>> { Ok(Arc::new(build::Join::new(plan.clone(), setup))) };
    Ok(Bound {
        schema: fields.into_iter().collect(),
        lineage,
        reads,
        sorted_by: vec![],
        make: Make::Probe(Probing {
            build: Box::new(make),
            reads: right_reads,
            rest,
            checks,
        }),
        needs_places: false,
    })
}

/// What may be asked of a stream before its rows meet those of the other one.
///
/// A condition on left columns: of every left row comes what it meets, whatever the other left rows are. A condition on right columns
/// only where a left row that meets nothing is no row of the output. Rows whose keys are equal have one key.
fn meets(call: &Call<'_>) -> Meets {
    let keys = call.on.iter().filter_map(|item| match item.arg {
        Arg::Match {
            left,
            right,
            compare: Compare::Equal,
            ..
        } => Some((left, right)),
        _ => None,
    });
    Meets {
        first: !matches!(call.mode, Some("right" | "full")),
        second: matches!(call.mode, None | Some("inner" | "cross")),
        keys: keys.collect(),
    }
}

/// What right rows are left out by, where one that no left row matches is none of the output's.
fn sieve(call: &Call<'_>) -> Option<Sieve> {
    if matches!(call.mode, Some("right" | "full" | "cross" | "asof")) {
        return None;
    }
    let (left, right): (Vec<usize>, Vec<usize>) = meets(call).keys.into_iter().unzip();
    let exact = match left.as_slice() {
        [] => return None,
        [one] => call.input.get(*one).is_some_and(|field| is_exact(&field.ty)),
        _ => false,
    };
    let reads = [left.clone(), right.clone()];
    let keys = Arc::new(sieve::Sieved { left, right, exact });
    Some(Sieve {
        reads,
        make: Arc::new(move |file_bytes| {
            let keys = keys.clone();
            Box::new(move |setup: &Setup| Ok(sieve::make(&keys, file_bytes, setup)))
        }),
        memory: Memory::Constant,
        least: sieve::least,
    })
}

/// A key of both sides.
struct Match {
    left: usize,
    right: usize,
    shared: bool,
    name: Option<Arc<str>>,
}

/// The keys, and for `asof` what stands last.
fn matches_of<'c>(
    call: &'c Call<'_>,
    beside: &Schema,
    mode: Mode,
    cross: bool,
    complaints: &mut Vec<Complaint>,
) -> (Vec<Match>, Option<&'c standpipe_sdk::spec::Item>) {
    let mut matches = vec![];
    let mut last = None;
    for (at, item) in call.on.iter().enumerate() {
        let Arg::Match {
            left,
            right,
            shared,
            compare,
        } = item.arg
        else {
            continue;
        };
        if compare == Compare::NotBefore {
            if mode == Mode::Asof && at + 1 == call.on.len() {
                last = Some(item);
                continue;
            }
            let message = match mode {
                Mode::Asof => "`a >= b` stands last in `join asof`",
                _ => "keys are compared by `==`",
            };
            complaints.push(
                Complaint::new(codes::WRONG_ARGUMENT, item.span, message, "`>=` here")
                    .help("`where:` takes any condition on a pair of rows"),
            );
            continue;
        }
        let types = [call.input.get(left), beside.get(right)];
        if let Some(field) = types.into_iter().flatten().find(|field| keys::has_json(&field.ty)) {
            complaints.push(Complaint::new(
                codes::NO_KEY,
                item.span,
                format!("`{}` is no key: no rows can be told apart by it", field.ty),
                format!("this is `{}`", field.ty),
            ));
        }
        matches.push(Match {
            left,
            right,
            shared,
            name: item.name.clone(),
        });
    }
    let name = call
        .mode
        .map_or_else(|| "join".to_owned(), |mode| format!("join {mode}"));
    match (mode, cross) {
        (_, true) if !call.on.is_empty() => complaints.push(
            Complaint::new(
                codes::WRONG_ARGUMENT,
                call.on[0].span,
                "`join cross` has no keys",
                "not allowed here",
            )
            .help("`join … on …` without `cross`, or `where:`"),
        ),
        (_, true) => {}
        (Mode::Asof, _) if last.is_none() && complaints.is_empty() => complaints.push(Complaint::new(
            codes::NEEDS_AS,
            call.span,
            "`join asof` needs `on … at >= t`: what the right row must not be after",
            "it stands last in `on`",
        )),
        (Mode::Asof, _) => {}
        _ if call.on.is_empty() => complaints.push(
            Complaint::new(
                codes::NEEDS_AS,
                call.span,
                format!("`{name}` needs `on`"),
                "the keys are missing",
            )
            .help("`join cross s where: …` pairs rows by a condition alone"),
        ),
        _ => {}
    }
    (matches, last)
}

fn asof(
    call: &Call<'_>,
    beside: &Schema,
    item: &standpipe_sdk::spec::Item,
    complaints: &mut Vec<Complaint>,
) -> Option<Asof> {
    const MICROS_PER_DAY: i64 = 86_400_000_000;
    let Arg::Match { left, right, .. } = item.arg else {
        return None;
    };
    let ty = &beside.get(right)?.ty;
    if !matches!(
        ty,
        Type::Int | Type::Float | Type::Date | Type::Timestamp | Type::Duration
    ) {
        complaints.push(Complaint::new(
            codes::NO_KEY,
            item.span,
            format!("`join asof` goes by a time or a number, and this is `{ty}`"),
            "neither of them",
        ));
        return None;
    }
    let within = match call.option("within") {
        None => None,
        Some(option) => {
            let value = match &option.arg {
                Arg::Const(value) => Some(value),
                _ => None,
            };
            let within = match (ty, value) {
                (Type::Int, Some(&Value::Int(value))) => Some(value),
                (Type::Timestamp | Type::Duration, Some(&Value::Duration(value))) => Some(value),
                (Type::Date, Some(&Value::Duration(value))) => Some(value.div_euclid(MICROS_PER_DAY)),
                _ => None,
            };
            match within.filter(|within| *within >= 0) {
                Some(within) => Some(i128::from(within)),
                None => {
                    let needs = match ty {
                        Type::Int => "an int that is not negative",
                        Type::Float => "no float: leave it out",
                        _ => "a duration that is not negative",
                    };
                    complaints.push(Complaint::new(
                        codes::WRONG_ARGUMENT,
                        option.span,
                        format!("`within:` takes {needs} beside `{ty}`"),
                        "not this",
                    ));
                    None
                }
            }
        }
    };
    Some(Asof { left, right, within })
}

/// Whether the columns of both sides can stand beside one another.
fn names_collide(
    call: &Call<'_>,
    other: &Schema,
    right: &[usize],
    mode: Mode,
    stream: &str,
    complaints: &mut Vec<Complaint>,
) {
    let Some(item) = call.items.first() else { return };
    let own = call.own_fields();
    if let Some(name) = call.as_name {
        if !mode.only_left() && own.iter().any(|field| &*field.name == name) {
            complaints.push(
                Complaint::new(
                    codes::COLUMN_EXISTS,
                    item.span,
                    format!("column `{name}` exists already"),
                    "the right row needs a name of its own",
                )
                .help("`as` with another name"),
            );
        }
        return;
    }
    // Rows that the right side only decides about are seen by `where:` alone.
    if mode.only_left() && call.option("where").is_none() {
        return;
    }
    let taken: Vec<String> = (right.iter())
        .filter_map(|&index| other.get(index))
        .filter(|field| own.iter().any(|own| own.name == field.name))
        .map(|field| format!("`{}`", field.name))
        .collect();
    if !taken.is_empty() {
        let as_name: String = stream.chars().take(1).collect();
        complaints.push(
            Complaint::new(
                codes::SAME_NAME_TWICE,
                item.span,
                format!("both sides have {}", taken.join(", ")),
                "its columns cannot stand beside those on the left",
            )
            .help(format!(
                "`join … {stream} as {as_name}` puts the right row into one record column"
            )),
        );
    }
}

/// Whether 64 bits hold every value of the type.
fn is_exact(ty: &Type) -> bool {
    matches!(
        ty,
        Type::Bool | Type::Int | Type::Float | Type::Date | Type::Timestamp | Type::Duration
    )
}
