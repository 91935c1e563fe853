//! One input of a fuzz target: run it, judge it, count what it reached.
//!
//! A verdict that is anomalous is saved as a find and told to libFuzzer by a panic; so is a kernel that goes down, whose history is judged like
//! any other. Trouble of machines is no find: the process leaves by `_exit`, which libFuzzer does not save. The guest starts with the first
//! input, since libFuzzer's parents (of merges, forks, minimisation) run none.

use crate::options::{self, Options};
use crate::trust::Trust;
use crate::{counters, inputs};
use checker::{Policy, Verdict};
use harness::coverage::sites::Sites;
use harness::coverage::{Feature, features};
use harness::exit::Error;
use harness::fuzz_target::FuzzTarget;
use harness::machine::cache::Cache;
use harness::machine::kernel;
use harness::report::{Find, Origin, Store, headline};
use harness::target::{Done, Target, TargetInfo};
use libfuzzer_sys::Corpus;
use program::Program;
use std::env;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

/// Targets that are tried for one input before the trouble is told.
const TRIES: u32 = 3;

/// What was set up before libFuzzer began.
struct Setup {
    target: &'static FuzzTarget,
    options: Options,
    sites: Option<&'static Sites>,
}

static SETUP: OnceLock<Setup> = OnceLock::new();
/// What lives from the first input on.
static SESSION: Mutex<Option<Session>> = Mutex::new(None);

struct Session {
    target: Box<dyn Target>,
    info: TargetInfo,
    policy: Policy,
    trust: Trust,
    /// Whether what KCOV reports was compared with the call sites.
    compared: bool,
}

/// Before libFuzzer begins: its options, ours, and the kernel's call sites.
pub fn init(name: &str) {
    // `cargo fuzz` asks how an input looks, and nothing more.
    if env::var_os("RUST_LIBFUZZER_DEBUG_PATH").is_some() || env::args().any(|arg| arg == "-help=1")
    {
        return;
    }
    let setup = set_up(name).unwrap_or_else(|error| leave(&error));
    if let Some(sites) = setup.sites {
        counters::register(sites);
    }
    if SETUP.set(setup).is_ok() {
        counters::at_exit(end);
    }
}

fn set_up(name: &str) -> Result<Setup, Error> {
    let target = FuzzTarget::named(name)
        .ok_or_else(|| Error::Internal(format!("no fuzz target is called {name}")))?;
    options::complete(target)?;
    let options = Options::from_env()?;
    let vmlinux = vmlinux(&options)?;
    let sites = vmlinux.as_deref().map(Sites::open).transpose()?;
    let reach = match (&vmlinux, &sites) {
        (Some(path), Some(sites)) => {
            format!("{} call sites of {}", sites.all().len(), path.display())
        }
        _ => "behaviour only: no vmlinux".into(),
    };
    say(&format!("{name}: {}; guided by {reach}", options.provenance.kernel));
    Ok(Setup { target, options, sites: sites.map(|sites| &*Box::leak(Box::new(sites))) })
}

/// The `vmlinux` of the kernel, if there is one.
fn vmlinux(options: &Options) -> Result<Option<PathBuf>, Error> {
    if options.is_fake() || options.vmlinux.is_some() {
        return Ok(options.vmlinux.clone());
    }
    Ok(kernel::find(&options.provenance.kernel, &Cache::open()?, &say)?.vmlinux)
}

/// The fuzz target that runs.
pub fn target() -> &'static FuzzTarget {
    SETUP.get().expect("libFuzzer initializes first").target
}

/// Runs one input.
pub fn run(bytes: &[u8]) -> Corpus {
    let setup = SETUP.get().expect("libFuzzer initializes first");
    let Some(program) = inputs::read(setup.target, bytes) else {
        counters::forget_rust();
        return Corpus::Reject;
    };
    let mut session = SESSION.lock().unwrap_or_else(PoisonError::into_inner);
    let first = observe(setup, &mut session, &program);
    let mut trust = std::mem::take(&mut session.as_mut().expect("an input was run").trust);
    let counted = trust.settle(first, || observe(setup, &mut session, &program));
    session.as_mut().expect("an input was run").trust = trust;
    for feature in counted {
        let site = feature.as_site().zip(setup.sites).and_then(|(pc, sites)| sites.index_of(pc));
        match site {
            Some(index) => counters::count_site(index),
            None => counters::count_extra(feature.number()),
        }
    }
    // The last thing before libFuzzer looks.
    counters::forget_rust();
    Corpus::Keep
}

