//! `fill down a (by k)`: the last value before, kept as a row of the batch it stood in.
//!
//! Laws
//! - A batch that is refused leaves the last values as they were.

use super::super::codes::held;
use super::super::copies::{Copies, Located, NOWHERE, Scratch, waste_bytes};
use super::super::groups::{self, Groups, grow};
use super::super::picked::gather;
use super::super::rowkeys::KeyMaker;
use standpipe_sdk::error::Result;
use standpipe_sdk::interleave::Pick;
use standpipe_sdk::spec::{Least, Room};
use standpipe_sdk::{Arena, Batch, Budget, Column, Columns, Faults, Flow, Prepare, Reservation, Serial};
use std::sync::Arc;

/// Stands for the batch at hand in a [`Pick`].
const HERE: u32 = u32::MAX - 1;

/// Where the last value of a group is.
#[derive(Clone, Copy)]
struct Last(Pick);

impl Located for Last {
    fn at(&self) -> Pick {
        self.0
    }

    fn set(&mut self, at: Pick) {
        self.0 = at;
    }
}

/// A group whose last value is another one than before this batch.
#[derive(Clone, Copy)]
struct Change {
    group: u32,
    before: Last,
}

/// For copies of some values, and to move them together.
const COPIES_BYTES: usize = 160 << 10;

/// What it cannot do without, if groups are few and values are short.
pub(super) fn least(room: &Room) -> Least {
    let groups = groups::least(room);
    Least {
        takes: groups.takes + COPIES_BYTES + waste_bytes(room.bytes),
        ..groups
    }
}

pub(super) struct Down {
    columns: Vec<usize>,
    groups: Option<Groups>,
    own: usize,
    /// For each column and group.
    last: Vec<Vec<Last>>,
    copies: Copies,
    scratch: Scratch,
    extra: Reservation,
}

impl Down {
    pub(super) fn new(columns: Vec<usize>, by: Option<KeyMaker>, own: usize, budget: &Arc<Budget>) -> Self {
        Down {
            groups: by.map(|maker| Groups::new("fill", maker, budget)),
            own,
            last: vec![vec![]; columns.len()],
            copies: Copies::new(columns.len(), budget),
            scratch: Scratch::new(budget),
            extra: budget.reserve(),
            columns,
        }
    }
}

impl Serial for Down {
    fn prepare(&self) -> Option<Box<dyn Prepare>> {
        self.groups.as_ref().map(Groups::prepare)
    }

    fn step<'a>(&mut self, batch: Batch<'a>, arena: &'a Arena, _: &Faults<'a>) -> Result<(Option<Batch<'a>>, Flow)> {
        let ids = match &mut self.groups {
            Some(groups) => Some(groups.of(&batch, arena)?),
            None => None,
        };
        self.make_room(ids).map_err(|e| held("fill", e))?;
        let slots = arena.fill(batch.rows(), 0u32)?;
        let chosen = arena.fill(batch.rows(), 0u32)?;
        let width = self.columns.len();
        let none: &[Change] = &[];
        let changes = arena.fill(width, none)?;
        let mut columns = Columns::new(arena, self.own)?;
        for &column in &batch.columns()[..self.own] {
            columns.push(column);
        }
        let columns = arena.copy(columns.finish())?;
        for number in 0..width {
            match self.fill(&batch, ids, number, arena) {
                Ok((column, changed)) => {
                    columns[self.columns[number]] = column;
                    changes[number] = changed;
                }
                Err(error) => {
                    (0..number).for_each(|earlier| self.undo(earlier, changes[earlier]));
                    return Err(error);
                }
            }
        }
        // Nothing of the arena is wanted any more: what is refused from here on ends the run.
        self.keep(&batch, changes, slots, chosen).map_err(|e| held("fill", e))?;
        Ok((Some(batch.with_columns(columns)), Flow::More))
    }
}

