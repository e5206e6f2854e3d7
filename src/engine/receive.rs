//! Rows to Rust.
//!
//! Laws
//! - A receiver sees the batches in input order, one at a time, never two threads at once.

use super::Receiver;
use crate::compile::{Output, SinkMaker};
use standpipe_sdk::spec::Factory;
use standpipe_sdk::{Batch, Faults, Kept, Published, Result, Schema, Sink, Writer};
use std::sync::{Arc, Mutex, PoisonError};

pub(super) type Shared = Arc<Mutex<Receiver<'static>>>;

/// The sinks of these streams.
pub(super) fn outputs(receivers: Vec<(String, Receiver<'static>)>) -> Vec<Output> {
    receivers
        .into_iter()
        .map(|(name, receiver)| Output {
            name,
            make: maker(Arc::new(Mutex::new(receiver))),
        })
        .collect()
}

/// A receiver that takes nothing, for checking.
pub(super) fn nobody() -> Receiver<'static> {
    Box::new(|_, _| Ok(()))
}

pub(super) fn maker(receiver: Shared) -> SinkMaker {
    Arc::new(move |schema: &Schema| -> Factory<Arc<dyn Sink>> {
        let (schema, receiver) = (schema.clone(), receiver.clone());
        Box::new(move |_| {
            Ok(Arc::new(Received {
                schema: schema.clone(),
                receiver: receiver.clone(),
            }))
        })
    })
}

/// Lends a receiver that borrows to the sinks of one run.
pub(super) struct Slot<'r> {
    receiver: Box<Local<'r>>,
}

/// A receiver that stays on the thread it was made on.
type Local<'r> = dyn FnMut(&Schema, Batch<'_>) -> Result<()> + 'r;

impl<'r> Slot<'r> {
    pub(super) fn new(receiver: Box<Local<'r>>) -> Self {
        Slot { receiver }
    }

    /// Runs `work` with a sink that passes rows on to the receiver, over a channel of one batch at a time.
    pub(super) fn lend<T: Send>(mut self, work: impl FnOnce(&SinkMaker) -> T + Send) -> T {
        let (send, receive) = std::sync::mpsc::sync_channel::<(Schema, Kept)>(0);
        let (answer, answered) = std::sync::mpsc::sync_channel::<Result<()>>(0);
        let answered = Mutex::new(answered);
        std::thread::scope(|scope| {
            let worker = scope.spawn(move || {
                let pass: Receiver<'static> = Box::new(move |schema, batch| {
                    let copy = Kept::copy(&batch, batch.copy_bytes())?;
                    let gone = |_| standpipe_sdk::Error::Cancelled;
                    send.send((schema.clone(), copy))
                        .map_err(|_| standpipe_sdk::Error::Cancelled)?;
                    answered
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .recv()
                        .map_err(gone)?
                });
                work(&maker(Arc::new(Mutex::new(pass))))
            });
            while let Ok((schema, batch)) = receive.recv() {
                if answer.send((self.receiver)(&schema, batch.batch())).is_err() {
                    break;
                }
            }
            match worker.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

struct Received {
    schema: Schema,
    receiver: Shared,
}

impl Sink for Received {
    fn writer(self: Arc<Self>) -> Result<Box<dyn Writer>> {
        Ok(Box::new(ReceivedWriter {
            sink: self,
            pending: Vec::new(),
        }))
    }

    fn finish(&self) -> Result<()> {
        Ok(())
    }

    fn publish(&self) -> Result<Vec<Published>> {
        Ok(vec![])
    }

    fn discard(&self) {}
}

struct ReceivedWriter {
    sink: Arc<Received>,
    /// The chunk's batches, until its turn.
    pending: Vec<Kept>,
}

impl Writer for ReceivedWriter {
    fn encode(&mut self, batch: Batch<'_>, _: &Faults<'_>) -> Result<()> {
        self.pending.push(Kept::copy(&batch, batch.copy_bytes())?);
        Ok(())
    }

    fn pending(&self) -> usize {
        self.pending.iter().map(Kept::bytes).sum()
    }

    fn write(&mut self) -> Result<()> {
        let mut receiver = self.sink.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        for kept in self.pending.drain(..) {
            (*receiver)(&self.sink.schema, kept.batch())?;
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.pending.clear();
    }
}
