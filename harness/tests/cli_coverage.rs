//! `pinfuzz coverage` on a saved survey: a page, a text, and who reaches a line. A small program with coverage stands for a kernel.
//!
//! Starts no guest.

mod cli;

use cli::{pinfuzz, scratch};
use harness::coverage::sites::Sites;
use harness::coverage::survey::{Survey, Surveyed};
use std::path::Path;
use std::process::Command;

const SOURCE: &str = r#"void __sanitizer_cov_trace_pc(void);
static inline __attribute__((always_inline)) void trace_it(int n) {
    if (n == 77)
        __asm__ volatile("nop");
}
int lit(int n) {
    trace_it(n);
    if (n > 3)
        return 1;
    return n + 2;
}
int dark(int n) {
    return n > 7 ? lit(n) : 3;
}
int main(int argc, char **argv) {
    return lit(argc);
}
"#;

/// Builds it in `dir`, and makes a survey of two programs: one that reaches `main` and `lit`, and one that reaches nothing.
fn survey(dir: &Path) {
    std::fs::create_dir_all(dir.join("kernel")).unwrap();
    std::fs::create_dir_all(dir.join("fs")).unwrap();
    std::fs::write(dir.join("kernel/kcov.c"), "void __sanitizer_cov_trace_pc(void) {}\n").unwrap();
    std::fs::write(dir.join("fs/dax.c"), SOURCE).unwrap();
    let cc = |args: &[&str]| {
        let status = Command::new("cc").args(args).current_dir(dir).status();
        assert!(status.expect("cc, which Rust links with").success(), "cc {args:?}");
    };
    cc(&["-g", "-O1", "-c", "kernel/kcov.c", "-o", "kcov.o"]);
    cc(&["-g", "-O1", "-fsanitize-coverage=trace-pc", "-c", "fs/dax.c", "-o", "dax.o"]);
    cc(&["-no-pie", "-Wl,--build-id=sha1", "kcov.o", "dax.o", "-o", "vmlinux"]);
    let sites = Sites::read(&dir.join("vmlinux")).unwrap();
    let reached = |function: &str| sites.filtered(|f| f.function == function);
    let mut all = [reached("main"), reached("lit")].concat();
    all.sort_unstable();
    all.dedup();
    let program = |name: &str, lines, reached| Surveyed { name: name.into(), lines, reached };
    let programs = vec![program("b.prog", 7, all), program("a.prog", 2, vec![])];
    let survey = Survey::new("own", "6.12.0-own", "2026-01-01T00:00:00Z".into(), programs);
    std::fs::write(dir.join("survey.json"), survey.to_json()).unwrap();
}

#[test]
fn a_survey_becomes_a_page_a_text_and_answers() {
    let dir = scratch();
    let dir = dir.path();
    survey(dir);
    let path = |name: &str| dir.join(name).to_str().unwrap().to_string();
    let (from, vmlinux) = (path(""), path("vmlinux"));
    let base = ["coverage", "--from", &from, "--vmlinux", &vmlinux];

    let output = pinfuzz(&[&base[..], &["--source", &from]].concat());
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(output.stdout.contains("2 programs on 6.12.0-own (own) reach"), "{}", output.stdout);
    assert!(output.stdout.contains("2 of 3 functions"), "a tracepoint counts: {}", output.stdout);
    let page = std::fs::read_to_string(path("coverage.html")).unwrap();
    assert!(page.contains("return n + 2;"), "the source is on the page");
    let text = std::fs::read_to_string(path("coverage.txt")).unwrap();
    let dark = text.lines().find(|l| l.contains(" dark ")).unwrap();
    assert!(dark.contains("0 of") && dark.ends_with("0 programs"), "{dark}");
    assert!(text.contains("not reached: 13"), "{text}");

    let who = |line: &str| pinfuzz(&[&base[..], &["--line", line]].concat());
    let output = who("fs/dax.c:16");
    assert_eq!((output.code, output.stdout.as_str()), (0, "b.prog\n"), "{}", output.stderr);
    assert_eq!(who("fs/dax.c:13").stdout, "");
    let output = who("fs/dax.c:5");
    assert_eq!(output.code, 129);
    assert!(output.stderr.contains("the nearest lines that can are"), "{}", output.stderr);
    assert_eq!(who("fs/dax.c").code, 129);
    assert_eq!(pinfuzz(&[&base[..], &["--files", "mm/"]].concat()).code, 129);
}

#[test]
fn a_survey_that_is_damaged_or_of_another_kernel_is_refused_in_one_line() {
    let dir = scratch();
    let dir = dir.path();
    survey(dir);
    let path = |name: &str| dir.join(name).to_str().unwrap().to_string();
    let args = ["coverage", "--from", &path(""), "--vmlinux", &path("vmlinux")].map(String::from);
    let run = || pinfuzz(&args.each_ref().map(String::as_str));
    let good = std::fs::read_to_string(path("survey.json")).unwrap();

    let programs = vec![Surveyed {
        name: "x".into(),
        lines: 1,
        reached: (0x8100_0000..0x8100_0100).collect(),
    }];
    let other = Survey::new("other", "6.1.0", "2026-01-01T00:00:00Z".into(), programs);
    for (text, what) in [
        (other.to_json(), "256 of 256 addresses that were reported are no call sites"),
        (good.replace("\"schema\":1", "\"schema\":9"), "it has schema 9, not 1"),
        (good[..good.len() / 2].to_string(), "survey.json"),
    ] {
        std::fs::write(path("survey.json"), text).unwrap();
        let output = run();
        assert_eq!(output.code, 129, "{}", output.stderr);
        let errors: Vec<_> = output.stderr.lines().filter(|l| l.starts_with("error")).collect();
        assert!(matches!(errors[..], [one] if one.contains(what)), "{}", output.stderr);
    }
    assert!(!Path::new(&path("coverage.html")).exists());
}
