//! No rewrite changes what comes out, nor which rows fail: pipelines put together at random over rows with all that is nasty give the
//! same bytes, the same rejects and the same error whether their graphs are rewritten or run as written.
//!
//! How: a seed makes a script, stage by stage, from the columns there are at each point. Where the two runs differ, stages are left out
//! as long as they still do, and what is left is shown.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

#[path = "harness/script.rs"]
mod script;

use script::{Script, Seen, Setting};
use standpipe::runtime::settings::Hooks;
use std::fmt::Write as _;
use std::path::Path;

/// Scripts per run of the test.
const SCRIPTS: u64 = 300;

/// Duplicates, nulls, both zeros, nan, texts that are no numbers, empty text.
const ROWS: &str = r#"{"id": 1, "k": 1, "s": "a", "f": 1.5, "b": true, "n": "7", "tags": ["x", "y"], "r": {"x": 1, "y": "p"}}
{"id": 2, "k": 2, "s": "b", "f": -0.0, "b": false, "n": "x", "tags": [], "r": {"x": 2, "y": "q"}}
{"id": 3, "k": null, "s": null, "f": 0.0, "b": null, "n": "3", "tags": ["x"], "r": null}
{"id": 4, "k": 1, "s": "", "f": null, "b": true, "n": null, "tags": null, "r": {"x": null, "y": "p"}}
{"id": 5, "k": 0, "s": "é", "f": 1e300, "b": false, "n": "-2", "tags": ["z", "x", "z"], "r": {"x": 5, "y": null}}
{"id": 6, "k": 2, "s": "b", "f": -1.5, "b": true, "n": "9223372036854775808", "tags": ["y"], "r": {"x": 1, "y": "p"}}
{"id": 7, "k": -3, "s": "A", "f": 0.0, "b": true, "n": "0", "tags": ["y", "y"], "r": {"x": 0, "y": "r"}}
{"id": 8, "k": 1, "s": "a", "f": -0.0, "b": null, "n": "12", "tags": ["w"], "r": {"x": 8, "y": "q"}}
{"id": 9, "k": null, "s": "c", "f": 2.0, "b": false, "n": "", "tags": ["x", null], "r": {"x": 1, "y": "p"}}
{"id": 10, "k": 7, "s": "b", "f": 2.0, "b": true, "n": "5", "tags": ["v"], "r": {"x": 3, "y": "p"}}
{"id": 11, "k": 9223372036854775807, "s": "long enough not to be kept in a view", "f": 1.0, "b": true, "n": "1", "tags": [], "r": null}
{"id": 12, "k": 2, "s": "b", "f": 1.0, "b": false, "n": "4", "tags": ["x"], "r": {"x": 1, "y": "p"}}
"#;
const OTHERS: &str = "k,t,g,m\n1,one,0.5,3\n2,two,,x\n,none,1.5,1\n1,eins,-0.0,2\n7,seven,0.0,0\n-3,minus,2.5,\n9,nine,nan,8\n2,zwei,1,5\n";

#[derive(Clone, Copy, PartialEq)]
enum Ty {
    Int,
    Text,
    Float,
    Bool,
    Texts,
    Record,
}

struct Maker {
    state: u64,
    columns: Vec<(String, Ty)>,
    /// Names so far.
    names: usize,
}

impl Maker {
    fn new(seed: u64) -> Maker {
        let mut maker = Maker {
            state: seed,
            columns: vec![],
            names: 0,
        };
        // Numbers in a row give no rows of their own otherwise: each would be the last one, one step on.
        maker.state = (maker.below(usize::MAX) as u64) << 1 ^ seed.rotate_left(40);
        maker
    }

