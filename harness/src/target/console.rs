//! Kernel logs: which lines are complaints, and what each complaint is called.
//!
//! A title holds no address and no number, so that the same complaint has the same title in every run. Does not decide whether
//! a complaint matters: that is the console oracle's question. Complaints that only a slow host causes (soft lockups, RCU
//! stalls) have titles of their own, beginning with `slow host or livelock`, for the oracle to tell apart.

use history::Splat;

/// Most bytes of text that one complaint carries: a report of KASAN with both stacks has some 12 KiB.
const TEXT_MAX: usize = 16 << 10;
/// Most complaints taken out of one run: later ones are mostly consequences of the first.
const SPLATS_MAX: usize = 16;
/// Most bytes of a title.
const TITLE_MAX: usize = 120;
/// Lines of a complaint without a stack that are kept behind its first.
const SHORT: usize = 12;
/// What the agent writes to the log when a run begins.
const MARK: &str = "pinfuzz: run ";

/// Bits of RFLAGS that are 0 in every x86-64 processor: 3, 5, 15 and all from 22 on. (Bit 1 is always 1; but where a kernel thread's stack begins, a
/// dump shows registers that never were, all 0.)
const RFLAGS_ZERO: u64 = !0x003f_7fd7;

/// What introduces a complaint.
struct Pattern {
    /// Occurs in the line.
    find: &'static str,
    /// What the title is made of.
    title: Title,
}

