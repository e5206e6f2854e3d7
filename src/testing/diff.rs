//! The difference of two tables, cell by cell.

use super::table::aligned;

/// Lines of a table around which nothing changed.
const AROUND: usize = 2;
/// Lines of a new text that are shown.
const FIRST: usize = 30;
/// Lines of a difference that are shown at most.
const MOST: usize = 60;

/// The lines of a table that only one side has, or that differ in a few cells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Same(usize, usize),
    Changed(usize, usize),
    Lost(usize),
    New(usize),
}

/// What is different between `old` and `new`; empty if nothing is. Lines begin with a blank, `-`, `+`, or `~` where both have the row and
/// some of its cells differ: those are shown as `old → new`.
pub fn tables(old: &[Vec<String>], new: &[Vec<String>]) -> Vec<String> {
    let steps = steps(old, new);
    if steps.iter().all(|step| matches!(step, Step::Same(..))) {
        return vec![];
    }
    let near = |at: usize| {
        let from = at.saturating_sub(AROUND);
        let to = (at + AROUND).min(steps.len() - 1);
        at == 0 || steps[from..=to].iter().any(|step| !matches!(step, Step::Same(..)))
    };
    let mut marks = vec![];
    let mut lines = vec![];
    // Where lines are left out, and how many: no part of the table, whose columns they would widen.
    let mut more = vec![];
    let mut left_out = 0;
    for (at, step) in steps.iter().enumerate() {
        if !near(at) || lines.len() >= MOST {
            left_out += 1;
            continue;
        }
        if left_out > 0 {
            more.push((lines.len(), left_out));
            left_out = 0;
        }
        let (mark, cells) = match *step {
            Step::Same(_, b) => (' ', new[b].clone()),
            Step::Lost(a) => ('-', old[a].clone()),
            Step::New(b) => ('+', new[b].clone()),
            Step::Changed(a, b) => {
                let columns = old[a].len().max(new[b].len());
                let cell = |row: &Vec<String>, at: usize| row.get(at).cloned().unwrap_or_default();
                let shown = |text: String| if text.is_empty() { "(null)".to_owned() } else { text };
                let cells = (0..columns).map(|at| match (cell(&old[a], at), cell(&new[b], at)) {
                    (old, new) if old == new => new,
                    (old, new) => format!("{} → {}", shown(old), shown(new)),
                });
                ('~', cells.collect())
            }
        };
        marks.push(mark);
        lines.push(cells);
    }
    if left_out > 0 {
        more.push((lines.len(), left_out));
    }
    let lines = aligned(&lines);
    let line = |(mark, line): (&char, &String)| format!("{mark} {line}").trim_end().to_owned();
    let mut lines: Vec<String> = marks.iter().zip(&lines).map(line).collect();
    for (at, left_out) in more.into_iter().rev() {
        lines.insert(at, format!("… {left_out} more"));
    }
    lines
}

/// The same for the text of tables as snapshots hold them, or any text.
pub fn texts(old: &str, new: &str) -> Vec<String> {
    let cells = |text: &str| -> Vec<Vec<String>> {
        let line = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect();
        text.lines().filter(|line| !is_rule(line)).map(line).collect()
    };
    let found = tables(&cells(old), &cells(new));
    if found.is_empty() && old.trim_end() != new.trim_end() {
        return vec!["~ only blanks differ".to_owned()];
    }
    found
}

/// A text that there was none of before.
pub fn new(text: &str) -> Vec<String> {
    let line = |line: &str| format!("+ {line}").trim_end().to_owned();
    let mut lines: Vec<String> = text.lines().take(FIRST).map(line).collect();
    let left_out = text.lines().count().saturating_sub(FIRST);
    if left_out > 0 {
        lines.push(format!("… {left_out} more"));
    }
    lines
}

fn is_rule(line: &str) -> bool {
    !line.is_empty() && line.bytes().all(|b| b == b'-')
}

/// The lines of a difference with colours: red what is gone, green what is new; of a changed line only the cells that changed.
pub fn coloured(lines: &[String]) -> String {
    const RED: &str = "\u{1b}[31m";
    const GREEN: &str = "\u{1b}[32m";
    const YELLOW: &str = "\u{1b}[33m";
    const FAINT: &str = "\u{1b}[2m";
    const END: &str = "\u{1b}[0m";
    let mut text = String::new();
    for line in lines {
        match line.strip_prefix('~') {
            Some(cells) => {
                let cell = |cell: &str| match cell.split_once(" → ") {
                    Some((old, new)) => {
                        let (bare, kept) = (old.trim_start(), new.trim_end());
                        let (before, behind) = (&old[..old.len() - bare.len()], &new[kept.len()..]);
                        format!("{before}{RED}{bare}{END} → {GREEN}{kept}{END}{behind}")
                    }
                    None => cell.to_owned(),
                };
                let cells: Vec<String> = cells.split('|').map(cell).collect();
                text.push_str(&format!("{YELLOW}~{END}{}\n", cells.join("|")));
            }
            None => {
                let colour = match line.chars().next() {
                    Some('-') => RED,
                    Some('+') => GREEN,
                    _ => FAINT,
                };
                text.push_str(&format!("{colour}{line}{END}\n"));
            }
        }
    }
    text
}

