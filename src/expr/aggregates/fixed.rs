//! Aggregates whose states have a fixed size: one array of them.

use standpipe_sdk::aggregate::{Aggregate, Input, OfRun, OnFault, ResultNulls, States, Step};
use standpipe_sdk::budget::Reservation;
use standpipe_sdk::{Arena, Bits, Column, Columns, Data, Field, Result, Schema, Type};

/// States of fewer bytes than this are in the processor's cache anyway.
const CACHE: usize = 32 << 10;

/// What one aggregate does with its states.
pub(super) trait Fixed: Clone + Send + Sync + 'static {
    /// The default is the state of no values.
    type State: Copy + Default + Send + Sync;

    /// Whether what comes out depends on the order of the rows.
    const ORDERED: bool = false;

    /// The types of a partial state's columns.
    fn columns(&self) -> Vec<Type>;

    /// Reads as much of a state as it takes to have all of it in the processor's cache.
    fn touch(state: &Self::State) -> u64;

    /// Row `r` goes to `states[groups[r]]`: one loop.
    fn update(&self, states: &mut [Self::State], groups: &[u32], input: &Input<'_>);

    /// Partial state `r` goes to `states[groups[r]]`.
    fn merge(&self, states: &mut [Self::State], groups: &[u32], partial: &[Column<'_>]);

    /// What `from` was made of goes to `state` too.
    fn join(&self, state: &mut Self::State, from: &Self::State);

    /// The columns of `states[groups[..]]`.
    fn partial<'a>(
        &self,
        states: &[Self::State],
        groups: &[u32],
        arena: &'a Arena,
        out: &mut Columns<'a>,
    ) -> Result<()>;

    /// The values of `states[groups[..]]`.
    fn finish<'a>(
        &self,
        states: &[Self::State],
        groups: &[u32],
        arena: &'a Arena,
        fault: OnFault<'_>,
    ) -> Result<Column<'a>>;
}

/// An aggregate of that kind.
pub(super) struct Plain<F> {
    pub(super) name: &'static str,
    pub(super) ty: Type,
    pub(super) nulls: ResultNulls,
    pub(super) fallible: bool,
    pub(super) fixed: F,
}

impl<F: Fixed> Aggregate for Plain<F> {
    fn name(&self) -> &str {
        self.name
    }

    fn ty(&self) -> &Type {
        &self.ty
    }

    fn nulls(&self) -> ResultNulls {
        self.nulls
    }

    fn fallible(&self) -> bool {
        self.fallible
    }

    fn ordered(&self) -> bool {
        F::ORDERED
    }

    fn partial(&self) -> Schema {
        schema(self.fixed.columns())
    }

    fn states(&self, _: &OfRun) -> Box<dyn States> {
        Box::new(Array {
            fixed: self.fixed.clone(),
            states: vec![],
        })
    }
}

/// A schema of columns that nobody names.
pub(super) fn schema(types: Vec<Type>) -> Schema {
    let fields = types.into_iter().enumerate();
    fields.map(|(at, ty)| Field::new(format!("{at}"), ty, true)).collect()
}

struct Array<F: Fixed> {
    fixed: F,
    states: Vec<F::State>,
}

impl<F: Fixed> Array<F> {
    /// Brings these states into the processor's cache. Loads that hang on nothing are waited for together; those of a loop that
    /// works on each state would be waited for one after the other.
    fn touch(&self, groups: &[u32]) {
        if self.states.len() * size_of::<F::State>() > CACHE {
            let touched = groups
                .iter()
                .fold(0, |sum, &group| sum ^ F::touch(&self.states[group as usize]));
            std::hint::black_box(touched);
        }
    }

    fn room_for(&mut self, groups: usize, reservation: &mut Reservation) -> Result<()> {
        let more = groups.saturating_sub(self.states.len());
        reservation.room(&mut self.states, more)?;
        self.states.resize(groups.max(self.states.len()), F::State::default());
        Ok(())
    }
}

impl<F: Fixed> States for Array<F> {
    fn takes_steps(&self) -> bool {
        true
    }

    fn steps(&mut self, steps: &[Step]) {
        let states = &mut self.states;
        for step in steps {
            match *step {
                Step::Clear(group) => states[group as usize] = F::State::default(),
                Step::Copy(to, from) => states[to as usize] = states[from as usize],
                Step::Join(to, from) => {
                    let from = states[from as usize];
                    self.fixed.join(&mut states[to as usize], &from);
                }
            }
        }
    }

