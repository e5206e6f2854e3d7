//! The columns at one point of a pipeline, as far as they are known.
//!
//! After a mistake the check goes on with the best that is known. What is only a guess is marked, and nothing that depends on
//! a guess is reported: it would be noise.

use crate::diag::suggest;
use standpipe_sdk::{Field, Schema};
use std::collections::BTreeSet;

/// Columns, and how far they can be trusted.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    pub(super) fields: Vec<Field>,
    /// Per field: its type is a guess.
    pub(super) guessed: Vec<bool>,
    /// Names that an argument with a mistake would have made.
    pub(super) missing: BTreeSet<String>,
    /// A whole stage or source had a mistake: any column may be there.
    pub(super) unknown: bool,
}

/// What a name is among the columns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lookup {
    Column(usize),
    /// It may be there: say nothing.
    Guess,
    Missing,
}

impl Rows {
    /// Columns that are known.
    pub(super) fn known(schema: &Schema) -> Rows {
        Rows {
            fields: schema.fields().to_vec(),
            guessed: vec![false; schema.width()],
            ..Rows::default()
        }
    }

    /// Nothing is known.
    pub(super) fn unknown() -> Rows {
        Rows {
            unknown: true,
            ..Rows::default()
        }
    }

    /// The column called `name`.
    pub(super) fn find(&self, name: &str) -> Lookup {
        match self.fields.iter().position(|field| &*field.name == name) {
            Some(index) if self.is_guess(index) => Lookup::Guess,
            Some(index) => Lookup::Column(index),
            None if self.unknown || self.missing.contains(name) => Lookup::Guess,
            None => Lookup::Missing,
        }
    }

    /// Whether the type of a column is a guess.
    pub(super) fn is_guess(&self, index: usize) -> bool {
        self.guessed.get(index).copied().unwrap_or(true)
    }

    pub(super) fn schema(&self) -> Schema {
        self.fields.iter().cloned().collect()
    }

    /// The column nearest to a name that is not there.
    pub(super) fn nearest(&self, name: &str) -> Option<&str> {
        suggest(name, self.fields.iter().map(|field| &*field.name))
    }

    /// `rows here have …`, for a note.
    pub(super) fn note(&self) -> String {
        const MOST: usize = 12;
        if self.fields.is_empty() {
            return "rows here have no columns".to_owned();
        }
        let shown: Vec<String> = self
            .fields
            .iter()
            .take(MOST)
            .map(|field| format!("`{field}`"))
            .collect();
        let more = self.fields.len().saturating_sub(MOST);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        format!("rows here have {}{more}", shown.join(", "))
    }
}
