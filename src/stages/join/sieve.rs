//! Leaves out right rows that no left key wants, where the left side is small and at hand before the right one is read.
//!
//! How: a Bloom filter. Each left key sets a few bits of one word; right rows pass whose bits are all set: those with a left key's, and a few
//! more, which the join itself then finds no match for. So nothing hangs on how large the filter is, and none at all is right too.
//!
//! Laws
//! - A right row that some left row matches always passes; rows pass as they are, in their order.
//! - It never spills and never fails for lack of memory: what it has no room for it lets through.

use super::numbers::Codes;
use super::scratch::Scratch;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::spec::{Least, Room, Setup};
use standpipe_sdk::{Batch, Bits, Budget, Build, Emitter, Fill, Flow, Probe, Reservation, Source};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// A byte of the filter for so many of the files: with 32 bytes a record, two for each key.
const FILE_BYTES_PER_BYTE: u64 = 16;
/// The least and the most words. More than the most would cost more time, in cache misses, than it saves.
const LEAST_WORDS: usize = 8 << 10;
const MOST_WORDS: usize = 1 << 20;
/// The part of the memory that it may take.
const PART_OF_BUDGET: usize = 16;
/// Rows whose keys are looked at together while it is filled, and what that takes at first, in bytes.
const ROWS: usize = 4 << 10;
const LANE_BYTES: usize = 128 << 10;
/// Bits of each key.
const BITS_OF_KEY: u32 = 4;

/// The keys of both sides.
pub(super) struct Sieved {
    pub(super) left: Vec<usize>,
    pub(super) right: Vec<usize>,
    /// See [`Codes::of`].
    pub(super) exact: bool,
}

/// What it cannot do without.
pub(super) fn least(room: &Room) -> Least {
    Least {
        takes: room.workers * LANE_BYTES + LEAST_WORDS * size_of::<u64>(),
        gives: 0,
    }
}

/// Empty; for left rows out of so many bytes of files.
pub(super) fn make(keys: &Arc<Sieved>, file_bytes: u64, setup: &Setup) -> Arc<dyn Build> {
    let wanted = usize::try_from(file_bytes / FILE_BYTES_PER_BYTE).unwrap_or(usize::MAX) / size_of::<u64>();
    let words = wanted.clamp(LEAST_WORDS, MOST_WORDS).next_power_of_two();
    // What the lanes need is set aside for both: it stays free for them.
    let mut lanes = setup.budget.reserve();
    let _ = lanes.grow(setup.workers * LANE_BYTES);
    let mut reservation = setup.budget.reserve();
    let most = setup.budget.limit() / PART_OF_BUDGET / size_of::<u64>();
    let words = words_with_room(words, most, &mut reservation);
    Arc::new(Sieve {
        keys: keys.clone(),
        budget: setup.budget.clone(),
        share: setup.share,
        passes_all: AtomicBool::new(words.is_empty()),
        words,
        _reservation: reservation,
    })
}

/// A power of two of them, at most `words`; none if there is no memory for the least.
fn words_with_room(mut words: usize, most: usize, reservation: &mut Reservation) -> Vec<AtomicU64> {
    while words > most.max(LEAST_WORDS) {
        words /= 2;
    }
    while words >= LEAST_WORDS {
        let bytes = words * size_of::<u64>();
        let mut made: Vec<AtomicU64> = vec![];
        if reservation.grow(bytes).is_ok() {
            if made.try_reserve_exact(words).is_ok() {
                made.resize_with(words, AtomicU64::default);
                return made;
            }
            reservation.shrink(bytes);
        }
        words /= 2;
    }
    vec![]
}

struct Sieve {
    keys: Arc<Sieved>,
    budget: Arc<Budget>,
    share: usize,
    words: Vec<AtomicU64>,
    /// It knows too little to leave any row out.
    passes_all: AtomicBool,
    _reservation: Reservation,
}

