//! `Arbitrary` for programs and their pieces.
//!
//! A [`Program`] is generated, and fit to run. Its pieces are any value of their types, within their bounds or not: what mutation and
//! tests throw at `fixup`.

use super::Dice;
use crate::args::Arg;
use crate::{
    Buf, Call, CallKind, FILE_MAX, FileSlot, GateSlot, IO_MAX, Lane, Line, MapFlags, MapSlot,
    Mount, MsyncFlags, OpenFlags, PAGE, Path, PinFlags, PipeSlot, Program, Prot, RegionSlot,
    RingSlot, SqeFlags, SyncFileRangeFlags, Via,
};
use arbitrary::{Arbitrary, Result, Unstructured};

impl<'a> Arbitrary<'a> for Mount {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Mount> {
        u.choose(&Mount::ALL).copied()
    }
}

impl<'a> Arbitrary<'a> for Program {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Program> {
        let home = Mount::arbitrary(u)?;
        Ok(Program::generate(u, home))
    }
}

impl<'a> Arbitrary<'a> for Lane {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Lane> {
        let n = index(u)?;
        Ok(if u.ratio(3, 4)? { Lane::Thread(n) } else { Lane::Child(n) })
    }
}

impl<'a> Arbitrary<'a> for Path {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Path> {
        Ok(Path { mount: Mount::arbitrary(u)?, name: index(u)? })
    }
}

impl<'a> Arbitrary<'a> for Buf {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Buf> {
        Ok(if u.arbitrary()? {
            Buf::Anon(u.arbitrary()?)
        } else {
            Buf::Map(MapSlot(index(u)?), number(u)?)
        })
    }
}

impl<'a> Arbitrary<'a> for Via {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Via> {
        Ok(Via { ring: RingSlot(index(u)?), flags: SqeFlags(u.arbitrary()?) })
    }
}

impl<'a> Arbitrary<'a> for Line {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Line> {
        Ok(Line {
            lane: Lane::arbitrary(u)?,
            call: Call::arbitrary(u)?,
            via: if u.arbitrary()? { Some(Via::arbitrary(u)?) } else { None },
            aio: u.ratio(1, 8)?,
            delay_us: if u.ratio(1, 4)? { u.arbitrary()? } else { 0 },
            detached: u.arbitrary()?,
        })
    }
}

impl<'a> Arbitrary<'a> for Call {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Call> {
        let mut call = u.choose(CallKind::ALL)?.template();
        let mut result = Ok(());
        call.visit(&mut |arg| {
            if result.is_ok() {
                result = fill(u, arg);
            }
        });
        result.map(|()| call)
    }
}

/// Mostly a valid index of a slot, sometimes any byte.
fn index(u: &mut Unstructured<'_>) -> Result<u8> {
    let any: u8 = u.arbitrary()?;
    Ok(if u.ratio(3, 4)? { any % 4 } else { any })
}

/// Mostly a number near some limit.
fn number(u: &mut Unstructured<'_>) -> Result<u64> {
    let base = match u.int_in_range(0..=5u8)? {
        0 => u.arbitrary()?,
        1 => u64::MAX,
        2 => FILE_MAX,
        3 => IO_MAX,
        _ => u64::from(u.int_in_range(0..=32u8)?) * PAGE,
    };
    let step = u64::from(u.int_in_range(0..=16u8)?);
    Ok(if u.arbitrary()? { base.saturating_add(step) } else { base.saturating_sub(step) })
}

