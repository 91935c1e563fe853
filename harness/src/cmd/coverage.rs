//! `pinfuzz coverage`: what a corpus reaches in the kernel's source, and which programs reach a line.

use crate::cmd::{self, TargetArgs};
use harness::coverage::map::Map;
use harness::coverage::page;
use harness::coverage::sites::Sites;
use harness::coverage::survey::{Survey, Surveyed};
use harness::exit::{Error, Exit};
use harness::fuzz_target::programs_below;
use harness::machine::cache::Cache;
use harness::machine::{build, kernel};
use harness::report::{ReportError, clock, write_atomically};
use program::Program;
use std::path::{Path, PathBuf};

/// Where programs are looked for if none are named.
const CORPORA: &str = "corpora";
/// Most programs of one survey: some ten minutes under emulation.
const PROGRAMS_MAX: usize = 20_000;
/// The survey in its folder.
const SURVEY: &str = "survey.json";
/// How much of what is reported must be call sites of the vmlinux, or it is another build's. The rest comes from blocks that end in a jump to the
/// reporting function, whose return address lies in a caller (4 % in a 6.12).
const KNOWN_PERCENT: usize = 90;
/// Largest source file that is shown; the kernel's have up to 1 MB.
const SOURCE_MAX: u64 = 4 << 20;

/// Show what programs reach in the kernel's source
///
/// Runs each program once on a kernel with KCOV and writes a page (coverage.html), the same as text (coverage.txt) and the survey itself
/// (survey.json), from which `--from` makes other views without a guest.
#[derive(clap::Args)]
pub struct Args {
    /// Program files, or folders of them [default: corpora]
    #[arg(value_name = "FILE|DIR")]
    programs: Vec<PathBuf>,
    /// Folder to write to
    #[arg(long, value_name = "DIR", default_value = "reports/coverage")]
    out: PathBuf,
    /// Take the survey that lies in this folder instead of running anything
    #[arg(long, value_name = "DIR", conflicts_with = "programs")]
    from: Option<PathBuf>,
    /// Only print the programs that reach this line, such as fs/dax.c:1203
    #[arg(long, value_name = "FILE:LINE", value_parser = line)]
    line: Option<(String, u32)>,
    /// Show only files whose path begins like this; may be given several times
    #[arg(long = "files", value_name = "PREFIX")]
    prefixes: Vec<String>,
    /// The kernel's vmlinux, with line numbers [default: the one that was built with the kernel]
    #[arg(long, value_name = "FILE")]
    vmlinux: Option<PathBuf>,
    /// The kernel's source tree [default: the one that the kernel was built from]
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,
    #[command(flatten)]
    target: TargetArgs,
}

