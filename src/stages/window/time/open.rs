//! Windows that are open, until they are closed.

use super::Time;
use crate::stages::groups::grow;
use standpipe_sdk::error::{Error, Result};
use standpipe_sdk::{Place, Reservation};
use std::cmp::Reverse;

/// Stands for no window.
pub(super) const NONE: u32 = u32::MAX;

/// A window; its number is that of its states.
pub(super) struct Window {
    pub(super) key: Box<[u8]>,
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) hash: u64,
    /// Sessions of the same key that are open, by their start.
    pub(super) older: u32,
    pub(super) newer: u32,
    /// The window that took its rows over.
    pub(super) into: u32,
    /// It went out, or another one took its rows over.
    pub(super) gone: bool,
    /// Where the row stands that closed it, and its number in its batch.
    pub(super) place: Place,
    pub(super) row: u32,
}

impl Time {
    pub(super) fn find(&self, hash: u64, is: impl Fn(&Window) -> bool) -> Option<u32> {
        let found = self
            .open
            .find(hash, |&(h, at)| h == hash && is(&self.windows[at as usize]));
        found.map(|&(_, at)| at)
    }

    /// A new window, which no table knows.
    pub(super) fn begin(&mut self, hash: u64, key: &[u8], start: i64, end: i64) -> Result<u32> {
        let at = u32::try_from(self.windows.len()).ok().filter(|&at| at != NONE);
        let at = at.ok_or_else(|| no_room(1))?;
        grow(&mut self.windows, 1, &mut self.reservation)?;
        if self.open.len() == self.open.capacity() {
            let before = self.open.allocation_size();
            let slots = (self.open.len() * 2).max(16);
            let most = (slots * 8 / 7 + 1).next_power_of_two() * (size_of::<(u64, u32)>() + 1) + 64;
            self.reservation.grow(most)?;
            if self
                .open
                .try_reserve(slots - self.open.len(), |&(hash, _)| hash)
                .is_err()
            {
                self.reservation.shrink(most);
                return Err(no_room(most));
            }
            let after = self.open.allocation_size();
            self.reservation.shrink((before + most).saturating_sub(after));
        }
        if self.ends.len() == self.ends.capacity() {
            let more = self.ends.len().max(16);
            let bytes = more * size_of::<Reverse<(i64, u32)>>();
            self.reservation.grow(bytes)?;
            if self.ends.try_reserve_exact(more).is_err() {
                self.reservation.shrink(bytes);
                return Err(no_room(bytes));
            }
        }
        self.reservation.grow(key_bytes(key))?;
        let mut copy = vec![];
        if copy.try_reserve_exact(key.len()).is_err() {
            self.reservation.shrink(key_bytes(key));
            return Err(no_room(key.len()));
        }
        copy.extend_from_slice(key);
        self.windows.push(Window {
            key: copy.into_boxed_slice(),
            hash,
            start,
            end,
            older: NONE,
            newer: NONE,
            into: NONE,
            gone: false,
            place: Place::default(),
            row: 0,
        });
        self.ends.push(Reverse((end, at)));
        Ok(at)
    }

