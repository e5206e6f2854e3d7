//! States of a plugin's aggregate: one instance of the plugin's for one table of groups.
#![allow(unsafe_code)]

use super::Bind;
use super::account::Account;
use crate::plugin::host::{self, Entered, Registered, Service};
use crate::plugin::run::{Object, lend, release};
use crate::plugin::{code_of, conform, said};
use standpipe_sdk::aggregate::{Input, OfRun, OnFault, States};
use standpipe_sdk::ffi::import::Importer;
use standpipe_sdk::ffi::lend::Lent;
use standpipe_sdk::ffi::{self, ArrowArray, PLUGIN_FAILED, Status};
use standpipe_sdk::{Arena, Batch, Bits, Code, Column, Columns, Data, Error, Field, Reservation, Result, Type, values};
use std::any::Any;
use std::ffi::c_void;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

pub(super) struct Grouped {
    bind: Arc<Bind>,
    run: OfRun,
    strict: bool,
    work: Mutex<Work>,
    account: Arc<Account>,
    /// Groups whose `state_size` is declared.
    sized: usize,
}

/// What calls use, one at a time.
#[derive(Default)]
struct Work {
    /// Made where it is first needed. It stands before what it is bound to.
    object: Option<Object>,
    /// What went wrong where nothing could be said.
    failed: Option<(Code, String)>,
}

