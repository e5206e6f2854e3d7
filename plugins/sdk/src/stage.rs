//! What runs: the traits of stages, sources and sinks.
//!
//! Laws
//! - A stage sees the chunks' batches in its own order of calls only: row-wise stages have a copy per lane and may not carry state
//!   from one batch to the next that changes what comes out; serial ones have one state and see chunks in input order.
//! - A stage emits rows in the order of its input rows, with the places of the rows they came from.
//! - A refusal (`Error::Memory`) before anything was emitted leaves a row-wise stage as it was: the same rows may come again
//!   in smaller batches.

use crate::arena::Arena;
use crate::batch::Batch;
use crate::column::Column;
use crate::error::{Code, Error, Result, Span};
use crate::fault::{Faults, Verdict};
use crate::place::{Locator, Place};
use std::fmt;
use std::sync::Arc;

/// Whether more rows are wanted. `Done` is answered once every consumer is done; it stops the claims.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    More,
    Done,
}

/// What the runtime gives an [`Emitter`]: the edges of the node that emits.
pub trait Downstream {
    /// Pushes `batch` to everything connected to output `port`. `last`: nothing more of this chunk comes from here.
    fn push<'b>(&mut self, port: usize, arena: &'b Arena, batch: Batch<'b>, last: bool) -> Result<Flow>;

    /// Pushes rows that were held back beyond their chunk; `locator` has their traces.
    fn push_held<'b>(
        &mut self,
        port: usize,
        arena: &'b Arena,
        batch: Batch<'b>,
        _locator: &Locator<'b>,
    ) -> Result<Flow> {
        self.push(port, arena, batch, false)
    }
}

/// Where a stage's output goes.
pub struct Emitter<'r, 'a> {
    arena: &'a Arena,
    faults: &'r Faults<'a>,
    down: &'r mut dyn Downstream,
    emitted: bool,
}

impl<'r, 'a> Emitter<'r, 'a> {
    /// For runtimes and testing kits.
    pub fn new(arena: &'a Arena, faults: &'r Faults<'a>, down: &'r mut dyn Downstream) -> Self {
        Emitter {
            arena,
            faults,
            down,
            emitted: false,
        }
    }

    /// The chunk's memory.
    pub fn arena(&self) -> &'a Arena {
        self.arena
    }

    /// Passes a batch on.
    pub fn emit(&mut self, batch: Batch<'a>) -> Result<Flow> {
        self.emit_to(0, batch)
    }

    /// Passes a batch on through output `port`.
    pub fn emit_to(&mut self, port: usize, batch: Batch<'a>) -> Result<Flow> {
        self.emitted = true;
        self.down.push(port, self.arena, batch, false)
    }

    /// Passes on the last batch of this chunk: a serial stage behind leaves its turn before it emits.
    pub fn last(&mut self, batch: Batch<'a>) -> Result<Flow> {
        self.emitted = true;
        self.down.push(0, self.arena, batch, true)
    }

    /// Passes on a batch from a shorter-lived arena: what a stage that multiplies rows resets between two emits.
    pub fn emit_in<'b>(&mut self, scratch: &'b Arena, batch: Batch<'b>) -> Result<Flow> {
        self.emitted = true;
        self.down.push(0, scratch, batch, false)
    }

    /// Passes on rows that were held back beyond their chunk; their places ascend, and `locator` has their traces.
    pub fn emit_held<'b>(&mut self, scratch: &'b Arena, batch: Batch<'b>, locator: &Locator<'b>) -> Result<Flow> {
        self.emitted = true;
        self.down.push_held(0, scratch, batch, locator)
    }

    /// Sets row `row` of the input aside; the script's policy decides what becomes of it.
    ///
    /// After [`Verdict::Stop`] the stage may emit what it made of earlier rows, then returns.
    pub fn reject(
        &mut self,
        row: usize,
        code: Code,
        span: Option<Span>,
        message: fmt::Arguments<'_>,
    ) -> Result<Verdict> {
        self.faults.report(row, code, span, message)
    }

    /// The rows set aside so far.
    pub fn faults(&self) -> &'r Faults<'a> {
        self.faults
    }

    /// Whether anything was passed on: if not, a refused push can be repeated on less.
    pub fn has_emitted(&self) -> bool {
        self.emitted
    }
}

