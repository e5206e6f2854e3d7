//! `min`, `max`, `first`, `last`: one value of the group.

use super::fixed::{Fixed, Plain, WIDE, int_column, ints, wide_column, wides};
use super::store::{self, Form, Item};
use crate::expr::aggregate::{AggregateSpec, Bound, Example};
use crate::expr::{Given, ParamSpec, Pattern};
use standpipe_sdk::aggregate::{Aggregate, Input, OfRun, OnFault, ResultNulls, States, Step};
use standpipe_sdk::budget::Reservation;
use standpipe_sdk::{Arena, Bits, Column, Columns, Data, Result, Schema, Type};
use std::sync::Arc;

pub(super) const AGGREGATES: &[AggregateSpec] = &[
    AggregateSpec {
        name: "min",
        about: "The smallest value.",
        params: &[ParamSpec::new("x", Pattern::Ordered)],
        returns: "same",
        examples: &[Example::new(r#"[{v: "b"}, {v: "a"}, {v: null}]"#, "min(v)", r#""a""#)],
        bind: min,
        ..AggregateSpec::BASE
    },
    AggregateSpec {
        name: "max",
        about: "The largest value; nan is larger than any number.",
        params: &[ParamSpec::new("x", Pattern::Ordered)],
        returns: "same",
        examples: &[
            Example::new("[{v: 1}, {v: 7}, {v: null}]", "max(v)", "7"),
            Example::new("[{v: 1}, {v: 7}]", "max(v) - min(v)", "6"),
        ],
        bind: max,
        ..AggregateSpec::BASE
    },
    AggregateSpec {
        name: "first",
        about: "The first value in input order.",
        params: &[ParamSpec::new("x", Pattern::Any)],
        returns: "same",
        examples: &[Example::new("[{v: null}, {v: 7}, {v: 1}]", "first(v)", "7")],
        bind: first,
        ..AggregateSpec::BASE
    },
    AggregateSpec {
        name: "last",
        about: "The last value in input order.",
        params: &[ParamSpec::new("x", Pattern::Any)],
        returns: "same",
        examples: &[Example::new("[{v: 7}, {v: 1}, {v: null}]", "last(v)", "1")],
        bind: last,
        ..AggregateSpec::BASE
    },
];

/// Which value wins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pick {
    Min,
    Max,
    First,
    Last,
}

impl Pick {
    fn by_value(self) -> bool {
        matches!(self, Pick::Min | Pick::Max)
    }

    /// Whether the new one wins, both of a group that has a value.
    #[inline]
    fn wins<T: Ord + ?Sized>(self, new: &T, old: &T) -> bool {
        match self {
            Pick::Min | Pick::First => new < old,
            Pick::Max | Pick::Last => new > old,
        }
    }
}

fn min(given: &[Given<'_>]) -> Bound {
    Ok(bind("min", Pick::Min, given))
}

fn max(given: &[Given<'_>]) -> Bound {
    Ok(bind("max", Pick::Max, given))
}

fn first(given: &[Given<'_>]) -> Bound {
    Ok(bind("first", Pick::First, given))
}

fn last(given: &[Given<'_>]) -> Bound {
    Ok(bind("last", Pick::Last, given))
}

fn bind(name: &'static str, pick: Pick, given: &[Given<'_>]) -> Arc<dyn Aggregate> {
    let ty = given.first().map_or(Type::Null, |x| x.ty.clone());
    fn plain<F: Fixed>(name: &'static str, ty: Type, fixed: F) -> Arc<dyn Aggregate> {
        Arc::new(Plain {
            name,
            ty,
            nulls: ResultNulls::NoValues,
            fallible: false,
            fixed,
        })
    }
    match (Form::of(&ty), pick.by_value()) {
        (Form::Word, true) => plain(name, ty.clone(), WordByValue { pick, ty }),
        (Form::Word, false) => plain(name, ty.clone(), WordByOrder { pick, ty }),
        (Form::Wide, true) => plain(name, ty.clone(), WideByValue { pick, ty }),
        (form, _) => Arc::new(Kept { name, pick, ty, form }),
    }
}

/// Calls `$body` with `$get`, which gives a row's value as a word: one loop per type.
macro_rules! with_words {
    ($column:expr, $canonical:expr, |$get:ident| $body:expr) => {
        match $column.data() {
            Data::Int(values) | Data::Timestamp(values) | Data::Duration(values) => {
                let $get = |row: usize| store::int_word(values[row]);
                $body
            }
            Data::Float(values) => {
                let $get = |row: usize| store::float_word(values[row], $canonical);
                $body
            }
            Data::Date(values) => {
                let $get = |row: usize| store::int_word(i64::from(values[row]));
                $body
            }
            Data::Bool(values) => {
                let $get = |row: usize| u64::from(values.get(row));
                $body
            }
            _ => {}
        }
    };
}

/// The least or greatest of values of 64 bits.
#[derive(Clone)]
struct WordByValue {
    pick: Pick,
    ty: Type,
}

#[derive(Clone, Copy, Default)]
struct WordState {
    word: u64,
    seen: bool,
}

impl WordState {
    #[inline]
    fn offer(&mut self, pick: Pick, word: u64) {
        if !self.seen || pick.wins(&word, &self.word) {
            *self = WordState { word, seen: true };
        }
    }
}

impl Fixed for WordByValue {
    type State = WordState;

    fn columns(&self) -> Vec<Type> {
        vec![Type::Int, Type::Int]
    }

    fn touch(state: &WordState) -> u64 {
        state.word
    }

    fn update(&self, states: &mut [WordState], groups: &[u32], input: &Input<'_>) {
        let Some(column) = input.columns.first() else { return };
        with_words!(column, true, |word| match self.pick {
            Pick::Min => input.each(|row| states[groups[row] as usize].offer(Pick::Min, word(row))),
            _ => input.each(|row| states[groups[row] as usize].offer(Pick::Max, word(row))),
        });
    }

    fn merge(&self, states: &mut [WordState], groups: &[u32], partial: &[Column<'_>]) {
        let rows = int_column(partial, 0).iter().zip(int_column(partial, 1));
        for (&group, (&word, &seen)) in groups.iter().zip(rows) {
            if seen != 0 {
                states[group as usize].offer(self.pick, word as u64);
            }
        }
    }

    fn join(&self, state: &mut WordState, from: &WordState) {
        if from.seen {
            state.offer(self.pick, from.word);
        }
    }

    fn partial<'a>(&self, states: &[WordState], groups: &[u32], arena: &'a Arena, out: &mut Columns<'a>) -> Result<()> {
        out.push(ints(states, groups, arena, |state| state.word as i64)?);
        out.push(ints(states, groups, arena, |state| i64::from(state.seen))?);
        Ok(())
    }

    fn finish<'a>(&self, states: &[WordState], groups: &[u32], arena: &'a Arena, _: OnFault<'_>) -> Result<Column<'a>> {
        store::column(&self.ty, groups.len(), arena, |i| {
            let state = states[groups[i] as usize];
            state.seen.then_some(Item::Word(state.word))
        })
    }
}

/// The least or greatest of decimals.
#[derive(Clone)]
struct WideByValue {
    pick: Pick,
    ty: Type,
}

#[derive(Clone, Copy, Default)]
struct WideState {
    value: i128,
    seen: bool,
}

impl WideState {
    #[inline]
    fn offer(&mut self, pick: Pick, value: i128) {
        if !self.seen || pick.wins(&value, &self.value) {
            *self = WideState { value, seen: true };
        }
    }
}

impl Fixed for WideByValue {
    type State = WideState;

    fn columns(&self) -> Vec<Type> {
        vec![WIDE, Type::Int]
    }

    fn touch(state: &WideState) -> u64 {
        state.value as u64
    }

    fn update(&self, states: &mut [WideState], groups: &[u32], input: &Input<'_>) {
        if let Some(Data::Decimal(values)) = input.columns.first().map(Column::data) {
            input.each(|row| states[groups[row] as usize].offer(self.pick, values[row]));
        }
    }

    fn merge(&self, states: &mut [WideState], groups: &[u32], partial: &[Column<'_>]) {
        let rows = wide_column(partial, 0).iter().zip(int_column(partial, 1));
        for (&group, (&value, &seen)) in groups.iter().zip(rows) {
            if seen != 0 {
                states[group as usize].offer(self.pick, value);
            }
        }
    }

    fn join(&self, state: &mut WideState, from: &WideState) {
        if from.seen {
            state.offer(self.pick, from.value);
        }
    }

    fn partial<'a>(&self, states: &[WideState], groups: &[u32], arena: &'a Arena, out: &mut Columns<'a>) -> Result<()> {
        out.push(wides(states, groups, arena, |state| state.value)?);
        out.push(ints(states, groups, arena, |state| i64::from(state.seen))?);
        Ok(())
    }

    fn finish<'a>(&self, states: &[WideState], groups: &[u32], arena: &'a Arena, _: OnFault<'_>) -> Result<Column<'a>> {
        store::column(&self.ty, groups.len(), arena, |i| {
            let state = states[groups[i] as usize];
            state.seen.then_some(Item::Wide(state.value))
        })
    }
}

/// The first or last of values of 64 bits.
#[derive(Clone)]
struct WordByOrder {
    pick: Pick,
    ty: Type,
}

#[derive(Clone, Copy, Default)]
struct OrderState {
    word: u64,
    chunk: u64,
    row: u32,
    seen: bool,
}

impl OrderState {
    #[inline]
    fn offer(&mut self, pick: Pick, word: u64, (chunk, row): (u64, u32)) {
        if !self.seen || pick.wins(&(chunk, row), &(self.chunk, self.row)) {
            *self = OrderState {
                word,
                chunk,
                row,
                seen: true,
            };
        }
    }
}

impl Fixed for WordByOrder {
    type State = OrderState;

    const ORDERED: bool = true;

    fn columns(&self) -> Vec<Type> {
        vec![Type::Int; 4]
    }

    fn touch(state: &OrderState) -> u64 {
        state.word
    }

    fn update(&self, states: &mut [OrderState], groups: &[u32], input: &Input<'_>) {
        let Some(column) = input.columns.first() else { return };
        with_words!(column, false, |word| input.each(|row| {
            states[groups[row] as usize].offer(self.pick, word(row), input.order.of(row));
        }));
    }

    fn merge(&self, states: &mut [OrderState], groups: &[u32], partial: &[Column<'_>]) {
        let (words, chunks) = (int_column(partial, 0), int_column(partial, 1));
        let (rows, seen) = (int_column(partial, 2), int_column(partial, 3));
        for (at, &group) in groups.iter().enumerate() {
            if seen[at] != 0 {
                let order = (chunks[at] as u64, rows[at] as u32);
                states[group as usize].offer(self.pick, words[at] as u64, order);
            }
        }
    }

    fn join(&self, state: &mut OrderState, from: &OrderState) {
        if from.seen {
            state.offer(self.pick, from.word, (from.chunk, from.row));
        }
    }

    fn partial<'a>(
        &self,
        states: &[OrderState],
        groups: &[u32],
        arena: &'a Arena,
        out: &mut Columns<'a>,
    ) -> Result<()> {
        out.push(ints(states, groups, arena, |state| state.word as i64)?);
        out.push(ints(states, groups, arena, |state| state.chunk as i64)?);
        out.push(ints(states, groups, arena, |state| i64::from(state.row))?);
        out.push(ints(states, groups, arena, |state| i64::from(state.seen))?);
        Ok(())
    }

    fn finish<'a>(
        &self,
        states: &[OrderState],
        groups: &[u32],
        arena: &'a Arena,
        _: OnFault<'_>,
    ) -> Result<Column<'a>> {
        store::column(&self.ty, groups.len(), arena, |i| {
            let state = states[groups[i] as usize];
            state.seen.then_some(Item::Word(state.word))
        })
    }
}

/// Of texts, lists, records, and decimals by order: values of any length in one heap.
#[derive(Clone)]
struct Kept {
    name: &'static str,
    pick: Pick,
    ty: Type,
    form: Form,
}

impl Aggregate for Kept {
    fn name(&self) -> &str {
        self.name
    }

    fn ty(&self) -> &Type {
        &self.ty
    }

    fn nulls(&self) -> ResultNulls {
        ResultNulls::NoValues
    }

    fn fallible(&self) -> bool {
        false
    }

    fn ordered(&self) -> bool {
        !self.pick.by_value()
    }

    fn partial(&self) -> Schema {
        super::fixed::schema(vec![self.form.partial(), Type::Int, Type::Int, Type::Int])
    }

    fn states(&self, _: &OfRun) -> Box<dyn States> {
        Box::new(Heap {
            spec: self.clone(),
            states: vec![],
            bytes: vec![],
            unused: 0,
            shared: false,
            used: 0,
            scratch: vec![],
        })
    }
}

/// Values of any length; of those that were replaced the bytes stay until a quarter of all are such.
struct Heap {
    spec: Kept,
    states: Vec<HeapState>,
    bytes: Vec<u8>,
    unused: usize,
    /// Steps were taken: states may have their value in common. Then `unused` says nothing, and bytes that are used are found out
    /// once they have doubled.
    shared: bool,
    /// What was used when that was found out.
    used: usize,
    scratch: Vec<u8>,
}

#[derive(Clone, Copy, Default)]
struct HeapState {
    from: usize,
    len: usize,
    /// How many bytes the value may take where it is.
    room: usize,
    chunk: u64,
    row: u32,
    seen: bool,
}

impl Heap {
    fn room_for(&mut self, groups: usize, bytes: usize, reservation: &mut Reservation) -> Result<()> {
        let more = groups.saturating_sub(self.states.len());
        reservation.room(&mut self.states, more)?;
        if self.shared {
            if self.bytes.len() > 2 * self.used + (1 << 16) {
                self.compact_shared(bytes, reservation)?;
            }
        } else if self.unused > 1 << 12 && self.unused > self.bytes.len() / 2 {
            self.compact(bytes, reservation)?;
        }
        reservation.room(&mut self.bytes, bytes)?;
        self.states.resize(groups.max(self.states.len()), HeapState::default());
        Ok(())
    }

    /// Copies what is used, with room for `more` bytes.
    fn compact(&mut self, more: usize, reservation: &mut Reservation) -> Result<()> {
        let mut fresh: Vec<u8> = vec![];
        reservation.room_to(&mut fresh, self.bytes.len() - self.unused + more)?;
        for state in &mut self.states {
            let from = fresh.len();
            fresh.extend_from_slice(&self.bytes[state.from..state.from + state.len]);
            (state.from, state.room) = (from, state.len);
        }
        reservation.free(&mut self.bytes);
        self.bytes = fresh;
        self.unused = 0;
        Ok(())
    }

    /// The same where states have values in common: each is copied once.
    fn compact_shared(&mut self, more: usize, reservation: &mut Reservation) -> Result<()> {
        let mut order: Vec<u32> = vec![];
        reservation.room_to(&mut order, self.states.len())?;
        order.extend((0u32..).zip(&self.states).filter(|(_, s)| s.len > 0).map(|(at, _)| at));
        order.sort_unstable_by_key(|&at| (self.states[at as usize].from, self.states[at as usize].len));
        let span = |at: u32| (self.states[at as usize].from, self.states[at as usize].len);
        let used = order
            .chunk_by(|&a, &b| span(a) == span(b))
            .map(|same| span(same[0]).1)
            .sum::<usize>();
        let mut fresh: Vec<u8> = vec![];
        reservation.room_to(&mut fresh, used + more)?;
        for same in order.chunk_by(|&a, &b| span(a) == span(b)) {
            let (from, len) = span(same[0]);
            fresh.extend_from_slice(&self.bytes[from..from + len]);
        }
        let mut to = 0;
        let mut before = None;
        for &at in &order {
            let state = &mut self.states[at as usize];
            let span = (state.from, state.len);
            if let Some((_, len)) = before.filter(|&b| b != span) {
                to += len;
            }
            before = Some(span);
            (state.from, state.room) = (to, 0);
        }
        reservation.free(&mut order);
        reservation.free(&mut self.bytes);
        self.bytes = fresh;
        self.used = used;
        Ok(())
    }

    fn join(&mut self, to: u32, from: u32) {
        let other = self.states[from as usize];
        let state = self.states[to as usize];
        let pick = self.spec.pick;
        let bytes = |state: &HeapState| &self.bytes[state.from..state.from + state.len];
        let wins = other.seen
            && (!state.seen
                || match pick.by_value() {
                    true => pick.wins(bytes(&other), bytes(&state)),
                    false => pick.wins(&(other.chunk, other.row), &(state.chunk, state.row)),
                });
        if wins {
            self.states[to as usize] = HeapState { room: 0, ..other };
        }
    }

    fn offer(&mut self, group: u32, value: &[u8], order: (u64, u32)) {
        let state = &mut self.states[group as usize];
        let pick = self.spec.pick;
        let wins = !state.seen
            || match (pick.by_value(), self.spec.form) {
                (true, _) => pick.wins(value, &self.bytes[state.from..state.from + state.len]),
                (false, _) => pick.wins(&order, &(state.chunk, state.row)),
            };
        if !wins {
            return;
        }
        if value.len() <= state.room {
            if !self.shared {
                self.unused += state.len;
                self.unused -= value.len();
            }
            self.bytes[state.from..state.from + value.len()].copy_from_slice(value);
        } else {
            self.unused += state.len;
            state.from = self.bytes.len();
            state.room = value.len();
            self.bytes.extend_from_slice(value);
        }
        state.len = value.len();
        (state.chunk, state.row) = order;
        state.seen = true;
    }

    fn value(&self, group: u32) -> Option<Item<'_>> {
        let state = &self.states[group as usize];
        let bytes = &self.bytes[state.from..state.from + state.len];
        state.seen.then(|| match self.spec.form {
            Form::Wide => Item::Wide(i128::from_le_bytes(bytes.try_into().unwrap_or_default())),
            _ => Item::Bytes(bytes),
        })
    }
}

/// Calls `f` with the bytes of an item.
fn with_bytes(item: Item<'_>, f: impl FnOnce(&[u8])) {
    match item {
        Item::Bytes(bytes) => f(bytes),
        Item::Wide(value) => f(&value.to_le_bytes()),
        Item::Word(word) => f(&word.to_le_bytes()),
    }
}

impl States for Heap {
    fn takes_steps(&self) -> bool {
        true
    }

    fn steps(&mut self, steps: &[Step]) {
        self.shared = true;
        for step in steps {
            match *step {
                Step::Clear(group) => self.states[group as usize] = HeapState::default(),
                Step::Copy(to, from) => {
                    self.states[to as usize] = HeapState {
                        room: 0,
                        ..self.states[from as usize]
                    }
                }
                Step::Join(to, from) => self.join(to, from),
            }
        }
    }

    fn room(&mut self, groups: usize, input: &Input<'_>, reservation: &mut Reservation) -> Result<()> {
        let bytes = match (self.spec.form, input.columns.first()) {
            (_, None) => 0,
            (Form::Wide, _) => input.count() * size_of::<i128>(),
            (_, Some(column)) => store::bytes_of(column, false, |f| input.each(f)),
        };
        self.room_for(groups, bytes, reservation)
    }

    fn update(&mut self, groups: &[u32], input: &Input<'_>) {
        let Some(column) = input.columns.first() else { return };
        let mut scratch = std::mem::take(&mut self.scratch);
        input.each(|row| {
            let item = store::item(column, row, false, &mut scratch);
            with_bytes(item, |bytes| self.offer(groups[row], bytes, input.order.of(row)));
        });
        self.scratch = scratch;
    }

    fn room_to_merge(&mut self, groups: usize, partial: &[Column<'_>], reservation: &mut Reservation) -> Result<()> {
        let bytes = match (self.spec.form, partial.first()) {
            (_, None) => 0,
            (Form::Wide, Some(column)) => column.len() * size_of::<i128>(),
            (_, Some(column)) => store::bytes_of(column, false, |f| (0..column.len()).for_each(f)),
        };
        self.room_for(groups, bytes, reservation)
    }

    fn merge(&mut self, groups: &[u32], partial: &[Column<'_>]) {
        let Some(column) = partial.first() else { return };
        let (chunks, rows, seen) = (int_column(partial, 1), int_column(partial, 2), int_column(partial, 3));
        for (at, &group) in groups.iter().enumerate() {
            if seen[at] != 0 {
                let item = store::partial_item(column, at);
                with_bytes(item, |bytes| {
                    self.offer(group, bytes, (chunks[at] as u64, rows[at] as u32));
                });
            }
        }
    }

    fn seal(&mut self, _: &mut Reservation) -> Result<()> {
        Ok(())
    }

    fn partial<'a>(&self, groups: &[u32], arena: &'a Arena) -> Result<&'a [Column<'a>]> {
        let mut out = Columns::new(arena, 4)?;
        let values = store::partial_column(self.spec.form, groups.len(), arena, |i| self.value(groups[i]))?;
        out.push(values);
        out.push(ints(&self.states, groups, arena, |state| state.chunk as i64)?);
        out.push(ints(&self.states, groups, arena, |state| i64::from(state.row))?);
        out.push(ints(&self.states, groups, arena, |state| i64::from(state.seen))?);
        Ok(out.finish())
    }

    fn finish<'a>(&self, groups: &[u32], arena: &'a Arena, _: OnFault<'_>) -> Result<Column<'a>> {
        let none = groups.iter().all(|&group| !self.states[group as usize].seen);
        if none && !groups.is_empty() {
            return Ok(Column::nulls(groups.len()));
        }
        let column = store::column(&self.spec.ty, groups.len(), arena, |i| self.value(groups[i]))?;
        let all = groups.iter().all(|&group| self.states[group as usize].seen);
        if all || column.valid().is_some() {
            return Ok(column);
        }
        let seen = Bits::collect(arena, groups.len(), |i| self.states[groups[i] as usize].seen)?;
        Ok(column.with_valid(Some(seen)))
    }

    fn clear(&mut self) {
        self.states.clear();
        self.bytes.clear();
        (self.unused, self.used, self.shared) = (0, 0, false);
    }

    fn release(&mut self, reservation: &mut Reservation) {
        self.clear();
        reservation.free(&mut self.states);
        reservation.free(&mut self.bytes);
    }
}
