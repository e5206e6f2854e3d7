//! Rows of the input that are chosen by a rank and given at the end, in the order of the input: what `tail` and `sample` stand on.
//!
//! How it works: the stage keeps lists of rows, and their copies are here. Refused memory, the stage has its lists written as a segment and
//! begins new ones; at the end the merge of the segments gives the first rows by rank, and a sort brings these into the order of the input.
//!
//! Laws
//! - What taking a row and writing all of them takes is set aside when the stage is made, and so is what the end takes.
//! - Of a block that is refused nothing stays: it comes again, as a whole or in parts.

use super::bounds::{Bounds, Rank};
use super::codes::held;
use super::copies::{Copies, HeldRow, Scratch, emit};
use super::from::numbered;
use super::keys::{Key, max_width};
use super::parts::Parts;
use super::sort;
use super::spill::{Firsts, Merge, Merged, Store, lane_floor, merge_floor};
use super::spiller::{COPY_FRAMES, Held, KeyOf, LIST_FRAMES, Lists, SCRATCH_FRAMES, Spiller};
use super::unnest::{LEAST_ROOM, least_room};
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::spec::{Least, Room, Setup};
use standpipe_sdk::{Arena, Batch, Emitter, Flow, Reservation, Source, Type};
use std::sync::Arc;

/// What a row takes on its way through a sort, in copies of it.
const ROOM_FOR_ROW: usize = 6;

/// Rows of a batch that are looked at together.
pub(super) const BLOCK_ROWS: usize = 8 << 10;

/// What the stages cannot do without.
pub(super) fn least(room: &Room) -> Least {
    Least {
        takes: lane_floor(room.bytes),
        gives: end_bytes(room.bytes, room.share),
    }
}

/// Rows are passed on out of memory, or merged into a sort, and out of that.
fn end_bytes(budget_bytes: usize, share: usize) -> usize {
    let spilled = lane_floor(budget_bytes) + LEAST_ROOM + merge_floor(budget_bytes);
    spilled.max(least_room(share))
}

impl Held for HeldRow {
    fn order(&self) -> (u64, u32) {
        (self.row, 0)
    }

    fn number(&self) -> Option<i64> {
        Some(self.row as i64)
    }
}

/// What a stage does with its lists.
pub(super) trait Chooses {
    /// Takes of rows `from..from + rows` those that may be chosen; they become piece `piece`. Nothing is left of them in the lists after a refusal.
    fn choose(&mut self, chosen: &mut Chosen, batch: &Batch<'_>, from: usize, rows: usize) -> Result<()>;

    /// Writes all rows of the lists, which are empty then and take no memory. After an error the lists are as they were; it can be tried again
    /// unless a segment was written before it, whose rows are in both then.
    fn spill(&mut self, chosen: &mut Chosen) -> Result<()>;

    /// Rows in the lists.
    fn held(&self) -> usize;
}

/// The copies of the rows, and their way out.
pub(super) struct Chosen {
    stage: &'static str,
    own: usize,
    setup: Setup,
    store: Arc<Store>,
    spiller: Spiller,
    pub(super) copies: Copies,
    pub(super) scratch: Scratch,
    /// For the lists.
    pub(super) extra: Reservation,
    /// For the end.
    end: Reservation,
    /// Rows of the next block.
    block_rows: usize,
}

impl Chosen {
    /// For the first `own` columns of rows.
    ///
    /// # Errors
    /// `Failed`, with the stage's name, if there is no memory for what is set aside.
    pub(super) fn new(stage: &'static str, own: usize, setup: &Setup) -> Result<Chosen> {
        Chosen::with(stage, own, setup).map_err(|e| held(stage, e))
    }

    fn with(stage: &'static str, own: usize, setup: &Setup) -> Result<Chosen> {
        let budget = &setup.budget;
        let store = Store::new(stage, setup);
        let frame = store.frame_bytes();
        let mut copies = Copies::new(own, budget);
        copies.set_aside(COPY_FRAMES * frame)?;
        let (mut extra, mut end) = (budget.reserve(), budget.reserve());
        extra.set_aside(LIST_FRAMES * frame)?;
        end.grow(end_bytes(budget.limit(), setup.share))?;
        Ok(Chosen {
            stage,
            own,
            setup: setup.clone(),
            spiller: Spiller::new(&store, own)?,
            copies,
            scratch: Scratch::with_room(budget, SCRATCH_FRAMES * frame)?,
            extra,
            end,
            store,
            block_rows: BLOCK_ROWS,
        })
    }

