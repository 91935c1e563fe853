//! What is not a program is refused, with the place and the words that would do.

use super::{entropy, home};
use crate::{INPUT_MAX, LINES_MAX, Mount, Program};
use insta::assert_snapshot;

/// The error of a program that has this one line.
fn error_of(line: &str) -> String {
    let text = format!("pinfuzz 1\nimage xfs-dax\n{line}\n");
    match Program::parse(&text) {
        Ok(program) => panic!("{line} was taken for\n{program}"),
        Err(error) => error.to_string(),
    }
}

fn error_of_text(text: &str) -> String {
    Program::parse(text).expect_err("the text is no program").to_string()
}

#[test]
fn comments_blanks_and_units_are_free() {
    let text = "pinfuzz 1 # first\n\n# second\nimage  xfs-dax\r\n\n\
        t0:f0=open( \"a\" ,RDWR | CREAT)# \"\n \tt1 : pread(f0, 1024, anon, 4096)(delay 20us,r0,link)&\n\
        t1: pwrite(f0, 1K, anon, 4K) (delay 20us, aio) &\n";
    let program = Program::parse(text).expect("it is a program");
    assert_snapshot!(program, @r#"
        pinfuzz 1
        image xfs-dax
        t0: f0 = open("a", RDWR|CREAT)
        t1: pread(f0, 1K, anon, 4K) (r0, link, delay 20us) &
        t1: pwrite(f0, 1K, anon, 4K) (aio, delay 20us) &
        "#);
}

#[test]
fn slots_and_names_have_bounds() {
    assert_snapshot!(error_of("t0: close(q1)"), @r#"line 3, column 11: expected a file slot (f0 to f7), found "q1""#);
    assert_snapshot!(error_of("t0: close(f8)"), @r#"line 3, column 11: expected a file slot (f0 to f7), found "f8""#);
    assert_snapshot!(error_of("t0: f0 = mmap(f0, 0, 4K, R, SHARED)"), @r#"line 3, column 5: expected a mapping slot (m0 to m7), found "f0""#);
    assert_snapshot!(error_of("t4: close(f0)"), @r#"line 3, column 1: expected a lane (t0 to t3, c0 or c1), found "t4:""#);
    assert_snapshot!(error_of("t0: unlink(\"e\")"), @r#"line 3, column 12: expected a path ("a" to "d", or with a mount, as in "ext4:a"), found "\"e\"""#);
    assert_snapshot!(error_of("t0: unlink(\"vfat:a\")"), @r#"line 3, column 13: expected ext4-dax, xfs-dax, ext4 or xfs, found "vfat:a""#);
    assert_snapshot!(error_of("t0: unlink(\"a"), @r#"line 3, column 12: expected a path that ends with `"`, found "\"a""#);
}

#[test]
fn numbers_have_bounds_and_one_spelling() {
    assert_snapshot!(error_of("t0: pread(f0, 5M, anon, 4K)"), @r#"line 3, column 15: expected an offset (0 to 4M), found "5M""#);
    assert_snapshot!(error_of("t0: pread(f0, 0, anon, 513K)"), @r#"line 3, column 24: expected a length (0 to 512K), found "513K""#);
    assert_snapshot!(error_of("t0: pread(f0, 99999999999999999999, anon, 1)"), @r#"line 3, column 15: expected an offset (0 to 4M), found "99999999999999999999""#);
    assert_snapshot!(error_of("t0: pread(f0, 01, anon, 1)"), @r#"line 3, column 15: expected an offset (0 to 4M), found "01""#);
    assert_snapshot!(error_of("t0: pread(f0, -1, anon, 1)"), @r#"line 3, column 15: expected an offset (0 to 4M), found "-1""#);
    assert_snapshot!(error_of("t0: pread(f0, 0, anon+4K, 1)"), @r#"line 3, column 23: expected an offset within a page (0 to 4095), found "4K""#);
    assert_snapshot!(error_of("t0: fsync(f0) (delay 5001us)"), @r#"line 3, column 22: expected a delay (1us to 5000us), found "5001us""#);
    assert_snapshot!(error_of("t0: r0 = io_uring_setup(33)"), @r#"line 3, column 25: expected a number of entries (1 to 32), found "33""#);
}

#[test]
fn calls_are_spelled_out() {
    assert_snapshot!(error_of("t0: write(f0)"), @r#"line 3, column 5: expected a call (such as pwrite), found "write""#);
    assert_snapshot!(error_of("t0: open(\"a\", RDWR)"), @r#"line 3, column 5: expected a slot and `=` before `open`, found "open""#);
    assert_snapshot!(error_of("t0: f0 = close(f0)"), @r#"line 3, column 10: expected a call that fills a slot, found "close""#);
    assert_snapshot!(error_of("t0: fsync(f0, 4K)"), @r#"line 3, column 13: expected `)`, found ",""#);
    assert_snapshot!(error_of("t0: ftruncate(f0)"), @r#"line 3, column 17: expected `,`, found ")""#);
    assert_snapshot!(error_of("t0 fsync(f0)"), @r#"line 3, column 4: expected `:`, found "fsync""#);
    assert_snapshot!(error_of("t0: splice(m0, 0, p0, 4K)"), @r#"line 3, column 12: expected a file slot (f0 to f7), found "m0""#);
    assert_snapshot!(error_of("t0: load(m0, 8)"), @r#"line 3, column 12: expected `+`, found ",""#);
    assert_snapshot!(error_of("t0: preadv(f0, 0, [])"), @r#"line 3, column 20: expected a buffer (anon, anon+8 or m0+512), found "]""#);
    assert_snapshot!(error_of("t0: readv(f0, [anon 1, anon 1, anon 1, anon 1, anon 1])"), @r#"line 3, column 48: expected at most 4 buffers, found "anon""#);
}

#[test]
fn flags_are_known_and_stand_once() {
    assert_snapshot!(error_of("t0: f0 = open(\"a\", RDWR|CREAT|CREAT)"), @r#"line 3, column 31: expected EXCL, TRUNC, APPEND, DIRECT, DSYNC, SYNC or NONBLOCK, found "CREAT""#);
    assert_snapshot!(error_of("t0: f0 = open(\"a\", O_RDWR)"), @r#"line 3, column 20: expected RDONLY, WRONLY or RDWR, found "O_RDWR""#);
    assert_snapshot!(error_of("t0: fallocate(f0, PUNCH, 0, 4K)"), @r#"line 3, column 19: expected 0, KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, ZERO_RANGE|KEEP_SIZE, COLLAPSE_RANGE, INSERT_RANGE, UNSHARE_RANGE or PUNCH_HOLE_BARE, found "PUNCH""#);
    assert_snapshot!(error_of("t0: mprotect(m0, WR)"), @r#"line 3, column 18: expected NONE, R, W or RW, found "WR""#);
    assert_snapshot!(error_of("t0: msync(m0+0, 4K, SYNC|SYNC)"), @r#"line 3, column 26: expected another flag, found "SYNC""#);
    assert_snapshot!(error_of("t0: fsync(f0) (link)"), @r#"line 3, column 16: expected a ring slot (r0 to r1), `aio` or `delay`, found "link""#);
    assert_snapshot!(error_of("t0: fsync(f0) (r0, link, link)"), @r#"line 3, column 26: expected drain, async, hardlink, fixed or `delay`, found "link""#);
    assert_snapshot!(error_of("t0: fsync(f0) (aio, r0)"), @r#"line 3, column 21: expected `delay`, found "r0""#);
}

#[test]
fn gates_and_leases_have_their_words() {
    assert_snapshot!(error_of("t0: f0 = open(g2, RDWR)"), @r#"line 3, column 15: expected a block device's gate (g0 to g1), found "g2""#);
    assert_snapshot!(error_of("t0: process_vm_readv(m0+0, g0, 4K)"), @r#"line 3, column 28: expected g2, found "g0""#);
    assert_snapshot!(error_of("t0: release(g0, NOW)"), @r#"line 3, column 17: expected COMPLETE, EIO, REVERSE or PARTIAL, found "NOW""#);
    assert_snapshot!(error_of("t0: setlease(f0, EXCL)"), @r#"line 3, column 18: expected RDLCK, WRLCK, UNLCK or LAYOUT, found "EXCL""#);
    assert_snapshot!(error_of("t0: lease_break_time(61)"), @r#"line 3, column 22: expected seconds (0 to 60), found "61""#);
    assert_snapshot!(error_of("t0: release(g0,)"), @r#"line 3, column 16: expected COMPLETE, EIO, REVERSE or PARTIAL, found ")""#);
}

#[test]
fn nothing_may_follow() {
    assert_snapshot!(error_of("t0: fsync(f0) & &"), @r#"line 3, column 17: expected end of line, found "&""#);
    assert_snapshot!(error_of("t0: fsync(f0) ()"), @r#"line 3, column 16: expected a ring slot (r0 to r1), `aio` or `delay`, found ")""#);
    assert_snapshot!(error_of("t0: fsync(f0"), @"line 3, column 13: expected `)`, found end of line");
}

#[test]
fn the_first_lines_say_what_it_is() {
    assert_snapshot!(error_of_text(""), @"line 1, column 1: expected `pinfuzz 1`, found end of line");
    assert_snapshot!(error_of_text("# a comment\npinfuzz 1\n"), @"line 1, column 1: expected `pinfuzz 1`, found end of line");
    assert_snapshot!(error_of_text("pinfuzz 2\nimage xfs\n"), @r#"line 1, column 9: expected version 1, found "2""#);
    assert_snapshot!(error_of_text("pinfuzz 1\nimage btrfs\n"), @r#"line 2, column 7: expected ext4-dax, xfs-dax, ext4 or xfs, found "btrfs""#);
    assert_snapshot!(error_of_text("pinfuzz 1\nt0: fsync(f0)\n"), @r#"line 2, column 1: expected `image` and a mount, found "t0:""#);
    assert_snapshot!(error_of_text("pinfuzz 1\n"), @"line 2, column 1: expected `image` and a mount, found end of text");
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let error = Program::parse_bytes(b"pinfuzz 1\nimage x\xff\n").expect_err("it is not UTF-8");
    assert_snapshot!(error, @"line 2, column 8: expected UTF-8 text, found byte 0xff");
    assert!(Program::parse_bytes(b"pinfuzz 1\nimage xfs\n").is_ok());
}

#[test]
fn the_input_is_bounded() {
    assert_snapshot!(error_of_text(&"#".repeat(INPUT_MAX + 1)), @"line 1, column 1: expected at most 65536 bytes, found 65537 bytes");
    let full = format!("pinfuzz 1\nimage xfs\n{}", "t0: fsync(f0)\n".repeat(LINES_MAX));
    assert!(Program::parse(&full).is_ok());
    assert_snapshot!(error_of_text(&format!("{full}t0: fsync(f0)\n")), @r#"line 67, column 1: expected at most 64 lines of calls, found "t0:""#);
}

#[test]
fn columns_count_characters_not_bytes() {
    assert_snapshot!(error_of("t0: unlink(\"äöü\") x"), @r#"line 3, column 12: expected a path ("a" to "d", or with a mount, as in "ext4:a"), found "\"äöü\"""#);
    assert_snapshot!(error_of("t0: ä"), @r#"line 3, column 5: expected a call (such as pwrite), found "ä""#);
}

#[test]
fn random_bytes_never_panic() {
    for seed in 0..2_000 {
        let mut bytes = entropy(seed, (seed % 300) as usize);
        let _ = Program::parse_bytes(&bytes);
        // Behind a good beginning, more of the parser is reached.
        let mut text = b"pinfuzz 1\nimage xfs\nt0: ".to_vec();
        let alphabet = b" \n\"()[]|&,+:=#tfmprcaKM0149ANOlinkdelayus";
        bytes.iter_mut().for_each(|byte| *byte = alphabet[usize::from(*byte) % alphabet.len()]);
        text.extend(bytes);
        let _ = Program::parse_bytes(&text);
    }
}

#[test]
fn changed_texts_parse_to_what_they_print_or_not_at_all() {
    let mut parsed = 0;
    for seed in 0..3_000 {
        let mut text = Program::from_seed(seed, home(seed)).to_string().into_bytes();
        let changes = entropy(seed, 16);
        for change in changes.chunks_exact(4).take(1 + seed as usize % 2) {
            let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % text.len();
            match change[2] % 4 {
                0 => drop(text.remove(at)),
                1 => text.insert(at, change[3]),
                2 => text[at] = b"0123456789KMfmprtc,|&+ "[change[3] as usize % 23],
                _ => text[at] = change[3],
            }
        }
        if let Ok(program) = Program::parse_bytes(&text) {
            parsed += 1;
            let again = Program::parse(&program.to_string()).expect("what was printed parses");
            assert_eq!(again, program, "seed {seed}");
        }
    }
    assert!(parsed > 60, "only {parsed} texts were still programs");
}

#[test]
fn a_home_is_any_mount() {
    for mount in Mount::ALL {
        let program = Program { home: mount, lines: Vec::new() };
        assert_eq!(Program::parse(&program.to_string()), Ok(program));
    }
}
