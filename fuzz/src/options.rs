//! What the environment asks for, and what libFuzzer is told beyond its command line. libFuzzer reads no file of options, and `cargo fuzz`
//! passes none of ours.
//!
//! | Variable | Means |
//! |---|---|
//! | `PINFUZZ_TARGET` | `qemu` (default), or `fake`: the in-memory model, for machines without QEMU |
//! | `PINFUZZ_KERNEL` | as `--kernel` of `pinfuzz`: `debian:6.12` (default), or the path of a bzImage |
//! | `PINFUZZ_VMLINUX` | the kernel's `vmlinux`, where it does not lie beside the bzImage |
//! | `PINFUZZ_ACCEL` | `auto` (default), `kvm`, `tcg` |
//! | `PINFUZZ_BUG` | a bug to plant in the fake |
//! | `PINFUZZ_REPORTS` | where finds go; `reports` of the tree otherwise |

use harness::exit::Error;
use harness::fuzz_target::FuzzTarget;
use harness::report::Provenance;
use harness::target::fake::{Bug, FakeConfig, FakeTarget};
use harness::target::qemu::{Accel, Config, QemuTarget};
use harness::target::{Target, TargetError};
use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A run in how many is looked at with fsck: libFuzzer waits for each, and a look takes some 0.3 s, ten times what a run takes.
const KEEP_EVERY: u32 = 16;
/// The tree: fuzz targets run where they were built.
const TREE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// What libFuzzer is told unless the command line says otherwise.
const DEFAULTS: [(&str, &str); 2] = [
    // libFuzzer's own is 4096; programs may have some kilobytes more.
    ("-max_len=", "16384"),
    // The first input waits for the guest, which may have to be prepared; the target's own watchdog ends what hangs.
    ("-report_slow_units=", "1200"),
];
/// `cargo fuzz tmin`, and its steps.
const MINIMISE: &str = "-minimize_crash";
/// The seeds of the target, beside the corpus: they stay where they are, whatever becomes of the corpus.
const SEEDS: &str = "-seed_inputs=";

/// What the environment asks for.
#[derive(Clone, Debug)]
pub struct Options {
    /// How the target is made, for finds.
    pub provenance: Provenance,
    /// As `PINFUZZ_VMLINUX` says.
    pub vmlinux: Option<PathBuf>,
    /// Where finds go.
    pub reports: PathBuf,
    accel: Accel,
    bug: Option<Bug>,
}

