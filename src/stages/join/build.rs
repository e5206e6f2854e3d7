//! Gathers the right side: every lane keeps what is needed of its batches; once all is there, the table is built.
//!
//! What does not fit is sorted by key, on disk where it must be: as soon as one lane is refused memory, or the table is, all
//! rows go that way, and those of the left side wait ([`super::wait`]).
//!
//! Laws
//! - Everything is reserved before it is allocated. What sorting takes at least is set aside before the first row.
//! - Rows that can match nothing are not kept, unless they come out without a match.

use super::super::codes::held;
use super::super::groups::{grow, grow_to};
use super::super::keys::{Key, max_width};
use super::super::sort::Sort;
use super::Plan;
use super::again::Again;
use super::fill::{Filler, Lane};
use super::pieces::{Piece, Pieces, put_together};
use super::probe::Prober;
use super::rest::Rest;
use super::sides::{R_KEY, R_TIME, R_WIDTH};
use super::table::Table;
use super::wait::{Holder, MERGES, Wait};
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::spec::Setup;
use standpipe_sdk::{Breaker, Budget, Build, Fill, Hold, Probe, Reservation, Source, Type};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// A join between its two streams.
pub(super) struct Join {
    pub(super) plan: Arc<Plan>,
    pub(super) setup: Setup,
    pub(super) budget: Arc<Budget>,
    pub(super) share: usize,
    lanes: Mutex<Vec<Lane>>,
    /// Where right rows go that do not fit; until it is known whether there are such.
    sorted: Mutex<Option<Arc<Sort>>>,
    /// Some do not fit: all go there.
    spills: AtomicBool,
    built: OnceLock<Arc<Built>>,
    wait: OnceLock<Arc<Wait>>,
}

/// The right side, complete.
pub(super) struct Built {
    pub(super) pieces: Pieces,
    pub(super) table: Table,
    /// For `asof`: when, by position in the table.
    pub(super) times: Vec<i64>,
    /// For each batch one bit per row: some left row has matched it. Empty where nobody asks.
    matched: Vec<Vec<AtomicU64>>,
    _reservations: Vec<Reservation>,
}

impl Join {
    pub(super) fn new(plan: Arc<Plan>, setup: &Setup) -> Join {
        let width = plan.right_width;
        let is_asof = plan.asof.is_some();
        let key = vec![Key::ascending(width + if is_asof { R_KEY } else { R_TIME })];
        Join {
            plan,
            sorted: Mutex::new(Some(Sort::new(
                "join",
                key,
                if is_asof { None } else { max_width([&Type::Int]) },
                width + R_WIDTH,
                usize::MAX,
                MERGES,
                setup,
            ))),
            setup: setup.clone(),
            budget: setup.budget.clone(),
            share: setup.share,
            lanes: Mutex::default(),
            spills: AtomicBool::new(false),
            built: OnceLock::new(),
            wait: OnceLock::new(),
        }
    }

    fn built(&self) -> Result<Arc<Built>> {
        let built = self.built.get().cloned();
        built.ok_or_else(not_full)
    }

    fn waiting(&self) -> Result<Arc<Wait>> {
        self.wait.get().cloned().ok_or_else(not_full)
    }

    fn sorted(&self) -> MutexGuard<'_, Option<Arc<Sort>>> {
        self.sorted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lane is done.
    pub(super) fn keep(&self, lane: Lane) {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).push(lane);
    }

    /// Some rows do not fit.
    pub(super) fn spill(&self) {
        self.spills.store(true, Relaxed);
    }

    /// Whether a lane that holds so many rows has to sort them now.
    pub(super) fn spills(&self, held_rows: usize) -> bool {
        let forced = self.setup.spill.spill_rows();
        if forced.is_some_and(|rows| held_rows >= rows) {
            self.spills.store(true, Relaxed);
        }
        self.spills.load(Relaxed)
    }
}

fn not_full() -> Error {
    Error::Panic("a join is probed before its right side is full".into())
}

impl Build for Join {
    fn filler(self: Arc<Self>) -> Result<Box<dyn Fill>> {
        let sorted = self.sorted().clone().ok_or_else(not_full)?;
        Ok(Box::new(Filler::new(self, sorted.filler()?)?))
    }

