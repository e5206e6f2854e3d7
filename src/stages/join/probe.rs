//! One lane's way through a join: a batch of left rows is looked up, and what it meets comes out.
//!
//! How: each row gets a span of positions in the table. Where codes are the keys themselves and there is no condition, spans are
//! matches, and rows come out block by block. Otherwise spans are candidates: keys are compared, then pairs are judged, both a
//! block of pairs at a time.
//!
//! Laws
//! - Rows are made in blocks: memory does not grow with a hot key. How a batch is cut into blocks changes nothing but memory.

use super::again::{Block, given, in_sections};
use super::build::{Built, Join};
use super::checked::{Checked, HotRow};
use super::hot::Sections;
use super::lookup::{Span, spans, spans_before};
use super::rows::{Cursor, NO_PARENT, only_left, output};
use super::scratch::Scratch;
use super::sides::{R_CHUNK, R_ROW, U_WIDTH};
use super::wait::Wait;
use super::{Mode, Plan};
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::{Arena, Batch, Bits, Budget, Column, Columns, Emitter, Flow, Judge, Place, Probe};
use std::sync::Arc;

/// The most rows of a block, and the most pairs that are judged at once.
const BLOCK_ROWS: usize = 4096;

/// The prober of one lane.
pub(super) struct Prober {
    plan: Arc<Plan>,
    from: From,
    budget: Arc<Budget>,
    share: usize,
    blocks: Option<Blocks>,
    /// The last left row that came out, and the next number in its record.
    before: Option<(Place, u32)>,
}

/// Where right rows are.
enum From {
    All(Arc<Built>),
    /// With the left rows, which waited for them.
    Blocks(Arc<Wait>),
}

/// Memory for blocks, taken when it is first needed.
pub(super) struct Blocks {
    pub(super) scratch: Scratch,
    /// Rows of the next one.
    pub(super) rows: usize,
}

impl Blocks {
    /// After a block of `rows` rows had no room: fewer rows, or more room.
    ///
    /// # Errors
    /// The refusal, if there is no way out, and every other error.
    pub(super) fn again(&mut self, error: Error, rows: usize) -> Result<()> {
        match error {
            Error::Memory { .. } if rows > 1 => self.rows = rows / 2,
            Error::Memory { .. } if self.scratch.more() => {}
            error => return Err(error),
        }
        Ok(())
    }
}
impl Prober {
    pub(super) fn new(join: &Join, built: Arc<Built>) -> Prober {
        Prober {
            plan: join.plan.clone(),
            from: From::All(built),
            budget: join.budget.clone(),
            share: join.share,
            blocks: None,
            before: None,
        }
    }

    /// For rows that wait: `wait` has their matches.
    ///
    /// # Errors
    /// `Failed`, with the stage's name, if the budget has not the memory for blocks: when the rows come again, others may have taken it.
    pub(super) fn of_waiting(join: &Join, wait: &Arc<Wait>) -> Result<Prober> {
        let mut prober = Prober {
            plan: wait.plan.clone(),
            from: From::Blocks(wait.clone()),
            budget: join.budget.clone(),
            share: join.share,
            blocks: None,
            before: None,
        };
        prober.blocks = Some(prober.blocks()?);
        Ok(prober)
    }

    fn blocks(&mut self) -> Result<Blocks> {
        match self.blocks.take() {
            Some(blocks) => Ok(blocks),
            None => Ok(Blocks {
                scratch: Scratch::new(&self.budget, self.share)?,
                rows: BLOCK_ROWS,
            }),
        }
    }
}

