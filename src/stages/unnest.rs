//! `unnest items as it (outer: true)`: a row for each element of a list.
//!
//! The list column gives way to a column of its elements, in its place. A row without elements goes, or stays with a null
//! (`outer: true`).
//!
//! Laws
//! - Rows are made in blocks in a scratch arena that is reset between them: memory does not grow with the lists.
//! - How a batch is cut into blocks changes nothing but memory. A block that is refused is tried again with half the rows.
//! - Places get a counter. Rows of an earlier expansion of the same record count on, so that places stay distinct.

use super::codes::{self, held};
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::spec::{
    ArgKind, Bound, Call, Complaint, Example, Filters, Items, Kind, Least, Lineage, Make, Param, Room, Setup,
    StageSpec, Want,
};
use standpipe_sdk::{
    Arena, Batch, Bits, Budget, Column, Columns, Data, Emitter, Field, Flow, Place, Reservation, RowWise, Type,
};
use std::sync::Arc;

/// `unnest`.
pub const SPEC: StageSpec = StageSpec {
    name: "unnest",
    about: "A row for each element of a list, null elements too; the element takes the list's place, an empty or null list gives no row",
    kind: Kind::RowWise,
    least,
    items: Items::some(ArgKind::Column, 1, 1, "the list"),
    as_name: Some("the name of the element's column; else the list's"),
    options: &[Param::new(
        "outer",
        ArgKind::Const(Want::Bool),
        Some("false"),
        "keep rows without elements, with a null",
    )],
    examples: &[
        Example {
            script: "from rows [{id: 1, tags: [\"a\", \"b\"]}, {id: 2, tags: []}] | unnest tags as tag",
            output: "id,tag\n1,a\n1,b\n",
        },
        Example {
            script: "from rows [{id: 1, tags: [\"a\"]}, {id: 2, tags: []}] | unnest tags as tag outer: true",
            output: "id,tag\n1,a\n2,\n",
        },
    ],
    bind: &bind,
    filters: |_| Filters::Pass,
    ..StageSpec::BASE
};

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    let Some((item, (list, field))) = call.items.first().and_then(|item| Some((item, call.column_of(item)?))) else {
        return Err(vec![]);
    };
    let Type::List(element) = &field.ty else {
        return Err(vec![Complaint::new(
            codes::NOT_A_LIST,
            item.span,
            format!("`unnest` needs a list, and `{}` is `{}`", field.name, field.ty),
            format!("this is `{}`", field.ty),
        )]);
    };
    let outer = call.flag("outer");
    let name = call.as_name.unwrap_or(&field.name);
    let mut fields = call.own_fields().to_vec();
    if let Some(other) = fields
        .iter()
        .enumerate()
        .find(|(at, f)| *at != list && &*f.name == name)
    {
        return Err(vec![Complaint::new(
            codes::COLUMN_EXISTS,
            item.span,
            format!("column `{}` exists already", other.1.name),
            "the element needs a name of its own",
        )]);
    }
    let mut lineage: Vec<Lineage> = (0..call.own).map(Lineage::From).collect();
    // A list that is a bare column is one of the stream's own; a computed one stands behind them.
    if list < call.own {
        fields[list] = Field::new(name, element.ty.clone(), element.nullable || outer);
        lineage[list] = Lineage::New;
    } else {
        fields.push(Field::new(name, element.ty.clone(), element.nullable || outer));
        lineage.push(Lineage::New);
    }
    let own = call.own;
    let make = move |setup: &Setup| -> Result<Box<dyn RowWise>> {
        let scratch = LaneScratch::new(setup.share, &setup.budget).map_err(|e| held("unnest", e))?;
        Ok(Box::new(Unnest {
            list,
            own,
            outer,
            scratch,
            block: BLOCK_ROWS,
            before: None,
        }))
    };
    Ok(Bound {
        schema: fields.into_iter().collect(),
        lineage,
        reads: vec![list],
        sorted_by: vec![],
        make: Make::RowWise(Box::new(make)),
        needs_places: false,
    })
}

/// The most rows of a block.
pub(super) const BLOCK_ROWS: usize = 4096;
/// The least scratch memory worth starting with.
pub(super) const LEAST_ROOM: usize = 256 << 10;

/// What [`scratch_room`] cannot do without, for one lane.
pub(super) fn least_room(share: usize) -> usize {
    let mut room = share;
    while room / 2 >= LEAST_ROOM {
        room /= 2;
    }
    room
}

/// What a stage cannot do without whose lanes multiply rows.
pub(crate) fn least(room: &Room) -> Least {
    Least {
        takes: room.workers * least_room(room.share),
        gives: 0,
    }
}

/// A lane's scratch memory.
///
/// All lanes are made before the first one gets rows: none takes more than the least before that, so that it is no other lane's.
pub(crate) struct LaneScratch {
    pub(crate) arena: Arena,
    /// What it may become, until it was tried.
    share: usize,
    reservation: Reservation,
}

