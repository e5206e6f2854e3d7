//! The kit sees what a stage or function does wrong.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::prelude::*;
use crate::{Code, Faults, Verdict};

/// Keeps numbers above a limit; one below zero is bad.
#[derive(Params)]
struct Above {
    /// the number
    n: ColumnArg,
    /// how much more
    #[param(default = 10)]
    limit: i64,
    /// what it does wrong
    wrong: Option<String>,
}

impl Transform for Above {
    const NAME: &'static str = "above";

    fn bind(self, call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
        self.n.must_be(call, &Type::Int)?;
        if self.limit < 0 {
            let span = call.option("limit").map_or(call.span, |item| item.span);
            let complaint = Complaint::new(Code(501), span, "`limit` is below zero", "here");
            return Err(vec![complaint.help("at least 0")]);
        }
        let (at, limit, wrong) = (self.n.at, self.limit, self.wrong.unwrap_or_default());
        let rejects = wrong != "silent";
        let make = Make::RowWise(Box::new(move |_| {
            Ok(Box::new(Keep {
                at,
                limit,
                wrong: wrong.clone(),
                seen: 0,
            }))
        }));
        let bound = Bound::keeps(call, vec![at], make);
        Ok(if rejects { bound.rejecting() } else { bound })
    }
}

struct Keep {
    at: usize,
    limit: i64,
    wrong: String,
    seen: i64,
}

impl RowWise for Keep {
    fn push<'a>(&mut self, batch: Batch<'a>, out: &mut Emitter<'_, 'a>) -> Result<Flow> {
        let arena = out.arena();
        let Data::Int(numbers) = batch.column(self.at).data() else {
            return out.last(batch.head(0, arena)?);
        };
        for (row, &n) in numbers.iter().enumerate() {
            if n < 0 && out.reject(row, Code(805), None, format_args!("{n} is below zero"))? == Verdict::Stop {
                break;
            }
        }
        self.seen += 1;
        let counted = if self.wrong == "counts" { self.seen } else { 0 };
        let keep = Bits::collect(arena, numbers.len(), |row| numbers[row] > self.limit + counted)?;
        let kept = batch.gather(keep.indices(arena)?, batch.columns().len(), arena)?;
        match self.wrong.as_str() {
            "lost" => out.last(Batch::new(kept.columns(), None, kept.rows())),
            "twice" => {
                out.emit(kept)?;
                out.last(kept)
            }
            _ => out.last(kept),
        }
    }
}

fn above() -> Drive {
    stage::<Above>("id: string, n: int").column("n")
}

fn rows() -> Table {
    table!["id: string, n: int"; "a", 3; "b", 11; "c", -4; "d", 12; "e", 10]
}

#[test]
fn a_stage_is_bound_and_driven() {
    let got = above().run(&rows());
    insta_like(
        &got.to_table(),
        "id: string | n: int\n\"b\"        |     11\n\"d\"        |     12\nrejected row 2: -4 is below zero\n",
    );
    assert_eq!(got.column("n"), [Value::Int(11), Value::Int(12)]);
    assert_eq!(above().option("limit", 2).run(&rows()).rows.len(), 4);
    let ready = above().bind().unwrap();
    assert_eq!(ready.run_refusing(&rows()), got);
    assert_eq!(ready.run(&table!["id: string, n: int"]).rows.len(), 0);
}

fn insta_like(got: &str, want: &str) {
    assert!(got == want, "{got}");
}

#[test]
fn wrong_arguments_are_named() {
    let refused = above().option("limit", -1).refuses().to_string();
    assert_eq!(refused, "argument limit: `limit` is below zero; at least 0\n");
    let refused = stage::<Above>("id: string, n: int").column("id").refuses().to_string();
    assert_eq!(refused, "argument 0: `id` is string, and must be int\n");
    let refused = above().option("limit", "x").refuses().to_string();
    assert_eq!(refused, "argument limit: `limit`: an int is needed here\n");
    let refused = stage::<Above>("n: int").refuses().to_string();
    assert_eq!(refused, "1 items are needed, 0 are given\n");
}

/// What a test with this stage says.
fn panics(wrong: &str) -> String {
    let run = || above().option("wrong", wrong).run(&rows());
    let panic = std::panic::catch_unwind(run).unwrap_err();
    panic.downcast_ref::<String>().unwrap().clone()
}

#[test]
fn what_a_stage_does_wrong_fails_the_test() {
    for (wrong, what) in [
        ("silent", "`above` rejects rows and did not say so"),
        ("counts", "what comes out depends on where batches end"),
        ("lost", "`above` loses the places of its rows"),
        ("twice", "`above` gives its rows in another order than it got them"),
    ] {
        let said = panics(wrong);
        assert!(said.contains(what), "{wrong}: {said}");
    }
}

/// Counts what it sees, and gives that at the end.
#[derive(Params)]
struct Count;

struct Counted(i64);

impl Transform for Count {
    const NAME: &'static str = "count";

    fn bind(self, call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
        let make = Make::Serial(Box::new(|_| Ok(Box::new(Counted(0)))));
        let mut bound = Bound::adds(call, &[Field::new("rows", Type::Int, false)], vec![], make);
        bound.schema = bound.schema.fields().last().cloned().into_iter().collect();
        bound.lineage.drain(..call.own);
        Ok(bound)
    }
}

impl Serial for Counted {
    fn step<'a>(&mut self, batch: Batch<'a>, _: &'a Arena, _: &Faults<'a>) -> Result<(Option<Batch<'a>>, Flow)> {
        self.0 += batch.rows() as i64;
        Ok((None, Flow::More))
    }

    fn finish<'a>(&mut self, out: &mut Emitter<'_, 'a>) -> Result<()> {
        let arena = out.arena();
        let column = arena.fill(1, Column::int(arena.fill(1, self.0)?, None))?;
        out.last(Batch::new(column, None, 1)).map(drop)
    }
}

#[test]
fn a_serial_stage_gives_what_it_has_left() {
    let got = stage::<Count>("id: string, n: int").run(&rows());
    assert_eq!(got.to_string(), "rows: int\n     5\n".replace("     5", "        5"));
}

/// Divides.
#[scalar]
fn divide(a: i64, b: i64) -> Result<i64, String> {
    a.checked_div(b).ok_or_else(|| format!("{a} / {b} is no number"))
}

/// Sees nulls.
#[scalar]
fn or_zero(a: Option<i64>) -> i64 {
    a.unwrap_or(0)
}

#[test]
fn functions_are_called_row_by_row() {
    let got = function::<divide>().run(&table!["a: int, b: int?"; 7, 2; 1, 0; 8, NULL; 9, 3]);
    let want = "value: int?\n          3\n       null\n       null\n          3\nrejected row 1: 1 / 0 is no number\n";
    assert_eq!(got.to_string(), want);
    let got = function::<or_zero>().run(&table!["a: int?"; 5; NULL]);
    assert_eq!(got.column("value"), [Value::Int(5), Value::Int(0)]);
}

#[test]
#[should_panic(expected = "`divide` takes a: int?, b: int?, and is given a: string, b: int")]
fn arguments_of_functions_have_types() {
    function::<divide>().run(&table!["a: string, b: int"; "x", 1]);
}
