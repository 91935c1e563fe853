//! A small register whose racing operations may have taken effect in any order: all states that some order explains.
//!
//! Used for sizes, positions, names and protections. Content has its own, cheaper rule (see `content.rs`).

use super::order::{Order, Span};

/// Most operations that may be in doubt at one time: 2^12 subsets are still cheap, and a program has at most four lanes and two children.
const OPS_MAX: usize = 12;
/// Most states that a subset may have before we give up.
const STATES_MAX: usize = 256;

/// A register of `S` changed by operations `O`.
#[derive(Clone, Debug)]
pub struct Lin<S, O> {
    base: Vec<S>,
    ops: Vec<(Span, O)>,
    overflow: bool,
}

/// How an operation acts: the states that it may leave, none if it could not have happened in this state.
pub trait Step<S> {
    /// Applies itself.
    fn step(&self, state: &S) -> Vec<S>;
}

impl<S: Clone + Ord, O: Step<S>> Lin<S, O> {
    /// A register in one known state.
    pub fn new(state: S) -> Self {
        Lin { base: vec![state], ops: Vec::new(), overflow: false }
    }

    /// Adds an operation when it is invoked. `settled` is the time before which no call is in flight any more: what ended
    /// before it is folded into the base.
    pub fn push(&mut self, span: Span, op: O, settled: u64, order: &Order) {
        if !self.ops.is_empty() && self.ops.iter().all(|(s, _)| s.ret < settled) {
            let all = (1usize << self.ops.len()) - 1;
            let states = self.reach(order).swap_remove(all);
            // No order explains the results: already reported when it was seen; go on from what is plausible.
            if !states.is_empty() {
                self.base = states;
            }
            self.ops.clear();
        }
        if self.ops.len() >= OPS_MAX {
            self.overflow = true;
            return;
        }
        self.ops.push((span, op));
    }

    /// Changes the operation of a call that is in flight (its result became clearer).
    pub fn amend(&mut self, call: u16, change: impl FnOnce(&mut O)) {
        if let Some((_, op)) = self.ops.iter_mut().rev().find(|(s, _)| s.call == call) {
            change(op);
        }
    }

    /// Forgets everything and is in one of `states`.
    pub fn reset(&mut self, states: Vec<S>) {
        self.base = states;
        self.ops.clear();
    }

    /// Whether too much was in doubt for an answer.
    pub fn overflowed(&self) -> bool {
        self.overflow
    }

    /// States after each downward-closed subset of the operations (others are empty).
    fn reach(&self, order: &Order) -> Vec<Vec<S>> {
        let n = self.ops.len();
        let mut needs = vec![0usize; n];
        for (i, (a, _)) in self.ops.iter().enumerate() {
            for (k, (b, _)) in self.ops.iter().enumerate() {
                if i != k && order.before(*b, *a) {
                    needs[i] |= 1 << k;
                }
            }
        }
        let mut states = vec![Vec::new(); 1 << n];
        states[0] = self.base.clone();
        for subset in 0..1usize << n {
            for i in 0..n {
                if subset & (1 << i) == 0 || (subset & !(1 << i)) & needs[i] != needs[i] {
                    continue;
                }
                let from = std::mem::take(&mut states[subset & !(1 << i)]);
                for state in &from {
                    for next in self.ops[i].1.step(state) {
                        if !states[subset].contains(&next) && states[subset].len() < STATES_MAX {
                            states[subset].push(next);
                        }
                    }
                }
                states[subset & !(1 << i)] = from;
            }
        }
        states
    }

    /// Every state that the register may have had at some moment of `span`, leaving out the operation of `without`. A moment
    /// counts only if some order explains all operations that are over by then.
    pub fn during(&self, span: Span, without: Option<u16>, order: &Order) -> Vec<S> {
        if self.ops.is_empty() {
            return self.base.clone();
        }
        let states = self.reach(order);
        let (mut must, mut may) = (0usize, 0usize);
        for (i, (op, _)) in self.ops.iter().enumerate() {
            if Some(op.call) == without {
                continue;
            }
            if order.before(*op, span) {
                must |= 1 << i;
            }
            if op.inv <= span.ret && !order.before(span, *op) {
                may |= 1 << i;
            }
        }
        let mut all = Vec::new();
        for (subset, states) in states.into_iter().enumerate() {
            if subset & must == must && subset & !(may | must) == 0 {
                for state in states {
                    if !all.contains(&state) {
                        all.push(state);
                    }
                }
            }
        }
        all.sort();
        all
    }

    /// States right before the call's operation took effect, or at any moment of the call if it has none (it failed).
    pub fn before_op(&self, span: Span, order: &Order) -> Vec<S> {
        let Some(index) = self.ops.iter().position(|(s, _)| s.call == span.call) else {
            return self.during(span, None, order);
        };
        let states = self.reach(order);
        let mut must = 0usize;
        for (i, (op, _)) in self.ops.iter().enumerate() {
            if i != index && order.before(*op, span) {
                must |= 1 << i;
            }
        }
        let mut all = Vec::new();
        for (subset, states) in states.into_iter().enumerate() {
            let later = self.ops.iter().enumerate().any(|(i, (op, _))| {
                subset & (1 << i) != 0 && i != index && order.before(span, *op)
            });
            if subset & (1 << index) == 0 && subset & must == must && !later {
                for state in states {
                    if !all.contains(&state) {
                        all.push(state);
                    }
                }
            }
        }
        all.sort();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug)]
    enum Op {
        Set(u64),
        Max(u64),
    }
    impl Step<u64> for Op {
        fn step(&self, s: &u64) -> Vec<u64> {
            vec![match self {
                Op::Set(x) => *x,
                Op::Max(x) => *s.max(x),
            }]
        }
    }

    fn span(inv: u64, ret: u64, call: u16) -> Span {
        Span { inv, ret, call }
    }

    #[test]
    fn a_race_gives_both_orders_and_real_time_gives_one() {
        let order = Order::default();
        let mut size = Lin::new(0u64);
        size.push(span(1, 4, 0), Op::Set(10), 1, &order);
        size.push(span(2, 5, 1), Op::Max(20), 1, &order);
        assert_eq!(size.during(span(6, 7, 9), None, &order), vec![10, 20]);
        assert_eq!(size.during(span(3, 3, 9), None, &order), vec![0, 10, 20]);
        size.push(span(8, 9, 2), Op::Set(5), 8, &order);
        assert_eq!(size.during(span(10, 11, 9), None, &order), vec![5]);
        assert_eq!(size.before_op(span(8, 9, 2), &order), vec![10, 20]);
    }

    #[test]
    fn an_operation_that_began_later_does_not_explain_an_earlier_moment() {
        let order = Order::default();
        let mut size = Lin::new(7u64);
        size.push(span(5, 6, 0), Op::Set(1), 5, &order);
        assert_eq!(size.during(span(2, 3, 9), None, &order), vec![7]);
    }
}