    fn below(&mut self, most: usize) -> usize {
        // splitmix64
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % most as u64) as usize
    }

    fn of<'t>(&mut self, among: &[&'t str]) -> &'t str {
        let at = self.below(among.len());
        among[at]
    }

    fn column(&mut self, ty: Ty) -> Option<String> {
        let found: Vec<&String> = self.columns.iter().filter(|c| c.1 == ty).map(|c| &c.0).collect();
        let count = found.len();
        let names: Vec<String> = found.into_iter().cloned().collect();
        (count > 0).then(|| names[self.below(count)].clone())
    }

    /// A column to group or sort by.
    fn key(&mut self) -> Option<String> {
        let ty = [Ty::Int, Ty::Int, Ty::Text, Ty::Bool, Ty::Float][self.below(5)];
        self.column(ty)
    }

    fn keys(&mut self, most: usize) -> Option<Vec<String>> {
        let mut keys = vec![self.key()?];
        for _ in 1..most {
            if let Some(key) = self.key().filter(|key| !keys.contains(key)) {
                keys.push(key);
            }
        }
        let count = 1 + self.below(keys.len());
        keys.truncate(count);
        Some(keys)
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("c{}", self.names)
    }

    fn condition(&mut self) -> Option<String> {
        let ty = [
            Ty::Int,
            Ty::Int,
            Ty::Int,
            Ty::Text,
            Ty::Text,
            Ty::Float,
            Ty::Bool,
            Ty::Record,
        ][self.below(8)];
        let c = self.column(ty)?;
        let number = self.below(6) as i64 - 1;
        Some(match ty {
            Ty::Int => match self.below(9) {
                0 => format!("{c} > {number}"),
                1 => format!("{c} <= {number}"),
                2 => format!("{c} is not null"),
                3 => format!("{c} is null"),
                4 => format!("{c} in [1, 2, 7]"),
                5 => format!("not ({c} == {number})"),
                6 => format!("({c} ?? 1) == {number}"),
                7 => format!("{c} in 0..{number}"),
                // It fails for zero.
                _ => format!("10 // {c} >= {number}"),
            },
            Ty::Text => match self.below(7) {
                0 => format!("{c} == \"b\""),
                1 => format!("{c} != \"a\""),
                2 => format!("{c} is null"),
                3 => format!("{c} ~ /[a-f]/"),
                4 => format!("lower({c}) == \"a\""),
                5 => format!("{c} >= \"b\""),
                // It fails for what is no number.
                _ => format!("int({c}) > {number}"),
            },
            Ty::Float => match self.below(4) {
                0 => format!("{c} > 0.5"),
                1 => format!("{c} == 0.0"),
                2 => format!("string({c}) != \"0.0\""),
                _ => format!("{c} is not null"),
            },
            Ty::Bool => match self.below(3) {
                0 => c,
                1 => format!("not {c}"),
                _ => format!("{c} is null"),
            },
            _ => match self.below(3) {
                0 => format!("{c}.x > {number}"),
                1 => format!("{c}.y == \"p\""),
                _ => format!("{c} is null"),
            },
        })
    }

    fn conditions(&mut self) -> Option<String> {
        let first = self.condition()?;
        Some(match (self.below(6), self.condition(), self.condition()) {
            (0 | 1, Some(second), _) => format!("{first} and {second}"),
            (2, Some(second), Some(third)) => format!("({first} or {second}) and {third}"),
            (3, Some(second), Some(third)) => format!("{first} and {second} and {third}"),
            (4, ..) if self.below(4) == 0 => format!("{first} and random(3) < 0.6"),
            _ => first,
        })
    }

    /// An expression with its type; it may fail.
    fn expression(&mut self) -> Option<(String, Ty)> {
        let ty = [Ty::Int, Ty::Int, Ty::Text, Ty::Float, Ty::Text][self.below(5)];
        let c = self.column(ty)?;
        Some(match ty {
            Ty::Int => match self.below(5) {
                0 => (format!("{c} % 3"), Ty::Int),
                1 => (format!("{c} ?? 4"), Ty::Int),
                2 => (format!("{c} > 1"), Ty::Bool),
                3 => (format!("float({c})"), Ty::Float),
                _ => (format!("100 // {c}"), Ty::Int),
            },
            Ty::Text => match self.below(4) {
                0 => (format!("upper({c})"), Ty::Text),
                1 => (format!("len({c})"), Ty::Int),
                2 => (format!("int({c}) catch -1"), Ty::Int),
                _ => (format!("int({c})"), Ty::Int),
            },
            _ => match self.below(3) {
                0 => (format!("{c} * 2.0"), Ty::Float),
                1 => (format!("string({c})"), Ty::Text),
                _ => (format!("if {c} > 0.0 then 1 else 0"), Ty::Int),
            },
        })
    }

    fn policy(&mut self) -> &'static str {
        self.of(&[
            "",
            " on error skip",
            " on error skip",
            " on error to bad",
            " on error to bad",
            " on error null",
        ])
    }

    fn aggregate(&mut self) -> Option<String> {
        let by = if self.below(6) == 0 { vec![] } else { self.keys(2)? };
        let mut items = vec![];
        let mut columns: Vec<(String, Ty)> = (self.columns.iter()).filter(|c| by.contains(&c.0)).cloned().collect();
        columns.sort_by_key(|c| by.iter().position(|key| *key == c.0));
        for _ in 0..=self.below(3) {
            let name = self.name();
            let (text, ty) = match (
                self.below(9),
                self.column(Ty::Int),
                self.column(Ty::Text),
                self.column(Ty::Float),
            ) {
                (0 | 1, ..) => ("count()".to_owned(), Ty::Int),
                (2, Some(c), ..) => (format!("sum({c})"), Ty::Int),
                (3, Some(c), ..) => (format!("max({c})"), Ty::Int),
                (4, Some(c), ..) => (format!("first({c})"), Ty::Int),
                (5, _, Some(c), _) => (format!("last({c})"), Ty::Text),
                (6, _, Some(c), _) => (format!("min({c})"), Ty::Text),
                (7, _, _, Some(c)) => (format!("sum({c})"), Ty::Float),
                (8, _, Some(c), _) => (format!("collect({c})"), Ty::Texts),
                _ => ("count()".to_owned(), Ty::Int),
            };
            items.push(format!("{name} = {text}"));
            columns.push((name, ty));
        }
        self.columns = columns;
        let by = if by.is_empty() {
            String::new()
        } else {
            format!(" by {}", by.join(", "))
        };
        let text = format!("aggregate {}{by}", items.join(", "));
        // They are in that order, mostly.
        Some(match (self.below(3), by.split_once(" by ")) {
            (0, Some((_, keys))) => format!("{text} | sort {}{keys}", self.of(&["", "", "-"])),
            _ => text,
        })
    }

    fn join(&mut self) -> Option<String> {
        let mode = self.of(&["inner", "inner", "left", "left", "right", "full", "semi", "anti"]);
        let key = self.column(Ty::Int)?;
        if self.columns.iter().any(|c| ["t", "g", "m"].contains(&&*c.0)) {
            return None;
        }
        let only_left = matches!(mode, "semi" | "anti");
        let on = if key == "k" && self.below(2) == 0 {
            "k".to_owned()
        } else {
            format!("{key} == k")
        };
        let record = self.below(3) == 0;
        if !only_left && !record && on != "k" && self.columns.iter().any(|c| c.0 == "k") {
            return None;
        }
        let condition = match self.below(5) {
            0 if record => " where: p.t != \"two\"",
            1 if !record && !only_left => " where: t != \"two\"",
            2 if record => " where: int(p.m) > 1",
            _ => "",
        };
        if !only_left && !record {
            if on != "k" {
                self.columns.push(("k".into(), Ty::Int));
            }
            for (name, ty) in [("t", Ty::Text), ("g", Ty::Float), ("m", Ty::Text)] {
                self.columns.push((name.into(), ty));
            }
        }
        let stream = self.of(&["others", "others", "picked"]);
        let name = if record { " as p" } else { "" };
        let policy = if condition.contains("int(") {
            self.of(&[" on error skip", " on error to bad"])
        } else {
            ""
        };
        let text = format!("join {mode} {stream}{name} on {on}{condition}{policy}");
        Some(match (record, only_left) {
            // A record's fields are read one by one: the others need not be carried.
            (true, false) => {
                let (a, b) = (self.name(), self.name());
                let more = match self.below(3) {
                    0 => "filter p.t >= \"f\" | ",
                    1 => "filter p.k == 2 | ",
                    _ => "",
                };
                self.columns.extend([(a.clone(), Ty::Text), (b.clone(), Ty::Int)]);
                format!("{text} | {more}derive {a} = p.t, {b} = p.k | drop p")
            }
            _ => text,
        })
    }

    /// A few stages where a condition has something to stay behind for.
    fn trap(&mut self) -> Option<String> {
        let condition = loop {
            let condition = self.condition()?;
            if !condition.contains("//") && !condition.contains("int(") {
                break condition;
            }
        };
        let fails = match (self.below(2), self.column(Ty::Int), self.column(Ty::Text)) {
            (0, Some(c), _) => format!("100 // {c}"),
            (_, _, Some(c)) => format!("int({c})"),
            _ => return None,
        };
        let policy = self.of(&["to bad", "to bad", "skip"]);
        let name = self.name();
        let derived = format!("derive {name} = {fails} on error {policy}");
        Some(match self.below(5) {
            0 => {
                self.columns.push((name, Ty::Int));
                format!("{derived} | filter {condition}")
            }
            1 => {
                self.columns.push((name, Ty::Int));
                format!("{derived} | sort -{} | filter {condition}", self.key()?)
            }
            2 => {
                let key = self.key()?;
                self.columns.push((name, Ty::Int));
                format!("sort {key} | filter {condition} | {derived}")
            }
            3 => {
                let float = self.column(Ty::Float)?;
                let grouped = self.of(&["take 1", "distinct", "skip 1"]);
                format!(
                    "{grouped} by {float} | filter string({float}) != \"{}\"",
                    self.of(&["0.0", "-0.0"])
                )
            }
            _ => {
                self.columns.push((name.clone(), Ty::Bool));
                format!(
                    "sort {} | filter {condition} | derive {name} = random(5) < 0.5",
                    self.key()?
                )
            }
        })
    }

    fn stage(&mut self) -> Option<String> {
        Some(match self.below(37) {
            0..=7 => {
                let condition = self.conditions()?;
                let may_fail = condition.contains("//") || condition.contains("int(");
                format!("filter {condition}{}", if may_fail { self.policy() } else { "" })
            }
            8 | 9 => {
                let keys = self.keys(2)?;
                let keys: Vec<String> = (keys.iter())
                    .map(|key| format!("{}{key}", if self.below(3) == 0 { "-" } else { "" }))
                    .collect();
                let behind = match self.below(8) {
                    0 | 1 => " | take 3".to_owned(),
                    2 => " | take 1".to_owned(),
                    // Perhaps it makes the first sort needless.
                    3 => format!(" | sort {}", self.key()?),
                    4 => format!(" | sort {}, {}", self.key()?, keys[0].trim_start_matches('-')),
                    5 => format!(" | {}", self.aggregate()?),
                    _ => String::new(),
                };
                format!(
                    "sort {}{}{behind}",
                    keys.join(", "),
                    self.of(&["", "", " nulls: first"])
                )
            }
            10 | 11 => {
                let (text, ty) = self.expression()?;
                let name = self.name();
                self.columns.push((name.clone(), ty));
                format!("derive {name} = {text}{}", self.policy())
            }
            12 => {
                let count = 1 + self.below(self.columns.len());
                let mut left = self.columns.clone();
                while left.len() > count.max(3) {
                    let at = self.below(left.len());
                    left.remove(at);
                }
                self.columns = left;
                let names: Vec<&str> = self.columns.iter().map(|c| &*c.0).collect();
                format!("select {}", names.join(", "))
            }
            13 => {
                let name = self.name();
                let at = self.below(self.columns.len());
                let old = std::mem::replace(&mut self.columns[at].0, name.clone());
                format!("rename {name} = {old}")
            }
            14 => format!("distinct by {}", self.keys(2)?.join(", ")),
            15 => match self.columns.iter().any(|c| c.1 == Ty::Texts) {
                true => return None,
                false => "distinct".to_owned(),
            },
            16 => format!("take {}", self.below(9)),
            17 => format!(
                "{} {} by {}",
                self.of(&["take", "skip", "tail"]),
                1 + self.below(3),
                self.keys(2)?.join(", ")
            ),
            18 => format!("skip {}", self.below(3)),
            19 => {
                let name = self.name();
                let by = self.key().map_or_else(String::new, |key| format!(" by {key}"));
                self.columns.push((name.clone(), Ty::Int));
                format!("number as {name}{by}")
            }
            20 => {
                let (a, b) = (self.key()?, self.key()?);
                format!("fill down {a} by {b}")
            }
            21 | 22 => self.aggregate()?,
            23..=25 => self.join()?,
            26 | 27 => {
                let stream = self.of(&["others", "rows", "early", "picked"]);
                // What the first stream lacks comes behind its columns.
                let here = self.columns.clone();
                let theirs: &[(&str, Ty)] = match stream {
                    "others" | "picked" => &[("k", Ty::Int), ("t", Ty::Text), ("g", Ty::Float), ("m", Ty::Text)],
                    "rows" | "early" => FIRST,
                    _ => &[],
                };
                if theirs
                    .iter()
                    .any(|(name, ty)| here.iter().any(|c| c.0 == *name && c.1 != *ty))
                {
                    return None;
                }
                for (name, ty) in theirs {
                    if !here.iter().any(|c| c.0 == *name) {
                        self.columns.push(((*name).into(), *ty));
                    }
                }
                format!("union {stream} missing: null")
            }
            28 => {
                let (on, count) = (self.keys(2)?, 1 + self.below(4));
                let by = self.key().map_or_else(String::new, |key| format!(" by {key}"));
                format!("top {count} on -{}{by}", on.join(", "))
            }
            29 => {
                let list = self.column(Ty::Texts)?;
                let column = self.columns.iter_mut().find(|c| c.0 == list)?;
                column.1 = Ty::Text;
                format!("unnest {list}{}", self.of(&["", " outer: true"]))
            }
            30..=35 => self.trap()?,
            _ => match self.below(4) {
                0 => format!("dedup by {}", self.key()?),
                1 => "sample 4 seed: 3".to_owned(),
                2 => format!(
                    "assert {}{}",
                    self.condition()?,
                    self.of(&[" on error skip", " on error to bad"])
                ),
                _ => "tap \"seen\"".to_owned(),
            },
        })
    }

    fn stages(&mut self, most: usize) -> Vec<String> {
        let mut stages = vec![];
        for _ in 0..2 + self.below(most) {
            stages.extend(self.stage());
        }
        stages
    }
}

