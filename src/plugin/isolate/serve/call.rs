//! A call in a plugin's process: its input is lent, its output is given to the host.
#![allow(unsafe_code)]

use super::super::arrays::{self, Land, Sink as _, Stopped};
use super::super::wire::{Broken, Done, LONGEST_BODY, Reader, Writer, ask, error_of, tell};
use super::link::Link;
use super::region::{Giving, Region, Taking};
use super::{Bound, Server};
use crate::plugin::host::{self, Entered, Service};
use crate::plugin::run::{release, write};
use crate::plugin::sink;
use standpipe_sdk::ffi::import::Importer;
use standpipe_sdk::ffi::lend::{self, Lent};
use standpipe_sdk::ffi::{self, ArrowArray, ErrorOut, Status};
use standpipe_sdk::{Arena, Error, Field, Type};
use std::any::Any;
use std::ffi::c_void;

/// The columns of arrays.
pub(super) struct Rows {
    fields: Vec<Field>,
    types: Vec<Type>,
}

impl Rows {
    pub(super) fn new(fields: Vec<Field>) -> Rows {
        Rows {
            types: fields.iter().map(|field| field.ty.clone()).collect(),
            fields,
        }
    }
}

/// Which columns an array of a call has.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Nothing,
    Input,
    /// Of an aggregate.
    State,
    Output,
}

static NOTHING: Rows = Rows {
    fields: vec![],
    types: vec![],
};

impl Bound {
    fn part(&self, part: Part) -> &Rows {
        match part {
            Part::Nothing => &NOTHING,
            Part::Input => &self.input,
            Part::State => &self.state,
            Part::Output => &self.output,
        }
    }
}

/// The shape of a call.
struct Shape {
    /// The instance.
    id: u64,
    max_rows: u64,
    /// Group numbers stand before the input.
    groups: bool,
    input: Option<Part>,
    output: Part,
}

impl Shape {
    fn without_rows(id: u64) -> Shape {
        Shape {
            id,
            max_rows: 0,
            groups: false,
            input: None,
            output: Part::Nothing,
        }
    }
}

/// The arguments of a call.
struct Arguments {
    inst: *mut c_void,
    call: *const ffi::Call,
    n_groups: u32,
    groups: *const u32,
    /// NULL if there is none.
    input: *mut ArrowArray,
    out: *mut ArrowArray,
    error: *mut ErrorOut,
}

impl Server {
    /// A call of `process` or `finish`; with what is left of its output.
    pub(super) fn rows(
        &mut self,
        is_process: bool,
        body: &mut Reader<'_>,
        done: &mut Done,
    ) -> Result<Option<Vec<u8>>, Broken> {
        let (id, max_rows) = (body.u64()?, body.u64()?);
        let kind = self.bound_of(id)?.vtable.stage.kind;
        let shape = Shape {
            id,
            max_rows,
            groups: false,
            input: (is_process && kind != ffi::KIND_SOURCE).then_some(Part::Input),
            output: Part::Output,
        };
        self.call(&shape, body, done, |bound, with| {
            let Arguments {
                inst,
                call,
                input,
                out,
                error,
                ..
            } = *with;
            let (process, finish) = (bound.vtable.process, bound.vtable.stage.finish);
            // SAFETY: `create` made `inst`; the host calls no instance again that may only be destroyed; the other arguments are valid
            // for the call; the functions keep to the header, or this process is lost.
            unsafe {
                match is_process {
                    true => Ok(process.ok_or(Broken)?(inst, call, input, out, error)),
                    false => Ok(finish.ok_or(Broken)?(inst, call, out, error)),
                }
            }
        })
    }

    /// A call of a sink's `publish`.
    pub(super) fn publish(&mut self, body: &mut Reader<'_>, done: &mut Done) -> Result<ffi::Published, Broken> {
        let shape = Shape::without_rows(body.u64()?);
        let mut published = ffi::Published::EMPTY;
        let into = &raw mut published;
        self.call(&shape, body, done, |bound, with| {
            let publish = sink::publish_of(bound.vtable.stage).ok().flatten().ok_or(Broken)?;
            // SAFETY: as above.
            Ok(unsafe { publish(with.inst, with.call, into, with.error) })
        })?;
        Ok(published)
    }