    fn seal(&self) -> Result<()> {
        let mut lanes = std::mem::take(&mut *self.lanes.lock().unwrap_or_else(PoisonError::into_inner));
        let sorted = self.sorted().take().ok_or_else(not_full)?;
        if !self.spills(0) {
            match Built::new(&self.plan, lanes, &self.budget)? {
                Ok(built) => {
                    // Sealed once: nobody has set it.
                    let _ = self.built.set(Arc::new(built));
                    return Ok(());
                }
                Err(back) => lanes = back,
            }
        }
        for lane in &mut lanes {
            lane.spill(&self.plan)?;
            lane.sorted.done()?;
        }
        let right_bytes = lanes.iter().map(|lane| lane.sorted_bytes).sum();
        drop(lanes);
        sorted.to_disk()?;
        let wait = Wait::new(&self.plan, sorted, right_bytes, &self.setup);
        let _ = self.wait.set(Arc::new(wait));
        Ok(())
    }

    fn prober(self: Arc<Self>) -> Result<Box<dyn Probe>> {
        Ok(Box::new(match self.wait.get() {
            Some(wait) => Prober::of_waiting(&self, wait)?,
            None => Prober::new(&self, self.built()?),
        }))
    }

    fn drain(self: Arc<Self>) -> Result<Arc<dyn Source>> {
        match self.wait.get() {
            Some(wait) => Ok(wait.clone().rest()),
            None => Ok(Arc::new(Rest::new(self.plan.clone(), self.built()?))),
        }
    }

    fn waits(&self) -> bool {
        self.wait.get().is_some()
    }

    fn holder(self: Arc<Self>) -> Result<Box<dyn Hold>> {
        Ok(Box::new(
            Holder::new(&self.waiting()?, &self.plan).map_err(|e| held("join", e))?,
        ))
    }

    fn again(self: Arc<Self>) -> Result<Arc<dyn Source>> {
        Ok(Arc::new(Again::new(self.waiting()?, self.plan.clone())))
    }
}

impl Built {
    /// The rows of all lanes, which come back if there is no room for the table.
    fn new(plan: &Plan, lanes: Vec<Lane>, budget: &Arc<Budget>) -> Result<std::result::Result<Built, Vec<Lane>>> {
        let mut cushion = budget.reserve();
        if cushion.grow(table_bytes(plan, &lanes)).is_err() {
            return Ok(Err(lanes));
        }
        drop(cushion);
        Built::with_room(plan, lanes, budget)
            .map(Ok)
            .map_err(|e| held("join", e))
    }

    fn with_room(plan: &Plan, lanes: Vec<Lane>, budget: &Arc<Budget>) -> Result<Built> {
        let mut reservation = budget.reserve();
        let mut list: Vec<(u64, Piece)> = vec![];
        grow(
            &mut list,
            lanes.iter().map(|lane| lane.pieces.len()).sum(),
            &mut reservation,
        )?;
        let mut reservations = vec![];
        for lane in lanes {
            list.extend(lane.pieces);
            reservations.push(lane.reservation);
        }
        // Stable: the batches of one chunk are in one lane, in order.
        list.sort_by_key(|(chunk, _)| *chunk);
        let mut pieces: Vec<Piece> = vec![];
        grow(&mut pieces, list.len(), &mut reservation)?;
        pieces.extend(list.into_iter().map(|(_, piece)| piece));
        let width = pieces
            .iter()
            .filter_map(|piece| piece.kept.as_ref())
            .map(|kept| kept.batch().columns().len());
        let width = width.max().unwrap_or(0);
        let pieces = put_together(pieces, width, &mut reservation)?;
        let mut pieces = Pieces::new(pieces)?;
        let valid_rows = |piece: &Piece| (0..piece.rows).filter(|&row| piece.is_valid(row)).count();
        let rows = pieces.list.iter().map(valid_rows).sum();
        let table = Table::build(rows, &mut reservation, |f| {
            for (at, piece) in pieces.list.iter().enumerate() {
                for (row, &code) in piece.codes.iter().enumerate() {
                    if piece.is_valid(row) {
                        f(code, pieces.id(at, row));
                    }
                }
            }
        })?;
        let mut times = vec![];
        if plan.asof.is_some() {
            grow_to(&mut times, rows, &mut reservation)?;
            times.extend(table.ids(0..rows).iter().map(|&id| {
                let (piece, row) = pieces.pick(id);
                pieces.list[piece as usize].times[row as usize]
            }));
        }
        let mut matched = vec![];
        if plan.mode.keeps_right() {
            for piece in &pieces.list {
                let mut bits: Vec<AtomicU64> = vec![];
                grow_to(&mut bits, piece.rows.div_ceil(64), &mut reservation)?;
                bits.resize_with(piece.rows.div_ceil(64), AtomicU64::default);
                grow(&mut matched, 1, &mut reservation)?;
                matched.push(bits);
            }
        }
        for piece in &mut pieces.list {
            let bytes = piece.codes.capacity() * size_of::<u64>() + piece.times.capacity() * size_of::<i64>();
            piece.codes = vec![];
            piece.times = vec![];
            reservation.shrink(bytes.min(reservation.bytes()));
        }
        reservations.push(reservation);
        Ok(Built {
            pieces,
            table,
            times,
            matched,
            _reservations: reservations,
        })
    }

