//! `fill a = expr`: a value in place of null. `fill down a (by k)`: the last value before, of all rows or of the group.
//!
//! Laws
//! - Only nulls change; a column keeps its place and its type.
//! - `fill down` holds one row per group and column; where there was no value yet, null stays.

mod down;

use super::codes;
use super::keys;
use super::rowkeys::KeyMaker;
use down::Down;
use standpipe_sdk::error::Result;
use standpipe_sdk::spec::{
    ArgKind, Bound, Call, Class, Complaint, Example, Filters, Item, Items, Kind, Lineage, Make, Memory, Names, Setup,
    StageSpec, Want,
};
use standpipe_sdk::{Arena, Batch, Column, Columns, Data, Emitter, Field, Flow, RowWise, Serial, Type};

/// `fill`.
pub const SPEC: StageSpec = StageSpec {
    name: "fill",
    about: "Puts a value in place of null; `fill down`, the last value before it",
    modes: &["down"],
    kind: Kind::Serial,
    items: Items {
        names: Names::Optional,
        ..Items::some(
            ArgKind::Expr(Want::Any),
            1,
            usize::MAX,
            "columns: `name = expression`, or names behind `down`",
        )
    },
    by: Items::some(
        ArgKind::Expr(Want::Any),
        0,
        usize::MAX,
        "what makes a group, for `down`",
    ),
    memory: Memory::Groups,
    examples: &[
        Example {
            script: "from rows [{a: 1, b: null}, {a: null, b: 2.5}] | fill a = 0, b = a",
            output: "a,b\n1,1.0\n0,2.5\n",
        },
        Example {
            script: "from rows [{n: null}, {n: 1}, {n: null}, {n: 2}] | fill down n",
            output: "n\n\n1\n1\n2\n",
        },
        Example {
            script: r#"from rows [{k: "a", n: 1}, {k: "b", n: 2}, {k: "a", n: null}] | fill down n by k"#,
            output: "k,n\na,1\nb,2\na,1\n",
        },
    ],
    bind: &bind,
    class: |call| {
        Some(Class {
            least: match call.mode {
                Some(_) => down::least,
                None => StageSpec::BASE.least,
            },
            ..Class::of(&SPEC)
        })
    },
    filters: |call| match call.mode {
        Some(_) => keys::filters(call, call.by),
        None => Filters::Pass,
    },
    ..StageSpec::BASE
};

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    match call.mode {
        Some(_) => bind_down(call),
        None => bind_values(call),
    }
}

/// A column that an item names, once.
fn named(call: &Call<'_>, item: &Item, seen: &mut Vec<usize>, complaints: &mut Vec<Complaint>) -> Option<usize> {
    let name = item.name.as_deref()?;
    let Some(at) = call.own_fields().iter().position(|field| &*field.name == name) else {
        complaints.push(
            Complaint::new(
                codes::NO_SUCH_COLUMN,
                item.span,
                format!("column `{name}` not found"),
                "`fill` only fills columns",
            )
            .help(format!("`derive {name} = …` adds it")),
        );
        return None;
    };
    if seen.contains(&at) {
        complaints.push(Complaint::new(
            codes::NAMED_TWICE,
            item.span,
            format!("column `{name}` is named twice"),
            "the second time",
        ));
        return None;
    }
    seen.push(at);
    Some(at)
}

fn bind_down(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    let mut complaints = vec![];
    let mut columns = vec![];
    for item in call.items {
        let is_column = call
            .column_of(item)
            .is_some_and(|(at, field)| at < call.own && item.name.as_deref() == Some(&*field.name));
        if is_column {
            named(call, item, &mut columns, &mut complaints);
        } else {
            complaints.push(Complaint::new(
                codes::WRONG_ARGUMENT,
                item.span,
                "`fill down` takes columns",
                "not the name of a column",
            ));
        }
    }
    let by = keys::grouping(call, call.by).unwrap_or_else(|mut more| {
        complaints.append(&mut more);
        vec![]
    });
    if !complaints.is_empty() {
        return Err(complaints);
    }
    let maker = (!by.is_empty()).then(|| KeyMaker::of(call, &by));
    let own = call.own;
    let reads = columns.iter().copied().chain(by).collect();
    let make = {
        let columns = columns.clone();
        move |setup: &Setup| -> Result<Box<dyn Serial>> {
            Ok(Box::new(Down::new(columns.clone(), maker.clone(), own, &setup.budget)))
        }
    };
    let mut bound = Bound::keeps(call, reads, Make::Serial(Box::new(make)));
    for at in columns {
        bound.lineage[at] = Lineage::New;
    }
    Ok(bound)
}

