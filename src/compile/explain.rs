//! The graph as text: what runs, in which regions, over which rows.
//!
//! Laws
//! - The same graph gives the same text: no addresses, no times, no paths but those of the script.

use crate::graph::{Edge, Graph, Limit, Node, NodeId, OnError, Op, Policy, Port, regions};
use standpipe_sdk::Schema;
use standpipe_sdk::spec::{Order, Wanted};
use std::fmt::Write as _;

/// How a graph is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum GraphFormat {
    #[default]
    Text,
    /// For `dot`.
    Dot,
    /// For Markdown.
    Mermaid,
}

/// The graph for a person, or for a program that draws.
pub fn explain(graph: &Graph, format: GraphFormat) -> String {
    match format {
        GraphFormat::Text => text(graph),
        GraphFormat::Dot => dot(graph),
        GraphFormat::Mermaid => mermaid(graph),
    }
}

fn text(graph: &Graph) -> String {
    let mut out = String::new();
    for (number, region) in regions(graph).iter().enumerate() {
        if number > 0 {
            out.push('\n');
        }
        let _ = writeln!(out, "region {}", number + 1);
        for &id in region {
            node_text(graph, id, &mut out);
        }
    }
    out
}

fn node_text(graph: &Graph, id: NodeId, out: &mut String) {
    let node = &graph.nodes[id];
    let _ = write!(out, "{id:>4}  {}", title(node));
    if let Some(stream) = &node.stream {
        let _ = write!(out, "  → stream {stream}");
    }
    out.push('\n');
    let mut line = |label: &str, text: &str| {
        let _ = writeln!(out, "        {label:<8}{text}");
    };
    let follows = matches!(node.inputs.as_slice(), [Edge { from, port: Port::Out(0) }] if from + 1 == id);
    if !node.inputs.is_empty() && !follows {
        let from: Vec<String> = node.inputs.iter().map(edge_text).collect();
        line("from", &from.join(", "));
    }
    if let Op::Source { request, .. } = &node.op {
        line("columns", &columns_text(&node.schema, &request.columns));
    }
    match node.op {
        Op::Sink(_) => line("takes", &node.schema.to_string()),
        _ => line("rows", &node.schema.to_string()),
    }
    line("order", &format!("{}; memory: {}", order_text(node), memory_text(node)));
    if node.policy != Policy::default() {
        line("errors", &policy_text(node.policy));
    }
}

fn title(node: &Node) -> String {
    let detail = &node.detail;
    let name = &node.name;
    match &node.op {
        Op::Compute { exprs, .. } if exprs.is_empty() => format!("{name}: drops {detail}"),
        Op::Compute { .. } => format!("{name}: computes {detail}"),
        Op::Build(_) | Op::Drain => format!("{name}: {detail}"),
        _ if detail.is_empty() => name.clone(),
        _ => format!("{name} {detail}"),
    }
}

fn edge_text(edge: &Edge) -> String {
    match edge.port {
        Port::Out(0) => edge.from.to_string(),
        Port::Out(port) => format!("{}.{port}", edge.from),
        Port::Rejects => format!("{} (rejects)", edge.from),
        Port::Built => format!("{} (once it is full)", edge.from),
    }
}

fn order_text(node: &Node) -> &'static str {
    match node.order {
        Order::Keeps => "kept",
        Order::Creates => "created",
    }
}

fn memory_text(node: &Node) -> String {
    match node.op {
        Op::Breaker(_) | Op::Build(_) => format!("{} (ends a region)", node.memory),
        _ => node.memory.to_string(),
    }
}

fn policy_text(policy: Policy) -> String {
    let word = match policy.on_error {
        OnError::Fail => "fail",
        OnError::Skip => "skip",
        OnError::Null => "null",
        OnError::To => "to a stream",
    };
    match policy.limit {
        None => word.to_owned(),
        Some(Limit::Count(count)) => format!("{word}, limit {count}"),
        Some(Limit::Percent(percent)) => format!("{word}, limit {percent}%"),
    }
}

/// `reads a, b; text c; skips d`
fn columns_text(schema: &Schema, wanted: &[Wanted]) -> String {
    let mut parts = vec![];
    let mut part = |label: &str, keep: &dyn Fn(&Wanted) -> bool| {
        let names: Vec<String> = schema
            .fields()
            .iter()
            .zip(wanted)
            .filter(|(_, wanted)| keep(wanted))
            .map(|(field, wanted)| match (wanted, &field.ty) {
                (Wanted::Fields(fields), standpipe_sdk::Type::Record(schema)) => {
                    format!("{} {{{}}}", field.name, fields_text(schema, fields))
                }
                _ => field.name.to_string(),
            })
            .collect();
        if !names.is_empty() {
            parts.push(format!("{label} {}", names.join(", ")));
        }
    };
    part("reads", &|wanted| matches!(wanted, Wanted::Yes | Wanted::Fields(_)));
    part("text", &|wanted| *wanted == Wanted::Text);
    part("skips", &|wanted| *wanted == Wanted::No);
    parts.join("; ")
}

