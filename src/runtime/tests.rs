//! The runtime on graphs made by hand: the same bytes and the same error for every number of workers and every cut.

use super::*;
use crate::graph::{Edge, Node, OnError, Op, Policy, Port};
use crate::runtime::settings::Hooks;
use standpipe_sdk::spec::{Bound, Make, Memory, Order, Request, Wanted};
use standpipe_sdk::{
    Arena, Batch, Cell, Column, Columns, Emitter, Faults, Flow, Published, RowWise, Schema, Serial, Span, Verdict,
    Writer,
};
use std::sync::Mutex;

fn node(name: &str, inputs: &[(usize, Port)], op: Op, schema: &Schema) -> Node {
    Node {
        name: name.into(),
        detail: String::new(),
        span: Span::default(),
        inputs: inputs.iter().map(|&(from, port)| Edge { from, port }).collect(),
        schema: schema.clone(),
        op,
        order: Order::Keeps,
        memory: Memory::Batch,
        policy: Policy::default(),
        least: |_| standpipe_sdk::spec::Least::default(),
        takes_more: 0,
        holds_back: false,
        cut_short: false,
        asked: standpipe_sdk::spec::Asked::Nothing,
        stream: None,
    }
}

fn ints(batch: Batch<'_>) -> impl Iterator<Item = i64> + '_ {
    (0..batch.rows()).map(move |row| {
        if let Cell::Int(v) = batch.column(0).cell(row) {
            v
        } else {
            -1
        }
    })
}

fn with_ints<'a>(batch: Batch<'a>, arena: &'a Arena, f: impl FnMut(usize) -> i64) -> Result<Batch<'a>> {
    let mut columns = Columns::new(arena, 1)?;
    columns.push(Column::int(arena.collect(batch.rows(), f)?, None));
    Ok(batch.with_columns(columns.finish()))
}

/// Bad for one value.
struct Parse(i64);

impl RowWise for Parse {
    fn push<'a>(&mut self, batch: Batch<'a>, out: &mut Emitter<'_, 'a>) -> Result<Flow> {
        match ints(batch).position(|v| v == self.0) {
            None => out.last(batch),
            Some(row) => match out.reject(row, Code(412), None, format_args!("parse {}", self.0))? {
                Verdict::Stop => out.emit(batch.head(row, out.arena())?),
                Verdict::On => {
                    let keep: Vec<u32> = (0..batch.rows() as u32).filter(|&r| r as usize != row).collect();
                    out.emit(batch.gather(&keep, 1, out.arena())?)
                }
            },
        }
    }
}

struct Filter;

impl RowWise for Filter {
    fn push<'a>(&mut self, batch: Batch<'a>, out: &mut Emitter<'_, 'a>) -> Result<Flow> {
        let keep: Vec<u32> = ints(batch)
            .enumerate()
            .filter(|(_, v)| v % 97 < 3)
            .map(|(i, _)| i as u32)
            .collect();
        out.last(batch.gather(&keep, 1, out.arena())?)
    }
}

/// One row to many, in an arena of its own.
struct Expand(Arena, i64);

impl RowWise for Expand {
    fn push<'a>(&mut self, batch: Batch<'a>, out: &mut Emitter<'_, 'a>) -> Result<Flow> {
        for (row, v) in ints(batch).enumerate() {
            let copies = if v % 1000 == 9 { self.1 } else { v % 3 };
            let mut done = 0;
            while done < copies {
                let n = (copies - done).min(512);
                let flow = {
                    let places = self.0.fill(n as usize, batch.place(row))?;
                    let mut columns = Columns::new(&self.0, 1)?;
                    columns.push(Column::int(
                        self.0.collect(n as usize, |i| v * 10 + done + i as i64)?,
                        None,
                    ));
                    out.emit_in(&self.0, Batch::new(columns.finish(), Some(places), n as usize))?
                };
                self.0.reset();
                done += n;
                if flow == Flow::Done {
                    return Ok(flow);
                }
            }
        }
        Ok(Flow::More)
    }
}