/// A stage without memory of earlier rows; one copy per lane.
pub trait RowWise: Send {
    /// Takes one batch and emits what it makes of it.
    fn push<'a>(&mut self, batch: Batch<'a>, out: &mut Emitter<'_, 'a>) -> Result<Flow>;
}

/// What a lane does to each batch before a serial stage's turn: the part of its work that needs no state.
pub trait Prepare: Send {
    /// The rows that still matter, behind whose columns stand those that [`Serial::step`] wants to find there.
    fn prepare<'a>(&mut self, batch: Batch<'a>, arena: &'a Arena) -> Result<Batch<'a>>;
}

/// Rows that a stage made of what it held, of which some may be bad.
#[derive(Clone, Copy)]
pub struct Made<'a> {
    /// The good ones.
    pub rows: Batch<'a>,
    /// Where each of all of them stands: what is bad is told by the number among these.
    pub places: &'a [Place],
    /// The row of the step's batch at which each of them stands; at the end of the input there is none.
    pub at: Option<&'a [u32]>,
}

/// Takes such rows, in an arena in which those behind the stage may work.
pub type Rest<'r> = dyn for<'a> FnMut(&'a Arena, Made<'a>, &Faults<'a>) -> Result<Flow> + 'r;

/// A stage with ONE state that sees the chunks in input order.
pub trait Serial: Send {
    /// What is to be done to each batch before its turn, in parallel; asked for once per lane. Nothing, usually.
    fn prepare(&self) -> Option<Box<dyn Prepare>> {
        None
    }

    /// Takes one batch; gives what goes on, and whether more is wanted. Bad rows go into `faults` and not into the output;
    /// behind [`Verdict::Stop`] nothing is taken.
    fn step<'a>(
        &mut self,
        batch: Batch<'a>,
        arena: &'a Arena,
        faults: &Faults<'a>,
    ) -> Result<(Option<Batch<'a>>, Flow)>;

    /// As [`Serial::step`], which is all there is to most: a stage that holds rows back has `locator` tell it where they came from.
    fn step_from<'a>(
        &mut self,
        batch: Batch<'a>,
        arena: &'a Arena,
        faults: &Faults<'a>,
        _locator: &Locator<'_>,
    ) -> Result<(Option<Batch<'a>>, Flow)> {
        self.step(batch, arena, faults)
    }

    /// Whether the last step, or [`Serial::finish`], left rows for [`Serial::rest`].
    fn has_rest(&self) -> bool {
        false
    }

    /// Behind a step that left rows, in the same turn and before what it found bad counts, or behind [`Serial::finish`]: gives them, in as many
    /// batches as they need. For stages that may have more to say at one row than there is room for beside a batch. Of a plugin's rows that
    /// are bad and stand at one row, the host hears of the first.
    fn rest(&mut self, _give: &mut Rest<'_>) -> Result<()> {
        Ok(())
    }

    /// After the last chunk, once, on one worker: what is left to say. Whoever emits here says so in its spec
    /// ([`holds_back`](crate::spec::StageSpec::holds_back)).
    fn finish<'a>(&mut self, _out: &mut Emitter<'_, 'a>) -> Result<()> {
        Ok(())
    }
}

/// A stage that must see everything before it gives the first row. It ends a region.
pub trait Breaker: Send + Sync {
    /// One per lane.
    fn filler(self: Arc<Self>) -> Result<Box<dyn Fill>>;
    /// Once every filler is done: the source of the next region.
    fn drain(self: Arc<Self>) -> Result<Arc<dyn Source>>;
}

