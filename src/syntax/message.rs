//! What is said about text that the grammar refuses: what was expected, what was found, and what was probably meant.
//!
//! Laws
//! - The place is the furthest the grammar came; everything else is looked up in the text around it.
//! - One mistake, one diagnostic: `resume` says where the next statement may be looked for.

use pest::error::{Error, ErrorVariant, InputLocation};

use super::parse::Rule;
use super::scan::{self, Open, Scanner, Token, TokenKind};
use crate::diag::{Diagnostic, Span, suggest};

/// A diagnostic and the byte behind which the parser may go on.
pub(super) struct Failure {
    pub(super) diagnostic: Diagnostic,
    pub(super) resume: usize,
}

/// What the scanner knows about the place.
struct Place<'a> {
    text: &'a str,
    at: usize,
    /// The token before it.
    before: Option<Token>,
    /// The token before that.
    second: Option<Token>,
    /// The innermost bracket that is open, and what closes it.
    open: Option<(usize, &'static str)>,
    /// A literal without an end that begins at or before it.
    unterminated: Option<Token>,
}

impl<'a> Place<'a> {
    fn new(text: &'a str, from: usize, at: usize) -> Place<'a> {
        let mut scanner = Scanner::new(text, from);
        let (mut before, mut second, mut unterminated) = (None, None, None);
        let mut open = None;
        loop {
            let stack = scanner.open().last().map(|open| open.place());
            let Some(token) = scanner.next() else {
                // The text ends within an f-string.
                unterminated = scanner.open().iter().find_map(|open| match open {
                    Open::FString { at } => Some(Token {
                        kind: TokenKind::Unterminated,
                        start: *at,
                        end: text.len(),
                    }),
                    _ => None,
                });
                open = open.or(stack);
                break;
            };
            if token.start >= at || token.kind == TokenKind::Unterminated {
                open = open.or(stack);
                if token.kind == TokenKind::Unterminated && token.start <= at {
                    unterminated = Some(token);
                }
                break;
            }
            if token.kind != TokenKind::Comment {
                second = before;
                before = Some(token);
            }
        }
        Place {
            text,
            at,
            before,
            second,
            open,
            unterminated,
        }
    }

    fn text_of(&self, token: Option<Token>) -> &'a str {
        token
            .and_then(|token| self.text.get(token.start..token.end))
            .unwrap_or("")
    }

    fn word(&self) -> &'a str {
        &self.text[self.at..scan::word_end(self.text, self.at)]
    }

    fn begins_line(&self) -> bool {
        begins_line(self.text, self.at)
    }

    /// What stands at the place, for a person, and its span.
    fn found(&self) -> (String, Span) {
        let rest = &self.text[self.at..];
        let Some(first) = rest.chars().next() else {
            return ("the end of the script".to_owned(), Span::new(self.at, self.at));
        };
        let token = Scanner::new(self.text, self.at).find(|token| token.kind != TokenKind::Comment);
        let end = match token {
            Some(token) if token.start == self.at && token.kind != TokenKind::FText => token.end,
            _ => self.at + first.len_utf8(),
        };
        let found = &self.text[self.at..end];
        let line_end = found.find('\n').map_or(end, |newline| self.at + newline);
        let span = Span::new(self.at, line_end.max(self.at + 1));
        let what = match first {
            '"' => "a string".to_owned(),
            '0'..='9' => format!("`{}`", short(found)),
            _ if first.is_control() => format!("the character U+{:04X}", first as u32),
            _ if scan::is_reserved(found) => format!("the reserved word `{found}`"),
            _ => format!("`{}`", short(found)),
        };
        (what, span)
    }
}

/// Whether only blanks stand before `at` in its line.
fn begins_line(text: &str, at: usize) -> bool {
    let line = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    text[line..at].trim().is_empty()
}

fn short(text: &str) -> String {
    let line = text.lines().next().unwrap_or("");
    match line.char_indices().nth(30) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.to_owned(),
    }
}

