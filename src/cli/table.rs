//! Rows as a table on a terminal.
//!
//! Laws
//! - Constant memory: widths come from the first batch, later cells that are longer are cut.

use standpipe_sdk::{Batch, Schema};
use std::io::Write;

/// The widest a column gets, in characters.
const WIDEST: usize = 40;

/// Prints batches of one schema.
#[derive(Default)]
pub(super) struct Table {
    widths: Vec<usize>,
}

impl Table {
    /// Prints the rows; with the first ones a header.
    pub(super) fn print(&mut self, schema: &Schema, batch: &Batch<'_>, out: &mut impl Write) -> std::io::Result<()> {
        let cells: Vec<Vec<String>> = (0..batch.rows()).map(|row| texts(schema, batch, row)).collect();
        if self.widths.is_empty() {
            self.header(schema, &cells, out)?;
        }
        for row in &cells {
            self.line(
                row.iter()
                    .zip(schema.fields())
                    .map(|(text, field)| (text.as_str(), field.ty.is_number())),
                out,
            )?;
        }
        Ok(())
    }

    /// Whether any row was printed.
    pub(super) fn has_rows(&self) -> bool {
        !self.widths.is_empty()
    }

    fn header(&mut self, schema: &Schema, cells: &[Vec<String>], out: &mut impl Write) -> std::io::Result<()> {
        for (i, field) in schema.fields().iter().enumerate() {
            let longest = cells.iter().map(|row| row[i].chars().count()).max().unwrap_or(0);
            self.widths
                .push(longest.max(field.name.chars().count()).clamp(1, WIDEST));
        }
        self.line(schema.fields().iter().map(|f| (&*f.name, f.ty.is_number())), out)?;
        let rules: Vec<String> = self.widths.iter().map(|&w| "─".repeat(w)).collect();
        writeln!(out, "{}", rules.join("──"))
    }

    fn line<'t>(&self, cells: impl Iterator<Item = (&'t str, bool)>, out: &mut impl Write) -> std::io::Result<()> {
        let mut text = String::new();
        for (i, ((cell, right), &width)) in cells.zip(&self.widths).enumerate() {
            if i > 0 {
                text.push_str("  ");
            }
            let shown = cut(cell, width);
            let pad = " ".repeat(width.saturating_sub(shown.chars().count()));
            if right {
                text.push_str(&pad);
                text.push_str(&shown);
            } else {
                text.push_str(&shown);
                text.push_str(&pad);
            }
        }
        writeln!(out, "{}", text.trim_end())
    }
}

/// At most `width` characters, control characters made visible.
fn cut(text: &str, width: usize) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { '␣' } else { c }).collect();
    if plain.chars().count() <= width {
        return plain;
    }
    plain.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

fn texts(schema: &Schema, batch: &Batch<'_>, row: usize) -> Vec<String> {
    let text = |(column, field): (&standpipe_sdk::Column<'_>, &standpipe_sdk::Field)| {
        let mut text = standpipe::formats::out::Out::new();
        if column.is_valid(row) {
            let _ = standpipe::formats::csv::write_plain(&mut text, column, &field.ty, row);
        }
        String::from_utf8_lossy(text.as_slice()).into_owned()
    };
    batch.columns().iter().zip(schema.fields()).map(text).collect()
}
