//! What leaves right rows out before a join is not seen in what comes out, nor does it stand where that would be; and it is worth it.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

#[path = "harness/script.rs"]
mod script;

use script::{Script, Seen, Setting};
use standpipe::engine::Engine;
use standpipe::runtime::report::Report;
use standpipe::runtime::settings::Hooks;
use std::fmt::Write as _;
use std::path::Path;

const SIEVE: &str = "no left key wants";
/// The number of the left rows' key that has most right rows.
const HOT: u64 = 3;

/// Left rows: keys twice, keys that nothing matches, null, nan, both zeros, cells that cannot be read.
const LEFT: &str = "k,f,s,d,n\n1,0.5,a,1.50,10\n2,-0.0,b,2,11\n1,nan,a,1.5,12\n,,,,13\n3,0.0,hot,3,14\n99,77.5,nobody,99,15\nx,1.5,a,1,16\n3,nan,hot,3.00,17\n0,1e300,\"\",0,18\n2,0.5,long enough not to be kept in a view,2,19\n";

fn right() -> String {
    let mut text = String::from("id,g,t,e,m\n");
    for row in 0..400_u64 {
        let id = match row % 8 {
            0..=3 => HOT.to_string(),
            4 => String::new(),
            // It cannot be read.
            5 if row % 40 == 5 => "no int".to_owned(),
            _ => (row % 50).to_string(),
        };
        let g = ["0.5", "-0.0", "nan", "", "9.25", "0.0", "1e300"][row as usize % 7];
        let t = ["a", "b", "hot", "", "c", "long enough not to be kept in a view", "z"][row as usize % 7];
        let _ = writeln!(text, "{id},{g},{t},{},{row}", row % 5);
    }
    text
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("left.csv"), LEFT).unwrap();
    std::fs::write(folder.path().join("right.csv"), right()).unwrap();
    std::fs::write(folder.path().join("none.csv"), "k,f,s,d,n\n").unwrap();
    std::fs::write(
        folder.path().join("right.jsonl"),
        "{\"id\": 3, \"u\": 1}\n{\"id\": 9, \"u\": 2}\n",
    )
    .unwrap();
    folder
}

const SCHEMAS: &str = "schema L { k: int?, f: float?, s: string?, d: decimal(9, 2)?, n: int }\n\
                       schema R { id: int?, g: float?, t: string?, e: int, m: int }\n";

/// Both sides, each with a policy, and what is behind them.
fn script(folder: &Path, left: &str, right: &str, rest: &str) -> Script {
    let mut text = format!("{SCHEMAS}stream big = read csv \"right.csv\" schema: R {right}\n");
    let _ = writeln!(text, "{left}{rest}");
    Script::new("sieves", text, folder)
}

const LEFT_SKIPS: &str = "read csv \"left.csv\" schema: L on error skip";
const RIGHT_SKIPS: &str = "on error skip";

fn any_size() -> Hooks {
    Hooks {
        any_size: true,
        ..Hooks::default()
    }
}

fn run(script: &Script, name: &str, workers: usize, hooks: Hooks) -> Seen {
    script.run(&Setting {
        name: name.into(),
        workers,
        hooks,
        ..Setting::usual()
    })
}

