//! Parses the text form. Total on any bytes, bounded in time and memory, and exact: what it does not understand to the last
//! character is an error that says where and what was expected.
//!
//! It checks that every number and slot is within the limits of a program, so that a hand-written line never silently means
//! something else. It does not ask whether a line makes sense among the others; see `fixup`.

use super::VERSION;
use super::cursor::{Cursor, decimal, one_of};
use crate::args::Arg;
use crate::facts::PAGE;
use crate::{
    Access, Advice, Buf, Call, CallKind, DELAY_US_MAX, FILE_MAX, FallocateMode, FileSlot, GateSlot,
    IO_MAX, IOV_MAX, LEASE_BREAK_TIME_MAX, LINES_MAX, Lane, Lease, Line, MapFlags, MapSlot, Mount,
    MsyncFlags, NAMES_MAX, Notice, OpenFlags, OwnerKind, Path, PinFlags, PipeSlot, Program, Prot,
    RING_ENTRIES_MAX, RegionAccess, RegionSlot, RingSlot, Settle, Sharing, SqeFlags,
    SyncFileRangeFlags, Via, Whence,
};
use std::fmt;

/// Longest text that is taken for a program, in bytes. No line prints longer than 200 bytes, so a full program takes less than
/// 16 KiB, and the rest is room for comments.
pub const INPUT_MAX: usize = 64 << 10;

/// Why a text is not a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Line of the text, from 1.
    pub line: usize,
    /// Column of that line, from 1, in characters.
    pub column: usize,
    /// What would have been understood there.
    pub expected: String,
    /// What stands there: a quoted piece of the input, or words such as `end of line`.
    pub found: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ParseError { line, column, expected, found } = self;
        write!(f, "line {line}, column {column}: expected {expected}, found {found}")
    }
}

impl std::error::Error for ParseError {}

impl Program {
    /// Parses the text form.
    ///
    /// # Errors
    /// At the first place that cannot be understood.
    pub fn parse(text: &str) -> Result<Program, ParseError> {
        if text.len() > INPUT_MAX {
            return Err(ParseError {
                line: 1,
                column: 1,
                expected: format!("at most {INPUT_MAX} bytes"),
                found: format!("{} bytes", text.len()),
            });
        }
        let mut lines = text.lines().enumerate().map(|(index, line)| Cursor::new(index + 1, line));
        parse_version(&mut lines.next().unwrap_or_else(|| Cursor::new(1, "")))?;
        let mut last = 1;
        let mut home = None;
        let mut parsed = Vec::new();
        for mut cursor in lines {
            last = cursor.line;
            if cursor.peek().is_none() {
                continue;
            }
            let Some(home) = home else {
                home = Some(parse_image(&mut cursor)?);
                continue;
            };
            if parsed.len() == LINES_MAX {
                return Err(cursor.error(format!("at most {LINES_MAX} lines of calls")));
            }
            parsed.push(parse_line(&mut cursor, home)?);
        }
        let home = home.ok_or_else(|| ParseError {
            line: last + 1,
            column: 1,
            expected: "`image` and a mount".to_owned(),
            found: "end of text".to_owned(),
        })?;
        Ok(Program { home, lines: parsed })
    }

    /// Parses the text form from bytes of unknown origin.
    ///
    /// # Errors
    /// As [`Program::parse`], and where the bytes are not UTF-8.
    pub fn parse_bytes(bytes: &[u8]) -> Result<Program, ParseError> {
        // A longer input is refused for its length anyway, whatever lies behind the limit.
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let line_start = good.rfind('\n').map_or(0, |at| at + 1);
            ParseError {
                line: good.matches('\n').count() + 1,
                column: good[line_start..].chars().count() + 1,
                expected: "UTF-8 text".to_owned(),
                found: format!("byte {:#04x}", bytes[error.valid_up_to()]),
            }
        })?;
        Program::parse(text)
    }
}

fn parse_version(cursor: &mut Cursor) -> Result<(), ParseError> {
    cursor.keyword("pinfuzz", format!("`pinfuzz {VERSION}`"))?;
    cursor.keyword(&VERSION.to_string(), format!("version {VERSION}"))?;
    cursor.end()
}

