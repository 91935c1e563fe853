//! The cargo-fuzz targets as plain programs of a stable toolchain: libFuzzer links without instrumentation, and guest targets have none to
//! lose. What they do with programs, finds and a kernel's call sites is seen on the fake.
//!
//! Builds `fuzz/`, which takes a C++ compiler. Guests and instrumented builds are not here.

use harness::machine::cache::Cache;
use harness::machine::packages;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// libFuzzer's exit code after a find.
const CRASHED: i32 = 77;
/// Ours if no guest could be had.
const UNTESTABLE: i32 = 125;

/// A fuzz target's program; built once.
fn built(name: &str) -> PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let cache = Cache::open().expect("a cache");
        packages::ensure(&cache, &packages::FUZZ, &|line| eprintln!("{line}"))
            .expect("a C++ compiler");
        // In the workspace's own target directory: `cargo clean` takes it along.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz");
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/Cargo.toml");
        let output = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "--bin", "leases", "--bin", "canary"])
            .arg("--manifest-path")
            .arg(&manifest)
            .arg("--target-dir")
            .arg(&target)
            .output()
            .expect("cargo starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        target.join("debug")
    })
    .join(name)
}

/// Runs a fuzz target on the fake, with finds and artifacts in `dir`.
fn run(name: &str, dir: &Path, env: &[(&str, &str)], words: &[&str]) -> (i32, String) {
    let output: Output = Command::new(built(name))
        .args(words)
        .arg(format!("-artifact_prefix={}/artifact-", dir.display()))
        .arg("-seed=1")
        .env("PINFUZZ_TARGET", "fake")
        .env("PINFUZZ_REPORTS", dir.join("reports"))
        .envs(env.iter().copied())
        .current_dir(dir)
        .output()
        .expect("the fuzz target starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap_or(-1), text)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).map_or(Vec::new(), |all| all.flatten().map(|e| e.path()).collect())
}

/// What was saved for libFuzzer to repeat.
fn artifacts(dir: &Path) -> Vec<PathBuf> {
    let named = |path: &PathBuf| path.to_string_lossy().contains("artifact-");
    files(dir).into_iter().filter(named).collect()
}

fn read(path: &Path) -> program::Program {
    let text = fs::read_to_string(path).unwrap();
    program::Program::parse(&text).unwrap_or_else(|e| panic!("{}: {e}\n{text}", path.display()))
}

/// The number behind the last `ft:` of libFuzzer's lines.
fn features(text: &str) -> u32 {
    let last = text.lines().rfind(|line| line.contains(" ft: ")).expect("libFuzzer's lines");
    let words: Vec<&str> = last.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "ft:").unwrap();
    words[at + 1].parse().unwrap()
}

#[test]
fn the_canary_sings() {
    let dir = tempfile::tempdir().unwrap();
    let (code, text) = run("canary", dir.path(), &[], &["-runs=20000"]);
    assert_eq!(code, CRASHED, "{text}");
    assert!(text.contains("the canary sings"), "{text}");
    assert_eq!(artifacts(dir.path()).len(), 1);
}

