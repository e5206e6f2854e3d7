//! A worker's life: it draws a claim, decodes it part by part and pushes each part through its lane as a chunk, until there are no more.
//!
//! Laws
//! - A part that its arena has no room for comes again with fewer rows; nothing has happened then.
//! - Every claim ends its chunks, whatever went wrong: nobody waits for a turn that never comes.

use super::RegionRun;
use super::claims::Draw;
use crate::graph::{NodeId, OnError};
use crate::runtime::feeds::Kind;
use crate::runtime::lane::{Chunk, Edges, Found, LastEdges, Node, Operator, cut_behind_ends, first_of};
use crate::runtime::rejects::Held;
use crate::runtime::turnstile::{MAX_PARTS, Ticket};
use standpipe_sdk::{Arena, Downstream, Emitter, Error, Faults, Flow, Locator, Place, Reader, Result};
use std::cell::RefCell;
use std::sync::{Arc, PoisonError};

/// Rows tried at first when a whole claim does not fit its arena.
const FEWER_ROWS: usize = 1 << 14;
/// The source number of the chunk that follows the last one: no source's end concerns it.
const NO_SOURCE: usize = usize::MAX;

/// One worker's nodes, readers and memory.
pub(super) struct Lane {
    pub(super) number: usize,
    pub(super) nodes: Vec<Node>,
    /// For each source of the region: its reader and the lane position of its node.
    pub(super) readers: Vec<(Box<dyn Reader>, usize)>,
    pub(super) arena: Arena,
    pub(super) spares: RefCell<Vec<Arena>>,
    pub(super) peak: usize,
    /// The rejects that wait, by node.
    pub(super) held: Vec<(NodeId, Arc<Held>)>,
}

/// A worker's life.
pub(super) fn work(run: &RegionRun, lane: &mut Lane) {
    while let Some(draw) = run.draw(lane.number) {
        if run.feeds[draw.source].kind == Kind::Finish {
            finish_early(run, lane, &draw);
            continue;
        }
        // Also when the run has ended meanwhile: a later claim may wait for what this one hands on.
        let claimed = lane.readers[draw.source].0.claim(draw.ticket);
        let mut part = 0;
        match claimed {
            Ok(true) => {
                let most = run.chunk_rows.unwrap_or(usize::MAX);
                let (mut rows, mut refuse) = (most, run.refuse_after);
                loop {
                    match one_part(run, lane, &draw, part, rows, refuse) {
                        // The hook refuses anew in every part; without it, what fitted fits again.
                        Outcome::Part if run.refuse_after.is_some() => {
                            (part, rows, refuse) = (part + 1, most, run.refuse_after);
                        }
                        Outcome::Part => part += 1,
                        Outcome::Last => break,
                        Outcome::Refused => (rows, refuse) = ((rows / 2).min(FEWER_ROWS), None),
                    }
                }
            }
            Ok(false) => empty_chunk(run, lane, &draw, None),
            Err(error) => empty_chunk(run, lane, &draw, Some(error)),
        }
        lane.readers[draw.source].0.let_go();
        run.progress.read(run.sources[draw.source].as_ref(), draw.source);
    }
    for node in &mut lane.nodes {
        if let Operator::Fill(fill) = &mut node.op
            && let Err(error) = fill.done()
        {
            let last = Ticket::new(u64::MAX >> 24, 0);
            run.fail(last, last.number(), NO_SOURCE, error);
        }
    }
}

enum Outcome {
    Part,
    Last,
    /// The arena had no room for the part; nothing has happened.
    Refused,
}