    /// A call of `snapshot`, and where what it wrote lies.
    pub(super) fn snapshot(&mut self, body: &mut Reader<'_>, done: &mut Done) -> Result<(u64, u64), Broken> {
        let shape = Shape::without_rows(body.u64()?);
        let mut bytes: Vec<u8> = vec![];
        let into = &raw mut bytes;
        self.call(&shape, body, done, |bound, with| {
            let snapshot = bound.vtable.stage.snapshot.ok_or(Broken)?;
            // SAFETY: as above; `write` gets what it writes to.
            Ok(unsafe { snapshot(with.inst, with.call, write, into.cast(), with.error) })
        })?;
        let at = Giving(&self.region).put(&bytes).unwrap_or_else(|_| {
            if done.is_well() {
                (done.status, done.error, done.refused) = (ffi::E_MEMORY, error_of("", ""), true);
            }
            0
        });
        Ok((at, bytes.len() as u64))
    }

    /// A call of `restore`.
    pub(super) fn restore(&mut self, body: &mut Reader<'_>, done: &mut Done) -> Result<(), Broken> {
        let shape = Shape::without_rows(body.u64()?);
        let (version, at) = (body.u32()?, body.u64()?);
        let len = usize::try_from(body.u64()?).map_err(|_| Broken)?;
        let (region, arena) = (&self.region, &self.arena);
        let from = Taking { region, arena }.load(at, len).map_err(|_| Broken)?;
        self.call(&shape, body, done, |bound, with| {
            let restore = bound.vtable.stage.restore.ok_or(Broken)?;
            // SAFETY: as above; the bytes are there for the call.
            Ok(unsafe { restore(with.inst, with.call, version, from, len, with.error) })
        })?;
        Ok(())
    }

    /// A call of an aggregate's; with what it gave.
    pub(super) fn aggregate(
        &mut self,
        kind: u8,
        body: &mut Reader<'_>,
        done: &mut Done,
    ) -> Result<Option<Vec<u8>>, Broken> {
        let id = body.u64()?;
        let groups = match kind {
            ask::ROOM | ask::ROOM_TO_MERGE => body.u32()?,
            _ => 0,
        };
        let shape = Shape {
            groups: matches!(kind, ask::UPDATE | ask::MERGE | ask::STATE | ask::FINALIZE),
            input: match kind {
                ask::ROOM | ask::UPDATE => Some(Part::Input),
                ask::ROOM_TO_MERGE | ask::MERGE => Some(Part::State),
                _ => None,
            },
            output: match kind {
                ask::STATE => Part::State,
                ask::FINALIZE => Part::Output,
                _ => Part::Nothing,
            },
            ..Shape::without_rows(id)
        };
        self.call(&shape, body, done, |bound, with| {
            let table = bound.table.ok_or(Broken)?;
            let Arguments {
                inst,
                call,
                n_groups,
                groups: listed,
                input,
                out,
                error,
            } = *with;
            // SAFETY: as above.
            Ok(unsafe {
                match kind {
                    ask::ROOM => table.room.ok_or(Broken)?(inst, call, groups, input, error),
                    ask::ROOM_TO_MERGE => table.room_to_merge.ok_or(Broken)?(inst, call, groups, input, error),
                    ask::UPDATE => (table.update)(inst, call, listed, input, error),
                    ask::MERGE => (table.merge)(inst, call, listed, input, error),
                    ask::STATE => (table.state)(inst, call, n_groups, listed, out, error),
                    ask::FINALIZE => (table.finalize)(inst, call, n_groups, listed, out, error),
                    _ => {
                        (table.clear)(inst);
                        ffi::OK
                    }
                }
            })
        })
    }

