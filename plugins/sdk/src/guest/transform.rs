//! A [`StageSpec`] of a row-wise or serial stage behind the vtable.
//!
//! Laws
//! - Which row of the input each row of a row-wise stage's output is made of is read from its place: the rows that go in are
//!   numbered.
//! - It is deterministic: by the laws of its trait.
#![allow(unsafe_code)]

use super::arguments::Arguments;
use super::function::reject;
use super::{Failed, Own, Spec, guard, into_raw};
use crate::arena::Arena;
use crate::batch::Batch;
use crate::column::{Column, Columns, Data};
use crate::error::{Error, Result};
use crate::fault::Faults;
use crate::ffi::import::Importer;
use crate::ffi::{self, ArrowArray, BindIn, BindOut, ErrorOut, Host, Status, lend, schema};
use crate::place::Place;
use crate::spec::{Bound, Complaint, Lineage, Make, StageSpec};
use crate::stage::{Downstream, Emitter, Flow, Prepare, RowWise, Serial};
use crate::types::{Field, Schema, Type};
use std::ffi::c_void;
use std::sync::Arc;

/// What `bind` gives.
pub(super) struct Plan {
    bound: Bound,
    /// All columns of the input, those that the stage gets, and their fields.
    width: usize,
    used: Vec<i32>,
    fields: Vec<Field>,
    /// For the host: which output columns are input columns.
    from: Vec<i32>,
    /// The output columns that the stage makes.
    made: Vec<usize>,
    types: Vec<Type>,
    row_wise: bool,
}

/// # Safety
/// `stage` is NULL or the first field of a [`super::Guest`].
pub(super) unsafe fn spec_of(stage: *const ffi::Stage) -> Result<&'static StageSpec, Failed> {
    // SAFETY: the caller's promise.
    match unsafe { super::spec_of(stage) } {
        Some(Spec::Stage(spec)) => Ok(spec),
        _ => Err(Failed::new(ffi::E_INTERNAL, "no stage")),
    }
}

pub(super) fn one_is_needed() -> Failed {
    Failed::new(ffi::E_SCHEMA, "a stage has one input")
}

/// What a stage with one input is bound with, and that input.
///
/// # Safety
/// `given` is NULL or the host's, with Arrow schemas.
pub(super) unsafe fn one_input<'a>(given: *const BindIn) -> Result<(&'a BindIn, Schema), Failed> {
    // SAFETY: the caller's promise.
    let given = unsafe { given.as_ref() }.filter(|given| given.n_inputs == 1);
    let given = given.ok_or_else(one_is_needed)?;
    // SAFETY: as above: there is one.
    let input = unsafe { (*given.inputs).as_ref() }.ok_or_else(one_is_needed)?;
    // SAFETY: as above.
    Ok((given, unsafe { schema::import_input(input) }?))
}

pub(super) unsafe extern "C" fn bind(
    stage: *const ffi::Stage,
    _: *const Host,
    given: *const BindIn,
    out: *mut BindOut,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: the header's contract: all pointers are valid for the call, the inputs are Arrow schemas.
    unsafe {
        guard(error, || {
            let spec = spec_of(stage)?;
            let (given, input) = one_input(given)?;
            let plan = plan(spec, &input, given)?;
            let out = out.as_mut().ok_or_else(one_is_needed)?;
            out.schema = schema::Exported::new(&plan.bound.schema)?.take();
            out.memory = spec.memory as u32;
            let rejects = if plan.bound.needs_places { ffi::F_REJECTS } else { 0 };
            if plan.row_wise {
                out.parallelism = ffi::PAR_STATELESS;
                out.flags = rejects | ffi::F_ROW_OF | ffi::F_PRESERVES_ORDER | ffi::F_DETERMINISTIC;
                out.from_columns = plan.from.as_ptr();
            } else {
                out.parallelism = ffi::PAR_SERIAL;
                out.flags = rejects | ffi::F_NEEDS_ORDER | ffi::F_DETERMINISTIC;
            }
            out.used_columns = plan.used.as_ptr();
            out.n_used_columns = plan.used.len() as u32;
            // The lists are the plan's and stay where they are.
            out.bound = Arc::into_raw(Arc::new(plan)).cast_mut().cast();
            Ok(ffi::OK)
        })
    }
}

