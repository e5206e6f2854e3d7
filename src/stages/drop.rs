//! `drop a, b`: all columns but these.

use super::codes;
use super::select::{own_picks, rearranged};
use standpipe_sdk::spec::{ArgKind, Bound, Call, Complaint, Example, Items, Kind, StageSpec};

/// `drop`.
pub const SPEC: StageSpec = StageSpec {
    name: "drop",
    about: "Removes columns",
    kind: Kind::RowWise,
    items: Items::some(ArgKind::Column, 1, usize::MAX, "columns to remove"),
    examples: &[Example {
        script: "from rows [{a: 1, b: 2, c: 3}] | drop a, c",
        output: "b\n2\n",
    }],
    bind: &bind,
    ..StageSpec::BASE
};

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    let mut complaints = vec![];
    let mut gone = vec![];
    for item in call.items {
        let Some((at, field)) = call.column_of(item) else {
            continue;
        };
        if gone.contains(&at) {
            complaints.push(Complaint::new(
                codes::NAMED_TWICE,
                item.span,
                format!("column `{}` is named twice", field.name),
                "the second time",
            ));
        }
        gone.push(at);
    }
    let mut picks = own_picks(call);
    picks.retain(|(_, at)| !gone.contains(at));
    if picks.is_empty() && call.own > 0 {
        complaints.push(Complaint::new(
            codes::NOTHING_LEFT,
            call.span,
            "this removes every column",
            "no column is left",
        ));
    }
    rearranged(call, &picks, complaints)
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn some_columns_go_but_not_all() {
        let schema = schema(&[("a", INT), ("b", INT), ("c", INT)]);
        let bound = bind(&call(&schema, 3, &[column(0), column(2)])).unwrap();
        assert_eq!(bound.schema.to_string(), "b: int?");
        let all = [column(0), column(1), column(2), column(2)];
        assert_eq!(
            codes_of(bind(&call(&schema, 3, &all))),
            [codes::NAMED_TWICE, codes::NOTHING_LEFT]
        );
    }
}
