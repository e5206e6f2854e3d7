//! `from table { }`, `from rows [ … ]`, `from range(a, b)`: rows that stand in the script.
//!
//! The host reads the literals; [`literal`] and [`range`] are what runs.
//!
//! Laws
//! - A row's place is its number from 0, whatever the claims and parts.
//! - A range is made part by part: it takes no memory of its own.

use super::values;
use standpipe_sdk::error::Result;
use standpipe_sdk::spec::{Bound, Example, Kind, Lineage, Make, Memory, Request, Setup, StageSpec, Wanted};
use standpipe_sdk::{
    Arena, Batch, Column, Columns, Faults, Field, Locator, Part, Place, Reader, Schema, Source, Type, Value,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Rows of one claim: enough to be worth a ticket, few enough that all lanes get some.
const CLAIM_ROWS: u64 = 16 << 10;

/// `from` with literals; the host binds it.
pub const SPEC: StageSpec = StageSpec {
    name: "from",
    about: "Rows written in the script: a table, records, or a range of whole numbers",
    modes: &["table", "rows", "range"],
    kind: Kind::Source,
    memory: Memory::Batch,
    examples: &[
        Example {
            script: r#"from rows [{id: 1, name: "x"}, {id: 2, name: null}]"#,
            output: "id,name\n1,x\n2,\n",
        },
        Example {
            script: "from range(1, 3)",
            output: "value\n1\n2\n3\n",
        },
    ],
    ..StageSpec::BASE
};

/// The rows of a `table` or `rows` literal.
pub fn literal(schema: Schema, rows: Vec<Vec<Value>>) -> Bound {
    let rows = Arc::new(Rows::Literal {
        schema: schema.clone(),
        rows,
    });
    bound(schema, rows, CLAIM_ROWS)
}

/// The same in claims of so many rows: so even a few rows keep several workers busy.
pub fn literal_in_claims(schema: Schema, rows: Vec<Vec<Value>>, claim_rows: usize) -> Bound {
    let rows = Arc::new(Rows::Literal {
        schema: schema.clone(),
        rows,
    });
    bound(schema, rows, claim_rows.max(1) as u64)
}

/// One column `value`: the whole numbers from `first` to `last`, both included; none if `last` is before `first`.
pub fn range(first: i64, last: i64) -> Bound {
    let schema = [Field::new("value", Type::Int, false)].into_iter().collect();
    bound(schema, Arc::new(Rows::Range { first, last }), CLAIM_ROWS)
}

fn bound(schema: Schema, rows: Arc<Rows>, claim_rows: u64) -> Bound {
    let width = schema.width();
    let make = move |_: &Setup, request: &Request| -> Result<Arc<dyn Source>> {
        let wanted = (0..width)
            .map(|i| !matches!(request.columns.get(i), Some(Wanted::No)))
            .collect();
        Ok(Arc::new(Literals {
            rows: rows.clone(),
            wanted,
            places: request.places,
            claim_rows,
            next: AtomicU64::new(0),
        }))
    };
    Bound {
        lineage: vec![Lineage::New; width],
        schema,
        reads: vec![],
        sorted_by: vec![],
        make: Make::Source(Box::new(make)),
        needs_places: false,
    }
}

enum Rows {
    Literal { schema: Schema, rows: Vec<Vec<Value>> },
    Range { first: i64, last: i64 },
}

impl Rows {
    /// How many there are; a range may have one more than fits into 64 bits.
    fn count(&self) -> u128 {
        match *self {
            Rows::Literal { ref rows, .. } => rows.len() as u128,
            Rows::Range { first, last } => (i128::from(last) - i128::from(first) + 1).max(0) as u128,
        }
    }

    /// Column `index` of `len` rows from row `from` on.
    fn column<'a>(&self, index: usize, from: u64, len: usize, arena: &'a Arena) -> Result<Column<'a>> {
        match self {
            Rows::Literal { schema, rows } => {
                let from = from as usize;
                let rows = rows.get(from..from + len).unwrap_or_default();
                let ty = schema.get(index).map_or(&Type::Null, |f| &f.ty);
                values::cells(ty, rows, index, arena)
            }
            // Wrapping is exact here: first + row is at most `last`.
            Rows::Range { first, .. } => {
                let numbers = arena.collect(len, |row| first.wrapping_add_unsigned(from + row as u64))?;
                Ok(Column::int(numbers, None))
            }
        }
    }
}

struct Literals {
    rows: Arc<Rows>,
    wanted: Vec<bool>,
    places: bool,
    /// At least 1.
    claim_rows: u64,
    next: AtomicU64,
}

impl Source for Literals {
    fn ticket(&self) -> Option<u64> {
        let more =
            |claim: u64| (u128::from(claim) * u128::from(self.claim_rows) < self.rows.count()).then_some(claim + 1);
        self.next.fetch_update(Relaxed, Relaxed, more).ok()
    }

    fn reader(self: Arc<Self>) -> Result<Box<dyn Reader>> {
        Ok(Box::new(Literal {
            source: self,
            at: 0,
            left: 0,
        }))
    }
}