enum Title {
    /// This text and the function that the line or the following `RIP:` names.
    Function(&'static str),
    /// The rest of the line behind the pattern, freed of numbers, behind this text.
    Rest(&'static str),
    /// This text.
    Fixed(&'static str),
}

use Title::{Fixed, Function, Rest};

/// In order: the first that matches names the line.
const PATTERNS: &[Pattern] = &[
    Pattern {
        find: "WARNING: possible circular locking dependency",
        title: Fixed("possible circular locking dependency"),
    },
    Pattern {
        find: "WARNING: possible recursive locking",
        title: Fixed("possible recursive locking"),
    },
    Pattern { find: "WARNING: inconsistent lock state", title: Fixed("inconsistent lock state") },
    Pattern { find: "WARNING: suspicious RCU usage", title: Fixed("suspicious RCU usage") },
    Pattern { find: "WARNING: bad unlock balance", title: Fixed("bad unlock balance") },
    Pattern { find: "WARNING: held lock freed", title: Fixed("held lock freed") },
    Pattern {
        find: "WARNING: lock held when returning to user space",
        title: Fixed("lock held when returning to user space"),
    },
    Pattern { find: "WARNING: CPU: ", title: Function("WARNING in ") },
    Pattern { find: "BUG: KASAN: ", title: Rest("KASAN: ") },
    Pattern { find: "BUG: KFENCE: ", title: Rest("KFENCE: ") },
    Pattern { find: "BUG: KMSAN: ", title: Rest("KMSAN: ") },
    Pattern { find: "BUG: KCSAN: ", title: Rest("KCSAN: ") },
    Pattern { find: "UBSAN: ", title: Rest("UBSAN: ") },
    Pattern { find: "BUG: soft lockup", title: Fixed("slow host or livelock: soft lockup") },
    Pattern {
        find: "Watchdog detected hard LOCKUP",
        title: Fixed("slow host or livelock: hard lockup"),
    },
    Pattern { find: "rcu: INFO: ", title: Fixed("slow host or livelock: RCU stall") },
    Pattern {
        find: "BUG: workqueue lockup",
        title: Fixed("slow host or livelock: workqueue lockup"),
    },
    Pattern {
        find: "BUG: unable to handle ",
        title: Function("BUG: unable to handle page fault in "),
    },
    Pattern {
        find: "BUG: kernel NULL pointer dereference",
        title: Function("NULL pointer dereference in "),
    },
    Pattern { find: "BUG: Bad page state", title: Fixed("BUG: Bad page state") },
    Pattern { find: "BUG: Bad page map", title: Fixed("BUG: Bad page map") },
    Pattern { find: "BUG: Bad rss-counter state", title: Fixed("BUG: Bad rss-counter state") },
    Pattern { find: "BUG: non-zero pgtables_bytes", title: Fixed("BUG: non-zero pgtables_bytes") },
    Pattern {
        find: "BUG: sleeping function called from invalid context",
        title: Fixed("BUG: sleeping function called from invalid context"),
    },
    Pattern { find: "BUG: scheduling while atomic", title: Fixed("BUG: scheduling while atomic") },
    Pattern { find: "kernel BUG at ", title: Function("kernel BUG in ") },
    Pattern { find: "BUG: ", title: Rest("BUG: ") },
    Pattern { find: "general protection fault", title: Function("general protection fault in ") },
    Pattern { find: "invalid opcode: ", title: Function("invalid opcode in ") },
    Pattern { find: "stack segment: ", title: Function("stack segment fault in ") },
    Pattern { find: "divide error: ", title: Function("divide error in ") },
    Pattern { find: "Kernel panic - not syncing: ", title: Rest("Kernel panic: ") },
    Pattern { find: "INFO: task ", title: Fixed("task blocked for long") },
    Pattern {
        find: "Page cache invalidation failure on direct I/O",
        title: Fixed("page cache invalidation failure on direct I/O"),
    },
    Pattern { find: "Memory failure: ", title: Rest("Memory failure: ") },
    Pattern { find: "refcount_t: ", title: Rest("refcount_t: ") },
    Pattern { find: "list_add corruption", title: Fixed("list_add corruption") },
    Pattern { find: "list_del corruption", title: Fixed("list_del corruption") },
    Pattern { find: "Assertion failed: ", title: Rest("assertion failed: ") },
    Pattern { find: "Assertion failure in ", title: Rest("assertion failure in ") },
    Pattern { find: "Metadata corruption detected", title: Rest("XFS metadata corruption") },
    Pattern { find: "Metadata CRC error detected", title: Rest("XFS metadata CRC error") },
    Pattern {
        find: "Corruption of in-memory data",
        title: Fixed("XFS corruption of in-memory data"),
    },
    Pattern { find: "Internal error ", title: Rest("XFS internal error ") },
    Pattern { find: "metadata I/O error", title: Rest("XFS metadata I/O error") },
    Pattern { find: "User initiated shutdown", title: Fixed("XFS user initiated shutdown") },
    Pattern { find: "Log I/O Error Detected", title: Fixed("XFS log I/O error") },
    Pattern { find: "EXT4-fs error", title: Function("EXT4-fs error in ") },
    Pattern { find: "EXT4-fs warning", title: Function("EXT4-fs warning in ") },
    Pattern { find: "JBD2: ", title: Rest("JBD2: ") },
    Pattern { find: "Buffer I/O error on dev", title: Fixed("buffer I/O error") },
    Pattern { find: "page allocation failure", title: Fixed("page allocation failure") },
    Pattern { find: "invoked oom-killer", title: Fixed("out of memory") },
    Pattern { find: "Out of memory: ", title: Fixed("out of memory") },
];

/// A value of RFLAGS in a dump of registers that no processor can have: then the emulator lost the processor's state, and the complaint says
/// nothing about the kernel.
pub fn impossible_flags(log: &str) -> Option<u64> {
    log.lines()
        .filter_map(|line| line.split_once("EFLAGS: "))
        .filter_map(|(_, rest)| {
            let digits = rest.split(|c: char| !c.is_ascii_hexdigit()).next()?;
            u64::from_str_radix(digits, 16).ok()
        })
        .find(|flags| flags & RFLAGS_ZERO != 0)
}

/// Lines that hold a pattern and complain of nothing.
const HARMLESS: &[&str] = &[
    // Both file systems say so at every mount with dax=always.
    "DAX enabled. Warning: EXPERIMENTAL",
    // What the agent quotes is not the kernel's word.
    "pinfuzz: ",
    // Hardware poison that a program asked for: `Memory failure: 0x1234: recovery action for dax page: Recovered`.
    "recovery action for ",
    "Memory failure: Unsupported",
    // The kernel's offer to be less talkative.
    "INFO: task blocked",
    "INFO: lockdep is turned off",
];

/// Lines that say what the report on the next lines is about.
const PREFACES: &[&str] = &["refcount_t: ", "list_add corruption", "list_del corruption"];

/// The complaints in a part of a log, in order. One report with its stack is one complaint: what it says on the way to a panic
/// does not count again.
pub fn splats(text: &str) -> Vec<Splat> {
    let lines: Vec<&str> = text.lines().map(plain).collect();
    let mut splats: Vec<Splat> = Vec::new();
    let mut at = 0;
    while at < lines.len() && splats.len() < SPLATS_MAX {
        let Some(pattern) = matching(lines[at]) else {
            at += 1;
            continue;
        };
        let end = end_of(&lines, at);
        let title = title(pattern, &lines[at..end]);
        let mut text = String::new();
        // The line of dashes or equals signs above a report belongs to it, but says nothing.
        for line in &lines[at..end] {
            if text.len() + line.len() > TEXT_MAX {
                text.push_str("...\n");
                break;
            }
            text.push_str(line);
            text.push('\n');
        }
        splats.push(Splat { title, text });
        at = end;
    }
    splats
}

/// Where the mark of a run after `run` begins, if there is one.
pub fn mark_after(text: &str, run: u32) -> Option<usize> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let number = line.split_once(MARK).and_then(|(_, rest)| {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            rest[..digits].parse::<u32>().ok()
        });
        if number.is_some_and(|n| n > run) {
            return Some(start);
        }
        start += line.len();
    }
    None
}

/// A line without time stamp, caller and carriage return.
fn plain(line: &str) -> &str {
    let mut rest = line.trim_end();
    // `[   12.345678][ T1234] text`, or `[   12.345678] text`.
    while let Some((inside, after)) = rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
        let inside = inside.trim();
        let stamp = inside.chars().all(|c| c.is_ascii_digit() || c == '.') && !inside.is_empty();
        let caller =
            inside.strip_prefix(['T', 'C']).is_some_and(|n| n.chars().all(|c| c.is_ascii_digit()));
        if !stamp && !caller {
            break;
        }
        rest = after.strip_prefix(' ').unwrap_or(after);
    }
    rest
}

