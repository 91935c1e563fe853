//! Did the kernel complain?
//!
//! Verifies: every splat on the console has an allowed reason, and the kernel is alive at the end.
//! Assumes: the target's console parser found what is a splat.
//! Does not verify: messages that are not splats.

use super::Findings;
use crate::model::World;
use crate::{Anomaly, AnomalyKind, Oracle};
use history::{Down, Splat};

/// Looks at a complaint.
pub fn splat(world: &World, splat: &Splat, findings: &mut Findings) {
    // An O_DIRECT write that raced with something that dirtied its pages says so, by design (mm/filemap.c:dio_warn_stale_pagecache, 6.12).
    let direct_race = world.files.iter().any(|f| !f.incoherent.is_empty());
    if direct_race
        && splat.title.to_lowercase().contains("page cache invalidation failure on direct i/o")
    {
        return;
    }
    let reflink = ["dax_insert_entry", "dax_disassociate_entry", "insert_pfn"];
    // The page may have been left in that state by an earlier run of the guest.
    let xfs_dax = world.files.iter().any(|f| f.on(program::Mount::XfsDax));
    let known = xfs_dax && world.policy.knows(crate::Known::XfsDaxReflinkFault);
    if known && reflink.iter().any(|f| splat.title.contains(f)) {
        return;
    }
    findings.push(Anomaly {
        kind: AnomalyKind::Splat,
        oracle: Oracle::Console,
        call: None,
        path: None,
        mount: None,
        sentence: format!("the kernel complained: {}.", splat.title),
    });
}

/// Looks at how the guest went down.
pub fn down(down: Down, findings: &mut Findings) {
    let (kind, oracle, sentence) = match down {
        Down::Panic => (AnomalyKind::Splat, Oracle::Console, "the kernel died."),
        Down::Hang => (
            AnomalyKind::Hang,
            Oracle::Liveness,
            "the guest stood still: its agent showed no sign of life.",
        ),
        Down::Flood => (AnomalyKind::Splat, Oracle::Console, "the kernel flooded its console."),
    };
    findings.push(Anomaly {
        kind,
        oracle,
        call: None,
        path: None,
        mount: None,
        sentence: sentence.to_owned(),
    });
}