/// One lane's claim: `left` rows from row `at` on.
struct Literal {
    source: Arc<Literals>,
    at: u64,
    left: u64,
}

impl Reader for Literal {
    fn claim(&mut self, ticket: u64) -> Result<bool> {
        let start = u128::from(ticket) * u128::from(self.source.claim_rows);
        let left = self
            .source
            .rows
            .count()
            .saturating_sub(start)
            .min(u128::from(self.source.claim_rows));
        (self.at, self.left) = (start as u64, left as u64);
        Ok(self.left > 0)
    }

    fn decode<'a>(&'a mut self, arena: &'a Arena, max_rows: usize, stop_at_first: bool) -> Result<Part<'a>> {
        let source = &*self.source;
        let rows = self.left.min(max_rows.max(1) as u64) as usize;
        let mut columns = Columns::new(arena, source.wanted.len())?;
        for (index, &wanted) in source.wanted.iter().enumerate() {
            columns.push(if wanted {
                source.rows.column(index, self.at, rows, arena)?
            } else {
                Column::absent(rows)
            });
        }
        let places = if source.places {
            Some(numbered(self.at, rows, arena)?)
        } else {
            None
        };
        let batch = Batch::new(columns.finish(), places, rows);
        // Only now: a refused part can be asked for again, with fewer rows.
        self.at = self.at.wrapping_add(rows as u64);
        self.left -= rows as u64;
        Ok(Part {
            batch,
            faults: Faults::new(arena, stop_at_first),
            last: self.left == 0,
            locator: Locator::default(),
        })
    }
}

/// Places of rows that are known by their number.
pub(super) fn numbered(from: u64, rows: usize, arena: &Arena) -> Result<&[Place]> {
    Ok(arena.collect(rows, |row| Place {
        source: 0,
        offset: from + row as u64,
        sub: 0,
    })?)
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn source(bound: &Bound, columns: Vec<Wanted>) -> Arc<dyn Source> {
        let Make::Source(make) = &bound.make else {
            panic!("a source")
        };
        make(&setup(1 << 20), &Request { columns, places: true }).unwrap()
    }

    #[test]
    fn a_range_holds_both_ends_in_any_parts() {
        for (first, last, count) in [
            (1, 3, 3),
            (5, 5, 1),
            (3, 1, 0),
            (-2, 40_000, 40_003),
            (i64::MAX - 1, i64::MAX, 2),
        ] {
            for max_rows in [1, 7, 100_000] {
                let bound = range(first, last);
                let got = read_all(&source(&bound, vec![Wanted::Yes]), &bound.schema, max_rows);
                assert_eq!(got.rows.len(), count);
                assert!(
                    got.rows
                        .iter()
                        .enumerate()
                        .all(|(i, row)| row[0] == int(first.wrapping_add(i as i64)))
                );
                assert!(got.places.iter().enumerate().all(|(i, place)| place.offset == i as u64));
            }
        }
        assert_eq!(
            super::Rows::Range {
                first: i64::MIN,
                last: i64::MAX
            }
            .count(),
            1 << 64
        );
    }

    #[test]
    fn literals_of_every_type_come_back_and_unwanted_columns_stay_absent() {
        let record = Type::Record([Field::new("x", Type::Date, true)].into_iter().collect());
        let decimal = Type::Decimal {
            precision: 10,
            scale: 2,
        };
        let schema = schema(&[
            ("i", INT),
            ("f", Type::Float),
            ("d", decimal),
            ("s", STRING),
            ("l", Type::list(Type::Int, true)),
            ("r", record),
            ("b", Type::Bytes),
            ("t", Type::Timestamp),
        ]);
        let row = vec![
            int(1),
            Value::Float(1.5),
            Value::Decimal { value: 125, scale: 2 },
            text("a text that is longer than a view"),
            Value::List(vec![int(1), NULL]),
            Value::Record(vec![("x".into(), Value::Date(3))]),
            Value::Bytes(vec![0, 255]),
            Value::Timestamp(-1),
        ];
        let rows: Vec<Vec<Value>> = vec![row.clone(), vec![NULL; 8], row];
        for max_rows in [1, 2, 10] {
            let bound = literal(schema.clone(), rows.clone());
            assert_eq!(
                read_all(&source(&bound, vec![Wanted::Yes; 8]), &schema, max_rows).rows,
                rows
            );
            let mut some = vec![Wanted::Yes; 8];
            some[3] = Wanted::No;
            let got = read_all(&source(&bound, some), &schema, max_rows);
            assert_eq!(got.absent, [3]);
        }
        let wrong = literal(self::schema(&[("i", INT)]), vec![vec![text("x")]]);
        let reader = &mut source(&wrong, vec![Wanted::Yes]).reader().unwrap();
        assert!(reader.claim(0).unwrap());
        let arena = Arena::new(1 << 16);
        assert!(reader.decode(&arena, 10, true).is_err());
    }
}