#[test]
fn nobody_sees_that_right_rows_were_left_out() {
    let folder = folder();
    let mut scripts = vec![];
    for mode in ["inner", "left", "semi", "anti"] {
        let keys = [
            "k == id",
            "f == g",
            "s == t",
            "k == id, s == t",
            "s == t, f == g",
            // Computed on one side, on both; an int that becomes a decimal.
            "k == id + 1",
            "lower(s) == upper(t)",
            "d == e",
        ];
        for on in keys {
            let rest = format!(" | join {mode} big as r on {on}");
            let all = script(folder.path(), LEFT_SKIPS, RIGHT_SKIPS, &rest);
            // Some right rows must be left out, and none of what comes out.
            scripts.push(all);
        }
        let join = |rest: &str| format!(" | join {mode} big as r on k == id{rest}");
        scripts.push(script(
            folder.path(),
            LEFT_SKIPS,
            RIGHT_SKIPS,
            &join(" where: r.m > n * 10.0"),
        ));
        let none = "read csv \"none.csv\" schema: L";
        scripts.push(script(folder.path(), none, RIGHT_SKIPS, &join("")));
        let none = format!("{LEFT_SKIPS} | filter k == 99");
        scripts.push(script(folder.path(), &none, RIGHT_SKIPS, &join("")));
        // Bad rows of one side, of the other, of both into two streams.
        let bad = "\nfrom bad | write jsonl \"out/bad.jsonl\"\n";
        let worse = "\nfrom worse | write jsonl \"out/worse.jsonl\"\n";
        let end = " | write jsonl \"out/good.jsonl\"";
        let [left_to, right_to] = [LEFT_SKIPS.replace("skip", "to bad"), "on error to worse".to_owned()];
        scripts.push(script(folder.path(), &left_to, RIGHT_SKIPS, &(join("") + end + bad)));
        scripts.push(script(folder.path(), LEFT_SKIPS, &right_to, &(join("") + end + worse)));
        scripts.push(script(
            folder.path(),
            &left_to,
            &right_to,
            &(join("") + end + bad + worse),
        ));
        // Somebody else reads both sides too.
        let both = format!(
            " | tee {{ write jsonl \"out/left.jsonl\" }}{}{end}\nfrom big | write jsonl \"out/big.jsonl\"\n",
            join("")
        );
        scripts.push(script(folder.path(), LEFT_SKIPS, RIGHT_SKIPS, &both));
        // The left side is sorted on its way, and what is joined meets a third file.
        let more = format!("stream third = read jsonl \"right.jsonl\"\n{LEFT_SKIPS} | sort -n");
        let twice = join("") + " | join left third as u on k == id" + end;
        scripts.push(script(folder.path(), &more, RIGHT_SKIPS, &twice));
    }
    let mut different = vec![];
    for (at, script) in scripts.iter().enumerate() {
        let explained = script.check_with(any_size()).explained;
        assert!(
            explained.contains(SIEVE),
            "{}\n{}\n{explained}",
            script.text,
            script.check().checked
        );
        assert!(!script.check().explained.contains(SIEVE), "{}", script.text);
        let written = run(
            script,
            "as written",
            1,
            Hooks {
                as_written: true,
                ..Hooks::default()
            },
        );
        assert_eq!(written.failed, "", "{}", script.text);
        for workers in [1, 2] {
            let hooks = Hooks {
                chunk_rows: [None, Some(1), Some(7)][at % 3],
                spill_rows: [None, Some(3)][(at / 3 + workers) % 2],
                ..any_size()
            };
            let sifted = run(script, "sifted", workers, hooks);
            if (&written.outputs, &written.failed) != (&sifted.outputs, &sifted.failed) {
                different.push(format!("{}\n{}", script.text, sifted.failed));
            }
        }
    }
    assert!(
        different.is_empty(),
        "{} differ\n{}",
        different.len(),
        different.join("\n")
    );
}

#[test]
fn none_stands_where_it_would_be_seen() {
    let folder = folder();
    let bad = " | write jsonl \"out/good.jsonl\"\nfrom bad | write jsonl \"out/bad.jsonl\"\n";
    let join = " | join big as r on k == id";
    let cases = [
        // Left rows that nobody gets to are not read.
        (LEFT_SKIPS, RIGHT_SKIPS, format!("{join} | take 3")),
        (LEFT_SKIPS, RIGHT_SKIPS, format!("{join} | derive x = 1 | take 3")),
        // Right rows without a match come out too, or all meet all.
        (LEFT_SKIPS, RIGHT_SKIPS, " | join right big as r on k == id".into()),
        (LEFT_SKIPS, RIGHT_SKIPS, " | join full big as r on k == id".into()),
        (
            LEFT_SKIPS,
            RIGHT_SKIPS,
            " | join cross big as r where: k == r.id".into(),
        ),
        // One file on both sides.
        ("from big | derive k = id", RIGHT_SKIPS, join.into()),
        // Rows that fail behind tell which ones they are, or come into the same stream.
        (LEFT_SKIPS, RIGHT_SKIPS, format!("{join} | derive x = n * n")),
        (
            LEFT_SKIPS,
            RIGHT_SKIPS,
            format!("{join} | derive x = 10 // (n - 11) on error to bad{bad}"),
        ),
        (
            LEFT_SKIPS,
            RIGHT_SKIPS,
            format!("{join} where: 10 // r.m < 5 on error skip"),
        ),
        (LEFT_SKIPS, RIGHT_SKIPS, format!("{join} | derive x = random(1)")),
        (
            "read csv \"left.csv\" schema: L on error to bad",
            "on error to bad",
            format!("{join}{bad}"),
        ),
        // Who knows how many those are.
        (LEFT_SKIPS, "on error skip | aggregate m = max(m) by id", join.into()),
        (LEFT_SKIPS, "on error skip | take 5", join.into()),
        ("from range(1, 9) | derive k = value", RIGHT_SKIPS, join.into()),
        (
            "read csv \"left.csv\" schema: L on error skip | derive all = [1, 2] | unnest all",
            RIGHT_SKIPS,
            join.into(),
        ),
        ("read csv \"-\" schema: L on error skip", RIGHT_SKIPS, join.into()),
    ];
    for (left, right, rest) in cases {
        let script = script(folder.path(), left, right, &rest);
        let checked = script.check_with(any_size());
        assert!(!checked.explained.is_empty(), "{}\n{}", script.text, checked.checked);
        assert!(
            !checked.explained.contains(SIEVE),
            "{}\n{}",
            script.text,
            checked.explained
        );
    }
}

