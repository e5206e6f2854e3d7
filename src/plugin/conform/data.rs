//! Rows for a case: those of its script, then made ones whose values are what goes wrong first.

use super::Case;
use standpipe_sdk::{Field, Schema, Type, Value};

/// What stands in made columns of a type; every value is one that the type can hold.
fn values(ty: &Type) -> Vec<Value> {
    let text = |texts: &[&str]| texts.iter().map(|text| Value::String((*text).into())).collect();
    match ty {
        Type::Null => vec![Value::Null],
        Type::Bool => vec![Value::Bool(true), Value::Bool(false)],
        Type::Int => [1, 0, -1, 7, 2, 3, 4, 5, 10, 100, 1000, i64::MAX, i64::MIN]
            .map(Value::Int)
            .into(),
        Type::Float => [
            1.5,
            0.0,
            -0.0,
            -2.25,
            89.5,
            1e300,
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            5e-324,
        ]
        .map(Value::Float)
        .into(),
        Type::Decimal { precision, scale } => {
            let most = 10i128.pow(u32::from(*precision).min(38)) - 1;
            let decimal = |value| Value::Decimal { value, scale: *scale };
            [1, 0, -1, most, -most].map(decimal).into()
        }
        // Around the 12 bytes that stand in a view.
        Type::String => text(&[
            "a",
            "",
            "to be or not",
            "to be or not ",
            "1",
            "äöü ß €uro 🦀",
            " ",
            "a text that does not fit into a view, by far",
            "line\nfeed\0nul",
            "{\"json\": 1}",
        ]),
        Type::Json => [
            "1",
            "null",
            "{\"a\": [1, 2, \"a text that is longer than a view\"]}",
            "\"x\"",
        ]
        .map(|text| Value::Json(text.into()))
        .into(),
        Type::Bytes => vec![
            Value::Bytes(vec![0, 255, 128]),
            Value::Bytes(vec![]),
            Value::Bytes(vec![7; 40]),
        ],
        Type::Date => [0, -1, 20_000, 11_016].map(Value::Date).into(),
        Type::Timestamp => [0, -1, 1_700_000_000_000_000, 1].map(Value::Timestamp).into(),
        Type::Duration => [0, 1, -1, 90_000_000].map(Value::Duration).into(),
        Type::List(item) => {
            let all = values(&item.ty);
            vec![
                Value::List(all.clone()),
                Value::List(vec![]),
                Value::List(all.into_iter().take(1).collect()),
            ]
        }
        Type::Record(schema) => (0..3).map(|at| Value::Record(record(schema, at))).collect(),
    }
}

fn record(schema: &Schema, at: usize) -> Vec<(String, Value)> {
    let field = |field: &Field| {
        let all = values(&field.ty);
        (field.name.to_string(), all[at % all.len()].clone())
    };
    schema.fields().iter().map(field).collect()
}

impl Case {
    /// The rows of the script, then `made` made ones.
    pub(super) fn rows(&self, made: usize) -> Vec<Vec<Value>> {
        let pools: Vec<Vec<Value>> = self.input.fields().iter().map(|field| values(&field.ty)).collect();
        let mut rows = self.rows.clone();
        // A column that the stage does not read came without values.
        for row in &mut rows {
            for ((cell, field), pool) in row.iter_mut().zip(self.input.fields()).zip(&pools) {
                if *cell == Value::Null && !field.nullable {
                    *cell = pool[0].clone();
                }
            }
        }
        rows.extend((0..made).map(|at| self.row(at, &pools)));
        rows
    }

    /// Rows in which everything that can be null is.
    pub(super) fn nulls(&self, rows: usize) -> Vec<Vec<Value>> {
        let row = |at: usize| {
            let cells = self.input.fields().iter().enumerate().map(|(column, field)| {
                match (self.fixed(column), field.nullable) {
                    (Some(value), _) => value,
                    (None, true) => Value::Null,
                    (None, false) => values(&field.ty)[at % values(&field.ty).len()].clone(),
                }
            });
            cells.collect()
        };
        (0..rows).map(row).collect()
    }

    fn row(&self, at: usize, pools: &[Vec<Value>]) -> Vec<Value> {
        let cell = |column: usize| {
            // Each column runs through its values at a pace of its own, so that all pairs meet.
            let (pool, field) = (&pools[column], &self.input.fields()[column]);
            let turn = at / pool.len();
            match self.fixed(column) {
                Some(value) => value,
                None if field.nullable && (at + 2 * column) % 9 == 8 => Value::Null,
                None => pool[(at + column * turn) % pool.len()].clone(),
            }
        };
        (0..pools.len()).map(cell).collect()
    }

    /// The constant that an argument of a function is.
    fn fixed(&self, column: usize) -> Option<Value> {
        self.function.as_ref()?.get(column)?.clone()
    }
}
