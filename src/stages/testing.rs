//! Drives one stage in tests: batches from values in, values out, at any chunk size.

use standpipe_sdk::error::{Code, Result};
use standpipe_sdk::spec::{Arg, Bound, Call, Complaint, Item, Lineage, Make, Rearrange, Setup};
use standpipe_sdk::values;
use standpipe_sdk::{
    Arena, Batch, Budget, Downstream, Emitter, Error, Fault, Faults, Field, Flow, Place, RowWise, Schema, Source, Span,
    Type, Value,
};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

pub(super) type Rows = Vec<Vec<Value>>;
/// Rows per chunk that a stage must not care about.
pub(super) const CHUNKS: [usize; 4] = [1, 2, 7, usize::MAX];
pub(super) const NULL: Value = Value::Null;
pub(super) const INT: Type = Type::Int;
pub(super) const STRING: Type = Type::String;
pub(super) const BOOL: Type = Type::Bool;

pub(super) fn int(value: i64) -> Value {
    Value::Int(value)
}

pub(super) fn text(value: &str) -> Value {
    Value::String(value.into())
}

pub(super) fn bool(value: bool) -> Value {
    Value::Bool(value)
}

/// Nullable columns.
pub(super) fn schema(fields: &[(&str, Type)]) -> Schema {
    fields
        .iter()
        .map(|(name, ty)| Field::new(*name, ty.clone(), true))
        .collect()
}

pub(super) fn argument(name: Option<&str>, arg: Arg) -> Item {
    Item {
        name: name.map(Into::into),
        arg,
        descending: false,
        span: Span::default(),
    }
}

pub(super) fn column(index: usize) -> Item {
    argument(None, Arg::Column(index))
}

pub(super) fn item(name: &str, index: usize) -> Item {
    argument(Some(name), Arg::Column(index))
}

pub(super) fn constant(value: Value) -> Item {
    argument(None, Arg::Const(value))
}

pub(super) fn call<'a>(input: &'a Schema, own: usize, items: &'a [Item]) -> Call<'a> {
    Call {
        input,
        own,
        streams: &[],
        beside: None,
        mode: None,
        items,
        by: &[],
        on: &[],
        as_name: None,
        options: &[],
        columns: &[],
        span: Span::default(),
    }
}

pub(super) fn codes_of(bound: Result<Bound, Vec<Complaint>>) -> Vec<Code> {
    match bound {
        Ok(_) => vec![],
        Err(complaints) => complaints.iter().map(|c| c.code).collect(),
    }
}

/// What came out.
#[derive(Default, Debug)]
pub(super) struct Got {
    pub(super) rows: Rows,
    pub(super) places: Vec<Place>,
    /// (place of the row, code, message)
    pub(super) faults: Vec<(u64, Code, String)>,
    pub(super) batches: usize,
    pub(super) done: bool,
    pub(super) said: String,
    /// Bytes of the last chunk's arena that the stage took.
    pub(super) arena_bytes: usize,
    /// Columns of a source that came out absent.
    pub(super) absent: Vec<usize>,
}

impl Got {
    pub(super) fn add(&mut self, batch: &Batch<'_>, schema: &Schema) {
        assert_eq!(batch.columns().len(), schema.width());
        self.batches += 1;
        self.rows.extend(values::rows(batch, schema));
        self.places.extend((0..batch.rows()).map(|row| batch.place(row)));
        let absent = |c: &usize| batch.column(*c).is_absent();
        self.absent = (0..schema.width()).filter(absent).collect();
    }
}

struct Collect<'g> {
    got: &'g mut Got,
    schema: &'g Schema,
}

impl Downstream for Collect<'_> {
    fn push<'b>(&mut self, port: usize, _: &'b Arena, batch: Batch<'b>, _: bool) -> Result<Flow> {
        assert_eq!(port, 0);
        assert!(batch.rows() > 0, "an empty batch");
        for (column, field) in batch.columns().iter().zip(self.schema.fields()) {
            assert!(column.fits(&field.ty), "{field}");
        }
        self.got.add(&batch, self.schema);
        Ok(Flow::More)
    }
}

