//! One worker's nodes and how a batch moves through them.
//!
//! Laws
//! - Nodes are in topological order; a node pushes only to later ones, so `split_at_mut` lends it and all behind it.
//! - After every chunk, empty or failed, `end_chunk` is called on every node: each chunk passes each turnstile once.
//! - Of several errors in one chunk the one with the least (place, node) is kept.
//!
//! Advice for whoever changes this: a batch never changes thread, and whatever waits here (a turnstile) is waited for by later
//! chunks only. `emit` before `leave` would serialise everything behind a serial stage; `leave` before the state is done
//! would let the next chunk in. The order in `serial` below is the whole trick.

mod ends;

pub(crate) use ends::{LastEdges, cut_behind_ends};

use crate::expr::{Compute, Condition};
use crate::formats::jsonl;
use crate::formats::out::Out;
use crate::graph::{NodeId, OnError, Policy};
use crate::runtime::limit::{Gate, TooMany};
use crate::runtime::rejects::{self, HeldLane, Reject};
use crate::runtime::run::RegionRun;
use crate::runtime::turnstile::{Ticket, Turnstile};
use standpipe_sdk::{
    Arena, Batch, Bits, Code, Column, Data, Downstream, Emitter, Error, Fault, Faults, Fill, Flow, Hold, Judge,
    Locator, Made, Place, Prepare, Probe, Result, RowError, RowWise, Schema, Serial, Span, Waiting, Writer,
};
use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

/// Encoded output a writer may hold before it waits for its turn in mid-chunk, in bytes.
const PENDING: usize = 1 << 20;

/// One operator of a lane.
pub(crate) struct Node {
    pub id: NodeId,
    pub info: Arc<Info>,
    pub op: Operator,
    /// For each output port, the positions in the lane of the nodes it feeds.
    pub outs: Vec<Vec<usize>>,
    /// The position of the reject node that gets its bad rows.
    pub rejects: Option<usize>,
    /// Every consumer has all it wants.
    pub done: bool,
    /// Where in this chunk that was so; a node that is done without it was done before.
    pub end: Option<Place>,
    pub rows_in: u64,
    pub bad_rows: u64,
    pub discarded: u64,
    pub gate: Option<Arc<Gate>>,
    /// Of this chunk: rows so far, bad ones (how many rows there were by then, that one included if it is one of them; the place).
    pub chunk_rows: u64,
    pub chunk_bad: Vec<(u64, Place)>,
    /// And where its rows stand, as long as its gate wants to know.
    pub chunk_places: Vec<Place>,
}

/// What all lanes know of a node.
pub(crate) struct Info {
    pub name: Arc<str>,
    pub span: Span,
    pub script_line: u32,
    pub policy: Policy,
    /// The rows it takes, for reject records.
    pub input: Schema,
}

impl Info {
    /// A row of the input as JSON text.
    fn record_text(&self, batch: Batch<'_>, row: usize) -> Option<String> {
        let mut text = Out::new();
        jsonl::Encoder::new(&self.input)
            .encode_rows(&batch, row..row + 1, &mut text)
            .ok()?;
        let line = text.as_slice().strip_suffix(b"\n")?;
        String::from_utf8(line.to_vec()).ok()
    }
}

/// Rows of which some were found bad.
#[derive(Clone, Copy)]
pub(crate) enum Found<'b> {
    /// Rows that the stage took.
    Taken(Batch<'b>),
    /// Rows that it made of others.
    Made(Made<'b>),
    /// Nothing that stands anywhere: what it held when no more rows came.
    Held,
}

impl<'b> Found<'b> {
    fn place(self, row: usize) -> Place {
        match self {
            Found::Taken(batch) => batch.place(row),
            Found::Made(made) => made.places.get(row).copied().unwrap_or_default(),
            Found::Held => Place::default(),
        }
    }

    /// How many rows the stage had taken when it was found, of those of the batch.
    fn rows_with(self, row: usize) -> u64 {
        match self {
            Found::Taken(_) => row as u64 + 1,
            Found::Made(made) => made.at.and_then(|at| at.get(row)).map_or(0, |&at| u64::from(at) + 1),
            Found::Held => 0,
        }
    }

    fn taken(self) -> Option<Batch<'b>> {
        match self {
            Found::Taken(batch) => Some(batch),
            _ => None,
        }
    }

    fn is_of_the_end(self) -> bool {
        match self {
            Found::Taken(_) => false,
            Found::Made(made) => made.at.is_none(),
            Found::Held => true,
        }
    }
}

