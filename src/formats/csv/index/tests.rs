//! Every instruction set against a byte-by-byte walk, and that walk against csv-core.

use super::isa::Kernel;
use super::*;
use proptest::prelude::*;

type Records = Vec<Vec<Vec<u8>>>;

/// Positions outside quotes, byte by byte.
fn walk(text: &[u8], delimiter: u8) -> Vec<u32> {
    let mut state = State::FieldStart;
    let mut positions = Vec::new();
    for (at, &byte) in text.iter().enumerate() {
        state = state.step(byte, delimiter);
        if state == State::FieldStart {
            positions.push(at as u32);
        }
    }
    positions
}

fn walk_scan(mut state: State, text: &[u8], delimiter: u8) -> ExactScan {
    let mut cut = None;
    for (at, &byte) in text.iter().enumerate() {
        state = state.step(byte, delimiter);
        if state == State::FieldStart && byte == b'\n' {
            cut = Some(at + 1);
        }
    }
    let newlines = text.iter().filter(|&&byte| byte == b'\n').count() as u64;
    ExactScan {
        cut,
        end: state,
        newlines,
    }
}

/// The cells between these positions; an empty line is no record, as in csv-core.
fn cells(text: &[u8], positions: &[u32]) -> Records {
    let mut records = Records::new();
    let mut record = Vec::new();
    let mut start = 0;
    let value = |raw: &[u8]| {
        let mut out = vec![0xEE; raw.len()];
        let len = unescape(raw, &mut out);
        out.truncate(len);
        out
    };
    for &at in positions {
        let at = at as usize;
        let raw = &text[start..at];
        start = at + 1;
        if text[at] == b'\n' && record.is_empty() && raw.is_empty() {
            continue;
        }
        record.push(value(raw));
        if text[at] == b'\n' {
            records.push(std::mem::take(&mut record));
        }
    }
    if start < text.len() || !record.is_empty() {
        record.push(value(&text[start..]));
        records.push(record);
    }
    records
}

fn csv_core(text: &[u8], delimiter: u8) -> Records {
    let mut reader = csv_core::ReaderBuilder::new()
        .delimiter(delimiter)
        .terminator(csv_core::Terminator::Any(b'\n'))
        .build();
    let mut out = vec![0; text.len() + 8];
    let mut ends = vec![0; text.len() + 8];
    let mut rest = text;
    let mut records = Records::new();
    let (mut filled, mut fields) = (0, 0);
    loop {
        let (result, read, written, ended) = reader.read_record(rest, &mut out[filled..], &mut ends[fields..]);
        rest = &rest[read..];
        filled += written;
        fields += ended;
        match result {
            csv_core::ReadRecordResult::End => return records,
            csv_core::ReadRecordResult::Record => {
                let starts = std::iter::once(0).chain(ends.iter().copied());
                let bounds = starts.zip(ends[..fields].iter().copied());
                records.push(bounds.map(|(from, to)| out[from..to].to_vec()).collect());
                (filled, fields) = (0, 0);
            }
            csv_core::ReadRecordResult::InputEmpty => {}
            full => panic!("{full:?} with room for everything"),
        }
    }
}

/// Everything at once for one text.
fn check(text: &[u8], delimiter: u8) {
    let expected = walk(text, delimiter);
    // csv-core skips a byte order mark.
    if !text.starts_with(b"\xEF\xBB\xBF") {
        assert_eq!(cells(text, &expected), csv_core(text, delimiter));
    }
    let whole = walk_scan(State::FieldStart, text, delimiter);
    for kernel in Kernel::all() {
        let name = kernel.name;
        let mut out = vec![0; expected.len() + 64];
        let indexed = kernel.index(text, delimiter, &mut out);
        assert_eq!(&out[..indexed.count], expected, "{name}");
        assert_eq!(indexed.consumed, text.len(), "{name}");
        let ends = |at: &&u32| text[**at as usize] == b'\n';
        assert_eq!(indexed.newlines, expected.iter().filter(ends).count() as u64, "{name}");
        assert_eq!(indexed.ascii, text.is_ascii(), "{name}");
        assert_eq!(indexed.quotes, text.contains(&b'"'), "{name}");
        assert_eq!(indexed.open, whole.end == State::Quoted, "{name}");
        for state in [State::FieldStart, State::Unquoted, State::Quoted, State::QuoteInQuoted] {
            assert_eq!(
                kernel.scan_exact(state, text, delimiter),
                walk_scan(state, text, delimiter),
                "{name}, {state:?}"
            );
        }
    }
}