fn fill(u: &mut Unstructured<'_>, arg: Arg<'_>) -> Result<()> {
    match arg {
        Arg::NewFile(FileSlot(n)) | Arg::File(FileSlot(n)) => *n = index(u)?,
        Arg::NewMap(MapSlot(n)) | Arg::Map(MapSlot(n)) => *n = index(u)?,
        Arg::NewPipe(PipeSlot(n)) | Arg::Pipe(PipeSlot(n)) => *n = index(u)?,
        Arg::NewRing(RingSlot(n)) | Arg::Ring(RingSlot(n)) => *n = index(u)?,
        Arg::NewRegion(RegionSlot(n)) | Arg::Region(RegionSlot(n)) => *n = index(u)?,
        Arg::Gate(GateSlot(n)) | Arg::DeviceGate(GateSlot(n)) | Arg::MemoryGate(GateSlot(n)) => {
            *n = index(u)?;
        }
        Arg::NewChild(n) => *n = index(u)?,
        Arg::MapAt(MapSlot(n), offset) | Arg::RegionAt(RegionSlot(n), offset) => {
            (*n, *offset) = (index(u)?, number(u)?);
        }
        Arg::Path(path) => *path = Path::arbitrary(u)?,
        Arg::Offset(n)
        | Arg::MapOffset(n)
        | Arg::Size(n)
        | Arg::IoLen(n)
        | Arg::RangeLen(n)
        | Arg::MapLen(n) => *n = number(u)?,
        Arg::Buf(buf) => *buf = Buf::arbitrary(u)?,
        Arg::Iov(iov) => {
            iov.clear();
            for _ in 0..u.int_in_range(0..=6u8)? {
                iov.push((Buf::arbitrary(u)?, number(u)?));
            }
        }
        Arg::Open(access, flags) => {
            let names = crate::Access::NAMES;
            (*access, *flags) = (u.choose(names)?.1, OpenFlags(u.arbitrary()?));
        }
        Arg::Prot(prot) => *prot = Prot(u.arbitrary()?),
        Arg::Sharing(sharing, flags) => {
            let names = crate::Sharing::NAMES;
            (*sharing, *flags) = (u.choose(names)?.1, MapFlags(u.arbitrary()?));
        }
        Arg::Msync(flags) => *flags = MsyncFlags(u.arbitrary()?),
        Arg::SyncFileRange(flags) => *flags = SyncFileRangeFlags(u.arbitrary()?),
        Arg::Mode(mode) => *mode = u.choose(crate::FallocateMode::NAMES)?.1,
        Arg::Advice(advice) => *advice = u.choose(crate::Advice::NAMES)?.1,
        Arg::Whence(whence) => *whence = u.choose(crate::Whence::NAMES)?.1,
        Arg::Entries(n) => *n = u.arbitrary()?,
        Arg::Lane(lane) => *lane = Lane::arbitrary(u)?,
        Arg::Lease(lease) => *lease = u.choose(crate::Lease::NAMES)?.1,
        Arg::Notice(notice) => *notice = u.choose(crate::Notice::NAMES)?.1,
        Arg::Owner(kind) => *kind = u.choose(crate::OwnerKind::NAMES)?.1,
        Arg::Settle(settle) => *settle = u.choose(crate::Settle::NAMES)?.1,
        Arg::Seconds(n) => *n = u.arbitrary()?,
        Arg::RegionAccess(access) => *access = u.choose(crate::RegionAccess::NAMES)?.1,
        Arg::Pin(flags) => *flags = PinFlags(u.arbitrary()?),
    }
    Ok(())
}

