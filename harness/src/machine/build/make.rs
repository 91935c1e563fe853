//! The kernel's own build, watched: what it compiles, what it complains of, and its end when the user says stop.
//!
//! Every process of it is in a group of its own, which is ended as a whole. Does not know what is being built.

use super::{BuildError, tree};
use crate::machine::{file_trouble, infra, run};
use crate::target::TargetError;
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, PipeReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// How often a running make is asked to stop, if it is to.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long compilers may take to go when told; make removes their half-written objects meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);
/// Complaints that are shown; the log has all.
const SHOWN: usize = 20;
/// Last lines that are shown where none looks like a complaint.
const LAST: usize = 5;
/// Most bytes of a line that is looked at; the command lines of a kernel's build have some thousands.
const LINE_MAX: u64 = 64 << 10;
/// Lines that may wait to be looked at.
const QUEUE: usize = 1000;
/// The file that lies in a build tree while make runs there.
const RUNNING: &str = ".pinfuzz-running";
/// What is taken over from the environment: the compilers' place, and where they put what is temporary. Anything else (CC, ARCH,
/// KCFLAGS, MAKEFLAGS, KBUILD_*) would make another kernel under the same name.
const ENVIRONMENT: [&str; 3] = ["PATH", "HOME", "TMPDIR"];

/// A build tree.
pub struct Make<'a> {
    /// The source.
    pub source: &'a Path,
    /// Where objects go.
    pub objects: &'a Path,
    /// Where make's output goes.
    pub log: PathBuf,
    /// Compilers at a time.
    pub jobs: usize,
    /// Set when the user says stop.
    pub stop: &'a AtomicBool,
}

/// Why make came to no good end.
pub enum Failure {
    /// It says why itself.
    Make(Failed),
    /// Anything else.
    Error(BuildError),
}

/// What make complained of.
pub struct Failed {
    /// What was to be made.
    pub target: String,
    /// Whether the disk is full.
    pub full: bool,
    /// The complaints, as their authors word them, paths as in the tree.
    pub lines: Vec<String>,
    /// How many more there were.
    pub more: usize,
}

impl<E: Into<BuildError>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Error(error.into())
    }
}

/// What compiles, in words that change with it.
pub fn compiler() -> Result<String, TargetError> {
    let text = run(clean(&mut Command::new("gcc")).arg("--version"))?;
    let linker = run(clean(&mut Command::new("ld")).arg("--version"))?;
    let first = |text: &str| text.lines().next().unwrap_or_default().to_string();
    Ok(format!("{}; {}", first(&text), first(&linker)))
}

