//! The language by example: what parses, what is refused and how, and that nothing makes the parser fall over.

use insta::assert_snapshot;
use proptest::prelude::*;

use super::ast::*;
use super::*;
use crate::diag::{Source, render_all};

/// The example of the language's specification.
const EXAMPLE: &str = r##"## Revenue per country and tier, and the large orders on their own.

@budget(memory: 256MiB, disk: 20GiB)

## First day to count.
param since: date = @2025-06-01
param out: string = "out"

schema Customer { customer_id: int, name: string, tier: string }

stream customers = read csv "customers.csv" schema: Customer

stream paid = read csv "orders-*.csv" on error to rejects limit: 1%
  | filter status == "paid" and date(ts) >= since
  | derive total = price * qty
  | set country = upper(country)

from paid
  | join customers as c on customer_id
  | aggregate revenue = sum(total), orders = count(), big = count(where: total > 100) by country, tier = c.tier
  | sort -revenue
  | write csv f"{out}/revenue.csv"

from paid | filter total > 1_000 | write jsonl f"{out}/large.jsonl"
from rejects | write jsonl f"{out}/rejects.jsonl"

test "unpaid orders do not count" {
  given "orders-*.csv" = table {
    id | status  | price | qty | country | ts
    1  | paid    | 10.0  | 1   | de      | 2026-01-01T00:00:00Z
    2  | pending | 3.5   | 2   | fr      | 2026-01-01T00:00:00Z
  }
  with since = @2025-12-31, now = @2026-01-31T00:00:00Z
  with geo.locate = table {
    lat | city
    1.5 | Bari
  } by lat, now = @2026-01-31T00:00:00Z, synth.rows = rows [ {id: 1} ]
  expect paid rows [ {id: 1, country: "DE"} ]     # all rows, in order; only the named columns
  expect paid schema { id: int?, total: float? }
  expect rejects count == 0
  expect paid snapshot                            # snapshots/<script>__<test>__paid.snap beside the script
  expect peak memory < 64MiB
}
"##;

/// Whole statements that are right.
const STATEMENTS: &[&str] = &[
    "use \"lib/clean.pipe\" as clean",
    "use plugin geo",
    "use plugin geo \">=1.2, <2\"",
    "use plugin geo as g",
    "param day: date",
    "param day: date? = null",
    "param tier: \"gold\" | \"free\" = \"free\"",
    "param n: 1 | 2 | -3",
    "secret pg",
    "let vat = 0.19",
    "let x = -9223372036854775808",
    "schema Order { id: int, at: timestamp, note: string? }",
    "schema Empty {}",
    "schema Deep { a: {b: list<list<int?>>, c: decimal(10, 2)?}, from: json, `order id`: bytes, }",
    "fn gross(net: float, rate: float = vat) = net * (1 + rate)",
    "fn f(): int = 1",
    "stage latest(keys: cols, at: col) { sort keys, -at | take 1 by keys }",
    "stage clean { | filter a }",
    "stream big = from paid | filter total > 1_000",
    "@budget(memory: 256MiB, disk: 20GiB)",
    "@on_error(to: rejects, limit: 1%)",
    "@checkpoint(\"state\", every: 30s)",
    "from table {\n  id | name\n  1 | \"a\"\n} | write none",
    "from table { # a comment\n# another\n  id | `order id` | t # columns\n  1 | x y | z # |\n  | [1, 2] | \"a|b\" \n\n}",
    "from rows [ {a: 1}, {a: null} ]",
    "from range(1, 100) | take 5",
    "from table | take 5",
    "from rows | take 5",
    "read csv \"a.csv\", \"b.csv\"",
    "read jsonl \"-\" schema: clean.Order, check: read, null: [\"\", \"NA\"]",
    "read csv \"x\" on error skip limit: 100",
    "read csv \"x\" on error null",
    "read csv \"x\" on error to bad limit: 0.5% schema: S",
    "from a | select a, b = a + 1, c.*, *",
    "from a | derive x = 1 | set x = x + 1",
    "from a | each trim(it) on a, b",
    "from a | each trim(it) type: string",
    "from a | drop a, b | rename new = old | cast a: int, b: list<string?>, c: decimal(12, 2)?",
    "from a | take 5 by k | skip 3 | tail n",
    "from a | sample 10 seed: 7 | number as n by k",
    "from a | fill down a by k | fill a = 0",
    "from a | sort -a, b nulls: first | sort -lower(name), (a + b)",
    "from a | top 3 on -a, b by k",
    "from a | aggregate x = sum(a), r = x / count() by k, d = date(at)",
    "from a | distinct by k | dedup",
    "from a | join left s as c on k",
    "from a | join s on a == b, lower(x) == lower(y)",
    "from a | join asof s on k, at >= t within: 5m",
    "from a | join cross s as c where: c.lo <= x and x < c.hi",
    "from a | union s, t missing: null | merge s by k",
    "from a | unnest items as it outer: true | flatten c prefix: \"c_\"",
    "from a | pivot key: k value: sum(v) columns: [\"a\", \"b\"] by g",
    "from a | unpivot a, b key: n value: v",
    "from a | window x = lag(a), r = sum(b) rows: -6..0 by k",
    "from a | window r = sum(b) rows: .. by k",
    "from a | window r = sum(b) rows: ..0 by k",
    "from a | window r = sum(b) rows: 1.. by k",
    "from a | window tumble 5m, n = count() on at by k late: 1m",
    "from a | window hop 5m, 1m, n = count() on at",
    "from a | assert x > 0, f\"bad {x}\"",
    "from a | route { when x > 1 => big, when y => small else => _ }",
    "from a | tee { filter x | write csv \"x.csv\" } | write csv \"y.csv\"",
    "from a | parse col with \"{ip} - {user} [{at:timestamp}]\"",
    "from a | parse line with r\"{a}\"",
    "from a | tap \"label\" | describe",
    "from a | write csv \"out\" by country, day append: true",
    "from a | geo.locate lat, lon as place",
    "from a | latest keys: [id] at: updated",
    "from a | latest keys: [id], at: date",
    "from a | mystage {a: 1}",
    "from a | mystage if x then 1 else 2",
    "from a | cast `order id`: int, from: date",
    "from a | select `from`, a.from, {by: 1}.by",
    "test \"t\" { }",
    "test \"t\" { given paid = rows [] given r\"x\\y.csv\" = file \"x.csv\" expect error E0501 expect plan snapshot expect s rows any_order [ {a: 1.0} ] within: 1e-9 }",
];

