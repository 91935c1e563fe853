//! Draws from the fuzzer's bytes. Total: when the bytes run out, every draw gives its first choice.

use arbitrary::Unstructured;

/// A source of choices.
pub(crate) struct Dice<'a, 'b>(pub &'a mut Unstructured<'b>);

impl Dice<'_, '_> {
    /// A number below `n`, or 0.
    pub fn below(&mut self, n: u64) -> u64 {
        if n < 2 { 0 } else { self.0.int_in_range(0..=n - 1).unwrap_or(0) }
    }

    /// A number from `low` to `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True in about `percent` of 100 draws, and false when the bytes have run out.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) >= 100 - percent.min(100)
    }

    /// One of these, which must not be none.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// One of these, if there are any.
    pub fn pick_some<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| self.pick(from))
    }

    /// An index, with a probability proportional to its weight; 0 if all weights are.
    pub fn weighted(&mut self, weights: &[u32]) -> usize {
        let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        let mut left = self.below(total);
        for (index, weight) in weights.iter().enumerate() {
            match left.checked_sub(u64::from(*weight)) {
                Some(rest) => left = rest,
                None => return index,
            }
        }
        0
    }
}
