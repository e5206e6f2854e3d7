//! Drives a case of an aggregate through the states that stages keep, and says what came out.

use super::super::super::aggregate::Bounded;
use super::super::Case;
use super::super::drive::said;
use super::super::spy::{self, Refuse};
use super::{GROUPS, ROOM};
use standpipe_sdk::aggregate::{Aggregate, Input, OfRun, RowOrder, States};
use standpipe_sdk::{
    Arena, Batch, Bits, Budget, Column, Error, Reservation, Result, Schema, Span, Type, Value, ffi, values,
};

/// How rows are given.
#[derive(Clone, Copy)]
pub(super) struct Way {
    /// Rows of a batch.
    pub(super) size: usize,
    /// States that the batches are dealt to, and that are put together in the end; from the last to the first if backwards.
    pub(super) parts: usize,
    pub(super) backwards: bool,
    /// Rows come from the last to the first.
    pub(super) rows_backwards: bool,
    pub(super) poison: bool,
    /// Batches are pieces of longer ones, whose other rows do not count.
    pub(super) sliced: bool,
    /// States go through their columns behind each batch.
    pub(super) through: bool,
}

impl Way {
    pub(super) const PLAIN: Way = Way {
        size: 16,
        parts: 1,
        backwards: false,
        rows_backwards: false,
        poison: false,
        sliced: false,
        through: false,
    };
}

/// What came out.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Ran {
    /// By group.
    pub(super) values: Vec<String>,
    pub(super) rejects: Vec<String>,
    pub(super) gave_up: Option<String>,
}

impl Ran {
    pub(super) fn must_be(&self, other: &Ran, how: &str) -> Result<(), String> {
        if let Some(at) =
            (0..self.values.len().max(other.values.len())).find(|&at| self.values.get(at) != other.values.get(at))
        {
            let shown = |ran: &Ran| {
                ran.values
                    .get(at)
                    .map_or("nothing", String::as_str)
                    .chars()
                    .take(120)
                    .collect::<String>()
            };
            return Err(format!(
                "{how}: group {at} is {}, and was {}",
                shown(other),
                shown(self)
            ));
        }
        if self.rejects != other.rejects {
            let (want, got) = (self.rejects.join("; "), other.rejects.join("; "));
            return Err(format!("{how}: it rejects `{got}`, and rejected `{want}`"));
        }
        if self.gave_up.is_some() != other.gave_up.is_some() {
            return Err(format!("{how}: it ends in another way"));
        }
        Ok(())
    }
}

/// A bound aggregate.
pub(super) struct Trial<'c> {
    pub(super) case: &'c Case,
    pub(super) bounded: Bounded,
    /// The arguments that are columns.
    pub(super) columns: Schema,
}

/// States, and the memory that they are made with.
pub(super) struct Kept {
    pub(super) states: Box<dyn States>,
    pub(super) reservation: Reservation,
}

