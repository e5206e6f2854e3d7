//! `each expr on a, b` / `each expr type: t`: the same expression on many columns, in their place. `it` is the column's value. The
//! host computes them.

use super::codes;
use super::select::{own_picks, rearranged};
use standpipe_sdk::spec::{ArgKind, Bound, Call, Complaint, Example, Items, Kind, Param, StageSpec};

/// `each`.
pub const SPEC: StageSpec = StageSpec {
    name: "each",
    about: "Replaces many columns by one expression, in which `it` is the column's value",
    kind: Kind::RowWise,
    items: Items::some(ArgKind::PerColumn, 1, 1, "an expression over `it`"),
    on: Items::some(ArgKind::Column, 0, usize::MAX, "the columns"),
    options: &[Param::new(
        "type",
        ArgKind::Type,
        None,
        "instead of `on`: every column of this type",
    )],
    examples: &[
        Example {
            script: r#"from rows [{a: " x ", b: "y ", n: 1}] | each trim(it) on a, b"#,
            output: "a,b,n\nx,y,1\n",
        },
        Example {
            script: r#"from rows [{a: "x", b: 2, c: 3}] | each it * 10 type: int"#,
            output: "a,b,c\nx,20,30\n",
        },
    ],
    bind: &bind,
    ..StageSpec::BASE
};

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    let mut complaints = vec![];
    match (call.on.is_empty(), call.option("type")) {
        (true, None) => complaints.push(
            Complaint::new(
                codes::NEEDS_AS,
                call.span,
                "`each` needs the columns it changes",
                "neither `on` nor `type:`",
            )
            .help("`each … on a, b` names them, `each … type: string` takes all of a type"),
        ),
        (false, Some(option)) => complaints.push(Complaint::new(
            codes::WRONG_ARGUMENT,
            option.span,
            "`each` takes either `on` or `type:`",
            "columns are named already",
        )),
        (true, Some(option)) if call.columns.is_empty() => complaints.push(Complaint::new(
            codes::WRONG_ARGUMENT,
            option.span,
            "no column here has this type",
            "nothing to change",
        )),
        _ => {}
    }
    let mut picks = own_picks(call);
    let mut named = vec![];
    for item in call.columns {
        let (Some((from, _)), Some(name)) = (call.column_of(item), &item.name) else {
            continue;
        };
        if named.contains(&name) {
            complaints.push(Complaint::new(
                codes::NAMED_TWICE,
                item.span,
                format!("column `{name}` is named twice"),
                "the second time",
            ));
        }
        named.push(name);
        if let Some(pick) = picks.iter_mut().find(|(column, _)| column == name) {
            pick.1 = from;
        }
    }
    rearranged(call, &picks, complaints)
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use standpipe_sdk::spec::{Arg, Item};

    #[test]
    fn columns_keep_their_places_and_are_named_once() {
        let schema = schema(&[("a", STRING), ("b", STRING), ("c", INT), ("#0", INT), ("#1", STRING)]);
        let on = [column(0), column(1)];
        let with = |on: &[Item], columns: &[Item], options: &[(&'static str, Item)]| {
            bind(&Call {
                on,
                columns,
                options,
                ..call(&schema, 3, &[])
            })
        };
        let bound = with(&on, &[item("a", 3), item("b", 4)], &[]).unwrap();
        assert_eq!(bound.schema.to_string(), "a: int?, b: string?, c: int?");
        let rows = vec![vec![text("x"), text("y"), int(1), int(2), text("z")]];
        assert_eq!(run(&bound, &schema, &rows, 1).rows, [[int(2), text("z"), int(1)]]);
        let ty = [("type", argument(None, Arg::Type(STRING)))];
        let twice = with(&on, &[item("a", 3), item("a", 3)], &[]);
        assert_eq!(codes_of(twice), [codes::NAMED_TWICE]);
        assert_eq!(codes_of(with(&on, &[item("a", 3)], &ty)), [codes::WRONG_ARGUMENT]);
        assert_eq!(codes_of(with(&[], &[], &ty)), [codes::WRONG_ARGUMENT]);
        assert_eq!(codes_of(with(&[], &[], &[])), [codes::NEEDS_AS]);
    }
}
