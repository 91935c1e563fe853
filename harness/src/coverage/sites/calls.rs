//! Where are the calls of `__sanitizer_cov_trace_pc`? Bytes of machine code, not instructions, are looked at.
//!
//! A call is `e8` and the distance to its target in four bytes. That these five bytes stand inside another instruction by chance has a
//! probability of one in 2^40 at each place, and vmlinux has some 2^25 of them: no disassembler is needed (a 6.12 with the objects of
//! vm-images/kernels has 85,960 calls by `objdump` as well). A `jmp` to the function (2 % there), which gcc makes where a block only returns,
//! reports an address in whoever called the block's function; it is no site, and what it reports is known to none.

use super::Elf;
use object::{Object, ObjectSection, ObjectSymbol, SectionFlags, SymbolKind, elf};

/// What every basic block calls.
const TARGET: &str = "__sanitizer_cov_trace_pc";
/// `call rel32`.
const CALL: u8 = 0xe8;
/// The length of that.
const LENGTH: usize = 5;
/// Code that is gone, or runs once, before a program can run.
const GONE: [&str; 2] = [".init.text", ".exit.text"];

/// All calls of a file.
#[derive(Debug)]
pub(super) struct Calls {
    /// The function that is called.
    pub(super) target: u64,
    /// What all addresses have above their low 32 bits.
    pub(super) high: u64,
    /// Ascending by address.
    pub(super) all: Vec<Call>,
}

/// One call.
#[derive(Debug)]
pub(super) struct Call {
    /// Its return address: what KCOV reports.
    pub(super) address: u64,
    /// The ELF symbol of the function that it stands in.
    pub(super) symbol: String,
}

/// Finds all calls.
pub(super) fn find(file: &Elf<'_>) -> Result<Calls, String> {
    if file.architecture() != object::Architecture::X86_64 || !file.is_little_endian() {
        return Err("not for x86-64".into());
    }
    let none = || format!("no call of {TARGET}: build the kernel with CONFIG_KCOV");
    let target = file.symbols().find(|s| s.is_definition() && s.name() == Ok(TARGET));
    let target = target.ok_or_else(none)?.address();
    let functions = Functions::of(file);
    let mut all = Vec::new();
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags } = section.flags() else { continue };
        let code = sh_flags & u64::from(elf::SHF_EXECINSTR) != 0;
        if !code || section.name().is_ok_and(|name| GONE.contains(&name)) {
            continue;
        }
        let bytes = section.data().map_err(|e| format!("a section cannot be read: {e}"))?;
        for address in returns(bytes, section.address(), target) {
            // Code outside of functions is not the compiler's, and has no such calls.
            if let Some(symbol) = functions.around(address) {
                all.push(Call { address, symbol: symbol.into() });
            }
        }
    }
    all.sort_by_key(|call| call.address);
    all.dedup_by_key(|call| call.address);
    let high = all.first().ok_or_else(none)?.address & !u64::from(u32::MAX);
    if all.iter().any(|call| call.address & !u64::from(u32::MAX) != high) {
        return Err("its code lies more than 4 GiB apart".into());
    }
    Ok(Calls { target, high, all })
}

/// The return addresses of the calls of `target` in code that lies at `start`.
fn returns(code: &[u8], start: u64, target: u64) -> impl Iterator<Item = u64> {
    code.windows(LENGTH).enumerate().filter_map(move |(at, window)| {
        let [CALL, a, b, c, d] = *window else { return None };
        let distance = i32::from_le_bytes([a, b, c, d]);
        let next = start.wrapping_add((at + LENGTH) as u64);
        (next.wrapping_add_signed(distance.into()) == target).then_some(next)
    })
}

/// The functions of a file by address.
struct Functions<'a>(Vec<(u64, u64, &'a str)>);

impl<'a> Functions<'a> {
    fn of(file: &'a Elf<'_>) -> Functions<'a> {
        let functions = file.symbols().filter(|s| s.kind() == SymbolKind::Text && s.size() > 0);
        let mut all: Vec<_> = functions
            .filter_map(|s| Some((s.address(), s.address().checked_add(s.size())?, s.name().ok()?)))
            .collect();
        // Of several names at one place the first in the alphabet counts, so that the answer is always the same.
        all.sort_by_key(|(start, _, name)| (*start, *name));
        all.dedup_by_key(|(start, ..)| *start);
        Functions(all)
    }

    /// The function that holds the call with this return address; a call may be the last thing in a function.
    fn around(&self, returns: u64) -> Option<&'a str> {
        let inside = returns - 1;
        let (_, end, name) = self.0[..self.0.partition_point(|(s, ..)| *s <= inside)].last()?;
        (inside < *end).then_some(*name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_of_the_target_are_found() {
        // A call of the target, one of something else, a jump to the target, a call of it that goes backwards, and half a call.
        let mut code = vec![0x90, CALL, 0x0a, 0, 0, 0, CALL, 0x0a, 0, 0, 0, 0xe9, 0, 0, 0, 0];
        code.extend([CALL, 0xfb, 0xff, 0xff, 0xff, CALL, 0, 0]);
        assert_eq!(returns(&code, 0x1000, 0x1010).collect::<Vec<_>>(), [0x1006, 0x1015]);
        assert_eq!(returns(&code[..4], 0x1000, 0x1010).count(), 0);
    }
}