pub(super) fn setup(limit: usize) -> Setup {
    setup_saying(limit, limit, Arc::new(|_: &str| {}))
}

fn setup_saying(limit: usize, share: usize, say: standpipe_sdk::spec::Say) -> Setup {
    Setup {
        budget: Budget::new(limit),
        spill: standpipe_sdk::Spill::anywhere(),
        share,
        workers: 2,
        chunk_bytes: 4 << 10,
        max_record: 1 << 20,
        sync: false,
        folder: std::path::Path::new("").into(),
        cancelled: Arc::new(AtomicBool::new(false)),
        say,
        asked: standpipe_sdk::spec::Asked::Text,
    }
}

/// Reads a source to its end.
pub(super) fn read_all(source: &Arc<dyn Source>, schema: &Schema, max_rows: usize) -> Got {
    let mut got = Got::default();
    let mut readers = [source.clone().reader().unwrap(), source.clone().reader().unwrap()];
    let mut turn = 0;
    while let Some(ticket) = source.ticket() {
        turn = 1 - turn;
        let reader = &mut readers[turn];
        let mut more = reader.claim(ticket).unwrap();
        while more {
            let mut arena = Arena::new(16 << 20);
            arena.set_poison(true);
            let part = reader.decode(&arena, max_rows, true).unwrap();
            assert!(part.batch.rows() <= max_rows && part.batch.rows() > 0);
            got.add(&part.batch, schema);
            more = !part.last;
        }
        // A lane that goes on to its next claim lets go of what it held for this one; here it would never come to that.
        readers[turn] = source.clone().reader().unwrap();
    }
    got
}

pub(super) fn run(bound: &Bound, schema: &Schema, rows: &Rows, chunk: usize) -> Got {
    run_in(bound, schema, rows, chunk, 8 << 20)
}

/// With `share` bytes for an arena of the stage's own.
pub(super) fn run_in(bound: &Bound, schema: &Schema, rows: &Rows, chunk: usize, share: usize) -> Got {
    drive(bound, schema, rows, chunk, 64 << 20, share, false).unwrap()
}

/// Within a budget of `limit` bytes.
pub(super) fn try_run(bound: &Bound, schema: &Schema, rows: &Rows, chunk: usize, limit: usize) -> Result<Got> {
    drive(bound, schema, rows, chunk, limit, 8 << 20, false)
}

/// Under the policy `fail`.
pub(super) fn run_until_first_fault(bound: &Bound, schema: &Schema, rows: &Rows, chunk: usize) -> Got {
    drive(bound, schema, rows, chunk, 64 << 20, 8 << 20, true).unwrap()
}

/// A batch whose places are row numbers from `from` on. Columns that the stage neither reads nor passes on are absent.
pub(super) fn input<'a>(
    bound: &Bound,
    schema: &Schema,
    rows: &[Vec<Value>],
    from: usize,
    arena: &'a Arena,
) -> Batch<'a> {
    let batch = values::batch(schema, rows, arena).unwrap();
    let used = |i: usize| bound.reads.contains(&i) || bound.lineage.contains(&Lineage::From(i));
    let absent = standpipe_sdk::Column::absent(rows.len());
    let columns = arena
        .collect(schema.width(), |i| if used(i) { batch.column(i) } else { absent })
        .unwrap();
    let place = |row: usize| Place {
        source: 0,
        offset: (from + row) as u64,
        sub: 0,
    };
    let places = arena.collect(rows.len(), place).unwrap();
    Batch::new(columns, Some(places), rows.len())
}

fn drive(
    bound: &Bound,
    schema: &Schema,
    rows: &Rows,
    chunk: usize,
    limit: usize,
    share: usize,
    stop: bool,
) -> Result<Got> {
    let said = Arc::new(Mutex::new(String::new()));
    let ear = said.clone();
    let say = Arc::new(move |text: &str| ear.lock().unwrap().push_str(text));
    let setup = setup_saying(limit, share, say);
    drive_with(&setup, &said, bound, schema, rows, chunk, stop)
}