/// Expressions that are right.
const EXPRESSIONS: &[&str] = &[
    "1_000",
    "0xff",
    "1.50",
    "2e10",
    "1.5e-3",
    "\"t\\n\\u{1F600}\"",
    "\"over\nlines\"",
    "r\"raw\\\"",
    "r#\"a \"quoted\" b\"#",
    "f\"{x}\"",
    "f\"{{{x:.2}}} \\\"{a ?? \"none\"}\\u{e9} {f\"{y:>10}\"}\"",
    "f\"{ {a: 1}.a }{at:%Y-%m-%d}\"",
    "b\"\\xff\\0\"",
    "@2026-01-31",
    "@2026-01-31T10:00",
    "@2026-01-31T10:00:05.25+02:00",
    "@2026-01-01..@2026-01-31",
    "90s",
    "1h30m",
    "2d + 1w",
    "64MiB",
    "1.5kB",
    "/a\\/b#c/i",
    "[1, 2, [3],]",
    "[]",
    "{}",
    "{a: 1, by: 2, `x y`: 3}",
    "null",
    "true or false and not x",
    "not not x",
    "- - 1",
    "-2 ** -2 ** 2",
    "a.b?.c[0][-1].f(1).g()",
    "`order id` + 1",
    "param.country == let.country",
    "x ?? y ?? z",
    "(x / y) catch null",
    "x ?? -1",
    "x ?? (y + 1)",
    "x in 1..5 and x not in [1, 2]",
    "x not  # c\n in ys",
    "x is null or x is not null",
    "s ~ /^a/ims",
    "1 // 2 / 3 % 4",
    "a / b / c",
    "if a then b else if c then d else e",
    "if a then b",
    "1 + if a then 2 else 3",
    "match x { \"a\" | \"b\" => 1, 2..5 => 2, ..-1 => 4, 9.. => 5, null => 0, else => 3 }",
    "match x { @2026-01-01 => true }",
    "gross(net, rate: 0.2)",
    "clean.gross(net)",
    "tags.map(t => upper(t))",
    "tags.fold((a, b) => a + b, start: 0,)",
    "count(where: total > 100)",
    "(a + b) * c - (d)",
    "x.in + x.`b c`",
    "table + rows + error + with + given + file + limit + plugin",
    "f + r + b",
    "(a == b) == c",
    "a - b -c",
    "list < 3 and a > 2",
];

