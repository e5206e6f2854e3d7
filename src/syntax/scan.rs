//! Tokens of a script, found without the grammar: for comments, the nesting limit, recovery and messages.
//!
//! Laws
//! - One pass, linear in the text, no recursion: it runs on anything, before pest does.
//! - It agrees with `grammar/pipe.pest` on what is a literal and what a comment; `fmt` checks itself against that.
//! - A `/` begins a regular expression where an operand may stand, and divides behind one.

use crate::diag::Span;

/// Brackets, prefix operators, `**` and `if` inside one another.
pub(super) const NESTING: usize = 256;

/// What a token is, as far as anyone here wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// `# …`.
    Comment,
    /// A name, reserved or not.
    Word,
    /// A literal of any kind but f-strings, and names in backticks.
    Literal,
    /// A literal that the text ends in.
    Unterminated,
    /// `f"` and the text up to `{` or the closing quote; text between `}` and the next such place.
    FText,
    /// A whole `table { … }`.
    Table,
    /// `(`, `[`, `{`, the brace in an f-string, the angle in `list<`.
    Open,
    /// Their ends.
    Close,
    /// Everything else, an operator or a character out of place.
    Symbol,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Token {
    pub(super) fn span(self) -> Span {
        Span::new(self.start, self.end)
    }
}

/// What is open, innermost last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Open {
    Bracket {
        byte: u8,
        at: usize,
    },
    /// The braces of `{expr}` in an f-string.
    Hole {
        at: usize,
    },
    FString {
        at: usize,
    },
}

impl Open {
    /// Where it was opened and what would close it.
    pub(super) fn place(self) -> (usize, &'static str) {
        match self {
            Open::Bracket { byte: b'(', at } => (at, ")"),
            Open::Bracket { byte: b'[', at } => (at, "]"),
            Open::Bracket { byte: b'<', at } => (at, ">"),
            Open::Bracket { at, .. } | Open::Hole { at } => (at, "}"),
            Open::FString { at } => (at, "\""),
        }
    }
}

/// The words a statement can begin with.
pub(super) const DECLARATIONS: [&str; 11] = [
    "use", "param", "secret", "let", "schema", "fn", "stage", "stream", "from", "read", "test",
];

/// All reserved words.
pub(super) const RESERVED: [&str; 28] = [
    "use", "as", "param", "secret", "let", "schema", "fn", "stage", "stream", "from", "read", "test", "by", "on",
    "catch", "and", "or", "not", "in", "is", "if", "then", "else", "match", "when", "true", "false", "null",
];

/// Whether a script can only say the word between backticks.
pub fn is_reserved(word: &str) -> bool {
    RESERVED.contains(&word)
}

fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_'
}

