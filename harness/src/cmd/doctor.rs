//! `pinfuzz doctor`: what this machine has for running guests, and what it lacks.

use crate::cmd;
use harness::exit::{Error, Exit};
use harness::target::qemu::Config;
use harness::target::qemu::doctor::{self, Findings, State};
use std::fmt::Write;

/// Say what this machine has for running guests, and what it lacks
///
/// Installs nothing. Boots a guest to find out whether KVM works, if a kernel is there to boot.
#[derive(clap::Args)]
pub struct Args {
    /// Kernel to boot: debian:6.12, debian:6.1, one of `pinfuzz kernel list`, or the path of a bzImage and its modules
    #[arg(long, value_name = "NAME|PATH[:MODULES]", default_value = "debian:6.12")]
    kernel: String,
    /// Fetch the kernel if it is not there
    #[arg(long)]
    fetch: bool,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<Exit, Error> {
    let config = Config { kernel: args.kernel.clone(), ..Config::default() };
    let findings = doctor::examine(&config, args.fetch, &|line| eprintln!("{line} ..."))?;
    cmd::print(&text(&findings));
    Ok(if findings.is_ready() { Exit::Explained } else { Exit::Untestable })
}

/// The findings as aligned lines, and what to do.
fn text(findings: &Findings) -> String {
    let width = findings.list.iter().map(|f| f.subject.len()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in &findings.list {
        let mark = match finding.state {
            State::Good => "ok",
            State::Note => "--",
            State::Bad => "NO",
        };
        let subject = &finding.subject;
        let _ = writeln!(text, "{mark}  {subject:width$}  {}", finding.text);
    }
    let last = match &findings.install {
        Some(line) => format!("\nTo install what is missing:\n  {line}\n"),
        None if findings.is_ready() => "\nGuests can run here.\n".into(),
        None => "\nGuests cannot run here; the lines marked NO say why.\n".into(),
    };
    text + &last
}

#[cfg(test)]
mod tests {
    use super::*;
    use harness::target::qemu::doctor::Finding;

    fn finding(subject: &str, state: State, text: &str) -> Finding {
        Finding { subject: subject.into(), state, text: text.into() }
    }

    #[test]
    fn lines_are_aligned_and_the_remedy_comes_last() {
        let list = vec![
            finding("e2fsck", State::Bad, "missing (package e2fsprogs)"),
            finding("accelerator", State::Note, "unknown"),
        ];
        let findings = Findings { list, install: Some("sudo apt-get install x".into()) };
        assert_eq!(
            text(&findings),
            "NO  e2fsck       missing (package e2fsprogs)\n\
             --  accelerator  unknown\n\n\
             To install what is missing:\n  sudo apt-get install x\n"
        );
    }
}