    /// Some right rows, each at the position of its number.
    pub(super) fn of_rows(pieces: Vec<Piece>, mark: bool) -> Result<Built> {
        let pieces = Pieces::new(pieces)?;
        let refused = |_| Error::Memory {
            wanted: 0,
            used: 0,
            limit: usize::MAX,
        };
        let mut ids: Vec<u32> = vec![];
        let rows = pieces.list.iter().map(|piece| piece.rows).sum();
        ids.try_reserve_exact(rows).map_err(refused)?;
        let mut matched = vec![];
        for (at, piece) in pieces.list.iter().enumerate() {
            ids.extend((0..piece.rows).map(|row| pieces.id(at, row)));
            if mark {
                let mut bits: Vec<AtomicU64> = vec![];
                bits.try_reserve_exact(piece.rows.div_ceil(64)).map_err(refused)?;
                bits.resize_with(piece.rows.div_ceil(64), AtomicU64::default);
                matched.push(bits);
            }
        }
        Ok(Built {
            pieces,
            table: Table::of_ids(ids),
            times: vec![],
            matched,
            _reservations: vec![],
        })
    }

    /// Rows that were matched since this was asked the last time: for each batch that was, their positions.
    pub(super) fn newly_matched(&self) -> impl Iterator<Item = (usize, Vec<u32>)> + '_ {
        self.matched.iter().enumerate().filter_map(|(piece, bits)| {
            let mut rows = vec![];
            for (at, word) in bits.iter().enumerate() {
                let mut bits = word.swap(0, Relaxed);
                while bits != 0 {
                    rows.push((at * 64) as u32 + bits.trailing_zeros());
                    bits &= bits - 1;
                }
            }
            (!rows.is_empty()).then_some((piece, rows))
        })
    }

    /// A left row has matched the row `id`.
    pub(super) fn mark(&self, id: u32) {
        let (piece, row) = self.pieces.pick(id);
        if let Some(word) = self
            .matched
            .get(piece as usize)
            .and_then(|bits| bits.get(row as usize / 64))
        {
            let bit = 1 << (row % 64);
            if word.load(Relaxed) & bit == 0 {
                word.fetch_or(bit, Relaxed);
            }
        }
    }

    /// Rows of a batch that nobody has matched.
    pub(super) fn unmatched(&self, piece: usize) -> impl Iterator<Item = u32> + '_ {
        let rows = self.pieces.list[piece].rows;
        let is_matched = move |row: &usize| {
            let word = self.matched.get(piece).and_then(|bits| bits.get(row / 64));
            word.is_some_and(|word| word.load(Relaxed) >> (row % 64) & 1 == 1)
        };
        (0..rows).filter(move |row| !is_matched(row)).map(|row| row as u32)
    }
}

/// What the table of so many rows takes at most, the way there included.
fn table_bytes(plan: &Plan, lanes: &[Lane]) -> usize {
    let pieces = || lanes.iter().flat_map(|lane| &lane.pieces);
    let rows: usize = pieces().map(|(_, piece)| piece.rows).sum();
    let count = pieces().count();
    let row_bytes = 2 * size_of::<u32>() + size_of::<u64>() + size_of::<u32>() + size_of::<(u64, u32)>();
    let times = if plan.asof.is_some() {
        rows * size_of::<i64>()
    } else {
        0
    };
    let bits = if plan.mode.keeps_right() {
        rows / 8 + count * 64
    } else {
        0
    };
    // Lists of pieces, each made anew.
    rows * row_bytes + times + bits + 4 * count * size_of::<(u64, Piece)>() + 4096
}
