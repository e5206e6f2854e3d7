//! A plugin's sink: one [`Instance`] that the lanes' writers share, in turns.
//!
//! Laws
//! - Rows reach it in order, each once: it is called in its chunk's turn.
//! - It publishes when the run has come to its end, after every other output is complete, or never: an instance that is destroyed
//!   before that leaves nothing behind.
#![allow(unsafe_code)]

use super::bind::{self, Plan, Vtable};
use super::run::Instance;
use super::{NO_ROOM, conform};
use crate::stages::unnest::{least, scratch_room};
use standpipe_sdk::ffi::{self, PLUGIN_FAILED};
use standpipe_sdk::spec::{Arg, Bound, Call, Complaint, Least, Make, Room, Setup};
use standpipe_sdk::{
    Arena, Batch, Downstream, Emitter, Fault, Faults, Flow, Published, Reservation, Result, Serial, Sink, Value, Writer,
};
use std::ffi::CStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const THIS: &str = "this sink of a plugin";

pub(super) fn bind(vtable: Vtable, call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    let (given, config) = bind::given(vtable, call, Some(call.input), THIS)?;
    conform::bound(vtable, None, call.input, call.own, &config);
    let complain = |code, what: String| bind::complain(&vtable, call, THIS, code, call.span, &what);
    let plan = bind::plan_of(given, call.input, call.span);
    let mut plan = plan.map_err(|(code, what)| complain(code, what))?;
    let publish = understood(&mut plan).map_err(|what| complain(PLUGIN_FAILED, what))?;
    let (reads, rejects) = (plan.used.clone(), plan.rejects);
    let (plan, shown) = (Arc::new(plan), shown(call, vtable.name));
    let make = move |setup: &Setup| -> Result<Arc<dyn Sink>> {
        let mut reservation = setup.budget.reserve();
        let room = scratch_room(setup.share, &mut reservation)
            .map_err(|_| plan.failed_as(NO_ROOM, "there is no memory for its work"))?;
        Ok(Arc::new(Outlet {
            plan: plan.clone(),
            shown: shown.clone(),
            publish,
            state: Mutex::new(Some(State {
                instance: Instance::new(plan.clone(), setup)?,
                arena: Arena::new(room),
                rows: 0,
                _reservation: reservation,
            })),
        }))
    };
    let mut bound = Bound::keeps(call, reads, Make::Sink(Box::new(make)));
    bound.needs_places = rejects;
    Ok(bound)
}

/// The scratch memory of one instance.
pub(super) fn least_of(room: &Room) -> Least {
    least(&Room { workers: 1, ..*room })
}

/// Sees whether what was bound can be a sink; with it comes what publishes its output, if that is not its `finish`.
pub(super) fn understood(plan: &mut Plan) -> Result<Option<ffi::Publish>, String> {
    if plan.given.output.width() > 0 {
        return Err("a sink has no output, and it declares some".into());
    }
    if plan.given.out.parallelism != ffi::PAR_SERIAL {
        return Err("a sink is serial, and it says that it is not".into());
    }
    // Whatever it says of rows that it does not give.
    plan.rows_of = bind::RowsOf::Unknown;
    plan.made.clear();
    publish_of(plan.given.vtable.stage)
}

/// What publishes its output, if that is not its `finish`.
pub(super) fn publish_of(stage: &'static ffi::Stage) -> Result<Option<ffi::Publish>, String> {
    let Some(extension) = stage.extension else {
        return Ok(None);
    };
    // SAFETY: the stage is one of a plugin that keeps to the header (the promise to `contents_of`).
    let table = unsafe { extension(stage, CStr::as_ptr(ffi::SINK_EXTENSION)) };
    if table.is_null() {
        return Ok(None);
    }
    // SAFETY: under this name stands an `sp_sink`, which begins with its size.
    let size = unsafe { table.cast::<u32>().read() } as usize;
    if size < size_of::<ffi::Sink>() {
        return Err("its sp_sink is too short".into());
    }
    // SAFETY: as above; it is as long as ours.
    match unsafe { (*table.cast::<ffi::Sink>()).publish } {
        Some(publish) => Ok(Some(publish)),
        None => Err("its sp_sink lacks `publish`".into()),
    }
}

/// What the report calls an output that the plugin gives no name.
fn shown(call: &Call<'_>, name: &str) -> Arc<str> {
    let text = call.items.iter().find_map(|item| match &item.arg {
        Arg::Const(Value::String(text)) => Some(text.as_str()),
        _ => None,
    });
    text.unwrap_or(name).into()
}

/// A sink at work.
pub(super) struct Outlet {
    plan: Arc<Plan>,
    shown: Arc<str>,
    publish: Option<ffi::Publish>,
    /// Gone once the run has failed.
    state: Mutex<Option<State>>,
}

struct State {
    instance: Instance,
    /// Memory of one call.
    arena: Arena,
    rows: u64,
    _reservation: Reservation,
}

