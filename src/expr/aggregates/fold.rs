//! Groups whose states were cut into entries: of sorted values that pass one by one, what [`super::log`] makes of all of them.
//!
//! Laws
//! - What a group takes of memory does not grow with its entries, unless its value does, and that is no longer than it may be.
//! - The arithmetic is the log's own: what comes out is the same, bit by bit.

use super::log::{Finish, Keep, Logged};
use super::store::{self, Item, Store};
use crate::expr::OVERLONG;
use standpipe_sdk::aggregate::{Entry, Folds, OnFault};
use standpipe_sdk::budget::Reservation;
use standpipe_sdk::{Arena, Bits, Code, Column, Data, ListData, Result};

/// Registers of an approximate count: 2^this.
const REGISTER_BITS: u32 = 12;
/// The most bytes that a text may have, or values a list.
const LONGEST: u64 = i32::MAX as u64;

pub(super) struct Fold {
    spec: Logged,
    longest: usize,
    now: Group,
    /// Equal entries, and the most frequent of them so far, or the one that was looked for.
    run: Run,
    best: Run,
    /// The values of the groups that ended, as many of each as the aggregate needs.
    ints: Vec<i64>,
    floats: Vec<f64>,
    present: Vec<bool>,
    store: Store,
    /// Where each group's values end in the store.
    ends: Vec<usize>,
    sizes: Vec<Size>,
}

/// The group that is at hand.
#[derive(Default)]
struct Group {
    /// Entries there will be, and those that have passed.
    expected: u64,
    passed: u64,
    different: i64,
    registers: Registers,
    product: Product,
    /// At the place that was looked for, and behind it.
    low: f64,
    high: f64,
    size: Size,
    /// Values in the store before it.
    before: usize,
}

#[derive(Default)]
struct Run {
    key: Vec<u8>,
    count: u64,
}

impl Run {
    fn set(&mut self, key: &[u8], count: u64, reservation: &mut Reservation) -> Result<()> {
        self.key.clear();
        reservation.room(&mut self.key, key.len())?;
        self.key.extend_from_slice(key);
        self.count = count;
        Ok(())
    }
}

impl Fold {
    pub(super) fn new(spec: Logged, longest: usize) -> Fold {
        Fold {
            store: Store::new(spec.form),
            spec,
            longest,
            now: Group::default(),
            run: Run::default(),
            best: Run::default(),
            ints: vec![],
            floats: vec![],
            present: vec![],
            ends: vec![],
            sizes: vec![],
        }
    }

    fn groups(&self) -> usize {
        match self.spec.finish {
            Finish::Count | Finish::Estimate => self.ints.len(),
            Finish::List | Finish::Join(_) => self.sizes.len(),
            _ => self.present.len(),
        }
    }

    /// The run of equal entries is over.
    fn settle(&mut self) {
        if self.run.count == 0 {
            return;
        }
        self.now.different += 1;
        if self.spec.keep == Keep::Registers {
            self.now.registers.add(self.run.count);
        }
        // Of several the first, which is the smallest.
        if self.run.count > self.best.count {
            std::mem::swap(&mut self.run, &mut self.best);
        }
        self.run.count = 0;
    }

    fn item<'e>(&self, bytes: &'e [u8]) -> Item<'e> {
        Item::of_sorted_bytes(self.spec.form, bytes)
    }

    fn float(&self, key: &[u8]) -> f64 {
        match self.item(key) {
            Item::Word(word) => store::word_float(word),
            _ => 0.0,
        }
    }

    fn kept(&mut self, value: &[u8], reservation: &mut Reservation) -> Result<()> {
        let item = Item::of_sorted_bytes(self.spec.form, value);
        self.now.size.add(&self.spec.finish, item);
        if self.now.size.most() > (self.longest as u64).min(LONGEST) {
            // It will be a failure: only how much it is matters from now on.
            self.store.truncate(self.now.before);
            return Ok(());
        }
        match &self.spec.finish {
            Finish::Join(separator) => {
                let separator = if self.now.size.values > 1 {
                    separator.as_bytes()
                } else {
                    &[]
                };
                self.store.room(1, separator.len() + value.len(), reservation)?;
                self.store.append(separator);
                self.store.append(value);
            }
            _ => {
                self.store.room(1, value.len(), reservation)?;
                self.store.push(item);
            }
        }
        Ok(())
    }

    fn lists<'a>(&self, arena: &'a Arena) -> Result<Column<'a>> {
        let len = self.sizes.len();
        let start = |group: usize| if group == 0 { 0 } else { self.ends[group - 1] };
        let (offsets, total) = store::offsets(len, arena, |group| self.ends[group] - start(group))?;
        let child = store::column(&self.spec.of, total, arena, |at| Some(self.store.get(at)))?;
        let child = arena.one(child)?;
        let full = |group: usize| self.ends[group] > start(group);
        let valid = match (0..len).all(full) {
            true => None,
            false => Some(Bits::collect(arena, len, full)?),
        };
        Ok(Column::new(Data::List(ListData { offsets, child }), valid, len))
    }
}

