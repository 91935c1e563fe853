//! Real guests: both stock kernels boot with DAX where it belongs, programs run, crashes and hangs are survived, and exact mode
//! repeats itself bit for bit.
//!
//! Needs QEMU, and the network once for the kernels. What is missing is an error, never a reason to skip.

use harness::target::qemu::{Config, Mode, QemuTarget};
use harness::target::{Done, Target};
use history::{Down, Event, ReadPath};
use program::{Mount, Program};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Guests compete for few processors, and one of the tests measures time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The seed of every generated program here; a failure names the number that was added to it.
const SEED: u64 = 0x70696e;

fn target(config: &Config) -> QemuTarget {
    QemuTarget::new(config, &|line| eprintln!("{line}")).unwrap_or_else(|error| panic!("{error}"))
}

fn config(kernel: &str) -> Config {
    Config { kernel: kernel.into(), ..Config::default() }
}

fn generated(number: u64) -> Program {
    let home = Mount::ALL[number as usize % Mount::ALL.len()];
    Program::from_seed(SEED + number, home)
}

fn parse(lines: &str) -> Program {
    let program = Program::parse(&format!("pinfuzz 1\nimage xfs-dax\n{lines}"));
    program.unwrap_or_else(|error| panic!("{error}"))
}

/// Runs all programs in batches.
fn run(target: &mut QemuTarget, programs: Vec<Program>) -> Vec<Done> {
    let mut programs = programs.into_iter();
    let mut all = Vec::new();
    while !target.run_batch(&mut || programs.next(), &mut |done| all.push(done)).unwrap() {}
    all
}

fn ended(done: &Done) -> bool {
    done.history.events.iter().any(|event| matches!(event, Event::End { .. }))
}

fn down(done: &Done) -> Option<Down> {
    done.history.events.iter().find_map(|event| match event {
        Event::Down(down) => Some(*down),
        _ => None,
    })
}

fn boots_and_runs(kernel: &str, release: &str) {
    let mut target = target(&config(kernel));
    assert!(target.hello().release.starts_with(release), "{}", target.hello().release);
    assert_eq!(target.hello().dax, [true, true, false, false]);
    let programs: Vec<Program> = (0..80).map(generated).collect();
    let all = run(&mut target, programs.clone());
    assert_eq!(all.len(), programs.len(), "every program comes back");
    for done in &all {
        assert!(programs.contains(&done.program));
        assert!(ended(done), "run {} has no end:\n{}", done.history.run, done.program);
    }
    assert!(target.stats().calls > 500, "{:?}", target.stats());
    // Splats of a stock kernel cut a batch short, but not every one.
    let by = |way: ReadPath| {
        let is = |event: &&Event| matches!(event, Event::Final { by, .. } if *by == way);
        all.iter().flat_map(|done| &done.history.events).filter(is).count()
    };
    assert!(by(ReadPath::Media) > 0 && by(ReadPath::AfterRemount) > 0);
    assert!(target.stats().media_checks > 0);
}

#[test]
fn debian_6_12_boots_with_dax_and_runs_programs() {
    let _one = ONE_AT_A_TIME.lock();
    boots_and_runs("debian:6.12", "6.12.");
}

#[test]
fn debian_6_1_boots_with_dax_and_runs_programs() {
    let _one = ONE_AT_A_TIME.lock();
    boots_and_runs("debian:6.1", "6.1.");
}

#[test]
fn other_kinds_of_pmem_boot_with_dax_and_run_programs() {
    let _one = ONE_AT_A_TIME.lock();
    for image in ["xfs-dax-nvdimm", "xfs-dax-virtio"] {
        let mut target = target(&Config { image: image.into(), ..Config::default() });
        assert_eq!(target.hello().dax, [true, true, false, false], "{image}");
        let all = run(&mut target, (0..8).map(generated).collect());
        assert!(all.len() == 8 && all.iter().all(ended), "{image}");
    }
}