/// The word of a key, and its bits there.
#[inline]
fn place(code: u64, words: usize) -> (usize, u64) {
    let mut x = code;
    x = (x ^ (x >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    x = (x ^ (x >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    x ^= x >> 33;
    let bits = (0..BITS_OF_KEY).fold(0, |bits, nth| bits | 1 << (x >> (6 * nth) & 63));
    // The high bits, which the others do not hang on.
    ((x >> 32) as usize & (words - 1), bits)
}

impl Sieve {
    fn add(&self, code: u64) {
        let (word, bits) = place(code, self.words.len());
        let word = &self.words[word];
        // Most keys come more than once, or from several lanes.
        if word.load(Relaxed) & bits != bits {
            word.fetch_or(bits, Relaxed);
        }
    }

    fn may_have(&self, code: u64) -> bool {
        let (word, bits) = place(code, self.words.len());
        self.words[word].load(Relaxed) & bits == bits
    }

    fn passes_all(&self) -> bool {
        self.passes_all.load(Relaxed)
    }
}

impl Build for Sieve {
    fn filler(self: Arc<Self>) -> Result<Box<dyn Fill>> {
        let scratch = Scratch::starting_with(LANE_BYTES, &self.budget, self.share).ok();
        Ok(Box::new(Filler { sieve: self, scratch }))
    }

    fn seal(&self) -> Result<()> {
        let set: u64 = self
            .words
            .iter()
            .map(|word| u64::from(word.load(Relaxed).count_ones()))
            .sum();
        // With seven of eight bits set more than half of all keys would pass that are not there.
        if set > self.words.len() as u64 * 64 / 8 * 7 {
            self.passes_all.store(true, Relaxed);
        }
        Ok(())
    }

    fn prober(self: Arc<Self>) -> Result<Box<dyn Probe>> {
        Ok(Box::new(Prober { sieve: self }))
    }

    fn drain(self: Arc<Self>) -> Result<Arc<dyn Source>> {
        Err(Error::Panic("a sieve has no rows".into()))
    }
}

struct Filler {
    sieve: Arc<Sieve>,
    /// `None` = there was no room, or it is done.
    scratch: Option<Scratch>,
}

impl Fill for Filler {
    fn push(&mut self, _: u64, batch: Batch<'_>) -> Result<()> {
        let (mut from, mut len) = (0, ROWS);
        while from < batch.rows() && !self.sieve.passes_all() {
            let Some(scratch) = &mut self.scratch else {
                self.sieve.passes_all.store(true, Relaxed);
                return Ok(());
            };
            len = len.min(batch.rows() - from);
            let arena = &scratch.arena;
            let keys = &self.sieve.keys;
            let added = batch.slice(from, len, arena).and_then(|rows| {
                let codes = Codes::of(&keys.left, keys.exact, &rows, arena)?;
                for (row, &code) in codes.codes.iter().enumerate() {
                    if codes.valid.is_none_or(|valid| valid.get(row)) {
                        self.sieve.add(code);
                    }
                }
                Ok(())
            });
            scratch.arena.reset();
            match added {
                Ok(()) => from += len,
                Err(Error::Memory { .. }) if scratch.more() => {}
                Err(Error::Memory { .. }) if len > 1 => len /= 2,
                Err(Error::Memory { .. }) => self.sieve.passes_all.store(true, Relaxed),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn done(&mut self) -> Result<()> {
        self.scratch = None;
        Ok(())
    }
}

struct Prober {
    sieve: Arc<Sieve>,
}

impl Probe for Prober {
    fn push<'a>(
        &mut self,
        batch: Batch<'a>,
        _: Option<&mut dyn standpipe_sdk::Judge>,
        out: &mut Emitter<'_, 'a>,
    ) -> Result<Flow> {
        let sieve = &*self.sieve;
        if sieve.passes_all() {
            return out.last(batch);
        }
        let arena = out.arena();
        let codes = Codes::of(&sieve.keys.right, sieve.keys.exact, &batch, arena)?;
        let passing = Bits::collect(arena, batch.rows(), |row| {
            codes.valid.is_none_or(|valid| valid.get(row)) && sieve.may_have(codes.codes[row])
        })?;
        match passing.count() {
            0 => Ok(Flow::More),
            // Copying all but a few would cost more than the few do.
            count if count >= batch.rows() / 16 * 15 => out.last(batch),
            _ => out.last(batch.gather(passing.indices(arena)?, batch.columns().len(), arena)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::*;
    use super::super::super::values;
    use super::*;
    use standpipe_sdk::{Arena, Downstream, Faults, Value};

    struct Count(usize);

    impl Downstream for Count {
        fn push<'b>(&mut self, _: usize, _: &'b Arena, batch: Batch<'b>, _: bool) -> Result<Flow> {
            self.0 += batch.rows();
            Ok(Flow::More)
        }
    }

    fn rows(keys: impl IntoIterator<Item = i64>) -> Vec<Vec<Value>> {
        keys.into_iter().map(|key| vec![int(key)]).collect()
    }

    /// How many of `right` pass a sieve with the keys `left`, made for so many bytes of files.
    fn passing(file_bytes: u64, limit: usize, left: &[Vec<Value>], right: &[Vec<Value>]) -> usize {
        let schema = schema(&[("k", standpipe_sdk::Type::Int)]);
        let keys = Arc::new(Sieved {
            left: vec![0],
            right: vec![0],
            exact: true,
        });
        let sieve = make(&keys, file_bytes, &setup(limit));
        let mut fillers = [sieve.clone().filler().unwrap(), sieve.clone().filler().unwrap()];
        let arena = Arena::new(64 << 20);
        for (number, part) in left.chunks(10_000).enumerate() {
            let batch = values::batch(&schema, part, &arena).unwrap();
            fillers[number % 2].push(number as u64, batch).unwrap();
        }
        fillers.iter_mut().for_each(|filler| filler.done().unwrap());
        sieve.seal().unwrap();
        let mut count = Count(0);
        let faults = Faults::new(&arena, false);
        let mut prober = sieve.prober().unwrap();
        for part in right.chunks(1000) {
            let batch = values::batch(&schema, part, &arena).unwrap();
            prober
                .push(batch, None, &mut Emitter::new(&arena, &faults, &mut count))
                .unwrap();
        }
        count.0
    }

    #[test]
    fn all_that_is_wanted_passes_and_little_else() {
        // 32 bytes a record.
        let left = rows((0..30_000).map(|key| key * 64));
        let bytes = 32 * left.len() as u64;
        assert_eq!(passing(bytes, 64 << 20, &left, &left), left.len());
        let others = rows((0..100_000).map(|key| key * 64 + 1));
        let passing_too = passing(bytes, 64 << 20, &left, &others);
        assert!(passing_too < 2000, "{passing_too}");
        // Null is no key, on either side.
        let nulls = vec![vec![Value::Null]; 1000];
        assert_eq!(passing(bytes, 64 << 20, &left, &nulls), 0);
        assert_eq!(passing(0, 64 << 20, &nulls, &others), 0);
        assert_eq!(passing(0, 64 << 20, &[], &others), 0);
    }

    #[test]
    fn what_there_is_no_room_for_passes() {
        let left = rows(0..400_000);
        let others = rows(1_000_000..1_100_000);
        // Too small for so many keys: nearly all its bits are set.
        assert_eq!(passing(0, 64 << 20, &left, &others), others.len());
        // No memory for the least filter, or for the lanes beside it.
        for limit in [0, 1 << 10, 100 << 10, LEAST_WORDS * 8] {
            assert_eq!(passing(1 << 20, limit, &left, &others), others.len());
        }
    }

    #[test]
    fn it_takes_what_it_says_it_cannot_do_without() {
        let room = Room {
            bytes: 0,
            share: 1 << 20,
            workers: 2,
            max_record: 0,
            columns: 1,
        };
        let (left, others) = (rows(0..1000), rows(2000..3000));
        let limit = least(&room).takes;
        assert!(passing(1 << 30, limit, &left, &others) < 100);
    }
}