fn parse_image(cursor: &mut Cursor) -> Result<Mount, ParseError> {
    cursor.keyword("image", "`image` and a mount".to_owned())?;
    let at = cursor.here();
    let word = cursor.take(|c| c.is_ascii_alphanumeric() || c == '-');
    let home = Mount::from_name(&word).ok_or_else(|| cursor.error_at(at, mounts()))?;
    cursor.end()?;
    Ok(home)
}

fn mounts() -> String {
    "ext4-dax, xfs-dax, ext4 or xfs".to_owned()
}

fn parse_line(cursor: &mut Cursor, home: Mount) -> Result<Line, ParseError> {
    let lane = parse_lane(cursor)?;
    cursor.symbol(':')?;
    let call = parse_call(cursor, home)?;
    let mut line = Line::new(lane, call);
    if cursor.peek() == Some('(') {
        parse_attributes(cursor, &mut line)?;
    }
    if cursor.peek() == Some('&') {
        cursor.symbol('&')?;
        line.detached = true;
    }
    cursor.end()?;
    Ok(line)
}

fn parse_lane(cursor: &mut Cursor) -> Result<Lane, ParseError> {
    let at = cursor.here();
    let word = cursor.word();
    let threads = (0..crate::THREADS_MAX).map(Lane::Thread);
    let children = (0..crate::CHILDREN_MAX).map(Lane::Child);
    threads
        .chain(children)
        .find(|lane| lane.to_string() == word)
        .ok_or_else(|| cursor.error_at(at, "a lane (t0 to t3, c0 or c1)".to_owned()))
}

fn parse_call(cursor: &mut Cursor, home: Mount) -> Result<Call, ParseError> {
    let start = cursor.here();
    let mut name_at = start;
    let mut name = cursor.word();
    let filled = (cursor.peek() == Some('=')).then_some(start);
    if filled.is_some() {
        cursor.symbol('=')?;
        name_at = cursor.here();
        name = cursor.word();
    }
    let mut kind = CallKind::ALL
        .iter()
        .copied()
        .find(|kind| kind.name() == name)
        .ok_or_else(|| cursor.error_at(name_at, "a call (such as pwrite)".to_owned()))?;
    cursor.symbol('(')?;
    // Some kinds share their name: the letter of the first argument tells which it is.
    kind = match (kind, cursor.peek()) {
        (CallKind::SpliceToPipe, Some(PipeSlot::LETTER)) => CallKind::SpliceFromPipe,
        (CallKind::Close, Some(PipeSlot::LETTER)) => CallKind::ClosePipe,
        (CallKind::Close, Some(RingSlot::LETTER)) => CallKind::CloseRing,
        (CallKind::Open, Some(GateSlot::LETTER)) => CallKind::OpenGate,
        (kind, _) => kind,
    };
    let mut call = kind.template();
    let mut result = Ok(());
    let mut fills = false;
    let mut first = true;
    call.visit(&mut |arg| {
        if result.is_err() {
            return;
        }
        result = match arg {
            Arg::NewFile(_)
            | Arg::NewMap(_)
            | Arg::NewPipe(_)
            | Arg::NewRing(_)
            | Arg::NewRegion(_)
            | Arg::NewChild(_) => {
                fills = true;
                match filled {
                    // The slot stands before the name: go there and come back.
                    Some(at) => {
                        let back = cursor.at;
                        cursor.at = at;
                        let slot = parse_new_slot(cursor, arg);
                        cursor.at = back;
                        slot
                    }
                    None => {
                        Err(cursor.error_at(name_at, format!("a slot and `=` before `{name}`")))
                    }
                }
            }
            Arg::Settle(settle) if cursor.peek() == Some(')') => {
                *settle = Settle::Complete;
                Ok(())
            }
            arg => {
                let comma = if first { Ok(()) } else { cursor.symbol(',') };
                first = false;
                comma.and_then(|()| parse_arg(cursor, arg, home))
            }
        };
    });
    result?;
    if let (Some(_), false) = (filled, fills) {
        return Err(cursor.error_at(name_at, "a call that fills a slot".to_owned()));
    }
    cursor.symbol(')')?;
    Ok(call)
}

