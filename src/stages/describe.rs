//! `describe`: a row for each column, which says what its values are like.
//!
//! | column | what it is |
//! |---|---|
//! | `column`, `type` | the column's name, and its type as far as it is known before the run |
//! | `rows`, `nulls` | how many rows there are, and in how many of them it is null |
//! | `distinct` | how many values it has, null left out: exact up to 1,024 of them, else within a few percent; null for JSON |
//! | `min`, `max` | its first and last value in the order of `sort`, as CSV would print it; null for types without an order |
//! | `mean` | of numbers: their mean as a float, of floats as `avg` gives it; else null |
//!
//! Laws
//! - Every figure is the same however the rows are cut and whoever sees them.
//! - Memory grows with the columns and their longest values, not with the rows.

mod sketch;
mod sum;

use super::codes::held;
use super::from;
use super::groups::grow_to;
use super::keys::{self, Keys, hash};
use crate::expr::scalar::print;
use sketch::Sketch;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::spec::{
    Bound, Call, Complaint, Example, Kind, Least, Lineage, Make, Memory, Order, Request, Room, Setup, StageSpec, Wanted,
};
use standpipe_sdk::{Arena, Batch, Breaker, Cell, Column, Field, Fill, Reservation, Schema, Source, Type, Value};
use std::sync::{Arc, Mutex, PoisonError};
use sum::Sum;

/// `describe`.
pub const SPEC: StageSpec = StageSpec {
    name: "describe",
    about: "A row for each column: its type, nulls, how many values, the least, the greatest, the mean",
    kind: Kind::Breaker,
    order: Order::Creates,
    memory: Memory::Constant,
    examples: &[Example {
        script: r#"from rows [{k: "b", n: 1}, {k: "a", n: null}, {k: "b", n: 4}] | describe"#,
        output: "column,type,rows,nulls,distinct,min,max,mean\nk,string,3,0,2,a,b,\nn,int?,3,1,2,1,4,2.5\n",
    }],
    bind: &bind,
    least,
    ..StageSpec::BASE
};

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    let fields: Arc<[Field]> = call.own_fields().into();
    let schema = figures();
    let make = move |setup: &Setup| -> Result<Arc<dyn Breaker>> {
        Ok(Arc::new(Describe {
            fields: fields.clone(),
            setup: setup.clone(),
            lanes: Mutex::default(),
        }))
    };
    Ok(Bound {
        lineage: vec![Lineage::New; schema.width()],
        schema,
        reads: (0..call.own).collect(),
        sorted_by: vec![],
        make: Make::Breaker(Box::new(make)),
        needs_places: false,
    })
}

fn figures() -> Schema {
    let field = |&(name, nullable): &(&str, bool)| {
        let ty = match name {
            "rows" | "nulls" | "distinct" => Type::Int,
            "mean" => Type::Float,
            _ => Type::String,
        };
        Field::new(name, ty, nullable)
    };
    let known = [("column", false), ("type", false), ("rows", false), ("nulls", false)];
    let perhaps = [("distinct", true), ("min", true), ("max", true), ("mean", true)];
    known.iter().chain(&perhaps).map(field).collect()
}

/// Rows of a batch that are looked at together.
const BLOCK_ROWS: usize = 4 << 10;
/// A value that is longer is cut before it is printed, in bytes.
const SHOWN_BYTES: usize = 1 << 10;

/// What the figures of a column take, if its values are not too long.
const FIGURES_BYTES: usize = sketch::BYTES + 512;
/// What a lane has to look at a block of rows.
const SCRATCH_BYTES: usize = 128 << 10;

fn least(room: &Room) -> Least {
    Least {
        takes: room.workers * (room.columns * FIGURES_BYTES + SCRATCH_BYTES),
        gives: 0,
    }
}

struct Describe {
    fields: Arc<[Field]>,
    setup: Setup,
    lanes: Mutex<Vec<Vec<Figures>>>,
}

/// What is known of one column.
struct Figures {
    rows: u64,
    nulls: u64,
    keys: Keys,
    distinct: Option<Sketch>,
    least: Option<End>,
    greatest: Option<End>,
    sum: Option<Sum>,
}

/// The least or the greatest value: its key and how it is printed.
struct End {
    key: Vec<u8>,
    text: String,
}

impl Figures {
    fn new(at: usize, field: &Field, room: &mut Reservation) -> Result<Figures> {
        let distinct = match keys::has_json(&field.ty) {
            true => None,
            false => Some(Sketch::new(room)?),
        };
        Ok(Figures {
            rows: 0,
            nulls: 0,
            keys: Keys::grouping([at]),
            distinct,
            least: None,
            greatest: None,
            sum: Sum::of(&field.ty),
        })
    }