fn line(text: &str) -> Result<(String, u32), String> {
    let split = text.rsplit_once(':').and_then(|(file, line)| Some((file, line.parse().ok()?)));
    let (file, line) = split.ok_or("give a file and a line, such as fs/dax.c:1203")?;
    Ok((file.into(), line))
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<Exit, Error> {
    let survey = match &args.from {
        Some(folder) => load(folder)?,
        None => make(args)?,
    };
    let sites = open_sites(args, &survey)?;
    if let Some((file, line)) = &args.line {
        return reaching(&sites, &survey, file, *line);
    }
    let map = Map::new(&sites, &survey, &args.prefixes);
    if map.files.is_empty() {
        return Err(Error::usage(
            "no file of this kernel begins like that",
            "paths are relative to the kernel's tree, such as `--files fs/ext4/`",
        ));
    }
    let folder = args.from.as_ref().unwrap_or(&args.out);
    let tree = source_tree(args, &survey)?;
    let source = |path: &str| source(tree.as_deref()?, path);
    let page = page::html(&map, &survey, &folder.display().to_string(), &source);
    let text = page::text(&map, &survey);
    let (html, txt) = (folder.join("coverage.html"), folder.join("coverage.txt"));
    write_atomically(&html, page.as_bytes())?;
    write_atomically(&txt, text.as_bytes())?;
    cmd::print(text.lines().next().unwrap_or_default());
    cmd::print(&format!("\nwritten: {}, {}\n", html.display(), txt.display()));
    Ok(Exit::Explained)
}

/// The survey in a folder.
fn load(folder: &Path) -> Result<Survey, Error> {
    let path = folder.join(SURVEY);
    let text = cmd::read_text(&path)?;
    Survey::from_json(&text).map_err(|what| Error::Record { path, what })
}

/// Runs the programs, and saves what they reached.
fn make(args: &Args) -> Result<Survey, Error> {
    let default = [PathBuf::from(CORPORA)];
    let roots = if args.programs.is_empty() { &default[..] } else { &args.programs };
    let mut files = Vec::new();
    for root in roots {
        match root.is_dir() {
            true => files.extend(programs_below(root)?),
            false => files.push(root.clone()),
        }
    }
    files.sort();
    files.dedup();
    if files.is_empty() || files.len() > PROGRAMS_MAX {
        let what = format!("{} programs are there", files.len());
        return Err(Error::usage(what, format!("name 1 to {PROGRAMS_MAX} files, or their folder")));
    }
    let programs = files
        .iter()
        .map(|path| Ok((path.display().to_string(), args.target.rehome(cmd::read_program(path)?)?)))
        .collect::<Result<Vec<(String, Program)>, Error>>()?;
    // A folder that cannot be written is told before minutes of work.
    std::fs::create_dir_all(&args.out).map_err(|source| ReportError::new(&args.out, source))?;
    let mut target = args.target.choice(0)?.open(&|line| eprintln!("{line}"))?;
    let info = target.info();
    if !target.set_covering(true) {
        return Err(Error::usage(
            format!("{} reports no coverage", info.kernel),
            "build a kernel that does: `pinfuzz kernel build debian:6.12 --profile kcov`",
        ));
    }
    let mut left = programs.iter();
    let mut found: Vec<Surveyed> = Vec::new();
    let bar = indicatif::ProgressBar::new(programs.len() as u64);
    let mut next = || left.next().map(|(_, program)| program.clone());
    let mut waiting: Vec<&(String, Program)> = programs.iter().collect();
    let mut done = |done: harness::target::Done| {
        // Histories may come back in any order, and two files may hold the same program.
        let Some(at) = waiting.iter().position(|(_, program)| *program == done.program) else {
            return;
        };
        let (name, program) = waiting.remove(at);
        let lines = program.lines.len();
        found.push(Surveyed { name: name.clone(), lines, reached: done.reached });
        bar.inc(1);
    };
    while !target.run_batch(&mut next, &mut done)? {}
    bar.finish_and_clear();
    let silent = found.iter().filter(|program| program.reached.is_empty()).count();
    if silent > 0 {
        eprintln!("{silent} programs brought no coverage back: their guest went down");
    }
    let survey = Survey::new(
        &info.kernel,
        &info.release,
        clock::rfc3339(std::time::SystemTime::now()),
        found,
    );
    write_atomically(&args.out.join(SURVEY), survey.to_json().as_bytes())?;
    Ok(survey)
}

/// The call sites of the kernel of the survey.
fn open_sites(args: &Args, survey: &Survey) -> Result<Sites, Error> {
    let hint = "name the vmlinux of that very build with `--vmlinux`";
    let vmlinux = match &args.vmlinux {
        Some(vmlinux) => vmlinux.clone(),
        None => {
            let found = kernel::find(&survey.kernel, &Cache::open()?, &|line| eprintln!("{line}"))?;
            let none = || Error::usage(format!("there is no vmlinux of {}", survey.kernel), hint);
            found.vmlinux.ok_or_else(none)?
        }
    };
    let sites = Sites::open(&vmlinux)?;
    let (known, all) = survey.known(&sites);
    if known * 100 < all * KNOWN_PERCENT {
        let what = format!(
            "{} of {all} addresses that were reported are no call sites of {}",
            all - known,
            vmlinux.display()
        );
        return Err(Error::usage(what, hint));
    }
    Ok(sites)
}

/// The tree that the kernel was built from, if anybody knows it.
fn source_tree(args: &Args, survey: &Survey) -> Result<Option<PathBuf>, Error> {
    if let Some(tree) = &args.source {
        return Ok(Some(tree.clone()));
    }
    Ok(build::find(&survey.kernel, &Cache::open()?).map(|built| built.record.source_dir))
}

/// The text of a file of the kernel's tree. The path comes out of a vmlinux.
fn source(tree: &Path, path: &str) -> Option<String> {
    let plain = |part: std::path::Component<'_>| matches!(part, std::path::Component::Normal(_));
    let path = Path::new(path);
    if !path.components().all(plain) {
        return None;
    }
    let full = tree.join(path);
    let size = std::fs::metadata(&full).ok()?.len();
    let bytes = (size <= SOURCE_MAX).then(|| std::fs::read(&full).ok()).flatten()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Prints the programs that reach a line.
fn reaching(sites: &Sites, survey: &Survey, file: &str, line: u32) -> Result<Exit, Error> {
    let map = Map::new(sites, survey, &[file.to_string()]);
    let lines = map.files.get(file).map(|file| &file.lines);
    let Some(found) = lines.and_then(|lines| lines.get(&line)) else {
        let near = lines.and_then(|lines| {
            let (before, after) = (lines.range(..line).next_back(), lines.range(line..).next());
            let near: Vec<String> =
                before.into_iter().chain(after).map(|(n, _)| n.to_string()).collect();
            (!near.is_empty()).then(|| near.join(" and "))
        });
        return Err(Error::usage(
            format!("no code of {file}:{line} can report"),
            match near {
                Some(near) => format!("the nearest lines that can are {near}"),
                None => "name a file as the kernel's tree does, such as fs/dax.c".into(),
            },
        ));
    };
    for number in found.programs.iter() {
        cmd::print(&format!("{}\n", survey.programs[number].name));
    }
    eprintln!(
        "{file}:{line}: {} of {} call sites, by {} of {} programs",
        found.sites.reached,
        found.sites.all,
        found.programs.len(),
        survey.programs.len()
    );
    Ok(Exit::Explained)
}
