//! What a run may take of memory, added up before it starts.

use super::{Pipeline, Problems};
use crate::graph::{Graph, NodeId};
use crate::runtime::settings::Settings;
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
        let text = compiled
            .graph
            .as_ref()
            .map(|graph| plan(graph, &settings))
            .unwrap_or_default();
        Ok(MemoryPlan {
            text,
            fits: settings.floor() <= settings.memory_bytes,
        })
    }
}

fn plan(graph: &Graph, settings: &Settings) -> String {
    let mut out = String::new();
    let workers = settings.workers.max(1);
    let share = settings.share();
    let lanes = (workers * 2 * share).min(settings.memory_bytes);
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
    let growing: Vec<(NodeId, &str, &str)> = graph
        .nodes
        .iter()
        .enumerate()
        .filter_map(|(id, node)| Some((id, node.name.as_str(), grows(node.memory)?)))
        .collect();
    if growing.is_empty() {
        out.push_str("No stage keeps rows: the run takes the same memory whatever the size of its input.\n");
    }
    for (id, name, how) in growing {
        let _ = writeln!(out, "{id:>4}  {name:<12}{how}");
    }
    if settings.floor() > settings.memory_bytes {
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
