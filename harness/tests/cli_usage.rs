//! Every wrong use of the command line ends with one clear line, a hint and the right exit code.
//!
//! Starts no guest.

mod cli;

use cli::{Output, pinfuzz, scratch};

/// Asserts a failure with this exit code and one line of error that says `what`.
#[track_caller]
fn fails(output: &Output, code: i32, what: &str) {
    let errors: Vec<&str> =
        output.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(output.code, code, "{}", output.stderr);
    assert!(matches!(errors[..], [one] if one.contains(what)), "{}", output.stderr);
    assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
}

#[test]
fn nothing_unknown_and_help() {
    assert_eq!(pinfuzz(&[]).code, 129);
    fails(&pinfuzz(&["campaing"]), 129, "campaing");
    fails(&pinfuzz(&["campaign", "--tiem", "2m"]), 129, "--tiem");
    let help = pinfuzz(&["--help"]);
    assert_eq!(help.code, 0);
    assert!(help.stdout.contains("Exit codes"), "{}", help.stdout);
    assert_eq!(pinfuzz(&["--version"]).code, 0);
}

#[test]
fn values_that_do_not_exist() {
    fails(&pinfuzz(&["campaign", "--image", "btrfs"]), 129, "there is no image `btrfs`");
    fails(&pinfuzz(&["campaign", "--time", "soon"]), 129, "`soon` is no duration");
    fails(&pinfuzz(&["campaign", "--seed", "x"]), 129, "`x` is no seed");
    fails(&pinfuzz(&["campaign", "--workers", "0"]), 129, "0");
    fails(&pinfuzz(&["campaign", "--kernel", "/no/bzImage"]), 129, "no kernel file /no/bzImage");
    fails(&pinfuzz(&["campaign", "--kernel", "debian:2.4"]), 129, "no such kernel: debian:2.4");
    fails(&pinfuzz(&["campaign", "--bug", "torn-copy"]), 129, "--bug is for the fake kernel");
    let output = pinfuzz(&["campaign", "--target", "fake", "--bug", "nope"]);
    fails(&output, 129, "no bug `nope`");
    assert!(output.stderr.contains("torn-copy"), "the hint lists the bugs: {}", output.stderr);
}

#[test]
fn options_of_a_campaign_that_contradict_each_other() {
    let dir = scratch();
    let run = dir.path().to_str().unwrap();
    fails(&pinfuzz(&["campaign", "--resume", run, "--seed", "1"]), 129, "--seed");
    fails(&pinfuzz(&["campaign", "--resume", run, "--target", "fake"]), 129, "--target");
    fails(&pinfuzz(&["campaign", "--resume", run]), 129, "report.json");
    fails(&pinfuzz(&["campaign", "--resume", "/no/such/run"]), 129, "cannot read /no/such/run");
    fails(&pinfuzz(&["campaign", "--unguided", "--corpus", run]), 129, "--corpus");
    fails(&pinfuzz(&["campaign", "--fuzz-target", "rings"]), 129, "no fuzz target `rings`");
    let output = pinfuzz(&["campaign", "--fuzz-target", "pagecache", "--image", "xfs-dax"]);
    fails(&output, 129, "no program of pagecache is at home on xfs-dax");
}

#[test]
fn the_help_of_a_campaign() {
    insta::assert_snapshot!(pinfuzz(&["campaign", "--help"]).stdout);
}

#[test]
fn kernels_that_cannot_be_built() {
    let dir = scratch();
    let fragment = dir.path().join("my.config");
    std::fs::write(&fragment, "CONFIG_X=y\nlockdep please\n").unwrap();
    let patch = dir.path().join("a.patch");
    std::fs::write(&patch, "--- a/../x\n+++ b/../x\n@@ -1 +1 @@\n-a\n+b\n").unwrap();
    let (fragment, patch) = (fragment.to_str().unwrap(), patch.to_str().unwrap());
    let cache = dir.path().join("cache");
    for (words, what) in [
        (&["debian:6.12", "--profile", "kmsan"][..], "there is no profile `kmsan`"),
        (&["debian:6.12+kcov"], "is no series of kernels"),
        (&["debian:6.12", "--revision", "HEAD"], "--revision is for a git tree"),
        (&["debian:6.12", "--fragment", fragment], "my.config:2: not a line of a config"),
        (&["debian:6.12", "--fragment", "/no/such"], "cannot read fragment /no/such"),
        (&["debian:6.12", "--patch", "/no/such"], "cannot read patch /no/such"),
        (&["debian:6.12", "--patch", patch], "`../x` is no path in a kernel tree"),
        (&["debian:6.12", "--name", "../up"], "`../up` is no name for a kernel"),
        (&["/no/such/tree"], "there is no directory /no/such/tree"),
        (&[dir.path().to_str().unwrap()], "is not the source of a kernel"),
        (&["debian:6.12", "--jobs", "0"], "0"),
    ] {
        let words = [&["kernel", "build"], words].concat();
        let output = cli::command(&words).env("XDG_CACHE_HOME", &cache).output().unwrap();
        fails(&cli::output(output), 129, what);
    }
    let list = cli::command(&["kernel", "list"]).env("XDG_CACHE_HOME", &cache).output().unwrap();
    assert!(cli::output(list).stdout.contains("no kernel was built yet"));
    let run = ["campaign", "--kernel", "debian:6.12+kcov+lockdep"];
    let output = cli::command(&run).env("XDG_CACHE_HOME", &cache).output().unwrap();
    let what = "run `pinfuzz kernel build debian:6.12 --profile kcov --profile lockdep`";
    fails(&cli::output(output), 129, what);
}

