//! Whole scripts through the checker.

use super::{Given, GraphFormat, Options, compile, explain};
use crate::diag::{Diagnostic, codes};
use crate::graph::{Graph, Op};
use standpipe_sdk::spec::Wanted;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A folder with the files that scripts here read.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write(
        "orders.csv",
        "id,status,price,qty,note\n1,paid,2.5,3,x\n2,open,1.5,1,y\n",
    );
    write("trees.jsonl", "{\"value\": 1}\n");
    folder
}

struct Outcome {
    graph: Option<Graph>,
    diagnostics: Vec<Diagnostic>,
}

fn check_with(text: &str, folder: &Path, params: &[(String, Given)]) -> Outcome {
    check_as(text, folder, params, false)
}

fn check_as(text: &str, folder: &Path, params: &[(String, Given)], assume_params: bool) -> Outcome {
    let parsed = crate::syntax::parse(text);
    let unreadable: Vec<_> = parsed.diagnostics.iter().map(|d| d.primary.span).collect();
    let options = Options {
        testing: None,
        folder,
        params,
        assume_params,
        look: true,
        unreadable: &unreadable,
        pedantic: false,
        rewrites: true,
        any_size: false,
        print: None,
        inputs: &[],
        outputs: &[],
        plugins: &crate::plugin::Plugins::default(),
        stages: crate::stages::list::list(),
        formats: crate::formats::list(),
    };
    let compiled = compile(&parsed.script, text, &options);
    let mut diagnostics = parsed.diagnostics;
    diagnostics.extend(compiled.diagnostics);
    Outcome {
        graph: compiled.graph,
        diagnostics,
    }
}

fn check(text: &str) -> Outcome {
    let folder = folder();
    check_with(text, folder.path(), &[])
}

/// `E0204 amout`: each diagnostic as its code and the text it points at.
fn said(text: &str) -> Vec<String> {
    let outcome = check(text);
    outcome
        .diagnostics
        .iter()
        .map(|d| format!("{} {}", d.code, d.primary.span.of(text)))
        .collect()
}

fn graph(text: &str) -> Graph {
    let outcome = check(text);
    let said: Vec<String> = outcome
        .diagnostics
        .iter()
        .map(|d| format!("{} {}", d.code, d.message))
        .collect();
    outcome.graph.unwrap_or_else(|| panic!("{text}\n{said:#?}"))
}

fn names(graph: &Graph) -> Vec<&str> {
    graph.nodes.iter().map(|node| node.name.as_str()).collect()
}

fn schema_of_last(text: &str) -> String {
    let graph = graph(text);
    graph
        .nodes
        .last()
        .map(|node| node.schema.to_string())
        .unwrap_or_default()
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts/errors")
}

fn error_scripts() -> Vec<(String, String)> {
    let mut scripts: Vec<(String, String)> = std::fs::read_dir(corpus())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "pipe"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect();
    scripts.sort();
    scripts
}

#[test]
fn every_code_of_this_room_has_a_row_and_a_failing_script() {
    // What cannot happen through a script, is only a warning of `--pedantic`, or needs a test that runs (`tests/testing.rs`).
    const ELSEWHERE: &[&str] = &[
        "E0214", "E0309", "E0999", "E1001", "E1002", "E1003", "E1004", "W0001", "W0008",
    ];
    let mut used = BTreeSet::new();
    let mut todo = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/compile")];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if !path.ends_with("tests.rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let parts = text
                .split('"')
                .filter(|part| part.len() == 5 && part[1..].bytes().all(|b| b.is_ascii_digit()));
            used.extend(parts.map(str::to_owned));
        }
    }
    let scripts: Vec<String> = error_scripts().into_iter().map(|(name, _)| name).collect();
    for code in &used {
        assert!(codes::info(code).is_some(), "{code} has no row in the registry");
        let has = scripts.iter().any(|name| name.starts_with(&code.to_lowercase()));
        assert!(
            has || ELSEWHERE.contains(&code.as_str()),
            "{code} has no failing script"
        );
    }
}