impl<'c> Trial<'c> {
    pub(super) fn new(case: &'c Case) -> Result<Trial<'c>, String> {
        let Some(aggregated) = &case.aggregate else {
            return Err("it is no aggregate".into());
        };
        let (vtable, table) = (spy::on(case.vtable), spy::table_on(aggregated.table));
        let bounded = Bounded::new(
            vtable,
            table,
            &case.input,
            aggregated.columns,
            &case.config,
            Span::default(),
        );
        let bounded = bounded.map_err(|refused| refused.message)?;
        let columns: Schema = case.input.fields().iter().take(aggregated.columns).cloned().collect();
        let types: Vec<Type> = columns.fields().iter().map(|field| field.ty.clone()).collect();
        let state = bounded.state().fields().iter().map(|field| field.ty.clone()).collect();
        spy::columns_of(&types, state, bounded.output().ty.clone());
        Ok(Trial { case, bounded, columns })
    }

    /// The rows of the example, then made ones; none with a null.
    pub(super) fn rows(&self, made: usize) -> Vec<Vec<Value>> {
        let columns = self.columns.width();
        let mut rows = self.case.rows(made);
        rows.iter_mut().for_each(|row| row.truncate(columns));
        rows.retain(|row| !row.contains(&Value::Null));
        rows
    }

    pub(super) fn kept(&self) -> Kept {
        Kept {
            states: self.bounded.states(&OfRun::without_end(8 << 20)),
            reservation: Budget::new(ROOM).reserve(),
        }
    }

    /// Gives it rows, row i to group i modulo [`GROUPS`]. What the host does not believe, a panic, memory that is not its own is an
    /// error.
    pub(super) fn run(&self, rows: &[Vec<Value>], way: Way) -> Result<Ran, String> {
        spy::refuse(Refuse::Nothing);
        self.run_with(rows, way)
    }

    pub(super) fn run_with(&self, rows: &[Vec<Value>], way: Way) -> Result<Ran, String> {
        let outcome = self.tried(rows, way);
        let ran = match outcome {
            Ok(ran) => ran,
            Err(error) => match own_words(&error) {
                Some(words) => Ran {
                    gave_up: Some(words),
                    ..Ran::default()
                },
                None => return Err(spy::fault().unwrap_or_else(|| said(&error))),
            },
        };
        spy::fault().map_or(Ok(ran), Err)
    }

    pub(super) fn tried(&self, rows: &[Vec<Value>], way: Way) -> Result<Ran> {
        if way.poison {
            self.bounded.bind().poison();
        }
        let mut numbered: Vec<(u32, Vec<Value>)> = rows
            .iter()
            .enumerate()
            .map(|(at, row)| ((at % GROUPS) as u32, row.clone()))
            .collect();
        if way.rows_backwards {
            numbered.reverse();
        }
        let mut all: Vec<Kept> = (0..way.parts.max(1)).map(|_| self.kept()).collect();
        let mut data = Arena::new(ROOM);
        data.set_poison(way.poison);
        let parts = all.len();
        for (at, part) in numbered.chunks(way.size.clamp(1, numbered.len().max(1))).enumerate() {
            self.give(&mut all[at % parts], part, way, &data)?;
            data.reset();
            if way.through {
                let fresh = self.through(&mut all[at % parts], &data)?;
                all[at % parts] = fresh;
                data.reset();
            }
        }
        if way.backwards {
            all.reverse();
        }
        // Groups without rows have states as well.
        for kept in &mut all {
            self.give(kept, &[], way, &data)?;
        }
        let mut all = all.into_iter();
        let mut whole = all.next().unwrap_or_else(|| self.kept());
        for mut other in all {
            self.join(&mut other, &mut whole, &data)?;
            data.reset();
        }
        self.finished(&mut whole, &data)
    }

    /// Updates with one batch; what is refused is asked for once more.
    pub(super) fn give(&self, kept: &mut Kept, rows: &[(u32, Vec<Value>)], way: Way, data: &Arena) -> Result<()> {
        let own = |rows: &[(u32, Vec<Value>)]| rows.iter().map(|(_, row)| row.clone()).collect::<Vec<_>>();
        let around = match way.sliced {
            true => own(&rows[..rows.len().min(3)]),
            false => vec![],
        };
        let longer: Vec<Vec<Value>> = around
            .iter()
            .cloned()
            .chain(own(rows))
            .chain(around.iter().cloned())
            .collect();
        let batch = values::batch(&self.columns, &longer, data)?;
        let whole: Batch<'_> = match way.sliced {
            // From the second row on: what stands around the rows is there, and does not count.
            true if !around.is_empty() => batch.slice(1, longer.len() - 1, data)?,
            _ => batch,
        };
        let before = around.len().saturating_sub(1);
        let mut groups = vec![0u32; whole.rows()];
        for (at, (group, _)) in rows.iter().enumerate() {
            groups[before + at] = *group;
        }
        let take = match around.is_empty() {
            true => None,
            false => Some(Bits::collect(data, whole.rows(), |row| {
                (before..before + rows.len()).contains(&row)
            })?),
        };
        let input = Input {
            columns: whole.columns(),
            rows: whole.rows(),
            take,
            order: RowOrder::default(),
        };
        let seen = values::rows(&whole, &self.columns);
        twice(|| kept.states.room(GROUPS, &input, &mut kept.reservation))?;
        kept.states.update(&groups, &input);
        if format!("{seen:?}") != format!("{:?}", values::rows(&whole, &self.columns)) {
            return Err(Error::failed(
                ffi::PLUGIN_FAILED,
                "it changes the input that is only lent",
            ));
        }
        kept.states.seal(&mut kept.reservation)
    }

    /// New states with what these are.
    pub(super) fn through(&self, kept: &mut Kept, data: &Arena) -> Result<Kept> {
        let mut fresh = self.kept();
        self.join(kept, &mut fresh, data)?;
        Ok(fresh)
    }

    /// Puts the states of all groups into the other ones.
    pub(super) fn join(&self, from: &mut Kept, to: &mut Kept, data: &Arena) -> Result<()> {
        let groups: Vec<u32> = (0..GROUPS as u32).collect();
        from.states.seal(&mut from.reservation)?;
        let partial: &[Column<'_>] = twice(|| from.states.partial(&groups, data))?;
        twice(|| to.states.room_to_merge(GROUPS, partial, &mut to.reservation))?;
        to.states.merge(&groups, partial);
        to.states.seal(&mut to.reservation)?;
        from.states.release(&mut from.reservation);
        Ok(())
    }

    pub(super) fn finished(&self, kept: &mut Kept, data: &Arena) -> Result<Ran> {
        let groups: Vec<u32> = (0..GROUPS as u32).collect();
        kept.states.seal(&mut kept.reservation)?;
        let mut ran = Ran::default();
        let column = twice(|| {
            ran.rejects.clear();
            kept.states.finish(&groups, data, &mut |group, _, words| {
                ran.rejects.push(format!("group {group}: {words}"));
                Ok(())
            })
        })?;
        let ty = &self.bounded.output().ty;
        ran.values = (0..column.len())
            .map(|row| format!("{:?}", Value::of(column.cell(row), ty)))
            .collect();
        kept.states.release(&mut kept.reservation);
        if kept.reservation.bytes() > 0 {
            let what = format!("{} bytes stay reserved for no groups", kept.reservation.bytes());
            return Err(Error::failed(ffi::PLUGIN_FAILED, what));
        }
        Ok(ran)
    }
}

/// Once more where memory was refused because a check wanted it so: then it is there.
pub(super) fn twice<T>(mut f: impl FnMut() -> Result<T>) -> Result<T> {
    match f() {
        Err(Error::Memory { .. }) if spy::has_refused() => {
            spy::refuse_no_more();
            f()
        }
        outcome => outcome,
    }
}

/// What an aggregate says that gives up, rather than the host about it.
pub(super) fn own_words(error: &Error) -> Option<String> {
    let status = spy::status();
    let gives_up = status < 0 && status != ffi::E_PANIC && status != ffi::E_INTERNAL && status != ffi::E_CANCELLED;
    gives_up.then(|| said(error))
}
