//! Keys as bytes: what sorts, groups and compares rows without knowing their types.
//!
//! Laws
//! - Byte order is the language's order: false < true, numbers, text by code point, then NaN, then null (or null first). `-` turns
//!   values round and leaves NaN and null at their end.
//! - Equal values have equal bytes (-0.0 and 0.0, every NaN), and no encoding is the beginning of another: encodings can be
//!   cut, padded with zeros and put one behind the other.

mod block;

pub use block::{HASH_VERSION, KeyBlock, PREFIX_BYTES, hash, prefix};

use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::spec::{Arg, ArgKind, Call, Complaint, Filters, Item, Param};
use standpipe_sdk::{Cell, Column, Type};

use super::codes;

pub(super) const NULL_FIRST: u8 = 0;
pub(super) const VALUE: u8 = 1;
pub(super) const NAN: u8 = 2;
pub(super) const NULL_LAST: u8 = 3;
/// Ends a text or list; a zero byte within a text is followed by `ESCAPE`.
const END: u8 = 0;
const ESCAPE: u8 = 0xFF;

/// One column of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key {
    /// Position in the batch.
    pub column: usize,
    pub descending: bool,
    pub nulls_first: bool,
}

impl Key {
    /// The least values first, nulls last.
    pub const fn ascending(column: usize) -> Key {
        Key {
            column,
            descending: false,
            nulls_first: false,
        }
    }
}

/// The columns of a key, most significant first.
#[derive(Clone, Debug)]
pub struct Keys {
    keys: Vec<Key>,
}

impl Keys {
    /// A key of these columns.
    pub fn new(keys: Vec<Key>) -> Self {
        Keys { keys }
    }

    /// A key that only tells rows apart.
    pub fn grouping(columns: impl IntoIterator<Item = usize>) -> Self {
        Keys::new(columns.into_iter().map(Key::ascending).collect())
    }

    /// The key columns' positions.
    pub fn columns(&self) -> impl Iterator<Item = usize> + '_ {
        self.keys.iter().map(|k| k.column)
    }

    /// Appends the key of row `row` to `out`.
    ///
    /// # Errors
    /// `Memory` if `out` cannot grow; it may hold a part of the key then.
    pub fn encode(&self, columns: &[Column<'_>], row: usize, out: &mut Vec<u8>) -> Result<()> {
        for key in &self.keys {
            let cell = columns[key.column].cell(row);
            if matches!(cell, Cell::Null) {
                room(out, 1)?;
                out.push(if key.nulls_first { NULL_FIRST } else { NULL_LAST });
                continue;
            }
            let start = out.len() + 1;
            value(cell, out)?;
            if key.descending && out[start - 1] == VALUE {
                for byte in &mut out[start..] {
                    *byte = !*byte;
                }
            }
        }
        Ok(())
    }
}

/// Of a stage that treats rows by groups: a condition on columns of the groups' key keeps or drops whole groups.
pub(super) fn filters(call: &Call<'_>, by: &[Item]) -> Filters {
    let own = |item: &Item| match item.arg {
        Arg::Column(at) if at < call.own => Some((at, at)),
        _ => None,
    };
    Filters::Keys(by.iter().filter_map(own).collect())
}

/// The most bytes a key of these types takes; `None` if there is no such number.
pub fn max_width<'t>(types: impl IntoIterator<Item = &'t Type>) -> Option<usize> {
    types.into_iter().try_fold(0, |sum, ty| {
        let payload = match ty {
            Type::Null => 0,
            Type::Bool => 1,
            Type::Date => 4,
            Type::Int | Type::Float | Type::Timestamp | Type::Duration => 8,
            Type::Decimal { .. } => 16,
            Type::String | Type::Bytes | Type::List(_) | Type::Record(_) | Type::Json => return None,
        };
        Some(sum + 1 + payload)
    })
}

fn room(out: &mut Vec<u8>, more: usize) -> Result<()> {
    out.try_reserve(more).map_err(|_| Error::Memory {
        wanted: more,
        used: out.len(),
        limit: out.capacity(),
    })
}

