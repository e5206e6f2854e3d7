//! `select a, b = expr, c.*, *`: exactly these columns. The host computes the expressions and spells out the stars.

use super::codes;
use standpipe_sdk::spec::{ArgKind, Bound, Call, Complaint, Example, Item, Items, Kind, Names, StageSpec, Want};
use std::sync::Arc;

/// `select`.
pub const SPEC: StageSpec = StageSpec {
    name: "select",
    about: "Exactly these columns, in this order; `*` is all that the list does not name",
    kind: Kind::RowWise,
    items: Items {
        names: Names::Optional,
        star: true,
        ..Items::some(
            ArgKind::Expr(Want::Any),
            1,
            usize::MAX,
            "columns to keep, or `name = expression`",
        )
    },
    examples: &[
        Example {
            script: "from rows [{a: 1, b: 2, c: 3}] | select c, sum = a + b",
            output: "c,sum\n3,3\n",
        },
        Example {
            script: "from rows [{a: 1, b: 2, c: 3}] | select b, *",
            output: "b,a,c\n2,1,3\n",
        },
    ],
    bind: &bind,
    ..StageSpec::BASE
};

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    let mut complaints = vec![];
    let mut picks = vec![];
    for item in call.items {
        if let Some((name, from)) = named(call, item, &mut complaints) {
            picks.push((name, from, item));
        }
    }
    distinct(&picks, &mut complaints);
    let picks: Vec<_> = picks.into_iter().map(|(name, from, _)| (name, from)).collect();
    rearranged(call, &picks, complaints)
}

/// Name and input column of an item.
pub(super) fn named(call: &Call<'_>, item: &Item, complaints: &mut Vec<Complaint>) -> Option<(Arc<str>, usize)> {
    let (from, _) = call.column_of(item)?;
    if item.name.is_none() {
        complaints.push(
            Complaint::new(
                codes::NEEDS_NAME,
                item.span,
                "this column has no name",
                "an expression without a name",
            )
            .help("`name = …` before the expression"),
        );
    }
    Some((item.name.clone()?, from))
}

/// Complains about every item whose column has the name of an earlier one.
pub(super) fn distinct(picks: &[(Arc<str>, usize, &Item)], complaints: &mut Vec<Complaint>) {
    for (at, (name, _, item)) in picks.iter().enumerate() {
        if picks[..at].iter().any(|(earlier, ..)| earlier == name) {
            complaints.push(Complaint::new(
                codes::SAME_NAME_TWICE,
                item.span,
                format!("two columns are called `{name}`"),
                "the second one",
            ));
        }
    }
}

/// The bound stage, unless there are complaints.
pub(super) fn rearranged(
    call: &Call<'_>,
    picks: &[(Arc<str>, usize)],
    complaints: Vec<Complaint>,
) -> Result<Bound, Vec<Complaint>> {
    if complaints.is_empty() {
        Ok(Bound::rearrange(call.input, picks))
    } else {
        Err(complaints)
    }
}

/// The stream's own columns, each under its name.
pub(super) fn own_picks(call: &Call<'_>) -> Vec<(Arc<str>, usize)> {
    call.own_fields()
        .iter()
        .enumerate()
        .map(|(at, field)| (field.name.clone(), at))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn columns_come_in_the_order_of_the_list() {
        let schema = schema(&[("a", INT), ("b", STRING), ("+", INT)]);
        let items = [item("c", 2), item("b", 1)];
        let bound = bind(&call(&schema, 2, &items)).unwrap();
        assert_eq!(bound.schema.to_string(), "c: int?, b: string?");
        let rows = vec![vec![int(1), text("x"), int(2)], vec![int(3), text("y"), int(4)]];
        for chunk in CHUNKS {
            let got = run(&bound, &schema, &rows, chunk);
            assert_eq!(got.rows, [[int(2), text("x")], [int(4), text("y")]]);
        }
        let twice = [item("c", 2), item("c", 1)];
        assert_eq!(codes_of(bind(&call(&schema, 2, &twice))), [codes::SAME_NAME_TWICE]);
    }
}