/// Wrong scripts and the codes they get.
const WRONG: &[(&str, &[&str])] = &[
    ("filter x", &["E0104"]),
    ("straem a = from b", &["E0104"]),
    ("import \"x\"", &["E0104"]),
    ("| filter x", &["E0104"]),
    ("from", &["E0104"]),
    ("from a |", &["E0104"]),
    ("from a filter x", &["E0116"]),
    ("from a\n  | take 5\n  filter x > 1", &["E0116"]),
    ("from a | derive x = 1\n  derive y = 2", &["E0116"]),
    ("from a | filter x >", &["E0104"]),
    ("from a | filter (x > 1", &["E0104"]),
    ("from a | filter x == [1, 2", &["E0104"]),
    ("from a | filter x = 1 and y = 2", &["E0112"]),
    ("from a | filter x == 1 && y == 2", &["E0112"]),
    ("from a | filter x == 1 || y == 2", &["E0112"]),
    ("from a | filter !x", &["E0112"]),
    ("from a | filter x <> 1", &["E0112"]),
    ("from a | filter x == 'text'", &["E0113"]),
    ("from a | filter 1 < x < 5", &["E0114"]),
    ("from a | filter x == y != z", &["E0114"]),
    ("from a | derive z = x ?? y + 1", &["E0115"]),
    ("from a | derive z = x catch if a then b else c", &["E0115"]),
    ("from a | filter x == \"abc", &["E0106"]),
    ("from a | filter x == f\"abc {y", &["E0106"]),
    ("from a | filter x == f\"abc {y}", &["E0106"]),
    ("from a | filter x == r#\"abc\"", &["E0106"]),
    ("from a | derive x = \"\\q\"", &["E0107"]),
    ("from a | derive x = \"\\u{110000}\"", &["E0107"]),
    ("from a | derive x = f\"\\q{y}\\z\"", &["E0107", "E0107"]),
    ("from a | derive x = 1st", &["E0108"]),
    ("from a | derive x = 0xzz", &["E0108"]),
    ("from a | derive x = 1e999", &["E0108"]),
    ("from a | derive x = 9223372036854775808", &["E0109"]),
    ("from a | derive x = -(9223372036854775808)", &["E0109"]),
    ("from a | derive x = 1 - 9223372036854775808", &["E0109"]),
    ("from a | derive x = 99999999999999999999999", &["E0109"]),
    ("from a | derive x = @2026-02-30", &["E0110"]),
    ("from a | derive x = @2026-1-3", &["E0110"]),
    ("from a | derive x = @2026-01-01T25:00", &["E0110"]),
    ("from a | derive x = 30m1h", &["E0111"]),
    ("from a | derive x = 1.5B", &["E0111"]),
    ("from a | filter s ~ /a/x", &["E0117"]),
    ("from a | select from, to", &["E0105"]),
    ("from a | select a, by, c", &["E0105"]),
    ("from a | derive test = 1", &["E0105"]),
    ("from a | derive x = on + 1", &["E0105"]),
    ("stream from = read csv \"x\"", &["E0105"]),
    ("let in = 1", &["E0105"]),
    ("from a | read csv \"x\"", &["E0105"]),
    ("from a | join s as by on k", &["E0105"]),
    ("from table { a | b }", &["E0118"]),
    ("from table {\n a | b\n 1\n}", &["E0118"]),
    ("from table {\n}", &["E0118"]),
    ("from table {\n a b | c\n}", &["E0118"]),
    ("from table {\n a | a\n}", &["E0119"]),
    ("from a | take 5 by k by j", &["E0119"]),
    ("from a | write csv \"x\" append: true append: false", &["E0119"]),
    ("from a | filter x on error skip on error fail", &["E0119"]),
    ("schema S { a: int, a: int }", &["E0119"]),
    ("let x = {a: 1, a: 2}", &["E0119"]),
    ("let x = f\"a } b\"", &["E0104"]),
    ("let x = f\"{}\"", &["E0104"]),
    ("let x: int = 5", &["E0104"]),
    ("let x 5", &["E0104"]),
    ("param x = 5", &["E0104"]),
    ("param x: list<int = 5", &["E0104"]),
    ("param x: decimal(50, 2)", &["E0121"]),
    ("fn f(x) = x", &["E0104"]),
    ("use \"x.pipe\"", &["E0104"]),
    ("from a | filter count(*) > 1", &["E0124"]),
    ("from a | route { else => x, when y => z }", &["E0124"]),
    ("let x = match y { else => 1, 2 => 3 }", &["E0124"]),
    ("let x = match y { }", &["E0123"]),
    ("from a | filter x on error ignore", &["E0104"]),
    ("from a | filter x;", &["E0104"]),
    ("from a | filter x +* y", &["E0104"]),
    ("from a | filter if x", &["E0104"]),
    ("from a | filter x.", &["E0104"]),
    ("let x = 1 2", &["E0104"]),
    ("let x = 1..2..3", &["E0104"]),
    ("let x = (t => t)", &["E0104"]),
    ("let x = y := 1", &["E0112"]),
    ("test \"t\" { expect paid sorted }", &["E0104"]),
    ("test \"t\" { check paid }", &["E0104"]),
    ("@budget(memory: )", &["E0104"]),
    ("from a | filter \u{e9}", &["E0104"]),
    (
        "let a = 1 +\nlet b = 'x'\n  let c = (\nlet d = 2",
        &["E0104", "E0113", "E0104"],
    ),
    (
        "from a | filter x == \"abc\nstream b = from a\nlet y = \"x\"\nlet z = )",
        &["E0106", "E0104"],
    ),
];

