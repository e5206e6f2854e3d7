//! The rows of `distinct` whose keys do not fit into memory.
//!
//! How it works: once memory is refused the set of keys is frozen; it still says which rows are further ones of rows given. The others go to
//! disk as they come, and their keys to a sort; at the end the first row's number of each key comes out of it, numbers are sorted, and the
//! rows that have them are read. All of them come behind the rows that were given before, which came earlier.
//!
//! Laws
//! - What this takes at least is set aside when the stage is made.
//! - A row is written once, whatever becomes of its key, with what may be asked of its origin.

use super::super::codes::held;
use super::super::groups::refused;
use super::super::keys::{Key, max_width};
use super::super::origins::{self, Origins};
use super::super::parts::Parts;
use super::super::rowkeys::KeyMaker;
use super::super::sort::Sort;
use super::super::spill::{
    Choose, Merge, Merged, Picks, Store, lane_floor_beside, merging_bytes, pass_bytes, store_frame_bytes,
    writer_floor_beside,
};
use super::super::spool::{Spool, ints, spool_bytes};
use super::super::unnest::LEAST_ROOM;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::spec::{Asked, Least, Room, Setup};
use standpipe_sdk::{Arena, Batch, Breaker, Column, Columns, Emitter, Fill, Flow, Locator, Reservation, Source, Type};
use std::sync::Arc;

/// Behind a row's own columns: its number in the input, its origin, its key, which is not kept with it.
const NUMBER: usize = 0;
const ORIGIN: usize = 1;
const KEY: usize = ORIGIN + origins::WIDTH;
const WIDTH: usize = KEY + 1;
/// How many merges are read at the same time: of numbers, and of rows.
const MERGES: usize = 2;
/// Memory that the set of keys leaves for sorting: this part, within bounds, in bytes.
const PART_OF_MEMORY: usize = 16;
const LEAST_BYTES: usize = 32 << 10;
const MOST_BYTES: usize = 8 << 20;

/// What is set aside to sort keys and to write rows; at the end keys are merged and numbers sorted, and then numbers and rows are read together.
pub(super) fn least(room: &Room) -> Least {
    let lane = lane_floor_beside(room.bytes, MERGES);
    let spool = writer_floor_beside(room.bytes, MERGES) + spool_bytes(store_frame_bytes(room.bytes, MERGES));
    let sorting = lane + pass_bytes(room.bytes, MERGES);
    let reading = merging_bytes(room.bytes, MERGES) + reading_rows(room.bytes);
    Least {
        takes: lane + spool + cushion_bytes(room.bytes),
        gives: LEAST_ROOM + sorting.max(reading),
    }
}

/// What reading rows takes, and what is made of them before.
fn reading_rows(budget_bytes: usize) -> usize {
    pass_bytes(budget_bytes, MERGES)
}

fn cushion_bytes(budget_bytes: usize) -> usize {
    (budget_bytes / PART_OF_MEMORY).clamp(LEAST_BYTES, MOST_BYTES)
}

/// Where rows go that nobody can remember.
pub(super) struct Overflow {
    setup: Setup,
    own: usize,
    /// Their numbers by their keys; gone at the end.
    keys: Arc<Sort>,
    key_filler: Box<dyn Fill>,
    /// The rows in their order; `None` at the end.
    rows: Option<Spool>,
    store: Arc<Store>,
    origins: Origins,
    /// Given up when the set is frozen.
    cushion: Reservation,
    open: bool,
    batches: u64,
}

impl Overflow {
    pub(super) fn new(own: usize, setup: &Setup) -> Result<Overflow> {
        let keys = sort(vec![Key::ascending(1)], None, setup);
        let key_filler = keys.clone().filler()?;
        let store = Store::beside("distinct", &setup.budget, &setup.spill, MERGES);
        let mut cushion = setup.budget.reserve();
        cushion.grow(cushion_bytes(setup.budget.limit()))?;
        Ok(Overflow {
            setup: setup.clone(),
            own,
            keys,
            key_filler,
            rows: Some(Spool::new(&store, &setup.budget)?),
            store,
            origins: Origins::default(),
            cushion,
            open: false,
            batches: 0,
        })
    }

