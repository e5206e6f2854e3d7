//! Did you mean: the candidate nearest to a name that was not found.

/// The candidate nearest to `name`, if one is near enough to be worth showing.
///
/// A candidate that differs only in case wins; else the least edit distance (insert, delete, replace, swap of two
/// neighbours), at most a third of the name's length (at least 1), ties to the earlier candidate. Very long names have none.
pub fn suggest<'a, I, S>(name: &str, candidates: I) -> Option<&'a str>
where
    I: IntoIterator<Item = &'a S>,
    S: AsRef<str> + ?Sized + 'a,
{
    let wanted: Vec<char> = name.chars().flat_map(char::to_lowercase).take(65).collect();
    if wanted.is_empty() || wanted.len() > 64 {
        return None;
    }
    let bound = (wanted.len() / 3).max(1);
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let candidate = candidate.as_ref();
        let other: Vec<char> = candidate.chars().flat_map(char::to_lowercase).take(65).collect();
        if other == wanted {
            return Some(candidate);
        }
        if other.len().abs_diff(wanted.len()) > bound {
            continue;
        }
        let distance = distance(&wanted, &other);
        // A one-letter name is one replacement away from every other; that is no help.
        if distance <= bound
            && distance < wanted.len().max(other.len())
            && best.is_none_or(|(least, _)| distance < least)
        {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Optimal string alignment distance over three rows.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        for (j, to) in b.iter().enumerate() {
            let mut least = (above[j] + usize::from(from != to))
                .min(above[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && a[i - 1] == *to && b[j - 1] == *from {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or(0)
}

/// `` `a`, `b` and 7 more ``: names for a note, at most `most` of them.
pub fn list_names<S: AsRef<str>>(names: &[S], most: usize) -> String {
    let shown = names
        .iter()
        .take(most)
        .map(|name| format!("`{}`", name.as_ref()))
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().saturating_sub(most) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found() {
        let names = ["id", "city", "amount", "status", "Total"];
        for (typed, expected) in [
            ("amout", Some("amount")),
            ("amuont", Some("amount")),
            ("ID", Some("id")),
            ("total", Some("Total")),
            ("ctiy", Some("city")),
            ("x", None),
            ("revenue", None),
            ("", None),
            ("sttaus", Some("status")),
        ] {
            assert_eq!(suggest(typed, &names), expected, "{typed}");
        }
    }

    #[test]
    fn long_names_cost_nothing() {
        let long = "a".repeat(1_000_000);
        assert_eq!(suggest(&long, &["a", "b"]), None);
        assert_eq!(suggest("aaaa", &[long.as_str()]), None);
    }

    #[test]
    fn names_are_listed() {
        assert_eq!(list_names(&["a", "b"], 5), "`a`, `b`");
        assert_eq!(list_names(&["a", "b", "c"], 1), "`a` and 2 more");
    }
}
