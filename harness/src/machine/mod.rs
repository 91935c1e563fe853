//! What a guest is made of: packages, kernels (fetched or built), modules, images and the initramfs, and the cache they are kept in.
//!
//! Starts no guest: that is `target::qemu`.

pub mod agent;
pub mod apt;
pub mod build;
pub mod cache;
pub mod cpio;
pub mod digest;
pub mod image;
pub mod initramfs;
pub mod kernel;
pub mod modules;
pub mod packages;
pub mod pfn;
pub mod scratch;
pub mod sparse;

use crate::target::TargetError;
use std::fmt::Display;
use std::io;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Most bytes of a program's output that an error message quotes.
const QUOTE_MAX: usize = 2000;

/// Shorthand for trouble that is ours.
pub(crate) fn infra(what: impl Display) -> TargetError {
    TargetError::Infra(what.to_string())
}

/// Trouble with a file, in one line. A full disk says so.
pub(crate) fn file_trouble<'a>(
    doing: &'a str,
    path: &'a Path,
) -> impl Fn(io::Error) -> TargetError + 'a {
    move |error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => infra(format!(
            "no space left while {doing} {}: free some, or point XDG_CACHE_HOME elsewhere",
            path.display()
        )),
        _ => infra(format!("{doing} {}: {error}", path.display())),
    }
}

/// Runs a helper program to its end, with nothing on its input.
pub(crate) fn output(command: &mut Command) -> Result<Output, TargetError> {
    command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| infra(format!("cannot run {}: {e}", command.get_program().display())))
}

/// Runs a helper program that has to succeed; returns what it printed.
pub(crate) fn run(command: &mut Command) -> Result<String, TargetError> {
    let output = output(command)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(infra(format!(
        "{} failed ({}): {}",
        command.get_program().display(),
        output.status,
        quote(&output)
    )))
}

/// What a program had to say, bounded, in one paragraph.
pub(crate) fn quote(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stderr).trim().to_string();
    if text.is_empty() {
        text = String::from_utf8_lossy(&output.stdout).trim().to_string();
    }
    tail(&text, QUOTE_MAX).to_string()
}

/// The last `most` bytes of a text, cut at a character.
pub(crate) fn tail(text: &str, most: usize) -> &str {
    let mut start = text.len().saturating_sub(most);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}