const FIRST: &[(&str, Ty)] = &[
    ("id", Ty::Int),
    ("k", Ty::Int),
    ("s", Ty::Text),
    ("f", Ty::Float),
    ("b", Ty::Bool),
    ("n", Ty::Text),
    ("tags", Ty::Texts),
    ("r", Ty::Record),
];

/// Two pipelines over the same streams.
#[derive(Clone)]
struct Made {
    early: Vec<String>,
    pipelines: [Vec<String>; 2],
    /// The format of the second pipeline's sink.
    format: &'static str,
}

impl Made {
    fn new(seed: u64) -> Made {
        let mut maker = Maker::new(seed);
        let first = || FIRST.iter().map(|(name, ty)| ((*name).to_owned(), *ty)).collect();
        maker.columns = first();
        let condition = maker.condition().unwrap_or_else(|| "k > 0".into());
        let early = match condition.contains("int(") || condition.contains("//") {
            true => format!("filter {condition} on error skip"),
            false => format!("filter {condition}"),
        };
        let mut pipeline = || {
            maker.columns = first();
            maker.stages(8)
        };
        let pipelines = [pipeline(), pipeline()];
        let nested = maker.columns.iter().any(|c| matches!(c.1, Ty::Texts | Ty::Record));
        Made {
            early: vec![early],
            pipelines,
            format: if nested { "jsonl" } else { "csv" },
        }
    }