/// The longest run of common rows, by the classical table where both are small, otherwise row by row.
fn steps(old: &[Vec<String>], new: &[Vec<String>]) -> Vec<Step> {
    const MOST_CELLS: usize = 4_000_000;
    let start = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let end = (old[start..].iter().rev().zip(new[start..].iter().rev()))
        .take_while(|(a, b)| a == b)
        .count();
    let (a, b) = (&old[start..old.len() - end], &new[start..new.len() - end]);
    let mut steps: Vec<Step> = (0..start).map(|at| Step::Same(at, at)).collect();
    let mut middle = vec![];
    if (a.len() + 1).saturating_mul(b.len() + 1) <= MOST_CELLS {
        let width = b.len() + 1;
        let mut longest = vec![0u32; (a.len() + 1) * width];
        for i in (0..a.len()).rev() {
            for j in (0..b.len()).rev() {
                longest[i * width + j] = match a[i] == b[j] {
                    true => longest[(i + 1) * width + j + 1] + 1,
                    false => longest[(i + 1) * width + j].max(longest[i * width + j + 1]),
                };
            }
        }
        let (mut i, mut j) = (0, 0);
        while i < a.len() || j < b.len() {
            if i < a.len() && j < b.len() && a[i] == b[j] {
                middle.push(Step::Same(start + i, start + j));
                (i, j) = (i + 1, j + 1);
            } else if j == b.len() || (i < a.len() && longest[(i + 1) * width + j] >= longest[i * width + j + 1]) {
                middle.push(Step::Lost(start + i));
                i += 1;
            } else {
                middle.push(Step::New(start + j));
                j += 1;
            }
        }
    } else {
        middle.extend((0..a.len()).map(|at| Step::Lost(start + at)));
        middle.extend((0..b.len()).map(|at| Step::New(start + at)));
    }
    steps.extend(paired(middle, old, new));
    steps.extend((0..end).map(|at| Step::Same(old.len() - end + at, new.len() - end + at)));
    steps
}

/// In a run of lost and new rows, those that are alike stand for each other in order.
fn paired(steps: Vec<Step>, old: &[Vec<String>], new: &[Vec<String>]) -> Vec<Step> {
    let mut made = vec![];
    let (mut lost, mut fresh): (Vec<usize>, Vec<usize>) = (vec![], vec![]);
    let flush = |lost: &mut Vec<usize>, fresh: &mut Vec<usize>, made: &mut Vec<Step>| {
        let mut from = 0;
        for a in lost.drain(..) {
            let like = (from..fresh.len()).find(|&at| alike(&old[a], &new[fresh[at]]));
            match like {
                Some(at) => {
                    made.extend(fresh[from..at].iter().map(|&b| Step::New(b)));
                    made.push(Step::Changed(a, fresh[at]));
                    from = at + 1;
                }
                None => made.push(Step::Lost(a)),
            }
        }
        made.extend(fresh.drain(..).skip(from).map(Step::New));
    };
    for step in steps {
        match step {
            Step::Lost(a) => lost.push(a),
            Step::New(b) => fresh.push(b),
            other => {
                flush(&mut lost, &mut fresh, &mut made);
                made.push(other);
            }
        }
    }
    flush(&mut lost, &mut fresh, &mut made);
    made
}

/// Whether two rows are probably the same one, changed: their first cells, or half of all, are equal.
fn alike(a: &[String], b: &[String]) -> bool {
    let same = a.iter().zip(b).filter(|(a, b)| a == b).count();
    a.len() == b.len() && (same * 2 >= a.len() || a.first() == b.first())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diff(old: &str, new: &str) -> String {
        texts(old, new).join("\n")
    }

    #[test]
    fn a_changed_cell_is_shown_in_its_row() {
        let old = "id | city\nint | string\n---------\n1 | Rome\n2 | Bari\n3 | Lyon\n";
        let new = old.replace("Bari", "Oslo");
        assert_eq!(
            diff(old, &new),
            "  id  | city\n  int | string\n  1   | Rome\n~ 2   | Bari → Oslo\n  3   | Lyon"
        );
        assert_eq!(diff(old, old), "");
    }

    #[test]
    fn rows_that_came_and_went_are_told_from_changed_ones() {
        assert_eq!(
            diff("id | n\n1 | a\n2 | b\n3 | c\n", "id | n\n2 | b\n3 | d\n4 | e\n"),
            "  id | n\n- 1  | a\n  2  | b\n~ 3  | c → d\n+ 4  | e"
        );
        assert_eq!(diff("a | b\n1 |\n", "a | b\n1 | x\n"), "  a | b\n~ 1 | (null) → x");
    }

    #[test]
    fn only_cells_that_changed_are_coloured() {
        let lines = [
            "  a | b".to_owned(),
            "~ 1 | x → (null) | 2".to_owned(),
            "- 3 |".to_owned(),
        ];
        assert_eq!(
            coloured(&lines).replace('\u{1b}', "^"),
            "^[2m  a | b^[0m\n^[33m~^[0m 1 | ^[31mx^[0m → ^[32m(null)^[0m | 2\n^[31m- 3 |^[0m\n"
        );
    }

    #[test]
    fn what_did_not_change_far_away_is_left_out() {
        let rows = |n: i32| {
            (0..100)
                .map(|i| format!("{i} | {}\n", if i == 50 { n } else { 0 }))
                .collect::<String>()
        };
        assert_eq!(
            diff(&rows(1), &rows(2)),
            "  0  | 0\n… 47 more\n  48 | 0\n  49 | 0\n~ 50 | 1 → 2\n  51 | 0\n  52 | 0\n… 47 more"
        );
    }
}
