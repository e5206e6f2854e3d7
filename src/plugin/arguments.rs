//! The arguments of a call as the JSON that a plugin gets (`config_json` of the header).

use crate::expr::Given;
use serde_json::{Map, Value as Json, json};
use standpipe_sdk::Value;
use standpipe_sdk::spec::{Arg, Call, Item};

/// All arguments of a stage.
///
/// # Errors
/// If one is of a kind that does not cross the boundary.
pub(super) fn of_call(call: &Call<'_>) -> Result<String, String> {
    let mut out = Map::new();
    if let Some(mode) = call.mode {
        out.insert("mode".into(), mode.into());
    }
    if let Some(name) = call.as_name {
        out.insert("as".into(), name.into());
    }
    let lists = [
        ("items", call.items),
        ("by", call.by),
        ("on", call.on),
        ("columns", call.columns),
    ];
    for (key, items) in lists.into_iter().filter(|(_, items)| !items.is_empty()) {
        out.insert(
            key.into(),
            items.iter().map(argument).collect::<Result<Vec<_>, _>>()?.into(),
        );
    }
    if !call.options.is_empty() {
        let options = call.options.iter();
        let options = options.map(|(name, item)| Ok(((*name).to_owned(), argument(item)?)));
        out.insert("options".into(), options.collect::<Result<Map<_, _>, String>>()?.into());
    }
    Ok(Json::Object(out).to_string())
}

/// The constants among the arguments of a function.
pub(super) fn of_given(given: &[Given<'_>]) -> String {
    let items: Vec<Json> = given
        .iter()
        .map(|given| {
            given
                .value
                .map_or(Json::Null, |value| json!({ "value": value_of(value) }))
        })
        .collect();
    json!({ "items": items }).to_string()
}

fn argument(item: &Item) -> Result<Json, String> {
    let mut out = match &item.arg {
        Arg::Column(at) => json!({ "column": at }),
        Arg::Const(value) => json!({ "value": value_of(value) }),
        Arg::Word(word) => json!({ "word": **word }),
        Arg::Words(words) => json!({ "words": words.iter().map(|word| &**word).collect::<Vec<_>>() }),
        Arg::Type(ty) => json!({ "type": ty.to_string() }),
        Arg::Stream(_) | Arg::Aggregate(_) | Arg::Window(_) | Arg::Frame(..) | Arg::Match { .. } | Arg::Pairs => {
            return Err("an argument of this kind does not reach plugins".into());
        }
    };
    if let (Some(name), Some(map)) = (&item.name, out.as_object_mut()) {
        map.insert("name".into(), (**name).into());
    }
    if let (true, Some(map)) = (item.descending, out.as_object_mut()) {
        map.insert("desc".into(), true.into());
    }
    Ok(out)
}

fn value_of(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(v) => json!(v),
        Value::Int(v) => json!(v),
        Value::Float(v) if v.is_finite() => json!(v),
        Value::Float(v) => json!({ "float": format!("{v}").to_lowercase() }),
        Value::Decimal { value, scale } => json!({ "decimal": decimal(*value, *scale) }),
        Value::String(v) => json!(v),
        Value::Bytes(v) => json!({ "bytes": v }),
        Value::Date(v) => json!({ "date": v }),
        Value::Timestamp(v) => json!({ "timestamp": v }),
        Value::Duration(v) => json!({ "duration": v }),
        Value::Json(v) => json!({ "json": v }),
        Value::List(items) => items.iter().map(value_of).collect(),
        Value::Record(fields) => {
            let fields: Map<String, Json> = fields.iter().map(|(name, v)| (name.clone(), value_of(v))).collect();
            json!({ "record": fields })
        }
    }
}

fn decimal(value: i128, scale: u8) -> String {
    let sign = if value < 0 { "-" } else { "" };
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = usize::from(scale) + 1);
    let (whole, part) = digits.split_at(digits.len() - usize::from(scale));
    match part {
        "" => format!("{sign}{whole}"),
        _ => format!("{sign}{whole}.{part}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_type() {
        let table = [
            (Value::Int(i64::MIN), "-9223372036854775808"),
            (Value::Float(2.0), "2.0"),
            (Value::Float(f64::NAN), r#"{"float":"nan"}"#),
            (Value::Float(f64::NEG_INFINITY), r#"{"float":"-inf"}"#),
            (Value::Decimal { value: -5, scale: 2 }, r#"{"decimal":"-0.05"}"#),
            (Value::Decimal { value: 12, scale: 0 }, r#"{"decimal":"12"}"#),
            (Value::String("a\"b".into()), r#""a\"b""#),
            (Value::Date(-1), r#"{"date":-1}"#),
            (
                Value::List(vec![Value::Null, Value::Record(vec![("x".into(), Value::Bool(true))])]),
                r#"[null,{"record":{"x":true}}]"#,
            ),
        ];
        for (value, want) in table {
            assert_eq!(value_of(&value).to_string(), want);
        }
    }
}
