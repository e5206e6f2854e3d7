//! What is bound in processes: `bind` and `unbind` of the stand-ins.
#![allow(unsafe_code)]

use super::super::shared::Shared;
use super::super::wire::{Broken, Done, Reader, Writer, ask};
use super::super::worker::{Lost, Nobody, Worker};
use super::super::{given, used};
use super::slots::Slots;
use super::{Failed, NEXT, Proxy, Table, ended, entry};
use standpipe_sdk::ffi::{self, BindIn, BindOut, ErrorOut, Host, Status, schema};
use standpipe_sdk::{Field, Schema, Type};
use std::ffi::c_void;
use std::ptr::null;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// What `bind` gives.
pub(super) struct Bound {
    pub(super) proxy: &'static Proxy,
    pub(super) id: u64,
    /// What was asked and answered: another process is to answer the same.
    question: Vec<u8>,
    answer: Vec<u8>,
    /// The columns that calls get and give.
    pub(super) input: Vec<Type>,
    pub(super) output: Vec<Type>,
    /// Of an aggregate: the columns of its states, or why there are none.
    pub(super) states: Result<Schema, String>,
    pub(super) state: Vec<Type>,
    /// The processes that an aggregate's instances share.
    pub(super) slots: Slots,
    /// A process was lost when what is in it went, and whoever runs the script was told.
    pub(super) told: AtomicBool,
    /// One was silent then: nobody waits for the others.
    pub(super) hangs: AtomicBool,
    key: Option<Vec<i32>>,
    used: Option<Vec<i32>>,
    from: Option<Vec<i32>>,
}

/// What a successful `bind` answers, behind its [`Done`].
struct Answer {
    flags: u32,
    schema: Schema,
    parallelism: u32,
    n_splits: u32,
    max_workers: u32,
    memory: u32,
    key: Option<Vec<i32>>,
    used: Option<Vec<i32>>,
    from: Option<Vec<i32>>,
    states: Result<Schema, String>,
}

impl Answer {
    fn read(from: &mut Reader<'_>) -> Result<Answer, Broken> {
        let answer = Answer {
            flags: from.u32()?,
            schema: from.schema()?,
            parallelism: from.u32()?,
            n_splits: from.u32()?,
            max_workers: from.u32()?,
            memory: from.u32()?,
            key: from.numbers()?,
            used: from.numbers()?,
            from: from.numbers()?,
            states: match from.u8()? {
                0 => Ok(Schema::default()),
                1 => Ok(from.schema()?),
                2 => Err(from.str()?.to_owned()),
                _ => return Err(Broken),
            },
        };
        // The host takes this list to be as long as the output is wide.
        match answer
            .from
            .as_ref()
            .is_none_or(|from| from.len() == answer.schema.width())
        {
            true => Ok(answer),
            false => Err(Broken),
        }
    }
}

/// Binds in a process: what it answers, or how it refuses, and the bytes of that.
fn bound_in(worker: &mut Worker, id: u64, question: &[u8]) -> Result<(Result<Answer, Done>, Vec<u8>), Lost> {
    let question = [&id.to_le_bytes(), question].concat();
    worker.ask(ask::BIND, &question, "bind", &mut Nobody, |body, _| {
        let bytes = body.0.to_vec();
        let done = Done::read(body)?;
        Ok(match done.is_well() {
            true => (Ok(Answer::read(body)?), bytes),
            false => (Err(done), bytes),
        })
    })
}

impl Bound {
    /// A process in which this is bound.
    pub(super) fn worker(&self) -> Result<Worker, Failed> {
        let mut worker = self.proxy.plugin.take(Some(self.id))?;
        if worker.bounds.contains(&self.id) {
            return Ok(worker);
        }
        let (_, answer) = bound_in(&mut worker, self.id, &self.question)?;
        if answer != self.answer {
            return Err(Failed::new(
                ffi::E_INTERNAL,
                "its `bind` gives another answer the second time",
            ));
        }
        worker.bounds.insert(self.id);
        Ok(worker)
    }
}