/// What one stream is gathered into before another meets it, or before it is read again. It is filled in one region and used in
/// others, by as many of them as need it.
pub trait Build: Send + Sync {
    /// One per lane of the stream that is gathered.
    fn filler(self: Arc<Self>) -> Result<Box<dyn Fill>>;
    /// Once, when every filler is done and before anything below is asked for.
    fn seal(&self) -> Result<()>;
    /// One per lane of the stream that meets it.
    fn prober(self: Arc<Self>) -> Result<Box<dyn Probe>>;
    /// Rows of its own: all of them (a replay), or what is left once every prober has seen its last row. It may be asked for
    /// before that; the runtime draws its first ticket only when no lane is at an earlier claim.
    fn drain(self: Arc<Self>) -> Result<Arc<dyn Source>>;

    /// Whether it cannot answer rows as they come. Then those that would meet it go to [`Build::holder`]s first, and come to the probers out
    /// of [`Build::again`]. Asked once it is sealed.
    fn waits(&self) -> bool {
        false
    }

    /// One per lane of the stream that meets a build that waits.
    fn holder(self: Arc<Self>) -> Result<Box<dyn Hold>> {
        Err(Error::Panic("no rows wait for this build".into()))
    }

    /// The rows that were held, in the order in which they came. The runtime draws its first ticket only when every holder has seen its
    /// last row. Each part is of rows that came in one chunk ([`Waiting::chunk`]), whose number its locator has; places ascend in it.
    fn again(self: Arc<Self>) -> Result<Arc<dyn Source>> {
        Err(Error::Panic("no rows wait for this build".into()))
    }
}

/// One lane's way into a [`Build`] that waits.
pub trait Hold: Send {
    /// Takes a batch; chunks come ascending within a lane, batches of one chunk in order.
    fn push(&mut self, chunk: &Waiting<'_>, batch: Batch<'_>) -> Result<()>;
}

/// The chunk of rows that are to wait.
#[derive(Clone, Copy, Debug)]
pub struct Waiting<'a> {
    /// Orders the rows: ascends with the chunks of the region.
    pub number: u64,
    /// The chunk that the locator of the rows will name: the one they came in, also if they waited before.
    pub chunk: u64,
    pub locator: Locator<'a>,
    /// The texts of records are wanted.
    pub texts: bool,
}

/// One lane's way through a stage that meets a [`Build`]: row-wise, with the laws of [`RowWise`].
pub trait Probe: Send {
    /// Takes one batch and emits what it makes of it. `judge` is there iff the stage was given a condition on pairs.
    fn push<'a>(&mut self, batch: Batch<'a>, judge: Option<&mut dyn Judge>, out: &mut Emitter<'_, 'a>) -> Result<Flow>;
}

/// A condition on pairs of rows, which the host evaluates.
pub trait Judge {
    /// Whether each pair matches, as bools with nulls. The columns are the first stream's own, then the second one's: as one
    /// record if the call has `as`, else those that are not also the first one's by `on name`. Pairs that fail go into `faults`
    /// and are null.
    fn judge<'b>(&mut self, pairs: Batch<'b>, arena: &'b Arena, faults: &Faults<'b>) -> Result<Column<'b>>;
    /// Whether a pair can fail.
    fn may_fail(&self) -> bool;
}

/// One lane's way into a breaker or a build.
pub trait Fill: Send {
    /// Takes a batch of chunk `chunk`; chunks come ascending within a lane, batches of one chunk in order.
    fn push(&mut self, chunk: u64, batch: Batch<'_>) -> Result<()>;
    /// Nothing more from this lane.
    fn done(&mut self) -> Result<()>;
}

/// One part of a claim, decoded.
pub struct Part<'a> {
    pub batch: Batch<'a>,
    /// Rows of `batch` that could not be read; their cells are null.
    pub faults: Faults<'a>,
    /// No further part of this claim follows.
    pub last: bool,
    pub locator: Locator<'a>,
}