fn parse_new_slot(cursor: &mut Cursor, arg: Arg<'_>) -> Result<(), ParseError> {
    match arg {
        Arg::NewFile(slot) => {
            slot.0 = cursor.slot("a file slot", FileSlot::LETTER, FileSlot::MAX)?
        }
        Arg::NewMap(slot) => {
            slot.0 = cursor.slot("a mapping slot", MapSlot::LETTER, MapSlot::MAX)?
        }
        Arg::NewPipe(slot) => {
            slot.0 = cursor.slot("a pipe slot", PipeSlot::LETTER, PipeSlot::MAX)?
        }
        Arg::NewRing(slot) => {
            slot.0 = cursor.slot("a ring slot", RingSlot::LETTER, RingSlot::MAX)?
        }
        Arg::NewRegion(slot) => {
            slot.0 = cursor.slot("a memory region slot", RegionSlot::LETTER, RegionSlot::MAX)?;
        }
        Arg::NewChild(child) => *child = cursor.slot("a child", 'c', crate::CHILDREN_MAX)?,
        _ => {}
    }
    Ok(())
}

fn parse_arg(cursor: &mut Cursor, arg: Arg<'_>, home: Mount) -> Result<(), ParseError> {
    match arg {
        Arg::NewFile(_)
        | Arg::NewMap(_)
        | Arg::NewPipe(_)
        | Arg::NewRing(_)
        | Arg::NewRegion(_)
        | Arg::NewChild(_) => {}
        Arg::File(slot) => slot.0 = cursor.slot("a file slot", FileSlot::LETTER, FileSlot::MAX)?,
        Arg::Map(slot) => slot.0 = cursor.slot("a mapping slot", MapSlot::LETTER, MapSlot::MAX)?,
        Arg::Pipe(slot) => slot.0 = cursor.slot("a pipe slot", PipeSlot::LETTER, PipeSlot::MAX)?,
        Arg::Ring(slot) => slot.0 = cursor.slot("a ring slot", RingSlot::LETTER, RingSlot::MAX)?,
        Arg::Region(slot) => {
            slot.0 = cursor.slot("a memory region slot", RegionSlot::LETTER, RegionSlot::MAX)?;
        }
        Arg::RegionAt(slot, offset) => {
            slot.0 = cursor.slot("a memory region slot", RegionSlot::LETTER, RegionSlot::MAX)?;
            cursor.symbol('+')?;
            *offset = cursor.size("an offset", IO_MAX)?;
        }
        Arg::Gate(gate) => gate.0 = cursor.slot("a gate", GateSlot::LETTER, GateSlot::MAX)?,
        Arg::DeviceGate(gate) => {
            gate.0 = cursor.slot("a block device's gate", GateSlot::LETTER, GateSlot::MEMORY.0)?;
        }
        Arg::MemoryGate(gate) => {
            *gate = cursor.name(&[("g2", GateSlot::MEMORY)])?;
        }
        Arg::MapAt(slot, offset) => {
            slot.0 = cursor.slot("a mapping slot", MapSlot::LETTER, MapSlot::MAX)?;
            cursor.symbol('+')?;
            *offset = cursor.size("an offset", IO_MAX)?;
        }
        Arg::Path(path) => *path = parse_path(cursor, home)?,
        Arg::Offset(n) | Arg::MapOffset(n) => *n = cursor.size("an offset", FILE_MAX)?,
        Arg::Size(n) => *n = cursor.size("a size", FILE_MAX)?,
        Arg::IoLen(n) | Arg::MapLen(n) => *n = cursor.size("a length", IO_MAX)?,
        Arg::RangeLen(n) => *n = cursor.size("a length", FILE_MAX)?,
        Arg::Buf(buf) => *buf = parse_buf(cursor)?,
        Arg::Iov(iov) => *iov = parse_iov(cursor)?,
        Arg::Open(access, flags) => {
            let names: Vec<(&str, Access)> = Access::NAMES.to_vec();
            *access = cursor.name(&names)?;
            *flags = OpenFlags(0);
            while cursor.peek() == Some('|') {
                cursor.symbol('|')?;
                let left = unset(OpenFlags::NAMES, |flag| flags.has(flag));
                *flags = flags.with(cursor.name(&left)?);
            }
        }
        Arg::Sharing(sharing, flags) => {
            *sharing = cursor.name(Sharing::NAMES)?;
            *flags = MapFlags(0);
            while cursor.peek() == Some('|') {
                cursor.symbol('|')?;
                let left = unset(MapFlags::NAMES, |flag| flags.has(flag));
                *flags = flags.with(cursor.name(&left)?);
            }
        }
        Arg::Prot(prot) => {
            let (read, write) = (Prot::READ, Prot::WRITE);
            *prot = cursor.name(&[
                ("NONE", Prot(0)),
                ("R", read),
                ("W", write),
                ("RW", read.with(write)),
            ])?;
        }
        Arg::Msync(flags) => {
            *flags = MsyncFlags(0);
            cursor.set(MsyncFlags::NAMES, flags, |flags, flag| {
                let fresh = !flags.has(flag);
                *flags = flags.with(flag);
                fresh
            })?;
        }
        Arg::SyncFileRange(flags) => {
            *flags = SyncFileRangeFlags(0);
            cursor.set(SyncFileRangeFlags::NAMES, flags, |flags, flag| {
                let fresh = !flags.has(flag);
                *flags = flags.with(flag);
                fresh
            })?;
        }
        Arg::Pin(flags) => {
            *flags = PinFlags(0);
            cursor.set(PinFlags::NAMES, flags, |flags, flag| {
                let fresh = !flags.has(flag);
                *flags = flags.with(flag);
                fresh
            })?;
        }
        Arg::Mode(mode) => {
            let at = cursor.here();
            let word = cursor.take(|c| c.is_ascii_alphanumeric() || c == '_' || c == '|');
            *mode = FallocateMode::from_name(&word)
                .ok_or_else(|| cursor.error_at(at, one_of(FallocateMode::NAMES)))?;
        }
        Arg::Advice(advice) => *advice = cursor.name(Advice::NAMES)?,
        Arg::Whence(whence) => *whence = cursor.name(Whence::NAMES)?,
        Arg::Entries(entries) => {
            let at = cursor.here();
            let word = cursor.word();
            *entries = decimal(&word)
                .and_then(|n| u8::try_from(n).ok())
                .filter(|n| (1..=RING_ENTRIES_MAX).contains(n))
                .ok_or_else(|| {
                    cursor.error_at(at, format!("a number of entries (1 to {RING_ENTRIES_MAX})"))
                })?;
        }
        Arg::Lane(lane) => *lane = parse_lane(cursor)?,
        Arg::Lease(lease) => *lease = cursor.name(Lease::NAMES)?,
        Arg::Notice(notice) => *notice = cursor.name(Notice::NAMES)?,
        Arg::Owner(kind) => *kind = cursor.name(OwnerKind::NAMES)?,
        Arg::Settle(settle) => *settle = cursor.name(Settle::NAMES)?,
        Arg::RegionAccess(access) => *access = cursor.name(RegionAccess::NAMES)?,
        Arg::Seconds(n) => {
            let at = cursor.here();
            let word = cursor.word();
            *n = decimal(&word)
                .and_then(|n| u8::try_from(n).ok())
                .filter(|n| *n <= LEASE_BREAK_TIME_MAX)
                .ok_or_else(|| {
                    cursor.error_at(at, format!("seconds (0 to {LEASE_BREAK_TIME_MAX})"))
                })?;
        }
    }
    Ok(())
}