impl Outlet {
    fn lock(&self) -> MutexGuard<'_, Option<State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, run: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        match &mut *self.lock() {
            Some(state) => run(state),
            None => Err(self.plan.failed("its output is gone")),
        }
    }

    fn end(&self) -> Result<()> {
        self.with(|State { instance, arena, .. }| {
            arena.reset();
            let faults = Faults::new(arena, false);
            let mut none = NoOutput(&self.plan);
            instance.finish(&mut Emitter::new(arena, &faults, &mut none))
        })
    }
}

impl Sink for Outlet {
    fn writer(self: Arc<Self>) -> Result<Box<dyn Writer>> {
        Ok(Box::new(Lane(self)))
    }

    fn finish(&self) -> Result<()> {
        // Without `publish`, `finish` is what publishes.
        if self.publish.is_some() { self.end() } else { Ok(()) }
    }

    fn publish(&self) -> Result<Vec<Published>> {
        let Some(publish) = self.publish else {
            self.end()?;
            let rows = self.with(|state| Ok(state.rows))?;
            return Ok(vec![Published {
                path: self.shown.to_string(),
                rows,
                bytes: 0,
            }]);
        };
        let all = self.with(|state| published(&mut state.instance, publish, &mut state.arena))?;
        let named = |made: ffi::Published| Published {
            path: match made.name() {
                name if name.is_empty() => self.shown.to_string(),
                name => name,
            },
            rows: made.rows,
            bytes: made.bytes,
        };
        Ok(all.into_iter().map(named).collect())
    }

    fn discard(&self) {
        // Destroyed, it leaves nothing behind.
        let state = self.lock().take();
        drop(state);
    }
}

/// A sink has no rows to give.
struct NoOutput<'r>(&'r Plan);

impl Downstream for NoOutput<'_> {
    fn push<'b>(&mut self, _: usize, _: &'b Arena, _: Batch<'b>, _: bool) -> Result<Flow> {
        Err(self.0.failed("a sink has no output, and it gives rows"))
    }
}

/// One lane's way to the sink.
pub(super) struct Lane(pub(super) Arc<Outlet>);

impl Writer for Lane {
    fn takes_turns(&self) -> bool {
        true
    }

    fn encode(&mut self, batch: Batch<'_>, faults: &Faults<'_>) -> Result<()> {
        self.0.with(
            |State {
                 instance, arena, rows, ..
             }| {
                arena.reset();
                let own = Faults::new(arena, faults.stops());
                let (held, flow) = instance.step(batch, arena, &own)?;
                if held.is_some() {
                    return Err(self.0.plan.failed("a sink has no output, and it gives rows"));
                }
                if flow == Flow::Done {
                    return Err(self.0.plan.failed("it ends the stream, which a sink cannot"));
                }
                // It has the rows: they must not come again.
                let bad = passed_on(&own, faults).map_err(|_| {
                    let plan = &self.0.plan;
                    plan.failed_as(NO_ROOM, "there is no memory for the rows that it sets aside")
                })?;
                *rows += (batch.rows() - bad) as u64;
                Ok(())
            },
        )
    }

    fn pending(&self) -> usize {
        0
    }

    fn write(&mut self) -> Result<()> {
        Ok(())
    }

    fn forget(&mut self) {}
}

/// Hands bad rows on; says how many rows are.
fn passed_on(from: &Faults<'_>, to: &Faults<'_>) -> Result<usize> {
    let (bad, arena) = (from.by_row()?, to.arena());
    for fault in bad {
        to.push(Fault {
            row: fault.row,
            code: fault.code,
            span: fault.span,
            column: fault.column.map(|name| arena.copy_str(name)).transpose()?,
            message: arena.copy_str(fault.message)?,
            help: None,
            byte: fault.byte,
            record: fault.record,
        })?;
    }
    Ok(bad.len())
}

/// Gives all outputs of an instance their names.
pub(super) fn published(
    instance: &mut Instance,
    publish: ffi::Publish,
    arena: &mut Arena,
) -> Result<Vec<ffi::Published>> {
    let mut all = vec![];
    loop {
        arena.reset();
        let (more, made) = instance.publish(publish, arena)?;
        all.push(made);
        if !more {
            return Ok(all);
        }
    }
}

impl Instance {
    /// Calls `publish`; the answer says whether there is another output.
    fn publish(&mut self, publish: ffi::Publish, arena: &Arena) -> Result<(bool, ffi::Published)> {
        let mut out = ffi::Published::EMPTY;
        let into: *mut ffi::Published = &raw mut out;
        let mut status = ffi::OK;
        self.without_rows(arena, |inst, call, error| {
            // SAFETY: `create` made `inst`, which is not broken; the other arguments are valid for the call; the function keeps to the
            // header (the promise to `contents_of`).
            status = unsafe { publish(inst, call, into, error) };
            status
        })?;
        Ok((status == ffi::MORE, out))
    }
}
