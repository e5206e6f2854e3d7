//! What a plugin says of itself, written as JSON while it is compiled: it stands in the library's bytes, and nothing of the library
//! has to run for it to be read.
//!
//! Laws
//! - Everything is a `const fn`; the text is written twice, first only to measure it.

use crate::combine::CombineSpec;
use crate::scalar::{Nulls, ScalarSpec};
use crate::spec::{ArgKind, Example, Items, Kind, Memory, Names, Order, StageSpec, Want};

/// What stands before the description.
const MARK: &str = "STANDPIPEMETA1";

/// What `export!` exports.
pub struct Manifest {
    pub id: &'static str,
    pub version: &'static str,
    pub license: &'static str,
    pub functions: &'static [&'static ScalarSpec],
    pub stages: &'static [&'static StageSpec],
    pub aggregates: &'static [&'static CombineSpec],
}

/// Text that is measured (`N` = 0), then written.
struct Out<const N: usize> {
    bytes: [u8; N],
    len: usize,
    /// The next key is the first of its object.
    first: bool,
}

impl<const N: usize> Out<N> {
    const fn new() -> Self {
        Out {
            bytes: [0; N],
            len: 0,
            first: false,
        }
    }

    const fn byte(&mut self, byte: u8) {
        if self.len < N {
            self.bytes[self.len] = byte;
        }
        self.len += 1;
    }

    const fn raw(&mut self, text: &str) {
        let text = text.as_bytes();
        let mut at = 0;
        while at < text.len() {
            self.byte(text[at]);
            at += 1;
        }
    }