/// More than what a right side must have, of rows that no left key wants but for every 100th.
fn large(folder: &Path) {
    let mut text = String::from("id,t,m\n");
    let mut row = 0_u64;
    while text.len() < (16 << 20) + (64 << 10) {
        let _ = writeln!(
            text,
            "{row},some text that would have to be kept {:x},{row}",
            row * 0x9E37_79B9
        );
        row += 1;
    }
    std::fs::write(folder.join("large.csv"), text).unwrap();
    let left: String = (0..row / 100).map(|key| format!("{},{key}\n", key * 100)).collect();
    std::fs::write(folder.join("small.csv"), format!("k,n\n{left}")).unwrap();
}

fn at_a_small_limit(folder: &Path, as_written: bool) -> (Report, Vec<u8>) {
    let out = folder.join("out.csv");
    let script = "stream big = read csv \"large.csv\"\n\
                  read csv \"small.csv\" | join big on k == id | write csv \"out.csv\"";
    let engine = Engine::builder()
        .folder(folder)
        .workers(2)
        .memory_bytes(24 << 20)
        .sync(false);
    let engine = engine.hooks(Hooks {
        as_written,
        ..Hooks::default()
    });
    let mut pipeline = engine
        .build()
        .compile("sieves.pipe", script)
        .map_err(|e| e.render(false))
        .unwrap();
    assert_eq!(
        pipeline.explain().map_err(|e| e.render(false)).unwrap().contains(SIEVE),
        !as_written
    );
    let report = pipeline.run().map_err(|_| "it fails").unwrap();
    (report, std::fs::read(out).unwrap())
}

#[test]
fn a_large_right_side_of_which_little_is_wanted_does_not_spill() {
    let folder = tempfile::tempdir().unwrap();
    large(folder.path());
    let (written, wanted) = at_a_small_limit(folder.path(), true);
    let (sifted, given) = at_a_small_limit(folder.path(), false);
    assert!(wanted == given && wanted.len() > 1000);
    assert!(written.peak_spilled_bytes > 1 << 20, "{}", written.peak_spilled_bytes);
    assert_eq!(sifted.peak_spilled_bytes, 0);
    assert!(sifted.peak_reserved_bytes < written.peak_reserved_bytes);
}

#[test]
fn sizes_decide() {
    let folder = tempfile::tempdir().unwrap();
    large(folder.path());
    let path = |name: &str| folder.path().join(name);
    let explained = |right: &str, left: &str| {
        let text = format!("stream big = read csv \"{right}\"\nread csv \"{left}\" | join big as r on k == id");
        let checked = Script::new("sieves", text, folder.path()).check();
        assert!(!checked.explained.is_empty(), "{}", checked.checked);
        checked.explained
    };
    assert!(explained("large.csv", "small.csv").contains(SIEVE));
    // Several files are as large as all of them.
    let half = std::fs::read(path("large.csv")).unwrap();
    let middle = half[..half.len() / 2].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    std::fs::write(path("part_1.csv"), &half[..middle]).unwrap();
    std::fs::write(path("part_2.csv"), [b"id,t,m\n", &half[middle..]].concat()).unwrap();
    assert!(explained("part_*.csv", "small.csv").contains(SIEVE));
    assert!(!explained("part_1.csv", "small.csv").contains(SIEVE));
    // Not eight times.
    let mut left = String::from("k,n\n");
    while left.len() < (2 << 20) + (64 << 10) {
        left.push_str("1,2\n");
    }
    std::fs::write(path("not_small.csv"), left).unwrap();
    assert!(!explained("large.csv", "not_small.csv").contains(SIEVE));
}
