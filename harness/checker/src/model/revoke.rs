//! Pages that a change of layout took away from whoever held or mapped them, where the policy says that it does.

use super::file::Map;
use super::order::{NEVER, Span};
use super::{PAGE, World};
use crate::policy::{Meets, Term};
use history::Payload;

impl World<'_> {
    /// Offsets of a mapping's range from which on a page may be, and surely is, taken away during a span.
    pub(super) fn taken_away(
        &self,
        filler: u16,
        map: &Map,
        (start, end): (u64, u64),
        span: Span,
    ) -> (Option<u64>, Option<u64>) {
        let (mut may, mut must): (Option<u64>, Option<u64>) = (None, None);
        if self.revokes().next().is_none() {
            return (None, None);
        }
        let holds = self.holds();
        for (by, changed) in self.revokes() {
            let other = self.span(by);
            // A mapping made afterwards shows what the file holds now.
            let mapped = self.span(filler);
            if changed.file != map.file || other.inv > span.ret || mapped.inv > other.ret {
                continue;
            }
            let long = holds.iter().filter(|h| h.file == map.file && h.term == Term::Long);
            for hold in long.filter(|h| h.meets(other.inv, other.ret)) {
                let within = |r: (u64, u64)| r.0 <= hold.page && hold.page < r.1;
                let from = hold.page.saturating_sub(map.offset).max(start);
                let here = hold.page + PAGE > map.offset + start && hold.page < map.offset + end;
                if !here {
                    continue;
                }
                if within(changed.touched) {
                    may = Some(may.map_or(from, |m| m.min(from)));
                }
                // A private copy is no page of the file, and stays.
                let sure = within(changed.taken)
                    && changed.certain
                    && map.private.is_none()
                    && hold.covers(other.inv, other.ret)
                    && other.ret != NEVER
                    && other.ret < span.inv
                    && mapped.ret < other.inv
                    && hold.page >= map.offset;
                if sure {
                    must = Some(must.map_or(from, |m| m.min(from)));
                }
            }
        }
        (may, must)
    }

    /// Changes that take pages away from their holders.
    fn revokes(&self) -> impl Iterator<Item = (u16, super::change::Changed)> + '_ {
        self.changed.iter().flat_map(move |(by, changes)| {
            let seen = &self.seen[*by as usize];
            // What is not the same stays where it is.
            let differs = matches!(seen.payload, Some(Payload::Dedupe { status }) if *status != 0);
            let failed = differs || matches!(seen.result, Some(Err(_)));
            let takes = changes.iter().filter(move |c| {
                !failed && self.row(c, Term::Long).is_some_and(|r| r.meets == Meets::TakesAway)
            });
            takes.map(move |c| (*by, *c))
        })
    }

    /// Whether the pages of a registered buffer that a transfer names may have been taken away.
    pub fn may_be_taken(&self, call: u16) -> bool {
        self.map_in(call, 1).is_some_and(|map| self.may_lose_pages(call, map.file))
    }

    /// Whether pages of a file may have been taken away from whoever pinned them, before a call or meanwhile.
    pub fn may_lose_pages(&self, call: u16, file: usize) -> bool {
        let span = self.span(call);
        let racing = self.any_overlap(call, |k| {
            self.changes(k).iter().any(|c| {
                c.file == file
                    && self.row(c, Term::Long).is_some_and(|r| r.meets == Meets::TakesAway)
            })
        });
        racing || self.revokes().any(|(by, c)| c.file == file && self.span(by).inv <= span.ret)
    }
}