pub(super) fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Walks a script token by token.
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    open: Vec<Open>,
    /// The last token was an operand, so `/` divides and `-` subtracts.
    after_operand: bool,
    /// The token before: a `|` or an opening brace makes a word a stage's name.
    before: (usize, usize),
    /// No `/` before this byte ends a regular expression, no `'` a string: looked for already.
    no_regex_before: usize,
    no_quote_before: usize,
    /// No line from here on ends a table.
    no_table: bool,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str, from: usize) -> Scanner<'a> {
        Scanner {
            text,
            at: from,
            open: Vec::new(),
            after_operand: false,
            before: (from, from),
            no_regex_before: 0,
            no_quote_before: 0,
            no_table: false,
        }
    }

    /// What is open behind the last token.
    pub(super) fn open(&self) -> &[Open] {
        &self.open
    }

    fn byte(&self, ahead: usize) -> u8 {
        self.text.as_bytes().get(self.at + ahead).copied().unwrap_or(0)
    }

    fn token(&mut self, kind: TokenKind, end: usize) -> Token {
        let end = end.min(self.text.len());
        let token = Token {
            kind,
            start: self.at,
            end,
        };
        self.at = end;
        match kind {
            TokenKind::Comment => {}
            TokenKind::Literal | TokenKind::Unterminated | TokenKind::Table | TokenKind::Close => {
                self.after_operand = true;
                self.before = (token.start, token.end);
            }
            TokenKind::FText => {
                self.after_operand = !matches!(self.open.last(), Some(Open::FString { .. }));
                self.before = (token.start, token.end);
            }
            TokenKind::Open | TokenKind::Symbol => {
                self.after_operand = false;
                self.before = (token.start, token.end);
            }
            TokenKind::Word => {
                let word = &self.text[token.start..token.end];
                let before = &self.text[self.before.0..self.before.1];
                let stage_name = matches!(before, "|" | "{");
                let key = matches!(before, "." | "?.");
                let value = matches!(word, "true" | "false" | "null");
                // A reserved word wants an operand behind it, `filter /re/` and `with /re/` do too.
                self.after_operand = key || value || !(is_reserved(word) || stage_name || word == "with");
                self.before = (token.start, token.end);
            }
        }
        token
    }

    /// The end of a string that opens at `from` and closes with `quote`, past the quote.
    fn string_end(&self, from: usize, quote: u8) -> Option<usize> {
        let bytes = self.text.as_bytes();
        let mut at = from;
        loop {
            let found = memchr::memchr2(quote, b'\\', bytes.get(at..)?)? + at;
            if bytes[found] == quote {
                return Some(found + 1);
            }
            at = found + 2;
        }
    }

    /// The same within the line, for regular expressions and single quotes.
    fn line_end_of(&self, from: usize, quote: u8) -> Result<usize, usize> {
        let bytes = self.text.as_bytes();
        let mut at = from;
        while let Some(&byte) = bytes.get(at) {
            match byte {
                b'\n' => break,
                b'\\' => at += 2,
                _ if byte == quote => return Ok(at + 1),
                _ => at += 1,
            }
        }
        Err(at)
    }

    fn raw_string(&mut self) -> Option<Token> {
        let rest = &self.text.as_bytes()[self.at + 1..];
        let hashes = rest.iter().take_while(|byte| **byte == b'#').count();
        if rest.get(hashes) != Some(&b'"') {
            return None;
        }
        let close = format!("\"{}", "#".repeat(hashes));
        let body = self.at + hashes + 2;
        Some(
            match memchr::memmem::find(&self.text.as_bytes()[body..], close.as_bytes()) {
                Some(found) => self.token(TokenKind::Literal, body + found + close.len()),
                None => self.token(TokenKind::Unterminated, self.text.len()),
            },
        )
    }

    /// `table { … }` behind `from` or `=`; `None` if it is only a name.
    fn table(&mut self) -> Option<Token> {
        let before = &self.text[self.before.0..self.before.1];
        if self.no_table || !matches!(before, "from" | "=") {
            return None;
        }
        let mut at = skip_gap(self.text, self.at + "table".len());
        let bytes = self.text.as_bytes();
        if bytes.get(at) != Some(&b'{') {
            return None;
        }
        loop {
            let Some(line) = memchr::memchr(b'\n', &bytes[at..]) else {
                self.no_table = true;
                return None;
            };
            at += line + 1;
            while matches!(bytes.get(at), Some(b' ' | b'\t')) {
                at += 1;
            }
            if bytes.get(at) == Some(&b'}') {
                return Some(self.token(TokenKind::Table, at + 1));
            }
        }
    }

    /// Text of an f-string up to its quote or the next hole.
    fn ftext(&mut self, from: usize) -> Token {
        let bytes = self.text.as_bytes();
        let mut at = from;
        while let Some(&byte) = bytes.get(at) {
            match byte {
                b'"' => {
                    self.open.pop();
                    return self.token(TokenKind::FText, at + 1);
                }
                b'\\' if bytes[at..].starts_with(b"\\u{") => at += 3,
                b'\\' => at += 2,
                b'{' if bytes.get(at + 1) == Some(&b'{') => at += 2,
                b'{' if at > from || from > self.at => return self.token(TokenKind::FText, at),
                b'{' => {
                    self.open.push(Open::Hole { at });
                    return self.token(TokenKind::Open, at + 1);
                }
                _ => at += 1,
            }
        }
        self.token(TokenKind::Unterminated, self.text.len())
    }
}

