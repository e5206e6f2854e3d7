//! Scripts that give a stage or function arguments: its examples, then made ones, the likeliest first. Those that are no good do not
//! compile, and are passed over.

use standpipe::expr::{ParamSpec, Pattern};
use standpipe::plugin::Library;
use standpipe::sdk::spec::{ArgKind, Items, Want};

pub(super) struct Script {
    pub(super) text: String,
    /// Not an example: one of these is enough.
    pub(super) is_made: bool,
}

/// The most scripts that are made.
const MOST: usize = 400;
/// The columns of made rows, of which each has nulls.
const ROWS: &str = "from rows [{s: \"to be or not\", i: 3, f: 2.5, b: true, l: [1, 2], r: {x: 1}}, \
    {s: null, i: null, f: null, b: null, l: null, r: null}]";
const COLUMNS: &[&str] = &["s", "i", "f", "b", "l", "r"];

/// `stage` is its bare name.
pub(super) fn scripts(plugin: &str, library: &Library, stage: &str, examples: &[String]) -> Vec<Script> {
    let (head, spec) = match (library.stage(stage), library.source(stage), library.sink(stage)) {
        (Some(spec), ..) => (format!("{ROWS} | "), Some(spec)),
        (_, Some(spec), _) => ("read ".into(), Some(spec)),
        (_, _, Some(spec)) => (format!("{ROWS} | write "), Some(spec)),
        _ => (String::new(), None),
    };
    let (given, made) = match (library.function(stage), spec) {
        (Some(spec), _) => {
            let examples = examples
                .iter()
                .map(|example| format!("use plugin {plugin}\nfrom range(1, 1) | select ok = ({example})"));
            let required: Vec<Pattern> = spec
                .params
                .iter()
                .filter(|p| p.default.is_none())
                .map(|p| p.ty)
                .collect();
            let all: Vec<Pattern> = spec.params.iter().map(|p| p.ty).collect();
            let mut made = calls(plugin, stage, &required);
            if all.len() > required.len() {
                made.extend(calls(plugin, stage, &all));
            }
            (examples.collect::<Vec<_>>(), made)
        }
        (None, Some(spec)) => {
            let options: Vec<Vec<String>> = (spec.options.iter())
                .filter(|option| option.required)
                .map(|option| {
                    choices(option.arg)
                        .iter()
                        .map(|choice| format!("{}: {choice}", option.name))
                        .collect()
                })
                .collect();
            let lists = [("", &spec.items), ("by", &spec.by), ("on", &spec.on)];
            let lists = lists.map(|(word, items)| (word, needed(items)));
            (examples.to_vec(), stages(plugin, stage, &head, &lists, &options))
        }
        (None, None) => match library.aggregate(stage) {
            Some(spec) => {
                let (columns, constants) = spec.params.split_at(spec.columns.min(spec.params.len()));
                let of = |params: &[ParamSpec]| params.iter().map(|p| p.ty).collect::<Vec<_>>();
                let required = |p: &&ParamSpec| p.default.is_none();
                let constants: Vec<Pattern> = constants.iter().filter(required).map(|p| p.ty).collect();
                (examples.to_vec(), aggregates(plugin, stage, &of(columns), &constants))
            }
            None => (vec![], vec![]),
        },
    };
    // Made arguments come first: more can be varied in them than where an example says constants.
    let made = made.into_iter().take(MOST).map(|text| Script { text, is_made: true });
    let given = given.into_iter().map(|text| Script { text, is_made: false });
    given.chain(made).collect()
}

/// For each item that must be there, what it may be.
fn needed(items: &Items) -> Vec<Vec<String>> {
    match items.arg {
        ArgKind::Each(kinds) => kinds.iter().take(items.min).map(|&kind| choices(kind)).collect(),
        kind => (0..items.min).map(|_| choices(kind)).collect(),
    }
}

