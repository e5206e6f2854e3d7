//! Rows of many columns as one column: what merges, sorts and joins emit.
//!
//! Laws
//! - The parts store the same kind of value; a part that is all null fits any.
//! - Text stays where it is: the result's buffers are the parts' buffers, one list after the other.
//! - A run of one part stays where it is as a whole: a row by itself, however long, takes no memory but a column's.
#![allow(unsafe_code)]

use crate::arena::Arena;
use crate::bits::Bits;
use crate::column::{Column, Columns, Data, ListData, RecordData};
use crate::error::{Error, Result};
use crate::text::{Text, View};

/// Row `.1` of part `.0`.
pub type Pick = (u32, u32);

impl<'a> Column<'a> {
    /// The rows named by `picks`, in that order. Panics if a pick is outside its part.
    ///
    /// Values of a part that stores another kind than the first one that is not all null come out null; callers keep such
    /// parts apart ([`Column::mixes_with`]).
    pub fn interleave(parts: &[Column<'a>], picks: &[Pick], arena: &'a Arena) -> Result<Column<'a>> {
        let len = picks.len();
        if parts.iter().any(|part| matches!(part.data(), Data::Cells(_))) {
            let mut settled = Columns::new(arena, parts.len())?;
            for part in parts {
                settled.push(part.settled(arena)?);
            }
            return Column::interleave(settled.finish(), picks, arena);
        }
        let Some(first) = parts.iter().find(|p| !matches!(p.data(), Data::Null)) else {
            return Ok(Column::nulls(len));
        };
        let kind = std::mem::discriminant(&first.data());
        if let Some((part, from)) = run(picks)
            && std::mem::discriminant(&parts[part].data()) == kind
        {
            return Ok(parts[part].slice(from, len));
        }
        let data = match first.data() {
            Data::Absent => return Ok(Column::absent(len)),
            // Settled above.
            Data::Null | Data::Cells(_) => Data::Null,
            Data::Bool(_) => Data::Bool(Bits::collect(arena, len, |i| {
                let (part, row) = picks[i];
                matches!(parts[part as usize].data(), Data::Bool(v) if v.get(row as usize))
            })?),
            Data::Int(_) => Data::Int(numbers(parts, picks, arena, |d| match d {
                Data::Int(v) => Some(v),
                _ => None,
            })?),
            Data::Timestamp(_) => Data::Timestamp(numbers(parts, picks, arena, |d| match d {
                Data::Timestamp(v) => Some(v),
                _ => None,
            })?),
            Data::Duration(_) => Data::Duration(numbers(parts, picks, arena, |d| match d {
                Data::Duration(v) => Some(v),
                _ => None,
            })?),
            Data::Float(_) => Data::Float(numbers(parts, picks, arena, |d| match d {
                Data::Float(v) => Some(v),
                _ => None,
            })?),
            Data::Decimal(_) => Data::Decimal(numbers(parts, picks, arena, |d| match d {
                Data::Decimal(v) => Some(v),
                _ => None,
            })?),
            Data::Date(_) => Data::Date(numbers(parts, picks, arena, |d| match d {
                Data::Date(v) => Some(v),
                _ => None,
            })?),
            Data::String(_) => Data::String(texts(parts, picks, arena, |d| match d {
                Data::String(t) => Some(t),
                _ => None,
            })?),
            Data::Bytes(_) => Data::Bytes(texts(parts, picks, arena, |d| match d {
                Data::Bytes(t) => Some(t),
                _ => None,
            })?),
            Data::Json(_) => Data::Json(texts(parts, picks, arena, |d| match d {
                Data::Json(t) => Some(t),
                _ => None,
            })?),
            Data::Verbatim(_) => Data::Verbatim(texts(parts, picks, arena, |d| match d {
                Data::Verbatim(t) => Some(t),
                _ => None,
            })?),
            Data::List(_) => Data::List(lists(parts, picks, arena)?),
            Data::Record(record) => {
                let mut columns = Columns::new(arena, record.width())?;
                for index in 0..record.width() {
                    let mut fields = Columns::new(arena, parts.len())?;
                    for part in parts {
                        fields.push(match part.data() {
                            Data::Record(record) => record.field(index, part.len()),
                            _ => Column::nulls(part.len()),
                        });
                    }
                    columns.push(Column::interleave(fields.finish(), picks, arena)?);
                }
                Data::Record(RecordData::new(columns.finish()))
            }
        };
        let valid = |(part, row): Pick| {
            let part = &parts[part as usize];
            std::mem::discriminant(&part.data()) == kind && part.is_valid(row as usize)
        };
        let all = parts
            .iter()
            .all(|p| p.valid().is_none() && std::mem::discriminant(&p.data()) == kind);
        let valid = if all {
            None
        } else {
            Some(Bits::collect(arena, len, |i| valid(picks[i]))?)
        };
        Ok(Column::new(data, valid, len))
    }

