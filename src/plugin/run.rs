//! A plugin's stage at work: batches go in as lent arrays, what comes back is checked and goes on.
//!
//! Laws
//! - Of each row of output is known of which input row it is made, whichever arrays it comes in; bad rows are taken out here, by
//!   what was rejected. A stage that does not say it is serial, and its rows count as made of the last row it got.
//! - After a panic, or input that was kept, the instance is only destroyed.
//!
//! Advice for whoever changes this: a row-wise stage is repeated on less after `Error::Memory`, a serial one must not be once it
//! has seen the rows. So a refusal on the way back is `Memory` for the one and a failure for the other.
#![allow(unsafe_code)]

use super::bind::{Plan, RowsOf};
use super::host::{self, Entered, Registered, Service};
use super::{NO_ROOM, code_of, conform, said};
use crate::stages::unnest::number;
use standpipe_sdk::build::format_in;
use standpipe_sdk::ffi::import::Importer;
use standpipe_sdk::ffi::lend::{Lease, Lent};
use standpipe_sdk::ffi::{self, ArrowArray, PLUGIN_FAILED, Status};
use standpipe_sdk::spec::Setup;
use standpipe_sdk::{
    Arena, Batch, Bits, Column, Columns, Data, Emitter, Error, Fault, Faults, Flow, Place, Result, RowWise, Serial,
    Verdict,
};
use std::any::Any;
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// One object of the plugin's.
pub(super) struct Object {
    pub(super) inst: *mut c_void,
    pub(super) owner: Registered,
    pub(super) lease: Arc<Lease>,
    pub(super) calls: u64,
    /// Only `destroy` is legal.
    pub(super) broken: bool,
    destroy: unsafe extern "C" fn(*mut c_void),
}

// SAFETY: the header lets an instance move between threads from call to call (those that do not want it are refused at `bind`);
// it is used through `&mut` only.
unsafe impl Send for Object {}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: `create` made it; nothing uses it any more.
        unsafe { (self.destroy)(self.inst) }
    }
}

impl Object {
    /// Calls `create`.
    pub(super) fn new(given: &super::bind::Given, owner: Registered, split: u32) -> Result<Object> {
        let mut inst = null_mut();
        let mut error = ffi::ErrorOut::EMPTY;
        let call = call_of(&owner, 0);
        let vtable = given.vtable;
        // SAFETY: `bound` came from this stage's `bind`; the other arguments are valid for the call.
        let status = unsafe { (vtable.create)(given.bound, &raw const call, split, &raw mut inst, &raw mut error) };
        if status < 0 {
            return Err(Error::failed(code_of(status), said(status, &error)));
        }
        Ok(Object {
            inst,
            owner,
            lease: Arc::default(),
            calls: 0,
            broken: false,
            destroy: vtable.destroy,
        })
    }

    /// The next call.
    pub(super) fn call(&mut self) -> ffi::Call {
        let call = call_of(&self.owner, self.calls);
        self.calls += 1;
        call
    }

    /// Looks at how a call ended: whether only `destroy` is legal now.
    pub(super) fn ended(&mut self, status: Status, error: &ffi::ErrorOut, kept: bool) {
        self.broken = status == ffi::E_PANIC || error.flags & ffi::ERR_POISONED != 0 || kept;
    }
}

/// A stage at work.
pub(super) struct Instance {
    plan: Arc<Plan>,
    object: Object,
    cancelled: Arc<AtomicBool>,
    /// The place of the last row that came in.
    place: Place,
}

/// Where output goes.
pub(super) enum To<'r, 'e, 'a> {
    Next(&'r mut Emitter<'e, 'a>),
    /// A serial stage's: all of one call as one batch.
    Held(Option<Batch<'a>>),
}

/// What a call of `process` stands for, as the host's services see it.
struct Calling<'r, 'e, 'a> {
    plan: &'r Plan,
    batch: Batch<'a>,
    lent: Option<&'r Lent<'r, 'a>>,
    arena: &'a Arena,
    faults: &'r Faults<'a>,
    to: To<'r, 'e, 'a>,
    /// Rows of the input that are behind the output so far; of an aligned stage, rows given.
    at: usize,
    given: usize,
    /// Where rows come from whose origin is not told.
    place: Place,
    /// The last row of a list, to number those that are made of one row.
    before: Option<(Place, u32)>,
    last_row: Option<u32>,
    flow: Flow,
    /// The arena refused an `alloc`.
    refused: Option<Error>,
    /// Why the call is to end: the plugin only passes the news on.
    error: Option<Error>,
    panic: Option<Box<dyn Any + Send>>,
    /// Time that stages behind took.
    away: Duration,
}

