//! Aggregates that keep values: a log of (group, value), in the order they come, and an index where values are kept once.
//!
//! Laws
//! - What comes out is made of each group's entries sorted by value (or by the order of rows), so the log's own order is no matter.
//! - Everything a batch may add is reserved before the first row of it is taken.

use super::fold::{Fold, Product, Registers, Size, between, position, register};
use super::store::{self, Form, Item, Store, mix};
use crate::expr::Given;
use crate::expr::aggregate::{Bound, Takes};
use hashbrown::HashTable;
use standpipe_sdk::aggregate::{Aggregate, Entry, Folds, Input, OfRun, OnFault, ResultNulls, States};
use standpipe_sdk::budget::Reservation;
use standpipe_sdk::build::TextBuilder;
use standpipe_sdk::{Arena, Bits, Column, Columns, Data, Error, ListData, Result, Schema, Type};
use std::cmp::Ordering;
use std::sync::Arc;

/// Which values are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Keep {
    /// All.
    Values,
    /// All, with the order of their rows.
    Ordered,
    /// Each once.
    Distinct,
    /// Each once, and how often it came.
    Counted,
    /// Of the hashes: for each register the most leading zeros.
    Registers,
}

/// What becomes of a group's values.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Finish {
    Count,
    Estimate,
    /// The most frequent, the smallest of several.
    Mode,
    /// Of floats.
    Product,
    /// At that share, interpolated linearly; of floats.
    Quantile(f64),
    /// The first whose cumulative share reaches that.
    QuantileDisc(f64),
    List,
    Join(Arc<str>),
}

#[derive(Clone)]
pub(super) struct Logged {
    name: &'static str,
    pub(super) ty: Type,
    nulls: ResultNulls,
    /// The type of the values.
    pub(super) of: Type,
    pub(super) form: Form,
    pub(super) keep: Keep,
    pub(super) finish: Finish,
}

impl Logged {
    /// An aggregate over its first argument.
    pub(super) fn bind(
        name: &'static str,
        ty: Type,
        nulls: ResultNulls,
        given: &[Given<'_>],
        takes: Takes,
        keep: Keep,
        finish: Finish,
    ) -> Bound {
        let of = given.first().map_or(Type::Null, |x| x.ty.clone());
        if takes == Takes::Key && has_json(&of) {
            return Err(format!("`{of}` is no key: its values cannot be told apart"));
        }
        let form = match keep {
            Keep::Registers => Form::Word,
            _ => Form::of(&of),
        };
        Ok(Arc::new(Logged {
            name,
            ty,
            nulls,
            of,
            form,
            keep,
            finish,
        }))
    }

    fn canonical(&self) -> bool {
        self.keep != Keep::Ordered
    }

    fn indexed(&self) -> bool {
        matches!(self.keep, Keep::Distinct | Keep::Counted | Keep::Registers)
    }

    fn counted(&self) -> bool {
        matches!(self.keep, Keep::Counted | Keep::Registers)
    }
}

fn has_json(ty: &Type) -> bool {
    match ty {
        Type::Json => true,
        Type::List(item) => has_json(&item.ty),
        Type::Record(schema) => schema.fields().iter().any(|f| has_json(&f.ty)),
        _ => false,
    }
}

impl Aggregate for Logged {
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
        matches!(self.finish, Finish::Join(_) | Finish::List)
    }

    fn ordered(&self) -> bool {
        self.keep == Keep::Ordered
    }

    fn partial(&self) -> Schema {
        let ints = || Type::list(Type::Int, false);
        let mut types = vec![Type::list(self.form.partial(), false)];
        if self.keep == Keep::Ordered {
            types.extend([ints(), ints()]);
        }
        if self.counted() {
            types.push(ints());
        }
        super::fixed::schema(types)
    }

    fn folds(&self, longest: usize) -> Option<Box<dyn Folds>> {
        Some(Box::new(Fold::new(self.clone(), longest)))
    }

    fn states(&self, run: &OfRun) -> Box<dyn States> {
        Box::new(Log {
            store: Store::new(self.form),
            spec: self.clone(),
            longest: run.longest,
            groups: 0,
            group: vec![],
            chunks: vec![],
            rows: vec![],
            counts: vec![],
            index: HashTable::new(),
            starts: vec![],
            order: vec![],
            live: vec![],
            is_live: false,
            scratch: vec![],
        })
    }
}