/// What a node of a lane does.
pub(crate) enum Operator {
    /// Where a source's rows enter, or streams meet.
    Pass,
    Compute(Compute),
    RowWise(Box<dyn RowWise>),
    Serial(InOrder<Mutex<Box<dyn Serial>>>, Option<Box<dyn Prepare>>),
    Fill(Box<dyn Fill>),
    Probe(Box<dyn Probe>, Option<Condition>, Option<Waits>),
    Sink(Box<dyn Writer>, InOrder<()>),
    Route(usize),
    Rejects {
        rows: Vec<Reject>,
        pen: Arena,
        /// Where they wait until nothing more comes that belongs before them.
        held: Option<HeldLane>,
    },
}

/// The way in of rows that cannot meet their build yet.
pub(crate) struct Waits {
    pub hold: Box<dyn Hold>,
    /// The feed out of which they come again.
    pub again: usize,
}

/// A turnstile and whether this lane is in it.
pub(crate) struct InOrder<S> {
    pub shared: Arc<(Turnstile, S)>,
    pub inside: bool,
    pub left: bool,
}

impl<S> InOrder<S> {
    pub(crate) fn new(shared: Arc<(Turnstile, S)>) -> Self {
        InOrder {
            shared,
            inside: false,
            left: false,
        }
    }

    fn enter(&mut self, chunk: &Chunk<'_>) -> Result<()> {
        if !self.inside {
            self.shared.0.wait(chunk.ticket, &chunk.run.dead)?;
            self.inside = true;
        }
        // An earlier chunk ended the run: this one has nothing to add.
        if chunk.run.ended_before(chunk.ticket, chunk.first, chunk.source) {
            Err(Error::Cancelled)
        } else {
            Ok(())
        }
    }

    fn leave(&mut self, chunk: &Chunk<'_>) {
        if !self.left {
            self.left = true;
            self.inside = false;
            self.shared.0.leave(chunk.ticket.next(chunk.last_part));
        }
    }

    fn end_chunk(&mut self, chunk: &Chunk<'_>) {
        if !self.left && !self.inside && self.shared.0.wait(chunk.ticket, &chunk.run.dead).is_err() {
            return;
        }
        self.leave(chunk);
        self.left = false;
    }
}

/// The chunk a lane is at.
pub(crate) struct Chunk<'r> {
    pub ticket: Ticket,
    /// Position among the region's feeds.
    pub source: usize,
    /// Where it stands among the chunks of the region: its own number, or that of the chunk whose rows waited.
    pub order: u64,
    /// The first chunk that anything of it may have come in: an error of an earlier one makes it worthless.
    pub first: u64,
    pub last_part: bool,
    pub run: &'r RegionRun,
    pub locator: Locator<'r>,
    /// Arenas for repeating a refused push on less.
    pub spares: &'r RefCell<Vec<Arena>>,
}

/// The edges out of one node, and all nodes behind it.
pub(crate) struct Edges<'r> {
    pub outs: &'r [Vec<usize>],
    pub later: &'r mut [Node],
    /// Position in the lane of `later[0]`.
    pub base: usize,
    pub chunk: &'r Chunk<'r>,
    /// The batch being worked on is the node's last of this chunk.
    pub last: bool,
}

