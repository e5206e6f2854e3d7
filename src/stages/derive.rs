//! `derive x = expr, …`: adds columns behind the others. The host computes them, left to right.

use super::codes;
use super::select::{distinct, named, own_picks, rearranged};
use standpipe_sdk::spec::{ArgKind, Bound, Call, Complaint, Example, Items, Kind, Names, StageSpec, Want};

/// `derive`.
pub const SPEC: StageSpec = StageSpec {
    name: "derive",
    about: "Adds columns; each expression sees the columns before it",
    kind: Kind::RowWise,
    items: Items {
        names: Names::Always,
        progressive: true,
        ..Items::some(
            ArgKind::Expr(Want::Any),
            1,
            usize::MAX,
            "columns to add: `name = expression`",
        )
    },
    examples: &[Example {
        script: "from rows [{price: 2.5, qty: 4}] | derive total = price * qty, double = total * 2",
        output: "price,qty,total,double\n2.5,4,10.0,20.0\n",
    }],
    bind: &bind,
    ..StageSpec::BASE
};

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    let mut complaints = vec![];
    let mut added = vec![];
    for item in call.items {
        let Some((name, from)) = named(call, item, &mut complaints) else {
            continue;
        };
        if call.own_fields().iter().any(|f| f.name == name) {
            complaints.push(
                Complaint::new(
                    codes::COLUMN_EXISTS,
                    item.span,
                    format!("column `{name}` exists already"),
                    "`derive` only adds columns",
                )
                .help(format!("`set {name} = …` replaces it")),
            );
        }
        added.push((name, from, item));
    }
    distinct(&added, &mut complaints);
    let mut picks = own_picks(call);
    picks.extend(added.into_iter().map(|(name, from, _)| (name, from)));
    rearranged(call, &picks, complaints)
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use standpipe_sdk::spec::Lineage;

    #[test]
    fn added_columns_come_last_and_may_not_exist() {
        let schema = schema(&[("a", INT), ("b", INT), ("+", INT)]);
        let items = [item("c", 2)];
        let bound = bind(&call(&schema, 2, &items)).unwrap();
        assert_eq!(bound.lineage, [Lineage::From(0), Lineage::From(1), Lineage::From(2)]);
        assert_eq!(bound.schema.to_string(), "a: int?, b: int?, c: int?");
        let exists = [item("a", 2), item("x", 2), item("x", 2)];
        assert_eq!(
            codes_of(bind(&call(&schema, 2, &exists))),
            [codes::COLUMN_EXISTS, codes::SAME_NAME_TWICE]
        );
    }
}
