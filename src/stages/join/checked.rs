//! Candidates that are looked at: keys are compared, then the host judges each pair.
//!
//! Laws
//! - What a left row becomes is known before anything of it comes out, if judging it can fail.
//!
//! What will bite: a block lives in the scratch arena, which is reset between blocks; what must survive one (who has matched)
//! lives in the chunk's arena or on the stack.

use super::super::filter::Truth;
use super::build::Built;
use super::lookup::{Span, same_keys};
use super::pieces::NONE;
use super::probe::Blocks;
use super::rows::{Cursor, NO_PARENT, Rows, chosen_of, only_left, output, pair_columns};
use super::{Mode, Plan};
use standpipe_sdk::error::Result;
use standpipe_sdk::{Arena, Batch, Bits, Emitter, Fault, Faults, Flow, Judge, Place, Verdict};
use std::ops::Range;

/// Spans are candidates: keys may differ, and a condition may say no.
pub(super) struct Checked<'p, 'a, 'c, 'j> {
    pub(super) plan: &'p Plan,
    pub(super) built: &'c Built,
    pub(super) batch: Batch<'a>,
    pub(super) spans: &'c [Span],
    pub(super) judge: Option<&'j mut dyn Judge>,
    pub(super) before: Option<(Place, u32)>,
    /// Something of the rows at hand is out or reported: they cannot be tried again.
    pub(super) touched: bool,
}

/// A left row of which blocks of pairs come out.
pub(super) struct HotRow {
    pub(super) row: usize,
    /// Some pair has matched.
    pub(super) any: bool,
    pub(super) last_parent: u32,
}

/// Pairs that have been looked at: those that match, and left rows that are bad.
struct Judged<'b> {
    rows: Rows<'b>,
    /// Left rows with a pair that failed, ascending.
    bad: &'b [Fault<'b>],
}

impl<'a, 'c> Checked<'_, 'a, 'c, '_> {
    pub(super) fn run(&mut self, blocks: &mut Blocks, out: &mut Emitter<'_, 'a>) -> Result<Flow> {
        let rows = self.batch.rows();
        // Left rows that have matched, for those who only decide about them.
        let chosen = out.arena().fill(rows, false)?;
        let mut row = 0;
        let mut stopped = false;
        let mut flow = Flow::More;
        while row < rows && !stopped && flow == Flow::More {
            let (mut to, mut pairs) = (row, 0);
            while to < rows
                && (to == row || (to - row < blocks.rows && pairs + self.spans[to].len as usize <= blocks.rows))
            {
                pairs += self.spans[to].len as usize;
                to += 1;
            }
            self.touched = false;
            let outcome = match pairs > blocks.rows {
                true => self.hot(row, blocks, chosen, &mut stopped, out),
                false => self.group(row..to, pairs, blocks, chosen, &mut stopped, out),
            };
            match outcome {
                Ok(after) => flow = after,
                Err(error) if !self.touched => {
                    blocks.again(error, (to - row).max(pairs.min(blocks.rows)))?;
                    continue;
                }
                Err(error) => return Err(error),
            }
            row = to;
        }
        if !self.plan.mode.only_left() {
            return Ok(flow);
        }
        let arena = out.arena();
        let bits = Bits::collect(arena, rows, |row| chosen[row])?;
        only_left(self.plan, self.batch, bits.indices(arena)?, out)
    }

