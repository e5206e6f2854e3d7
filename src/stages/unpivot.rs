//! `unpivot a, b key: n value: v`: a row for each value of some columns, with the column's name beside it.
//!
//! Laws
//! - The rows of a row come in the order of the list; a null gives none, as in SQL.
//! - The other columns come first, then the key, then the value.
//! - Rows are made in blocks in a scratch arena that is reset between them; places get a counter, as in `unnest`.

use super::codes::{self, held};
use super::union::widen;
use super::unnest::{BLOCK_ROWS, LaneScratch, number};
use standpipe_sdk::build::TextBuilder;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::spec::{
    ArgKind, Bound, Call, Complaint, Example, Filters, Items, Kind, Lineage, Make, Param, Setup, StageSpec,
};
use standpipe_sdk::{Arena, Batch, Column, Columns, Data, Emitter, Field, Flow, Place, RowWise, Text, Type};

/// `unpivot`.
pub const SPEC: StageSpec = StageSpec {
    name: "unpivot",
    about: "A row for each value of some columns, with the column's name beside it; nulls give none",
    kind: Kind::RowWise,
    least: super::unnest::least,
    items: Items::some(ArgKind::Column, 1, usize::MAX, "the columns"),
    options: &[
        Param {
            required: true,
            ..Param::new("key", ArgKind::Word, None, "the name of the column of names")
        },
        Param {
            required: true,
            ..Param::new("value", ArgKind::Word, None, "the name of the column of values")
        },
    ],
    examples: &[
        Example {
            script: "from rows [{id: 1, jan: 5, feb: 6}, {id: 2, jan: 7, feb: null}] | unpivot jan, feb key: month value: n",
            output: "id,month,n\n1,jan,5\n1,feb,6\n2,jan,7\n",
        },
        Example {
            script: "from rows [{a: 1, b: 2.5}] | unpivot a, b key: k value: v",
            output: "k,v\na,1.0\nb,2.5\n",
        },
    ],
    bind: &bind,
    filters: |_| Filters::Pass,
    ..StageSpec::BASE
};

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    let mut complaints = vec![];
    let (mut listed, mut names) = (vec![], vec![]);
    let mut ty = Type::Null;
    for item in call.items {
        let Some((at, field)) = call.column_of(item) else {
            continue;
        };
        if listed.contains(&at) {
            complaints.push(Complaint::new(
                codes::NAMED_TWICE,
                item.span,
                format!("column `{}` is named twice", field.name),
                "the second time",
            ));
            continue;
        }
        // Ints become floats; other types stay what they are.
        let wider = widen(&ty, &field.ty).filter(|wider| *wider == field.ty || *wider == ty || is_float(wider));
        match wider {
            Some(wider) => ty = wider,
            None => complaints.push(
                Complaint::new(
                    codes::OTHER_TYPE,
                    item.span,
                    format!(
                        "`{}` is `{}`, and the columns before it are `{ty}`",
                        field.name, field.ty
                    ),
                    "another type",
                )
                .help("a `cast` before the `unpivot`"),
            ),
        }
        listed.push(at);
        names.push(field.name.to_string());
    }
    let mut fields: Vec<Field> = vec![];
    let mut lineage = vec![];
    for (at, field) in call.own_fields().iter().enumerate() {
        if !listed.contains(&at) {
            fields.push(field.clone());
            lineage.push(Lineage::From(at));
        }
    }
    for (option, ty) in [("key", Type::String), ("value", ty.clone())] {
        let (Some(name), Some(item)) = (call.text(option), call.option(option)) else {
            continue;
        };
        if fields.iter().any(|field| &*field.name == name) {
            complaints.push(Complaint::new(
                codes::COLUMN_EXISTS,
                item.span,
                format!("column `{name}` exists already"),
                format!("`{option}:` needs a name of its own"),
            ));
        }
        let nullable = ty == Type::Null;
        fields.push(Field::new(name, ty, nullable));
        lineage.push(Lineage::New);
    }
    if !complaints.is_empty() {
        return Err(complaints);
    }
    let others: Vec<usize> = (0..call.own).filter(|at| !listed.contains(at)).collect();
    let reads = listed.clone();
    let make = move |setup: &Setup| -> Result<Box<dyn RowWise>> {
        let scratch = LaneScratch::new(setup.share, &setup.budget).map_err(|e| held("unpivot", e))?;
        Ok(Box::new(Unpivot {
            listed: listed.clone(),
            names: names.clone(),
            others: others.clone(),
            ty: ty.clone(),
            scratch,
            block: BLOCK_ROWS,
            before: None,
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

fn is_float(ty: &Type) -> bool {
    *ty == Type::Float
}

struct Unpivot {
    listed: Vec<usize>,
    names: Vec<String>,
    others: Vec<usize>,
    ty: Type,
    scratch: LaneScratch,
    /// Rows of the next block.
    block: usize,
    /// The last row that was expanded, and the next number in its record.
    before: Option<(Place, u32)>,
}

/// Where an expansion stands: the next row, and the next of its columns.
#[derive(Clone, Copy)]
struct Cursor {
    row: usize,
    column: usize,
    first: bool,
    before: Option<(Place, u32)>,
}

/// A row of a block: column and row it comes from, and its place.
#[derive(Clone, Copy)]
struct Out {
    column: u32,
    row: u32,
    place: Place,
}

impl RowWise for Unpivot {
    fn push<'a>(&mut self, batch: Batch<'a>, out: &mut Emitter<'_, 'a>) -> Result<Flow> {
        let arena = out.arena();
        let mut values = Columns::new(arena, self.listed.len())?;
        for &at in &self.listed {
            let column = batch.column(at);
            values.push(match (&self.ty, column.data()) {
                (Type::Float, Data::Int(ints)) => Column::float(arena.map(ints, |v| v as f64)?, column.valid()),
                _ => column,
            });
        }
        let values = values.finish();
        let mut names = TextBuilder::new(arena, self.names.len(), 0)?;
        for name in &self.names {
            names.push(name)?;
        }
        let names = names.finish()?;
        let mut left: usize = values.iter().map(|column| column.len() - column.null_count()).sum();
        let mut cursor = Cursor {
            row: 0,
            column: 0,
            first: true,
            before: self.before,
        };
        self.scratch.widen();
        while left > 0 {
            self.scratch.arena.reset();
            let rows = self.block.min(left);
            let (block, after) = match self.expand(&batch, values, &names, cursor, rows, &self.scratch.arena) {
                // What follows needs room too: a block takes at most a quarter.
                Ok(_) if rows > 1 && self.scratch.arena.used() > self.scratch.arena.limit() / 4 => {
                    self.block = rows / 2;
                    continue;
                }
                Ok(made) => made,
                Err(Error::Memory { .. }) if rows > 1 => {
                    self.block = rows / 2;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let flow = out.emit_in(&self.scratch.arena, block)?;
            cursor = after;
            self.before = after.before;
            left -= rows;
            if flow == Flow::Done {
                return Ok(Flow::Done);
            }
        }
        Ok(Flow::More)
    }
}

impl Unpivot {
    /// The next `rows` rows from `cursor` on, and where they end.
    fn expand<'b>(
        &self,
        batch: &Batch<'b>,
        values: &[Column<'b>],
        names: &Text<'b>,
        mut cursor: Cursor,
        rows: usize,
        scratch: &'b Arena,
    ) -> Result<(Batch<'b>, Cursor)> {
        let outs = scratch.collect(rows, |_| {
            while cursor.column == values.len() || !values[cursor.column].is_valid(cursor.row) {
                cursor.column += 1;
                if cursor.column >= values.len() {
                    (cursor.row, cursor.column, cursor.first) = (cursor.row + 1, 0, true);
                }
            }
            let out = Out {
                column: cursor.column as u32,
                row: cursor.row as u32,
                place: number(&mut cursor.before, batch.place(cursor.row), cursor.first),
            };
            cursor.column += 1;
            cursor.first = false;
            out
        })?;
        let parents = scratch.collect(rows, |i| outs[i].row)?;
        let which = scratch.collect(rows, |i| outs[i].column)?;
        let picks = scratch.collect(rows, |i| (outs[i].column, outs[i].row))?;
        let mut columns = Columns::new(scratch, self.others.len() + 2)?;
        for &at in &self.others {
            columns.push(batch.column(at).gather(parents, scratch)?);
        }
        columns.push(Column::string(names.gather(which, scratch)?, None));
        columns.push(Column::interleave(values, picks, scratch)?.with_valid(None));
        let places = match batch.origin() {
            Some(_) => Some(&*scratch.collect(rows, |i| outs[i].place)?),
            None => None,
        };
        Ok((Batch::new(columns.finish(), places, rows), cursor))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use standpipe_sdk::spec::{Arg, Item};
    use standpipe_sdk::{Schema, Value};

    fn columns() -> Schema {
        schema(&[
            ("id", INT),
            ("a", INT),
            ("b", Type::Float),
            ("s", STRING),
            ("z", Type::Null),
        ])
    }

    fn words<'w>(key: &'w str, value: &'w str) -> [(&'static str, Item); 2] {
        let word = |text: &str| argument(None, Arg::Word(text.into()));
        [("key", word(key)), ("value", word(value))]
    }

    #[test]
    fn a_row_for_each_value_whatever_the_chunk_and_the_room() {
        let rows: Rows = (0..200i64)
            .map(|i| {
                let a = if i % 3 == 0 { NULL } else { int(i) };
                let b = if i % 4 == 0 { NULL } else { Value::Float(i as f64 / 4.0) };
                vec![
                    int(i),
                    a,
                    b,
                    text(&format!("a text that is longer than a view {i}")),
                    NULL,
                ]
            })
            .collect();
        let mut want = vec![];
        for row in &rows {
            for (name, at) in [("b", 2), ("a", 1)] {
                let value = match &row[at] {
                    Value::Null => continue,
                    Value::Int(v) => Value::Float(*v as f64),
                    value => value.clone(),
                };
                want.push(vec![row[0].clone(), row[3].clone(), text(name), value]);
            }
        }
        let bound = bind(&Call {
            options: &words("k", "v"),
            ..call(&columns(), 5, &[column(2), column(1), column(4)])
        })
        .unwrap();
        assert_eq!(bound.schema.to_string(), "id: int?, s: string?, k: string, v: float");
        for share in [256 << 10, 8 << 20] {
            for chunk in CHUNKS {
                let got = run_in(&bound, &columns(), &rows, chunk, share);
                assert_eq!(got.rows, want);
                assert!(got.places.windows(2).all(|p| p[0] < p[1]), "places ascend");
            }
        }
        every_refusal_can_be_repeated(&bound, &columns(), &rows[..5].to_vec());
    }

    #[test]
    fn one_type_and_new_names() {
        let with = |items: &[Item], key: &str, value: &str| {
            codes_of(bind(&Call {
                options: &words(key, value),
                ..call(&columns(), 5, items)
            }))
        };
        assert_eq!(with(&[column(1), column(3)], "k", "v"), [codes::OTHER_TYPE]);
        assert_eq!(with(&[column(1), column(1)], "k", "v"), [codes::NAMED_TWICE]);
        assert_eq!(with(&[column(1)], "id", "id"), [codes::COLUMN_EXISTS; 2]);
        assert_eq!(with(&[column(1), column(2)], "a", "b"), []);
    }
}