    /// What is set aside for groups or bounds.
    pub(super) fn aside_bytes(&self) -> usize {
        self.store.frame_bytes()
    }

    /// Whether anything is on disk.
    pub(super) fn has_spilled(&self) -> bool {
        !self.store.is_empty()
    }

    /// Has `stage` take all rows of `batch`.
    ///
    /// # Errors
    /// `Failed`, with the stage's name, if there is no memory for a single row.
    pub(super) fn take(&mut self, stage: &mut impl Chooses, batch: &Batch<'_>) -> Result<()> {
        let outcome = self.take_all(stage, batch);
        outcome.map_err(|e| held(self.stage, e))
    }

    fn take_all(&mut self, stage: &mut impl Chooses, batch: &Batch<'_>) -> Result<()> {
        let mut from = 0;
        while from < batch.rows() {
            let rows = self.block_rows.min(batch.rows() - from);
            match stage.choose(self, batch, from, rows) {
                Ok(()) => {
                    from += rows;
                    self.block_rows = (2 * self.block_rows).min(BLOCK_ROWS);
                }
                Err(Error::Memory { .. }) if stage.held() >= rows => stage.spill(self)?,
                Err(Error::Memory { .. }) if rows > 1 => self.block_rows = rows.div_ceil(2),
                Err(error) => return Err(error),
            }
        }
        let forced = self.store.spill().spill_rows();
        if forced.is_some_and(|rows| stage.held() >= rows) {
            stage.spill(self)?;
        }
        Ok(())
    }

    /// Keeps copies of the rows of `batch` from `from` on that `indices` names, counted from there, as the next piece; none, no piece.
    pub(super) fn copy(
        &mut self,
        batch: &Batch<'_>,
        from: usize,
        rows: usize,
        indices: &[u32],
        key: usize,
    ) -> Result<()> {
        if indices.is_empty() {
            return Ok(());
        }
        let Chosen {
            scratch,
            spiller,
            copies,
            own,
            ..
        } = self;
        let scratch_bytes = scratch.with(|arena| {
            let rows = batch.slice(from, rows, arena)?.gather(indices, *own, arena)?;
            let room = spiller.make_room(&rows, key);
            Ok(room.and_then(|bytes| copies.add(rows).map(|()| bytes)))
        })??;
        scratch.ensure(scratch_bytes)
    }

    /// Writes `count` lists, each of them sorted, in the order in which `list` knows them.
    pub(super) fn write<'r>(
        &mut self,
        count: usize,
        list: &dyn Fn(usize) -> &'r [HeldRow],
        key: &KeyOf<'_, HeldRow>,
    ) -> Result<()> {
        let lists = Lists {
            count,
            list,
            key,
            copies: &self.copies,
        };
        self.spiller.segment(&lists, &mut self.scratch)
    }

    /// The lists were written and are gone.
    pub(super) fn clear(&mut self) {
        let aside = LIST_FRAMES * self.store.frame_bytes();
        self.copies.clear_with(&mut self.extra, aside);
    }

    /// Of segments that follow one another leaves the last ones that have `most` rows together. How many rows are left.
    pub(super) fn leave_last(&mut self, most: u64) -> Result<u64> {
        self.store.leave_last(most)
    }

    /// Gives what is held in memory, of which nothing is on disk.
    pub(super) fn give_held(&mut self, rows: &mut [HeldRow], out: &mut Emitter<'_, '_>) -> Result<()> {
        self.end.shrink(self.end.bytes());
        emit(&self.copies, rows, self.setup.share, out).map_err(|e| held(self.stage, e))
    }

    /// Gives what is on disk, all of it written in the order of the input, but for the first `skip` rows.
    pub(super) fn give_last(&mut self, skip: u64, out: &mut Emitter<'_, '_>) -> Result<()> {
        let mut parts = self.parts()?;
        let merge = Merge::new(&self.store, &self.setup.budget)?;
        let source: Arc<dyn Source> = Arc::new(Merged::new(merge, &self.setup));
        let outcome = self.give(&source, &mut parts, skip, out);
        outcome.map_err(|e| held(self.stage, e))
    }

