//! The instruction sets, and the choice among them.
//!
//! Laws
//! - A `Kernel` is only handed out if this machine has its instructions; that is what makes its methods safe to call.
//! - A value of an instruction set's type is only made inside a function compiled for that set.
#![allow(unsafe_code)]

use super::passes::{self, Isa, Masks};
use super::{ExactScan, Indexed, Scan, State};
use std::sync::OnceLock;

/// The passes, compiled for one instruction set.
#[derive(Clone, Copy)]
pub(super) struct Kernel {
    #[cfg_attr(not(test), allow(dead_code))]
    pub(super) name: &'static str,
    scan: unsafe fn(&[u8], u8) -> Scan,
    scan_exact: unsafe fn(State, &[u8], u8) -> ExactScan,
    index: unsafe fn(&[u8], u8, &mut [u32]) -> Indexed,
}

impl Kernel {
    /// The fastest this machine can run, chosen once.
    #[inline]
    pub(super) fn chosen() -> &'static Kernel {
        static CHOSEN: OnceLock<Kernel> = OnceLock::new();
        CHOSEN.get_or_init(|| native().unwrap_or(PORTABLE))
    }

    /// All that this machine can run, the portable one first.
    #[cfg(test)]
    pub(super) fn all() -> Vec<Kernel> {
        [Some(PORTABLE), native()].into_iter().flatten().collect()
    }

    pub(super) fn scan(&self, block: &[u8], delimiter: u8) -> Scan {
        // SAFETY: the module's first law; the machine has what this function was compiled for.
        unsafe { (self.scan)(block, delimiter) }
    }

    pub(super) fn scan_exact(&self, state: State, block: &[u8], delimiter: u8) -> ExactScan {
        // SAFETY: as in `scan`.
        unsafe { (self.scan_exact)(state, block, delimiter) }
    }

    pub(super) fn index(&self, records: &[u8], delimiter: u8, out: &mut [u32]) -> Indexed {
        // SAFETY: as in `scan`.
        unsafe { (self.index)(records, delimiter, out) }
    }
}

#[cfg(target_arch = "x86_64")]
fn native() -> Option<Kernel> {
    let has = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("pclmulqdq")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt");
    has.then_some(avx2::KERNEL)
}