#[test]
fn all_mistakes_come_at_once_and_none_that_only_follow() {
    let text = &error_scripts()
        .into_iter()
        .find(|(name, _)| name == "many_at_once")
        .unwrap()
        .1;
    assert_eq!(
        said(text),
        [
            "E0209 unused",
            "E0204 statsu",
            "E0204 quantity",
            "E0301 \"5\"",
            "E0203 order"
        ],
    );
}

#[test]
fn a_script_becomes_a_graph() {
    let graph = graph(
        "read csv \"orders.csv\"\n  | filter status == \"paid\"\n  | derive total = price * float(qty)\n  | select id, total\n  | write csv \"out.csv\"",
    );
    assert_eq!(
        names(&graph),
        ["read csv", "filter", "filter", "derive", "select", "write csv"],
        "{}",
        explain(&graph, GraphFormat::Text)
    );
    let Op::Source { request, .. } = &graph.nodes[0].op else {
        panic!("a source comes first");
    };
    use Wanted::{No, Text, Yes};
    assert_eq!(request.columns, [Text, Yes, Yes, Yes, No]);
}

#[test]
fn schemas_come_out_as_written() {
    for (script, schema) in [
        ("from range(1, 3) | select v = value * 2, *", "v: int, value: int"),
        ("from range(1, 3) | select value = value * 2, *", "value: int"),
        ("from rows [{a: 1, b: 2, c: 3}] | select b, *", "b: int, a: int, c: int"),
        (
            "from rows [{c: {x: 1, y: \"t\"}, k: 1}] | select k, c.*",
            "k: int, x: int, y: string",
        ),
        ("from rows [{c: {x: 1, y: \"t\"}, k: 1}] | select c.y", "y: string"),
        (
            "from rows [{a: 1}] | derive b = a + 1, c = b * 2 | rename z = a | drop b",
            "z: int, c: int",
        ),
        ("from rows [{a: \"1\"}] | cast a: int", "a: int"),
        ("from rows [{a: \"1\"}] | cast a: int on error null", "a: int?"),
        (
            "from rows [{a: 1, b: null}, {a: 2.5, b: \"x\"}]",
            "a: float, b: string?",
        ),
        (
            "from table {\n  id | zip\n  1 | 12a4\n  2 | 1234\n}",
            "id: int, zip: string",
        ),
        (
            "stream b = from rows [{n: 2.5, k: 9}]\nfrom rows [{k: 8, n: 1}] | union b",
            "k: int, n: float",
        ),
        (
            "fn half(x: float) = x / 2.0\nfrom rows [{a: 1.5}, {a: null}] | derive h = half(a)",
            "a: float?, h: float?",
        ),
        (
            "fn or0(x: float) = x ?? 0.0\nfrom rows [{a: 1.5}, {a: null}] | derive h = or0(a)",
            "a: float?, h: float?",
        ),
        (
            "fn or0(x: float?) = x ?? 0.0\nfrom rows [{a: 1.5}, {a: null}] | derive h = or0(a)",
            "a: float?, h: float",
        ),
        (
            "fn add(a: int, b: int = 2) = a + b\nfrom range(1, 2) | select s = add(b: 1, a: value), t = value.add()",
            "s: int, t: int",
        ),
    ] {
        assert_eq!(schema_of_last(script), schema, "{script}");
    }
}

