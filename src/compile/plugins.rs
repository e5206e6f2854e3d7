//! `use plugin geo`, and the names behind its dot.

use super::expressions::Aggregates;
use super::report::{Checker, code_text};
use crate::diag::{Diagnostic, Span, suggest};
use crate::expr::{AggregateSpec, FunctionSpec};
use crate::plugin::{Library, Refusal};
use crate::syntax::ast::{Ident, StageCall, Str};
use standpipe_sdk::spec::StageSpec;

impl<'a> Checker<'a> {
    /// The plugin that a `use` names; nothing once it was said why it is not used.
    pub(super) fn use_plugin(
        &self,
        name: &'a Ident,
        version: Option<&'a Str>,
        alias: &'a str,
    ) -> Option<&'static Library> {
        match self
            .options
            .plugins
            .open(&name.text, version.map(|version| version.value.as_str()))
        {
            Ok(library) => {
                self.names.borrow_mut().plugins.insert(alias, library);
                Some(library)
            }
            Err(Refusal { code, message, help }) => {
                let mut diagnostic = Diagnostic::error(code_text(code), name.span, message)
                    .labelled("this plugin cannot be used")
                    .help_if(help);
                if self.options.testing.is_some() {
                    diagnostic = diagnostic.note(format!(
                        "a test does without it if `with {alias}.NAME = table {{ … }}` stands for each NAME that it needs"
                    ));
                }
                self.report(diagnostic);
                None
            }
        }
    }

    /// A script that says itself where a library is.
    pub(super) fn plugin_path(&self, path: &Str) {
        let stem = path
            .value
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .split('.')
            .next()
            .unwrap_or_default();
        let name = stem.strip_prefix("lib").unwrap_or(stem);
        self.report(
            Diagnostic::error("E0802", path.span, "a script cannot say where a plugin is")
                .labelled("a library")
                .help(format!(
                    "`use plugin {name}`, with `[plugins.{name}]` and `path = \"{}\"` in `standpipe.toml`, then `standpipe plugin lock`",
                    path.value
                )),
        );
    }

    /// The plugin that a name before a dot means. In a test it is not opened before something needs it.
    pub(super) fn plugin(&self, name: &Ident) -> Option<&'static Library> {
        let names = self.names.borrow();
        if let Some(library) = names.plugins.get(name.text.as_str()) {
            return Some(library);
        }
        let (alias, (plugin, version)) = names.unopened.get_key_value(name.text.as_str())?;
        let (alias, plugin, version) = (*alias, *plugin, *version);
        drop(names);
        self.use_plugin(plugin, version, alias)
    }

    /// The spec of `geo.locate`.
    pub(super) fn plugin_stage(&self, module: &Ident, name: &Ident) -> Option<&'static StageSpec> {
        if self.plugged(module, name).is_some() {
            return None;
        }
        self.plugin(module)?.stage(&name.text)
    }

    /// Says that a plugin has no such stage; nothing if the name before the dot is no plugin.
    pub(super) fn plugin_stage_missing(&self, call: &StageCall) -> bool {
        let [module, name] = call.name.as_slice() else {
            return false;
        };
        let Some(library) = self.plugin(module) else {
            return false;
        };
        let full = call.full_name();
        let end = if library.source(&name.text).is_some() {
            Some(("starts", "a source", "read"))
        } else if library.sink(&name.text).is_some() {
            Some(("ends", "a sink", "write"))
        } else {
            None
        };
        if let Some((does, what, verb)) = end {
            self.report(
                Diagnostic::error("E0124", call.name_span(), format!("`{full}` {does} a pipeline"))
                    .labelled(format!("{what}, not a stage"))
                    .help(format!("`{verb} {full} …`")),
            );
            return true;
        }
        self.member_missing(
            "stage",
            library,
            name,
            call.name_span(),
            library.stages(),
            library.functions().chain(library.aggregates()),
        );
        true
    }

    /// The source `synth.rows`, or nothing once its absence is reported.
    pub(super) fn plugin_source(&self, module: &Ident, name: &Ident) -> Option<&'static StageSpec> {
        let Some(library) = self.plugin(module) else {
            self.unknown_module(module);
            return None;
        };
        let found = library.source(&name.text);
        if found.is_none() {
            let span = module.span.to(name.span);
            self.member_missing("source", library, name, span, library.sources(), library.stages());
        }
        found
    }

    /// The sink `geo.features`, or nothing once its absence is reported.
    pub(super) fn plugin_sink(&self, module: &Ident, name: &Ident) -> Option<&'static StageSpec> {
        let Some(library) = self.plugin(module) else {
            self.unknown_module(module);
            return None;
        };
        let found = library.sink(&name.text);
        if found.is_none() {
            let span = module.span.to(name.span);
            self.member_missing("sink", library, name, span, library.sinks(), library.stages());
        }
        found
    }

    /// The aggregate `quantiles.quantile`, if there is one.
    pub(super) fn plugin_aggregate(&self, module: &Ident, name: &Ident) -> Option<&'static AggregateSpec> {
        self.plugin(module)?.aggregate(&name.text)
    }

    /// The function `geo.distance`, or nothing once its absence is reported.
    pub(super) fn plugin_function(
        &self,
        module: &Ident,
        name: &Ident,
        aggregates: Aggregates<'_>,
    ) -> Option<&'static FunctionSpec> {
        let library = self.plugin(module)?;
        let found = library.function(&name.text);
        if found.is_none() {
            let span = module.span.to(name.span);
            let here = matches!(aggregates, Aggregates::Here(_)) && library.aggregates().next().is_some();
            let (what, combining) = match here && library.functions().next().is_none() {
                true => ("aggregate", usize::MAX),
                false => ("function", if here { usize::MAX } else { 0 }),
            };
            let known = library.functions().chain(library.aggregates().take(combining));
            self.member_missing(what, library, name, span, known, library.stages());
        }
        found
    }

    fn member_missing(
        &self,
        what: &str,
        library: &Library,
        name: &Ident,
        span: Span,
        known: impl Iterator<Item = &'static str>,
        others: impl Iterator<Item = &'static str>,
    ) {
        let (code, other) = match what {
            "stage" if library.aggregate(&name.text).is_some() => ("E0206", "aggregate"),
            "stage" => ("E0206", "function"),
            "source" | "sink" => ("E0217", "stage"),
            _ => ("E0205", "stage"),
        };
        let known: Vec<&str> = known.collect();
        let mut diagnostic = Diagnostic::error(
            code,
            span,
            format!("plugin `{}` has no {what} `{}`", library.name, name.text),
        );
        diagnostic = match suggest(&name.text, known.iter().copied()) {
            Some(near) => diagnostic.labelled(format!("`{near}` is close")),
            None if others.into_iter().any(|other| other == name.text) => {
                let article = if other == "aggregate" { "an" } else { "a" };
                diagnostic.labelled(format!("it has {article} {other} of this name"))
            }
            None => diagnostic.labelled("not there"),
        };
        if !known.is_empty() {
            diagnostic = diagnostic.note(format!(
                "{what}s of `{}`: {}",
                library.name,
                crate::diag::list_names(&known, 20)
            ));
        }
        self.report(diagnostic);
    }
}