    fn bound_of(&self, id: u64) -> Result<&Bound, Broken> {
        let (_, bound) = self.objects.get(&id).ok_or(Broken)?;
        self.bounds.get(bound).ok_or(Broken)
    }

    /// A call of an instance; with what is left of its output.
    fn call(
        &mut self,
        shape: &Shape,
        body: &mut Reader<'_>,
        done: &mut Done,
        run: impl FnOnce(&Bound, &Arguments) -> Result<Status, Broken>,
    ) -> Result<Option<Vec<u8>>, Broken> {
        self.arena.reset();
        self.region.reset();
        let (object, bound) = self.objects.get_mut(&shape.id).ok_or(Broken)?;
        let bound = self.bounds.get(bound).ok_or(Broken)?;
        let (arena, region) = (&self.arena, &self.region);
        let failed = |error: Error| match error {
            Error::Failed { message, .. } => message,
            other => other.to_string(),
        };
        let (mut groups, mut n_groups) = (std::ptr::null(), 0);
        if shape.groups {
            let at = body.u64()?;
            n_groups = body.u32()?;
            let bytes = n_groups as usize * size_of::<u32>();
            groups = Taking { region, arena }.load(at, bytes).map_err(|_| Broken)?;
        }
        let mut lent = None;
        if let Some(part) = shape.input {
            let rows = bound.part(part);
            let array = arrays::read(body, &rows.types, &mut Taking { region, arena }).map_err(|_| Broken)?;
            let importer = Importer {
                arena,
                lent: None,
                arena_release: None,
                all_lasting: true,
            };
            // SAFETY: the host wrote the array, of these types and normalised; it stays where it is until the arena is reset.
            let columns = unsafe { importer.columns(&array, &rows.fields) };
            let len = array.length as usize;
            let made = columns.and_then(|columns| Lent::new(columns, &rows.types, len, arena, &object.lease));
            match made {
                Ok(made) => lent = Some(made),
                Err(error) => {
                    done.complaint = Some(failed(error));
                    return Ok(None);
                }
            }
        }
        let mut remote = Remote {
            link: &self.link,
            region,
            arena,
            output: bound.part(shape.output),
            may_emit: bound.table.is_none(),
            lent: lent.as_ref(),
            complaint: None,
            refused: false,
            dropped: false,
            is_source: bound.vtable.stage.kind == ffi::KIND_SOURCE,
        };
        let mut call = object.call();
        call.max_rows = shape.max_rows;
        let (mut out, mut error) = (ArrowArray::EMPTY, ErrorOut::EMPTY);
        let mut input = lent.as_ref().map(|lent| lent.array);
        // SAFETY: both stay where they are, and nobody else uses `remote`, until the guard is dropped.
        let entered = unsafe { Entered::new(&raw const call, &raw mut remote) };
        let status = run(
            bound,
            &Arguments {
                inst: object.inst,
                call: &raw const call,
                n_groups,
                groups: groups.cast(),
                input: input.as_mut().map_or(std::ptr::null_mut(), |input| &raw mut *input),
                out: &raw mut out,
                error: &raw mut error,
            },
        )?;
        drop(entered);
        let mut output = None;
        if status >= 0 && remote.complaint.is_none() && out.release.is_some() {
            // SAFETY: the call filled it, as the header says.
            match unsafe { remote.written(&out) } {
                Ok(body) => output = Some(body.0),
                Err(Stopped::NoRoom) => (remote.refused, remote.dropped) = (true, true),
                Err(_) => {}
            }
        }
        // SAFETY: the call filled it, or left it released.
        unsafe { release(&mut out) }
        let Remote {
            complaint,
            refused,
            dropped,
            ..
        } = remote;
        (done.status, done.error, done.complaint, done.refused) = (status, error, complaint, refused);
        if dropped && status >= 0 && done.complaint.is_none() {
            // Rows that it gave found no room.
            (done.status, done.error) = (ffi::E_MEMORY, error_of("", ""));
        }
        if let (Some(lent), Some(input)) = (&lent, input)
            && let Err(error) = lent.take_back(input)
        {
            done.complaint = done.complaint.take().or(Some(failed(error)));
            done.error.flags |= ffi::ERR_POISONED;
        }
        Ok(output)
    }
}