impl Downstream for Edges<'_> {
    fn push<'b>(&mut self, port: usize, arena: &'b Arena, batch: Batch<'b>, last: bool) -> Result<Flow> {
        let Some(targets) = self.outs.get(port) else {
            return Ok(Flow::Done);
        };
        if batch.rows() == 0 {
            return Ok(if targets.iter().all(|&t| self.later[t - self.base].done) {
                Flow::Done
            } else {
                Flow::More
            });
        }
        let mut all_done = true;
        let mut failed: Option<Error> = None;
        for &target in targets {
            let (head, rest) = self.later.split_at_mut(target - self.base + 1);
            let Some(node) = head.last_mut() else { continue };
            if node.done {
                continue;
            }
            // After an error only what stands before its place can still matter.
            let part = match &failed {
                Some(Error::Row(row)) => cut(batch, row.place, arena)?,
                _ => batch,
            };
            if part.rows() == 0 {
                all_done = false;
                continue;
            }
            let base = target + 1;
            match node.push(part, arena, self.last && last, rest, base, self.chunk) {
                Ok(Flow::Done) => node.done = true,
                Ok(Flow::More) => all_done = false,
                Err(error) => failed = Some(first_of(failed, error)),
            }
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(if all_done { Flow::Done } else { Flow::More }),
        }
    }
}

/// The rows of `batch` before `place`.
fn cut<'a>(batch: Batch<'a>, place: Place, arena: &'a Arena) -> Result<Batch<'a>> {
    let Some(places) = batch.origin() else { return Ok(batch) };
    batch.head(places.partition_point(|&p| p < place), arena)
}

/// The error to report of two in one chunk.
pub(crate) fn first_of(one: Option<Error>, other: Error) -> Error {
    match (one, other) {
        (None, other) => other,
        (Some(Error::Row(a)), Error::Row(b)) => Error::Row(if (b.place, b.node) < (a.place, a.node) { b } else { a }),
        // Being told to stop says less than any reason for it.
        (Some(Error::Cancelled), other) => other,
        (Some(one), _) => one,
    }
}