/// The diagnostic for the statement that begins at `from`.
pub(super) fn syntax_error(text: &str, from: usize, error: &Error<Rule>) -> Failure {
    let at = from
        + match error.location {
            InputLocation::Pos(at) => at,
            InputLocation::Span((at, _)) => at,
        };
    let at = at.min(text.len());
    let place = Place::new(text, from, at);
    let positives: &[Rule] = match &error.variant {
        ErrorVariant::ParsingError { positives, .. } => positives,
        ErrorVariant::CustomError { .. } => {
            let diagnostic = Diagnostic::error("E0103", Span::new(at, at + 1), "nested too deeply for this stack");
            return Failure { diagnostic, resume: at };
        }
    };
    let mut resume = at;
    // A string that ends at the place and began lines above: its opening quote was probably meant to close another one.
    let multi_line = place
        .before
        .filter(|token| token.kind == TokenKind::Literal && text[token.start..token.end].contains('\n'))
        .filter(|token| text[token.start..].starts_with('"') && token.end == at);
    let diagnostic = unterminated(&place)
        .or_else(|| not_a_statement(&place, from))
        .or_else(|| foreign_operator(&place))
        .or_else(|| missing_bar(&place, positives))
        .or_else(|| reserved_name(&place, positives))
        .unwrap_or_else(|| expected(&place, positives));
    let diagnostic = match multi_line {
        Some(token) => {
            resume = token.start + 1;
            let line_end = text[token.start..]
                .find('\n')
                .map_or(token.end, |newline| token.start + newline);
            Diagnostic::error(
                "E0106",
                Span::new(token.start, line_end),
                "the string goes on over the next lines",
            )
            .labelled("opened here")
            .also(Span::new(token.end - 1, token.end), "ends here")
            .help("most likely its closing `\"` is missing")
        }
        None => diagnostic,
    };
    if let Some(token) = place.unterminated {
        resume = token.start;
    }
    Failure { diagnostic, resume }
}

fn unterminated(place: &Place<'_>) -> Option<Diagnostic> {
    let token = place.unterminated?;
    let opens = if token.start == place.at || place.open.is_none_or(|(_, close)| close != "\"") {
        token.start
    } else {
        place.open.map_or(token.start, |(at, _)| at)
    };
    let line_end = place.text[opens..]
        .find('\n')
        .map_or(place.text.len(), |newline| opens + newline);
    let what = if place.text[opens..].starts_with("f\"") {
        "f-string"
    } else {
        "string"
    };
    Some(
        Diagnostic::error("E0106", Span::new(opens, line_end), format!("the {what} has no end"))
            .labelled("opened here")
            .help(format!(
                "the closing `{}` is missing",
                if what == "string" && place.text[opens..].starts_with("r#") {
                    "\"#"
                } else {
                    "\""
                }
            )),
    )
}

/// At the first byte of a statement.
fn not_a_statement(place: &Place<'_>, from: usize) -> Option<Diagnostic> {
    let begins_well = scan::begins_statement(place.text, from);
    if place.at != from && begins_well {
        return None;
    }
    let place = Place {
        at: from,
        ..Place::new(place.text, from, from)
    };
    if begins_well {
        return None;
    }
    let (found, span) = place.found();
    let word = place.word();
    let diagnostic = Diagnostic::error("E0104", span, format!("expected a statement, found {found}"));
    let foreign = match word {
        "import" | "include" | "require" | "using" => Some("`use \"lib.pipe\" as lib` reads another script"),
        "def" | "function" | "func" | "macro" => {
            Some("`fn name(x: int) = …` is a function, `stage name() { … }` a fragment")
        }
        "var" | "const" | "set" => Some("`let name = …` is a constant; a column is made with `derive` in a pipeline"),
        "SELECT" | "select" | "WITH" | "with" => Some("a pipeline begins with its source: `from orders | select a, b`"),
        "type" | "struct" | "table" => Some("`schema Name { id: int }` is a record type"),
        _ if place.text[from..].starts_with('|') => {
            Some("the statement before has ended; a pipeline begins with `from` or `read`")
        }
        _ => None,
    };
    if let Some(help) = foreign {
        return Some(diagnostic.help(help));
    }
    Some(match suggest(word, &scan::DECLARATIONS) {
        Some(near) if !word.is_empty() => diagnostic.labelled(format!("`{near}` is close")),
        _ => diagnostic.help("a statement begins with `from`, `read`, `stream`, `param`, `let`, `schema`, `fn`, `stage`, `use`, `secret`, \
                              `test` or an attribute such as `@budget(…)`"),
    })
}

/// Operators of other languages that the grammar does not read.
fn foreign_operator(place: &Place<'_>) -> Option<Diagnostic> {
    let bytes = place.text.as_bytes();
    let here = bytes.get(place.at).copied().unwrap_or(0);
    let next = bytes.get(place.at + 1).copied().unwrap_or(0);
    let before = place
        .at
        .checked_sub(1)
        .and_then(|at| bytes.get(at))
        .copied()
        .unwrap_or(0);
    let adjacent = place.before.is_some_and(|token| token.end == place.at);
    let (start, end, ours) = match (before, here, next) {
        (_, b'&', b'&') => (place.at, place.at + 2, "and"),
        (_, b'&', _) => (place.at, place.at + 1, "and"),
        (_, b'|', b'|') => (place.at, place.at + 2, "or"),
        (b'|', b'|', _) if adjacent => (place.at - 1, place.at + 1, "or"),
        (b'=', b'=', _) if adjacent => (place.at - 1, place.at + 1, "=="),
        (b'<', b'>', _) if adjacent => (place.at - 1, place.at + 1, "!="),
        (b'!', b'=', _) if adjacent => (place.at - 1, place.at + 1, "!="),
        (b'=', b'~', _) if adjacent => (place.at - 1, place.at + 1, "~"),
        (_, b':', b'=') => (place.at, place.at + 2, "="),
        _ => return None,
    };
    let found = &place.text[start..end];
    if found == ours {
        return None;
    }
    Some(
        Diagnostic::error("E0112", Span::new(start, end), format!("`{found}` is no operator here"))
            .labelled(format!("`{ours}`")),
    )
}

