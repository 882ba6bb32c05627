//! What the control thread wants of the datasets: a place of its own, which is never full and never waited
//! for. Whoever looks late sees the last of it, and that there was a demotion before, if there was one.

use arc_swap::ArcSwap;
use hotpair_core::pair::identity::Epoch;

/// The role of this node, as far as datasets go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// It serves, in this epoch.
    pub(super) serving: Option<Epoch>,
    /// How often it was said.
    said: u64,
    demotions: u64,
}

impl Wish {
    /// Was anything said since?
    pub(super) fn is_newer(&self, before: &Wish) -> bool {
        self.said != before.said
    }

    /// Did it cease to serve since, if perhaps only in between?
    pub(super) fn demoted_since(&self, before: &Wish) -> bool {
        self.demotions != before.demotions
    }
}

/// See the file's header.
#[derive(Debug, Default)]
pub(super) struct Wanted(ArcSwap<Wish>);

impl Wanted {
    pub(super) fn promoted(&self, epoch: Epoch) {
        self.0.rcu(|wish| Wish { serving: Some(epoch), said: wish.said + 1, ..**wish });
    }

    pub(super) fn demoted(&self) {
        self.0.rcu(|wish| Wish {
            serving: None,
            said: wish.said + 1,
            demotions: wish.demotions + 1,
        });
    }

    pub(super) fn now(&self) -> Wish {
        **self.0.load()
    }
}
