//! A plugin's source: its splits are the claims of a [`Source`].
//!
//! Laws
//! - A split is read by one lane, from its beginning; rows of split i stand before those of split i + 1. So the bytes are the same
//!   for any number of workers.
//! - A row's place is its split and its number in it.
//! - `Memory` goes up only while nothing of the call has arrived: then the same rows can be asked for again.
//! - Whoever waits for a split that has nothing now sleeps, and is woken when the run is over.
#![allow(unsafe_code)]

use super::bind::{self, Given, Vtable};
use super::host::{self, Entered, Registered, Service};
use super::meter::Meter;
use super::run::{Object, lend, release, write};
use super::{NO_ROOM, WRONG_ABI, code_of, conform, said};
use standpipe_sdk::ffi::import::Importer;
use standpipe_sdk::ffi::{self, ArrowArray, PLUGIN_FAILED, Status};
use standpipe_sdk::spec::{Bound, Call, Complaint, Lineage, Make, Request, Setup, Wanted};
use standpipe_sdk::{
    Arena, Batch, Code, Column, Columns, Error, Faults, Field, Locator, Part, Place, Reader, Result, Schema, Source,
    Span,
};
use std::any::Any;
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The most rows of one array: as many as stay in a cache.
const MOST_ROWS: usize = 16 << 10;
/// The longest sleep before it is seen whether the run is over.
const NAP: Duration = Duration::from_millis(100);

/// A bound source.
pub(super) struct Plan {
    pub(super) given: Given,
    span: Span,
    pub(super) fields: Vec<Field>,
    pub(super) splits: u64,
    meter: Arc<Meter>,
}

impl Plan {
    fn failed(&self, code: Code, what: &str) -> Error {
        Error::Failed {
            code,
            message: format!("`{}`: {what}", self.given.vtable.name),
            help: None,
            span: Some(self.span),
        }
    }

    fn named(&self, error: Error) -> Error {
        match error {
            Error::Failed { code, message, .. } => self.failed(code, &message),
            other => other,
        }
    }
}

pub(super) fn bind(vtable: Vtable, call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    const THIS: &str = "this source of a plugin";
    let (given, config) = bind::given(vtable, call, None, THIS)?;
    conform::bound(vtable, None, &Schema::default(), 0, &config);
    let schema = given.output.clone();
    let plan =
        plan_of(given, call.span).map_err(|what| bind::complain(&vtable, call, THIS, WRONG_ABI, call.span, &what))?;
    let plan = Arc::new(plan);
    let make = move |setup: &Setup, request: &Request| -> Result<Arc<dyn Source>> {
        Ok(Arc::new(Splits::new(plan.clone(), setup, request)))
    };
    Ok(Bound {
        lineage: vec![Lineage::New; schema.width()],
        schema,
        reads: vec![],
        sorted_by: vec![],
        make: Make::Source(Box::new(make)),
        needs_places: false,
    })
}

/// What a bound source said, understood.
pub(super) fn plan_of(given: Given, span: Span) -> Result<Plan, String> {
    Ok(Plan {
        span,
        fields: given.output.fields().to_vec(),
        splits: splits(&given.out)?,
        meter: Meter::of(&given.vtable),
        given,
    })
}

/// How many splits there are, if this version can run it.
fn splits(out: &ffi::BindOut) -> Result<u64, String> {
    if out.flags & ffi::F_THREAD_AFFINE != 0 {
        return Err("it wants to stay on one thread, which this version does not offer".into());
    }
    let unknown = out.flags & ffi::F_MUST_UNDERSTAND & !ffi::F_RETAINS_INPUT;
    if unknown != 0 {
        return Err(format!("it needs a newer Standpipe (flags {unknown:#x})"));
    }
    match (out.parallelism, out.n_splits) {
        (ffi::PAR_SERIAL, _) => Ok(1),
        (ffi::PAR_SPLITS, 0) => Err("it has no splits; there is at least one".into()),
        (ffi::PAR_SPLITS, splits) => Ok(splits.into()),
        (other, _) => Err(format!("its parallelism {other} is none of a source's")),
    }
}