/// A name at the start of a line, or behind `from x`, where a `|` could stand.
fn missing_bar(place: &Place<'_>, positives: &[Rule]) -> Option<Diagnostic> {
    let word = place.word();
    let could = positives.contains(&Rule::bar)
        || positives
            .iter()
            .any(|rule| matches!(rule, Rule::tail | Rule::clause | Rule::items));
    let name = !word.is_empty() && !scan::is_reserved(word) && !word.as_bytes()[0].is_ascii_digit();
    let second = place.text_of(place.second);
    if !(could && name && (place.begins_line() || second == "from")) {
        return None;
    }
    let span = Span::new(place.at, place.at + word.len());
    Some(
        Diagnostic::error("E0116", span, format!("a `|` is missing before `{}`", short(word)))
            .help("stages are separated by `|`, also on lines of their own"),
    )
}

/// A reserved word where a name is wanted.
fn reserved_name(place: &Place<'_>, positives: &[Rule]) -> Option<Diagnostic> {
    let names = positives.iter().any(|rule| {
        matches!(
            rule,
            Rule::name
                | Rule::call_name
                | Rule::call
                | Rule::expr
                | Rule::column
                | Rule::stage_arg
                | Rule::items
                | Rule::tail
                | Rule::named
                | Rule::function
                | Rule::arg
                | Rule::lambda
                | Rule::group
        )
    });
    let word = place.word();
    if scan::is_reserved(word) && names && !(place.begins_line() && scan::begins_statement(place.text, place.at)) {
        let span = Span::new(place.at, place.at + word.len());
        return Some(
            Diagnostic::error("E0105", span, format!("`{word}` is a reserved word"))
                .labelled(format!("a name is written `` `{word}` ``")),
        );
    }
    // `derive by = 1`, `select on, x`: the word was taken for a clause or a statement, the next token is out of place.
    let before = place.text_of(place.before);
    let next = place.text[place.at..].chars().next();
    let is_taken = matches!(
        before,
        "by" | "on" | "as" | "from" | "read" | "test" | "stage" | "stream" | "use" | "param" | "let" | "schema" | "fn"
    );
    let token = place.before?;
    let leads_statement = place.second.is_none() && begins_line(place.text, token.start);
    if is_taken && !leads_statement && matches!(next, Some('=' | ',' | '|' | ')' | '>' | '<' | '+' | '*' | '/')) {
        return Some(
            Diagnostic::error("E0105", token.span(), format!("`{before}` is a reserved word"))
                .labelled(format!("a name is written `` `{before}` ``")),
        );
    }
    None
}

