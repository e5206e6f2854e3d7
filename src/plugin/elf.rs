//! What a library's file says before anything of it runs: an ELF library of this machine, whole, with our entry point.
//!
//! Laws
//! - Every read is checked: a file may claim anything.

use standpipe_sdk::ffi::ENTRY_SYMBOL;

/// Why a file cannot be a plugin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Problem {
    NotALibrary(&'static str),
    /// It is made for this machine.
    OtherMachine(String),
    /// It ends before what its headers announce.
    Truncated,
    NoEntry,
    /// It has the entry point of another version of the ABI.
    OtherAbi(String),
}

/// ELF's numbers of machines.
const MACHINES: &[(u16, &str)] = &[
    (3, "x86"),
    (40, "arm"),
    (62, "x86_64"),
    (183, "aarch64"),
    (243, "riscv64"),
    (21, "powerpc64"),
    (22, "s390x"),
    (258, "loongarch64"),
];

const LIBRARY: u16 = 3;
const LOAD: u32 = 1;
const DYNAMIC_SYMBOLS: u32 = 11;
const WITHOUT_BYTES: u32 = 8;

struct File<'b>(&'b [u8]);

impl<'b> File<'b> {
    fn bytes(&self, at: u64, len: u64) -> Result<&'b [u8], Problem> {
        let range = usize::try_from(at).ok().zip(usize::try_from(len).ok());
        let found = range.and_then(|(at, len)| self.0.get(at..at.checked_add(len)?));
        found.ok_or(Problem::Truncated)
    }

    fn number<const N: usize>(&self, at: u64) -> Result<u64, Problem> {
        let mut number = [0; 8];
        number[..N].copy_from_slice(self.bytes(at, N as u64)?);
        Ok(u64::from_le_bytes(number))
    }

    fn u16(&self, at: u64) -> Result<u16, Problem> {
        self.number::<2>(at).map(|n| n as u16)
    }

    fn u32(&self, at: u64) -> Result<u32, Problem> {
        self.number::<4>(at).map(|n| n as u32)
    }

    fn u64(&self, at: u64) -> Result<u64, Problem> {
        self.number::<8>(at)
    }
}

/// Looks at a file; nothing of it runs.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(bytes: &[u8]) -> Result<(), Problem> {
    let file = File(bytes);
    match bytes.get(..4) {
        Some(b"\x7fELF") => {}
        Some([0xcf | 0xce, 0xfa, 0xed, 0xfe]) => return Err(Problem::NotALibrary("a library for macOS")),
        Some([b'M', b'Z', ..]) => return Err(Problem::NotALibrary("a library for Windows")),
        Some(b"!<ar") => return Err(Problem::NotALibrary("a static library")),
        Some(_) => return Err(Problem::NotALibrary("no library at all")),
        None => return Err(Problem::Truncated),
    }
    let class = file.bytes(4, 2)?;
    if class != [2, 1] {
        return Err(Problem::OtherMachine(
            "a machine of other words or another byte order".into(),
        ));
    }
    let machine = file.u16(18)?;
    let name = MACHINES.iter().find(|(number, _)| *number == machine);
    let name = name.map_or_else(|| format!("machine {machine}"), |(_, name)| (*name).to_owned());
    if name != std::env::consts::ARCH {
        return Err(Problem::OtherMachine(name));
    }
    if file.u16(16)? != LIBRARY {
        return Err(Problem::NotALibrary("a program or an object file"));
    }
    segments(&file)?;
    symbols(&file)
}

/// Everything that will be mapped must be there: what is missing would be a fatal signal once it is touched.
fn segments(file: &File<'_>) -> Result<(), Problem> {
    let (at, size, count) = (file.u64(32)?, u64::from(file.u16(54)?), u64::from(file.u16(56)?));
    for index in 0..count {
        let header = at.saturating_add(index * size);
        if file.u32(header)? == LOAD {
            file.bytes(
                file.u64(header.saturating_add(8))?,
                file.u64(header.saturating_add(32))?,
            )?;
        }
    }
    Ok(())
}

/// One section's header: type, offset, size, link.
fn section(file: &File<'_>, index: u64) -> Result<(u32, u64, u64, u32), Problem> {
    let (at, size) = (file.u64(40)?, u64::from(file.u16(58)?));
    let header = at.saturating_add(index.saturating_mul(size));
    Ok((
        file.u32(header.saturating_add(4))?,
        file.u64(header.saturating_add(24))?,
        file.u64(header.saturating_add(32))?,
        file.u32(header.saturating_add(40))?,
    ))
}

fn symbols(file: &File<'_>) -> Result<(), Problem> {
    let mut other = None;
    let count = u64::from(file.u16(60)?);
    file.bytes(file.u64(40)?, count * u64::from(file.u16(58)?))?;
    for index in 0..count {
        let (kind, at, size, names) = section(file, index)?;
        if kind != WITHOUT_BYTES {
            file.bytes(at, size)?;
        }
        if kind != DYNAMIC_SYMBOLS {
            continue;
        }
        let (_, names, names_size, _) = section(file, names.into())?;
        let names = file.bytes(names, names_size)?;
        for symbol in file.bytes(at, size)?.chunks_exact(24) {
            let symbol = File(symbol);
            let (name, defined_in) = (symbol.u32(0)? as usize, symbol.u16(6)?);
            let Some(name) = names.get(name..) else { continue };
            let name = name.split(|&b| b == 0).next().unwrap_or_default();
            if defined_in == 0 {
                continue;
            }
            if name == ENTRY_SYMBOL.as_bytes() {
                return Ok(());
            }
            let family = ENTRY_SYMBOL.trim_end_matches(|c: char| c.is_ascii_digit());
            if let Some(version) = name.strip_prefix(family.as_bytes()) {
                other = Some(String::from_utf8_lossy(version).into_owned());
            }
        }
    }
    Err(other.map_or(Problem::NoEntry, Problem::OtherAbi))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_cut_anywhere_is_refused_without_a_panic() {
        let program = std::env::current_exe().unwrap();
        let whole = std::fs::read(program).unwrap();
        // Tests are position-independent programs, which look like libraries without our entry.
        assert_eq!(check(&whole), Err(Problem::NoEntry));
        for len in [0, 3, 5, 17, 40, 63, 64, 100, 1000, whole.len() / 2, whole.len() - 1] {
            let cut = check(&whole[..len]);
            assert_eq!(cut, Err(Problem::Truncated), "{len} bytes");
        }
        let mut other = whole[..4096].to_vec();
        other[18] = 183 + 62 - other[18];
        assert!(matches!(check(&other), Err(Problem::OtherMachine(_))));
        other[4] = 1;
        assert!(matches!(check(&other), Err(Problem::OtherMachine(_))));
    }

    #[test]
    fn headers_that_point_anywhere_are_refused() {
        let program = std::env::current_exe().unwrap();
        let whole = std::fs::read(program).unwrap();
        for (at, bytes) in [(32, 8), (40, 8), (54, 2), (56, 2), (58, 2), (60, 2)] {
            let mut bad = whole.clone();
            bad[at..at + bytes].fill(0xff);
            assert!(check(&bad).is_err(), "field at {at}");
        }
        for text in ["", "MZ", "MZ\0\0", "!<arch>\n", "#!/bin/sh\n"] {
            assert!(check(text.as_bytes()).is_err(), "{text}");
        }
    }
}
