//! `union s, t`: streams end to end.
//!
//! The host joins the streams; [`picks`] tells it where the columns of each are. Where the types differ it casts: ints to
//! floats or decimals, decimals to more digits.
//!
//! Laws
//! - The result has the first stream's columns in its order, then (`missing: null`) those only others have, as they come.
//! - A column is nullable if one of its inputs is, or lacks it.

use super::codes;
use standpipe_sdk::spec::{
    Arg, ArgKind, Bound, Call, Complaint, Example, Items, Kind, Lineage, Make, Param, StageSpec, Want,
};
use standpipe_sdk::{Field, Item, Schema, Type, Value};

/// `union`.
pub const SPEC: StageSpec = StageSpec {
    name: "union",
    about: "The rows, then those of other streams with the same columns; equal rows stay",
    kind: Kind::Wiring,
    items: Items::some(ArgKind::Stream, 1, usize::MAX, "the streams that follow"),
    options: &[MISSING],
    examples: &[
        Example {
            script: "stream b = from rows [{n: 2.5, k: 9}]\nfrom rows [{k: 8, n: 1}] | union b",
            output: "k,n\n8,1.0\n9,2.5\n",
        },
        Example {
            script: "stream b = from rows [{b: 2}]\nfrom rows [{a: 1}] | union b missing: null",
            output: "a,b\n1,\n,2\n",
        },
    ],
    bind: &|call| together("union", call),
    ..StageSpec::BASE
};

/// The option that fills what a stream lacks.
pub(super) const MISSING: Param = Param::new(
    "missing",
    ArgKind::Const(Want::Any),
    None,
    "`null`: a column that a stream lacks is null there",
);

/// The columns of the rows of all streams of a call to `stage`.
pub(super) fn together(stage: &str, call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    let mut complaints = vec![];
    let fill = match call.option(MISSING.name) {
        None => false,
        Some(item) if matches!(item.arg, Arg::Const(Value::Null)) => true,
        Some(item) => {
            complaints.push(Complaint::new(
                codes::WRONG_ARGUMENT,
                item.span,
                "`missing:` can only be `null`",
                "not `null`",
            ));
            true
        }
    };
    let mut fields = call.own_fields().to_vec();
    for item in call.items {
        let Arg::Stream(index) = item.arg else { continue };
        let Some(stream) = call.streams.get(index) else {
            continue;
        };
        let name = item
            .name
            .as_deref()
            .map_or_else(|| "the stream".into(), |n| format!("`{n}`"));
        let mut differ = |code, message: String, help: &str| {
            let complaint = Complaint::new(code, item.span, message, format!("has `{stream}`"));
            complaints.push(complaint.help(help));
        };
        for field in &mut fields {
            match stream.fields().iter().find(|f| f.name == field.name) {
                Some(other) => match widen(&field.ty, &other.ty) {
                    Some(ty) => *field = Field::new(field.name.clone(), ty, field.nullable || other.nullable),
                    None => differ(
                        codes::OTHER_TYPES,
                        format!(
                            "column `{}` is `{}` here and `{}` in {name}",
                            field.name, field.ty, other.ty
                        ),
                        &format!("a `cast` before the `{stage}`"),
                    ),
                },
                None if fill => field.nullable = true,
                None => differ(
                    codes::OTHER_COLUMNS,
                    format!("{name} has no column `{}`", field.name),
                    &format!("`{stage} … missing: null`"),
                ),
            }
        }
        for other in stream.fields() {
            if fields.iter().any(|f| f.name == other.name) {
                continue;
            }
            if !fill {
                differ(
                    codes::OTHER_COLUMNS,
                    format!("only {name} has a column `{}`", other.name),
                    &format!("`{stage} … missing: null`"),
                );
            }
            fields.push(Field::new(other.name.clone(), other.ty.clone(), true));
        }
    }
    if !complaints.is_empty() {
        return Err(complaints);
    }
    let lineage = (0..fields.len()).map(|i| if i < call.own { Lineage::From(i) } else { Lineage::New });
    Ok(Bound {
        lineage: lineage.collect(),
        schema: Schema::new(fields),
        reads: vec![],
        sorted_by: vec![],
        make: Make::Wiring,
        needs_places: false,
    })
}

/// Where each column of a union is in one of its streams; `None` = the stream lacks it, so it is null there.
pub fn picks(union: &Schema, stream: &Schema) -> Vec<Option<usize>> {
    union.fields().iter().map(|f| stream.position(&f.name)).collect()
}

