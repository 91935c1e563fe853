//! Issuing one call as a request of a ring.
//!
//! Preparation is as for a system call; queues, chains and completions are the ring's own matter.

use super::bits::fallocate_bits;
use super::{Exec, Issue};
use crate::control::stage;
use crate::io::Direction;
use crate::ring::Pending;
use crate::sys::{arena, ring as requests};
use history::SkipReason;
use io_uring::opcode;
use program::{Call, SqeFlags, Via};
use rustix::fd::AsFd;
use std::sync::atomic::Ordering;

impl Exec<'_> {
    /// Issues the call as a request of a ring; a line without `&` waits for its completion, unless it begins a chain.
    pub(super) fn through_ring(&mut self, call: &Call, via: Via, detached: bool) -> Issue<()> {
        let fixed = via.flags.has(SqeFlags::FIXED);
        let mut transfer = None;
        let mut files = Vec::new();
        let (op, request) = match *call {
            Call::Pread { file, offset, buf, len } => {
                let file = self.any_file(file)?;
                let part = self.place(buf, len)?;
                let t = transfer.insert(self.transfer(Direction::Read, &[part])?);
                let (span, fd) = (t.span(), file.as_fd());
                let request = match fixed {
                    true => (opcode::ReadFixed::CODE, requests::read_fixed(fd, span, offset)),
                    false => (opcode::Read::CODE, requests::read(fd, span, offset)),
                };
                files.push(file);
                request
            }
            Call::Pwrite { file, offset, buf, len } => {
                let file = self.any_file(file)?;
                let part = self.place(buf, len)?;
                let t = transfer.insert(self.transfer(self.writes(offset), &[part])?);
                let (span, fd) = (t.span(), file.as_fd());
                let request = match fixed {
                    true => (opcode::WriteFixed::CODE, requests::write_fixed(fd, span, offset)),
                    false => (opcode::Write::CODE, requests::write(fd, span, offset)),
                };
                files.push(file);
                request
            }
            Call::Preadv { file, offset, ref iov } => {
                let file = self.any_file(file)?;
                let parts = self.parts(iov)?;
                let t = transfer.insert(self.transfer(Direction::Read, &parts)?);
                let request = requests::readv(file.as_fd(), t.vector(), offset);
                files.push(file);
                (opcode::Readv::CODE, request)
            }
            Call::Pwritev { file, offset, ref iov } => {
                let file = self.any_file(file)?;
                let parts = self.parts(iov)?;
                let t = transfer.insert(self.transfer(self.writes(offset), &parts)?);
                let request = requests::writev(file.as_fd(), t.vector(), offset);
                files.push(file);
                (opcode::Writev::CODE, request)
            }
            Call::Fsync { file } | Call::Fdatasync { file } => {
                let file = self.any_file(file)?;
                let request = requests::fsync(file.as_fd(), matches!(call, Call::Fdatasync { .. }));
                files.push(file);
                (opcode::Fsync::CODE, request)
            }
            Call::Fallocate { file, mode, offset, len } => {
                let file = self.file(file)?;
                let request =
                    requests::fallocate(file.as_fd(), fallocate_bits(mode) as i32, offset, len);
                files.push(file);
                (opcode::Fallocate::CODE, request)
            }
            Call::Ftruncate { file, len } => {
                let file = self.file(file)?;
                let request = requests::ftruncate(file.as_fd(), len);
                files.push(file);
                (opcode::Ftruncate::CODE, request)
            }
            Call::SpliceToPipe { file, offset, pipe, len } => {
                let (file, pipe) = (self.file(file)?, self.pipe(pipe)?);
                let request = requests::splice(
                    file.as_fd(),
                    offset as i64,
                    pipe.write.as_fd(),
                    -1,
                    len as u32,
                );
                files.extend([file, pipe.write]);
                (opcode::Splice::CODE, request)
            }
            Call::SpliceFromPipe { pipe, file, offset, len } => {
                let (pipe, file) = (self.pipe(pipe)?, self.file(file)?);
                let request = requests::splice(
                    pipe.read.as_fd(),
                    -1,
                    file.as_fd(),
                    offset as i64,
                    len as u32,
                );
                files.extend([file, pipe.read]);
                (opcode::Splice::CODE, request)
            }
            Call::Madvise { map, offset, len, advice } => {
                let span = self.part(map, offset, len)?;
                (opcode::Madvise::CODE, requests::madvise(span, arena::advice(advice)))
            }
            _ => return Err(SkipReason::Unsupported),
        };
        let found = self.table().lock().ring(via.ring).ok_or(SkipReason::EmptySlot)?;
        self.slots.push(found.by);
        let ring = found.it;
        if !ring.supports(op) {
            return Err(SkipReason::Unsupported);
        }
        let slots = std::mem::take(&mut self.slots);
        let pending =
            Pending { line: self.line, lane: self.lane.index, slots, request, transfer, files };
        let chained = via.flags.has(SqeFlags::LINK) || via.flags.has(SqeFlags::HARDLINK);
        ring.add(&self.recorder, pending, via.flags);
        ring.reap(&self.recorder, &mut self.lane.pool);
        if detached || chained {
            return Ok(());
        }
        let control = self.recorder.control;
        control.lanes[self.lane.index].in_ring.store(1, Ordering::Release);
        let is_cut_off = || control.cut_off.load(Ordering::Acquire) >> self.line & 1 != 0;
        while control.stage(self.line) != stage::OVER && !control.is_ending() && !is_cut_off() {
            ring.wait(&self.recorder, &mut self.lane.pool);
        }
        control.lanes[self.lane.index].in_ring.store(0, Ordering::Release);
        Ok(())
    }
}
