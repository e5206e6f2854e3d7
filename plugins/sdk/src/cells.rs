//! Cells of delimited text where they stand in their block: nothing is copied and nothing looked at until somebody asks.
//!
//! Laws
//! - A cell is the bytes between two delimiters, quotes and all; an empty one is null.
//! - A cell of the last column does not have the `\r` before its newline.
//! - Asking is cheap (two loads): a column that a filter thins out first never pays for the rows that go.

use crate::arena::Arena;
use crate::bits::Bits;
use crate::error::Result;
use crate::text::{Text, View};

/// The cells of some rows of delimited text.
#[derive(Clone, Copy, Debug)]
pub struct Grid<'a> {
    /// The block that all positions are in.
    pub bytes: &'a [u8],
    /// Cells of a row.
    pub width: usize,
    pub rows: usize,
    /// Where each cell ends, `width` per row.
    pub ends: &'a [u32],
    /// Where each row starts, if not right behind the one before.
    pub starts: Option<&'a [u32]>,
    /// Where the first row starts.
    pub first: u32,
    /// What stands between two cells.
    pub delimiter: u8,
}

impl<'a> Grid<'a> {
    /// Where row `row` starts.
    #[inline]
    pub fn start_of(&self, row: usize) -> usize {
        match self.starts {
            Some(starts) => starts[row] as usize,
            None if row == 0 => self.first as usize,
            None => self.ends[row * self.width - 1] as usize + 1,
        }
    }

    /// Start and end of a cell.
    #[inline(always)]
    pub fn extent(&self, row: usize, cell: usize) -> (usize, usize) {
        let mut end = self.ends[row * self.width + cell] as usize;
        let start = if cell == 0 {
            self.start_of(row)
        } else {
            self.ends[row * self.width + cell - 1] as usize + 1
        };
        if cell + 1 == self.width && end > start && self.bytes[end - 1] == b'\r' {
            end -= 1;
        }
        (start.min(end), end)
    }

    /// `f(row, start, end)` of one cell of every row.
    #[allow(clippy::mut_from_ref)] // each call hands out memory of its own
    #[inline(always)]
    pub fn collect<'b, T: Copy>(
        &self,
        cell: usize,
        arena: &'b Arena,
        mut f: impl FnMut(usize, usize, usize) -> T,
    ) -> Result<&'b mut [T]> {
        let mut slots = arena.uninit::<T>(self.rows)?;
        let mut written = 0;
        self.for_each(cell, |row, start, end| {
            // Row by row from 0 on: `written` slots are written, whatever the index holds.
            debug_assert_eq!(row, written);
            slots[written].write(f(row, start, end));
            written += 1;
        });
        Ok(slots.finish_mut(written))
    }

    /// Calls `f(row, start, end)` for one cell of every row, in order.
    ///
    /// The everyday rows, with the same number of cells and nothing between them, are walked without a branch.
    #[inline(always)]
    pub fn for_each(&self, cell: usize, mut f: impl FnMut(usize, usize, usize)) {
        let inner = self.starts.is_none() && cell + 1 < self.width;
        if inner && cell > 0 {
            for (row, ends) in self.ends.chunks_exact(self.width).enumerate() {
                f(row, ends[cell - 1] as usize + 1, ends[cell] as usize);
            }
        } else if inner {
            let mut start = self.first as usize;
            for (row, ends) in self.ends.chunks_exact(self.width).enumerate() {
                f(row, start, ends[0] as usize);
                start = ends[self.width - 1] as usize + 1;
            }
        } else {
            for row in 0..self.rows {
                let (start, end) = self.extent(row, cell);
                f(row, start, end);
            }
        }
    }
}

/// One column of a [`Grid`], or a part of one.
#[derive(Clone, Copy, Debug)]
pub struct Cells<'a> {
    grid: &'a Grid<'a>,
    cell: u32,
    from: u32,
    rows: u32,
}

impl<'a> Cells<'a> {
    /// Cell number `cell` of every row. Panics if rows are not so wide.
    pub fn new(grid: &'a Grid<'a>, cell: usize) -> Self {
        assert!(cell < grid.width, "a row has {} cells", grid.width);
        Cells {
            grid,
            cell: cell as u32,
            from: 0,
            rows: grid.rows as u32,
        }
    }

    pub fn len(&self) -> usize {
        self.rows as usize
    }

    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The block that the cells are in.
    #[inline(always)]
    pub fn block(&self) -> &'a [u8] {
        self.grid.bytes
    }

    /// What stands between two cells: none that is not quoted contains it.
    pub fn delimiter(&self) -> u8 {
        self.grid.delimiter
    }

    /// Start and end of row `row`'s cell in the block.
    #[inline(always)]
    pub fn extent(&self, row: usize) -> (usize, usize) {
        debug_assert!(row < self.len());
        self.grid.extent(self.from as usize + row, self.cell as usize)
    }

    /// Row `row`'s cell.
    #[inline]
    pub fn bytes(&self, row: usize) -> &'a [u8] {
        let (start, end) = self.extent(row);
        &self.grid.bytes[start..end]
    }

    /// Whether row `row`'s cell is empty, which means null.
    #[inline]
    pub fn is_null(&self, row: usize) -> bool {
        let (start, end) = self.extent(row);
        start == end
    }

    /// Rows `from..from + len`. Panics if there are fewer.
    #[must_use]
    pub fn slice(&self, from: usize, len: usize) -> Self {
        assert!(from + len <= self.len(), "there are {} rows", self.rows);
        Cells {
            from: self.from + from as u32,
            rows: len as u32,
            ..*self
        }
    }

    /// The rows that `row(0)`, …, `row(rows - 1)` name, as views, and which of them are not null (`None`: all).
    pub fn views(
        &self,
        rows: usize,
        arena: &'a Arena,
        row: impl Fn(usize) -> usize,
    ) -> Result<(Text<'a>, Option<Bits<'a>>)> {
        let block = self.grid.bytes;
        let words = arena.fill(rows.div_ceil(64), 0u64)?;
        let views = arena.collect(rows, |at| {
            let (start, end) = self.extent(row(at));
            words[at / 64] |= u64::from(start < end) << (at % 64);
            View::new(block, start, end - start, 0)
        })?;
        let valid = Bits::new(words, rows);
        let buffers = arena.fill(1, block)?;
        let text = Text::verbatim(views, buffers);
        Ok((text, if valid.is_all() { None } else { Some(valid) }))
    }
}