fn matching(line: &str) -> Option<&'static Pattern> {
    if HARMLESS.iter().any(|h| line.contains(h)) {
        return None;
    }
    let pattern = PATTERNS.iter().find(|p| line.contains(p.find))?;
    // `INFO: task x:12 blocked for more than 90 seconds.`
    (pattern.find != "INFO: task " || line.contains(" blocked for more than ")).then_some(pattern)
}

/// Where the report that begins at `start` ends: behind its end mark or its stack, or before the next report.
fn end_of(lines: &[&str], start: usize) -> usize {
    let mut stack = false;
    for (n, line) in lines.iter().enumerate().skip(start + 1) {
        if line.contains("---[ end ") {
            return n + 1;
        }
        if line.contains(MARK) {
            return n;
        }
        stack |= line.contains("Call Trace:") || line.contains("cut here");
        let within = n - start;
        // The line `kernel BUG at` is followed by `invalid opcode`, `BUG: unable to handle` by `Oops`, and these prefaces by a WARNING or
        // a BUG that does the reporting: one report each.
        let oops = line.contains("Oops: ") || line.contains("invalid opcode: ");
        let prefaced = within <= 2 && PREFACES.iter().any(|p| lines[start].contains(p));
        if !oops && !prefaced && matching(line).is_some() {
            return n;
        }
        if !stack && within > SHORT {
            return n;
        }
    }
    lines.len()
}

fn title(pattern: &Pattern, report: &[&str]) -> String {
    let rest = report[0].split_once(pattern.find).map_or("", |(_, rest)| rest);
    let title = match &pattern.title {
        Fixed(text) => (*text).to_string(),
        Function(text) => format!("{text}{}", function(report)),
        Rest(text) => {
            let rest = nameless(rest);
            let blank = if text.ends_with(' ') { "" } else { " " };
            format!("{text}{blank}{rest}")
        }
    };
    let mut end = title.len().min(TITLE_MAX);
    while !title.is_char_boundary(end) {
        end -= 1;
    }
    title[..end].trim_end_matches([' ', ':', ',', '.']).to_string()
}

