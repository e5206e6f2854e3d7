//! Reject streams: bad rows as rows.
//!
//! Laws
//! - A reject node gathers what its stages set aside in one chunk and passes it on at the chunk's end, by (place, node): the order
//!   does not depend on which stage ran first.
//! - Rows behind the place where the run ended are dropped.
//! - Where rows of a chunk wait for others to pass (a join whose right side is on disk), what is set aside of it comes before and after them:
//!   then all rejects are held and sorted, and come out as if nobody had waited.

use crate::runtime::lane::Chunk;
use crate::stages::codes::held as held_back;
use crate::stages::keys::Key;
use crate::stages::sort;
use standpipe_sdk::build::TextBuilder;
use standpipe_sdk::spec::Setup;
use standpipe_sdk::{
    Arena, Batch, Bits, Breaker, Column, Columns, Data, Error, Field, Fill, Flow, Place, Result, Schema, Text, Type,
};
use std::sync::{Arc, Mutex, PoisonError};

/// The columns of every reject stream.
pub fn schema() -> Schema {
    let field = |name: &str, ty: Type, nullable: bool| Field::new(name, ty, nullable);
    Schema::new(vec![
        field("code", Type::String, false),
        field("message", Type::String, false),
        field("step", Type::String, false),
        field("script_line", Type::Int, false),
        field("source", Type::String, true),
        field("line", Type::Int, true),
        field("row", Type::Int, true),
        field("byte", Type::Int, true),
        field("record", Type::Json, true),
        field("raw", Type::Bytes, true),
    ])
}

/// One bad row on its way into a reject stream.
#[derive(Clone, Debug)]
pub(crate) struct Reject {
    pub place: Place,
    pub node: u32,
    pub code: standpipe_sdk::Code,
    pub message: String,
    pub step: std::sync::Arc<str>,
    pub script_line: u32,
    pub source: Option<String>,
    pub line: Option<u64>,
    pub row: Option<u64>,
    pub byte: Option<u64>,
    pub record: Option<String>,
    pub raw: Option<Vec<u8>>,
}

/// The rejects as a batch in `arena`.
pub(crate) fn batch<'a>(rows: &[Reject], arena: &'a Arena) -> Result<Batch<'a>> {
    let n = rows.len();
    let int = |get: &dyn Fn(&Reject) -> Option<u64>| -> Result<Column<'a>> {
        let values = arena.collect(n, |i| get(&rows[i]).unwrap_or(0) as i64)?;
        Ok(Column::int(
            values,
            Some(Bits::collect(arena, n, |i| get(&rows[i]).is_some())?),
        ))
    };
    let mut columns = Columns::new(arena, 10)?;
    let full = |get: &dyn Fn(&Reject) -> Result<String>| -> Result<Text<'a>> {
        let mut builder = TextBuilder::new(arena, n, n * 32)?;
        for row in rows {
            builder.push(&get(row)?)?;
        }
        builder.finish()
    };
    let some = |get: &dyn Fn(&Reject) -> Option<&[u8]>| -> Result<(Text<'a>, Option<Bits<'a>>)> {
        let mut builder = TextBuilder::new(arena, n, n * 64)?;
        for row in rows {
            builder.push_bytes(get(row).unwrap_or_default())?;
        }
        Ok((
            builder.finish()?,
            Some(Bits::collect(arena, n, |i| get(&rows[i]).is_some())?),
        ))
    };
    columns.push(Column::string(full(&|r| Ok(r.code.to_string()))?, None));
    columns.push(Column::string(full(&|r| Ok(r.message.clone()))?, None));
    columns.push(Column::string(full(&|r| Ok(r.step.to_string()))?, None));
    columns.push(int(&|r| Some(u64::from(r.script_line)))?.with_valid(None));
    let (text, valid) = some(&|r| r.source.as_deref().map(str::as_bytes))?;
    columns.push(Column::string(text, valid));
    columns.push(int(&|r| r.line)?);
    columns.push(int(&|r| r.row)?);
    columns.push(int(&|r| r.byte)?);
    let (text, valid) = some(&|r| r.record.as_deref().map(str::as_bytes))?;
    columns.push(Column::new(Data::Json(text), valid, n));
    let (text, valid) = some(&|r| r.raw.as_deref())?;
    columns.push(Column::new(Data::Bytes(text), valid, n));
    let places = arena.collect(n, |i| rows[i].place)?;
    Ok(Batch::new(columns.finish(), Some(places), n))
}

/// The columns that held rejects are sorted by, and have before their own.
const ORDER: usize = 0;
const SOURCE: usize = 1;
const OFFSET: usize = 2;
const SUB: usize = 3;
const NODE: usize = 4;
/// Not a key: the feed that the chunk came from.
const FEED: usize = 5;
const OWN: usize = 6;
/// Columns of a reject.
const WIDTH: usize = 10;
/// Rejects that are held or given at a time.
const PIECE: usize = 1024;

/// Rejects that wait for others that belong before them.
pub(crate) struct Held {
    breaker: Arc<dyn Breaker>,
    lanes: Mutex<Vec<HeldLane>>,
}

/// One lane's way in. Never contended: all is over when the rows are given.
#[derive(Clone)]
pub(crate) struct HeldLane(Arc<Mutex<Box<dyn Fill>>>);