/// Where rows come from; shared by the lanes of a region.
///
/// The runtime draws a ticket and numbers the chunk under one lock, then reads outside it: tickets are quick, claims are not.
pub trait Source: Send + Sync {
    /// The next piece of input to claim; `None` at the end. Where the end is only seen by reading, the last claims turn out empty.
    fn ticket(&self) -> Option<u64>;
    /// One per lane.
    fn reader(self: Arc<Self>) -> Result<Box<dyn Reader>>;
    /// Bytes in all, where they are known before the run.
    fn total_bytes(&self) -> Option<u64> {
        None
    }
    /// Bytes claimed so far, for the progress display.
    fn claimed_bytes(&self) -> u64 {
        0
    }
    /// After the run: what people should know (fields that were ignored), as sentences.
    fn notes(&self) -> Vec<String> {
        vec![]
    }
    /// Wakes and refuses every waiting claim: the run is over.
    fn cancel(&self) {}
}

/// One lane's way into a source: claim, then decode part after part.
pub trait Reader: Send {
    /// Reads the piece of input behind `ticket`; `false` = there is nothing in it. Called once for every ticket.
    fn claim(&mut self, ticket: u64) -> Result<bool>;
    /// The next part of the claim, at most `max_rows` rows. `stop_at_first`: the policy ends the run at the first bad row.
    fn decode<'a>(&'a mut self, arena: &'a Arena, max_rows: usize, stop_at_first: bool) -> Result<Part<'a>>;
    /// The claim's rows have gone their way: lets go of what other lanes may wait for. This lane may read from elsewhere next.
    fn let_go(&mut self) {}
}

/// Where rows end; shared by the lanes.
pub trait Sink: Send + Sync {
    /// One per lane.
    fn writer(self: Arc<Self>) -> Result<Box<dyn Writer>>;
    /// Once, after the last chunk, on success: everything is on its way to disk, still under a temporary name.
    fn finish(&self) -> Result<()>;
    /// Once, after every sink has finished: the outputs get their names.
    fn publish(&self) -> Result<Vec<Published>>;
    /// After the run: what people should know (values that were lost in the format), as sentences.
    fn notes(&self) -> Vec<String> {
        vec![]
    }
    /// The run failed: leave nothing behind.
    fn discard(&self);
}

/// An output that now has its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    pub path: String,
    pub rows: u64,
    pub bytes: u64,
}

/// One lane's way into a sink: encoding is free, writing happens in the chunk's turn.
pub trait Writer: Send {
    /// Whether `encode` waits for the chunk's turn as well, and so may write at once.
    fn takes_turns(&self) -> bool {
        false
    }
    /// Turns a batch into bytes, kept until `write`.
    fn encode(&mut self, batch: Batch<'_>, faults: &Faults<'_>) -> Result<()>;
    /// Bytes encoded and not yet written.
    fn pending(&self) -> usize;
    /// Writes what is encoded. Called in turn, chunk by chunk.
    fn write(&mut self) -> Result<()>;
    /// Forgets what is encoded: an earlier chunk ended the run.
    fn forget(&mut self);
}

impl Error {
    /// The row error of one fault of a batch.
    pub fn of_fault(
        fault: &crate::fault::Fault<'_>,
        place: Place,
        locator: &Locator<'_>,
        node: u32,
        stage: Span,
    ) -> Error {
        let path = locator.path_of(place);
        Error::Row(Box::new(crate::error::RowError {
            code: fault.code,
            message: fault.message.to_string(),
            span: fault.span.unwrap_or(stage),
            place,
            column: fault.column.map(str::to_string),
            help: fault.help.map(str::to_string),
            source: (!path.is_empty()).then(|| path.to_string()),
            line: locator.line_of(place),
            byte: fault.byte.or(locator.has_lines(place).then_some(place.offset)),
            node,
        }))
    }
}