impl Iterator for Scanner<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        let bytes = self.text.as_bytes();
        if let Some(Open::FString { .. }) = self.open.last()
            && self.at < bytes.len()
        {
            return Some(self.ftext(self.at));
        }
        while self.byte(0).is_ascii_whitespace() && self.at < bytes.len() {
            self.at += 1;
        }
        let byte = *bytes.get(self.at)?;
        let hole = matches!(self.open.last(), Some(Open::Hole { .. }));
        Some(match byte {
            b'#' => {
                let end = memchr::memchr(b'\n', &bytes[self.at..]).map_or(bytes.len(), |found| self.at + found);
                self.token(TokenKind::Comment, end)
            }
            b'"' => match self.string_end(self.at + 1, b'"') {
                Some(end) => self.token(TokenKind::Literal, end),
                None => self.token(TokenKind::Unterminated, bytes.len()),
            },
            b'b' if self.byte(1) == b'"' => match self.string_end(self.at + 2, b'"') {
                Some(end) => self.token(TokenKind::Literal, end),
                None => self.token(TokenKind::Unterminated, bytes.len()),
            },
            b'f' if self.byte(1) == b'"' => {
                self.open.push(Open::FString { at: self.at });
                self.ftext(self.at + 2)
            }
            b'r' if matches!(self.byte(1), b'"' | b'#') => match self.raw_string() {
                Some(token) => token,
                None => self.token(TokenKind::Word, self.at + 1),
            },
            b'`' => match memchr::memchr2(b'`', b'\n', &bytes[self.at + 1..]) {
                Some(found) if bytes[self.at + 1 + found] == b'`' => {
                    self.token(TokenKind::Literal, self.at + found + 2)
                }
                _ => self.token(TokenKind::Symbol, self.at + 1),
            },
            b'\'' if self.at >= self.no_quote_before => match self.line_end_of(self.at + 1, b'\'') {
                Ok(end) => self.token(TokenKind::Literal, end),
                Err(end) => {
                    self.no_quote_before = end;
                    self.token(TokenKind::Symbol, self.at + 1)
                }
            },
            b'/' if !self.after_operand && !matches!(self.byte(1), b'/' | b'*') && self.at >= self.no_regex_before => {
                match self.line_end_of(self.at + 1, b'/') {
                    Ok(mut end) => {
                        while bytes.get(end).is_some_and(u8::is_ascii_alphabetic) {
                            end += 1;
                        }
                        self.token(TokenKind::Literal, end)
                    }
                    Err(end) => {
                        self.no_regex_before = end;
                        self.token(TokenKind::Symbol, self.at + 1)
                    }
                }
            }
            b'@' if self.byte(1).is_ascii_digit() => {
                let mut end = self.at + 1;
                while let Some(&byte) = bytes.get(end) {
                    let inner = is_word_byte(byte)
                        || matches!(byte, b'-' | b':')
                        || byte == b'+' && bytes[end - 1].is_ascii_digit() && bytes[self.at..end].contains(&b'T')
                        || byte == b'.' && bytes.get(end + 1) != Some(&b'.');
                    if !inner {
                        break;
                    }
                    end += 1;
                }
                self.token(TokenKind::Literal, end)
            }
            b'0'..=b'9' => {
                let mut end = self.at;
                while let Some(&byte) = bytes.get(end) {
                    let point = byte == b'.' && bytes.get(end + 1).is_some_and(u8::is_ascii_digit);
                    let sign = matches!(byte, b'+' | b'-')
                        && matches!(bytes[end - 1], b'e' | b'E')
                        && !bytes[self.at..end].starts_with(b"0x")
                        && bytes.get(end + 1).is_some_and(u8::is_ascii_digit);
                    if !(is_word_byte(byte) || point || sign) {
                        break;
                    }
                    end += 1;
                }
                self.token(TokenKind::Literal, end)
            }
            _ if is_word_start(byte) => {
                let end = word_end(self.text, self.at);
                if &self.text[self.at..end] == "table"
                    && let Some(token) = self.table()
                {
                    return Some(token);
                }
                self.token(TokenKind::Word, end)
            }
            b'(' | b'[' | b'{' => {
                self.open.push(Open::Bracket { byte, at: self.at });
                self.token(TokenKind::Open, self.at + 1)
            }
            b'<' if self.text[self.before.0..self.before.1] == *"list" => {
                self.open.push(Open::Bracket { byte, at: self.at });
                self.token(TokenKind::Open, self.at + 1)
            }
            b'>' if matches!(self.open.last(), Some(Open::Bracket { byte: b'<', .. })) && self.byte(1) != b'=' => {
                self.open.pop();
                self.token(TokenKind::Close, self.at + 1)
            }
            b')' | b']' | b'}' => {
                // A `list < 3` that was no type is closed by what closes around it.
                while matches!(self.open.last(), Some(Open::Bracket { byte: b'<', .. })) {
                    self.open.pop();
                }
                match self.open.last() {
                    Some(Open::Hole { .. }) if byte == b'}' => {
                        self.open.pop();
                    }
                    Some(Open::Bracket { byte: open, .. })
                        if matches!((*open, byte), (b'(', b')') | (b'[', b']') | (b'{', b'}')) =>
                    {
                        self.open.pop();
                    }
                    _ => return Some(self.token(TokenKind::Symbol, self.at + 1)),
                }
                self.token(TokenKind::Close, self.at + 1)
            }
            // A format in an f-string is text.
            b':' if hole => {
                let mut end = self.at + 1;
                while bytes.get(end).is_some_and(|byte| !matches!(byte, b'}' | b'"' | b'\n')) {
                    end += 1;
                }
                self.token(TokenKind::FText, end)
            }
            _ => {
                let two = bytes.get(self.at..self.at + 2).unwrap_or(&[]);
                let long = [
                    b"==", b"!=", b"<=", b">=", b"<>", b"&&", b"||", b"??", b"?.", b"..", b"**", b"//", b"=>",
                ]
                .iter()
                .any(|symbol| *symbol == two);
                let width = match self.text[self.at..].chars().next() {
                    _ if long => 2,
                    Some(c) => c.len_utf8(),
                    None => 1,
                };
                self.token(TokenKind::Symbol, self.at + width)
            }
        })
    }
}