fn choices(kind: ArgKind) -> Vec<String> {
    let texts: &[&str] = match kind {
        ArgKind::Column | ArgKind::Key | ArgKind::Expr(_) | ArgKind::PerColumn => COLUMNS,
        ArgKind::Word => &["x"],
        ArgKind::Words => &["[x]", "[s]"],
        ArgKind::Type => &["int", "string"],
        ArgKind::Const(want) => match want {
            Want::Bool => &["true"],
            Want::Int => &["3"],
            Want::Number => &["2.5"],
            Want::String => &["\"x\""],
            Want::List => &["[1, 2]"],
            Want::Record => &["{x: 1}"],
            Want::Duration => &["1h"],
            Want::Any | Want::Ordered => &["3", "\"x\"", "2.5"],
        },
        _ => &[],
    };
    texts.iter().map(|&text| text.to_owned()).collect()
}

/// Every choice of one from each; those with as equal positions as can be come first.
fn products(lists: &[Vec<String>]) -> Vec<Vec<String>> {
    let longest = lists.iter().map(Vec::len).max().unwrap_or(1);
    if lists.iter().any(Vec::is_empty) {
        return vec![];
    }
    let mut out: Vec<Vec<String>> = (0..longest)
        .map(|at| lists.iter().map(|list| list[at.min(list.len() - 1)].clone()).collect())
        .collect();
    let total = lists.iter().map(Vec::len).product::<usize>().min(MOST);
    for mut number in 0..total {
        let pick = |list: &Vec<String>| {
            let at = number % list.len();
            number /= list.len();
            list[at].clone()
        };
        out.push(lists.iter().map(pick).collect());
    }
    out
}

/// `head` is what stands before the name.
fn stages(
    plugin: &str,
    stage: &str,
    head: &str,
    lists: &[(&str, Vec<Vec<String>>); 3],
    options: &[Vec<String>],
) -> Vec<String> {
    let all: Vec<Vec<String>> = lists
        .iter()
        .flat_map(|(_, items)| items)
        .chain(options)
        .cloned()
        .collect();
    let written = |picked: Vec<String>| {
        let mut picked = picked.into_iter();
        let mut text = format!("use plugin {plugin}\n{head}{plugin}.{stage}");
        for (word, items) in lists.iter().filter(|(_, items)| !items.is_empty()) {
            let items: Vec<String> = picked.by_ref().take(items.len()).collect();
            let word = if word.is_empty() {
                String::new()
            } else {
                format!(" {word}")
            };
            text += &format!("{word} {}", items.join(", "));
        }
        let options: Vec<String> = picked.collect();
        if !options.is_empty() {
            let comma = if lists.iter().any(|(_, items)| !items.is_empty()) {
                ","
            } else {
                ""
            };
            text += &format!("{comma} {}", options.join(", "));
        }
        text
    };
    products(&all).into_iter().map(written).collect()
}

/// A column of a type, and a constant.
fn choice(pattern: &Pattern) -> (&'static str, &'static str) {
    match pattern {
        Pattern::Bool => ("b", "true"),
        Pattern::Float | Pattern::Number => ("f", "2.5"),
        Pattern::String => ("s", "\"to be or not\""),
        Pattern::List => ("l", "[1, 2]"),
        Pattern::Record => ("r", "{x: 1}"),
        _ => ("i", "3"),
    }
}

/// A call of an aggregate with columns of its types, and the constants that it needs.
fn aggregates(plugin: &str, name: &str, columns: &[Pattern], constants: &[Pattern]) -> Vec<String> {
    let columns = columns.iter().map(|pattern| choice(pattern).0);
    let arguments: Vec<&str> = columns
        .chain(constants.iter().map(|pattern| choice(pattern).1))
        .collect();
    let arguments = arguments.join(", ");
    vec![format!(
        "use plugin {plugin}\n{ROWS} | aggregate y = {plugin}.{name}({arguments})"
    )]
}

/// Calls of a function with columns of its types, then with more and more constants.
fn calls(plugin: &str, name: &str, params: &[Pattern]) -> Vec<String> {
    let masks = 1u32 << params.len().min(6);
    let call = |mask: u32| {
        let argument = |(at, pattern): (usize, &Pattern)| {
            let (column, constant) = choice(pattern);
            if mask >> at.min(31) & 1 == 1 { constant } else { column }
        };
        let arguments: Vec<&str> = params.iter().enumerate().map(argument).collect();
        format!(
            "use plugin {plugin}\n{ROWS} | select y = {plugin}.{name}({})",
            arguments.join(", ")
        )
    };
    (0..masks).map(call).collect()
}