/// Appends `bytes` as they are.
pub(super) fn append(bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
    room(out, bytes.len())?;
    out.extend_from_slice(bytes);
    Ok(())
}

fn fixed<const N: usize>(out: &mut Vec<u8>, bytes: [u8; N]) -> Result<()> {
    room(out, N + 1)?;
    out.push(VALUE);
    out.extend_from_slice(&bytes);
    Ok(())
}

/// Appends one value that may be null, as within lists and records.
pub(super) fn value(cell: Cell<'_>, out: &mut Vec<u8>) -> Result<()> {
    match cell {
        Cell::Null => {
            room(out, 1)?;
            out.push(NULL_LAST);
            Ok(())
        }
        Cell::Bool(v) => fixed(out, [u8::from(v)]),
        Cell::Int(v) | Cell::Timestamp(v) | Cell::Duration(v) => fixed(out, (v as u64 ^ 1 << 63).to_be_bytes()),
        Cell::Date(v) => fixed(out, (v as u32 ^ 1 << 31).to_be_bytes()),
        Cell::Decimal(v) => fixed(out, (v as u128 ^ 1 << 127).to_be_bytes()),
        Cell::Float(v) if v.is_nan() => {
            room(out, 1)?;
            out.push(NAN);
            Ok(())
        }
        Cell::Float(v) => fixed(out, float(v).to_be_bytes()),
        Cell::String(v) | Cell::Json(v) => bytes(v.as_bytes(), out),
        Cell::Bytes(v) | Cell::Verbatim(v) => bytes(v, out),
        Cell::List(list) => {
            room(out, 1)?;
            out.push(VALUE);
            for row in 0..list.len() {
                // Every element starts with a tag above END.
                value(list.cell(row), out)?;
            }
            room(out, 1)?;
            out.push(END);
            Ok(())
        }
        Cell::Record(fields, row) => {
            room(out, 1)?;
            out.push(VALUE);
            for field in fields {
                value(field.cell(row), out)?;
            }
            Ok(())
        }
    }
}

/// A number that orders like `v`, which is no NaN. Adding 0.0 makes -0.0 positive; then negative numbers are turned round, others
/// lifted above them.
fn float(v: f64) -> u64 {
    let bits = (v + 0.0).to_bits();
    let mask = if bits >> 63 == 1 { u64::MAX } else { 1 << 63 };
    bits ^ mask
}

fn bytes(text: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let zeros = memchr::memchr_iter(0, text).count();
    room(out, text.len() + zeros + 3)?;
    out.push(VALUE);
    if zeros == 0 {
        out.extend_from_slice(text);
    } else {
        for &byte in text {
            out.push(byte);
            if byte == 0 {
                out.push(ESCAPE);
            }
        }
    }
    // Two bytes: after `-` the end must still come before any text that goes on.
    out.extend_from_slice(&[END, END]);
    Ok(())
}

/// The option of those who sort.
pub const NULLS: Param = Param::new(
    "nulls",
    ArgKind::Word,
    Some("last"),
    "where nulls stand, `first` or `last`, whatever the direction",
);

/// The keys to sort by that `items` and the option [`NULLS`] say; what is wrong with them goes to `complaints`.
pub fn sorting(call: &Call<'_>, items: &[Item], complaints: &mut Vec<Complaint>) -> Vec<Key> {
    let nulls_first = match call.option(NULLS.name) {
        None => false,
        Some(option) => match &option.arg {
            Arg::Word(word) if matches!(&**word, "first" | "last") => &**word == "first",
            _ => {
                complaints.push(Complaint::new(
                    codes::WRONG_ARGUMENT,
                    option.span,
                    "`nulls:` is `first` or `last`",
                    "neither of them",
                ));
                false
            }
        },
    };
    let columns = ordered(call, items).unwrap_or_else(|mut more| {
        complaints.append(&mut more);
        vec![]
    });
    let key = |(column, item): (usize, &Item)| Key {
        column,
        descending: item.descending,
        nulls_first,
    };
    columns.into_iter().zip(items).map(key).collect()
}

