//! The reference pages, printed from the declarations.

use standpipe::diag::suggest;
use standpipe::expr::{
    AggregateSpec, FunctionSpec, WINDOW_FUNCTIONS, aggregates, functions as families, window_function,
};
use standpipe::formats;
use standpipe::stages;
use standpipe_sdk::spec::{BlockKind, FormatSide, FormatSpec, Items, Names, Order, Param, StageSpec};
use std::fmt::Write;

/// All stages, or one.
pub(super) fn stages(name: Option<&str>) -> Result<String, String> {
    let specs = stages::list::list();
    let Some(name) = name else {
        return Ok(listing(specs.iter().map(|s| (s.name, s.about))));
    };
    match specs.iter().find(|s| s.name == name) {
        Some(spec) => Ok(stage(spec)),
        None => Err(unknown("stage", name, specs.iter().map(|s| s.name))),
    }
}

/// All functions, or the overloads of one.
pub(super) fn functions(name: Option<&str>) -> Result<String, String> {
    let all = || families().iter().copied().flatten();
    let combining = || aggregates().iter().copied().flatten();
    let Some(name) = name else {
        let mut names: Vec<(&str, &str)> = all().map(|f| (f.name, f.about)).collect();
        names.extend(combining().map(|a| (a.name, a.about)));
        names.extend(WINDOW_FUNCTIONS.iter().map(|w| (w.name, w.about)));
        names.sort_unstable();
        names.dedup_by_key(|f| f.0);
        return Ok(listing(names.into_iter()));
    };
    let found: Vec<&FunctionSpec> = all().filter(|f| f.name == name).collect();
    let over_rows: Vec<&AggregateSpec> = combining().filter(|a| a.name == name).collect();
    let around = window_function(name);
    if found.is_empty() && over_rows.is_empty() && around.is_none() {
        let names = all().map(|f| f.name).chain(combining().map(|a| a.name));
        let names = names.chain(WINDOW_FUNCTIONS.iter().map(|w| w.name));
        return Err(unknown("function", name, names));
    }
    let mut out = String::new();
    for (i, spec) in found.iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        function(spec, &mut out);
    }
    for spec in over_rows {
        if !out.is_empty() {
            out.push('\n');
        }
        aggregate(spec, &mut out);
    }
    if let Some(spec) = around {
        let _ = writeln!(
            out,
            "{spec}\n  {}\n  of the rows of a group in their order, in `window`",
            spec.about.trim_end_matches('.')
        );
    }
    Ok(out)
}

/// All formats, or one.
pub(super) fn formats(name: Option<&str>) -> Result<String, String> {
    let specs = formats::list();
    let Some(name) = name else {
        return Ok(listing(specs.iter().map(|s| (s.name, s.about))));
    };
    match specs.iter().find(|s| s.name == name) {
        Some(spec) => Ok(format_page(spec)),
        None => Err(unknown("format", name, specs.iter().map(|s| s.name))),
    }
}

fn unknown<'n>(what: &str, name: &str, names: impl Iterator<Item = &'n str>) -> String {
    let close = suggest(name, names)
        .map(|close| format!("; `{close}` is close"))
        .unwrap_or_default();
    format!("there is no {what} `{name}`{close}; `standpipe {what}s` lists them")
}

fn listing<'n>(rows: impl Iterator<Item = (&'n str, &'n str)>) -> String {
    let rows: Vec<(&str, &str)> = rows.collect();
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().fold(String::new(), |mut out, (name, about)| {
        let _ = writeln!(out, "{name:width$}  {about}");
        out
    })
}