fn plan(spec: &StageSpec, input: &Schema, given: &BindIn) -> Result<Plan, Failed> {
    // SAFETY: a text of the host's, valid for the call.
    let config = unsafe { given.config_json.bytes() };
    let arguments = Arguments::read(config, spec).map_err(|what| Failed::new(ffi::E_CONFIG, what))?;
    let call = arguments.call(input, (given.n_own as usize).min(input.width()));
    let bound = (spec.bind)(&call).map_err(|complaints| complain(complaints, &arguments))?;
    let row_wise = match bound.make {
        Make::RowWise(_) | Make::Rearrange => true,
        Make::Serial(_) => false,
        _ => {
            return Err(Failed::new(
                ffi::E_UNSUPPORTED,
                "stages of this kind do not run behind the C interface yet",
            ));
        }
    };
    let mut reads = match row_wise {
        true => bound.reads.clone(),
        // Its rows may be those of earlier batches: it passes on nothing that it does not have.
        false => (0..input.width()).collect(),
    };
    reads.sort_unstable();
    reads.dedup();
    let from: Vec<i32> = (bound.lineage.iter())
        .map(|lineage| match lineage {
            Lineage::From(at) if row_wise => i32::try_from(*at).unwrap_or(-1),
            _ => -1,
        })
        .collect();
    let made: Vec<usize> = (0..from.len()).filter(|&at| from[at] < 0).collect();
    let mut types: Vec<Type> = made.iter().map(|&at| bound.schema.fields()[at].ty.clone()).collect();
    if row_wise {
        // The numbers of rows: 32 bits, as dates have.
        types.push(Type::Date);
    }
    Ok(Plan {
        width: input.width(),
        used: reads.iter().map(|&at| at as i32).collect(),
        fields: reads.iter().filter_map(|&at| input.get(at)).cloned().collect(),
        from,
        made,
        types,
        row_wise,
        bound,
    })
}

/// The first complaint, with the argument that it means.
pub(super) fn complain(complaints: Vec<Complaint>, arguments: &Arguments) -> Failed {
    let Some(complaint) = complaints.into_iter().next() else {
        return Failed::new(ffi::E_CONFIG, "it is refused without a reason");
    };
    let help = complaint.help.map(|help| format!("; {help}")).unwrap_or_default();
    Failed {
        param: arguments.name_of(complaint.span),
        ..Failed::new(ffi::E_CONFIG, complaint.message + &help)
    }
}

enum Work {
    RowWise(Box<dyn RowWise>),
    /// With what is done to each batch before its turn: in here that is the same thread.
    Serial(Box<dyn Serial>, Option<Box<dyn Prepare>>),
}

pub(super) struct Instance {
    plan: Arc<Plan>,
    work: Work,
    own: Own,
}

pub(super) unsafe extern "C" fn create(
    bound: *mut c_void,
    call: *const ffi::Call,
    _: u32,
    inst: *mut *mut c_void,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: the header's contract: `bound` is what `bind` gave, an `Arc` that `unbind` has not taken back.
    unsafe {
        guard(error, || {
            Arc::increment_strong_count(bound.cast::<Plan>());
            let plan = Arc::from_raw(bound.cast::<Plan>());
            let mut own = Own::new();
            let setup = own.setup(call);
            let work = own.counted(call, || {
                Ok(match &plan.bound.make {
                    Make::RowWise(make) => Work::RowWise(make(&setup)?),
                    Make::Serial(make) => {
                        let stage = make(&setup)?;
                        let prepare = stage.prepare();
                        Work::Serial(stage, prepare)
                    }
                    _ => Work::RowWise(Box::new(Nothing)),
                })
            })?;
            *inst = into_raw(Instance { plan, work, own });
            Ok(ffi::OK)
        })
    }
}

/// A stage whose columns are all passed on by the host.
struct Nothing;

