//! What a plugin's stage or function says that it takes (`params` of the header), as parts of a spec.
//!
//! Laws
//! - What is not understood is refused: an argument that this version does not know must not be lost silently.

use crate::expr::{ParamSpec, Pattern};
use serde_json::{Map, Value as Json};
use standpipe_sdk::spec::{ArgKind, Items, Memory, Names, Order, Param, StageSpec, Want};

/// The parts of a spec that `params` says.
pub(super) struct Takes {
    pub(super) modes: &'static [&'static str],
    pub(super) items: Items,
    pub(super) by: Items,
    pub(super) on: Items,
    pub(super) as_name: Option<&'static str>,
    pub(super) options: &'static [Param],
    pub(super) memory: Memory,
    pub(super) order: Order,
}

fn leak(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

/// Why `params` is refused.
type Refused = String;

/// What a stage takes.
pub(super) fn of_stage(params: Option<&str>) -> Result<Takes, Refused> {
    let mut takes = Takes {
        modes: StageSpec::BASE.modes,
        items: Items::NONE,
        by: Items::NONE,
        on: Items::NONE,
        as_name: None,
        options: &[],
        memory: Memory::Held,
        order: Order::Keeps,
    };
    let Some(params) = params else { return Ok(takes) };
    for (key, value) in &object(params)? {
        match key.as_str() {
            "modes" => {
                let modes = list(value)?.iter().map(|mode| text(mode).map(leak));
                takes.modes = Vec::leak(modes.collect::<Result<_, _>>()?);
            }
            "items" => takes.items = items(value)?,
            "by" => takes.by = items(value)?,
            "on" => takes.on = items(value)?,
            "as" => takes.as_name = Some(leak(text(value)?)),
            "options" => {
                let options = list(value)?.iter().map(option);
                takes.options = Vec::leak(options.collect::<Result<_, _>>()?);
            }
            "memory" => takes.memory = memory(text(value)?)?,
            "order" => {
                takes.order = match text(value)? {
                    "keeps" => Order::Keeps,
                    "creates" => Order::Creates,
                    other => return Err(format!("the order `{other}` is not known")),
                };
            }
            other => return Err(format!("`{other}` is not known")),
        }
    }
    Ok(takes)
}

/// The parameters of a function, for an aggregate how many of them are columns, and the type of what comes out, for the reference.
pub(super) fn of_function(params: Option<&str>) -> Result<(&'static [ParamSpec], usize, &'static str), Refused> {
    let (mut specs, mut columns, mut returns) = (vec![], usize::MAX, "…");
    for (key, value) in &params.map(object).transpose()?.unwrap_or_default() {
        match key.as_str() {
            "params" => {
                specs = list(value)?.iter().map(parameter).collect::<Result<_, _>>()?;
            }
            "columns" => columns = number(value)?,
            "returns" => returns = leak(text(value)?),
            other => return Err(format!("`{other}` is not known")),
        }
    }
    Ok((Vec::leak(specs), columns, returns))
}

fn object(text: &str) -> Result<Map<String, Json>, Refused> {
    serde_json::from_str(text).map_err(|e| format!("they are no JSON object: {e}"))
}

fn text(value: &Json) -> Result<&str, Refused> {
    value.as_str().ok_or_else(|| format!("{value} is no text"))
}

fn list(value: &Json) -> Result<&[Json], Refused> {
    value
        .as_array()
        .map(Vec::as_slice)
        .ok_or_else(|| format!("{value} is no list"))
}

fn number(value: &Json) -> Result<usize, Refused> {
    let number = value.as_u64().and_then(|n| usize::try_from(n).ok());
    number.ok_or_else(|| format!("{value} is no number"))
}

fn memory(word: &str) -> Result<Memory, Refused> {
    let all = [
        Memory::Batch,
        Memory::Constant,
        Memory::Groups,
        Memory::Frame,
        Memory::Windows,
        Memory::Spill,
        Memory::Held,
    ];
    let found = all.into_iter().find(|memory| memory.to_string() == word);
    found.ok_or_else(|| format!("the memory class `{word}` is not known"))
}

fn items(value: &Json) -> Result<Items, Refused> {
    let map = value.as_object().ok_or_else(|| format!("{value} is no object"))?;
    let mut items = Items { max: 1, ..Items::NONE };
    for (key, value) in map {
        match key.as_str() {
            "arg" => {
                items.arg = match value {
                    Json::Array(kinds) => {
                        let kinds = kinds.iter().map(|kind| self::kind(text(kind)?));
                        ArgKind::Each(Vec::leak(kinds.collect::<Result<_, _>>()?))
                    }
                    one => kind(text(one)?)?,
                };
            }
            "min" => items.min = number(value)?,
            "max" => items.max = number(value)?,
            "about" => items.about = leak(text(value)?),
            "progressive" => items.progressive = value == true,
            "star" => items.star = value == true,
            "names" => {
                items.names = match text(value)? {
                    "never" => Names::Never,
                    "optional" => Names::Optional,
                    "always" => Names::Always,
                    other => return Err(format!("the names `{other}` are not known")),
                };
            }
            other => return Err(format!("`{other}` is not known")),
        }
    }
    Ok(items)
}

fn option(value: &Json) -> Result<Param, Refused> {
    let map = value.as_object().ok_or_else(|| format!("{value} is no object"))?;
    let mut param = Param::new("", ArgKind::Const(Want::Any), None, "");
    for (key, value) in map {
        match key.as_str() {
            "name" => param.name = leak(text(value)?),
            "arg" => param.arg = kind(text(value)?)?,
            "default" => param.default = Some(leak(text(value)?)),
            "required" => param.required = value == true,
            "about" => param.about = leak(text(value)?),
            other => return Err(format!("`{other}` is not known")),
        }
    }
    match param.name {
        "" => Err("an option has no name".into()),
        _ => Ok(param),
    }
}

fn kind(word: &str) -> Result<ArgKind, Refused> {
    let (word, want) = word.split_once(':').unwrap_or((word, "any"));
    let want = match want {
        "any" => Want::Any,
        "bool" => Want::Bool,
        "int" => Want::Int,
        "number" => Want::Number,
        "string" => Want::String,
        "list" => Want::List,
        "record" => Want::Record,
        "duration" => Want::Duration,
        "ordered" => Want::Ordered,
        other => return Err(format!("the type `{other}` is not known here")),
    };
    Ok(match word {
        "column" => ArgKind::Column,
        "key" => ArgKind::Key,
        "word" => ArgKind::Word,
        "words" => ArgKind::Words,
        "type" => ArgKind::Type,
        "each" => ArgKind::PerColumn,
        "expr" => ArgKind::Expr(want),
        "const" => ArgKind::Const(want),
        other => return Err(format!("the argument kind `{other}` is not known")),
    })
}

fn parameter(value: &Json) -> Result<ParamSpec, Refused> {
    let map = value.as_object().ok_or_else(|| format!("{value} is no object"))?;
    let mut param = ParamSpec::new("", Pattern::Any);
    for (key, value) in map {
        match key.as_str() {
            "name" => param.name = leak(text(value)?),
            "type" => param.ty = pattern(text(value)?)?,
            "default" => param.default = Some(leak(text(value)?)),
            other => return Err(format!("`{other}` is not known")),
        }
    }
    match param.name {
        "" => Err("a parameter has no name".into()),
        _ => Ok(param),
    }
}

fn pattern(word: &str) -> Result<Pattern, Refused> {
    Ok(match word {
        "any" => Pattern::Any,
        "bool" => Pattern::Bool,
        "int" => Pattern::Int,
        "float" => Pattern::Float,
        "decimal" => Pattern::Decimal,
        "number" => Pattern::Number,
        "string" => Pattern::String,
        "bytes" => Pattern::Bytes,
        "date" => Pattern::Date,
        "timestamp" => Pattern::Timestamp,
        "duration" => Pattern::Duration,
        "json" => Pattern::Json,
        "ordered" => Pattern::Ordered,
        "list" => Pattern::List,
        "record" => Pattern::Record,
        other => return Err(format!("the type `{other}` is not known here")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_says_what_it_takes() {
        let takes = of_stage(Some(
            r#"{"modes": ["left"], "items": {"arg": ["column", "expr:int"], "min": 1, "max": 2, "about": "things"},
                "by": {"arg": "key", "max": 9}, "memory": "groups",
                "options": [{"name": "n", "arg": "const:int", "default": "10", "about": "how many"}]}"#,
        ))
        .unwrap();
        assert_eq!(takes.modes, ["left"]);
        assert_eq!(
            takes.items.arg,
            ArgKind::Each(&[ArgKind::Column, ArgKind::Expr(Want::Int)])
        );
        assert_eq!((takes.items.min, takes.items.max, takes.by.max), (1, 2, 9));
        assert_eq!(takes.memory, Memory::Groups);
        assert_eq!((takes.options[0].name, takes.options[0].default), ("n", Some("10")));
        assert!(of_stage(None).unwrap().options.is_empty());
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for bad in [
            "[]",
            "{",
            r#"{"itmes": {}}"#,
            r#"{"items": {"arg": "colum"}}"#,
            r#"{"items": {"arg": "expr:integer"}}"#,
            r#"{"options": [{"arg": "column"}]}"#,
            r#"{"memory": "much"}"#,
            r#"{"by": {"max": -1}}"#,
        ] {
            assert!(of_stage(Some(bad)).is_err(), "{bad}");
        }
        for bad in [
            r#"{"params": [{"name": "x", "type": "i64"}]}"#,
            r#"{"params": [{"type": "int"}]}"#,
        ] {
            assert!(of_function(Some(bad)).is_err(), "{bad}");
        }
    }
}
