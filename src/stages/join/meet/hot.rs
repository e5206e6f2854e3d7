//! Hot right rows on disk, run after run: a key's rows once, however many left rows have it.

use crate::stages::keys::Keys;
use crate::stages::spill::{Segment, SegmentWriter, Store};
use standpipe_sdk::error::Result;
use standpipe_sdk::{Arena, Batch, Budget, Reservation};
use std::sync::Arc;

/// Hot right rows, run after run.
pub(in crate::stages::join) struct Hot {
    pub(in crate::stages::join) segment: Segment,
    /// The first row of each frame.
    pub(in crate::stages::join) starts: Vec<u64>,
    /// For frames and copies of their rows, as many as there are lanes.
    pub(in crate::stages::join) pool: Arc<Budget>,
    _rooms: [Reservation; 2],
}

/// Writes hot runs.
pub(in crate::stages::join) struct HotWriter {
    writer: SegmentWriter,
    pub(super) rows: u64,
    starts: Vec<u64>,
    starts_room: Reservation,
}

impl HotWriter {
    pub(in crate::stages::join) fn new(store: &Arc<Store>, room: Reservation) -> Result<HotWriter> {
        Ok(HotWriter {
            writer: store.writer()?,
            rows: 0,
            starts: vec![],
            starts_room: room,
        })
    }

    pub(super) fn append(&mut self, rows: &Batch<'_>, arena: &Arena) -> Result<()> {
        let count = rows.rows();
        let keys = Keys::grouping([]).block(rows, arena)?;
        let chunks = arena.collect(count, |at| self.rows + at as u64)?;
        let numbers = arena.fill(count, 0u32)?;
        self.writer.make_room(rows, &keys)?;
        self.writer.append(rows, &keys, chunks, numbers)?;
        self.rows += count as u64;
        Ok(())
    }

    pub(super) fn finish(mut self, mut room: Reservation, readers: usize) -> Result<Option<Hot>> {
        if self.rows == 0 {
            return Ok(None);
        }
        let segment = self.writer.finish()?;
        self.starts_room.room_to(&mut self.starts, segment.frames())?;
        let mut start = 0;
        for frame in 0..segment.frames() {
            self.starts.push(start);
            start += segment.rows_of(frame)? as u64;
        }
        // Each reader: a frame, and a copy of its rows.
        let bytes = 2 * readers * segment.largest();
        room.grow(bytes.saturating_sub(room.bytes()))?;
        Ok(Some(Hot {
            segment,
            starts: self.starts,
            pool: Budget::new(bytes),
            _rooms: [self.starts_room, room],
        }))
    }
}