pub(super) unsafe extern "C" fn bind(
    stage: *const ffi::Stage,
    _: *const Host,
    asked: *const BindIn,
    out: *mut BindOut,
    error: *mut ErrorOut,
) -> Status {
    // SAFETY: the header's contract: the stage is one of `table`'s, the first field of a `Proxy`; all pointers are valid for the
    // call; the inputs are Arrow schemas, the arguments a text.
    unsafe {
        entry(error, || {
            let (proxy, asked, out) = (&*stage.cast::<Proxy>(), &*asked, &mut *out);
            let id = NEXT.fetch_add(1, Relaxed);
            let mut question = Writer::default();
            let columns = match proxy.table {
                Some(Table::Aggregate(_, columns)) => columns as u32,
                _ => 0,
            };
            question.u32(proxy.number).u32(columns).bytes(asked.config_json.bytes());
            question
                .u32(asked.max_workers)
                .u32(asked.flags)
                .u32(asked.n_own)
                .u32(asked.n_inputs);
            let mut input = Schema::default();
            for at in 0..asked.n_inputs as usize {
                let schema = schema::import_input(&**asked.inputs.add(at));
                input = schema.map_err(|e| Failed::new(ffi::E_SCHEMA, &e.to_string()))?;
                question.schema(&input);
            }
            let question = question.0;
            let mut worker = proxy.plugin.take(None)?;
            let (outcome, answer) = bound_in(&mut worker, id, &question)?;
            let read = match outcome {
                Ok(read) => read,
                Err(done) => {
                    proxy.plugin.give(worker);
                    return ended(done).map(|(status, _)| status);
                }
            };
            worker.bounds.insert(id);
            let no_schema = |e: standpipe_sdk::Error| Failed::new(ffi::E_SCHEMA, &e.to_string());
            let schema = schema::Exported::new(&read.schema).map_err(no_schema)?;
            proxy.plugin.give(worker);
            let output = given(proxy.stage.kind, read.flags, &read.schema, read.from.as_deref());
            let types = |fields: Vec<Field>| -> Vec<Type> { fields.into_iter().map(|field| field.ty).collect() };
            let bound = Arc::new(Bound {
                proxy,
                id,
                question,
                input: match proxy.stage.kind {
                    ffi::KIND_AGGREGATE => types(input.fields().iter().take(columns as usize).cloned().collect()),
                    _ => used(&input, read.used.as_deref()).map(types).unwrap_or_default(),
                },
                state: types(read.states.as_ref().map_or(vec![], |states| states.fields().to_vec())),
                states: read.states,
                slots: Slots::default(),
                told: AtomicBool::new(false),
                hangs: AtomicBool::new(false),
                output: types(output),
                key: read.key,
                used: read.used,
                from: read.from,
                answer,
            });
            let list = |list: &Option<Vec<i32>>| list.as_ref().map_or((null(), 0), |list| (list.as_ptr(), list.len()));
            // The lists are the plan's and stay where they are.
            let (key, used, from) = (list(&bound.key), list(&bound.used), list(&bound.from));
            out.flags = read.flags;
            out.schema = schema.take();
            out.parallelism = read.parallelism;
            (out.n_splits, out.max_workers, out.memory) = (read.n_splits, read.max_workers, read.memory);
            (out.key_columns, out.n_keys) = (key.0, key.1 as u32);
            (out.used_columns, out.n_used_columns) = (used.0, used.1 as u32);
            out.from_columns = from.0;
            proxy.plugin.idle().bound += 1;
            out.bound = Arc::into_raw(bound).cast_mut().cast();
            Ok(ffi::OK)
        })
    }
}

/// Asks a process to let something go, which cannot fail.
pub(super) fn gone(worker: &mut Worker, kind: u8, id: u64, what: &str) -> Result<(), Lost> {
    let read = |body: &mut Reader<'_>, _: &mut Shared| Done::read(body).map(drop);
    worker.ask(kind, &id.to_le_bytes(), what, &mut Nobody, read)
}

pub(super) unsafe extern "C" fn unbind(bound: *mut c_void) {
    // SAFETY: the header's contract: once, with what `bind` gave.
    unsafe {
        entry(std::ptr::null_mut(), || {
            let bound = Arc::from_raw(bound.cast::<Bound>());
            let plugin = bound.proxy.plugin;
            let (has_it, others): (Vec<Worker>, Vec<Worker>) = {
                let mut idle = plugin.idle();
                idle.bound -= 1;
                let workers = std::mem::take(&mut idle.workers);
                workers
                    .into_iter()
                    .partition(|worker| worker.bounds.contains(&bound.id))
            };
            plugin.idle().workers.extend(others);
            for mut worker in has_it {
                worker.bounds.remove(&bound.id);
                let instance = worker.instances.remove(&bound.id);
                let mut goes = |kind, what| gone(&mut worker, kind, bound.id, what).is_ok();
                // A process that is lost here is missed by nobody.
                if (!instance || goes(ask::DESTROY, "destroy")) && goes(ask::UNBIND, "unbind") {
                    plugin.give(worker);
                }
            }
            let mut idle = plugin.idle();
            if idle.bound == 0 {
                let kept = idle.workers.len().min(1);
                let more = idle.workers.split_off(kept);
                drop(idle);
                drop(more);
            }
            Ok(ffi::OK)
        });
    }
}
