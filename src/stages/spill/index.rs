//! Where the frames of a segment are: a list in memory, the first part of which may be on disk, page by page.

use super::file::{Address, SpillFile};
use standpipe_sdk::error::Result;
use standpipe_sdk::{Budget, Reservation};
use std::sync::{Arc, Mutex, PoisonError};

/// Where a frame is and what it takes.
#[derive(Clone, Copy)]
pub(super) struct FrameAt {
    pub(super) keys: Address,
    pub(super) rows: Address,
    /// Of an arena, beside the encoded rows.
    pub(super) unpacked: u32,
    pub(super) count: u32,
}

/// The frames of a long segment but for the last ones: lists of them on disk.
pub(super) struct Pages {
    /// Each list, and the number of its first frame.
    pub(super) lists: Vec<(usize, Address)>,
    pub(super) room: Reservation,
    /// Frames on them, and encoded bytes of their keys and of their rows.
    pub(super) frames: usize,
    pub(super) bytes: [u64; 2],
    /// The list that was read last.
    at: Mutex<Option<(usize, Vec<FrameAt>)>>,
}

impl Pages {
    pub(super) fn new(budget: &Arc<Budget>) -> Pages {
        Pages {
            lists: vec![],
            room: budget.reserve(),
            frames: 0,
            bytes: [0; 2],
            at: Mutex::default(),
        }
    }

    /// The frame `index`, which is on one of them.
    pub(super) fn get(&self, index: usize, file: &SpillFile) -> Result<FrameAt> {
        let page = self.lists.partition_point(|(first, _)| *first <= index) - 1;
        let (first, at) = self.lists[page];
        let mut known = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *known {
            Some((number, frames)) if *number == page => Ok(frames[index - first]),
            _ => {
                *known = None;
                let contents = file.contents(at)?;
                let frames: Vec<FrameAt> = contents.as_chunks().0.iter().map(FrameAt::decode).collect();
                let frame = frames.get(index - first).copied();
                *known = Some((page, frames));
                frame.ok_or_else(|| file.failed("read", "a list of frames is not what was written"))
            }
        }
    }
}

impl FrameAt {
    /// Bytes on a page.
    pub(super) const BYTES: usize = 2 * Address::BYTES + 8;

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.keys.encode());
        out.extend_from_slice(&self.rows.encode());
        out.extend_from_slice(&self.unpacked.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
    }

    fn decode(bytes: &[u8; FrameAt::BYTES]) -> FrameAt {
        let (addresses, rest) = bytes.as_chunks::<{ Address::BYTES }>();
        let number = |from: usize| {
            rest.get(from..)
                .and_then(|b| b.first_chunk())
                .map_or(0, |b| u32::from_le_bytes(*b))
        };
        FrameAt {
            keys: Address::decode(&addresses[0]),
            rows: Address::decode(&addresses[1]),
            unpacked: number(0),
            count: number(4),
        }
    }

    /// Memory that a loaded frame takes, reading it included.
    pub(super) fn bytes(&self) -> usize {
        let keys = self.keys.bytes() + 16 * self.count as usize;
        let rows = self.rows.bytes() + self.rows.stored_bytes() + self.unpacked as usize;
        // The keys are unpacked before the rows are read.
        keys + rows.max(self.keys.stored_bytes()) + 1024
    }
}