struct Log {
    spec: Logged,
    /// Bytes that a list or a text may have.
    longest: usize,
    /// How many groups there are.
    groups: usize,
    /// One per entry, as in all arrays up to `counts`.
    group: Vec<u32>,
    store: Store,
    chunks: Vec<u64>,
    rows: Vec<u32>,
    counts: Vec<u64>,
    /// Entries by group and value.
    index: HashTable<u32>,
    /// Once sealed: where each group's entries start in `order`.
    starts: Vec<u32>,
    /// Once sealed: entries by group, then in the order that counts.
    order: Vec<u32>,
    /// Of groups that are asked for between rows, instead of `order`: each one's entries in the order that counts.
    live: Vec<Vec<u32>>,
    is_live: bool,
    scratch: Vec<u8>,
}

impl Log {
    /// Room for `groups` groups in all, and for `entries` more entries of `bytes` bytes.
    fn room_for(&mut self, groups: usize, entries: usize, bytes: usize, reservation: &mut Reservation) -> Result<()> {
        if self.group.len().saturating_add(entries) > u32::MAX as usize {
            return Err(Error::Memory {
                wanted: entries,
                used: self.group.len(),
                limit: u32::MAX as usize,
            });
        }
        reservation.room(&mut self.group, entries)?;
        // What `seal` takes too: whoever seals may do so because there is no room left.
        reservation.room(&mut self.order, self.group.len() + entries)?;
        reservation.room(&mut self.starts, groups.max(self.groups) + 1)?;
        self.store.room(entries, bytes, reservation)?;
        if self.spec.keep == Keep::Ordered {
            reservation.room(&mut self.chunks, entries)?;
            reservation.room(&mut self.rows, entries)?;
        }
        if self.spec.counted() {
            reservation.room(&mut self.counts, entries)?;
        }
        if self.spec.indexed() && self.index.len() + entries > self.index.capacity() {
            let old = self.index.allocation_size();
            // Eight slots for seven entries at most, in a power of two; a slot takes five bytes.
            let slots = ((self.index.len() + entries) * 8 / 7 + 1).next_power_of_two().max(16);
            let new = slots * 5 + 64;
            reservation.grow(new)?;
            let (group, store) = (&self.group, &self.store);
            let hash = |&entry: &u32| hash_of(group[entry as usize], store.get(entry as usize));
            if self.index.try_reserve(entries, hash).is_err() {
                reservation.shrink(new);
                return Err(Error::Memory {
                    wanted: new,
                    used: old,
                    limit: usize::MAX,
                });
            }
            let grown = self.index.allocation_size();
            reservation.shrink(old + new.saturating_sub(grown));
        }
        Ok(())
    }

    /// The entry of a value, a new one if there is none.
    fn entry(&mut self, group: u32, item: Item<'_>) -> usize {
        let (groups, store) = (&self.group, &self.store);
        let same = |&entry: &u32| {
            let entry = entry as usize;
            groups[entry] == group && store.get(entry) == item
        };
        let hash = hash_of(group, item);
        if let Some(&entry) = self.index.find(hash, same) {
            return entry as usize;
        }
        let entry = self.group.len();
        let rehash = |&entry: &u32| hash_of(groups[entry as usize], store.get(entry as usize));
        self.index.insert_unique(hash, entry as u32, rehash);
        self.group.push(group);
        self.store.push(item);
        if self.spec.counted() {
            self.counts.push(0);
        }
        entry
    }

    fn take(&mut self, group: u32, item: Item<'_>, count: u64, order: (u64, u32)) {
        match self.spec.keep {
            Keep::Values => {
                self.group.push(group);
                self.store.push(item);
            }
            Keep::Ordered => {
                self.group.push(group);
                self.store.push(item);
                self.chunks.push(order.0);
                self.rows.push(order.1);
            }
            Keep::Distinct => _ = self.entry(group, item),
            Keep::Counted => {
                let entry = self.entry(group, item);
                self.counts[entry] += count;
            }
            Keep::Registers => {
                let entry = self.entry(group, item);
                self.counts[entry] = self.counts[entry].max(count);
            }
        }
    }

    fn entries(&self, group: u32) -> &[u32] {
        let group = group as usize;
        if self.is_live {
            return self.live.get(group).map_or(&[], Vec::as_slice);
        }
        match (self.starts.get(group), self.starts.get(group + 1)) {
            (Some(&from), Some(&to)) => &self.order[from as usize..to as usize],
            _ => &[],
        }
    }