impl Grouped {
    pub(super) fn new(bind: Arc<Bind>, run: OfRun, strict: bool) -> Grouped {
        Grouped {
            account: Arc::new(Account::new(bind.meter.clone(), bind.ceiling.clone())),
            bind,
            run,
            strict,
            work: Mutex::default(),
            sized: 0,
        }
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// That nothing went wrong before.
    fn sound(&self) -> Result<()> {
        match &self.work().failed {
            Some((code, message)) => Err(self.bind.failed_as(*code, message)),
            None => Ok(()),
        }
    }

    /// Remembers what went wrong, for whoever asks next.
    fn remember(&self, outcome: Result<()>) {
        let Err(error) = outcome else { return };
        let what = match error {
            Error::Failed { code, message, .. } => {
                let own = format!("`{}`: ", self.bind.given.vtable.name);
                (code, message.strip_prefix(&own).unwrap_or(&message).to_owned())
            }
            // Whoever asks next is told the same.
            Error::Cancelled => return,
            // There was room for all of it: what is short of memory is the machine.
            other => (PLUGIN_FAILED, other.to_string()),
        };
        self.work().failed.get_or_insert(what);
    }

    /// A call of the plugin, with memory in `arena`.
    fn call<T>(
        &self,
        arena: &Arena,
        rows: (usize, usize),
        run: impl FnOnce(&Call, &Object) -> (Status, T),
    ) -> Result<(T, Ended)> {
        let bind = &*self.bind;
        let mut work = self.work();
        let object = match &mut work.object {
            Some(object) => object,
            none => {
                let account = self.account.clone();
                let reserve = Arc::new(move |delta| account.declare(delta));
                let owner = Registered::of_table(bind.given.vtable.name, &self.run, reserve, bind.meter.clone());
                none.insert(Object::new(&bind.given, owner, 0).map_err(|error| bind.named(error))?)
            }
        };
        if object.broken {
            return Err(bind.failed("it failed before"));
        }
        let mut calling = Calling {
            arena,
            groups: rows.1,
            rejects: bind.rejects,
            bad: vec![],
            refused: None,
            wrong: None,
            panic: None,
        };
        let call = object.call();
        let mut error = ffi::ErrorOut::EMPTY;
        let start = Instant::now();
        // SAFETY: both stay where they are, and nobody else uses `calling`, until the guard is dropped.
        let entered = unsafe { Entered::new(&raw const call, &raw mut calling) };
        let (status, made) = run(
            &Call {
                call: &raw const call,
                error: &raw mut error,
                inst: object.inst,
            },
            object,
        );
        drop(entered);
        bind.meter.called(rows.0, rows.1, start.elapsed());
        object.ended(status, &error, false);
        if let Some(panic) = calling.panic {
            object.broken = true;
            std::panic::resume_unwind(panic);
        }
        let ended = Ended {
            failed: match (calling.wrong, status) {
                (Some(what), _) => Some(bind.failed(&what)),
                (None, ffi::E_MEMORY) => Some(calling.refused.unwrap_or(Error::Memory {
                    wanted: 0,
                    used: 0,
                    limit: 0,
                })),
                (None, ffi::E_CANCELLED) if self.run.cancelled.load(Relaxed) => Some(Error::Cancelled),
                (None, ..0) => Some(bind.failed_as(code_of(status), &said(status, &error))),
                (None, 0..) => None,
            },
            bad: calling.bad,
        };
        Ok((made, ended))
    }

    /// Lends these columns for a call.
    fn lending(
        &self,
        columns: &[Column<'_>],
        types: &[Type],
        rows: usize,
        counts: bool,
        arena: &Arena,
        run: impl FnOnce(&Call, &mut ArrowArray) -> Status,
    ) -> Result<()> {
        let bind = &*self.bind;
        let mut kept = false;
        let (outcome, ended) = self.call(arena, (if counts { rows } else { 0 }, 0), |call, object| {
            let lent = match Lent::new(columns, types, rows, arena, &object.lease) {
                Ok(lent) => lent,
                Err(error) => return (ffi::OK, Err(error)),
            };
            let mut input = lent.array;
            let status = run(call, &mut input);
            let back = lent.take_back(input);
            kept = back.is_err();
            (status, back)
        })?;
        if kept && let Some(object) = &mut self.work().object {
            object.broken = true;
        }
        if let Some(error) = ended.failed {
            return Err(error);
        }
        outcome.map_err(|error| bind.named(error))
    }

    /// Makes room: declares what groups take, then lets the plugin declare more.
    fn make_room(
        &mut self,
        groups: usize,
        reservation: &mut Reservation,
        run: impl FnOnce(&Self, u32) -> Result<()>,
    ) -> Result<()> {
        self.sound()?;
        let number = u32::try_from(groups).map_err(|_| Error::Memory {
            wanted: groups,
            used: self.sized,
            limit: u32::MAX as usize,
        })?;
        let more = groups.saturating_sub(self.sized);
        let own = i64::try_from(more.saturating_mul(self.bind.table.state_size)).unwrap_or(i64::MAX);
        let account = self.account.clone();
        let this = &*self;
        let (outcome, refused) = account.with_room(reservation, || {
            if this.account.declare(own) < 0 {
                return Err(no_room());
            }
            let outcome = run(this, number);
            if outcome.is_err() {
                this.account.declare(-own);
            }
            outcome
        })?;
        match (outcome, refused) {
            (Ok(()), _) => {
                self.sized = self.sized.max(groups);
                Ok(())
            }
            (Err(Error::Memory { .. }), Some(refused)) => Err(refused),
            (Err(error), _) => Err(error),
        }
    }

    /// Columns that the plugin makes of these groups.
    fn made<'a>(
        &self,
        give: ffi::Give,
        groups: &[u32],
        fields: &[Field],
        counts: bool,
        arena: &'a Arena,
    ) -> Result<(&'a [Column<'a>], Bad)> {
        self.sound()?;
        let bind = &*self.bind;
        if groups.is_empty() {
            return Ok((no_rows(fields.iter().map(|field| &field.ty), arena)?, vec![]));
        }
        let mut out = ArrowArray::EMPTY;
        let len = groups.len();
        let (out_ptr, groups_ptr) = (&raw mut out, groups.as_ptr());
        let called = self.call(arena, (0, if counts { len } else { 0 }), |call, _| {
            // SAFETY: `create` made `inst`, which is not broken; the other arguments are valid for the call; the function keeps to the
            // header (the promise to `contents_of`).
            let status = unsafe { give(call.inst, call.call, len as u32, groups_ptr, out_ptr, call.error) };
            (status, ())
        });
        let outcome = called.and_then(|((), ended)| match ended.failed {
            Some(error) => Err(error),
            None => {
                let importer = Importer {
                    arena,
                    lent: None,
                    arena_release: Some(host::host().arena_release),
                    all_lasting: false,
                };
                // SAFETY: the call filled it, or left it released; what is marked as ours is memory that `'a` borrows.
                let columns = unsafe { importer.columns(&out, fields) }.map_err(|error| bind.named(error))?;
                match out.length == len as i64 {
                    true => Ok((columns, ended.bad)),
                    false => Err(bind.failed(&format!("it gives {} values for {len} groups", out.length))),
                }
            }
        });
        // SAFETY: as above.
        unsafe { release(&mut out) }
        outcome
    }
}

