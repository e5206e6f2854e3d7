//! `rename new = old, …`: other names in the same places.

use super::codes;
use super::select::{own_picks, rearranged};
use standpipe_sdk::spec::{ArgKind, Bound, Call, Complaint, Example, Items, Kind, Names, StageSpec};

/// `rename`.
pub const SPEC: StageSpec = StageSpec {
    name: "rename",
    about: "Gives columns other names; they keep their place",
    kind: Kind::RowWise,
    items: Items {
        names: Names::Always,
        ..Items::some(ArgKind::Column, 1, usize::MAX, "new names: `new = old`")
    },
    examples: &[Example {
        script: "from rows [{a: 1, b: 2}] | rename b = a, a = b",
        output: "b,a\n1,2\n",
    }],
    bind: &bind,
    ..StageSpec::BASE
};

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    let mut complaints = vec![];
    let mut picks = own_picks(call);
    let mut renamed = vec![];
    for item in call.items {
        let (Some((at, field)), Some(name)) = (call.column_of(item), &item.name) else {
            continue;
        };
        if renamed.contains(&at) {
            complaints.push(Complaint::new(
                codes::NAMED_TWICE,
                item.span,
                format!("column `{}` is renamed twice", field.name),
                "the second time",
            ));
        }
        renamed.push(at);
        if let Some(pick) = picks.get_mut(at) {
            pick.0 = name.clone();
        }
    }
    for item in call.items {
        let Some(name) = &item.name else { continue };
        if picks.iter().filter(|(other, _)| other == name).count() > 1 {
            complaints.push(Complaint::new(
                codes::SAME_NAME_TWICE,
                item.span,
                format!("two columns would be called `{name}`"),
                "this name is taken",
            ));
        }
    }
    rearranged(call, &picks, complaints)
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn names_may_be_swapped_but_not_shared() {
        let schema = schema(&[("a", INT), ("b", STRING)]);
        let bound = bind(&call(&schema, 2, &[item("b", 0), item("a", 1)])).unwrap();
        assert_eq!(bound.schema.to_string(), "b: int?, a: string?");
        assert_eq!(
            codes_of(bind(&call(&schema, 2, &[item("b", 0)]))),
            [codes::SAME_NAME_TWICE]
        );
        let twice = [item("x", 0), item("y", 0)];
        assert_eq!(codes_of(bind(&call(&schema, 2, &twice))), [codes::NAMED_TWICE]);
    }
}
