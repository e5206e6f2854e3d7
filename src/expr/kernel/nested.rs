//! Fields, elements, list literals, and access into json.

use crate::expr::choose::{interleave, merge};
use crate::expr::eval::{Cx, Val};
use crate::expr::json::{self, Find};
use crate::expr::{Expr, INDEX, JSON_KIND, MISSING};
use standpipe_sdk::bits::both;
use standpipe_sdk::{Bits, Column, Data, ListData, Result};

/// Field `index` of records: null where the record is.
pub(in crate::expr) fn field<'a>(cx: &Cx<'_, 'a>, value: Val<'a>, index: usize) -> Result<Val<'a>> {
    let Data::Record(record) = value.column.data() else {
        return Ok(Val::null());
    };
    let column = record.field(index, value.column.len());
    if matches!(column.data(), Data::Null) {
        return Ok(Val::null());
    }
    let valid = both(value.valid(), column.valid(), cx.arena())?;
    Ok(Val::new(column.with_valid(valid), value.constant))
}

/// Lists of one element per column.
pub(in crate::expr) fn list<'a>(cx: &Cx<'_, 'a>, columns: &[Column<'a>]) -> Result<Val<'a>> {
    let (arena, rows, width) = (cx.arena(), cx.rows(), columns.len());
    let child = arena.one(interleave(arena, columns, rows)?)?;
    let offsets = arena.collect(rows + 1, |row| (row * width) as i32)?;
    Ok(Val::rows(Column::new(
        Data::List(ListData { offsets, child }),
        None,
        rows,
    )))
}

/// No element.
const NONE: u32 = u32::MAX;

/// Element `at` of lists or json arrays, from the end if negative.
pub(in crate::expr) fn index<'a>(
    cx: &Cx<'_, 'a>,
    e: &Expr,
    value: Val<'a>,
    at: Val<'a>,
    optional: bool,
    active: Option<Bits<'a>>,
) -> Result<Val<'a>> {
    if value.is_null() || at.is_null() {
        return Ok(Val::null());
    }
    let indices = at.ints();
    if let Data::Json(_) = value.column.data() {
        let valid = both(value.valid(), at.valid(), cx.arena())?;
        return json_part(cx, e, value, valid, optional, active, |row, text| {
            let index = indices.get(row);
            (json::element(text, index), Wanted::Index(index))
        });
    }
    let Data::List(list) = value.column.data() else {
        return Ok(Val::null());
    };
    let valid = both(value.valid(), at.valid(), cx.arena())?;
    let (picks, _) = cx.attempt(valid, active, NONE, |row| {
        let range = list.range(value.at(row));
        let index = indices.get(row);
        let place = if index < 0 {
            index.saturating_add(range.len() as i64)
        } else {
            index
        };
        match usize::try_from(place).ok().filter(|&place| place < range.len()) {
            Some(place) => Ok(Some((range.start + place) as u32)),
            None if optional => Ok(None),
            None => {
                let help = format_args!("`{e} catch null`");
                cx.fault(
                    row,
                    INDEX,
                    e,
                    Some(help),
                    format_args!("index {index} is outside a list of {}", range.len()),
                )?;
                Ok(None)
            }
        }
    })?;
    let from = |row: usize| match picks[row] {
        NONE => (true, 0),
        at => (false, at as usize),
    };
    Ok(Val::rows(merge(
        cx.arena(),
        *list.child,
        Column::nulls(1),
        cx.rows(),
        from,
    )?))
}

/// Member `name` of json objects.
pub(in crate::expr) fn json_field<'a>(
    cx: &Cx<'_, 'a>,
    e: &Expr,
    value: Val<'a>,
    name: &str,
    optional: bool,
    active: Option<Bits<'a>>,
) -> Result<Val<'a>> {
    if value.is_null() {
        return Ok(Val::null());
    }
    json_part(cx, e, value, value.valid(), optional, active, |_, text| {
        (json::member(text, name), Wanted::Name(name))
    })
}

/// What was looked for in a json value.
enum Wanted<'n> {
    Name(&'n str),
    Index(i64),
}

/// A part of json values, sharing their text; null and missing as the language has it.
fn json_part<'a, 'n>(
    cx: &Cx<'_, 'a>,
    e: &Expr,
    value: Val<'a>,
    valid: Option<Bits<'a>>,
    optional: bool,
    active: Option<Bits<'a>>,
    find: impl Fn(usize, &str) -> (Find, Wanted<'n>),
) -> Result<Val<'a>> {
    let Some(text) = value.text() else {
        return Ok(Val::null());
    };
    let (parts, valid) = cx.attempt(valid, active, (0u32, 0u32), |row| {
        let whole = text.str(value.at(row));
        let (found, wanted) = find(row, whole);
        match found {
            Find::At(range) => return Ok(Some((range.start as u32, range.end as u32))),
            Find::Null => return Ok(None),
            Find::Missing | Find::Kind if optional => return Ok(None),
            Find::Missing => match wanted {
                Wanted::Name(name) => {
                    let help = format_args!("`?.{name}` is null there");
                    cx.fault(
                        row,
                        MISSING,
                        e,
                        Some(help),
                        format_args!("the json value has no field `{name}`"),
                    )?;
                }
                Wanted::Index(index) => {
                    let help = format_args!("`{e} catch null`");
                    cx.fault(
                        row,
                        INDEX,
                        e,
                        Some(help),
                        format_args!("index {index} is outside the json array"),
                    )?;
                }
            },
            Find::Kind => {
                let kind = json::kind(whole);
                match wanted {
                    Wanted::Name(name) => {
                        cx.fault(
                            row,
                            JSON_KIND,
                            e,
                            None,
                            format_args!("the json value is {kind} and has no field `{name}`"),
                        )?;
                    }
                    Wanted::Index(_) => {
                        cx.fault(
                            row,
                            JSON_KIND,
                            e,
                            None,
                            format_args!("the json value is {kind} and has no elements"),
                        )?;
                    }
                }
            }
        }
        Ok(None)
    })?;
    let text = if value.constant {
        text.gather(cx.arena().fill(cx.rows(), 0u32)?, cx.arena())?
    } else {
        text
    };
    let cut = text.cut(cx.arena(), |row, _| parts[row].0 as usize..parts[row].1 as usize)?;
    Ok(Val::rows(Column::new(Data::Json(cut), valid, cx.rows())))
}