fn no_room() -> Error {
    Error::Memory {
        wanted: 0,
        used: 0,
        limit: 0,
    }
}

/// What a call is made with, while it lasts.
struct Call {
    call: *const ffi::Call,
    error: *mut ffi::ErrorOut,
    inst: *mut c_void,
}

/// Groups that have no value, by their position in the list of groups, and why.
type Bad = Vec<(usize, String)>;

/// How a call ended.
struct Ended {
    failed: Option<Error>,
    bad: Bad,
}

/// Columns of these types without rows.
fn no_rows<'a, 't>(types: impl ExactSizeIterator<Item = &'t Type>, arena: &'a Arena) -> Result<&'a [Column<'a>]> {
    let mut columns = Columns::new(arena, types.len())?;
    for ty in types {
        columns.push(values::column(ty, &[], arena)?);
    }
    Ok(columns.finish())
}

/// The rows that count, as columns of their own, and their groups.
fn picked<'a>(
    types: &[Type],
    groups: &'a [u32],
    input: &Input<'a>,
    arena: &'a Arena,
) -> Result<(&'a [Column<'a>], &'a [u32])> {
    if input.count() == 0 {
        return Ok((no_rows(types.iter(), arena)?, &[]));
    }
    let Some(take) = input.take.filter(|take| !take.is_all()) else {
        return Ok((input.columns, groups));
    };
    let rows = take.indices(arena)?;
    let mut columns = Columns::new(arena, input.columns.len())?;
    for column in input.columns {
        columns.push(column.gather(rows, arena)?);
    }
    let groups = match groups.is_empty() {
        true => groups,
        false => arena.map(rows, |row| groups[row as usize])?,
    };
    Ok((columns.finish(), groups))
}

impl States for Grouped {
    fn room(&mut self, groups: usize, input: &Input<'_>, reservation: &mut Reservation) -> Result<()> {
        let bind = self.bind.clone();
        self.make_room(groups, reservation, |this, groups| {
            let Some(room) = bind.table.room else { return Ok(()) };
            bind.with_scratch(|arena| {
                let (columns, _) = picked(&bind.types, &[], input, arena)?;
                let rows = input.count();
                this.lending(columns, &bind.types, rows, false, arena, |call, array| {
                    // SAFETY: as in `made`.
                    unsafe { room(call.inst, call.call, groups, &raw const *array, call.error) }
                })
            })
        })
    }

    fn update(&mut self, groups: &[u32], input: &Input<'_>) {
        let rows = input.count();
        if rows == 0 || self.sound().is_err() {
            return;
        }
        let (bind, this) = (self.bind.clone(), &*self);
        let outcome = bind.with_scratch(|arena| {
            let (columns, groups) = picked(&bind.types, groups, input, arena)?;
            conform::seen(bind.given.vtable.name, &Batch::new(columns, None, rows));
            this.lending(columns, &bind.types, rows, true, arena, |call, array| {
                // SAFETY: as in `made`.
                unsafe { (bind.table.update)(call.inst, call.call, groups.as_ptr(), &raw mut *array, call.error) }
            })
        });
        self.remember(outcome);
    }

    fn room_to_merge(&mut self, groups: usize, partial: &[Column<'_>], reservation: &mut Reservation) -> Result<()> {
        let bind = self.bind.clone();
        self.make_room(groups, reservation, |this, groups| {
            let Some(room) = bind.table.room_to_merge else {
                return Ok(());
            };
            bind.with_scratch(|arena| {
                this.lending_states(partial, arena, |call, array| {
                    // SAFETY: as in `made`.
                    unsafe { room(call.inst, call.call, groups, &raw const *array, call.error) }
                })
            })
        })
    }

    fn merge(&mut self, groups: &[u32], partial: &[Column<'_>]) {
        if groups.is_empty() || self.sound().is_err() {
            return;
        }
        let (bind, this) = (self.bind.clone(), &*self);
        let outcome = bind.with_scratch(|arena| {
            this.lending_states(partial, arena, |call, array| {
                // SAFETY: as in `made`.
                unsafe { (bind.table.merge)(call.inst, call.call, groups.as_ptr(), &raw mut *array, call.error) }
            })
        });
        self.remember(outcome);
    }

    fn seal(&mut self, _: &mut Reservation) -> Result<()> {
        self.sound()
    }

    fn partial<'a>(&self, groups: &[u32], arena: &'a Arena) -> Result<&'a [Column<'a>]> {
        let (columns, _) = self.made(self.bind.table.state, groups, self.bind.state.fields(), false, arena)?;
        Ok(columns)
    }