pub(super) struct Splits {
    plan: Arc<Plan>,
    setup: Setup,
    request: Request,
    next: AtomicU64,
    over: Mutex<bool>,
    woken: Condvar,
}

impl Splits {
    pub(super) fn new(plan: Arc<Plan>, setup: &Setup, request: &Request) -> Splits {
        Splits {
            plan,
            setup: setup.clone(),
            request: request.clone(),
            next: AtomicU64::new(0),
            over: Mutex::new(false),
            woken: Condvar::new(),
        }
    }

    /// One lane's way into it.
    pub(super) fn lane(self: Arc<Self>) -> Lane {
        Lane {
            source: self,
            object: None,
            split: 0,
            at: 0,
        }
    }

    /// Waits; the run may be over before that.
    fn wait(&self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if *over || self.setup.cancelled.load(Relaxed) {
                return Err(Error::Cancelled);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let waited = self.woken.wait_timeout(over, left.min(NAP));
            over = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Source for Splits {
    fn ticket(&self) -> Option<u64> {
        let more = |split: u64| (split < self.plan.splits).then_some(split + 1);
        self.next.fetch_update(Relaxed, Relaxed, more).ok()
    }

    fn reader(self: Arc<Self>) -> Result<Box<dyn Reader>> {
        Ok(Box::new(self.lane()))
    }

    fn cancel(&self) {
        *self.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.woken.notify_all();
    }
}

/// One lane's split.
pub(super) struct Lane {
    source: Arc<Splits>,
    object: Option<Object>,
    split: u32,
    /// Rows of the split that have arrived.
    at: u64,
}

impl Lane {
    /// Where the split is, as bytes of its own kind; [`Lane::restore`] takes them.
    ///
    /// # Errors
    /// If it has no snapshots, or fails.
    pub(super) fn snapshot(&mut self, arena: &Arena) -> Result<Vec<u8>> {
        let plan = self.source.plan.clone();
        let Some(snapshot) = plan.given.vtable.stage.snapshot else {
            return Err(plan.failed(PLUGIN_FAILED, "it says that it has snapshots, and lacks `snapshot`"));
        };
        let mut bytes: Vec<u8> = vec![];
        let into: *mut Vec<u8> = &raw mut bytes;
        self.with_state(arena, |inst, call, error| {
            // SAFETY: `create` made `inst`, which is not broken; the other arguments are valid for the call, and `write` gets `into`.
            unsafe { snapshot(inst, call, write, into.cast(), error) }
        })?;
        Ok(bytes)
    }

    /// Makes a split that was just opened one that is where another one was.
    ///
    /// # Errors
    /// If it does not take them.
    pub(super) fn restore(&mut self, bytes: &[u8], arena: &Arena) -> Result<()> {
        let plan = self.source.plan.clone();
        let stage = plan.given.vtable.stage;
        let Some(restore) = stage.restore else {
            return Err(plan.failed(PLUGIN_FAILED, "it says that it has snapshots, and lacks `restore`"));
        };
        let (from, len) = (bytes.as_ptr().cast(), bytes.len());
        self.with_state(arena, |inst, call, error| {
            // SAFETY: as above; the bytes are there for the call.
            unsafe { restore(inst, call, stage.state_version, from, len, error) }
        })
    }

    /// A call that gives no rows.
    fn with_state(
        &mut self,
        arena: &Arena,
        run: impl FnOnce(*mut c_void, *const ffi::Call, *mut ffi::ErrorOut) -> Status,
    ) -> Result<()> {
        let (plan, setup) = (&*self.source.plan, &self.source.setup);
        let Some(object) = &mut self.object else {
            return Err(plan.failed(PLUGIN_FAILED, "no split is open"));
        };
        let call = object.call();
        let (_, rows, _) = called(plan, setup, object, arena, 0, &call, |inst, call, _, error| {
            run(inst, call, error)
        })?;
        match rows {
            Some(_) => Err(plan.failed(PLUGIN_FAILED, "it gives rows where none are asked for")),
            None => Ok(()),
        }
    }
}

impl Reader for Lane {
    fn claim(&mut self, ticket: u64) -> Result<bool> {
        let plan = &*self.source.plan;
        self.object = None;
        (self.split, self.at) = (ticket as u32, 0);
        let owner = Registered::new(plan.given.vtable.name, &self.source.setup, plan.meter.clone());
        let object = Object::new(&plan.given, owner, self.split).map_err(|error| plan.named(error))?;
        self.object = Some(object);
        Ok(true)
    }

    fn decode<'a>(&'a mut self, arena: &'a Arena, max_rows: usize, stop_at_first: bool) -> Result<Part<'a>> {
        let source = &*self.source;
        let Some(object) = &mut self.object else {
            return Err(source.plan.failed(PLUGIN_FAILED, "no split is open"));
        };
        let most = max_rows.clamp(1, MOST_ROWS);
        // Before the call: once the rows have arrived the split is behind them, and they cannot be asked for again.
        let room = match source.request.places {
            true => Some(arena.fill(most, Place::default())?),
            false => None,
        };
        let mut columns = Columns::new(arena, source.plan.fields.len())?;
        let (rows, last) = loop {
            let (status, rows, retry) = given(&source.plan, &source.setup, object, arena, most)?;
            match (status, rows) {
                (ffi::EOS, rows) => break (rows, true),
                (_, Some(rows)) if rows.rows() > 0 => break (Some(rows), false),
                (ffi::PENDING, _) => source.wait(Duration::from_millis(retry.max(1).into()))?,
                // Nothing yet, and it says that there is more: it is seen whether the run is over.
                _ => source.wait(Duration::ZERO)?,
            }
        };
        let len = rows.map_or(0, |rows| rows.rows());
        let places = room.map(|room| {
            let places = &mut room[..len];
            for (row, place) in places.iter_mut().enumerate() {
                *place = Place {
                    source: self.split,
                    offset: self.at + row as u64,
                    sub: 0,
                };
            }
            &*places
        });
        for (at, wanted) in source.request.columns.iter().enumerate() {
            columns.push(match (rows, wanted) {
                (Some(rows), wanted) if !matches!(wanted, Wanted::No) => rows.column(at),
                _ => Column::absent(len),
            });
        }
        self.at += len as u64;
        Ok(Part {
            batch: Batch::new(columns.finish(), places, len),
            faults: Faults::new(arena, stop_at_first),
            last,
            locator: Locator::default(),
        })
    }
}

/// One call of `process`: its answer, its rows, and when it wants to be asked again.
fn given<'a>(
    plan: &Plan,
    setup: &Setup,
    object: &mut Object,
    arena: &'a Arena,
    max_rows: usize,
) -> Result<(Status, Option<Batch<'a>>, u32)> {
    let Some(process) = plan.given.vtable.process else {
        return Err(plan.failed(PLUGIN_FAILED, "it has no `process`"));
    };
    let call = ffi::Call {
        max_rows: max_rows as u64,
        ..object.call()
    };
    called(plan, setup, object, arena, max_rows, &call, |inst, call, out, error| {
        // SAFETY: `create` made `inst`, which is not broken; the other arguments are valid for the call; the function keeps to the
        // header (the promise to `contents_of`).
        unsafe { process(inst, call, null_mut(), out, error) }
    })
}

/// A call, and what it gives.
fn called<'a>(
    plan: &Plan,
    setup: &Setup,
    object: &mut Object,
    arena: &'a Arena,
    max_rows: usize,
    call: &ffi::Call,
    run: impl FnOnce(*mut c_void, *const ffi::Call, *mut ArrowArray, *mut ffi::ErrorOut) -> Status,
) -> Result<(Status, Option<Batch<'a>>, u32)> {
    if object.broken {
        return Err(plan.failed(PLUGIN_FAILED, "it failed before"));
    }
    let mut calling = Calling {
        plan,
        arena,
        max_rows,
        rows: None,
        refused: None,
        error: None,
        panic: None,
    };
    let (mut out, mut error) = (ArrowArray::EMPTY, ffi::ErrorOut::EMPTY);
    let start = Instant::now();
    // SAFETY: both stay where they are, and nobody else uses `calling`, until the guard is dropped.
    let entered = unsafe { Entered::new(call, &raw mut calling) };
    let status = run(object.inst, call, &raw mut out, &raw mut error);
    drop(entered);
    let spent = start.elapsed();
    object.ended(status, &error, false);
    if status >= 0 && calling.error.is_none() && calling.panic.is_none() && out.release.is_some() {
        // SAFETY: the call filled it.
        let outcome = unsafe { calling.take(&out) };
        calling.error = outcome.err().map(|error| match error {
            // The split is behind these rows already: they cannot be asked for again.
            Error::Memory { .. } => plan.failed(NO_ROOM, "there is no room for its rows"),
            other => other,
        });
    }
    // SAFETY: the call filled `out`, or left it released.
    unsafe { release(&mut out) }
    let arrived = calling.rows.map_or(0, |rows| rows.rows());
    plan.meter.called(0, arrived, spent);
    if let Some(panic) = calling.panic {
        object.broken = true;
        std::panic::resume_unwind(panic);
    }
    if let Some(error) = calling.error {
        return Err(error);
    }
    if status < 0 {
        return Err(match (status, calling.refused) {
            (ffi::E_MEMORY, Some(refused)) if calling.rows.is_none() => refused,
            (ffi::E_CANCELLED, _) if setup.cancelled.load(Relaxed) => Error::Cancelled,
            _ => plan.failed(code_of(status), &said(status, &error)),
        });
    }
    Ok((status, calling.rows, error.retry_ms))
}

/// What a call of `process` stands for, as the host's services see it.
struct Calling<'r, 'a> {
    plan: &'r Plan,
    arena: &'a Arena,
    max_rows: usize,
    rows: Option<Batch<'a>>,
    /// Nothing was given, for want of memory.
    refused: Option<Error>,
    error: Option<Error>,
    panic: Option<Box<dyn Any + Send>>,
}

impl Calling<'_, '_> {
    /// # Safety
    /// As [`Importer::columns`] has it.
    unsafe fn take(&mut self, array: &ArrowArray) -> Result<()> {
        let failed = |what: &str| Err(self.plan.failed(PLUGIN_FAILED, what));
        if self.rows.is_some() {
            return failed("it gives two arrays in one call");
        }
        if usize::try_from(array.length).map_or(true, |rows| rows > self.max_rows) {
            return failed(&format!(
                "it gives {} rows where {} are the most",
                array.length, self.max_rows
            ));
        }
        let importer = Importer {
            arena: self.arena,
            lent: None,
            arena_release: Some(host::host().arena_release),
            all_lasting: false,
        };
        // SAFETY: the caller's promise; what is marked as ours is the chunk's memory, which `'a` borrows.
        let columns = unsafe { importer.columns(array, &self.plan.fields) };
        let columns = columns.map_err(|error| self.plan.named(error))?;
        self.rows = Some(Batch::new(columns, None, array.length as usize));
        Ok(())
    }
}

impl Service for Calling<'_, '_> {
    fn alloc(&mut self, size: usize) -> *mut c_void {
        lend(self.arena, size, &mut self.refused)
    }

    unsafe fn emit(&mut self, array: &mut ArrowArray) -> Status {
        let outcome = match self.error.is_some() || self.panic.is_some() {
            true => Err(None),
            // SAFETY: the caller's promise.
            false => unsafe { self.take(array) }.map_err(Some),
        };
        // SAFETY: the caller's promise.
        unsafe { release(array) }
        match outcome {
            Ok(()) => ffi::OK,
            Err(Some(error @ Error::Memory { .. })) => {
                self.refused = Some(error);
                ffi::E_MEMORY
            }
            Err(error) => {
                self.error = self.error.take().or(error);
                ffi::E_CANCELLED
            }
        }
    }

    fn reject(&mut self, _: i64, _: i32, _: &[u8], _: &[u8]) -> Status {
        self.error = Some(self.plan.failed(PLUGIN_FAILED, "it rejects a row, and has no input"));
        ffi::E_CANCELLED
    }

    fn panicked(&mut self, panic: Box<dyn Any + Send>) {
        self.panic = Some(panic);
    }
}