impl Probe for Prober {
    fn push<'a>(&mut self, batch: Batch<'a>, judge: Option<&mut dyn Judge>, out: &mut Emitter<'_, 'a>) -> Result<Flow> {
        let (plan, arena) = (self.plan.clone(), out.arena());
        let all = match &self.from {
            From::All(all) => all.clone(),
            From::Blocks(wait) => {
                let wait = wait.clone();
                return self.waited(&plan, &wait, batch, judge, out);
            }
        };
        let built: &'a Built = arena.hold(all);
        let spans = match plan.asof {
            Some(_) => spans_before(&plan, built, &batch, arena)?,
            None => spans(&plan, built, &batch, arena)?,
        };
        // Candidates of `asof` have been compared already.
        let checked = judge.is_some() || (!plan.exact && !plan.left_keys.is_empty() && plan.asof.is_none());
        self.meet(&plan, built, batch, spans, checked, judge, out)
    }
}
impl Prober {
    /// Spans are matches; unless pairs are to be `checked`.
    fn meet<'a>(
        &mut self,
        plan: &Plan,
        built: &'a Built,
        batch: Batch<'a>,
        spans: &'a [Span],
        checked: bool,
        judge: Option<&mut dyn Judge>,
        out: &mut Emitter<'_, 'a>,
    ) -> Result<Flow> {
        match checked {
            true => {
                let mut blocks = self.blocks()?;
                let mut work = Checked {
                    plan,
                    built,
                    batch,
                    spans,
                    judge,
                    before: self.before,
                    touched: false,
                };
                let flow = work.run(&mut blocks, out);
                self.before = work.before;
                self.blocks = Some(blocks);
                flow
            }
            false => self.matches(plan, built, batch, spans, out),
        }
    }

    /// Rows that come again, and their matches with them.
    fn waited<'a>(
        &mut self,
        plan: &Plan,
        wait: &Wait,
        batch: Batch<'a>,
        judge: Option<&mut dyn Judge>,
        out: &mut Emitter<'_, 'a>,
    ) -> Result<Flow> {
        let arena = out.arena();
        let (block, spans) = given(wait, &batch, arena)?;
        let built: &'a Built = arena.hold(block.built.clone());
        let flow = match in_sections(spans) {
            false => self.meet(plan, built, batch, spans, judge.is_some(), judge, out)?,
            true => self.hot(plan, wait, &block, batch, judge, out)?,
        };
        mark(wait, built)?;
        Ok(flow)
    }

    /// One row, with more matches than are held at a time.
    fn hot<'a>(
        &mut self,
        plan: &Plan,
        wait: &Wait,
        block: &Block,
        batch: Batch<'a>,
        mut judge: Option<&mut dyn Judge>,
        out: &mut Emitter<'_, 'a>,
    ) -> Result<Flow> {
        let mut blocks = self.blocks()?;
        let mut sections = Sections::new(wait, block);
        let mut any = false;
        let mut stopped = false;
        let may_fail = judge.as_ref().is_some_and(|judge| judge.may_fail());
        let decides = plan.mode.only_left();
        let mut is_good = true;
        while is_good && (may_fail || (decides && !any)) {
            let Some((built, span)) = sections.next()? else { break };
            let judge = judge.as_mut().map(|judge| &mut **judge as &mut dyn Judge);
            let mut work = checked(plan, &built, batch, std::slice::from_ref(&span), judge, self.before);
            is_good = work.look(0, &mut blocks, &mut any, &mut stopped, out)?;
        }
        let mut flow = Flow::More;
        if is_good && decides {
            if any == (plan.mode == Mode::Semi) {
                flow = only_left(plan, batch, &[0], out)?;
            }
        } else if is_good {
            sections.again();
            let mut hot = HotRow {
                row: 0,
                any: false,
                last_parent: NO_PARENT,
            };
            while flow == Flow::More
                && let Some((built, span)) = sections.next()?
            {
                let judge = judge.as_mut().map(|judge| &mut **judge as &mut dyn Judge);
                let mut work = checked(plan, &built, batch, std::slice::from_ref(&span), judge, self.before);
                flow = work.emit_pairs(&mut hot, &mut blocks, out)?;
                self.before = work.before;
                mark(wait, &built)?;
            }
            if flow == Flow::More && !hot.any && plan.mode.keeps_left() {
                loop {
                    let mut work = checked(plan, &block.built, batch, &[], None, self.before);
                    match work.emit_unmatched(0, &mut blocks, out) {
                        Err(error @ Error::Memory { .. }) if !work.touched => blocks.again(error, 1)?,
                        other => {
                            self.before = work.before;
                            flow = other?;
                            break;
                        }
                    }
                }
            }
        }
        self.blocks = Some(blocks);
        Ok(flow)
    }

    /// Spans are matches.
    fn matches<'a>(
        &mut self,
        plan: &Plan,
        built: &'a Built,
        batch: Batch<'a>,
        spans: &'a [Span],
        out: &mut Emitter<'_, 'a>,
    ) -> Result<Flow> {
        let arena = out.arena();
        if plan.mode.only_left() {
            let wanted = plan.mode == Mode::Semi;
            let bits = Bits::collect(arena, spans.len(), |row| (spans[row].len > 0) == wanted)?;
            return only_left(plan, batch, bits.indices(arena)?, out);
        }
        if plan.mode.keeps_right() {
            for span in spans {
                built.table.ids(span.range()).iter().for_each(|&id| built.mark(id));
            }
        }
        let least = u64::from(plan.mode.keeps_left());
        let total: u64 = spans.iter().map(|span| u64::from(span.len).max(least)).sum();
        if total == 0 {
            return Ok(Flow::More);
        }
        let mut cursor = Cursor::default();
        if total <= batch.rows() as u64 && built.pieces.are_alike() {
            let rows = cursor.take(total as usize, spans, least as usize, built, arena)?;
            let mut before = self.before;
            let made = output(plan, built, &batch, rows, &mut before, NO_PARENT, arena)?;
            self.before = before;
            return out.last(made);
        }
        let mut blocks = self.blocks()?;
        let flow = self.in_blocks(plan, built, &batch, spans, total, &mut blocks, out);
        self.blocks = Some(blocks);
        flow
    }

    /// The same in blocks.
    fn in_blocks<'a>(
        &mut self,
        plan: &Plan,
        built: &'a Built,
        batch: &Batch<'a>,
        spans: &[Span],
        total: u64,
        blocks: &mut Blocks,
        out: &mut Emitter<'_, 'a>,
    ) -> Result<Flow> {
        let least = usize::from(plan.mode.keeps_left());
        let (mut left, mut cursor) = (total, Cursor::default());
        let mut last_parent = NO_PARENT;
        while left > 0 {
            blocks.scratch.arena.reset();
            let arena = &blocks.scratch.arena;
            let want = (blocks.rows as u64).min(left) as usize;
            let mut after = cursor;
            let mut before = self.before;
            let made = after.take(want, spans, least, built, arena).and_then(|rows| {
                let alike = built.pieces.alike(rows.ids);
                if alike < want {
                    after = cursor;
                    after.take(alike, spans, least, built, arena)?;
                }
                let rows = rows.head(alike);
                let last = rows.parents.last().copied().unwrap_or(NO_PARENT);
                let batch = output(plan, built, batch, rows, &mut before, last_parent, arena)?;
                Ok((batch, last))
            });
            let (block, last) = match made {
                // What follows needs room too: a block takes at most a quarter.
                Ok(_) if want > 1 && arena.used() > arena.limit() / 4 => {
                    blocks.rows = want / 2;
                    continue;
                }
                Ok(made) => made,
                Err(error) => {
                    blocks.again(error, want)?;
                    continue;
                }
            };
            let flow = out.emit_in(arena, block)?;
            left -= block.rows() as u64;
            (cursor, self.before, last_parent) = (after, before, last);
            if flow == Flow::Done {
                return Ok(Flow::Done);
            }
            if blocks.scratch.arena.used() < blocks.scratch.arena.limit() / 16 {
                blocks.rows = (want * 2).clamp(blocks.rows.min(BLOCK_ROWS), BLOCK_ROWS);
            }
        }
        Ok(Flow::More)
    }
}