/// The function that a report is about.
fn function(report: &[&str]) -> String {
    let first = report[0];
    // `EXT4-fs error (device pmem0): ext4_validate_block_bitmap:420: comm x: text`
    if first.contains("EXT4-fs ")
        && let Some((_, rest)) = first.split_once("): ")
    {
        return symbol(rest.split(':').next().unwrap_or_default());
    }
    // `WARNING: CPU: 0 PID: 1 at fs/dax.c:396 dax_insert_entry+0x2a0/0x2b0`
    if let Some((_, rest)) = first.split_once(" at ")
        && let Some(word) = rest.split_whitespace().nth(1)
    {
        return symbol(word);
    }
    // `RIP: 0010:ext4_foo+0x12/0x40 [ext4]`
    let rip = report.iter().find_map(|line| line.split_once("RIP: 0010:"));
    rip.and_then(|(_, rest)| rest.split_whitespace().next())
        .map_or("unknown", |w| w)
        .split('+')
        .next()
        .map(symbol)
        .unwrap_or_default()
}

/// A symbol without offset, module and the suffixes that compilers add.
fn symbol(word: &str) -> String {
    let name = word.split(['+', ' ']).next().unwrap_or_default();
    let name = [".isra", ".part", ".constprop", ".cold"]
        .iter()
        .fold(name, |n, suffix| n.split(suffix).next().unwrap_or(n));
    if name.is_empty() || name.starts_with("0x") { "unknown".into() } else { name.into() }
}