    fn item(&self, entry: u32) -> Item<'_> {
        self.store.get(entry as usize)
    }

    fn float(&self, entry: u32) -> f64 {
        match self.item(entry) {
            Item::Word(word) => store::word_float(word),
            _ => 0.0,
        }
    }

    fn compare(&self, a: u32, b: u32) -> Ordering {
        let (a, b) = (a as usize, b as usize);
        match self.spec.keep {
            Keep::Ordered => (self.chunks[a], self.rows[a]).cmp(&(self.chunks[b], self.rows[b])),
            _ => self.store.compare(a, b),
        }
    }

    fn value_of(&self, group: u32) -> Option<Item<'_>> {
        let entries = self.entries(group);
        match self.spec.finish {
            Finish::Mode => {
                let most = entries.iter().map(|&e| self.counts[e as usize]).max()?;
                let first = entries.iter().find(|&&e| self.counts[e as usize] == most)?;
                Some(self.item(*first))
            }
            Finish::QuantileDisc(share) => entries
                .get(position(share, entries.len())?)
                .map(|&entry| self.item(entry)),
            _ => None,
        }
    }

    fn float_of(&self, group: u32) -> Option<f64> {
        let entries = self.entries(group);
        let last = entries.len().checked_sub(1)?;
        Some(match self.spec.finish {
            Finish::Quantile(share) => {
                let (low, rest) = between(share, entries.len());
                let at = |at: usize| self.float(entries[at.min(last)]);
                let next = || at(low + 1);
                super::fold::interpolated(at(low), next, rest)
            }
            _ => {
                let mut product = Product::default();
                entries.iter().for_each(|&entry| product.times(self.float(entry)));
                product.value()
            }
        })
    }

    /// What the list or text of a group takes.
    fn size(&self, group: u32) -> Size {
        let mut size = Size::default();
        for &entry in self.entries(group) {
            size.add(&self.spec.finish, self.item(entry));
        }
        size
    }

    fn joined<'a>(&self, separator: &str, groups: &[u32], arena: &'a Arena, fault: OnFault<'_>) -> Result<Column<'a>> {
        let mut out = TextBuilder::new(arena, groups.len(), 0)?;
        let (marks, mut nulls) = (arena.fill(groups.len().div_ceil(64), u64::MAX)?, false);
        for (at, &group) in groups.iter().enumerate() {
            let (entries, size) = (self.entries(group), self.size(group));
            let fits = size.fits(&self.spec.finish, self.longest, |code, text| fault(at, code, text))?;
            if entries.is_empty() || !fits {
                marks[at / 64] &= !(1 << (at % 64));
                nulls = true;
                out.push_empty();
                continue;
            }
            out.push_with(size.bytes as usize, |slot| {
                let mut written = 0;
                for (number, &entry) in entries.iter().enumerate() {
                    let before = if number > 0 { separator.as_bytes() } else { &[] };
                    let Item::Bytes(text) = self.item(entry) else { continue };
                    for part in [before, text] {
                        slot[written..written + part.len()].copy_from_slice(part);
                        written += part.len();
                    }
                }
                written
            })?;
        }
        let valid = nulls.then(|| Bits::new(marks, groups.len()));
        Ok(Column::string(out.finish()?, valid))
    }

    fn lists<'a>(&self, groups: &[u32], arena: &'a Arena, fault: OnFault<'_>) -> Result<Column<'a>> {
        let len = groups.len();
        // A group's entries, or none of them where they are too many for a list.
        let kept = arena.fill(len, 0u32)?;
        for (at, (kept, &group)) in kept.iter_mut().zip(groups).enumerate() {
            let size = self.size(group);
            if size.fits(&self.spec.finish, self.longest, |code, text| fault(at, code, text))? {
                *kept = size.values as u32;
            }
        }
        let kept = &*kept;
        let (offsets, total) = store::offsets(len, arena, |i| kept[i] as usize)?;
        let with_list = groups.iter().zip(kept).filter(|(_, kept)| **kept > 0);
        let mut entries = with_list.flat_map(|(&group, _)| self.entries(group).iter().copied());
        let entries = arena.collect(total, |_| entries.next().unwrap_or_default())?;
        let child = store::column(&self.spec.of, total, arena, |i| Some(self.item(entries[i])))?;
        let child = arena.one(child)?;
        let valid = match kept.contains(&0) {
            true => Some(Bits::collect(arena, len, |i| kept[i] > 0)?),
            false => None,
        };
        Ok(Column::new(Data::List(ListData { offsets, child }), valid, len))
    }

    /// The entries of these groups, one group behind the other.
    fn entries_of<'a>(&self, groups: &[u32], total: usize, arena: &'a Arena) -> Result<&'a [u32]> {
        let mut all = groups.iter().flat_map(|&group| self.entries(group).iter().copied());
        Ok(arena.collect(total, |_| all.next().unwrap_or_default())?)
    }
}