/// What `process` and `finish` have in common.
struct Outcome<'a> {
    held: Option<Batch<'a>>,
    flow: Flow,
}

impl Instance {
    pub(super) fn new(plan: Arc<Plan>, setup: &Setup) -> Result<Instance> {
        let owner = Registered::new(plan.given.vtable.name, setup, plan.meter.clone());
        let object = Object::new(&plan.given, owner, 0).map_err(|error| plan.named(error))?;
        Ok(Instance {
            plan,
            object,
            cancelled: setup.cancelled.clone(),
            place: Place::default(),
        })
    }

    /// Gives `batch` to the plugin; for [`To::Held`] it answers with what came out.
    fn push<'a>(
        &mut self,
        batch: Batch<'a>,
        arena: &'a Arena,
        faults: &Faults<'a>,
        to: To<'_, '_, 'a>,
    ) -> Result<Outcome<'a>> {
        let plan = &*self.plan;
        conform::seen(plan.given.vtable.name, &batch);
        let Some(process) = plan.given.vtable.process else {
            return Err(plan.failed("it has no `process`"));
        };
        let columns = arena.collect(plan.used.len(), |i| batch.column(plan.used[i]))?;
        let lent = Lent::new(columns, &plan.types, batch.rows(), arena, &self.object.lease);
        let lent = lent.map_err(|e| plan.named(e))?;
        if let Some(&last) = batch.origin().and_then(<[Place]>::last) {
            self.place = last;
        }
        let mut input = lent.array;
        let calling = Calling::new(plan, batch, Some(&lent), arena, faults, to, self.place);
        let run = |inst: *mut c_void, call: *const ffi::Call, out: *mut ArrowArray, error: *mut ffi::ErrorOut| {
            // SAFETY: `create` made `inst`, which is not broken; the other arguments are valid for the call; the function keeps to
            // the header (the promise to `contents_of`).
            unsafe { process(inst, call, &raw mut input, out, error) }
        };
        let outcome = Instance::call(&mut self.object, calling, &self.cancelled, run);
        let returned = lent.take_back(input);
        self.object.broken |= returned.is_err();
        let outcome = outcome?;
        returned.map_err(|e| plan.named(e))?;
        Ok(outcome)
    }

    /// What the stage knows, as bytes of its own kind; [`Instance::restore`] takes them.
    ///
    /// # Errors
    /// If it has no snapshots, or fails.
    pub(super) fn snapshot(&mut self, arena: &Arena) -> Result<Vec<u8>> {
        let Some(snapshot) = self.plan.given.vtable.stage.snapshot else {
            return Err(self.plan.failed("it says that it has snapshots, and lacks `snapshot`"));
        };
        let mut bytes: Vec<u8> = vec![];
        let into: *mut Vec<u8> = &raw mut bytes;
        self.without_rows(arena, |inst, call, error| {
            // SAFETY: `create` made `inst`, which is not broken; the other arguments are valid for the call, and `write` gets `into`.
            unsafe { snapshot(inst, call, write, into.cast(), error) }
        })?;
        Ok(bytes)
    }

    /// Makes a new instance one that knows what another one knew.
    ///
    /// # Errors
    /// If it does not take them.
    pub(super) fn restore(&mut self, bytes: &[u8], arena: &Arena) -> Result<()> {
        let stage = self.plan.given.vtable.stage;
        let Some(restore) = stage.restore else {
            return Err(self.plan.failed("it says that it has snapshots, and lacks `restore`"));
        };
        self.without_rows(arena, |inst, call, error| {
            // SAFETY: as above; the bytes are there for the call.
            unsafe {
                restore(
                    inst,
                    call,
                    stage.state_version,
                    bytes.as_ptr().cast(),
                    bytes.len(),
                    error,
                )
            }
        })
    }

    /// A call that takes no rows and gives none.
    pub(super) fn without_rows(
        &mut self,
        arena: &Arena,
        run: impl FnOnce(*mut c_void, *const ffi::Call, *mut ffi::ErrorOut) -> Status,
    ) -> Result<()> {
        let plan = &*self.plan;
        let none = Columns::new(arena, 0)?.finish();
        let faults = Faults::new(arena, false);
        let nothing = Batch::new(none, None, 0);
        let calling = Calling::new(plan, nothing, None, arena, &faults, To::Held(None), self.place);
        let outcome = Instance::call(&mut self.object, calling, &self.cancelled, |inst, call, _, error| {
            run(inst, call, error)
        })?;
        match outcome.held {
            Some(_) => Err(plan.failed("it gives rows where none are asked for")),
            None => Ok(()),
        }
    }

    /// Calls into the plugin and takes what it gives.
    fn call<'a>(
        object: &mut Object,
        mut calling: Calling<'_, '_, 'a>,
        cancelled: &AtomicBool,
        run: impl FnOnce(*mut c_void, *const ffi::Call, *mut ArrowArray, *mut ffi::ErrorOut) -> Status,
    ) -> Result<Outcome<'a>> {
        if object.broken {
            return Err(calling.plan.failed("it failed before"));
        }
        let call = object.call();
        let (mut out, mut error) = (ArrowArray::EMPTY, ffi::ErrorOut::EMPTY);
        let start = Instant::now();
        // SAFETY: both stay where they are, and nobody else uses `calling`, until the guard is dropped.
        let entered = unsafe { Entered::new(&raw const call, &raw mut calling) };
        let status = run(object.inst, &raw const call, &raw mut out, &raw mut error);
        drop(entered);
        let spent = start.elapsed().saturating_sub(calling.away);
        // SAFETY: the call filled `out`, or left it released.
        let outcome = unsafe { calling.end(status, &error, &mut out, cancelled) };
        let (plan, rows) = (calling.plan, calling.batch.rows());
        plan.meter.called(rows, calling.given, spent);
        let Calling { to, flow, panic, .. } = calling;
        object.ended(status, &error, false);
        if let Some(panic) = panic {
            object.broken = true;
            std::panic::resume_unwind(panic);
        }
        let ended = outcome?;
        let held = if let To::Held(held) = to { held } else { None };
        let flow = if ended { Flow::Done } else { flow };
        Ok(Outcome { held, flow })
    }
}