    #[cfg(test)]
    pub(super) fn budget(&self) -> Arc<standpipe_sdk::Budget> {
        self.setup.budget.clone()
    }

    /// Whether the set of keys is frozen.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Whether no row came here.
    pub(super) fn is_empty(&self) -> bool {
        self.batches == 0
    }

    /// From now on rows go to disk.
    pub(super) fn open(&mut self) {
        self.cushion.shrink(self.cushion.bytes());
        self.open = true;
    }

    /// The rows of `batch` that `indices` names, as they are written; `first` is the number of the batch's first row, `locator` tells where
    /// they came from.
    pub(super) fn prepare<'a>(
        &self,
        batch: Batch<'a>,
        indices: &[u32],
        first: u64,
        locator: &Locator<'_>,
        arena: &'a Arena,
    ) -> Result<Batch<'a>> {
        let rows = batch.gather(indices, batch.columns().len(), arena)?;
        let mut columns = Columns::new(arena, self.own + WIDTH)?;
        rows.columns()[..self.own]
            .iter()
            .for_each(|&column| columns.push(column));
        let numbers = arena.map(indices, |row| (first + u64::from(row)) as i64)?;
        columns.push(Column::int(numbers, None));
        let asked = self.setup.asked;
        let places = rows.origin().filter(|_| asked != Asked::Nothing);
        let texts = asked == Asked::Text;
        self.origins
            .push(&mut columns, rows.rows(), places, locator, texts, arena)?;
        columns.push(KeyMaker::key_column(&rows)?);
        Ok(Batch::new(columns.finish(), None, rows.rows()))
    }

    /// Takes rows that were prepared.
    pub(super) fn add(&mut self, rows: Batch<'_>) -> Result<()> {
        let number = self.own + NUMBER;
        let Some(spool) = &mut self.rows else {
            return Err(Error::Panic("rows come after their end".into()));
        };
        let kept = Batch::new(&rows.columns()[..self.own + KEY], None, rows.rows());
        spool.push(&kept, [number; 2])?;
        let keys = [rows.column(number), rows.column(self.own + KEY)];
        self.key_filler
            .push(self.batches, Batch::new(&keys, None, rows.rows()))?;
        self.batches += 1;
        Ok(())
    }

    /// The first rows of all keys that came here, in the order of the input. The set of keys is gone by now.
    pub(super) fn finish(&mut self, out: &mut Emitter<'_, '_>) -> Result<()> {
        let Some(spool) = self.rows.take() else { return Ok(()) };
        if self.batches == 0 {
            return Ok(());
        }
        let budget = self.setup.budget.clone();
        spool.finish([self.own + NUMBER; 2])?;
        self.key_filler.done()?;
        let numbers = self.first_numbers()?;
        // What one takes beyond its least must be left for the others.
        let least = merging_bytes(budget.limit(), MERGES) + reading_rows(budget.limit());
        let left = budget.free().saturating_sub(least);
        let usual = (budget.limit() / PART_OF_MEMORY).min(self.setup.share);
        let mut parts = Parts::new(&budget, usual.min(left).max(LEAST_ROOM))?;
        let numbers = Numbers::of(numbers.merged_beside(MERGES, reading_rows(budget.limit()))?)?;
        let rows = Merge::one_of(&self.store, &budget, MERGES)?;
        let rows: Arc<dyn Source> = Arc::new(Merged::of_chosen(rows, numbers, &self.setup));
        parts.each(&rows, |rows, arena| self.emit(rows, arena, out))
    }

    /// Of each key that came here the least number.
    fn first_numbers(&self) -> Result<Arc<Sort>> {
        let budget = &self.setup.budget;
        let sorted = sort(vec![Key::ascending(0)], max_width([&Type::Int]), &self.setup);
        let mut filler = sorted.clone().filler()?;
        let mut room = budget.reserve();
        room.grow(LEAST_ROOM)?;
        let mut arena = Arena::new(LEAST_ROOM);
        let mut merge = self.keys.merged(MERGES)?;
        let mut picks = Picks::default();
        // The last row's key: rows with the same one may follow in the next picks.
        let mut last: Option<Vec<u8>> = None;
        for batches in 0.. {
            merge.next(merge.claim_rows(), &mut picks)?;
            let Some(end) = picks.len().checked_sub(1) else { break };
            arena.reset();
            let numbers = arena.fill(picks.len(), 0i64)?;
            let mut count = 0;
            for at in 0..picks.len() {
                let key = picks.key(at);
                let same = match at.checked_sub(1) {
                    Some(before) => picks.key(before) == key,
                    None => last.as_deref() == Some(key),
                };
                if !same {
                    numbers[count] = number(&picks, at)?;
                    count += 1;
                }
            }
            remember(&mut last, picks.key(end))?;
            if count > 0 {
                let columns = [Column::int(&numbers[..count], None)];
                filler.push(batches, Batch::new(&columns, None, count))?;
            }
        }
        filler.done()?;
        Ok(sorted)
    }

    /// Passes a batch on as it came in: its own columns, and where its rows came from.
    fn emit<'a>(&self, rows: Batch<'a>, arena: &'a Arena, out: &mut Emitter<'_, '_>) -> Result<Flow> {
        let own = Batch::new(&rows.columns()[..self.own], None, rows.rows());
        let origin = self.own + ORIGIN;
        let (Some(places), traces) = self.origins.read(&rows, origin, arena)? else {
            return out.emit_in(arena, own).map_err(|e| held("distinct", e));
        };
        let mut from = 0;
        while from < rows.rows() {
            let to = from + origins::ascending(&rows, origin, from, rows.rows())?;
            let own = match own.slice(from, to - from, arena) {
                Err(error) if from > 0 => return Err(held("distinct", error)),
                other => other?,
            };
            let own = Batch::new(own.columns(), Some(&places[from..to]), to - from);
            let locator = Locator {
                traces: &traces[from..to],
                ..Locator::default()
            };
            // From here on nothing may come again.
            if out.emit_held(arena, own, &locator).map_err(|e| held("distinct", e))? == Flow::Done {
                return Ok(Flow::Done);
            }
            from = to;
        }
        Ok(Flow::More)
    }
}

