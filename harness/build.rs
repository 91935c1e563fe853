//! Builds the agent, a static program for the guest, so that `pinfuzz` carries it along.
//!
//! Builds no kernel and no image.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The agent is linked statically against glibc, so it runs in a guest that holds nothing else, and no further
/// toolchain target has to be installed.
const TARGET: &str = "x86_64-unknown-linux-gnu";
const FLAGS: &str = "-C target-feature=+crt-static";

/// Names an agent that is built already, for packagers and for those whose agent does not build just now.
const PREBUILT: &str = "PINFUZZ_AGENT";

/// Everything that the agent is made from, relative to the workspace.
const SOURCES: [&str; 8] = [
    "vm-images/agent/Cargo.toml",
    "vm-images/agent/src",
    "harness/history/Cargo.toml",
    "harness/history/src",
    "fuzz/program/Cargo.toml",
    "fuzz/program/src",
    "Cargo.toml",
    "Cargo.lock",
];

fn main() {
    let harness = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let workspace = harness.parent().expect("harness lies in the workspace");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }
    println!("cargo::rerun-if-env-changed={PREBUILT}");
    let built = match env::var_os(PREBUILT) {
        Some(path) => PathBuf::from(path),
        None => build(workspace, &out.join("agent-target")),
    };
    std::fs::copy(&built, out.join("agent")).expect("the agent can be read");
}

fn build(workspace: &Path, target_dir: &Path) -> PathBuf {
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets it"));
    cargo.current_dir(workspace);
    cargo.args(["build", "--quiet", "--release", "--package", "agent", "--target", TARGET]);
    // Line tables carry the path of the build directory: without them the same source gives the same agent, and so
    // the same snapshot.
    cargo.args(["--config", "profile.release.debug=false"]);
    cargo.args(["--config", "profile.release.strip=true"]);
    // A directory of its own: the outer cargo holds the lock of the other one.
    cargo.arg("--target-dir").arg(target_dir);
    // What the outer build was told (sanitizers, clippy, another target) is not meant for the guest.
    for name in [
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_BUILD_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "CARGO_TARGET_DIR",
        "CLIPPY_ARGS",
    ] {
        cargo.env_remove(name);
    }
    cargo.env("RUSTFLAGS", FLAGS);
    let status = cargo.status().expect("cargo can be started");
    assert!(status.success(), "the agent does not build: {status}");
    target_dir.join(TARGET).join("release/agent")
}
