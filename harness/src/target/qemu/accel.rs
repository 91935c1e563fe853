//! KVM or TCG: found out by booting a guest, never by looking at the device node.
//!
//! The answer is remembered until this machine boots again or its QEMU changes.

use super::super::TargetError;
use super::Accel;
use super::snapshot::Recipe;
use crate::machine::cache::Cache;
use crate::machine::scratch::Scratch;
use crate::machine::{digest::Digest, infra};
use std::fs::{self, OpenOptions};
use std::time::Duration;

/// With KVM that works a stock kernel is up in a second or two.
const PATIENCE: Duration = Duration::from_secs(30);
/// The device.
const NODE: &str = "/dev/kvm";

/// An accelerator, and why it was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// KVM, else TCG.
    pub kvm: bool,
    /// Why, in half a sentence.
    pub reason: String,
}

/// Chooses for a recipe.
pub fn choose(
    want: Accel,
    recipe: &Recipe,
    cache: &Cache,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<Choice, TargetError> {
    if want == Accel::Tcg {
        return Ok(Choice { kvm: false, reason: "asked for".into() });
    }
    let answer = works(recipe, cache, progress)?;
    match (want, answer) {
        (Accel::Kvm, Err(why)) => Err(infra(format!("KVM does not work here: {why}"))),
        (_, Err(why)) => {
            Ok(Choice { kvm: false, reason: format!("KVM does not work here: {why}") })
        }
        (_, Ok(())) => Ok(Choice { kvm: true, reason: "a guest boots with KVM".into() }),
    }
}

/// Whether a guest boots with KVM; why not otherwise.
fn works(
    recipe: &Recipe,
    cache: &Cache,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<Result<(), String>, TargetError> {
    if let Err(error) = OpenOptions::new().read(true).write(true).open(NODE) {
        return Ok(Err(format!("{NODE}: {error}")));
    }
    let host = ["/proc/sys/kernel/random/boot_id", "/proc/version"]
        .map(|path| fs::read_to_string(path).unwrap_or_default());
    let key = host.iter().fold(Digest::default(), |d, part| d.with(part.as_bytes()));
    let fact = format!("kvm-{}", key.with(recipe.version.as_bytes()));
    // One process finds out, the others wait for its answer.
    let _lock = cache.lock(&fact)?;
    if let Some(text) = cache.recall(&fact) {
        return Ok(match text.trim() {
            "works" => Ok(()),
            why => Err(why.to_string()),
        });
    }
    progress("finding out whether KVM works");
    let scratch = Scratch::new(cache, 0)?;
    let probe = Recipe { kvm: true, ..recipe.clone() };
    let answer = match probe.boot(&scratch, PATIENCE) {
        Ok(_) => Ok(()),
        Err(TargetError::Boot { what, .. } | TargetError::Infra(what)) => Err(first_line(&what)),
        Err(other) => return Err(other),
    };
    cache.remember(&fact, answer.as_ref().map_or_else(String::as_str, |()| "works"))?;
    Ok(answer)
}

/// The part of a long story that names the cause: what QEMU itself said first, else the first line.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or("no reason given").trim_end_matches(':');
    let cause = line.split("error: ").nth(1).unwrap_or(line);
    cause.split(';').next().unwrap_or(cause).trim().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_short() {
        let text = "/usr/bin/qemu did not start: closed: qemu: error: failed to set MSR 0x10a; qemu: x.c: Assertion";
        assert_eq!(first_line(text), "failed to set MSR 0x10a");
        assert_eq!(first_line("it went down; last words:\nabc"), "it went down");
    }
}