fn hash_of(group: u32, item: Item<'_>) -> u64 {
    mix(u64::from(group), item.hash())
}

impl States for Log {
    fn room(&mut self, groups: usize, input: &Input<'_>, reservation: &mut Reservation) -> Result<()> {
        let bytes = match (self.spec.keep, input.columns.first()) {
            (Keep::Registers, _) | (_, None) => 0,
            (_, Some(column)) => store::bytes_of(column, self.spec.canonical(), |f| input.each(f)),
        };
        self.room_for(groups, input.count(), bytes, reservation)?;
        self.groups = self.groups.max(groups);
        Ok(())
    }

    fn update(&mut self, groups: &[u32], input: &Input<'_>) {
        let Some(column) = input.columns.first() else { return };
        let canonical = self.spec.canonical();
        let mut scratch = std::mem::take(&mut self.scratch);
        input.each(|row| {
            let item = store::item(column, row, canonical, &mut scratch);
            let order = input.order.of(row);
            match self.spec.keep {
                Keep::Registers => {
                    let (register, zeros) = register(item.hash());
                    self.take(groups[row], Item::Word(register), zeros, order);
                }
                _ => self.take(groups[row], item, 1, order),
            }
        });
        self.scratch = scratch;
    }

    /// Entries are put where they belong: sorting them all again for each row would take the square of them.
    fn update_sealed(&mut self, groups: &[u32], input: &Input<'_>, reservation: &mut Reservation) -> Result<()> {
        let before = self.group.len();
        self.is_live = true;
        self.update(groups, input);
        let more = self.groups.saturating_sub(self.live.len());
        reservation.room(&mut self.live, more)?;
        self.live.resize_with(self.groups.max(self.live.len()), Vec::new);
        for entry in before..self.group.len() {
            let group = self.group[entry] as usize;
            let mut list = std::mem::take(&mut self.live[group]);
            let at = list.partition_point(|&other| self.compare(other, entry as u32) != Ordering::Greater);
            let room = reservation.room(&mut list, 1);
            if room.is_ok() {
                list.insert(at, entry as u32);
            }
            self.live[group] = list;
            room?;
        }
        Ok(())
    }

