//! A plugin's stage at work: batches go in as lent arrays, what comes back is checked and goes on.
//!
//! Laws
//! - Output row i is made of input row i, whichever arrays it comes in; bad rows are taken out here, by what was rejected.
//! - After a panic, or input that was kept, the instance is only destroyed.
//!
//! Advice for whoever changes this: a row-wise stage is repeated on less after `Error::Memory`, a serial one must not be once it
//! has seen the rows. So a refusal on the way back is `Memory` for the one and a failure for the other.
#![allow(unsafe_code)]

use super::bind::Plan;
use super::host::{self, Entered, Registered};
use super::said;
use standpipe_sdk::build::format_in;
use standpipe_sdk::ffi::import::Importer;
use standpipe_sdk::ffi::lend::{Lease, Lent};
use standpipe_sdk::ffi::{self, ArrowArray, PLUGIN_FAILED, Status};
use standpipe_sdk::spec::Setup;
use standpipe_sdk::{
    Arena, Batch, Bits, Code, Column, Columns, Emitter, Error, Fault, Faults, Flow, Place, Result, RowWise, Serial,
    Verdict,
};
use std::any::Any;
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Out of memory, where repeating on less is no way out.
const NO_ROOM: Code = Code(701);

/// One object of the plugin's.
pub(super) struct Instance {
    plan: Arc<Plan>,
    inst: *mut c_void,
    owner: Registered,
    lease: Arc<Lease>,
    cancelled: Arc<AtomicBool>,
    calls: u64,
    /// Only `destroy` is legal.
    broken: bool,
}

// SAFETY: the header lets an instance move between threads from call to call (those that do not want it are refused at `bind`);
// it is used through `&mut` only.
unsafe impl Send for Instance {}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: `create` made it; nothing uses it any more.
        unsafe { (self.plan.vtable.destroy)(self.inst) }
    }
}

/// Where output goes.
pub(super) enum To<'r, 'e, 'a> {
    Next(&'r mut Emitter<'e, 'a>),
    /// A serial stage's: all of one call as one batch.
    Held(Option<Batch<'a>>),
}

/// What a call of `process` stands for, as the host's services see it.
pub(super) struct Calling<'r, 'e, 'a> {
    plan: &'r Plan,
    batch: Batch<'a>,
    lent: &'r Lent<'r, 'a>,
    arena: &'a Arena,
    faults: &'r Faults<'a>,
    to: To<'r, 'e, 'a>,
    /// Rows given so far.
    at: usize,
    flow: Flow,
    /// The arena refused an `alloc`.
    refused: Option<Error>,
    /// Why the call is to end: the plugin only passes the news on.
    error: Option<Error>,
    pub(super) panic: Option<Box<dyn Any + Send>>,
}

impl Instance {
    pub(super) fn new(plan: Arc<Plan>, setup: &Setup) -> Result<Instance> {
        let owner = Registered::new(plan.vtable.name, setup);
        let mut inst = null_mut();
        let mut error = ffi::ErrorOut::EMPTY;
        let call = call_of(&owner, 0);
        // SAFETY: `bound` came from this stage's `bind`; the other arguments are valid for the call.
        let status = unsafe { (plan.vtable.create)(plan.bound, &raw const call, 0, &raw mut inst, &raw mut error) };
        if status < 0 {
            return Err(plan.failed(&said(status, &error)));
        }
        Ok(Instance {
            plan,
            inst,
            owner,
            lease: Arc::default(),
            cancelled: setup.cancelled.clone(),
            calls: 0,
            broken: false,
        })
    }

