//! `filter expr`: the rows where a condition is true.
//!
//! Laws
//! - False and null both go; rows keep their order and places.
//! - If all rows stay the batch is passed on as it is; if none stays nothing is emitted.

use standpipe_sdk::error::Result;
use standpipe_sdk::spec::{
    ArgKind, Bound, Call, Complaint, Example, Filters, Items, KeepsBy, Kind, Make, StageSpec, Want,
};
use standpipe_sdk::{Arena, Batch, Bits, Column, Data, Emitter, Flow, RowWise};

/// `filter`.
pub const SPEC: StageSpec = StageSpec {
    name: "filter",
    about: "Keeps the rows where a condition is true; false and null go",
    kind: Kind::RowWise,
    items: Items::some(ArgKind::Expr(Want::Bool), 1, 1, "the condition"),
    examples: &[Example {
        script: "from rows [{id: 1, n: 5}, {id: 2, n: null}, {id: 3, n: 7}] | filter n > 5",
        output: "id,n\n3,7\n",
    }],
    bind: &bind,
    filters: |_| Filters::Pass,
    keeps_by,
    ..StageSpec::BASE
};

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    let Some(KeepsBy { column, make }) = keeps_by(call) else {
        return Err(vec![]);
    };
    Ok(Bound::keeps(call, vec![column], Make::RowWise(make(column, call.own))))
}

fn keeps_by(call: &Call<'_>) -> Option<KeepsBy> {
    let (column, _) = call.items.first().and_then(|item| call.column_of(item))?;
    Some(KeepsBy {
        column,
        make: |condition, own| Box::new(move |_| Ok(Box::new(Filter { condition, own }))),
    })
}

struct Filter {
    condition: usize,
    own: usize,
}

impl RowWise for Filter {
    fn push<'a>(&mut self, batch: Batch<'a>, out: &mut Emitter<'_, 'a>) -> Result<Flow> {
        let truth = Truth::of(&batch.column(self.condition));
        match truth.count() {
            0 => Ok(Flow::More),
            all if all == batch.rows() => out.last(batch.with_columns(&batch.columns()[..self.own])),
            _ => {
                let indices = truth.indices(out.arena())?;
                out.last(batch.gather(indices, self.own, out.arena())?)
            }
        }
    }
}

/// The rows where a bool column is true, 64 at a time.
#[derive(Clone, Copy)]
pub(super) struct Truth<'a> {
    /// `None`: every row is null.
    values: Option<Bits<'a>>,
    valid: Option<Bits<'a>>,
}

impl<'a> Truth<'a> {
    pub(super) fn of(column: &Column<'a>) -> Self {
        let values = match column.data() {
            Data::Bool(bits) => Some(bits),
            _ => None,
        };
        Truth {
            values,
            valid: column.valid(),
        }
    }

    fn word(&self, w: usize) -> u64 {
        let values = self.values.map_or(0, |v| v.word(w));
        values & self.valid.map_or(u64::MAX, |v| v.word(w))
    }

    /// How many rows are true.
    pub(super) fn count(&self) -> usize {
        let words = self.values.map_or(0, |v| v.words());
        (0..words).map(|w| self.word(w).count_ones() as usize).sum()
    }

    /// Whether row `row` is true.
    pub(super) fn get(&self, row: usize) -> bool {
        self.values.is_some_and(|v| v.get(row)) && self.valid.is_none_or(|v| v.get(row))
    }

    /// The true rows, ascending.
    pub(super) fn indices(&self, arena: &'a Arena) -> Result<&'a [u32]> {
        match (self.values, self.valid) {
            (None, _) => Ok(&[]),
            (Some(values), None) => values.indices(arena),
            (Some(values), Some(valid)) => values.and(&valid, arena)?.indices(arena),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn bound() -> (standpipe_sdk::Schema, Bound) {
        let schema = schema(&[("id", INT), ("name", STRING), ("keep", BOOL)]);
        let items = [column(2)];
        let bound = bind(&call(&schema, 2, &items)).unwrap();
        (schema, bound)
    }

    #[test]
    fn false_and_null_go_whatever_the_chunk() {
        let (schema, bound) = bound();
        let rows: Rows = (0..200)
            .map(|i| {
                let keep = [bool(true), bool(false), NULL, bool(true), bool(true)];
                vec![
                    int(i),
                    text(&format!("a name that is long enough {i}")),
                    keep[(i % 5) as usize].clone(),
                ]
            })
            .collect();
        let want: Rows = rows
            .iter()
            .filter(|r| r[2] == bool(true))
            .map(|r| r[..2].to_vec())
            .collect();
        for chunk in CHUNKS {
            let got = run(&bound, &schema, &rows, chunk);
            assert_eq!(got.rows, want);
            let offsets: Vec<u64> = got.places.iter().map(|p| p.offset).collect();
            assert!(want.iter().zip(&offsets).all(|(row, &at)| row[0] == int(at as i64)));
        }
        every_refusal_can_be_repeated(&bound, &schema, &rows);
    }

    #[test]
    fn all_pass_without_a_copy_and_none_says_nothing() {
        let (schema, bound) = bound();
        let row = |keep: bool| vec![int(1), text("x"), super::super::testing::bool(keep)];
        let all: Rows = vec![row(true); 70];
        assert_eq!(run(&bound, &schema, &all, 70).rows.len(), 70);
        assert_eq!(run(&bound, &schema, &all, 70).arena_bytes, 0);
        assert_eq!(run(&bound, &schema, &vec![row(false); 70], 70).batches, 0);
        let null: Rows = vec![vec![int(1), text("x"), NULL]; 3];
        assert_eq!(run(&bound, &schema, &null, 3).batches, 0);
    }
}