/// Spilling after so many rows, whatever fits.
pub(super) fn run_spilling(bound: &Bound, schema: &Schema, rows: &Rows, chunk: usize, every: usize) -> Got {
    let disk = standpipe_sdk::Disk::new(std::env::temp_dir(), None).spill_rows(Some(every));
    let setup = Setup {
        spill: standpipe_sdk::Spill::new(Arc::new(disk)),
        ..setup_saying(64 << 20, 8 << 20, Arc::new(|_: &str| {}))
    };
    drive_with(&setup, &Arc::default(), bound, schema, rows, chunk, false).unwrap()
}

fn drive_with(
    setup: &Setup,
    said: &Arc<Mutex<String>>,
    bound: &Bound,
    schema: &Schema,
    rows: &Rows,
    chunk: usize,
    stop: bool,
) -> Result<Got> {
    let mut got = Got::default();
    let mut stage = Stage::make(bound, setup)?;
    let mut at = 0;
    while at < rows.len() && !got.done {
        let part = &rows[at..rows.len().min(at.saturating_add(chunk))];
        let (data, mut arena) = (Arena::new(32 << 20), Arena::new(32 << 20));
        arena.set_poison(true);
        let batch = input(bound, schema, part, at, &data);
        let faults = Faults::new(&arena, stop);
        stage.push(bound, at as u64, batch, &arena, &faults, &mut got)?;
        let fault = |f: &Fault<'_>| (at as u64 + u64::from(f.row), f.code, f.message.to_string());
        got.faults.extend(faults.by_row()?.iter().copied().map(fault));
        got.arena_bytes = arena.used();
        at += part.len();
    }
    match stage {
        Stage::Serial(mut serial, _) => {
            let arena = Arena::new(1 << 20);
            let faults = Faults::new(&arena, stop);
            let mut down = Collect {
                got: &mut got,
                schema: &bound.schema,
            };
            serial.finish(&mut Emitter::new(&arena, &faults, &mut down))?;
            rest(serial.as_mut(), 0, bound, &mut got)?;
        }
        Stage::Breaker(breaker, mut fillers) => {
            for filler in &mut fillers {
                filler.done()?;
            }
            drop(fillers);
            let source = breaker.drain()?;
            let read = read_all(&source, &bound.schema, chunk.min(1000));
            (got.rows, got.places) = (read.rows, read.places);
        }
        Stage::RowWise(stage) => drop(stage),
    }
    got.said = said.lock().unwrap().clone();
    assert_eq!(setup.budget.used(), 0, "memory that was not given back");
    Ok(got)
}

enum Stage {
    RowWise(Box<dyn RowWise>),
    Serial(Box<dyn standpipe_sdk::Serial>, Option<Box<dyn standpipe_sdk::Prepare>>),
    Breaker(Arc<dyn standpipe_sdk::Breaker>, Vec<Box<dyn standpipe_sdk::Fill>>),
}

impl Stage {
    fn make(bound: &Bound, setup: &Setup) -> Result<Stage> {
        Ok(match &bound.make {
            Make::RowWise(make) => Stage::RowWise(make(setup)?),
            Make::Serial(make) => {
                let serial = make(setup)?;
                let prepare = serial.prepare();
                Stage::Serial(serial, prepare)
            }
            Make::Breaker(make) => {
                let breaker = make(setup)?;
                let fillers = (0..3).map(|_| breaker.clone().filler()).collect::<Result<_>>()?;
                Stage::Breaker(breaker, fillers)
            }
            Make::Rearrange => {
                let from = |l: &Lineage| {
                    if let Lineage::From(i) = l {
                        *i
                    } else {
                        panic!("only columns that exist")
                    }
                };
                Stage::RowWise(Box::new(Rearrange {
                    picks: bound.lineage.iter().map(from).collect(),
                }))
            }
            _ => panic!("nothing to drive"),
        })
    }

