//! `tail n (by k)`: the last rows, of all or of each group, in their order.
//!
//! Laws
//! - Nothing is passed on before the end.
//! - It holds `n` rows of each group, and for a while as many again, as far as they fit into memory; of a batch only rows that could be among
//!   the last are copied. What does not fit goes the way of [`super::chosen`]; on disk, too, there are not many more than `n` rows of all.

use super::chosen::{BLOCK_ROWS, Chooses, Chosen};
use super::codes::held;
use super::copies::HeldRow;
use super::groups::{Groups, grow};
use super::keys::{self, append};
use super::rowkeys::KeyMaker;
use super::spill::end_group;
use super::take;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::spec::{
    ArgKind, Bound, Call, Complaint, Example, Items, Kind, Make, Memory, Setup, StageSpec, Want,
};
use standpipe_sdk::{Arena, Batch, Emitter, Faults, Flow, Prepare, Reservation, Serial};

/// `tail`.
pub const SPEC: StageSpec = StageSpec {
    name: "tail",
    about: "The last rows; with `by`, the last of each group",
    kind: Kind::Serial,
    items: Items::some(ArgKind::Const(Want::Int), 1, 1, "how many rows"),
    by: Items::some(ArgKind::Expr(Want::Any), 0, usize::MAX, "what makes a group"),
    memory: Memory::Spill,
    holds_back: true,
    to_the_end: true,
    least: super::chosen::least,
    examples: &[
        Example {
            script: "from range(1, 100) | tail 2",
            output: "value\n99\n100\n",
        },
        Example {
            script: r#"from rows [{k: "a", n: 1}, {k: "b", n: 2}, {k: "a", n: 3}] | tail 1 by k"#,
            output: "k,n\nb,2\na,3\n",
        },
    ],
    bind: &bind,
    filters: |call| keys::filters(call, call.by),
    ..StageSpec::BASE
};

fn bind(call: &Call<'_>) -> Result<Bound, Vec<Complaint>> {
    let (rows, reads) = take::rows_of_groups(call, "tail")?;
    let (own, grouped) = (call.own, !reads.is_empty());
    let maker = KeyMaker::of(call, &reads);
    let make = move |setup: &Setup| -> Result<Box<dyn Serial>> {
        let chosen = Chosen::new("tail", own, setup)?;
        let mut groups = grouped.then(|| Groups::new("tail", maker.clone(), &setup.budget));
        if let Some(groups) = &mut groups {
            groups.set_aside(chosen.aside_bytes()).map_err(|e| held("tail", e))?;
        }
        let last = Last {
            rows: usize::try_from(rows).unwrap_or(usize::MAX),
            groups,
            rings: vec![],
            marks: vec![],
            held: 0,
            seen: 0,
            blocks: 0,
            indices: Vec::with_capacity(BLOCK_ROWS),
            on_disk: 0,
        };
        let chosen = Some(chosen);
        Ok(Box::new(Tail { last, chosen }))
    };
    Ok(Bound::keeps(call, reads, Make::Serial(Box::new(make))))
}

struct Tail {
    last: Last,
    /// `None` at the end: what it took is there for those that come behind.
    chosen: Option<Chosen>,
}

/// The last rows so far.
struct Last {
    rows: usize,
    groups: Option<Groups>,
    /// For each group its last rows; the next one takes the place of number `marks.next`.
    rings: Vec<Vec<HeldRow>>,
    marks: Vec<Mark>,
    /// Rows in all rings.
    held: usize,
    /// Rows and blocks so far.
    seen: u64,
    blocks: u64,
    /// The rows of a block that are kept, from behind.
    indices: Vec<u32>,
    /// Rows on disk, if all rows are one group.
    on_disk: u64,
}

/// Where a group stands.
#[derive(Clone, Copy, Default)]
struct Mark {
    /// Where the next row of a full ring goes.
    next: usize,
    /// The block that `taken` rows were chosen of.
    block: u64,
    taken: usize,
}

impl Serial for Tail {
    fn prepare(&self) -> Option<Box<dyn Prepare>> {
        self.last.groups.as_ref().map(Groups::prepare)
    }