/// Changes one argument to a neighbour of its value, a limit, or another choice.
pub(crate) fn change(arg: Arg<'_>, dice: &mut Dice<'_, '_>) {
    match arg {
        Arg::NewFile(FileSlot(n)) | Arg::File(FileSlot(n)) => *n = dice.below(4) as u8,
        Arg::NewMap(MapSlot(n)) | Arg::Map(MapSlot(n)) => *n = dice.below(4) as u8,
        Arg::NewPipe(PipeSlot(n)) | Arg::Pipe(PipeSlot(n)) => *n = dice.below(2) as u8,
        Arg::NewRegion(RegionSlot(n)) | Arg::Region(RegionSlot(n)) => *n = dice.below(2) as u8,
        Arg::NewRing(RingSlot(n)) | Arg::Ring(RingSlot(n)) | Arg::NewChild(n) => {
            *n = dice.below(2) as u8;
        }
        Arg::Gate(GateSlot(n)) | Arg::DeviceGate(GateSlot(n)) | Arg::MemoryGate(GateSlot(n)) => {
            *n = dice.below(3) as u8;
        }
        Arg::RegionAt(RegionSlot(n), offset) => {
            if dice.chance(30) {
                *n = dice.below(2) as u8;
            } else {
                change_number(offset, dice);
            }
        }
        Arg::MapAt(MapSlot(n), offset) => {
            if dice.chance(30) {
                *n = dice.below(4) as u8;
            } else {
                change_number(offset, dice);
            }
        }
        Arg::Path(path) => {
            if dice.chance(30) {
                path.mount = dice.pick(&Mount::ALL);
            } else {
                path.name = dice.below(4) as u8;
            }
        }
        Arg::Offset(n)
        | Arg::MapOffset(n)
        | Arg::Size(n)
        | Arg::IoLen(n)
        | Arg::RangeLen(n)
        | Arg::MapLen(n) => change_number(n, dice),
        Arg::Buf(buf) => change_buf(buf, dice),
        Arg::Iov(iov) => {
            let index = dice.below(iov.len() as u64) as usize;
            match (dice.below(4), iov.get_mut(index)) {
                (0, Some((buf, _))) => change_buf(buf, dice),
                (1, Some((_, len))) => change_number(len, dice),
                (2, Some(_)) => drop(iov.remove(index)),
                _ => iov.push((Buf::Anon(0), PAGE)),
            }
        }
        Arg::Open(access, flags) => {
            if dice.chance(30) {
                *access = dice.pick(crate::Access::NAMES).1;
            } else {
                flags.0 ^= dice.pick(OpenFlags::NAMES).1.0;
            }
        }
        Arg::Prot(prot) => prot.0 ^= dice.pick(Prot::NAMES).1.0,
        Arg::Sharing(sharing, flags) => {
            if dice.chance(50) {
                *sharing = dice.pick(crate::Sharing::NAMES).1;
            } else {
                flags.0 ^= dice.pick(MapFlags::NAMES).1.0;
            }
        }
        Arg::Msync(flags) => flags.0 ^= dice.pick(MsyncFlags::NAMES).1.0,
        Arg::SyncFileRange(flags) => flags.0 ^= dice.pick(SyncFileRangeFlags::NAMES).1.0,
        Arg::Mode(mode) => *mode = dice.pick(crate::FallocateMode::NAMES).1,
        Arg::Advice(advice) => *advice = dice.pick(crate::Advice::NAMES).1,
        Arg::Whence(whence) => *whence = dice.pick(crate::Whence::NAMES).1,
        Arg::Entries(n) => *n = dice.between(1, 32) as u8,
        Arg::Lane(lane @ Lane::Thread(_)) => *lane = Lane::Thread(dice.below(4) as u8),
        Arg::Lane(lane) => *lane = Lane::Child(dice.below(2) as u8),
        Arg::Lease(lease) => *lease = dice.pick(crate::Lease::NAMES).1,
        Arg::Notice(notice) => *notice = dice.pick(crate::Notice::NAMES).1,
        Arg::Owner(kind) => *kind = dice.pick(crate::OwnerKind::NAMES).1,
        Arg::Settle(settle) => *settle = dice.pick(crate::Settle::NAMES).1,
        Arg::Seconds(n) => *n = dice.pick(&[0, 1, 2, 45]),
        Arg::RegionAccess(access) => *access = dice.pick(crate::RegionAccess::NAMES).1,
        Arg::Pin(flags) => flags.0 ^= dice.pick(PinFlags::NAMES).1.0,
    }
}

fn change_buf(buf: &mut Buf, dice: &mut Dice<'_, '_>) {
    match (dice.below(3), &mut *buf) {
        (0, Buf::Map(_, offset)) => change_number(offset, dice),
        (0, Buf::Anon(offset)) => *offset = dice.pick(&[0, 1, 8, 511, 512, 4088]),
        (1, _) => *buf = Buf::Map(MapSlot(dice.below(4) as u8), dice.below(16) * PAGE),
        _ => *buf = Buf::Anon(0),
    }
}

fn change_number(n: &mut u64, dice: &mut Dice<'_, '_>) {
    let step = dice.pick(&[1, 8, 512, PAGE]);
    *n = match dice.below(8) {
        0 | 1 => n.saturating_add(step),
        2 | 3 => n.saturating_sub(step),
        4 => n.saturating_mul(2),
        5 => *n / 2,
        6 => *n / PAGE * PAGE,
        _ => dice.pick(&[0, PAGE, IO_MAX, FILE_MAX]),
    };
}
