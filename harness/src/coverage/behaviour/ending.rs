//! How a call ended: one of few ways, whatever a guest says.

use history::{Errno, Payload, errno};
use program::Call;

/// Largest error number that is told apart (EHWPOISON); the kernel has no larger ones for programs.
const ERRNO_MAX: i32 = 133;
const SIGBUS: i32 = 7;
const SIGSEGV: i32 = 11;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ending {
    /// As asked.
    Completed,
    /// Without an error, with less than was asked for.
    Short,
    /// Without an error, with nothing of what was asked for.
    Nothing,
    /// A dedupe: the bytes differ.
    Differs,
    /// With an error.
    Failed(Failure),
}

/// An error or a signal, of those that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failure {
    /// An error number, at most [`ERRNO_MAX`].
    Errno(u8),
    /// SIGBUS ended a load or a store.
    Bus,
    /// SIGSEGV ended a load or a store.
    Segv,
    /// Anything that we have not heard of.
    Other,
}

impl Ending {
    /// How a call ended that returned this.
    pub fn of(call: &Call, result: Result<u64, Errno>, payload: &Payload) -> Ending {
        let fault = match payload {
            Payload::Read { fault, .. } | Payload::Store { fault } => *fault,
            _ => None,
        };
        if let Some(fault) = fault {
            return Ending::Failed(Failure::signal(fault.signo));
        }
        // FIDEDUPERANGE succeeds even where its one destination was refused: fs/remap_range.c:vfs_dedupe_file_range, 6.12.
        match (result, payload) {
            (Err(errno), _) => Ending::Failed(Failure::errno(errno)),
            (Ok(_), Payload::Dedupe { status: 1 }) => Ending::Differs,
            (Ok(_), Payload::Dedupe { status }) if *status != 0 => {
                Ending::Failed(Failure::errno(Errno(status.saturating_neg())))
            }
            (Ok(moved), _) => match asked(call) {
                Some(asked) if moved == 0 && asked > 0 => Ending::Nothing,
                Some(asked) if moved < asked => Ending::Short,
                _ => Ending::Completed,
            },
        }
    }

    /// As a number below 256, each its own.
    pub fn number(self) -> u64 {
        match self {
            Ending::Completed => 0,
            Ending::Short => 252,
            Ending::Nothing => 253,
            Ending::Differs => 254,
            Ending::Failed(Failure::Errno(number)) => number.into(),
            Ending::Failed(Failure::Bus) => 249,
            Ending::Failed(Failure::Segv) => 250,
            Ending::Failed(Failure::Other) => 251,
        }
    }

    /// As a number below 4: without an error, short of it, or with one.
    pub fn class(self) -> u64 {
        match self {
            Ending::Completed => 0,
            Ending::Short | Ending::Nothing | Ending::Differs => 1,
            Ending::Failed(Failure::Errno(_) | Failure::Other) => 2,
            Ending::Failed(Failure::Bus | Failure::Segv) => 3,
        }
    }
}

impl Failure {
    fn errno(errno: Errno) -> Failure {
        match u8::try_from(errno.0) {
            Ok(number) if (1..=ERRNO_MAX).contains(&errno.0) => Failure::Errno(number),
            _ => Failure::Other,
        }
    }

    fn signal(signo: i32) -> Failure {
        match signo {
            SIGBUS => Failure::Bus,
            SIGSEGV => Failure::Segv,
            _ => Failure::Other,
        }
    }

    /// The name for reports.
    pub fn name(self) -> String {
        match self {
            Failure::Errno(number) => errno::name(Errno(number.into())),
            Failure::Bus => "SIGBUS".into(),
            Failure::Segv => "SIGSEGV".into(),
            Failure::Other => "other".into(),
        }
    }

    /// The failure of that name.
    pub fn from_name(name: &str) -> Option<Failure> {
        let errnos = (1..=ERRNO_MAX).map(|number| Failure::errno(Errno(number)));
        let mut all = errnos.chain([Failure::Bus, Failure::Segv, Failure::Other]);
        all.find(|failure| failure.name() == name)
    }
}

/// How many bytes the call was to move, where it says how many it moved.
fn asked(call: &Call) -> Option<u64> {
    match call {
        Call::Load { len, .. }
        | Call::Store { len, .. }
        | Call::CopyFileRange { len, .. }
        | Call::Sendfile { len, .. }
        | Call::SpliceToPipe { len, .. }
        | Call::SpliceFromPipe { len, .. }
        | Call::Vmsplice { len, .. }
        | Call::Tee { len, .. }
        | Call::ProcessVmReadv { len, .. }
        | Call::ProcessVmWritev { len, .. }
        | Call::ProcMemPread { len, .. }
        | Call::ProcMemPwrite { len, .. }
        | Call::Fideduperange { len, .. } => Some(*len),
        call if call.kind().direction().is_some() => {
            Some(call.buffers().fold(0_u64, |sum, (_, len)| sum.saturating_add(len)))
        }
        _ => None,
    }
}