impl Node {
    fn push<'a>(
        &mut self,
        batch: Batch<'a>,
        arena: &'a Arena,
        last: bool,
        later: &mut [Node],
        base: usize,
        chunk: &Chunk<'_>,
    ) -> Result<Flow> {
        self.panic_if_asked(chunk);
        if let Operator::Probe(.., Some(waits)) = &mut self.op
            && waits.again != chunk.source
        {
            // They are counted when they come again.
            let waiting = Waiting {
                number: chunk.ticket.number(),
                chunk: chunk.order,
                locator: chunk.locator,
                texts: chunk.run.keeps_text,
            };
            return waits.hold.push(&waiting, batch).map(|()| Flow::More);
        }
        self.rows_in += batch.rows() as u64;
        let flow = self.work(batch, arena, false, last, later, base, chunk);
        let mut counted = batch.rows();
        if matches!(flow, Ok(Flow::Done)) {
            self.is_done(later, base);
            if let (Some(end), Some(places)) = (self.end, batch.origin()) {
                counted = places.partition_point(|&place| place <= end);
            }
        }
        self.chunk_rows += counted as u64;
        self.note_places(batch.origin(), counted);
        flow
    }

    /// Notes where the first `rows` of some rows stand, for its gate.
    fn note_places(&mut self, places: Option<&[Place]>, rows: usize) {
        if let Some(places) = places
            && self.gate.as_ref().is_some_and(|gate| gate.wants_places())
        {
            self.chunk_places.extend(&places[..rows]);
        }
    }

    /// The hook of the test that a panic in any node ends the run.
    fn panic_if_asked(&self, chunk: &Chunk<'_>) {
        if chunk.run.panic_at == Some((self.id, chunk.ticket.claim())) {
            std::panic::panic_any("a test asked for this panic");
        }
    }

    /// Works on the batch, and again on halves of it in another arena where memory is refused before anything came out. One row that
    /// is refused in an arena of its own (`fresh`) is too much.
    fn work<'a>(
        &mut self,
        batch: Batch<'a>,
        arena: &'a Arena,
        fresh: bool,
        last: bool,
        later: &mut [Node],
        base: usize,
        chunk: &Chunk<'_>,
    ) -> Result<Flow> {
        let mut emitted = false;
        match self.once(batch, arena, last, later, base, chunk, &mut emitted) {
            Err(Error::Memory { wanted, used, limit }) if !emitted => {
                if batch.rows() <= 1 && fresh {
                    return Err(self.no_room(wanted, used, limit));
                }
            }
            other => return other,
        }
        let half = batch.rows() / 2;
        let rows_before = self.chunk_rows;
        let mut flow = Ok(Flow::More);
        for (from, len, last) in [(0, half, false), (half, batch.rows() - half, last)] {
            if len == 0 {
                continue;
            }
            self.chunk_rows = rows_before + from as u64;
            flow = chunk.in_spare(|spare| {
                let part = batch.slice(from, len, spare)?;
                self.work(part, spare, true, last, later, base, chunk)
            });
            if !matches!(flow, Ok(Flow::More)) {
                break;
            }
        }
        self.chunk_rows = rows_before;
        flow
    }

    fn no_room(&self, wanted: usize, used: usize, limit: usize) -> Error {
        Error::Failed {
            code: Code(701),
            message: format!(
                "`{}` has no room for one row: {wanted} bytes wanted beside {used} in use, limit {limit}",
                self.info.name
            ),
            help: Some("a larger `--memory`, or fewer `--workers`".into()),
            span: Some(self.info.span),
        }
    }

    fn once<'a>(
        &mut self,
        batch: Batch<'a>,
        arena: &'a Arena,
        last: bool,
        later: &mut [Node],
        base: usize,
        chunk: &Chunk<'_>,
        emitted: &mut bool,
    ) -> Result<Flow> {
        let fails = self.info.policy.on_error == OnError::Fail;
        let faults = Faults::new(arena, fails);
        let outs = std::mem::take(&mut self.outs);
        let mut edges = Edges {
            outs: &outs,
            later,
            base,
            chunk,
            last,
        };
        let mut has_rest = false;
        let flow = match &mut self.op {
            Operator::Pass => {
                *emitted = true;
                edges.push(0, arena, batch, true)
            }
            Operator::Compute(compute) => {
                let mut out = Emitter::new(arena, &faults, &mut edges);
                let flow = compute.push(batch, &mut out);
                *emitted = out.has_emitted();
                flow
            }
            Operator::RowWise(stage) => {
                let mut out = Emitter::new(arena, &faults, &mut edges);
                let flow = stage.push(batch, &mut out);
                *emitted = out.has_emitted();
                flow
            }
            Operator::Probe(stage, judge, _) => {
                let mut out = Emitter::new(arena, &faults, &mut edges);
                let judge = judge.as_mut().map(|judge| judge as &mut dyn Judge);
                let flow = stage.push(batch, judge, &mut out);
                *emitted = out.has_emitted();
                flow
            }
            Operator::Serial(serial, prepare) => {
                let ready = match prepare {
                    Some(prepare) => prepare.prepare(batch, arena),
                    None => Ok(batch),
                };
                let end = &mut self.end;
                let ran =
                    ready.and_then(|batch| run_serial(serial, batch, arena, &faults, &mut edges, chunk, emitted, end));
                ran.map(|(flow, more)| {
                    has_rest = more;
                    flow
                })
            }
            Operator::Fill(fill) => fill.push(chunk.ticket.number(), batch).map(|()| Flow::More),
            Operator::Sink(writer, turn) => write_to(writer.as_mut(), turn, batch, &faults, chunk),
            Operator::Route(arms) => route(*arms, batch, arena, &mut edges, &mut self.discarded, emitted),
            // Reject nodes are fed by `set_aside`, never by an edge.
            Operator::Rejects { .. } => Ok(Flow::More),
        };
        self.outs = outs;
        let flow = match flow {
            // It stands before whatever the step found bad, behind which it took no more rows.
            Ok(Flow::More) if has_rest => self.push_rest(later, base, chunk),
            flow => flow,
        };
        self.settle(flow, Found::Taken(batch), &faults, later, base, chunk)
    }

    /// What a step left to say, in its turn.
    fn push_rest(&mut self, later: &mut [Node], base: usize, chunk: &Chunk<'_>) -> Result<Flow> {
        let Operator::Serial(serial, _) = &self.op else {
            return Ok(Flow::More);
        };
        let shared = serial.shared.clone();
        let mut state = shared.1.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = Flow::More;
        state.rest(&mut |arena, made, faults| {
            let outs = std::mem::take(&mut self.outs);
            let mut edges = Edges {
                outs: &outs,
                later: &mut *later,
                base,
                chunk,
                last: false,
            };
            let flow = edges.push(0, arena, made.rows, false);
            self.outs = outs;
            all = self.settle(flow, Found::Made(made), faults, later, base, chunk)?;
            Ok(all)
        })?;
        Ok(all)
    }

    /// Carries out the policy on what was found bad.
    pub(crate) fn settle(
        &mut self,
        flow: Result<Flow>,
        found: Found<'_>,
        faults: &Faults<'_>,
        later: &mut [Node],
        base: usize,
        chunk: &Chunk<'_>,
    ) -> Result<Flow> {
        if faults.is_empty() || matches!(flow, Err(Error::Memory { .. })) {
            return flow;
        }
        // Not in the chunk's arena, which may be full: that rows are bad must not make the run need more memory.
        chunk.in_spare(|spare| self.judge(flow, found, faults, spare, later, base, chunk))
    }

    fn judge(
        &mut self,
        flow: Result<Flow>,
        found: Found<'_>,
        faults: &Faults<'_>,
        spare: &Arena,
        later: &mut [Node],
        base: usize,
        chunk: &Chunk<'_>,
    ) -> Result<Flow> {
        let bad = faults.by_row_in(spare)?;
        match (self.info.policy.on_error, bad.first()) {
            (OnError::Fail, Some(first)) => {
                let place = found.place(first.row as usize);
                let error = Error::of_fault(first, place, &chunk.locator, self.id as u32, self.info.span);
                match flow {
                    // What came before the bad row was enough: the row is never reached.
                    Ok(Flow::Done) => Ok(Flow::Done),
                    Ok(Flow::More) if self.looks_done(later, base, chunk) => Ok(Flow::Done),
                    Ok(Flow::More) => Err(error),
                    Err(earlier) => Err(first_of(Some(earlier), error)),
                }
            }
            _ => {
                for fault in bad {
                    self.set_aside(fault, found, later, base, chunk);
                }
                flow
            }
        }
    }

    /// Takes the rows of a source: bad ones go the way of its policy, the others on.
    pub(crate) fn admit<'a>(
        &mut self,
        batch: Batch<'a>,
        faults: &Faults<'a>,
        arena: &'a Arena,
        later: &mut [Node],
        base: usize,
        chunk: &Chunk<'_>,
    ) -> Result<Flow> {
        if faults.is_empty() {
            return self.push(batch, arena, true, later, base, chunk);
        }
        chunk.in_spare(|spare| self.sift(batch, faults, spare, later, base, chunk))
    }

    /// Bad rows out, good ones on, copied to an arena that has room for them.
    fn sift(
        &mut self,
        batch: Batch<'_>,
        faults: &Faults<'_>,
        arena: &Arena,
        later: &mut [Node],
        base: usize,
        chunk: &Chunk<'_>,
    ) -> Result<Flow> {
        let bad = faults.by_row_in(arena)?;
        let on_error = self.info.policy.on_error;
        let fatal = bad
            .iter()
            .find(|fault| on_error == OnError::Fail || (on_error == OnError::Null && fault.record));
        let reached = fatal.map_or(batch.rows(), |fault| fault.row as usize);
        for fault in bad.iter().filter(|fault| (fault.row as usize) < reached) {
            self.set_aside(fault, Found::Taken(batch), later, base, chunk);
        }
        // Under `null` the cells are null already and the row goes on.
        let rows = if on_error == OnError::Null {
            batch.head(reached, arena)?
        } else {
            let mut next = 0;
            let keep = Bits::collect(arena, reached, |row| {
                let is_bad = bad.get(next).is_some_and(|fault| fault.row as usize == row);
                next += usize::from(is_bad);
                !is_bad
            })?;
            batch.gather(keep.indices(arena)?, batch.columns().len(), arena)?
        };
        // The counts of a limit are of rows read, bad ones included.
        let (counted, before) = (self.chunk_rows + reached as u64, self.chunk_rows);
        let flow = self.push(rows, arena, true, later, base, chunk);
        self.rows_in += (reached - rows.rows()) as u64;
        self.chunk_rows = match (&flow, self.end, batch.origin()) {
            (Ok(Flow::Done), Some(end), Some(places)) => {
                let behind = places[..reached].iter().filter(|&&place| place > end).count();
                counted - behind as u64
            }
            _ => counted,
        };
        self.chunk_places.truncate(before as usize);
        self.note_places(batch.origin(), (self.chunk_rows - before) as usize);
        match (flow, fatal) {
            (Ok(Flow::More), Some(_)) if self.looks_done(later, base, chunk) => Ok(Flow::Done),
            (Ok(Flow::More), Some(fault)) => {
                let place = batch.place(fault.row as usize);
                Err(Error::of_fault(
                    fault,
                    place,
                    &chunk.locator,
                    self.id as u32,
                    self.info.span,
                ))
            }
            (flow, _) => flow,
        }
    }

    /// Notes a bad row, and hands it to the reject node if there is one: it counts once the chunk ends ([`cut_behind_ends`]).
    fn set_aside(&mut self, fault: &Fault<'_>, found: Found<'_>, later: &mut [Node], base: usize, chunk: &Chunk<'_>) {
        let row = fault.row as usize;
        let place = found.place(row);
        self.chunk_bad.push((self.chunk_rows + found.rows_with(row), place));
        let Some(target) = self.rejects else { return };
        let Some(Node {
            op: Operator::Rejects { rows, .. },
            ..
        }) = later.get_mut(target - base)
        else {
            return;
        };
        let locator = &chunk.locator;
        let (path, has_text) = (locator.path_of(place), locator.has_lines(place));
        // Of what a stage made there is no record of its input, and at its end no row at which it stands.
        let taken = found.taken();
        let raw = taken.filter(|_| has_text).map(|_| locator.text_of(place).to_vec());
        rows.push(Reject {
            place,
            node: self.id as u32,
            code: fault.code,
            message: fault.message.to_string(),
            step: self.info.name.clone(),
            script_line: self.info.script_line,
            source: (!path.is_empty()).then(|| path.to_string()),
            line: locator.line_of(place),
            row: (!has_text && !found.is_of_the_end()).then_some(place.offset + 1),
            byte: fault.byte.or(has_text.then_some(place.offset)),
            record: taken
                .filter(|_| !fault.record)
                .and_then(|batch| self.info.record_text(batch, row)),
            raw,
        });
    }

    /// After the last batch of a chunk, also when there was none and also after an error.
    pub(crate) fn end_chunk(&mut self, later: &mut [Node], base: usize, chunk: &Chunk<'_>) -> Result<()> {
        if matches!(&self.op, Operator::Rejects { rows, .. } if !rows.is_empty()) {
            self.panic_if_asked(chunk);
        }
        let mut outcome = Ok(());
        match &mut self.op {
            Operator::Serial(serial, _) => serial.end_chunk(chunk),
            Operator::Sink(writer, turn) => {
                if writer.pending() > 0 && !turn.left {
                    outcome = match turn.enter(chunk) {
                        Ok(()) => writer.write(),
                        Err(error) => Err(error),
                    };
                }
                writer.forget();
                turn.end_chunk(chunk);
            }
            Operator::Rejects { .. } => outcome = self.pass_rejects_on(later, base, chunk, true),
            _ => {}
        }
        if let Some(gate) = &self.gate {
            self.chunk_bad.sort_unstable();
            match gate.chunk(chunk, self.chunk_rows, &self.chunk_places, &self.chunk_bad) {
                Ok(None) => {}
                Ok(Some(too_many)) => outcome = Err(first_of(outcome.err(), self.too_many(too_many))),
                Err(error) => outcome = Err(first_of(outcome.err(), error)),
            }
        }
        self.forget_chunk();
        outcome
    }

    /// What was noted of a chunk counts; the next one begins with nothing.
    fn forget_chunk(&mut self) {
        self.bad_rows += self.chunk_bad.len() as u64;
        self.chunk_bad.clear();
        self.chunk_places.clear();
        self.chunk_rows = 0;
        self.end = None;
    }

    /// What a reject node has gathered, in order. `last`: nothing more of this chunk comes from here.
    fn pass_rejects_on(&mut self, later: &mut [Node], base: usize, chunk: &Chunk<'_>, last: bool) -> Result<()> {
        let Operator::Rejects { rows, pen, held } = &mut self.op else {
            return Ok(());
        };
        if rows.is_empty() {
            return Ok(());
        }
        rows.sort_by_key(|row| (row.place, row.node));
        self.rows_in += rows.len() as u64;
        let outcome = match held {
            Some(held) => held.push(rows, pen, chunk.ticket.number(), chunk.order, chunk.source),
            None => flush_rejects(rows, pen, &self.outs, later, base, chunk, last),
        };
        rows.clear();
        outcome
    }

    pub(crate) fn too_many(&self, it: TooMany) -> Error {
        Error::Row(Box::new(RowError {
            code: Code(414),
            message: format!("too many bad rows: {} of {}", it.bad, it.rows),
            span: self.info.span,
            place: it.place,
            column: None,
            help: None,
            source: it.spot.source,
            line: it.spot.line,
            byte: None,
            node: self.id as u32,
        }))
    }
}