fn codes(text: &str) -> Vec<&'static str> {
    parse(text)
        .diagnostics
        .iter()
        .map(|diagnostic| diagnostic.code.as_str())
        .collect()
}

fn shown(text: &str) -> String {
    render_all(&parse(text).diagnostics, &[Source::new("x.pipe", text)], false)
}

fn scripts() -> impl Iterator<Item = String> {
    let statements = STATEMENTS.iter().map(|text| (*text).to_owned());
    let expressions = EXPRESSIONS.iter().flat_map(|text| {
        [
            format!("let x = {text}\n"),
            format!("from s | filter {text}\nlet y = 1"),
        ]
    });
    statements.chain(expressions).chain([EXAMPLE.to_owned()])
}

#[test]
fn what_is_right_parses() {
    let mut failures = String::new();
    for text in scripts() {
        if !parse(&text).diagnostics.is_empty() {
            failures.push_str(&format!("---- {text}\n{}\n", shown(&text)));
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn what_is_wrong_is_refused_with_its_code() {
    let mut failures = String::new();
    for (text, expected) in WRONG {
        let found = codes(text);
        if found != *expected {
            failures.push_str(&format!(
                "---- {text}\nexpected {expected:?}, found {found:?}\n{}\n",
                shown(text)
            ));
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

/// Every prefix and every script with one byte cut out: an answer, never a panic, and places within the text.
#[test]
fn broken_scripts_get_an_answer() {
    for text in scripts() {
        for (at, c) in text.char_indices() {
            for broken in [
                text[..at].to_owned(),
                format!("{}{}", &text[..at], &text[at + c.len_utf8()..]),
            ] {
                for diagnostic in parse(&broken).diagnostics {
                    assert!(diagnostic.primary.span.start as usize <= broken.len(), "{broken}");
                }
            }
        }
    }
}

#[test]
fn deep_text_is_refused_with_a_position() {
    let n = 50_000;
    for (text, what) in [
        (format!("let x = {}1{}", "(".repeat(n), ")".repeat(n)), "parentheses"),
        (format!("let x = {}", "(".repeat(n)), "open parentheses"),
        (format!("let x = {}1", "[".repeat(n)), "lists"),
        (format!("let x = {}1", "{a: ".repeat(n)), "records"),
        (format!("let x = {}1", "- ".repeat(n)), "minuses"),
        (format!("let x = {}1", "not ".repeat(n)), "nots"),
        (format!("let x = {}1", "!".repeat(n)), "bangs"),
        (format!("let x = 1{}", " ** 1".repeat(n)), "powers"),
        (format!("let x = 1{}", " ** - 1".repeat(n)), "negative powers"),
        (format!("let x = {}1", "if a then 1 else ".repeat(n)), "else if"),
        (format!("let x = {}1", "if ".repeat(n)), "if if"),
        (format!("let x = {}", "f\"{".repeat(n)), "f-strings"),
        (format!("param x: {}int", "list<".repeat(n)), "list types"),
        (format!("let x = {}1", "f(".repeat(n)), "calls"),
        (format!("let x = {}1", "-(".repeat(n)), "minus parentheses"),
        (format!("from a {}", "| tee { filter x ".repeat(n)), "blocks"),
        (format!("let x = {}1", "match x { 1 => ".repeat(n)), "match"),
    ] {
        let parsed = parse(&text);
        assert_eq!(
            parsed
                .diagnostics
                .iter()
                .map(|found| found.code.as_str())
                .collect::<Vec<_>>(),
            ["E0103"],
            "{what}"
        );
    }
    // Flat text that would make a deep tree.
    for (text, what) in [
        (format!("let x = 1{}", " + 1".repeat(n)), "sum"),
        (format!("let x = a{}", ".b".repeat(n)), "fields"),
        (format!("let x = a{}", "[0]".repeat(n)), "indexes"),
        (format!("let x = a{}", ".f()".repeat(n)), "methods"),
        (format!("from a | filter x == 1{}", " or x == 1".repeat(n)), "or"),
    ] {
        let found = codes(&text);
        assert!(
            !found.is_empty() && found.iter().all(|code| *code == "E0103"),
            "{what}: {found:?}"
        );
    }
}

#[test]
fn nesting_up_to_the_limit_is_fine() {
    let n = 250;
    for text in [
        format!("let x = {}1{}", "(".repeat(n), ")".repeat(n)),
        format!("let x = {}1{}", "f([".repeat(n / 2), "])".repeat(n / 2)),
        format!("let x = {}1", "- ".repeat(n)),
        format!("let x = 1{}", " ** 2".repeat(n)),
        format!("let x = {}1", "if a then 1 else ".repeat(n)),
        format!("let x = 1{}", " + 1".repeat(400)),
        format!("let x = [{}]", "if a then -1 else x ** 2, ".repeat(2_000)),
        format!("{}\n", "let x = if a then (1) else [not b]\n".repeat(2_000)),
        format!("from a {}", "| derive x = -y ** 2 ".repeat(2_000)),
    ] {
        assert_eq!(codes(&text), [] as [&str; 0], "{}", &text[..40]);
    }
}

/// Large nonsense is answered in time that grows with its length only; a quadratic parser would not return here.
#[test]
fn large_nonsense_is_answered() {
    let mut seed = 7u32;
    let mut random = |count: usize, from: &[u8]| -> String {
        (0..count)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                char::from(from[(seed >> 16) as usize % from.len()])
            })
            .collect()
    };
    let all: Vec<u8> = (0..=255).collect();
    let mut texts = vec![
        random(2_000_000, &all),
        random(200_000, b"\\/'\"`#{}[]()<>|@=\n fr\"let "),
        random(200_000, b"from let @a |\n"),
    ];
    for unit in [
        "\\/",
        "'",
        "/",
        "\"",
        "`",
        "r#",
        "f\"",
        "from table {\n",
        "let x = '\n",
        "\n",
        "#\n",
        "@a\n",
        "from a | f \"\n",
        "x:",
    ] {
        let big = unit.repeat(150_000 / unit.len());
        texts.push(format!("let x = {big}"));
        texts.push(format!("from a | f {big}"));
        texts.push(big);
    }
    for text in texts {
        let parsed = parse(&text);
        assert!(parsed.diagnostics.len() <= 51);
    }
}

/// The result is checked by `format` itself for the same tree and the same comments; here for standing still.
#[test]
fn formatting_keeps_the_tree_and_stands_still() {
    let mut failures = String::new();
    for script in scripts() {
        match format(&script) {
            Err(found) => failures.push_str(&format!("---- {script}\n{found:?}\n")),
            Ok(once) => match format(&once) {
                Ok(twice) if twice == once => {}
                other => failures.push_str(&format!(
                    "---- {script}\n-- once\n{once}\n-- twice\n{}\n",
                    other.unwrap_or_default()
                )),
            },
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

/// A comment at every place where one can stand: it is kept, and the second time nothing moves.
#[test]
fn comments_survive_everywhere() {
    let mut failures = String::new();
    for script in scripts() {
        let ends: Vec<usize> = scan::Scanner::new(&script, 0)
            .filter(|token| !matches!(token.kind, scan::TokenKind::FText | scan::TokenKind::Comment))
            .map(|token| token.end)
            .collect();
        for (count, at) in ends.into_iter().enumerate() {
            // One of three shapes at each place, another one at the next.
            for comment in [" # c\n", "\n## c\n", "\n\n  # c\n\n"]
                .into_iter()
                .skip(count % 3)
                .take(1)
            {
                let script = format!("{}{comment}{}", &script[..at], &script[at..]);
                if parse(&script).has_errors() {
                    continue;
                }
                match format(&script) {
                    Err(found) => failures.push_str(&format!("---- {script}\n{found:?}\n")),
                    Ok(once) => match format(&once) {
                        Ok(twice) if twice == once => {}
                        other => failures.push_str(&format!(
                            "---- {script}\n-- once\n{once}\n-- twice\n{}\n",
                            other.unwrap_or_default()
                        )),
                    },
                }
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn what_is_formatted() {
    assert_snapshot!(
        format(
            "stream x=read csv \"a\"  # why\n |filter a==1 and bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb == ccccccccccccccccccccccccccc and \
             ddddddddddd in [1,2,3]\n# x\n |route{when a=>b,# one\n else=>_}\n\n\n\nfrom x|aggregate aaaaaaaaaaaaaaaaaaaaa=sum(bbbbbbbbbbbbbbbbbb), \
             cccccccccccccccccccccccc=count(where:x>1) by ddddddddddddddd, eeeeeeeeeeeeeee|tee{filter x|write none}|write none\n\
             let y=[\n1,2, # two\n3]\nschema S{a:int,\n# b\nb:string?}\nstage f(a:cols){sort a\n|take 1}\nfrom table {\n a|b # c\n 1|\"x\"\n}"
        )
        .unwrap(),
        @r##"
    stream x = read csv "a"  # why
      | filter a == 1
            and bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb == ccccccccccccccccccccccccccc
            and ddddddddddd in [1, 2, 3]
      # x
      | route {
        when a => b,  # one
        else => _
      }

    from x
      | aggregate aaaaaaaaaaaaaaaaaaaaa = sum(bbbbbbbbbbbbbbbbbb),
          cccccccccccccccccccccccc = count(where: x > 1)
          by ddddddddddddddd, eeeeeeeeeeeeeee
      | tee { filter x | write none }
      | write none
    let y = [
      1,
      2,  # two
      3
    ]
    schema S {
      a: int,
      # b
      b: string?
    }
    stage f(a: cols) {
      sort a
        | take 1
    }
    from table {
      a | b  # c
      1 | "x"
    }
    "##
    );
}

#[test]
fn the_example_stands_as_it_is_written() {
    let formatted = format(EXAMPLE).unwrap();
    assert_eq!(formatted.lines().next(), EXAMPLE.lines().next());
    assert_eq!(
        parse(&formatted).script.doc.as_deref(),
        Some("Revenue per country and tier, and the large orders on their own.")
    );
    let documented: Vec<_> = parse(&formatted)
        .script
        .items
        .into_iter()
        .filter_map(|item| item.doc)
        .collect();
    assert_eq!(documented, ["First day to count."]);
}

#[test]
fn every_error_of_a_file_is_reported() {
    assert_snapshot!(
        shown("let a = 1 +\nstream b = from c\n  | filter x = 1 and y = 2\n  take 5\nparam by: int\nfrom b | filter (z > 1 | write csv 'x'\n\nlet s = \"abc\nlet t = 9223372036854775808\n"),
        @r##"
    error[E0104]: expected an expression, found the reserved word `stream`
     --> x.pipe:2:1
    2 | stream b = from c
      | ^^^^^^

    error[E0116]: a `|` is missing before `take`
     --> x.pipe:4:3
    4 |   take 5
      |   ^^^^
      = help: stages are separated by `|`, also on lines of their own

    error[E0105]: `by` is a reserved word
     --> x.pipe:5:7
    5 | param by: int
      |       ^^ a name is written `` `by` ``

    error[E0104]: expected `)` or an operator, found `|`
     --> x.pipe:6:24
    6 | from b | filter (z > 1 | write csv 'x'
      |                 -      ^
      |                 |
      |                 opened here

    error[E0106]: the string has no end
     --> x.pipe:8:9
    8 | let s = "abc
      |         ^^^^ opened here
      = help: the closing `"` is missing

    error[E0109]: int out of range
     --> x.pipe:9:9
    9 | let t = 9223372036854775808
      |         ^^^^^^^^^^^^^^^^^^^
      = help: an int has 64 bits, at most 9223372036854775807; a float is written `1e20`, an identifier as text
    "##
    );
}

#[test]
fn a_missing_bar_is_named() {
    assert_snapshot!(shown("from orders\n  | filter total > 1\n  sort -total\n"), @r##"
    error[E0116]: a `|` is missing before `sort`
     --> x.pipe:3:3
    3 |   sort -total
      |   ^^^^
      = help: stages are separated by `|`, also on lines of their own
    "##);
}

#[test]
fn a_reserved_word_shows_the_backticks() {
    assert_snapshot!(shown("from orders | select from, to"), @r##"
    error[E0105]: `from` is a reserved word
     --> x.pipe:1:22
    1 | from orders | select from, to
      |                      ^^^^ a name is written `` `from` ``
    "##);
}

#[test]
fn an_open_bracket_is_pointed_at() {
    assert_snapshot!(shown("from orders\n  | derive x = (a + b * c\n  | take 5\n"), @r##"
    error[E0104]: expected `)` or an operator, found `|`
     --> x.pipe:3:3
    2 |   | derive x = (a + b * c
      |                - opened here
    3 |   | take 5
      |   ^
    "##);
}

#[test]
fn a_missing_quote_is_found_where_it_opened() {
    assert_snapshot!(shown("from a | filter x == \"abc\nfrom b | filter y == \"def\"\n"), @r##"
    error[E0106]: the string goes on over the next lines
     --> x.pipe:1:22
    1 | from a | filter x == "abc
      |                      ^^^^ opened here
    2 | from b | filter y == "def"
      |                      - ends here
      = help: most likely its closing `"` is missing
    "##);
}

#[test]
fn a_chain_of_comparisons_shows_the_way() {
    assert_snapshot!(shown("from a | filter 1 < x <= 5"), @r##"
    error[E0114]: comparisons do not chain
     --> x.pipe:1:23
    1 | from a | filter 1 < x <= 5
      |                   -   ^^
      |                   |
      |                   the first comparison
      = help: `1 < x and x <= 5`
    "##);
}

#[test]
fn operators_of_other_languages_are_named() {
    assert_snapshot!(shown("from a | filter x = 1 && !(y <> 'a') || z"), @r##"
    error[E0112]: `&&` is no operator here
     --> x.pipe:1:23
    1 | from a | filter x = 1 && !(y <> 'a') || z
      |                       ^^ `and`

    error[E0112]: `!` is no operator here
     --> x.pipe:1:26
    1 | from a | filter x = 1 && !(y <> 'a') || z
      |                          ^ `not`

    error[E0112]: `<>` is no operator here
     --> x.pipe:1:30
    1 | from a | filter x = 1 && !(y <> 'a') || z
      |                              ^^ `!=`

    error[E0113]: text stands in double quotes
     --> x.pipe:1:33
    1 | from a | filter x = 1 && !(y <> 'a') || z
      |                                 ^^^ `"a"`

    error[E0112]: `||` is no operator here
     --> x.pipe:1:38
    1 | from a | filter x = 1 && !(y <> 'a') || z
      |                                      ^^ `or`
    "##);
}

#[test]
fn a_misspelt_declaration_is_guessed() {
    assert_snapshot!(shown("steam a = from b"), @r##"
    error[E0104]: expected a statement, found `steam`
     --> x.pipe:1:1
    1 | steam a = from b
      | ^^^^^ `stream` is close
    "##);
}

#[test]
fn expressions_are_expected_in_one_word() {
    assert_snapshot!(shown("from a | filter x >"), @r##"
    error[E0104]: expected an expression, found the end of the script
     --> x.pipe:1:20
    1 | from a | filter x >
      |                    ^
    "##);
    assert_snapshot!(shown("from a | derive x = [1, 2"), @r##"
    error[E0104]: expected `]`, `,` or an operator, found the end of the script
     --> x.pipe:1:26
    1 | from a | derive x = [1, 2
      |                     -    ^
      |                     |
      |                     opened here
    "##);
    assert_snapshot!(shown("from a |"), @r##"
    error[E0104]: expected a stage, found the end of the script
     --> x.pipe:1:9
    1 | from a |
      |         ^
    "##);
    assert_snapshot!(shown("let x 5"), @r##"
    error[E0104]: expected `=`, found `5`
     --> x.pipe:1:7
    1 | let x 5
      |       ^
    "##);
    assert_snapshot!(shown("param x: [int]"), @r##"
    error[E0104]: expected a literal or a type, found `[`
     --> x.pipe:1:10
    1 | param x: [int]
      |          ^
    "##);
    assert_snapshot!(shown("let x = if a 1 else 2"), @r##"
    error[E0104]: expected `then` or an operator, found `1`
     --> x.pipe:1:14
    1 | let x = if a 1 else 2
      |              ^
    "##);
    assert_snapshot!(shown("schema S { a int }"), @r##"
    error[E0104]: expected `:`, found `int`
     --> x.pipe:1:14
    1 | schema S { a int }
      |              ^^^
    "##);
    assert_snapshot!(shown("from a | filter x;"), @r##"
    error[E0104]: expected `|`, `,`, an operator, a new statement or the end of the script, found `;`
     --> x.pipe:1:18
    1 | from a | filter x;
      |                  ^
      = help: statements need no terminator
    "##);
}

#[test]
fn rows_of_a_table_are_counted() {
    assert_snapshot!(shown("from table {\n  a | b\n  1 | 2 | 3\n}\n"), @r##"
    error[E0118]: the row has 3 cells
     --> x.pipe:3:3
    2 |   a | b
      |   ----- the table has 2 columns
    3 |   1 | 2 | 3
      |   ^^^^^^^^^
      = help: an empty cell is null: `1 | | x`; text with a bar stands in quotes
    "##);
}

#[test]
fn options_are_types_or_expressions() {
    let parsed = parse("from a | cast a: int?, b: Order, c: decimal(3, 1), d: date");
    let ItemKind::Pipeline(pipeline) = &parsed.script.items[0].kind else {
        panic!("no pipeline")
    };
    let options = &pipeline.stages[0].options;
    assert!(matches!(
        options[0].value,
        OptionValue::Type(TypeExpr {
            kind: TypeKind::Int,
            nullable: true,
            ..
        })
    ));
    assert!(
        matches!(&options[1].value, OptionValue::Expr(expr) if expr.as_name().is_some_and(|name| name.text == "Order"))
    );
    assert!(matches!(
        options[1].value.to_type(),
        Some(TypeExpr {
            kind: TypeKind::Named(_),
            ..
        })
    ));
    assert!(options.iter().all(|option| option.value.to_type().is_some()));
    assert!(matches!(
        options[3].value.to_expr(),
        Some(Expr {
            kind: ExprKind::Name(_),
            ..
        })
    ));
}

#[test]
fn keys_have_a_direction() {
    let parsed = parse("from a | sort -a, b, -(a + b), (-a), -a + b");
    let ItemKind::Pipeline(pipeline) = &parsed.script.items[0].kind else {
        panic!("no pipeline")
    };
    let descending: Vec<bool> = pipeline.stages[0].items.iter().map(StageItem::descending).collect();
    assert_eq!(descending, [true, false, true, false, false]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_gets_an_answer(text in any::<String>()) {
        let parsed = parse(&text);
        render_all(&parsed.diagnostics, &[Source::new("x", text.as_str())], true);
        let _ = format(&text);
    }

    #[test]
    fn any_bytes_get_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Err(found) = decode(&bytes) {
            prop_assert_eq!(found.code.as_str(), "E0101");
        }
        parse(&String::from_utf8_lossy(&bytes));
    }

    /// Words of the language in any order: what parses is formatted to the same tree, and stands still.
    #[test]
    fn any_words_are_formatted_or_refused(words in prop::collection::vec(prop::sample::select(WORDS), 0..40)) {
        let text = format!("from a | {}", words.join(" "));
        if !parse(&text).has_errors() {
            let once = format(&text);
            prop_assert!(once.is_ok(), "{}\n{:?}", text, once);
            let once = once.unwrap_or_default();
            prop_assert_eq!(format(&once).unwrap_or_default(), once);
        }
    }

    /// Right expressions put together.
    #[test]
    fn any_expression_is_formatted_to_itself(text in expression()) {
        for text in [format!("let x = {text}"), format!("from a | f {text}, y = {text} by ({text}) key: {text} | g")] {
            if !parse(&text).has_errors() {
                let once = format(&text);
                prop_assert!(once.is_ok(), "{}\n{:?}", text, once);
                let once = once.unwrap_or_default();
                prop_assert_eq!(format(&once).unwrap_or_default(), once);
            }
        }
    }
}

const WORDS: &[&str] = &[
    "filter",
    "x",
    "y",
    "1",
    "-",
    "+",
    "and",
    "not",
    "in",
    "|",
    ",",
    "a:",
    "by",
    "on",
    "as",
    "error",
    "to",
    "skip",
    "(",
    ")",
    "[1]",
    "{",
    "}",
    "when",
    "=>",
    "else",
    "..",
    "==",
    "=",
    "*",
    "c.*",
    "int",
    "1%",
    "\"s\"",
    "f\"{x}\"",
    "/re/",
    "/",
    "# c\n",
    "\n",
    "if",
    "then",
    "?",
    "??",
    "list<int>",
    "with",
    "limit:",
    "f(",
    "match",
    "let",
    "param.p",
    "5m",
    "@2026-01-01",
    "'q'",
    ".f",
    "test",
    "from b",
];

fn expression() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(EXPRESSIONS).prop_map(str::to_owned);
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            (
                inner.clone(),
                prop::sample::select(&["+", "-", "*", "**", "//", "and", "or", "??", "==", "in", "..", "~"][..]),
                inner.clone()
            )
                .prop_map(|(left, op, right)| format!("{left} {op} {right}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) catch ({b})")),
            inner.clone().prop_map(|a| format!("not ({a})")),
            inner.clone().prop_map(|a| format!("- {a}")),
            prop::collection::vec(inner.clone(), 0..3)
                .prop_map(|items| format!("f([{}], {{a: 1}})", items.join(", # c\n"))),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("if {a} then {b} else {c}")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("match ({a}) {{ 1 | 2 => {b}, else => ({a}).f() }}")),
        ]
    })
}