/// The command in an environment that says nothing about what is built.
fn clean(command: &mut Command) -> &mut Command {
    command.env_clear().env("LC_ALL", "C").stdin(Stdio::null());
    for name in ENVIRONMENT {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    // The same kernel whoever builds it, and when.
    command.env("KBUILD_BUILD_USER", "pinfuzz").env("KBUILD_BUILD_HOST", "pinfuzz");
    command.env("KBUILD_BUILD_VERSION", "1");
    command.env("KBUILD_BUILD_TIMESTAMP", "Thu Jan  1 00:00:00 UTC 1970")
}

impl Make<'_> {
    /// Says that the tree is being built. Where a run was killed that had said so, what it wrote is not trusted.
    pub fn begin(&self) -> Result<(), TargetError> {
        let mark = self.objects.join(RUNNING);
        if let Ok(began) = fs::metadata(&mark).and_then(|meta| meta.modified()) {
            tree::distrust(self.objects, began)?;
        }
        fs::write(&mark, "").map_err(file_trouble("writing", &mark))?;
        File::create(&self.log).map(drop).map_err(file_trouble("writing", &self.log))
    }

    /// Says that the tree is whole. Its objects are on the disk before that.
    pub fn end(&self) -> Result<(), TargetError> {
        let dir = File::open(self.objects).map_err(file_trouble("opening", self.objects))?;
        rustix::fs::syncfs(&dir).map_err(|e| file_trouble("syncing", self.objects)(e.into()))?;
        let mark = self.objects.join(RUNNING);
        match fs::remove_file(&mark) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(file_trouble("clearing", &mark)(e))
            }
            _ => Ok(()),
        }
    }

    /// Makes a target; `compiled` is told of every C file.
    pub fn run(
        &self,
        target: &str,
        variables: &[String],
        compiled: &mut dyn FnMut(&str),
    ) -> Result<(), Failure> {
        let mut command = Command::new("make");
        let mut output = OsString::from("O=");
        output.push(self.objects);
        clean(&mut command).arg("-C").arg(self.source).arg(output);
        // An empty LOCALVERSION on the line keeps setlocalversion from adding a plus.
        command.args([super::ARCH, "LOCALVERSION=", target]).arg(format!("-j{}", self.jobs));
        command.args(variables);
        self.follow(target, command, compiled)
    }

    /// Merges fragments into the first of those files, by the tree's own script.
    pub fn merge(&self, files: &[String]) -> Result<(), Failure> {
        let mut command = Command::new("sh");
        // Its temporary files go into the current directory.
        clean(&mut command).current_dir(self.objects);
        command.arg(self.source.join("scripts/kconfig/merge_config.sh")).arg("-m").args(files);
        self.follow("merge_config.sh", command, &mut |_| ())
    }

    /// `uname -r` of what was built.
    pub fn release(&self) -> Result<String, TargetError> {
        let path = self.objects.join("include/config/kernel.release");
        let text = fs::read_to_string(&path).map_err(file_trouble("reading", &path))?;
        Ok(text.trim().to_string())
    }

    fn follow(
        &self,
        target: &str,
        mut command: Command,
        compiled: &mut dyn FnMut(&str),
    ) -> Result<(), Failure> {
        let (reader, writer) = std::io::pipe().map_err(infra)?;
        command.stdout(writer.try_clone().map_err(infra)?).stderr(writer).process_group(0);
        let mut log = OpenOptions::new()
            .append(true)
            .open(&self.log)
            .map_err(file_trouble("opening", &self.log))?;
        let program = command.get_program().display().to_string();
        let mut child = command.spawn().map_err(|e| infra(format!("cannot run {program}: {e}")))?;
        // Our ends of the pipe close with the command, so that the last process of the group ends it.
        drop(command);
        let (sender, lines) = sync_channel(QUEUE);
        let read = thread::spawn(move || forward(reader, &sender));
        let mut heard = Heard::default();
        let ended = loop {
            match lines.recv_timeout(LOOK_EVERY) {
                Ok(line) => {
                    // A log that cannot be written must not hide what make says.
                    let _ = writeln!(log, "{line}");
                    let object = ["  CC ", "  AS "].iter().find_map(|word| line.strip_prefix(word));
                    if let Some(object) = object {
                        compiled(object.trim());
                    }
                    heard.line(line);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break child.wait().map_err(infra),
            }
            if self.stop.load(Ordering::Relaxed) {
                end_group(&mut child, &lines);
                break Err(infra("stopped"));
            }
        };
        // It ends with the pipe.
        let _ = read.join();
        if self.stop.load(Ordering::Relaxed) {
            self.end()?;
            return Err(BuildError::Interrupted.into());
        }
        let status: ExitStatus = ended?;
        if status.success() {
            return Ok(());
        }
        // make has removed what was half made: the tree is as good as before.
        self.end()?;
        Err(Failure::Make(heard.failed(target, self.source)))
    }
}