/// Runs a program until it is judged, and returns what it showed. Does not return from a find.
fn observe(setup: &Setup, session: &mut Option<Session>, program: &Program) -> Vec<Feature> {
    let done = execute(setup, session, program);
    let live = session.as_mut().expect("it ran in one");
    if let Verdict::Anomalous(anomalies) =
        checker::check(&done.program, &done.history, &live.policy)
    {
        let headline = headline(&Verdict::Anomalous(anomalies.clone()));
        let find = Find {
            program: done.program,
            history: done.history,
            anomalies,
            console: done.console,
            info: live.info.clone(),
            provenance: setup.options.provenance.clone(),
            origin: Origin::File(format!("the fuzz target {}", setup.target.name)),
            policy: live.policy.name.to_string(),
        };
        let saved = Store::create(&setup.options.reports, 0, SystemTime::now())
            .and_then(|store| store.save(&find))
            .unwrap_or_else(|error| leave(&error.into()));
        // The guest ends here: nothing is unwound.
        *session = None;
        panic!("{headline}\nsaved in {}", saved.display());
    }
    compare(setup, live, &done);
    features(&done)
}

/// Runs a program; what breaks on the way is replaced, and told if it breaks again and again.
fn execute(setup: &Setup, session: &mut Option<Session>, program: &Program) -> Done {
    let mut tries = 0;
    loop {
        tries += 1;
        let result = match session {
            Some(live) => live.target.execute(program),
            None => start(setup)
                .map(|live| session.insert(live))
                .and_then(|s| s.target.execute(program)),
        };
        match result {
            Ok(done) => return done,
            Err(error) if tries < TRIES => {
                say(&format!("{error}; starting again"));
                // What was learnt of features holds for any guest.
                if let Some(broken) = session.take() {
                    match start(setup) {
                        Ok(live) => *session = Some(Session { trust: broken.trust, ..live }),
                        Err(error) => leave(&error.into()),
                    }
                }
            }
            Err(error) => leave(&error.into()),
        }
    }
}

fn start(setup: &Setup) -> Result<Session, harness::target::TargetError> {
    let target = setup.options.open(&say)?;
    let info = target.info();
    say(&format!("{} ({}, {})", info.release, info.kernel, info.accel));
    let policy = Policy::for_release(&info.release);
    Ok(Session { target, info, policy, trust: Trust::default(), compared: false })
}

/// The addresses of one build mean nothing in another: finds out before anything is counted.
fn compare(setup: &Setup, live: &mut Session, done: &Done) {
    let Some(sites) = setup.sites.filter(|_| !live.compared && !done.reached.is_empty()) else {
        return;
    };
    live.compared = true;
    let strange = done.reached.iter().filter(|pc| sites.index_of(**pc).is_none()).count();
    // Calls that gcc makes into jumps report addresses that are no sites: a few in a hundred.
    if strange * 4 > done.reached.len() {
        let what = format!(
            "vmlinux is not of the kernel {} that runs: {strange} of {} reported addresses are none of its call sites",
            live.info.kernel,
            done.reached.len()
        );
        leave(&Error::usage(what, "name the right one in PINFUZZ_VMLINUX"));
    }
}

fn say(what: &str) {
    eprintln!("pinfuzz: {what}");
}

/// Leaves without a find.
fn leave(error: &Error) -> ! {
    say(&format!("{error}\npinfuzz: no find; {}", error.hint()));
    counters::leave(error.exit() as u8)
}

/// Ends the guest and removes its files.
extern "C" fn end() {
    if let Ok(mut session) = SESSION.try_lock() {
        *session = None;
    }
}