impl Folds for Fold {
    fn begin(&mut self, _: &mut Reservation) -> Result<()> {
        self.now = Group {
            before: self.store.len(),
            ..Group::default()
        };
        (self.run.count, self.best.count) = (0, 0);
        Ok(())
    }

    fn expect(&mut self, entries: u64) {
        self.now.expected += entries;
    }

    fn entry(&mut self, entry: Entry<'_>, reservation: &mut Reservation) -> Result<()> {
        let at = self.now.passed;
        self.now.passed += 1;
        match (self.spec.keep, &self.spec.finish) {
            (Keep::Ordered, _) => return self.kept(entry.value, reservation),
            (Keep::Distinct | Keep::Counted | Keep::Registers, _) => {
                if self.run.count > 0 && self.run.key == entry.key {
                    match self.spec.keep {
                        Keep::Registers => self.run.count = self.run.count.max(entry.count),
                        _ => self.run.count += entry.count,
                    }
                    return Ok(());
                }
                self.settle();
                return self.run.set(entry.key, entry.count, reservation);
            }
            (Keep::Values, Finish::Quantile(share)) => {
                let (low, _) = between(*share, self.now.expected as usize);
                if at == low as u64 {
                    self.now.low = self.float(entry.key);
                } else if at == low as u64 + 1 {
                    self.now.high = self.float(entry.key);
                }
            }
            (Keep::Values, Finish::QuantileDisc(share)) => {
                if position(*share, self.now.expected as usize).is_some_and(|place| place as u64 == at) {
                    return self.best.set(entry.key, 1, reservation);
                }
            }
            (Keep::Values, _) => {
                let factor = self.float(entry.key);
                self.now.product.times(factor);
            }
        }
        Ok(())
    }

    fn end(&mut self, reservation: &mut Reservation) -> Result<()> {
        match self.spec.keep {
            Keep::Distinct | Keep::Counted | Keep::Registers => self.settle(),
            Keep::Values | Keep::Ordered => {}
        }
        let now = &self.now;
        let some = now.passed > 0;
        match &self.spec.finish {
            Finish::Count | Finish::Estimate => {
                reservation.room(&mut self.ints, 1)?;
                self.ints.push(match self.spec.finish {
                    Finish::Count => now.different,
                    _ => now.registers.estimate(),
                });
            }
            Finish::Product | Finish::Quantile(_) => {
                reservation.room(&mut self.floats, 1)?;
                reservation.room(&mut self.present, 1)?;
                self.floats.push(match self.spec.finish {
                    Finish::Quantile(share) => {
                        let (_, rest) = between(share, now.expected as usize);
                        interpolated(now.low, || now.high, rest)
                    }
                    _ => now.product.value(),
                });
                self.present.push(some);
            }
            Finish::Mode | Finish::QuantileDisc(_) => {
                reservation.room(&mut self.present, 1)?;
                let none = [0u8; 16];
                let bytes = match (some, self.spec.form) {
                    (true, _) => self.best.key.as_slice(),
                    (false, store::Form::Word) => &none[..8],
                    (false, store::Form::Wide) => &none,
                    (false, _) => &[],
                };
                self.store.room(1, bytes.len(), reservation)?;
                self.store.push(Item::of_sorted_bytes(self.spec.form, bytes));
                self.present.push(some);
            }
            Finish::List | Finish::Join(_) => {
                reservation.room(&mut self.ends, 1)?;
                reservation.room(&mut self.sizes, 1)?;
                if let Finish::Join(_) = self.spec.finish {
                    self.store.room(1, 0, reservation)?;
                    self.store.close();
                }
                self.ends.push(self.store.len());
                self.sizes.push(now.size);
            }
        }
        Ok(())
    }