#[test]
fn files_that_are_not_there_or_not_programs() {
    let dir = scratch();
    fails(&pinfuzz(&["show", "/no/such.prog"]), 129, "cannot read /no/such.prog");

    let path = dir.path().join("bad.prog");
    std::fs::write(&path, "pinfuzz 1\nimage xfs-dax\nt0: f0 = opne(\"a\", RDWR)\n").unwrap();
    let path = path.to_str().unwrap();
    for command in ["show", "run", "repro"] {
        let output = pinfuzz(&[command, path]);
        fails(&output, 129, "bad.prog: line 3, column 10");
    }
    fails(&pinfuzz(&["check", path]), 129, "bad.prog: ");
    fails(&pinfuzz(&["show", "--history", path]), 129, "bad.prog: ");
}

#[test]
fn reports_that_have_no_meetings() {
    let old = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reports/schema-1.json");
    fails(&pinfuzz(&["show", "--meetings", old]), 129, "a report of schema 1");
    let dir = scratch();
    let path = dir.path().join("bad.json");
    let path = path.to_str().unwrap();
    for text in ["{\"schema\": 3}", "{}", "pinfuzz 1"] {
        std::fs::write(path, text).unwrap();
        fails(&pinfuzz(&["show", "--meetings", path]), 129, "no report of a campaign");
    }
    fails(&pinfuzz(&["show", "--meetings", "--history", path]), 129, "--history");
}

#[test]
fn reports_that_do_not_say_what_was_exercised() {
    let old = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reports/schema-2.json");
    fails(&pinfuzz(&["show", "--exercised", old]), 129, "a report of schema 2");
    // What it does have is shown.
    let meetings = pinfuzz(&["show", "--meetings", old]);
    assert!(meetings.code == 0 && meetings.stdout.contains("punch-hole"), "{}", meetings.stderr);
    let dir = scratch();
    let path = dir.path().join("bad.json");
    let path = path.to_str().unwrap();
    for text in ["{\"schema\": 3}", "{\"schema\": 3, \"exercised\": {\"btrfs\": {}}}"] {
        std::fs::write(path, text).unwrap();
        fails(&pinfuzz(&["show", "--exercised", path]), 129, "no report of a campaign");
    }
    fails(&pinfuzz(&["show", "--exercised", "--meetings", path]), 129, "--meetings");
}

#[test]
fn a_reports_folder_that_cannot_be_written_is_untestable() {
    let dir = scratch();
    let file = dir.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    let reports = file.join("reports");
    let output = pinfuzz(&["campaign", "--target", "fake", "--reports", reports.to_str().unwrap()]);
    fails(&output, 125, "cannot write ");
}

#[test]
fn generate_and_show_agree() {
    let one = pinfuzz(&["generate", "--seed", "42", "--first", "3"]);
    assert_eq!(one.code, 0);
    assert_eq!(one.stdout, pinfuzz(&["generate", "--seed", "0x2a", "--first", "3"]).stdout);
    let many = pinfuzz(&["generate", "--seed", "42", "--count", "4"]);
    assert!(many.stdout.contains(one.stdout.trim_end()), "{}\n{}", many.stdout, one.stdout);

    let dir = scratch();
    let path = dir.path().join("one.prog");
    std::fs::write(&path, &one.stdout).unwrap();
    assert_eq!(pinfuzz(&["show", path.to_str().unwrap()]).stdout, one.stdout);
    let homed = pinfuzz(&["generate", "--seed", "42", "--image", "ext4"]);
    assert!(homed.stdout.contains("image ext4\n"), "{}", homed.stdout);
}
