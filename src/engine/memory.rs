//! What a run may take of memory, added up before it starts.

use super::{Pipeline, Problems};
use crate::compile::Compiled;
use crate::diag::Diagnostic;
use crate::graph::{Graph, Node, NodeId};
use crate::runtime::settings::Settings;
use crate::stages::spill::lane_floor;
use standpipe_sdk::spec::Memory;
use std::fmt::Write as _;

/// The memory of a run before it starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemoryPlan {
    /// The sum, for people.
    pub text: String,
    /// Whether the lanes and one longest record fit; if not, the run would refuse to start.
    pub fits: bool,
}

impl Pipeline {
    /// Adds up what lanes take and names the stages that share the rest.
    ///
    /// # Errors
    /// Problems of the script with these parameters.
    pub fn explain_memory(&self) -> Result<MemoryPlan, Problems> {
        let (compiled, _) = self.compiled(true, None)?;
        let settings = self.settings(&compiled);
        let Some(graph) = &compiled.graph else {
            return Ok(MemoryPlan {
                text: String::new(),
                fits: true,
            });
        };
        Ok(MemoryPlan {
            text: plan(graph, &settings),
            fits: fits(graph, &settings),
        })
    }

    /// Why a script cannot run in the memory that there is, if so.
    pub(super) fn too_little_memory(&self, compiled: &Compiled) -> Option<Diagnostic> {
        let graph = compiled.graph.as_ref()?;
        let settings = self.settings(compiled);
        if fits(graph, &settings) {
            return None;
        }
        let growing = graph.nodes.iter().find(|node| least(node.memory, &settings) > 0);
        let span = growing
            .or(graph.nodes.first())
            .map(|node| node.span)
            .unwrap_or_default();
        let message = format!(
            "{} and the stages need at least {} of memory, the limit is {}",
            count(settings.workers.max(1), "worker"),
            mebibytes(least_of_all(graph, &settings)),
            mebibytes(settings.memory_bytes)
        );
        Some(
            Diagnostic::error("E0702", span, message)
                .labelled("does not fit")
                .help("a larger `--memory` or `@budget(memory: …)`, fewer `--workers`, a smaller `--max-record`"),
        )
    }
}

/// What a stage cannot do without, in bytes.
fn least(memory: Memory, settings: &Settings) -> usize {
    match memory {
        Memory::Spill => settings.workers.max(1) * lane_floor(settings.stages_bytes()),
        Memory::Batch | Memory::Constant | Memory::Groups | Memory::Frame | Memory::Held => 0,
    }
}

fn least_of_stages(graph: &Graph, settings: &Settings) -> usize {
    graph.nodes.iter().map(|node| least(node.memory, settings)).sum()
}

fn least_of_all(graph: &Graph, settings: &Settings) -> usize {
    let stages = least_of_stages(graph, settings);
    let beside_lanes = settings.memory_bytes.saturating_sub(settings.stages_bytes());
    settings.floor().max(if stages > 0 { beside_lanes } else { 0 } + stages)
}

fn fits(graph: &Graph, settings: &Settings) -> bool {
    settings.floor() <= settings.memory_bytes && least_of_stages(graph, settings) <= settings.stages_bytes()
}

fn plan(graph: &Graph, settings: &Settings) -> String {
    let mut out = String::new();
    let workers = settings.workers.max(1);
    let share = settings.share();
    let lanes = settings.memory_bytes - settings.stages_bytes();
    let mut line = |name: &str, bytes: usize, about: &str| {
        let _ = writeln!(out, "{name:<8}{:>12}  {about}", mebibytes(bytes));
    };
    line(
        "limit",
        settings.memory_bytes,
        "`--memory`, else `@budget(memory:)`, else a quarter of the machine's, at most 256 MiB",
    );
    let about = format!(
        "what {} with two arenas and one longest record cannot do without",
        count(workers, "worker")
    );
    line("least", settings.floor(), &about);
    line(
        "lanes",
        lanes,
        &format!(
            "at most: {} of two arenas of {}",
            count(workers, "lane"),
            mebibytes(share)
        ),
    );
    line(
        "rest",
        settings.memory_bytes - lanes,
        "shared by the stages below; what one of them reserves, no other gets",
    );
    out.push('\n');
    let growing: Vec<(NodeId, &Node, &str)> = graph
        .nodes
        .iter()
        .enumerate()
        .filter_map(|(id, node)| Some((id, node, grows(node.memory)?)))
        .collect();
    if growing.is_empty() {
        out.push_str("No stage keeps rows: the run takes the same memory whatever the size of its input.\n");
    } else {
        let _ = writeln!(
            out,
            "{:>4}  {:<12}{:<10}{:>12}{:>12}",
            "", "stage", "class", "least", "most"
        );
    }
    let most = settings.stages_bytes();
    for (id, node, how) in &growing {
        let least = mebibytes(least(node.memory, settings));
        let class = node.memory.to_string();
        let _ = writeln!(
            out,
            "{id:>4}  {:<12}{class:<10}{least:>12}{:>12}  {how}",
            node.name,
            mebibytes(most)
        );
    }
    if !growing.is_empty() {
        let sum = mebibytes(least_of_stages(graph, settings));
        let _ = writeln!(
            out,
            "{:>4}  {:<12}{:<10}{sum:>12}{:>12}",
            "",
            "together",
            "",
            mebibytes(most)
        );
    }
    if !fits(graph, settings) {
        out.push_str("\nThis does not fit: a larger limit, fewer `--workers` or a smaller `--max-record` is needed.\n");
    }
    out
}

/// How a stage's memory grows, for those whose memory does.
fn grows(memory: Memory) -> Option<&'static str> {
    match memory {
        Memory::Batch | Memory::Constant => None,
        Memory::Groups => Some("with the number of groups"),
        Memory::Frame => Some("with the number of rows that the script gives"),
        Memory::Spill => Some("with its input; what does not fit goes to disk"),
        Memory::Held => Some("with its input; what does not fit ends the run with an error"),
    }
}

fn mebibytes(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn count(n: usize, what: &str) -> String {
    if n == 1 {
        format!("1 {what}")
    } else {
        format!("{n} {what}s")
    }
}
