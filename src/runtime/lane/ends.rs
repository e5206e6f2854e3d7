//! Where the branches behind a node of a lane end, and what no longer counts behind that.
//!
//! Laws
//! - A node is done once all that it feeds is; its end in a chunk is the greatest of theirs, or the least place at which it had enough itself.
//! - Behind the end of a branch none of its rows is counted, set aside or an error, whatever other branches still want.
//! - What earlier chunks ended is known for certain at a turnstile only, once this chunk has the turn.

use super::{Chunk, Edges, InOrder, Node, Operator, first_of};
use standpipe_sdk::{Arena, Batch, Downstream, Error, Flow, Locator, Place, Result};

/// At the end of a chunk, before any node says so: what was found bad behind the last row that anybody wanted of a node never counted,
/// whatever other branches still want.
pub(crate) fn cut_behind_ends(nodes: &mut [Node], base: usize, chunk: &Chunk<'_>) {
    let counts = |node: &Node| !node.chunk_bad.is_empty() || (node.gate.is_some() && node.chunk_rows > 0);
    for at in 0..nodes.len() {
        if !counts(&nodes[at]) {
            continue;
        }
        let (head, later) = nodes.split_at_mut(at + 1);
        let node = &mut head[at];
        let is_done = node.looks_done(later, base + at + 1, chunk);
        // By now every turnstile behind it has been waited for.
        let is_behind = chunk.run.is_unwanted(chunk.ticket, chunk.first, chunk.source);
        if !is_done && !is_behind {
            continue;
        }
        let (id, end) = (node.id as u32, node.end.filter(|_| !is_behind));
        let counts = |place: Place| end.is_some_and(|end| place <= end);
        node.chunk_bad.retain(|&(_, place)| counts(place));
        if end.is_none() {
            node.chunk_rows = 0;
        }
        let rejects = node.rejects.and_then(|target| later.get_mut(target - base - at - 1));
        if let Some(Node {
            op: Operator::Rejects { rows, .. },
            ..
        }) = rejects
        {
            rows.retain(|row| row.node != id || counts(row.place));
        }
    }
}

impl Node {
    /// Whether all that this node feeds has what it wants: then so has the node.
    pub(super) fn is_done(&mut self, later: &[Node], base: usize) -> bool {
        let mut fed = self
            .outs
            .iter()
            .flatten()
            .map(|&target| &later[target - base])
            .peekable();
        if fed.peek().is_some() && fed.clone().all(|node| node.done) {
            let end = fed.filter_map(|node| node.end).max();
            // It may have had enough by itself before.
            self.end = end.map(|end| self.end.map_or(end, |own| own.min(end)));
            self.done = true;
        }
        self.done
    }

    /// The same with what other lanes know: whether all that came in earlier chunks was enough for those behind it.
    pub(super) fn looks_done(&mut self, later: &mut [Node], base: usize, chunk: &Chunk<'_>) -> bool {
        if self.done {
            return true;
        }
        if let Operator::Serial(serial, _) = &mut self.op
            && serial.ended_before(chunk)
        {
            self.done = true;
            return true;
        }
        for &target in self.outs.iter().flatten() {
            let (head, rest) = later.split_at_mut(target - base + 1);
            if let Some(node) = head.last_mut() {
                node.looks_done(rest, target + 1, chunk);
            }
        }
        self.is_done(later, base)
    }

    /// In the chunk behind the last one, after each batch: its bad rows are counted and go on, so that no more of them are gathered than
    /// in any other chunk.
    fn end_batch(&mut self, later: &mut [Node], base: usize, chunk: &Chunk<'_>) -> Result<()> {
        let mut outcome = self.pass_rejects_on(later, base, chunk, false);
        if let Some(gate) = &self.gate {
            self.chunk_bad.sort_unstable();
            if let Some(too_many) = gate.add(self.chunk_rows, &self.chunk_places, &self.chunk_bad, &chunk.locator) {
                outcome = Err(first_of(outcome.err(), self.too_many(too_many)));
            }
        }
        self.forget_chunk();
        outcome
    }
}

impl<S> InOrder<S> {
    /// Whether who is behind it wants nothing of this chunk.
    fn ended_before(&mut self, chunk: &Chunk<'_>) -> bool {
        if !self.left && self.enter(chunk).is_err() {
            return false;
        }
        self.shared.0.ended_before(chunk.ticket)
    }
}

/// The edges out of a node that gives its last rows, behind all chunks.
pub(crate) struct LastEdges<'r> {
    pub edges: Edges<'r>,
    /// The least place at which anything failed so far, with the number of its chunk: nothing from there on matters.
    pub failed: Option<(u64, Place)>,
    /// The last row that anybody wanted, with the number of its chunk, once nobody wants more.
    pub enough: Option<(u64, Place)>,
}

impl Downstream for LastEdges<'_> {
    fn push<'b>(&mut self, port: usize, arena: &'b Arena, batch: Batch<'b>, _last: bool) -> Result<Flow> {
        let locator = Locator {
            chunk: self.edges.chunk.ticket.number(),
            ..Locator::default()
        };
        self.push_held(port, arena, batch, &locator)
    }

    fn push_held<'b>(
        &mut self,
        port: usize,
        arena: &'b Arena,
        batch: Batch<'b>,
        locator: &Locator<'b>,
    ) -> Result<Flow> {
        let Edges { outs, base, chunk, .. } = self.edges;
        let batch = match (self.failed, batch.origin()) {
            (Some(failed), Some(places)) => {
                let before = |&place: &Place| (locator.chunk_of(place), place) < failed;
                batch.head(places.partition_point(before), arena)?
            }
            // Rows of which nobody asks where they came from: none of them can fail.
            (Some(_), None) => return Ok(Flow::Done),
            (None, _) => batch,
        };
        let chunk = Chunk {
            locator: *locator,
            ..*chunk
        };
        let mut edges = Edges {
            outs,
            later: &mut *self.edges.later,
            base,
            chunk: &chunk,
            last: false,
        };
        let mut flow = edges.push(port, arena, batch, false);
        let later = edges.later;
        if matches!(flow, Ok(Flow::Done))
            && let Some(end) = outs
                .iter()
                .flatten()
                .filter_map(|&target| later[target - base].end)
                .max()
        {
            self.enough = Some((locator.chunk_of(end), end));
        }
        cut_behind_ends(later, base, &chunk);
        for at in 0..later.len() {
            let (head, rest) = later.split_at_mut(at + 1);
            if let Err(error) = head[at].end_batch(rest, base + at + 1, &chunk) {
                flow = Err(first_of(flow.err(), error));
            }
        }
        if let Err(Error::Row(row)) = &flow {
            self.failed = Some((locator.chunk_of(row.place), row.place));
        }
        flow
    }
}