impl LaneScratch {
    /// What a lane cannot do without.
    ///
    /// # Errors
    /// `Memory` if the budget does not have it.
    pub(crate) fn new(share: usize, budget: &Arc<Budget>) -> Result<LaneScratch> {
        let mut reservation = budget.reserve();
        let room = least_room(share);
        reservation.grow(room)?;
        Ok(LaneScratch {
            arena: Arena::new(room),
            share,
            reservation,
        })
    }

    /// Makes it as large as there is memory for; to be called when rows come.
    pub(crate) fn widen(&mut self) {
        let least = self.arena.limit();
        let mut room = std::mem::take(&mut self.share);
        while room > least {
            if self.reservation.grow(room - least).is_ok() {
                self.arena.set_limit(room);
                break;
            }
            room /= 2;
        }
    }
}

/// Reserves as much of `share` as there is.
pub(crate) fn scratch_room(share: usize, reservation: &mut Reservation) -> Result<usize> {
    let mut room = share;
    loop {
        match reservation.grow(room) {
            Ok(()) => return Ok(room),
            Err(_) if room / 2 >= LEAST_ROOM => room /= 2,
            Err(error) => return Err(error),
        }
    }
}

struct Unnest {
    list: usize,
    own: usize,
    outer: bool,
    scratch: LaneScratch,
    /// Rows of the next block.
    block: usize,
    /// The last row that was expanded, and the next number in its record.
    before: Option<(Place, u32)>,
}

/// Where an expansion stands: the next row, and how many of its elements are out.
#[derive(Clone, Copy)]
struct Cursor {
    row: usize,
    element: usize,
    before: Option<(Place, u32)>,
}

/// Stands for "no element" in a row that `outer` keeps.
const NONE: u32 = u32::MAX;

/// A row of a block: the row it comes from, its element in the child, its place.
#[derive(Clone, Copy)]
struct Out {
    parent: u32,
    element: u32,
    place: Place,
}

impl RowWise for Unnest {
    fn push<'a>(&mut self, batch: Batch<'a>, out: &mut Emitter<'_, 'a>) -> Result<Flow> {
        let lists = batch.column(self.list);
        let mut left: usize = (0..batch.rows()).map(|row| self.rows_of(&lists, row)).sum();
        let mut cursor = Cursor {
            row: 0,
            element: 0,
            before: self.before,
        };
        self.scratch.widen();
        while left > 0 {
            self.scratch.arena.reset();
            let rows = self.block.min(left);
            let (block, after) = match self.expand(&batch, cursor, rows, &self.scratch.arena) {
                // What follows needs room too: a block takes at most a quarter.
                Ok(_) if rows > 1 && self.scratch.arena.used() > self.scratch.arena.limit() / 4 => {
                    self.block = rows / 2;
                    continue;
                }
                Ok(made) => made,
                Err(Error::Memory { .. }) if rows > 1 => {
                    self.block = rows / 2;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let flow = out.emit_in(&self.scratch.arena, block)?;
            cursor = after;
            self.before = after.before;
            left -= rows;
            if flow == Flow::Done {
                return Ok(Flow::Done);
            }
            if self.scratch.arena.used() < self.scratch.arena.limit() / 16 {
                self.block = (rows * 2).clamp(self.block.min(BLOCK_ROWS), BLOCK_ROWS);
            }
        }
        Ok(Flow::More)
    }
}

impl Unnest {
    /// How many rows row `row` becomes.
    fn rows_of(&self, lists: &Column<'_>, row: usize) -> usize {
        elements_of(lists, row).len().max(usize::from(self.outer))
    }

    /// The next `rows` rows from `cursor` on, and where they end.
    fn expand<'b>(
        &self,
        batch: &Batch<'b>,
        mut cursor: Cursor,
        rows: usize,
        scratch: &'b Arena,
    ) -> Result<(Batch<'b>, Cursor)> {
        let lists = batch.column(self.list);
        let outs = scratch.collect(rows, |_| {
            while cursor.element >= self.rows_of(&lists, cursor.row) {
                cursor.row += 1;
                cursor.element = 0;
            }
            let range = elements_of(&lists, cursor.row);
            let out = Out {
                parent: cursor.row as u32,
                element: if range.is_empty() {
                    NONE
                } else {
                    (range.start + cursor.element) as u32
                },
                place: number(&mut cursor.before, batch.place(cursor.row), cursor.element == 0),
            };
            cursor.element += 1;
            out
        })?;
        let parents = scratch.collect(rows, |i| outs[i].parent)?;
        let mut columns = Columns::new(scratch, self.own + usize::from(self.list >= self.own))?;
        for (index, column) in batch.columns()[..self.own].iter().enumerate() {
            if index == self.list {
                columns.push(elements(&lists, outs, scratch)?);
            } else {
                columns.push(column.gather(parents, scratch)?);
            }
        }
        if self.list >= self.own {
            columns.push(elements(&lists, outs, scratch)?);
        }
        let places = match batch.origin() {
            Some(_) => Some(&*scratch.collect(rows, |i| outs[i].place)?),
            None => None,
        };
        Ok((Batch::new(columns.finish(), places, rows), cursor))
    }
}