/// Ends make and all that it started. Make itself removes what is half made, if it is given the time.
fn end_group(child: &mut Child, lines: &Receiver<String>) {
    let group = Pid::from_child(child);
    let _ = kill_process_group(group, Signal::TERM);
    let told = Instant::now();
    loop {
        // The pipe is kept flowing: who waits for room in it does not go.
        match lines.recv_timeout(LOOK_EVERY) {
            Err(RecvTimeoutError::Disconnected) => break,
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
        }
        if told.elapsed() > PATIENCE {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
    let _ = child.wait();
}

/// Hands on line by line until all writers are gone.
fn forward(reader: PipeReader, lines: &SyncSender<String>) {
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        match reader.by_ref().take(LINE_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        if lines.send(text.trim_end_matches('\n').to_string()).is_err() {
            return;
        }
    }
}

/// What make said, as far as it matters.
#[derive(Default)]
struct Heard {
    full: bool,
    /// Complaints of compilers, linkers and Kconfig.
    errors: Vec<String>,
    /// Beyond those that are shown.
    more: usize,
    last: VecDeque<String>,
}

impl Heard {
    fn line(&mut self, line: String) {
        // What the C library makes of ENOSPC and EDQUOT.
        let full = [super::source::NO_SPACE, "Disk quota exceeded"];
        self.full |= full.iter().any(|words| line.contains(words));
        if is_complaint(&line) {
            if self.errors.len() < SHOWN {
                self.errors.push(line);
            } else {
                self.more += 1;
            }
        } else if !line.trim().is_empty() && !line.contains(" directory '") {
            // Make says which directory it enters and leaves; that is not why.
            self.last.push_back(line);
            if self.last.len() > LAST {
                self.last.pop_front();
            }
        }
    }

    fn failed(self, target: &str, source: &Path) -> Failed {
        let prefix = format!("{}/", source.display());
        let said = if self.errors.is_empty() { self.last.into() } else { self.errors };
        let lines = said.iter().map(|line| printable(&line.replace(&prefix, ""))).collect();
        Failed { target: target.into(), full: self.full, lines, more: self.more }
    }
}

/// Whether somebody but make itself says what is wrong.
fn is_complaint(line: &str) -> bool {
    let words = [
        ": error: ",
        ": fatal error: ",
        ": undefined reference to ",
        ": syntax error",
        ": Error: ",
    ];
    let starts = ["ERROR: ", "error: ", "ld: ", "Kconfig:"];
    !line.starts_with("make")
        && (words.iter().any(|w| line.contains(w)) || starts.iter().any(|s| line.starts_with(s)))
}

/// A line fit for a terminal.
fn printable(line: &str) -> String {
    line.chars().map(|c| if c.is_control() && c != '\t' { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compilers_are_quoted_and_make_is_not() {
        let mut heard = Heard::default();
        for line in [
            "  CC      mm/gup.o",
            "/c/source/mm/gup.c:12:3: error: expected ';' before 'x'",
            "/c/source/mm/gup.c: In function 'f':",
            "make[3]: *** [/c/source/scripts/Makefile.build:229: mm/gup.o] Error 1",
            "ld: mm/gup.o: in function `f':",
            "gup.c:(.text+0x1): undefined reference to `no_such'",
        ] {
            heard.line(line.into());
        }
        let failed = heard.failed("bzImage", Path::new("/c/source"));
        assert_eq!(
            failed.lines,
            [
                "mm/gup.c:12:3: error: expected ';' before 'x'",
                "ld: mm/gup.o: in function `f':",
                "gup.c:(.text+0x1): undefined reference to `no_such'"
            ]
        );
        assert!(!failed.full && failed.more == 0);
    }

    #[test]
    fn many_complaints_are_counted_and_none_means_the_last_lines() {
        let mut heard = Heard::default();
        for n in 0..SHOWN + 7 {
            heard.line(format!("a.c:{n}:1: error: no"));
        }
        let failed = heard.failed("x", Path::new("/s"));
        assert_eq!((failed.lines.len(), failed.more), (SHOWN, 7));
        let mut heard = Heard::default();
        for n in 0..LAST + 2 {
            heard.line(format!("line {n}\u{1b}[31m"));
        }
        let lines = heard.failed("x", Path::new("/s")).lines;
        assert_eq!(lines.len(), LAST);
        assert_eq!(lines[0], "line 2?[31m");
    }
}