    /// All pairs of a few left rows at once.
    fn group(
        &mut self,
        range: Range<usize>,
        pairs: usize,
        blocks: &mut Blocks,
        chosen: &mut [bool],
        stopped: &mut bool,
        out: &mut Emitter<'_, 'a>,
    ) -> Result<Flow> {
        blocks.scratch.arena.reset();
        let arena = &blocks.scratch.arena;
        let mut cursor = Cursor {
            row: range.start,
            nth: 0,
        };
        let rows = cursor.take(pairs, self.spans, 0, self.built, arena)?;
        let judged = self.judged(rows, arena)?;
        let end = match judged.bad.first() {
            Some(first) if out.faults().stops() => first.row as usize,
            _ => range.end,
        };
        let good = |row: usize| judged.bad.binary_search_by_key(&(row as u32), |bad| bad.row).is_err();
        if self.plan.mode.only_left() {
            let wanted = self.plan.mode == Mode::Semi;
            let has = arena.fill(range.len(), false)?;
            judged
                .rows
                .parents
                .iter()
                .for_each(|&row| has[row as usize - range.start] = true);
            self.report(judged.bad, stopped, out)?;
            for row in range.start..end {
                chosen[row] = has[row - range.start] == wanted && good(row);
            }
            return Ok(Flow::More);
        }
        let made = self.with_unmatched(range.start..end, judged.rows, &good, arena)?;
        // Everything that can be refused but what follows comes before the first word about a bad row.
        let mut first = Ok(Flow::More);
        let (mut left, mut last_parent) = (made, NO_PARENT);
        let mut reported = false;
        while !left.parents.is_empty() {
            let rows = left.head(self.built.pieces.alike(left.ids));
            let mut before = self.before;
            let block = output(
                self.plan,
                self.built,
                &self.batch,
                rows,
                &mut before,
                last_parent,
                arena,
            )?;
            if !reported {
                self.report(judged.bad, stopped, out)?;
                self.mark(made);
                reported = true;
            }
            (self.before, self.touched) = (before, true);
            last_parent = rows.parents.last().copied().unwrap_or(NO_PARENT);
            left = left.behind(rows.parents.len());
            first = out.emit_in(arena, block);
            if !matches!(first, Ok(Flow::More)) {
                return first;
            }
        }
        if !reported {
            self.report(judged.bad, stopped, out)?;
        }
        first
    }

    /// Which pairs match.
    fn judged<'b>(&mut self, rows: Rows<'b>, arena: &'b Arena) -> Result<Judged<'b>>
    where
        'a: 'b,
        'c: 'b,
    {
        let (plan, built, batch) = (self.plan, self.built, &self.batch);
        let mut rows = rows;
        if !plan.exact && !plan.left_keys.is_empty() {
            let same = same_keys(plan, built, batch, rows.parents, rows.ids, arena)?;
            rows = chosen_of(rows, same.indices(arena)?, arena)?;
        }
        let Some(judge) = self.judge.as_deref_mut() else {
            return Ok(Judged { rows, bad: &[] });
        };
        let faults = Faults::new(arena, false);
        let matched = arena.fill(rows.ids.len(), 0u32)?;
        let (mut from, mut count) = (0, 0);
        while from < rows.ids.len() {
            let part = rows.behind(from);
            let part = part.head(built.pieces.alike(part.ids));
            let pairs = pair_columns(plan, built, batch, part, arena)?;
            let inner = Faults::new(arena, false);
            let column = judge.judge(pairs, arena, &inner)?;
            let truth = Truth::of(&column);
            for &row in truth.indices(arena)? {
                matched[count] = from as u32 + row;
                count += 1;
            }
            for fault in inner.by_row()? {
                faults.push(Fault {
                    row: fault.row + from as u32,
                    ..**fault
                })?;
            }
            from += part.ids.len();
        }
        let matched = &matched[..count];
        // The first bad pair of each left row.
        let bad = faults.by_row()?;
        let bad = arena.collect(bad.len(), |i| Fault {
            row: rows.parents[bad[i].row as usize],
            ..*bad[i]
        })?;
        let mut count = 0;
        for at in 0..bad.len() {
            if count == 0 || bad[count - 1].row != bad[at].row {
                bad[count] = bad[at];
                count += 1;
            }
        }
        let bad = &bad[..count];
        let is_good = |pair: &u32| {
            let row = rows.parents[*pair as usize];
            bad.binary_search_by_key(&row, |bad| bad.row).is_err()
        };
        let good = matched.iter().filter(|pair| is_good(pair)).count();
        let mut next = matched.iter().filter(|pair| is_good(pair));
        let good = arena.collect(good, |_| next.next().copied().unwrap_or(0))?;
        Ok(Judged {
            rows: chosen_of(rows, good, arena)?,
            bad,
        })
    }

