//! Did the kernel complain?
//!
//! Verifies: every splat on the console has an allowed reason, and the kernel is alive at the end.
//! Assumes: the target's console parser found what is a splat.
//! Does not verify: messages that are not splats.

use super::Findings;
use crate::model::{World, is_dax_splat};
use crate::{Anomaly, AnomalyKind, Oracle};
use history::{Down, Splat};

/// Where dax_disassociate_entry warns about page->mapping, in 6.12.117 and 6.1.192: the kernels of which something is known. Its other warning, that a
/// page goes which somebody holds (`trunc && page_ref_count(page) > 1`), is about this program.
const WRONG_MAPPING: [&str; 2] =
    ["fs/dax.c:396 dax_disassociate_entry", "fs/dax.c:404 dax_disassociate_entry"];

/// Whether a complaint is not the one that a page goes which somebody holds.
fn frees_nothing_held(splat: &Splat) -> bool {
    !splat.title.contains("dax_disassociate_entry")
        || WRONG_MAPPING.iter().any(|place| splat.text.contains(place))
}

/// Looks at a complaint.
pub fn splat(world: &World, splat: &Splat, findings: &mut Findings) {
    // An O_DIRECT write that raced with something that dirtied its pages says so, by design (mm/filemap.c:dio_warn_stale_pagecache, 6.12).
    let direct_race = world.files.iter().any(|f| !f.incoherent.is_empty());
    if direct_race
        && splat.title.to_lowercase().contains("page cache invalidation failure on direct i/o")
    {
        return;
    }
    // gup_test says so of a page that nobody needs to pin.
    if splat.title.contains("gup_test") && world.tests_zero_page() {
        return;
    }
    // Known: the file went, its page is held.
    if splat.title.contains("dax_disassociate_entry") && world.evicts_held() {
        return;
    }
    // insert_pfn looks at a page table of this very program. What the others look at belongs to the page of the device, which an earlier
    // run of the guest may have left in that state (fs/dax.c:dax_associate_entry, page->mapping, 6.12); but not its references, which end
    // with their program.
    let xfs_dax = world.files.iter().any(|f| f.on(program::Mount::XfsDax));
    let left = !splat.title.contains("insert_pfn")
        && frees_nothing_held(splat)
        && xfs_dax
        && world.policy.knows(crate::Known::XfsDaxReflinkFault);
    if is_dax_splat(splat) && (left || world.reflink_faults()) {
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
pub fn down(world: &World, down: Down, findings: &mut Findings) {
    // Known: a fault that is taken for ever. What the lane was still to do waits behind it, until the guest's time is over.
    if down == Down::Hang && (world.reflink_livelock() || world.pin_livelock_unseen()) {
        return;
    }
    let (kind, oracle, sentence) = match down {
        Down::Panic => (AnomalyKind::Splat, Oracle::Console, "the kernel died."),
        Down::Hang => (
            AnomalyKind::Hang,
            Oracle::Liveness,
            "the guest stood still: its agent showed no sign of life, or did not come to the program's end in time.",
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