/// Every way of cutting into equal blocks gives the cut and the end of the whole.
fn check_blocks(text: &[u8], delimiter: u8, sizes: impl Iterator<Item = usize>) {
    for size in sizes {
        for kernel in Kernel::all() {
            let mut state = State::FieldStart;
            for block in text.chunks(size) {
                let scan = kernel.scan(block, delimiter);
                assert_eq!(scan.ascii, block.is_ascii());
                assert_eq!(scan.quotes, block.contains(&b'"'));
                let expected = walk_scan(state, block, delimiter);
                assert_eq!(
                    advance(state, block, &scan, delimiter),
                    expected,
                    "{}, {size}",
                    kernel.name
                );
                state = expected.end;
            }
        }
    }
}

/// As many whole records as fit, whatever the room.
fn check_room(text: &[u8], delimiter: u8) {
    let expected = walk(text, delimiter);
    for kernel in Kernel::all() {
        for room in 0..expected.len() + 2 {
            let mut out = vec![u32::MAX; room];
            let indexed = kernel.index(text, delimiter, &mut out);
            let (count, consumed) = if room >= expected.len() {
                (expected.len(), text.len())
            } else {
                let last = expected[..room].iter().rposition(|&at| text[at as usize] == b'\n');
                last.map_or((0, 0), |last| (last + 1, expected[last] as usize + 1))
            };
            assert_eq!(
                (indexed.count, indexed.consumed),
                (count, consumed),
                "{}, room {room}",
                kernel.name
            );
            assert_eq!(out[..count], expected[..count]);
        }
    }
}

fn text(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    let dense = prop::sample::select(b"\"\"\",,\n\rab".as_slice());
    let sparse = prop::sample::select(b"\",\nabcdefghijklmnopqrstuvwxyz0123456789".as_slice());
    let cell = prop_oneof![
        4 => "[a-z0-9 .]{0,12}",
        2 => "\"[a-z,\n]{0,9}(\"\"[a-z,]{0,9}){0,3}\"",
        1 => "[ -~é]{0,6}",
    ];
    let row = prop::collection::vec(cell, 1..6).prop_map(|cells| cells.join(","));
    let rows = prop::collection::vec((row, prop::sample::select(vec!["\n", "\r\n", "\n\n"])), 0..len.end / 20);
    prop_oneof![
        prop::collection::vec(dense, len.clone()),
        prop::collection::vec(sparse, len.clone()),
        prop::collection::vec(any::<u8>(), len),
        rows.prop_map(|rows| rows
            .into_iter()
            .flat_map(|(row, end)| (row + end).into_bytes())
            .collect()),
    ]
}