/// What a call stands for here.
struct Remote<'r, 'a> {
    link: &'r Link,
    region: &'r Region,
    arena: &'a Arena,
    output: &'r Rows,
    /// An aggregate has nothing to emit, and is told so.
    may_emit: bool,
    lent: Option<&'r Lent<'r, 'a>>,
    /// What the plugin does wrong: the call is to end.
    complaint: Option<String>,
    /// There was no room for what it gives, or might have given.
    refused: bool,
    /// What it gave found no room.
    dropped: bool,
    is_source: bool,
}

impl Remote<'_, '_> {
    /// An array as the host reads it.
    ///
    /// # Safety
    /// As [`Importer::columns`] has it.
    unsafe fn written(&mut self, array: &ArrowArray) -> Result<Writer, Stopped> {
        let importer = Importer {
            arena: self.arena,
            lent: self.lent,
            arena_release: Some(host::host().arena_release),
            all_lasting: false,
        };
        // SAFETY: the caller's promise; what is marked as ours is the region's memory, which stays until the next call.
        let columns = unsafe { importer.columns(array, &self.output.fields) };
        let rows = array.length as usize;
        let types: Vec<&Type> = self.output.types.iter().collect();
        let normal = columns.and_then(|columns| lend::give(columns, &types, rows, self.arena, lend::release_marked));
        let normal = match normal {
            Ok(normal) => normal,
            Err(Error::Failed { message, .. }) => {
                self.complaint = Some(message);
                return Err(Stopped::Broken);
            }
            Err(_) => return Err(Stopped::NoRoom),
        };
        let mut body = Writer::default();
        // SAFETY: `give` made it of columns of these types.
        unsafe { arrays::write(&normal, &self.output.types, &mut body, &mut Giving(self.region))? }
        if body.0.len() > LONGEST_BODY {
            self.complaint = Some("it gives more columns than can be told to another process".into());
            return Err(Stopped::Broken);
        }
        Ok(body)
    }
}

impl Service for Remote<'_, '_> {
    fn alloc(&mut self, size: usize) -> *mut c_void {
        match self.region.alloc(size) {
            Some(at) => self.region.at(at).cast(),
            None => {
                self.refused = true;
                std::ptr::null_mut()
            }
        }
    }

    unsafe fn emit(&mut self, array: &mut ArrowArray) -> Status {
        if !self.may_emit {
            // SAFETY: the caller's promise.
            unsafe { release(array) }
            return ffi::E_UNSUPPORTED;
        }
        let written = match &self.complaint {
            Some(_) => Err(Stopped::Broken),
            // SAFETY: the caller's promise.
            None => unsafe { self.written(array) },
        };
        // SAFETY: the caller's promise.
        unsafe { release(array) }
        match written {
            Ok(body) => self.link.asked(tell::EMIT, &body.0),
            Err(Stopped::NoRoom) => {
                self.refused = true;
                // A source still has what it could not give.
                self.dropped |= !self.is_source;
                ffi::E_MEMORY
            }
            Err(_) => ffi::E_CANCELLED,
        }
    }

    fn reject(&mut self, row: i64, column: i32, code: &[u8], message: &[u8]) -> Status {
        let mut body = Writer::default();
        // Both together fit into a frame.
        let cut = |text: &[u8]| text.len().min(LONGEST_BODY / 4);
        body.u64(row as u64).i32(column);
        body.bytes(&code[..cut(code)]).bytes(&message[..cut(message)]);
        self.link.asked(tell::REJECT, &body.0)
    }

    fn panicked(&mut self, _: Box<dyn Any + Send>) {
        self.complaint = Some("a service of its host panicked".into());
    }
}