fn bind_values(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    let mut complaints = vec![];
    if let Some(item) = call.by.first() {
        complaints.push(
            Complaint::new(
                codes::WRONG_ARGUMENT,
                item.span,
                "only `fill down` takes `by`",
                "a value needs no group",
            )
            .help("`fill down … by …`"),
        );
    }
    let mut fields = call.own_fields().to_vec();
    let (mut seen, mut fills, mut reads) = (vec![], vec![], vec![]);
    for item in call.items {
        let Some((from, value)) = call.column_of(item) else {
            continue;
        };
        let Some(at) = named(call, item, &mut seen, &mut complaints) else {
            continue;
        };
        let field = &call.own_fields()[at];
        if from == at {
            complaints.push(
                Complaint::new(
                    codes::WRONG_ARGUMENT,
                    item.span,
                    format!("`fill {}` needs a value", field.name),
                    "which value?",
                )
                .help(format!("`fill {0} = …`, or `fill down {0}`", field.name)),
            );
            continue;
        }
        let ty = match (&field.ty, &value.ty) {
            (a, Type::Null) => a.clone(),
            (Type::Null, b) => b.clone(),
            (Type::Float, Type::Int) => Type::Float,
            (a, b) if a == b => a.clone(),
            (a, b) => {
                complaints.push(
                    Complaint::new(
                        codes::OTHER_TYPE,
                        item.span,
                        format!("`{}` is `{a}`, and the value for it is `{b}`", field.name),
                        format!("this is `{b}`"),
                    )
                    .help(format!("a cast: `{a}(…)`")),
                );
                continue;
            }
        };
        fields[at] = Field::new(field.name.clone(), ty.clone(), field.nullable && value.nullable);
        reads.extend([at, from]);
        fills.push(Fill { at, from, ty });
    }
    if !complaints.is_empty() {
        return Err(complaints);
    }
    let mut lineage: Vec<Lineage> = (0..call.own).map(Lineage::From).collect();
    for fill in &fills {
        lineage[fill.at] = Lineage::New;
    }
    let own = call.own;
    let make = move |_: &Setup| -> Result<Box<dyn RowWise>> {
        Ok(Box::new(Values {
            fills: fills.clone(),
            own,
        }))
    };
    Ok(Bound {
        schema: fields.into_iter().collect(),
        lineage,
        reads,
        sorted_by: vec![],
        make: Make::RowWise(Box::new(make)),
        needs_places: false,
    })
}

/// Column `at` takes the values of column `from` where it is null.
#[derive(Clone)]
struct Fill {
    at: usize,
    from: usize,
    ty: Type,
}

struct Values {
    fills: Vec<Fill>,
    own: usize,
}

impl RowWise for Values {
    fn push<'a>(&mut self, batch: Batch<'a>, out: &mut Emitter<'_, 'a>) -> Result<Flow> {
        let mut columns = Columns::new(out.arena(), self.own)?;
        for at in 0..self.own {
            let column = batch.column(at);
            columns.push(match self.fills.iter().find(|fill| fill.at == at) {
                Some(fill) if column.null_count() > 0 => {
                    filled(&column, &batch.column(fill.from), &fill.ty, out.arena())?
                }
                _ => column,
            });
        }
        out.last(batch.with_columns(columns.finish()))
    }
}

fn filled<'a>(column: &Column<'a>, values: &Column<'a>, ty: &Type, arena: &'a Arena) -> Result<Column<'a>> {
    let values = match (ty, values.data()) {
        (Type::Float, Data::Int(ints)) => Column::float(arena.map(ints, |v| v as f64)?, values.valid()),
        _ => *values,
    };
    if column.null_count() == column.len() {
        return Ok(values);
    }
    let picks = arena.collect(column.len(), |row| (u32::from(!column.is_valid(row)), row as u32))?;
    Column::interleave(&[*column, values], picks, arena)
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use standpipe_sdk::{Schema, Value};

    fn columns() -> Schema {
        schema(&[
            ("a", STRING),
            ("f", Type::Float),
            ("b", STRING),
            ("n", INT),
            ("z", Type::Null),
        ])
    }

    #[test]
    fn nulls_take_the_value_and_nothing_else_changes() {
        let rows: Rows = (0..50i64)
            .map(|i| {
                let name = |by: i64, name: &str| {
                    if i % by == 0 {
                        NULL
                    } else {
                        text(&format!("{name} of more than twelve bytes {i}"))
                    }
                };
                let float = if i % 4 == 1 { NULL } else { Value::Float(i as f64 / 2.0) };
                vec![name(3, "a"), float, name(6, "b"), int(i), NULL]
            })
            .collect();
        let items = [item("a", 2), item("f", 3), item("z", 3)];
        let bound = bind(&call(&columns(), 5, &items)).unwrap();
        assert_eq!(
            bound.schema.to_string(),
            "a: string?, f: float?, b: string?, n: int?, z: int?"
        );
        let want: Rows = rows
            .iter()
            .map(|row| {
                let a = if row[0] == NULL { row[2].clone() } else { row[0].clone() };
                let f = match (&row[1], &row[3]) {
                    (Value::Null, Value::Int(n)) => Value::Float(*n as f64),
                    (f, _) => f.clone(),
                };
                vec![a, f, row[2].clone(), row[3].clone(), row[3].clone()]
            })
            .collect();
        for chunk in CHUNKS {
            assert_eq!(run(&bound, &columns(), &rows, chunk).rows, want);
        }
        every_refusal_can_be_repeated(&bound, &columns(), &rows);
    }

    #[test]
    fn what_is_filled_and_with_what() {
        let codes_with = |items: &[Item], by: &[Item], mode: Option<&str>| {
            codes_of(bind(&Call {
                by,
                mode,
                ..call(&columns(), 5, items)
            }))
        };
        let (by, down) = ([column(3)], Some("down"));
        assert_eq!(codes_with(&[item("a", 3)], &[], None), [codes::OTHER_TYPE]);
        assert_eq!(codes_with(&[item("a", 0)], &[], None), [codes::WRONG_ARGUMENT]);
        assert_eq!(codes_with(&[item("q", 0)], &[], None), [codes::NO_SUCH_COLUMN]);
        assert_eq!(
            codes_with(&[item("a", 2), item("a", 2)], &[], None),
            [codes::NAMED_TWICE]
        );
        assert_eq!(codes_with(&[item("a", 2)], &by, None), [codes::WRONG_ARGUMENT]);
        assert_eq!(codes_with(&[item("a", 2)], &by, down), [codes::WRONG_ARGUMENT]);
        assert_eq!(
            codes_with(&[item("a", 0), item("a", 0)], &[], down),
            [codes::NAMED_TWICE]
        );
        assert_eq!(codes_with(&[item("a", 0)], &by, down), []);
    }
}