proptest! {
    #[test]
    fn any_text_is_indexed_as_csv_core_reads_it(text in text(0..500), delimiter in prop::sample::select(vec![b',', b'\t', 0, 0xFF])) {
        check(&text, delimiter);
    }

    #[test]
    fn any_blocks_give_the_same_cut_and_end(text in text(0..450)) {
        check_blocks(&text, b',', 1..=200);
    }

    #[test]
    fn as_many_whole_records_as_fit(text in text(0..300)) {
        check_room(&text, b',');
    }

    #[test]
    fn instruction_sets_agree_without_a_known_start(text in text(0..500)) {
        let scans: Vec<Scan> = Kernel::all().iter().map(|kernel| kernel.scan(&text, b',')).collect();
        prop_assert!(scans.windows(2).all(|pair| pair[0] == pair[1]), "{scans:?}");
    }

    #[test]
    fn a_cell_is_closed_if_its_walk_leaves_the_quotes(cell in "\"[a\"]{0,9}") {
        let closed = cell.bytes().skip(1).fold((State::Quoted, false), |(state, closed), byte| {
            let next = state.step(byte, b',');
            // A quote that the next byte makes half of a pair has closed nothing.
            (next, closed || next == State::Unquoted)
        });
        prop_assert_eq!(is_closed(cell.as_bytes()), closed.1 || closed.0 == State::QuoteInQuoted);
    }
}

/// The danger of blocks: what decides stands on the other side of a boundary.
#[test]
fn quotes_at_every_place_around_a_block_boundary() {
    let parts = [
        "\"a\"\"b\"",
        "\"\"",
        "\"",
        "\"\"\"\"",
        ",\"",
        "\",",
        "\"\n",
        "\n\"",
        "\"\r\n",
        "5\" pipe",
        "5\",\"",
        "\"a\"b\"c,d\"\n",
        "\"ab\"cd",
        "\"a\nb\"",
        "é\"é",
        "\"\"x\"",
        "x\"\"",
    ];
    for part in parts {
        for before in (0..10).chain(54..74).chain(118..138) {
            for fill in ["x", ",", "\n", "ab,", "\"q,\","] {
                let mut text: Vec<u8> = fill.bytes().cycle().take(before).collect();
                text.extend(part.bytes());
                text.extend(",y\nz,\"k\"\n".bytes().cycle().take(70));
                check(&text, b',');
                check_blocks(&text, b',', [1, 7, 63, 64, 65, 128].into_iter());
            }
        }
    }
}

#[test]
fn an_ordinary_text_needs_no_walk() {
    let text = "1,\"gift, wrap \"\"nicely\"\"\",x\r\n2,,\"\"\n".repeat(20);
    for kernel in Kernel::all() {
        let scan = kernel.scan(text.as_bytes(), b',');
        assert!(scan.clean[0] && !scan.clean[1], "{}", kernel.name);
        let mut out = [0; 256];
        let indexed = kernel.index(text.as_bytes(), b',', &mut out);
        assert!(
            indexed.clean && indexed.quotes && indexed.ascii && !indexed.open,
            "{}",
            kernel.name
        );
        assert!(!kernel.index(b"5\" pipe,\n", b',', &mut out).clean);
    }
}

#[test]
fn nothing_and_an_open_quote() {
    assert_eq!(advance(State::Quoted, b"", &scan(b"", b','), b',').end, State::Quoted);
    let nothing = index(b"", b',', &mut []);
    assert_eq!((nothing.count, nothing.consumed, nothing.open), (0, 0, false));
    let open = index(b"a,\"b\n", b',', &mut [0; 4]);
    assert_eq!((open.count, open.consumed, open.open), (1, 5, true));
}

#[test]
fn cells_keep_what_follows_a_closing_quote() {
    let cases = [
        ("\"\"", "", true),
        ("\"", "", false),
        ("\"ab\"", "ab", true),
        ("\"ab", "ab", false),
        ("\"ab\"cd", "abcd", true),
        ("\"a\"\"b\"", "a\"b", true),
        ("\"a\"\"", "a\"", false),
        ("\"a\"b\"\"c", "ab\"\"c", true),
        ("\"\"\"\"", "\"", true),
        ("plain \"x\"", "plain \"x\"", false),
    ];
    for (raw, value, closed) in cases {
        let mut out = [0; 16];
        let len = unescape(raw.as_bytes(), &mut out);
        assert_eq!(&out[..len], value.as_bytes(), "{raw}");
        assert_eq!(is_closed(raw.as_bytes()), closed, "{raw}");
    }
}