/// The media say what the program wrote, read by the host behind the kernel's back.
#[test]
fn the_media_hold_what_was_written_and_synced() {
    let _one = ONE_AT_A_TIME.lock();
    let program = parse(
        "t0: f0 = open(\"a\", RDWR|CREAT)\n\
         t0: pwrite(f0, 0, anon, 16K)\n\
         t0: fsync(f0)\n",
    );
    for image in ["xfs-dax", "xfs-dax-nvdimm"] {
        let config = Config { image: image.into(), mode: Mode::Exact, ..Config::default() };
        let done = target(&config).execute(&program).unwrap();
        let data = |way: ReadPath| {
            done.history.events.iter().find_map(|event| match event {
                Event::Final { by, data, .. } if *by == way => Some(data.clone()),
                _ => None,
            })
        };
        let media = data(ReadPath::Media).expect("the media were read");
        assert_eq!(media.len(), 16 << 10, "{image}");
        assert_eq!(Some(media), data(ReadPath::Read), "{image}");
    }
}

#[test]
fn exact_mode_repeats_itself_bit_for_bit() {
    let _one = ONE_AT_A_TIME.lock();
    let mut target = target(&Config { mode: Mode::Exact, ..Config::default() });
    // Four lanes that race on one file.
    let racing = parse(
        "t0: f0 = open(\"a\", RDWR|CREAT)\n\
         t0: fallocate(f0, 0, 0, 256K)\n\
         t0: m0 = mmap(f0, 0, 256K, RW, SHARED)\n\
         t1: pwrite(f0, 0, anon, 64K) &\n\
         t2: ftruncate(f0, 32K) &\n\
         t3: store(m0+0, 16K) &\n\
         t1: pread(f0, 0, anon, 64K) &\n\
         t2: ftruncate(f0, 128K) &\n\
         t3: load(m0+0, 16K) &\n\
         t0: fsync(f0)\n",
    );
    for program in [racing, generated(1), generated(2)] {
        let first = target.execute(&program).unwrap();
        for _ in 0..4 {
            let again = target.execute(&program).unwrap();
            assert!(again.history == first.history, "not the same history:\n{program}");
        }
    }
}

/// An NMI that nobody expects panics a kernel that is told to.
#[test]
fn a_panic_is_a_history_and_the_next_guest_is_fresh() {
    let _one = ONE_AT_A_TIME.lock();
    let config = Config { append: "unknown_nmi_panic".into(), ..Config::default() };
    let mut target = target(&config);
    let mut asked = 0;
    target.qmp("inject-nmi").unwrap();
    let mut all = Vec::new();
    let mut next = || {
        asked += 1;
        (asked <= 4).then(|| generated(asked))
    };
    while !target.run_batch(&mut next, &mut |done| all.push(done)).unwrap() {}
    assert_eq!(all.len(), 4, "the programs behind the panic ran in another guest");
    let downs: Vec<Option<Down>> = all.iter().map(down).collect();
    assert_eq!(downs, [Some(Down::Panic), None, None, None], "{}", all[0].console);
    let title = "Kernel panic: NMI: Not continuing";
    let named = |e: &Event| matches!(e, Event::Console(splat) if splat.title == title);
    assert!(all[0].history.events.iter().any(named), "{:?}", all[0].history.events);
    assert_eq!(target.stats().resets_down, 1);
}

/// A guest that stands still is a hang, and its kernel is asked for its tasks before it goes.
#[test]
fn a_guest_that_stands_still_is_a_hang() {
    let _one = ONE_AT_A_TIME.lock();
    let mut target = target(&Config::default());
    target.qmp("stop").unwrap();
    let all = run(&mut target, (0..3).map(generated).collect());
    let downs: Vec<Option<Down>> = all.iter().map(down).collect();
    assert_eq!(downs, [Some(Down::Hang), None, None]);
}

/// QEMU's own death is no finding: the program simply runs elsewhere.
#[test]
fn a_qemu_that_is_killed_costs_nothing_but_time() {
    let _one = ONE_AT_A_TIME.lock();
    let mut target = target(&Config::default());
    target.kill().unwrap();
    let all = run(&mut target, (0..3).map(generated).collect());
    assert_eq!(all.len(), 3);
    assert!(all.iter().all(|done| down(done).is_none() && ended(done)));
}

#[test]
fn a_reset_takes_a_fraction_of_a_second() {
    let _one = ONE_AT_A_TIME.lock();
    let mut target = target(&Config::default());
    let mut times: Vec<Duration> = (0..9)
        .map(|_| {
            let begin = Instant::now();
            target.reset().unwrap();
            begin.elapsed()
        })
        .collect();
    times.sort();
    eprintln!("resets: {times:?}");
    // 0.06 s on an idle machine; the bound is for one where a dozen builds run beside the test.
    assert!(times[4] < Duration::from_secs(1), "{times:?}");
}
