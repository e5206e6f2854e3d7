//! What a run may take of memory, added up before it starts.

use super::{Pipeline, Problems};
use crate::compile::Compiled;
use crate::diag::Diagnostic;
use crate::graph::Graph;
use crate::runtime::floors::{self, fits, floors, least_limit};
use crate::runtime::settings::Settings;
use standpipe_sdk::spec::Memory;
use std::fmt::Write as _;

/// The memory of a run before it starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemoryPlan {
    /// The sum, for people.
    pub text: String,
    /// Whether the run fits into its limit; if not, it would refuse to start.
    pub fits: bool,
    /// The least limit with which it fits, in bytes.
    pub least_bytes: usize,
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
                least_bytes: 0,
            });
        };
        Ok(MemoryPlan {
            text: plan(graph, &settings),
            fits: fits(graph, &settings),
            least_bytes: least_limit(graph, &settings),
        })
    }

    /// Why a script cannot run in the memory that there is, if so.
    pub(super) fn too_little_memory(&self, compiled: &Compiled) -> Option<Diagnostic> {
        let graph = compiled.graph.as_ref()?;
        let settings = self.settings(compiled);
        if fits(graph, &settings) {
            return None;
        }
        let floors = floors(graph, &settings);
        let largest = floors.iter().max_by_key(|region| region.bytes());
        let growing = largest.and_then(|region| region.stages.iter().max_by_key(|stage| stage.bytes));
        let span = (growing.and_then(|stage| graph.nodes.get(stage.node)))
            .or(graph.nodes.first())
            .map(|node| node.span)
            .unwrap_or_default();
        let message = format!(
            "{} and the stages need at least {} of memory, the limit is {}",
            count(settings.workers.max(1), "worker"),
            mebibytes(least_limit(graph, &settings)),
            mebibytes(settings.memory_bytes)
        );
        Some(Diagnostic::error("E0702", span, message).labelled("does not fit").help(
            "a larger `--memory` or `@budget(memory: …)`, fewer `--workers`, a smaller `--max-record` or `--chunk`",
        ))
    }
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
        "`--memory`, else `@budget(memory:)`, else a quarter of what the machine, or its cgroup, lets it have, from 16 MiB to 256 MiB",
    );
    let about = format!("the least limit with which {} can run this", count(workers, "worker"));
    line("least", least_limit(graph, settings), &about);
    let about = format!(
        "of that, whatever the stages: {} of two small arenas and two chunks of {}, and a record of {}",
        count(workers, "lane"),
        mebibytes(settings.chunk_bytes),
        mebibytes(settings.max_record)
    );
    line("floor", settings.floor(), &about);
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
    if graph.nodes.iter().all(|node| grows(node.memory).is_none()) {
        out.push_str("No stage keeps rows: the run takes the same memory whatever the size of its input.\n");
    } else {
        stages(&mut out, graph, settings);
    }
    if !fits(graph, settings) {
        out.push_str("\nThis does not fit: a larger limit, fewer `--workers`, a smaller `--max-record` or `--chunk` is needed.\n");
    }
    out
}

/// What the stages take, region by region.
fn stages(out: &mut String, graph: &Graph, settings: &Settings) {
    let floors = floors(graph, settings);
    // With a limit below the least there is no most.
    let most = match fits(graph, settings) {
        true => mebibytes(settings.stages_bytes()),
        false => "-".to_owned(),
    };
    let _ = writeln!(
        out,
        "{:>4}  {:<16}{:<10}{:>12}{:>12}",
        "", "stage", "class", "least", "most"
    );
    for (number, region) in floors.iter().enumerate() {
        let _ = writeln!(out, "region {}", number + 1);
        for floor in &region.stages {
            let node = &graph.nodes[floor.node];
            let (class, how) = match (grows(node.memory), floor.gives) {
                (Some(how), false) => (node.memory.to_string(), how),
                (Some(_), true) => (node.memory.to_string(), "gives what it took"),
                (None, _) if floor.bytes > 0 => (node.memory.to_string(), ""),
                (None, _) => continue,
            };
            let (id, least) = (floor.node, mebibytes(floor.bytes));
            let line = format!("{id:>4}  {:<16}{class:<10}{least:>12}{most:>12}  {how}", node.name);
            let _ = writeln!(out, "{}", line.trim_end());
        }
        for floor in region.waits.iter().filter(|floor| floor.bytes > 0) {
            let node = &graph.nodes[floor.node];
            let (id, least, class) = (floor.node, mebibytes(floor.bytes), node.memory.to_string());
            let _ = writeln!(
                out,
                "{id:>4}  {:<16}{class:<10}{least:>12}{most:>12}  keeps what it took",
                node.name
            );
        }
        if region.ahead > 0 {
            let _ = writeln!(
                out,
                "{:>4}  {:<26}{:>12}{:>12}  stays free for later regions",
                "",
                "(later)",
                mebibytes(region.ahead),
                ""
            );
        }
    }
    // Regions run one after the other.
    let least = mebibytes(floors::most(&floors));
    let _ = writeln!(
        out,
        "{:>4}  {:<26}{least:>12}{most:>12}  the region that needs the most",
        "", "together"
    );
}

/// How a stage's memory grows, for those whose memory does.
fn grows(memory: Memory) -> Option<&'static str> {
    match memory {
        Memory::Batch | Memory::Constant => None,
        Memory::Groups => Some("with the number of groups; what does not fit ends the run with an error"),
        Memory::Frame => Some(
            "with the number of rows that the script gives, in each group; what does not fit ends the run with an error",
        ),
        Memory::Windows => {
            Some("with the number of windows that are open; what does not fit ends the run with an error")
        }
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