    fn room_to_merge(&mut self, groups: usize, partial: &[Column<'_>], reservation: &mut Reservation) -> Result<()> {
        let Some(Data::List(list)) = partial.first().map(Column::data) else {
            return Ok(());
        };
        let rows = partial.first().map_or(0, Column::len);
        let (from, to) = (list.offsets[0] as usize, list.offsets[rows] as usize);
        let bytes = store::bytes_of(list.child, false, |f| (from..to).for_each(f));
        self.room_for(groups, to - from, bytes, reservation)?;
        self.groups = self.groups.max(groups);
        Ok(())
    }

    fn merge(&mut self, groups: &[u32], partial: &[Column<'_>]) {
        let child = |index: usize| match partial.get(index).map(Column::data) {
            Some(Data::List(list)) => match list.child.data() {
                Data::Int(values) => values,
                _ => &[],
            },
            _ => &[],
        };
        let Some(Data::List(list)) = partial.first().map(Column::data) else {
            return;
        };
        let at = |values: &[i64], entry: usize| values.get(entry).copied().unwrap_or_default();
        let ordered = self.spec.keep == Keep::Ordered;
        let (first, second) = (child(1), child(2));
        for (row, &group) in groups.iter().enumerate() {
            for entry in list.range(row) {
                let item = store::partial_item(list.child, entry);
                let (count, order) = match ordered {
                    true => (1, (at(first, entry) as u64, at(second, entry) as u32)),
                    false => (at(first, entry) as u64, (0, 0)),
                };
                self.take(group, item, count, order);
            }
        }
    }

    fn seal(&mut self, reservation: &mut Reservation) -> Result<()> {
        self.starts.clear();
        self.order.clear();
        reservation.room(&mut self.starts, self.groups + 1)?;
        reservation.room(&mut self.order, self.group.len())?;
        let (mut starts, mut order) = (std::mem::take(&mut self.starts), std::mem::take(&mut self.order));
        starts.resize(self.groups + 1, 0);
        for &group in &self.group {
            starts[group as usize + 1] += 1;
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        // Each start moves to its end while entries are put in place; then it is the next one's start.
        order.resize(self.group.len(), 0);
        for (entry, &group) in self.group.iter().enumerate() {
            let next = &mut starts[group as usize];
            order[*next as usize] = entry as u32;
            *next += 1;
        }
        starts.rotate_right(1);
        if let Some(first) = starts.first_mut() {
            *first = 0;
        }
        for range in starts.windows(2) {
            order[range[0] as usize..range[1] as usize].sort_unstable_by(|&a, &b| self.compare(a, b));
        }
        (self.starts, self.order) = (starts, order);
        Ok(())
    }

    fn partial<'a>(&self, groups: &[u32], arena: &'a Arena) -> Result<&'a [Column<'a>]> {
        let (offsets, total) = store::offsets(groups.len(), arena, |i| Log::entries(self, groups[i]).len())?;
        let entries = self.entries_of(groups, total, arena)?;
        let list = |child: Column<'a>| -> Result<Column<'a>> {
            let child = arena.one(child)?;
            Ok(Column::new(Data::List(ListData { offsets, child }), None, groups.len()))
        };
        let mut out = Columns::new(arena, 3)?;
        out.push(list(store::partial_column(self.spec.form, total, arena, |i| {
            Some(self.item(entries[i]))
        })?)?);
        if self.spec.keep == Keep::Ordered {
            let chunk = |i: usize| self.chunks[entries[i] as usize] as i64;
            out.push(list(Column::int(arena.collect(total, chunk)?, None))?);
            let row = |i: usize| i64::from(self.rows[entries[i] as usize]);
            out.push(list(Column::int(arena.collect(total, row)?, None))?);
        }
        if self.spec.counted() {
            let count = |i: usize| self.counts[entries[i] as usize] as i64;
            out.push(list(Column::int(arena.collect(total, count)?, None))?);
        }
        Ok(out.finish())
    }

    fn finish<'a>(&self, groups: &[u32], arena: &'a Arena, fault: OnFault<'_>) -> Result<Column<'a>> {
        let len = groups.len();
        match &self.spec.finish {
            Finish::Count => {
                let count = |i: usize| Log::entries(self, groups[i]).len() as i64;
                Ok(Column::int(arena.collect(len, count)?, None))
            }
            Finish::Estimate => {
                let estimate = |i: usize| {
                    let mut registers = Registers::default();
                    let entries = Log::entries(self, groups[i]);
                    entries.iter().for_each(|&e| registers.add(self.counts[e as usize]));
                    registers.estimate()
                };
                Ok(Column::int(arena.collect(len, estimate)?, None))
            }
            Finish::Product | Finish::Quantile(_) => {
                let (values, valid) = super::fixed::optional(arena, len, |i| Ok(self.float_of(groups[i])))?;
                Ok(Column::float(values, valid))
            }
            Finish::Mode | Finish::QuantileDisc(_) => {
                store::column(&self.spec.ty, len, arena, |i| self.value_of(groups[i]))
            }
            Finish::Join(separator) => self.joined(separator, groups, arena, fault),
            Finish::List => self.lists(groups, arena, fault),
        }
    }

    fn entries(&self, group: u32) -> usize {
        Log::entries(self, group).len()
    }

    fn entry(&self, group: u32, at: usize, f: &mut dyn FnMut(Entry<'_>)) {
        let Some(&entry) = Log::entries(self, group).get(at) else {
            return;
        };
        let (item, entry) = (self.item(entry), entry as usize);
        let count = self.counts.get(entry).copied().unwrap_or(1);
        item.with_sorted_bytes(|bytes| {
            f(match self.spec.keep {
                Keep::Ordered => Entry {
                    key: &[],
                    order: (self.chunks[entry], self.rows[entry]),
                    count,
                    value: bytes,
                },
                _ => Entry {
                    key: bytes,
                    order: (0, 0),
                    count,
                    value: &[],
                },
            });
        });
    }

    fn clear(&mut self) {
        self.groups = 0;
        self.group.clear();
        self.store.clear();
        self.chunks.clear();
        self.rows.clear();
        self.counts.clear();
        self.index.clear();
        self.starts.clear();
        self.order.clear();
        self.live.iter_mut().for_each(Vec::clear);
        self.is_live = false;
    }

    fn release(&mut self, reservation: &mut Reservation) {
        self.clear();
        reservation.free(&mut self.group);
        self.store.free(reservation);
        reservation.free(&mut self.chunks);
        reservation.free(&mut self.rows);
        reservation.free(&mut self.counts);
        reservation.free(&mut self.starts);
        reservation.free(&mut self.order);
        self.live.iter_mut().for_each(|list| reservation.free(list));
        reservation.free(&mut self.live);
        reservation.shrink(self.index.allocation_size());
        self.index = HashTable::new();
    }
}
