//! Prints programs, lines and calls in their canonical text form.
//!
//! It prints any value, also one that `fixup` has not seen; only fixed programs are certain to parse again.

use super::VERSION;
use crate::args::Arg;
use crate::{Buf, Call, Line, Mount, Path, Program, Prot, Settle, Sharing};
use std::fmt;

/// A size, offset or length as the text form writes it: `4K` and `1M` where they are exact, plain bytes otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0"),
            n if n % (1 << 20) == 0 => write!(f, "{}M", n >> 20),
            n if n % (1 << 10) == 0 => write!(f, "{}K", n >> 10),
            n => write!(f, "{n}"),
        }
    }
}

impl fmt::Display for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Buf::Anon(0) => f.write_str("anon"),
            Buf::Anon(offset) => write!(f, "anon+{}", Size((*offset).into())),
            Buf::Map(map, offset) => write!(f, "{map}+{}", Size(*offset)),
        }
    }
}

impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Prints the mount as well: `"ext4:a"`. See [`Path::display`] for the short form.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}:{}\"", self.mount, self.file_name())
    }
}

impl fmt::Display for Prot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Prot(0) {
            return f.write_str("NONE");
        }
        Prot::NAMES
            .iter()
            .filter(|(_, bit)| self.has(*bit))
            .try_for_each(|(name, _)| f.write_str(name))
    }
}

/// Something printed as a program with this home mount would print it.
struct AtHome<'a, T>(&'a T, Option<Mount>);

impl fmt::Display for AtHome<'_, Path> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(home) if home == self.0.mount => write!(f, "\"{}\"", self.0.file_name()),
            _ => self.0.fmt(f),
        }
    }
}

impl fmt::Display for AtHome<'_, Call> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AtHome(call, home) = *self;
        let mut filled = None;
        let mut words: Vec<String> = Vec::new();
        call.clone().visit(&mut |arg| match arg {
            Arg::NewFile(slot) => filled = Some(slot.to_string()),
            Arg::NewMap(slot) => filled = Some(slot.to_string()),
            Arg::NewPipe(slot) => filled = Some(slot.to_string()),
            Arg::NewRing(slot) => filled = Some(slot.to_string()),
            Arg::NewRegion(slot) => filled = Some(slot.to_string()),
            Arg::NewChild(child) => filled = Some(format!("c{child}")),
            Arg::File(slot) => words.push(slot.to_string()),
            Arg::Map(slot) => words.push(slot.to_string()),
            Arg::MapAt(slot, offset) => words.push(Buf::Map(*slot, *offset).to_string()),
            Arg::Pipe(slot) => words.push(slot.to_string()),
            Arg::Ring(slot) => words.push(slot.to_string()),
            Arg::Region(slot) => words.push(slot.to_string()),
            Arg::RegionAt(slot, offset) => words.push(format!("{slot}+{}", Size(*offset))),
            Arg::DeviceGate(gate) | Arg::MemoryGate(gate) | Arg::Gate(gate) => {
                words.push(gate.to_string());
            }
            Arg::Path(path) => words.push(AtHome(&*path, home).to_string()),
            Arg::Offset(n)
            | Arg::MapOffset(n)
            | Arg::Size(n)
            | Arg::IoLen(n)
            | Arg::RangeLen(n)
            | Arg::MapLen(n) => words.push(Size(*n).to_string()),
            Arg::Buf(buf) => words.push(buf.to_string()),
            Arg::Iov(iov) => {
                let segments: Vec<String> =
                    iov.iter().map(|(buf, len)| format!("{buf} {}", Size(*len))).collect();
                words.push(format!("[{}]", segments.join(", ")));
            }
            Arg::Open(access, flags) => {
                let mut names = vec![access.name()];
                names.extend(
                    crate::OpenFlags::NAMES.iter().filter(|(_, f)| flags.has(*f)).map(|(n, _)| *n),
                );
                words.push(names.join("|"));
            }
            Arg::Prot(prot) => words.push(prot.to_string()),
            Arg::Sharing(sharing, flags) => {
                let mut names = vec![Sharing::name(*sharing)];
                names.extend(
                    crate::MapFlags::NAMES.iter().filter(|(_, f)| flags.has(*f)).map(|(n, _)| *n),
                );
                words.push(names.join("|"));
            }
            Arg::Msync(flags) => words.push(set(crate::MsyncFlags::NAMES
                .iter()
                .filter(|(_, f)| flags.has(*f))
                .map(|(n, _)| *n))),
            Arg::SyncFileRange(flags) => words.push(set(crate::SyncFileRangeFlags::NAMES
                .iter()
                .filter(|(_, f)| flags.has(*f))
                .map(|(n, _)| *n))),
            Arg::Pin(flags) => words.push(set(crate::PinFlags::NAMES
                .iter()
                .filter(|(_, f)| flags.has(*f))
                .map(|(n, _)| *n))),
            Arg::Mode(mode) => words.push(mode.name().to_owned()),
            Arg::Advice(advice) => words.push(advice.name().to_owned()),
            Arg::Whence(whence) => words.push(whence.name().to_owned()),
            Arg::Entries(n) => words.push(n.to_string()),
            Arg::Lane(lane) => words.push(lane.to_string()),
            Arg::Lease(lease) => words.push(lease.name().to_owned()),
            Arg::Notice(notice) => words.push(notice.name().to_owned()),
            Arg::Owner(kind) => words.push(kind.name().to_owned()),
            Arg::Settle(Settle::Complete) => {}
            Arg::Settle(settle) => words.push(settle.name().to_owned()),
            Arg::Seconds(n) => words.push(n.to_string()),
            Arg::RegionAccess(access) => words.push(access.name().to_owned()),
        });
        if let Some(slot) = filled {
            write!(f, "{slot} = ")?;
        }
        write!(f, "{}({})", call.name(), words.join(", "))
    }
}