impl Down {
    /// A last value for each group.
    fn make_room(&mut self, ids: Option<&[u32]>) -> Result<()> {
        let groups = ids.map_or(1, |ids| ids.iter().max().map_or(0, |&id| id as usize + 1));
        for last in &mut self.last {
            let more = groups.saturating_sub(last.len());
            grow(last, more, &mut self.extra)?;
            last.resize(last.len() + more, Last(NOWHERE));
        }
        Ok(())
    }

    /// The filled column, and the groups whose last value is now one of this batch.
    fn fill<'a>(
        &mut self,
        batch: &Batch<'a>,
        ids: Option<&[u32]>,
        number: usize,
        arena: &'a Arena,
    ) -> Result<(Column<'a>, &'a [Change])> {
        let column = batch.column(self.columns[number]);
        let rows = column.len();
        let picks = arena.fill(rows, (0u32, 0u32))?;
        let earlier = arena.fill(rows, NOWHERE)?;
        let empty = Change {
            group: 0,
            before: Last(NOWHERE),
        };
        let changes = arena.fill(rows, empty)?;
        let (mut used, mut changed) = (0, 0);
        let last = &mut self.last[number];
        for (row, pick) in picks.iter_mut().enumerate() {
            let group = ids.map_or(0, |ids| ids[row]);
            let slot = &mut last[group as usize];
            if column.is_valid(row) {
                if slot.0.0 != HERE {
                    changes[changed] = Change { group, before: *slot };
                    changed += 1;
                }
                *slot = Last((HERE, row as u32));
            }
            *pick = match slot.0 {
                NOWHERE => (0, row as u32),
                (HERE, row) => (0, row),
                copy => {
                    earlier[used] = copy;
                    used += 1;
                    (1, used as u32 - 1)
                }
            };
        }
        let changes = &changes[..changed];
        let made = self.interleaved(&column, picks, &earlier[..used], number, arena);
        if made.is_err() {
            self.undo(number, changes);
        }
        Ok((made?, changes))
    }

    fn interleaved<'a>(
        &mut self,
        column: &Column<'a>,
        picks: &[Pick],
        earlier: &[Pick],
        number: usize,
        arena: &'a Arena,
    ) -> Result<Column<'a>> {
        if column.null_count() == 0 {
            return Ok(*column);
        }
        let (copies, width) = (&self.copies, self.columns.len());
        let before = if earlier.is_empty() {
            Column::nulls(0)
        } else {
            let copied = self.scratch.with(|scratch| {
                let rows = gather(copies.pieces(), earlier, width, scratch)?;
                // The arena's own refusal is the batch's, not the scratch memory's.
                Ok(rows.column(number).copy_to(arena))
            });
            copied.map_err(|e| held("fill", e))??
        };
        Column::interleave(&[*column, before], picks, arena)
    }

    /// Takes the changes of a batch back.
    fn undo(&mut self, number: usize, changes: &[Change]) {
        for change in changes {
            self.last[number][change.group as usize] = change.before;
        }
    }

    /// Copies the rows of the batch that hold last values now.
    fn keep(&mut self, batch: &Batch<'_>, changes: &[&[Change]], slots: &mut [u32], chosen: &mut [u32]) -> Result<()> {
        let piece = self.copies.next_piece()?;
        let mut count = 0u32;
        for (last, changes) in self.last.iter_mut().zip(changes) {
            for change in *changes {
                let slot = &mut last[change.group as usize];
                let row = slot.0.1 as usize;
                if slots[row] == 0 {
                    chosen[count as usize] = row as u32;
                    count += 1;
                    slots[row] = count;
                }
                *slot = Last((piece, slots[row] - 1));
            }
        }
        let columns = &self.columns;
        let indices = &chosen[..count as usize];
        if !indices.is_empty() {
            let copies = &mut self.copies;
            self.scratch.with(|arena| {
                let mut picked = Columns::new(arena, columns.len())?;
                for &at in columns {
                    picked.push(batch.column(at));
                }
                let rows = Batch::new(picked.finish(), None, batch.rows());
                copies.add(rows.gather(indices, columns.len(), arena)?)
            })?;
        }
        if self.copies.is_wasteful() {
            self.copies.compact(&mut self.last, &mut self.scratch)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::*;
    use super::super::*;
    use proptest::prelude::*;
    use standpipe_sdk::spec::Item;
    use standpipe_sdk::{Schema, Value};

    fn columns() -> Schema {
        schema(&[("k", INT), ("s", STRING), ("n", INT), ("l", Type::list(INT, true))])
    }

    fn bound(names: &[(&str, usize)], by: &[Item]) -> Bound {
        let items: Vec<Item> = names.iter().map(|&(name, at)| item(name, at)).collect();
        bind(&Call {
            by,
            mode: Some("down"),
            ..call(&columns(), 4, &items)
        })
        .unwrap()
    }

    /// For each null, a search backwards.
    fn slow(rows: &Rows, columns: &[usize], grouped: bool) -> Rows {
        let mut filled = rows.clone();
        for (at, row) in filled.iter_mut().enumerate() {
            for &column in columns {
                let before = rows[..=at]
                    .iter()
                    .rev()
                    .filter(|other| !grouped || other[0] == rows[at][0]);
                let value = before.map(|other| &other[column]).find(|value| **value != NULL);
                row[column] = value.cloned().unwrap_or(NULL);
            }
        }
        filled
    }

    fn row() -> impl Strategy<Value = Vec<Value>> {
        let word = (0..9).prop_map(|i| match i {
            0..5 => NULL,
            i => text(&format!("a text of more than twelve bytes {i}")),
        });
        let number = (-6i64..5).prop_map(|i| if i < 0 { NULL } else { int(i) });
        let list = (-4i64..4).prop_map(|i| {
            if i < 0 {
                NULL
            } else {
                Value::List((0..i).map(int).collect())
            }
        });
        (0i64..4, word, number, list).prop_map(|(k, s, n, l)| vec![if k == 0 { NULL } else { int(k) }, s, n, l])
    }

    proptest! {
        #[test]
        fn the_last_value_before_takes_the_place_of_null(
            rows in proptest::collection::vec(row(), 0..70),
            grouped in any::<bool>(),
            chunk in 0usize..4,
        ) {
            let by = if grouped { vec![column(0)] } else { vec![] };
            let bound = bound(&[("s", 1), ("n", 2), ("l", 3)], &by);
            let got = run(&bound, &columns(), &rows, CHUNKS[chunk]);
            prop_assert_eq!(got.rows, slow(&rows, &[1, 2, 3], grouped));
        }
    }

    #[test]
    fn a_refused_batch_can_come_again_and_memory_grows_with_the_groups() {
        let rows: Rows = (0..20_000)
            .map(|i| {
                let name = text(&format!("a text that takes some room, number {i}"));
                vec![
                    int(i % 7),
                    if i % 3 == 0 { NULL } else { name },
                    if i % 5 == 0 { int(i) } else { NULL },
                    NULL,
                ]
            })
            .collect();
        let by = [column(0)];
        let some = rows[..40].to_vec();
        for by in [&[][..], &by] {
            let bound = bound(&[("s", 1), ("n", 2)], by);
            every_refusal_can_be_repeated(&bound, &columns(), &some);
            let want = slow(&rows[..3000].to_vec(), &[1, 2], !by.is_empty());
            let got = try_run(&bound, &columns(), &rows, 50, 800_000).unwrap();
            assert_eq!(got.rows[..3000], want);
        }
        let all: Rows = (0..20_000).map(|i| vec![int(i), text("x"), NULL, NULL]).collect();
        let error = try_run(&bound(&[("s", 1)], &by), &columns(), &all, 300, 400_000).unwrap_err();
        assert!(error.to_string().contains("`fill` needs"), "{error}");
    }
}