    /// In quotes.
    const fn text(&mut self, text: &str) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let bytes = text.as_bytes();
        self.byte(b'"');
        let mut at = 0;
        while at < bytes.len() {
            match bytes[at] {
                b'"' => self.raw("\\\""),
                b'\\' => self.raw("\\\\"),
                b'\n' => self.raw("\\n"),
                control @ 0..=31 => {
                    self.raw("\\u00");
                    self.byte(HEX[(control >> 4) as usize]);
                    self.byte(HEX[(control & 15) as usize]);
                }
                byte => self.byte(byte),
            }
            at += 1;
        }
        self.byte(b'"');
    }

    const fn number(&mut self, number: usize) {
        if number >= 10 {
            self.number(number / 10);
        }
        self.byte(b'0' + (number % 10) as u8);
    }

    const fn open(&mut self) {
        self.byte(b'{');
        self.first = true;
    }

    const fn close(&mut self) {
        self.byte(b'}');
        self.first = false;
    }

    /// `"key":`, behind a comma unless it is the first of its object.
    const fn key(&mut self, key: &str) {
        if !self.first {
            self.byte(b',');
        }
        self.first = false;
        self.text(key);
        self.byte(b':');
    }

    const fn pair(&mut self, key: &str, value: &str) {
        self.key(key);
        self.text(value);
    }

    const fn flag(&mut self, key: &str, value: bool) {
        if value {
            self.key(key);
            self.raw("true");
        }
    }

    const fn comma(&mut self, at: usize) {
        if at > 0 {
            self.byte(b',');
        }
    }

    /// A kind of argument in quotes, or a list of them.
    const fn kind(&mut self, kind: &ArgKind) {
        let (word, want) = match kind {
            ArgKind::Each(kinds) => {
                self.byte(b'[');
                let mut at = 0;
                while at < kinds.len() {
                    self.comma(at);
                    self.kind(&kinds[at]);
                    at += 1;
                }
                self.byte(b']');
                return;
            }
            ArgKind::Column => ("column", Want::Any),
            ArgKind::Key => ("key", Want::Any),
            ArgKind::Word => ("word", Want::Any),
            ArgKind::Words => ("words", Want::Any),
            ArgKind::Type => ("type", Want::Any),
            ArgKind::PerColumn => ("each", Want::Any),
            ArgKind::Expr(want) => ("expr", *want),
            ArgKind::Const(want) => ("const", *want),
            // A host refuses them by these words.
            ArgKind::Stream => ("stream", Want::Any),
            ArgKind::Match => ("match", Want::Any),
            ArgKind::Pairs => ("pairs", Want::Any),
            ArgKind::Aggregate => ("aggregate", Want::Any),
            ArgKind::Spread(_) => ("spread", Want::Any),
            ArgKind::Window => ("window", Want::Any),
            ArgKind::Frame => ("frame", Want::Any),
        };
        self.byte(b'"');
        self.raw(word);
        self.raw(match want {
            Want::Any => "",
            Want::Bool => ":bool",
            Want::Int => ":int",
            Want::Number => ":number",
            Want::String => ":string",
            Want::List => ":list",
            Want::Record => ":record",
            Want::Duration => ":duration",
            Want::Ordered => ":ordered",
        });
        self.byte(b'"');
    }

    const fn items(&mut self, key: &str, items: &Items) {
        if items.max == 0 {
            return;
        }
        self.key(key);
        self.open();
        self.key("arg");
        self.kind(&items.arg);
        self.key("min");
        self.number(items.min);
        self.key("max");
        self.number(items.max);
        match items.names {
            Names::Never => {}
            Names::Optional => self.pair("names", "optional"),
            Names::Always => self.pair("names", "always"),
        }
        self.flag("progressive", items.progressive);
        self.flag("star", items.star);
        self.pair("about", items.about);
        self.close();
    }

    /// `params` of a stage.
    const fn stage(&mut self, spec: &StageSpec) {
        self.open();
        if !spec.modes.is_empty() {
            self.key("modes");
            self.byte(b'[');
            let mut at = 0;
            while at < spec.modes.len() {
                self.comma(at);
                self.text(spec.modes[at]);
                at += 1;
            }
            self.byte(b']');
        }
        if let Some(about) = spec.as_name {
            self.pair("as", about);
        }
        self.items("items", &spec.items);
        self.items("by", &spec.by);
        self.items("on", &spec.on);
        if !spec.options.is_empty() {
            self.key("options");
            self.byte(b'[');
            let mut at = 0;
            while at < spec.options.len() {
                let option = &spec.options[at];
                self.comma(at);
                self.open();
                self.pair("name", option.name);
                self.key("arg");
                self.kind(&option.arg);
                if let Some(default) = option.default {
                    self.pair("default", default);
                }
                self.flag("required", option.required);
                self.pair("about", option.about);
                self.close();
                at += 1;
            }
            self.byte(b']');
        }
        self.pair("memory", spec.memory.word());
        if let Order::Creates = spec.order {
            self.pair("order", "creates");
        }
        self.close();
    }

    /// `params` of a function.
    const fn function(&mut self, spec: &ScalarSpec) {
        self.open();
        self.key("params");
        self.byte(b'[');
        let mut at = 0;
        while at < spec.params.len() {
            let param = &spec.params[at];
            self.comma(at);
            self.open();
            self.pair("name", param.name);
            self.pair("type", param.ty.word());
            if let Some(default) = param.default {
                self.pair("default", default);
            }
            self.close();
            at += 1;
        }
        self.byte(b']');
        self.key("returns");
        self.byte(b'"');
        self.raw(spec.returns.word());
        if spec.nullable || matches!(spec.nulls, Nulls::Own) {
            self.byte(b'?');
        }
        self.byte(b'"');
        self.close();
    }

    /// `params` of an aggregate.
    const fn aggregate(&mut self, spec: &CombineSpec) {
        self.open();
        self.key("params");
        self.byte(b'[');
        let mut at = 0;
        while at < spec.params.len() {
            let param = &spec.params[at];
            self.comma(at);
            self.open();
            self.pair("name", param.name);
            self.pair("type", param.ty);
            if let Some(default) = param.default {
                self.pair("default", default);
            }
            self.close();
            at += 1;
        }
        self.byte(b']');
        self.key("columns");
        self.number(spec.columns());
        self.pair("returns", spec.returns);
        self.close();
    }

    /// Scripts, and what they print.
    const fn scripts(&mut self, examples: &[Example]) {
        self.key("examples");
        self.byte(b'[');
        let mut at = 0;
        while at < examples.len() {
            self.comma(at);
            self.text(examples[at].script);
            at += 1;
        }
        self.byte(b']');
        self.key("prints");
        self.byte(b'[');
        let mut at = 0;
        while at < examples.len() {
            self.comma(at);
            self.text(examples[at].output);
            at += 1;
        }
        self.byte(b']');
    }

    const fn head(&mut self, name: &str, kind: &str, about: &str) {
        self.open();
        self.pair("name", name);
        self.pair("kind", kind);
        self.pair("about", about);
        self.key("params");
    }

    const fn manifest(&mut self, manifest: &Manifest) {
        self.raw(MARK);
        self.open();
        self.pair("id", manifest.id);
        self.pair("version", manifest.version);
        self.key("abi");
        self.byte(b'[');
        self.number(crate::ffi::ABI_MAJOR as usize);
        self.byte(b',');
        self.number(crate::ffi::ABI_MINOR as usize);
        self.byte(b']');
        self.key("target");
        self.byte(b'"');
        self.raw(std::env::consts::ARCH);
        self.byte(b' ');
        self.raw(std::env::consts::OS);
        self.byte(b'"');
        self.pair("license", manifest.license);
        self.key("stages");
        self.byte(b'[');
        let mut at = 0;
        while at < manifest.functions.len() {
            let spec = manifest.functions[at];
            self.comma(at);
            self.head(spec.name, "function", spec.about);
            self.function(spec);
            self.key("examples");
            self.byte(b'[');
            let mut example = 0;
            while example < spec.examples.len() {
                self.comma(example);
                self.text(spec.examples[example]);
                example += 1;
            }
            self.byte(b']');
            self.close();
            at += 1;
        }
        let mut at = 0;
        while at < manifest.stages.len() {
            let spec = manifest.stages[at];
            self.comma(at + manifest.functions.len());
            let kind = match spec.kind {
                Kind::Source => "source",
                Kind::Sink => "sink",
                _ => "transform",
            };
            self.head(spec.name, kind, spec.about);
            self.stage(spec);
            self.scripts(spec.examples);
            self.close();
            at += 1;
        }
        let mut at = 0;
        while at < manifest.aggregates.len() {
            let spec = manifest.aggregates[at];
            self.comma(at + manifest.functions.len() + manifest.stages.len());
            self.head(spec.name, "aggregate", spec.about);
            self.aggregate(spec);
            self.scripts(spec.examples);
            self.close();
            at += 1;
        }
        self.byte(b']');
        self.close();
    }
}

