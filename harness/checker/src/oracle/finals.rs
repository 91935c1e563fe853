//! Is what lies on the file systems at the end what the calls left there, by every path of reading?
//!
//! Verifies: names and identities; size and every byte by read, O_DIRECT, mapping, after drop_caches, after remount, and on the media behind the extents;
//! that no two files own one block; fsck.
//! Assumes: nothing runs any more.
//! Does not verify: timestamps and block counts.

use super::{Findings, bytes, file_name, seeks};
use crate::model::World;
use crate::model::order::{NOBODY, Span};
use crate::model::value::compare;
use crate::{Anomaly, AnomalyKind, Oracle};
use history::{Bytes, CallResult, Extent, FileFacts, FileId, ReadPath, errno};
use program::{Mount, Path};
use std::collections::BTreeMap;

/// A time after everything.
pub const AFTER: Span = Span { inv: u64::MAX - 1, ret: u64::MAX - 1, call: NOBODY };

/// Extents seen so far, for the overlap check.
#[derive(Debug, Default)]
pub struct Media {
    extents: BTreeMap<Mount, Vec<(Extent, FileId, Path)>>,
}

fn by_name(by: ReadPath) -> &'static str {
    match by {
        ReadPath::Read => "read at the end",
        ReadPath::Direct => "O_DIRECT read at the end",
        ReadPath::Mapping => "mapping at the end",
        ReadPath::AfterDropCaches => "read after drop_caches",
        ReadPath::AfterRemount => "read after remount",
        ReadPath::Media => "the media after a clean unmount",
    }
}

fn anomaly(
    kind: AnomalyKind,
    oracle: Oracle,
    path: Option<Path>,
    mount: Mount,
    sentence: String,
) -> Anomaly {
    Anomaly { kind, oracle, call: None, path, mount: Some(mount), sentence }
}

/// Looks at one file's final content by one path.
pub fn file(
    world: &mut World,
    path: Path,
    by: ReadPath,
    facts: &FileFacts,
    result: CallResult,
    data: &Bytes,
    findings: &mut Findings,
) {
    let Some(file) = world.known_file(facts.id) else {
        findings.push(anomaly(
            AnomalyKind::WrongResult,
            Oracle::Media,
            Some(path),
            path.mount,
            format!("{}: {} is a file that no call made.", by_name(by), path.file_name()),
        ));
        return;
    };
    let oracle = if matches!(by, ReadPath::Media | ReadPath::AfterRemount) {
        Oracle::Media
    } else {
        Oracle::Bytes
    };
    let name = file_name(world, file);
    if let Err(errno) = result {
        findings.push(anomaly(
            AnomalyKind::UnexplainedErrno,
            Oracle::Errnos,
            Some(path),
            path.mount,
            format!("{} of {name} failed with {}.", by_name(by), errno::name(errno)),
        ));
        return;
    }
    let sizes = world.files[file].size.during(AFTER, None, &world.order);
    let got: u64 = data.runs.iter().map(history::Run::len).fold(0, u64::saturating_add);
    // Known: what was never written does not count into the size on the media either, and that is what comes back.
    let from_media =
        matches!(by, ReadPath::AfterDropCaches | ReadPath::AfterRemount | ReadPath::Media);
    let never_written = world.files[file].never_written && from_media;
    let shorter = never_written && sizes.iter().any(|s| facts.size < *s);
    if !(sizes.contains(&facts.size) || shorter) || got != facts.size {
        findings.push(anomaly(
            AnomalyKind::WrongResult,
            oracle,
            Some(path),
            path.mount,
            format!(
                "{}: {name} has size {} ({got} bytes read); allowed: {sizes:?}.",
                by_name(by),
                facts.size
            ),
        ));
        return;
    }
    world.files[file].size.reset(vec![facts.size]);
    let obj = world.files[file].obj;
    let cands = world.cands(obj, 0, facts.size, AFTER);
    if let Some(wrong) = compare(&cands, world.run, 0, &data.runs) {
        let reader = by_name(by);
        let before = findings.is_empty();
        bytes::report(world, findings, None, obj, AFTER, &wrong, reader);
        if before && oracle == Oracle::Media {
            findings.reattribute(Oracle::Media);
        }
        return;
    }
    // Where page cache and device may disagree, one look does not settle what another sees.
    if world.files[file].one_look_settles() {
        world.learn(obj, 0, &data.runs, AFTER);
    }
}