#[test]
fn a_search_begins_with_the_seeds_and_its_corpus_is_programs() {
    let dir = tempfile::tempdir().unwrap();
    let corpus = dir.path().join("corpus");
    fs::create_dir(&corpus).unwrap();
    let (code, text) = run("leases", dir.path(), &[], &["corpus", "-runs=400"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("seed corpus: files: "), "{text}");
    let grown = files(&corpus);
    assert!(grown.len() >= 5, "{text}");
    let target = harness::fuzz_target::FuzzTarget::named("leases").unwrap();
    for file in &grown {
        let program = read(file);
        assert!(target.admits(&program) || program.lines.is_empty(), "{program}");
    }

    // Merged, fewer files show as much.
    fs::create_dir(dir.path().join("merged")).unwrap();
    let (code, merging) = run("leases", dir.path(), &[], &["-merge=1", "merged", "corpus"]);
    assert_eq!(code, 0, "{merging}");
    let kept = files(&dir.path().join("merged"));
    assert!(!kept.is_empty() && kept.len() <= grown.len(), "{merging}");
    // Without the seeds of the target, which would show the same in both cases.
    let seed = format!("-seed_inputs={}", kept[0].display());
    let shown = |corpus| features(&run("leases", dir.path(), &[], &[corpus, "-runs=0", &seed]).1);
    let (merged, whole) = (shown("merged"), shown("corpus"));
    // The order of inputs differs, and what shows for the first time must show again.
    assert!(merged * 10 >= whole * 9 && merged > 0, "{merged} of {whole}");
}

#[test]
fn a_find_is_saved_for_people_and_for_libfuzzer_and_gets_smaller() {
    let dir = tempfile::tempdir().unwrap();
    let bug = [("PINFUZZ_BUG", "kill-leaves-lease")];
    let (code, text) = run("leases", dir.path(), &bug, &["-runs=20000"]);
    assert_eq!(code, CRASHED, "{text}");
    let [artifact] = &artifacts(dir.path())[..] else { panic!("{text}") };
    let found = read(artifact);
    let [report] = &files(&dir.path().join("reports"))[..] else { panic!("{text}") };
    let [find] = &files(&report.join("anomalies"))[..] else { panic!("{text}") };
    assert!(text.contains(&format!("saved in {}", find.display())), "{text}");
    assert_eq!(read(&find.join("program.prog")), found);

    // Some lines that have nothing to do with it.
    let mut padded = found.clone();
    let more = program::Program::parse(
        "pinfuzz 1\nimage ext4\nt3: f3 = open(\"d\", RDWR|CREAT)\nt3: ftruncate(f3, 4K)\nt3: f3 = open(\"d\", RDWR|CREAT)\n",
    );
    padded.lines.extend(more.unwrap().lines);
    let path = dir.path().join("padded.prog");
    fs::write(&path, padded.to_string()).unwrap();
    let words =
        ["-minimize_crash=1", "-runs=300", "-exact_artifact_path=small.prog", "padded.prog"];
    let (_, text) = run("leases", dir.path(), &bug, &words);
    let small = read(&dir.path().join("small.prog"));
    assert!(small.lines.len() < padded.lines.len(), "{text}\n{small}");
    let (code, text) = run("leases", dir.path(), &bug, &["small.prog"]);
    assert_eq!(code, CRASHED, "{text}");
    let (code, text) = run("leases", dir.path(), &[], &["small.prog"]);
    assert_eq!(code, 0, "the bug is what crashes: {text}");
}

#[test]
fn call_sites_of_a_vmlinux_are_counters_and_lines() {
    let dir = tempfile::tempdir().unwrap();
    let source = "void __sanitizer_cov_trace_pc(void) {}\n";
    fs::write(dir.path().join("kcov.c"), source).unwrap();
    let covered = "int reach(int n) { return n ? 2 * n : 7; }\n\nint main(int n, char **v) { return reach(n); }\n";
    fs::write(dir.path().join("dax.c"), covered).unwrap();
    let cc = |words: &[&str]| {
        let status = Command::new("cc").args(words).current_dir(dir.path()).status();
        assert!(status.expect("cc, which Rust links with").success(), "cc {words:?}");
    };
    cc(&["-g", "-c", "kcov.c"]);
    cc(&["-g", "-fsanitize-coverage=trace-pc", "-c", "dax.c"]);
    cc(&["-no-pie", "-Wl,--build-id=none", "kcov.o", "dax.o", "-o", "vmlinux"]);
    let vmlinux = dir.path().join("vmlinux");
    let sites = harness::coverage::sites::Sites::read(&vmlinux).unwrap().all().len();
    let env = [("PINFUZZ_VMLINUX", vmlinux.to_str().unwrap())];
    let (code, text) = run("leases", dir.path(), &env, &["-runs=1", "-print_coverage=1"]);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains(&format!("Loaded 1 modules   ({sites} inline 8-bit counters)")),
        "{text}"
    );
    let line = |function, line| {
        let end = format!(" {function} dax.c:{line}");
        text.lines()
            .any(|l| l.starts_with("UNCOVERED_FUNC: hits: 0 edges: 0/") && l.ends_with(&end))
    };
    assert!(line("reach", 1) && line("main", 3), "{text}");
}

#[test]
fn trouble_is_no_find() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = dir.path().join("bzImage");
    fs::write(&kernel, "no kernel").unwrap();
    let env = [("PINFUZZ_TARGET", "qemu"), ("PINFUZZ_KERNEL", kernel.to_str().unwrap())];
    let (code, text) = run("leases", dir.path(), &env, &["-runs=1"]);
    assert_eq!(code, UNTESTABLE, "{text}");
    assert!(text.contains("is not a kernel image") && text.contains("no find"), "{text}");
    assert!(artifacts(dir.path()).is_empty() && !dir.path().join("reports").exists());
}
