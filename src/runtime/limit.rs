//! `limit:` of an `on error`: judged row by row in input order, so that no cut of the input changes the verdict.

use crate::graph::Limit;
use crate::runtime::lane::Chunk;
use crate::runtime::turnstile::Turnstile;
use standpipe_sdk::{Locator, Place, Result};
use std::sync::{Mutex, PoisonError};

/// A percentage is judged from this row on, and at the end.
const JUDGED_FROM: u64 = 10_000;

/// The counts of one limited stage, shared by the lanes.
pub(crate) struct Gate {
    limit: Limit,
    turn: Turnstile,
    seen: Mutex<Seen>,
}

/// What came so far.
#[derive(Default)]
struct Seen {
    rows: u64,
    bad: u64,
    /// The last bad row before a share is judged for the first time: its chunk is gone by then.
    last: Spot,
}

/// Where a row was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Spot {
    pub source: Option<String>,
    pub line: Option<u64>,
}

impl Spot {
    fn at(place: Place, locator: &Locator<'_>) -> Spot {
        let path = locator.path_of(place);
        Spot {
            source: (!path.is_empty()).then(|| path.to_string()),
            line: locator.line_of(place),
        }
    }
}

/// What passed a gate too much.
#[derive(Debug, PartialEq)]
pub(crate) struct TooMany {
    /// Where it passed it, in the order of the rows.
    pub place: Place,
    /// The bad row to tell of.
    pub spot: Spot,
    pub bad: u64,
    pub rows: u64,
}

impl Gate {
    pub(crate) fn new(limit: Limit) -> Self {
        Gate {
            limit,
            turn: Turnstile::default(),
            seen: Mutex::default(),
        }
    }

    /// Whether it wants to know where the rows of a chunk stand: for the one at which a share is judged first.
    pub(crate) fn wants_places(&self) -> bool {
        let rows = || self.seen.lock().unwrap_or_else(PoisonError::into_inner).rows;
        matches!(self.limit, Limit::Percent(_)) && rows() < JUDGED_FROM
    }

    /// Adds one chunk: `rows` rows, of which those at `bad` (rows of the chunk by then, place), ascending, were bad.
    pub(crate) fn chunk(
        &self,
        chunk: &Chunk<'_>,
        rows: u64,
        places: &[Place],
        bad: &[(u64, Place)],
    ) -> Result<Option<TooMany>> {
        self.turn.wait(chunk.ticket, &chunk.run.dead)?;
        let verdict = self.judge(rows, places, bad, &chunk.locator);
        self.turn.leave(chunk.ticket.next(chunk.last_part));
        Ok(verdict)
    }

    /// Adds rows behind the last chunk.
    pub(crate) fn add(
        &self,
        rows: u64,
        places: &[Place],
        bad: &[(u64, Place)],
        locator: &Locator<'_>,
    ) -> Option<TooMany> {
        self.judge(rows, places, bad, locator)
    }

    fn judge(&self, rows: u64, places: &[Place], bad: &[(u64, Place)], locator: &Locator<'_>) -> Option<TooMany> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (rows_before, bad_before) = (seen.rows, seen.bad);
        (seen.rows, seen.bad) = (rows_before + rows, bad_before + bad.len() as u64);
        for (i, &(rows, place)) in bad.iter().enumerate() {
            let (rows, bad) = (rows_before + rows, bad_before + i as u64 + 1);
            let exceeded = match self.limit {
                Limit::Count(most) => bad > most,
                Limit::Percent(most) => rows >= JUDGED_FROM && bad as f64 * 100.0 > rows as f64 * most,
            };
            if exceeded {
                let spot = Spot::at(place, locator);
                return Some(TooMany { place, spot, bad, rows });
            }
        }
        // A share can also be too high when row 10,000 arrives without being bad itself.
        if let Limit::Percent(most) = self.limit
            && rows_before < JUDGED_FROM
        {
            let at = JUDGED_FROM - rows_before;
            let until = bad.partition_point(|(rows, _)| *rows <= at);
            if let Some(&(_, place)) = bad[..until].last() {
                seen.last = Spot::at(place, locator);
            }
            let bad_then = bad_before + until as u64;
            if rows >= at && bad_then as f64 * 100.0 > JUDGED_FROM as f64 * most {
                return Some(TooMany {
                    place: places.get(at as usize - 1).copied().unwrap_or_default(),
                    spot: seen.last.clone(),
                    bad: bad_then,
                    rows: JUDGED_FROM,
                });
            }
        }
        None
    }

    /// The verdict after the last row.
    pub(crate) fn end(&self) -> Option<TooMany> {
        let Seen { rows, bad, .. } = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match self.limit {
            Limit::Percent(most) if bad > 0 && bad as f64 * 100.0 > rows as f64 * most => Some(TooMany {
                place: Place::default(),
                spot: Spot::default(),
                bad,
                rows,
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(limit: Limit, bad_rows: &[u64], rows: u64, chunk: u64) -> Option<(u64, u64, u64)> {
        let gate = Gate::new(limit);
        let mut at = 0;
        while at < rows {
            let n = chunk.min(rows - at);
            let places: Vec<Place> = (at..at + n)
                .map(|offset| Place {
                    offset,
                    ..Place::default()
                })
                .collect();
            let bad: Vec<(u64, Place)> = bad_rows
                .iter()
                .filter(|&&r| (at..at + n).contains(&r))
                .map(|&r| {
                    (
                        r - at + 1,
                        Place {
                            offset: r,
                            ..Place::default()
                        },
                    )
                })
                .collect();
            if let Some(t) = gate.judge(n, &places, &bad, &Locator::default()) {
                return Some((t.bad, t.rows, t.place.offset));
            }
            at += n;
        }
        gate.end().map(|t| (t.bad, t.rows, t.place.offset))
    }

    #[test]
    fn the_verdict_does_not_depend_on_the_cut() {
        let many: Vec<u64> = (0..300).map(|i| i * 30).collect();
        for chunk in [1, 7, 1000, 100_000] {
            assert_eq!(verdict(Limit::Count(2), &[5, 9, 70], 100, chunk), Some((3, 71, 70)));
            assert_eq!(verdict(Limit::Count(3), &[5, 9, 70], 100, chunk), None);
            assert_eq!(verdict(Limit::Percent(1.0), &[5], 50, chunk), Some((1, 50, 0)));
            assert_eq!(
                verdict(Limit::Percent(1.0), &many, 20_000, chunk),
                Some((300, 10_000, 9_999))
            );
            assert_eq!(verdict(Limit::Percent(4.0), &many, 20_000, chunk), None);
            assert_eq!(verdict(Limit::Percent(1.0), &[10_500], 20_000, chunk), None);
        }
    }
}
