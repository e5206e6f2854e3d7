//! Kernels: one operator over whole columns. Loops are generic over the native type and have no branch on nulls, so that
//! the compiler turns them into vector code; nulls and failures are looked at afterwards, and only if there are any.

pub(in crate::expr) mod arith;
pub(in crate::expr) mod cast;
pub(in crate::expr) mod compare;
pub(in crate::expr) mod logic;
pub(in crate::expr) mod member;
pub(in crate::expr) mod nested;
pub(in crate::expr) mod text;

use crate::expr::function::Values;
use standpipe_sdk::{Arena, Bits, Result};

/// `f` over two operands of `rows` rows.
#[inline(always)]
fn zip<'a, T: Copy, U: Copy, O: Copy>(
    arena: &'a Arena,
    rows: usize,
    l: Values<'a, T>,
    r: Values<'a, U>,
    mut f: impl FnMut(T, U) -> O,
) -> Result<&'a [O]> {
    Ok(match (l.slice(), r.slice()) {
        (Some(a), Some(b)) => arena.map2(a, b, f)?,
        (Some(a), None) => {
            let b = r.get(0);
            arena.map(a, |x| f(x, b))?
        }
        (None, Some(b)) => {
            let a = l.get(0);
            arena.map(b, |y| f(a, y))?
        }
        (None, None) => {
            let (a, b) = (l.get(0), r.get(0));
            arena.collect(rows, |_| f(a, b))?
        }
    })
}

/// 64 bytes that are 0 or 1 as the bits of a word.
#[inline(always)]
fn pack(bytes: &[u8; 64]) -> u64 {
    let mut word = 0;
    for (i, eight) in bytes.as_chunks::<8>().0.iter().enumerate() {
        // The factor moves bit 8i to bit 56 + i; no two products meet.
        let bits = u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        word |= bits << (8 * i);
    }
    word
}

/// The bits of `f` over `values`.
#[inline(always)]
fn bits1<'a, T: Copy>(arena: &'a Arena, values: &[T], f: impl Fn(T) -> bool) -> Result<Bits<'a>> {
    let (blocks, rest) = values.as_chunks::<64>();
    Bits::collect_words(arena, values.len(), |w| match blocks.get(w) {
        Some(block) => {
            let mut bytes = [0u8; 64];
            for (byte, &value) in bytes.iter_mut().zip(block) {
                *byte = u8::from(f(value));
            }
            pack(&bytes)
        }
        None => rest
            .iter()
            .enumerate()
            .fold(0, |word, (i, &value)| word | u64::from(f(value)) << i),
    })
}

/// The bits of `f` over two operands of `rows` rows.
#[inline(always)]
fn bits2<'a, T: Copy, U: Copy>(
    arena: &'a Arena,
    rows: usize,
    l: Values<'a, T>,
    r: Values<'a, U>,
    f: impl Fn(T, U) -> bool,
) -> Result<Bits<'a>> {
    match (l.slice(), r.slice()) {
        (Some(a), Some(b)) => {
            let ((left, a_rest), (right, b_rest)) = (a.as_chunks::<64>(), b.as_chunks::<64>());
            Bits::collect_words(arena, rows, |w| match (left.get(w), right.get(w)) {
                (Some(x), Some(y)) => {
                    let mut bytes = [0u8; 64];
                    for ((byte, &x), &y) in bytes.iter_mut().zip(x).zip(y) {
                        *byte = u8::from(f(x, y));
                    }
                    pack(&bytes)
                }
                _ => a_rest
                    .iter()
                    .zip(b_rest)
                    .enumerate()
                    .fold(0, |word, (i, (&x, &y))| word | u64::from(f(x, y)) << i),
            })
        }
        (Some(a), None) => {
            let b = r.get(0);
            bits1(arena, a, |x| f(x, b))
        }
        (None, Some(b)) => {
            let a = l.get(0);
            bits1(arena, b, |y| f(a, y))
        }
        (None, None) => Bits::all(arena, rows, f(l.get(0), r.get(0))),
    }
}