#[cfg(target_arch = "aarch64")]
fn native() -> Option<Kernel> {
    let has = std::arch::is_aarch64_feature_detected!("neon") && std::arch::is_aarch64_feature_detected!("aes");
    has.then_some(neon::KERNEL)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn native() -> Option<Kernel> {
    None
}

const PORTABLE: Kernel = Kernel {
    name: "portable",
    scan: |block, delimiter| passes::scan(Portable, block, delimiter),
    scan_exact: |state, block, delimiter| passes::scan_exact(Portable, state, block, delimiter),
    index: |records, delimiter, out| passes::index(Portable, records, delimiter, out),
};

/// Eight bytes in a `u64` at a time; runs anywhere.
#[derive(Clone, Copy)]
struct Portable;

impl Isa for Portable {
    #[inline(always)]
    fn masks(self, bytes: &[u8; 64], delimiter: u8) -> Masks {
        let mut masks = Masks {
            quotes: 0,
            delimiters: 0,
            newlines: 0,
            high: 0,
        };
        for (at, word) in bytes.as_chunks::<8>().0.iter().enumerate() {
            let word = u64::from_le_bytes(*word);
            masks.quotes |= equal(word, b'"') << (at * 8);
            masks.delimiters |= equal(word, delimiter) << (at * 8);
            masks.newlines |= equal(word, b'\n') << (at * 8);
            masks.high |= word & (ONES << 7);
        }
        masks
    }

    #[inline(always)]
    fn prefix_xor(self, mut bits: u64) -> u64 {
        for shift in [1, 2, 4, 8, 16, 32] {
            bits ^= bits << shift;
        }
        bits
    }
}

/// A one in each byte.
const ONES: u64 = u64::MAX / 255;

/// Bit i: whether byte i of `word` is `byte`.
#[inline(always)]
fn equal(word: u64, byte: u8) -> u64 {
    let differs = word ^ (ONES * u64::from(byte));
    let low = ONES * 0x7f;
    // The top bit of each byte that is zero; the sum cannot carry into the next byte.
    let zero = !(((differs & low) + low) | differs | low);
    // Moves the eight top bits together: bit 8i meets the factor's bit 56 - 7i at bit 56 + i, and no two products meet.
    (zero >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::*;
    use std::arch::x86_64::*;

    pub(super) const KERNEL: Kernel = Kernel {
        name: "avx2",
        scan,
        scan_exact,
        index,
    };

    #[target_feature(enable = "avx2,pclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
    fn scan(block: &[u8], delimiter: u8) -> Scan {
        passes::scan(Avx2(()), block, delimiter)
    }

    #[target_feature(enable = "avx2,pclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
    fn scan_exact(state: State, block: &[u8], delimiter: u8) -> ExactScan {
        passes::scan_exact(Avx2(()), state, block, delimiter)
    }

    #[target_feature(enable = "avx2,pclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
    fn index(records: &[u8], delimiter: u8, out: &mut [u32]) -> Indexed {
        passes::index(Avx2(()), records, delimiter, out)
    }

    /// AVX2 and carry-less multiplication.
    #[derive(Clone, Copy)]
    struct Avx2(());

    impl Isa for Avx2 {
        #[inline(always)]
        fn masks(self, bytes: &[u8; 64], delimiter: u8) -> Masks {
            // SAFETY: a value of this type exists, so the machine has AVX2; both loads are unaligned ones and lie in
            // `bytes`.
            unsafe {
                let low = _mm256_loadu_si256(bytes.as_ptr().cast());
                let high = _mm256_loadu_si256(bytes.as_ptr().add(32).cast());
                Masks {
                    quotes: equal(low, high, b'"'),
                    delimiters: equal(low, high, delimiter),
                    newlines: equal(low, high, b'\n'),
                    high: u64::from(_mm256_movemask_epi8(_mm256_or_si256(low, high)) as u32),
                }
            }
        }

        #[inline(always)]
        fn prefix_xor(self, bits: u64) -> u64 {
            // SAFETY: a value of this type exists, so the machine has carry-less multiplication.
            unsafe {
                let product = _mm_clmulepi64_si128::<0>(_mm_set_epi64x(0, bits as i64), _mm_set1_epi8(-1));
                _mm_cvtsi128_si64(product) as u64
            }
        }
    }

    /// Bit i: whether byte i is `byte`.
    ///
    /// SAFETY: the machine has AVX2.
    #[inline(always)]
    unsafe fn equal(low: __m256i, high: __m256i, byte: u8) -> u64 {
        // SAFETY: the caller's.
        unsafe {
            let wanted = _mm256_set1_epi8(byte as i8);
            let low = _mm256_movemask_epi8(_mm256_cmpeq_epi8(low, wanted)) as u32;
            let high = _mm256_movemask_epi8(_mm256_cmpeq_epi8(high, wanted)) as u32;
            u64::from(low) | u64::from(high) << 32
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use super::*;
    use std::arch::aarch64::*;

    pub(super) const KERNEL: Kernel = Kernel {
        name: "neon",
        scan,
        scan_exact,
        index,
    };

    #[target_feature(enable = "neon,aes")]
    fn scan(block: &[u8], delimiter: u8) -> Scan {
        passes::scan(Neon(()), block, delimiter)
    }

    #[target_feature(enable = "neon,aes")]
    fn scan_exact(state: State, block: &[u8], delimiter: u8) -> ExactScan {
        passes::scan_exact(Neon(()), state, block, delimiter)
    }

    #[target_feature(enable = "neon,aes")]
    fn index(records: &[u8], delimiter: u8, out: &mut [u32]) -> Indexed {
        passes::index(Neon(()), records, delimiter, out)
    }

    /// NEON and polynomial multiplication.
    #[derive(Clone, Copy)]
    struct Neon(());

    impl Isa for Neon {
        #[inline(always)]
        fn masks(self, bytes: &[u8; 64], delimiter: u8) -> Masks {
            // SAFETY: a value of this type exists, so the machine has NEON; the four loads of 16 bytes lie in `bytes`.
            unsafe {
                let from = bytes.as_ptr();
                let parts = [
                    vld1q_u8(from),
                    vld1q_u8(from.add(16)),
                    vld1q_u8(from.add(32)),
                    vld1q_u8(from.add(48)),
                ];
                let all = vorrq_u8(vorrq_u8(parts[0], parts[1]), vorrq_u8(parts[2], parts[3]));
                Masks {
                    quotes: equal(parts, b'"'),
                    delimiters: equal(parts, delimiter),
                    newlines: equal(parts, b'\n'),
                    high: u64::from(vmaxvq_u8(all) >> 7),
                }
            }
        }

        #[inline(always)]
        fn prefix_xor(self, bits: u64) -> u64 {
            // SAFETY: a value of this type exists, so the machine has polynomial multiplication.
            unsafe { multiply_by_ones(bits) }
        }
    }

    /// The low half of the carry-less product. A function of its own because this intrinsic asks to be inlined always, which
    /// only a function compiled for the same set can do.
    #[inline]
    #[target_feature(enable = "neon,aes")]
    fn multiply_by_ones(bits: u64) -> u64 {
        vmull_p64(bits, u64::MAX) as u64
    }

    /// Bit i: whether byte i is `byte`.
    ///
    /// SAFETY: the machine has NEON.
    #[inline(always)]
    unsafe fn equal(parts: [uint8x16_t; 4], byte: u8) -> u64 {
        const WEIGHTS: [u8; 16] = [1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128];
        // SAFETY: the caller's; the load reads the 16 weights. Each lane keeps its own bit of eight, and three rounds of adding
        // neighbours leave the eight bytes of the mask in order.
        unsafe {
            let wanted = vdupq_n_u8(byte);
            let weights = vld1q_u8(WEIGHTS.as_ptr());
            let [a, b, c, d] = parts.map(|part| vandq_u8(vceqq_u8(part, wanted), weights));
            let pairs = vpaddq_u8(vpaddq_u8(a, b), vpaddq_u8(c, d));
            vgetq_lane_u64::<0>(vreinterpretq_u64_u8(vpaddq_u8(pairs, pairs)))
        }
    }
}
