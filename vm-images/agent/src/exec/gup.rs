//! Issuing the calls of gup_test.

use super::{Exec, Issue};
use crate::io::Direction;
use crate::sys::{arena, fault, gup};
use history::stamp::sign;
use history::{Payload, SkipReason};
use program::{Buf, Call, PAGE, Program};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, open};
use std::sync::Arc;

/// Where the kernel has it.
const PATH: &str = "/sys/kernel/debug/gup_test";

/// `open("/sys/kernel/debug/gup_test")`: none where the kernel has none, or not the long-term tests, which came with 6.2.
pub fn open_gup_test() -> Option<OwnedFd> {
    let file = open(PATH, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).ok()?;
    gup::longterm_test_stop(file.as_fd()).ok()?;
    Some(file)
}

/// Most bytes that a line of the program pins for long, and so the most that there are to be read.
fn most_pinned(program: &Program) -> u64 {
    let pinned = program.lines.iter().filter_map(|line| match line.call {
        Call::PinLongtermTestStart { len, .. } => Some(len.next_multiple_of(PAGE)),
        _ => None,
    });
    pinned.max().unwrap_or(0).max(PAGE)
}

impl Exec<'_> {
    fn gup_file(&self) -> Issue<Arc<OwnedFd>> {
        self.table().lock().gup_test.clone().ok_or(SkipReason::Unsupported)
    }

    pub(super) fn gup_test(&mut self, call: &Call) -> Issue<()> {
        let file = self.gup_file()?;
        match *call {
            Call::PinLongtermTestStart { buf: Buf::Map(map, offset), len, flags } => {
                let span = self.part(map, offset, len)?;
                self.plain(|| gup::longterm_test_start(file.as_fd(), span, flags))
            }
            Call::PinLongtermTestStart { buf: Buf::Anon(at), len, flags } => {
                // Memory of its own, which nobody uses after it while it is pinned.
                let at = u64::from(at);
                let area = arena::anonymous(self.line, at + len);
                let area = area.map_err(|_| SkipReason::Unsupported)?;
                self.table().lock().areas.push(area);
                let span = area.span(at, len).ok_or(SkipReason::OutOfRange)?;
                let mut bytes = std::mem::take(&mut self.lane.scratch);
                bytes.resize(span.len(), 0);
                sign(&mut bytes, self.run.number, self.line as u16, 0);
                fault::store(span, &bytes);
                self.lane.scratch = bytes;
                self.plain(|| gup::longterm_test_start(file.as_fd(), span, flags))
            }
            Call::PinLongtermTestRead => {
                let part = self.place(Buf::Anon(0), most_pinned(&self.run.program))?;
                let transfer = self.transfer(Direction::Read, &[part])?;
                let result = self.issue(|| gup::longterm_test_read(file.as_fd(), transfer.span()));
                let end = self.moment();
                // The kernel does not say how much it was.
                let arrived = result.map(|_| transfer.touched().next_multiple_of(PAGE as usize));
                self.returned(end, result, || match arrived {
                    Ok(arrived) => transfer.payload(Ok(arrived as u64)),
                    Err(_) => Payload::None,
                })?;
                transfer.give_back(&mut self.lane.pool);
                Ok(())
            }
            Call::PinLongtermTestStop => self.plain(|| gup::longterm_test_stop(file.as_fd())),
            Call::PinBasicTest { map, offset, len, flags } => {
                // What comes after the last whole page would be no page at all, which the kernel is not asked for.
                if len == 0 || !len.is_multiple_of(PAGE) {
                    return Err(SkipReason::OutOfRange);
                }
                let span = self.part(map, offset, len)?;
                self.plain(|| gup::basic_test(file.as_fd(), span, flags))
            }
            _ => Err(SkipReason::Unsupported),
        }
    }
}
