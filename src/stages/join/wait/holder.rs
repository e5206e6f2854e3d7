//! One lane's way in for left rows that wait: rows go to disk in their order, their keys apart from them.
//!
//! Laws
//! - Rows are taken with their keys: of a refusal that may come again neither is.

use super::super::Plan;
use super::super::parted::LaneKeys;
use super::super::scratch::Scratch;
use super::super::sides::{L_NUMBER, L_ROW};
use super::floors::HELD_BYTES;
use super::waiters::Waiters;
use super::{KeysOf, Wait};
use crate::stages::codes::held;
use crate::stages::lanes::lock;
use crate::stages::spool::Spool;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::{Batch, Breaker, Fill, Hold, Waiting};
use std::sync::{Arc, Mutex};

/// Left rows that are made ready at a time.
const HELD_ROWS: usize = 16 << 10;

/// One lane's left rows.
pub(super) struct Lane {
    rows: Option<Spool>,
    keys: Option<KeysOfLane>,
    scratch: Scratch,
    number: u64,
    count: u64,
}

/// Where its keys go.
pub(super) enum KeysOfLane {
    Parted(LaneKeys, usize),
    Sorted(Box<dyn Fill>),
}

impl Lane {
    /// No more rows come; gives the keys, unless they are sorted.
    pub(super) fn close(&mut self, plan: &Plan) -> Result<Option<LaneKeys>> {
        if let Some(rows) = self.rows.take() {
            rows.finish(order_of(plan))?;
        }
        self.scratch.close();
        match self.keys.take() {
            Some(KeysOfLane::Parted(keys, _)) => Ok(Some(keys)),
            Some(KeysOfLane::Sorted(mut sorted)) => sorted.done().map(|()| None),
            None => Ok(None),
        }
    }
}

/// The columns that say the order of left rows.
fn order_of(plan: &Plan) -> [usize; 2] {
    [plan.left_width + L_NUMBER, plan.left_width + L_ROW]
}

/// One lane's way in for rows that wait.
pub(in crate::stages::join) struct Holder {
    wait: Arc<Wait>,
    lane: Arc<Mutex<Lane>>,
    plan: Arc<Plan>,
}

impl Holder {
    /// `plan` is as it was bound.
    pub(in crate::stages::join) fn new(wait: &Arc<Wait>, plan: &Arc<Plan>) -> Result<Holder> {
        wait.set_aside()?;
        let budget = &wait.setup.budget;
        let keys = match &*lock(&wait.keys) {
            Some(KeysOf::Parted(store, parts)) => KeysOfLane::Parted(LaneKeys::new(store, budget, *parts)?, *parts),
            Some(KeysOf::Sorted(sorted)) => KeysOfLane::Sorted(sorted.clone().filler()?),
            None => return Err(Error::Panic("rows wait for what is over".into())),
        };
        let lane = Arc::new(Mutex::new(Lane {
            rows: Some(Spool::new(&wait.rows, budget)?),
            keys: Some(keys),
            scratch: Scratch::starting_with(HELD_BYTES, budget, wait.setup.share)?,
            number: 0,
            count: 0,
        }));
        lock(&wait.lanes).push(lane.clone());
        Ok(Holder {
            wait: wait.clone(),
            lane,
            plan: plan.clone(),
        })
    }
}

impl Hold for Holder {
    fn push(&mut self, chunk: &Waiting<'_>, batch: Batch<'_>) -> Result<()> {
        let mut lane = lock(&self.lane);
        let Lane {
            rows: Some(spool),
            keys: Some(keys),
            scratch,
            number,
            count,
        } = &mut *lane
        else {
            return Err(Error::Panic("rows come after their end".into()));
        };
        if *number != chunk.number {
            (*number, *count) = (chunk.number, 0);
        }
        let (mut from, mut len) = (0, HELD_ROWS);
        while from < batch.rows() {
            len = len.min(batch.rows() - from);
            let made = Waiters::of(
                &self.plan,
                &self.wait,
                chunk,
                &batch,
                from..from + len,
                *count,
                &scratch.arena,
            );
            let outcome = made.and_then(|some| {
                let rows = some.rows.rows();
                if rows > 0 {
                    let timed = some.timed_keys((*number, *count), &scratch.arena)?;
                    spool.push(&some.rows, order_of(&self.plan))?;
                    // The rows are taken: this cannot be tried again.
                    some.push_keys(keys, timed, (*number, *count))
                        .map_err(|e| held("join", e))?;
                }
                Ok(rows as u64)
            });
            scratch.arena.reset();
            match outcome {
                Ok(rows) => {
                    *count += rows;
                    from += len;
                }
                // Rather more room: many short pieces are slow.
                Err(Error::Memory { .. }) if scratch.more() => {}
                Err(Error::Memory { .. }) if len > 1 => len = len.div_ceil(2),
                Err(error) => return Err(held("join", error)),
            }
        }
        Ok(())
    }
}
