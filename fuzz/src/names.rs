//! Addresses of the kernel in words, in the formats that libFuzzer asks for.

use harness::coverage::sites::Sites;

/// What libFuzzer leaves out of its lists (FuzzerIOPosix.cpp:IsInterestingCoverageFile): our own code.
const NO_FILE: &str = "<null>";

/// An address by a format of the sanitizers: `%p` the address, `%F` `in FUNCTION`, `%L` `FILE:LINE`, `%s` the file, `%l` the line. The
/// function is the compiled one, the line is of what was inlined into it.
pub(crate) fn describe(sites: Option<&Sites>, pc: u64, format: &str) -> String {
    let site = sites.and_then(|sites| {
        // libFuzzer asks for the instruction behind the one that it was told (FuzzerTracePC.cpp:GetNextInstructionPc).
        let known = |pc: u64| {
            let low = pc as u32;
            (sites.address(low) == pc && sites.index_of(low).is_some()).then_some(low)
        };
        let low = known(pc).or_else(|| known(pc.wrapping_sub(1)))?;
        Some((low, sites.lines(low)))
    });
    let frames = site.as_ref().map_or(&[][..], |(_, frames)| frames);
    let (inner, outer) = (frames.first(), frames.last());
    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        match letters.next() {
            Some('p') => text += &format!("{pc:#x}"),
            Some('F') => text += &format!("in {}", outer.map_or("pinfuzz", |f| f.function)),
            Some('s') => text += inner.map_or(NO_FILE, |f| f.file),
            Some('l') => text += &inner.map_or(0, |f| f.line).to_string(),
            Some('L') => {
                text += &inner.map_or(NO_FILE.into(), |f| format!("{}:{}", f.file, f.line))
            }
            Some('%') => text.push('%'),
            other => text.extend(['%'].into_iter().chain(other)),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_call_site_is_left_out_of_lists() {
        assert_eq!(describe(None, 0x1234, "%p %F %L"), "0x1234 in pinfuzz <null>");
        assert_eq!(describe(None, 0x1234, "%s"), "<null>");
        assert_eq!(describe(None, 0x1234, " %l %% %q %"), " 0 % %q %");
    }
}