/// Where a snapshot goes.
pub(super) unsafe extern "C" fn write(to: *mut c_void, bytes: *const c_void, len: usize) -> Status {
    // SAFETY: `snapshot` was given the bytes that are collected, for the call; nobody else has them meanwhile.
    let Some(to) = (unsafe { to.cast::<Vec<u8>>().as_mut() }) else {
        return ffi::E_INTERNAL;
    };
    if len == 0 {
        return ffi::OK;
    }
    if bytes.is_null() || len > isize::MAX as usize || to.try_reserve(len).is_err() {
        return ffi::E_MEMORY;
    }
    // SAFETY: the plugin's promise: so many bytes are there, for the call.
    to.extend_from_slice(unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), len) });
    ffi::OK
}

pub(super) fn call_of(owner: &Registered, calls: u64) -> ffi::Call {
    ffi::Call {
        struct_size: size_of::<ffi::Call>() as u32,
        input_port: 0,
        host: host::host(),
        owner: owner.handle(),
        batch_seq: calls,
        max_rows: 0,
        folder: owner.folder(),
        run_flags: owner.run_flags(),
        reserved: 0,
    }
}

impl RowWise for Instance {
    fn push<'a>(&mut self, batch: Batch<'a>, out: &mut Emitter<'_, 'a>) -> Result<Flow> {
        let (arena, faults) = (out.arena(), out.faults());
        Instance::push(self, batch, arena, faults, To::Next(out)).map(|outcome| outcome.flow)
    }
}

impl Serial for Instance {
    fn step<'a>(
        &mut self,
        batch: Batch<'a>,
        arena: &'a Arena,
        faults: &Faults<'a>,
    ) -> Result<(Option<Batch<'a>>, Flow)> {
        let outcome = self.push(batch, arena, faults, To::Held(None))?;
        Ok((outcome.held, outcome.flow))
    }

    fn finish<'a>(&mut self, emitter: &mut Emitter<'_, 'a>) -> Result<()> {
        let plan = &*self.plan;
        let Some(finish) = plan.given.vtable.stage.finish.filter(|_| !self.object.broken) else {
            return Ok(());
        };
        let (arena, faults) = (emitter.arena(), emitter.faults());
        let none = Columns::new(arena, 0)?.finish();
        let nothing = Batch::new(none, None, 0);
        let calling = Calling::new(plan, nothing, None, arena, faults, To::Next(emitter), self.place);
        let run = |inst: *mut c_void, call: *const ffi::Call, out: *mut ArrowArray, error: *mut ffi::ErrorOut| {
            // SAFETY: as for `process`.
            unsafe { finish(inst, call, out, error) }
        };
        Instance::call(&mut self.object, calling, &self.cancelled, run).map(drop)
    }
}