/// `text` with NULs behind it; `N` is at least one more than its length.
pub const fn with_nul<const N: usize>(text: &str) -> [u8; N] {
    let mut out = Out::<N>::new();
    out.raw(text);
    out.bytes
}

/// How long [`note`] is, with a NUL at its end.
pub const fn note_len(manifest: &Manifest) -> usize {
    let mut out = Out::<0>::new();
    out.manifest(manifest);
    out.len + 1
}

/// The description that a library carries.
pub const fn note<const N: usize>(manifest: &Manifest) -> [u8; N] {
    let mut out = Out::<N>::new();
    out.manifest(manifest);
    out.bytes
}

/// How long [`stage_params`] is, with a NUL at its end.
pub const fn stage_params_len(spec: &StageSpec) -> usize {
    let mut out = Out::<0>::new();
    out.stage(spec);
    out.len + 1
}

/// `params` of a stage.
pub const fn stage_params<const N: usize>(spec: &StageSpec) -> [u8; N] {
    let mut out = Out::<N>::new();
    out.stage(spec);
    out.bytes
}

/// How long [`function_params`] is, with a NUL at its end.
pub const fn function_params_len(spec: &ScalarSpec) -> usize {
    let mut out = Out::<0>::new();
    out.function(spec);
    out.len + 1
}

/// `params` of a function.
pub const fn function_params<const N: usize>(spec: &ScalarSpec) -> [u8; N] {
    let mut out = Out::<N>::new();
    out.function(spec);
    out.bytes
}

/// How long [`aggregate_params`] is, with a NUL at its end.
pub const fn aggregate_params_len(spec: &CombineSpec) -> usize {
    let mut out = Out::<0>::new();
    out.aggregate(spec);
    out.len + 1
}

/// `params` of an aggregate.
pub const fn aggregate_params<const N: usize>(spec: &CombineSpec) -> [u8; N] {
    let mut out = Out::<N>::new();
    out.aggregate(spec);
    out.bytes
}

impl Memory {
    /// As it is written in `explain` and in descriptions.
    pub const fn word(self) -> &'static str {
        match self {
            Memory::Batch => "batch",
            Memory::Constant => "constant",
            Memory::Groups => "groups",
            Memory::Frame => "frame",
            Memory::Windows => "windows",
            Memory::Spill => "spill",
            Memory::Held => "held",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Param;

    #[test]
    fn a_description_is_json_whatever_stands_in_it() {
        const SPEC: StageSpec = StageSpec {
            name: "odd",
            about: "Says \"a\\b\"\n\u{1}and ä",
            items: Items::some(
                ArgKind::Each(&[ArgKind::Column, ArgKind::Expr(Want::Int)]),
                1,
                12,
                "things",
            ),
            options: &[Param::new("n", ArgKind::Const(Want::Bool), Some("true"), "yes or no")],
            ..StageSpec::BASE
        };
        const MANIFEST: Manifest = Manifest {
            id: "a.b",
            version: "1.0.0",
            license: "",
            functions: &[],
            stages: &[&SPEC],
            aggregates: &[],
        };
        const NOTE: [u8; note_len(&MANIFEST)] = note(&MANIFEST);
        let text = std::str::from_utf8(&NOTE).unwrap();
        let json = text.strip_prefix(MARK).unwrap().strip_suffix('\0').unwrap();
        let value: serde_json::Value = serde_json::from_str(json).unwrap();
        let stage = &value["stages"][0];
        assert_eq!(stage["about"], SPEC.about);
        assert_eq!(
            stage["params"]["items"]["arg"],
            serde_json::json!(["column", "expr:int"])
        );
        assert_eq!(stage["params"]["items"]["max"], 12);
        assert_eq!(stage["params"]["options"][0]["default"], "true");
    }
}