impl RowWise for Nothing {
    fn push<'a>(&mut self, batch: Batch<'a>, out: &mut Emitter<'_, 'a>) -> Result<Flow> {
        out.last(batch)
    }
}

pub(super) unsafe extern "C" fn process(
    inst: *mut c_void,
    call: *const ffi::Call,
    input: *mut ArrowArray,
    _: *mut ArrowArray,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: the header's contract: all pointers are valid for the call, nobody else uses `inst`, and the input is lent for the
    // call, which the arena does not outlast.
    unsafe {
        guard(error, || {
            let Instance { plan, work, own } = &mut *inst.cast::<Instance>();
            own.counted(call, || run(plan, work, call, Some(&*input)))
        })
    }
}

pub(super) unsafe extern "C" fn finish(
    inst: *mut c_void,
    call: *const ffi::Call,
    _: *mut ArrowArray,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: as for `process`.
    unsafe {
        guard(error, || {
            let Instance { plan, work, own } = &mut *inst.cast::<Instance>();
            own.counted(call, || run(plan, work, call, None))
        })
    }
}

/// One call: a batch, or the end.
///
/// # Safety
/// `call` is the host's call that lasts, and `input` is what it lends.
unsafe fn run(
    plan: &Plan,
    work: &mut Work,
    call: *const ffi::Call,
    input: Option<&ArrowArray>,
) -> Result<Status, Failed> {
    // SAFETY: it is dropped at the end of this function, on this thread.
    let arena = unsafe { Arena::lent(call) };
    let faults = Faults::new(&arena, false);
    let mut given = Given {
        plan,
        call,
        arena: &arena,
        faults: &faults,
        over: false,
    };
    let outcome = match (work, input) {
        (Work::RowWise(stage), Some(input)) => {
            // SAFETY: the caller's promise.
            let batch = unsafe { batch(&plan.used, &plan.fields, plan.width, input, &arena)? };
            stage.push(batch, &mut Emitter::new(&arena, &faults, &mut given))
        }
        (Work::Serial(stage, prepare), Some(input)) => {
            // SAFETY: as above.
            let mut batch = unsafe { batch(&plan.used, &plan.fields, plan.width, input, &arena)? };
            if let Some(prepare) = prepare {
                batch = prepare.prepare(batch, &arena)?;
            }
            let (rows, mut flow) = stage.step(batch, &arena, &faults)?;
            if let Some(rows) = rows
                && given.give(rows)? == Flow::Done
            {
                flow = Flow::Done;
            }
            match flow {
                Flow::More => given.rest(stage.as_mut()),
                Flow::Done => Ok(flow),
            }
        }
        (Work::Serial(stage, _), None) => {
            stage.finish(&mut Emitter::new(&arena, &faults, &mut given))?;
            given.rest(stage.as_mut())
        }
        (Work::RowWise(_), None) => Ok(Flow::More),
    };
    let flow = outcome?;
    // SAFETY: the caller's promise.
    let wanted = unsafe { reject(call, &faults)? };
    // A row-wise stage cannot end the stream: only who comes behind can, and the host knows that already.
    Ok(match flow == Flow::Done && (!plan.row_wise || given.over) || !wanted {
        true => ffi::EOS,
        false => ffi::OK,
    })
}

/// The rows of the input, numbered by their places. They have `width` columns, of which those at `used` are given, as `fields` say; what
/// the stage does not read is absent.
///
/// # Safety
/// `input` is what the host lends for a call that `arena` does not outlast.
pub(super) unsafe fn batch<'a>(
    used: &[i32],
    fields: &[Field],
    width: usize,
    input: &ArrowArray,
    arena: &'a Arena,
) -> Result<Batch<'a>, Failed> {
    let importer = Importer {
        arena,
        lent: None,
        arena_release: None,
        all_lasting: true,
    };
    // SAFETY: the caller's promise.
    let given = unsafe { importer.columns(input, fields)? };
    let rows = input.length as usize;
    let columns = arena.fill(width, Column::absent(rows))?;
    for (&at, &column) in used.iter().zip(given) {
        columns[at as usize] = column;
    }
    let places = arena.collect(rows, |row| Place {
        source: 0,
        offset: row as u64,
        sub: 0,
    })?;
    Ok(Batch::new(columns, Some(places), rows))
}

