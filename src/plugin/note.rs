//! The description that a library carries (`STANDPIPEMETA1{json}`): read from its bytes, without running it.

use serde::Deserialize;
use serde_json::Value as Json;

/// What stands before the description.
const MARK: &[u8] = b"STANDPIPEMETA1{";

/// A library's own words. They are believed only to refuse it early: what counts is what its entry function gives.
#[derive(Clone, Debug, Deserialize)]
pub struct Note {
    /// `org.example.geo`
    pub id: String,
    #[serde(default)]
    pub version: String,
    /// Major and minor.
    pub abi: [u32; 2],
    /// Machine and system: `x86_64 linux`.
    #[serde(default)]
    pub target: Option<String>,
    #[serde(default)]
    pub license: String,
    #[serde(default)]
    pub stages: Vec<NoteStage>,
}

/// A stage or function in a [`Note`].
#[derive(Clone, Debug, Deserialize)]
pub struct NoteStage {
    pub name: String,
    /// transform, function, …
    pub kind: String,
    #[serde(default)]
    pub about: String,
    /// As in the header; `null` = it takes nothing.
    #[serde(default)]
    pub params: Json,
    /// Of a function expressions that are true, of others whole scripts.
    #[serde(default)]
    pub examples: Vec<String>,
    /// What those scripts print, as CSV.
    #[serde(default)]
    pub prints: Vec<String>,
}

impl Note {
    /// The name that scripts use: the last word of the id.
    pub fn name(&self) -> &str {
        self.id.rsplit('.').next().unwrap_or(&self.id)
    }
}

/// The description in a library's bytes, if there is one that can be read.
pub(super) fn find(bytes: &[u8]) -> Option<Note> {
    memchr::memmem::find_iter(bytes, MARK).find_map(|at| {
        let json = &bytes[at + MARK.len() - 1..];
        serde_json::Deserializer::from_slice(json)
            .into_iter::<Note>()
            .next()?
            .ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_stands_anywhere_and_broken_ones_are_passed_over() {
        let text =
            br#"junk STANDPIPEMETA1{"id": 3} STANDPIPEMETA1{"id": "org.example.geo", "abi": [1, 0], "more": {}}junk"#;
        let note = find(text).unwrap();
        assert_eq!((note.name(), note.abi), ("geo", [1, 0]));
        assert!(find(b"STANDPIPEMETA1{\"id\": \"x\"").is_none());
        assert!(find(b"STANDPIPEMETA1").is_none());
    }
}