/// Memory of the chunk for a plugin; NULL, and why, if there is none.
pub(super) fn lend(arena: &Arena, size: usize, refused: &mut Option<Error>) -> *mut c_void {
    match arena.uninit::<u8>(size.max(1)) {
        Ok(mut memory) => memory.as_mut_ptr().cast(),
        Err(error) => {
            *refused = Some(error);
            null_mut()
        }
    }
}

/// # Safety
/// The array is released, or one that its maker has given away.
pub(super) unsafe fn release(array: &mut ArrowArray) {
    if let Some(release) = array.release {
        // SAFETY: the caller's promise.
        unsafe { release(array) }
        array.release = None;
    }
}

impl Service for Calling<'_, '_, '_> {
    fn alloc(&mut self, size: usize) -> *mut c_void {
        lend(self.arena, size, &mut self.refused)
    }

    unsafe fn emit(&mut self, array: &mut ArrowArray) -> Status {
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

    fn reject(&mut self, row: i64, column: i32, code: &[u8], message: &[u8]) -> Status {
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

    fn panicked(&mut self, panic: Box<dyn Any + Send>) {
        self.panic = Some(panic);
    }
}

impl<'r, 'e, 'a> Calling<'r, 'e, 'a> {
    fn new(
        plan: &'r Plan,
        batch: Batch<'a>,
        lent: Option<&'r Lent<'r, 'a>>,
        arena: &'a Arena,
        faults: &'r Faults<'a>,
        to: To<'r, 'e, 'a>,
        place: Place,
    ) -> Self {
        Calling {
            plan,
            batch,
            lent,
            arena,
            faults,
            to,
            at: 0,
            given: 0,
            place,
            before: None,
            last_row: None,
            flow: Flow::More,
            refused: None,
            error: None,
            panic: None,
            away: Duration::ZERO,
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
                _ => self.plan.failed_as(code_of(status), &said(status, error)),
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
        if self.plan.rows_of == RowsOf::Aligned && self.at < needed && self.panic.is_none() {
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
                    self.plan.given.vtable.name
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
            arena_release: Some(host::host().arena_release),
            all_lasting: false,
        };
        // SAFETY: the caller's promise; what is marked as ours is the chunk's memory, which `'a` borrows.
        let made = unsafe { importer.columns(array, &self.plan.made)? };
        let len = array.length as usize;
        let batch = match self.plan.rows_of {
            RowsOf::Aligned => self.aligned(made, len)?,
            RowsOf::Listed => self.listed(made, len)?,
            RowsOf::Unknown => {
                let places = match self.batch.origin().is_some() || self.batch.rows() == 0 {
                    true => Some(&*self.arena.fill(len, self.place)?),
                    false => None,
                };
                Batch::new(made, places, len)
            }
        };
        self.given += batch.rows();
        Ok(batch)
    }

    /// `len` rows more, one for each of the next rows of the input.
    fn aligned(&mut self, made: &[Column<'a>], len: usize) -> Result<Batch<'a>> {
        let (from, rows) = (self.at, self.batch.rows());
        if len > rows - from {
            return Err(self.plan.failed(&format!("it gives {} rows for {rows}", from + len)));
        }
        let input = self.batch.slice(from, len, self.arena)?;
        let batch = self.beside(made, input)?;
        self.at += len;
        let bad = self.bad_rows()?;
        if bad.is_empty() {
            return Ok(batch);
        }
        if self.faults.stops() {
            return batch.head(bad[0].saturating_sub(from as u32) as usize, self.arena);
        }
        let mut next = bad.iter().skip_while(|&&row| (row as usize) < from).peekable();
        let keep = Bits::collect(self.arena, len, |row| {
            next.next_if(|&&bad| bad as usize == from + row).is_none()
        })?;
        batch.gather(keep.indices(self.arena)?, batch.columns().len(), self.arena)
    }

    /// Rows whose rows of the input are listed in the last column.
    fn listed(&mut self, made: &'a [Column<'a>], len: usize) -> Result<Batch<'a>> {
        let Some((Data::Date(numbers), made)) = made.split_last().map(|(last, made)| (last.data(), made)) else {
            return Err(self.plan.failed("the rows of its output are not listed"));
        };
        let (first, rows) = (self.at.saturating_sub(1), self.batch.rows());
        let in_order = numbers.is_sorted() && numbers.first().is_none_or(|&row| row >= first as i32);
        if !in_order || numbers.last().is_some_and(|&row| row as usize >= rows) {
            return Err(self.plan.failed("the rows it lists do not ascend, or are not there"));
        }
        let Some(&last) = numbers.last() else {
            return self.batch.head(0, self.arena).and_then(|none| self.beside(made, none));
        };
        self.at = last as usize + 1;
        let row_of: &[u32] = self.arena.map(numbers, |row| row as u32)?;
        let bad = self.bad_rows()?;
        if bad.is_empty() {
            let input = self.picked(row_of)?;
            return self.beside(made, input);
        }
        let end = if self.faults.stops() { bad[0] } else { u32::MAX };
        let keep = Bits::collect(self.arena, len, |at| {
            row_of[at] < end && bad.binary_search(&row_of[at]).is_err()
        })?;
        let kept = keep.indices(self.arena)?;
        let mut columns = Columns::new(self.arena, made.len())?;
        for column in made {
            columns.push(column.gather(kept, self.arena)?);
        }
        let row_of: &[u32] = self.arena.map(kept, |at| row_of[at as usize])?;
        let input = self.picked(row_of)?;
        self.beside(columns.finish(), input)
    }

    /// These rows of the input; a run of them is not copied.
    fn picked(&mut self, row_of: &[u32]) -> Result<Batch<'a>> {
        let places: Option<&[Place]> = match self.batch.origin() {
            Some(places) => Some(self.arena.map(row_of, |row| {
                let first = self.last_row.replace(row) != Some(row);
                number(&mut self.before, places[row as usize], first)
            })?),
            None => None,
        };
        let first = row_of.first().copied().unwrap_or(0);
        if row_of.iter().zip(first..).all(|(&row, next)| row == next) {
            let rows = self.batch.slice(first as usize, row_of.len(), self.arena)?;
            return Ok(Batch::new(rows.columns(), places, rows.rows()));
        }
        let mut columns = Columns::new(self.arena, self.batch.columns().len())?;
        for (at, column) in self.batch.columns().iter().enumerate() {
            let passed = self.plan.from.contains(&Some(at));
            columns.push(match passed {
                true => column.gather(row_of, self.arena)?,
                false => Column::absent(row_of.len()),
            });
        }
        Ok(Batch::new(columns.finish(), places, row_of.len()))
    }

    /// The output columns: what was made, and what is passed on of `input`, row by row beside it.
    fn beside(&self, made: &[Column<'a>], input: Batch<'a>) -> Result<Batch<'a>> {
        let mut columns = Columns::new(self.arena, self.plan.from.len())?;
        let mut made = made.iter();
        for passed in &self.plan.from {
            columns.push(match passed {
                Some(at) => input.column(*at),
                None => made.next().copied().unwrap_or(Column::nulls(input.rows())),
            });
        }
        Ok(Batch::new(columns.finish(), input.origin(), input.rows()))
    }

    /// The rows that were rejected so far, ascending; of a policy that stops at the first, that one.
    fn bad_rows(&self) -> Result<&'a [u32]> {
        if self.faults.is_empty() {
            return Ok(&[]);
        }
        if self.faults.stops() {
            let first = self.faults.first_row().unwrap_or(0) as u32;
            return Ok(self.arena.copy(&[first])?);
        }
        let bad = self.faults.by_row()?;
        Ok(self.arena.map(bad, |fault| fault.row)?)
    }

    fn pass(&mut self, rows: Batch<'a>, last: bool) -> Result<()> {
        match &mut self.to {
            To::Next(out) => {
                if self.flow == Flow::More {
                    let start = Instant::now();
                    let flow = if last { out.last(rows) } else { out.emit(rows) };
                    self.away += start.elapsed();
                    self.flow = flow?;
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