    /// The session of a row. Others that it joins to it are `merged`.
    pub(super) fn session(
        &mut self,
        hash: u64,
        key: &[u8],
        time: i64,
        gap: i64,
        merged: &mut Vec<u32>,
        lent: &mut Reservation,
    ) -> Result<u32> {
        let end = time.saturating_add(gap);
        let head = self.find(hash, |window| *window.key == *key);
        // From the newest one back: most rows belong to that one.
        let (mut newer, mut at) = (NONE, head.unwrap_or(NONE));
        while at != NONE && self.windows[at as usize].start >= end {
            (newer, at) = (at, self.windows[at as usize].older);
        }
        if at == NONE || self.windows[at as usize].end <= time {
            let new = self.begin(hash, key, time, end)?;
            let window = &mut self.windows[new as usize];
            (window.newer, window.older) = (newer, at);
            if at != NONE {
                self.windows[at as usize].newer = new;
            }
            match (newer, head) {
                (NONE, Some(head)) => self.replace(hash, head, new),
                (NONE, None) => _ = self.open.insert_unique(hash, (hash, new), |&(hash, _)| hash),
                (newer, _) => self.windows[newer as usize].older = new,
            }
            return Ok(new);
        }
        let window = &mut self.windows[at as usize];
        window.start = window.start.min(time);
        window.end = window.end.max(end);
        loop {
            let other = self.windows[at as usize].older;
            if other == NONE || self.windows[other as usize].end <= time {
                return Ok(at);
            }
            grow(merged, 1, lent)?;
            merged.push(other);
            let window = &mut self.windows[other as usize];
            let (start, older) = (window.start, window.older);
            (window.into, window.gone) = (at, true);
            let key = std::mem::take(&mut window.key);
            self.reservation.shrink(key_bytes(&key));
            let window = &mut self.windows[at as usize];
            window.start = window.start.min(start);
            window.older = older;
            if older != NONE {
                self.windows[older as usize].newer = at;
            }
        }
    }

    /// The window that has the rows of another one now.
    pub(super) fn settled(&self, mut at: u32) -> u32 {
        while self.windows[at as usize].into != NONE {
            at = self.windows[at as usize].into;
        }
        at
    }

    /// The table knows `new` in place of `old`.
    pub(super) fn replace(&mut self, hash: u64, old: u32, new: u32) {
        if let Some(entry) = self.open.find_mut(hash, |&(_, at)| at == old) {
            entry.1 = new;
        }
    }

    /// Closes the windows that end up to `mark`, by end, then by key. `place` says where an end is passed: the place, the row of the batch.
    pub(super) fn close(&mut self, mark: i64, place: impl Fn(i64) -> (Place, u32)) -> Result<()> {
        let before = self.closed.len();
        while let Some(&Reverse((end, at))) = self.ends.peek().filter(|Reverse((end, _))| *end <= mark) {
            self.ends.pop();
            let window = &mut self.windows[at as usize];
            if window.gone {
                continue;
            }
            if window.end > end {
                self.ends.push(Reverse((window.end, at)));
                continue;
            }
            (window.place, window.row) = place(end);
            let (hash, older, newer) = (window.hash, window.older, window.newer);
            if older != NONE {
                self.windows[older as usize].newer = newer;
            }
            if newer != NONE {
                self.windows[newer as usize].older = older;
            } else if older != NONE {
                self.replace(hash, at, older);
            } else if let Ok(entry) = self.open.find_entry(hash, |&(_, known)| known == at) {
                entry.remove();
            }
            if self.closed.len() == self.closed.capacity() {
                let more = self.closed.len().max(16);
                self.reservation.grow(more * size_of::<u32>())?;
                if self.closed.try_reserve_exact(more).is_err() {
                    self.reservation.shrink(more * size_of::<u32>());
                    return Err(no_room(more * size_of::<u32>()));
                }
            }
            self.closed.push_back(at);
        }
        let windows = &self.windows;
        let key = |at: &u32| {
            let window = &windows[*at as usize];
            (window.end, &window.key)
        };
        let new = &mut self.closed.make_contiguous()[before..];
        new.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
        // Several that one row closes stand behind one another.
        for &at in &*new {
            let place = &mut self.windows[at as usize].place;
            if let Some(last) = self.last_place
                && (last.source, last.offset) == (place.source, place.offset)
            {
                place.sub = place.sub.max(last.sub.saturating_add(1));
            }
            self.last_place = Some(*place);
        }
        Ok(())
    }
}

/// What a key takes beside its window.
pub(super) fn key_bytes(key: &[u8]) -> usize {
    key.len() + 16
}

fn no_room(wanted: usize) -> Error {
    Error::Memory {
        wanted,
        used: 0,
        limit: usize::MAX,
    }
}
