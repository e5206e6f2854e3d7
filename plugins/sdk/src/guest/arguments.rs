//! `config_json` of the header, read back into the arguments that a [`Call`](crate::spec::Call) has.
//!
//! Laws
//! - Spans mean nothing in here; each argument has one of its own, by which it is found again when a complaint comes back.

use crate::error::Span;
use crate::spec::{Arg, Call, Item, StageSpec};
use crate::types::{Schema, Type};
use crate::value::Value;
use serde_json::{Map, Value as Json};

/// What a call was given.
#[derive(Default)]
pub(super) struct Arguments {
    pub(super) mode: Option<String>,
    pub(super) as_name: Option<String>,
    pub(super) items: Vec<Item>,
    pub(super) by: Vec<Item>,
    pub(super) on: Vec<Item>,
    pub(super) columns: Vec<Item>,
    pub(super) options: Vec<(&'static str, Item)>,
    next: u32,
}

/// The span of the call itself.
pub(super) const CALL: Span = Span { start: 0, end: 1 };

impl Arguments {
    pub(super) fn read(json: &[u8], spec: &StageSpec) -> Result<Arguments, String> {
        let json: Map<String, Json> = serde_json::from_slice(json).map_err(|e| format!("the arguments: {e}"))?;
        let mut out = Arguments::default();
        for (key, value) in &json {
            match key.as_str() {
                "mode" => out.mode = value.as_str().map(str::to_owned),
                "as" => out.as_name = value.as_str().map(str::to_owned),
                "items" => out.items = out.list(value)?,
                "by" => out.by = out.list(value)?,
                "on" => out.on = out.list(value)?,
                "columns" => out.columns = out.list(value)?,
                "options" => {
                    for (name, value) in value.as_object().into_iter().flatten() {
                        let known = spec.options.iter().find(|option| option.name == name);
                        let name = known.ok_or_else(|| format!("there is no option `{name}`"))?.name;
                        let item = out.item(value)?;
                        out.options.push((name, item));
                    }
                }
                // A newer host may say more.
                _ => {}
            }
        }
        Ok(out)
    }

    /// The call with these arguments; the first `own` columns of its input are the stage's own.
    pub(super) fn call<'c>(&'c self, input: &'c Schema, own: usize) -> Call<'c> {
        Call {
            input,
            own,
            streams: &[],
            beside: None,
            mode: self.mode.as_deref(),
            items: &self.items,
            by: &self.by,
            on: &self.on,
            as_name: self.as_name.as_deref(),
            options: &self.options,
            columns: &self.columns,
            span: CALL,
        }
    }

    /// The argument that has this span, as the header names arguments.
    pub(super) fn name_of(&self, span: Span) -> String {
        if let Some((name, _)) = self.options.iter().find(|(_, item)| item.span == span) {
            return (*name).to_owned();
        }
        let at = self.items.iter().position(|item| item.span == span);
        at.map_or_else(String::new, |at| at.to_string())
    }

    fn list(&mut self, value: &Json) -> Result<Vec<Item>, String> {
        value
            .as_array()
            .into_iter()
            .flatten()
            .map(|item| self.item(item))
            .collect()
    }

