//! Drives a case through the host's own objects, and says what came out.

use super::super::bind::{Given, Plan, Refused, RowsOf, plan_of};
use super::super::run::Instance;
use super::super::sink;
use super::spy::{self, Refuse};
use super::{Case, memory};
use standpipe_sdk::ffi;
use standpipe_sdk::testing::setup;
use standpipe_sdk::{
    Arena, Batch, Downstream, Emitter, Error, Faults, Field, Flow, Place, Result, RowWise, Schema, Serial, Span, Value,
    values,
};
use std::sync::Arc;

/// What an arena may hand out, and what a plugin may reserve.
pub(super) const ROOM: usize = 512 << 20;

/// A bound case.
pub(super) struct Trial<'c> {
    pub(super) case: &'c Case,
    pub(super) plan: Arc<Plan>,
    /// Of a sink, what publishes its output, if that is not its `finish`.
    pub(super) publish: Option<ffi::Publish>,
}

/// How rows are given.
#[derive(Clone, Copy)]
pub(super) struct Way {
    /// Rows of a batch.
    pub(super) size: usize,
    /// Instances that take turns.
    pub(super) instances: usize,
    /// The last batch comes first.
    pub(super) backwards: bool,
    /// Memory is overwritten once a call is over.
    pub(super) poison: bool,
    /// Batches are pieces of longer ones.
    pub(super) sliced: bool,
    /// State goes through a snapshot behind this batch.
    pub(super) snapshot: Option<usize>,
}

impl Way {
    pub(super) const PLAIN: Way = Way {
        size: 16,
        instances: 1,
        backwards: false,
        poison: false,
        sliced: false,
        snapshot: None,
    };
}

/// What came out, per batch, in the order of the batches; the end is a batch of its own.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Ran {
    batches: Vec<Vec<String>>,
    /// Rejected rows, with words.
    pub(super) rejects: Vec<String>,
    /// It gave up, with words of its own.
    pub(super) gave_up: Option<String>,
    pub(super) ended: bool,
}

impl Ran {
    pub(super) fn rows(&self) -> Vec<&str> {
        self.batches.iter().flatten().map(String::as_str).collect()
    }

    /// That `other` is the same; the words say where it is not.
    pub(super) fn must_be(&self, other: &Ran, how: &str) -> Result<(), String> {
        let (want, got) = (self.rows(), other.rows());
        if let Some(at) = (0..want.len().max(got.len())).find(|&at| want.get(at) != got.get(at)) {
            let shown = |row: Option<&&str>| row.map_or("nothing".to_owned(), |row| short(row));
            return Err(format!(
                "{how}: row {at} of the output is {}, and was {}",
                shown(got.get(at)),
                shown(want.get(at))
            ));
        }
        if self.rejects != other.rejects {
            let (want, got) = (self.rejects.join("; "), other.rejects.join("; "));
            return Err(format!(
                "{how}: it rejects `{}`, and rejected `{}`",
                short(&got),
                short(&want)
            ));
        }
        if self.gave_up.is_some() != other.gave_up.is_some() || self.ended != other.ended {
            return Err(format!("{how}: it ends in another way"));
        }
        Ok(())
    }
}

