//! What a script says about itself, for `--help` and for hosts that ask for its parameters.

use super::Pipeline;
use crate::diag::Span;
use crate::syntax::{self, ast::ItemKind};

/// A script's own words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct About {
    /// The `##` block at its top.
    pub doc: Option<String>,
    /// In the order of the text.
    pub params: Vec<AboutParam>,
}

/// A parameter as it is declared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AboutParam {
    pub name: String,
    /// `date`, or the values it may have: `"gold" | "free"`.
    pub takes: String,
    /// As written; without one the parameter must be given.
    pub default: Option<String>,
    /// The `##` lines above it.
    pub doc: Option<String>,
}

impl Pipeline {
    /// What the script says about itself and its parameters.
    pub fn about(&self) -> About {
        let parsed = syntax::parse(&self.text);
        let text = |span: Span| span.of(&self.text).to_owned();
        let param = |item: &syntax::ast::Item| {
            let ItemKind::Param(param) = &item.kind else {
                return None;
            };
            let choices: Vec<String> = param.choices.iter().map(|choice| text(choice.span)).collect();
            Some(AboutParam {
                name: param.name.text.to_string(),
                takes: param.ty.as_ref().map_or(choices.join(" | "), |ty| text(ty.span)),
                default: param.default.as_ref().map(|default| text(default.span)),
                doc: item.doc.clone(),
            })
        };
        About {
            doc: parsed.script.doc.clone(),
            params: parsed.script.items.iter().filter_map(param).collect(),
        }
    }
}