    fn finish<'a>(&self, arena: &'a Arena, fault: OnFault<'_>) -> Result<Column<'a>> {
        for (group, size) in self.sizes.iter().enumerate() {
            size.fits(&self.spec.finish, self.longest, |code, text| fault(group, code, text))?;
        }
        let rows = self.groups();
        let of = |group: usize| self.present[group].then(|| self.store.get(group));
        match &self.spec.finish {
            Finish::Count | Finish::Estimate => Ok(Column::int(arena.copy(&self.ints)?, None)),
            Finish::Product | Finish::Quantile(_) => {
                let value = |group: usize| Ok(self.present[group].then_some(self.floats[group]));
                let (values, valid) = super::fixed::optional(arena, rows, value)?;
                Ok(Column::float(values, valid))
            }
            Finish::Mode | Finish::QuantileDisc(_) => store::column(&self.spec.ty, rows, arena, of),
            Finish::List => self.lists(arena),
            Finish::Join(_) => {
                let fits = |size: &Size| size.values > 0 && size.most() <= (self.longest as u64).min(LONGEST);
                let text = |group: usize| fits(&self.sizes[group]).then(|| self.store.get(group));
                store::column(&self.spec.ty, rows, arena, text)
            }
        }
    }

    fn clear(&mut self) {
        self.ints.clear();
        self.floats.clear();
        self.present.clear();
        self.store.clear();
        self.ends.clear();
        self.sizes.clear();
    }
}

/// What the list or text of a group takes.
#[derive(Clone, Copy, Default)]
pub(super) struct Size {
    pub(super) values: u64,
    pub(super) bytes: u64,
}

impl Size {
    pub(super) fn add(&mut self, finish: &Finish, item: Item<'_>) {
        let own = match (finish, item) {
            (Finish::Join(separator), Item::Bytes(text)) => {
                let before = if self.values > 0 { separator.len() } else { 0 };
                before + text.len()
            }
            (_, Item::Bytes(bytes)) => size_of::<u64>() + bytes.len(),
            (_, Item::Word(_)) => size_of::<u64>(),
            (_, Item::Wide(_)) => size_of::<i128>(),
        };
        self.values += 1;
        self.bytes = self.bytes.saturating_add(own as u64);
    }

    fn most(&self) -> u64 {
        self.bytes.max(self.values)
    }

    /// Whether that is no more than it may be; if it is, `fault` is told.
    pub(super) fn fits(
        &self,
        finish: &Finish,
        longest: usize,
        fault: impl FnOnce(Code, &str) -> Result<()>,
    ) -> Result<bool> {
        let longest = (longest as u64).min(LONGEST);
        if self.most() <= longest {
            return Ok(true);
        }
        let Size { values, bytes } = self;
        let what = if matches!(finish, Finish::Join(_)) {
            "text"
        } else {
            "list"
        };
        let text = format!("the {what} of {values} values takes {bytes} bytes, more than a record may: {longest}");
        fault(OVERLONG, &text)?;
        Ok(false)
    }
}

/// The place in `values` sorted values below which `share` of them lie, and how far it is from there to the next.
pub(super) fn between(share: f64, values: usize) -> (usize, f64) {
    let at = share * values.saturating_sub(1) as f64;
    (at.floor() as usize, at - at.floor())
}

/// What lies `rest` of the way from one value to the next one.
pub(super) fn interpolated(a: f64, next: impl FnOnce() -> f64, rest: f64) -> f64 {
    if rest == 0.0 {
        return a;
    }
    let b = next();
    // Halves first: the difference of two large numbers need not be a float.
    if a == b { a } else { a * (1.0 - rest) + b * rest }
}