/// The type that holds the values of both, if there is one.
pub fn widen(a: &Type, b: &Type) -> Option<Type> {
    // An int has up to 19 digits.
    const INT_DIGITS: u8 = 19;
    Some(match (a, b) {
        (Type::Null, other) | (other, Type::Null) => other.clone(),
        (Type::Int, Type::Float) | (Type::Float, Type::Int) => Type::Float,
        (Type::Int, &Type::Decimal { precision, scale }) | (&Type::Decimal { precision, scale }, Type::Int) => {
            Type::Decimal {
                precision: precision.max(INT_DIGITS.saturating_add(scale)).min(38),
                scale,
            }
        }
        (&Type::Decimal { precision: p, scale: s }, &Type::Decimal { precision: q, scale: t }) => {
            let (scale, whole) = (s.max(t), p.saturating_sub(s).max(q.saturating_sub(t)));
            Type::Decimal {
                precision: whole.saturating_add(scale).min(38),
                scale,
            }
        }
        // Within lists and records nothing is cast: only nullability and the type of `null` may differ.
        (Type::List(a), Type::List(b)) => Type::List(std::sync::Arc::new(Item {
            ty: same(&a.ty, &b.ty)?,
            nullable: a.nullable || b.nullable,
        })),
        (Type::Record(a), Type::Record(b)) if a.width() == b.width() => {
            let field = |(a, b): (&Field, &Field)| {
                let ty = (a.name == b.name).then(|| same(&a.ty, &b.ty))??;
                Some(Field::new(a.name.clone(), ty, a.nullable || b.nullable))
            };
            Type::Record(Schema::new(
                a.fields()
                    .iter()
                    .zip(b.fields())
                    .map(field)
                    .collect::<Option<Vec<_>>>()?,
            ))
        }
        (a, b) if a == b => a.clone(),
        _ => return None,
    })
}

fn same(a: &Type, b: &Type) -> Option<Type> {
    match (a, b) {
        (Type::List(_), _) | (Type::Record(_), _) | (Type::Null, _) | (_, Type::Null) => widen(a, b),
        _ => (a == b).then(|| a.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use standpipe_sdk::spec::Item as Argument;

    fn streams(count: usize) -> Vec<Argument> {
        (0..count).map(|i| argument(Some("s"), Arg::Stream(i))).collect()
    }

    #[test]
    fn types_widen_and_columns_are_found_by_name() {
        let first = schema(&[("a", INT), ("b", Type::Null)]);
        let second: Schema = [Field::new("b", STRING, false), Field::new("a", Type::Float, false)]
            .into_iter()
            .collect();
        let (items, streams) = (streams(1), [second.clone()]);
        let bound = together(
            "union",
            &Call {
                streams: &streams,
                ..call(&first, 2, &items)
            },
        )
        .unwrap();
        assert_eq!(bound.schema.to_string(), "a: float?, b: string?");
        assert_eq!(picks(&bound.schema, &second), [Some(1), Some(0)]);
        let decimal = |precision, scale| Type::Decimal { precision, scale };
        assert_eq!(widen(&decimal(10, 2), &Type::Int), Some(decimal(21, 2)));
        assert_eq!(widen(&decimal(10, 2), &decimal(12, 6)), Some(decimal(14, 6)));
        assert_eq!(widen(&decimal(10, 2), &Type::Float), None);
        assert_eq!(
            widen(&Type::list(Type::Null, true), &Type::list(INT, false)),
            Some(Type::list(INT, true))
        );
        assert_eq!(widen(&Type::list(INT, true), &Type::list(Type::Float, false)), None);
    }

    #[test]
    fn other_columns_are_a_complaint_or_null() {
        let first = schema(&[("a", INT)]);
        let (items, streams) = (streams(1), [schema(&[("b", STRING)])]);
        let with = Call {
            streams: &streams,
            ..call(&first, 1, &items)
        };
        assert_eq!(codes_of(together("union", &with)), [codes::OTHER_COLUMNS; 2]);
        let options = [("missing", argument(None, Arg::Const(NULL)))];
        let bound = together(
            "union",
            &Call {
                options: &options,
                ..with
            },
        )
        .unwrap();
        assert_eq!(bound.schema.to_string(), "a: int?, b: string?");
    }
}