impl Chunk<'_> {
    /// Calls `work` with an arena beside the chunk's: to repeat a refused push in, or to sort bad rows out in.
    pub(crate) fn in_spare<T>(&self, work: impl FnOnce(&Arena) -> T) -> T {
        let mut spare = self.spares.borrow_mut().pop().unwrap_or_else(|| self.run.arena());
        let outcome = work(&spare);
        spare.reset();
        self.spares.borrow_mut().push(spare);
        outcome
    }
}

/// One step: whether more is wanted, and whether it left rows.
fn run_serial<'a>(
    serial: &mut InOrder<Mutex<Box<dyn Serial>>>,
    batch: Batch<'a>,
    arena: &'a Arena,
    faults: &Faults<'a>,
    edges: &mut Edges<'_>,
    chunk: &Chunk<'_>,
    emitted: &mut bool,
    own_end: &mut Option<Place>,
) -> Result<(Flow, bool)> {
    serial.enter(chunk)?;
    let ((out, flow), has_rest) = {
        // Never contended: only the holder of the turn is here.
        let mut state = serial.shared.1.lock().unwrap_or_else(PoisonError::into_inner);
        (state.step_from(batch, arena, faults, &chunk.locator)?, state.has_rest())
    };
    *emitted = true;
    if flow == Flow::Done {
        serial.shared.0.end(chunk.ticket);
    }
    // What it left is given before the next chunk's turn.
    if edges.last && !has_rest {
        serial.leave(chunk);
    }
    let Some(out) = out else { return Ok((flow, has_rest)) };
    if flow == Flow::Done && out.rows() > 0 {
        *own_end = Some(out.place(out.rows() - 1));
    }
    let below = edges.push(0, arena, out, !has_rest)?;
    Ok((if flow == Flow::Done { flow } else { below }, has_rest))
}