#[test]
fn mistakes_are_found_where_they_are() {
    for (script, wanted) in [
        ("from range(1, 3) | filter valu > 1 | select value", &["E0204 valu"][..]),
        (
            "from range(1, 3) | derive x = foo(value) | filter x > 1 and bar(x)",
            &["E0205 foo", "E0205 bar"],
        ),
        ("from range(1, 3) | rename x = valeu | filter x > 1", &["E0204 valeu"]),
        (
            "from nowhere | filter a > 1 | derive b = nope(a)",
            &["E0203 nowhere", "E0205 nope"],
        ),
        ("from range(1, 3) | distinct take 5", &["E0116 take"]),
        ("from range(1, 3) | head 5", &["E0206 head"]),
        (
            "read csv \"none.csv\" | filter x > 1 | write none",
            &["E0601 \"none.csv\""],
        ),
        ("from range(1, 3) | select `value`, `x`", &["E0204 `x`"]),
        (
            "param value: int = 3\nfrom range(1, 3) | filter `value` > param.value",
            &[],
        ),
        (
            "let _v = 0.19\nparam _p: int = 3\nstream _s = from range(1, 2)\nfrom range(1, 3)",
            &[],
        ),
        (
            "from range(1, 3) | derive a = 1 | derive a = 2, b = nope",
            &["E0204 nope"],
        ),
        ("test \"t\" { expect x count == 0 }\nfrom range(1, 3)", &[]),
    ] {
        assert_eq!(said(script), wanted, "{script}");
    }
}