/// The flags that were not given yet: a flag that stands twice is a slip of the pen.
fn unset<T: Copy>(names: &[(&'static str, T)], has: impl Fn(T) -> bool) -> Vec<(&'static str, T)> {
    names.iter().copied().filter(|(_, flag)| !has(*flag)).collect()
}

fn parse_path(cursor: &mut Cursor, home: Mount) -> Result<Path, ParseError> {
    let at = cursor.here();
    let expected = || {
        let last = (b'a' + NAMES_MAX - 1) as char;
        format!("a path (\"a\" to \"{last}\", or with a mount, as in \"ext4:a\")")
    };
    if cursor.peek() != Some('"') {
        return Err(cursor.error(expected()));
    }
    cursor.at += 1;
    let word = cursor.take_here(|c| c != '"');
    if cursor.chars.get(cursor.at) != Some(&'"') {
        return Err(cursor.error_at(at, "a path that ends with `\"`".to_owned()));
    }
    cursor.at += 1;
    let (mount, name) = match word.split_once(':') {
        None => (home, word.as_str()),
        Some((mount, name)) => {
            let mount = Mount::from_name(mount).ok_or_else(|| cursor.error_at(at + 1, mounts()))?;
            (mount, name)
        }
    };
    let name = (0..NAMES_MAX)
        .find(|index| name == Path { mount, name: *index }.file_name().to_string())
        .ok_or_else(|| cursor.error_at(at, expected()))?;
    Ok(Path { mount, name })
}

fn parse_buf(cursor: &mut Cursor) -> Result<Buf, ParseError> {
    let expected = || "a buffer (anon, anon+8 or m0+512)".to_owned();
    let at = cursor.here();
    let word = cursor.word();
    if word == "anon" {
        if cursor.peek() != Some('+') {
            return Ok(Buf::Anon(0));
        }
        cursor.symbol('+')?;
        let offset = cursor.size("an offset within a page", PAGE - 1)?;
        return Ok(Buf::Anon(offset as u16));
    }
    if !word.starts_with(MapSlot::LETTER) {
        return Err(cursor.error_at(at, expected()));
    }
    cursor.at = at;
    let map = MapSlot(cursor.slot("a mapping slot", MapSlot::LETTER, MapSlot::MAX)?);
    cursor.symbol('+')?;
    Ok(Buf::Map(map, cursor.size("an offset", IO_MAX)?))
}

fn parse_iov(cursor: &mut Cursor) -> Result<Vec<(Buf, u64)>, ParseError> {
    let mut iov = Vec::new();
    cursor.symbol('[')?;
    loop {
        if iov.len() == IOV_MAX {
            return Err(cursor.error(format!("at most {IOV_MAX} buffers")));
        }
        let buf = parse_buf(cursor)?;
        iov.push((buf, cursor.size("a length", IO_MAX)?));
        if cursor.peek() != Some(',') {
            break;
        }
        cursor.symbol(',')?;
    }
    cursor.symbol(']')?;
    Ok(iov)
}

/// `(r0, link, delay 20us)`: the ring first, then its flags; or `aio`; the delay may stand anywhere.
fn parse_attributes(cursor: &mut Cursor, line: &mut Line) -> Result<(), ParseError> {
    cursor.symbol('(')?;
    loop {
        let at = cursor.here();
        let word = cursor.word();
        if word == "delay" && line.delay_us == 0 {
            line.delay_us = parse_delay(cursor)?;
        } else if word == "aio" && line.via.is_none() && !line.aio {
            line.aio = true;
        } else if line.aio {
            return Err(cursor.error_at(at, "`delay`".to_owned()));
        } else if let Some(via) = &mut line.via {
            let left = unset(SqeFlags::NAMES, |flag| via.flags.has(flag));
            let (_, flag) = left.iter().find(|(name, _)| *name == word).ok_or_else(|| {
                let names: Vec<&str> = left.iter().map(|(name, _)| *name).collect();
                cursor.error_at(at, format!("{} or `delay`", names.join(", ")))
            })?;
            via.flags = via.flags.with(*flag);
        } else {
            let ring =
                (0..RingSlot::MAX).map(RingSlot).find(|slot| slot.to_string() == word).ok_or_else(
                    || cursor.error_at(at, "a ring slot (r0 to r1), `aio` or `delay`".to_owned()),
                )?;
            line.via = Some(Via { ring, flags: SqeFlags(0) });
        }
        if cursor.peek() != Some(',') {
            break;
        }
        cursor.symbol(',')?;
    }
    cursor.symbol(')')
}

fn parse_delay(cursor: &mut Cursor) -> Result<u16, ParseError> {
    let at = cursor.here();
    let word = cursor.word();
    word.strip_suffix("us")
        .and_then(decimal)
        .and_then(|n| u16::try_from(n).ok())
        .filter(|n| (1..=DELAY_US_MAX).contains(n))
        .ok_or_else(|| cursor.error_at(at, format!("a delay (1us to {DELAY_US_MAX}us)")))
}
