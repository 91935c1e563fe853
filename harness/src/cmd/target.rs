//! The options that choose a target, and how a target is made from them.

use crate::cmd::{self, values};
use harness::exit::Error;
use harness::machine::build;
use harness::machine::cache::Cache;
use harness::machine::kernel::no_such;
use harness::report::Provenance;
use harness::target::qemu::{Accel, Config, Mode, QemuTarget};
use harness::target::{Target, TargetError};
use program::Program;
use std::path::Path;

/// Kernels that are fetched and prepared by name.
const KERNELS: [&str; 2] = ["debian:6.12", "debian:6.1"];

/// The image of a guest if nobody asks for another: the same four mounts whatever the home.
const IMAGE: &str = "xfs-dax";

/// What kind of target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// A real kernel in a QEMU guest
    Qemu,
    /// The in-memory model of a kernel, for trying things out in milliseconds
    Fake,
}

/// How a guest is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ModeArg {
    /// A guest that lives through many programs
    Fast,
    /// One program per guest, the same history every time
    Exact,
}

/// The accelerator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum AccelArg {
    /// KVM if a guest really boots with it, else TCG
    Auto,
    /// KVM or nothing
    Kvm,
    /// Emulation
    Tcg,
}

/// The options that choose a target.
#[derive(Clone, Debug, clap::Args)]
pub struct TargetArgs {
    /// Where programs run
    #[arg(long, value_enum, default_value = "qemu", help_heading = "Target")]
    pub target: Kind,
    /// Kernel: debian:6.12, debian:6.1, one of `pinfuzz kernel list`, or the path of a bzImage and its modules
    #[arg(
        long = "kernel",
        value_name = "NAME|PATH[:MODULES]",
        default_value = KERNELS[0],
        help_heading = "Target"
    )]
    pub kernels: Vec<String>,
    /// Where programs live: ext4-dax, xfs-dax, ext4, xfs, or another image; a campaign takes several
    /// [default: what the program says, or all four]
    #[arg(long = "image", value_name = "NAME", value_parser = values::image, help_heading = "Target")]
    pub images: Vec<values::Image>,
    /// How a guest is run
    #[arg(long, value_enum, default_value = "fast", help_heading = "Target")]
    pub mode: ModeArg,
    /// Accelerator of the fast mode
    #[arg(long, value_enum, default_value = "auto", help_heading = "Target")]
    pub accel: AccelArg,
    /// Plant this bug in the fake kernel (`--bug help` lists them)
    #[arg(long, value_name = "NAME", help_heading = "Target")]
    pub bug: Option<String>,
}

impl TargetArgs {
    /// One program on the mount that was asked for, if one was.
    pub fn rehome(&self, program: Program) -> Result<Program, Error> {
        match &self.images[..] {
            [] => Ok(program),
            [image] => cmd::with_home(&program, image.home),
            _ => Err(Error::usage("several images for one run", "give `--image` once")),
        }
    }

    /// The image of the guests; all homes of a campaign are in one.
    fn guest_image(&self) -> Result<String, Error> {
        let mut guests: Vec<&String> =
            self.images.iter().filter_map(|image| image.guest.as_ref()).collect();
        guests.dedup();
        match guests[..] {
            [] => Ok(IMAGE.into()),
            [guest] => Ok(guest.clone()),
            _ => Err(Error::usage(
                "images that need different guests",
                "run one campaign for each of them",
            )),
        }
    }

    /// What the options say if none is given.
    pub fn defaults() -> Provenance {
        Provenance {
            target: word(Kind::Qemu),
            kernel: KERNELS[0].into(),
            image: IMAGE.into(),
            mode: word(ModeArg::Fast),
            accel: word(AccelArg::Auto),
            bug: None,
        }
    }

    /// The target of a worker; kernels take turns over workers.
    pub fn choice(&self, worker: usize) -> Result<Choice, Error> {
        let kernel = &self.kernels[worker % self.kernels.len()];
        let provenance = Provenance {
            target: word(self.target),
            kernel: if self.target == Kind::Fake { "fake".into() } else { kernel.clone() },
            image: self.guest_image()?,
            mode: word(self.mode),
            accel: word(self.accel),
            bug: self.bug.clone(),
        };
        Choice::new(provenance, worker)
    }
}