    fn step<'a>(&mut self, batch: Batch<'a>, _: &'a Arena, _: &Faults<'a>) -> Result<(Option<Batch<'a>>, Flow)> {
        if let Some(chosen) = &mut self.chosen {
            chosen.take(&mut self.last, &batch)?;
        }
        Ok((None, Flow::More))
    }

    fn finish<'a>(&mut self, out: &mut Emitter<'_, 'a>) -> Result<()> {
        let Some(mut chosen) = self.chosen.take() else {
            return Ok(());
        };
        self.last.give(&mut chosen, out)?;
        self.last.clear(&mut chosen);
        self.last.groups = None;
        Ok(())
    }
}

impl Last {
    /// Gives the rows at the end.
    fn give(&mut self, chosen: &mut Chosen, out: &mut Emitter<'_, '_>) -> Result<()> {
        if !chosen.has_spilled() {
            let mut all = vec![];
            match grow(&mut all, self.held, &mut chosen.extra) {
                Ok(()) => {
                    all.extend(self.rings.drain(..).flatten());
                    return chosen.give_held(&mut all, out);
                }
                // Everything fits but the list of it: then it is spilled after all.
                Err(Error::Memory { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.spill(chosen).map_err(|e| held("tail", e))?;
        let most = self.rows as u64;
        match self.groups {
            Some(_) => chosen.give_firsts(most, true, out),
            None => chosen.give_last(self.on_disk.saturating_sub(most), out),
        }
    }
}

impl Chooses for Last {
    fn choose(&mut self, chosen: &mut Chosen, batch: &Batch<'_>, from: usize, rows: usize) -> Result<()> {
        if chosen.copies.is_wasteful() {
            chosen.copies.compact(&mut self.rings, &mut chosen.scratch)?;
        }
        let piece = chosen.copies.next_piece()?;
        let taken = self.take(chosen, batch, from, rows, piece);
        match taken {
            Ok(()) => self.seen += rows as u64,
            Err(_) => self.forget(chosen, piece),
        }
        taken
    }

    fn spill(&mut self, chosen: &mut Chosen) -> Result<()> {
        let Last {
            groups, rings, marks, ..
        } = self;
        for (ring, mark) in rings.iter_mut().zip(marks) {
            ring.rotate_left(mark.next);
            mark.next = 0;
            // The last row first, where it is the group's first by rank.
            if groups.is_some() {
                ring.reverse();
            }
        }
        let written = Last::write(groups.as_ref(), rings, chosen);
        if written.is_err() && groups.is_some() {
            rings.iter_mut().for_each(|ring| ring.reverse());
        }
        written?;
        self.clear(chosen);
        if self.groups.is_none() {
            self.on_disk = chosen.leave_last(self.rows as u64)?;
        }
        Ok(())
    }

    fn held(&self) -> usize {
        self.held
    }
}

impl Last {
    /// Writes the rings, which are sorted.
    fn write(groups: Option<&Groups>, rings: &[Vec<HeldRow>], chosen: &mut Chosen) -> Result<()> {
        match groups {
            None => chosen.write(rings.len(), &|at| &rings[at], &|_, row: &HeldRow, key| {
                append(&row.row.to_be_bytes(), key)
            }),
            Some(groups) => {
                // Reserved with the rings.
                let order = groups.in_order(rings.len())?;
                let maker = groups.maker();
                chosen.write(
                    order.len(),
                    &|at| &rings[order[at].1 as usize],
                    &|at, row: &HeldRow, key| {
                        maker.sortable(order[at].0, key)?;
                        let group = key.len();
                        append(&(!row.row).to_be_bytes(), key)?;
                        end_group(key, group)
                    },
                )
            }
        }
    }

    fn take(&mut self, chosen: &mut Chosen, batch: &Batch<'_>, from: usize, rows: usize, piece: u32) -> Result<()> {
        // What the budget refuses is within; what the arena refuses comes again in a larger one, and nothing happens twice.
        let (extra, scratch) = (&mut chosen.extra, &mut chosen.scratch);
        let longest = scratch.with(|arena| {
            let Some(groups) = &mut self.groups else {
                return Ok(self.keep(None, rows, piece, extra).map(|()| 0));
            };
            let block = batch.slice(from, rows, arena)?;
            let ids = arena.fill(rows, 0u32)?;
            let numbered = groups.number(&block, ids).and_then(|()| longest_key(&block));
            let kept = numbered.and_then(|longest| self.keep(Some(&*ids), rows, piece, extra).map(|()| longest));
            Ok(kept)
        })??;
        chosen.copy(batch, from, rows, &self.indices, longest)
    }

    /// The last rows of each group go into the rings; `indices` names them.
    fn keep(&mut self, ids: Option<&[u32]>, rows: usize, piece: u32, extra: &mut Reservation) -> Result<()> {
        let groups = ids.map_or(1, |ids| ids.iter().max().map_or(0, |&id| id as usize + 1));
        if groups > self.rings.len() {
            let more = groups - self.rings.len();
            grow(&mut self.rings, more, extra)?;
            grow(&mut self.marks, more, extra)?;
            if ids.is_some() {
                extra.grow(more * Groups::ORDER_BYTES)?;
            }
            self.rings.resize_with(groups, Vec::new);
            self.marks.resize(groups, Mark::default());
        }
        self.blocks += 1;
        let group = |row: usize| ids.map_or(0, |ids| ids[row] as usize);
        // From behind, as many of each group as there is room for.
        self.indices.clear();
        for row in (0..rows).rev() {
            let mark = &mut self.marks[group(row)];
            if mark.block != self.blocks {
                (mark.block, mark.taken) = (self.blocks, 0);
            }
            if mark.taken < self.rows {
                mark.taken += 1;
                self.indices.push(row as u32);
            } else if ids.is_none() {
                break;
            }
        }
        self.indices.reverse();
        for (number, &row) in (0u32..).zip(&self.indices) {
            let group = group(row as usize);
            let new = HeldRow {
                rank: 0,
                row: self.seen + u64::from(row),
                at: (piece, number),
            };
            let (ring, mark) = (&mut self.rings[group], &mut self.marks[group]);
            if ring.len() < self.rows {
                grow(ring, 1, extra)?;
                ring.push(new);
                self.held += 1;
            } else {
                ring[mark.next] = new;
                mark.next = (mark.next + 1) % self.rows;
            }
        }
        Ok(())
    }

    /// The rows of piece `piece`, which is not there, leave the rings.
    fn forget(&mut self, chosen: &mut Chosen, piece: u32) {
        for (ring, mark) in self.rings.iter_mut().zip(&mut self.marks) {
            if ring.iter().any(|row| row.at.0 == piece) {
                ring.rotate_left(mark.next);
                mark.next = 0;
                let before = ring.len();
                ring.retain(|row| row.at.0 != piece);
                self.held -= before - ring.len();
            }
        }
        if self.held == 0 {
            self.clear(chosen);
        }
    }

    /// Gives all memory back but what is set aside.
    fn clear(&mut self, chosen: &mut Chosen) {
        self.rings = vec![];
        self.marks = vec![];
        self.held = 0;
        if let Some(groups) = &mut self.groups {
            groups.clear();
        }
        chosen.clear();
    }
}

/// Bytes of the longest key that a row of a prepared batch may have on disk.
fn longest_key(batch: &Batch<'_>) -> Result<usize> {
    let keys = KeyMaker::read(batch)?;
    let longest = (0..batch.rows()).map(|row| keys.get(row).len()).max();
    Ok(KeyMaker::sortable_bytes(longest.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::stages::codes;
    use proptest::prelude::*;
    use standpipe_sdk::Schema;
    use standpipe_sdk::spec::Item;

    fn columns() -> Schema {
        schema(&[("id", INT), ("k", STRING)])
    }

    fn bound(n: i64, by: &[Item]) -> Bound {
        bind(&Call {
            by,
            ..call(&columns(), 2, &[constant(int(n))])
        })
        .unwrap()
    }

    proptest! {
        #[test]
        fn the_last_rows_of_all_or_of_each_group(
            keys in proptest::collection::vec(0i64..6, 0..90),
            n in 0i64..9,
            grouped in any::<bool>(),
            chunk in 0usize..4,
            every in 0usize..9,
        ) {
            let key = |k: i64| if k == 0 { NULL } else { text(&format!("a key of more than twelve bytes {k}")) };
            let rows: Rows = (0..).zip(&keys).map(|(i, &k)| vec![int(i), key(k)]).collect();
            let behind = |at: usize| keys[at + 1..].iter().filter(|&&k| !grouped || k == keys[at]).count();
            let stays: Vec<usize> = (0..rows.len()).filter(|&at| behind(at) < n as usize).collect();
            let want: Rows = stays.iter().map(|&at| rows[at].clone()).collect();
            let by = if grouped { vec![column(1)] } else { vec![] };
            let got = match every {
                0 => run(&bound(n, &by), &columns(), &rows, CHUNKS[chunk]),
                _ => run_spilling(&bound(n, &by), &columns(), &rows, CHUNKS[chunk], every),
            };
            prop_assert_eq!(got.rows, want);
            prop_assert!(got.places.iter().enumerate().all(|(i, place)| place.offset == i as u64));
        }
    }

    fn rows(count: i64) -> Rows {
        let name = |i: i64| text(&format!("a text of some length, to take some room: {}", i % 30));
        (0..count).map(|i| vec![int(i), name(i)]).collect()
    }

    #[test]
    fn memory_grows_with_what_is_asked_for_and_not_with_the_rows() {
        // The rows take 10 MB.
        const COUNT: usize = 100_000;
        let rows = rows(COUNT as i64);
        for (n, by) in [(40, &[][..]), (2, &[column(1)])] {
            let got = try_run(&bound(n, by), &columns(), &rows, 300, 2_500_000).unwrap();
            let count = if by.is_empty() { n } else { 30 * n };
            assert_eq!(got.rows, rows[COUNT - count as usize..]);
        }
        assert_eq!(
            codes_of(bind(&call(&columns(), 2, &[constant(int(-1))]))),
            [codes::WRONG_ARGUMENT]
        );
    }

    #[test]
    fn what_does_not_fit_goes_to_disk_and_what_is_too_old_is_given_up_there() {
        let rows = rows(100_000);
        let mut refused = 0;
        for limit in (300_000..6_000_000).step_by(900_000) {
            let by = [column(1)];
            for (n, by, stay) in [
                (60_000, &[][..], 60_000),
                (2000, &by, 30 * 2000),
                (200_000, &by, 100_000),
            ] {
                let want = &rows[100_000 - stay..];
                match try_run(&bound(n, by), &columns(), &rows, 300, limit) {
                    Ok(got) => {
                        let other = got.rows.iter().zip(want).position(|(a, b)| a != b);
                        assert!(
                            got.rows.len() == want.len() && other.is_none(),
                            "{limit}: {n} {other:?}"
                        );
                    }
                    Err(error) => {
                        refused += 1;
                        assert!(limit < 1_500_000, "{limit}: {error}");
                        assert!(error.to_string().contains("`tail` needs"), "{error}");
                    }
                }
            }
        }
        assert!(refused > 0);
        let disk = std::sync::Arc::new(standpipe_sdk::Disk::new(std::env::temp_dir(), None).spill_rows(Some(500)));
        let setup = Setup {
            spill: standpipe_sdk::Spill::new(disk.clone()),
            ..setup(8 << 20)
        };
        let Make::Serial(make) = &bound(3000, &[]).make else {
            panic!("serial")
        };
        let mut tail = make(&setup).unwrap();
        for rows in rows.chunks(500) {
            let arena = Arena::new(1 << 20);
            let batch = super::super::values::batch(&columns(), rows, &arena).unwrap();
            tail.step(batch, &arena, &Faults::new(&arena, true)).unwrap();
        }
        let (written, left) = (setup.spill.done().written_bytes, disk.used());
        assert!(written > 0 && left < written / 4, "{left} of {written}");
    }

    #[test]
    fn lists_that_take_all_that_is_set_aside_for_them_can_be_written() {
        let wide = text(&"long ".repeat(80));
        // Half, all and twice of what is set aside.
        for count in [4000, 8000, 16_000] {
            let setup = setup(96 << 20);
            let Make::Serial(make) = &bound(30_000, &[]).make else {
                panic!("serial")
            };
            let mut tail = make(&setup).unwrap();
            let mut step = |ids: std::ops::Range<i64>| {
                let arena = Arena::new(32 << 20);
                let rows: Rows = ids.map(|id| vec![int(id), wide.clone()]).collect();
                let batch = super::super::values::batch(&columns(), &rows, &arena).unwrap();
                tail.step(batch, &arena, &Faults::new(&arena, true)).map(drop)
            };
            step(0..count).unwrap();
            let mut other = setup.budget.reserve();
            other.grow(setup.budget.free()).unwrap();
            step(count..count + 12_000).unwrap();
            assert!(setup.spill.done().segments > 0, "{count}");
        }
    }

    #[test]
    fn rows_that_could_not_be_written_are_still_the_last_ones() {
        let columns = columns();
        for by in [&[][..], &[column(1)]] {
            let disk = std::sync::Arc::new(standpipe_sdk::Disk::new(std::env::temp_dir(), Some(1)));
            let setup = Setup {
                spill: standpipe_sdk::Spill::new(disk),
                ..setup(16 << 20)
            };
            let call = call(&columns, 2, &[]);
            let mut last = Last {
                rows: 5,
                groups: (!by.is_empty()).then(|| Groups::new("tail", KeyMaker::of(&call, &[1]), &setup.budget)),
                rings: vec![],
                marks: vec![],
                held: 0,
                seen: 0,
                blocks: 0,
                indices: vec![],
                on_disk: 0,
            };
            let mut chosen = Chosen::new("tail", 2, &setup).unwrap();
            let step = |last: &mut Last, chosen: &mut Chosen, ids: std::ops::Range<i64>| {
                let arena = Arena::new(1 << 20);
                let rows: Rows = ids.map(|id| vec![int(id), text("one")]).collect();
                let batch = super::super::values::batch(&columns, &rows, &arena).unwrap();
                let batch = match &last.groups {
                    Some(groups) => groups.prepared(batch, &arena).unwrap(),
                    None => batch,
                };
                chosen.take(last, &batch).unwrap();
            };
            // The first rows of the ring are the newest.
            step(&mut last, &mut chosen, 0..5);
            step(&mut last, &mut chosen, 5..8);
            assert!(last.spill(&mut chosen).is_err());
            step(&mut last, &mut chosen, 8..10);
            let mut rows: Vec<u64> = last.rings[0].iter().map(|row| row.row).collect();
            rows.sort_unstable();
            assert_eq!(rows, [5, 6, 7, 8, 9]);
        }
    }

    #[test]
    fn rows_of_every_length_are_kept_in_a_small_memory() {
        let lens = [0, 5, 40, 3_000, 30_000, 10, 60_000, 1];
        let name = |i: i64| text(&format!("{:03}", i * 37 % 400).repeat(lens[i as usize % 8]));
        let rows: Rows = (0..400).map(|i| vec![int(i), name(i)]).collect();
        for (n, by) in [(300, &[][..]), (1, &[column(1)])] {
            let got = try_run(&bound(n, by), &columns(), &rows, 13, 8 << 20).unwrap();
            let want = run(&bound(n, by), &columns(), &rows, 13);
            assert!(got.rows == want.rows && want.rows.len() > 200, "{n}");
        }
    }

    #[test]
    fn what_the_plan_says_is_set_aside() {
        for by in [&[][..], &[column(1)]] {
            let setup = setup(16 << 20);
            let Make::Serial(make) = &bound(3, by).make else {
                panic!("serial")
            };
            let tail = make(&setup).unwrap();
            let least = (SPEC.least)(&standpipe_sdk::spec::Room {
                bytes: 16 << 20,
                share: setup.share,
                workers: 2,
                max_record: setup.max_record,
                columns: 2,
            });
            let (used, floor) = (setup.budget.used(), least.takes + least.gives);
            assert!((floor - (16 << 20) / 256..=floor).contains(&used), "{used} {floor}");
            drop(tail);
            assert_eq!(setup.budget.used(), 0);
        }
    }
}