/// Looks at the names that are there at the end.
pub fn names(
    world: &mut World,
    by: ReadPath,
    mount: Mount,
    names: &[(u8, FileId)],
    findings: &mut Findings,
) {
    let states = world.name_states(mount, AFTER, None);
    let mut seen = [None; program::NAMES_MAX as usize];
    for (name, id) in names {
        match (seen.get_mut(*name as usize), world.known_file(*id)) {
            (Some(slot), Some(file)) => *slot = Some(file as u32),
            _ => {
                let path = Path { mount, name: *name };
                findings.push(anomaly(
                    AnomalyKind::WrongResult,
                    Oracle::Media,
                    Some(path),
                    mount,
                    format!("{}: there is a file that no call made.", by_name(by)),
                ));
                return;
            }
        }
    }
    if !states.contains(&seen) {
        let show = |state: &[Option<u32>]| {
            let list: Vec<String> = state
                .iter()
                .enumerate()
                .filter_map(|(n, f)| f.map(|f| format!("{}=file {f}", (b'a' + n as u8) as char)))
                .collect();
            format!("[{}]", list.join(" "))
        };
        let allowed: Vec<String> = states.iter().map(|s| show(s)).collect();
        findings.push(anomaly(
            AnomalyKind::WrongResult,
            Oracle::Errnos,
            None,
            mount,
            format!(
                "{}: {} holds {}; allowed: {}.",
                by_name(by),
                mount.name(),
                show(&seen),
                allowed.join(" or ")
            ),
        ));
    }
    if let Some(register) = world.names.get_mut(&mount) {
        register.reset(vec![seen]);
    }
}

/// Looks at one file's extents: with its content, and against the other files'.
pub fn extents(
    world: &World,
    media: &mut Media,
    path: Path,
    id: FileId,
    extents: &[Extent],
    findings: &mut Findings,
) {
    if let Some(file) = world.known_file(id) {
        seeks::fiemap(world, None, file, AFTER, extents, "FIEMAP at the end", findings);
    }
    let known = media.extents.entry(id.mount).or_default();
    if known.iter().any(|(_, other, _)| *other == id) {
        return;
    }
    for extent in extents.iter().filter(|e| e.flags & seeks::NO_PLACE == 0) {
        let end = extent.physical.saturating_add(extent.length);
        for (other, _, other_path) in known.iter() {
            let overlap = other.physical < end
                && extent.physical < other.physical.saturating_add(other.length);
            let shared = extent.flags & other.flags & seeks::SHARED != 0;
            if overlap && !shared {
                findings.push(anomaly(
                    AnomalyKind::FsckError,
                    Oracle::Media,
                    Some(path),
                    id.mount,
                    format!(
                        "{} and {} both own the block at {:#x} of {}.",
                        path.file_name(),
                        other_path.file_name(),
                        extent.physical.max(other.physical),
                        id.mount.name()
                    ),
                ));
                return;
            }
        }
    }
    known.extend(extents.iter().map(|e| (*e, id, path)));
}

/// Looks at what fsck said.
pub fn fsck(world: &World, mount: Mount, text: &str, findings: &mut Findings) {
    // Known: written blocks behind the end of file are what e2fsck calls a wrong i_size. Any other complaint beside it still counts.
    let complaints: Vec<&str> =
        text.lines().filter(|l| l.contains("Inode ") || l.contains("ERROR")).collect();
    let size_only = complaints.iter().all(|l| l.contains("i_size is ")) && !complaints.is_empty();
    if mount == Mount::Ext4 && size_only && world.policy.knows(crate::Known::DirectWriteFault) {
        return;
    }
    let first: Vec<&str> = text.lines().take(6).collect();
    findings.push(anomaly(
        AnomalyKind::FsckError,
        Oracle::Media,
        None,
        mount,
        format!("fsck of {} found damage: {}.", mount.name(), first.join(" / ")),
    ));
}
