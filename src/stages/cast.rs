//! `cast a: int, b: date`: columns as another type, in their place. The host computes the casts.

use super::codes;
use super::select::{own_picks, rearranged};
use standpipe_sdk::spec::{ArgKind, Bound, Call, Complaint, Example, Kind, Param, StageSpec};

/// `cast`.
pub const SPEC: StageSpec = StageSpec {
    name: "cast",
    about: "Turns columns into another type; what cannot be turned is a row error",
    kind: Kind::RowWise,
    options: &[Param {
        required: true,
        ..Param::new(Param::ANY_COLUMN, ArgKind::Type, None, "the type a column gets")
    }],
    examples: &[Example {
        script: r#"from rows [{id: "7", day: "2026-01-31"}] | cast id: int day: date"#,
        output: "id,day\n7,2026-01-31\n",
    }],
    bind: &bind,
    ..StageSpec::BASE
};

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    let mut complaints = vec![];
    let mut picks = own_picks(call);
    for item in call.columns {
        let (Some((from, _)), Some(name)) = (call.column_of(item), &item.name) else {
            continue;
        };
        match picks.iter_mut().find(|(column, _)| column == name) {
            Some(pick) if pick.1 < call.own => pick.1 = from,
            Some(_) => complaints.push(Complaint::new(
                codes::NAMED_TWICE,
                item.span,
                format!("column `{name}` is cast twice"),
                "the second time",
            )),
            None => complaints.push(Complaint::new(
                codes::NO_SUCH_COLUMN,
                item.span,
                format!("column `{name}` not found"),
                "not a column here",
            )),
        }
    }
    rearranged(call, &picks, complaints)
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn a_cast_column_keeps_its_place() {
        let schema = schema(&[("a", STRING), ("b", STRING), ("+", INT)]);
        let columns = [item("a", 2)];
        let with = |columns: &[standpipe_sdk::spec::Item]| {
            bind(&Call {
                columns,
                ..call(&schema, 2, &[])
            })
        };
        assert_eq!(with(&columns).unwrap().schema.to_string(), "a: int?, b: string?");
        let wrong = [item("a", 2), item("a", 2), item("z", 2)];
        assert_eq!(codes_of(with(&wrong)), [codes::NAMED_TWICE, codes::NO_SUCH_COLUMN]);
    }
}
