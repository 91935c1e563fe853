//! Which of several things goes with which of several others, when each may go with more than one?
//!
//! A bipartite matching by augmenting paths. What has a partner keeps having one, whatever is paired later; so those that must have one are
//! paired first. Knows nothing of signals or leases.

/// Pairs of `left` and `right`, each in at most one.
pub struct Pairing {
    /// For each of the left, which of the right may be its partner.
    edges: Vec<Vec<usize>>,
    left: Vec<Option<usize>>,
    right: Vec<Option<usize>>,
}

impl Pairing {
    /// Nobody has a partner yet.
    pub fn new(left: usize, right: usize, may: impl Fn(usize, usize) -> bool) -> Pairing {
        let edges = (0..left).map(|l| (0..right).filter(|r| may(l, *r)).collect()).collect();
        Pairing { edges, left: vec![None; left], right: vec![None; right] }
    }

    /// Gives one of the left a partner, if others can be found for those that stand in the way.
    pub fn pair_left(&mut self, l: usize) -> bool {
        let mut seen = vec![false; self.right.len()];
        self.left[l].is_some() || self.augment_left(l, &mut seen)
    }

    fn augment_left(&mut self, l: usize, seen: &mut [bool]) -> bool {
        for at in 0..self.edges[l].len() {
            let r = self.edges[l][at];
            if std::mem::replace(&mut seen[r], true) {
                continue;
            }
            if self.right[r].is_none_or(|other| self.augment_left(other, seen)) {
                self.left[l] = Some(r);
                self.right[r] = Some(l);
                return true;
            }
        }
        false
    }

    /// As `pair_left`, for one of the right.
    pub fn pair_right(&mut self, r: usize) -> bool {
        let mut seen = vec![false; self.left.len()];
        self.right[r].is_some() || self.augment_right(r, &mut seen)
    }

    fn augment_right(&mut self, r: usize, seen: &mut [bool]) -> bool {
        for l in 0..self.left.len() {
            if !self.edges[l].contains(&r) || std::mem::replace(&mut seen[l], true) {
                continue;
            }
            if self.left[l].is_none_or(|other| self.augment_right(other, seen)) {
                self.left[l] = Some(r);
                self.right[r] = Some(l);
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partner_is_given_up_for_another_when_somebody_has_no_choice() {
        let may = |l: usize, r: usize| [(0, 0), (0, 1), (1, 0)].contains(&(l, r));
        let mut pairing = Pairing::new(2, 2, may);
        assert!(pairing.pair_left(0) && pairing.pair_left(1));
        let mut pairing = Pairing::new(2, 2, may);
        assert!(pairing.pair_right(0) && pairing.pair_right(1));
        assert_eq!(pairing.left, [Some(1), Some(0)]);
    }

    #[test]
    fn who_was_paired_first_keeps_a_partner() {
        let mut pairing = Pairing::new(2, 1, |_, _| true);
        assert!(pairing.pair_left(1) && !pairing.pair_left(0) && pairing.pair_right(0));
        assert_eq!(pairing.left, [None, Some(0)]);
    }
}
