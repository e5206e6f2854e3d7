//! Rows out of two columns: the one way in which branches, elements and defaults come together.

use standpipe_sdk::{Arena, Bits, Column, Columns, Data, ListData, RecordData, Result, Text};

/// `rows` rows, each out of `a` or `b`: `from` says whether out of `b`, and which row. Both hold values of one type, or none.
pub(in crate::expr) fn merge<'a, F>(
    arena: &'a Arena,
    a: Column<'a>,
    b: Column<'a>,
    rows: usize,
    from: F,
) -> Result<Column<'a>>
where
    F: Fn(usize) -> (bool, usize) + Copy,
{
    let (a, b) = (a.settled(arena)?, b.settled(arena)?);
    macro_rules! numbers {
        ($variant:ident, $zero:expr) => {{
            let of = |column: Column<'a>| match column.data() {
                Data::$variant(values) => values,
                _ => &[],
            };
            let (x, y) = (of(a), of(b));
            // A column of nulls has no values to read.
            Data::$variant(arena.collect(rows, |row| match from(row) {
                (false, at) => x.get(at).copied().unwrap_or($zero),
                (true, at) => y.get(at).copied().unwrap_or($zero),
            })?)
        }};
    }
    macro_rules! texts {
        ($variant:ident) => {{
            let of = |column: Column<'a>| match column.data() {
                Data::$variant(text) => Some(text),
                _ => None,
            };
            Data::$variant(match (of(a), of(b)) {
                (Some(x), Some(y)) => Text::merge(&x, &y, arena, rows, from)?,
                (Some(x), None) => one_text(arena, &x, rows, |row| Some(from(row)).filter(|f| !f.0).map(|f| f.1))?,
                (None, Some(y)) => one_text(arena, &y, rows, |row| Some(from(row)).filter(|f| f.0).map(|f| f.1))?,
                (None, None) => Text::inline(&[]),
            })
        }};
    }
    let typed = if matches!(a.data(), Data::Null | Data::Absent) {
        b
    } else {
        a
    };
    let data = match typed.data() {
        Data::Null | Data::Absent => return Ok(Column::nulls(rows)),
        Data::Bool(_) => {
            let of = |column: Column<'a>| match column.data() {
                Data::Bool(bits) => Some(bits),
                _ => None,
            };
            let (x, y) = (of(a), of(b));
            Data::Bool(Bits::collect(arena, rows, |row| match from(row) {
                (false, at) => x.is_some_and(|x| x.get(at)),
                (true, at) => y.is_some_and(|y| y.get(at)),
            })?)
        }
        Data::Int(_) => numbers!(Int, 0),
        Data::Float(_) => numbers!(Float, 0.0),
        Data::Decimal(_) => numbers!(Decimal, 0),
        Data::Date(_) => numbers!(Date, 0),
        Data::Timestamp(_) => numbers!(Timestamp, 0),
        Data::Duration(_) => numbers!(Duration, 0),
        Data::String(_) => texts!(String),
        Data::Bytes(_) => texts!(Bytes),
        Data::Json(_) => texts!(Json),
        Data::Verbatim(_) => texts!(Verbatim),
        // Settled above.
        Data::Cells(_) => return Ok(Column::nulls(rows)),
        Data::List(_) => Data::List(lists(arena, a, b, rows, from)?),
        Data::Record(record) => {
            let of = |column: Column<'a>, index: usize| match column.data() {
                Data::Record(record) => record.field(index, column.len()),
                _ => Column::nulls(column.len()),
            };
            let mut columns = Columns::new(arena, record.width())?;
            for index in 0..record.width() {
                let from: &dyn Fn(usize) -> (bool, usize) = &from;
                columns.push(merge(arena, of(a, index), of(b, index), rows, from)?);
            }
            Data::Record(RecordData::new(columns.finish()))
        }
    };
    let all = |column: Column<'a>| column.valid().is_none() && !matches!(column.data(), Data::Null);
    let valid = if all(a) && all(b) {
        None
    } else {
        Some(Bits::collect(arena, rows, |row| match from(row) {
            (false, at) => a.is_valid(at),
            (true, at) => b.is_valid(at),
        })?)
    };
    Ok(Column::new(data, valid, rows))
}

fn one_text<'a>(
    arena: &'a Arena,
    text: &Text<'a>,
    rows: usize,
    from: impl Fn(usize) -> Option<usize>,
) -> Result<Text<'a>> {
    let empty = Text::inline(&[standpipe_sdk::View::EMPTY]);
    Text::merge(text, &empty, arena, rows, |row| match from(row) {
        Some(at) => (false, at),
        None => (true, 0),
    })
}

fn lists<'a>(
    arena: &'a Arena,
    a: Column<'a>,
    b: Column<'a>,
    rows: usize,
    from: impl Fn(usize) -> (bool, usize),
) -> Result<ListData<'a>> {
    let of = |column: Column<'a>| match column.data() {
        Data::List(list) => Some(list),
        _ => None,
    };
    let (x, y) = (of(a), of(b));
    let range = |row: usize| {
        let (second, at) = from(row);
        let (column, list) = if second { (b, y) } else { (a, x) };
        match list {
            Some(list) if column.is_valid(at) => (second, list.range(at)),
            _ => (second, 0..0),
        }
    };
    let mut total = 0;
    let offsets = arena.collect(rows + 1, |row| {
        let start = total;
        if row < rows {
            total += range(row).1.len();
        }
        start as i32
    })?;
    let mut elements = (0..rows).flat_map(|row| {
        let (second, range) = range(row);
        range.map(move |at| (second, at))
    });
    let elements: &[(bool, usize)] = arena.collect(total, |_| elements.next().unwrap_or((false, 0)))?;
    let none = Column::nulls(0);
    let child = |list: Option<ListData<'a>>| list.map_or(none, |list| *list.child);
    let pick: &dyn Fn(usize) -> (bool, usize) = &|i| elements[i];
    let child = arena.one(merge(arena, child(x), child(y), total, pick)?)?;
    Ok(ListData { offsets, child })
}

/// The columns one behind the other, and then row `r` of column `c` at `r * width + c`: the elements of list literals.
pub(in crate::expr) fn interleave<'a>(arena: &'a Arena, columns: &[Column<'a>], rows: usize) -> Result<Column<'a>> {
    let Some((first, rest)) = columns.split_first() else {
        return Ok(Column::nulls(0));
    };
    let mut all = *first;
    for next in rest {
        let before = all.len();
        let from = move |row: usize| {
            if row < before {
                (false, row)
            } else {
                (true, row - before)
            }
        };
        all = merge(arena, all, *next, before + next.len(), from)?;
    }
    let width = columns.len();
    let order = arena.collect(rows * width, |i| ((i % width) * rows + i / width) as u32)?;
    all.gather(order, arena)
}