struct Number(i64);

impl Serial for Number {
    fn step<'a>(&mut self, batch: Batch<'a>, arena: &'a Arena, _: &Faults<'a>) -> Result<(Option<Batch<'a>>, Flow)> {
        let values: Vec<i64> = ints(batch).collect();
        let out = with_ints(batch, arena, |row| values[row] * 31 + self.0 + row as i64 + 1)?;
        self.0 += batch.rows() as i64;
        Ok((Some(out), Flow::More))
    }
}

struct Take(usize);

impl Serial for Take {
    fn step<'a>(&mut self, batch: Batch<'a>, arena: &'a Arena, _: &Faults<'a>) -> Result<(Option<Batch<'a>>, Flow)> {
        let n = batch.rows().min(self.0);
        let out = batch.head(n, arena)?;
        self.0 -= n;
        Ok((Some(out), if self.0 == 0 { Flow::Done } else { Flow::More }))
    }
}

type Seen = Arc<Mutex<Vec<String>>>;

/// Keeps the rows it is given, as text.
struct Keep(Seen);
struct KeepWriter(Seen, Vec<String>);

impl Sink for Keep {
    fn writer(self: Arc<Self>) -> Result<Box<dyn Writer>> {
        Ok(Box::new(KeepWriter(self.0.clone(), vec![])))
    }
    fn finish(&self) -> Result<()> {
        Ok(())
    }
    fn publish(&self) -> Result<Vec<Published>> {
        Ok(vec![])
    }
    fn discard(&self) {
        self.0.lock().unwrap().push("discarded".into());
    }
}

impl Writer for KeepWriter {
    fn encode(&mut self, batch: Batch<'_>, _: &Faults<'_>) -> Result<()> {
        for row in 0..batch.rows() {
            let cells: Vec<String> = batch.columns().iter().map(|c| format!("{:?}", c.cell(row))).collect();
            self.1.push(cells.join(","));
        }
        Ok(())
    }
    fn pending(&self) -> usize {
        self.1.len()
    }
    fn write(&mut self) -> Result<()> {
        self.0.lock().unwrap().append(&mut self.1);
        Ok(())
    }
    fn forget(&mut self) {
        self.1.clear();
    }
}

struct Plan {
    bad: i64,
    take: usize,
    policy: OnError,
}

fn graph(plan: &Plan, seen: &[Seen; 3]) -> Graph {
    let Bound {
        schema,
        make: Make::Source(make),
        ..
    } = crate::stages::from::range(0, 9_999)
    else {
        panic!("a source")
    };
    let request = Request {
        columns: vec![Wanted::Yes],
        places: true,
    };
    let (bad, take) = (plan.bad, plan.take);
    let keep = |seen: &Seen| {
        let seen = seen.clone();
        Op::Sink(Box::new(move |_| Ok(Arc::new(Keep(seen.clone())))))
    };
    let out = |from| [(from, Port::Out(0))];
    let mut nodes = vec![
        node("range", &[], Op::Source { make, request }, &schema),
        node(
            "parse",
            &out(0),
            Op::RowWise(Box::new(move |_| Ok(Box::new(Parse(bad))))),
            &schema,
        ),
        node(
            "number",
            &out(1),
            Op::Serial(Box::new(|_| Ok(Box::new(Number(0))))),
            &schema,
        ),
        node(
            "expand",
            &out(2),
            Op::RowWise(Box::new(|_| Ok(Box::new(Expand(Arena::new(1 << 16), 5_000))))),
            &schema,
        ),
        node(
            "take",
            &out(3),
            Op::Serial(Box::new(move |_| Ok(Box::new(Take(take))))),
            &schema,
        ),
        node("a", &out(4), keep(&seen[0]), &schema),
        node(
            "filter",
            &out(2),
            Op::RowWise(Box::new(|_| Ok(Box::new(Filter)))),
            &schema,
        ),
        node("b", &out(6), keep(&seen[1]), &schema),
    ];
    nodes[1].policy.on_error = plan.policy;
    if plan.policy == OnError::To {
        nodes.push(node("rejects", &[(1, Port::Rejects)], Op::Rejects, &rejects::schema()));
        nodes.push(node("c", &out(8), keep(&seen[2]), &rejects::schema()));
    }
    Graph { nodes }
}