pub(super) fn short(text: &str) -> String {
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Binds a case with other arguments or columns.
pub(super) fn bind(case: &Case, input: &Schema, config: &str) -> Result<Given, Refused> {
    let input = Some(input).filter(|_| case.vtable.stage.kind != ffi::KIND_SOURCE);
    Given::new(spy::on(case.vtable), input, case.own, config)
}

impl<'c> Trial<'c> {
    pub(super) fn new(case: &'c Case) -> Result<Trial<'c>, String> {
        let given = bind(case, &case.input, &case.config).map_err(|refused| refused.message)?;
        let name = case.vtable.name;
        let mut plan = plan_of(given, &case.input, Span::default()).map_err(|(_, what)| what)?;
        if case.function.is_some() {
            let flags = case.vtable.stage.flags;
            let [output] = plan.given.output.fields() else {
                return Err(format!("`{name}` gives one column, and declares {}", plan.given.output));
            };
            let nullable = output.nullable || flags & (ffi::F_NULL_PROPAGATING | ffi::F_REJECTS) != 0;
            plan.made = vec![Field::new(output.name.clone(), output.ty.clone(), nullable)];
            plan.from = vec![None];
            (plan.rows_of, plan.serial, plan.rejects) = (RowsOf::Aligned, false, flags & ffi::F_REJECTS != 0);
        }
        let mut publish = None;
        if case.is_sink() {
            publish = sink::understood(&mut plan)?;
        }
        let plan = Arc::new(plan);
        Ok(Trial { case, plan, publish })
    }

    /// The flags that count: a function's stand in its table.
    pub(super) fn flags(&self) -> u32 {
        let own = if self.case.function.is_some() {
            self.case.vtable.stage.flags
        } else {
            0
        };
        self.plan.given.out.flags | own
    }

    fn is_null(&self, row: &[Value]) -> bool {
        self.case.function.is_some() && self.flags() & ffi::F_NULL_PROPAGATING != 0 && row.contains(&Value::Null)
    }

    /// Gives it rows. What the host does not believe, a panic, memory that is not its own is an error.
    pub(super) fn run(&self, rows: &[Vec<Value>], way: Way) -> Result<Ran, String> {
        spy::refuse(Refuse::Nothing);
        let mut driven = Driven::new(self, way)?;
        let parts: Vec<(usize, &[Vec<Value>])> = {
            let size = way.size.min(rows.len().max(1));
            rows.chunks(size)
                .enumerate()
                .map(|(at, part)| (at * size, part))
                .collect()
        };
        driven.ran.batches = vec![vec![]; parts.len() + 1];
        let mut order: Vec<usize> = (0..parts.len()).collect();
        if way.backwards {
            order.reverse();
        }
        for (turn, &at) in order.iter().enumerate() {
            let (from, part) = parts[at];
            if !driven.give(turn % way.instances.max(1), at, from, part)? {
                break;
            }
            if way.snapshot == Some(turn) {
                driven.restore()?;
            }
        }
        driven.finish(parts.len())
    }

    /// Gives a batch without rows.
    pub(super) fn run_empty(&self) -> Result<Ran, String> {
        spy::refuse(Refuse::Nothing);
        let mut driven = Driven::new(self, Way::PLAIN)?;
        driven.ran.batches = vec![vec![]; 2];
        driven.give(0, 0, 0, &[])?;
        driven.finish(1)
    }

    /// Bytes of the heap that one instance has more after so many batches, and bytes that it has declared meanwhile.
    pub(super) fn kept(&self, batches: usize) -> Result<Option<(i64, i64)>, String> {
        spy::refuse(Refuse::Nothing);
        let declared = spy::reserved();
        let mut driven = Driven::new(self, Way::PLAIN)?;
        driven.ran.batches = vec![vec![]; 2];
        let rows = self.case.rows(64);
        let mut before = None;
        for at in 0..batches {
            // Every batch has numbers of its own, so that what is kept by value shows as well.
            let mut rows = rows.clone();
            for (row, cell) in rows.iter_mut().flatten().enumerate() {
                match cell {
                    Value::Int(v) if self.case.function.is_none() => *v = (at * 1000 + row) as i64 & 0xFFFF,
                    _ => {}
                }
            }
            if !driven.give(0, 0, at * rows.len(), &rows)? {
                return Ok(Some((0, 0)));
            }
            driven.ran.batches[0].clear();
            driven.bad.clear();
            if at == 4 {
                before = memory::in_use();
            }
        }
        let (Some(bytes), Some(now)) = (before, memory::in_use()) else {
            return Ok(None);
        };
        Ok(Some((now - bytes, spy::reserved() - declared)))
    }

    /// Gives one batch with something refused. `None`: it was never asked for. Else how it ended; with memory refused the batch
    /// came again.
    pub(super) fn run_refused(&self, rows: &[Vec<Value>], refuse: Refuse) -> Result<Option<Ran>, String> {
        spy::refuse(refuse);
        let mut driven = match Driven::new(self, Way::PLAIN) {
            Ok(driven) => driven,
            Err(_) if spy::has_refused() && spy::status() != ffi::E_PANIC => return Ok(Some(gave_up())),
            Err(what) => return Err(what),
        };
        driven.ran.batches = vec![vec![]; 2];
        let first = driven.push(0, 0, 0, rows);
        if !spy::has_refused() {
            return Ok(None);
        }
        spy::refuse(Refuse::Nothing);
        match first {
            Ok(()) => {}
            Err(Error::Memory { .. }) if driven.ran.batches[0].is_empty() => {
                driven.bad.clear();
                driven.give(0, 0, 0, rows)?;
            }
            Err(_) if spy::status() == ffi::E_PANIC => return Err("refused memory makes it panic".into()),
            Err(_) => return spy::fault().map_or(Ok(Some(gave_up())), Err),
        }
        driven.finish(1).map(Some)
    }
}

fn gave_up() -> Ran {
    Ran {
        gave_up: Some(String::new()),
        ..Ran::default()
    }
}

/// Instances at work.
pub(super) struct Driven<'t, 'c> {
    trial: &'t Trial<'c>,
    way: Way,
    instances: Vec<Instance>,
    data: Arena,
    arena: Arena,
    ran: Ran,
    bad: Vec<(usize, String)>,
}

impl<'t, 'c> Driven<'t, 'c> {
    pub(super) fn new(trial: &'t Trial<'c>, way: Way) -> Result<Driven<'t, 'c>, String> {
        let plan = &trial.plan;
        spy::columns(&plan.types, plan.made.iter().map(|field| field.ty.clone()).collect());
        let (mut data, mut arena) = (Arena::new(ROOM), Arena::new(ROOM));
        data.set_poison(way.poison);
        arena.set_poison(way.poison);
        let setup = trial.case.setup()?;
        let make = |_| Instance::new(plan.clone(), &setup).map_err(|error| error.to_string());
        Ok(Driven {
            trial,
            way,
            instances: (0..way.instances.max(1)).map(make).collect::<Result<_, _>>()?,
            data,
            arena,
            ran: Ran::default(),
            bad: vec![],
        })
    }

    /// Gives a batch; `false` = no more are wanted.
    pub(super) fn give(
        &mut self,
        instance: usize,
        at: usize,
        from: usize,
        rows: &[Vec<Value>],
    ) -> Result<bool, String> {
        match self.push(instance, at, from, rows) {
            Ok(()) => {}
            Err(error) => match own_words(&error) {
                Some(words) => self.ran.gave_up = Some(words),
                None => return Err(spy::fault().unwrap_or_else(|| said(&error))),
            },
        }
        spy::fault().map_or(Ok(()), Err)?;
        Ok(self.ran.gave_up.is_none() && !self.ran.ended)
    }

    fn push(&mut self, instance: usize, at: usize, from: usize, rows: &[Vec<Value>]) -> Result<()> {
        self.data.reset();
        self.arena.reset();
        let (trial, arena) = (self.trial, &self.arena);
        let input = &trial.case.input;
        let batch = match self.way.sliced {
            false => values::batch(input, rows, &self.data)?,
            true => {
                let around = rows.iter().cycle().take(3);
                let longer: Vec<Vec<Value>> = around.clone().chain(rows).chain(around).cloned().collect();
                values::batch(input, &longer, &self.data)?.slice(3, rows.len(), &self.data)?
            }
        };
        let before = values::rows(&batch, input);
        let places = self.data.collect(rows.len(), |row| Place {
            source: 0,
            offset: (from + row) as u64,
            sub: 0,
        })?;
        let batch = Batch::new(batch.columns(), Some(places), rows.len());
        let faults = Faults::new(arena, false);
        let mut collect = Collect {
            schema: &trial.plan.given.output,
            out: vec![],
        };
        let serial = trial.plan.serial;
        let outcome = match &mut self.instances[instance] {
            stage if serial => Serial::step(stage, batch, arena, &faults).map(|(rows, flow)| {
                if let Some(rows) = rows {
                    collect.take(&rows);
                }
                flow
            }),
            stage => RowWise::push(stage, batch, &mut Emitter::new(arena, &faults, &mut collect)),
        };
        if trial.case.is_sink() && !collect.out.is_empty() {
            return Err(Error::failed(
                ffi::PLUGIN_FAILED,
                "a sink has no output, and it gives rows",
            ));
        }
        let mut out = collect.out;
        // A function gives null where an argument is, whatever it says.
        let rejected: Vec<usize> = faults
            .by_row_in(&Arena::new(ROOM))?
            .iter()
            .map(|f| f.row as usize)
            .collect();
        if trial.case.function.is_some() {
            let live = (0..rows.len()).filter(|row| !rejected.contains(row));
            for (row, shown) in live.zip(&mut out) {
                if trial.is_null(&rows[row]) {
                    *shown = "[Null]".into();
                }
            }
        }
        for fault in faults.by_row_in(&Arena::new(ROOM))? {
            let row = fault.row as usize;
            if !trial.is_null(&rows[row]) {
                self.bad
                    .push((from + row, format!("row {}: {}", from + row, fault.message)));
            }
        }
        self.ran.batches[at].extend(out);
        self.ran.ended |= outcome? == Flow::Done && serial;
        if format!("{before:?}") != format!("{:?}", values::rows(&batch, input)) {
            return Err(Error::failed(
                ffi::PLUGIN_FAILED,
                "it changes the input that is only lent",
            ));
        }
        Ok(())
    }

    /// Replaces the one instance by another with its state.
    fn restore(&mut self) -> Result<(), String> {
        let bytes = self.instances[0].snapshot(&self.arena).map_err(|error| said(&error))?;
        let mut other = Instance::new(self.trial.plan.clone(), &setup(ROOM)).map_err(|error| said(&error))?;
        other.restore(&bytes, &self.arena).map_err(|error| said(&error))?;
        self.instances[0] = other;
        Ok(())
    }

    /// Makes room for what so many batches give, and the end.
    pub(super) fn batches(&mut self, count: usize) {
        self.ran.batches = vec![vec![]; count + 1];
    }

    /// Calls `finish`; what comes then is the last batch.
    pub(super) fn complete(&mut self) -> Result<(), String> {
        self.data.reset();
        self.arena.reset();
        let faults = Faults::new(&self.arena, false);
        let mut collect = Collect {
            schema: &self.trial.plan.given.output,
            out: vec![],
        };
        for stage in &mut self.instances {
            let finished = stage.finish(&mut Emitter::new(&self.arena, &faults, &mut collect));
            finished.map_err(|error| said(&error))?;
        }
        if let Some(end) = self.ran.batches.last_mut() {
            end.extend(collect.out);
        }
        Ok(())
    }

    fn finish(mut self, at: usize) -> Result<Ran, String> {
        if self.trial.plan.serial && self.ran.gave_up.is_none() {
            self.complete()?;
            if let (Some(publish), [stage]) = (self.trial.publish, &mut self.instances[..]) {
                self.arena.reset();
                sink::published(stage, publish, &mut self.arena).map_err(|error| said(&error))?;
            }
        }
        let gave_up = self.ran.gave_up.is_some();
        self.instances.clear();
        if self.trial.case.is_sink() {
            self.ran.batches[at].extend(super::sink::files(gave_up)?);
        }
        self.bad.sort();
        self.ran.rejects = self.bad.into_iter().map(|(_, words)| words).collect();
        spy::fault().map_or(Ok(()), Err)?;
        Ok(self.ran)
    }
}

/// What a stage says that gives up, rather than the host about it.
pub(super) fn own_words(error: &Error) -> Option<String> {
    let status = spy::status();
    let gives_up = status < 0 && status != ffi::E_PANIC && status != ffi::E_INTERNAL && status != ffi::E_CANCELLED;
    gives_up.then(|| said(error))
}

pub(super) fn said(error: &Error) -> String {
    match error {
        Error::Failed { message, .. } => message.clone(),
        other => other.to_string(),
    }
}

struct Collect<'s> {
    schema: &'s Schema,
    out: Vec<String>,
}

impl Collect<'_> {
    fn take(&mut self, batch: &Batch<'_>) {
        self.out
            .extend(values::rows(batch, self.schema).iter().map(|row| format!("{row:?}")));
    }
}

impl Downstream for Collect<'_> {
    fn push<'b>(&mut self, _: usize, _: &'b Arena, batch: Batch<'b>, _: bool) -> Result<Flow> {
        self.take(&batch);
        Ok(Flow::More)
    }
}