    fn item(&mut self, json: &Json) -> Result<Item, String> {
        self.next += 2;
        let span = Span {
            start: self.next,
            end: self.next + 1,
        };
        Ok(Item {
            name: json.get("name").and_then(Json::as_str).map(Into::into),
            arg: argument(json)?,
            descending: json.get("desc") == Some(&Json::Bool(true)),
            span,
        })
    }
}

/// The arguments of a function or an aggregate that are constants, one per argument.
pub(super) fn constants(json: &[u8]) -> Result<Vec<Option<Value>>, String> {
    let json: Json = serde_json::from_slice(json).map_err(|e| format!("the arguments: {e}"))?;
    let items = json.get("items").and_then(Json::as_array);
    let item = |item: &Json| match item.get("value") {
        Some(value) => value_of(value)
            .map(Some)
            .ok_or_else(|| format!("the argument {item} is not known")),
        None => Ok(None),
    };
    items.into_iter().flatten().map(item).collect()
}

fn argument(json: &Json) -> Result<Arg, String> {
    let not_known = || format!("the argument {json} is not known");
    let map = json.as_object().ok_or_else(not_known)?;
    for (key, value) in map {
        return Ok(match (key.as_str(), value) {
            ("column", at) => Arg::Column(
                at.as_u64()
                    .and_then(|at| usize::try_from(at).ok())
                    .ok_or_else(not_known)?,
            ),
            ("value", value) => Arg::Const(value_of(value).ok_or_else(not_known)?),
            ("word", Json::String(word)) => Arg::Word(word.as_str().into()),
            ("words", Json::Array(words)) => {
                let words = words.iter().map(|word| word.as_str().map(Into::into));
                Arg::Words(words.collect::<Option<_>>().ok_or_else(not_known)?)
            }
            ("type", Json::String(ty)) => Arg::Type(type_of(ty).ok_or_else(not_known)?),
            _ => continue,
        });
    }
    Err(not_known())
}

fn value_of(json: &Json) -> Option<Value> {
    Some(match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match number.as_i64() {
            Some(value) => Value::Int(value),
            None => Value::Float(number.as_f64()?),
        },
        Json::String(text) => Value::String(text.clone()),
        Json::Array(items) => Value::List(items.iter().map(value_of).collect::<Option<_>>()?),
        Json::Object(map) => {
            let (key, value) = map.iter().next()?;
            match key.as_str() {
                "date" => Value::Date(i32::try_from(value.as_i64()?).ok()?),
                "timestamp" => Value::Timestamp(value.as_i64()?),
                "duration" => Value::Duration(value.as_i64()?),
                "float" => Value::Float(value.as_str()?.parse().ok()?),
                "json" => Value::Json(value.as_str()?.to_owned()),
                "bytes" => {
                    let byte = |byte: &Json| u8::try_from(byte.as_u64()?).ok();
                    Value::Bytes(value.as_array()?.iter().map(byte).collect::<Option<_>>()?)
                }
                "decimal" => {
                    let text = value.as_str()?;
                    let scale = text.split_once('.').map_or(0, |(_, part)| part.len());
                    Value::Decimal {
                        value: text.replace('.', "").parse().ok()?,
                        scale: u8::try_from(scale).ok()?,
                    }
                }
                "record" => {
                    let field = |(name, value): (&String, &Json)| Some((name.clone(), value_of(value)?));
                    Value::Record(value.as_object()?.iter().map(field).collect::<Option<_>>()?)
                }
                _ => return None,
            }
        }
    })
}

/// A type as the language writes it; lists and records do not get here.
fn type_of(text: &str) -> Option<Type> {
    let text = text.trim_end_matches('?');
    if let Some(digits) = text.strip_prefix("decimal(").and_then(|text| text.strip_suffix(')')) {
        let (precision, scale) = digits.split_once(',')?;
        return Some(Type::Decimal {
            precision: precision.trim().parse().ok()?,
            scale: scale.trim().parse().ok()?,
        });
    }
    Some(match text {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "float" => Type::Float,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "date" => Type::Date,
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "json" => Type::Json,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_with_their_type() {
        let table = [
            ("-9223372036854775808", Value::Int(i64::MIN)),
            ("2.0", Value::Float(2.0)),
            (r#"{"float":"-inf"}"#, Value::Float(f64::NEG_INFINITY)),
            (r#"{"decimal":"-0.05"}"#, Value::Decimal { value: -5, scale: 2 }),
            (r#"{"decimal":"12"}"#, Value::Decimal { value: 12, scale: 0 }),
            (r#"{"date":-1}"#, Value::Date(-1)),
            (
                r#"[null,"a"]"#,
                Value::List(vec![Value::Null, Value::String("a".into())]),
            ),
            (
                r#"{"record":{"x":true}}"#,
                Value::Record(vec![("x".into(), Value::Bool(true))]),
            ),
        ];
        for (json, want) in table {
            assert_eq!(value_of(&serde_json::from_str(json).unwrap()), Some(want), "{json}");
        }
        assert_eq!(value_of(&serde_json::json!({"else": 1})), None);
        assert_eq!(
            type_of("decimal(10, 2)?"),
            Some(Type::Decimal {
                precision: 10,
                scale: 2
            })
        );
        assert_eq!(type_of("list<int>"), None);
    }
}
