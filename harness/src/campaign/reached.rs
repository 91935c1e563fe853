//! `reached.txt`: everything that a run's programs reached, one line each, in the order in which it was.
//!
//! It only ever grows, so that nothing that was counted is lost with a process. Does not say which program reached what.

use crate::campaign::search::Reached;
use std::fmt::Write;

/// The file's name in the run's folder.
pub(super) const FILE: &str = "reached.txt";

/// Lines for what was reached: `site <address> <kernel>` with the low 32 bits of a return address, and `behaviour <number>`.
pub(super) fn lines(reached: &[Reached]) -> String {
    let mut text = String::new();
    for one in reached {
        let _ = match one {
            Reached::Site(kernel, pc) => writeln!(text, "site {pc:08x} {kernel}"),
            Reached::Behaviour(number) => writeln!(text, "behaviour {number:016x}"),
        };
    }
    text
}

/// Reads such lines; those that are none are left out, for a run may have been killed while it wrote.
pub(super) fn parse(text: &str) -> impl Iterator<Item = Reached> + '_ {
    text.lines().filter_map(|line| {
        let (kind, rest) = line.split_once(' ')?;
        match kind {
            "site" => {
                let (pc, kernel) = rest.split_once(' ')?;
                Some(Reached::Site(kernel.into(), u32::from_str_radix(pc, 16).ok()?))
            }
            "behaviour" => Some(Reached::Behaviour(u64::from_str_radix(rest, 16).ok()?)),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_torn_is_left_out() {
        let all = [
            Reached::Site("6.12.0 #1 SMP".into(), 0x8100_0001),
            Reached::Behaviour(1 << 63 | 5),
            Reached::Site("6.1.0 #1".into(), 0xffff_ffff),
        ];
        let text = lines(&all);
        assert_eq!(parse(&text).collect::<Vec<_>>(), all);
        let torn = format!("{text}\0\0\nsite 81\nbehav");
        assert_eq!(parse(&torn).collect::<Vec<_>>(), all);
    }
}
