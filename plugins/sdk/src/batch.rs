//! Batches: the rows of one chunk at one edge of the graph.

use crate::arena::Arena;
use crate::column::{Column, Columns};
use crate::error::Result;
use crate::place::Place;

/// `rows` rows of columns, and where each came from. Copying a batch copies pointers. The schema is the edge's.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    columns: &'a [Column<'a>],
    origin: Option<&'a [Place]>,
    rows: usize,
}

impl<'a> Batch<'a> {
    /// A batch of these columns. Panics if one has another number of rows.
    pub fn new(columns: &'a [Column<'a>], origin: Option<&'a [Place]>, rows: usize) -> Self {
        assert!(
            columns.iter().all(|c| c.len() == rows),
            "the columns of a batch have the same number of rows"
        );
        assert!(origin.is_none_or(|o| o.len() == rows), "a batch has one place per row");
        Batch { columns, origin, rows }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn columns(&self) -> &'a [Column<'a>] {
        self.columns
    }

    /// Column `index`. Panics if there is none.
    pub fn column(&self, index: usize) -> Column<'a> {
        self.columns[index]
    }

    /// The place of each row; `None` where the plan found that nobody asks.
    pub fn origin(&self) -> Option<&'a [Place]> {
        self.origin
    }

    /// The place of row `row`, or the default one where places are not kept.
    pub fn place(&self, row: usize) -> Place {
        self.origin.and_then(|o| o.get(row)).copied().unwrap_or_default()
    }

    /// The same rows with other columns.
    #[must_use]
    pub fn with_columns(self, columns: &'a [Column<'a>]) -> Self {
        Batch::new(columns, self.origin, self.rows)
    }

    /// The same rows with more columns behind theirs. Panics if one has another number of rows.
    ///
    /// # Errors
    /// `Memory` if the arena is full.
    pub fn beside(self, more: &[Column<'a>], arena: &'a Arena) -> Result<Self> {
        let mut columns = Columns::new(arena, self.columns.len() + more.len())?;
        for &column in self.columns.iter().chain(more) {
            columns.push(column);
        }
        Ok(self.with_columns(columns.finish()))
    }

    /// Rows `from..from + len`.
    pub fn slice(self, from: usize, len: usize, arena: &'a Arena) -> Result<Self> {
        if from == 0 && len == self.rows {
            return Ok(self);
        }
        let columns = arena.collect(self.columns.len(), |i| self.columns[i].slice(from, len))?;
        Ok(Batch {
            columns,
            origin: self.origin.map(|o| &o[from..from + len]),
            rows: len,
        })
    }

    /// The first `len` rows.
    pub fn head(self, len: usize, arena: &'a Arena) -> Result<Self> {
        self.slice(0, len.min(self.rows), arena)
    }

    /// The rows named by `indices` of the first `width` columns.
    pub fn gather(self, indices: &[u32], width: usize, arena: &'a Arena) -> Result<Self> {
        let mut columns = Columns::new(arena, width)?;
        for column in &self.columns[..width] {
            columns.push(column.gather(indices, arena)?);
        }
        let origin = match self.origin {
            Some(places) => Some(&*arena.collect(indices.len(), |i| places[indices[i] as usize])?),
            None => None,
        };
        Ok(Batch {
            columns: columns.finish(),
            origin,
            rows: indices.len(),
        })
    }

    /// Bytes that [`Batch::copy_to`] takes of an arena.
    pub fn copy_bytes(&self) -> usize {
        let columns: usize = self.columns.iter().map(Column::copy_bytes).sum();
        columns
            + crate::arena::bytes_of::<Column<'_>>(self.columns.len())
            + self.origin.map_or(0, |o| crate::arena::bytes_of::<Place>(o.len()))
    }

    /// A copy that borrows nothing but `arena`.
    pub fn copy_to<'b>(&self, arena: &'b Arena) -> Result<Batch<'b>> {
        let mut columns = Columns::new(arena, self.columns.len())?;
        for column in self.columns {
            columns.push(column.copy_to(arena)?);
        }
        let origin = match self.origin {
            Some(places) => Some(&*arena.copy(places)?),
            None => None,
        };
        Ok(Batch {
            columns: columns.finish(),
            origin,
            rows: self.rows,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bits::Bits;
    use crate::build::TextBuilder;
    use crate::column::{Data, ListData, RecordData};

    #[test]
    fn a_copy_takes_the_bytes_it_says() {
        let arena = Arena::new(1 << 16);
        let valid = Bits::collect(&arena, 3, |i| i != 1).unwrap();
        let mut text = TextBuilder::new(&arena, 3, 0).unwrap();
        for word in ["a text that is longer than a view", "", "one more that is longer"] {
            text.push(word).unwrap();
        }
        let text = Column::string(text.finish().unwrap(), Some(valid));
        let ints = Column::int(&[1, 2, 3], None);
        let fields = [ints, text];
        let record = Column::new(Data::Record(RecordData::new(&fields)), Some(valid), 3);
        let list = ListData {
            offsets: &[1, 1, 2, 3],
            child: &record,
        };
        let columns = [
            ints,
            text,
            record,
            Column::new(Data::List(list), None, 3),
            Column::nulls(3),
        ];
        let places = [Place::default(); 3];
        let batch = Batch::new(&columns, Some(&places), 3);
        for part in [batch, batch.head(1, &arena).unwrap(), batch.head(0, &arena).unwrap()] {
            let copy = Arena::new(1 << 16);
            part.copy_to(&copy).unwrap();
            assert_eq!(copy.used(), part.copy_bytes());
        }
    }
}
