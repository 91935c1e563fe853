//! The scheduler: lanes are futures, and a seeded draw decides who makes the next atomic step.
//!
//! A lane runs until it yields (`step`), waits for a condition (`until`, or `wait` where a signal ends it) or is out of lines. Time jumps when
//! nobody can make a step and somebody waits for a moment. It knows no system call.

use super::bug::Bug;
use super::world::World;
use super::{exec, gate, ring};
use std::cell::{Ref, RefCell, RefMut};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Lanes: four threads and two children.
pub(super) const LANES: usize = (program::THREADS_MAX + program::CHILDREN_MAX) as usize;

/// A small generator of pseudo-random numbers (SplitMix64): the schedule needs speed, not quality.
#[derive(Clone, Debug)]
pub(super) struct Rng(pub u64);

impl Rng {
    /// The next number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) % bound as u64) as usize
    }
}

/// Why a lane does not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum LaneState {
    /// It can make a step.
    #[default]
    Ready,
    /// It looked at its condition, and nothing has happened since. The function that it sleeps in.
    Waiting(&'static str),
    /// It has no line.
    Parked,
}

/// The state letter of a thread that sleeps in a kernel function.
pub(super) fn state_of(wchan: &str) -> char {
    const INTERRUPTIBLE: &[&str] = &[
        "pipe_wait_readable",
        "pipe_wait_writable",
        "ext4_break_layouts",
        "xfs_break_dax_layouts",
        "layout_lease_wait",
        "truncate_inode_pages_range",
        "__break_lease",
        "handle_userfault",
        "io_rsrc_ref_quiesce",
        "io_cqring_wait",
        "do_wait",
    ];
    if INTERRUPTIBLE.contains(&wchan) { 'S' } else { 'D' }
}

/// Who holds an inode's lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LockState {
    /// Shared holders.
    pub readers: u32,
    /// Whether it is held exclusively.
    pub writer: bool,
}

/// What a lane's code is handed: the world, and who it is.
#[derive(Clone, Copy)]
pub(super) struct Cx<'a> {
    /// Everything.
    pub world: &'a RefCell<World>,
    /// Which lane.
    pub lane: usize,
}

/// Pending once, then ready.
struct Yield(bool);

impl Future for Yield {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl<'a> Cx<'a> {
    /// The world, for one atomic step.
    pub fn w(&self) -> RefMut<'a, World> {
        self.world.borrow_mut()
    }

    /// The world, to look at.
    pub fn look(&self) -> Ref<'a, World> {
        self.world.borrow()
    }

    /// Lets other lanes run: the end of an atomic step.
    pub async fn step(&self) {
        {
            let mut w = self.w();
            w.progress += 1;
            w.clock += 700;
        }
        Yield(false).await;
    }

    /// Waits until the condition holds, asleep in the kernel function `wchan`.
    pub async fn until(&self, wchan: &'static str, ready: impl Fn(&World) -> bool) {
        while !ready(&self.look()) {
            self.w().lanes[self.lane] = LaneState::Waiting(wchan);
            Yield(false).await;
        }
        self.w().progress += 1;
    }

    /// Waits until the condition holds; false if a signal came first.
    pub async fn wait(&self, wchan: &'static str, ready: impl Fn(&World) -> bool) -> bool {
        self.wait_unless(wchan, ready, |w, lane| w.interrupted[lane] || w.killed[lane]).await
    }

    /// As `wait`; a signal whose handler would let others begin again ends it as well.
    pub async fn wait_or_poke(&self, wchan: &'static str, ready: impl Fn(&World) -> bool) -> bool {
        let hit = |w: &World, lane: usize| w.interrupted[lane] || w.killed[lane] || w.poked[lane];
        self.wait_unless(wchan, ready, hit).await
    }

    async fn wait_unless(
        &self,
        wchan: &'static str,
        ready: impl Fn(&World) -> bool,
        hit: impl Fn(&World, usize) -> bool,
    ) -> bool {
        loop {
            {
                let w = self.look();
                if ready(&w) {
                    break;
                }
                let deaf = w.has(Bug::InterruptIgnored) && !w.helping;
                // Workers of rings get no signals, and end with the process that has the ring.
                let over = self.lane > LANES && w.rings_cancelled;
                if self.lane < LANES && hit(&w, self.lane) && !deaf || over {
                    return false;
                }
            }
            self.w().lanes[self.lane] = LaneState::Waiting(wchan);
            Yield(false).await;
        }
        self.w().progress += 1;
        true
    }

    /// Waits for the next line.
    pub async fn park(&self) {
        self.w().lanes[self.lane] = LaneState::Parked;
        Yield(false).await;
    }

    /// Never ends.
    pub async fn hang(&self) {
        self.until("jbd2_log_wait_commit", |_| false).await;
    }

    /// Takes an inode's lock.
    pub async fn lock(&self, mount: usize, ino: u64, exclusive: bool) -> Guard<'a> {
        let wchan =
            if exclusive { "rwsem_down_write_slowpath" } else { "rwsem_down_read_slowpath" };
        self.until(wchan, |w| {
            let lock = &w.fs[mount].ino(ino).lock;
            !lock.writer && (!exclusive || lock.readers == 0)
        })
        .await;
        {
            let mut w = self.w();
            let lock = &mut w.fs[mount].ino_mut(ino).lock;
            if exclusive {
                lock.writer = true;
            } else {
                lock.readers += 1;
            }
        }
        Guard { world: self.world, mount, ino, exclusive }
    }
}

