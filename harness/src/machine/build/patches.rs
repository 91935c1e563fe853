//! Patches: files and mboxes as git writes them, applied in order to copies of the files that they change.
//!
//! What comes of them is an overlay; no tree is touched here, and a patch that does not apply leaves nothing behind. Only unified diffs
//! are handed to patch(1), and only their own lines: it would run an ed script, and follow an `Index:` line anywhere.

use super::BuildError;
use super::tree::{Changed, Overlay};
use crate::machine::digest::Digest;
use crate::machine::{file_trouble, infra, output, quote};
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

/// Most bytes of a patch file: the whole patch from one kernel to the next has some 50 MB.
const BYTES_MAX: u64 = 128 << 20;
/// Most characters of a subject in a message.
const SUBJECT_MAX: usize = 100;

/// One patch: a file, or a message of an mbox.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    /// The file it came in.
    file: String,
    /// Its number in the mbox and how many there are, if there is more than one.
    number: Option<(usize, usize)>,
    subject: Option<String>,
    sections: Vec<Section>,
    /// All of it, for digests.
    pub text: Vec<u8>,
}

/// What a patch does to one file.
#[derive(Clone, Debug, Default)]
struct Section {
    /// Where it was, if it was there.
    old: Option<PathBuf>,
    /// Where it will be, if it will.
    new: Option<PathBuf>,
    /// Headers and hunks, for patch(1).
    diff: Vec<u8>,
    hunks: usize,
}

impl fmt::Display for Patch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some((number, of)) = self.number {
            write!(f, ", patch {number} of {of}")?;
        }
        match &self.subject {
            Some(subject) => write!(f, " (\"{subject}\")"),
            None => Ok(()),
        }
    }
}

impl Patch {
    /// Name and digest, for the record.
    pub fn digested(&self) -> (String, String) {
        (self.to_string(), Digest::default().with(&self.text).to_string())
    }

    /// Whether a line of a compiler's is about a file that it changes.
    pub fn names(&self, line: &str) -> bool {
        let file = Path::new(line.split(':').next().unwrap_or_default());
        self.sections.iter().any(|s| s.new.as_deref() == Some(file))
    }

    fn wrong(&self, what: impl fmt::Display) -> BuildError {
        BuildError::wrong(
            format!("{self}: {what}"),
            "give a unified diff or an mbox, as `git format-patch` writes them",
        )
    }

    fn unfit(&self, what: impl fmt::Display) -> BuildError {
        BuildError::failed(
            format!("{self} does not apply: {what}"),
            "the patches are applied in the order of the command line, without fuzz; nothing was changed",
        )
    }
}

/// Reads patch files, each as one patch or as many messages.
pub fn read(files: &[PathBuf]) -> Result<Vec<Patch>, BuildError> {
    let mut all = Vec::new();
    for path in files {
        let name = path.to_string_lossy().escape_debug().to_string();
        let mut bytes = Vec::new();
        fs::File::open(path)
            .and_then(|file| file.take(BYTES_MAX).read_to_end(&mut bytes))
            .map_err(|e| {
                BuildError::wrong(
                    format!("cannot read patch {name}: {e}"),
                    "check the path and its permissions",
                )
            })?;
        let messages = messages(&bytes);
        let mut patches = Vec::new();
        for (number, message) in messages.iter().enumerate() {
            let number = (messages.len() > 1).then_some((number + 1, messages.len()));
            patches.push(parse(&name, number, message)?);
        }
        // A cover letter changes nothing.
        patches.retain(|patch| !patch.sections.is_empty());
        if patches.is_empty() {
            let patch = Patch { file: name, ..Patch::default() };
            return Err(patch.wrong("there is no diff in it"));
        }
        all.append(&mut patches);
    }
    Ok(all)
}

/// Lines with their ends.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|b| *b == b'\n')
}

