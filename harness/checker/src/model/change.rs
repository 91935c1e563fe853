//! Which files a call changes the layout of, and where.

use super::{PAGE, World, page_down, page_up};
use crate::policy::{Change, LayoutRow, Term, When};
use history::Payload;
use program::{Advice, Call, FallocateMode, OpenFlags};

/// A file that a call changes the layout of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Which.
    pub file: usize,
    /// How.
    pub change: Change,
    /// Pages that surely go away if it succeeds; none where start and end are the same.
    pub taken: (u64, u64),
    /// Pages that it may touch at all.
    pub touched: (u64, u64),
    /// Whether it surely is this file, and whether the call surely comes to its work if it succeeds.
    pub certain: bool,
}

impl World<'_> {
    /// The layouts that a call changes, by what is known when it has returned or the program is over.
    pub fn changes(&self, call: u16) -> Vec<Changed> {
        let span = self.span(call);
        let one = |file: usize, change, taken: (u64, u64), touched: (u64, u64), certain| {
            vec![Changed { file, change, taken, touched, certain }]
        };
        let size = |file: usize, len: u64, certain| {
            one(file, Change::Size, (page_up(len), u64::MAX), (page_down(len), u64::MAX), certain)
        };
        match self.call_of(call) {
            Call::Open { path, flags, .. } if flags.has(OpenFlags::TRUNC) => {
                match self.fds.get(&call) {
                    Some(open) => size(self.opens[*open].file, 0, true),
                    None => self.named(call, *path).flat_map(|f| size(f, 0, false)).collect(),
                }
            }
            Call::Truncate { path, len } => {
                let files: Vec<usize> = self.named(call, *path).collect();
                let certain = files.len() == 1;
                files.into_iter().flat_map(|f| size(f, *len, certain)).collect()
            }
            Call::Ftruncate { len, .. } => {
                self.file_in(call, 0).map_or(Vec::new(), |file| size(file, *len, true))
            }
            Call::Fallocate { mode, offset, len, .. } => {
                let (Some(file), Some(change)) = (self.file_in(call, 0), Change::of(*mode)) else {
                    return Vec::new();
                };
                let end = offset.saturating_add(*len);
                let shifts = matches!(change, Change::Collapse | Change::Insert);
                let touched = if shifts {
                    (page_down(*offset), u64::MAX)
                } else {
                    (page_down(*offset), page_up(end))
                };
                let taken = match *mode {
                    _ if shifts => touched,
                    FallocateMode::PunchHole
                    | FallocateMode::ZeroRange
                    | FallocateMode::ZeroRangeKeepSize => (page_up(*offset), page_down(end)),
                    _ => (0, 0),
                };
                one(file, change, taken, touched, true)
            }
            Call::Madvise { offset, len, advice: Advice::Remove, .. } => {
                let Some(map) = self.map_in(call, 0) else { return Vec::new() };
                let start = map.offset + offset;
                let end = page_up(start.saturating_add(*len));
                let range = (page_down(start), end);
                one(map.file, Change::Punch, range, range, *len > 0)
            }
            Call::Ficlone { .. } => self.shared(call, (0, 1), (0, 0), u64::MAX),
            Call::Ficlonerange { dst_offset, src_offset, len, .. } => {
                let len = if *len == 0 { u64::MAX } else { *len };
                self.shared(call, (0, 1), (*dst_offset, *src_offset), len)
            }
            Call::Fideduperange { src_offset, dst_offset, len, .. } => {
                let mut all = self.shared(call, (1, 0), (*dst_offset, *src_offset), *len);
                let same = matches!(
                    self.seen[call as usize].payload,
                    Some(Payload::Dedupe { status: 0 | 1 })
                );
                all.iter_mut().for_each(|c| c.certain &= same && *len > 0);
                all
            }
            Call::CopyFileRange { src_offset, dst_offset, len, .. } => {
                let mut all = self.shared(call, (1, 0), (*dst_offset, *src_offset), *len);
                let moved = matches!(self.seen[call as usize].result, Some(Ok(n)) if n > 0);
                // It falls back to a copy when the reflink fails, by whatever errno.
                let fell_back = all.iter().any(|c| self.files[c.file].is_dax());
                all.iter_mut().for_each(|c| c.certain &= moved && fell_back);
                all
            }
            _ => {
                debug_assert!(span.call == call, "spans name their call");
                Vec::new()
            }
        }
    }

    /// Destination and source of a reflink; on other file systems, and between file systems, it changes no layout.
    fn shared(
        &self,
        call: u16,
        (dst, src): (usize, usize),
        (dst_offset, src_offset): (u64, u64),
        len: u64,
    ) -> Vec<Changed> {
        let (Some(dst), Some(src)) = (self.file_in(call, dst), self.file_in(call, src)) else {
            return Vec::new();
        };
        let (a, b) = (&self.files[dst], &self.files[src]);
        if !a.is_xfs() || a.mount() != b.mount() {
            return Vec::new();
        }
        let range =
            |offset: u64| (page_down(offset), page_up(offset.saturating_add(len).min(1 << 40)));
        // What surely is replaced: as much as the source surely has.
        let (min, _) = self.sizes(src, self.span(call), Some(call));
        let some = len.min(min.saturating_sub(src_offset));
        let taken = match some {
            0 => (0, 0),
            some => (page_down(dst_offset), page_up(dst_offset.saturating_add(some))),
        };
        let change = Change::Share;
        // The source keeps its blocks.
        vec![
            Changed { file: dst, change, taken, touched: range(dst_offset), certain: true },
            Changed { file: src, change, taken: (0, 0), touched: range(src_offset), certain: true },
        ]
    }

    /// The file in a call's n-th slot.
    pub fn file_in(&self, call: u16, n: usize) -> Option<usize> {
        self.open_in(call, n).map(|open| self.opens[open].file)
    }

    /// Files that a path may have led a call to.
    pub fn named(&self, call: u16, path: program::Path) -> impl Iterator<Item = usize> + use<> {
        let span = self.span(call);
        let name = path.name as usize;
        let mut files: Vec<usize> = self
            .name_states(path.mount, span, None)
            .iter()
            .filter_map(|s| s[name])
            .map(|f| f as usize)
            .collect();
        if self.names_in_motion(path.mount, span) {
            files = (0..self.files.len()).filter(|f| self.files[*f].on(path.mount)).collect();
        }
        files.sort_unstable();
        files.dedup();
        files.into_iter()
    }

    /// What the policy says of a change that meets a held page.
    pub fn row(&self, changed: &Changed, term: Term) -> Option<&'static LayoutRow> {
        let mount = self.files[changed.file].mount()?;
        self.policy.tables.layout(changed.change, mount, term)
    }

    /// Whether a change surely comes to the place where it looks for held pages.
    pub fn looks(&self, call: u16, changed: &Changed, row: &LayoutRow) -> bool {
        let (min, _) = self.sizes(changed.file, self.span(call), Some(call));
        match row.when {
            When::Always => true,
            When::InsideFile => changed.touched.0.saturating_add(PAGE) <= min,
            When::WholeBlock => changed.taken.0 < changed.taken.1,
        }
    }
}