    /// Whether `other` stores the same kind of value, all the way down, so that both can be parts of one column.
    pub fn mixes_with(&self, other: &Column<'_>) -> bool {
        match (self.data(), other.data()) {
            (Data::Null, _) | (_, Data::Null) => true,
            (Data::Cells(_), Data::Verbatim(_)) | (Data::Verbatim(_), Data::Cells(_)) => true,
            (Data::List(a), Data::List(b)) => a.child.mixes_with(b.child),
            (Data::Record(a), Data::Record(b)) => {
                a.width() == b.width()
                    && (0..a.width()).all(|i| a.field(i, self.len()).mixes_with(&b.field(i, other.len())))
            }
            (a, b) => std::mem::discriminant(&a) == std::mem::discriminant(&b),
        }
    }

    /// Whether both store the same kind of values all the way down: a column that is all null only what is all null too. What mixes with one
    /// of them mixes with the other.
    pub fn stores_as(&self, other: &Column<'_>) -> bool {
        match (self.data(), other.data()) {
            (Data::List(a), Data::List(b)) => a.child.stores_as(b.child),
            (Data::Record(a), Data::Record(b)) => {
                a.width() == b.width()
                    && (0..a.width()).all(|i| a.field(i, self.len()).stores_as(&b.field(i, other.len())))
            }
            (a, b) => std::mem::discriminant(&a) == std::mem::discriminant(&b),
        }
    }
}

/// The part and the first row, if the picks are rows of one part that follow one another.
fn run(picks: &[Pick]) -> Option<(usize, usize)> {
    let &(part, from) = picks.first()?;
    let follows = |(pick, row): (&Pick, u32)| *pick == (part, row);
    picks
        .iter()
        .zip(from..)
        .all(follows)
        .then_some((part as usize, from as usize))
}

