//! What a campaign shows while it runs: a live block on a terminal, a plain line now and then elsewhere.
//!
//! Writes to standard error only; the summary on standard output is the campaign command's. Knows nothing that is not in a `Snapshot`.

use harness::campaign::{Config, Note, Observer, Saved, Snapshot};
use harness::report::{clock, share};
use harness::target::TargetStats;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::VecDeque;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// How often a plain line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Rates are those of about this long, so that they follow what is going on now.
const WINDOW: Duration = Duration::from_secs(10);
/// Times a second that the block is drawn.
const DRAWS_PER_S: u8 = 5;

/// The display of a campaign.
pub struct Live {
    /// The live block; hidden where there is no terminal.
    bar: ProgressBar,
    plain: bool,
    time: Option<Duration>,
    programs: Option<u64>,
    written: Instant,
    /// When how many programs and calls had been judged.
    past: VecDeque<(Instant, u64, u64)>,
    begun: Instant,
}

impl Live {
    /// The display of a campaign that is about to begin.
    pub fn new(config: &Config, saved: &Saved) -> Live {
        let plain = !std::io::stderr().is_terminal();
        let target = if plain {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr_with_hz(DRAWS_PER_S)
        };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(ProgressStyle::with_template("{msg}").expect("the template is constant"));
        let now = Instant::now();
        let mut live = Live {
            bar,
            plain,
            time: config.time,
            programs: config.programs,
            written: now,
            past: VecDeque::new(),
            begun: now,
        };
        let images: Vec<&str> = config.homes.iter().map(|home| home.name()).collect();
        let how = if config.guided { "guided" } else { "unguided" };
        let seed = config.seed;
        live.line(&format!("{how} campaign with seed {seed:#x} on {}", images.join(", ")));
        let (seconds, drawn) = saved.so_far();
        if drawn > 0 {
            let had = clock::duration(Duration::try_from_secs_f64(seconds).unwrap_or_default());
            live.line(&format!("going on after {drawn} programs and {had}"));
        }
        live
    }

    /// Takes the live block away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn line(&mut self, text: &str) {
        if self.plain {
            eprintln!("{text}");
        } else {
            self.bar.println(text);
        }
    }

    /// Programs and calls a second, over the window.
    fn rates(&mut self, snapshot: &Snapshot) -> (f64, f64) {
        let now = Instant::now();
        let totals = &snapshot.totals;
        self.past.push_back((now, totals.judged, totals.calls));
        while self.past.len() > 2 && self.past[1].0 + WINDOW < now {
            self.past.pop_front();
        }
        let (then, judged, calls) = self.past[0];
        let seconds = (now - then).as_secs_f64().max(0.001);
        ((totals.judged - judged) as f64 / seconds, (totals.calls - calls) as f64 / seconds)
    }

    fn clock(&self, snapshot: &Snapshot) -> String {
        let elapsed = Duration::from_secs_f64(snapshot.seconds);
        match (self.time, self.programs) {
            (_, Some(programs)) => format!("{}/{programs} programs", snapshot.totals.judged),
            (Some(time), None) => {
                format!("{}/{}", clock::duration(elapsed.min(time)), clock::duration(time))
            }
            (None, None) => clock::duration(elapsed),
        }
    }
}

impl Observer for Live {
    fn note(&mut self, note: &Note) {
        let line = match note {
            Note::Progress(worker, what) => format!("guest {worker}: {what}"),
            Note::Ready(worker, info) => format!(
                "guest {worker}: ready after {}: {} ({}, {}, {})",
                clock::duration(self.begun.elapsed()),
                info.release,
                info.kernel,
                info.accel,
                info.mode
            ),
            Note::Retry(worker, what, pause) => {
                format!("guest {worker}: {what}; again in {}", clock::duration(*pause))
            }
            Note::Found(headline, folder) => {
                format!("found: {headline}\n       {}", folder.display())
            }
            Note::Unsaved(what, program) => {
                format!("not saved: {what}; its program:\n{}", program.trim_end())
            }
            Note::Corpus(line) => line.clone(),
            Note::Ending(why) => format!("ending: {why}; waiting for the programs at hand"),
        };
        self.line(&line);
    }

    fn tick(&mut self, snapshot: &Snapshot) {
        if !snapshot.ready {
            self.bar.set_message(format!(
                "getting ready, {} so far",
                clock::duration(self.begun.elapsed())
            ));
            return;
        }
        let (programs, calls) = self.rates(snapshot);
        let totals = &snapshot.totals;
        let stats = sum(snapshot);
        let kinds: Vec<String> =
            snapshot.kinds.iter().map(|(kind, count)| format!("{kind:?} {count}")).collect();
        let reasons: Vec<String> =
            totals.reasons.iter().map(|(reason, count)| format!("{reason:?} {count}")).collect();
        let detail = |list: &[String]| match list {
            [] => String::new(),
            list => format!(" ({})", list.join(", ")),
        };
        let rates = format!(
            "{}  {} programs ({programs:.0}/s), {} calls ({calls:.0}/s), {} of guest time in kernel calls, {} resets",
            self.clock(snapshot),
            totals.judged,
            totals.calls,
            share(&stats),
            stats.resets
        );
        let verdicts = format!(
            "{}; {} explained, {} inconclusive{}, {} anomalous{}",
            snapshot.search.to_words(),
            totals.explained,
            totals.inconclusive,
            detail(&reasons),
            totals.anomalous,
            detail(&kinds)
        );
        if !self.plain {
            self.bar.set_message(format!("{rates}\n{verdicts}"));
        } else if self.written.elapsed() >= LINE_EVERY {
            self.written = Instant::now();
            eprintln!("{rates}; {verdicts}");
        }
    }
}

/// All targets together.
fn sum(snapshot: &Snapshot) -> TargetStats {
    let mut sum = TargetStats::default();
    for target in &snapshot.targets {
        sum.kernel_ns += target.stats.kernel_ns;
        sum.busy_ns += target.stats.busy_ns;
        sum.resets += target.stats.resets;
    }
    sum
}