    /// Where stages can be left out.
    fn stages(&self) -> usize {
        self.early.len() + self.pipelines.iter().map(Vec::len).sum::<usize>()
    }

    fn without(&self, at: usize) -> Made {
        let mut made = self.clone();
        let mut left = at;
        for stages in std::iter::once(&mut made.early).chain(&mut made.pipelines) {
            if left < stages.len() {
                stages.remove(left);
                return made;
            }
            left -= stages.len();
        }
        made
    }

    fn script(&self, folder: &Path) -> Script {
        let bar = |stages: &[String]| stages.iter().map(|stage| format!(" | {stage}")).collect::<String>();
        let [a, b] = &self.pipelines;
        let body = format!(
            "from rows{}\n  | write jsonl \"out/a.jsonl\"\nfrom early{}\n  | write {} \"out/b\"\n",
            bar(a).replace(" | ", "\n  | "),
            bar(b).replace(" | ", "\n  | "),
            self.format
        );
        let mut text = "stream rows = read jsonl \"rows.jsonl\"\n".to_owned();
        if body.contains(" others") || body.contains(" picked") {
            text.push_str("stream others = read csv \"others.csv\"\n");
        }
        if body.contains(" picked") {
            text.push_str("stream picked = from others | filter t != \"nine\" | sort t\n");
        }
        let _ = write!(text, "stream early = from rows{}\n{body}", bar(&self.early));
        if text.contains("to bad") {
            text.push_str("from bad | write jsonl \"out/bad.jsonl\"\n");
        }
        Script::new("random", text, folder)
    }
}

