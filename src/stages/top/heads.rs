//! Lower bounds of keys, column-at-a-time: what rules most rows out before they get a key.
//!
//! Laws
//! - The bound of a row is at most the first 8 bytes of its encoded key, as a big-endian number. It moves with
//!   [`super::super::keys`], which says what those bytes are.

use super::super::keys::{Key, NAN, NULL_FIRST, NULL_LAST, VALUE};
use standpipe_sdk::error::Result;
use standpipe_sdk::{Arena, Column, Data};

const TAG: u32 = 56;
const PAYLOAD: u64 = (1 << TAG) - 1;

/// For each row a number that is at most the first 8 bytes of its key.
pub(super) fn of<'a>(keys: &[Key], columns: &[Column<'_>], rows: usize, arena: &'a Arena) -> Result<&'a [u64]> {
    let Some(key) = keys.first() else {
        return Ok(arena.fill(rows, 0)?);
    };
    let column = &columns[key.column];
    let turn = if key.descending { PAYLOAD } else { 0 };
    // The payload's first 7 bytes, turned round where the key is.
    let value = move |bits: u64| u64::from(VALUE) << TAG | ((bits >> 8) ^ turn);
    let heads = match column.data() {
        Data::Int(v) | Data::Timestamp(v) | Data::Duration(v) => arena.map(v, |v| value(v as u64 ^ 1 << 63))?,
        Data::Float(v) => arena.map(v, |v| {
            let bits = (v + 0.0).to_bits();
            let mask = ((bits as i64 >> 63) as u64) | 1 << 63;
            if v.is_nan() {
                u64::from(NAN) << TAG
            } else {
                value(bits ^ mask)
            }
        })?,
        Data::Decimal(v) => arena.map(v, |v| value(((v as u128 ^ 1 << 127) >> 64) as u64))?,
        // 4 bytes: what stands behind them is the next column's.
        Data::Date(v) => arena.map(v, |v| value(u64::from(v as u32 ^ 1 << 31) << 32) & !0xFF_FFFF)?,
        Data::String(text) => arena.map(text.views(), |view| {
            // The bytes before the first zero: that one is padding, or has an escape in the key.
            let prefix = view.prefix();
            let known = (0..4).take_while(|byte| prefix >> (24 - 8 * byte) & 0xFF != 0).count() as u32;
            let mask = !(PAYLOAD >> (8 * known)) & PAYLOAD;
            u64::from(VALUE) << TAG | ((u64::from(prefix) << 24) ^ turn) & mask
        })?,
        Data::Null => arena.fill(rows, 0)?,
        Data::Bool(_) => arena.fill(rows, u64::from(VALUE) << TAG)?,
        // No sort keys.
        _ => return Ok(arena.fill(rows, 0)?),
    };
    let null = u64::from(if key.nulls_first { NULL_FIRST } else { NULL_LAST }) << TAG;
    match column.valid() {
        Some(valid) => {
            for (row, head) in heads.iter_mut().enumerate() {
                if !valid.get(row) {
                    *head = null;
                }
            }
        }
        None if matches!(column.data(), Data::Null) => heads.fill(null),
        None => {}
    }
    Ok(heads)
}

#[cfg(test)]
mod tests {
    use super::super::super::keys::Keys;
    use super::super::super::{testing::*, values};
    use super::*;
    use proptest::prelude::*;
    use standpipe_sdk::{Type, Value};

    fn any_of(ty: &Type) -> BoxedStrategy<Value> {
        let some = match ty {
            Type::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
            Type::Int => prop_oneof![any::<i64>(), -3i64..3].prop_map(Value::Int).boxed(),
            Type::Float => prop_oneof![any::<f64>(), Just(f64::NAN), Just(-0.0), Just(0.0)]
                .prop_map(Value::Float)
                .boxed(),
            Type::Decimal { .. } => any::<i128>()
                .prop_map(|value| Value::Decimal { value, scale: 2 })
                .boxed(),
            Type::Date => any::<i32>().prop_map(Value::Date).boxed(),
            Type::Timestamp => any::<i64>().prop_map(Value::Timestamp).boxed(),
            _ => "[\u{0}a\u{ff}\u{10ffff}]{0,6}|.{0,20}".prop_map(Value::String).boxed(),
        };
        prop_oneof![1 => Just(Value::Null), 6 => some].boxed()
    }

    fn types() -> [Type; 7] {
        let decimal = Type::Decimal {
            precision: 38,
            scale: 2,
        };
        [
            Type::Bool,
            Type::Int,
            Type::Float,
            decimal,
            Type::Date,
            Type::Timestamp,
            Type::String,
        ]
    }

    fn cases() -> impl Strategy<Value = (usize, Vec<Vec<Value>>)> {
        (0..7usize).prop_flat_map(|ty| {
            let row = (any_of(&types()[ty]), any_of(&Type::Bool)).prop_map(|(a, b)| vec![a, b]);
            (Just(ty), proptest::collection::vec(row, 1..20))
        })
    }

    proptest! {
        #[test]
        fn a_head_is_never_more_than_its_key((ty, rows) in cases(), descending in any::<bool>(), nulls_first in any::<bool>()) {
            let arena = Arena::new(1 << 20);
            let schema = schema(&[("a", types()[ty].clone()), ("b", BOOL)]);
            let batch = values::batch(&schema, &rows, &arena).unwrap();
            let keys = [0, 1].map(|column| Key { column, descending, nulls_first }).to_vec();
            let heads = of(&keys, batch.columns(), rows.len(), &arena).unwrap();
            let encoder = Keys::new(keys);
            for (row, &head) in heads.iter().enumerate() {
                let mut key = vec![];
                encoder.encode(batch.columns(), row, &mut key).unwrap();
                key.resize(key.len().max(8), 0);
                let first = u64::from_be_bytes(*key.first_chunk().unwrap());
                prop_assert!(head <= first, "{:?}: {head:x} {first:x}", rows[row]);
                // And it is worth something.
                if matches!(rows[row][0], Value::Int(_) | Value::Float(_) | Value::Null | Value::Timestamp(_)) {
                    let known = if key[0] == VALUE { u64::MAX } else { 0xFF << TAG };
                    prop_assert_eq!(head & known, first & known);
                }
            }
        }
    }
}