    fn add(
        &mut self,
        column: &Column<'_>,
        batch: &Batch<'_>,
        ty: &Type,
        arena: &Arena,
        room: &mut Reservation,
    ) -> Result<()> {
        let rows = column.len();
        let block = match &self.distinct {
            Some(_) => Some(self.keys.block(batch, arena)?),
            None => None,
        };
        // From here on the arena is not asked for more, so nothing is counted twice.
        self.rows += rows as u64;
        self.nulls += column.null_count() as u64;
        if let Some(sum) = &mut self.sum {
            sum.add(column);
        }
        let (Some(block), Some(distinct)) = (block, &mut self.distinct) else {
            return Ok(());
        };
        let mut ends: Option<(usize, usize)> = None;
        for row in (0..rows).filter(|&row| column.is_valid(row)) {
            let key = block.get(row);
            distinct.add(hash(key));
            let (least, greatest) = ends.unwrap_or((row, row));
            ends = Some((
                if key < block.get(least) { row } else { least },
                if key > block.get(greatest) { row } else { greatest },
            ));
        }
        let Some((least, greatest)) = ends.filter(|_| ty.is_ordered()) else {
            return Ok(());
        };
        for (end, row, better) in [
            (&mut self.least, least, std::cmp::Ordering::Less),
            (&mut self.greatest, greatest, std::cmp::Ordering::Greater),
        ] {
            let key = block.get(row);
            if end.as_ref().is_none_or(|end| key.cmp(&end.key) == better) {
                let mut copy = end.take().map(|end| end.key).unwrap_or_default();
                copy.clear();
                if copy.capacity() < key.len() {
                    grow_to(&mut copy, key.len(), room).map_err(|e| held("describe", e))?;
                }
                copy.extend_from_slice(key);
                *end = Some(End {
                    key: copy,
                    text: shown(column.cell(row), ty),
                });
            }
        }
        Ok(())
    }

    fn merge(&mut self, other: Figures) {
        self.rows += other.rows;
        self.nulls += other.nulls;
        if let (Some(sketch), Some(other)) = (&mut self.distinct, &other.distinct) {
            sketch.merge(other);
        }
        if let (Some(sum), Some(other)) = (&mut self.sum, &other.sum) {
            sum.merge(other);
        }
        for (end, other, better) in [
            (&mut self.least, other.least, std::cmp::Ordering::Less),
            (&mut self.greatest, other.greatest, std::cmp::Ordering::Greater),
        ] {
            let Some(other) = other else { continue };
            if end.as_ref().is_none_or(|end| other.key.cmp(&end.key) == better) {
                *end = Some(other);
            }
        }
    }

    fn row(&self, field: &Field) -> Vec<Value> {
        let text = |end: &Option<End>| end.as_ref().map_or(Value::Null, |end| Value::String(end.text.clone()));
        let count = |count: u64| Value::Int(i64::try_from(count).unwrap_or(i64::MAX));
        let ty = if field.nullable {
            format!("{}?", field.ty)
        } else {
            field.ty.to_string()
        };
        vec![
            Value::String(field.name.to_string()),
            Value::String(ty),
            count(self.rows),
            count(self.nulls),
            self.distinct
                .as_ref()
                .map_or(Value::Null, |sketch| count(sketch.estimate())),
            text(&self.least),
            text(&self.greatest),
            (self.sum.as_ref())
                .and_then(|sum| sum.mean(self.rows - self.nulls))
                .map_or(Value::Null, Value::Float),
        ]
    }
}

/// A value as CSV has it, if it is not too long.
fn shown(cell: Cell<'_>, ty: &Type) -> String {
    let mut out = Vec::new();
    match cell {
        Cell::Bool(v) => return v.to_string(),
        Cell::Int(v) => print::write_int(&mut out, v),
        // Both zeros are one value: which of them came first must not be seen.
        Cell::Float(v) => print::write_float(&mut out, v + 0.0),
        Cell::Date(v) => print::write_date(&mut out, v),
        Cell::Timestamp(v) => print::write_timestamp(&mut out, v),
        Cell::Duration(v) => print::write_duration(&mut out, v),
        Cell::Decimal(v) => {
            let scale = if let Type::Decimal { scale, .. } = ty {
                *scale
            } else {
                0
            };
            print::write_decimal(&mut out, v, scale);
        }
        Cell::String(v) if v.len() > SHOWN_BYTES => return format!("{}…", &v[..v.floor_char_boundary(SHOWN_BYTES)]),
        Cell::String(v) => return v.to_owned(),
        _ => {}
    }
    String::from_utf8(out).unwrap_or_default()
}

impl Breaker for Describe {
    fn filler(self: Arc<Self>) -> Result<Box<dyn Fill>> {
        let mut room = self.setup.budget.reserve();
        let all = room.set_aside(self.fields.len() * FIGURES_BYTES);
        all.map_err(|e| held("describe", e))?;
        let figures = (self.fields.iter().enumerate()).map(|(at, field)| Figures::new(at, field, &mut room));
        let figures = figures.collect::<Result<Vec<_>>>().map_err(|e| held("describe", e))?;
        Ok(Box::new(Filler {
            scratch: super::copies::Scratch::new(&self.setup.budget),
            figures,
            room,
            describe: self,
        }))
    }