/// The messages of an mbox; a plain diff is one. A message begins with `From `, at the beginning or after an empty line, and headers follow.
fn messages(bytes: &[u8]) -> Vec<&[u8]> {
    let mut starts = vec![0];
    let (mut at, mut after_empty) = (0, true);
    for line in lines(bytes) {
        if line.starts_with(b"From ")
            && after_empty
            && is_header(&bytes[at + line.len()..])
            && at > 0
        {
            starts.push(at);
        }
        after_empty = line == b"\n" || line == b"\r\n";
        at += line.len();
    }
    starts.push(bytes.len());
    starts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

/// Whether a text begins with a mail's header.
fn is_header(text: &[u8]) -> bool {
    let line = lines(text).next().unwrap_or_default();
    let name = line.split(|b| *b == b':').next().unwrap_or_default();
    name.len() < line.len() && !name.is_empty() && name.iter().all(|b| b.is_ascii_graphic())
}

fn parse(file: &str, number: Option<(usize, usize)>, bytes: &[u8]) -> Result<Patch, BuildError> {
    let mut patch = Patch { file: file.into(), number, text: bytes.to_vec(), ..Patch::default() };
    patch.subject = header(bytes, "subject");
    if let Some(how) = header(bytes, "content-transfer-encoding")
        && ["base64", "quoted-printable"].contains(&how.to_ascii_lowercase().as_str())
    {
        return Err(patch.wrong(format!(
            "its text is encoded ({how}); save it with `git mailinfo` or `b4 am`"
        )));
    }
    let all: Vec<&[u8]> = lines(bytes).collect();
    let mut at = 0;
    let mut current: Option<Section> = None;
    while at < all.len() {
        let line = trimmed(all[at]);
        let next = all.get(at + 1).map(|line| trimmed(line));
        let text = String::from_utf8_lossy(line).into_owned();
        if let Some(names) = text.strip_prefix("diff --git ") {
            finish(&mut patch, current.take());
            let mut section = Section::default();
            if let Some((old, new)) = same_names(names) {
                section.old = Some(path(&patch, old)?);
                section.new = Some(path(&patch, new)?);
            }
            section.diff.extend_from_slice(all[at]);
            current = Some(section);
        } else if text.starts_with("--- ") && next.is_some_and(|next| next.starts_with(b"+++ ")) {
            // Without git's line, each such pair begins a file.
            if current.as_ref().is_none_or(|section| section.hunks > 0) {
                finish(&mut patch, current.take());
                current = Some(Section::default());
            }
            let section = current.get_or_insert_default();
            section.old = named(&patch, &text[4..])?;
            section.new = named(&patch, &String::from_utf8_lossy(&next.unwrap_or_default()[4..]))?;
            section.diff.extend_from_slice(all[at]);
            section.diff.extend_from_slice(all[at + 1]);
            at += 1;
        } else if let (Some(section), Some((old, new))) = (&mut current, hunk(&text)) {
            let taken = body(&all[at + 1..], old, new).ok_or_else(|| {
                patch.wrong(format!(
                    "hunk {} of {} is cut short",
                    section.hunks + 1,
                    shown(section)
                ))
            })?;
            for line in &all[at..=at + taken] {
                section.diff.extend_from_slice(line);
            }
            if !section.diff.ends_with(b"\n") {
                section.diff.push(b'\n');
            }
            section.hunks += 1;
            at += taken;
        } else if let Some(section) = current.as_mut().filter(|section| section.hunks == 0) {
            extended(&patch, section, &text)?;
            if EXTENDED.iter().any(|word| text.starts_with(word)) {
                section.diff.extend_from_slice(all[at]);
            }
        }
        at += 1;
    }
    finish(&mut patch, current);
    Ok(patch)
}

/// Git's further header lines.
const EXTENDED: [&str; 10] = [
    "old mode ",
    "new mode ",
    "deleted file mode ",
    "new file mode ",
    "rename from ",
    "rename to ",
    "copy from ",
    "copy to ",
    "similarity index ",
    "index ",
];

/// Learns from one of git's header lines.
fn extended(patch: &Patch, section: &mut Section, line: &str) -> Result<(), BuildError> {
    if line.starts_with("GIT binary patch")
        || (line.starts_with("Binary files ") && line.ends_with(" differ"))
    {
        return Err(patch.wrong(format!("it changes a binary file, {}", shown(section))));
    }
    let mode = ["new file mode ", "new mode ", "deleted file mode "];
    if let Some(mode) = mode.iter().find_map(|word| line.strip_prefix(word))
        && !mode.trim().starts_with("100")
    {
        return Err(patch.wrong(format!(
            "{} is no plain file (mode {})",
            shown(section),
            mode.escape_debug()
        )));
    }
    if line.starts_with("new file mode ") {
        section.old = None;
    } else if line.starts_with("deleted file mode ") {
        section.new = None;
    }
    for (word, old) in
        [("rename from ", true), ("copy from ", true), ("rename to ", false), ("copy to ", false)]
    {
        if let Some(name) = line.strip_prefix(word) {
            // These names have no a/ or b/ before them.
            let name = Some(path(patch, name)?);
            *if old { &mut section.old } else { &mut section.new } = name;
        }
    }
    Ok(())
}

fn finish(patch: &mut Patch, section: Option<Section>) {
    patch.sections.extend(section.filter(|s| s.old.is_some() || s.new.is_some()));
}

fn shown(section: &Section) -> String {
    let path = section.new.as_ref().or(section.old.as_ref());
    path.map_or("a file".into(), |path| path.display().to_string())
}

fn trimmed(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// A header of a mail, its folded lines joined.
fn header(bytes: &[u8], name: &str) -> Option<String> {
    let mut value: Option<String> = None;
    for line in lines(bytes) {
        let line = String::from_utf8_lossy(trimmed(line));
        if line.is_empty() || line.starts_with("diff ") || line.starts_with("--- ") {
            break;
        }
        match &mut value {
            Some(value) if line.starts_with([' ', '\t']) => {
                value.push(' ');
                value.push_str(line.trim());
            }
            Some(_) => break,
            None => {
                let found =
                    line.split_once(':').filter(|(word, _)| word.eq_ignore_ascii_case(name));
                value = found.map(|(_, text)| text.trim().to_string());
            }
        }
    }
    let text: String = value?.chars().filter(|c| !c.is_control()).take(SUBJECT_MAX).collect();
    Some(text)
}

/// Old and new length of a hunk, by its first line.
fn hunk(line: &str) -> Option<(usize, usize)> {
    let (ranges, _) = line.strip_prefix("@@ -")?.split_once(" @@")?;
    let (old, new) = ranges.split_once(" +")?;
    let length = |range: &str| match range.split_once(',') {
        Some((start, length)) => start.parse::<usize>().and(length.parse()).ok(),
        None => range.parse::<usize>().ok().map(|_| 1),
    };
    Some((length(old)?, length(new)?))
}

/// How many lines a hunk's body has.
fn body(lines: &[&[u8]], mut old: usize, mut new: usize) -> Option<usize> {
    let mut taken = 0;
    while old > 0 || new > 0 {
        let line = lines.get(taken)?;
        match line.first() {
            Some(b'-') => old = old.checked_sub(1)?,
            Some(b'+') => new = new.checked_sub(1)?,
            Some(b'\\') => {}
            // Some mailers cut the blank of an empty line.
            Some(b' ' | b'\n' | b'\r') => (old, new) = (old.checked_sub(1)?, new.checked_sub(1)?),
            _ => return None,
        }
        taken += 1;
    }
    let rest = lines.get(taken).is_some_and(|line| line.starts_with(b"\\ No newline"));
    Some(taken + usize::from(rest))
}

/// `a/NAME b/NAME`, if both are the same.
fn same_names(text: &str) -> Option<(&str, &str)> {
    let middle = text.len().checked_sub(1)? / 2;
    let (old, new) = (text.get(..middle)?, text.get(middle + 1..)?);
    let (old, new) = (old.strip_prefix("a/")?, new.strip_prefix("b/")?);
    (old == new).then_some((old, new))
}

/// The name of a `---` or `+++` line, without its first folder.
fn named(patch: &Patch, text: &str) -> Result<Option<PathBuf>, BuildError> {
    let name = text.split('\t').next().unwrap_or_default().trim_end();
    if name == "/dev/null" {
        return Ok(None);
    }
    let Some((first, rest)) = name.split_once('/') else {
        return Err(
            patch.wrong(format!("`{}` has no folder before it (a/, b/)", name.escape_debug()))
        );
    };
    if first.is_empty() {
        return Err(patch.wrong(format!("`{}` is an absolute path", name.escape_debug())));
    }
    path(patch, rest).map(Some)
}

/// A path that stays in the tree.
fn path(patch: &Patch, text: &str) -> Result<PathBuf, BuildError> {
    let path = Path::new(text);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    let printable =
        !text.chars().any(|c| c.is_control() || c == '"' || c == '\\' || c == '\u{fffd}');
    if text.is_empty() || !plain || !printable {
        return Err(patch.wrong(format!("`{}` is no path in a kernel tree", text.escape_debug())));
    }
    Ok(path.into())
}

/// Applies the patches to copies of the files that they name.
pub fn overlay(patches: &[Patch], tree: &Path) -> Result<Overlay, BuildError> {
    let mut overlay = Overlay::new();
    if patches.is_empty() {
        return Ok(overlay);
    }
    let staging =
        tempfile::tempdir().map_err(|e| infra(format!("creating a temporary folder: {e}")))?;
    let copies = staging.path().join("tree");
    let mut touched = BTreeSet::new();
    for patch in patches {
        for section in &patch.sections {
            for name in [&section.old, &section.new].into_iter().flatten() {
                if touched.insert(name.clone()) {
                    stage(patch, name, tree, &copies)?;
                }
            }
            apply(patch, section, &copies, staging.path())?;
        }
    }
    for name in touched {
        let path = copies.join(&name);
        let changed = match fs::symlink_metadata(&path) {
            Err(_) => None,
            Ok(meta) => Some(Changed {
                content: fs::read(&path).map_err(file_trouble("reading", &path))?,
                mode: meta.permissions().mode(),
            }),
        };
        overlay.insert(name, changed);
    }
    Ok(overlay)
}

/// Copies a file of the tree, if it is there, to where it may be changed.
fn stage(patch: &Patch, name: &Path, tree: &Path, copies: &Path) -> Result<(), BuildError> {
    // Through a link, a patch could reach out of the tree.
    let linked = |path: &&Path| fs::symlink_metadata(tree.join(path)).is_ok_and(|m| m.is_symlink());
    if let Some(link) = name.ancestors().find(linked) {
        return Err(patch.unfit(format!("{} is a symbolic link in this tree", link.display())));
    }
    let (from, to) = (tree.join(name), copies.join(name));
    if from.is_dir() {
        return Err(patch.unfit(format!("{} is a folder in this tree", name.display())));
    }
    let parent = to.parent().unwrap_or(copies);
    fs::create_dir_all(parent)
        .map_err(|_| patch.unfit(format!("{} is below a file", name.display())))?;
    if from.is_file() {
        fs::copy(&from, &to).map_err(file_trouble("copying", &from))?;
        // patch(1) asks before it writes to a file that is read-only.
        let mode = fs::metadata(&to).map_err(file_trouble("reading", &to))?.permissions().mode();
        fs::set_permissions(&to, PermissionsExt::from_mode(mode | 0o600))
            .map_err(file_trouble("writing", &to))?;
    }
    Ok(())
}

fn apply(
    patch: &Patch,
    section: &Section,
    copies: &Path,
    staging: &Path,
) -> Result<(), BuildError> {
    let there =
        |name: &Option<PathBuf>| name.as_ref().is_some_and(|name| copies.join(name).is_file());
    match (&section.old, &section.new) {
        (Some(old), _) if !there(&section.old) => {
            return Err(patch.unfit(format!("{} is not in this tree", old.display())));
        }
        (None, Some(new)) if there(&section.new) => {
            return Err(patch.unfit(format!("{} is in this tree already", new.display())));
        }
        _ => {}
    }
    let diff = staging.join("diff");
    fs::write(&diff, &section.diff).map_err(file_trouble("writing", &diff))?;
    let program = crate::machine::packages::expect("patch")?;
    let mut command = Command::new(program);
    command.env("LC_ALL", "C").arg("-d").arg(copies).arg("-i").arg(&diff);
    command.args([
        "-p1",
        "-u",
        "--fuzz=0",
        "--batch",
        "--forward",
        "--no-backup-if-mismatch",
        "-r",
        "-",
    ]);
    let output = output(&mut command)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        return Err(patch.unfit(format!("{}, {}", shown(section), why(&said, &quote(&output)))));
    }
    expected(patch, section, copies)
}

/// Where a file is to be gone or to be there, it is: an empty diff of a whole file would pass unseen.
fn expected(patch: &Patch, section: &Section, copies: &Path) -> Result<(), BuildError> {
    match &section.new {
        Some(new) if !copies.join(new).is_file() => {
            // patch(1) makes no file out of a header alone.
            let path = copies.join(new);
            Ok(fs::write(&path, "").map_err(file_trouble("writing", &path))?)
        }
        None if section.old.as_ref().is_some_and(|old| copies.join(old).exists()) => Err(patch
            .unfit(format!(
                "{} would be deleted, but it holds more than the patch knows",
                shown(section)
            ))),
        _ => Ok(()),
    }
}

/// What patch(1) says of a file, in a few words.
fn why(said: &str, rest: &str) -> String {
    if said.contains("previously applied") {
        return "the change is in this tree already".into();
    }
    let failed: Vec<String> = said
        .lines()
        .filter_map(|line| line.strip_prefix("Hunk #")?.split_once(" FAILED at "))
        .map(|(number, at)| format!("hunk {number} (at line {})", at.trim_end_matches('.')))
        .collect();
    if failed.is_empty() { rest.replace('\n', " ") } else { failed.join(", ") }
}