/// What rows in the order of `keys` are known to be sorted by: as far as these are the stream's own columns, with nulls last.
pub fn known_order(call: &Call<'_>, keys: &[Key]) -> Vec<(usize, bool)> {
    let nullable = |key: &Key| call.input.get(key.column).is_none_or(|field| field.nullable);
    keys.iter()
        .take_while(|key| key.column < call.own && !(key.nulls_first && nullable(key)))
        .map(|key| (key.column, key.descending))
        .collect()
}

/// The input columns of `items`, each of which may be a key that tells rows apart.
pub fn grouping(call: &Call<'_>, items: &[Item]) -> Result<Vec<usize>, Vec<Complaint>> {
    columns(call, items, "no rows can be told apart by it", |ty| !has_json(ty))
}

/// The input columns of `by`; what is wrong with them goes to `complaints`.
pub fn groups(call: &Call<'_>, complaints: &mut Vec<Complaint>) -> Vec<usize> {
    grouping(call, call.by).unwrap_or_else(|mut more| {
        complaints.append(&mut more);
        vec![]
    })
}

/// The input columns of `items`, each of which may be sorted by.
pub fn ordered(call: &Call<'_>, items: &[Item]) -> Result<Vec<usize>, Vec<Complaint>> {
    columns(call, items, "it has no order", Type::is_ordered)
}

fn columns(
    call: &Call<'_>,
    items: &[Item],
    why: &str,
    fits: impl Fn(&Type) -> bool,
) -> Result<Vec<usize>, Vec<Complaint>> {
    let mut complaints = vec![];
    let mut found = vec![];
    for item in items {
        let Some((index, field)) = call.column_of(item) else {
            complaints.push(Complaint::new(
                codes::NO_KEY,
                item.span,
                "a key is a column or an expression",
                "not a key",
            ));
            continue;
        };
        if !fits(&field.ty) {
            complaints.push(Complaint::new(
                codes::NO_KEY,
                item.span,
                format!("`{}` is no key: {why}", field.ty),
                format!("this is `{}`", field.ty),
            ));
        }
        found.push(index);
    }
    if complaints.is_empty() {
        Ok(found)
    } else {
        Err(complaints)
    }
}

