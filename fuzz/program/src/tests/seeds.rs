//! The hand-written programs of the corpus are programs, and mean what they say.

use crate::Program;
use std::path::{Path, PathBuf};

fn programs_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the entry can be read").path();
        if path.is_dir() {
            programs_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "prog") {
            found.push(path);
        }
    }
}

#[test]
fn every_seed_parses_and_needs_no_repair() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpora/seeds");
    let mut found = Vec::new();
    programs_below(&folder, &mut found);
    assert!(found.len() >= 8, "only {} seeds in {}", found.len(), folder.display());
    for path in found {
        let bytes = std::fs::read(&path).expect("the seed can be read");
        let program =
            Program::parse_bytes(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(!program.lines.is_empty(), "{}", path.display());
        let mut fixed = program.clone();
        fixed.fixup();
        assert_eq!(fixed.to_string(), program.to_string(), "{}", path.display());
    }
}
