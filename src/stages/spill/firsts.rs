//! Of sorted rows only the first ones, of all or of each group: what is left of a merge.
//!
//! Laws
//! - Rows of one group stand together, for their keys begin with the group's; how long that is stands in the key's last bytes ([`end_group`]).

use super::super::groups::refused;
use super::merge::{Choose, Picks};
use standpipe_sdk::error::Result;

/// Bytes of the group's length behind a key.
const LENGTH_BYTES: usize = size_of::<u32>();

/// Ends a key whose first `group` bytes are the group's.
///
/// # Errors
/// `Memory` if `key` cannot grow.
pub fn end_group(key: &mut Vec<u8>, group: usize) -> Result<()> {
    key.try_reserve(LENGTH_BYTES).map_err(|_| refused(LENGTH_BYTES))?;
    key.extend_from_slice(&(group as u32).to_be_bytes());
    Ok(())
}

fn group_of(key: &[u8]) -> &[u8] {
    let length = key.last_chunk::<LENGTH_BYTES>().map_or(0, |b| u32::from_be_bytes(*b));
    key.get(..length as usize).unwrap_or(key)
}

/// Counts rows in their order.
pub struct Firsts {
    most: u64,
    /// The group that is counted; `None`: all rows are one.
    group: Option<Vec<u8>>,
    count: u64,
}

impl Firsts {
    /// The first `most` rows of all, or of each group.
    pub fn new(most: u64, grouped: bool) -> Firsts {
        Firsts {
            most,
            group: grouped.then(Vec::new),
            count: 0,
        }
    }
}

impl Choose for Firsts {
    fn is_over(&self) -> bool {
        self.group.is_none() && self.count >= self.most
    }

    fn choose(&mut self, picks: &mut Picks) -> Result<()> {
        let Some(group) = &mut self.group else {
            let left = self.most - self.count;
            picks.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            self.count += picks.len() as u64;
            return Ok(());
        };
        let (most, count) = (self.most, &mut self.count);
        picks.retain(|key| {
            let next = group_of(key);
            if next != group.as_slice() {
                group.clear();
                group.try_reserve(next.len()).map_err(|_| refused(next.len()))?;
                group.extend_from_slice(next);
                *count = 0;
            }
            *count += 1;
            Ok(*count <= most)
        })
    }
}
