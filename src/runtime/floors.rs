//! What the stages of a run cannot do without, region by region.
//!
//! Each stage has a part of the memory of its own, whose floor is set aside before a region begins in which it takes part: while it
//! takes rows so that it is able to spill later on, and when it gives them what merging takes. Regions run one after the other: what
//! counts is the one that needs the most. So much is set aside all the time, for what a stage holds while it waits for its own region may
//! be all the rest.
//!
//! Laws
//! - A run whose limit is at least what is counted here is refused nothing before its first row.
//! - A stage keeps what it was counted for while it took rows until its last region is over.

use crate::graph::regions::{Region, regions};
use crate::graph::{Graph, NodeId, Op};
use crate::runtime::settings::Settings;
use standpipe_sdk::spec::{Least, Room};

/// What one stage cannot do without in one region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Floor {
    pub node: NodeId,
    /// Whose part of the memory it is: the stage's own, or the build's that it meets or drains.
    pub of: NodeId,
    /// It gives what it took in an earlier region.
    pub gives: bool,
    pub bytes: usize,
}

/// What one region cannot do without.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RegionFloor {
    pub stages: Vec<Floor>,
    /// What those keep that were filled before and wait for a later region.
    pub waits: Vec<Floor>,
    /// What stays free for later regions.
    pub ahead: usize,
}

impl RegionFloor {
    /// Without what stays free.
    fn own(&self) -> usize {
        self.stages.iter().chain(&self.waits).map(|floor| floor.bytes).sum()
    }

    /// In all.
    pub fn bytes(&self) -> usize {
        self.ahead + self.own()
    }

    /// What is set aside for the part of `node`, which has `used` bytes reserved: what waits gives nothing of that back.
    pub fn of(&self, node: NodeId, used: usize) -> usize {
        let sum = |floors: &[Floor]| {
            let own = floors.iter().filter(|floor| floor.of == node);
            own.map(|floor| floor.bytes).reduce(|a, b| a + b)
        };
        let waits = sum(&self.waits).map_or(0, |bytes| bytes.max(used));
        waits + sum(&self.stages).unwrap_or(0)
    }
}

/// The floors of a run with these settings.
pub fn floors(graph: &Graph, settings: &Settings) -> Vec<RegionFloor> {
    let regions = regions(graph).unwrap_or_default();
    let mut floors: Vec<RegionFloor> = (regions.iter().map(|region| floor_of(graph, region, settings))).collect();
    for (at, region) in regions.iter().enumerate() {
        for &node in &region.fills {
            let gives = |later: &Region| later.sources.contains(&node) || later.uses.contains(&node);
            let Some(last) = regions.iter().rposition(gives) else {
                continue;
            };
            let takes = taking(graph, node, settings);
            let is_build = matches!(graph.nodes[node].op, Op::Build(_));
            let floor = Floor {
                node,
                of: node,
                gives: true,
                // What it took to take rows a build gives back once it is full: what it holds then it has got beyond that, but for lists.
                bytes: if is_build {
                    takes.min(lists_bytes(settings))
                } else {
                    takes
                },
            };
            let between = floors.iter_mut().zip(&regions).take(last + 1).skip(at + 1);
            for (region, _) in between.filter(|(_, later)| is_build || !gives(later)) {
                region.waits.push(floor);
            }
        }
    }
    let mut most = 0;
    for floor in floors.iter_mut().rev() {
        most = floor.own().max(most);
        floor.ahead = most - floor.own();
    }
    floors
}

/// For the lists of what a build holds.
fn lists_bytes(settings: &Settings) -> usize {
    const LANE: usize = 64 << 10;
    settings.workers.max(1) * LANE
}

fn room_of(graph: &Graph, node: NodeId, settings: &Settings) -> Room {
    let from = graph.nodes[node]
        .inputs
        .first()
        .and_then(|edge| graph.nodes.get(edge.from));
    Room {
        columns: from.map_or(0, |from| from.schema.width()),
        ..settings.room()
    }
}

fn least_of(graph: &Graph, id: NodeId, settings: &Settings) -> Least {
    let node = &graph.nodes[id];
    let least = (node.least)(&room_of(graph, id, settings));
    Least {
        takes: least.takes.saturating_add(node.takes_more),
        ..least
    }
}

/// What a stage that is filled cannot do without while it takes rows.
fn taking(graph: &Graph, node: NodeId, settings: &Settings) -> usize {
    least_of(graph, node, settings).takes
}

fn floor_of(graph: &Graph, region: &Region, settings: &Settings) -> RegionFloor {
    let floor = |&node: &NodeId| {
        let least = least_of(graph, node, settings);
        let built = || graph.nodes[node].inputs.last().map_or(node, |edge| edge.from);
        let (of, gives, bytes) = match graph.nodes[node].op {
            Op::Breaker(_) if region.fills.contains(&node) => (node, false, least.takes),
            // It gives back what taking took only bit by bit.
            Op::Breaker(_) => (node, true, least.gives.max(least.takes)),
            Op::Drain if meets_too(graph, region, node) => (built(), true, 0),
            Op::Drain => (built(), true, least.gives),
            // Of a stage that meets a build `least` says what gathering it takes, and what meeting it takes.
            Op::Build(_) => (node, false, least.takes),
            Op::Probe { .. } => (built(), false, least.gives),
            _ => (node, false, least.takes + least.gives),
        };
        Floor { node, of, gives, bytes }
    };
    RegionFloor {
        stages: region.nodes.iter().map(floor).collect(),
        ..RegionFloor::default()
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
