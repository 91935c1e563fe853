//! Campaigns and single runs on the fake kernel, from the command line to the files they leave: a planted bug is found and
//! reproduced, an interrupted or crowded-out campaign keeps what it has.
//!
//! Does not ask whether the checker is sound: that is the closed loop's matter. Says nothing about real kernels.

mod cli;

use cli::{command, output, pinfuzz, scratch};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The seed of the campaigns here; printed by every failing assertion through the command's own output.
const SEED: &str = "0x5eed";

/// The only run's folder under `reports`.
fn run_dir(reports: &Path) -> PathBuf {
    let mut dirs: Vec<PathBuf> =
        std::fs::read_dir(reports).unwrap().map(|entry| entry.unwrap().path()).collect();
    // The campaign stands in the same folder, and keeps its corpus there.
    dirs.retain(|dir| !dir.ends_with("corpora"));
    assert_eq!(dirs.len(), 1, "{dirs:?}");
    dirs.remove(0)
}

fn report(run: &Path) -> Value {
    let text = std::fs::read_to_string(run.join("report.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The words for an unguided campaign on the fake with its run under `reports`.
fn unguided<'a>(reports: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let words = ["campaign", "--unguided", "--target", "fake", "--reports", reports];
    words.iter().chain(more).copied().collect()
}

#[test]
fn a_campaign_accounts_for_every_program() {
    let dir = scratch();
    let reports = dir.path().to_str().unwrap();
    let words = unguided(reports, &["--programs", "200", "--seed", SEED]);
    let output = pinfuzz(&words);
    let report = report(&run_dir(dir.path()));
    assert_eq!(report["schema"], 3);
    assert_eq!(report["state"], "all programs were run");
    let total = |name: &str| report["totals"][name].as_u64().unwrap();
    assert_eq!((total("drawn"), total("judged"), total("lost")), (200, 200, 0));
    assert_eq!(total("explained") + total("inconclusive") + total("anomalous"), 200);
    let code = i32::from(total("anomalous") > 0);
    assert_eq!(output.code, code, "{}{}", output.stdout, output.stderr);
    let text = std::fs::read_to_string(run_dir(dir.path()).join("report.txt")).unwrap();
    assert_eq!(text, output.stdout, "what is printed last is what is saved");
}

#[test]
fn a_campaign_counts_what_met_what() {
    let dir = scratch();
    let reports = dir.path().to_str().unwrap();
    let words = unguided(reports, &["--programs", "400", "--seed", SEED]);
    let output = pinfuzz(&words);
    let run = run_dir(dir.path());
    let report = report(&run);
    for (table, title) in [("held", "held pages and changes"), ("leases", "leases and calls")] {
        // By mount, what was there, and what met it.
        let mut sums = std::collections::BTreeMap::new();
        let mounts = report["meetings"][table].as_object().unwrap();
        let rows = mounts.values().flat_map(|rows| rows.as_object().unwrap().values());
        for outcomes in rows.flat_map(|columns| columns.as_object().unwrap().values()) {
            for (name, count) in outcomes.as_object().unwrap() {
                *sums.entry(name.as_str()).or_insert(0) += count.as_u64().unwrap();
            }
        }
        assert_eq!(mounts.len(), 4, "{mounts:?}");
        for outcome in ["completed", "refused", "blocked"] {
            assert!(sums.get(outcome).is_some_and(|sum| *sum > 0), "{table}: {sums:?}");
        }
        assert!(output.stdout.contains(title), "{}", output.stdout);
    }
    let whole = std::fs::read_to_string(run.join("meetings.txt")).unwrap();
    assert!(whole.contains("| punch-hole "), "{whole}");
    for file in [run.clone(), run.join("report.json")] {
        let shown = pinfuzz(&["show", "--meetings", file.to_str().unwrap()]);
        assert_eq!((shown.code, shown.stdout), (0, whole.clone()), "{}", shown.stderr);
    }
}

#[test]
fn a_campaign_says_what_it_exercised_and_what_not() {
    let dir = scratch();
    let reports = dir.path().to_str().unwrap();
    let words = unguided(reports, &["--programs", "60", "--seed", SEED]);
    let output = pinfuzz(&words);
    let run = run_dir(dir.path());
    let forms = report(&run)["exercised"]["xfs-dax"].as_object().unwrap().clone();
    assert!(forms["open RDWR"]["completed"].as_u64().unwrap() > 10, "{forms:?}");
    let line = output.stdout.lines().find(|line| line.starts_with("exercised ")).unwrap();
    assert!(line.contains(" call forms on ext4-dax, ") && line.contains("on xfs-dax"), "{line}");
    let whole = std::fs::read_to_string(run.join("exercised.txt")).unwrap();
    assert!(whole.contains("## Never exercised"), "{whole}");
    for file in [run.clone(), run.join("report.json")] {
        let shown = pinfuzz(&["show", "--exercised", file.to_str().unwrap()]);
        assert_eq!((shown.code, shown.stdout), (0, whole.clone()), "{}", shown.stderr);
    }
}

#[test]
fn programs_of_a_fuzz_target_are_printed() {
    let print = |words: &[&str]| pinfuzz(&[&["generate", "--count", "8"], words].concat());
    let output = print(&["--fuzz-target", "pagecache"]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(output.stdout.contains("image ext4\n") && !output.stdout.contains("-dax"));
    assert_eq!(print(&["--fuzz-target", "pagecache", "--image", "xfs-dax"]).code, 129);
    let usual = print(&[]).stdout;
    assert_eq!(print(&["--fuzz-target", "mixed"]).stdout, usual);
}

#[test]
fn a_sound_program_is_explained() {
    let dir = scratch();
    let program = dir.path().join("sound.prog");
    let record = dir.path().join("record.jsonl");
    let text = "pinfuzz 1\nimage xfs-dax\nt0: f0 = open(\"a\", RDWR|CREAT)\n\
                t0: pwrite(f0, 0, anon, 64K)\nt0: pread(f0, 4K, anon, 8K)\n";
    std::fs::write(&program, text).unwrap();
    let (program, record) = (program.to_str().unwrap(), record.to_str().unwrap());
    let output = pinfuzz(&["run", "--target", "fake", "--save", record, program]);
    assert_eq!(output.code, 0, "{}{}", output.stdout, output.stderr);
    assert!(output.stdout.starts_with("explained: "), "{}", output.stdout);
    assert!(output.stdout.contains("signed by #1 pwrite for offset 4K"), "{}", output.stdout);
    assert_eq!(pinfuzz(&["check", record]).stdout, output.stdout);
}

#[test]
fn bench_compares_what_the_target_can() {
    let words = ["bench", "--target", "fake", "--pairs", "2", "--programs", "20"];
    let output = pinfuzz(&words);
    assert_eq!(output.code, 0, "{}", output.stderr);
    for word in ["as in a campaign", "without coverage", "plain replay", "events/s", "reset"] {
        assert!(output.stdout.contains(word), "{}", output.stdout);
    }
}

#[test]
fn a_planted_bug_is_found_saved_and_reproduced() {
    let dir = scratch();
    let reports = dir.path().to_str().unwrap();
    let found = pinfuzz(&unguided(
        reports,
        &["--bug", "truncate-keeps-tail", "--programs", "2000", "--seed", SEED],
    ));
    assert_eq!(found.code, 1, "{}{}", found.stdout, found.stderr);
    let run = run_dir(dir.path());
    let report = report(&run);
    let first = &report["anomalies"][0];
    assert!(first["count"].as_u64().unwrap() >= 1);
    let folders = first["folders"].as_array().unwrap();
    assert!(!folders.is_empty() && folders.len() <= 3, "{folders:?}");
    // A racing one shows under some schedules only, and a campaign's is not drawn again.
    let sequential = |find: &std::path::PathBuf| {
        let program = std::fs::read_to_string(find.join("program.prog")).unwrap();
        !program.lines().any(|line| line.ends_with('&'))
    };
    let all = report["anomalies"].as_array().unwrap().iter();
    let mut finds = all
        .flat_map(|a| a["folders"].as_array().unwrap())
        .map(|folder| run.join(folder.as_str().unwrap()));
    let find = finds.find(sequential).expect("a find in a sequential program");
    let files =
        ["program.prog", "history.jsonl", "verdict.txt", "console.txt", "target.json", "repeat.sh"];
    for name in files {
        assert!(find.join(name).exists(), "{name}");
    }
    let verdict = std::fs::read_to_string(find.join("verdict.txt")).unwrap();
    assert!(verdict.contains("=> #") || verdict.contains("-> #"), "{verdict}");
    assert!(verdict.contains("pinfuzz repro"), "{verdict}");
    let leftovers = std::fs::read_dir(run.join("anomalies")).unwrap();
    for entry in leftovers {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(!name.starts_with('.'), "a temporary folder was left: {name}");
    }

    let find = find.to_str().unwrap();
    let again = pinfuzz(&["repro", find, "--runs", "3", "--exact"]);
    assert_eq!(again.code, 1, "{}{}", again.stdout, again.stderr);
    assert!(again.stdout.contains("the same anomaly in 3 of 3 runs"), "{}", again.stdout);
    assert!(again.stdout.contains("identical histories: 3 of 3"), "{}", again.stdout);
    assert_eq!(pinfuzz(&["check", "--quiet", find]).code, 1);
    assert!(pinfuzz(&["show", "--history", find]).stdout.contains("the program is over"));

    let script = Command::new("sh").arg(format!("{find}/repeat.sh")).output().unwrap();
    let script = cli::output(script);
    assert_eq!(script.code, 1, "{}{}", script.stdout, script.stderr);
    assert!(script.stdout.contains("6 of 6 runs"), "{}", script.stdout);
}

#[test]
fn the_same_seed_finds_the_same() {
    let anomalies = || {
        let dir = scratch();
        let reports = dir.path().to_str().unwrap();
        let words = unguided(reports, &["--bug", "torn-copy", "--programs", "300", "--seed", SEED]);
        let _ = pinfuzz(&words);
        report(&run_dir(dir.path()))["anomalies"].clone()
    };
    assert_eq!(anomalies(), anomalies());
}

/// Starts a long campaign, waits until it has judged something, and sends it a signal.
fn signalled(signal: &str) -> (cli::Output, Duration, tempfile::TempDir) {
    let dir = scratch();
    let reports = dir.path().to_str().unwrap();
    let child = command(&unguided(reports, &["--time", "1h"])).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let sent = Instant::now();
    let id = child.id().to_string();
    assert!(
        Command::new("sh")
            .args(["-c", &format!("kill -{signal} {id}")])
            .status()
            .unwrap()
            .success()
    );
    let ended = output(child.wait_with_output().unwrap());
    (ended, sent.elapsed(), dir)
}

#[test]
fn ctrl_c_ends_within_seconds_and_keeps_everything() {
    for signal in ["INT", "TERM"] {
        let (ended, took, dir) = signalled(signal);
        assert!(matches!(ended.code, 0 | 1), "{}{}", ended.stdout, ended.stderr);
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert!(ended.stdout.contains("ended: interrupted"), "{}", ended.stdout);
        let report = report(&run_dir(dir.path()));
        assert_eq!(report["state"], "interrupted");
        assert!(report["totals"]["judged"].as_u64().unwrap() > 0);
    }
}

/// A disk that is full is played by a limit on the size of files: writing beyond it fails in the same place.
#[test]
fn a_full_disk_is_one_clear_line_and_keeps_what_there_is() {
    let dir = scratch();
    let words = [
        "campaign --target fake --unguided --bug truncate-keeps-tail --programs 2000 --seed",
        SEED,
        "--reports",
        dir.path().to_str().unwrap(),
    ];
    // 2 blocks of 512 bytes hold the first report but no find. SIGXFSZ is ignored, so that the write fails instead.
    let script = format!(
        "trap '' XFSZ; ulimit -f 4; exec {} {}",
        env!("CARGO_BIN_EXE_pinfuzz"),
        words.join(" ")
    );
    let full = output(Command::new("sh").args(["-c", &script]).output().unwrap());
    assert_eq!(full.code, 1, "the anomaly that was seen counts: {}{}", full.stdout, full.stderr);
    assert!(full.stdout.contains("ended: cannot write "), "{}", full.stdout);
    assert!(!full.stderr.contains("panicked"), "{}", full.stderr);
    let run = run_dir(dir.path());
    assert!(run.join("report.json").exists());
    let saved = std::fs::read_dir(run.join("anomalies")).unwrap().count();
    assert_eq!(saved, 0, "no half of a find is left");
    // The last resort: whoever has the output has the program.
    let (_, told) = full.stderr.split_once("its program:\n").expect("the program is told");
    let lines = told.lines().take_while(|line| line.starts_with("pinfuzz") || line.contains(' '));
    let text: String = lines
        .take_while(|line| !line.starts_with("ending") && !line.starts_with("not saved"))
        .flat_map(|line| [line, "\n"])
        .collect();
    assert!(program::Program::parse(&text).is_ok(), "{text}");
}

/// The words for a guided campaign on the fake with everything under `dir`.
fn guided<'a>(dir: &'a str, corpus: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let words = ["campaign", "--target", "fake", "--reports", dir, "--corpus", corpus];
    words.iter().chain(more).copied().collect()
}

#[test]
fn a_campaign_that_was_killed_goes_on_and_keeps_what_it_had() {
    let dir = scratch();
    let reports = dir.path().join("reports");
    let corpus = dir.path().join("corpus");
    let (reports, corpus_text) = (reports.to_str().unwrap(), corpus.to_str().unwrap());
    let more = ["--bug", "truncate-keeps-tail", "--time", "1h", "--seed", SEED];
    let mut child = command(&guided(reports, corpus_text, &more)).spawn().unwrap();
    let begun = Instant::now();
    // Until something was found; the report that counts it is up to five seconds younger.
    let run = loop {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing was found");
        std::thread::sleep(Duration::from_millis(50));
        let Ok(mut runs) = std::fs::read_dir(reports) else { continue };
        let Some(Ok(run)) = runs.next() else { continue };
        let finds = std::fs::read_dir(run.path().join("anomalies"));
        let whole = |entry: std::io::Result<std::fs::DirEntry>| {
            !entry.unwrap().file_name().to_str().unwrap().starts_with('.')
        };
        if run.path().join("state.json").exists() && finds.is_ok_and(|mut f| f.any(whole)) {
            break run.path();
        }
    };
    let run_text = run.to_str().unwrap();
    let second = pinfuzz(&["campaign", "--resume", run_text]);
    assert_eq!(second.code, 129, "{}", second.stderr);
    assert!(second.stderr.contains("is in use by another pinfuzz"), "{}", second.stderr);
    child.kill().unwrap();
    child.wait().unwrap();

    let next = |run: &Path| {
        let text = std::fs::read_to_string(run.join("state.json")).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["next"].as_u64().unwrap()
    };
    let finds = |run: &Path| {
        let entries = std::fs::read_dir(run.join("anomalies")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.starts_with('.')).collect::<std::collections::BTreeSet<_>>()
    };
    let (before, reserved, kept) = (report(&run), next(&run), finds(&run));
    let resumed = pinfuzz(&["campaign", "--resume", run_text, "--programs", "300"]);
    assert_eq!(resumed.code, 1, "{}{}", resumed.stdout, resumed.stderr);
    let after = report(&run);
    let total = |report: &Value, name: &str| report["totals"][name].as_u64().unwrap();
    assert_eq!(after["state"], "all programs were run");
    assert_eq!((&after["seed"], &after["started"]), (&before["seed"], &before["started"]));
    assert!(total(&after, "judged") >= total(&before, "judged") + 300);
    assert!(after["seconds"].as_f64() > before["seconds"].as_f64());
    assert_eq!(next(&run), reserved + 300, "no number is drawn twice");
    assert!(finds(&run).is_superset(&kept));
    let listed: std::collections::BTreeSet<String> = after["anomalies"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|a| a["folders"].as_array().unwrap())
        .map(|folder| folder.as_str().unwrap().trim_start_matches("anomalies/").to_string())
        .collect();
    assert_eq!(listed, finds(&run), "every find is in the report");

    let lines = std::fs::read_to_string(run.join("progress.jsonl")).unwrap();
    let lines: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let grows =
        |name: &str| lines.windows(2).all(|two| two[0][name].as_f64() <= two[1][name].as_f64());
    assert!(grows("seconds") && grows("programs") && grows("behaviour"), "{lines:?}");
    assert_eq!(lines.last().unwrap()["behaviour"], after["search"]["behaviour"]);
    let reached = std::fs::read_to_string(run.join("reached.txt")).unwrap();
    let distinct: std::collections::BTreeSet<&str> = reached.lines().collect();
    assert_eq!(distinct.len(), reached.lines().count());
    assert_eq!(distinct.len() as u64, after["search"]["behaviour"].as_u64().unwrap());

    let over = pinfuzz(&["campaign", "--resume", reports]);
    assert_eq!(over.code, 129, "{}", over.stderr);
    assert!(over.stderr.contains("--resume"), "{}", over.stderr);
}

#[test]
fn a_corpus_is_used_again_by_the_next_campaign() {
    let dir = scratch();
    let reports = dir.path().join("reports");
    let corpus = dir.path().join("corpus");
    let (reports, corpus_text) = (reports.to_str().unwrap(), corpus.to_str().unwrap());
    let more = ["--programs", "300", "--seed", SEED];
    let first = pinfuzz(&guided(reports, corpus_text, &more));
    assert!(first.stdout.contains(", corpus "), "{}", first.stdout);
    let files = || std::fs::read_dir(&corpus).unwrap().count();
    let kept = files();
    assert!(kept > 5, "{kept} programs");
    std::fs::write(corpus.join("note to self"), "no program").unwrap();
    let more = ["--programs", "300", "--workers", "2", "--fuzz-target", "xfs_dax"];
    let second = pinfuzz(&guided(reports, corpus_text, &more));
    let complaint = "not programs, and left alone";
    assert!(second.stderr.contains(complaint), "{}", second.stderr);
    assert!(second.stderr.contains("note to self"), "{}", second.stderr);
    assert!(files() > kept, "the note is still there");
    let report = {
        let mut runs: Vec<_> =
            std::fs::read_dir(reports).unwrap().map(|run| run.unwrap().path()).collect();
        runs.sort();
        runs.into_iter().map(|run| report(&run)).find(|r| r["search"]["fuzz_target"] == "xfs_dax")
    };
    let report = report.expect("the second run's report");
    assert_eq!(report["images"], serde_json::json!(["xfs-dax"]));
    assert_eq!(report["totals"]["judged"], 300);
}

#[test]
fn a_corpus_that_cannot_be_written_ends_the_campaign_and_loses_no_program() {
    let dir = scratch();
    let reports = dir.path().join("reports");
    // Programs may be read there, but nothing can be made there, not even by root.
    let more = ["--programs", "300", "--seed", SEED];
    let full = pinfuzz(&guided(reports.to_str().unwrap(), "/proc/self/fdinfo", &more));
    assert!(full.stdout.contains("ended: cannot write /proc/"), "{}{}", full.stdout, full.stderr);
    assert!(full.stderr.contains("not saved: a program of the corpus; its program:\npinfuzz 1\n"));
    assert_eq!(full.code, 125, "{}", full.stderr);
}