    /// Gives `batch` to the plugin; for [`To::Held`] it answers with what came out.
    fn push<'a>(
        &mut self,
        batch: Batch<'a>,
        arena: &'a Arena,
        faults: &Faults<'a>,
        to: To<'_, '_, 'a>,
    ) -> Result<(Option<Batch<'a>>, Flow)> {
        let plan = &*self.plan;
        if self.broken {
            return Err(plan.failed("it failed before"));
        }
        let columns = arena.collect(plan.used.len(), |i| batch.column(plan.used[i]))?;
        let lent = Lent::new(columns, &plan.types, batch.rows(), arena, &self.lease).map_err(|e| plan.named(e))?;
        let mut calling = Calling {
            plan,
            batch,
            lent: &lent,
            arena,
            faults,
            to,
            at: 0,
            flow: Flow::More,
            refused: None,
            error: None,
            panic: None,
        };
        let call = call_of(&self.owner, self.calls);
        self.calls += 1;
        let (mut input, mut out, mut error) = (lent.array, ArrowArray::EMPTY, ffi::ErrorOut::EMPTY);
        // SAFETY: both stay where they are, and nobody else uses `calling`, until the guard is dropped.
        let entered = unsafe { Entered::new(&raw const call, &raw mut calling) };
        // SAFETY: `create` made `inst`, which is not broken; the other arguments are valid for the call; the function keeps to
        // the header (the promise to `spec_of`).
        let status =
            unsafe { (plan.vtable.process)(self.inst, &raw const call, &raw mut input, &raw mut out, &raw mut error) };
        drop(entered);
        // SAFETY: `process` filled `out`, or left it released.
        let outcome = unsafe { calling.end(status, &error, &mut out, &self.cancelled) };
        let Calling { to, flow, panic, .. } = calling;
        let returned = lent.take_back(input);
        self.broken = status == ffi::E_PANIC || error.flags & ffi::ERR_POISONED != 0 || returned.is_err();
        if let Some(panic) = panic {
            std::panic::resume_unwind(panic);
        }
        let ended = outcome?;
        returned.map_err(|e| plan.named(e))?;
        let held = if let To::Held(held) = to { held } else { None };
        Ok((held, if ended { Flow::Done } else { flow }))
    }
}

fn call_of(owner: &Registered, calls: u64) -> ffi::Call {
    ffi::Call {
        struct_size: size_of::<ffi::Call>() as u32,
        input_port: 0,
        host: host::host(),
        owner: owner.handle(),
        batch_seq: calls,
    }
}

impl RowWise for Instance {
    fn push<'a>(&mut self, batch: Batch<'a>, out: &mut Emitter<'_, 'a>) -> Result<Flow> {
        let (arena, faults) = (out.arena(), out.faults());
        Instance::push(self, batch, arena, faults, To::Next(out)).map(|(_, flow)| flow)
    }
}

impl Serial for Instance {
    fn step<'a>(
        &mut self,
        batch: Batch<'a>,
        arena: &'a Arena,
        faults: &Faults<'a>,
    ) -> Result<(Option<Batch<'a>>, Flow)> {
        self.push(batch, arena, faults, To::Held(None))
    }

    fn finish<'a>(&mut self, _: &mut Emitter<'_, 'a>) -> Result<()> {
        let Some(finish) = self.plan.vtable.stage.finish.filter(|_| !self.broken) else {
            return Ok(());
        };
        let call = call_of(&self.owner, self.calls);
        let (mut out, mut error) = (ArrowArray::EMPTY, ffi::ErrorOut::EMPTY);
        // SAFETY: as for `process`.
        let status = unsafe { finish(self.inst, &raw const call, &raw mut out, &raw mut error) };
        let rows = if out.release.is_some() { out.length } else { 0 };
        // SAFETY: `finish` filled it, or left it released.
        unsafe { release(&mut out) }
        match (status, rows) {
            (..0, _) => Err(self.plan.failed(&said(status, &error))),
            (_, 0) => Ok(()),
            _ => Err(self
                .plan
                .failed(&format!("it gives {rows} rows behind the last one it got"))),
        }
    }
}

/// # Safety
/// The array is released, or one that its maker has given away.
unsafe fn release(array: &mut ArrowArray) {
    if let Some(release) = array.release {
        // SAFETY: the caller's promise.
        unsafe { release(array) }
        array.release = None;
    }
}

impl<'a> Calling<'_, '_, 'a> {
    pub(super) fn alloc(&mut self, size: usize) -> *mut c_void {
        match self.arena.uninit::<u8>(size.max(1)) {
            Ok(mut memory) => memory.as_mut_ptr().cast(),
            Err(error) => {
                self.refused = Some(error);
                null_mut()
            }
        }
    }