/// The elements of row `row` in the child; none for a null.
fn elements_of(lists: &Column<'_>, row: usize) -> std::ops::Range<usize> {
    match lists.data() {
        Data::List(list) if lists.is_valid(row) => list.range(row),
        _ => 0..0,
    }
}

/// The place of the next row made of the row at `from`; `first`: it is the first one.
pub(crate) fn number(before: &mut Option<(Place, u32)>, from: Place, first: bool) -> Place {
    let next = match *before {
        // A later piece of the record that the row before came from: `unnest` behind `unnest`.
        Some((last, next)) if first => {
            let same = last.source == from.source && last.offset == from.offset && last.sub < from.sub;
            if same { next } else { 0 }
        }
        Some((_, next)) => next,
        None => 0,
    };
    *before = Some((from, next.saturating_add(1)));
    Place { sub: next, ..from }
}

fn elements<'b>(lists: &Column<'b>, outs: &[Out], scratch: &'b Arena) -> Result<Column<'b>> {
    let child = match lists.data() {
        Data::List(list) if !list.child.is_empty() => *list.child,
        _ => return Ok(Column::nulls(outs.len())),
    };
    let first = outs.first().map_or(0, |out| out.element);
    // Lists that stand one behind the other, the usual case, need no copy.
    if outs
        .iter()
        .enumerate()
        .all(|(i, out)| out.element != NONE && out.element as usize == first as usize + i)
    {
        return Ok(child.slice(first as usize, outs.len()));
    }
    let all = outs.iter().all(|out| out.element != NONE);
    let indices = scratch.collect(
        outs.len(),
        |i| if outs[i].element == NONE { 0 } else { outs[i].element },
    )?;
    let column = child.gather(indices, scratch)?;
    if all {
        return Ok(column);
    }
    let valid = Bits::collect(scratch, outs.len(), |i| outs[i].element != NONE && column.is_valid(i))?;
    Ok(column.with_valid(Some(valid)))
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use standpipe_sdk::spec::Arg;
    use standpipe_sdk::{Schema, Value};

    fn lists() -> (Schema, Rows) {
        let schema = schema(&[("id", INT), ("l", Type::list(STRING, true)), ("s", STRING)]);
        let rows = (0..40)
            .map(|i| {
                let element = |j: i64| {
                    if (i + j) % 5 == 0 {
                        NULL
                    } else {
                        text(&format!("element {j} of list {i}"))
                    }
                };
                let list = if i % 6 == 1 {
                    NULL
                } else {
                    Value::List((0..i % 4).map(element).collect())
                };
                vec![int(i), list, text(&format!("something of row {i}"))]
            })
            .collect();
        (schema, rows)
    }

    fn slow(rows: &Rows, outer: bool) -> Rows {
        let mut out = vec![];
        for row in rows {
            let elements = match &row[1] {
                Value::List(v) => v.clone(),
                _ => vec![],
            };
            let none = if outer && elements.is_empty() {
                vec![NULL]
            } else {
                vec![]
            };
            for element in elements.into_iter().chain(none) {
                out.push(vec![row[0].clone(), element, row[2].clone()]);
            }
        }
        out
    }

    #[test]
    fn elements_take_the_lists_place_whatever_the_chunk_and_the_room() {
        let (schema, rows) = lists();
        for outer in [false, true] {
            let items = [column(1)];
            let options = [("outer", argument(None, Arg::Const(bool(outer))))];
            let bound = bind(&Call {
                as_name: Some("e"),
                options: &options,
                ..call(&schema, 3, &items)
            })
            .unwrap();
            assert_eq!(bound.schema.to_string(), "id: int?, e: string?, s: string?");
            let want = slow(&rows, outer);
            let places = run(&bound, &schema, &rows, 40).places;
            assert!(places.is_sorted() && places.windows(2).all(|p| p[0] != p[1]));
            for chunk in CHUNKS {
                for share in [4 << 10, 16 << 10, 1 << 20] {
                    let got = run_in(&bound, &schema, &rows, chunk, share);
                    assert_eq!(got.rows, want);
                    assert_eq!(got.places, places);
                }
            }
        }
    }

    #[test]
    fn places_of_an_expansion_of_an_expansion_stay_distinct() {
        let mut before = None;
        let at = |sub| Place {
            source: 0,
            offset: 7,
            sub,
        };
        let subs: Vec<u32> = [(0, true), (0, false), (1, true), (1, false), (0, true)]
            .map(|(sub, first)| number(&mut before, at(sub), first).sub)
            .to_vec();
        assert_eq!(subs, [0, 1, 2, 3, 0]);
    }

    #[test]
    fn only_lists_and_only_new_names() {
        let (schema, _) = lists();
        assert_eq!(codes_of(bind(&call(&schema, 3, &[column(0)]))), [codes::NOT_A_LIST]);
        let items = [column(1)];
        let taken = Call {
            as_name: Some("id"),
            ..call(&schema, 3, &items)
        };
        assert_eq!(codes_of(bind(&taken)), [codes::COLUMN_EXISTS]);
    }
}