    fn push<'a>(
        &mut self,
        bound: &Bound,
        chunk: u64,
        batch: Batch<'a>,
        arena: &'a Arena,
        faults: &Faults<'a>,
        got: &mut Got,
    ) -> Result<()> {
        match self {
            Stage::RowWise(stage) => {
                let mut down = Collect {
                    got,
                    schema: &bound.schema,
                };
                stage.push(batch, &mut Emitter::new(arena, faults, &mut down))?;
            }
            Stage::Serial(stage, prepare) => {
                let batch = match prepare {
                    Some(prepare) => prepare.prepare(batch, arena)?,
                    None => batch,
                };
                let (rows, flow) = stage.step(batch, arena, faults)?;
                if let Some(rows) = rows {
                    assert!(rows.rows() > 0);
                    got.add(&rows, &bound.schema);
                }
                got.done = flow == Flow::Done;
                rest(stage.as_mut(), chunk, bound, got)?;
            }
            Stage::Breaker(_, fillers) => {
                let lane = (chunk as usize * 7 + 1) % fillers.len();
                // Two batches of one chunk.
                let half = batch.rows() / 2;
                fillers[lane].push(chunk, batch.slice(0, half, arena)?)?;
                fillers[lane].push(chunk, batch.slice(half, batch.rows() - half, arena)?)?;
            }
        }
        Ok(())
    }
}

impl Stage {
    /// What a serial stage has left to say.
    fn finish(&mut self, bound: &Bound, got: &mut Got) {
        let Stage::Serial(serial, _) = self else { return };
        let arena = Arena::new(1 << 20);
        let faults = Faults::new(&arena, false);
        let mut down = Collect {
            got,
            schema: &bound.schema,
        };
        serial.finish(&mut Emitter::new(&arena, &faults, &mut down)).unwrap();
        rest(serial.as_mut(), 0, bound, got).unwrap();
    }
}

/// What a step left to say, or the end.
fn rest(serial: &mut dyn standpipe_sdk::Serial, at: u64, bound: &Bound, got: &mut Got) -> Result<()> {
    if !serial.has_rest() || got.done {
        return Ok(());
    }
    serial.rest(&mut |_, made, faults| {
        got.add(&made.rows, &bound.schema);
        let own = Arena::new(1 << 20);
        let fault = |f: &Fault<'_>| {
            let row = made.at.map_or(f.row, |rows| rows[f.row as usize]);
            (at + u64::from(row), f.code, f.message.to_string())
        };
        got.faults.extend(faults.by_row_in(&own)?.iter().copied().map(fault));
        Ok(Flow::More)
    })
}

/// Refuses each allocation of the chunk's arena in turn; the same batch again must give what it gives without a refusal.
pub(super) fn every_refusal_can_be_repeated(bound: &Bound, schema: &Schema, rows: &Rows) {
    let want = run(bound, schema, rows, usize::MAX);
    for allocations in 0.. {
        assert!(allocations < 1000, "never enough");
        let setup = setup(8 << 20);
        let mut stage = Stage::make(bound, &setup).unwrap();
        let (data, arena) = (Arena::new(8 << 20), Arena::new(8 << 20));
        let batch = input(bound, schema, rows, 0, &data);
        let mut got = Got::default();
        arena.refuse_after(allocations);
        let first = stage.push(bound, 0, batch, &arena, &Faults::new(&arena, false), &mut got);
        match first {
            Ok(()) => {
                assert!(allocations > 0);
                stage.finish(bound, &mut got);
                assert_eq!(got.rows, want.rows);
                return;
            }
            Err(Error::Memory { .. }) => {
                assert_eq!(got.batches, 0, "emitted before the refusal");
                let faults = Faults::new(&arena, false);
                stage.push(bound, 0, batch, &arena, &faults, &mut got).unwrap();
                stage.finish(bound, &mut got);
                assert_eq!(got.rows, want.rows, "after refusal {allocations}");
                assert_eq!(faults.by_row().unwrap().len(), want.faults.len());
            }
            Err(other) => panic!("{other}"),
        }
    }
}