pub(super) fn has_json(ty: &Type) -> bool {
    match ty {
        Type::Json => true,
        Type::List(item) => has_json(&item.ty),
        Type::Record(schema) => schema.fields().iter().any(|f| has_json(&f.ty)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::values;
    use proptest::prelude::*;
    use standpipe_sdk::{Arena, Field, Schema, Value};
    use std::cmp::Ordering;

    /// The order of the language, spelled out.
    fn slow(a: &Value, b: &Value, key: Key) -> Ordering {
        let nan = |v: &Value| matches!(v, Value::Float(f) if f.is_nan());
        let rank = |v: &Value| match v {
            Value::Null if key.nulls_first => 0,
            Value::Null => 3,
            v if nan(v) => 2,
            _ => 1,
        };
        rank(a).cmp(&rank(b)).then_with(|| {
            if rank(a) != 1 {
                return Ordering::Equal;
            }
            let order = match (a, b) {
                (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
                (Value::Int(a), Value::Int(b)) => a.cmp(b),
                (Value::Float(a), Value::Float(b)) => a.partial_cmp(b).unwrap(),
                (Value::Decimal { value: a, .. }, Value::Decimal { value: b, .. }) => a.cmp(b),
                (Value::String(a), Value::String(b)) => a.chars().cmp(b.chars()),
                (Value::Date(a), Value::Date(b)) => a.cmp(b),
                other => panic!("{other:?}"),
            };
            if key.descending { order.reverse() } else { order }
        })
    }

    fn any_of(ty: &Type) -> BoxedStrategy<Value> {
        let some = match ty {
            Type::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
            Type::Int => prop_oneof![any::<i64>(), -3i64..3].prop_map(Value::Int).boxed(),
            Type::Float => prop_oneof![
                any::<f64>(),
                proptest::sample::select(vec![
                    0.0,
                    -0.0,
                    f64::NAN,
                    -f64::NAN,
                    f64::INFINITY,
                    f64::NEG_INFINITY,
                    1.5
                ])
            ]
            .prop_map(Value::Float)
            .boxed(),
            Type::Decimal { scale, .. } => {
                let scale = *scale;
                prop_oneof![any::<i128>(), -3i128..3]
                    .prop_map(move |value| Value::Decimal { value, scale })
                    .boxed()
            }
            Type::String => "[\u{0}a\u{ff}\u{10ffff}]{0,4}|.{0,20}".prop_map(Value::String).boxed(),
            _ => any::<i32>().prop_map(Value::Date).boxed(),
        };
        prop_oneof![1 => Just(Value::Null), 6 => some].boxed()
    }

    fn types() -> [Type; 6] {
        let decimal = Type::Decimal {
            precision: 38,
            scale: 2,
        };
        [Type::Bool, Type::Int, Type::Float, decimal, Type::String, Type::Date]
    }

    pub(super) type Case = (Vec<Type>, Vec<Key>, Vec<Vec<Value>>);

    pub(super) fn cases() -> impl Strategy<Value = Case> {
        proptest::collection::vec((0..6usize, any::<bool>(), any::<bool>()), 1..4).prop_flat_map(|columns| {
            let tys: Vec<Type> = columns.iter().map(|c| types()[c.0].clone()).collect();
            let keys: Vec<Key> = columns
                .iter()
                .enumerate()
                .map(|(column, &(_, descending, nulls_first))| Key {
                    column,
                    descending,
                    nulls_first,
                })
                .collect();
            let row: Vec<_> = tys.iter().map(any_of).collect();
            (Just(tys), Just(keys), proptest::collection::vec(row, 2..12))
        })
    }

    proptest! {
        #[test]
        fn bytes_order_like_values((tys, keys, rows) in cases()) {
            let arena = Arena::new(1 << 20);
            let schema: Schema = tys.iter().map(|t| Field::new("k", t.clone(), true)).collect();
            let batch = values::batch(&schema, &rows, &arena).unwrap();
            let encoder = Keys::new(keys.clone());
            let encoded: Vec<Vec<u8>> = (0..rows.len()).map(|row| {
                let mut out = vec![];
                encoder.encode(batch.columns(), row, &mut out).unwrap();
                out
            }).collect();
            if let Some(width) = max_width(&tys) {
                prop_assert!(encoded.iter().all(|e| e.len() <= width));
            }
            for (i, a) in rows.iter().enumerate() {
                for (j, b) in rows.iter().enumerate() {
                    let want = keys.iter().fold(Ordering::Equal, |order, key| {
                        order.then_with(|| slow(&a[key.column], &b[key.column], *key))
                    });
                    prop_assert_eq!(encoded[i].cmp(&encoded[j]), want, "{:?} {:?}", a, b);
                    prop_assert!(want == Ordering::Equal || !encoded[i].starts_with(&encoded[j]));
                }
            }
        }
    }

    #[test]
    fn lists_and_records_are_told_apart() {
        let arena = Arena::new(1 << 16);
        let list = Type::list(Type::String, true);
        let record = Type::Record([Field::new("a", list, true)].into_iter().collect());
        let schema: Schema = [Field::new("k", record, true)].into_iter().collect();
        let s = |text: &str| Value::String(text.into());
        let row = |items: Option<Vec<Value>>| {
            vec![Value::Record(vec![(
                "a".into(),
                items.map_or(Value::Null, Value::List),
            )])]
        };
        let rows = vec![
            vec![Value::Null],
            row(None),
            row(Some(vec![])),
            row(Some(vec![s("ab")])),
            row(Some(vec![s("a"), s("b")])),
            row(Some(vec![s("a"), Value::Null])),
            row(Some(vec![s("a")])),
        ];
        let batch = values::batch(&schema, &rows, &arena).unwrap();
        let mut seen = std::collections::HashSet::new();
        for row in 0..rows.len() {
            let mut out = vec![];
            Keys::grouping([0]).encode(batch.columns(), row, &mut out).unwrap();
            assert!(seen.insert(out));
        }
    }
}
