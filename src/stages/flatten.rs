//! `flatten c (prefix: "c_")`: the fields of a record as columns, in its place.
//!
//! Laws
//! - The fields of a null record are null.

use super::codes;
use super::select::own_picks;
use standpipe_sdk::bits::both;
use standpipe_sdk::error::Result;
use standpipe_sdk::spec::{
    ArgKind, Bound, Call, Complaint, Example, Filters, Items, Kind, Lineage, Make, Param, StageSpec, Want,
};
use standpipe_sdk::{Arena, Batch, Column, Columns, Data, Emitter, Field, Flow, RowWise, Type};

/// `flatten`.
pub const SPEC: StageSpec = StageSpec {
    name: "flatten",
    about: "The fields of a record as columns, in the record's place",
    kind: Kind::RowWise,
    items: Items::some(ArgKind::Column, 1, 1, "the record"),
    options: &[Param::new(
        "prefix",
        ArgKind::Const(Want::String),
        None,
        "what the columns' names begin with; else they are the fields' names",
    )],
    examples: &[
        Example {
            script: r#"from rows [{id: 1, c: {name: "x", age: 5}, z: 9}] | flatten c prefix: "c_""#,
            output: "id,c_name,c_age,z\n1,x,5,9\n",
        },
        Example {
            script: "from rows [{id: 1, c: {a: 5}}, {id: 2, c: null}] | flatten c",
            output: "id,a\n1,5\n2,\n",
        },
    ],
    bind: &bind,
    filters: |_| Filters::Pass,
    ..StageSpec::BASE
};

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    let Some((item, (record, field))) = call.items.first().and_then(|item| Some((item, call.column_of(item)?))) else {
        return Err(vec![]);
    };
    let Type::Record(schema) = &field.ty else {
        return Err(vec![Complaint::new(
            codes::OTHER_TYPE,
            item.span,
            format!("`flatten` needs a record, and `{}` is `{}`", field.name, field.ty),
            format!("this is `{}`", field.ty),
        )]);
    };
    let prefix = call.text("prefix").unwrap_or_default();
    let mut fields: Vec<Field> = vec![];
    let mut lineage = vec![];
    let mut complaints = vec![];
    for (name, at) in own_picks(call) {
        if at != record {
            let own = &call.own_fields()[at];
            fields.push(Field::new(name, own.ty.clone(), own.nullable));
            lineage.push(Lineage::From(at));
            continue;
        }
        for part in schema.fields() {
            let name = format!("{prefix}{}", part.name);
            if call
                .own_fields()
                .iter()
                .enumerate()
                .any(|(other, f)| other != record && *f.name == name)
            {
                complaints.push(
                    Complaint::new(
                        codes::COLUMN_EXISTS,
                        item.span,
                        format!("column `{name}` exists already"),
                        format!("it has a field `{}`", part.name),
                    )
                    .help(format!("`prefix: \"{}_\"`", field.name)),
                );
            }
            fields.push(Field::new(name, part.ty.clone(), part.nullable || field.nullable));
            lineage.push(Lineage::New);
        }
    }
    if fields.is_empty() {
        complaints.push(Complaint::new(
            codes::NOTHING_LEFT,
            call.span,
            "this removes every column",
            "no column is left",
        ));
    }
    if !complaints.is_empty() {
        return Err(complaints);
    }
    let (own, width, columns) = (call.own, schema.width(), fields.len());
    let make = move |_: &_| {
        Ok(Box::new(Flatten {
            record,
            own,
            width,
            columns,
        }) as Box<dyn RowWise>)
    };
    Ok(Bound {
        schema: fields.into_iter().collect(),
        lineage,
        reads: vec![record],
        sorted_by: vec![],
        make: Make::RowWise(Box::new(make)),
        needs_places: false,
    })
}

struct Flatten {
    record: usize,
    own: usize,
    /// Fields of the record.
    width: usize,
    columns: usize,
}

impl RowWise for Flatten {
    fn push<'a>(&mut self, batch: Batch<'a>, out: &mut Emitter<'_, 'a>) -> Result<Flow> {
        let mut columns = Columns::new(out.arena(), self.columns)?;
        for at in 0..self.own {
            if at != self.record {
                columns.push(batch.column(at));
                continue;
            }
            for field in 0..self.width {
                columns.push(part(&batch.column(at), field, out.arena())?);
            }
        }
        out.last(batch.with_columns(columns.finish()))
    }
}

/// Field `at` of a column of records.
fn part<'a>(records: &Column<'a>, at: usize, arena: &'a Arena) -> Result<Column<'a>> {
    let Data::Record(record) = records.data() else {
        return Ok(Column::nulls(records.len()));
    };
    let field = record.field(at, records.len());
    if matches!(field.data(), Data::Null | Data::Absent) {
        return Ok(field);
    }
    Ok(field.with_valid(both(records.valid(), field.valid(), arena)?))
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use standpipe_sdk::spec::{Arg, Item};
    use standpipe_sdk::{Schema, Value};

    fn columns() -> Schema {
        let inner = schema(&[("x", INT), ("y", STRING), ("n", Type::Null)]);
        schema(&[("id", INT), ("c", Type::Record(inner)), ("x", INT)])
    }

    fn prefixed(prefix: &str) -> [(&'static str, Item); 1] {
        [("prefix", argument(None, Arg::Const(text(prefix))))]
    }

    #[test]
    fn fields_stand_where_the_record_stood() {
        let record = |x: Value, y: Value| Value::Record(vec![("x".into(), x), ("y".into(), y), ("n".into(), NULL)]);
        let rows: Rows = (0..40)
            .map(|i| match i % 4 {
                0 => vec![int(i), NULL, int(-i)],
                1 => vec![int(i), record(NULL, text("a text that is longer than a view")), int(-i)],
                _ => vec![int(i), record(int(i), NULL), int(-i)],
            })
            .collect();
        let want: Rows = (0..40)
            .map(|i| match i % 4 {
                0 => vec![int(i), NULL, NULL, NULL, int(-i)],
                1 => vec![int(i), NULL, text("a text that is longer than a view"), NULL, int(-i)],
                _ => vec![int(i), int(i), NULL, NULL, int(-i)],
            })
            .collect();
        let bound = bind(&Call {
            options: &prefixed("c_"),
            ..call(&columns(), 3, &[column(1)])
        })
        .unwrap();
        assert_eq!(
            bound.schema.to_string(),
            "id: int?, c_x: int?, c_y: string?, c_n: null, x: int?"
        );
        for chunk in CHUNKS {
            assert_eq!(run(&bound, &columns(), &rows, chunk).rows, want);
        }
        every_refusal_can_be_repeated(&bound, &columns(), &rows);
    }

    #[test]
    fn only_records_and_only_new_names() {
        assert_eq!(codes_of(bind(&call(&columns(), 3, &[column(0)]))), [codes::OTHER_TYPE]);
        assert_eq!(
            codes_of(bind(&call(&columns(), 3, &[column(1)]))),
            [codes::COLUMN_EXISTS]
        );
    }
}
