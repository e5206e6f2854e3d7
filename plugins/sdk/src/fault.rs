//! Bad rows of a batch, as a stage or expression finds them. What becomes of them is the script's policy.

use crate::arena::Arena;
use crate::build::format_in;
use crate::error::{Code, Result, Span};
use std::cell::Cell;
use std::fmt;

/// One bad row.
#[derive(Clone, Copy, Debug)]
pub struct Fault<'a> {
    /// Row of the input batch.
    pub row: u32,
    pub code: Code,
    /// The expression at fault; `None` = the whole stage.
    pub span: Option<Span>,
    /// The column at fault, if one is.
    pub column: Option<&'a str>,
    pub message: &'a str,
    pub help: Option<&'a str>,
    /// Byte in the source, where it is known better than the row's place.
    pub byte: Option<u64>,
    /// The whole record is bad (ragged, not JSON, not UTF-8): there is no cell that could be made null.
    pub record: bool,
}

/// Whether the policy wants further rows after a bad one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The row is out; go on with the others.
    On,
    /// The run ends here: rows before this one may still be emitted, none behind it.
    Stop,
}

struct Node<'a> {
    fault: Fault<'a>,
    earlier: Option<&'a Node<'a>>,
}

impl Clone for Node<'_> {
    fn clone(&self) -> Self {
        *self
    }
}
impl Copy for Node<'_> {}

/// The bad rows found so far in one batch, kept in its arena.
pub struct Faults<'a> {
    arena: &'a Arena,
    last: Cell<Option<&'a Node<'a>>>,
    count: Cell<usize>,
    stop_at_first: bool,
    /// Room for faults to come, which are not refused.
    room: Cell<&'a mut [Option<Node<'a>>]>,
}

impl<'a> Faults<'a> {
    /// No faults yet. With `stop_at_first` the first one is answered with [`Verdict::Stop`].
    pub fn new(arena: &'a Arena, stop_at_first: bool) -> Self {
        Faults {
            arena,
            last: Cell::new(None),
            count: Cell::new(0),
            stop_at_first,
            room: Cell::new(&mut []),
        }
    }

    /// The same with room for so many faults, for who must not be refused once it has rows to report: [`Self::push`] has room for them.
    ///
    /// # Errors
    /// `Memory` if the arena has no room for them.
    pub fn with_room(arena: &'a Arena, faults: usize, stop_at_first: bool) -> Result<Self> {
        let room = arena.fill(faults, None)?;
        Ok(Faults {
            room: Cell::new(room),
            ..Faults::new(arena, stop_at_first)
        })
    }

    /// Bytes of an arena that [`Self::with_room`] takes for each fault.
    pub const BYTES: usize = size_of::<Option<Node<'a>>>();

    /// Adds a bad row whose message is formatted now.
    ///
    /// # Errors
    /// `Memory` if the arena has no room for the message.
    pub fn report(&self, row: usize, code: Code, span: Option<Span>, message: fmt::Arguments<'_>) -> Result<Verdict> {
        let message = format_in(self.arena, message)?;
        self.push(Fault {
            row: row as u32,
            code,
            span,
            column: None,
            message,
            help: None,
            byte: None,
            record: false,
        })
    }

    /// Adds a bad row.
    pub fn push(&self, fault: Fault<'a>) -> Result<Verdict> {
        let node = Node {
            fault,
            earlier: self.last.get(),
        };
        let node = match self.room.take().split_first_mut() {
            Some((first, rest)) => {
                self.room.set(rest);
                first.insert(node)
            }
            None => self.arena.one(node)?,
        };
        self.last.set(Some(node));
        self.count.set(self.count.get() + 1);
        Ok(if self.stop_at_first { Verdict::Stop } else { Verdict::On })
    }

    /// Whether the policy ends the run at the first bad row.
    pub fn stops(&self) -> bool {
        self.stop_at_first
    }

    /// How many faults there are (a row may have several).
    pub fn len(&self) -> usize {
        self.count.get()
    }

    pub fn is_empty(&self) -> bool {
        self.count.get() == 0
    }

    pub fn arena(&self) -> &'a Arena {
        self.arena
    }

    /// Takes all faults away again: `catch` does.
    pub fn clear(&self) {
        self.last.set(None);
        self.count.set(0);
    }

    /// Every fault, the newest first.
    pub fn iter(&self) -> impl Iterator<Item = &'a Fault<'a>> {
        let mut next = self.last.get();
        std::iter::from_fn(move || {
            let node = next?;
            next = node.earlier;
            Some(&node.fault)
        })
    }

    /// The first fault of each bad row, by row.
    pub fn by_row(&self) -> Result<&'a [&'a Fault<'a>]> {
        self.by_row_in(self.arena)
    }

    /// The same, in another arena: this one may be full.
    pub fn by_row_in<'b>(&self, arena: &'b Arena) -> Result<&'b [&'a Fault<'a>]> {
        let Some(newest) = self.last.get() else { return Ok(&[]) };
        let mut faults = self.iter();
        let all = arena.collect(self.len(), |_| faults.next().unwrap_or(&newest.fault))?;
        all.reverse();
        // Stable without a heap buffer: ties keep the order of reporting through the index in the key.
        let order = arena.collect(all.len(), |i| (all[i].row, i as u32))?;
        order.sort_unstable();
        let mut kept = 0;
        for i in 0..order.len() {
            if kept == 0 || order[kept - 1].0 != order[i].0 {
                order[kept] = order[i];
                kept += 1;
            }
        }
        Ok(arena.collect(kept, |i| all[order[i].1 as usize])?)
    }

    /// The least bad row, if there is one.
    pub fn first_row(&self) -> Option<usize> {
        self.iter().map(|f| f.row as usize).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_keeps_its_first_fault() {
        let arena = Arena::new(1 << 16);
        let faults = Faults::new(&arena, false);
        for (row, text) in [(3, "a"), (1, "b"), (3, "c"), (0, "d"), (1, "e")] {
            assert_eq!(
                faults.report(row, Code(412), None, format_args!("{text}")).unwrap(),
                Verdict::On
            );
        }
        let rows: Vec<(u32, &str)> = faults.by_row().unwrap().iter().map(|f| (f.row, f.message)).collect();
        assert_eq!(rows, [(0, "d"), (1, "b"), (3, "a")]);
        assert_eq!(faults.first_row(), Some(0));
    }

    #[test]
    fn faults_that_have_room_are_not_refused() {
        let arena = Arena::new(1 << 16);
        let faults = Faults::with_room(&arena, 3, false).unwrap();
        let fault = |row| Fault {
            row,
            code: Code(412),
            span: None,
            column: None,
            message: "a",
            help: None,
            byte: None,
            record: false,
        };
        for row in 0..3 {
            arena.refuse_after(0);
            assert_eq!(faults.push(fault(row)).unwrap(), Verdict::On);
        }
        assert!(faults.push(fault(3)).is_err());
        assert!(faults.push(fault(4)).is_ok());
        arena.refuse_after(usize::MAX);
        let rows: Vec<u32> = faults.by_row().unwrap().iter().map(|f| f.row).collect();
        assert_eq!(rows, [0, 1, 2, 4]);
    }
}