fn numbers<'a, T: Copy + Default + 'a>(
    parts: &[Column<'a>],
    picks: &[Pick],
    arena: &'a Arena,
    of: impl Fn(Data<'a>) -> Option<&'a [T]>,
) -> Result<&'a [T]> {
    // A slice per part first: the loop over the rows then only indexes.
    let slices = arena.collect(parts.len(), |p| of(parts[p].data()).unwrap_or(&[]))?;
    Ok(arena.collect(picks.len(), |i| {
        let (part, row) = picks[i];
        slices[part as usize].get(row as usize).copied().unwrap_or_default()
    })?)
}

fn texts<'a>(
    parts: &[Column<'a>],
    picks: &[Pick],
    arena: &'a Arena,
    of: impl Fn(Data<'a>) -> Option<Text<'a>>,
) -> Result<Text<'a>> {
    let buffers_of = |p: &Column<'a>| of(p.data()).map_or(&[][..], |t| t.buffers());
    let mut count = 0u32;
    let parts_views: &[(&[View], u32)] = arena.collect(parts.len(), |p| {
        let base = count;
        count += buffers_of(&parts[p]).len() as u32;
        (of(parts[p].data()).map_or(&[][..], |t| t.views()), base)
    })?;
    let mut all = parts.iter().flat_map(|p| buffers_of(p).iter().copied());
    let buffers = arena.collect(count as usize, |_| all.next().unwrap_or(&[]))?;
    let views = arena.collect(picks.len(), |i| {
        let (part, row) = picks[i];
        let (views, base) = parts_views[part as usize];
        views.get(row as usize).map_or(View::EMPTY, |v| v.rebased(base))
    })?;
    // SAFETY: each view is one of a part's, moved up by the number of buffers before that part's own in `buffers`; the text
    // is of the same kind, so UTF-8 where that is needed.
    Ok(unsafe { Text::new(views, buffers) })
}

fn lists<'a>(parts: &[Column<'a>], picks: &[Pick], arena: &'a Arena) -> Result<ListData<'a>> {
    let range = |&(part, row): &Pick| {
        let column = &parts[part as usize];
        match column.data() {
            Data::List(list) if column.is_valid(row as usize) => list.range(row as usize),
            _ => 0..0,
        }
    };
    let mut total = 0usize;
    let offsets = arena.collect(picks.len() + 1, |i| {
        let start = total;
        total += picks.get(i).map_or(0, |pick| range(pick).len());
        start as i32
    })?;
    if i32::try_from(total).is_err() {
        return Err(Error::Memory {
            wanted: total,
            used: arena.used(),
            limit: i32::MAX as usize,
        });
    }
    let mut elements = picks
        .iter()
        .flat_map(|pick| range(pick).map(|row| (pick.0, row as u32)));
    let elements = arena.collect(total, |_| elements.next().unwrap_or_default())?;
    let mut children = Columns::new(arena, parts.len())?;
    for part in parts {
        children.push(match part.data() {
            Data::List(list) => *list.child,
            _ => Column::nulls(0),
        });
    }
    let child = arena.one(Column::interleave(children.finish(), elements, arena)?)?;
    Ok(ListData { offsets, child })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::TextBuilder;
    use crate::value::Cell;

    #[test]
    fn a_run_of_one_part_stays_where_it_is() {
        let arena = Arena::new(1 << 10);
        let numbers: Vec<i64> = (0..100_000).collect();
        let child = Column::int(&numbers, None);
        let list = Column::new(
            Data::List(ListData {
                offsets: &[0, 10, 90_010, 90_011],
                child: &child,
            }),
            None,
            3,
        );
        let other = Column::nulls(1);
        let column = Column::interleave(&[other, list], &[(1, 1), (1, 2)], &arena).unwrap();
        let (Cell::List(first), Cell::List(second)) = (column.cell(0), column.cell(1)) else {
            panic!("two lists")
        };
        assert_eq!((first.len(), second.len()), (90_000, 1));
        assert!(matches!(
            (first.cell(0), second.cell(0)),
            (Cell::Int(10), Cell::Int(90_010))
        ));
        // What does not follow one another is copied, and has no room here.
        let refused = Column::interleave(&[other, list], &[(1, 1), (0, 0)], &arena);
        assert!(matches!(refused, Err(Error::Memory { .. })));
    }

    #[test]
    fn rows_of_several_parts_keep_text_nulls_and_lists() {
        let arena = Arena::new(1 << 20);
        let text = |words: &[&str]| {
            let mut builder = TextBuilder::new(&arena, words.len(), 0).unwrap();
            words.iter().for_each(|w| builder.push(w).unwrap());
            Column::string(builder.finish().unwrap(), None)
        };
        let parts = [
            text(&["short", "a text that is longer than a view"]),
            Column::nulls(1),
            text(&["another text that is longer than a view"]),
        ];
        let column = Column::interleave(&parts, &[(2, 0), (1, 0), (0, 1), (0, 0)], &arena).unwrap();
        let seen: Vec<Option<&str>> = (0..4)
            .map(|row| match column.cell(row) {
                Cell::String(text) => Some(text),
                _ => None,
            })
            .collect();
        let long = "a text that is longer than a view";
        assert_eq!(
            seen,
            [
                Some(&*format!("another{}", &long[1..])),
                None,
                Some(long),
                Some("short")
            ]
        );

        let (a, b) = (Column::int(&[1, 2, 3], None), Column::int(&[4], None));
        let list = |offsets: &'static [i32], child| {
            Column::new(
                Data::List(ListData {
                    offsets,
                    child: arena.one(child).unwrap(),
                }),
                None,
                offsets.len() - 1,
            )
        };
        let parts = [list(&[0, 1, 3], a), list(&[0, 0, 1], b)];
        let column = Column::interleave(&parts, &[(1, 1), (0, 1), (1, 0)], &arena).unwrap();
        let lens: Vec<usize> = (0..3)
            .map(|row| match column.cell(row) {
                Cell::List(c) => c.len(),
                _ => 99,
            })
            .collect();
        assert_eq!(lens, [1, 2, 0]);
        let Cell::List(second) = column.cell(1) else {
            panic!("a list")
        };
        assert!(matches!((second.cell(0), second.cell(1)), (Cell::Int(2), Cell::Int(3))));
    }
}