fn stage(spec: &StageSpec) -> String {
    let mut out = format!("{}: {}\n\n", spec.name, spec.about);
    let mut usage = spec.name.to_string();
    if !spec.modes.is_empty() {
        let _ = write!(usage, " [{}]", spec.modes.join(" | "));
    }
    for (word, items) in [("", &spec.items), (" by", &spec.by), (" on", &spec.on)] {
        if items.max > 0 {
            let _ = write!(usage, "{word} {}", shape(items));
        }
    }
    if spec.as_name.is_some() {
        usage.push_str(" as NAME");
    }
    match spec.block {
        BlockKind::None => {}
        BlockKind::Route => usage.push_str(" { when CONDITION => STREAM, else => STREAM | _ }"),
        BlockKind::Tee => usage.push_str(" { STAGES }"),
    }
    let _ = writeln!(out, "  {usage}\n");
    for (word, items) in [("items", &spec.items), ("by", &spec.by), ("on", &spec.on)] {
        if items.max > 0 && !items.about.is_empty() {
            let _ = writeln!(out, "  {word:10}{}", items.about);
        }
    }
    if let Some(about) = spec.as_name {
        let _ = writeln!(out, "  {:10}{about}", "as");
    }
    options(spec.options, &mut out);
    let order = match spec.order {
        Order::Keeps => "kept",
        Order::Creates => "made by the stage",
    };
    let _ = writeln!(out, "\n  order of rows: {order}; memory: {}", spec.memory);
    for example in spec.examples {
        let _ = write!(out, "\nexample:\n{}", indented(example.script));
        if !example.output.is_empty() {
            let _ = write!(out, "gives:\n{}", indented(example.output));
        }
    }
    out
}

fn shape(items: &Items) -> String {
    let one = match items.names {
        Names::Never => "ITEM",
        Names::Optional => "[NAME =] ITEM",
        Names::Always => "NAME = ITEM",
    };
    match (items.min, items.max) {
        (0, 1) => format!("[{one}]"),
        (_, 1) => one.to_string(),
        (0, _) => format!("[{one}, …]"),
        _ => format!("{one}, …"),
    }
}

fn options(options: &[Param], out: &mut String) {
    for option in options {
        let name = if option.name == Param::ANY_COLUMN {
            "COLUMN:".to_string()
        } else {
            format!("{}:", option.name)
        };
        let default = option.default.map(|d| format!(" (default {d})")).unwrap_or_default();
        let _ = writeln!(out, "  {name:14}{}{default}", option.about);
    }
}

fn format_page(spec: &FormatSpec) -> String {
    let mut out = format!("{}: {}\n", spec.name, spec.about);
    let mut side = |word: &str, side: &Option<FormatSide>| {
        if let Some(side) = side {
            let _ = writeln!(out, "\n  {word} {} PATH", spec.name);
            options(side.options, &mut out);
        }
    };
    side("read", &spec.read);
    side("write", &spec.write);
    let _ = writeln!(
        out,
        "\n  usual endings: {}; `.gz` and `.zst` behind them are packed",
        spec.extensions.join(", ")
    );
    out
}

fn function(spec: &FunctionSpec, out: &mut String) {
    let fails = if spec.fallible {
        "; may fail: `catch` or `on error` takes that"
    } else {
        ""
    };
    let _ = writeln!(out, "{spec}\n  {}{fails}", spec.about.trim_end_matches('.'));
    for example in spec.examples {
        match example.fails {
            Some(code) => _ = writeln!(out, "  {}  fails with {code}", example.call),
            None => _ = writeln!(out, "  {} == {}", example.call, example.gives),
        }
    }
}

/// An aggregate: a function of all rows of a group.
fn aggregate(spec: &AggregateSpec, out: &mut String) {
    let _ = writeln!(out, "{spec}");
    let _ = writeln!(out, "  {}", spec.about.trim_end_matches('.'));
    let _ = writeln!(
        out,
        "  of the rows of a group, in `aggregate` and `window`; takes `where: condition`"
    );
    for example in spec.examples {
        let _ = writeln!(out, "  {} over {} == {}", example.call, example.rows, example.gives);
    }
}

fn indented(text: &str) -> String {
    text.lines().fold(String::new(), |mut out, line| {
        let _ = writeln!(out, "  {line}");
        out
    })
}
