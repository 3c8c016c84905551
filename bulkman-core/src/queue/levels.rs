//! The levels of the waiting keys of one priority.

use super::waiting_keys::NO_KEY;

/// The level of a key that is in none.
pub(super) const NO_LEVEL: u64 = u64::MAX;

/// Keys, identified by their indices, in the order of their levels. Those of one level are in the
/// order in which they entered it, and linked to each other.
// A sorted list, and not a tree: the keys that wait are at a handful of levels, unless their shares
// differ. The lowest one is not in memory elsewhere, since most releases and grants change it.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Levels {
    /// The lowest level; one without keys if there is none.
    lowest: Level,
    /// All others, the lowest last.
    higher: Vec<Level>,
}

/// The keys of one level.
#[derive(Clone, Copy, Debug)]
struct Level {
    level: u64,
    first: u32,
    last: u32,
}

/// The neighbors of a key among those of its level; `NO_KEY` for none.
// Apart from what else is known of a key: those of eight keys share a cache line. A key that moves
// to another place writes those of up to four others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Neighbors {
    before: u32,
    behind: u32,
}

impl Neighbors {
    pub(super) const NONE: Self = Self {
        before: NO_KEY,
        behind: NO_KEY,
    };
}

impl Level {
    const NONE: Self = Self {
        level: NO_LEVEL,
        first: NO_KEY,
        last: NO_KEY,
    };

    /// Appends a key to those of this level.
    fn append(&mut self, index: u32, neighbors: &mut [Neighbors]) {
        let before = std::mem::replace(&mut self.last, index);
        neighbors[index as usize] = Neighbors {
            before,
            ..Neighbors::NONE
        };
        neighbors[before as usize].behind = index;
    }

    /// Follows the departure of a key that was the first or the last one, and not alone.
    const fn unlink(&mut self, of: Neighbors) {
        if of.before == NO_KEY {
            self.first = of.behind;
        } else {
            self.last = of.before;
        }
    }
}

impl Default for Levels {
    fn default() -> Self {
        Self {
            lowest: Level::NONE,
            higher: Vec::new(),
        }
    }
}

impl Levels {
    /// Returns `true` if no key is in a level.
    pub(super) const fn is_empty(&self) -> bool {
        self.lowest.first == NO_KEY
    }

    /// Returns the lowest level that has keys; `NO_LEVEL` if there is none.
    pub(super) const fn lowest(&self) -> u64 {
        self.lowest.level
    }

    /// Returns the first key of the lowest level.
    pub(super) fn first(&self) -> Option<u32> {
        (!self.is_empty()).then_some(self.lowest.first)
    }

    /// Returns all keys, those of the lowest level first.
    pub(super) fn in_order<'a>(
        &'a self,
        neighbors: &'a [Neighbors],
    ) -> impl Iterator<Item = u32> + 'a {
        let levels = std::iter::once(&self.lowest).chain(self.higher.iter().rev());
        let present = |index: u32| (index != NO_KEY).then_some(index);
        levels.flat_map(move |level| {
            let behind = move |&index: &u32| present(neighbors[index as usize].behind);
            std::iter::successors(present(level.first), behind)
        })
    }

    /// Returns the number of levels in memory beside the lowest.
    #[cfg(all(test, not(bulkman_loom)))]
    pub(super) fn capacity(&self) -> usize {
        self.higher.capacity()
    }

    /// Moves a key from its level to another one, behind all others there. Each may be `NO_LEVEL`.
    pub(super) fn change(&mut self, index: u32, from: u64, to: u64, neighbors: &mut [Neighbors]) {
        if from != NO_LEVEL {
            let is_last = neighbors[index as usize].behind == NO_KEY;
            if from == to && is_last {
                return;
            }
            // Alone in the lowest level, which remains the lowest one.
            let is_lowest = self.lowest.first == index && is_last;
            if is_lowest && to != NO_LEVEL && self.higher.last().is_none_or(|it| to < it.level) {
                self.lowest.level = to;
                return;
            }
            self.leave(index, from, neighbors);
        }
        if to != NO_LEVEL {
            self.enter(index, to, neighbors);
        }
    }

    /// Appends a key that is in no level to the keys of this one.
    fn enter(&mut self, index: u32, level: u64, neighbors: &mut [Neighbors]) {
        let new = Level {
            level,
            first: index,
            last: index,
        };
        if level == self.lowest.level {
            self.lowest.append(index, neighbors);
            return;
        }
        neighbors[index as usize] = Neighbors::NONE;
        if self.is_empty() {
            self.lowest = new;
        } else if level < self.lowest.level {
            self.higher.push(std::mem::replace(&mut self.lowest, new));
        } else {
            let place = self.place_of(level);
            match self.higher.get_mut(place) {
                Some(keys) if keys.level == level => keys.append(index, neighbors),
                _ => self.higher.insert(place, new),
            }
        }
    }

    /// Removes a key from its level.
    fn leave(&mut self, index: u32, level: u64, neighbors: &mut [Neighbors]) {
        let own = neighbors[index as usize];
        if let Some(before) = neighbors.get_mut(own.before as usize) {
            before.behind = own.behind;
        }
        if let Some(behind) = neighbors.get_mut(own.behind as usize) {
            behind.before = own.before;
        }
        if own.before != NO_KEY && own.behind != NO_KEY {
            return;
        }
        let alone = own.before == own.behind;
        if level != self.lowest.level {
            let place = self.place_of(level);
            if alone {
                self.higher.remove(place);
            } else {
                self.higher[place].unlink(own);
            }
        } else if alone {
            self.lowest = self.higher.pop().unwrap_or(Level::NONE);
        } else {
            self.lowest.unlink(own);
        }
    }

    /// Returns the index of a higher level, or the one at which it has to be inserted.
    fn place_of(&self, level: u64) -> usize {
        // Keys that are granted permits, or release some, are usually at one of the lowest levels.
        match self.higher.last() {
            Some(lowest) if lowest.level > level => self.higher.len(),
            Some(lowest) if lowest.level == level => self.higher.len() - 1,
            _ => self.higher.partition_point(|it| it.level > level),
        }
    }
}