/// Decodes one part of the claim and pushes it through the lane.
fn one_part(run: &RegionRun, lane: &mut Lane, draw: &Draw, part: u64, rows: usize, refuse: Option<usize>) -> Outcome {
    let Lane {
        nodes,
        readers,
        arena,
        spares,
        peak,
        ..
    } = lane;
    let (reader, head) = &mut readers[draw.source];
    let ticket = Ticket::new(draw.claim, part);
    let stop = nodes[*head].info.policy.on_error == OnError::Fail;
    if let Some(n) = refuse {
        arena.refuse_after(n);
    }
    let outcome = match reader.decode(arena, rows, stop) {
        Err(Error::Memory { .. }) if rows > 1 => Outcome::Refused,
        Err(error) => {
            let chunk = chunk_of(run, draw.source, ticket, true, Locator::default(), spares);
            run.fail_at(&chunk, error);
            end_chunk(run, nodes, &chunk);
            Outcome::Last
        }
        Ok(decoded) => {
            // Too many parts for the numbering, or the run is over: this one is the last.
            let over = part + 1 >= MAX_PARTS;
            let mut chunk = chunk_of(run, draw.source, ticket, false, decoded.locator, spares);
            let comes_again = run.feeds[draw.source].kind == Kind::Again;
            let mut ended = run.ended_before(ticket, chunk.first, draw.source);
            if ended && comes_again {
                // The rows that waited come in order: none of those behind it counts. What a stage gave at its end may stand before them.
                match run.feeds.iter().any(|feed| feed.may_fail) {
                    true => ended = false,
                    false => run.stop(draw.source, ticket),
                }
            }
            let last = decoded.last || over || ended;
            chunk.last_part = last;
            let (before, later) = nodes.split_at_mut(*head + 1);
            let flow = before[*head].admit(decoded.batch, &decoded.faults, arena, later, *head + 1, &chunk);
            run.progress.rows(decoded.batch.rows() as u64);
            let end = before[*head].end;
            match flow {
                Ok(Flow::More) => {}
                Ok(Flow::Done) => run.done(ticket, chunk.order, draw.source, end),
                Err(error) => run.fail_at(&chunk, error),
            }
            end_chunk(run, nodes, &chunk);
            if last { Outcome::Last } else { Outcome::Part }
        }
    };
    *peak = arena.used().max(*peak);
    arena.reset();
    arena.refuse_after(usize::MAX);
    outcome
}

fn chunk_of<'r>(
    run: &'r RegionRun,
    source: usize,
    ticket: Ticket,
    last_part: bool,
    locator: Locator<'r>,
    spares: &'r RefCell<Vec<Arena>>,
) -> Chunk<'r> {
    let order = match run.feeds.get(source) {
        Some(feed) if feed.kind == Kind::Again => locator.chunk,
        _ => ticket.number(),
    };
    Chunk {
        ticket,
        source,
        order,
        first: locator.traces.iter().map(|trace| trace.chunk).min().unwrap_or(order),
        last_part,
        run,
        locator: Locator {
            chunk: order,
            ..locator
        },
        spares,
    }
}

fn empty_chunk(run: &RegionRun, lane: &mut Lane, draw: &Draw, error: Option<Error>) {
    let ticket = Ticket::new(draw.claim, 0);
    let chunk = chunk_of(run, draw.source, ticket, true, Locator::default(), &lane.spares);
    if let Some(error) = error {
        run.fail(ticket, ticket.number(), draw.source, error);
    }
    end_chunk(run, &mut lane.nodes, &chunk);
}

fn end_chunk(run: &RegionRun, nodes: &mut [Node], chunk: &Chunk<'_>) {
    cut_behind_ends(nodes, 0, chunk);
    for i in 0..nodes.len() {
        let (before, later) = nodes.split_at_mut(i + 1);
        if let Err(error) = before[i].end_chunk(later, i + 1, chunk) {
            run.fail_at(chunk, error);
        }
    }
}

/// A chunk in which one node says what it has left to say, before later sources are read.
fn finish_early(run: &RegionRun, lane: &mut Lane, draw: &Draw) {
    let at = lane.readers[draw.source].1;
    let ticket = Ticket::new(draw.claim, 0);
    let mut chunk = chunk_of(run, draw.source, ticket, true, Locator::default(), &lane.spares);
    // After an error only what stands before it is given.
    chunk.first = 0;
    let (before, later) = lane.nodes.split_at_mut(at + 1);
    let node = &mut before[at];
    let mut order = ticket.number();
    let outcome = match &mut node.op {
        Operator::Rejects { pen, .. } => {
            let outs = &node.outs;
            let held = lane.held.iter().find(|(id, _)| *id == node.id);
            held.map_or(Ok(()), |(_, held)| {
                let is_cut = |source, order, place| run.is_cut(source, order, place);
                held.give(pen, &chunk, is_cut, |rows, arena| {
                    let mut edges = Edges {
                        outs,
                        later: &mut *later,
                        base: at + 1,
                        chunk: &chunk,
                        last: false,
                    };
                    edges.push(0, arena, rows, false)
                })
            })
        }
        _ if run.had_enough(draw.source) => Ok(()),
        _ => finish_node(node, later, at + 1, &chunk, &lane.arena, &mut order),
    };
    if let Err(error) = outcome {
        run.fail(ticket, order, draw.source, error);
    }
    end_chunk(run, &mut lane.nodes, &chunk);
    lane.peak = lane.arena.used().max(lane.peak);
    lane.arena.reset();
}