impl Options {
    /// Reads the environment.
    pub fn from_env() -> Result<Options, Error> {
        Options::new(&|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn new(value: &dyn Fn(&str) -> Option<String>) -> Result<Options, Error> {
        let word = |name: &str, default: &str| value(name).unwrap_or_else(|| default.into());
        let target = word("PINFUZZ_TARGET", "qemu");
        let fake = target == "fake";
        if !fake && target != "qemu" {
            let what = format!("PINFUZZ_TARGET={target} is no target");
            return Err(Error::usage(what, "choose qemu or fake"));
        }
        let accel = word("PINFUZZ_ACCEL", "auto");
        let chosen = match accel.as_str() {
            "auto" => Accel::Auto,
            "kvm" => Accel::Kvm,
            "tcg" => Accel::Tcg,
            other => {
                let what = format!("PINFUZZ_ACCEL={other} is no accelerator");
                return Err(Error::usage(what, "choose auto, kvm or tcg"));
            }
        };
        let bug = match value("PINFUZZ_BUG") {
            Some(_) if !fake => {
                let hint = "set PINFUZZ_TARGET=fake: a real kernel brings its own bugs";
                return Err(Error::usage("PINFUZZ_BUG is for the fake kernel", hint));
            }
            Some(name) => {
                let bug = Bug::ALL.iter().copied().find(|bug| bug.name() == name);
                Some(bug.ok_or_else(|| {
                    let hint = "`pinfuzz campaign --target fake --bug help` lists them";
                    Error::usage(format!("the fake kernel has no bug `{name}`"), hint)
                })?)
            }
            None => None,
        };
        Ok(Options {
            provenance: Provenance {
                kernel: if fake { "fake".into() } else { word("PINFUZZ_KERNEL", "debian:6.12") },
                target,
                image: Config::default().image,
                mode: "fast".into(),
                accel,
                bug: bug.map(|bug| bug.name().into()),
            },
            vmlinux: value("PINFUZZ_VMLINUX").map(PathBuf::from),
            reports: word("PINFUZZ_REPORTS", &format!("{TREE}/reports")).into(),
            accel: chosen,
            bug,
        })
    }

    /// Whether programs run on the in-memory model.
    pub fn is_fake(&self) -> bool {
        self.provenance.target == "fake"
    }

    /// Makes the target; `progress` is told what is being done.
    pub fn open(&self, progress: &(dyn Fn(&str) + Sync)) -> Result<Box<dyn Target>, TargetError> {
        if self.is_fake() {
            let config = FakeConfig { bug: self.bug, ..FakeConfig::default() };
            return Ok(Box::new(FakeTarget::new(config)));
        }
        let config = Config {
            kernel: self.provenance.kernel.clone(),
            accel: self.accel,
            keep_every: KEEP_EVERY,
            ..Config::default()
        };
        Ok(Box::new(QemuTarget::new(&config, progress)?))
    }
}

/// Gives libFuzzer the options that its command line lacks: what runs is started once more with all of them, in its own place. libFuzzer's own
/// children have them already.
pub fn complete(target: &FuzzTarget) -> Result<(), Error> {
    let mut given = env::args_os();
    let program = given.next().unwrap_or_default();
    let given: Vec<OsString> = given.collect();
    let lacking = lacking(target, &given, &Path::new(TREE).join("corpora"))?;
    if lacking.is_empty() {
        return Ok(());
    }
    let itself = env::current_exe().unwrap_or_else(|_| PathBuf::from(&program));
    // Behind `-ignore_remaining_args=1` nothing is read: ours come first.
    let source = Command::new(itself).arg0(&program).args(lacking).args(given).exec();
    Err(Error::Internal(format!("cannot start {} again: {source}", program.display())))
}

fn lacking(target: &FuzzTarget, given: &[OsString], corpora: &Path) -> Result<Vec<String>, Error> {
    let says = |flag: &str| given.iter().any(|arg| arg.to_string_lossy().starts_with(flag));
    // It sets the length itself and stops at one that is given (FuzzerLoop.cpp:SetMaxInputLen), and it needs no seeds.
    if says(MINIMISE) {
        return Ok(Vec::new());
    }
    let mut lacking: Vec<String> = DEFAULTS
        .iter()
        .filter(|(flag, _)| !says(flag))
        .map(|(flag, value)| format!("{flag}{value}"))
        .collect();
    if !says(SEEDS) {
        let seeds = target.seeds(corpora)?;
        let paths: Vec<String> =
            seeds.iter().map(|(path, _)| path.to_string_lossy().into_owned()).collect();
        lacking.push(format!("{SEEDS}{}", paths.join(",")));
    }
    Ok(lacking)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_in_the_environment_are_named() {
        let options = |name: &'static str, value: &'static str| {
            Options::new(&move |asked| (asked == name).then(|| value.into()))
        };
        let plain = options("", "").unwrap();
        assert_eq!((plain.provenance.kernel.as_str(), plain.is_fake()), ("debian:6.12", false));
        assert!(options("PINFUZZ_TARGET", "fake").unwrap().is_fake());
        for (name, value, error) in [
            ("PINFUZZ_TARGET", "xen", "PINFUZZ_TARGET=xen is no target"),
            ("PINFUZZ_ACCEL", "hvf", "PINFUZZ_ACCEL=hvf is no accelerator"),
            ("PINFUZZ_BUG", "any", "PINFUZZ_BUG is for the fake kernel"),
        ] {
            assert_eq!(options(name, value).unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn libfuzzer_gets_what_its_command_line_lacks_and_no_more() {
        let target = FuzzTarget::named("leases").unwrap();
        let corpora = Path::new(TREE).join("corpora");
        let lacks = |given: &[&str]| {
            let given: Vec<OsString> = given.iter().map(OsString::from).collect();
            lacking(target, &given, &corpora).unwrap()
        };
        let all = lacks(&["fuzz/corpus/leases"]);
        assert_eq!(all[..2], ["-max_len=16384", "-report_slow_units=1200"]);
        let seeds = all[2].strip_prefix(SEEDS).unwrap();
        assert!(seeds.split(',').count() >= 5);
        assert!(seeds.split(',').all(|path| Path::new(path).is_file()), "{seeds}");
        assert_eq!(lacks(&["-max_len=100", "-seed_inputs=x"]), all[1..2]);
        assert_eq!(lacks(&["-minimize_crash=1", "crash"]), [""; 0]);
        assert_eq!(lacks(&["-minimize_crash_internal_step=1", "crash"]), [""; 0]);
        let words: Vec<&str> = all.iter().map(String::as_str).collect();
        assert_eq!(lacks(&words), [""; 0]);
    }
}