/// How a graph is rewritten.
#[derive(Clone, Copy, PartialEq, Debug)]
enum How {
    AsWritten,
    Usual,
    /// Also where files are too small for it.
    AnySize,
}

impl How {
    fn hooks(self) -> Hooks {
        Hooks {
            as_written: self == How::AsWritten,
            any_size: self == How::AnySize,
            ..Hooks::default()
        }
    }
}

fn run(made: &Made, folder: &Path, how: How, seed: u64) -> Seen {
    let setting = Setting {
        name: "any".into(),
        workers: 1 + (seed % 2) as usize,
        hooks: Hooks {
            chunk_rows: [None, Some(1), Some(5)][(seed % 3) as usize],
            spill_rows: seed.is_multiple_of(5).then_some(3),
            ..how.hooks()
        },
        ..Setting::usual()
    };
    made.script(folder).run(&setting)
}

/// What differs between a script as written and rewritten.
fn difference(made: &Made, folder: &Path, how: How, seed: u64) -> Option<String> {
    let (plain, other) = (run(made, folder, How::AsWritten, seed), run(made, folder, how, seed));
    let text = |seen: &Seen| {
        let mut text = match how {
            // Of two files with an error another one may be read first.
            How::AnySize if !seen.failed.is_empty() => "it failed\n".to_owned(),
            _ => format!("{}\n", seen.failed),
        };
        // What else a failed run has done is left to chance.
        if seen.failed.is_empty() {
            let _ = writeln!(text, "{}", seen.said);
            for (name, bytes) in &seen.outputs {
                let _ = writeln!(text, "{name}:\n{}", String::from_utf8_lossy(bytes));
            }
        }
        text
    };
    let (plain, other) = (text(&plain), text(&other));
    let (a, b) = (plain.lines().collect::<Vec<_>>(), other.lines().collect::<Vec<_>>());
    let at = (0..a.len().max(b.len())).find(|&i| a.get(i) != b.get(i))?;
    let line = |lines: &[&str]| lines.get(at).copied().unwrap_or("(nothing)").to_owned();
    Some(format!("as written: {}\nrewritten:  {}", line(&a), line(&b)))
}

