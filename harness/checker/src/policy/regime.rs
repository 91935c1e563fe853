//! How a change of layout meets a page of a DAX file that somebody holds. Files in the page cache know no such regime: nothing waits there.

use program::Mount;

/// Who gives way: the change, the holder, or neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Regime {
    /// The change waits, for a signal or until nothing of the file is held; long-term pins are refused (EOPNOTSUPP), and so are layout leases (EINVAL).
    #[default]
    Mainline,
    /// Long-term pins need a layout lease on the file (EPERM without); a change whose range meets such a pin fails (ETXTBSY) and tells the holder of the
    /// lease. Short-term references as in mainline.
    LayoutLease,
    /// As `LayoutLease`, and a layout lease is exclusive, knows nothing of read and write leases, and is not given back before the pins in the file
    /// are: unlocking waits, and closing the last descriptor with pins left kills the process.
    LayoutLeaseStrict,
    /// Long-term pins need no lease; the change succeeds at once and takes the pages away: accesses through mappings get SIGBUS until mapped anew, I/O
    /// through the pin gets EFAULT.
    Revoke,
}

impl Regime {
    /// Every regime with its text name.
    pub const NAMES: &'static [(&'static str, Regime)] = &[
        ("mainline", Regime::Mainline),
        ("layout-lease", Regime::LayoutLease),
        ("layout-lease-strict", Regime::LayoutLeaseStrict),
        ("revoke", Regime::Revoke),
    ];

    /// The text name.
    pub const fn name(self) -> &'static str {
        match self {
            Regime::Mainline => "mainline",
            Regime::LayoutLease => "layout-lease",
            Regime::LayoutLeaseStrict => "layout-lease-strict",
            Regime::Revoke => "revoke",
        }
    }

    /// The regime of that name.
    pub fn from_name(name: &str) -> Option<Regime> {
        Regime::NAMES.iter().find(|(n, _)| *n == name).map(|(_, r)| *r)
    }

    /// Whether F_SETLEASE knows layout leases.
    pub const fn has_layout_leases(self) -> bool {
        matches!(self, Regime::LayoutLease | Regime::LayoutLeaseStrict)
    }

    /// Whether it says anything about files of this mount.
    pub const fn governs(self, mount: Mount) -> bool {
        mount.is_dax()
    }
}