/// Which of `values` sorted values is the first whose cumulative share reaches `share`.
pub(super) fn position(share: f64, values: usize) -> Option<usize> {
    if values == 0 {
        return None;
    }
    let reaches = |count: usize| count as f64 / values as f64 >= share;
    let mut count = ((share * values as f64).ceil() as usize).clamp(1, values);
    while count > 1 && reaches(count - 1) {
        count -= 1;
    }
    while count < values && !reaches(count) {
        count += 1;
    }
    Some(count - 1)
}

/// A float as one from 1 to 2 and a power of two; zeros, infinities and nan as they are.
fn split(x: f64) -> (f64, i32) {
    if x == 0.0 || !x.is_finite() {
        return (x, 0);
    }
    let (x, lift) = if x.is_normal() {
        (x, 0)
    } else {
        (super::wide::scaled(x, 64), 64)
    };
    let place = (x.to_bits() >> 52 & 0x7ff) as i32 - 1023;
    (super::wide::scaled(x, -place), place - lift)
}

/// A product of floats, in the order in which they come.
pub(super) struct Product {
    /// Kept between 1 and 2, so that no partial product is too large or too small.
    factor: f64,
    exponent: i64,
}

impl Default for Product {
    fn default() -> Product {
        Product {
            factor: 1.0,
            exponent: 0,
        }
    }
}

impl Product {
    pub(super) fn times(&mut self, value: f64) {
        let (factor, place) = split(value);
        let (rest, carry) = split(self.factor * factor);
        self.factor = rest;
        self.exponent += i64::from(place + carry);
    }

    pub(super) fn value(&self) -> f64 {
        super::wide::scaled(self.factor, self.exponent.clamp(-10_000, 10_000) as i32)
    }
}

/// The register of a hash, and how far its first one is from the left.
pub(super) fn register(hash: u64) -> (u64, u64) {
    let rest = hash << REGISTER_BITS;
    let zeros = rest.leading_zeros().min(64 - REGISTER_BITS);
    (hash >> (64 - REGISTER_BITS), u64::from(zeros) + 1)
}

const MOST_ZEROS: usize = 64 - REGISTER_BITS as usize + 1;

/// How many registers have each value.
pub(super) struct Registers {
    counts: [u32; MOST_ZEROS + 1],
    used: u32,
}

impl Default for Registers {
    fn default() -> Registers {
        Registers {
            counts: [0; MOST_ZEROS + 1],
            used: 0,
        }
    }
}

impl Registers {
    pub(super) fn add(&mut self, value: u64) {
        self.counts[(value as usize).min(MOST_ZEROS)] += 1;
        self.used += 1;
    }

    /// How many different hashes made them (Ertl 2017, with the count of each register value).
    pub(super) fn estimate(&self) -> i64 {
        const ALL: f64 = (1u64 << REGISTER_BITS) as f64;
        const MOST: usize = MOST_ZEROS;
        let mut counts = self.counts;
        counts[0] = (1u32 << REGISTER_BITS).saturating_sub(self.used);
        let tau = |mut x: f64| {
            if x == 0.0 || x == 1.0 {
                return 0.0;
            }
            let (mut y, mut z) = (1.0, 1.0 - x);
            loop {
                x = x.sqrt();
                let before = z;
                y *= 0.5;
                z -= (1.0 - x) * (1.0 - x) * y;
                if z == before {
                    return z / 3.0;
                }
            }
        };
        let sigma = |mut x: f64| {
            if x == 1.0 {
                return f64::INFINITY;
            }
            let (mut y, mut z) = (1.0, x);
            loop {
                x *= x;
                let before = z;
                z += x * y;
                y += y;
                if z == before {
                    return z;
                }
            }
        };
        let mut z = ALL * tau(1.0 - f64::from(counts[MOST]) / ALL);
        for count in counts[1..MOST].iter().rev() {
            z = 0.5 * (z + f64::from(*count));
        }
        z += ALL * sigma(f64::from(counts[0]) / ALL);
        let alpha = 0.5 / std::f64::consts::LN_2;
        (alpha * ALL * ALL / z).round() as i64
    }
}
