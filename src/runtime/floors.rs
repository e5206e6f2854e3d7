//! What the stages of a run cannot do without, region by region.
//!
//! A stage sets memory aside before its first row, so that it is able to spill later on, and at the end what merging takes. Regions run
//! one after the other: what counts is the one that needs the most. While one runs, what the later ones set aside at their beginning stays
//! free, for what it filled may still hold all the rest then.
//!
//! Laws
//! - A run whose limit is at least what is counted here is refused nothing before its first row.

use crate::graph::regions::{Region, regions};
use crate::graph::{Graph, NodeId, Op};
use crate::runtime::settings::Settings;

/// What one stage cannot do without in one region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Floor {
    pub node: NodeId,
    /// It gives what it took in an earlier region.
    pub gives: bool,
    /// Set aside before anything is read.
    pub first: usize,
    /// In all.
    pub bytes: usize,
}

/// What one region cannot do without.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RegionFloor {
    pub stages: Vec<Floor>,
    /// What stays free for later regions.
    pub ahead: usize,
}

impl RegionFloor {
    /// In all.
    pub fn bytes(&self) -> usize {
        self.ahead + self.stages.iter().map(|floor| floor.bytes).sum::<usize>()
    }

    fn first(&self) -> usize {
        self.stages.iter().map(|floor| floor.first).sum()
    }
}

/// The floors of a run with these settings.
pub fn floors(graph: &Graph, settings: &Settings) -> Vec<RegionFloor> {
    let regions = regions(graph).unwrap_or_default();
    let mut floors: Vec<RegionFloor> = (regions.iter().map(|region| floor_of(graph, region, settings))).collect();
    let mut ahead = 0;
    for floor in floors.iter_mut().rev() {
        floor.ahead = ahead;
        ahead = ahead.max(floor.first());
    }
    floors
}

fn floor_of(graph: &Graph, region: &Region, settings: &Settings) -> RegionFloor {
    let room = settings.room();
    let floor = |&node: &NodeId| {
        let least = (graph.nodes[node].least)(&room);
        let (gives, first, bytes) = match graph.nodes[node].op {
            Op::Breaker(_) if region.fills.contains(&node) => (false, least.takes, least.takes),
            Op::Breaker(_) => (true, 0, least.gives),
            Op::Drain if meets_too(graph, region, node) => (true, 0, 0),
            Op::Drain => (true, 0, least.gives),
            // Of a stage that meets a build `least` says what gathering it takes, and what meeting it takes.
            Op::Build(_) => (false, least.takes, least.takes),
            Op::Probe { .. } => (false, least.gives, least.gives),
            _ => (false, least.takes, least.takes + least.gives),
        };
        Floor {
            node,
            gives,
            first,
            bytes,
        }
    };
    RegionFloor {
        stages: region.nodes.iter().map(floor).collect(),
        ahead: 0,
    }
}

/// Whether what the drain `node` gives is met in this region too: then all that takes memory is counted there.
fn meets_too(graph: &Graph, region: &Region, node: NodeId) -> bool {
    let built = graph.nodes[node].inputs.last().map(|edge| edge.from);
    let meets = |id: &NodeId| {
        let other = &graph.nodes[*id];
        matches!(other.op, Op::Probe { .. }) && other.inputs.last().map(|edge| edge.from) == built
    };
    region.nodes.iter().any(meets)
}

/// What the region that needs the most cannot do without.
pub fn most(floors: &[RegionFloor]) -> usize {
    floors.iter().map(RegionFloor::bytes).max().unwrap_or(0)
}

/// Whether a run fits into its limit.
pub fn fits(graph: &Graph, settings: &Settings) -> bool {
    settings.floor() <= settings.memory_bytes && most(&floors(graph, settings)) <= settings.stages_bytes()
}

/// The least limit with which a run fits: of all, if it fits as it is, else of those above its limit.
pub fn least_limit(graph: &Graph, settings: &Settings) -> usize {
    const STEP: usize = 64 << 10;
    let fits = |bytes: usize| {
        let mut settings = settings.clone();
        settings.memory_bytes = bytes;
        fits(graph, &settings)
    };
    let (mut low, mut high) = match fits(settings.memory_bytes) {
        true => (0, settings.memory_bytes),
        false => (settings.memory_bytes, settings.memory_bytes.max(STEP)),
    };
    while high <= usize::MAX / 2 && !fits(high) {
        low = high;
        high *= 2;
    }
    // `high` always fits.
    while high - low > STEP {
        let middle = low + (high - low) / 2;
        match fits(middle) {
            true => high = middle,
            false => low = middle,
        }
    }
    high
}