fn fields_text(schema: &Schema, wanted: &[Wanted]) -> String {
    let names = schema
        .fields()
        .iter()
        .zip(wanted)
        .filter_map(|(field, wanted)| match (wanted, &field.ty) {
            (Wanted::No, _) => None,
            (Wanted::Fields(fields), standpipe_sdk::Type::Record(schema)) => {
                Some(format!("{} {{{}}}", field.name, fields_text(schema, fields)))
            }
            _ => Some(field.name.to_string()),
        });
    names.collect::<Vec<_>>().join(", ")
}

/// The nodes of each region, in the order the regions run. A breaker is shown where its rows come out.
fn regions(graph: &Graph) -> Vec<Vec<NodeId>> {
    let Ok(regions) = regions::regions(graph) else {
        return vec![(0..graph.nodes.len()).collect()];
    };
    let shown = |region: &regions::Region| {
        let drained = |id: &NodeId| !matches!(graph.nodes[*id].op, Op::Breaker(_)) || region.sources.contains(id);
        region.nodes.iter().copied().filter(drained).collect()
    };
    regions.iter().map(shown).collect()
}

fn dot(graph: &Graph) -> String {
    let mut out = String::from("digraph {\n  rankdir=LR\n  node [shape=box fontname=monospace]\n");
    for (number, region) in regions(graph).iter().enumerate() {
        let _ = writeln!(
            out,
            "  subgraph cluster_{number} {{\n    label=\"region {}\"",
            number + 1
        );
        for &id in region {
            let label = title(&graph.nodes[id]).replace('\\', "\\\\").replace('"', "\\\"");
            let _ = writeln!(out, "    n{id} [label=\"{label}\"]");
        }
        out.push_str("  }\n");
    }
    for (id, node) in graph.nodes.iter().enumerate() {
        for edge in &node.inputs {
            let label = match edge.port {
                Port::Out(0) => String::new(),
                Port::Out(port) => format!(" [label=\"{port}\"]"),
                Port::Rejects => " [label=\"rejects\" style=dashed]".to_owned(),
                Port::Built => " [label=\"built\" style=bold]".to_owned(),
            };
            let _ = writeln!(out, "  n{} -> n{id}{label}", edge.from);
        }
    }
    out.push_str("}\n");
    out
}

fn mermaid(graph: &Graph) -> String {
    let mut out = String::from("flowchart LR\n");
    for (number, region) in regions(graph).iter().enumerate() {
        let _ = writeln!(out, "  subgraph region_{0}[region {0}]", number + 1);
        for &id in region {
            let label = title(&graph.nodes[id]).replace('"', "#quot;");
            let _ = writeln!(out, "    n{id}[\"{label}\"]");
        }
        out.push_str("  end\n");
    }
    for (id, node) in graph.nodes.iter().enumerate() {
        for edge in &node.inputs {
            let arrow = match edge.port {
                Port::Out(0) => "-->".to_owned(),
                Port::Out(port) => format!("-- {port} -->"),
                Port::Rejects => "-. rejects .->".to_owned(),
                Port::Built => "== built ==>".to_owned(),
            };
            let _ = writeln!(out, "  n{} {arrow} n{id}", edge.from);
        }
    }
    out
}

/// Script text on one line: blanks outside of quotes become one, comments go.
pub(super) fn on_one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut quote: Option<char> = None;
    let mut chars = text.trim().chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some('"'), '\\') => {
                out.push(c);
                out.extend(chars.next());
            }
            (Some(open), _) => {
                out.push(c);
                if c == open {
                    quote = None;
                }
            }
            (None, '"' | '`') => {
                quote = Some(c);
                out.push(c);
            }
            (None, '#') => while chars.next_if(|c| *c != '\n').is_some() {},
            (None, c) if c.is_whitespace() => {
                if !out.ends_with(' ') {
                    out.push(' ');
                }
            }
            (None, c) => out.push(c),
        }
    }
    out.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::on_one_line;

    #[test]
    fn blanks_and_comments_go_and_quotes_stay() {
        assert_eq!(
            on_one_line(" a,\n    b  # why\n  == \"x  # \\\" y\"\n"),
            "a, b == \"x  # \\\" y\""
        );
    }
}