    fn finish<'a>(&self, groups: &[u32], arena: &'a Arena, fault: OnFault<'_>) -> Result<Column<'a>> {
        let bind = &*self.bind;
        // A group that fails is null, and so may be one without any value.
        let field = Field::new(bind.output.name.clone(), bind.output.ty.clone(), true);
        let (columns, bad) = self.made(bind.table.finalize, groups, &[field], true, arena)?;
        for (group, what) in &bad {
            fault(*group, PLUGIN_FAILED, &format!("`{}`: {what}", bind.given.vtable.name))?;
        }
        let Some(column) = columns.first() else {
            return Err(bind.failed("it gives no column"));
        };
        let is_bad = |row: usize| bad.iter().any(|(group, _)| *group == row);
        if self.strict && (0..column.len()).any(|row| !column.is_valid(row) && !is_bad(row)) {
            return Err(bind.failed("it says that a group with values is never null, and one is"));
        }
        if bad.is_empty() {
            return Ok(*column);
        }
        let valid = Bits::collect(arena, column.len(), |row| column.is_valid(row) && !is_bad(row))?;
        match column.data() {
            Data::Null => Ok(*column),
            _ => Ok(column.with_valid(Some(valid))),
        }
    }

    fn clear(&mut self) {
        if let Some(object) = &self.work().object
            && !object.broken
        {
            // SAFETY: `create` made `inst`, which is not broken, and nobody else uses it.
            unsafe { (self.bind.table.clear)(object.inst) }
        }
    }

    fn release(&mut self, reservation: &mut Reservation) {
        self.work().object = None;
        self.sized = 0;
        reservation.shrink(self.account.close());
    }
}

impl Grouped {
    fn lending_states(
        &self,
        partial: &[Column<'_>],
        arena: &Arena,
        run: impl FnOnce(&Call, &mut ArrowArray) -> Status,
    ) -> Result<()> {
        let types: Vec<_> = self.bind.state.fields().iter().map(|field| field.ty.clone()).collect();
        let rows = partial.first().map_or(0, Column::len);
        self.lending(partial, &types, rows, false, arena, run)
    }
}

/// What a call stands for, as the host's services see it.
struct Calling<'a> {
    arena: &'a Arena,
    /// Groups that values are asked of.
    groups: usize,
    rejects: bool,
    bad: Bad,
    refused: Option<Error>,
    wrong: Option<String>,
    panic: Option<Box<dyn Any + Send>>,
}

impl Service for Calling<'_> {
    fn alloc(&mut self, size: usize) -> *mut c_void {
        lend(self.arena, size, &mut self.refused)
    }

    unsafe fn emit(&mut self, array: &mut ArrowArray) -> Status {
        // SAFETY: the caller's promise.
        unsafe { release(array) }
        ffi::E_UNSUPPORTED
    }

    fn reject(&mut self, row: i64, _: i32, code: &[u8], message: &[u8]) -> Status {
        let what = match usize::try_from(row) {
            Ok(row) if row < self.groups && self.rejects => {
                let (code, message) = (String::from_utf8_lossy(code), String::from_utf8_lossy(message));
                self.bad.push((
                    row,
                    match &*code {
                        "" => message.into_owned(),
                        code => format!("{message} ({code})"),
                    },
                ));
                return ffi::OK;
            }
            _ if self.rejects => format!("it rejects group {row}, which is not asked for"),
            _ => "it rejects groups and did not say so".into(),
        };
        self.wrong = Some(what);
        ffi::E_CANCELLED
    }

    fn panicked(&mut self, panic: Box<dyn Any + Send>) {
        self.panic = Some(panic);
    }
}
