//! `synth.rows`: test data. The same seed, columns and number give the same rows, on any machine and for any number of workers.
//!
//! Laws
//! - A value hangs on the seed, its column's number, its row's number and its type only: more rows, or other columns behind it, do
//!   not change it.

mod columns;

use columns::{Column as Made, Kind};
use standpipe_sdk::build::TextBuilder;
use standpipe_sdk::prelude::*;
use standpipe_sdk::{Code, Span};
use std::sync::Arc;

/// Makes rows of test data, the same for the same seed.
#[derive(Params)]
pub struct Rows {
    /// how many rows
    rows: i64,
    /// another seed gives other values
    #[param(default = 0)]
    seed: i64,
    /// names and types, `name: type` or `name: type?`
    #[param(default = "id: row, name: string, price: float?")]
    columns: String,
}

/// A value of an argument that cannot be.
const WRONG_VALUE: Code = Code(501);
/// Rows of a split: about a megabyte for a handful of columns.
const SPLIT_ROWS: u64 = 1 << 16;
/// So many have a number of 32 bits for their split.
const MOST_ROWS: i64 = 1 << 47;
/// 2000-01-01, in days and seconds.
const FROM_DAY: i32 = 10_957;
const FROM_SECOND: i64 = FROM_DAY as i64 * 86_400;

impl Origin for Rows {
    const NAME: &'static str = "rows";
    const EXAMPLES: &'static [Example] = &[
        Example {
            script: "use plugin synth\nread synth.rows seed: 7, rows: 3, columns: \"id: row, n: int?\"\n  | select id, known = n != null",
            output: "id,known\n1,true\n2,true\n3,true\n",
        },
        Example {
            script: "use plugin synth\nread synth.rows rows: 140_000\n  | aggregate rows = count(), last = last(id)",
            output: "rows,last\n140000,140000\n",
        },
    ];

    const SNAPSHOTS: bool = true;

    fn bind(self, call: &Call<'_>) -> Result<Splits, Vec<Complaint>> {
        let span = |option: &str| call.option(option).map_or(call.span, |item| item.span);
        let wrong = |span: Span, message: String, label: &str| vec![Complaint::new(WRONG_VALUE, span, message, label)];
        if !(0..=MOST_ROWS).contains(&self.rows) {
            let message = format!("`rows` cannot be {}", self.rows);
            return Err(wrong(span("rows"), message, "0 to 2^47"));
        }
        let columns = columns::read(&self.columns).map_err(|what| wrong(span("columns"), what, "names and types"))?;
        let schema = columns.iter().map(Made::field).collect();
        let (rows, seed, columns) = (self.rows as u64, self.seed as u64, Arc::new(columns));
        Ok(Splits {
            schema,
            count: rows.div_ceil(SPLIT_ROWS).max(1) as u32,
            open: Box::new(move |_, split| {
                let at = u64::from(split) * SPLIT_ROWS;
                Ok(Box::new(Piece {
                    columns: columns.clone(),
                    seed,
                    at,
                    end: (at + SPLIT_ROWS).min(rows),
                }))
            }),
        })
    }
}

/// Rows `at..end`.
struct Piece {
    columns: Arc<Vec<Made>>,
    seed: u64,
    at: u64,
    end: u64,
}

impl Split for Piece {
    fn next<'a>(&mut self, arena: &'a Arena, max_rows: usize) -> Result<Next<'a>> {
        let rows = (self.end - self.at).min(max_rows as u64) as usize;
        if rows == 0 {
            return Ok(Next::End);
        }
        let mut columns = Columns::new(arena, self.columns.len())?;
        for (number, column) in self.columns.iter().enumerate() {
            columns.push(self.column(number as u64, column, rows, arena)?);
        }
        Ok(Next::Rows(Batch::new(columns.finish(), None, rows)))
    }

    fn advance(&mut self, rows: usize) {
        self.at += rows as u64;
    }

    fn save(&self) -> Vec<u8> {
        self.at.to_le_bytes().to_vec()
    }

    fn restore(&mut self, state: &[u8]) -> Result<()> {
        let at = state.try_into().map(u64::from_le_bytes).ok();
        match at.filter(|at| (self.at..=self.end).contains(at)) {
            Some(at) => self.at = at,
            None => return Err(Error::failed(WRONG_VALUE, "this is no place in the split")),
        }
        Ok(())
    }
}

impl Piece {
    fn column<'a>(&self, number: u64, column: &Made, rows: usize, arena: &'a Arena) -> Result<Column<'a>> {
        let seed = mix(self.seed ^ mix(number));
        let value = |row: usize| mix(seed ^ (self.at + row as u64));
        // One in ten is null; of another number than the value, so that a `?` changes no value.
        let valid = match column.nullable {
            true => Some(Bits::collect(arena, rows, |row| !mix(!value(row)).is_multiple_of(10))?),
            false => None,
        };
        let data = match column.kind {
            Kind::Row => Data::Int(arena.collect(rows, |row| (self.at + row as u64) as i64 + 1)?),
            Kind::Bool => Data::Bool(Bits::collect(arena, rows, |row| value(row) & 1 == 1)?),
            Kind::Int => Data::Int(arena.collect(rows, |row| (value(row) % 1_000_000) as i64)?),
            Kind::Float => Data::Float(arena.collect(rows, |row| (value(row) % 100_000) as f64 / 100.0)?),
            Kind::Date => Data::Date(arena.collect(rows, |row| FROM_DAY + (value(row) % 10_000) as i32)?),
            Kind::Timestamp => Data::Timestamp(arena.collect(rows, |row| {
                (FROM_SECOND + (value(row) % (10_000 * 86_400)) as i64) * 1_000_000
            })?),
            Kind::String => {
                let mut text = TextBuilder::new(arena, rows, rows * 8)?;
                for row in 0..rows {
                    let mut word = [0; LETTERS];
                    text.push_bytes(letters(value(row), &mut word))?;
                }
                Data::String(text.finish()?)
            }
        };
        Ok(Column::new(data, valid, rows))
    }
}

/// The longest text.
const LETTERS: usize = 18;

/// Three to eighteen letters: some of them fit into a view, some do not.
fn letters(mut value: u64, word: &mut [u8; LETTERS]) -> &[u8] {
    let length = 3 + (value % 16) as usize;
    for (at, letter) in word.iter_mut().enumerate() {
        if at % 8 == 0 {
            value = mix(value);
        }
        *letter = b'a' + (value % 26) as u8;
        value /= 26;
    }
    &word[..length]
}

/// SplitMix64: every number has one of its own, and neighbours have nothing in common.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

standpipe_sdk::export! {
    id: "org.standpipe.synth",
    sources: [Rows],
}
