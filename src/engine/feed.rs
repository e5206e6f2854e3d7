//! Rows from Rust.

use super::Feeder;
use crate::compile::Input;
use crate::stages::values;
use standpipe_sdk::{Arena, Batch, Error, Faults, Kept, Locator, Part, Place, Reader, Result, Schema, Source, Value};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The streams of `declared`, with the feeders that were given.
pub(super) fn inputs(declared: &[(String, Schema)], feeds: Vec<(String, Feeder)>) -> Vec<Input> {
    let mut feeds: Vec<(String, Arc<Mutex<Option<Feeder>>>)> = feeds
        .into_iter()
        .map(|(name, feeder)| (name, Arc::new(Mutex::new(Some(feeder)))))
        .collect();
    let input = |(name, schema): &(String, Schema)| {
        let at = feeds.iter().rposition(|(n, _)| n == name);
        let feeder = at.map(|at| feeds.remove(at).1).unwrap_or_default();
        Input {
            name: name.clone(),
            schema: schema.clone(),
            make: Arc::new(move |setup, _| {
                let feeder = feeder.lock().unwrap_or_else(PoisonError::into_inner).take();
                Ok(Arc::new(Fed {
                    feeder: Mutex::new((0, 0, feeder)),
                    moved: Condvar::new(),
                    ended: AtomicBool::new(false),
                    tickets: AtomicU64::new(0),
                    cancelled: setup.cancelled.clone(),
                }) as Arc<dyn Source>)
            }),
        }
    };
    declared.iter().map(input).collect()
}

/// Rows of constants as a batch of its own.
pub(super) fn kept(schema: &Schema, rows: &[Vec<Value>]) -> Result<Kept> {
    let arena = Arena::new(usize::MAX / 2);
    let batch = values::batch(schema, rows, &arena)?;
    Kept::copy(&batch, batch.copy_bytes())
}

/// A feeder as a source: its batches are claims.
struct Fed {
    /// The claim whose turn it is, rows so far, the feeder.
    feeder: Mutex<(u64, u64, Option<Feeder>)>,
    moved: Condvar,
    ended: AtomicBool,
    tickets: AtomicU64,
    cancelled: Arc<AtomicBool>,
}

impl Source for Fed {
    fn ticket(&self) -> Option<u64> {
        (!self.ended.load(SeqCst)).then(|| self.tickets.fetch_add(1, SeqCst))
    }

    fn reader(self: Arc<Self>) -> Result<Box<dyn Reader>> {
        Ok(Box::new(FedReader {
            source: self,
            batch: None,
            first_row: 0,
            at: 0,
        }))
    }
}

struct FedReader {
    source: Arc<Fed>,
    batch: Option<Kept>,
    first_row: u64,
    at: usize,
}

impl Reader for FedReader {
    fn claim(&mut self, ticket: u64) -> Result<bool> {
        const NAP: Duration = Duration::from_millis(20);
        let source = &*self.source;
        let mut turn = source.feeder.lock().unwrap_or_else(PoisonError::into_inner);
        while turn.0 != ticket {
            if source.cancelled.load(SeqCst) {
                return Err(Error::Cancelled);
            }
            turn = source
                .moved
                .wait_timeout(turn, NAP)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        let next = match &mut turn.2 {
            Some(feeder) if !source.ended.load(SeqCst) => feeder(),
            _ => Ok(None),
        };
        turn.0 += 1;
        self.at = 0;
        self.first_row = turn.1;
        let outcome = match next {
            Ok(Some(batch)) => {
                turn.1 += batch.batch().rows() as u64;
                let some = batch.batch().rows() > 0;
                self.batch = Some(batch);
                Ok(some)
            }
            other => {
                source.ended.store(true, SeqCst);
                other.map(|_| false)
            }
        };
        drop(turn);
        source.moved.notify_all();
        outcome
    }

    fn decode<'a>(&'a mut self, arena: &'a Arena, max_rows: usize, stop_at_first: bool) -> Result<Part<'a>> {
        let FedReader {
            batch, first_row, at, ..
        } = self;
        let Some(kept) = batch else {
            return Err(Error::Panic("decode without a claim".into()));
        };
        let whole: Batch<'a> = kept.batch();
        let rows = (whole.rows() - *at).min(max_rows);
        let part = whole.slice(*at, rows, arena)?;
        let offset = *first_row + *at as u64;
        let places = arena.collect(rows, |row| Place {
            source: 0,
            offset: offset + row as u64,
            sub: 0,
        })?;
        *at += rows;
        Ok(Part {
            batch: Batch::new(part.columns(), Some(places), rows),
            faults: Faults::new(arena, stop_at_first),
            last: *at == whole.rows(),
            locator: Locator::default(),
        })
    }
}