fn checked<'p, 'a, 'c, 'j>(
    plan: &'p Plan,
    built: &'c Built,
    batch: Batch<'a>,
    spans: &'c [Span],
    judge: Option<&'j mut dyn Judge>,
    before: Option<(Place, u32)>,
) -> Checked<'p, 'a, 'c, 'j> {
    Checked {
        plan,
        built,
        batch,
        spans,
        judge,
        before,
        touched: false,
    }
}

/// Tells which right rows have matched since the last time.
fn mark(wait: &Wait, built: &Built) -> Result<()> {
    let width = wait.plan.right_width;
    for (piece, rows) in built.newly_matched() {
        let Some(kept) = &built.pieces.list[piece].kept else {
            continue;
        };
        let (batch, count) = (kept.batch(), rows.len());
        let arena = Arena::new(usize::MAX);
        let mut columns = Columns::new(&arena, width + U_WIDTH)?;
        (0..width).for_each(|_| columns.push(Column::nulls(count)));
        columns.push(batch.column(width + R_CHUNK).gather(&rows, &arena)?);
        columns.push(batch.column(width + R_ROW).gather(&rows, &arena)?);
        columns.push(Column::int(arena.fill(count, 0)?, None));
        wait.mark(Batch::new(columns.finish(), None, count))?;
    }
    Ok(())
}
