//! Saved histories whose folder is the verdict.
//!
//! `ok/RELEASE` holds what real kernels of that release did, most of it once taken for wrong, and if the guest went down in it, then for a
//! known reason; `bad` what the fake did with a bug planted (the
//! file's name), judged by the strictest policy.

use checker::{Policy, Reason, Verdict, check};
use std::path::{Path, PathBuf};

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/histories").join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be listed").path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files
}

fn verdict(file: &Path, release: &str) -> Verdict {
    let text = std::fs::read_to_string(file).expect("a saved history is text");
    let record =
        history::record::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    check(&record.program, &record.history, &Policy::for_release(release))
}

#[test]
fn what_stock_kernels_did_is_explained() {
    for release in ["6.12", "6.1"] {
        for file in files(&format!("ok/{release}")) {
            let text = std::fs::read_to_string(&file).expect("a saved history is text");
            let expected = match text.contains("{\"Down\":") {
                true => Verdict::Inconclusive(Reason::Truncated),
                false => Verdict::Explained,
            };
            let verdict = verdict(&file, &format!("{release}.0"));
            assert_eq!(verdict, expected, "{}", file.display());
        }
    }
}

#[test]
fn planted_bugs_are_seen() {
    for file in files("bad") {
        let verdict = verdict(&file, "fake");
        assert!(matches!(verdict, Verdict::Anomalous(_)), "{}: {verdict:?}", file.display());
    }
}

#[test]
fn no_prefix_of_a_history_makes_the_checker_stumble() {
    // A guest may die at any event: what is left must be judged without a panic.
    for file in files("bad").iter().chain(&files("ok/6.12")) {
        let text = std::fs::read_to_string(file).expect("a saved history is text");
        let record = history::record::parse(&text).expect("it was read before");
        for len in 0..record.history.events.len() {
            let mut cut = record.history.clone();
            cut.events.truncate(len);
            let _ = check(&record.program, &cut, &Policy::for_release("6.12.0"));
        }
    }
}

#[test]
fn a_release_is_of_its_series() {
    let name = |release| Policy::for_release(release).name;
    assert_eq!([name("6.1"), name("6.1.192"), name("6.1-rc3")], ["mainline-6.1"; 3]);
    assert_eq!([name("6.12"), name("6.12.117+deb12-amd64")], ["mainline-6.12"; 2]);
    assert_eq!([name("6.13"), name("6.120"), name("6.10.1")], ["mainline"; 3]);
}
