//! `set x = expr, …`: replaces columns in their place. The host computes them, left to right.

use super::codes;
use super::select::{named, own_picks, rearranged};
use standpipe_sdk::spec::{ArgKind, Bound, Call, Complaint, Example, Items, Kind, Names, StageSpec, Want};

/// `set`.
pub const SPEC: StageSpec = StageSpec {
    name: "set",
    about: "Replaces columns in their place; each expression sees the columns before it",
    kind: Kind::RowWise,
    items: Items {
        names: Names::Always,
        progressive: true,
        ..Items::some(
            ArgKind::Expr(Want::Any),
            1,
            usize::MAX,
            "columns to replace: `name = expression`",
        )
    },
    examples: &[Example {
        script: r#"from rows [{a: 1, b: "x"}] | set a = a + 1, a = a * 10"#,
        output: "a,b\n20,x\n",
    }],
    bind: &bind,
    ..StageSpec::BASE
};

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    let mut complaints = vec![];
    let mut picks = own_picks(call);
    for item in call.items {
        let Some((name, from)) = named(call, item, &mut complaints) else {
            continue;
        };
        match picks.iter_mut().find(|(column, _)| *column == name) {
            Some(pick) => pick.1 = from,
            None => complaints.push(
                Complaint::new(
                    codes::NO_SUCH_COLUMN,
                    item.span,
                    format!("column `{name}` not found"),
                    "`set` only replaces columns",
                )
                .help(format!("`derive {name} = …` adds it")),
            ),
        }
    }
    rearranged(call, &picks, complaints)
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn a_replaced_column_keeps_its_place_and_the_last_one_counts() {
        let schema = schema(&[("a", INT), ("b", INT), ("+", STRING), ("+", INT)]);
        let items = [item("a", 2), item("a", 3)];
        let bound = bind(&call(&schema, 2, &items)).unwrap();
        assert_eq!(bound.schema.to_string(), "a: int?, b: int?");
        let got = run(&bound, &schema, &vec![vec![int(1), int(2), text("x"), int(4)]], 1);
        assert_eq!(got.rows, [[int(4), int(2)]]);
        assert_eq!(
            codes_of(bind(&call(&schema, 2, &[item("z", 2)]))),
            [codes::NO_SUCH_COLUMN]
        );
    }
}
