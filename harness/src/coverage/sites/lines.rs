//! What stands at a call in the source, by the file's DWARF: functions, files and lines, through inlining.

use super::calls::Calls;
use super::{Elf, Place, Strings};
use addr2line::Context;
use addr2line::gimli::{Dwarf, EndianSlice, LittleEndian, SectionId};
use object::{CompressionFormat, Object, ObjectSection};
use std::collections::BTreeMap;

/// Where `TARGET` is defined in a kernel's tree. What comes before this in its path is the tree.
const HOME: &str = "/kernel/kcov.c";

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// Fills the table: every call with its symbol and frames. Without debug information the frame is the symbol.
pub(super) fn look_up(elf: &Elf<'_>, calls: &Calls, into: &mut Strings) -> Result<(), String> {
    let bad = |e| format!("its debug information cannot be read: {e}");
    let dwarf = Dwarf::load(|id| section(elf, id))?;
    let context = Context::from_dwarf(dwarf).map_err(bad)?;
    let trees = trees(&context, calls.target);
    let mut files = BTreeMap::new();
    into.table.starts.push(0);
    for call in &calls.all {
        let symbol = into.number(&call.symbol)?;
        // The return address is behind the call and may belong to the next line.
        let mut frames = context.find_frames(call.address - 1).skip_all_loads().map_err(bad)?;
        let mut any = false;
        while let Some(frame) = frames.next().map_err(bad)? {
            let function = match &frame.function {
                Some(function) => into.number(&function.raw_name().map_err(bad)?)?,
                None => symbol,
            };
            let path = frame.location.as_ref().and_then(|l| l.file).unwrap_or_default();
            let file = match files.get(path) {
                Some(file) => *file,
                None => {
                    let file = into.number(&relative(path, &trees))?;
                    files.insert(path.to_string(), file);
                    file
                }
            };
            let line = frame.location.and_then(|l| l.line).unwrap_or(0);
            into.table.frames.push(Place { function, file, line });
            any = true;
        }
        if !any {
            let file = into.number("")?;
            into.table.frames.push(Place { function: symbol, file, line: 0 });
        }
        into.table.pcs.push(call.address as u32);
        into.table.symbols.push(symbol);
        let end = into.table.frames.len();
        into.table.starts.push(u32::try_from(end).map_err(|_| "it has too many lines")?);
    }
    Ok(())
}

fn section<'a>(elf: &Elf<'a>, id: SectionId) -> Result<Slice<'a>, String> {
    let Some(section) = elf.section_by_name(id.name()) else {
        return Ok(EndianSlice::new(&[], LittleEndian));
    };
    let data =
        section.compressed_data().map_err(|e| format!("{} cannot be read: {e}", id.name()))?;
    if data.format != CompressionFormat::None {
        return Err(
            "its debug information is compressed: build with CONFIG_DEBUG_INFO_COMPRESSED_NONE"
                .into(),
        );
    }
    Ok(EndianSlice::new(data.data, LittleEndian))
}

/// The folders that paths are made relative to, the longest first: the tree of the source, and the one where it was built.
fn trees(context: &Context<Slice<'_>>, target: u64) -> Vec<String> {
    let mut trees = Vec::new();
    if let Ok(Some(home)) = context.find_location(target) {
        let path = plain(home.file.unwrap_or_default());
        trees.extend(path.strip_suffix(HOME).map(str::to_string));
    }
    let unit = context.find_dwarf_and_unit(target).skip_all_loads();
    if let Some(dir) = unit.and_then(|unit| unit.comp_dir) {
        trees.push(plain(&dir.to_string_lossy()));
    }
    trees.retain(|tree| !tree.is_empty());
    trees.sort_by_key(|tree| std::cmp::Reverse(tree.len()));
    trees
}

/// The path without what leads to its tree.
fn relative(path: &str, trees: &[String]) -> String {
    let path = plain(path);
    let inside = |tree: &String| path.strip_prefix(tree.as_str())?.strip_prefix('/');
    trees.iter().find_map(inside).unwrap_or(&path).to_string()
}

/// The path without `.`, `..` and doubled slashes. What is a link is not asked: the tree may be gone.
fn plain(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|p| !p.is_empty() && *p != ".") {
        match (part, parts.last()) {
            ("..", Some(last)) if *last != ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    let root = if path.starts_with('/') { "/" } else { "" };
    format!("{root}{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_relative_to_the_tree() {
        let trees = ["/k/linux-6.12/build".to_string(), "/k/linux-6.12".to_string()];
        for (path, expected) in [
            ("/k/linux-6.12/fs/dax.c", "fs/dax.c"),
            ("/k/linux-6.12/build/../fs/ext4/./inode.c", "fs/ext4/inode.c"),
            ("/k/linux-6.12/build/include/generated/x.h", "include/generated/x.h"),
            ("/k/linux-6.12-other/fs/dax.c", "/k/linux-6.12-other/fs/dax.c"),
            ("include//linux/mm.h", "include/linux/mm.h"),
            ("../../a.c", "../../a.c"),
            ("", ""),
        ] {
            assert_eq!(relative(path, &trees), expected, "{path}");
        }
    }
}