fn word(value: impl clap::ValueEnum) -> String {
    value.to_possible_value().map_or(String::new(), |value| value.get_name().to_string())
}

/// A target that can be made, as often as needed.
#[derive(Clone, Debug)]
pub struct Choice {
    /// In words, for reports.
    pub provenance: Provenance,
    maker: Maker,
}

#[derive(Clone, Debug)]
enum Maker {
    Qemu(Box<Config>),
    Fake(Option<harness::target::fake::Bug>),
}

impl Choice {
    /// Checks every word, so that a typing error is told before anything is booted.
    pub fn new(provenance: Provenance, worker: usize) -> Result<Choice, Error> {
        let maker = match provenance.target.as_str() {
            "fake" => Maker::Fake(provenance.bug.as_deref().map(bug).transpose()?),
            "qemu" => {
                if provenance.bug.is_some() {
                    return Err(Error::usage(
                        "--bug is for the fake kernel",
                        "add `--target fake`: a real kernel brings its own bugs",
                    ));
                }
                check_kernel(&provenance.kernel)?;
                Maker::Qemu(Box::new(Config {
                    kernel: provenance.kernel.clone(),
                    image: provenance.image.clone(),
                    mode: if provenance.mode == "exact" { Mode::Exact } else { Mode::Fast },
                    accel: match provenance.accel.as_str() {
                        "kvm" => Accel::Kvm,
                        "tcg" => Accel::Tcg,
                        _ => Accel::Auto,
                    },
                    worker,
                    ..Config::default()
                }))
            }
            other => {
                return Err(Error::usage(
                    format!("there is no target `{other}`"),
                    "choose qemu or fake",
                ));
            }
        };
        Ok(Choice { provenance, maker })
    }

    /// Whether it is the in-memory model.
    pub fn is_fake(&self) -> bool {
        matches!(self.maker, Maker::Fake(_))
    }

    /// Makes the target; `progress` is told what is being done.
    pub fn open(&self, progress: &(dyn Fn(&str) + Sync)) -> Result<Box<dyn Target>, TargetError> {
        match &self.maker {
            Maker::Qemu(config) => Ok(Box::new(QemuTarget::new(config, progress)?)),
            Maker::Fake(bug) => {
                use harness::target::fake::{FakeConfig, FakeTarget};
                Ok(Box::new(FakeTarget::new(FakeConfig { bug: *bug, ..FakeConfig::default() })))
            }
        }
    }
}

/// A planted bug by its name.
fn bug(name: &str) -> Result<harness::target::fake::Bug, Error> {
    use harness::target::fake::Bug;
    Bug::ALL.iter().copied().find(|bug| bug.name() == name).ok_or_else(|| {
        let names: Vec<&str> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        Error::usage(
            format!("the fake kernel has no bug `{name}`"),
            format!("choose one of {}", names.join(", ")),
        )
    })
}

fn check_kernel(kernel: &str) -> Result<(), Error> {
    if KERNELS.contains(&kernel) {
        return Ok(());
    }
    if Cache::open().is_ok_and(|cache| build::find(kernel, &cache).is_some()) {
        return Ok(());
    }
    let hint = format!(
        "name {}, one of `pinfuzz kernel list`, or the path of a bzImage",
        KERNELS.join(", ")
    );
    if kernel.starts_with("debian:") {
        return Err(Error::usage(no_such(kernel), hint));
    }
    let (image, modules) = match kernel.split_once(':') {
        Some((image, modules)) => (image, Some(modules)),
        None => (kernel, None),
    };
    if !Path::new(image).is_file() {
        return Err(Error::usage(format!("there is no kernel file {image}"), hint));
    }
    if let Some(modules) = modules.filter(|modules| !Path::new(modules).is_dir()) {
        let what = format!("there is no modules folder {modules}");
        return Err(Error::usage(what, "name the folder that holds `kernel/` and `modules.dep`"));
    }
    Ok(())
}
