//! Words of other languages, and words of this one that are not built yet: hints, never aliases.

/// What this language calls a stage that others call `name`.
pub(super) fn stage_here(name: &str) -> Option<&'static str> {
    Some(match name {
        "where" | "having" => "filter",
        "mutate" | "extend" | "with_columns" | "put" => "derive",
        "project" | "cut" => "select",
        "group" | "summarize" => "aggregate",
        "limit" | "head" => "take",
        "arrange" | "order" => "sort",
        "explode" | "mv_expand" | "mv-expand" => "unnest",
        "uniq" | "unique" => "distinct",
        "concat" | "append" => "union",
        "intersect" => "join semi",
        "except" | "minus" => "join anti",
        _ => return None,
    })
}

/// A form of the language that another language writes as a stage.
pub(super) fn form_here(name: &str) -> Option<&'static str> {
    Some(match name {
        "case" => "`if c then a else b`, or `match x { … }`, is an expression",
        _ => return None,
    })
}

/// Every stage of the language, built or not.
pub(super) const STAGES: &[&str] = &[
    "read",
    "write",
    "from",
    "filter",
    "select",
    "derive",
    "set",
    "each",
    "drop",
    "rename",
    "cast",
    "take",
    "skip",
    "tail",
    "sample",
    "number",
    "fill",
    "sort",
    "top",
    "aggregate",
    "distinct",
    "dedup",
    "join",
    "union",
    "merge",
    "unnest",
    "flatten",
    "nest",
    "pivot",
    "unpivot",
    "window",
    "assert",
    "route",
    "tee",
    "parse",
    "tap",
    "describe",
];

/// Formats to come.
pub(super) const FORMATS: &[&str] = &["json", "parquet", "arrow", "sqlite", "postgres", "xlsx", "lines"];

/// What other languages call a function of this one.
pub(super) fn function_here(name: &str) -> Option<&'static str> {
    Some(match name {
        "ifnull" | "nvl" | "coalesce" | "isnull" => "`x ?? y` gives y where x is null",
        "iif" | "iff" | "if_else" | "case" | "when" => "`if c then a else b` is an expression",
        "try" | "try_cast" | "safe_cast" => "`int(x) catch null` gives null where it fails",
        "like" | "matches" | "regexp_like" => "`s ~ /pattern/` matches a regular expression",
        "to_int" | "to_integer" | "integer" | "parse_int" | "cast" => "a cast is written as the type: `int(x)`",
        "to_string" | "str" | "text" | "varchar" => "a cast is written as the type: `string(x)`",
        "to_float" | "double" | "number" => "a cast is written as the type: `float(x)`",
        _ => return None,
    })
}