    fn room(&mut self, groups: usize, _: &Input<'_>, reservation: &mut Reservation) -> Result<()> {
        self.room_for(groups, reservation)
    }

    fn update(&mut self, groups: &[u32], input: &Input<'_>) {
        if self.states.len() * size_of::<F::State>() > CACHE {
            // Loads that hang on nothing are waited for together; those of the loop below would be one after the other.
            let touched = groups
                .iter()
                .fold(0, |sum, &group| sum ^ F::touch(&self.states[group as usize]));
            std::hint::black_box(touched);
        }
        self.fixed.update(&mut self.states, groups, input);
    }

    fn room_to_merge(&mut self, groups: usize, _: &[Column<'_>], reservation: &mut Reservation) -> Result<()> {
        self.room_for(groups, reservation)
    }

    fn merge(&mut self, groups: &[u32], partial: &[Column<'_>]) {
        self.fixed.merge(&mut self.states, groups, partial);
    }

    fn seal(&mut self, _: &mut Reservation) -> Result<()> {
        Ok(())
    }

    fn partial<'a>(&self, groups: &[u32], arena: &'a Arena) -> Result<&'a [Column<'a>]> {
        let mut out = Columns::new(arena, self.fixed.columns().len())?;
        self.fixed.partial(&self.states, groups, arena, &mut out)?;
        Ok(out.finish())
    }

    fn finish<'a>(&self, groups: &[u32], arena: &'a Arena, fault: OnFault<'_>) -> Result<Column<'a>> {
        self.touch(groups);
        self.fixed.finish(&self.states, groups, arena, fault)
    }

    fn clear(&mut self) {
        self.states.clear();
    }

    fn release(&mut self, reservation: &mut Reservation) {
        reservation.free(&mut self.states);
    }
}

/// Values that may be missing, as values and their validity.
pub(super) fn optional<'a, T: Copy + Default>(
    arena: &'a Arena,
    rows: usize,
    mut f: impl FnMut(usize) -> Result<Option<T>>,
) -> Result<(&'a [T], Option<Bits<'a>>)> {
    let marks = arena.fill(rows.div_ceil(64), 0u64)?;
    let mut error = None;
    let mut nulls = 0;
    let values = arena.collect(rows, |row| match f(row) {
        Ok(Some(value)) => {
            marks[row / 64] |= 1 << (row % 64);
            value
        }
        Ok(None) => {
            nulls += 1;
            T::default()
        }
        Err(failed) => {
            error.get_or_insert(failed);
            T::default()
        }
    })?;
    match error {
        Some(error) => Err(error),
        None => Ok((values, (nulls > 0).then(|| Bits::new(marks, rows)))),
    }
}

/// A column of ints made of each state.
pub(super) fn ints<'a, S: Copy>(
    states: &[S],
    groups: &[u32],
    arena: &'a Arena,
    f: impl Fn(S) -> i64,
) -> Result<Column<'a>> {
    Ok(Column::int(
        arena.collect(groups.len(), |i| f(states[groups[i] as usize]))?,
        None,
    ))
}

/// A column of 128-bit numbers made of each state.
pub(super) fn wides<'a, S: Copy>(
    states: &[S],
    groups: &[u32],
    arena: &'a Arena,
    f: impl Fn(S) -> i128,
) -> Result<Column<'a>> {
    let values = arena.collect(groups.len(), |i| f(states[groups[i] as usize]))?;
    Ok(Column::new(Data::Decimal(values), None, groups.len()))
}

/// The type of [`wides`].
pub(super) const WIDE: Type = Type::Decimal {
    precision: 38,
    scale: 0,
};

/// Column `index` of a partial state as ints.
pub(super) fn int_column<'a>(partial: &[Column<'a>], index: usize) -> &'a [i64] {
    match partial.get(index).map(Column::data) {
        Some(Data::Int(values)) => values,
        _ => &[],
    }
}

/// Column `index` of a partial state as 128-bit numbers.
pub(super) fn wide_column<'a>(partial: &[Column<'a>], index: usize) -> &'a [i128] {
    match partial.get(index).map(Column::data) {
        Some(Data::Decimal(values)) => values,
        _ => &[],
    }
}
