//! Whether a thread stands still: its state, where it waits and what it has used, looked at several times.

use rustix::process::Pid;
use std::time::Duration;

/// Looks that must agree.
const LOOKS: usize = 4;
/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// What one look shows of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// State letter; `X` if the task is gone.
    pub state: char,
    /// Function it waits in.
    pub wchan: String,
    used: String,
}

impl Look {
    /// Of a task that runs and runs.
    pub fn running() -> Look {
        Look { state: 'R', wchan: String::new(), used: String::new() }
    }
}

fn look(pid: u32, tid: u32) -> Look {
    let task = format!("/proc/{pid}/task/{tid}");
    let read = |file: &str| std::fs::read_to_string(format!("{task}/{file}")).unwrap_or_default();
    let stat = read("stat");
    // The name, which may hold anything, ends at the last parenthesis; fields are counted from the state on.
    let fields: Vec<&str> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let Some(state) = fields.first().and_then(|f| f.chars().next()) else {
        return Look { state: 'X', wchan: String::new(), used: String::new() };
    };
    let status = read("status");
    let switches = status.lines().filter(|l| l.contains("ctxt_switches"));
    let time = fields.iter().skip(11).take(2);
    let used = time.copied().chain(switches).collect::<Vec<_>>().join(" ");
    Look { state, wchan: read("wchan"), used }
}

/// Whether a process has ended: it is gone, or a zombie.
pub fn is_dead(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    let stat = stat.unwrap_or_default();
    let state = stat.rsplit(')').next().and_then(|rest| rest.trim().chars().next());
    matches!(state, None | Some('Z' | 'X'))
}

/// The workers of a process's rings that are at work.
fn ring_workers(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let tids = tasks.filter_map(|t| t.file_name().to_str()?.parse().ok());
    let is_worker = |tid: &u32| {
        let comm = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm"));
        comm.is_ok_and(|name| name.starts_with("iou-wrk"))
    };
    tids.filter(is_worker).collect()
}

/// An idle worker waits here (6.1: `io_wqe_worker`, later `io_wq_worker`).
fn is_idle(look: &Look) -> bool {
    look.wchan.starts_with("io_wq")
}

fn stands(look: &Look) -> bool {
    matches!(look.state, 'S' | 'D' | 'X' | 'Z')
}

/// Whether the task stands still over several looks, and how it looked. Gives up as soon as `over` says so.
pub fn standing(pid: u32, tid: u32, over: impl Fn() -> bool) -> Option<Look> {
    let first = look(pid, tid);
    if !stands(&first) {
        return None;
    }
    for _ in 1..LOOKS {
        std::thread::sleep(PAUSE);
        if over() || look(pid, tid) != first {
            return None;
        }
    }
    Some(first)
}

/// As `standing`, for whoever waits for a ring: the ring's workers are looked at, and the first that is busy is reported.
pub fn ring_standing(pid: u32, over: impl Fn() -> bool) -> Option<Look> {
    let looks = || -> Vec<Look> {
        ring_workers(pid).into_iter().map(|tid| look(pid, tid)).filter(|l| !is_idle(l)).collect()
    };
    let first = looks();
    if !first.iter().all(stands) {
        return None;
    }
    for _ in 1..LOOKS {
        std::thread::sleep(PAUSE);
        if over() || looks() != first {
            return None;
        }
    }
    let waiting = Look { state: 'S', wchan: "io_cqring_wait".into(), used: String::new() };
    Some(first.into_iter().next().unwrap_or(waiting))
}