/// A text without numbers, addresses, offsets and names of tasks and devices.
fn nameless(text: &str) -> String {
    let words = text.split_whitespace().map(|word| {
        let body = word.trim_end_matches([',', '.', ':', ')', ']']).trim_start_matches(['(', '[']);
        let body = body.split('+').next().unwrap_or_default();
        let number = body.starts_with(|c: char| c.is_ascii_digit())
            || (body.len() >= 8 && body.chars().all(|c| c.is_ascii_hexdigit()));
        let device =
            body.strip_prefix("pmem").is_some_and(|n| n.starts_with(|c: char| c.is_ascii_digit()));
        if number || device {
            String::new()
        } else {
            word.split("+0x").next().unwrap_or(word).split("=0x").next().unwrap_or(word).to_string()
        }
    });
    words.filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_no_processor_has_are_told_from_those_of_an_oops() {
        let line = |flags: &str| format!("[    8.28] RSP: 0018:ffa000000001bc40 EFLAGS: {flags}\n");
        assert_eq!(impossible_flags(&line("00010246")), None);
        assert_eq!(impossible_flags(&line("00000006")), None);
        assert_eq!(impossible_flags(&line("58d0d682")), Some(0x58d0_d682));
        assert_eq!(impossible_flags(&line("00000000")), None);
        assert_eq!(impossible_flags("EFLAGS: ????\n"), None);
    }

    fn titles(text: &str) -> Vec<String> {
        splats(text).into_iter().map(|s| s.title).collect()
    }

    #[test]
    fn titles_hold_no_numbers() {
        for (line, want) in [
            (
                "[    1.5] WARNING: CPU: 0 PID: 9 at fs/dax.c:396 dax_insert_entry+0x2a0/0x2b0",
                "WARNING in dax_insert_entry",
            ),
            (
                "[1.5][  T12] WARNING: CPU: 1 PID: 9 at mm/gup.c:1 try_grab_folio.part.0+0x2/0x3 [x]",
                "WARNING in try_grab_folio",
            ),
            (
                "BUG: KASAN: slab-use-after-free in xfs_iget+0x12/0x40 [xfs]",
                "KASAN: slab-use-after-free in xfs_iget [xfs]",
            ),
            (
                "UBSAN: array-index-out-of-bounds in fs/ext4/inode.c:12:3",
                "UBSAN: array-index-out-of-bounds in fs/ext4/inode.c:12:3",
            ),
            (
                "INFO: task kworker/0:1:12 blocked for more than 90 seconds.",
                "task blocked for long",
            ),
            (
                "EXT4-fs error (device pmem0): ext4_lookup:1785: inode #12: comm a: bad",
                "EXT4-fs error in ext4_lookup",
            ),
            (
                "XFS (pmem1): Internal error XFS_WANT_CORRUPTED_GOTO at line 12 of file fs/xfs/x.c.  Caller f+0x1/0x2 [xfs]",
                "XFS internal error XFS_WANT_CORRUPTED_GOTO at line of file fs/xfs/x.c. Caller f [xfs]",
            ),
            (
                "XFS (pmem1): Corruption of in-memory data (0x8) detected at x",
                "XFS corruption of in-memory data",
            ),
            (
                "Page cache invalidation failure on direct I/O.  Possible data corruption due to collision with buffered I/O!",
                "page cache invalidation failure on direct I/O",
            ),
            (
                "watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [a:1]",
                "slow host or livelock: soft lockup",
            ),
            (
                "rcu: INFO: rcu_preempt self-detected stall on CPU",
                "slow host or livelock: RCU stall",
            ),
            (
                "Kernel panic - not syncing: sysrq triggered crash",
                "Kernel panic: sysrq triggered crash",
            ),
            (
                "WARNING: possible circular locking dependency detected",
                "possible circular locking dependency",
            ),
        ] {
            assert_eq!(titles(line), [want]);
        }
    }

    #[test]
    fn what_is_said_at_every_mount_is_no_complaint() {
        for line in [
            "XFS (pmem1): DAX enabled. Warning: EXPERIMENTAL, use at your own risk",
            "EXT4-fs (pmem0): DAX enabled. Warning: EXPERIMENTAL, use at your own risk",
            "EXT4-fs (pmem0): mounted filesystem r/w with ordered data mode. Quota mode: none.",
            "nd_pmem namespace0.0: unable to guarantee persistence of writes",
            "pinfuzz: BUG: quoted",
            "INFO: task blocked messages are off",
        ] {
            assert_eq!(splats(line), [], "{line}");
        }
    }

    #[test]
    fn an_oops_is_one_complaint_and_its_panic_another() {
        let text = "[ 1.0] BUG: kernel NULL pointer dereference, address: 0000000000000008\n\
                    [ 1.0] #PF: supervisor read access in kernel mode\n\
                    [ 1.0] Oops: Oops: 0000 [#1] PREEMPT SMP\n\
                    [ 1.0] CPU: 0 PID: 1 Comm: init\n\
                    [ 1.0] RIP: 0010:xfs_file_open+0x12/0x40 [xfs]\n\
                    [ 1.0] Call Trace:\n\
                    [ 1.0]  <TASK>\n\
                    [ 1.0] ---[ end trace 0000000000000000 ]---\n\
                    [ 1.1] Kernel panic - not syncing: Fatal exception\n\
                    [ 1.1] ---[ end Kernel panic - not syncing: Fatal exception ]---\n";
        assert_eq!(
            titles(text),
            ["NULL pointer dereference in xfs_file_open", "Kernel panic: Fatal exception"]
        );
    }

    #[test]
    fn a_bug_names_the_function_it_is_in() {
        let text = "------------[ cut here ]------------\n\
                    kernel BUG at fs/ext4/inode.c:1234!\n\
                    Oops: invalid opcode: 0000 [#1] PREEMPT SMP\n\
                    RIP: 0010:ext4_writepages.cold+0x12/0x40 [ext4]\n\
                    ---[ end trace 0000000000000000 ]---\n";
        assert_eq!(titles(text), ["kernel BUG in ext4_writepages"]);
    }

    #[test]
    fn a_preface_and_its_warning_are_one_complaint() {
        let text = "------------[ cut here ]------------\n\
                    refcount_t: underflow; use-after-free.\n\
                    WARNING: CPU: 0 PID: 1 at lib/refcount.c:28 refcount_warn_saturate+0x1/0x2\n\
                    Call Trace:\n\
                    ---[ end trace 0000000000000000 ]---\n";
        assert_eq!(titles(text), ["refcount_t: underflow; use-after-free"]);
    }

    #[test]
    fn hostile_text_is_bounded() {
        let flood = "BUG: x\n".repeat(100_000);
        assert_eq!(splats(&flood).len(), SPLATS_MAX);
        let long = format!("BUG: {}\n", "ä".repeat(100_000));
        let splats = splats(&long);
        assert!(splats[0].title.len() <= TITLE_MAX && splats[0].text.len() <= TEXT_MAX + 4);
    }

    #[test]
    fn marks_are_found_by_number() {
        let text = "a\n[ 1.0] pinfuzz: run 7\nb\npinfuzz: run 8 (x)\nc\n";
        assert_eq!(mark_after(text, 7), Some(text.find("pinfuzz: run 8").unwrap()));
        assert_eq!(mark_after(text, 6), Some(2));
        assert_eq!(mark_after(text, 8), None);
        assert_eq!(mark_after(text, u32::MAX), None);
    }
}
