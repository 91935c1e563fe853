//! A small program with coverage stands for a kernel: what it reports while it runs must be what is found in its file.

use super::*;
use std::path::PathBuf;
use std::process::Command;

/// Reports the return addresses of its calls, as KCOV does.
const REPORTER: &str = r#"
#include <stdio.h>
void __sanitizer_cov_trace_pc(void) {
    printf("%lx\n", (unsigned long)__builtin_return_address(0));
}
"#;

/// The lines are counted below.
const COVERED: &str = r#"static inline __attribute__((always_inline)) int half(int n) {
    if (n & 1)
        return -1;
    return n / 2;
}
int outer(int n) {
    if (n > 100)
        return n;
    return half(n);
}
int never(int n) {
    return n > 3 ? n * outer(n) : 7;
}
int main(int argc, char **argv) {
    return outer(argc) + 1;
}
"#;

/// Compiles it as a kernel is compiled: objects with coverage, others without, from a tree with folders.
fn build(dir: &Path) -> PathBuf {
    fs::create_dir_all(dir.join("fs")).unwrap();
    fs::create_dir_all(dir.join("kernel")).unwrap();
    fs::write(dir.join("kernel/kcov.c"), REPORTER).unwrap();
    fs::write(dir.join("fs/dax.c"), COVERED).unwrap();
    let cc = |args: &[&str]| {
        let status = Command::new("cc").args(args).current_dir(dir).status();
        assert!(status.expect("cc, which Rust links with").success(), "cc {args:?}");
    };
    cc(&["-g", "-O1", "-c", "kernel/kcov.c", "-o", "kcov.o"]);
    cc(&["-g", "-O1", "-fsanitize-coverage=trace-pc", "-c", "fs/dax.c", "-o", "dax.o"]);
    cc(&["-no-pie", "-Wl,--build-id=sha1", "kcov.o", "dax.o", "-o", "vmlinux"]);
    dir.join("vmlinux")
}

#[test]
fn what_runs_report_is_known_by_its_lines() {
    let dir = tempfile::tempdir().unwrap();
    let vmlinux = build(dir.path());
    let sites = Sites::read(&vmlinux).unwrap();
    assert!(sites.all().is_sorted());

    let output = Command::new(&vmlinux).output().unwrap();
    let reported: Vec<u32> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| u32::from_str_radix(line, 16).unwrap())
        .collect();
    // main, outer, and one that is odd.
    assert!(reported.len() >= 3, "{reported:?}");
    for pc in &reported {
        let index = sites.index_of(*pc).expect("a reported address is a site");
        assert_eq!(sites.all()[index], *pc);
        assert_eq!(sites.address(*pc), u64::from(*pc));
        let lines = sites.lines(*pc);
        assert!(lines.iter().all(|frame| frame.file == "fs/dax.c"), "{lines:?}");
    }
    assert!(sites.is_entry(reported[0]) && sites.symbol(reported[0]) == Some("main"));
    assert_eq!(sites.lines(reported[0])[0].to_string(), "main fs/dax.c:15");

    // What was inlined is named from the inside to the outside.
    let inlined: Vec<_> =
        sites.all().iter().map(|pc| sites.lines(*pc)).filter(|l| l.len() > 1).collect();
    assert!(!inlined.is_empty());
    for lines in &inlined {
        assert_eq!(lines.iter().map(|f| f.function).collect::<Vec<_>>(), ["half", "outer"]);
        assert_eq!(lines[1].line, 9);
    }

    // What was not reached is known as well; every function has one entry.
    let functions: BTreeSet<_> = sites.all().iter().filter_map(|pc| sites.symbol(*pc)).collect();
    assert_eq!(functions.into_iter().collect::<Vec<_>>(), ["main", "never", "outer"]);
    assert_eq!(sites.all().iter().filter(|pc| sites.is_entry(**pc)).count(), 3);
    assert!(sites.every_line().iter().any(|f| f.function == "never" && f.line == 12));
    assert_eq!(sites.in_files(&["fs/"]), sites.all());
    assert_eq!(sites.in_files(&["kernel/", "mm/"]), [0u32; 0]);
    let never = sites.filtered(|frame| frame.function == "never");
    assert!(never.len() >= 2 && never.iter().all(|pc| sites.symbol(*pc) == Some("never")));
    assert!(never.iter().all(|pc| !reported.contains(pc)));
    assert_eq!(sites.lines(1), []);
}

#[test]
fn a_build_is_looked_up_once() {
    let dir = tempfile::tempdir().unwrap();
    let vmlinux = build(dir.path());
    let cache = Cache::at(&dir.path().join("cache")).unwrap();
    let first = Sites::with_cache(&vmlinux, &cache).unwrap();
    assert_eq!(first, Sites::read(&vmlinux).unwrap());
    assert_eq!(first, Sites::with_cache(&vmlinux, &cache).unwrap());
    let [key] = &cache.keys(KIND)[..] else { panic!("{:?}", cache.keys(KIND)) };
    let entry = cache.find(KIND, key).unwrap();

    // What lies there is read, and believed only as far as it makes sense.
    let mut table = first.0;
    table.strings[0] = "changed".into();
    fs::write(entry.join(FILE), postcard::to_stdvec(&table).unwrap()).unwrap();
    assert_eq!(Sites::with_cache(&vmlinux, &cache).unwrap().0, table);
    table.strings.clear();
    fs::write(entry.join(FILE), postcard::to_stdvec(&table).unwrap()).unwrap();
    let error = Sites::with_cache(&vmlinux, &cache).unwrap_err().to_string();
    assert!(
        error.starts_with("sites.bin is damaged: remove ") && error.lines().count() == 1,
        "{error}"
    );
}

#[test]
fn what_is_no_kernel_with_coverage_is_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vmlinux");
    let whole = fs::read(build(dir.path())).unwrap();
    let refusal = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let error = Sites::read(&path).unwrap_err().to_string();
        assert!(error.contains("vmlinux") && error.lines().count() == 1, "{error}");
        error
    };
    refusal(b"");
    refusal(b"#!/bin/sh\n");
    // No cut and no changed byte may do worse than a refusal.
    for part in 1..64 {
        let cut = &whole[..whole.len() * part / 64];
        fs::write(&path, cut).unwrap();
        let _ = Sites::read(&path);
        let mut bent = whole.clone();
        let at = bent.len() * part / 64;
        bent[at..].iter_mut().take(64).for_each(|byte| *byte ^= 0xa5);
        fs::write(&path, bent).unwrap();
        let _ = Sites::read(&path);
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.c"), "int main(void) { return 0; }").unwrap();
    let path = dir.path().join("plain");
    let status = Command::new("cc").arg(dir.path().join("a.c")).arg("-o").arg(&path).status();
    assert!(status.unwrap().success());
    let error = Sites::read(&path).unwrap_err().to_string();
    assert!(
        error.ends_with("no call of __sanitizer_cov_trace_pc: build the kernel with CONFIG_KCOV"),
        "{error}"
    );
}