    fn drain(self: Arc<Self>) -> Result<Arc<dyn Source>> {
        let mut lanes = std::mem::take(&mut *self.lanes.lock().unwrap_or_else(PoisonError::into_inner)).into_iter();
        let mut all = lanes.next().unwrap_or_default();
        for lane in lanes {
            for (figures, other) in all.iter_mut().zip(lane) {
                figures.merge(other);
            }
        }
        let rows = all
            .iter()
            .zip(&*self.fields)
            .map(|(figures, field)| figures.row(field))
            .collect();
        let schema = figures();
        let request = Request {
            columns: vec![Wanted::Yes; schema.width()],
            places: true,
        };
        match from::literal(schema, rows).make {
            Make::Source(make) => make(&self.setup, &request),
            _ => Err(Error::Panic("literal rows are a source".into())),
        }
    }
}

struct Filler {
    describe: Arc<Describe>,
    figures: Vec<Figures>,
    scratch: super::copies::Scratch,
    room: Reservation,
}

impl Fill for Filler {
    fn push(&mut self, _: u64, batch: Batch<'_>) -> Result<()> {
        let Filler {
            describe,
            figures,
            scratch,
            room,
        } = self;
        for (at, (figures, field)) in figures.iter_mut().zip(&*describe.fields).enumerate() {
            let (mut from, mut rows) = (0, BLOCK_ROWS);
            while from < batch.rows() {
                let len = rows.min(batch.rows() - from);
                let added = scratch.with(|arena| {
                    let block = batch.slice(from, len, arena)?;
                    figures.add(&block.column(at), &block, &field.ty, arena, room)
                });
                match added {
                    Ok(()) => from += len,
                    // Nothing of it was counted.
                    Err(Error::Memory { .. }) if len > 1 => rows = len.div_ceil(2),
                    Err(error) => return Err(held("describe", error)),
                }
            }
        }
        Ok(())
    }

    fn done(&mut self) -> Result<()> {
        let figures = std::mem::take(&mut self.figures);
        let mut lanes = self.describe.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.push(figures);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use std::collections::BTreeSet;

    fn columns() -> Schema {
        let decimal = Type::Decimal {
            precision: 20,
            scale: 2,
        };
        schema(&[
            ("id", INT),
            ("s", STRING),
            ("f", Type::Float),
            ("b", BOOL),
            ("d", decimal),
            ("day", Type::Date),
            ("l", Type::list(INT, true)),
            ("j", Type::Json),
            ("z", Type::Null),
        ])
    }

    fn described(rows: &Rows, chunk: usize) -> Rows {
        let bound = bind(&call(&columns(), 9, &[])).unwrap();
        run(&bound, &columns(), rows, chunk).rows
    }

    #[test]
    fn figures_are_the_same_whatever_the_lanes_and_chunks() {
        let rows: Rows = (0..3000i64)
            .map(|i| {
                let name = if i % 7 == 0 {
                    NULL
                } else {
                    text(&format!("name {}", i * 31 % 500))
                };
                let float = Value::Float([0.1, 1e300, -1e300, 2.5][(i % 4) as usize]);
                let value = i128::from(i) * 5;
                vec![
                    int(i - 5),
                    name,
                    if i % 10 == 3 { NULL } else { float },
                    if i % 2 == 0 { bool(i % 4 == 0) } else { NULL },
                    Value::Decimal { value, scale: 2 },
                    Value::Date((i % 40) as i32),
                    Value::List(vec![int(i % 3)]),
                    Value::Json("{}".into()),
                    NULL,
                ]
            })
            .collect();
        let want = described(&rows, usize::MAX);
        let names: BTreeSet<String> = rows.iter().map(|row| format!("{:?}", row[1])).collect();
        assert_eq!(
            want[1][..5],
            [
                text("s"),
                text("string?"),
                int(3000),
                int(429),
                int(names.len() as i64 - 1)
            ]
        );
        assert_eq!(want[1][5..], [text("name 0"), text("name 99"), NULL]);
        assert_eq!(want[0][5..], [text("-5"), text("2994"), Value::Float(1494.5)]);
        assert_eq!(want[3][3..], [int(1500), int(2), text("false"), text("true"), NULL]);
        assert_eq!(want[4][5..], [text("0.00"), text("149.95"), Value::Float(74.975)]);
        assert_eq!(want[5][4..], [int(40), text("1970-01-01"), text("1970-02-09"), NULL]);
        assert_eq!(want[6][4..], [int(3), NULL, NULL, NULL]);
        assert_eq!(want[7][4..], [NULL; 4]);
        assert_eq!(want[8][3..], [int(3000), int(0), NULL, NULL, NULL]);
        let Value::Int(distinct) = want[0][4] else {
            panic!("a count")
        };
        assert!((2800..3200).contains(&distinct), "{distinct}");
        for chunk in CHUNKS {
            assert_eq!(described(&rows, chunk), want);
        }
    }

    #[test]
    fn no_rows_have_no_values() {
        let got = described(&vec![], 1);
        assert_eq!(got.len(), 9);
        assert!(
            got.iter()
                .all(|row| row[2..4] == [int(0), int(0)] && row[5..] == [NULL, NULL, NULL])
        );
    }
}