impl Held {
    pub(crate) fn new(setup: &Setup) -> Result<Held> {
        let keys = [ORDER, SOURCE, OFFSET, SUB, NODE].map(Key::ascending);
        let breaker = sort::breaker("rejects", keys.to_vec(), None, OWN + WIDTH)(setup)?;
        Ok(Held {
            breaker,
            lanes: Mutex::default(),
        })
    }

    pub(crate) fn lane(&self) -> Result<HeldLane> {
        let lane = HeldLane(Arc::new(Mutex::new(self.breaker.clone().filler()?)));
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.push(lane.clone());
        Ok(lane)
    }

    /// Gives all of them, except those that `is_cut` names by feed, order and place. They are read in `pen`, and given in a spare arena
    /// of `chunk`: as many are read as the first has room for, and as many of these given at a time as the second has.
    pub(crate) fn give(
        &self,
        pen: &mut Arena,
        chunk: &Chunk<'_>,
        is_cut: impl Fn(usize, u64, Place) -> bool,
        mut push: impl FnMut(Batch<'_>, &Arena) -> Result<Flow>,
    ) -> Result<()> {
        for lane in std::mem::take(&mut *self.lanes.lock().unwrap_or_else(PoisonError::into_inner)) {
            lane.0.lock().unwrap_or_else(PoisonError::into_inner).done()?;
        }
        let source = self.breaker.clone().drain()?;
        let mut reader = source.clone().reader()?;
        let mut most = PIECE;
        while let Some(ticket) = source.ticket() {
            let mut more = reader.claim(ticket)?;
            while more {
                pen.reset();
                let part = match reader.decode(pen, most, true) {
                    Err(Error::Memory { .. }) if most > 1 => {
                        most /= 2;
                        continue;
                    }
                    part => part?,
                };
                more = !part.last;
                let (mut from, mut piece) = (0, part.batch.rows());
                while from < part.batch.rows() {
                    let len = piece.min(part.batch.rows() - from);
                    let outcome = chunk.in_spare(|spare| {
                        let rows = given(part.batch.slice(from, len, spare)?, &is_cut, spare)?;
                        Ok(match rows.rows() {
                            0 => Ok(Flow::More),
                            _ => push(rows, spare),
                        })
                    });
                    match outcome {
                        Err(Error::Memory { .. }) if len > 1 => piece = len / 2,
                        Err(error) => return Err(held_back("rejects", error)),
                        Ok(flow) => {
                            if flow? == Flow::Done {
                                return Ok(());
                            }
                            from += len;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

impl HeldLane {
    /// Takes the rejects of one chunk.
    pub(crate) fn push(&self, rows: &[Reject], pen: &mut Arena, number: u64, order: u64, feed: usize) -> Result<()> {
        let mut fill = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut from, mut piece) = (0, PIECE);
        while from < rows.len() {
            let some = &rows[from..rows.len().min(from + piece)];
            let outcome = match held(some, order, feed, pen) {
                Err(Error::Memory { .. }) if some.len() > 1 => {
                    pen.reset();
                    piece = some.len() / 2;
                    continue;
                }
                Err(error) => Err(error),
                Ok(batch) => fill.push(number, batch),
            };
            pen.reset();
            outcome?;
            from += some.len();
        }
        Ok(())
    }
}

/// Rejects as they are sorted.
fn held<'a>(rows: &[Reject], order: u64, feed: usize, arena: &'a Arena) -> Result<Batch<'a>> {
    let own = batch(rows, arena)?;
    let mut columns = Columns::new(arena, OWN + WIDTH)?;
    columns.push(Column::int(arena.fill(rows.len(), order as i64)?, None));
    columns.push(Column::int(
        arena.collect(rows.len(), |i| i64::from(rows[i].place.source))?,
        None,
    ));
    columns.push(Column::int(
        arena.collect(rows.len(), |i| rows[i].place.offset as i64)?,
        None,
    ));
    columns.push(Column::int(
        arena.collect(rows.len(), |i| i64::from(rows[i].place.sub))?,
        None,
    ));
    columns.push(Column::int(
        arena.collect(rows.len(), |i| i64::from(rows[i].node))?,
        None,
    ));
    columns.push(Column::int(arena.fill(rows.len(), feed as i64)?, None));
    for &column in own.columns() {
        columns.push(column);
    }
    Ok(Batch::new(columns.finish(), None, rows.len()))
}

/// The rejects of sorted rows, without those that are cut.
fn given<'a>(rows: Batch<'a>, is_cut: &impl Fn(usize, u64, Place) -> bool, arena: &'a Arena) -> Result<Batch<'a>> {
    let ints = |at: usize| match rows.column(at).data() {
        Data::Int(values) => Ok(values),
        _ => Err(Error::Panic("rejects without their places".into())),
    };
    let (orders, feeds) = (ints(ORDER)?, ints(FEED)?);
    let (sources, offsets, subs) = (ints(SOURCE)?, ints(OFFSET)?, ints(SUB)?);
    let places = arena.collect(rows.rows(), |row| Place {
        source: sources[row] as u32,
        offset: offsets[row] as u64,
        sub: subs[row] as u32,
    })?;
    let stays = Bits::collect(arena, rows.rows(), |row| {
        !is_cut(feeds[row] as usize, orders[row] as u64, places[row])
    })?;
    let batch = Batch::new(&rows.columns()[OWN..], Some(places), rows.rows());
    match stays.is_all() {
        true => Ok(batch),
        false => batch.gather(stays.indices(arena)?, WIDTH, arena),
    }
}