    /// # Safety
    /// As [`Importer::columns`] has it; the array is given away.
    pub(super) unsafe fn emit(&mut self, array: &mut ArrowArray) -> Status {
        let outcome = if self.error.is_some() || self.panic.is_some() {
            Err(None)
        } else {
            // SAFETY: the caller's promise.
            unsafe { self.take(array, false) }.map_err(Some)
        };
        // SAFETY: the caller's promise.
        unsafe { release(array) }
        match outcome {
            Ok(()) if self.flow == Flow::Done => ffi::EOS,
            Ok(()) => ffi::OK,
            Err(error) => {
                self.error = self.error.take().or(error);
                ffi::E_CANCELLED
            }
        }
    }

    pub(super) fn reject(&mut self, row: i64, column: i32, code: &[u8], message: &[u8]) -> Status {
        if !self.plan.rejects {
            self.error = Some(self.plan.failed("it rejects rows and did not say so"));
            return ffi::E_CANCELLED;
        }
        let row = match usize::try_from(row) {
            Ok(row) if row >= self.at && row < self.batch.rows() => row,
            _ => {
                let what = format!("it rejects row {row}, which is not there or already given");
                self.error = Some(self.plan.failed(&what));
                return ffi::E_CANCELLED;
            }
        };
        match self.fault(
            row,
            column,
            &String::from_utf8_lossy(code),
            &String::from_utf8_lossy(message),
        ) {
            Ok(Verdict::On) => ffi::OK,
            Ok(Verdict::Stop) => ffi::EOS,
            Err(error) => {
                self.refused = Some(error);
                ffi::E_MEMORY
            }
        }
    }

    fn fault(&self, row: usize, column: i32, code: &str, message: &str) -> Result<Verdict> {
        let message = match code {
            "" => self.arena.copy_str(message)?,
            code => format_in(self.arena, format_args!("{message} ({code})"))?,
        };
        let name = usize::try_from(column).ok().and_then(|at| self.plan.names.get(at));
        self.faults.push(Fault {
            row: row as u32,
            code: PLUGIN_FAILED,
            span: None,
            column: name.map(|name| self.arena.copy_str(name)).transpose()?,
            message,
            help: None,
            byte: None,
            record: false,
        })
    }

    /// The end of the call: takes the last output, and says whether the stage wants nothing more.
    ///
    /// # Safety
    /// As [`Importer::columns`] has it, if `out` is not released.
    unsafe fn end(
        &mut self,
        status: Status,
        error: &ffi::ErrorOut,
        out: &mut ArrowArray,
        cancelled: &AtomicBool,
    ) -> Result<bool> {
        let mut outcome = match self.error.take() {
            Some(error) => Err(error),
            None if status >= 0 => Ok(()),
            None => Err(match (status, self.refused.take()) {
                (ffi::E_MEMORY, Some(refused)) => refused,
                (ffi::E_CANCELLED, _) if cancelled.load(Relaxed) => Error::Cancelled,
                _ => self.plan.failed(&said(status, error)),
            }),
        };
        if outcome.is_ok() && out.release.is_some() && self.panic.is_none() {
            // SAFETY: the caller's promise.
            outcome = unsafe { self.take(out, true) };
        }
        // SAFETY: the caller's promise.
        unsafe { release(out) }
        outcome?;
        let rows = self.batch.rows();
        let stopped = if self.faults.stops() {
            self.faults.first_row()
        } else {
            None
        };
        // Being told that nobody wants more is no wish of the stage's own.
        let ends = status == ffi::EOS && stopped.is_none() && self.flow == Flow::More;
        if ends && !self.plan.serial {
            return Err(self.plan.failed("it ends the stream, which only a serial stage can"));
        }
        let needed = if ends || self.flow == Flow::Done {
            0
        } else {
            stopped.unwrap_or(rows)
        };
        if self.at < needed && self.panic.is_none() {
            return Err(self.plan.failed(&format!("it gives {} rows for {rows}", self.at)));
        }
        Ok(ends)
    }

