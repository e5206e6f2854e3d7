//! Runs graphs: regions one after another, workers in lanes, chunks through turnstiles.
//!
//! Laws
//! - At most `workers` chunks exist; each lives in its lane's arena and never changes thread.
//! - Outputs get their names only when every region and every sink has succeeded.

mod feeds;
pub mod floors;
mod lane;
mod limit;
pub mod progress;
pub mod rejects;
pub mod report;
mod run;
pub mod settings;
#[cfg(test)]
mod tests;
mod turnstile;

use crate::graph::{Graph, Op, regions};
use progress::Progress;
use report::{Output, Report, StageReport};
use run::World;
use settings::Settings;
use standpipe_sdk::spec::Setup;
use standpipe_sdk::{Budget, Code, Disk, Error, Result, Sink, Spill};
use std::sync::Arc;
use std::time::Instant;

/// Runs `graph`, whose spans point into `script`.
///
/// # Errors
/// The first error in input order; nothing is published then.
pub fn run(graph: &Graph, script: &str, settings: &Settings, progress: &Arc<Progress>) -> Result<Report> {
    let start = Instant::now();
    if !floors::fits(graph, settings) {
        return Err(Error::failed(
            Code(702),
            format!(
                "{} workers and the stages need at least {} of memory, the limit is {}",
                settings.workers,
                mebibytes(floors::least_limit(graph, settings)),
                mebibytes(settings.memory_bytes)
            ),
        ));
    }
    let regions = regions::regions(graph).map_err(|id| {
        Error::failed(
            Code(999),
            format!("`{}` would have to wait for itself", graph.nodes[id].name),
        )
    })?;
    let share = settings.share();
    let budget = Budget::new(settings.stages_bytes());
    let disk = Arc::new(Disk::new(&settings.spill_dir, settings.disk_bytes).spill_rows(settings.hooks.spill_rows));
    progress.run(&disk);
    let mut world = World {
        graph,
        settings,
        setup: Setup {
            budget: budget.clone(),
            spill: Spill::new(disk.clone()),
            share,
            workers: settings.workers.max(1),
            chunk_bytes: settings.chunk_bytes,
            max_record: settings.max_record,
            sync: settings.sync,
            folder: settings.folder.as_path().into(),
            cancelled: settings.cancel.clone(),
            say: settings.say.clone(),
            asked: standpipe_sdk::spec::Asked::default(),
        },
        script,
        progress: progress.clone(),
        spills: graph.nodes.iter().map(|_| Spill::new(disk.clone())).collect(),
        breakers: (0..graph.nodes.len()).map(|_| None).collect(),
        builds: (0..graph.nodes.len()).map(|_| None).collect(),
        sinks: Vec::new(),
        budgets: (graph.nodes.iter().map(|_| budget.part(0))).collect::<Result<_>>()?,
        ahead: budget.reserve(),
    };
    let mut report = Report {
        stages: graph
            .nodes
            .iter()
            .map(|n| StageReport {
                name: n.name.clone(),
                ..StageReport::default()
            })
            .collect(),
        memory_limit_bytes: settings.memory_bytes,
        workers: settings.workers,
        ..Report::default()
    };
    let outcome = (|| {
        let floors = floors::floors(graph, settings);
        for (at, region) in regions.iter().enumerate() {
            let totals = world.region(region, &floors[at])?;
            // What nobody meets any more gives its memory back.
            for &id in &region.uses {
                if !regions[at + 1..].iter().any(|later| later.uses.contains(&id)) {
                    world.builds[id] = None;
                }
            }
            for (id, rows, bad, discarded) in totals.nodes {
                if matches!(graph.nodes[id].op, Op::Source { .. }) {
                    report.rows_read += rows;
                }
                let stage = &mut report.stages[id];
                stage.rows_in = stage.rows_in.max(rows);
                stage.bad_rows += bad;
                stage.discarded_rows += discarded;
            }
            report.notes.extend(totals.notes);
            report.chunks += totals.chunks;
            report.bytes_read += totals.bytes;
            report.peak_arena_bytes = report.peak_arena_bytes.max(totals.peak_arena);
        }
        publish(&world.sinks)
    })();
    match outcome {
        Ok(outputs) => {
            report.outputs = outputs;
            report.notes.extend(world.sinks.iter().flat_map(|sink| sink.notes()));
            report.peak_reserved_bytes = budget.peak();
            report.peak_spilled_bytes = disk.peak();
            for (stage, spill) in report.stages.iter_mut().zip(&world.spills) {
                let done = spill.done();
                stage.spilled_bytes = done.written_bytes;
                stage.reread_bytes = done.read_bytes;
                stage.segments = done.segments;
                stage.merged_rows = done.merged_rows;
            }
            report.elapsed = start.elapsed();
            Ok(report)
        }
        Err(error) => {
            for sink in &world.sinks {
                sink.discard();
            }
            Err(error)
        }
    }
}

fn publish(sinks: &[Arc<dyn Sink>]) -> Result<Vec<Output>> {
    for sink in sinks {
        sink.finish()?;
    }
    let mut outputs = Vec::new();
    for sink in sinks {
        let published = sink.publish()?.into_iter();
        outputs.extend(published.map(|p| Output {
            path: p.path,
            rows: p.rows,
            bytes: p.bytes,
        }));
    }
    Ok(outputs)
}

fn mebibytes(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