/// Holds an inode's lock.
pub(super) struct Guard<'a> {
    world: &'a RefCell<World>,
    mount: usize,
    ino: u64,
    exclusive: bool,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let mut w = self.world.borrow_mut();
        w.progress += 1;
        if let Some(inode) = w.fs[self.mount].inodes.get_mut(&self.ino) {
            if self.exclusive {
                inode.lock.writer = false;
            } else {
                inode.lock.readers -= 1;
            }
        }
    }
}

/// A lane's code, or a request's.
type Task<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// The futures of all lanes, and of io_uring requests.
pub(super) struct Tasks<'a> {
    world: &'a RefCell<World>,
    futures: Vec<Task<'a>>,
}

impl<'a> Tasks<'a> {
    /// All lanes, at their start.
    pub fn new(world: &'a RefCell<World>) -> Tasks<'a> {
        let lanes = (0..LANES).map(|lane| -> Task<'a> { Box::pin(exec::lane(Cx { world, lane })) });
        let devices: Task<'a> = Box::pin(gate::serve(Cx { world, lane: LANES }));
        Tasks { world, futures: lanes.chain([devices]).collect() }
    }

    /// Gives every submitted chain of requests a task of its own.
    fn spawn(&mut self) {
        let jobs = std::mem::take(&mut self.world.borrow_mut().jobs);
        for job in jobs {
            let cx = Cx { world: self.world, lane: self.futures.len() };
            self.futures.push(Box::pin(ring::run(cx, job)));
            self.world.borrow_mut().lanes.push(LaneState::Ready);
        }
    }

    /// Runs lanes until the condition holds; false if nobody can make a step before that, or within so many nanoseconds of idle time.
    pub fn drive(&mut self, patience_ns: u64, done: impl Fn(&World) -> bool) -> bool {
        let world = self.world;
        let mut context = Context::from_waker(Waker::noop());
        let mut ready = Vec::new();
        let mut patience_ns = patience_ns;
        loop {
            let (lane, before) = {
                let mut w = world.borrow_mut();
                if done(&w) {
                    return true;
                }
                ready.clear();
                ready.extend((0..w.lanes.len()).filter(|lane| w.lanes[*lane] == LaneState::Ready));
                let lane = match ready[..] {
                    [] => {
                        let idle = w.deadlines.values().min().map(|at| at.saturating_sub(w.clock));
                        let Some(idle) = idle.filter(|idle| *idle <= patience_ns) else {
                            w.clock += patience_ns;
                            return false;
                        };
                        patience_ns -= idle;
                        w.clock += idle;
                        w.wake();
                        continue;
                    }
                    [only] => only,
                    _ => ready[w.rng.below(ready.len())],
                };
                (lane, w.progress)
            };
            let over = self.futures[lane].as_mut().poll(&mut context).is_ready();
            if !world.borrow().jobs.is_empty() {
                self.spawn();
            }
            let mut w = world.borrow_mut();
            if over {
                // A request's task ends; a lane's never does.
                w.lanes[lane] = LaneState::Parked;
            }
            if w.progress != before {
                w.let_go();
                w.wake();
            }
        }
    }
}