    /// The rows of the output: pairs that match, and left rows of `range` without one if they come out.
    fn with_unmatched<'b>(
        &self,
        range: Range<usize>,
        pairs: Rows<'b>,
        good: &dyn Fn(usize) -> bool,
        arena: &'b Arena,
    ) -> Result<Rows<'b>> {
        let within = pairs.parents.partition_point(|&row| (row as usize) < range.end);
        let pairs = pairs.head(within);
        if !self.plan.mode.keeps_left() {
            return Ok(pairs);
        }
        let most = pairs.parents.len() + range.len();
        let (parents, ids) = (arena.fill(most, 0u32)?, arena.fill(most, NONE)?);
        let (mut count, mut at) = (0, 0);
        for row in range {
            let first = at;
            while at < pairs.parents.len() && pairs.parents[at] as usize == row {
                (parents[count], ids[count]) = (row as u32, pairs.ids[at]);
                count += 1;
                at += 1;
            }
            if first == at && good(row) {
                parents[count] = row as u32;
                count += 1;
            }
        }
        Ok(Rows {
            parents: &parents[..count],
            ids: &ids[..count],
        })
    }

    fn mark(&self, rows: Rows<'_>) {
        if self.plan.mode.keeps_right() {
            rows.ids
                .iter()
                .filter(|&&id| id != NONE)
                .for_each(|&id| self.built.mark(id));
        }
    }

    fn report(&mut self, bad: &[Fault<'_>], stopped: &mut bool, out: &mut Emitter<'_, 'a>) -> Result<()> {
        for fault in bad {
            self.touched = true;
            let arena = out.arena();
            let text = |text: Option<&str>| text.map(|text| arena.copy_str(text)).transpose();
            let verdict = out.faults().push(Fault {
                row: fault.row,
                code: fault.code,
                span: fault.span,
                column: text(fault.column)?,
                message: arena.copy_str(fault.message)?,
                help: text(fault.help)?,
                byte: fault.byte,
                record: fault.record,
            })?;
            if verdict == Verdict::Stop {
                *stopped = true;
                return Ok(());
            }
        }
        Ok(())
    }

    /// One left row with more pairs than a block holds.
    fn hot(
        &mut self,
        row: usize,
        blocks: &mut Blocks,
        chosen: &mut [bool],
        stopped: &mut bool,
        out: &mut Emitter<'_, 'a>,
    ) -> Result<Flow> {
        let mut any = false;
        // First whether it is bad: then nothing of it comes out.
        if !self.look(row, blocks, &mut any, stopped, out)? {
            return Ok(Flow::More);
        }
        if self.plan.mode.only_left() {
            chosen[row] = any == (self.plan.mode == Mode::Semi);
            return Ok(Flow::More);
        }
        let mut hot = HotRow {
            row,
            any: false,
            last_parent: NO_PARENT,
        };
        if self.emit_pairs(&mut hot, blocks, out)? == Flow::Done {
            return Ok(Flow::Done);
        }
        if hot.any || !self.plan.mode.keeps_left() {
            return Ok(Flow::More);
        }
        self.emit_unmatched(row, blocks, out)
    }

    /// Whether the row is good; then, if somebody asks, whether `any` pair matches.
    pub(super) fn look(
        &mut self,
        row: usize,
        blocks: &mut Blocks,
        any: &mut bool,
        stopped: &mut bool,
        out: &mut Emitter<'_, 'a>,
    ) -> Result<bool> {
        let only_left = self.plan.mode.only_left();
        let may_fail = self.judge.as_ref().is_some_and(|judge| judge.may_fail());
        let span = self.spans[row].range();
        let mut at = span.start;
        while at < span.end && (may_fail || (only_left && !*any)) {
            blocks.scratch.arena.reset();
            let take = blocks.rows.min(span.end - at);
            match self.pairs_of(row, at, take, &blocks.scratch.arena) {
                Ok(judged) if !judged.bad.is_empty() => {
                    self.report(judged.bad, stopped, out)?;
                    return Ok(false);
                }
                Ok(judged) => {
                    *any |= !judged.rows.ids.is_empty();
                    at += take;
                }
                Err(error) => blocks.again(error, take)?,
            }
        }
        Ok(true)
    }

    /// The pairs of one row that match.
    pub(super) fn emit_pairs(
        &mut self,
        hot: &mut HotRow,
        blocks: &mut Blocks,
        out: &mut Emitter<'_, 'a>,
    ) -> Result<Flow> {
        let HotRow { row, any, last_parent } = hot;
        let row = *row;
        let span = self.spans[row].range();
        let mut at = span.start;
        while at < span.end {
            blocks.scratch.arena.reset();
            let arena = &blocks.scratch.arena;
            let take = blocks.rows.min(span.end - at);
            let mut before = self.before;
            // The first block of them; others follow only where kinds of text are mixed.
            let made = self.pairs_of(row, at, take, arena).and_then(|judged| {
                let rows = judged.rows.head(self.built.pieces.alike(judged.rows.ids));
                let block = match rows.ids.is_empty() {
                    true => None,
                    false => Some(output(
                        self.plan,
                        self.built,
                        &self.batch,
                        rows,
                        &mut before,
                        *last_parent,
                        arena,
                    )?),
                };
                Ok((judged.rows, rows.ids.len(), block))
            });
            let (all, mut done, mut block) = match made {
                Ok(made) => made,
                Err(error) => {
                    blocks.again(error, take)?;
                    continue;
                }
            };
            self.mark(all);
            *any |= !all.ids.is_empty();
            while let Some(rows) = block {
                self.touched = true;
                (self.before, *last_parent) = (before, row as u32);
                if out.emit_in(arena, rows)? == Flow::Done {
                    return Ok(Flow::Done);
                }
                let rest = all.behind(done);
                let rows = rest.head(self.built.pieces.alike(rest.ids));
                done += rows.ids.len();
                block = match rows.ids.is_empty() {
                    true => None,
                    false => {
                        before = self.before;
                        Some(output(
                            self.plan,
                            self.built,
                            &self.batch,
                            rows,
                            &mut before,
                            *last_parent,
                            arena,
                        )?)
                    }
                };
            }
            at += take;
        }
        Ok(Flow::More)
    }

    /// A row without a match.
    pub(super) fn emit_unmatched(
        &mut self,
        row: usize,
        blocks: &mut Blocks,
        out: &mut Emitter<'_, 'a>,
    ) -> Result<Flow> {
        blocks.scratch.arena.reset();
        let arena = &blocks.scratch.arena;
        let rows = Rows {
            parents: arena.fill(1, row as u32)?,
            ids: arena.fill(1, NONE)?,
        };
        let mut before = self.before;
        let block = output(self.plan, self.built, &self.batch, rows, &mut before, NO_PARENT, arena)?;
        (self.before, self.touched) = (before, true);
        out.emit_in(arena, block)
    }

    /// Some candidates of one left row.
    fn pairs_of<'b>(&mut self, row: usize, from: usize, count: usize, arena: &'b Arena) -> Result<Judged<'b>>
    where
        'a: 'b,
        'c: 'b,
    {
        let rows = Rows {
            parents: arena.fill(count, row as u32)?,
            ids: arena.copy(self.built.table.ids(from..from + count))?,
        };
        self.judged(rows, arena)
    }
}