#[test]
fn parameters_come_from_outside() {
    let text = "param since: date\nparam tier: \"gold\" | \"free\" = \"free\"\nfrom rows [{d: @2026-01-01, t: \"gold\"}] | filter d >= since and t == tier | write none";
    let folder = folder();
    let given = |params: &[(&str, &str)]| {
        let params: Vec<(String, Given)> = params
            .iter()
            .map(|(name, text)| ((*name).to_owned(), Given::Text((*text).to_owned())))
            .collect();
        let outcome = check_with(text, folder.path(), &params);
        outcome.diagnostics.iter().map(|d| d.code.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(given(&[("since", "2026-01-01"), ("tier", "gold")]), [""; 0]);
    assert_eq!(given(&[]), ["E0215"]);
    assert_eq!(given(&[("since", "soon")]), ["E0501"]);
    assert_eq!(given(&[("since", "2026-01-01"), ("tier", "silver")]), ["E0501"]);
    assert_eq!(given(&[("since", "2026-01-01"), ("sincee", "x")]), ["E0214"]);
}

#[test]
fn a_script_is_checked_without_its_parameters() {
    let folder = folder();
    let text = "param data: string\nparam most: int\nparam out: string\nlet file = f\"{data}/x.csv\"\nread csv file | filter price > most and nope(price) | write csv out\nfrom range(1, 3) | take most | filter valu > 1 | write csv f\"{out}\"";
    let outcome = check_as(text, folder.path(), &[], true);
    let said: Vec<String> = outcome
        .diagnostics
        .iter()
        .map(|d| format!("{} {}", d.code, d.primary.span.of(text)))
        .collect();
    assert_eq!(said, ["E0205 nope", "E0204 valu"]);
}

#[test]
fn a_graph_explains_itself() {
    let graph = graph(
        "read csv \"orders.csv\"\n  | filter status == \"paid\" # only those\n  | sort -price\n  | select id, note\n  | write csv \"out.csv\"",
    );
    let wanted = "\
region 1
   0  read csv \"orders.csv\"
        columns reads status, price; text id, note; skips qty
        rows    id: int?, status: string?, price: float?, qty: int?, note: string?
        order   kept; memory: batch
   1  filter: computes status == \"paid\"
        rows    id: int?, status: string?, price: float?, qty: int?, note: string?, #0: bool?
        order   kept; memory: batch
   2  filter status == \"paid\"
        rows    id: int?, status: string?, price: float?, qty: int?, note: string?
        order   kept; memory: batch

region 2
   3  sort -price
        rows    id: int?, status: string?, price: float?, qty: int?, note: string?
        order   created; memory: spill (ends a region)
   4  select id, note
        rows    id: int?, note: string?
        order   kept; memory: batch
   5  write csv \"out.csv\"
        takes   id: int?, note: string?
        order   kept; memory: batch
";
    assert_eq!(explain(&graph, GraphFormat::Text), wanted);
    assert!(explain(&graph, GraphFormat::Dot).contains("n2 -> n3"));
    assert!(explain(&graph, GraphFormat::Mermaid).contains("n2 --> n3"));
}

#[test]
fn rejects_are_fed_by_every_stage_that_may_fail() {
    let graph = graph(
        "@on_error(to: bad, limit: 10)\nstream a = read csv \"orders.csv\" | derive n = int(note)\nfrom a | write none\nfrom bad | derive m = int(message) on error skip | write none",
    );
    let rejects = graph.nodes.iter().find(|node| matches!(node.op, Op::Rejects)).unwrap();
    let feeders: Vec<&str> = rejects
        .inputs
        .iter()
        .map(|edge| graph.nodes[edge.from].name.as_str())
        .collect();
    assert_eq!(feeders, ["read csv", "derive"]);
    assert!(
        graph
            .nodes
            .iter()
            .all(|node| node.inputs.iter().all(|edge| graph.nodes.len() > edge.from))
    );
}

#[test]
fn a_graph_is_in_topological_order_whatever_the_order_of_the_text() {
    let graph = graph("from big | write none\nstream big = from all | filter value > 2\nstream all = from range(1, 9)");
    for (id, node) in graph.nodes.iter().enumerate() {
        assert!(node.inputs.iter().all(|edge| edge.from < id));
    }
}

/// Scripts with pieces cut out and put elsewhere: whatever comes of them, there is an answer.
#[test]
fn broken_scripts_are_answered() {
    let folder = folder();
    let scripts: Vec<String> = error_scripts()
        .into_iter()
        .map(|(_, text)| text)
        .filter(|text| text.len() < 2_000)
        .collect();
    let words: Vec<&str> = scripts
        .iter()
        .flat_map(|text| text.split_inclusive([' ', '\n', '(', '{']))
        .collect();
    let mut state = 7_u64;
    let mut next = |most: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % most.max(1)
    };
    for _ in 0..1_500 {
        let text = &scripts[next(scripts.len())];
        let mut parts: Vec<&str> = text.split_inclusive([' ', '\n', '(', '{']).collect();
        for _ in 0..=next(4) {
            let at = next(parts.len());
            match next(3) {
                0 => drop(parts.remove(at)),
                1 => parts.insert(at, words[next(words.len())]),
                _ => parts[at] = words[next(words.len())],
            }
            if parts.is_empty() {
                break;
            }
        }
        let outcome = check_with(&parts.concat(), folder.path(), &[]);
        let errors = outcome.diagnostics.iter().filter(|d| d.is_error()).count();
        assert!(outcome.graph.is_some() || errors > 0, "{}", parts.concat());
        assert!(
            !outcome.diagnostics.iter().any(|d| d.code.as_str() == "E0999"),
            "{}",
            parts.concat()
        );
    }
}

#[test]
fn large_scripts_take_no_long_time() {
    let streams: String = (1..20_000)
        .map(|i| format!("stream s{i} = from s{} | take 9\n", i - i % 900))
        .collect();
    let text = format!("stream s0 = from range(1, 3)\n{streams}");
    assert!(said(&text).iter().all(|said| said.starts_with("E02")));
    let functions: String = (1..20_000).map(|i| format!("fn f{i}(x: int) = x + {i}\n")).collect();
    assert_eq!(
        said(&format!("{functions}from range(1, 3) | derive y = f7(value)")),
        [""; 0]
    );
}

#[test]
fn an_expression_as_deep_as_the_parser_lets_through_is_checked() {
    let text = format!(
        "from range(1, 3) | derive x = {}value{}",
        "(1 + ".repeat(240),
        ")".repeat(240)
    );
    assert_eq!(said(&text), [""; 0]);
    let chain = format!("from range(1, 3) | derive x = value{}", " + 1".repeat(400));
    assert_eq!(said(&chain), [""; 0]);
}