    /// Gives the first `most` rows by rank of what is on disk, of all or of each group.
    pub(super) fn give_firsts(&mut self, most: u64, grouped: bool, out: &mut Emitter<'_, '_>) -> Result<()> {
        let mut parts = self.parts()?;
        // The sort sets its memory aside before the merge takes what there is.
        let in_order = sort::breaker(
            self.stage,
            vec![Key::ascending(0)],
            max_width([&Type::Int]),
            self.own + 1,
        )(&self.setup)?;
        let mut filler = in_order.clone().filler()?;
        // Long rows take more of the sort than what it sets aside.
        let beside = LEAST_ROOM + ROOM_FOR_ROW * self.store.largest();
        let merge = Merge::beside(&self.store, &self.setup.budget, beside)?;
        let firsts = Firsts::new(most, grouped);
        let source: Arc<dyn Source> = Arc::new(Merged::of_chosen(merge, firsts, &self.setup));
        let mut batches = 0;
        let outcome = parts.each(&source, |rows, _| {
            filler.push(batches, rows).map_err(|e| held(self.stage, e))?;
            batches += 1;
            Ok(Flow::More)
        });
        outcome.map_err(|e| held(self.stage, e))?;
        drop(source);
        filler.done()?;
        drop(filler);
        let outcome = self.give(&in_order.drain()?, &mut parts, 0, out);
        outcome.map_err(|e| held(self.stage, e))
    }

    /// The way out of a merge, in memory that was set aside for the end, of which the rest is free from now on; and in more, if there is much.
    fn parts(&mut self) -> Result<Parts> {
        const PART_OF_MEMORY: usize = 16;
        let budget = &self.setup.budget;
        let aside = self.end.bytes();
        self.end.shrink(aside);
        // Not what others have set aside.
        let left = budget.free().saturating_sub(aside);
        let usual = (budget.limit() / PART_OF_MEMORY).min(self.setup.share);
        let room = usual.min(left).max(LEAST_ROOM);
        Parts::new(budget, room).map_err(|e| held(self.stage, e))
    }

    /// Passes on the rows of `source` behind the first `skip`, without their numbers in the input. A row's place is its number: the chunk that
    /// could tell its line is long gone.
    fn give(&self, source: &Arc<dyn Source>, parts: &mut Parts, skip: u64, out: &mut Emitter<'_, '_>) -> Result<()> {
        let (mut left, mut number) = (skip, 0);
        parts.each(source, |rows: Batch<'_>, arena: &Arena| {
            let gone = usize::try_from(left).unwrap_or(usize::MAX).min(rows.rows());
            let rows = rows.slice(gone, rows.rows() - gone, arena)?;
            if rows.rows() == 0 {
                left -= gone as u64;
                return Ok(Flow::More);
            }
            let places = numbered(number, rows.rows(), arena)?;
            let rows = Batch::new(&rows.columns()[1..], Some(places), rows.rows());
            // From here on nothing may come again.
            left -= gone as u64;
            number += rows.rows() as u64;
            out.emit_in(arena, rows).map_err(|e| held(self.stage, e))
        })
    }
}

/// The bounds of ranks that are numbers.
pub(super) struct RankBounds {
    bounds: Bounds,
    /// No row of a greater rank is chosen.
    pub(super) most: u64,
}

impl RankBounds {
    pub(super) fn new(wanted: u64, setup: &Setup) -> Result<RankBounds> {
        Ok(RankBounds {
            bounds: Bounds::new(wanted, &setup.budget)?,
            most: u64::MAX,
        })
    }

    /// These rows were written, in the order of their ranks.
    pub(super) fn add(&mut self, rows: &[HeldRow]) {
        self.bounds.add(rows.len(), |at| Rank {
            prefix: [rows[at].rank, 0, 0],
            order: (rows[at].row, 0),
        });
        self.most = self.bounds.bound().map_or(u64::MAX, |bound| bound.prefix[0]);
    }
}