type Outcome = (Option<String>, Vec<Vec<String>>);

fn outcome(plan: &Plan, settings: &Settings) -> Outcome {
    let seen: [Seen; 3] = Default::default();
    let error = run(&graph(plan, &seen), "", settings, &Arc::default())
        .err()
        .map(|e| match e {
            Error::Row(row) => format!("{} at {:?}", row.message, row.place),
            other => other.to_string(),
        });
    let rows = seen.iter().map(|s| std::mem::take(&mut *s.lock().unwrap())).collect();
    (error, rows)
}

fn settings(workers: usize, chunk_rows: Option<usize>) -> Settings {
    let hooks = Hooks {
        chunk_rows,
        poison: true,
        ..Hooks::default()
    };
    Settings {
        workers,
        hooks,
        memory_bytes: 64 << 20,
        ..Settings::default()
    }
}

#[test]
fn workers_and_cuts_change_nothing() {
    let most = usize::MAX;
    let plans = [
        Plan {
            bad: -1,
            take: most,
            policy: OnError::Fail,
        },
        Plan {
            bad: -1,
            take: 7_000,
            policy: OnError::Fail,
        },
        Plan {
            bad: 3_333,
            take: most,
            policy: OnError::Fail,
        },
        Plan {
            bad: 3_333,
            take: most,
            policy: OnError::Skip,
        },
        Plan {
            bad: 3_333,
            take: most,
            policy: OnError::To,
        },
        Plan {
            bad: 9_998,
            take: 50,
            policy: OnError::To,
        },
        Plan {
            bad: 17,
            take: 5,
            policy: OnError::Fail,
        },
    ];
    for plan in &plans {
        let want = outcome(plan, &settings(1, Some(1)));
        for workers in 1..=4 {
            for rows in [None, Some(7), Some(1000)] {
                let got = outcome(plan, &settings(workers, rows));
                assert_eq!(got.0, want.0, "workers {workers} rows {rows:?}");
                if want.0.is_none() {
                    assert!(got.1 == want.1, "workers {workers} rows {rows:?} bad {}", plan.bad);
                }
            }
        }
    }
}

#[test]
fn refused_memory_changes_nothing() {
    let plan = Plan {
        bad: 3_333,
        take: usize::MAX,
        policy: OnError::To,
    };
    let want = outcome(&plan, &settings(1, Some(100)));
    for refuse in 1..12 {
        let mut settings = settings(2, Some(100));
        settings.hooks.refuse_after = Some(refuse);
        let got = outcome(&plan, &settings);
        assert_eq!(got.0, want.0, "after {refuse}");
        assert!(got.1 == want.1, "after {refuse}");
    }
}

#[test]
fn a_panic_in_any_node_ends_the_run_within_a_second() {
    let plan = Plan {
        bad: 5_000,
        take: usize::MAX,
        policy: OnError::To,
    };
    for at in 0..9 {
        let mut settings = settings(4, Some(64));
        settings.hooks.panic_at = Some((at, 0));
        let start = Instant::now();
        let (error, rows) = outcome(&plan, &settings);
        // A reject node takes its rows by another door, which has no hook.
        if at != 8 {
            assert_eq!(
                error.as_deref(),
                Some("internal error: a test asked for this panic"),
                "node {at}"
            );
            assert_eq!(rows[0].last().map(String::as_str), Some("discarded"));
        }
        assert!(start.elapsed().as_secs_f64() < 1.0, "node {at}");
    }
}