    /// Takes one array of output and passes its rows on.
    ///
    /// # Safety
    /// As [`Importer::columns`] has it.
    unsafe fn take(&mut self, array: &ArrowArray, last: bool) -> Result<()> {
        // SAFETY: the caller's promise.
        match unsafe { self.rows_of(array) } {
            Ok(rows) if rows.rows() == 0 => Ok(()),
            Ok(rows) => self.pass(rows, last),
            // The stage has seen the rows: they cannot be given to it again.
            Err(Error::Memory { wanted, used, limit }) if self.plan.serial => Err(Error::Failed {
                code: NO_ROOM,
                message: format!(
                    "`{}` has no room for its rows: {wanted} bytes wanted beside {used} in use, limit {limit}",
                    self.plan.vtable.name
                ),
                help: Some("a larger `--memory`, or fewer `--workers`".into()),
                span: Some(self.plan.span),
            }),
            Err(error) => Err(self.plan.named(error)),
        }
    }

    /// The next rows of the output, without those that were rejected.
    unsafe fn rows_of(&mut self, array: &ArrowArray) -> Result<Batch<'a>> {
        let importer = Importer {
            arena: self.arena,
            lent: self.lent,
            arena_release: host::host().arena_release,
        };
        // SAFETY: the caller's promise; what is marked as ours is the chunk's memory, which `'a` borrows.
        let made = unsafe { importer.columns(array, &self.plan.made)? };
        let (from, len) = (self.at, array.length as usize);
        let rows = self.batch.rows();
        if len > rows - from {
            return Err(self.plan.failed(&format!("it gives {} rows for {rows}", from + len)));
        }
        let mut columns = Columns::new(self.arena, self.plan.from.len())?;
        let mut made = made.iter();
        for passed in &self.plan.from {
            match (passed, passed.is_none().then(|| made.next()).flatten()) {
                (Some(at), _) => columns.push(self.batch.column(*at).slice(from, len)),
                (None, Some(made)) => columns.push(*made),
                (None, None) => columns.push(Column::nulls(len)),
            }
        }
        let places = self.batch.origin().map(|places| &places[from..from + len]);
        let batch = self.good(Batch::new(columns.finish(), places, len), from)?;
        self.at += len;
        Ok(batch)
    }

    /// `batch`, which starts at row `from` of the input, without bad rows.
    fn good(&self, batch: Batch<'a>, from: usize) -> Result<Batch<'a>> {
        if self.faults.is_empty() {
            return Ok(batch);
        }
        if self.faults.stops() {
            let first = self.faults.first_row().unwrap_or(usize::MAX);
            return batch.head(first.saturating_sub(from), self.arena);
        }
        let bad = self.faults.by_row()?;
        let mut next = bad
            .iter()
            .map(|fault| fault.row as usize)
            .skip_while(|&row| row < from)
            .peekable();
        let keep = Bits::collect(self.arena, batch.rows(), |row| next.next_if_eq(&(from + row)).is_none())?;
        batch.gather(keep.indices(self.arena)?, batch.columns().len(), self.arena)
    }

    fn pass(&mut self, rows: Batch<'a>, last: bool) -> Result<()> {
        match &mut self.to {
            To::Next(out) => {
                if self.flow == Flow::More {
                    self.flow = if last { out.last(rows)? } else { out.emit(rows)? };
                }
            }
            To::Held(held) => {
                *held = Some(match held.take() {
                    None => rows,
                    Some(before) => joined(before, rows, self.arena)?,
                });
            }
        }
        Ok(())
    }
}

/// The rows of both, end to end.
fn joined<'a>(a: Batch<'a>, b: Batch<'a>, arena: &'a Arena) -> Result<Batch<'a>> {
    let rows = a.rows() + b.rows();
    let pick = |i: usize| {
        if i < a.rows() {
            (0, i as u32)
        } else {
            (1, (i - a.rows()) as u32)
        }
    };
    let picks = arena.collect(rows, pick)?;
    let mut columns = Columns::new(arena, a.columns().len())?;
    for (&a, &b) in a.columns().iter().zip(b.columns()) {
        columns.push(Column::interleave(&[a, b], picks, arena)?);
    }
    let places: Option<&[Place]> = match (a.origin(), b.origin()) {
        (Some(x), Some(y)) => Some(arena.collect(rows, |i| if i < x.len() { x[i] } else { y[i - x.len()] })?),
        _ => None,
    };
    Ok(Batch::new(columns.finish(), places, rows))
}
