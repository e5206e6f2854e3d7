//! A load: as many right rows of one part as fit into memory, and a table of their keys.
//!
//! Laws
//! - A load's reservation has all that it takes, the table and the making of it included: [`loaded_bytes`].

use super::super::Plan;
use super::super::cursor::room_bytes;
use super::super::pieces::{Piece, Pieces};
use super::super::sides::{R_CHUNK, R_KEY, R_ROW, R_WIDTH, key};
use super::super::table::Table;
use crate::stages::picked::PIECE_BYTES;
use standpipe_sdk::error::Result;
use standpipe_sdk::{Arena, Batch, Budget, Column, Columns, Reservation};
use std::collections::HashMap;

/// What a row of a load takes beside what is kept of it, the making of the table included.
const TABLE_BYTES: usize =
    2 * size_of::<u32>() + size_of::<u64>() + size_of::<u32>() + size_of::<(u64, u32)>() + MARK_BYTES;
/// A bit, and what is known of long runs.
const MARK_BYTES: usize = 5;

/// What right rows take in a load.
pub(in crate::stages::join) fn loaded_bytes(rows: &Batch<'_>) -> usize {
    rows.copy_bytes() + PIECE_BYTES + rows.rows() * TABLE_BYTES
}

/// What a load has at least.
pub(in crate::stages::join) fn least_load(budget_bytes: usize) -> usize {
    4 * room_bytes(budget_bytes)
}

/// Right rows in memory.
pub(super) struct Load {
    pub(super) pieces: Pieces,
    pub(super) table: Table,
    /// Runs with many rows, by where they start.
    pub(super) runs: HashMap<usize, LongRun>,
    /// One bit per row of each piece: some left row has its key. Empty where nobody asks.
    pub(super) matched: Vec<Vec<u64>>,
    _room: Reservation,
}

/// What is known of a run with many rows.
pub(super) struct LongRun {
    /// All rows have one key, not only one hash.
    pub(super) is_one: bool,
    pub(super) copies: usize,
    /// Where it is among the hot rows.
    pub(super) hot: Option<u64>,
}

impl Load {
    pub(super) fn new(plan: &Plan, list: Vec<Piece>, rows: usize, room: Reservation) -> Result<Load> {
        let matched = match plan.mode.keeps_right() && !plan.condition {
            true => list.iter().map(|piece| vec![0; piece.rows.div_ceil(64)]).collect(),
            false => vec![],
        };
        let pieces = Pieces::new(list)?;
        // What the table takes is in `room` already.
        let mut own = Budget::new(rows * TABLE_BYTES + (1 << 20)).reserve();
        let table = Table::build(rows, &mut own, |f| {
            for (at, piece) in pieces.list.iter().enumerate() {
                let Some(kept) = &piece.kept else { continue };
                let batch = kept.batch();
                for row in 0..piece.rows {
                    if let Some(key) = key(&batch, plan.right_width + R_KEY, row) {
                        f(plan.code_of(key), pieces.id(at, row));
                    }
                }
            }
        })?;
        Ok(Load {
            pieces,
            table,
            runs: HashMap::new(),
            matched,
            _room: room,
        })
    }

    #[inline]
    pub(super) fn key(&self, plan: &Plan, id: u32) -> Option<&[u8]> {
        let (piece, row) = self.pieces.pick(id);
        let kept = self.pieces.list[piece as usize].kept.as_ref()?;
        key(&kept.batch(), plan.right_width + R_KEY, row as usize)
    }

    #[inline]
    pub(super) fn mark(&mut self, id: u32) {
        let (piece, row) = self.pieces.pick(id);
        self.matched[piece as usize][row as usize / 64] |= 1 << (row % 64);
    }

    /// Some rows with what is needed of them; nothing but nulls for `NONE`.
    pub(super) fn gather<'a>(&'a self, plan: &Plan, ids: &[u32], arena: &'a Arena) -> Result<Batch<'a>> {
        let width = plan.right_width;
        let mut wanted = plan.given();
        wanted.sort_unstable();
        wanted.dedup();
        wanted.extend([width + R_CHUNK, width + R_ROW]);
        let made = self.pieces.gather(&wanted, ids, arena)?;
        let mut columns = Columns::new(arena, width + R_WIDTH)?;
        for index in 0..width + R_WIDTH {
            columns.push(match wanted.iter().position(|&column| column == index) {
                Some(at) => made[at],
                None if index < width => Column::absent(ids.len()),
                None => Column::nulls(ids.len()),
            });
        }
        Ok(Batch::new(columns.finish(), None, ids.len()))
    }
}