/// The numbers of the rows that stay, ascending.
struct Numbers {
    merge: Merge,
    picks: Picks,
    /// The next one: `picks` from here on.
    at: usize,
    next: Option<i64>,
}

impl Numbers {
    fn of(merge: Merge) -> Result<Numbers> {
        let mut numbers = Numbers {
            merge,
            picks: Picks::default(),
            at: 0,
            next: None,
        };
        numbers.advance()?;
        Ok(numbers)
    }

    fn advance(&mut self) -> Result<()> {
        if self.at == self.picks.len() {
            self.at = 0;
            self.merge.next(self.merge.claim_rows(), &mut self.picks)?;
        }
        self.next = match self.picks.is_empty() {
            true => None,
            false => Some(number(&self.picks, self.at)?),
        };
        self.at += usize::from(self.next.is_some());
        Ok(())
    }
}

impl Choose for Numbers {
    fn is_over(&self) -> bool {
        self.next.is_none()
    }

    fn choose(&mut self, picks: &mut Picks) -> Result<()> {
        picks.retain(|key| {
            let stays = self.next.is_some_and(|next| key.starts_with(&next.to_be_bytes()));
            if stays {
                self.advance()?;
            }
            Ok(stays)
        })
    }
}

/// What a row of a sort of numbers says.
fn number(picks: &Picks, at: usize) -> Result<i64> {
    let (frame, row) = picks.row(at);
    Ok(ints(&frame.rows()?, 0)?[row])
}

fn remember(last: &mut Option<Vec<u8>>, key: &[u8]) -> Result<()> {
    let mut copy = last.take().unwrap_or_default();
    copy.clear();
    copy.try_reserve(key.len()).map_err(|_| refused(key.len()))?;
    copy.extend_from_slice(key);
    *last = Some(copy);
    Ok(())
}

/// Numbers, the first column, in the order of `keys`.
fn sort(keys: Vec<Key>, longest: Option<usize>, setup: &Setup) -> Arc<Sort> {
    Sort::new("distinct", keys, longest, 1, usize::MAX, MERGES, setup)
}