/// A serial stage says what it has left to say; after an error, what of it stands before that. `order`: the chunk that what fails now came in.
fn finish_node(
    node: &mut Node,
    later: &mut [Node],
    base: usize,
    chunk: &Chunk<'_>,
    arena: &Arena,
    order: &mut u64,
) -> Result<()> {
    let Operator::Serial(serial, _) = &node.op else {
        return Ok(());
    };
    let shared = serial.shared.clone();
    let mut state = shared.1.lock().unwrap_or_else(PoisonError::into_inner);
    let failed = chunk.run.failed();
    let faults = Faults::new(arena, node.info.policy.on_error == OnError::Fail);
    let mut ends = Ends { failed, enough: None };
    let mut done = ends.behind(node, later, base, chunk, |last| {
        state.finish(&mut Emitter::new(arena, &faults, last))
    });
    if done.is_ok() && state.has_rest() {
        done = state.rest(&mut |arena, made, faults| {
            let flow = ends.behind(node, later, base, chunk, |last| last.push(0, arena, made.rows, false));
            match failed {
                // It is behind that.
                Some(_) => flow,
                None => node.settle(flow, Found::Made(made), faults, later, base, chunk),
            }
        });
    }
    let Ends {
        failed: last_failed,
        enough,
    } = ends;
    drop(state);
    if let Some((order, end)) = enough {
        chunk.run.enough(chunk.source, order, end);
    }
    if let Some((chunk, _)) = last_failed
        && last_failed != failed
    {
        *order = chunk;
    }
    if failed.is_some() {
        return done;
    }
    let done = done.map(|()| Flow::More);
    node.settle(done, Found::Held, &faults, later, base, chunk).map(|_| ())
}

/// What is known behind a node that gives its last rows ([`LastEdges`]).
struct Ends {
    failed: Option<(u64, Place)>,
    enough: Option<(u64, Place)>,
}

impl Ends {
    /// Has `work` give some of them.
    fn behind<T>(
        &mut self,
        node: &mut Node,
        later: &mut [Node],
        base: usize,
        chunk: &Chunk<'_>,
        work: impl FnOnce(&mut LastEdges<'_>) -> T,
    ) -> T {
        let outs = std::mem::take(&mut node.outs);
        let mut last = LastEdges {
            edges: Edges {
                outs: &outs,
                later,
                base,
                chunk,
                last: false,
            },
            failed: self.failed,
            enough: self.enough,
        };
        let outcome = work(&mut last);
        (self.failed, self.enough) = (last.failed, last.enough);
        node.outs = outs;
        if let Some((_, end)) = self.enough {
            (node.done, node.end) = (true, Some(end));
        }
        outcome
    }
}

/// One chunk more, behind the last, in which limits are judged for the last time.
pub(super) fn finish(run: &RegionRun, lane: &mut Lane) -> Result<()> {
    let claims = run.claims.lock().unwrap_or_else(PoisonError::into_inner).next;
    let ticket = Ticket::new(claims, 0);
    let chunk = chunk_of(run, NO_SOURCE, ticket, true, Locator::default(), &lane.spares);
    let nodes = &mut lane.nodes;
    let mut outcome = Ok(());
    for node in nodes.iter() {
        if let Some(too_many) = node.gate.as_ref().and_then(|gate| gate.end()) {
            outcome = Err(first_of(outcome.err(), node.too_many(too_many)));
        }
    }
    if let Err(error) = outcome {
        run.fail(ticket, ticket.number(), NO_SOURCE, error);
    }
    end_chunk(run, nodes, &chunk);
    match run.take_error() {
        Some(error) => Err(error),
        None => Ok(()),
    }
}