/// Where output goes: to the host.
struct Given<'r, 'a> {
    plan: &'r Plan,
    call: *const ffi::Call,
    arena: &'a Arena,
    faults: &'r Faults<'a>,
    /// The host wants no more.
    over: bool,
}

impl Downstream for Given<'_, '_> {
    fn push<'b>(&mut self, port: usize, arena: &'b Arena, batch: Batch<'b>, _: bool) -> Result<Flow> {
        if port > 0 {
            return Err(Error::failed(ffi::PLUGIN_FAILED, "it has one output only"));
        }
        self.emit(arena, batch)
    }
}

impl<'a> Given<'_, 'a> {
    fn give(&mut self, batch: Batch<'a>) -> Result<Flow> {
        self.emit(self.arena, batch)
    }

    /// What a stage left to say.
    fn rest(&mut self, stage: &mut dyn Serial) -> Result<Flow> {
        let mut wanted = Flow::More;
        if stage.has_rest() && !self.over {
            stage.rest(&mut |arena, made, faults| {
                for fault in faults.by_row_in(arena)? {
                    let row = fault.row as usize;
                    let at = made.at.and_then(|at| at.get(row)).map_or(row, |&at| at as usize);
                    // What is said lives for the call.
                    self.faults
                        .report(at, fault.code, fault.span, format_args!("{}", fault.message))?;
                }
                wanted = self.emit(arena, made.rows)?;
                Ok(wanted)
            })?;
        }
        Ok(wanted)
    }

    fn emit<'b>(&mut self, arena: &'b Arena, batch: Batch<'b>) -> Result<Flow> {
        // SAFETY: the call lasts: this is inside it.
        match unsafe { reject(self.call, self.faults) } {
            Ok(true) => {}
            Ok(false) => {
                self.over = true;
                return Ok(Flow::Done);
            }
            Err(failed) => return Err(refused(failed.status)),
        }
        // SAFETY: as above.
        let host = unsafe { &*(*self.call).host };
        let is_the_calls = std::ptr::eq(arena, std::ptr::from_ref(self.arena).cast());
        // What does not live as long as the call's memory is copied by the host before this returns.
        let release = match is_the_calls && !self.arena.holds() {
            true => host.arena_release,
            false => lend::release_marked,
        };
        let mut columns = Columns::new(arena, self.plan.types.len())?;
        for &at in &self.plan.made {
            columns.push(batch.column(at).settled(arena)?);
        }
        if self.plan.row_wise {
            columns.push(row_of(&batch, arena)?);
        }
        let columns = columns.finish();
        let types: Vec<&Type> = self.plan.types.iter().collect();
        let mut array = lend::give(columns, &types, batch.rows(), arena, release)?;
        // SAFETY: the call lasts, and the array is one that is given away.
        match unsafe { (host.emit)(self.call, &raw mut array) } {
            ffi::EOS => {
                self.over = true;
                Ok(Flow::Done)
            }
            0.. => Ok(Flow::More),
            failed => Err(refused(failed)),
        }
    }
}

/// The host remembers why it refused; who called only passes the news on.
fn refused(status: Status) -> Error {
    match status {
        ffi::E_MEMORY => Error::Memory {
            wanted: 0,
            used: 0,
            limit: 0,
        },
        _ => Error::Cancelled,
    }
}

fn row_of<'b>(batch: &Batch<'b>, arena: &'b Arena) -> Result<Column<'b>> {
    let lost = || Error::failed(ffi::PLUGIN_FAILED, "it loses the places of its rows");
    let places = match batch.origin() {
        Some(places) => places,
        None if batch.rows() == 0 => &[],
        None => return Err(lost()),
    };
    let rows: &[i32] = arena.map(places, |place| place.offset as i32)?;
    Ok(Column::new(Data::Date(rows), None, rows.len()))
}
