//! Rows numbered by group: what the stages that keep a count per key stand on.
//!
//! Laws
//! - After a refusal the same rows may come again.
//! - Group numbers ascend in the order of first rows; nothing that leaves a stage depends on hashes.

use super::codes::held;
use super::keyset::KeySet;
use super::rowkeys::KeyMaker;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::spec::{Call, Class, Least, Room, StageSpec};
use standpipe_sdk::{Arena, Batch, Budget, Prepare, Reservation};
use std::sync::Arc;

/// What a stage has for a few hundred groups with short keys, whatever others take. Beyond that, groups take what others leave,
/// and a refusal ends the run (E0701).
const SOME_GROUPS: usize = 32 << 10;

/// What a stage cannot do without that keeps a count for each group.
pub(super) fn least(_: &Room) -> Least {
    Least {
        takes: SOME_GROUPS,
        gives: 0,
    }
}

/// Of calls with `by` that, of others nothing.
pub(super) fn class(spec: &StageSpec, call: &Call<'_>) -> Class {
    Class {
        least: if call.by.is_empty() {
            |_| Least::default()
        } else {
            least
        },
        ..Class::of(spec)
    }
}

/// The groups seen so far and a count for each.
pub struct Groups {
    stage: &'static str,
    maker: KeyMaker,
    set: KeySet,
    /// Rows of each group.
    rows: Vec<u64>,
    reservation: Reservation,
}

impl Groups {
    /// No groups yet.
    pub(super) fn new(stage: &'static str, maker: KeyMaker, budget: &Arc<Budget>) -> Self {
        Groups {
            stage,
            maker,
            set: KeySet::new(budget),
            rows: vec![],
            reservation: budget.reserve(),
        }
    }

    /// What must be done to a batch before it comes to [`Groups::of`].
    pub(super) fn prepare(&self) -> Box<dyn Prepare> {
        Box::new(self.maker.clone())
    }

    /// The group of each row of a prepared batch. New groups have counted no rows yet, so asking twice changes nothing.
    ///
    /// # Errors
    /// `Failed`, with the stage's name, if a new group does not fit; `Memory` if `arena` is full.
    pub fn of<'a>(&mut self, batch: &Batch<'_>, arena: &'a Arena) -> Result<&'a [u32]> {
        let ids = arena.fill(batch.rows(), 0u32)?;
        self.number(batch, ids).map_err(|e| held(self.stage, e))?;
        Ok(ids)
    }

    /// The same into `ids`.
    ///
    /// # Errors
    /// `Memory` if a new group does not fit.
    pub(super) fn number(&mut self, batch: &Batch<'_>, ids: &mut [u32]) -> Result<()> {
        let keys = KeyMaker::read(batch)?;
        self.set.number(keys.hashes(), |row| keys.get(row), ids)?;
        self.count_all()
    }

    /// A batch as [`Groups::number`] takes it.
    pub(super) fn prepared<'a>(&self, batch: Batch<'a>, arena: &'a Arena) -> Result<Batch<'a>> {
        self.maker.made(batch, arena)
    }

    /// What makes the keys.
    pub(super) fn maker(&self) -> &KeyMaker {
        &self.maker
    }

    /// Sets `bytes` of the budget aside for groups.
    pub(super) fn set_aside(&mut self, bytes: usize) -> Result<()> {
        let counts = bytes / 8;
        self.reservation.set_aside(counts)?;
        self.set.set_aside(bytes - counts)
    }

    /// Forgets all groups; what is set aside stays.
    pub(super) fn clear(&mut self) {
        self.set.clear();
        self.rows = vec![];
        self.reservation.shrink(self.reservation.bytes());
    }

    /// A count for each group.
    fn count_all(&mut self) -> Result<()> {
        let groups = self.set.len() as usize;
        let more = groups.saturating_sub(self.rows.len());
        grow(&mut self.rows, more, &mut self.reservation)?;
        self.rows.resize(groups, 0);
        Ok(())
    }

    /// The keys of the groups, by number.
    pub(super) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.set.keys()
    }

    /// What a group takes in [`Groups::in_order`].
    pub(super) const ORDER_BYTES: usize = size_of::<(&[u8], u32)>();

    /// The keys of the first `count` groups in ascending order, with their numbers. Whoever asks has reserved
    /// [`Groups::ORDER_BYTES`] for each of them.
    ///
    /// # Errors
    /// `Memory` if the system refuses.
    pub(super) fn in_order(&self, count: usize) -> Result<Vec<(&[u8], u32)>> {
        let mut order = vec![];
        order
            .try_reserve_exact(count)
            .map_err(|_| refused(count * Self::ORDER_BYTES))?;
        order.extend(self.keys().zip(0..count as u32));
        order.sort_unstable();
        Ok(order)
    }

    /// Rows counted of group `id`.
    pub fn rows(&self, id: u32) -> u64 {
        self.rows[id as usize]
    }

    /// Counts a row of group `id`; answers how many came before it.
    pub fn count(&mut self, id: u32) -> u64 {
        let rows = &mut self.rows[id as usize];
        *rows += 1;
        *rows - 1
    }

    /// Takes back one [`Groups::count`] for each of `ids`.
    pub fn uncount(&mut self, ids: &[u32]) {
        for &id in ids {
            self.rows[id as usize] -= 1;
        }
    }
}

/// The system has not the `bytes` that the budget has.
pub(super) fn refused(bytes: usize) -> Error {
    Error::Memory {
        wanted: bytes,
        used: 0,
        limit: usize::MAX,
    }
}

/// Makes room for `more` values, doubling, under `reservation`.
///
/// # Errors
/// `Memory` if the budget or the system refuses; nothing changes then.
pub(super) fn grow<T>(values: &mut Vec<T>, more: usize, reservation: &mut Reservation) -> Result<()> {
    let wanted = values.len().saturating_add(more);
    if wanted <= values.capacity() {
        return Ok(());
    }
    grow_to(values, wanted.max(values.capacity() * 2).max(4), reservation)
}

/// Makes the capacity `capacity` values, under `reservation`: the old block counts until the new one is there.
pub(super) fn grow_to<T>(values: &mut Vec<T>, capacity: usize, reservation: &mut Reservation) -> Result<()> {
    let (old, new) = (
        values.capacity() * size_of::<T>(),
        capacity.saturating_mul(size_of::<T>()),
    );
    reservation.grow(new)?;
    if values.try_reserve_exact(capacity.saturating_sub(values.len())).is_err() {
        reservation.shrink(new);
        return Err(Error::Memory {
            wanted: new,
            used: old,
            limit: usize::MAX,
        });
    }
    reservation.shrink(old);
    Ok(())
}