/// The end of the word that begins at `at`.
pub(super) fn word_end(text: &str, at: usize) -> usize {
    let bytes = text.as_bytes();
    at + bytes[at.min(bytes.len())..]
        .iter()
        .take_while(|byte| is_word_byte(**byte))
        .count()
}

/// The first byte at or behind `at` that is neither blank nor in a comment.
pub(super) fn skip_gap(text: &str, mut at: usize) -> usize {
    let bytes = text.as_bytes();
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => at += 1,
            b'#' => at = memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |found| at + found),
            _ => break,
        }
    }
    at
}

/// Whether a statement begins at `at`: a declaration word that is no key (`test:`) and no value (`let.vat`), or `@name`.
pub(super) fn begins_statement(text: &str, at: usize) -> bool {
    let bytes = text.as_bytes();
    if bytes.get(at) == Some(&b'@') {
        return bytes.get(at + 1).copied().is_some_and(is_word_start);
    }
    let end = word_end(text, at);
    DECLARATIONS.contains(&&text[at..end])
        && !matches!(
            bytes
                .get(end..)
                .unwrap_or(&[])
                .iter()
                .find(|byte| !matches!(byte, b' ' | b'\t')),
            Some(b':' | b'.')
        )
}

/// The next line behind the byte `from` (or at it, if `from` begins the line) that begins with a statement and is indented
/// by at most `indent` bytes.
pub(super) fn next_statement_line(text: &str, from: usize, indent: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut line = memchr::memrchr(b'\n', &bytes[..from.min(bytes.len())]).map_or(0, |found| found + 1);
    loop {
        let mut at = line;
        while matches!(bytes.get(at), Some(b' ' | b'\t')) {
            at += 1;
        }
        if at >= from && at - line <= indent && begins_statement(text, at) {
            return Some(at);
        }
        line = at + memchr::memchr(b'\n', bytes.get(at..)?)? + 1;
    }
}

/// How deep the text goes, and the place where that is more than [`NESTING`].
pub(super) fn nesting(text: &str) -> Result<usize, usize> {
    /// What counts in one bracket: it goes when the bracket closes.
    #[derive(Default)]
    struct Level {
        ifs: usize,
        powers: usize,
        prefixes: usize,
    }
    let mut levels = vec![Level::default()];
    let mut total = 0usize;
    let mut most = 0usize;
    let mut scanner = Scanner::new(text, 0);
    let mut after_operand = false;
    let mut line = 0usize;
    while let Some(token) = scanner.next() {
        // Brackets that are left open do not reach into the next statement.
        let new_line = text[line..token.start].contains('\n') || line == 0;
        line = token.end;
        if new_line && matches!(token.kind, TokenKind::Word) && begins_statement(text, token.start) {
            scanner.open.clear();
            levels = vec![Level::default()];
            total = 0;
            after_operand = false;
            continue;
        }
        let inner = levels.len() > 1;
        let Some(level) = levels.last_mut() else { break };
        let symbol = &text[token.start..token.end];
        match token.kind {
            TokenKind::Comment => continue,
            TokenKind::Open => {
                levels.push(Level::default());
                total += 1;
            }
            TokenKind::Close => {
                if inner {
                    total -= 1 + level.ifs + level.powers + level.prefixes;
                    levels.pop();
                }
                if let Some(level) = levels.last_mut() {
                    total -= level.prefixes;
                    level.prefixes = 0;
                }
            }
            TokenKind::Word if symbol == "not" => {
                level.prefixes += 1;
                total += 1;
            }
            TokenKind::Word if symbol == "if" => {
                level.ifs += 1;
                total += 1;
            }
            TokenKind::Symbol if symbol == "," || symbol == "|" => {
                total -= level.ifs + level.powers + level.prefixes;
                *level = Level::default();
            }
            TokenKind::Symbol if symbol == "**" => {
                level.powers += 1;
                total += 1;
            }
            TokenKind::Symbol if !after_operand && matches!(symbol, "-" | "!") => {
                level.prefixes += 1;
                total += 1;
            }
            TokenKind::Symbol => {
                total -= level.powers;
                level.powers = 0;
            }
            _ => {
                total -= level.prefixes;
                level.prefixes = 0;
            }
        }
        after_operand = scanner.after_operand;
        most = most.max(total);
        if total > NESTING {
            return Err(token.start);
        }
        // Ends of f-strings close a bracket without a token of their own.
        while levels.len()
            > scanner
                .open
                .iter()
                .filter(|open| !matches!(open, Open::FString { .. }))
                .count()
                + 1
        {
            if let Some(level) = levels.pop() {
                total -= 1 + level.ifs + level.powers + level.prefixes;
            }
        }
    }
    Ok(most)
}
