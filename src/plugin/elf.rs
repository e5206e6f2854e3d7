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
const SYMBOL_BYTES: u64 = 24;
/// The segment that the loader reads, and its entries.
const DYNAMIC: u32 = 2;
const HASH: u64 = 4;
const NAMES: u64 = 5;
const SYMBOLS: u64 = 6;
const NAMES_SIZE: u64 = 10;
const GNU_HASH: u64 = 0x6fff_fef5;

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
    let count = u64::from(file.u16(60)?);
    if count == 0 {
        return loaded_symbols(file);
    }
    let mut found = Err(Problem::NoEntry);
    file.bytes(file.u64(40)?, count * u64::from(file.u16(58)?))?;
    for index in 0..count {
        let (kind, at, size, names) = section(file, index)?;
        if kind != WITHOUT_BYTES {
            file.bytes(at, size)?;
        }
        if kind == DYNAMIC_SYMBOLS {
            let (_, names, names_size, _) = section(file, names.into())?;
            found = entry(file.bytes(at, size)?, file.bytes(names, names_size)?);
            if found.is_ok() {
                break;
            }
        }
    }
    found
}

/// Whether our entry is among these symbols.
fn entry(symbols: &[u8], names: &[u8]) -> Result<(), Problem> {
    let mut other = None;
    for symbol in symbols.chunks_exact(SYMBOL_BYTES as usize).map(File) {
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
    Err(other.map_or(Problem::NoEntry, Problem::OtherAbi))
}

/// The entry among the dynamic symbols as the loader finds them: for a library whose section headers were taken away.
fn loaded_symbols(file: &File<'_>) -> Result<(), Problem> {
    let (table, size, count) = (file.u64(32)?, u64::from(file.u16(54)?), u64::from(file.u16(56)?));
    let headers = || (0..count).map(|index| table.saturating_add(index * size));
    // Where in the file an address is.
    let place = |address: u64| {
        for header in headers().filter(|&at| file.u32(at) == Ok(LOAD)) {
            let (at, from, len) = (file.u64(header + 8)?, file.u64(header + 16)?, file.u64(header + 32)?);
            if let Some(inside) = address.checked_sub(from).filter(|&inside| inside < len) {
                return Ok(at.saturating_add(inside));
            }
        }
        Err(Problem::Truncated)
    };
    let Some(dynamic) = headers().find(|&at| file.u32(at) == Ok(DYNAMIC)) else {
        return Err(Problem::NoEntry);
    };
    let entries = file.bytes(file.u64(dynamic + 8)?, file.u64(dynamic + 32)?)?;
    let value = |tag: u64| {
        let mut entries = entries.chunks_exact(16).map(File);
        let found = entries.find(|entry| entry.u64(0) == Ok(tag));
        found.ok_or(Problem::NoEntry)?.u64(8)
    };
    let names = file.bytes(place(value(NAMES)?)?, value(NAMES_SIZE)?)?;
    let symbols = match value(HASH) {
        Ok(hash) => u64::from(file.u32(place(hash)?.saturating_add(4))?),
        Err(_) => hashed(file, place(value(GNU_HASH)?)?)?,
    };
    entry(file.bytes(place(value(SYMBOLS)?)?, symbols * SYMBOL_BYTES)?, names)
}

/// How many symbols a table of GNU's kind knows of: up to the end of the chain of its last bucket.
fn hashed(file: &File<'_>, at: u64) -> Result<u64, Problem> {
    let (buckets, first, bloom) = (
        file.u32(at)?,
        file.u32(at.saturating_add(4))?,
        file.u32(at.saturating_add(8))?,
    );
    let buckets_at = at.saturating_add(16 + 8 * u64::from(bloom));
    let chains = buckets_at.saturating_add(4 * u64::from(buckets));
    let starts = file.bytes(buckets_at, 4 * u64::from(buckets))?;
    let starts = starts.chunks_exact(4).filter_map(|start| File(start).u32(0).ok());
    let mut symbol = u64::from(starts.max().unwrap_or(0));
    if symbol < u64::from(first) {
        return Ok(first.into());
    }
    while file.u32(chains.saturating_add(4 * (symbol - u64::from(first))))? & 1 == 0 {
        symbol += 1;
    }
    Ok(symbol + 1)
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
    fn a_file_without_section_headers_is_read_as_the_loader_reads_it() {
        let program = std::env::current_exe().unwrap();
        let mut bare = std::fs::read(program).unwrap();
        bare[40..48].fill(0);
        bare[58..64].fill(0);
        assert_eq!(check(&bare), Err(Problem::NoEntry));
        for len in [64, 100, 1000, 4096] {
            assert_eq!(check(&bare[..len]), Err(Problem::Truncated), "{len} bytes");
        }
        // Whatever the dynamic segment says, nothing is read that is not there.
        let file = File(&bare);
        let headers = (0..u64::from(file.u16(56).unwrap())).map(|index| file.u64(32).unwrap() + 56 * index);
        let dynamic = headers.into_iter().find(|&at| file.u32(at) == Ok(DYNAMIC)).unwrap();
        let (at, len) = (
            file.u64(dynamic + 8).unwrap() as usize,
            file.u64(dynamic + 32).unwrap() as usize,
        );
        for entry in (at..at + len).step_by(16) {
            let mut bad = bare.clone();
            bad[entry + 8..entry + 16].fill(0xff);
            assert!(check(&bad).is_err());
        }
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