/// A script that still differs, with as few stages as that takes.
fn least(mut made: Made, folder: &Path, how: How, seed: u64) -> Made {
    let mut at = 0;
    while at < made.stages() {
        let fewer = made.without(at);
        if difference(&fewer, folder, how, seed).is_some() {
            made = fewer;
        } else {
            at += 1;
        }
    }
    made
}

#[test]
fn rewritten_or_not_scripts_give_the_same_bytes_and_the_same_bad_rows() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rows.jsonl"), ROWS).unwrap();
    std::fs::write(folder.path().join("others.csv"), OTHERS).unwrap();
    let start = std::env::var("STANDPIPE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(0);
    let (mut wrong, mut refused) = (vec![], vec![]);
    let mut seen = [
        ("moved ahead of", 0),
        ("left out", 0),
        ("only the first", 0),
        (": drops ", 0),
        ("write csv", 0),
    ];
    let (mut succeeded, mut bad_rows, mut sieved) = (0, 0, 0);
    for seed in start..start + SCRIPTS {
        let made = Made::new(seed);
        let script = made.script(folder.path());
        let checked = script.check();
        if checked.explained.is_empty() {
            refused.push(format!("{}\n{}", script.text, checked.checked));
            continue;
        }
        for (what, count) in &mut seen {
            *count += usize::from(checked.explained.contains(*what));
        }
        let ran = run(&made, folder.path(), How::Usual, seed);
        succeeded += usize::from(ran.failed.is_empty());
        bad_rows += usize::from(ran.outputs.get("bad.jsonl").is_some_and(|bytes| !bytes.is_empty()));
        let any_size = script.check_with(How::AnySize.hooks()).explained;
        sieved += usize::from(any_size.contains("no left key wants"));
        for how in [How::Usual, How::AnySize] {
            // Most scripts are the same both ways.
            let is_new = how == How::Usual || any_size != checked.explained;
            if is_new && difference(&made, folder.path(), how, seed).is_some() {
                let least = least(made.clone(), folder.path(), how, seed);
                let differs = difference(&least, folder.path(), how, seed).unwrap_or_default();
                wrong.push(format!(
                    "seed {seed}, {how:?}:\n{}\n{differs}\n",
                    least.script(folder.path()).text
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{} scripts differ\n{}", wrong.len(), wrong.join("\n"));
    // What the test would be without.
    assert!(
        refused.len() < SCRIPTS as usize / 4,
        "{} are refused\n{}",
        refused.len(),
        refused.join("\n")
    );
    assert!(seen.iter().all(|(_, count)| *count >= 10), "{seen:?}");
    assert!(sieved >= 10, "{sieved} have sieves");
    assert!(
        succeeded > SCRIPTS as usize / 3 && bad_rows >= 10,
        "{succeeded} end well, {bad_rows} have bad rows"
    );
    if std::env::var_os("STANDPIPE_SEED").is_some() {
        eprintln!(
            "{seen:?}, {sieved} with sieves, {} refused, {succeeded} ended well, {bad_rows} had bad rows",
            refused.len()
        );
    }
}
