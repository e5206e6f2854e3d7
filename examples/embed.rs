//! Standpipe inside a Rust program: rows in, a parameter, rows out, and what an error looks like.
//!
//! `cargo run --example embed`

#![allow(clippy::print_stdout, reason = "an example talks to its reader")]

use standpipe::{Cell, Engine, Field, Schema, Type, Value};

const SCRIPT: &str = r#"
## Orders above a limit, with their total.

param least: float = 10.0

from orders
  | derive total = price * qty
  | filter total >= least
  | select id, total
"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let orders = Schema::new([
        Field::new("id", Type::String, false),
        Field::new("price", Type::Float, false),
        Field::new("qty", Type::Int, true),
    ]);
    let engine = Engine::builder()
        .memory_bytes(32 << 20)
        .workers(2)
        .input("orders", orders)
        .build();

    // Everything that is wrong with a script is known here, before there is any row.
    let mut pipeline = engine.compile("orders.pipe", SCRIPT)?;
    if let Err(problems) = engine.compile("wrong.pipe", "from orders | filter prize > 1") {
        println!("{problems}\n");
    }

    let order = |id: &str, price: f64, qty: Option<i64>| {
        vec![
            Value::String(id.into()),
            Value::Float(price),
            qty.map_or(Value::Null, Value::Int),
        ]
    };
    pipeline.param("least", 20.0);
    pipeline.feed_rows(
        "orders",
        &[
            order("a", 12.5, Some(2)),
            order("b", 3.0, Some(4)),
            order("c", 99.0, None),
        ],
    )?;

    // Batches come in order and borrow from the chunk's memory: what is to stay is copied out.
    let mut kept: Vec<(String, f64)> = vec![];
    let report = pipeline.run_with(|_schema, batch| {
        for row in 0..batch.rows() {
            if let (Cell::String(id), Cell::Float(total)) = (batch.column(0).cell(row), batch.column(1).cell(row)) {
                kept.push((id.to_owned(), total));
            }
        }
        Ok(())
    })?;
    println!("{kept:?} of {} rows", report.rows_read);
    assert_eq!(kept, [("a".to_owned(), 25.0)]);
    Ok(())
}