/// Expected …, found ….
fn expected(place: &Place<'_>, positives: &[Rule]) -> Diagnostic {
    let (found, span) = place.found();
    let mut phrases: Vec<(u8, &'static str)> = positives.iter().filter_map(|rule| phrase(*rule)).collect();
    if let Some((_, close)) = place.open
        && positives
            .iter()
            .any(|rule| matches!(rule, Rule::comma) || closes(*rule))
    {
        phrases.retain(|(_, text)| {
            !matches!(
                *text,
                "`)`" | "`]`" | "`}`" | "a new statement" | "the end of the script"
            )
        });
        phrases.push((
            1,
            match close {
                ")" => "`)`",
                "]" => "`]`",
                _ => "`}`",
            },
        ));
    }
    let says = |word: &str| phrases.iter().any(|(_, text)| *text == word);
    let expression = says("an expression") || says("a whole number") && says("`(`");
    if expression {
        phrases.retain(|(rank, text)| {
            *rank > 1
                || matches!(
                    *text,
                    "`)`" | "`]`" | "`}`" | "a type" | "`from` or `read`" | "`=`" | "`:`"
                )
        });
        phrases.push((0, "an expression"));
    } else if place.text_of(place.before) == "|" && phrases.iter().any(|(_, text)| *text == "a name") {
        phrases.retain(|(_, text)| *text != "a name");
        phrases.push((0, "a stage"));
    }
    phrases.sort_unstable();
    phrases.dedup();
    // What can stand behind every name is worth a word only if nothing else can.
    if phrases.iter().any(|(_, text)| !matches!(*text, "`(`" | "`[`")) && phrases.iter().any(|(rank, _)| *rank == 4) {
        phrases.retain(|(_, text)| !matches!(*text, "`(`" | "`[`" | "`{`" | "`as`"));
    }
    let words: Vec<&str> = phrases.iter().map(|(_, text)| *text).take(5).collect();
    let expected = match words.as_slice() {
        // What a test puts in the place of something.
        [] if positives.contains(&Rule::kw_file) => "`table { … }`, `rows [ … ]` or `file \"path\"`".to_owned(),
        [] if positives.contains(&Rule::kw_rows) => "`table { … }` or `rows [ … ]`".to_owned(),
        [] => "something else".to_owned(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    };
    if positives.contains(&Rule::table_body) {
        return Diagnostic::error(
            "E0118",
            Span::new(place.at.saturating_sub(1), place.at),
            "a table has its rows on lines of their own",
        )
        .help("the first line names the columns, each further line is a row, and `}` stands on a line of its own");
    }
    let mut diagnostic = Diagnostic::error("E0104", span, format!("expected {expected}, found {found}"));
    if let Some((open, close)) = place.open
        && open + 1 < place.at
        && words.iter().any(|word| word.trim_matches('`') == close)
    {
        diagnostic = diagnostic.also(Span::new(open, open + 1), "opened here");
    }
    match place.text[place.at..].chars().next() {
        Some(';') => diagnostic.help("statements need no terminator"),
        _ => diagnostic,
    }
}

fn closes(rule: Rule) -> bool {
    matches!(rule, Rule::close_paren | Rule::close_bracket | Rule::close_brace)
}

/// A rule in words, with its rank in the list; `None` if another says the same.
fn phrase(rule: Rule) -> Option<(u8, &'static str)> {
    Some(match rule {
        Rule::name | Rule::field_name => (0, "a name"),
        Rule::expr | Rule::stage_arg | Rule::items | Rule::arg | Rule::column | Rule::function | Rule::group => {
            (0, "an expression")
        }
        Rule::type_expr | Rule::type_name | Rule::list_type | Rule::builtin => (0, "a type"),
        Rule::string | Rule::raw_string => (0, "a string"),
        Rule::signed_literal | Rule::pattern | Rule::choices => (0, "a literal"),
        Rule::int => (0, "a whole number"),
        Rule::call | Rule::call_name | Rule::chain => (0, "a stage"),
        Rule::head | Rule::pipeline | Rule::read_call | Rule::read_name => (0, "`from` or `read`"),
        Rule::policy => (0, "`fail`, `skip`, `null` or `to NAME`"),
        Rule::fn_params => (0, "`(`"),
        Rule::fields => (0, "`{`"),
        Rule::option_value => (0, "a value"),
        Rule::step | Rule::given | Rule::with_step | Rule::expect => (0, "`given`, `with` or `expect`"),
        Rule::table | Rule::table_body => (0, "a table"),
        Rule::rows => (0, "`rows [ … ]`"),
        Rule::arm | Rule::arms => (0, "`when` or `else`"),
        Rule::match_arm => (0, "an arm `pattern => value`"),
        Rule::code => (0, "a code such as `E0501`"),
        Rule::expect_stream => (0, "a stream"),
        Rule::expect_rows | Rule::expect_schema | Rule::expect_count | Rule::kw_snapshot => {
            (0, "`rows`, `schema`, `count` or `snapshot`")
        }
        Rule::lambda => (1, "a lambda"),
        Rule::assign => (1, "`=`"),
        Rule::colon => (1, "`:`"),
        Rule::arrow => (1, "`=>`"),
        Rule::comma => (3, "`,`"),
        Rule::bar => (2, "`|`"),
        Rule::open_paren => (1, "`(`"),
        Rule::close_paren => (1, "`)`"),
        Rule::open_bracket | Rule::list => (1, "`[`"),
        Rule::close_bracket => (1, "`]`"),
        Rule::open_brace => (1, "`{`"),
        Rule::close_brace => (1, "`}`"),
        Rule::close_angle => (1, "`>`"),
        Rule::kw_then => (1, "`then`"),
        Rule::kw_else => (2, "`else`"),
        Rule::kw_as => (2, "`as`"),
        Rule::eq
        | Rule::ne
        | Rule::lt
        | Rule::gt
        | Rule::le
        | Rule::ge
        | Rule::or
        | Rule::and
        | Rule::add
        | Rule::sub
        | Rule::mul
        | Rule::r#in
        | Rule::is
        | Rule::coalesce
        | Rule::catch
        | Rule::pow
        | Rule::range => (4, "an operator"),
        Rule::option | Rule::clause | Rule::by_clause | Rule::on_clause | Rule::option_key => (5, "an option"),
        Rule::next_statement => (6, "a new statement"),
        Rule::EOI => (7, "the end of the script"),
        _ => return None,
    })
}