fn write_to(
    writer: &mut dyn Writer,
    turn: &mut InOrder<()>,
    batch: Batch<'_>,
    faults: &Faults<'_>,
    chunk: &Chunk<'_>,
) -> Result<Flow> {
    if writer.takes_turns() {
        turn.enter(chunk)?;
    }
    writer.encode(batch, faults)?;
    if writer.pending() > PENDING {
        turn.enter(chunk)?;
        writer.write()?;
    }
    Ok(Flow::More)
}

fn route<'a>(
    arms: usize,
    batch: Batch<'a>,
    arena: &'a Arena,
    edges: &mut Edges<'_>,
    discarded: &mut u64,
    emitted: &mut bool,
) -> Result<Flow> {
    let width = batch.columns().len() - arms;
    let mut left = Bits::all(arena, batch.rows(), true)?;
    let mut nowhere = 0;
    // All arms before the first push: a refusal in between could not be repeated on less.
    let routed = arena.fill(arms + 1, None)?;
    for (port, slot) in routed.iter_mut().enumerate() {
        let taken = match batch.columns().get(width + port).map(Column::data) {
            Some(Data::Bool(bits)) => {
                let chosen = bits.and(&left, arena)?;
                match batch.column(width + port).valid() {
                    Some(valid) => chosen.and(&valid, arena)?,
                    None => chosen,
                }
            }
            // A condition that is null for every row.
            Some(_) => Bits::all(arena, batch.rows(), false)?,
            None => left,
        };
        left = left.and_not(&taken, arena)?;
        if edges.outs.get(port).is_none_or(Vec::is_empty) {
            nowhere += taken.count() as u64;
        } else {
            *slot = Some(batch.gather(taken.indices(arena)?, width, arena)?);
        }
    }
    *discarded += nowhere;
    *emitted = true;
    let mut all_done = true;
    let mut failed: Option<Error> = None;
    for (port, rows) in routed.iter().enumerate() {
        let Some(rows) = *rows else { continue };
        let last = port == arms || edges.outs.iter().skip(port + 1).all(Vec::is_empty);
        match edges.push(port, arena, rows, last) {
            Ok(Flow::Done) => {}
            Ok(Flow::More) => all_done = false,
            Err(error) => failed = Some(first_of(failed, error)),
        }
    }
    match failed {
        Some(error) => Err(error),
        None => Ok(if all_done { Flow::Done } else { Flow::More }),
    }
}

fn flush_rejects(
    rows: &[Reject],
    pen: &mut Arena,
    outs: &[Vec<usize>],
    later: &mut [Node],
    base: usize,
    chunk: &Chunk<'_>,
    last: bool,
) -> Result<()> {
    // In pieces, so that a chunk of bad rows needs no more room than a chunk of good ones.
    const PIECE: usize = 1024;
    let (mut from, mut piece) = (0, PIECE);
    while from < rows.len() {
        let to = rows.len().min(from + piece);
        let outcome = match rejects::batch(&rows[from..to], pen) {
            // Long rows: fewer of them have room.
            Err(Error::Memory { .. }) if to - from > 1 => {
                pen.reset();
                piece = (to - from) / 2;
                continue;
            }
            Err(error) => Err(error),
            Ok(batch) => {
                let mut edges = Edges {
                    outs,
                    later: &mut *later,
                    base,
                    chunk,
                    last: true,
                };
                edges.push(0, pen, batch, last && to == rows.len()).map(|_| ())
            }
        };
        pen.reset();
        outcome?;
        from = to;
    }
    Ok(())
}