/// A set of flags that may be empty.
fn set(names: impl Iterator<Item = &'static str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "0".to_owned() } else { names.join("|") }
}

impl fmt::Display for AtHome<'_, Line> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AtHome(line, home) = *self;
        write!(f, "{}: {}", line.lane, AtHome(&line.call, home))?;
        let mut attributes = Vec::new();
        if let Some(via) = line.via {
            attributes.push(via.ring.to_string());
            attributes.extend(
                crate::SqeFlags::NAMES
                    .iter()
                    .filter(|(_, flag)| via.flags.has(*flag))
                    .map(|(name, _)| (*name).to_owned()),
            );
        }
        if line.aio {
            attributes.push("aio".to_owned());
        }
        if line.delay_us != 0 {
            attributes.push(format!("delay {}us", line.delay_us));
        }
        if !attributes.is_empty() {
            write!(f, " ({})", attributes.join(", "))?;
        }
        if line.detached { f.write_str(" &") } else { Ok(()) }
    }
}

impl Path {
    /// The path as a program with this home mount prints it: `"a"` at home, `"ext4:a"` elsewhere.
    pub fn display(&self, home: Mount) -> impl fmt::Display + '_ {
        AtHome(self, Some(home))
    }
}

impl Call {
    /// The call as a program with this home mount prints it.
    pub fn display(&self, home: Mount) -> impl fmt::Display + '_ {
        AtHome(self, Some(home))
    }
}

impl Line {
    /// The line as a program with this home mount prints it.
    pub fn display(&self, home: Mount) -> impl fmt::Display + '_ {
        AtHome(self, Some(home))
    }
}

/// Prints every path with its mount. See [`Call::display`] for the form within a program.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        AtHome(self, None).fmt(f)
    }
}

/// Prints every path with its mount. See [`Line::display`] for the form within a program.
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        AtHome(self, None).fmt(f)
    }
}

/// The canonical text form, with a newline at the end.
impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "pinfuzz {VERSION}")?;
        writeln!(f, "image {}", self.home)?;
        self.lines.iter().try_for_each(|line| writeln!(f, "{}", line.display(self.home)))
    }
}
